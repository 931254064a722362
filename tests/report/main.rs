//! Everything downstream of a recorded timeline: metrics, verdict, stored runs and reports.

mod causes;
mod compare;
mod converging;
mod csv_file;
mod error_rates;
mod files;
mod hiccups;
mod hygiene;
mod metrics;
mod over_runs;
mod roofline;
mod schema;
mod settings;
mod sketch;
mod speculation;
mod stamps;
mod store;
mod table;
mod telemetry;
mod uncertainty;
mod verdict;
mod weights;
