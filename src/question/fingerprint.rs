//! What two commands must have in common for the second to go on with the sweep of the first.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::base::bounded_file::read_bounded;
use crate::question::config::builtin_model_config;
use crate::question::plan::Plan;

/// Larger files of a model are not read: their name, size and time of change stand for them.
const MAX_READ_BYTES: u64 = 1 << 20;
/// Longest name of a revision that is read.
const MAX_REVISION_BYTES: u64 = 4096;

/// Files of a folder at most; one with more, the root of a disk perhaps, is not told from another.
const MAX_FILES: usize = 10_000;

/// Flags whose folders vLLM writes into, so that their content says nothing of the engine.
const WRITTEN_FOLDERS: [&str; 1] = ["--download-dir"];

/// Everything that runs of one sweep must share: words, and SHA-256 digests in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Digest of the resolved configuration, with its seeds and orders, and of the script of a scripted engine.
    pub configuration: String,
    /// Versions of bench, of the sidecar's files, of Python and of vLLM, in words.
    pub engine_build: String,
    /// Digest of the files of all models; null where a model is on the hub and not on this machine.
    pub model_files: Option<String>,
    /// Digests of the files and folders that `args` name, by name; null in records of older versions.
    #[serde(default)]
    pub argument_files: Option<BTreeMap<String, String>>,
    /// The machine, and the cores that measure, in words.
    pub host: String,
}

impl Fingerprint {
    /// Of a plan and what it is measured with; `script` is that of a scripted engine.
    pub fn of(plan: &Plan, script: Option<&impl Serialize>, engine_build: String, host: String) -> Fingerprint {
        let models: BTreeSet<&str> = plan.epochs.iter().map(|epoch| epoch.key.model.as_str()).collect();
        Fingerprint {
            configuration: digest(&serde_json::json!({"plan": plan, "script": script}).to_string()),
            engine_build,
            model_files: models.into_iter().map(model_files).collect::<Option<String>>().map(|text| digest(&text)),
            argument_files: Some(plan.epochs.iter().flat_map(|epoch| named_files(&epoch.key.engine_args)).collect()),
            host,
        }
    }

    /// In what `now` differs, in words; what is not known of one of them is no difference.
    pub fn differences(&self, now: &Fingerprint) -> Vec<String> {
        let models_differ = matches!((&self.model_files, &now.model_files), (Some(then), Some(now)) if then != now);
        let argument_files = self.argument_files.as_ref().zip(now.argument_files.as_ref());
        let changed = argument_files.map(|(then, now)| differing_names(then, now)).filter(|names| !names.is_empty());
        let words = |what: &str, then: &str, now: &str| (then != now).then(|| format!("{what} ({then}; now {now})"));
        let differences = [
            (self.configuration != now.configuration).then(|| "the configuration".to_owned()),
            words("the engine's build", &self.engine_build, &now.engine_build),
            models_differ.then(|| "the model's files".to_owned()),
            changed.map(|names| format!("files that `args` name: {}", names.join(", "))),
            words("the machine or its cores", &self.host, &now.host),
        ];
        differences.into_iter().flatten().collect()
    }
}

/// Digests of the files and folders that words of an engine's arguments name, by name: whole words, what follows a `=`, and
/// values in JSON. Names are relative to the working folder, as they are for the engine. The name of a model on the hub
/// stands for its files in the cache, if it has any there.
///
/// What decides is the content, so that a path is no part of an engine's identity and its digest is.
pub fn named_files(args: &[String]) -> BTreeMap<String, String> {
    let mut names = BTreeSet::new();
    let mut before = "";
    for word in args {
        let (flag, value) = match word.split_once('=').filter(|_| word.starts_with('-')) {
            Some((flag, value)) => (flag, value),
            None => (before, word.as_str()),
        };
        before = word;
        let flag = flag.replace('_', "-");
        if WRITTEN_FOLDERS.contains(&flag.as_str()) {
            continue;
        }
        add_names(value, &mut names);
        if flag == "--config" {
            let text = read_bounded(Path::new(value), MAX_READ_BYTES).unwrap_or_default();
            add_names_of_file(&String::from_utf8_lossy(&text), &mut names);
        }
    }
    names.into_iter().filter_map(|name| named_digest(&name).map(|digest| (name, digest))).collect()
}

/// Adds what may name a file: the word, its parts around `=`, and the texts in it if it is JSON.
fn add_names(word: &str, names: &mut BTreeSet<String>) {
    names.insert(word.to_owned());
    match serde_json::from_str(word) {
        Ok(json) => add_texts(&json, names),
        Err(_) => names.extend(word.split_once('=').map(|(_, value)| value.to_owned())),
    }
}

