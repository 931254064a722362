//! `trace.json`: a results folder as a trace that Perfetto opens, in the JSON that Chrome's tracing has made common.
//!
//! A process for each run, on the run's own time. In it a track for the steps, one for the times in which recorder or engine
//! were held up, one for each request; and counters: what the scheduler holds, and what the machine said of itself.

use std::io::{self, Write};

use serde_json::{Map, Value, json};

use crate::analysis::metrics::scheduled_ns;
use crate::base::printable::printable;
use crate::measurement::telemetry::Quantity;
use crate::measurement::timeline::{FinishReason, Outcome, Timeline, TokenEvent, known};

/// Tracks of a run's process; requests follow behind.
const STEPS: u64 = 1;
const RECORDER: u64 = 2;
const FIRST_REQUEST: u64 = 10;

/// What of the telemetry is a counter: quantity, name, and by what its unit is divided.
const COUNTERS: [(Quantity, &str, f64); 8] = [
    (Quantity::PowerMw, "power W", 1e3),
    (Quantity::ClockKhz, "clock MHz", 1e3),
    (Quantity::MemoryClockKhz, "memory clock MHz", 1e3),
    (Quantity::TemperatureC, "temperature C", 1.0),
    (Quantity::MemoryUsedBytes, "memory used MiB", 1048576.0),
    (Quantity::DutyCyclePpm, "busy %", 1e4),
    (Quantity::PressureCpuTotalUs, "waiting for a core, ms in all", 1e3),
    (Quantity::StealTotalUs, "stolen by the host, ms in all", 1e3),
];

/// A trace while it is written, one run at a time.
pub(super) struct Trace<W: Write> {
    out: W,
    is_empty: bool,
    runs: u64,
}

impl<W: Write> Trace<W> {
    /// Begins a trace.
    pub(super) fn begin(mut out: W) -> io::Result<Trace<W>> {
        out.write_all(b"{\"displayTimeUnit\":\"ns\",\"traceEvents\":[")?;
        Ok(Trace { out, is_empty: true, runs: 0 })
    }

    /// Adds a run, whose time begins with its first event.
    pub(super) fn add(&mut self, timeline: &Timeline) -> io::Result<()> {
        self.runs += 1;
        let begin_ns = begin_ns(timeline);
        let mut process = Process { trace: self, pid: 0, begin_ns };
        process.pid = process.trace.runs;
        process.name(timeline)?;
        process.steps(timeline)?;
        process.hiccups(timeline)?;
        process.requests(timeline)?;
        process.telemetry(timeline)
    }

    /// Writes the end of the trace.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.out.write_all(b"]}\n")?;
        self.out.flush()
    }

    fn write(&mut self, event: &Value) -> io::Result<()> {
        self.out.write_all(if self.is_empty { b"\n" } else { b",\n" })?;
        self.is_empty = false;
        serde_json::to_writer(&mut self.out, event).map_err(io::Error::from)
    }
}

/// A run in the trace.
struct Process<'t, W: Write> {
    trace: &'t mut Trace<W>,
    pid: u64,
    begin_ns: u64,
}

