//! An examination as text.

use super::{ClassExamination, EnvironmentFacts, EnvironmentState, Examination};
use crate::machine::device::{DeviceClass, HostFacts, Profile, RefusedSetting, Value, Yields};
use crate::machine::environment::gib;

impl Examination {
    /// For people, in whole lines.
    pub fn render(&self) -> String {
        let mut lines = vec![format!("host: {}", host(&self.host))];
        for class in &self.classes {
            lines.push(String::new());
            lines.extend(class.lines());
        }
        lines.join("\n") + "\n"
    }
}

fn host(host: &HostFacts) -> String {
    let unknown = || "unknown".to_owned();
    let memory = host.memory_bytes.map_or_else(unknown, gib);
    format!(
        "{}, Linux {}, {} usable hardware threads, {memory} of memory",
        host.hostname.clone().unwrap_or_else(unknown),
        host.kernel.clone().unwrap_or_else(unknown),
        host.usable_cores
    )
}

impl ClassExamination {
    fn lines(&self) -> Vec<String> {
        let device = self.finding.device;
        let verdict = match (self.finding.is_present, self.can_measure) {
            (true, true) => "can be measured here",
            (true, false) => "is here, and has no Python to run on",
            (false, _) => "is not on this machine",
        };
        let mut lines = vec![format!("{device} {verdict}")];
        for check in &self.finding.checks {
            match &check.found {
                Ok(found) => lines.push(format!("  found    {}: {found}", check.what)),
                Err(missing) => {
                    lines.push(format!("  missing  {}: {}", check.what, missing.missing));
                    lines.push(format!("           to get it: {}", missing.remedy));
                }
            }
        }
        if let Some(devices) = self.finding.tensor_parallel {
            lines.push(format!("  tensor_parallel_size up to {devices} ({})", self.profile.tensor_parallel));
        }
        lines.extend(self.environment.lines(device, self.profile));
        lines.extend(profile(self.profile));
        lines
    }
}

impl EnvironmentFacts {
    /// The package, and the Python that it is on.
    pub fn lines(&self, device: DeviceClass, profile: &Profile) -> Vec<String> {
        let python = self.python.as_deref().map(|path| path.display().to_string()).unwrap_or_default();
        let state = match self.state {
            EnvironmentState::Given => format!("as given, {python}"),
            EnvironmentState::Made => format!("made, {python}"),
            EnvironmentState::ToBeMade => format!(
                "to be made with {python}, by the first measurement or `bench env --device {device}` (about {} to \
                 download, {} on the disk)",
                gib(self.download_bytes),
                gib(self.disk_bytes)
            ),
            EnvironmentState::Missing => format!("missing: {}", self.problem.as_deref().unwrap_or_default()),
        };
        let locked = format!("{}, and what it needs: {} packages", self.package, self.packages);
        let package = if self.state == EnvironmentState::Given { "that of the Python".to_owned() } else { locked };
        vec![format!("  package  {package}"), format!("  python   {} needed; {state}", profile.python_versions())]
    }
}

/// What the class alone decides, each value with its reason.
fn profile(profile: &Profile) -> Vec<String> {
    let mut lines = Vec::new();
    for argument in profile.engine_arguments {
        lines.push(format!("  argument {}: {}", argument.flag, argument.why));
    }
    for variable in profile.variables {
        let value = match variable.value {
            Value::Text(text) => text.to_owned(),
            Value::BelowVllmCache(folder) => format!("<vLLM's cache folder>/{folder}"),
        };
        let yields = match variable.yields {
            Yields::Never => String::new(),
            Yields::ToUser => " unless you set it".to_owned(),
            Yields::ToUserAndFlag(flag) => format!(" unless you set it, or an engine has {flag}"),
        };
        lines.push(format!("  variable {}={value}{yields}: {}", variable.name, variable.why));
    }
    for refused in profile.refused {
        let setting = match refused.setting {
            RefusedSetting::Flag(flag) => flag.to_owned(),
            RefusedSetting::Variable(name) => format!("{name}=1"),
            RefusedSetting::VariableAboveOne(name) => format!("{name} above 1"),
        };
        lines.push(format!("  refused  {setting}: {}; {}", refused.why, refused.instead));
    }
    lines.extend(decided(profile));
    lines
}

/// What is decided for every engine of the class, without a flag or a variable.
pub(crate) fn decided(profile: &Profile) -> [String; 5] {
    let scheduling = &profile.async_scheduling;
    let warmup = &profile.warmup;
    [
        format!("  async scheduling  {}: {}", if scheduling.value { "on" } else { "off" }, scheduling.why),
        format!("  prefix block      {}", profile.block_size),
        format!(
            "  warm-up           {} request{} before each run, and after each load short runs that are thrown away, until the steps settle: {}",
            warmup.value,
            if warmup.value == 1 { "" } else { "s" },
            warmup.why
        ),
        format!("  sampling          {}", profile.sampling),
        format!("  engine process    {}", profile.engine_process),
    ]
}