/// Adds every word of a file of `--config` that may name a file. Such a file is YAML, a flag without its `--` a key.
fn add_names_of_file(text: &str, names: &mut BTreeSet<String>) {
    let ends = |c: char| c.is_whitespace() || "'\"[]{},".contains(c);
    let mut before = String::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
        for word in line.split(ends).filter(|word| word.contains(char::is_alphanumeric)) {
            if !WRITTEN_FOLDERS.contains(&before.as_str()) {
                names.insert(word.to_owned());
            }
            before = format!("--{}", word.trim_end_matches(':').replace('_', "-"));
        }
    }
}

fn add_texts(json: &serde_json::Value, names: &mut BTreeSet<String>) {
    match json {
        serde_json::Value::String(text) => drop(names.insert(text.clone())),
        serde_json::Value::Array(parts) => parts.iter().for_each(|part| add_texts(part, names)),
        serde_json::Value::Object(parts) => parts.values().for_each(|part| add_texts(part, names)),
        _ => (),
    }
}

/// The digest of what a name stands for; `None` if it is no name of a file, a folder or a model in the hub's cache.
fn named_digest(name: &str) -> Option<String> {
    let path = Path::new(name);
    if path.is_file() {
        return Some(digest(&line(path.parent().unwrap_or(Path::new("")), path)));
    }
    let is_on_hub = || name.matches('/').count() == 1 && !name.starts_with(['-', '/', '.']);
    let folder = if path.is_dir() { path.to_owned() } else { is_on_hub().then(|| hub_snapshot(name))?? };
    Some(digest(&folder_lines(&folder)))
}

/// The names that have another digest in one than in the other, or none.
fn differing_names(one: &BTreeMap<String, String>, other: &BTreeMap<String, String>) -> Vec<String> {
    let names: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    names.into_iter().filter(|name| one.get(*name) != other.get(*name)).cloned().collect()
}

/// A line for each file of a folder, in the order of their names.
fn folder_lines(folder: &Path) -> String {
    let mut files = Vec::new();
    list(folder, &mut files);
    if files.len() > MAX_FILES {
        return format!("more than {MAX_FILES} files\n"); // which of them were listed depends on the file system
    }
    files.sort();
    files.iter().map(|path| line(folder, path)).collect()
}

/// What stands for the files of a model; `None` for one that is not on this machine.
fn model_files(model: &str) -> Option<String> {
    if let Some(config) = builtin_model_config(model) {
        return Some(format!("{model}\n{}\n", config.unwrap_or_default()));
    }
    let folder = Path::new(model);
    let folder = if folder.is_dir() { folder.to_owned() } else { hub_snapshot(model)? };
    Some(format!("{model}\n{}", folder_lines(&folder)))
}

/// The folder of a hub's model in the cache that vLLM reads, as Hugging Face lays it out.
fn hub_snapshot(model: &str) -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = variable("HF_HUB_CACHE")
        .or_else(|| variable("HF_HOME").map(|home| home.join("hub")))
        .or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("huggingface/hub")))
        .or_else(|| variable("HOME").map(|home| home.join(".cache/huggingface/hub")))?;
    let folder = cache.join(format!("models--{}", model.replace('/', "--")));
    let revision = String::from_utf8(read_bounded(&folder.join("refs/main"), MAX_REVISION_BYTES).ok()?).ok()?;
    Some(folder.join("snapshots").join(revision.trim())).filter(|snapshot| snapshot.is_dir())
}

fn list(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if files.len() > MAX_FILES {
            return;
        }
        let path = entry.path();
        // A link inside a model, as in the hub's cache, leads to a file; a linked folder could lead anywhere.
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => list(&path, files),
            _ => files.push(path),
        }
    }
}

fn line(folder: &Path, path: &Path) -> String {
    let name = path.strip_prefix(folder).unwrap_or(path).display();
    let Ok(metadata) = fs::metadata(path) else { return format!("{name} unreadable\n") };
    let content = (metadata.len() <= MAX_READ_BYTES).then(|| read_bounded(path, MAX_READ_BYTES));
    match content {
        Some(Ok(content)) => format!("{name} {}\n", hex(&Sha256::digest(&content))),
        _ => {
            let changed = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            format!("{name} {} {}\n", metadata.len(), changed.unwrap_or_default().as_nanos())
        }
    }
}

