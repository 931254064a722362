//! The installed Python that a managed environment is made with.

use std::path::PathBuf;

use crate::machine::device::versions;
use crate::machine::environment::host::Host;
use crate::machine::environment::interpreter::{PythonVersion, ask_isolated};
use crate::machine::environment::{EnvironmentError, Lock};

/// What is needed to make an environment.
const MODULES: [&str; 2] = ["venv", "ensurepip"];

/// An interpreter that can make environments.
#[derive(Debug)]
pub(super) struct BasePython {
    pub(super) path: PathBuf,
    /// Its minor version (of 3).
    pub(super) minor: u8,
}

impl BasePython {
    /// The first suitable Python on PATH: `python3` before those with a version in their name, and those before what
    /// pyenv keeps.
    ///
    /// # Errors
    /// When none has a version that the lock file supports, or none of those can make environments.
    pub(super) fn find(host: &Host, lock: &Lock) -> Result<Self, EnvironmentError> {
        let minors = lock.python_minors.clone();
        let names =
            std::iter::once("python3".into()).chain(minors.clone().rev().map(|minor| format!("python3.{minor}")));
        let mut without_venv = None;
        let mut tried = Vec::new();
        let on_path = names.flat_map(|name: String| host.programs(&name));
        let of_pyenv = minors.clone().rev().flat_map(|minor| host.pyenv_pythons(minor));
        for path in on_path.chain(of_pyenv) {
            // Shims of version managers are on PATH without a Python behind them, too.
            let facts = match ask_isolated(&path, host, &MODULES) {
                Ok(facts) => facts,
                Err(limit @ EnvironmentError::NoResources { .. }) => return Err(limit),
                Err(_) => continue,
            };
            let Some(minor) = supported(facts.python, lock) else {
                tried.push(format!("{} {}", path.display(), facts.python));
                continue;
            };
            match MODULES.into_iter().find(|module| !facts.has(module)) {
                None => return Ok(Self { path: facts.behind(path), minor }),
                Some(module) => {
                    without_venv.get_or_insert(EnvironmentError::NoVenv { path, python: facts.python, module });
                }
            }
        }
        let needed = versions(&minors);
        Err(without_venv.unwrap_or(EnvironmentError::NoBasePython { needed, tried }))
    }
}

fn supported(python: PythonVersion, lock: &Lock) -> Option<u8> {
    let minor = u8::try_from(python.minor).ok()?;
    (python.major == 3 && lock.python_minors.contains(&minor)).then_some(minor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::device::DeviceClass;
    use crate::machine::environment::testing::write_script;

    /// A host whose PATH holds scripts that answer as Pythons of these versions and modules would.
    fn host(pythons: &[(&str, &str, &str)]) -> (tempfile::TempDir, Host) {
        let folder = tempfile::tempdir().unwrap();
        for (name, version, modules) in pythons {
            let json =
                format!(r#"{{"executable": "", "python": [{version}], "modules": [{modules}], "packages": {{}}}}"#);
            write_script(&folder.path().join(name), &[&format!("echo 'bench-probe {json}'")]);
        }
        let host = Host::new([]).with("PATH", folder.path());
        (folder, host)
    }

    fn find(host: &Host) -> Result<BasePython, EnvironmentError> {
        BasePython::find(host, &Lock::of_device(DeviceClass::Cpu))
    }

    const ALL: &str = r#""venv", "ensurepip""#;

    #[test]
    fn python3_is_preferred_and_an_unsupported_one_is_passed_over() {
        let (_folder, both) = host(&[("python3", "3, 11, 2", ALL), ("python3.13", "3, 13, 0", ALL)]);
        assert_eq!(find(&both).unwrap().minor, 11);
        let (folder, newer) = host(&[("python3", "3, 14, 0", ALL), ("python3.12", "3, 12, 4", ALL)]);
        let found = find(&newer).unwrap();
        assert_eq!((found.minor, found.path), (12, folder.path().join("python3.12")));
    }

    #[test]
    fn what_pyenv_keeps_is_found_though_its_shims_lead_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        let probe = |version: &str| {
            let json = format!(r#"{{"executable": "", "python": [{version}], "modules": [{ALL}], "packages": {{}}}}"#);
            format!("echo 'bench-probe {json}'")
        };
        std::fs::create_dir(folder.path().join("shims")).unwrap();
        write_script(&folder.path().join("shims/python3"), &[&probe("3, 9, 2")]);
        for (name, version) in [("3.12.9", "3, 12, 9"), ("3.12.10", "3, 12, 10"), ("3.14.0", "3, 14, 0")] {
            let bin = folder.path().join("versions").join(name).join("bin");
            std::fs::create_dir_all(&bin).unwrap();
            write_script(&bin.join("python3"), &[&probe(version)]);
        }
        std::fs::create_dir(folder.path().join("versions/3.13.1")).unwrap();
        let found = find(&Host::new([]).with("PATH", folder.path().join("shims"))).unwrap();
        assert_eq!((found.minor, found.path), (12, folder.path().join("versions/3.12.10/bin/python3")));
    }

    #[test]
    fn without_a_supported_version_the_error_says_what_was_found() {
        let (_folder, old) = host(&[("python3", "3, 9, 2", ALL)]);
        let error = find(&old).unwrap_err().to_string();
        assert!(error.contains("no Python 3.11 to 3.13 on PATH") && error.contains("python3 3.9.2"), "{error}");
        let (_folder, none) = host(&[]);
        assert!(find(&none).unwrap_err().to_string().contains("none was found"));
    }

    #[test]
    fn without_ensurepip_the_error_names_the_package_to_install() {
        let (_folder, bare) = host(&[("python3", "3, 11, 2", r#""venv""#)]);
        let error = find(&bare).unwrap_err();
        assert!(matches!(error, EnvironmentError::NoVenv { module: "ensurepip", .. }), "{error}");
        assert!(error.to_string().contains("python3.11-venv"), "{error}");
    }
}