impl<W: Write> Process<'_, W> {
    /// Microseconds since the run's begin, as the format has times.
    fn at(&self, time_ns: u64) -> f64 {
        (time_ns as f64 - self.begin_ns as f64) / 1e3
    }

    fn name(&mut self, timeline: &Timeline) -> io::Result<()> {
        let run = &timeline.run;
        let name = format!("{} {} #{}", run.point.name, run.point.point, run.repeat + 1);
        self.metadata("process_name", None, &name)?;
        self.trace.write(
            &json!({"ph": "M", "name": "process_sort_index", "pid": self.pid, "args": {"sort_index": run.order}}),
        )?;
        if let Outcome::Failed(reason) | Outcome::Skipped(reason) = &run.outcome {
            let last = timeline.tokens.last().map_or(self.begin_ns, |token| token.received_ns);
            self.instant(STEPS, "failed", last, json!({"reason": reason}))?;
        }
        self.metadata("thread_name", Some(STEPS), "engine steps")?;
        self.metadata("thread_name", Some(RECORDER), "held up")
    }

    fn steps(&mut self, timeline: &Timeline) -> io::Result<()> {
        for step in &timeline.steps {
            let name = match (step.prefill_requests, step.decode_requests) {
                (0, _) => "decode",
                (_, 0) => "prefill",
                _ => "prefill and decode",
            };
            let batch = json!({
                "step": step.step,
                "prefill requests": step.prefill_requests,
                "prefill tokens": step.prefill_tokens,
                "decode requests": step.decode_requests,
                "decode tokens": step.decode_tokens,
                "preemptions": step.preemptions,
                "tap and push ns": step.tap_push_ns,
            });
            self.slice(STEPS, name, step.started_ns, step.ended_ns, batch)?;
            self.counter("requests", step.ended_ns, json!({"running": step.running, "waiting": step.waiting}))?;
            let usage = f64::from(step.kv_cache_usage_ppm) / 1e4;
            self.counter("KV cache %", step.ended_ns, json!({"used": usage}))?;
            if step.preemptions > 0 {
                self.instant(STEPS, "preemption", step.ended_ns, json!({"requests": step.preemptions}))?;
            }
        }
        Ok(())
    }

    fn hiccups(&mut self, timeline: &Timeline) -> io::Result<()> {
        for hiccup in &timeline.hiccups {
            self.slice(RECORDER, "recorder held up", hiccup.began_ns, hiccup.ended_ns, json!({}))?;
        }
        Ok(())
    }

    fn requests(&mut self, timeline: &Timeline) -> io::Result<()> {
        let mut tokens: Vec<Vec<&TokenEvent>> = vec![Vec::new(); timeline.requests.len()];
        for token in &timeline.tokens {
            if let Some(of_request) = tokens.get_mut(token.request as usize) {
                of_request.push(token);
            }
        }
        for (index, (request, tokens)) in timeline.requests.iter().zip(tokens).enumerate() {
            if known(request.submitted_ns).is_none() {
                continue;
            }
            let track = FIRST_REQUEST + index as u64;
            self.metadata("thread_name", Some(track), &format!("request {index} ({})", request.phase().as_str()))?;
            let begin_ns = scheduled_ns(request);
            let first_ns = tokens.first().map(|token| token.received_ns);
            let scheduled_ns = known(request.engine_scheduled_ns).filter(|ns| first_ns.is_none_or(|first| *ns < first));
            if let Some(engine_ns) = scheduled_ns {
                self.slice(track, "queue", begin_ns, engine_ns, json!({}))?;
            }
            if let Some(first_ns) = first_ns {
                let (prompt, cached) = (request.prompt_tokens, request.cached_tokens);
                let args = json!({"prompt tokens": counted(prompt), "from the cache": counted(cached)});
                self.slice(track, "prefill", scheduled_ns.unwrap_or(begin_ns), first_ns, args)?;
            }
            for both in tokens.windows(2) {
                let args = json!({"tokens": both[1].count, "step": both[1].step(), "emitted ns before": both[1].received_ns.saturating_sub(both[1].emitted_ns)});
                self.slice(track, "token", both[0].received_ns, both[1].received_ns, args)?;
            }
            if let Some(finished_ns) = known(request.finish_received_ns) {
                let reason = FinishReason::from_u8(request.finish_reason).unwrap_or(FinishReason::Other);
                let args = json!({"reason": reason.as_str(), "preemptions": request.preemptions});
                self.instant(track, "finish", finished_ns, args)?;
            }
        }
        Ok(())
    }

    fn telemetry(&mut self, timeline: &Timeline) -> io::Result<()> {
        let devices = timeline.run.telemetry.as_ref().map(|telemetry| telemetry.devices.as_slice()).unwrap_or_default();
        for sample in &timeline.telemetry {
            let device = devices.get(sample.device as usize).map_or("", |device| &device.name);
            for (quantity, name, scale) in COUNTERS {
                if let Some(value) = sample.get(quantity) {
                    let values = Map::from_iter([("value".to_owned(), json!(value as f64 / scale))]);
                    self.counter(&format!("{device} {name}"), sample.at_ns, Value::Object(values))?;
                }
            }
        }
        Ok(())
    }

    fn metadata(&mut self, what: &str, track: Option<u64>, name: &str) -> io::Result<()> {
        let name = printable(name);
        self.trace.write(&json!({"ph": "M", "name": what, "pid": self.pid, "tid": track, "args": {"name": name}}))
    }

    fn slice(&mut self, track: u64, name: &str, from_ns: u64, to_ns: u64, args: Value) -> io::Result<()> {
        let took = to_ns.saturating_sub(from_ns) as f64 / 1e3;
        let event = json!({"ph": "X", "name": name, "pid": self.pid, "tid": track, "ts": self.at(from_ns), "dur": took, "args": args});
        self.trace.write(&event)
    }

    fn instant(&mut self, track: u64, name: &str, at_ns: u64, args: Value) -> io::Result<()> {
        let event = json!({"ph": "i", "s": "t", "name": name, "pid": self.pid, "tid": track, "ts": self.at(at_ns), "args": args});
        self.trace.write(&event)
    }

    fn counter(&mut self, name: &str, at_ns: u64, values: Value) -> io::Result<()> {
        let event = json!({"ph": "C", "name": name, "pid": self.pid, "ts": self.at(at_ns), "args": values});
        self.trace.write(&event)
    }
}

/// A number of tokens, or null where it is not known.
fn counted(tokens: u32) -> Option<u32> {
    (tokens != u32::MAX).then_some(tokens)
}

/// The first event of a run.
fn begin_ns(timeline: &Timeline) -> u64 {
    let submitted = timeline.requests.iter().filter(|request| known(request.submitted_ns).is_some());
    let submits = submitted.map(|request| scheduled_ns(request).min(request.submitted_ns));
    let steps = timeline.steps.iter().map(|step| step.started_ns);
    let samples = timeline.telemetry.iter().map(|sample| sample.at_ns);
    let hiccups = timeline.hiccups.iter().map(|hiccup| hiccup.began_ns);
    submits.chain(steps).chain(samples).chain(hiccups).min().unwrap_or(0)
}
