//! HTTP/2 and HPACK error handling (RFC 9113, RFC 7541) with raw frames: one row per case, no client library between.
//!
//! The families are those of h2spec: `generic`, `http2` by section (numbered as in RFC 7540, whose numbers the suite
//! uses), `hpack`. As there, a stream error may be answered by a connection error, and a connection error by closing
//! without a word (RFC 9113 5.4). Where the `h2` library takes such a way, or another that the RFC leaves open, the row
//! says so.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failing test may panic")]

mod case;
mod generic;
mod hpack;
mod http2;
mod messages;
mod wire;

use case::{Case, Expect};

/// Rows whose outcome is not what the RFC asks for, and why that is bearable. The outcome is pinned: when the library
/// changes, the row fails and is to be moved.
fn known() -> Vec<(&'static str, &'static str)> {
    vec![]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_ends_as_the_rfc_says() {
    let cases: Vec<Case> =
        [generic::cases(), http2::cases(), messages::cases(), hpack::cases()].into_iter().flatten().collect();
    let mut ids: Vec<_> = cases.iter().map(|case| case.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), cases.len(), "every row has an id of its own");
    let lab = case::Lab::start();
    let mut wrong = Vec::new();
    for case in &cases {
        let outcome = lab.run(case).await;
        let deviates = known().iter().any(|(id, _)| *id == case.id);
        if case.expect.is_met_by(&outcome) == deviates {
            wrong.push(format!("{} {}: {:?} expected, got {outcome:?}", case.id, case.what, case.expect));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// Every family of the suite has rows.
#[test]
fn no_family_is_left_out() {
    let cases = [generic::cases(), http2::cases(), messages::cases(), hpack::cases()].concat();
    for family in [
        "generic/1",
        "generic/2",
        "generic/3.1",
        "generic/3.2",
        "generic/3.3",
        "generic/3.4",
        "generic/3.5",
        "generic/3.7",
        "generic/3.8",
        "generic/3.9",
        "generic/3.10",
        "generic/4",
        "generic/5",
        "http2/3.5",
        "http2/4.1",
        "http2/4.2",
        "http2/4.3",
        "http2/5.1",
        "http2/5.1.1",
        "http2/5.1.2",
        "http2/5.3.1",
        "http2/5.4.1",
        "http2/5.5",
        "http2/6.1",
        "http2/6.2",
        "http2/6.3",
        "http2/6.4",
        "http2/6.5",
        "http2/6.5.2",
        "http2/6.5.3",
        "http2/6.7",
        "http2/6.8",
        "http2/6.9",
        "http2/6.9.1",
        "http2/6.9.2",
        "http2/6.10",
        "http2/7",
        "http2/8.1",
        "http2/8.1.2",
        "http2/8.1.2.1",
        "http2/8.1.2.2",
        "http2/8.1.2.3",
        "http2/8.1.2.6",
        "http2/8.2",
        "hpack/2.3.3",
        "hpack/4.2",
        "hpack/5.2",
        "hpack/6.1",
        "hpack/6.3",
    ] {
        let prefix = format!("{family}/");
        assert!(cases.iter().any(|case| case.id.starts_with(&prefix)), "{family}");
        assert!(cases.iter().all(|case| !matches!(case.expect, Expect::ConnectionError([]))));
    }
}
