//! From what a configuration says to a plan: levels laid over each other, axes crossed, every point checked.

mod cache;
mod checkpoint;
mod kv_cache;
mod lengths;
mod local_model;
mod pairs;
mod prefix;
mod quantization;
mod scripted;

pub use kv_cache::CpuKvSpace;
pub use pairs::MAX_PAIR_LOADS;
pub use scripted::of_script;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use local_model::LocalModel;
use quantization::{Asked, Culprit};

use crate::machine::device::DeviceClass;
use crate::question::config::{
    Config, ConfigError, Entry, Given, MAX_REPEATS, Place, Problems, Scale, Settings, quoted,
};
use crate::question::plan::{
    COMPARED_METRICS, DEFAULT_TELEMETRY_HZ, Drive, EngineKey, IgnoredInEq, Limits, Load, Location, Plan, Point, Role,
    StepApi, class, epochs, flag_value, has_flag, human_readable_int, label, ranks, seed,
};
use crate::statistics::pairs_against;

/// What the command line says; it counts more than the configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Overrides {
    /// Device class of every engine.
    pub device: Option<DeviceClass>,
    /// Runs of every point, at most 1,000.
    pub repeats: Option<u32>,
    /// Relative half-width of the intervals from which on a point needs no more runs. Its `repeats` are then the most.
    pub until_ci: Option<f64>,
    /// Seed of the plan; seeds that entries give themselves stay.
    pub seed: Option<u64>,
    /// Whether a scripted engine takes the place of vLLM: it needs no warm-up unless the configuration asks for one.
    pub scripted: bool,
    /// `VLLM_CPU_KVCACHE_SPACE` of the environment.
    pub kv_space: CpuKvSpace,
}

/// Most points of a plan.
pub const MAX_POINTS: u64 = 100_000;

/// Most runs of a plan: a run keeps some kilobytes of a report, and at a second each they take more than a day.
pub const MAX_RUNS: u64 = 100_000;

/// Most tokens, prompts and outputs together, of one run; prompts are staged in memory before the run.
pub const MAX_TOKENS_PER_RUN: u64 = 1 << 32;

/// What counts where neither the command line nor the configuration says anything.
pub mod defaults {
    /// Requests in a run, as in `vllm bench throughput`.
    pub const NUM_PROMPTS: u32 = 1_000;
    /// Runs of each point: the fewest that an interval with a decision needs (R = 2 to 4 is shown as "few runs").
    pub const REPEATS: u32 = 5;
    /// Pairs of each point of a comparison that the command line asks for, or more where there are many points.
    pub const PAIRS: u32 = 10;
    /// Runs of each point at most, where an interval of a given width is wanted.
    pub const MOST_REPEATS: u32 = 40;
    /// The plan's seed.
    pub const SEED: u64 = 0;
}

/// The plan that `config` describes, with `overrides` in place of what it says.
///
/// # Errors
/// Every value that cannot be measured as it stands, with its line and column: no model, lengths that do not fit the
/// model or each other, limits above those that the engine is built with, a quantization that there is not, too many points.
pub fn resolve(config: &Config, overrides: Overrides) -> Result<Plan, ConfigError> {
    let plan_seed = overrides.seed.or(config.defaults.seed.as_ref().map(|seed| seed.value)).unwrap_or(defaults::SEED);
    let mut resolver = Resolver {
        config,
        overrides,
        problems: Problems::default(),
        models: HashMap::new(),
        excluding: HashSet::new(),
        keys: Vec::new(),
        index_of_key: BTreeMap::new(),
        num_pairs: 0,
        num_runs: 0,
        usual_repeats: defaults::REPEATS,
        any_cache_bytes: false,
    };
    resolver.check_overrides();
    let mut points = Vec::new();
    if let Some(most) = resolver.number_of_points() {
        let too_many_runs = |repeats: u32| {
            format!(
                "the configuration crosses to {most} points, and {repeats} repeats of each are more than {MAX_RUNS} runs, \
                 the most that are planned; lower `repeats` (--repeats N), or measure fewer points"
            )
        };
        resolver.any_cache_bytes = config.entries.iter().any(gives_cache_bytes);
        if config.is_compared {
            resolver.usual_repeats = pairs_of(most as usize / 2);
        }
        let crossed = config.entries.iter().try_for_each(|entry| {
            resolver.cross(entry, plan_seed, &mut points).map_err(|repeats| (entry.name.place, repeats))
        });
        match crossed {
            Ok(()) => resolver.check_exclusions(),
            Err((place, repeats)) => resolver.problem(place, too_many_runs(repeats)),
        }
    }
    let keys = resolver.problems.into_result(resolver.keys)?;
    label::assign(&keys, &mut points);
    let varying = class::varying(&keys, &points);
    let epochs = epochs::arrange(keys, points, plan_seed, config.whole_sweep);
    Ok(Plan { name: config.name.clone(), seed: plan_seed, varying, epochs })
}

