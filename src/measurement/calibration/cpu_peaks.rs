//! The cpu's own peaks: a STREAM triad for the memory, and a matrix product for the arithmetic, on the engine's cores.

use std::fs;
use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, ScopedJoinHandle};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::machine::device::{StartGate, pin_current_thread};
use crate::measurement::ring::clock_ns;

/// How long the rounds of each probe go on, beyond the first three.
const PROBE_TIME: Duration = Duration::from_millis(250);
/// Rounds of each probe at least; the best one counts, as in STREAM.
const FEWEST_ROUNDS: u32 = 3;
/// STREAM's rule: each array has four times the size of the last level of caches.
const CACHES_PER_ARRAY: u64 = 4;
/// Arrays of the triad.
const ARRAYS: u64 = 3;
/// Share of the free memory that the arrays may take, as its divisor.
const MEMORY_PARTS: u64 = 2;
/// Rows and columns of the matrices: large enough for the kernel's full speed, small enough for a core's own caches.
const MATRIX: usize = 384;

/// What the engine's cores can do, all together, as the probes found it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CpuPeaks {
    /// Operations a second of a product of 32-bit matrices, one on each core.
    pub f32_operations_per_s: f64,
    /// Bytes a second of the triad `a[i] = b[i] + s c[i]`, 24 for each i: the read of a line before it is written is not counted.
    pub bytes_per_s: f64,
    /// What was run, in words.
    pub probes: String,
    /// Name, kernel and processor of the host.
    pub host: String,
    /// The cores.
    pub cores: Vec<usize>,
    /// When, RFC 3339.
    pub measured_at: String,
}

/// Runs both probes on `cores` of this machine, which is called `host`, in under a second where memory is not very slow.
///
/// # Errors
/// A sentence: a core cannot be had, the caches are not described, or the memory does not suffice.
pub fn measure_cpu_peaks(host: &str, cores: &[usize]) -> Result<CpuPeaks, String> {
    let cache_bytes = last_level_cache_bytes(cores)
        .ok_or("the system does not say how large the last level of caches is (/sys/devices/system/cpu/cpu*/cache)")?;
    let array_bytes = cache_bytes * CACHES_PER_ARRAY;
    let free_bytes = free_memory_bytes().ok_or("the system does not say how much memory is free (/proc/meminfo)")?;
    if array_bytes * ARRAYS > free_bytes / MEMORY_PARTS {
        let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        return Err(format!(
            "the triad takes {:.1} GiB, and {:.1} GiB of memory are free",
            gib(array_bytes * ARRAYS),
            gib(free_bytes)
        ));
    }
    let length = array_bytes as usize / size_of::<f64>() / cores.len();
    let triad_s = best_round_s(cores, || Triad::new(length), Triad::run)?;
    let product_s = best_round_s(cores, Product::new, Product::run)?;
    let cores_count = cores.len() as f64;
    Ok(CpuPeaks {
        f32_operations_per_s: cores_count * Product::OPERATIONS / product_s,
        bytes_per_s: cores_count * (length as u64 * ARRAYS * 8) as f64 / triad_s,
        probes: format!(
            "triad over 3 arrays of {} MiB; product of {MATRIX} x {MATRIX} matrices, matrixmultiply's sgemm with {}",
            array_bytes >> 20,
            matrix_kernel()
        ),
        host: host.to_owned(),
        cores: cores.to_vec(),
        measured_at: jiff::Timestamp::now().to_string(),
    })
}

