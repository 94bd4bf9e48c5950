use super::*;
use crate::dial::Protocol;
use crate::merge::Recorded;
use crate::results::{Results, SliceKey};
use crate::run::Outcome;
use crate::scenario::Scenario;
use crate::tally::ErrorKind;
use std::time::Duration;

fn recorded(edges: &[&str]) -> Recorded {
    let text = "name = '<script>alert(1)</script>'\n\
                phases = [{ kind = 'herd', seconds = 10, viewers = 3 }]\n\
                targets = [{ url = 'http://127.0.0.1/live/bench/index.m3u8' }]";
    let scenario = Scenario::from_toml(text, &[]).unwrap();
    let mut results = Results { started_at_ms: 1_700_000_000_000, seconds: 10.0, ..Results::default() };
    results.tally.viewers_started = 3;
    for (index, edge) in edges.iter().enumerate() {
        let key = SliceKey { edge: (*edge).into(), channel: "bench".into(), protocol: Protocol::H2 };
        let mut slice = Slice::new(key);
        slice.pop = "pop & co".into();
        for second in 0..10 {
            let mut point = Point { viewers: index as u64 + 1, started: 1, ..Point::default() };
            point.part_delay.record(Duration::from_millis(40));
            slice.seconds.insert(1_700_000_000 + second, point);
        }
        results.slices.push(slice);
    }
    Recorded::new(&scenario, Protocol::H2, Outcome { results, servers: Vec::new() })
}

#[test]
fn a_page_is_complete_in_itself_and_nothing_in_it_is_taken_for_markup() {
    let page = page(&Report::new(recorded(&["a:1", "b:1"])));
    assert!(!page.contains("alert(1)</script>") && page.contains("&lt;script&gt;alert(1)"));
    assert!(page.contains("pop &amp; co"));
    for outside in ["src=", "<link", "@import", "url("] {
        assert!(!page.contains(outside), "{outside}");
    }
    assert!(page.contains("Passed") && page.contains("2023-11-14 22:13:20 UTC"));
    for (open, close) in [("<div", "</div>"), ("<table", "</table>"), ("<svg", "</svg>"), ("<tr", "</tr>")] {
        assert_eq!(page.matches(open).count(), page.matches(close).count(), "{open}");
    }
}

#[test]
fn the_viewers_of_a_pop_are_those_of_all_its_edges() {
    let report = Report::new(recorded(&["a:1", "b:1"]));
    let places = places(&report.recorded.results.slices);
    assert_eq!(places.len(), 1);
    assert_eq!(places["pop & co"].seconds.values().map(|point| point.viewers).max(), Some(3));
    assert!(page(&report).contains("<td>a:1, b:1</td><td>3</td><td>20</td>"));
}

#[test]
fn the_verification_is_on_it() {
    use crate::verify::compare::{Metric, Verdict, Verification};
    let mut recorded = recorded(&["a:1"]);
    let metric = |name: &str, verdict| Metric {
        name: name.into(),
        bar: "exactly".into(),
        measured: "1 of 2".into(),
        worst: "<b>".into(),
        verdict,
    };
    recorded.verification.push(Verification {
        run: recorded.runs[0].clone(),
        channel: "bench".into(),
        sessions: 2,
        peak_viewers: 2,
        seconds: 9,
        passed: false,
        metrics: vec![metric("total views", Verdict::Fail), metric("viewers", Verdict::Pass)],
    });
    let report = Report::new(recorded);
    let page = page(&report);
    assert!(page.contains("<td>total views</td><td class=\"bad\">FAIL</td><td>exactly</td><td>1 of 2</td>"));
    assert!(page.contains("<td>viewers</td><td class=\"good\">pass</td>") && page.contains("&lt;b&gt;"));
    assert!(
        page.contains("channel bench: the origin&#39;s statistics")
            || page.contains("channel bench: the origin's")
    );
    assert!(!report.passed, "what was verified and is not so is a failure");
}

#[test]
fn a_tester_at_its_limit_proves_nothing() {
    let mut recorded = recorded(&["a:1"]);
    recorded.results.tester.limited.push("too slow".into());
    let report = Report::new(recorded);
    assert!(report.passed, "only errors are failures");
    assert_eq!(serde_json::to_value(&report).unwrap()["verdict"], "inconclusive");
    assert!(report.to_string().contains("inconclusive: the tester was the limit: too slow"));
    let page = page(&report);
    assert!(
        page.contains("Inconclusive: nothing failed")
            && page.contains("the tester was the limit: too slow")
            && !page.contains("Passed")
    );
}

#[test]
fn a_run_that_went_wrong_says_so() {
    let mut recorded = recorded(&[]);
    recorded.results.tally.error(ErrorKind::Status(503));
    recorded.results.tester.limited.push("too slow".into());
    let page = page(&Report::new(recorded));
    assert!(page.contains("Failed") && page.contains("1 errors, 0 allowed") && page.contains("http_503 1"));
    assert!(page.contains("the tester was the limit") && page.contains("too slow"));
    assert!(page.contains("Nothing was measured over time"));
}

#[test]
fn seconds_that_are_far_apart_make_no_endless_page() {
    let mut far = recorded(&["a:1"]);
    far.results.slices[0].seconds.insert(0, Point::default());
    far.results.slices[0].seconds.insert(u64::MAX, Point::default());
    far.results.started_at_ms = u64::MAX;
    far.results.ramp_seconds = 1e300;
    far.add(&recorded(&["b:1"]));
    let bytes = page(&Report::new(far)).len();
    assert!(bytes < 500_000, "{bytes}");
}
