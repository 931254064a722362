//! A calibration as a person reads it.

use comfy_table::{CellAlignment, ContentArrangement, LineStyle, Table, presets};

use super::{Calibration, Change, KnownAnswer, ObserverEffect, TelemetryEffect, Times};

/// The figures as tables, and the error budget below them.
pub fn render(calibration: &Calibration) -> String {
    let mut out = format!(
        "{}\ncores: engine {}, recorder {} | wait strategy: {} | build {}\n",
        host(calibration),
        calibration.cores.engine,
        calibration.cores.recorder,
        calibration.wait_strategy.name(),
        calibration.build,
    );
    out += &format!("\nOne way between the two cores\n{}\n", paths(calibration));
    out += &format!("\nKnown answer (first token after 50 ms, then one every 10 ms)\n{}\n", answers(calibration));
    out += &format!("\nTap and push in the engine, caches cold\n{}\n", per_step(calibration));
    if !calibration.strategies.is_empty() {
        out += &format!("\nWaiting, with a record every millisecond\n{}\n", strategies(calibration));
    }
    if let Some(effects) = &calibration.observer {
        out += &format!("\nObserver effect: change of a real engine's step time\n{}\n", observer(effects));
    }
    if let Some(effects) = &calibration.observer_telemetry {
        out += &format!("\nTelemetry: change of the same engine's step time\n{}\n", telemetry(effects));
    }
    if let Some(peaks) = &calibration.cpu_peaks {
        let (giga_operations, giga_bytes) = (peaks.f32_operations_per_s / 1e9, peaks.bytes_per_s / 1e9);
        out +=
            &format!("\nThe engine's cores\n{giga_operations:.1} GFLOP/s, {giga_bytes:.1} GB/s ({})\n", peaks.probes);
    }
    out += &format!("\nError budget: medians of what makes up the error of a TTFT\n{}\n", budget(calibration));
    calibration.warnings.iter().for_each(|warning| out += &format!("\nwarning: {warning}\n"));
    out
}

fn host(calibration: &Calibration) -> String {
    let host = &calibration.host;
    let text = |fact: &Option<String>| fact.clone().unwrap_or_else(|| "?".to_owned());
    let clock = &calibration.clock;
    format!(
        "{} | {} | kernel {}\nclock: {}, steps of {} ns, {:.1} ns to read",
        text(&host.hostname),
        text(&host.cpu_model),
        text(&host.kernel),
        clock.name,
        clock.resolution_ns,
        clock.read_ns
    )
}

fn paths(calibration: &Calibration) -> String {
    let ring = &calibration.ring;
    let mut table = grid(&["", "p50", "p99", "max", "samples"]);
    for (what, times) in [
        ("raw cache line, every 3 us", calibration.floor_ns),
        ("ring, a record every 3 us", ring.gap_3us_ns),
        ("ring, a record every 1 ms", ring.gap_1ms_ns),
        ("ring, every 1 ms, caches full of other things", ring.gap_1ms_loaded_ns),
    ] {
        table.add_row([vec![what.to_owned()], cells(times)].concat());
    }
    let rate = |what: &str, rate: Option<f64>| rate.map(|rate| format!("\n{what}: {:.1} million a second", rate / 1e6));
    let rates = [
        rate("ring, records in batches of 64", ring.records_per_s),
        rate("recorder, token events before the ring fills", calibration.recorder_events_per_s),
    ];
    table.to_string() + &rates.into_iter().flatten().collect::<String>()
}

fn answers(calibration: &Calibration) -> String {
    let headers = [
        "requests",
        "TTFT error p50",
        "p99",
        "max",
        "ITL error p50",
        "p99",
        "max",
        "watched p99",
        "share",
        "submit p50",
        "schedule kept p50",
        "p99",
    ];
    let mut table = grid(&headers);
    for answer in &calibration.known_answer {
        let three = |times: Option<Times>| cells(times)[..3].to_vec();
        let row = [
            vec![answer.concurrency.to_string()],
            three(Some(answer.ttft_error_ns)),
            three(answer.itl_error_ns),
            watched(answer),
            vec![time(answer.submit_ns.p50), time(answer.schedule_error_ns.p50), time(answer.schedule_error_ns.p99)],
        ];
        table.add_row(row.concat());
    }
    table.to_string()
}

