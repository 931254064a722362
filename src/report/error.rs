//! Why a report could not be made.

use std::io;
use std::path::PathBuf;

use crate::plot::PlotError;
use crate::timeline::csv::CsvError;
use crate::timeline::store::StoreError;

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
    /// Another command writes into the folder.
    #[error("{}: another command is writing its results here; wait for its end", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
}
