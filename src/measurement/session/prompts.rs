//! The prompts of a run: token ids from recorded seeds, and which phase each request belongs to.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::RequestSpec;
use crate::measurement::timeline::{Phase, RequestEvent};
use crate::question::plan::Point;

/// Output tokens of a warm-up request at most: enough to leave prefill and to decode in a full batch.
const WARMUP_OUTPUT_TOKENS: u32 = 8;

/// The requests of one run, in the order in which they are staged: prime, warm-up, measured.
#[derive(Clone, Debug)]
pub struct RunRequests {
    /// What is staged.
    pub specs: Vec<RequestSpec>,
    /// What the recorder knows of each.
    pub events: Vec<RequestEvent>,
    /// Number of requests in each phase.
    pub counts: [(Phase, u32); 3],
}

impl RunRequests {
    /// The requests of repeat `repeat` of `point`, with token ids below `vocab_size`.
    ///
    /// Every token comes from ChaCha8 seeded with the point's seed and the repeat: the same everywhere, new in each
    /// repeat of a point that is measured for its own sake. One request primes each shared prefix; the requests of a phase take the prefixes in turn, and warm-up
    /// requests look like the measured ones.
    pub fn generate(point: &Point, repeat: u32, vocab_size: u32) -> RunRequests {
        let mut tokens = Tokens::new(point.seed, point.prompt_stream(repeat), vocab_size);
        let prefixes: Vec<Vec<u32>> = (0..point.primed_prefixes()).map(|_| tokens.take(point.prefix_len)).collect();
        let mut made = RunRequests { specs: Vec::new(), events: Vec::new(), counts: [(Phase::Prime, 0); 3] };
        let warmup_output = point.output_len.min(WARMUP_OUTPUT_TOKENS);
        made.counts = [
            (Phase::Prime, point.primed_prefixes()),
            (Phase::Warmup, point.warmup),
            (Phase::Measure, point.num_prompts),
        ];
        for prefix in &prefixes {
            made.push(Phase::Prime, prefix.clone(), 1, 0);
        }
        for (phase, count) in [(Phase::Warmup, point.warmup), (Phase::Measure, point.num_prompts)] {
            let mut in_turn = prefixes.iter().cycle();
            for index in 0..count {
                let mut prompt = Vec::with_capacity(point.input_len as usize);
                prompt.extend(in_turn.next().into_iter().flatten());
                prompt.extend(tokens.take(point.input_len - point.prefix_len));
                let output = if phase == Phase::Warmup { warmup_output } else { point.output_len_of(index) };
                made.push(phase, prompt, output, point.prefix_len);
            }
        }
        made
    }

    /// Most token events that the run can have.
    pub fn max_token_events(&self) -> usize {
        self.specs.iter().map(|spec| spec.output_tokens as usize).sum()
    }

    fn push(&mut self, phase: Phase, prompt: Vec<u32>, output_tokens: u32, prefix_tokens: u32) {
        self.events.push(RequestEvent::planned(phase, prompt.len() as u32, output_tokens, prefix_tokens));
        self.specs.push(RequestSpec { prompt, output_tokens });
    }
}

/// Uniform token ids.
struct Tokens {
    random: ChaCha8Rng,
    vocab_size: u64,
}

impl Tokens {
    fn new(seed: u64, repeat: u32, vocab_size: u32) -> Tokens {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(u64::from(repeat));
        Tokens { random, vocab_size: u64::from(vocab_size) }
    }

    /// Multiply and shift (Lemire 2019) without its rejection step: with 32 random bits and a vocabulary below 2^20
    /// the bias is below 2^-12, and no draw takes longer than another.
    fn take(&mut self, count: u32) -> Vec<u32> {
        (0..count).map(|_| ((u64::from(self.random.next_u32()) * self.vocab_size) >> 32) as u32).collect()
    }
}
