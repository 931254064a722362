//! The samples of a run: every latency of its measured requests, taken from the timeline in one pass.

use super::hiccups::recorder_hiccups;
use super::request::{
    RequestTokens, block_size_in_use, elapsed_ns, expected_cached_tokens, is_measured, known_elapsed_ns, scheduled_ns,
};
use super::steady::steady_e2e_ns;
use super::{EngineHiccups, Fraction, HiccupMarks, Interruptions, MarkBits, RunMetrics, Series};
use crate::measurement::timeline::{StepEvent, Timeline, TokenEvent, known};

/// Picoseconds in a nanosecond: `itl_per_token` divides a gap, and keeps three more digits than the clock has.
const PS_PER_NS: i64 = 1_000;

/// All samples of one run's measured window, each vector but `steady_e2e_ns` ascending.
///
/// A token event costs three numbers of 8 bytes here: its gap, its gap per token, and its transport time; and its poll gap,
/// one of 4 bytes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples {
    /// received(first token) - scheduled, by request.
    pub ttft_ns: Vec<i64>,
    /// received(first token) - submitted, by request.
    pub ttft_service_ns: Vec<i64>,
    /// received(last token) - scheduled, by request.
    pub e2e_ns: Vec<i64>,
    /// submitted - scheduled, by request.
    pub issue_delay_ns: Vec<i64>,
    /// Engine: QUEUED to SCHEDULED, by request.
    pub queue_ns: Vec<i64>,
    /// Engine: SCHEDULED to first token, by request.
    pub prefill_ns: Vec<i64>,
    /// Engine: first token to last token, by request.
    pub decode_ns: Vec<i64>,
    /// Gaps between successive token events of a request.
    pub itl_ns: Vec<i64>,
    /// The same gaps divided by the tokens that ended them, rounded down to a picosecond.
    pub itl_per_token_ps: Vec<i64>,
    /// Nanoseconds per token after the first, by request of more than one token.
    pub time_per_output_token_ns: Vec<Fraction>,
    /// received - emitted, by token event; empty unless all of them have both.
    pub transport_ns: Vec<i64>,
    /// received - the recorder's look before, by token event; empty unless it is known of all of them.
    pub poll_gap_ns: Vec<u32>,
    /// Which gaps have a hiccup in them, in the order of `itl_ns`.
    pub itl_marks: MarkBits,
    /// Engine's QUEUED - submitted, by request.
    pub submitted_to_queued_ns: Vec<i64>,
    /// received(first token) - the engine's stamp of it, by request.
    pub first_token_after_engine_ns: Vec<i64>,
    /// received(last token) - the engine's stamp of it, by request.
    pub last_token_after_engine_ns: Vec<i64>,
    /// Duration of the steps.
    pub step_ns: Vec<i64>,
    /// Batch size, and time of tap and push together, of the steps that ran a model; by batch size, then time.
    pub tap_push: Vec<(u32, i64)>,
    /// E2E latencies between ramp-up and ramp-down in the order of submission; the only vector that does not ascend.
    pub steady_e2e_ns: Vec<i64>,
    /// The measured window, if any request gave a token.
    pub window: Option<Window>,
    /// Sums over the run.
    pub totals: Totals,
    /// What a recorder that is never late would have found: the metrics of the tokens by the times of emission, and not their
    /// samples, for which there is no room.
    pub as_emitted: Option<Box<RunMetrics>>,
}

/// Which stamp of a token event counts as its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stamp {
    Received,
    Emitted,
}

