//! Compiles the ring twice: into the crate through cxx, and into the shared library that the sidecar loads.

#[path = "build/assets.rs"]
mod assets;

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

const FLAGS: [&str; 4] = ["-std=c++20", "-Wall", "-Wextra", "-fvisibility=hidden"];

/// On x86-64 a prefetch for writing is an instruction of its own, which every such processor takes, at least as a no-op;
/// without the flag GCC fetches for reading, and the store waits for the line once more.
fn flags() -> impl Iterator<Item = &'static str> {
    let is_x86_64 = env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64");
    FLAGS.into_iter().chain(is_x86_64.then_some("-mprfchw"))
}

fn main() {
    println!("cargo::rerun-if-changed=ffi");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let mut linked = cxx_build::bridge("src/measurement/ring/ffi.rs");
    linked.files(["ffi/ring.cc", "ffi/ring_cxx.cc"]).include("ffi").opt_level(2);
    for flag in flags() {
        linked.flag(flag);
    }
    linked.compile("bench_ring_cxx");
    let library = out.join("libbench_ring.so");
    shared_library(&library);
    println!("cargo::rustc-env=BENCH_RING_LIBRARY={}", library.display());
    assets::generate(Path::new("python_sidecar/bench_sidecar"), &library, &out.join("assets.rs"));
}

/// The same ring with the Python module, always optimised: a debug build of the harness measures the same engine.
fn shared_library(to: &Path) {
    let mut build = cc::Build::new();
    build.cpp(true).opt_level(2).pic(true).include("ffi").warnings(false);
    for flag in flags() {
        build.flag(flag);
    }
    let mut command: Command = build.get_compiler().to_command();
    command.args(["-shared", "-o"]).arg(to).args([
        "ffi/ring.cc",
        "ffi/scripted.cc",
        "ffi/python_module.cc",
        "ffi/python_scripted.cc",
        "ffi/python_step.cc",
    ]);
    let status = command.status().unwrap_or_else(|err| panic!("cannot run the C++ compiler: {err}"));
    assert!(status.success(), "the C++ compiler could not build {}", to.display());
}
