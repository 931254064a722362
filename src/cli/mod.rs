//! The command line: what can be asked, and the exit status that answers.

mod calibrate;
mod compare;
mod doctor;
mod engine;
mod error;
mod interrupts;
mod job;
mod launch;
mod observer;
mod process;
mod report;
mod resume;
mod runtime;
mod screen;
mod sidecar;

use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::Resettable;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::machine::device::{DeviceClass, WaitStrategy};
use crate::presentation::report::TableFormat;
pub use error::{CliError, Exit};

/// Benchmarks vLLM in-process: no HTTP server, every token timestamped, every number with its error
#[derive(Debug, Parser)]
#[command(name = "bench", version, max_term_width = 110, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "Exit status: 0 all runs valid; 1 a run was invalid, failed or is missing; 2 usage or configuration \
                          error; 3 the engine could not be started; 4 some recorded data could not be read; 130 interrupted, with everything finished kept.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure: run a configuration, or the built-in smoke sweep, on one engine that stays loaded
    Engine(EngineArgs),
    /// Measure the instrument itself: its clock, its ring, and its error against known answers
    Calibrate(CalibrateArgs),
    /// Rebuild every report of a results folder from its recorded runs, or evaluate an external event log
    Report(ReportArgs),
    /// A/B test of the pairs in a results folder, or two results folders side by side
    Compare(CompareArgs),
    /// Export the recorded events of a results folder
    Export(ExportArgs),
    /// Check this host: what it can measure, what is missing, and how to get it
    Doctor(DoctorArgs),
    /// List or stop the warm sidecars of `bench engine --keep-warm`
    Sidecar(SidecarArgs),
    /// Make the Python environment of a device class, and print its interpreter
    Env(EnvArgs),
    /// Print the JSON Schema of summary_report.json, or of comparison.json
    Schema {
        /// The file
        #[arg(value_enum, default_value_t = SchemaOf::Report)]
        of: SchemaOf,
    },
}

/// A file whose layout has a schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum SchemaOf {
    /// summary_report.json
    Report,
    /// comparison.json
    Comparison,
}

#[derive(Args, Debug)]
struct EngineArgs {
    /// Device class [default: the configuration's, else cpu]
    #[arg(long, value_enum)]
    device: Option<DeviceClass>,
    /// Engine: `vllm`, or `scripted:FILE`, which emits tokens on the schedule of a script to check the instrument itself
    #[arg(long, value_name = "ENGINE", default_value = "vllm")]
    engine: EngineChoice,
    /// Configuration file; without one the built-in smoke sweep runs, or the script as its own workload
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Results folder [default: results/NAME-TIME]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Resume an interrupted sweep in this results folder: finished runs are kept
    #[arg(long, value_name = "DIR", conflicts_with = "out")]
    resume: Option<PathBuf>,
    /// Python interpreter that has vLLM; without it bench makes an environment of its own
    #[arg(long, value_name = "PATH", env = "BENCH_PYTHON")]
    python: Option<PathBuf>,
    /// Runs of every point; overrides the configuration
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=crate::question::resolve::MAX_RUNS as i64))]
    repeats: Option<u32>,
    /// A/B test of one setting, in randomised pairs of runs: quantization=none,fp8. Ten pairs of each point by default, more
    /// for many points. Exit status 1 if B is worse
    #[arg(long, value_name = "KEY=A,B", conflicts_with = "resume")]
    ab: Option<String>,
    /// Repeat each point until the 95 % intervals of mean TTFT, mean ITL and output tokens per second are within ±PERCENT:
    /// 5 to --repeats runs (default 40)
    #[arg(long, value_name = "PERCENT", value_parser = parse_width, conflicts_with = "ab")]
    until_ci: Option<f64>,
    /// Smallest change that matters, for --ab
    #[arg(long, value_name = "PERCENT", default_value = "1%", value_parser = compare::parse_percent, requires = "ab")]
    threshold: f64,
    /// Seed of the plan; overrides the configuration
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Abort a run if the engine emits nothing for this long
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u32).range(1..))]
    stall_limit: u32,
    /// How the recorder waits [default: spin where it has a core of its own, else spin-then-sleep]
    #[arg(long, value_enum, value_name = "STRATEGY")]
    wait: Option<WaitStrategy>,
    /// Keep the engine loaded for the next command with the same engine. It stops once no command has used it for
    /// DURATION (30m, 90s, 2h)
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = "30m",
          value_parser = parse_duration)]
    keep_warm: Option<Duration>,
    /// Do not reuse a warm sidecar
    #[arg(long, conflicts_with = "keep_warm")]
    own_sidecar: bool,
    /// Print the plan, the arguments of the engines and the estimated time; measure nothing
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Args, Debug)]
struct CalibrateArgs {
    /// Write calibration.json into this folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Python interpreter; any from 3.11 on, vLLM is needed for --observer only
    #[arg(long, value_name = "PATH", env = "BENCH_PYTHON")]
    python: Option<PathBuf>,
    /// Also measure how much observing slows the steps of a real engine; needs a Python with vLLM, and minutes
    #[arg(long)]
    observer: bool,
    /// Device class of the engine that --observer steps
    #[arg(long, value_enum, default_value_t = DeviceClass::Cpu, requires = "observer")]
    device: DeviceClass,
    /// Seconds to step the engine for --observer, at least 20; the intervals shrink with the square root
    #[arg(long, value_name = "S", default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    seconds: u32,
    /// How the recorder waits [default: spin where it has a core of its own, else spin-then-sleep]
    #[arg(long, value_enum, value_name = "STRATEGY")]
    wait: Option<WaitStrategy>,
    /// Measure the error budget alone, in under 3 seconds
    #[arg(long)]
    short: bool,
    /// Print calibration.json instead of tables
    #[arg(long)]
    json: bool,
    /// Print nothing but the result
    #[arg(long, short)]
    quiet: bool,
}

