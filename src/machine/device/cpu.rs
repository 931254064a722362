//! The host's own processors, from `/proc`.

use std::fs;

use super::{Check, Machine, Missing};

/// Instruction sets that decide which of vLLM's CPU kernels run, as `/proc/cpuinfo` names them.
const INSTRUCTION_SETS: [&str; 8] =
    ["avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "asimd", "bf16", "i8mm"];

/// A CPU is always there; what cannot be read of it is said.
pub(super) fn look(machine: &Machine) -> Vec<Check> {
    let cpuinfo = machine.proc.join("cpuinfo");
    let text = fs::read_to_string(&cpuinfo).unwrap_or_default();
    let field = |names: &[&str]| {
        let named = |line: &&str| line.split(':').next().is_some_and(|name| names.contains(&name.trim()));
        text.lines().find(named).and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
    };
    // x86 gives both by these names; Arm gives no model, and calls flags features.
    let model = field(&["model name"]).unwrap_or_else(|| "of a model that is not named".to_owned());
    let flags = field(&["flags", "Features"]).unwrap_or_default();
    let sets: Vec<&str> =
        INSTRUCTION_SETS.into_iter().filter(|set| flags.split(' ').any(|flag| flag == *set)).collect();
    let sets = if sets.is_empty() { "none of those that vLLM looks for".to_owned() } else { sets.join(" ") };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let found = match text.is_empty() {
        true => Err(Missing::new("it cannot be read", "mount /proc")),
        false => Ok(format!("{model}, {threads} usable hardware threads, instruction sets: {sets}")),
    };
    vec![Check::new(format!("the processor ({})", cpuinfo.display()), found)]
}
