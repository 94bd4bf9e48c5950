//! What is too much, each by one, and what is named then.

use super::*;
use crate::report::tests::report;

const NOW: u64 = 1_790_000_008_000;

fn named(change: impl FnOnce(&mut Report)) -> String {
    let mut report = report();
    change(&mut report);
    let decoded = Report::decode(&report.encode().unwrap());
    decoded
        .and_then(|report| report.check_times(NOW))
        .map_or_else(|error| error.to_string(), |()| String::new())
}

/// Sets a number to its bound, or beyond it by so many; what is named then, and the bound.
type Case = (fn(&mut Report, u64), &'static str, u64);

fn at_the_bound_and_beyond(cases: &[Case]) {
    for (change, field, bound) in cases {
        assert_eq!(named(|report| change(report, 0)), "", "{field} at the bound");
        let said = named(|report| change(report, 1));
        assert!(said.contains(field) && said.contains(&bound.to_string()), "{field}, {bound}: {said}");
    }
}

/// So many entries of so many spans.
fn repeat(report: &mut Report, entries: u64, spans: u64) {
    let start = report.sessions[0].present[0].start;
    let span = |n: u64| Span { start: start + n * 10, end: start + n * 10 + 5 };
    report.sessions[0].present = (0..spans).map(span).collect();
    report.sessions[0].watched.clear();
    report.sessions = vec![report.sessions[0].clone(); usize::try_from(entries).unwrap()];
}

fn times<T: Clone>(entry: &T, times: u64) -> Vec<T> {
    vec![entry.clone(); usize::try_from(times).unwrap()]
}

#[test]
fn of_nothing_is_there_more_than_is_taken() {
    const SESSIONS: u64 = SESSIONS_MAX as u64;
    const SPANS: u64 = SPANS_MAX as u64;
    const ALL_SPANS: u64 = ALL_SPANS_MAX as u64;
    const TRAFFIC: u64 = TRAFFIC_MAX as u64;
    const QUALITY: u64 = QUALITY_MAX as u64;
    at_the_bound_and_beyond(&[
        (|r, by| repeat(r, SESSIONS + by, 1), "entries of sessions", SESSIONS),
        (|r, by| repeat(r, 2, SPANS + by), "present spans in one entry", SPANS),
        (|r, by| repeat(r, ALL_SPANS / SPANS + by, SPANS), "spans of sessions", ALL_SPANS),
        (|r, by| r.traffic = times(&r.traffic[0], TRAFFIC + by), "entries of traffic", TRAFFIC),
        (|r, by| r.quality = times(&r.quality[0], QUALITY + by), "entries of quality", QUALITY),
    ]);
}

#[test]
fn no_number_is_greater_than_it_can_be() {
    const HOUR_US: u64 = SPAN_MS_MAX * 1000;
    at_the_bound_and_beyond(&[
        (|r, by| stretch(&mut r.sessions[0].present[0], SPAN_MS_MAX + by), "present span", SPAN_MS_MAX),
        (|r, by| stretch(&mut r.sessions[0].watched[0], HOUR_US + by), "watched span", HOUR_US),
        (|r, by| r.traffic[0].bytes = COUNT_MAX + by, "bytes in a second", COUNT_MAX),
        (|r, by| r.traffic[0].requests = COUNT_MAX + by, "requests in a second", COUNT_MAX),
        (|r, by| r.quality[0].starvations = COUNT_MAX + by, "starvations", COUNT_MAX),
        (|r, by| r.quality[0].starved_ms = COUNT_MAX + by, "starved time", COUNT_MAX),
        (|r, by| r.quality[0].spoken_ms = COUNT_MAX + by, "players spoke", COUNT_MAX),
    ]);
}

fn stretch(span: &mut Span, length: u64) {
    span.end = span.start + length;
}

#[test]
fn no_moment_is_far_from_now() {
    const LATEST: u64 = NOW + AHEAD_MS_MAX;
    const EARLIEST: u64 = NOW - BACK_MS_MAX;
    at_the_bound_and_beyond(&[
        (|r, by| r.incarnation = LATEST + by, "incarnation", LATEST),
        (
            |r, by| r.sequence = NOW - r.incarnation + SEQUENCE_SLACK + by,
            "sequence number",
            8000 + SEQUENCE_SLACK,
        ),
        (|r, by| r.made_at_ms = LATEST + by, "made_at_ms", LATEST),
        (|r, by| r.made_at_ms = EARLIEST - by, "made_at_ms", EARLIEST),
        (|r, by| r.complete_until_ms = LATEST + by, "complete_until_ms", LATEST),
        (|r, by| r.traffic[0].second = LATEST / 1000 + by, "second of traffic", LATEST),
        (|r, by| r.traffic[0].second = EARLIEST / 1000 - by, "second of traffic", EARLIEST),
        (|r, by| r.quality[0].minute = LATEST / 60_000 + by, "minute of quality", LATEST),
    ]);
}

#[test]
fn numbers_at_the_end_of_their_range_are_refused_without_a_panic() {
    for change in [
        (|r| r.traffic[0].second = u64::MAX) as fn(&mut Report),
        |r| r.quality[0].minute = u64::MAX,
        |r| (r.incarnation, r.sequence) = (u64::MAX, u64::MAX),
        |r| r.sequence = u64::MAX,
        |r| r.made_at_ms = 0,
        |r| r.sessions[0].present[0] = Span { start: u64::MAX - 1, end: u64::MAX },
        |r| r.sessions[0].watched[0] = Span { start: u64::MAX - 1, end: u64::MAX },
        |r| r.sessions[0].watched[0] = Span { start: 0, end: 1 },
    ] {
        assert_ne!(named(change), "");
    }
}

#[test]
fn a_minute_of_a_channel_counts_once_however_many_were_there() {
    let mut minutes = Minutes::default();
    let mut report = report();
    let start = report.sessions[0].present[0].start / 60_000 * 60_000;
    report.sessions[0].present =
        vec![Span { start, end: start + 120_000 }, Span { start: start + 1, end: start + 120_001 }];
    for _ in 0..100 {
        minutes.add_session(&report.sessions[0]);
        minutes.add_traffic(&TrafficReport { second: start / 1000 + 61, ..report.traffic[0].clone() });
    }
    assert_eq!(minutes.count(), 3);
    minutes.add_traffic(&TrafficReport { channel: 1, second: start / 1000, ..report.traffic[0].clone() });
    assert_eq!(minutes.count(), 4);
    let scattered = |n: u64| TrafficReport { second: 1_790_000_000 - 60 * n, ..report.traffic[0].clone() };
    let of = |n: u64| {
        let traffic: Vec<_> = (0..n).map(scattered).collect();
        named(|report| {
            *report = Report { sessions: Vec::new(), quality: Vec::new(), traffic, ..report.clone() }
        })
    };
    assert_eq!(of(MINUTES_MAX), "");
    assert!(
        of(MINUTES_MAX + 1).contains("4097 minutes of channels; at most 4096"),
        "{}",
        of(MINUTES_MAX + 1)
    );
}
