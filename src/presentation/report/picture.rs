//! What the charts need of a run's timeline, taken while it is in memory, and thinned.

use crate::analysis::metrics::{RequestTokens, Window, elapsed_ns, is_measured};
use crate::measurement::telemetry::{Quantity, Sample};
use crate::measurement::timeline::{StepEvent, Timeline, TokenEvent};
use crate::presentation::plot::{extremes, scatter};

/// Columns of dots that a run keeps of its steps.
const STEP_COLUMNS: usize = 64;

/// How many ITLs of a request are kept apart by their place; those after it are one.
const PLACES: usize = 1 << 16;

/// One run, thinned.
pub(super) struct Picture {
    /// The point that it is of, by name and label.
    pub name: String,
    pub point: String,
    /// When the first measured request was submitted, and the last token received.
    pub window: Window,
    /// Output tokens in each of equal parts of the window.
    pub tokens: Vec<u64>,
    /// ITLs by their place in their request.
    pub places: Vec<Place>,
    /// Tokens computed in a step, and how long it took in milliseconds: steps that computed prompt tokens, and others.
    pub prefill_steps: Vec<(f64, f64)>,
    pub decode_steps: Vec<(f64, f64)>,
    /// What was sampled, in the order of time: seconds of CLOCK_MONOTONIC and value.
    pub telemetry: Vec<Track>,
}

/// The ITLs that have the same place in their request, summed.
#[derive(Clone, Copy, Default)]
pub(super) struct Place {
    pub count: u64,
    pub sum_ns: i64,
    pub max_ns: i64,
}

/// A quantity of a device over time.
pub(super) struct Track {
    pub device: String,
    pub quantity: &'static str,
    pub part: &'static str,
    pub points: Vec<(f64, f64)>,
}

impl Place {
    pub(super) fn plus(self, other: Place) -> Place {
        Place {
            count: self.count + other.count,
            sum_ns: self.sum_ns.saturating_add(other.sum_ns),
            max_ns: self.max_ns.max(other.max_ns),
        }
    }
}

impl Picture {
    /// Of a run that is to have so many points over its time; `None` if none of its measured requests gave a token.
    pub(super) fn of(timeline: &Timeline, bins: usize) -> Option<Picture> {
        let window = window(timeline)?;
        let (tokens, places) = over_tokens(timeline, window, bins);
        let inside = || timeline.steps.iter().filter(|step| window.has(step));
        let point = |step: &StepEvent| {
            let computed = f64::from(step.prefill_tokens) + f64::from(step.decode_tokens);
            (computed, elapsed_ns(step.started_ns, step.ended_ns) as f64 / 1e6)
        };
        let steps = |with_prefill: bool| {
            let of_kind = inside().filter(|step| (step.prefill_tokens > 0) == with_prefill);
            let dots: Vec<(f64, f64)> = of_kind.map(point).filter(|(computed, _)| *computed > 0.0).collect();
            scatter(&dots, STEP_COLUMNS)
        };
        Some(Picture {
            name: timeline.run.point.name.clone(),
            point: timeline.run.point.point.clone(),
            window,
            tokens,
            places,
            prefill_steps: steps(true),
            decode_steps: steps(false),
            telemetry: telemetry(timeline, bins),
        })
    }
}

fn window(timeline: &Timeline) -> Option<Window> {
    let measured = |event: &&TokenEvent| timeline.requests.get(event.request as usize).is_some_and(is_measured);
    // Only requests that gave a token make a window.
    let mut answered = vec![false; timeline.requests.len()];
    let mut last_token_ns = 0;
    for event in timeline.tokens.iter().filter(measured) {
        answered[event.request as usize] = true;
        last_token_ns = last_token_ns.max(event.received_ns);
    }
    let of_answered = timeline.requests.iter().zip(answered).filter(|(_, answered)| *answered);
    let first_submit_ns = of_answered.map(|(request, _)| request.submitted_ns).min()?;
    Some(Window { first_submit_ns, last_token_ns })
}