/// Sums over the measured window of one run, or of several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Requests submitted.
    pub requests: u64,
    /// Requests that gave a token.
    pub answered: u64,
    /// Requests that were asked for and did not finish, submitted or not.
    pub failed: u64,
    /// Prompt tokens of the requests that gave a token.
    pub input_tokens: u64,
    /// Their output tokens.
    pub output_tokens: u64,
    /// First submit to last token.
    pub elapsed_ns: i64,
    /// Engine steps; `None` where steps were not recorded.
    pub steps: Option<u64>,
    /// Preemptions in those steps.
    pub preemptions: Option<u64>,
    /// Hiccups of the recorder's core; `None` if it sleeps, or not all of them were kept.
    pub recorder_hiccups: Option<Interruptions>,
    /// Hiccups of the engine's loop; `None` where steps were not recorded.
    pub engine_hiccups: Option<EngineHiccups>,
    /// Cached and all prompt tokens by design; `None` if the engine's block size is not known.
    pub cached_expected: Option<Share>,
    /// Cached and all prompt tokens as the engine counted them; `None` unless it counted every request.
    pub cached_measured: Option<Share>,
}

/// A part and its whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// The part.
    pub part: u64,
    /// The whole.
    pub whole: u64,
}

impl Share {
    /// Part over whole; `None` for an empty whole.
    pub fn ratio(self) -> Option<f64> {
        (self.whole > 0).then(|| self.part as f64 / self.whole as f64)
    }

    fn plus(self, other: Share) -> Share {
        Share { part: self.part + other.part, whole: self.whole + other.whole }
    }
}

/// The measured window: first submit and last token of the measured requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// When the first measured request was submitted.
    pub first_submit_ns: u64,
    /// When their last token was received.
    pub last_token_ns: u64,
}

impl Window {
    /// Its length; negative in a broken timeline.
    pub fn elapsed_ns(self) -> i64 {
        elapsed_ns(self.first_submit_ns, self.last_token_ns)
    }

    /// Whether a step belongs to it: it began inside.
    pub fn has(self, step: &StepEvent) -> bool {
        (self.first_submit_ns..=self.last_token_ns).contains(&step.started_ns)
    }
}

impl Samples {
    /// Takes the samples of a run from its timeline.
    pub fn of(timeline: &Timeline) -> Samples {
        // First, so that these samples are gone when the others come.
        let as_emitted = as_emitted(timeline);
        let mut samples = Samples { as_emitted, ..Samples::default() };
        let requests = samples.add_latencies(timeline, Stamp::Received);
        samples.steady_e2e_ns = steady_e2e_ns(timeline, &requests);
        samples.totals.failed = failed_requests(timeline);
        samples.totals.cached_expected = cached_expected(timeline, &requests);
        samples.totals.cached_measured = cached_measured(timeline, &requests);
        if let Some(window) = samples.window {
            samples.add_steps(&timeline.steps, window);
            samples.totals.recorder_hiccups = recorder_hiccups(timeline, window.first_submit_ns, window.last_token_ns);
        }
        samples.sort();
        samples
    }

    /// All that follows from the tokens' times by one of their stamps; each request's own account.
    fn add_latencies(&mut self, timeline: &Timeline, stamp: Stamp) -> Vec<RequestTokens> {
        let requests = self.add_tokens(timeline, stamp);
        self.window = self.add_requests(timeline, &requests);
        self.totals.elapsed_ns = self.window.map_or(0, Window::elapsed_ns);
        requests
    }

    /// Bytes of memory that they take, about.
    pub fn bytes(&self) -> usize {
        let times = [
            &self.ttft_ns,
            &self.ttft_service_ns,
            &self.e2e_ns,
            &self.issue_delay_ns,
            &self.queue_ns,
            &self.prefill_ns,
            &self.decode_ns,
            &self.itl_ns,
            &self.itl_per_token_ps,
            &self.transport_ns,
            &self.submitted_to_queued_ns,
            &self.first_token_after_engine_ns,
            &self.last_token_after_engine_ns,
            &self.step_ns,
            &self.steady_e2e_ns,
        ];
        let fixed = size_of::<Samples>() + self.as_emitted.as_ref().map_or(0, |_| size_of::<RunMetrics>());
        let times = times.iter().map(|times| times.capacity() * size_of::<i64>()).sum::<usize>();
        let others = self.time_per_output_token_ns.capacity() * size_of::<Fraction>()
            + self.poll_gap_ns.capacity() * size_of::<u32>()
            + self.tap_push.capacity() * size_of::<(u32, i64)>();
        fixed + times + others
    }

