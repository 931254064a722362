//! The host as a report describes it, from `/proc` and sysfs. What cannot be read is null.

use std::fs;

use serde::Serialize;

/// The machine that measures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HostFacts {
    /// Its name in the network.
    pub hostname: Option<String>,
    /// Release of the kernel.
    pub kernel: Option<String>,
    /// Name of the processor.
    pub cpu_model: Option<String>,
    /// Hardware threads that this process may use.
    pub usable_cores: usize,
    /// Memory, in bytes.
    pub memory_bytes: Option<u64>,
    /// The cores' frequency governor.
    pub cpu_governor: Option<String>,
    /// The kernel's clock source.
    pub clocksource: Option<String>,
}

impl HostFacts {
    /// Of this machine.
    pub fn read() -> HostFacts {
        let line = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
        let field = |path: &str, name: &str| {
            let text = fs::read_to_string(path).ok()?;
            let found = text.lines().find(|line| line.starts_with(name))?.split_once(':')?.1.trim().to_owned();
            Some(found)
        };
        let memory_kib =
            field("/proc/meminfo", "MemTotal").and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
        HostFacts {
            hostname: line("/proc/sys/kernel/hostname"),
            kernel: line("/proc/sys/kernel/osrelease"),
            cpu_model: field("/proc/cpuinfo", "model name"),
            usable_cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: memory_kib.map(|kib| kib * 1024),
            cpu_governor: line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            clocksource: line("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        }
    }

    /// What about this host makes every run less trustworthy.
    pub fn warnings(&self) -> Vec<String> {
        let governor = self.cpu_governor.as_deref().filter(|name| *name != "performance");
        governor
            .map(|name| format!("the CPU governor is {name}, not performance: clock rates may change"))
            .into_iter()
            .collect()
    }
}

/// Ticks that the hypervisor took from all cores together, from the first line of `/proc/stat`.
pub fn stolen_ticks(stat: &str) -> Option<u64> {
    stat.strip_prefix("cpu ")?.lines().next()?.split_ascii_whitespace().nth(7)?.parse().ok()
}

/// Time that the hypervisor took from this machine's cores, as `/proc/stat` counts it.
#[derive(Clone, Copy, Debug)]
pub struct StolenTime {
    ticks: Option<u64>,
}

impl StolenTime {
    /// Until now.
    pub fn read() -> StolenTime {
        StolenTime { ticks: fs::read_to_string("/proc/stat").ok().as_deref().and_then(stolen_ticks) }
    }

    /// A warning if more than 1 % of the cores' time was taken since `before`, `elapsed_s` ago.
    pub fn warning_since(self, before: StolenTime, elapsed_s: f64, cores: usize) -> Option<String> {
        const TICKS_PER_S: f64 = 100.0; // USER_HZ, which is 100 on every platform that vLLM runs on
        let stolen_s = self.ticks?.checked_sub(before.ticks?)? as f64 / TICKS_PER_S;
        let share = stolen_s / (elapsed_s * cores as f64);
        (share > 0.01)
            .then(|| format!("noisy neighbours: the hypervisor took {:.1} % of the cores' time", share * 100.0))
    }
}
