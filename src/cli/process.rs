//! What every command sets up in its process before it begins: a stack, its signals, and the message of a defect.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::{self, PanicHookInfo};
use std::thread;

use nix::sys::signal::{SigSet, Signal};

use super::screen;

/// Stack of a command, whatever `ulimit -s` leaves to the main thread; its pages are taken as they are used.
const STACK_BYTES: usize = 16 << 20;

/// Runs `command` on a thread with a stack of its own, and gives its result. A system that grants no thread leaves the
/// main thread's stack.
pub(super) fn run<T: Send + 'static>(command: fn() -> T) -> T {
    panic::set_hook(Box::new(report_panic));
    block_file_size_signal();
    match thread::Builder::new().name("command".to_owned()).stack_size(STACK_BYTES).spawn(command) {
        // The hook has reported the panic; the exit status still has to tell it.
        Ok(thread) => thread.join().unwrap_or_else(|panic| panic::resume_unwind(panic)),
        Err(_) => command(),
    }
}

/// Lets a write beyond `ulimit -f` fail with EFBIG, as on a full disk, where the signal would end the process without a
/// word. Threads and child processes inherit the mask.
fn block_file_size_signal() {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGXFSZ);
    let _ = signals.thread_block(); // it fails for a wrong `how` only
}

/// Reports a defect in two lines; with `RUST_BACKTRACE` the backtrace, too.
fn report_panic(info: &PanicHookInfo<'_>) {
    let payload = info.payload();
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let what = text.unwrap_or("a panic without a message");
    let place = info.location().map_or_else(String::new, |location| format!(" at {location}"));
    screen::error(&format!(
        "bench panicked{place}: {what}\n  this is a defect of bench {}: please report it with these lines and the command",
        env!("CARGO_PKG_VERSION")
    ));
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        screen::line(&backtrace.to_string());
    }
}
