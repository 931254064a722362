//! What an installation reports while it runs.

use std::fmt;
use std::path::Path;
use std::time::Duration;

/// One thing to tell the user. Its display is the plain line for a place where nothing can be redrawn.
#[derive(Clone, Copy, Debug)]
pub enum Progress<'a> {
    /// What is about to be installed; comes before anything is.
    Plan {
        /// The lock file's name: the device class.
        name: &'a str,
        /// Packages in the lock file.
        packages: usize,
        /// What has to be downloaded when nothing is cached, in bytes.
        download_bytes: u64,
        /// What the environment takes on the disk, in bytes.
        disk_bytes: u64,
        /// Where it will be.
        folder: &'a Path,
        /// Where the installer's whole output goes.
        log: &'a Path,
    },
    /// Another command is making the same thing, and this one waits until it has ended.
    Waiting {
        /// The file by which they exclude each other.
        lock: &'a Path,
    },
    /// A step begins.
    Step(&'a str),
    /// The installer said something.
    Line(&'a str),
    /// The environment is ready.
    Done {
        /// How long it took.
        elapsed: Duration,
    },
}

impl fmt::Display for Progress<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plan { name, packages, download_bytes, disk_bytes, folder, log } => write!(
                f,
                "making the Python environment for {name}, once: up to {packages} packages, about {} to download and \
                 {} on the disk\n  in  {}\n  log {}",
                gib(*download_bytes),
                gib(*disk_bytes),
                folder.display(),
                log.display()
            ),
            Self::Waiting { lock } => {
                write!(f, "another command is installing: waiting until it has ended ({})", lock.display())
            }
            Self::Step(text) => f.write_str(text),
            Self::Line(text) => write!(f, "  {}", text.trim()),
            Self::Done { elapsed } => write!(f, "the Python environment is ready after {:.0} s", elapsed.as_secs_f64()),
        }
    }
}

/// Takes what there is to tell while an environment is made.
pub type OnProgress<'a> = dyn FnMut(&Progress<'_>) + 'a;

/// A size in GiB with one decimal, as `df -h` shows it.
pub(crate) fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / (1u64 << 30) as f64)
}
