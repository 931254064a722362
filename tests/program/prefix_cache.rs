//! Prefixes and hit rates on the real engine: what was designed is what the engine counts, and a miss is not reported as
//! if it were a hit.

use std::fs;

use crate::{ARGS, bench, one_engine, refused, run, summary};

#[test]
fn a_hit_rate_is_reached_with_one_prefix_and_with_several() {
    let _one = one_engine();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rates.yaml");
    // 512 tokens are four blocks of 128, of which the last one is always computed.
    let entry = "mode: vllm_throughput, num_prompts: 6, repeats: 1, input_len: 512, output_len: 4";
    let text = format!(
        "defaults:\n  args: >-\n    {ARGS}\nstandalone_runs:\n  - {{name: rates, {entry}, prefix_hit_rate: [0, 0.5, 0.7]}}\n\
         \u{20} - {{name: several, {entry}, prefix_hit_rate: 0.5, num_prefixes: 3}}\n"
    );
    fs::write(&file, text).unwrap();
    let out = folder.path().join("out");
    let dir = out.display().to_string();
    let output = run(&["engine", "--config", &file.display().to_string(), "--out", &dir]);
    refused(&output, 0, &["hit rate 70 % asked, 75 % by blocks of 128, the nearest that whole blocks give"]);
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(table.contains("a hit rate of 70.0 % was asked, and whole blocks of the cache give 75.0 %"), "{table}");

    let report = summary(&out);
    let mut found: Vec<(String, f64, f64, u64)> = Vec::new();
    for run in report["runs"].as_array().unwrap() {
        assert_eq!(run["status"], "valid", "{run}");
        assert_eq!(run["prefix_hit_rate_measured"], run["prefix_hit_rate_expected"]);
        let share = |key: &str| run[key].as_f64().unwrap();
        let name = run["name"].as_str().unwrap().to_owned();
        let rates = (share("prefix_hit_rate_asked"), share("prefix_hit_rate_measured"));
        found.push((name, rates.0, rates.1, run["num_prefixes"].as_u64().unwrap()));
    }
    found.sort_by(|one, other| one.partial_cmp(other).unwrap());
    let row = |name: &str, asked, measured, prefixes| (name.to_owned(), asked, measured, prefixes);
    assert_eq!(
        found,
        [row("rates", 0.0, 0.0, 0), row("rates", 0.5, 0.5, 1), row("rates", 0.7, 0.75, 1), row("several", 0.5, 0.5, 3)]
    );

    assert_eq!(run(&["export", &dir, "--csv"]).status.code(), Some(0));
    let events = fs::read_to_string(out.join("events.csv")).unwrap();
    let primed = events.lines().filter(|line| line.starts_with("several|") && line.contains(",prime,submit,"));
    assert_eq!(primed.count(), 3, "each prefix is primed");
}

#[test]
fn a_prefix_that_the_cache_lost_makes_the_run_invalid() {
    let _one = one_engine();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lost.yaml");
    // The cache has twelve blocks of 128 tokens (1 MiB each), eleven of them for requests. 4 prefixes of one block and the 7
    // other blocks of a prompt fit. But the cache drops the least recently used block: the next prefix, not the last prompt.
    let args = ARGS.replace("1073741824", "12582912").replace("--max-model-len 2048", "--max-model-len 1024");
    let text = format!(
        "standalone_runs:\n  - name: lost\n    mode: vllm_throughput\n    args: >-\n      {args}\n    num_prompts: 6\n    \
         repeats: 1\n    num_prefixes: 4\n    length_configs: [{{input_len: 1000, output_len: 4, prefix_len: 128}}]\n"
    );
    fs::write(&file, text).unwrap();
    let out = folder.path().join("out");
    let output = bench().args(["engine", "--config"]).arg(&file).arg("--out").arg(&out).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let run = &summary(&out)["runs"][0];
    assert_eq!(run["status"], "invalid", "{run}");
    let reasons = run["reasons"].to_string();
    assert!(reasons.contains("took nothing from the cache, where their prefix was to come from it"), "{reasons}");
    assert!(run["prefix_hit_rate_measured"].as_f64() < run["prefix_hit_rate_expected"].as_f64(), "{run}");
}
