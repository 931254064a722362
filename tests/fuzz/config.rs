//! A configuration or a script: loaded, resolved and printed as a plan, or refused.

use std::path::Path;

use bench::presentation::plan_text::{self, Detail};
use bench::question::config;
use bench::question::plan::{self, History};
use bench::question::resolve::{self, Overrides};

pub fn run(input: &[u8], folder: &Path) {
    let path = folder.join("input.yaml");
    std::fs::write(&path, input).unwrap();
    // A refusal is an answer too.
    let _ = config::load_script(&path);
    if let Ok(plan) = config::load(&path).and_then(|config| resolve::resolve(&config, Overrides::default())) {
        let estimate = plan::estimate(&plan, &History::default(), 2);
        plan_text::render(&plan, &estimate, Detail::Full);
    }
}
