//! The whole report, `summary_report.json`.

use serde::Serialize;
use serde_json::Value;

use super::{Coverage, DamagedRun, PointEntry, ResetCheckEntry, Ruler, RunEntry, SentinelEntry};
use crate::analysis::verdict::Status;
use crate::measurement::results::{Instrument, SessionRecord};
use crate::question::plan::Plan;

/// Version of the layout of [`Report`]. `schemas/report-<version>.schema.json` describes it.
pub const REPORT_SCHEMA_VERSION: u32 = 1;

/// The JSON Schema of [`Report`].
pub const REPORT_SCHEMA: &str = include_str!("../../../schemas/report-1.schema.json");

/// Everything that a command's runs gave.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// [`REPORT_SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Version of `bench` that measured.
    pub bench_version: String,
    /// When the command began, for people only; null for an imported timeline.
    pub started_at: Option<String>,
    /// What was measured with; null for an imported timeline.
    pub instrument: Option<Instrument>,
    /// Host, versions and settings; null for an imported timeline.
    pub environment: Value,
    /// What was asked; null for an imported timeline.
    pub plan: Option<Plan>,
    /// The planned runs by what became of them; null for an imported timeline.
    pub coverage: Option<Coverage>,
    /// Stored runs that cannot be read, or are not in the plan. Nothing else in the report knows of them.
    pub damaged: Vec<DamagedRun>,
    /// Stored records, the session's included, of a version that kept no checksum of them.
    pub unsealed_records: u64,
    /// How percentiles were found.
    pub percentiles: String,
    /// All runs so far, in the order of execution.
    pub runs: Vec<RunEntry>,
    /// Their points, in the order in which they were first run; without sentinels and reset checks.
    pub points: Vec<PointEntry>,
    /// The sentinels of each epoch that has them.
    pub sentinels: Vec<SentinelEntry>,
    /// The state after a reset against a fresh engine, where that was asked for.
    pub reset_checks: Vec<ResetCheckEntry>,
}

impl Report {
    /// A report without runs.
    pub fn empty(session: Option<&SessionRecord>) -> Report {
        let bench_version = session.map_or(env!("CARGO_PKG_VERSION"), |session| &session.bench_version);
        Report {
            schema_version: REPORT_SCHEMA_VERSION,
            bench_version: bench_version.to_owned(),
            started_at: session.map(|session| session.started_at.clone()),
            instrument: session.map(|session| session.instrument.clone()),
            environment: session.map_or(Value::Null, |session| session.environment.clone()),
            plan: session.map(|session| session.plan.clone()),
            coverage: None,
            damaged: Vec::new(),
            unsealed_records: 0,
            percentiles: "exact: nearest rank over all samples of the timeline".to_owned(),
            runs: Vec::new(),
            points: Vec::new(),
            sentinels: Vec::new(),
            reset_checks: Vec::new(),
        }
    }

    /// The exit status that the runs call for: 0 if all are valid; 1 if one is invalid, failed, was skipped or is missing, if the
    /// runs of a point have different engines, if an objective cannot be judged, or if an engine was not as a fresh one after its
    /// reset. No single run can be blamed for the last three.
    pub fn exit_status(&self) -> u8 {
        let is_bad = self.num_missing() > 0 || self.runs.iter().any(|run| run.status != Status::Valid);
        let is_bad_point =
            |point: &PointEntry| point.different_engines.is_some() || point.unjudged_objectives().next().is_some();
        let differs = self.reset_checks.iter().any(ResetCheckEntry::differs);
        u8::from(is_bad || differs || self.points.iter().any(is_bad_point))
    }

    /// The instrument that the numbers come from; for an imported timeline nothing is known of it.
    pub fn ruler(&self) -> Ruler<'_> {
        self.instrument.as_ref().map_or(Ruler::UNKNOWN, |instrument| Ruler {
            tick_s: instrument.clock.resolution_ns * 1e-9,
            budget: instrument.error_budget.as_ref(),
            cpu_peaks: instrument.cpu_peaks.as_ref(),
        })
    }
}
