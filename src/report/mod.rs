//! Reports: what a person or a program reads of a command's runs. Everything here can be rebuilt from the stored runs.

mod charts;
mod cross_check;
mod entry;
mod error;
mod hiccups;
mod html;
mod identity;
mod picture;
mod point;
mod requests_table;
mod reset_check;
mod results;
mod resumption;
mod sentinel;
mod summary;
mod table;
mod uncertainty;
mod units;

pub use cross_check::{CrossCheckEntry, NsRange};
pub use entry::{BatchSpread, MetricValues, NsSpread, RunEntry};
pub use error::ReportError;
pub use hiccups::{EngineHiccupsEntry, HiccupsEntry, RecorderHiccupsEntry};
pub(crate) use html::{STYLE as PAGE_STYLE, escaped};
pub use identity::Identity;
pub use point::{Note, PointEntry, WarmCutEntry};
pub use reset_check::ResetCheckEntry;
pub use results::{Results, export_csv, from_csv, read, rebuild, write_all};
pub use resumption::Resumption;
pub use sentinel::{DriftEntry, SentinelEntry, SentinelRun};
pub use summary::{REPORT_SCHEMA, REPORT_SCHEMA_VERSION, Report};
pub use table::{TableFormat, table};
pub use uncertainty::{InstrumentErrors, Ruler};
pub(crate) use units::number;
