//! Everything downstream of a recorded timeline: metrics, verdict, stored runs and reports.

mod csv_file;
mod files;
mod metrics;
mod sketch;
mod store;
mod table;
mod verdict;
