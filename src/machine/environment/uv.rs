//! The installer: uv in a pinned version, installed with pip into the cache folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::machine::environment::EnvironmentError;
use crate::machine::environment::base::BasePython;
use crate::machine::environment::host::Host;
use crate::machine::environment::installation::{Installation, finish, fresh_partial};
use crate::machine::environment::lock;
use crate::machine::environment::process::{Captured, capture};
use crate::machine::environment::progress::Progress;

const ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// With any of these the user has told uv where to look for packages.
const UV_INDEX_VARIABLES: [&str; 7] = [
    "UV_CONFIG_FILE",
    "UV_DEFAULT_INDEX",
    "UV_EXTRA_INDEX_URL",
    "UV_FIND_LINKS",
    "UV_INDEX",
    "UV_INDEX_URL",
    "UV_NO_INDEX",
];

/// The installer in its folder.
#[derive(Debug)]
pub(super) struct Uv {
    folder: PathBuf,
    /// Variables that make it look for packages where the user's pip does.
    settings: Vec<(&'static str, String)>,
}

impl Uv {
    /// The installer of the cache folder, installed first if need be.
    ///
    /// # Errors
    /// When that fails.
    pub(super) fn ensure(
        cache: &Path,
        base: &BasePython,
        installation: &mut Installation<'_>,
    ) -> Result<Self, EnvironmentError> {
        let mut uv =
            Self { folder: cache.join("tools").join(format!("uv-{}", lock::uv_version())), settings: Vec::new() };
        if !uv.runs(installation.host) {
            uv.install(base, installation)?;
        }
        uv.settings = pip_settings(&uv.pip_config(installation.host), installation.host);
        Ok(uv)
    }

    fn install(&self, base: &BasePython, installation: &mut Installation<'_>) -> Result<(), EnvironmentError> {
        let host = installation.host;
        let partial = fresh_partial(&self.folder)?;
        let step = format!("installing the installer, uv {}", lock::uv_version());
        installation.tell(&Progress::Step(&step));
        let mut venv = host.command(&base.path);
        venv.args(["-I", "-m", "venv"]).arg(&partial);
        installation.run(&step, venv)?;
        let requirements = partial.join("uv.txt");
        fs::write(&requirements, lock::UV).map_err(EnvironmentError::io("write", &requirements))?;
        let mut pip = host.command(&partial.join("bin/python"));
        pip.args(["-m", "pip", "install", "--require-hashes", "--only-binary", ":all:", "-r"]).arg(&requirements);
        installation.run(&step, pip)?;
        finish(&partial, &self.folder)
    }