/// Resolves entries one by one, and collects what is wrong with them.
struct Resolver<'c> {
    config: &'c Config,
    overrides: Overrides,
    problems: Problems,
    /// What is known of each model; looked up once.
    models: HashMap<String, Result<LocalModel, String>>,
    /// The exclusions that have left out a point.
    excluding: HashSet<Place>,
    /// The engine keys so far, in the order of their first point, and where each one stands.
    keys: Vec<EngineKey>,
    index_of_key: BTreeMap<EngineKey, usize>,
    /// The pairs so far.
    num_pairs: u32,
    /// The runs of the points so far.
    num_runs: u64,
    /// Runs of a point for which nothing says how many.
    usual_repeats: u32,
    /// Whether any engine is given the size of its KV cache in bytes.
    any_cache_bytes: bool,
}

/// An axis of an entry: the keys that it gives, and a level of settings for each value.
struct CrossedAxis<'e> {
    keys: Vec<&'static str>,
    values: &'e [Settings],
}

/// What an entry's `args` build into the engine.
struct Built {
    max_model_len: Option<MaxModelLen>,
    max_num_seqs: Option<u64>,
    max_num_batched_tokens: Option<u64>,
}

/// `--max-model-len` in `args`.
enum MaxModelLen {
    Tokens(u64),
    /// `auto`, or a value that vLLM's own parser judges.
    LeftToVllm,
}

impl Built {
    fn of(engine_args: &[String]) -> Built {
        let number = |flag| flag_value(engine_args, flag).and_then(human_readable_int);
        let max_model_len = flag_value(engine_args, "--max-model-len")
            .map(|text| human_readable_int(text).map_or(MaxModelLen::LeftToVllm, MaxModelLen::Tokens));
        Built {
            max_model_len,
            max_num_seqs: number("--max-num-seqs"),
            max_num_batched_tokens: number("--max-num-batched-tokens"),
        }
    }
}

/// Pairs of each of so many points: one more than it takes for a difference in all of them to hold against all tests.
fn pairs_of(points: usize) -> u32 {
    defaults::PAIRS.max(pairs_against(points * COMPARED_METRICS) as u32 + 1)
}

/// The entry, with the words of an axis `args` behind its own.
fn with_args(entry: &Entry, added: &[String]) -> Entry {
    let Given { value: own, place } = &*entry.engine_args;
    Entry { engine_args: Arc::new(Given::new([&own[..], added].concat(), *place)), ..entry.clone() }
}

/// Whether an engine of the entry is given the size of its KV cache in bytes.
fn gives_cache_bytes(entry: &Entry) -> bool {
    let added =
        entry.matrix.axes.iter().flat_map(|axis| axis.values.iter()).filter_map(|settings| settings.args.as_ref());
    let mut args = added.map(|args| &args.value[..]).chain([&entry.engine_args.value[..]]);
    args.any(|args| has_flag(args, kv_cache::BYTES))
}

