//! System calls of the recorder's thread in a run, counted by tracing it in a process of its own: this binary, run again.
#![allow(unsafe_code)] // what the kernel says of a system call comes as a union

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use bench::machine::device::WaitStrategy;
use nix::libc;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, raise};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getpgid};

use crate::rehearsal::Rehearsal;

const WAIT: &str = "BENCH_TRACED_WAIT";
/// Process ids that no process has: a question about them marks where the counting begins and ends.
const BEGIN: i32 = 1_999_000_001;
const END: i32 = 1_999_000_002;

#[test]
#[ignore = "the process that the tests here trace"]
fn the_traced_process() {
    let Ok(wait) = std::env::var(WAIT) else { return };
    let mut rehearsal = Rehearsal::begin(serde_json::from_str(&wait).unwrap(), false);
    ptrace::traceme().expect("this machine forbids ptrace, without which nobody can count");
    raise(Signal::SIGSTOP).unwrap(); // the tracer begins here
    let _ = getpgid(Some(Pid::from_raw(BEGIN)));
    let result = rehearsal.run();
    let _ = getpgid(Some(Pid::from_raw(END)));
    result.unwrap();
    rehearsal.check();
}

/// How often which system call was made by a recorder that waits so, from the begin of its run to the end.
fn traced(wait: WaitStrategy) -> BTreeMap<String, u64> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "system_calls::the_traced_process", "--ignored", "--nocapture"])
        .env(WAIT, serde_json::to_string(&wait).unwrap())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    // Of this test alone: another one has a child of its own.
    let thread = match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)).unwrap() {
        WaitStatus::Stopped(thread, Signal::SIGSTOP) => thread,
        other => panic!("the traced process did not begin: {other:?}"),
    };
    ptrace::setoptions(thread, ptrace::Options::PTRACE_O_TRACESYSGOOD | ptrace::Options::PTRACE_O_EXITKILL).unwrap();
    let calls = count_calls(thread);
    ptrace::detach(thread, None).unwrap();
    assert!(child.wait().unwrap().success(), "the traced run failed");
    calls
}

fn count_calls(thread: Pid) -> BTreeMap<String, u64> {
    let (mut calls, mut is_counting, mut signal) = (BTreeMap::new(), false, None);
    loop {
        ptrace::syscall(thread, signal.take()).unwrap();
        match waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap() {
            WaitStatus::PtraceSyscall(_) => match entered_call(thread) {
                Some((libc::SYS_getpgid, BEGIN)) => is_counting = true,
                Some((libc::SYS_getpgid, END)) => return calls,
                Some((number, _)) if is_counting => *calls.entry(name(number)).or_default() += 1,
                _ => {}
            },
            WaitStatus::Stopped(_, other) => signal = Some(other),
            other => panic!("the traced thread ended: {other:?}"),
        }
    }
}

/// Number and first argument of the system call that `thread` enters; `None` where it leaves one.
fn entered_call(thread: Pid) -> Option<(libc::c_long, i32)> {
    let info = ptrace::syscall_info(thread).unwrap();
    if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
        return None;
    }
    // SAFETY: the kernel has filled `entry`, as `op` says.
    let entry = unsafe { info.u.entry };
    Some((entry.nr as libc::c_long, entry.args[0] as i32))
}

fn name(number: libc::c_long) -> String {
    let known = [
        #[cfg(target_arch = "x86_64")]
        (libc::SYS_poll, "poll"),
        (libc::SYS_ppoll, "poll"),
        (libc::SYS_read, "read"),
        (libc::SYS_write, "write"),
        (libc::SYS_clock_gettime, "clock_gettime"),
        (libc::SYS_futex, "futex"),
        (libc::SYS_sched_yield, "sched_yield"),
        (libc::SYS_mmap, "mmap"),
        (libc::SYS_brk, "brk"),
    ];
    known.iter().find(|(known, _)| *known == number).map_or(format!("call {number}"), |(_, name)| (*name).to_owned())
}

#[test]
fn a_spinning_recorder_makes_no_system_call() {
    let calls = traced(WaitStrategy::Spin);
    assert!(calls.is_empty(), "{calls:?}; a clock_gettime means that the vDSO of this machine has no clock");
}

#[test]
fn a_recorder_that_may_sleep_makes_those_of_its_sleeps_alone() {
    for wait in [WaitStrategy::SpinThenSleep, WaitStrategy::Sleep] {
        let mut calls = traced(wait);
        let sleeps = (calls.remove("poll").unwrap_or(0), calls.remove("read").unwrap_or(0));
        assert!(calls.is_empty(), "{wait:?}: {calls:?}");
        if wait == WaitStrategy::Sleep {
            assert!(sleeps.0 > 0 && sleeps.1 > 0, "it never slept: {sleeps:?} times poll and read");
        }
    }
}