/// The shortest of several rounds in which every core works once, in seconds. Every core makes its own memory, so that it
/// lies near it.
fn best_round_s<S>(cores: &[usize], make: impl Fn() -> S + Sync, work: impl Fn(&mut S) + Sync) -> Result<f64, String> {
    let (gate, barrier, stop) = (&StartGate::default(), &Barrier::new(cores.len()), &AtomicBool::new(false));
    let (make, work) = (&make, &work);
    let rounds = |leads: bool| {
        let mut state = make();
        let mut best_ns = u64::MAX;
        barrier.wait();
        let began_ns = clock_ns();
        for round in 0.. {
            barrier.wait();
            let round_ns = clock_ns();
            work(&mut state);
            barrier.wait();
            let now_ns = clock_ns();
            best_ns = best_ns.min(now_ns - round_ns);
            if leads {
                let is_enough = round + 1 >= FEWEST_ROUNDS && now_ns - began_ns > PROBE_TIME.as_nanos() as u64;
                stop.store(is_enough, Ordering::Relaxed); // partner: the load below, ordered by the barrier
            }
            barrier.wait();
            if stop.load(Ordering::Relaxed) {
                break;
            }
        }
        best_ns
    };
    let on_core = |leads: bool, core: usize| {
        if !gate.wait() {
            return Err("a thread is missing".to_owned());
        }
        let seat = pin_current_thread(&[core]);
        let best_ns = rounds(leads); // the others wait for it, bound or not
        seat.map(|()| best_ns).map_err(|err| format!("core {core} cannot be had: {err}"))
    };
    let on_core = &on_core;
    std::thread::scope(|scope| {
        let starting = gate.close();
        let start = |(index, core): (usize, &usize)| {
            let core = *core;
            let thread = Builder::new().spawn_scoped(scope, move || on_core(index == 0, core));
            thread.map_err(|err| format!("no thread for core {core}: {err}"))
        };
        let threads = cores.iter().enumerate().map(start).collect::<Result<Vec<_>, String>>()?;
        starting.open();
        // A panic in one of them is a defect of this program, and goes on as one.
        let join = |thread: ScopedJoinHandle<'_, Result<u64, String>>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        let results: Vec<Result<u64, String>> = threads.into_iter().map(join).collect();
        // Between two barriers all have the same round; the longest look at the shortest one is the truest.
        let longest_ns = results.into_iter().collect::<Result<Vec<u64>, String>>()?.into_iter().max();
        Ok(longest_ns.unwrap_or(0).max(1) as f64 / 1e9)
    })
}

/// One core's part of the triad.
struct Triad {
    a: Vec<f64>,
    b: Vec<f64>,
    c: Vec<f64>,
}

impl Triad {
    fn new(length: usize) -> Triad {
        // Written, so that no page is the system's shared one of zeros.
        Triad { a: vec![1.0; length], b: vec![2.0; length], c: vec![3.0; length] }
    }

    fn run(&mut self) {
        let scalar = black_box(0.5);
        for ((a, b), c) in self.a.iter_mut().zip(&self.b).zip(&self.c) {
            *a = b + scalar * c;
        }
        black_box(&mut self.a);
    }
}

/// One core's matrices.
struct Product {
    a: Vec<f32>,
    b: Vec<f32>,
    c: Vec<f32>,
}

impl Product {
    /// Products in a round, which then takes milliseconds.
    const REPEATS: usize = 8;
    /// Operations of a round.
    const OPERATIONS: f64 = (2 * MATRIX * MATRIX * MATRIX * Self::REPEATS) as f64;

    fn new() -> Product {
        let filled = |value| vec![value; MATRIX * MATRIX];
        Product { a: filled(0.5), b: filled(0.25), c: filled(0.0) }
    }

    fn run(&mut self) {
        for _ in 0..Self::REPEATS {
            multiply(&self.a, &self.b, &mut self.c);
            black_box(&mut self.c);
        }
    }
}

/// `c = a b` for square matrices of [`MATRIX`] rows, stored by row.
#[allow(unsafe_code)] // matrixmultiply takes pointers
fn multiply(a: &[f32], b: &[f32], c: &mut [f32]) {
    assert!([a.len(), b.len(), c.len()] == [MATRIX * MATRIX; 3]);
    let (rows, stride) = (MATRIX, MATRIX as isize);
    // SAFETY: with these strides the three matrices are exactly the three slices, and `c` overlaps neither of the others.
    unsafe {
        let (a, b, c) = (a.as_ptr(), b.as_ptr(), c.as_mut_ptr());
        matrixmultiply::sgemm(rows, rows, rows, 1.0, a, stride, 1, b, stride, 1, 0.0, c, stride, 1);
    }
}