    /// A uv command that keeps its downloads below `cache`, where the environments can link to them, unless the user
    /// has given it another place.
    pub(super) fn command(&self, cache: &Path, host: &Host) -> Command {
        let mut command = host.command(&self.program());
        // In the cache folder, so that a project in which the user happens to stand does not configure it.
        command.current_dir(cache).env("UV_NO_PROGRESS", "1").env("UV_PYTHON_DOWNLOADS", "never");
        if host.variable("UV_CACHE_DIR").is_none() {
            command.env("UV_CACHE_DIR", Self::downloads(cache));
        }
        command.envs(self.settings.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Where the installer keeps its downloads.
    pub(super) fn downloads(cache: &Path) -> PathBuf {
        cache.join("uv-cache")
    }

    fn program(&self) -> PathBuf {
        self.folder.join("bin/uv")
    }

    fn python(&self) -> PathBuf {
        self.folder.join("bin/python")
    }

    fn runs(&self, host: &Host) -> bool {
        // Its Python too: it reads pip's configuration, and it vanishes when the system's Python is replaced.
        [self.program(), self.python()].iter().all(|program| {
            let mut command = host.command(program);
            command.arg("--version");
            matches!(capture(command, ANSWER_LIMIT), Ok(Captured::Ended { status, .. }) if status.success())
        })
    }

    /// What `pip config list` says: files of the system and the user, and variables.
    fn pip_config(&self, host: &Host) -> String {
        let mut command = host.command(&self.python());
        command.args(["-m", "pip", "config", "list"]);
        match capture(command, ANSWER_LIMIT) {
            Ok(Captured::Ended { stdout, .. }) => stdout,
            // uv then uses its defaults, and says so itself if it cannot reach them.
            Ok(Captured::Killed) | Err(_) => String::new(),
        }
    }
}

/// The variables by which uv takes over pip's index and certificates, unless the user has told uv itself.
fn pip_settings(config: &str, host: &Host) -> Vec<(&'static str, String)> {
    let mut settings = Vec::new();
    if !host.has_uv_config() && UV_INDEX_VARIABLES.iter().all(|name| host.variable(name).is_none()) {
        settings.extend(pip_setting(config, "index-url").map(|url| ("UV_DEFAULT_INDEX", url)));
        if let Some(urls) = pip_setting(config, "extra-index-url") {
            settings.push(("UV_INDEX", urls));
            // As pip does: a package may be on any of them. The hashes say which file is meant.
            settings.push(("UV_INDEX_STRATEGY", "unsafe-best-match".into()));
        }
    }
    if host.variable("SSL_CERT_FILE").is_none() {
        settings.extend(pip_setting(config, "cert").map(|file| ("SSL_CERT_FILE", file)));
    }
    settings
}

/// One value out of the lines `section.key='value'` of `pip config list`; a variable counts before the section
/// `install`, and that before `global`.
fn pip_setting(config: &str, key: &str) -> Option<String> {
    [":env:", "install", "global"].iter().find_map(|section| {
        let value = config
            .lines()
            .find_map(|line| line.strip_prefix(section)?.strip_prefix('.')?.strip_prefix(key)?.strip_prefix('='))?;
        // Python's notation of a string, in which a list in a file has its line ends escaped.
        let value = value.trim().trim_matches(['\'', '"']).replace("\\n", " ");
        let value = value.split_whitespace().collect::<Vec<_>>().join(" ");
        (!value.is_empty()).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = ":env:.cert='/env.pem'\nglobal.cert='/file.pem'\nglobal.extra-index-url='\\nhttp://a/x\\nhttp://b/y'\n\
                          global.index-url='http://g/simple'\ninstall.index-url='http://i/simple'\n";

    #[test]
    fn pip_settings_are_taken_in_the_order_in_which_pip_takes_them() {
        assert_eq!(pip_setting(CONFIG, "cert").unwrap(), "/env.pem");
        assert_eq!(pip_setting(CONFIG, "index-url").unwrap(), "http://i/simple");
        assert_eq!(pip_setting(CONFIG, "extra-index-url").unwrap(), "http://a/x http://b/y");
        assert_eq!(pip_setting(CONFIG, "proxy"), None);
    }

    #[test]
    fn uv_takes_over_what_pip_knows() {
        let settings = pip_settings(CONFIG, &Host::new([]));
        let expected = [
            ("UV_DEFAULT_INDEX", "http://i/simple"),
            ("UV_INDEX", "http://a/x http://b/y"),
            ("UV_INDEX_STRATEGY", "unsafe-best-match"),
            ("SSL_CERT_FILE", "/env.pem"),
        ];
        assert_eq!(settings, expected.map(|(name, value)| (name, value.to_owned())));
    }

    #[test]
    fn what_the_user_told_uv_is_left_alone() {
        let index = Host::new([]).with("UV_INDEX_URL", "http://mine").with("SSL_CERT_FILE", "/mine.pem");
        assert_eq!(pip_settings(CONFIG, &index), []);
        let home = tempfile::tempdir().unwrap();
        fs::create_dir_all(home.path().join(".config/uv")).unwrap();
        fs::write(home.path().join(".config/uv/uv.toml"), "").unwrap();
        let file = Host::new([]).with("HOME", home.path());
        assert_eq!(pip_settings(CONFIG, &file), [("SSL_CERT_FILE", "/env.pem".to_owned())]);
    }
}
