//! The script of the scripted engine: what each request does, and when something breaks.

use std::ops::RangeInclusive;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::amount::Bounds;
use super::node::{self, Node};
use super::reader::Reader;
use super::{ConfigError, source, stem_of};
use crate::question::plan::Location;

/// A script, as `docs/scripted-engine.md` describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Script {
    /// The file's stem; names the results folder.
    pub name: String,
    /// Used in the order of submission, and repeated.
    pub requests: Vec<ScriptedRequest>,
    /// What breaks.
    pub faults: Vec<Fault>,
    /// By how much all times grow from each run of an engine to its next, in millionths of those in its first.
    pub growth_ppm: u32,
    /// How the runs of an engine differ by chance; null: not at all.
    pub noise: Option<ScriptNoise>,
}

/// How the runs of an engine differ by chance: all times of a run are longer by the same factor, whose logarithm is normal.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScriptNoise {
    /// Standard deviation of what is each run's own, in millionths.
    pub run_ppm: u32,
    /// Standard deviation of what neighbouring runs resemble each other in, in millionths: each keeps 0.6 of the one before, as
    /// runs of real engines do (their means correlate by 0.29 to 0.81).
    pub session_ppm: u32,
    /// Of the random numbers. An engine that is loaded anew begins with the same ones.
    pub seed: u32,
}

/// What one request does. Times are nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScriptedRequest {
    /// From admission to the first token event.
    pub first_ns: u64,
    /// Gaps between the token events; null: each is `gap_ns`.
    pub gaps_ns: Option<Vec<u64>>,
    /// The gap where there is no list.
    pub gap_ns: u64,
    /// Token events; null: as many as tokens are asked.
    pub events: Option<u32>,
    /// Tokens of each event; null: one.
    pub counts: Option<Vec<u16>>,
    /// Prompt tokens that it says came from the cache.
    pub cached: u32,
    /// How it ends.
    pub finish: ScriptedFinish,
}

/// How a scripted request ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScriptedFinish {
    /// As if a stop token had come.
    Stop,
    /// As if its output length had been reached.
    #[default]
    Length,
    /// As if somebody had aborted it.
    Abort,
    /// As if the engine had failed on it.
    Error,
}

/// Something that breaks as a step is about to be emitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// The step of the run, from 0.
    pub at_step: u32,
    /// What breaks.
    pub kind: FaultKind,
}

/// What breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// The step function raises an exception.
    Raise,
    /// The engine process ends.
    Exit,
    /// The engine process stands still.
    Hang,
    /// The engine process lives, and gives nothing any more.
    Silent,
    /// The first request of the step is forgotten.
    Lose,
    /// The first request of the step ends with it, whatever is left of it.
    WrongLength,
}

impl FaultKind {
    /// The word for it in a script.
    pub fn as_str(self) -> &'static str {
        FAULT_KINDS.iter().find(|(_, kind)| *kind == self).map_or("fault", |(name, _)| *name)
    }
}

const FAULT_KINDS: [(&str, FaultKind); 6] = [
    ("raise", FaultKind::Raise),
    ("exit", FaultKind::Exit),
    ("hang", FaultKind::Hang),
    ("silent", FaultKind::Silent),
    ("lose", FaultKind::Lose),
    ("wrong_length", FaultKind::WrongLength),
];

const FINISHES: [(&str, ScriptedFinish); 4] = [
    ("stop", ScriptedFinish::Stop),
    ("length", ScriptedFinish::Length),
    ("abort", ScriptedFinish::Abort),
    ("error", ScriptedFinish::Error),
];

const TOP_KEYS: [&str; 4] = ["requests", "faults", "growth_per_run", "noise"];
const REQUEST_KEYS: [&str; 7] = ["first_ns", "gaps_ns", "gap_ns", "tokens", "counts", "cached", "finish"];
const FAULT_KEYS: [&str; 2] = ["at_step", "kind"];
const NOISE_KEYS: [&str; 3] = ["run", "session", "seed"];

/// A day: longer than any schedule, and far from where times overflow.
const TIMES_NS: RangeInclusive<u64> = 0..=86_400_000_000_000;
/// Most tokens of a request, and of a script: a token event takes 32 bytes of memory while it is recorded.
const MAX_TOKENS: u32 = 1 << 24;
const MAX_TOKENS_IN_ALL: u64 = 1 << 26;

impl Script {
    /// The longest time, in nanoseconds, for which an engine that keeps to the script may be silent.
    pub fn longest_gap_ns(&self) -> u64 {
        self.requests.iter().map(ScriptedRequest::longest_gap_ns).max().unwrap_or(0)
    }
}

impl ScriptedRequest {
    fn longest_gap_ns(&self) -> u64 {
        let gaps_ns = self.gaps_ns.as_ref().map_or(Some(self.gap_ns), |gaps_ns| gaps_ns.iter().copied().max());
        self.first_ns.max(gaps_ns.unwrap_or(0))
    }