fn digest(text: &str) -> String {
    hex(&Sha256::digest(text))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_a_new_and_a_renamed_file_of_a_model_are_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let files = || model_files(folder.path().to_str().unwrap()).unwrap();
        fs::write(path("config.json"), "{}").unwrap();
        fs::create_dir(path("weights")).unwrap();
        fs::File::create(path("weights/large")).unwrap().set_len(MAX_READ_BYTES + 1).unwrap();
        let mut seen = BTreeSet::from([files()]);
        assert!(!seen.insert(files()), "the same files are the same");
        fs::write(path("config.json"), "[]").unwrap();
        assert!(seen.insert(files()));
        fs::File::options().write(true).open(path("weights/large")).unwrap().set_len(MAX_READ_BYTES + 2).unwrap();
        assert!(seen.insert(files()));
        fs::rename(path("weights/large"), path("weights/other")).unwrap();
        assert!(seen.insert(files()));
    }

    #[test]
    fn edited_file_is_noticed_wherever_a_word_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("named.yaml");
        let (name, inside) = (path.display().to_string(), folder.path().display().to_string());
        let config = folder.path().join("config.yaml");
        let in_file = &format!("speculative-config:\n  model: '{name}'\n");
        for (config_text, args) in [
            ("", vec!["--config".to_owned(), name.clone()]),
            ("", vec![format!("--chat-template={name}")]),
            ("", vec!["--tokenizer".to_owned(), inside.clone()]),
            ("", vec!["--lora-modules".to_owned(), format!("a={inside}")]),
            ("", vec![format!(r#"--speculative-config={{"model": "{inside}"}}"#)]),
            ("", vec!["--speculative-config".to_owned(), format!(r#"{{"a": [{{"b": "{name}"}}]}}"#)]),
            ("", vec!["--speculative-config.model".to_owned(), name.clone()]),
            (in_file, vec!["--config".to_owned(), config.display().to_string()]),
            (in_file, vec![format!("--config={}", config.display())]),
        ] {
            fs::write(&config, config_text).unwrap();
            fs::write(&path, "one").unwrap();
            let before = named_files(&args);
            assert_eq!(before, named_files(&args));
            fs::write(&path, "two").unwrap();
            let after = named_files(&args);
            assert_ne!(before, after, "{args:?}");
            let known = |argument_files| Fingerprint {
                configuration: String::new(),
                engine_build: String::new(),
                model_files: None,
                argument_files,
                host: String::new(),
            };
            let differences = known(Some(before)).differences(&known(Some(after)));
            assert!(differences[0].starts_with("files that `args` name: /"), "{differences:?}");
            assert!(
                known(None).differences(&known(Some(BTreeMap::new()))).is_empty(),
                "an unknown digest differs from nothing"
            );
        }
        for args in [
            vec!["--download-dir".to_owned(), inside.clone()],
            vec!["--download_dir".to_owned(), inside.clone()],
            vec![format!("--download-dir={inside}")],
        ] {
            assert!(named_files(&args).is_empty(), "vLLM writes there: {args:?}");
        }
        let of_file = |text: &str| {
            fs::write(&config, text).unwrap();
            named_files(&[format!("--config={}", config.display())]).into_keys().collect::<Vec<_>>()
        };
        let config_name = config.display().to_string();
        assert_eq!(of_file(&format!("download_dir: {inside}\n# {name}\n")), std::slice::from_ref(&config_name));
        // The working folder of tests is the package's.
        assert_eq!(of_file("chat-template: Cargo.toml\n"), [config_name, "Cargo.toml".to_owned()]);
        assert!(named_files(&["--max-num-seqs".to_owned(), "no such file".to_owned()]).is_empty());
    }

    #[test]
    fn a_model_that_is_not_here_is_not_known_and_no_difference() {
        assert_eq!(model_files("nobody/has-this-model"), None);
        let known = Fingerprint {
            configuration: "1".to_owned(),
            engine_build: "2".to_owned(),
            model_files: Some("3".to_owned()),
            argument_files: None,
            host: "4".to_owned(),
        };
        let unknown = Fingerprint { model_files: None, ..known.clone() };
        assert!(known.differences(&unknown).is_empty() && unknown.differences(&known).is_empty());
        let other = Fingerprint { model_files: Some("5".to_owned()), host: "6".to_owned(), ..known.clone() };
        assert_eq!(known.differences(&other), ["the model's files", "the machine or its cores (4; now 6)"]);
    }
}