/// The p99 of the ITLs that were watched for, and how many of all they are.
fn watched(answer: &KnownAnswer) -> Vec<String> {
    let share = answer.itl_error_watched_ns.zip(answer.itl_error_ns).map(|(watched, all)| {
        let share = watched.count as f64 / all.count as f64;
        [time(watched.p99), format!("{:.1} %", share * 100.0)]
    });
    share.map_or_else(|| vec!["-".to_owned(); 2], Vec::from)
}

fn per_step(calibration: &Calibration) -> String {
    let mut table = grid(&["batch", "p50", "p99", "max", "steps"]);
    for cost in &calibration.per_step {
        table.add_row([vec![cost.batch.to_string()], cells(Some(cost.tap_push_ns))].concat());
    }
    table.to_string()
}

fn strategies(calibration: &Calibration) -> String {
    let mut table = grid(&["strategy", "p50", "p99", "max", "samples", "of a core"]);
    for cost in &calibration.strategies {
        let share = format!("{:.1} %", cost.cpu_share * 100.0);
        table.add_row([vec![cost.strategy.name().to_owned()], cells(cost.transport_ns), vec![share]].concat());
    }
    table.to_string()
}

fn observer(effects: &[ObserverEffect]) -> String {
    let headers =
        ["batch", "step p50", "by the tap", "against EngineCore", "against LLMEngine.step", "instructions", "rounds"];
    let mut table = grid(&headers);
    for effect in effects {
        table.add_row([
            effect.batch.to_string(),
            time(effect.step_ns as i64),
            change(&effect.tap),
            change(&effect.against_engine_core),
            change(&effect.against_llm_engine),
            effect.instructions_change_pct.map_or_else(|| "not counted here".to_owned(), |pct| format!("{pct:+.3} %")),
            effect.rounds.to_string(),
        ]);
    }
    table.to_string()
}

fn telemetry(effects: &[TelemetryEffect]) -> String {
    let mut table =
        grid(&["batch", "by the sampling", "of a core", "samples", "a second", "pairs", "steps in a block"]);
    for effect in effects {
        table.add_row([
            effect.batch.to_string(),
            change(&effect.change),
            format!("{:.3} %", effect.cpu_share * 100.0),
            effect.samples.to_string(),
            effect.rate_hz.to_string(),
            effect.pairs.to_string(),
            effect.steps.to_string(),
        ]);
    }
    table.to_string()
}

fn change(change: &Change) -> String {
    format!("{:+.2} % ({:+.2} to {:+.2})", change.change_pct, change.ci_low_pct, change.ci_high_pct)
}

fn budget(calibration: &Calibration) -> String {
    let mut table =
        grid(&["requests", "tap", "cache line", "ring", "unexplained", "sum = TTFT error p50", "± TTFT", "± ITL"]);
    for row in &calibration.error_budget.rows {
        let stages = &row.stages;
        let optional = |value: Option<i64>| value.map_or_else(|| "-".to_owned(), time);
        table.add_row([
            row.concurrency.to_string(),
            time(stages.tap_ns),
            optional(stages.cache_line_ns),
            optional(stages.ring_ns),
            optional(stages.unexplained_ns),
            time(row.ttft_error_ns.p50),
            time(row.ttft_error_ns.p99),
            optional(row.itl_error_ns.map(|times| times.p99)),
        ]);
    }
    table.to_string()
}

fn grid(headers: &[&str]) -> Table {
    let mut table = Table::new();
    let style = presets::UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none());
    table.load_style(style).set_content_arrangement(ContentArrangement::Disabled).set_header(headers);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn cells(times: Option<Times>) -> Vec<String> {
    match times {
        Some(times) => vec![time(times.p50), time(times.p99), time(times.max), times.count.to_string()],
        None => vec!["-".to_owned(); 4],
    }
}

/// A time in the unit that suits it.
fn time(ns: i64) -> String {
    match ns.unsigned_abs() {
        0..10_000 => format!("{ns} ns"),
        10_000..10_000_000 => format!("{:.1} us", ns as f64 / 1e3),
        _ => format!("{:.1} ms", ns as f64 / 1e6),
    }
}