    /// Output tokens in all; `None` if the script leaves it to what is asked.
    pub fn output_tokens(&self) -> Option<u32> {
        match &self.counts {
            // Of a script that was read, at most MAX_TOKENS.
            Some(counts) => Some(counts.iter().fold(0, |sum: u32, count| sum.saturating_add((*count).into()))),
            None => self.events,
        }
    }
}

/// Reads the script at `path`.
///
/// # Errors
/// Everything that is wrong with the file, each problem with its line and column.
pub fn load_script(path: &Path) -> Result<Script, ConfigError> {
    let text = source::read(path, &Bounds::SCRIPT)?;
    let file = Some(path.to_path_buf());
    let mut reader = Reader::new(file.clone());
    let root = node::parse(&text, &Bounds::SCRIPT, |place, key| reader.told_twice(place, key)).map_err(
        |(place, message)| ConfigError::single(Location { file, line: place.line, column: place.column }, message),
    )?;
    let script = read_root(&mut reader, &root, stem_of(path));
    reader.problems.into_result(script)
}

fn read_root(reader: &mut Reader, root: &Node, name: String) -> Script {
    let mut script = Script { name, requests: Vec::new(), faults: Vec::new(), growth_ppm: 0, noise: None };
    if matches!(root.value, node::Value::List(_)) {
        let message = "the script has to be a table of keys and values, and here it is a list: put `requests:` on a \
                       line above it";
        reader.problem(root.place, message);
        return script;
    }
    let table = reader.table("the script", root).unwrap_or_default();
    for (key, value) in table {
        match key.text.as_str() {
            "requests" => {
                let items = reader.list("requests", value).unwrap_or_default();
                script.requests = items.iter().filter_map(|item| read_request(reader, item)).collect();
            }
            "faults" => {
                let items = reader.list("faults", value).unwrap_or_default();
                script.faults = items.iter().filter_map(|item| read_fault(reader, item)).collect();
            }
            "growth_per_run" => script.growth_ppm = read_ppm(reader, "growth_per_run", value),
            "noise" => script.noise = read_noise(reader, value),
            other => reader.unknown(key.place, "key of a script:", other, &TOP_KEYS),
        }
    }
    let tokens: u64 = script.requests.iter().filter_map(ScriptedRequest::output_tokens).map(u64::from).sum();
    if tokens > MAX_TOKENS_IN_ALL {
        let message = format!("{tokens} tokens in all; at most {MAX_TOKENS_IN_ALL} of a run are recorded in memory");
        reader.problem(root.place, message);
    }
    if !table.iter().any(|(key, _)| key.text == "requests") {
        reader.problem(root.place, "the script has no `requests`, the list of what each request does");
    }
    script
}

/// A share as millionths; 0 if it is none, which has been told.
fn read_ppm(reader: &mut Reader, key: &str, node: &Node) -> u32 {
    reader.share(key, node).map_or(0, |share| (share.value * 1e6).round() as u32)
}

fn read_noise(reader: &mut Reader, node: &Node) -> Option<ScriptNoise> {
    let mut noise = ScriptNoise::default();
    for (key, value) in reader.table("noise", node)? {
        match key.text.as_str() {
            "run" => noise.run_ppm = read_ppm(reader, "run", value),
            "session" => noise.session_ppm = read_ppm(reader, "session", value),
            "seed" => noise.seed = reader.count("seed", value, 0, u32::MAX)?.value,
            other => reader.unknown(key.place, "key of noise:", other, &NOISE_KEYS),
        }
    }
    Some(noise)
}

fn read_request(reader: &mut Reader, node: &Node) -> Option<ScriptedRequest> {
    let (mut first_ns, mut gap_ns, mut tokens, mut gaps_ns) = (None, None, None, None);
    let mut counts = Counts::One;
    let (mut cached, mut finish) = (0, ScriptedFinish::default());
    for (key, value) in reader.table("a request of the script", node)? {
        match key.text.as_str() {
            "first_ns" => first_ns = reader.whole("first_ns", value, TIMES_NS).map(|time| time.value),
            "gap_ns" => gap_ns = Some(reader.whole("gap_ns", value, TIMES_NS)?.value),
            "tokens" => tokens = Some(reader.count("tokens", value, 1, MAX_TOKENS)?),
            "gaps_ns" => gaps_ns = Some(read_gaps(reader, value)?),
            "counts" => counts = Counts::read(reader, value)?,
            "cached" => cached = reader.count("cached", value, 0, u32::MAX - 1)?.value,
            "finish" => finish = reader.choice("finish", value, &FINISHES)?.value,
            other => reader.unknown(key.place, "key of a request:", other, &REQUEST_KEYS),
        }
    }
    let Some(first_ns) = first_ns else {
        reader.problem(node.place, "this request has no `first_ns`, the time from its admission to its first token");
        return None;
    };
    if gaps_ns.is_some() && (gap_ns.is_some() || tokens.is_some()) {
        reader.problem(node.place, "`gaps_ns` gives every gap; take out `gap_ns` and `tokens`");
        return None;
    }
    let events = counts.events(reader, node, gaps_ns.as_ref().map(|gaps| gaps.len() as u32 + 1), tokens)?;
    let needs_gap = gaps_ns.is_none() && events != Some(1);
    if needs_gap && gap_ns.is_none() {
        reader.problem(node.place, "several tokens need the time between them: give `gap_ns`, or the list `gaps_ns`");
        return None;
    }
    let counts = counts.list(events);
    let tokens: u64 = counts.iter().flatten().map(|count| u64::from(*count)).sum();
    if tokens > MAX_TOKENS.into() {
        reader.problem(node.place, format!("{tokens} tokens in a request; at most {MAX_TOKENS} are recorded"));
        return None;
    }
    Some(ScriptedRequest { first_ns, gaps_ns, gap_ns: gap_ns.unwrap_or(0), events, counts, cached, finish })
}