impl Resolver<'_> {
    fn problem(&mut self, place: Place, message: impl Into<String>) {
        self.problems.add(self.config.location(place), message);
    }

    fn check_overrides(&mut self) {
        if let Some(repeats) = self.overrides.repeats.filter(|repeats| !(1..=MAX_REPEATS).contains(repeats)) {
            let location = Location { file: self.config.file.clone(), line: 0, column: 0 };
            self.problems.add(location, format!("{repeats} repeats were asked for; it has to be 1 to {MAX_REPEATS}"));
        }
        let Some(device) = self.overrides.device else { return };
        let has_axis =
            |entry: &&Entry| entry.matrix.axes.iter().any(|axis| axis.keys.iter().any(|(key, _)| *key == "device"));
        for entry in self.config.entries.iter().filter(has_axis) {
            let name = quoted(&entry.name.value);
            let message = format!(
                "--device {device} was given, and the entry {name} has an axis `device`: its points would be measured twice; leave \
                 out either"
            );
            self.problem(entry.name.place, message);
        }
    }

    /// Whether the axes of all entries cross to a number of points that can be planned. Nothing is built for it.
    fn number_of_points(&mut self) -> Option<u64> {
        let mut total: u64 = 0;
        for entry in &self.config.entries {
            let axes = entry.matrix.axes.iter().map(|axis| axis.values.len());
            let lists = [entry.tensor_parallel_sizes.len().max(1), entry.length_configs.len().max(1)];
            let points = lists.into_iter().chain(axes).fold(1u64, |product, len| product.saturating_mul(len as u64));
            total = total.saturating_add(points);
            if total > MAX_POINTS {
                let many = if total == u64::MAX { "far more".into() } else { total.to_string() };
                let message = format!(
                    "up to this entry the configuration crosses to {many} points; at most {MAX_POINTS} are planned"
                );
                self.problem(entry.name.place, message);
                return None;
            }
        }
        Some(total)
    }

    /// Appends every point of `entry`: sizes, then lengths, then the axes, the last one turning fastest. Fails with the
    /// repeats of the point whose runs are over [`MAX_RUNS`].
    fn cross(&mut self, entry: &Entry, plan_seed: u64, points: &mut Vec<(usize, Point)>) -> Result<(), u32> {
        let built = Built::of(&entry.engine_args.value);
        let sizes: Vec<Settings> = entry
            .tensor_parallel_sizes
            .iter()
            .map(|size| Settings { tensor_parallel_size: Some(size.clone()), ..Settings::default() })
            .collect();
        let axes = axes_of(entry, &sizes);
        let mut pairs = self.pairs(entry, &axes);
        let mut digits = vec![0; axes.len()];
        let (before, mut num_excluded) = (points.len(), 0);
        loop {
            let crossed = axes.iter().zip(&digits).map(|(axis, digit)| &axis.values[*digit]);
            // Later ones are the more specific ones.
            let own = crossed.fold(Settings::default(), |lower, axis| axis.clone().over(&lower)).over(&entry.settings);
            let settings = self.over_defaults(own);
            let with_args = settings.args.as_ref().map(|added| with_args(entry, &added.value));
            let point = |resolver: &mut Self| match &with_args {
                Some(entry) => resolver.point(entry, &Built::of(&entry.engine_args.value), &settings),
                None => resolver.point(entry, &built, &settings),
            };
            if self.is_excluded(entry, &settings) {
                num_excluded += 1;
            } else if let Some((key, mut point)) = point(self) {
                let seed = settings.seed.as_ref().map(|seed| seed.value);
                let Point { input_len, output_len, prefix_len, num_prompts, repeats, .. } = point;
                self.num_runs += u64::from(repeats);
                if self.num_runs > MAX_RUNS {
                    return Err(repeats);
                }
                point.seed =
                    seed.unwrap_or_else(|| seed::of_prompts(plan_seed, input_len, output_len, prefix_len, num_prompts));
                if let Some(pairs) = &mut pairs {
                    pairs.add(&digits, points.len());
                }
                points.push((self.index_of(key), point));
            }
            if self.problems.is_full() || !count_up(&mut digits, &axes) {
                break;
            }
        }
        if num_excluded > 0 && points.len() == before {
            let message = format!("`exclude` leaves no point of the entry {}", quoted(&entry.name.value));
            self.problem(entry.name.place, message);
        }
        if let Some(pairs) = pairs {
            self.pair_up(entry, pairs, points);
        }
        Ok(())
    }

    /// Whether the entry's matrix leaves this point out.
    fn is_excluded(&mut self, entry: &Entry, settings: &Settings) -> bool {
        let mut is_excluded = false;
        for exclusion in entry.matrix.exclusions_of(settings) {
            is_excluded = true;
            self.excluding.insert(exclusion.place);
        }
        is_excluded
    }

    /// An exclusion without effect is a slip: what it meant to leave out would be measured.
    fn check_exclusions(&mut self) {
        let mut told: HashSet<Place> = HashSet::new();
        let config = self.config;
        for exclusion in config.entries.iter().flat_map(|entry| entry.matrix.exclude.iter()) {
            // Entries share those of `defaults`.
            if !self.excluding.contains(&exclusion.place) && told.insert(exclusion.place) {
                self.problem(exclusion.place, "this item of `exclude` excludes no point; correct it or take it out");
            }
        }
    }

    fn index_of(&mut self, key: EngineKey) -> usize {
        if let Some(index) = self.index_of_key.get(&key) {
            return *index;
        }
        self.index_of_key.insert(key.clone(), self.keys.len());
        self.keys.push(key);
        self.keys.len() - 1
    }

    /// An entry's own settings over the defaults. A workload's lengths stand at the level that names it, and of a prefix's
    /// length and a hit rate the one of the higher level counts.
    fn over_defaults(&self, mut own: Settings) -> Settings {
        let mut lower = self.config.defaults.clone();
        let scale = own.scale.as_ref().or(lower.scale.as_ref()).map_or(Scale::FULL, |scale| scale.value);
        own.expand_workload(scale);
        if own.input_len.is_some() || own.output_len.is_some() {
            lower.workload = None;
        }
        if own.prefix_len.is_some() {
            lower.prefix_hit_rate = None;
        }
        lower.expand_workload(scale);
        if own.prefix_hit_rate.is_some() {
            lower.prefix_len = None;
        }
        // The seed of the defaults is the plan's: points derive theirs from it.
        lower.seed = None;
        own.over(&lower)
    }

    fn point(&mut self, entry: &Entry, built: &Built, settings: &Settings) -> Option<(EngineKey, Point)> {
        let device = self.overrides.device.or(settings.device.as_ref().map(|device| device.value));
        let device = device.unwrap_or(DeviceClass::Cpu);
        let engine = self.engine_key(entry, settings, device);
        let longest = self.longest(entry, built, engine.as_ref().and_then(|(_, model)| model.max_position_embeddings));
        let lengths = self.lengths(entry, settings, device, &longest);
        self.check_limits(built, settings);
        let ((key, model), lengths) = (engine?, lengths?);
        self.check_room(entry, settings, built, (&key, &model), (&longest, &lengths));

        let value = |given: &Option<Given<u32>>, default| given.as_ref().map_or(default, |given| given.value);
        let num_prompts = value(&settings.num_prompts, defaults::NUM_PROMPTS);
        // Pairs have a rule of their own.
        let until_ci = self.overrides.until_ci.filter(|_| entry.matrix.compare.is_none());
        let given = value(&settings.repeats, self.usual_repeats);
        let planned = if until_ci.is_some() { defaults::MOST_REPEATS } else { given };
        let repeats = self.overrides.repeats.unwrap_or(planned);
        let tokens = u64::from(num_prompts) * (u64::from(lengths.input_len) + u64::from(lengths.output_len));
        if tokens > MAX_TOKENS_PER_RUN {
            let message = format!(
                "{num_prompts} prompts of these lengths are {tokens} tokens in one run; at most {MAX_TOKENS_PER_RUN} fit"
            );
            self.problem(settings.num_prompts.as_ref().map_or(lengths.place, |given| given.place), message);
        }
        self.check_prefixes(settings, &lengths, num_prompts);
        let point = Point {
            name: entry.name.value.clone(),
            point: String::new(),
            input_len: lengths.input_len,
            output_len: lengths.output_len,
            scripted_output_lens: None,
            prefix_len: lengths.prefix_len,
            prefix_mode: lengths.prefix_mode,
            num_prefixes: lengths.num_prefixes,
            prefix_hit_rate: lengths.prefix_hit_rate,
            workload: lengths.workload,
            num_prompts,
            repeats,
            until_ci,
            warmup: value(
                &settings.warmup,
                if self.overrides.scripted { 0 } else { key.device.profile().warmup.value },
            ),
            telemetry_hz: value(&settings.telemetry_hz, DEFAULT_TELEMETRY_HZ),
            seed: 0,
            load: Load::Closed { concurrency: settings.concurrency.as_ref().and_then(|given| given.value) },
            drive: settings.drive.as_ref().map_or(Drive::default(), |given| given.value),
            limits: Limits {
                max_num_seqs: settings.max_num_seqs.as_ref().map(|given| given.value),
                max_num_batched_tokens: settings.max_num_batched_tokens.as_ref().map(|given| given.value),
            },
            slo: settings.slo.as_ref().map(|given| given.value.clone()).unwrap_or_default(),
            role: Role::Measured,
            pair: None,
            location: IgnoredInEq(self.config.location(lengths.place)),
        };
        Some((key, point))
    }

    /// The engine that a point needs, and what is known of its model.
    fn engine_key(
        &mut self,
        entry: &Entry,
        settings: &Settings,
        device: DeviceClass,
    ) -> Option<(EngineKey, LocalModel)> {
        self.check_refused(entry, device);
        let Some(model) = &settings.model else {
            let message = format!(
                "the entry {} names no model; add `--model` to its `args`, or the key `model`",
                quoted(&entry.name.value)
            );
            self.problem(entry.name.place, message);
            return None;
        };
        let known =
            self.models.entry(model.value.clone()).or_insert_with(|| local_model::look_at(&model.value)).clone();
        let local = match known {
            Ok(local) => local,
            Err(message) => {
                self.problem(model.place, message);
                return None;
            }
        };
        let asked = Asked {
            device,
            key: settings.quantization.as_ref().map(|given| given.value),
            engine_args: &entry.engine_args.value,
            checkpoint: local.quantization.as_ref(),
        };
        let (quantization, quantization_switches) = match quantization::resolve(&asked) {
            Ok(resolved) => resolved,
            Err((culprit, message)) => {
                let key = settings.quantization.as_ref().map(|given| given.place);
                self.problem(place_of(culprit, key, entry.engine_args.place, model.place), message);
                return None;
            }
        };
        let key = EngineKey {
            device,
            model: local.name.clone(),
            tensor_parallel_size: settings.tensor_parallel_size.as_ref().map_or(1, |size| size.value),
            quantization,
            quantization_switches,
            engine_args: entry.engine_args.value.clone(),
            step_api: settings.step_api.as_ref().map_or(StepApi::default(), |given| given.value),
            args_location: IgnoredInEq(self.config.location(entry.engine_args.place)),
        };
        Some((key, local))
    }

    /// Requests that the engine could never take. A scripted engine has neither limits nor blocks.
    fn check_room(
        &mut self,
        entry: &Entry,
        settings: &Settings,
        built: &Built,
        (key, model): (&EngineKey, &LocalModel),
        (longest, lengths): (&lengths::Longest, &lengths::Lengths),
    ) {
        // A file of more `args` may set all of it.
        if self.overrides.scripted || has_flag(&key.engine_args, "--config") {
            return;
        }
        let block_size = prefix::block_size(key.device, &key.engine_args, longest.tokens(), false);
        let warmup = settings.warmup.as_ref().map_or(key.device.profile().warmup.value, |given| given.value);
        let room = cache::Room { entry, settings, warmup, built, longest, lengths, block_size };
        self.check_prefill(&room);
        if let Some(block_size) = block_size {
            let asked = kv_cache::Asked {
                device: key.device,
                engine_args: &key.engine_args,
                tensor_parallel_size: key.tensor_parallel_size,
                shape: model.kv_shape,
                block_size,
                space: self.overrides.kv_space,
                // The profile sets no variable where any engine has a size of its own. A plan for a hub's model may be made on a
                // machine that never loads it.
                has_profile_space: !self.any_cache_bytes && Path::new(&model.name).is_absolute(),
            };
            self.check_cache(&room, &asked);
        }
    }

    /// Flags with which the numbers would not be what they are labelled. A script has no use for flags.
    fn check_refused(&mut self, entry: &Entry, device: DeviceClass) {
        if self.overrides.scripted {
            return;
        }
        for (flag, refused) in device.profile().refused_flags(&entry.engine_args.value) {
            let message = format!("`{flag}` is refused on {device}: {}; {}", refused.why, refused.instead);
            self.problem(entry.engine_args.place, message);
        }
        if let Some(flag) = ranks::data_parallel(&entry.engine_args.value) {
            let message = format!("`{flag}` in `args` is refused: {}", ranks::NO_REPLICAS);
            self.problem(entry.engine_args.place, message);
        }
        if let Some(uncompiled) = ranks::lacks_stage_buffers(device, &entry.engine_args.value) {
            let message = format!(
                "`--pipeline-parallel-size` with `{uncompiled}` in `args` is refused on cpu: vLLM 0.32 leaves out the warm-up in \
                 which the stages get their buffers, and fails in the first step; take either out, or use \
                 `tensor_parallel_sizes`"
            );
            self.problem(entry.engine_args.place, message);
        }
    }

    /// Every prefix that is primed has to be asked for.
    fn check_prefixes(&mut self, settings: &Settings, lengths: &lengths::Lengths, num_prompts: u32) {
        let Some(given) = &settings.num_prefixes else { return };
        if settings.prefix_len.is_none() && settings.prefix_hit_rate.is_none() {
            let message = "`num_prefixes` needs a prefix: give `prefix_len` or `prefix_hit_rate`";
            self.problem(given.place, message);
        } else if lengths.prefix_len > 0 && given.value > num_prompts {
            let message = format!(
                "{} prefixes and {num_prompts} prompts, which take one each: some would never be asked for; lower \
                 `num_prefixes` or raise `num_prompts`",
                given.value
            );
            self.problem(given.place, message);
        }
    }

    /// Live limits only ever lower what the engine was built with: raising them crashes vLLM.
    fn check_limits(&mut self, built: &Built, settings: &Settings) {
        for (key, flag, limit, built) in [
            ("max_num_seqs", "--max-num-seqs", &settings.max_num_seqs, built.max_num_seqs),
            (
                "max_num_batched_tokens",
                "--max-num-batched-tokens",
                &settings.max_num_batched_tokens,
                built.max_num_batched_tokens,
            ),
        ] {
            if let (Some(limit), Some(built)) = (limit, built)
                && u64::from(limit.value) > built
            {
                let message = format!(
                    "the limit `{key}` of {} is above the {built} that `{flag}` in `args` builds; a running engine can \
                     only be lowered, so raise the flag or lower the limit",
                    limit.value
                );
                self.problem(limit.place, message);
            }
        }
    }
}

