//! What a reader sees of the page, and what somebody who does not see it is told.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::browser::Browser;
use crate::{results, summary};

const LAPTOP: (u32, u32) = (1366, 900);
const PHONE: (u32, u32) = (375, 812);
const TAB: char = '\u{e004}';
const ENTER: char = '\u{e007}';

/// Of each chart its id, the parts of 255 that its pixels differ by, and what a screen reader has of it.
const CHARTS: &str = "[...document.querySelectorAll('figure')].map((figure) => {
    const place = figure.querySelector('.chart'), canvas = place.querySelector('canvas');
    const pixels = canvas ? canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data : [];
    const colors = new Set();
    for (let at = 0; at < pixels.length; at += 4) if (pixels[at + 3] > 200) colors.add(pixels[at] << 16 | pixels[at + 1] << 8 | pixels[at + 2]);
    return {
        id: place.id, colors: colors.size, role: place.getAttribute('role'), label: place.getAttribute('aria-label'),
        title: figure.querySelector('h3').textContent, rows: figure.querySelectorAll('details tbody tr').length,
        caption: figure.querySelector('figcaption').textContent,
    };
})";

async fn open(size: (u32, u32), theme: &str) -> Browser {
    Browser::open(&results().join("report.html"), size.0, size.1, theme).await
}

/// Where pictures for people are left.
pub fn pictures() -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("browser");
    fs::create_dir_all(&folder).unwrap();
    folder
}

#[tokio::test]
async fn every_chart_is_drawn_in_both_themes_without_an_error_or_a_request() {
    let mut texts = Vec::new();
    for theme in ["light", "dark"] {
        let browser = open(LAPTOP, theme).await;
        let charts = browser.value(CHARTS).await;
        let charts = charts.as_array().unwrap();
        let ids: Vec<&str> = charts.iter().map(|chart| chart["id"].as_str().unwrap()).collect();
        for wanted in [
            "ttft_cdf",
            "itl_tail",
            "itl_life",
            "step_time",
            "throughput",
            "pareto_itl",
            "by_point_ttft",
            "prefix_hits",
            "split",
        ] {
            assert!(ids.contains(&wanted), "{wanted} is not among {ids:?}");
        }
        for chart in charts {
            assert!(chart["colors"].as_u64().unwrap() >= 5, "not drawn: {chart}");
            assert_eq!(chart["role"], "img");
            assert!(
                chart["label"].as_str().unwrap().len() > 30 && chart["caption"].as_str().unwrap().len() > 30,
                "{chart}"
            );
            assert!(chart["rows"].as_u64().unwrap() > 0, "no table: {chart}");
        }
        for id in &ids {
            assert!(
                results().join(format!("{id}.svg")).exists() && results().join(format!("{id}.png")).exists(),
                "{id}"
            );
        }
        assert_eq!(browser.console().await, Vec::<String>::new());
        assert_eq!(browser.value("performance.getEntriesByType('resource').length").await, 0);
        // For people: how quick it is depends on the machine.
        println!(
            "{theme}: all charts drawn after {} ms",
            browser.value("document.documentElement.dataset.drawnAfterMs").await
        );
        texts.push(browser.value("getComputedStyle(document.body).backgroundColor").await);
        browser.picture(&pictures().join(format!("laptop-{theme}.png"))).await;
        browser.close().await;
    }
    assert_ne!(texts[0], texts[1], "light and dark are not the same");
}

