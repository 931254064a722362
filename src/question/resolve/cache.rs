//! Whether an engine can ever schedule the requests of a point: its steps long enough for a prompt, its cache large enough for
//! a request, and for the prefixes that are to stay there.

use super::kv_cache::{self, KvCache};
use super::lengths::{Lengths, Longest};
use super::{Built, Resolver};
use crate::question::config::{Entry, Place, Settings};
use crate::question::plan::{flag_is_off, flag_value, human_readable_int};

/// What a point's requests meet in an engine, as far as it is known.
pub(super) struct Room<'a> {
    pub(super) entry: &'a Entry,
    pub(super) settings: &'a Settings,
    /// Requests of the warm-up.
    pub(super) warmup: u32,
    pub(super) built: &'a Built,
    pub(super) longest: &'a Longest,
    pub(super) lengths: &'a Lengths,
    /// Tokens in a block of the prefix cache.
    pub(super) block_size: Option<u32>,
}

impl Room<'_> {
    /// Tokens of the prompt that come from the cache, if all goes well.
    fn hits(&self) -> Option<u32> {
        let Lengths { input_len, prefix_len, .. } = *self.lengths;
        if prefix_len == 0 || flag_is_off(&self.entry.engine_args.value, "--enable-prefix-caching") {
            return Some(0);
        }
        let block_size = self.block_size?;
        Some((prefix_len / block_size).min((input_len - 1) / block_size) * block_size)
    }

    /// The most prompt tokens that one step has to take at once, where prompts are not cut into chunks.
    fn longest_prefill(&self) -> Option<u32> {
        let Lengths { input_len, prefix_len, .. } = *self.lengths;
        match self.hits()? {
            0 => Some(input_len),
            hits => Some(prefix_len.max(input_len - hits)), // the prefix is primed in a request of its own
        }
    }

    /// Tokens into which `--long-prefill-token-threshold` cuts a longer prompt, with chunks or without. vLLM 0.32 leaves a request
    /// whole that is alone in the engine.
    fn longest_piece(&self) -> Option<u64> {
        let Settings { num_prompts, concurrency, .. } = self.settings;
        let is_sequential = concurrency.as_ref().is_some_and(|given| given.value == Some(1));
        if self.warmup == 1 || is_sequential || num_prompts.as_ref().is_some_and(|given| given.value == 1) {
            return None;
        }
        let threshold = flag_value(&self.entry.engine_args.value, "--long-prefill-token-threshold")?;
        human_readable_int(threshold).filter(|tokens| *tokens > 0)
    }
}

impl Resolver<'_> {
    /// Without chunks a prompt that is longer than a step waits for ever.
    pub(super) fn check_prefill(&mut self, room: &Room<'_>) {
        if !flag_is_off(&room.entry.engine_args.value, "--enable-chunked-prefill") {
            return;
        }
        let Some(prefill) = room.longest_prefill().map(u64::from) else { return };
        let prefill = prefill.min(room.longest_piece().unwrap_or(u64::MAX));
        let live = room.settings.max_num_batched_tokens.as_ref();
        let (step, place, source) = match (live, room.built.max_num_batched_tokens) {
            (Some(limit), built) if built.is_none_or(|built| u64::from(limit.value) <= built) => {
                (u64::from(limit.value), limit.place, "the limit `max_num_batched_tokens`")
            }
            (_, Some(built)) => (built, room.entry.engine_args.place, "`--max-num-batched-tokens` in `args`"),
            _ => return,
        };
        if prefill > step {
            let message = format!(
                "a prompt with {prefill} tokens to compute is never scheduled: `--no-enable-chunked-prefill` in `args` keeps \
                 prompts whole, and {source} allows {step} tokens in a step; raise it, shorten `input_len`, or take the flag out"
            );
            self.problem(place, message);
        }
    }

    /// vLLM refuses a cache that does not hold the longest sequence, and drops prefixes that do not fit beside a request.
    pub(super) fn check_cache(&mut self, room: &Room<'_>, asked: &kv_cache::Asked<'_>) {
        let Some(cache) = kv_cache::known(asked) else { return };
        let Lengths { input_len, output_len, num_prefixes, place, .. } = *room.lengths;
        let place = if cache.is_in_args { room.entry.engine_args.place } else { place };
        let block_size = u64::from(asked.block_size);
        let request = u64::from(input_len) + u64::from(output_len);
        let (tokens, what) = match room.longest.tokens() {
            Some(longest) if longest >= request => {
                (longest, "the longest sequence that the engine takes (`max_model_len`)")
            }
            _ => (request, "one request (`input_len` and `output_len`)"),
        };
        let blocks = tokens.div_ceil(block_size);
        if blocks > cache.usable_blocks {
            self.too_small(
                place,
                &cache,
                format!("{what} of {tokens} tokens takes {blocks} blocks of {block_size}, and vLLM refuses it"),
            );
            return;
        }
        let hits = u64::from(room.hits().unwrap_or(0));
        let (shared, own) = (hits / block_size, u64::from(input_len).div_ceil(block_size) - hits / block_size);
        let kept = u64::from(num_prefixes) * shared;
        if hits > 0 && kept + own > cache.usable_blocks {
            let prefixes = format!(
                "{num_prefixes} prefixes of {shared} blocks of {block_size} tokens, and the {own} more of a prompt, take {} blocks: \
                 prefixes would be dropped before they are asked for, and every run would be invalid",
                kept + own
            );
            self.too_small(place, &cache, prefixes);
        }
    }

    fn too_small(&mut self, place: Place, cache: &KvCache, what: String) {
        let KvCache { usable_blocks, source, .. } = cache;
        let message = format!(
            "the KV cache has {usable_blocks} blocks for requests, by {source}, and {what}; give it more memory, or ask for less"
        );
        self.problem(place, message);
    }
}