    /// The samples of a series in nanoseconds or picoseconds, ascending; empty for the series of fractions.
    pub fn times(&self, series: Series) -> &[i64] {
        match series {
            Series::Ttft => &self.ttft_ns,
            Series::TtftService => &self.ttft_service_ns,
            Series::Itl => &self.itl_ns,
            Series::ItlPerToken => &self.itl_per_token_ps,
            Series::E2e => &self.e2e_ns,
            Series::Queue => &self.queue_ns,
            Series::Prefill => &self.prefill_ns,
            Series::Decode => &self.decode_ns,
            Series::Step => &self.step_ns,
            Series::TimePerOutputToken | Series::Tpot => &[],
        }
    }

    /// The times per output token that have a reciprocal: those above 0, ascending. All tokens of a request at one
    /// instant are 0 s per token, and no rate.
    pub fn with_rate(&self) -> &[Fraction] {
        let first = self.time_per_output_token_ns.partition_point(|time| !time.is_positive());
        &self.time_per_output_token_ns[first..]
    }

    /// Gaps, transport times and poll gaps of the measured requests' token events, and each request's own account.
    fn add_tokens(&mut self, timeline: &Timeline, stamp: Stamp) -> Vec<RequestTokens> {
        let measured: Vec<bool> = timeline.requests.iter().map(is_measured).collect();
        let mut requests = vec![RequestTokens::default(); timeline.requests.len()];
        // At most one gap per event: reserved once, and only what is written takes memory.
        self.itl_ns.reserve_exact(timeline.tokens.len());
        self.itl_per_token_ps.reserve_exact(timeline.tokens.len());
        if stamp == Stamp::Received {
            self.transport_ns.reserve_exact(timeline.tokens.len());
            self.poll_gap_ns.reserve_exact(timeline.tokens.len());
        }
        let (mut all_emitted, mut all_polled) = (true, true);
        let mut marks = HiccupMarks::of(timeline);
        for event in &timeline.tokens {
            let index = event.request as usize;
            if !measured.get(index).copied().unwrap_or(false) {
                continue;
            }
            if let Some(gap) = requests[index].add(&stamp.seen(event)) {
                let gap_ns = gap.elapsed_ns();
                let is_marked = stamp == Stamp::Received && marks.mark(&gap).is_some();
                self.itl_marks.push(self.itl_ns.len(), is_marked);
                self.itl_ns.push(gap_ns);
                let tokens = i64::from(event.count.max(1));
                // Exact within a run of `verdict::LONGEST_RUN_NS`, beyond which it is INVALID.
                self.itl_per_token_ps.push(gap_ns.saturating_mul(PS_PER_NS).div_euclid(tokens));
            }
            if stamp == Stamp::Emitted {
                continue;
            }
            match known(event.emitted_ns) {
                Some(emitted_ns) => self.transport_ns.push(elapsed_ns(emitted_ns, event.received_ns)),
                None => all_emitted = false,
            }
            match event.poll_gap_ns() {
                Some(poll_gap_ns) => self.poll_gap_ns.push(poll_gap_ns),
                None => all_polled = false,
            }
        }
        if !all_emitted {
            self.transport_ns = Vec::new();
        }
        if !all_polled {
            self.poll_gap_ns = Vec::new();
        }
        requests
    }

