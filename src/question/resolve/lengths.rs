//! The lengths of a point, and what the model allows of them.

use super::prefix::{self, Unreachable};
use super::{Built, MaxModelLen, Resolver};
use crate::machine::device::DeviceClass;
use crate::question::config::{Entry, Given, Place, Scale, Settings, quoted};
use crate::question::plan::{HitRate, NamedWorkload, PrefixMode, flag_is_off, has_flag};

/// The lengths of a point, resolved.
pub(super) struct Lengths {
    pub(super) input_len: u32,
    pub(super) output_len: u32,
    pub(super) prefix_len: u32,
    pub(super) prefix_mode: PrefixMode,
    pub(super) num_prefixes: u32,
    pub(super) prefix_hit_rate: Option<HitRate>,
    pub(super) workload: Option<NamedWorkload>,
    pub(super) place: Place,
}

/// The longest sequence that an engine takes, as far as it is known before one is loaded.
pub(super) struct Longest {
    tokens: Option<u64>,
    source: &'static str,
}

impl Longest {
    pub(super) fn tokens(&self) -> Option<u64> {
        self.tokens
    }
}

/// Whether what the model's own `config.json` says need not hold: with overrides of it, and with a file of more `args`.
pub(super) fn changes_model_config(engine_args: &[String]) -> bool {
    let flags = ["--hf-overrides", "--hf-config-path", "--config-format", "--config"];
    flags.into_iter().any(|flag| has_flag(engine_args, flag))
}

