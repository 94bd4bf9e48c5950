//! Metrics, and what is made of them: documented, and really there.

use super::*;
use std::collections::BTreeSet;

const DOCUMENTED: &str = include_str!("../../../docs/METRICS.md");
const REGISTERED: &str = include_str!("../metrics.rs");
const DASHBOARD: &str = include_str!("../../../configs/grafana/sigma-live.json");

/// Names of metrics in a text, as they are documented.
fn names(text: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let words = text.split(|c| !is_name(c)).filter(|word| word.starts_with("sigma_"));
    let plain =
        |word: &str| ["_total", "_bucket"].iter().find_map(|end| word.strip_suffix(end)).map(str::to_owned);
    words.map(|word| plain(word).unwrap_or_else(|| word.to_owned())).collect()
}

#[tokio::test]
async fn every_metric_is_documented_and_every_graph_has_metrics() {
    let origin = origin("").await;
    let metrics = ask(origin.running.ops, "GET", "/metrics", "").await;
    let there: BTreeSet<&str> =
        metrics.text().lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    assert!(there.contains("sigma_origin_viewers") && there.contains("sigma_origin_reports"), "{there:?}");
    // Sets that both servers have are documented once, with the edge's name.
    let shared = |name: &str| name.replace("sigma_origin_", "sigma_edge_");
    for name in &there {
        let documented = [(*name).to_owned(), shared(name)];
        assert!(
            documented.iter().any(|name| DOCUMENTED.contains(&format!("`{name}`"))),
            "{name} is in docs/METRICS.md"
        );
    }
    let dashboard: serde_json::Value = serde_json::from_str(DASHBOARD).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let graphed: BTreeSet<String> =
        targets.flat_map(|target| names(target["expr"].as_str().expect("an expression"))).collect();
    assert!(graphed.len() > 20, "{graphed:?}");
    for name in &graphed {
        assert!(DOCUMENTED.contains(&format!("`{name}`")), "{name} is in docs/METRICS.md");
        // What has labels is only there once something has happened; it is registered under its name.
        let registered = |name: &str| REGISTERED.contains(&format!("\"{name}\""));
        if let Some(short) = name.strip_prefix("sigma_origin_") {
            assert!(
                there.contains(name.as_str()) || registered(short),
                "{name} is at /metrics of the origin"
            );
        }
    }
}