/// Which engine measures.
#[derive(Clone, Debug)]
enum EngineChoice {
    Vllm,
    Scripted(PathBuf),
}

impl FromStr for EngineChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<EngineChoice, String> {
        match text.split_once(':') {
            None if text == "vllm" => Ok(EngineChoice::Vllm),
            Some(("scripted", file)) if !file.is_empty() => Ok(EngineChoice::Scripted(file.into())),
            _ => Err("give `vllm`, or `scripted:FILE` with the file of a script".to_owned()),
        }
    }
}

#[derive(Args, Debug)]
struct ReportArgs {
    /// Results folder
    #[arg(value_name = "DIR", required_unless_present = "events")]
    folder: Option<PathBuf>,
    /// A timeline in the layout of `bench export --csv`; needs no engine
    #[arg(long, value_name = "FILE", conflicts_with = "folder")]
    events: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

#[derive(Args, Debug)]
struct CompareArgs {
    /// Results folder with pairs (`bench engine --ab`, or `compare` in a matrix); with B, the side A
    #[arg(value_name = "A")]
    a: PathBuf,
    /// Results folder of side B. Results that were not interleaved are shown, not decided
    #[arg(value_name = "B")]
    b: Option<PathBuf>,
    /// Objective that B must keep where A keeps it: p99_ttft_s=0.5
    #[arg(long, value_name = "METRIC=BOUND", value_parser = compare::parse_objective)]
    slo: Vec<(String, f64)>,
    /// Smallest change that matters
    #[arg(long, value_name = "PERCENT", default_value = "1%", value_parser = compare::parse_percent)]
    threshold: f64,
    /// Metric to compare, by its name in the report; may be repeated [default: eight metrics]
    #[arg(long, value_name = "METRIC", value_parser = compare::parse_metric)]
    metric: Vec<crate::analysis::metrics::Metric>,
    /// Write comparison.json and comparison.html into this folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Format on standard output
    #[arg(long, value_enum, default_value_t)]
    format: TableFormat,
}

#[derive(Args, Debug)]
struct ExportArgs {
    /// Results folder
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    #[command(flatten)]
    formats: ExportFormats,
}

#[derive(Args, Debug)]
#[group(required = true, multiple = true)]
struct ExportFormats {
    /// Write events.csv, a row per event
    #[arg(long)]
    csv: bool,
    /// Write tokens.parquet and steps.parquet, for polars and DuckDB
    #[arg(long)]
    parquet: bool,
    /// Write trace.json, which Perfetto (ui.perfetto.dev) opens: requests and steps as tracks, with the machine's counters
    #[arg(long)]
    perfetto: bool,
}

#[derive(Args, Debug)]
struct DoctorArgs {
    /// Device class [default: all]; the exit status is then 3 if it cannot be measured here
    #[arg(long, value_enum)]
    device: Option<DeviceClass>,
    /// Python interpreter that is to run the engine; without it bench makes an environment of its own
    #[arg(long, value_name = "PATH", env = "BENCH_PYTHON")]
    python: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct SidecarArgs {
    #[command(subcommand)]
    command: SidecarCommand,
}

#[derive(Debug, Subcommand)]
enum SidecarCommand {
    /// List the warm sidecars: the loaded engine, the process that uses it, the time left
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Stop a warm sidecar and its engine
    Stop {
        /// Name of the sidecar; optional if there is only one
        #[arg(value_name = "ID", conflicts_with = "all")]
        id: Option<String>,
        /// Stop all warm sidecars
        #[arg(long)]
        all: bool,
        /// Also stop a sidecar that is in use or does not answer
        #[arg(long)]
        force: bool,
    },
}

/// A duration such as `30m`, `90s` or `1h 30m`: a second at least, a year at most.
fn parse_duration(text: &str) -> Result<Duration, String> {
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    let parsed: Option<Duration> = text.parse::<jiff::SignedDuration>().ok().and_then(|parsed| parsed.try_into().ok());
    let wanted = parsed.filter(|parsed| (Duration::from_secs(1)..=YEAR).contains(parsed));
    wanted.ok_or_else(|| "give a time from 1s to a year, such as 30m, 90s or 2h".to_owned())
}

/// A width such as `1%`: above 0.
fn parse_width(text: &str) -> Result<f64, String> {
    compare::parse_percent(text)
        .and_then(|share| if share > 0.0 { Ok(share) } else { Err("it has to be above 0".into()) })
}

#[derive(Args, Debug)]
struct EnvArgs {
    /// Device class
    #[arg(long, value_enum, default_value_t = DeviceClass::Cpu)]
    device: DeviceClass,
}

#[derive(Args, Debug)]
struct OutputArgs {
    /// Format on standard output
    #[arg(long, value_enum, default_value_t)]
    format: TableFormat,
    /// Print nothing but the result
    #[arg(long, short)]
    quiet: bool,
}

/// Parses the command line. An empty `BENCH_PYTHON` counts as none.
fn parse() -> clap::error::Result<Cli> {
    let mut command = Cli::command();
    if std::env::var_os("BENCH_PYTHON").is_some_and(|value| value.is_empty()) {
        let has_python = |command: &clap::Command| command.get_arguments().any(|arg| arg.get_id() == "python");
        command = command.mut_subcommands(|command| match has_python(&command) {
            true => command.mut_arg("python", |arg| arg.env(Resettable::Reset)),
            false => command,
        });
    }
    Cli::from_arg_matches(&command.try_get_matches()?)
}

/// Parses the command line, does what it says, and gives the exit status.
pub fn main() -> ExitCode {
    process::run(|| {
        let exit = parse().map_or_else(usage, |cli| run(cli.command));
        exit.unwrap_or_else(|err| {
            let message = err.to_string();
            screen::error(&format!("{message}{}", error::advice(&message)));
            err.exit()
        })
    })
    .into()
}

/// Prints what clap says: help and the version on standard output, an error on standard error.
fn usage(said: clap::Error) -> Result<Exit, CliError> {
    let printed = screen::printed(said.print());
    if said.use_stderr() { Ok(Exit::Usage) } else { printed }
}

fn run(command: Command) -> Result<Exit, CliError> {
    match command {
        Command::Engine(args) => engine::run(&args),
        Command::Calibrate(args) => calibrate::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Compare(args) => compare::run(&args),
        Command::Export(args) => report::export(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Sidecar(args) => sidecar::run(&args.command),
        Command::Env(args) => runtime::make(args.device),
        Command::Schema { of: SchemaOf::Report } => screen::print(crate::presentation::report::REPORT_SCHEMA),
        Command::Schema { of: SchemaOf::Comparison } => {
            screen::print(crate::presentation::comparison::COMPARISON_SCHEMA)
        }
    }
}