/// Tokens over the window, and ITLs by place.
fn over_tokens(timeline: &Timeline, window: Window, bins: usize) -> (Vec<u64>, Vec<Place>) {
    let measured: Vec<bool> = timeline.requests.iter().map(is_measured).collect();
    let mut requests = vec![RequestTokens::default(); timeline.requests.len()];
    let mut tokens = vec![0; bins.max(1)];
    let mut places: Vec<Place> = Vec::new();
    let length_ns = window.elapsed_ns().max(1) as u64;
    for event in &timeline.tokens {
        let index = event.request as usize;
        if !measured.get(index).copied().unwrap_or(false) {
            continue;
        }
        let at_ns = event.received_ns.saturating_sub(window.first_submit_ns).min(length_ns - 1);
        let bin = u128::from(at_ns) * tokens.len() as u128 / u128::from(length_ns);
        tokens[bin as usize] += u64::from(event.count);
        let Some(gap) = requests[index].add(event) else { continue };
        // The first ITL ends with the second event.
        let place = (requests[index].events as usize - 2).min(PLACES - 1);
        if places.len() <= place {
            places.resize(place + 1, Place::default());
        }
        let gap_ns = gap.elapsed_ns();
        places[place] = places[place].plus(Place { count: 1, sum_ns: gap_ns, max_ns: gap_ns });
    }
    (tokens, places)
}

/// How a quantity is drawn: with what others, what its own part of them is called, and in which unit.
struct Drawn {
    quantity: Quantity,
    title: &'static str,
    part: &'static str,
    /// Units of the chart in one of the sample; of a counter per microsecond of time.
    scale: f64,
    is_counter: bool,
}

const fn gauge(quantity: Quantity, title: &'static str, part: &'static str, scale: f64) -> Drawn {
    Drawn { quantity, title, part, scale, is_counter: false }
}

const fn counter(quantity: Quantity, title: &'static str, part: &'static str, scale: f64) -> Drawn {
    Drawn { quantity, title, part, scale, is_counter: true }
}

/// Microjoules per microsecond are watts, and microseconds per microsecond are shares of a core.
const DRAWN: [Drawn; 11] = [
    gauge(Quantity::PowerMw, "Power, W", "", 1e-3),
    counter(Quantity::EnergyTotalUj, "Power, W", "from energy", 1.0),
    gauge(Quantity::ClockKhz, "Clock, MHz", "", 1e-3),
    gauge(Quantity::MemoryClockKhz, "Clock, MHz", "memory", 1e-3),
    gauge(Quantity::TemperatureC, "Temperature, °C", "", 1.0),
    gauge(Quantity::MemoryUsedBytes, "Memory in use, GB", "", 1e-9),
    gauge(Quantity::DutyCyclePpm, "Busy, %", "", 1e-4),
    counter(Quantity::PressureCpuTotalUs, "Waiting for the machine, %", "for a core", 100.0),
    counter(Quantity::PressureMemoryTotalUs, "Waiting for the machine, %", "for memory", 100.0),
    counter(Quantity::PressureIoTotalUs, "Waiting for the machine, %", "for input and output", 100.0),
    counter(Quantity::StealTotalUs, "Taken by the hypervisor, cores", "", 1.0),
];

fn telemetry(timeline: &Timeline, bins: usize) -> Vec<Track> {
    let devices = timeline.run.telemetry.iter().flat_map(|record| &record.devices).enumerate();
    let mut tracks = Vec::new();
    for (index, device) in devices {
        let samples: Vec<&Sample> =
            timeline.telemetry.iter().filter(|sample| sample.device as usize == index).collect();
        for drawn in &DRAWN {
            let points = drawn.points(&samples);
            if !points.is_empty() {
                let Drawn { title: quantity, part, .. } = *drawn;
                tracks.push(Track { device: device.name.clone(), quantity, part, points: extremes(&points, bins) });
            }
        }
    }
    tracks
}

impl Drawn {
    fn points(&self, samples: &[&Sample]) -> Vec<(f64, f64)> {
        let known: Vec<(f64, f64)> = samples
            .iter()
            .filter_map(|sample| Some((sample.at_ns as f64 / 1e9, sample.get(self.quantity)? as f64)))
            .collect();
        if !self.is_counter {
            return known.into_iter().map(|(at_s, value)| (at_s, value * self.scale)).collect();
        }
        let rate = |pair: &[(f64, f64)]| {
            let (elapsed_us, grown) = ((pair[1].0 - pair[0].0) * 1e6, pair[1].1 - pair[0].1);
            // A counter that fell was reset; what it counted between is not known.
            (elapsed_us > 0.0 && grown >= 0.0).then(|| (pair[1].0, grown / elapsed_us * self.scale))
        };
        known.windows(2).filter_map(rate).collect()
    }
}
