//! The ring under ThreadSanitizer, and the proof that ThreadSanitizer would see it broken.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Builds the stress program over `ring`, a source in `ffi/`.
fn build(ring: &str) -> PathBuf {
    let ffi = Path::new(env!("CARGO_MANIFEST_DIR")).join("ffi");
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(ring.replace('/', "_")).with_extension("tsan");
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    let built = Command::new(&compiler)
        .args(["-fsanitize=thread", "-std=c++20", "-O1", "-g", "-pthread", "-o"])
        .arg(&program)
        .args([ffi.join("tests/ring_stress.cc"), ffi.join(ring)])
        .output()
        .unwrap_or_else(|err| panic!("cannot run {compiler}: {err}; install a C++ compiler, or set CXX"));
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    program
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