/// The instructions of the kernel that matrixmultiply takes here, by its own order.
fn matrix_kernel() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            return "AVX-512";
        }
        if is_x86_feature_detected!("fma") && is_x86_feature_detected!("avx2") {
            return "AVX2 and FMA";
        }
        if is_x86_feature_detected!("avx") {
            return "AVX";
        }
        return "SSE2";
    }
    #[cfg(target_arch = "aarch64")]
    return "NEON";
    #[allow(unreachable_code)]
    "portable code"
}

/// The last levels of caches of `cores` together, each counted once.
fn last_level_cache_bytes(cores: &[usize]) -> Option<u64> {
    let mut caches: Vec<(String, u64)> = Vec::new();
    for core in cores {
        let folder = format!("/sys/devices/system/cpu/cpu{core}/cache");
        let levels = fs::read_dir(folder).ok()?.flatten().filter_map(|entry| {
            let read = |name: &str| fs::read_to_string(entry.path().join(name)).ok();
            let level: u32 = read("level")?.trim().parse().ok()?;
            Some((level, read("shared_cpu_list")?, kib(read("size")?.trim())?))
        });
        let (_, shared, bytes) = levels.max_by_key(|(level, ..)| *level)?;
        if !caches.iter().any(|(known, _)| *known == shared) {
            caches.push((shared, bytes));
        }
    }
    let sum: u64 = caches.iter().map(|(_, bytes)| bytes).sum();
    (sum > 0).then_some(sum)
}

/// A size of sysfs, `32768K`, in bytes.
fn kib(text: &str) -> Option<u64> {
    Some(text.strip_suffix('K')?.parse::<u64>().ok()? << 10)
}

fn free_memory_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("MemAvailable:"))?;
    Some(line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()? << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_product_is_one() {
        let (mut a, mut b, mut c) =
            (vec![0.0; MATRIX * MATRIX], vec![0.0; MATRIX * MATRIX], vec![9.0; MATRIX * MATRIX]);
        // a is 2 on its diagonal; b counts its rows.
        for row in 0..MATRIX {
            a[row * MATRIX + row] = 2.0;
            b[row * MATRIX..(row + 1) * MATRIX].fill(row as f32);
        }
        multiply(&a, &b, &mut c);
        assert!((0..MATRIX).all(|row| c[row * MATRIX + 5] == 2.0 * row as f32));
    }

    #[test]
    fn the_triad_is_one() {
        let mut triad = Triad::new(10);
        triad.run();
        assert_eq!(triad.a, [3.5; 10]);
    }

    #[test]
    fn a_round_takes_as_long_as_its_slowest_core() {
        let cores: Vec<usize> = {
            let mask = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0)).unwrap();
            (0..nix::sched::CpuSet::count()).filter(|core| mask.is_set(*core).unwrap()).take(2).collect()
        };
        let slow = std::sync::atomic::AtomicUsize::new(0);
        let make = || slow.fetch_add(1, Ordering::Relaxed) as u64 * 20;
        let best_s = best_round_s(&cores, make, |sleep_ms| std::thread::sleep(Duration::from_millis(*sleep_ms)));
        let expected_s = (cores.len() - 1) as f64 * 0.02;
        assert!((expected_s..expected_s + 0.1).contains(&best_s.unwrap()));
        let nowhere = nix::sched::CpuSet::count();
        assert!(best_round_s(&[nowhere], || (), |()| ()).unwrap_err().contains("cannot be had"));
    }

    #[test]
    fn sizes_of_sysfs() {
        assert_eq!((kib("32768K"), kib("1M"), kib("K")), (Some(32 << 20), None, None));
    }
}