#[tokio::test]
async fn the_numbers_are_those_of_the_summary() {
    let browser = open(LAPTOP, "light").await;
    let shown = browser
        .value("[...document.querySelectorAll('data')].map((it) => [Number(it.dataset.point), it.dataset.metric, Number(it.value), it.textContent])")
        .await;
    let summary = summary();
    let points = summary["points"].as_array().unwrap();
    let mut seen = 0;
    for cell in shown.as_array().unwrap() {
        let (point, metric) = (cell[0].as_u64().unwrap() as usize, cell[1].as_str().unwrap());
        assert_eq!(points[point][metric].as_f64(), cell[2].as_f64(), "{metric} of point {point}");
        // What a person reads is the same number, to its last digit, in a unit a hundred, a thousand or a million times another.
        let text = cell[3].as_str().unwrap();
        let (read, whole): (f64, f64) = (text.parse().unwrap(), cell[2].as_f64().unwrap());
        let half_digit = 0.501 * 0.1_f64.powi(text.split_once('.').map_or(0, |(_, decimals)| decimals.len() as i32));
        let is_it = |unit: f64| (read - whole / unit).abs() <= half_digit;
        assert!([1.0, 1e-3, 1e-6, 1e-2].into_iter().any(is_it), "{cell}");
        seen += 1;
    }
    let known = |point: &Value| {
        [
            "p50_ttft_s",
            "p99_ttft_s",
            "avg_itl_s",
            "p99_itl_s",
            "p50_time_per_output_token_s",
            "output_tokens_per_s",
            "prefix_hit_rate_expected",
            "prefix_hit_rate_measured",
        ]
        .iter()
        .filter(|metric| !point[**metric].is_null())
        .count()
    };
    assert_eq!(seen, points.iter().map(known).sum::<usize>());
    let verdict = browser.value("document.getElementById('verdict').textContent").await;
    assert_eq!(
        verdict,
        format!("VALID: all {} runs delivered what was asked of them.", summary["runs"].as_array().unwrap().len())
    );
    browser.close().await;
}

#[tokio::test]
async fn the_first_screen_has_verdict_and_answer() {
    let browser = open(LAPTOP, "light").await;
    let bottom = |id: &str| format!("document.getElementById('{id}').getBoundingClientRect().bottom <= innerHeight");
    assert_eq!(browser.value(&bottom("verdict")).await, true);
    assert_eq!(browser.value(&bottom("answer")).await, true, "the whole table of two points");
    browser.close().await;
}

#[tokio::test]
async fn a_phone_shows_all_of_it_without_moving_sideways() {
    for theme in ["light", "dark"] {
        let browser = open(PHONE, theme).await;
        let wide = browser.value("[document.documentElement.scrollWidth, innerWidth]").await;
        assert!(wide[0].as_u64() <= wide[1].as_u64(), "{wide}");
        for chart in browser.value(CHARTS).await.as_array().unwrap() {
            assert!(chart["colors"].as_u64().unwrap() >= 5, "not drawn: {chart}");
        }
        browser.picture(&pictures().join(format!("phone-{theme}.png"))).await;
        browser.close().await;
    }
}

#[tokio::test]
async fn it_can_be_used_with_the_keyboard_alone() {
    let browser = open(LAPTOP, "light").await;
    browser.press(&[TAB]).await;
    assert_eq!(browser.value("document.activeElement.textContent").await, "To the numbers");
    // From there on every control comes in turn: the table's region, a box for each point, the tools of a chart.
    let mut reached: Vec<Value> = Vec::new();
    for _ in 0..40 {
        browser.press(&[TAB]).await;
        reached.push(browser.value("[document.activeElement.tagName, document.activeElement.dataset.zoom ?? document.activeElement.type ?? document.activeElement.getAttribute('role')]").await);
        if reached.last() == Some(&json!(["BUTTON", "0.5"])) {
            break;
        }
    }
    for wanted in [json!(["DIV", "region"]), json!(["INPUT", "checkbox"]), json!(["BUTTON", "0.5"])] {
        assert!(reached.contains(&wanted), "{wanted} is not among {reached:?}");
    }
    let zoomed = "echarts.getInstanceByDom(document.activeElement.closest('figure').querySelector('.chart')).getOption().dataZoom[0].end";
    assert_eq!(browser.value(zoomed).await, 100);
    browser.press(&[ENTER]).await;
    assert_eq!(browser.value(zoomed).await, 75);
    assert_eq!(browser.console().await, Vec::<String>::new());
    browser.close().await;
}

#[tokio::test]
async fn points_are_picked_for_all_charts() {
    let browser = open(LAPTOP, "light").await;
    let selected =
        "Object.values(echarts.getInstanceByDom(document.getElementById('itl_tail')).getOption().legend[0].selected)";
    assert_eq!(browser.value(selected).await, json!([true, true]));
    browser.client.find(fantoccini::Locator::Css("#points input")).await.unwrap().click().await.unwrap();
    assert_eq!(browser.value(selected).await, json!([false, true]));
    browser.close().await;
}