    /// Latencies and sums by request; the window, if any request gave a token.
    fn add_requests(&mut self, timeline: &Timeline, requests: &[RequestTokens]) -> Option<Window> {
        let mut window: Option<Window> = None;
        for (request, tokens) in timeline.requests.iter().zip(requests).filter(|(request, _)| is_measured(request)) {
            self.totals.requests += 1;
            if tokens.events == 0 {
                continue;
            }
            self.totals.answered += 1;
            self.totals.input_tokens += u64::from(request.asked_prompt_tokens);
            self.totals.output_tokens += tokens.tokens;
            let scheduled_ns = scheduled_ns(request);
            self.ttft_ns.push(elapsed_ns(scheduled_ns, tokens.first_received_ns));
            self.ttft_service_ns.push(elapsed_ns(request.submitted_ns, tokens.first_received_ns));
            self.e2e_ns.push(elapsed_ns(scheduled_ns, tokens.last_received_ns));
            self.issue_delay_ns.push(elapsed_ns(scheduled_ns, request.submitted_ns));
            self.time_per_output_token_ns.extend(tokens.time_per_output_token_ns());
            self.queue_ns.extend(known_elapsed_ns(request.engine_queued_ns, request.engine_scheduled_ns));
            self.prefill_ns.extend(known_elapsed_ns(request.engine_scheduled_ns, request.engine_first_token_ns));
            self.decode_ns.extend(known_elapsed_ns(request.engine_first_token_ns, request.engine_last_token_ns));
            self.submitted_to_queued_ns.extend(known_elapsed_ns(request.submitted_ns, request.engine_queued_ns));
            let (first_ns, last_ns) = (tokens.first_received_ns, tokens.last_received_ns);
            self.first_token_after_engine_ns.extend(known_elapsed_ns(request.engine_first_token_ns, first_ns));
            self.last_token_after_engine_ns.extend(known_elapsed_ns(request.engine_last_token_ns, last_ns));
            let so_far = window.get_or_insert(Window {
                first_submit_ns: request.submitted_ns,
                last_token_ns: tokens.last_received_ns,
            });
            so_far.first_submit_ns = so_far.first_submit_ns.min(request.submitted_ns);
            so_far.last_token_ns = so_far.last_token_ns.max(tokens.last_received_ns);
        }
        window
    }

    /// Steps that began inside the window, and the hiccups in them and right before them.
    fn add_steps(&mut self, steps: &[StepEvent], window: Window) {
        if steps.is_empty() {
            return;
        }
        let mut count = 0;
        let mut preemptions = 0;
        let mut hiccups = EngineHiccups::default();
        for (index, step) in steps.iter().enumerate() {
            if !window.has(step) {
                continue;
            }
            count += 1;
            preemptions += u64::from(step.preemptions);
            hiccups.add(index.checked_sub(1).and_then(|before| steps.get(before)), step);
            self.step_ns.push(elapsed_ns(step.started_ns, step.ended_ns));
            if known(step.tapped_ns).is_some() {
                let batch = step.prefill_requests.saturating_add(step.decode_requests);
                self.tap_push.push((batch, i64::from(step.tap_push_ns)));
            }
        }
        self.totals.steps = Some(count);
        self.totals.preemptions = Some(preemptions);
        self.totals.engine_hiccups = Some(hiccups);
    }

    fn sort(&mut self) {
        let times = [
            &mut self.ttft_ns,
            &mut self.ttft_service_ns,
            &mut self.e2e_ns,
            &mut self.issue_delay_ns,
            &mut self.queue_ns,
            &mut self.prefill_ns,
            &mut self.decode_ns,
            &mut self.itl_per_token_ps,
            &mut self.transport_ns,
            &mut self.submitted_to_queued_ns,
            &mut self.first_token_after_engine_ns,
            &mut self.last_token_after_engine_ns,
            &mut self.step_ns,
        ];
        for samples in times {
            samples.sort_unstable();
        }
        self.itl_marks = self.itl_marks.sorted_with(&mut self.itl_ns);
        self.poll_gap_ns.sort_unstable();
        self.time_per_output_token_ns.sort_unstable();
        self.tap_push.sort_unstable();
    }
}

