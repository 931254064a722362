//! Why a report could not be made.

use std::io;
use std::path::PathBuf;

use crate::measurement::timeline::store::StoreError;
use crate::presentation::exchange::csv::CsvError;
use crate::presentation::plot::PlotError;

/// Why a report could not be made or written.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// A stored run or session could not be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A CSV file could not be used.
    #[error(transparent)]
    Csv(#[from] CsvError),
    /// The chart could not be drawn.
    #[error(transparent)]
    Plot(#[from] PlotError),
    /// A file of the report could not be written.
    #[error("{}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// Files of the report could not be written; the report itself is whole.
    #[error("{} of the report's files could not be written into {}: {}: {source}; all numbers are in `--format json`, too",
            names.len(), folder.display(), names.join(", "))]
    NotWritten {
        /// The results folder.
        folder: PathBuf,
        /// The files.
        names: Vec<String>,
        /// What the file system said of the first.
        source: io::Error,
    },
    /// The folder holds runs already.
    #[error("{} already holds results; give another folder by --out", path.display())]
    HoldsResults {
        /// The folder.
        path: PathBuf,
    },
    /// Another command writes into the folder.
    #[error("{}: another command is writing its results here; wait for its end, or give another folder", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
}
