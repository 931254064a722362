//! The user's side of an environment: variables, programs on PATH, the cache folder and its disk.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::statvfs::statvfs;
use nix::unistd::{AccessFlags, access};

use crate::base::owned_folder::{is_own, is_safe_from_others};
use crate::machine::environment::EnvironmentError;

/// The environment variables of the user, and what follows from them. Every process that this module starts gets
/// exactly these variables.
#[derive(Clone, Debug)]
pub struct Host {
    variables: BTreeMap<OsString, OsString>,
}

impl Host {
    /// The host as the calling process sees it.
    pub fn of_process() -> Self {
        Self::new(std::env::vars_os())
    }

    /// A host with the given variables.
    pub fn new(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        Self { variables: variables.into_iter().collect() }
    }

    /// The same host with one variable set.
    pub fn with(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }

    /// The same host without one variable.
    pub fn without(mut self, name: &str) -> Self {
        self.variables.remove(OsStr::new(name));
        self
    }

    /// A variable that is set and not empty.
    pub fn variable(&self, name: &str) -> Option<&OsStr> {
        self.variables.get(OsStr::new(name)).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }

    /// A variable that is an absolute path: the XDG specification has relative ones ignored.
    fn absolute(&self, name: &str) -> Option<PathBuf> {
        self.variable(name).map(PathBuf::from).filter(|path| path.is_absolute())
    }

    /// `PYTHONPATH` for an interpreter that the user has given, without empty entries: Python takes those for the folder
    /// where the user stands. None without a folder in it, or where it is not UTF-8.
    pub fn python_path(&self) -> Option<String> {
        let folders: Vec<&str> =
            self.variable("PYTHONPATH")?.to_str()?.split(':').filter(|it| !it.is_empty()).collect();
        (!folders.is_empty()).then(|| folders.join(":"))
    }

    /// Where `bench` keeps what it can make again: `$BENCH_CACHE_DIR`, else `$XDG_CACHE_HOME/bench`, else
    /// `~/.cache/bench`. Programs in it are run: it must not be another user's.
    ///
    /// # Errors
    /// When none of the variables is an absolute path, or others can write into the folder.
    pub fn cache_dir(&self) -> Result<PathBuf, EnvironmentError> {
        let cache = self
            .absolute("BENCH_CACHE_DIR")
            .or_else(|| self.absolute("XDG_CACHE_HOME").map(|cache| cache.join("bench")))
            .or_else(|| self.absolute("HOME").map(|home| home.join(".cache/bench")))
            .ok_or(EnvironmentError::NoCacheFolder)?;
        let with_programs = ["assets", "envs", "tools"].map(|name| cache.join(name));
        [&cache].into_iter().chain(&with_programs).try_for_each(|folder| refuse_unsafe(folder))?;
        Ok(cache)
    }

    /// `$XDG_RUNTIME_DIR`, where it is what the XDG specification says: a folder of this user's that nobody else writes into.
    pub fn runtime_dir(&self) -> Option<PathBuf> {
        let folder = self.absolute("XDG_RUNTIME_DIR")?;
        let status = fs::metadata(&folder).ok()?;
        (status.is_dir() && is_own(&status) && is_safe_from_others(&status)).then_some(folder)
    }

    /// Where temporary files go: `$TMPDIR`, else `/tmp`.
    pub fn temporary_dir(&self) -> PathBuf {
        self.absolute("TMPDIR").unwrap_or_else(|| PathBuf::from("/tmp"))
    }

    /// Whether uv has a configuration file of the user or of the system.
    pub(super) fn has_uv_config(&self) -> bool {
        let user = self.variable("XDG_CONFIG_HOME").map(PathBuf::from);
        let user = user.or_else(|| self.variable("HOME").map(|home| Path::new(home).join(".config")));
        [user, Some(PathBuf::from("/etc"))].into_iter().flatten().any(|folder| folder.join("uv/uv.toml").exists())
    }

    /// Every executable of this name on PATH, in the order of PATH.
    pub(super) fn programs(&self, name: &str) -> Vec<PathBuf> {
        let Some(path) = self.variable("PATH") else { return Vec::new() };
        std::env::split_paths(path).map(|folder| folder.join(name)).filter(|file| is_executable(file)).collect()
    }

    /// Pythons of this minor version that pyenv keeps where its shims are on PATH, the newest first. The shims themselves only
    /// lead to the version that the user has chosen.
    pub(super) fn pyenv_pythons(&self, minor: u8) -> Vec<PathBuf> {
        let path = self.variable("PATH").unwrap_or_default();
        let shims = std::env::split_paths(path).filter(|folder| folder.ends_with("shims"));
        let kept = shims.filter_map(|folder| fs::read_dir(folder.parent()?.join("versions")).ok());
        let mut found: Vec<(u32, PathBuf)> = kept
            .flat_map(|versions| versions.flatten())
            .filter_map(|version| {
                let patch = version.file_name().to_str()?.strip_prefix(&format!("3.{minor}."))?.parse().ok()?;
                Some((patch, version.path().join("bin/python3")))
            })
            .filter(|(_, python)| is_executable(python))
            .collect();
        found.sort_by_key(|(patch, _)| std::cmp::Reverse(*patch));
        found.into_iter().map(|(_, python)| python).collect()
    }

    /// A command that will get the host's variables, and no others; without those with which no Python works, which the
    /// sidecar does not get either.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs(&self.variables).env_remove("PYTHONHOME").env_remove("PYTHONWARNINGS");
        command
    }
}