impl Resolver<'_> {
    pub(super) fn lengths(
        &mut self,
        entry: &Entry,
        settings: &Settings,
        device: DeviceClass,
        longest: &Longest,
    ) -> Option<Lengths> {
        let (Some(input), Some(output)) = (&settings.input_len, &settings.output_len) else {
            let message = format!(
                "the entry {} gives no lengths; add `length_configs`, a `workload`, or `input_len` and `output_len`",
                quoted(&entry.name.value)
            );
            self.problem(entry.name.place, message);
            return None;
        };
        let workload = self.workload(entry, settings, input, output)?;
        let prefix_mode = settings.prefix_mode.as_ref().map_or(PrefixMode::default(), |mode| mode.value);
        let (prefix_len, prefix_hit_rate) = match &settings.prefix_hit_rate {
            Some(asked) => {
                let (tokens, rate) = self.prefix_of_rate(entry, asked, input.value, prefix_mode, device, longest)?;
                (tokens, Some(rate))
            }
            None => (settings.prefix_len.as_ref().map_or(0, |prefix| prefix.value), None),
        };
        let place = input.place;
        // Both are far below u32::MAX / 2.
        let input_len = if prefix_mode == PrefixMode::Added { input.value + prefix_len } else { input.value };
        if prefix_len > input_len {
            let message = format!(
                "the shared prefix of {prefix_len} tokens is longer than the prompt of {input_len}, inside which it lies; \
                 shorten `prefix_len`, or add it in front with `prefix_mode: added`"
            );
            self.problem(place, message);
            return None;
        }
        let num_prefixes = settings.num_prefixes.as_ref().map_or(1, |count| count.value);
        let lengths = Lengths {
            input_len,
            output_len: output.value,
            prefix_len,
            prefix_mode,
            num_prefixes,
            prefix_hit_rate,
            workload,
            place,
        };
        self.check_model_len(longest, &lengths);
        Some(lengths)
    }

    /// The named workload that the lengths come from. `None` after a problem.
    fn workload(
        &mut self,
        entry: &Entry,
        settings: &Settings,
        input: &Given<u32>,
        output: &Given<u32>,
    ) -> Option<Option<NamedWorkload>> {
        let scale = settings.scale.as_ref();
        let Some(workload) = &settings.workload else {
            // In `defaults` it is meant for those entries that have a workload.
            if let Some(own) = &entry.settings.scale {
                self.problem(
                    own.place,
                    "`scale` is of the lengths of a named `workload`, and this entry gives its own",
                );
            }
            return Some(None);
        };
        if input.value == 0 || output.value == 0 {
            let (name, scale) = (workload.value.name, scale.map_or(Scale::FULL, |scale| scale.value));
            let message =
                format!("`scale: {scale}` leaves nothing of a length of the workload {name}; take a larger one");
            self.problem(settings.scale.as_ref().map_or(workload.place, |scale| scale.place), message);
            return None;
        }
        let scale = scale.map_or(Scale::FULL, |scale| scale.value).to_string();
        Some(Some(NamedWorkload { name: workload.value.name.to_owned(), scale }))
    }

    /// The shared prefix that gives a hit rate. `None` after a problem.
    fn prefix_of_rate(
        &mut self,
        entry: &Entry,
        asked: &Given<f64>,
        input_len: u32,
        prefix_mode: PrefixMode,
        device: DeviceClass,
        longest: &Longest,
    ) -> Option<(u32, HitRate)> {
        if prefix_mode == PrefixMode::Added {
            let message = "`prefix_hit_rate` is a share of `input_len`, inside which its prefix lies: it excludes \
                           `prefix_mode: added`";
            self.problem(asked.place, message);
            return None;
        }
        let args = &entry.engine_args.value;
        if asked.value > 0.0 && flag_is_off(args, "--enable-prefix-caching") {
            let message =
                "`prefix_hit_rate` needs the prefix cache, and `--no-enable-prefix-caching` in `args` turns it off";
            self.problem(asked.place, message);
            return None;
        }
        let Some(block_size) = prefix::block_size(device, args, longest.tokens, self.overrides.scripted) else {
            let message = "`prefix_hit_rate` needs the size of the cache's blocks, which is not known before this engine is \
                           loaded; give `--block-size` or `--max-model-len` in `args`";
            self.problem(asked.place, message);
            return None;
        };
        let unreachable = match prefix::of_hit_rate(asked.value, input_len, block_size) {
            Ok(found) => return Some(found),
            Err(unreachable) => unreachable,
        };
        let shown = |rate: f64| (rate * 1e4).round() / 1e4;
        let nearest = match unreachable {
            Unreachable::Above(most) => format!("at most {} of it can be", shown(most)),
            Unreachable::BelowOneBlock(Some(one)) => {
                format!("the nearest that can be reached are 0 and {}", shown(one))
            }
            Unreachable::BelowOneBlock(None) => "only 0 can be reached".to_owned(),
        };
        let message = format!(
            "a `prefix_hit_rate` of {} cannot be reached: of a prompt of {input_len} tokens only whole blocks of \
             {block_size} are taken from the cache, and never the last token; {nearest}. Take that, longer prompts, or \
             smaller blocks (`--block-size` in `args`)",
            asked.value
        );
        self.problem(asked.place, message);
        None
    }

    /// `max_positions` is what the model's own `config.json` allows.
    pub(super) fn longest(&mut self, entry: &Entry, built: &Built, max_positions: Option<u64>) -> Longest {
        let of_model = max_positions.filter(|_| !changes_model_config(&entry.engine_args.value));
        let (tokens, source) = match &built.max_model_len {
            Some(MaxModelLen::Tokens(tokens)) => (Some(*tokens), "`--max-model-len` in `args`"),
            Some(MaxModelLen::LeftToVllm) => (None, ""),
            None => (of_model, "`max_position_embeddings` in the model's config.json"),
        };
        if let (Some(asked), Some(most)) = (tokens, of_model)
            && asked > most
            && !self.overrides.scripted
        {
            let message = format!(
                "`--max-model-len` of {asked} in `args` is above the {most} positions that the model's config.json has, \
                 and vLLM refuses it; lower it, or change the model's configuration with `--hf-overrides`"
            );
            self.problem(entry.engine_args.place, message);
        }
        Longest { tokens, source }
    }

    /// vLLM cuts an output that does not fit, without a word; here it is an error before anything runs.
    fn check_model_len(&mut self, longest: &Longest, lengths: &Lengths) {
        let Lengths { input_len, output_len, .. } = lengths;
        let asked = u64::from(*input_len) + u64::from(*output_len);
        if let Some(limit) = longest.tokens
            && asked > limit
        {
            let source = longest.source;
            let message = format!(
                "a prompt of {input_len} and an output of {output_len} tokens are {asked} together, and {source} allows \
                 {limit}; vLLM would cut the output without a word, so shorten the lengths or allow more"
            );
            self.problem(lengths.place, message);
        }
    }
}