fn read_gaps(reader: &mut Reader, node: &Node) -> Option<Vec<u64>> {
    let items = match &node.value {
        node::Value::List(items) => items.as_slice(), // of one token event there is no gap
        _ => reader.list("gaps_ns", node)?,
    };
    items.iter().map(|item| reader.whole("gaps_ns", item, TIMES_NS).map(|gap| gap.value)).collect()
}

/// `counts` of a request.
enum Counts {
    /// Not given: one token in each event.
    One,
    /// The same number in each event.
    Each(u16),
    /// A number for each event.
    List(Vec<u16>),
}

impl Counts {
    fn read(reader: &mut Reader, node: &Node) -> Option<Counts> {
        let one = |reader: &mut Reader, node: &Node| {
            reader.whole("counts", node, 1..=u16::MAX.into()).map(|count| count.value as u16)
        };
        match &node.value {
            node::Value::List(_) => {
                let items = reader.list("counts", node)?;
                items.iter().map(|item| one(reader, item)).collect::<Option<Vec<_>>>().map(Counts::List)
            }
            _ => one(reader, node).map(Counts::Each),
        }
    }

    /// Token events of a request with these counts, so many events by its gaps, and so many tokens. `Some(None)`: as many
    /// as are asked. `None` if they contradict each other, which has been told.
    fn events(
        &self,
        reader: &mut Reader,
        node: &Node,
        by_gaps: Option<u32>,
        tokens: Option<super::Given<u32>>,
    ) -> Option<Option<u32>> {
        let by_tokens = tokens.as_ref().map(|tokens| tokens.value);
        let events = match self {
            Counts::One => by_gaps.or(by_tokens),
            Counts::Each(count) => match (by_gaps, by_tokens) {
                (Some(events), _) => Some(events),
                (None, Some(tokens)) if tokens % u32::from(*count) == 0 => Some(tokens / u32::from(*count)),
                (None, Some(tokens)) => {
                    reader.problem(node.place, format!("{tokens} `tokens` are not whole events of {count}"));
                    return None;
                }
                (None, None) => {
                    reader.problem(node.place, "`counts` of one number needs `tokens` or `gaps_ns` beside it");
                    return None;
                }
            },
            Counts::List(counts) => {
                let events = counts.len() as u32;
                if by_gaps.is_some_and(|by_gaps| by_gaps != events) {
                    let message = format!("{events} `counts` need {} gaps in `gaps_ns`", events - 1);
                    reader.problem(node.place, message);
                    return None;
                }
                let sum: u64 = counts.iter().map(|count| u64::from(*count)).sum();
                if by_tokens.is_some_and(|tokens| u64::from(tokens) != sum) {
                    reader.problem(node.place, format!("the `counts` are {sum} tokens together, and `tokens` differs"));
                    return None;
                }
                Some(events)
            }
        };
        Some(events)
    }

    fn list(self, events: Option<u32>) -> Option<Vec<u16>> {
        match self {
            Counts::One => None,
            Counts::Each(count) => events.map(|events| vec![count; events as usize]),
            Counts::List(counts) => Some(counts),
        }
    }
}

fn read_fault(reader: &mut Reader, node: &Node) -> Option<Fault> {
    let (mut at_step, mut kind) = (None, None);
    for (key, value) in reader.table("a fault of the script", node)? {
        match key.text.as_str() {
            "at_step" => at_step = reader.count("at_step", value, 0, u32::MAX - 1).map(|step| step.value),
            "kind" => kind = reader.choice("kind", value, &FAULT_KINDS).map(|kind| kind.value),
            other => reader.unknown(key.place, "key of a fault:", other, &FAULT_KEYS),
        }
    }
    match (at_step, kind) {
        (Some(at_step), Some(kind)) => Some(Fault { at_step, kind }),
        _ => {
            reader.problem(node.place, "a fault needs `at_step`, from 0, and `kind`");
            None
        }
    }
}