impl Stamp {
    /// The event as it is seen by this stamp: with it for its time.
    fn seen(self, event: &TokenEvent) -> TokenEvent {
        match self {
            Stamp::Received => *event,
            Stamp::Emitted => TokenEvent { received_ns: event.emitted_ns, ..*event },
        }
    }
}

impl Totals {
    /// Sums over several runs. What is not known of one of them is not known of all.
    pub fn sum<'a>(runs: impl IntoIterator<Item = &'a Totals>) -> Totals {
        runs.into_iter().copied().reduce(Totals::plus).unwrap_or_default()
    }

    /// Whether anything is known of hiccups, so that an ITL without a mark says something.
    pub fn hiccups_known(&self) -> bool {
        self.recorder_hiccups.is_some() || self.engine_hiccups.is_some()
    }

    fn plus(self, other: Totals) -> Totals {
        fn both<T>(a: Option<T>, b: Option<T>, add: impl Fn(T, T) -> T) -> Option<T> {
            Some(add(a?, b?))
        }
        Totals {
            requests: self.requests + other.requests,
            answered: self.answered + other.answered,
            failed: self.failed + other.failed,
            input_tokens: self.input_tokens + other.input_tokens,
            output_tokens: self.output_tokens + other.output_tokens,
            elapsed_ns: self.elapsed_ns.saturating_add(other.elapsed_ns),
            steps: both(self.steps, other.steps, |a, b| a + b),
            preemptions: both(self.preemptions, other.preemptions, |a, b| a + b),
            recorder_hiccups: both(self.recorder_hiccups, other.recorder_hiccups, Interruptions::plus),
            engine_hiccups: both(self.engine_hiccups, other.engine_hiccups, EngineHiccups::plus),
            cached_expected: both(self.cached_expected, other.cached_expected, Share::plus),
            cached_measured: both(self.cached_measured, other.cached_measured, Share::plus),
        }
    }
}

/// The metrics of the tokens by the times of emission; `None` unless all measured token events have one.
fn as_emitted(timeline: &Timeline) -> Option<Box<RunMetrics>> {
    let measured = |event: &&TokenEvent| timeline.requests.get(event.request as usize).is_some_and(is_measured);
    if !timeline.tokens.iter().filter(measured).all(|event| known(event.emitted_ns).is_some()) {
        return None;
    }
    let mut samples = Samples::default();
    samples.add_latencies(timeline, Stamp::Emitted);
    samples.sort();
    Some(Box::new(RunMetrics::of(&[samples])))
}

fn failed_requests(timeline: &Timeline) -> u64 {
    let asked =
        timeline.requests.iter().filter(|request| request.phase() == crate::measurement::timeline::Phase::Measure);
    asked.filter(|request| !request.finished()).count() as u64
}

fn cached_expected(timeline: &Timeline, requests: &[RequestTokens]) -> Option<Share> {
    let block_size = block_size_in_use(timeline.run.engine_facts.as_ref()?)?;
    let answered = timeline.requests.iter().zip(requests).filter(|(_, tokens)| tokens.events > 0);
    Some(answered.fold(Share::default(), |sum, (request, _)| {
        sum.plus(Share {
            part: u64::from(expected_cached_tokens(request, block_size)),
            whole: u64::from(request.asked_prompt_tokens),
        })
    }))
}

fn cached_measured(timeline: &Timeline, requests: &[RequestTokens]) -> Option<Share> {
    let mut sum = Share::default();
    for (request, _) in timeline.requests.iter().zip(requests).filter(|(_, tokens)| tokens.events > 0) {
        if request.cached_tokens == u32::MAX || request.prompt_tokens == u32::MAX {
            return None;
        }
        sum = sum.plus(Share { part: request.cached_tokens.into(), whole: request.prompt_tokens.into() });
    }
    Some(sum)
}
