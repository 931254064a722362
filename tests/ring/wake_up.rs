//! No wake-up is lost where a push meets a consumer that goes to sleep, and the proof that one would be seen.

use std::process::{Command, Output};

use crate::native;

/// How `ffi/tests/ring_wakeup.cc` leaves when it has seen a wake-up lost.
const LOST: i32 = 3;

fn run(name: &str, ring: &str, flags: &[&str]) -> Output {
    let program = native::build(name, "tests/ring_wakeup.cc", ring, flags);
    Command::new(program).output().expect("the wake-up program starts")
}

#[test]
fn no_wake_up_is_lost_where_a_push_meets_going_to_sleep() {
    let ran = run("ring.wakeup", "ring.cc", &["-O2"]);
    assert!(ran.status.success(), "{}: {}", ran.status, String::from_utf8_lossy(&ran.stderr));
    assert_eq!(String::from_utf8_lossy(&ran.stdout), "ring_wakeup: ok\n");
}

#[test]
fn a_ring_without_either_fence_loses_a_wake_up() {
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        eprintln!("not shown: on one core the two sides never run at once");
        return;
    }
    for function in ["wake", "wait"] {
        let without = format!("-DWITHOUT_FENCE_IN=\"{function}\"");
        let ran = run(&format!("ring_without_{function}.wakeup"), "tests/ring_unfenced.cc", &["-O2", &without]);
        let said = String::from_utf8_lossy(&ran.stderr);
        assert_eq!(ran.status.code(), Some(LOST), "without the fence in {function}: {said}");
    }
}
