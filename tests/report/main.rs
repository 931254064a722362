//! Everything downstream of a recorded timeline: metrics, verdict, stored runs and reports.

mod causes;
mod csv_file;
mod files;
mod hiccups;
mod hygiene;
mod metrics;
mod roofline;
mod schema;
mod sketch;
mod stamps;
mod store;
mod table;
mod telemetry;
mod verdict;
mod weights;
