//! What each device class needs and is given: one table, every value with the reason for it.

use std::ops::RangeInclusive;

use serde::{Serialize, Serializer};

use super::{DeviceClass, profiles};

/// Everything that is decided by the device class alone.
#[derive(Debug, Serialize)]
pub struct Profile {
    /// The class that it is of.
    pub device: DeviceClass,
    /// The Python package with the engine for this class; its lock file has the version. All of them own the module
    /// `vllm`, so there is one environment for each class.
    pub package: &'static str,
    /// Python's minor versions (of 3) for which every package of the lock file has a wheel.
    #[serde(serialize_with = "as_versions")]
    pub python_minors: RangeInclusive<u8>,
    /// Flags that vLLM's parser gets unless `args` has them.
    pub engine_arguments: &'static [EngineArgument],
    /// Variables of the sidecar's environment.
    pub variables: &'static [Variable],
    /// What a measurement is refused with.
    pub refused: &'static [Refused],
    /// Requests before the measured window, where the configuration gives none.
    pub warmup: Reasoned<u32>,
    /// Whether steps overlap with the scheduling of the next one.
    pub async_scheduling: Reasoned<bool>,
    /// Tokens of a block of the prefix cache as vLLM chooses them, in words. What a loaded engine has is in the report.
    pub block_size: &'static str,
    /// How requests are sampled, in words.
    pub sampling: &'static str,
    /// How the process of an engine comes to be, in words. The sidecar looks before each; what it did is in the report.
    pub engine_process: &'static str,
    /// What a rank takes one of, and `tensor_parallel_size` counts, in words.
    pub tensor_parallel: &'static str,
}

/// A value and the reason for it.
#[derive(Debug, Serialize)]
pub struct Reasoned<T> {
    /// The value.
    pub value: T,
    /// Why it is that one, or where it comes from.
    pub why: &'static str,
}

/// A flag for vLLM's parser.
#[derive(Debug, Serialize)]
pub struct EngineArgument {
    /// The flag, which takes no value.
    pub flag: &'static str,
    /// The flag that says the opposite: with either of them in `args` this one is left out.
    pub opposite: &'static str,
    /// Why it is given.
    pub why: &'static str,
}

/// A variable of the sidecar's environment.
#[derive(Debug, Serialize)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// Its value.
    pub value: Value,
    /// What counts more than this value.
    pub yields: Yields,
    /// Why it is set.
    pub why: &'static str,
}

/// The value of a variable.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Value {
    /// As it stands.
    Text(&'static str),
    /// A folder below vLLM's own cache folder.
    BelowVllmCache(&'static str),
}

/// What counts more than the value of a profile.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Yields {
    /// Nothing: a run with another value would not be what it is labelled.
    Never,
    /// The user's own value.
    ToUser,
    /// The user's own value, and this flag of any engine, which the variable would override.
    ToUserAndFlag(&'static str),
}

/// A setting that a measurement is refused with.
#[derive(Debug, Serialize)]
pub struct Refused {
    /// The setting.
    pub setting: RefusedSetting,
    /// What it would do to the numbers.
    pub why: &'static str,
    /// What to do.
    pub instead: &'static str,
}

/// Where a refused setting would come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusedSetting {
    /// A flag in `args`.
    Flag(&'static str),
    /// A variable of the user's environment that is set, and not to 0 or false.
    Variable(&'static str),
    /// A variable of the user's environment that asks for more than one of something.
    VariableAboveOne(&'static str),
}

impl DeviceClass {
    /// The profile of this class.
    pub fn profile(self) -> &'static Profile {
        match self {
            DeviceClass::Cpu => &profiles::CPU,
            DeviceClass::Cuda => &profiles::CUDA,
            DeviceClass::Tpu => &profiles::TPU,
        }
    }
}

impl Profile {
    /// The flags that are added to these, in front of them.
    pub fn added_arguments<'a>(&'a self, given: &'a [String]) -> impl Iterator<Item = &'static str> + 'a {
        let is_given = |flag: &str| given.iter().any(|word| names_flag(word, flag));
        self.engine_arguments
            .iter()
            .filter(move |argument| !is_given(argument.flag) && !is_given(argument.opposite))
            .map(|argument| argument.flag)
    }

    /// The refused flags among an engine's arguments.
    pub fn refused_flags<'a>(&'a self, given: &'a [String]) -> impl Iterator<Item = (&'static str, &'a Refused)> {
        self.refused.iter().filter_map(move |refused| match refused.setting {
            RefusedSetting::Flag(flag) => given.iter().any(|word| names_flag(word, flag)).then_some((flag, refused)),
            RefusedSetting::Variable(_) | RefusedSetting::VariableAboveOne(_) => None,
        })
    }

    /// The refused variables that are set. `value_of` gives the user's value of a variable.
    pub fn refused_variables(&self, value_of: impl Fn(&str) -> Option<String>) -> Vec<(&'static str, &Refused)> {
        let is_on = |value: String| !matches!(value.to_ascii_lowercase().as_str(), "" | "0" | "false");
        let is_above_one = |value: String| !matches!(value.trim(), "" | "0" | "1");
        let refused = self.refused.iter().filter_map(|refused| match refused.setting {
            RefusedSetting::Variable(name) => value_of(name).is_some_and(is_on).then_some((name, refused)),
            RefusedSetting::VariableAboveOne(name) => {
                value_of(name).is_some_and(is_above_one).then_some((name, refused))
            }
            RefusedSetting::Flag(_) => None,
        });
        refused.collect()
    }

    /// The versions of Python that will do, for people: `3.11 to 3.13`.
    pub fn python_versions(&self) -> String {
        versions(&self.python_minors)
    }
}

/// A range of minor versions for people.
pub(crate) fn versions(minors: &RangeInclusive<u8>) -> String {
    match (minors.start(), minors.end()) {
        (only, last) if only == last => format!("3.{only}"),
        (first, last) => format!("3.{first} to 3.{last}"),
    }
}

fn as_versions<S: Serializer>(minors: &RangeInclusive<u8>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(minors.clone().map(|minor| format!("3.{minor}")))
}

/// Whether a word is this flag, in either of the spellings that vLLM takes, with or without a value.
fn names_flag(word: &str, flag: &str) -> bool {
    let name = word.split_once('=').map_or(word, |(name, _)| name);
    name.starts_with('-') && name.replace('_', "-") == flag
}
