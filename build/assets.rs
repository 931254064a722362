//! Generates the list of the sidecar's files, which the binary carries.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// Writes `assets.rs` to `out`: a slice of relative paths and contents, of the package and of the ring's library.
pub fn generate(package: &Path, library: &Path, out: &Path) {
    println!("cargo::rerun-if-changed={}", package.display());
    let mut files = Vec::new();
    collect(package, &mut files);
    files.sort();
    let mut list = String::from("&[\n");
    for file in &files {
        let name = Path::new("bench_sidecar").join(file.strip_prefix(package).expect("collected below it"));
        let path = fs::canonicalize(file).expect("it was just listed");
        writeln!(list, "    ({:?}, include_bytes!({:?})),", name.display().to_string(), path.display().to_string())
            .expect("writing to memory");
    }
    writeln!(list, "    (\"libbench_ring.so\", include_bytes!({:?})),\n]", library.display().to_string())
        .expect("writing to memory");
    fs::write(out, list).expect("cargo's own folder can be written");
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("the sidecar's package is part of the sources") {
        let path = entry.expect("the package's folder can be read").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|ending| ending == "py") || path.ends_with("py.typed") {
            files.push(path);
        }
    }
}