#[tokio::test]
async fn headings_and_tables_are_in_order() {
    let browser = open(LAPTOP, "light").await;
    let levels = browser.value("[...document.querySelectorAll('h1, h2, h3')].map((it) => Number(it.tagName[1]))").await;
    let levels: Vec<u64> = levels.as_array().unwrap().iter().map(|level| level.as_u64().unwrap()).collect();
    assert_eq!(levels.iter().filter(|level| **level == 1).count(), 1);
    assert!(levels.windows(2).all(|pair| pair[1] <= pair[0] + 1), "{levels:?}");
    let without = "document.querySelectorAll('table:not(:has(caption)), th:not([scope]), section:not([aria-labelledby]), button:empty').length";
    assert_eq!(browser.value(without).await, 0);
    let twice =
        "[...document.querySelectorAll('[id]')].map((it) => it.id).filter((id, at, all) => all.indexOf(id) !== at)";
    assert_eq!(browser.value(twice).await, json!([]));
    assert_eq!(browser.value("document.documentElement.lang").await, "en");
    browser.close().await;
}

#[tokio::test]
async fn it_prints_on_white_with_its_charts() {
    let browser = open(LAPTOP, "dark").await;
    let pdf = browser.printed().await;
    assert_eq!(&pdf[..5], b"%PDF-");
    assert!(pdf.len() > 100_000, "the charts are on it: {} bytes", pdf.len());
    fs::write(pictures().join("printed.pdf"), pdf).unwrap();
    let ink = "echarts.getInstanceByDom(document.querySelector('.chart')).getOption().xAxis[0].nameTextStyle.color";
    let on_screen = browser.value(ink).await;
    let _ = browser.value("dispatchEvent(new Event('beforeprint'))").await;
    assert_ne!(browser.value(ink).await, on_screen, "dark letters on white paper");
    let _ = browser.value("dispatchEvent(new Event('afterprint'))").await;
    assert_eq!(browser.value(ink).await, on_screen);
    browser.emulate(&json!({"media": "print", "features": [{"name": "prefers-color-scheme", "value": "dark"}]})).await;
    assert_eq!(browser.value("getComputedStyle(document.body).backgroundColor").await, "rgb(255, 255, 255)");
    assert_eq!(browser.value("getComputedStyle(document.querySelector('fieldset')).display").await, "none");
    browser.close().await;
}

#[tokio::test]
async fn a_comparison_is_a_page_of_its_own_in_both_themes_and_on_a_phone() {
    let folder = tempfile::tempdir().unwrap();
    let dir = results().display().to_string();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_bench"));
    let output = command.args(["compare", &dir, &dir, "--out"]).arg(folder.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = fs::read(folder.path().join("comparison.json")).unwrap();
    let comparison: Value = serde_json::from_slice(&text).unwrap();
    let points = comparison["points"].as_array().unwrap();
    let metrics: usize = points.iter().map(|point| point["metrics"].as_array().unwrap().len()).sum();
    let mut colors = Vec::new();
    for (size, theme, name) in [(LAPTOP, "light", "laptop"), (LAPTOP, "dark", "laptop"), (PHONE, "light", "phone")] {
        let browser = Browser::open(&folder.path().join("comparison.html"), size.0, size.1, theme).await;
        assert_eq!(browser.value("document.querySelectorAll('#comparison tbody tr').length").await, metrics);
        let decisions = "[...document.querySelectorAll('#comparison tbody tr')].map((row) => row.cells[5].textContent)";
        let decisions = browser.value(decisions).await;
        assert!(decisions.as_array().unwrap().iter().all(|decision| decision == "unverified"), "{decisions}");
        assert_eq!(browser.value("document.getElementById('verdict').className").await, "verdict doubt");
        // What is wide scrolls in itself, and can be reached without a mouse.
        assert_eq!(browser.value("document.documentElement.scrollWidth <= innerWidth").await, true, "{name}");
        browser.press(&[TAB]).await;
        assert_eq!(browser.value("document.activeElement.getAttribute('role')").await, "region");
        assert_eq!(browser.console().await, Vec::<String>::new());
        colors.push(browser.value("getComputedStyle(document.body).backgroundColor").await);
        browser.picture(&pictures().join(format!("comparison-{name}-{theme}.png"))).await;
        browser.close().await;
    }
    assert_ne!(colors[0], colors[1]);
}
