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

use case::{Case, Outcome};

/// Where the `h2` library does not do what the RFC asks for: the rows, what it does, and why that is bearable. The
/// outcome is pinned: when the library changes, the test fails and the row is to be taken off.
const KNOWN: [(&[&str], Outcome, &str); 4] = [
    (
        &[
            "hpack/2.3.3/1",
            "hpack/2.3.3/2",
            "hpack/2.3.3/3",
            "hpack/4.2/1",
            "hpack/5.1/1",
            "hpack/5.2/1",
            "hpack/5.2/2",
            "hpack/5.2/3",
            "hpack/5.2/4",
            "hpack/6.1/1",
            "hpack/6.3/1",
            "http2/4.3/1",
            "http2/6.3/2",
            "http2/6.4/3",
            "http2/6.5/1",
            "http2/6.5/3",
            "http2/6.5.2/2",
            "http2/6.7/4",
            "http2/6.9/3",
            "http2/6.9.2/3",
        ],
        Outcome::Goaway(wire::PROTOCOL_ERROR),
        "a frame that cannot be taken apart is PROTOCOL_ERROR in h2, whatever is wrong with it: the code is less exact \
         than 4.2, 4.3 and 6.5.2 ask for, the connection ends as they ask",
    ),
    (
        &["http2/5.1/5", "http2/5.1/6", "http2/6.1/2"],
        Outcome::Goaway(wire::PROTOCOL_ERROR),
        "5.1 asks for STREAM_CLOSED on a half-closed stream; h2 ends the connection with PROTOCOL_ERROR, which is \
         stricter and less exact",
    ),
    (
        &["http2/3.5/3"],
        Outcome::Ignored,
        "3.4 asks for SETTINGS first; h2 takes any frame behind the preface and the defaults hold, which harms nobody",
    ),
    (
        &["http2/8.1.2.1/3"],
        Outcome::Answered(1),
        "8.1 calls trailers with pseudo-headers malformed; h2 drops those fields, and no handler here reads trailers",
    ),
];

/// What a row on the list of known deviations does.
fn known(id: &str) -> Option<&'static Outcome> {
    KNOWN.iter().find(|(ids, ..)| ids.contains(&id)).map(|(_, outcome, _)| outcome)
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
        let pinned = known(case.id);
        let outcome = lab.run(case, pinned).await;
        // Losing the goodbye to a reset of the transport is not what the list is about.
        let as_known = pinned.is_some_and(|pinned| *pinned == outcome || outcome == Outcome::Closed);
        let conforms = case.expect.is_met_by(&outcome) && outcome != Outcome::Nothing;
        if !as_known && (pinned.is_some() || !conforms) {
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
    }
    for id in KNOWN.iter().flat_map(|(ids, ..)| *ids) {
        assert!(cases.iter().any(|case| case.id == *id), "{id} is known and there is no such row");
    }
}
