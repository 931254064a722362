//! Programs in C++ over the ring's sources, built with the flags that their check needs.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds `program` with `ring`, both sources in `ffi/`, as `name`.
pub fn build(name: &str, program: &str, ring: &str, flags: &[&str]) -> PathBuf {
    let ffi = Path::new(env!("CARGO_MANIFEST_DIR")).join("ffi");
    let built = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    let output = Command::new(&compiler)
        .args(["-std=c++20", "-g", "-pthread"])
        .args(flags)
        .arg("-o")
        .arg(&built)
        .args([ffi.join(program), ffi.join(ring)])
        .output()
        .unwrap_or_else(|err| panic!("cannot run {compiler}: {err}; install a C++ compiler, or set CXX"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    built
}
