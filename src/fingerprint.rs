//! What two commands must have in common for the second to go on with the sweep of the first.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::bounded_file::read_bounded;
use crate::config::builtin_model_config;
use crate::plan::Plan;

/// Larger files of a model are not read: their name, size and time of change stand for them.
const MAX_READ_BYTES: u64 = 1 << 20;
/// Longest name of a revision that is read.
const MAX_REVISION_BYTES: u64 = 4096;

/// Everything that runs of one sweep must share: words, and SHA-256 digests in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// Digest of the resolved configuration, with its seeds and orders, and of the script of a scripted engine.
    pub configuration: String,
    /// Versions of bench, of the sidecar's files, of Python and of vLLM, in words.
    pub engine_build: String,
    /// Digest of the files of all models; null where a model is on the hub and not on this machine.
    pub model_files: Option<String>,
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
            host,
        }
    }

    /// In what `now` differs, in words; what is not known of one of them is no difference.
    pub fn differences(&self, now: &Fingerprint) -> Vec<String> {
        let models_differ = matches!((&self.model_files, &now.model_files), (Some(then), Some(now)) if then != now);
        let words = |what: &str, then: &str, now: &str| (then != now).then(|| format!("{what} ({then}; now {now})"));
        let differences = [
            (self.configuration != now.configuration).then(|| "the configuration".to_owned()),
            words("the engine's build", &self.engine_build, &now.engine_build),
            models_differ.then(|| "the model's files".to_owned()),
            words("the machine or its cores", &self.host, &now.host),
        ];
        differences.into_iter().flatten().collect()
    }
}

/// What stands for the files of a model; `None` for one that is not on this machine.
fn model_files(model: &str) -> Option<String> {
    if let Some(config) = builtin_model_config(model) {
        return Some(format!("{model}\n{}\n", config.unwrap_or_default()));
    }
    let folder = Path::new(model);
    let folder = if folder.is_dir() { folder.to_owned() } else { hub_snapshot(model)? };
    let mut files = Vec::new();
    list(&folder, &mut files);
    files.sort();
    let lines = files.iter().map(|path| line(&folder, path));
    Some(format!("{model}\n{}", lines.collect::<String>()))
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
    match read_bounded(path, MAX_READ_BYTES) {
        Ok(content) => format!("{name} {}\n", hex(&Sha256::digest(&content))),
        Err(_) => {
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
    fn a_model_that_is_not_here_is_not_known_and_no_difference() {
        assert_eq!(model_files("nobody/has-this-model"), None);
        let known = Fingerprint {
            configuration: "1".to_owned(),
            engine_build: "2".to_owned(),
            model_files: Some("3".to_owned()),
            host: "4".to_owned(),
        };
        let unknown = Fingerprint { model_files: None, ..known.clone() };
        assert!(known.differences(&unknown).is_empty() && unknown.differences(&known).is_empty());
        let other = Fingerprint { model_files: Some("5".to_owned()), host: "6".to_owned(), ..known.clone() };
        assert_eq!(known.differences(&other), ["the model's files", "the machine or its cores (4; now 6)"]);
    }
}