/// A folder that is there must be safe from other users; one that is not is made so.
fn refuse_unsafe(folder: &Path) -> Result<(), EnvironmentError> {
    match fs::metadata(folder) {
        Ok(status) if !is_safe_from_others(&status) => {
            Err(EnvironmentError::NotOwn { folder: folder.into(), owner: status.uid(), mode: status.mode() & 0o777 })
        }
        // Whoever needs it says why it cannot be had.
        _ => Ok(()),
    }
}

/// Whether this process may run the file.
pub(super) fn is_executable(file: &Path) -> bool {
    file.is_file() && access(file, AccessFlags::X_OK).is_ok()
}

/// Bytes that an ordinary user may still write to the disk of this folder.
///
/// # Errors
/// When the system does not say.
pub(super) fn free_bytes(folder: &Path) -> Result<u64, EnvironmentError> {
    let disk = statvfs(folder).map_err(|errno| EnvironmentError::io("ask the free space of", folder)(errno.into()))?;
    Ok(disk.blocks_available() * disk.fragment_size())
}

/// Bytes in all files below a folder; what cannot be read counts nothing.
pub(super) fn used_bytes(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => used_bytes(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn host(variables: &[(&str, &str)]) -> Host {
        Host::new(variables.iter().map(|(name, value)| (name.into(), value.into())))
    }

    #[test]
    fn the_cache_folder_is_the_most_specific_absolute_path() {
        let all = host(&[("BENCH_CACHE_DIR", "/a"), ("XDG_CACHE_HOME", "/b"), ("HOME", "/c")]);
        assert_eq!(all.cache_dir().unwrap(), Path::new("/a"));
        assert_eq!(all.clone().without("BENCH_CACHE_DIR").cache_dir().unwrap(), Path::new("/b/bench"));
        let relative = all.with("BENCH_CACHE_DIR", "").with("XDG_CACHE_HOME", "relative");
        assert_eq!(relative.clone().cache_dir().unwrap(), Path::new("/c/.cache/bench"));
        assert!(matches!(relative.without("HOME").cache_dir(), Err(EnvironmentError::NoCacheFolder)));
    }

    #[test]
    fn a_cache_that_others_can_write_into_is_refused_with_owner_and_mode() {
        let folder = tempfile::tempdir().unwrap();
        let of_user = host(&[]).with("BENCH_CACHE_DIR", folder.path());
        let set_mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        set_mode(folder.path(), 0o755);
        assert_eq!(of_user.cache_dir().unwrap(), folder.path());
        fs::create_dir(folder.path().join("envs")).unwrap();
        for path in [folder.path().join("envs"), folder.path().to_owned()] {
            set_mode(&path, 0o775);
            let error = of_user.cache_dir().unwrap_err().to_string();
            assert!(error.contains(&format!("chmod go-w {}", path.display())) && error.contains("mode 775"), "{error}");
            set_mode(&path, 0o755);
        }
        if nix::unistd::getuid().is_root() {
            std::os::unix::fs::chown(folder.path(), Some(65_534), None).unwrap();
            let error = of_user.cache_dir().unwrap_err().to_string();
            assert!(error.contains("belongs to user id 65534") && error.contains("BENCH_CACHE_DIR"), "{error}");
        }
    }

    #[test]
    fn empty_and_relative_folders_for_temporary_and_runtime_files_count_as_not_set() {
        let folder = tempfile::tempdir().unwrap();
        for path in ["", "relative", "."] {
            let host = host(&[("XDG_RUNTIME_DIR", path), ("TMPDIR", path)]);
            assert_eq!((host.runtime_dir(), host.temporary_dir()), (None, PathBuf::from("/tmp")), "{path:?}");
        }
        let given = host(&[]).with("XDG_RUNTIME_DIR", folder.path()).with("TMPDIR", folder.path());
        assert_eq!(given.runtime_dir().as_deref(), Some(folder.path()));
        assert_eq!(given.temporary_dir(), folder.path());
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(given.runtime_dir(), None, "others can write into it");
    }

    #[test]
    fn an_empty_entry_of_pythonpath_is_not_the_working_folder() {
        let python_path = |value: &str| host(&[("PYTHONPATH", value)]).python_path();
        assert_eq!(python_path(":/a::/b:").as_deref(), Some("/a:/b"));
        assert_eq!([python_path(""), python_path(":"), host(&[]).python_path()], [None, None, None]);
    }

    #[test]
    fn programs_are_executable_files_in_the_order_of_path() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["one", "two"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
            std::os::unix::fs::symlink("/bin/sh", folder.path().join(name).join("tool")).unwrap();
        }
        std::fs::create_dir_all(folder.path().join("three/tool")).unwrap();
        let path = std::env::join_paths(["two", "three", "one"].map(|name| folder.path().join(name))).unwrap();
        let found = host(&[]).with("PATH", path).programs("tool");
        assert_eq!(found, ["two/tool", "one/tool"].map(|name| folder.path().join(name)));
    }

    #[test]
    fn used_bytes_counts_files_in_nested_folders() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("inner")).unwrap();
        std::fs::write(folder.path().join("inner/file"), [0; 700]).unwrap();
        std::fs::write(folder.path().join("file"), [0; 41]).unwrap();
        assert_eq!(used_bytes(folder.path()), 741);
    }
}