/// Where the part of a configuration that is to blame stands.
fn place_of(culprit: Culprit, key: Option<Place>, args: Place, model: Place) -> Place {
    match culprit {
        Culprit::Key => key.unwrap_or(args),
        Culprit::Args => args,
        Culprit::Model => model,
    }
}

/// The axes of an entry that has these sizes, the last one turning fastest.
fn axes_of<'e>(entry: &'e Entry, sizes: &'e [Settings]) -> Vec<CrossedAxis<'e>> {
    let own = [(vec!["tensor_parallel_size"], sizes), (Vec::new(), &entry.length_configs[..])];
    let own = own.into_iter().filter(|(_, values)| !values.is_empty());
    let matrix = entry.matrix.axes.iter();
    let matrix = matrix.map(|axis| (axis.keys.iter().map(|(key, _)| *key).collect(), &axis.values[..]));
    own.chain(matrix).map(|(keys, values)| CrossedAxis { keys, values }).collect()
}

/// The next combination; false after the last one.
fn count_up(digits: &mut [usize], axes: &[CrossedAxis<'_>]) -> bool {
    for (digit, axis) in digits.iter_mut().zip(axes).rev() {
        *digit += 1;
        if *digit < axis.values.len() {
            return true;
        }
        *digit = 0;
    }
    false
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use crate::question::config::{AXIS_KEYS, SETTING_KEYS};
    use crate::question::plan::class::setting_keys;

    #[test]
    fn every_key_of_a_configuration_has_a_class() {
        let mut known: HashSet<&str> = SETTING_KEYS.into_iter().chain(AXIS_KEYS).collect();
        // Two tables whose entries are axes of their own.
        assert!(known.remove("load") && known.remove("limits"));
        assert_eq!(setting_keys(), known);
    }
}
