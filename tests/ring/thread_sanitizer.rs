//! The ring under ThreadSanitizer, and the proof that ThreadSanitizer would see it broken.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::native;

/// Builds the stress program over `ring`, a source in `ffi/`.
fn build(ring: &str) -> PathBuf {
    let name = format!("{}.tsan", ring.replace('/', "_"));
    native::build(&name, "tests/ring_stress.cc", ring, &["-fsanitize=thread", "-O1"])
}

/// Runs without address randomisation, whose newer defaults leave ThreadSanitizer no room for its shadow memory; where
/// that may not be switched off, with it.
fn run(program: &Path) -> Output {
    let fixed = Command::new("setarch").arg("-R").arg("true").output().is_ok_and(|tried| tried.status.success());
    let mut command = if fixed { Command::new("setarch") } else { Command::new(program) };
    if fixed {
        command.arg("-R").arg(program);
    }
    command.env("TSAN_OPTIONS", "exitcode=66").output().expect("the stress program starts")
}

#[test]
fn the_ring_has_no_data_race() {
    let ran = run(&build("ring.cc"));
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{}: {said}", ran.status);
    assert!(!said.contains("ThreadSanitizer"), "{said}");
    assert_eq!(String::from_utf8_lossy(&ran.stdout), "ring_stress: ok\n");
}

#[test]
fn a_ring_without_release_stores_is_reported() {
    let ran = run(&build("tests/ring_relaxed.cc"));
    let said = String::from_utf8_lossy(&ran.stderr);
    assert_eq!(ran.status.code(), Some(66), "{said}");
    assert!(said.contains("WARNING: ThreadSanitizer: data race"), "{said}");
}
