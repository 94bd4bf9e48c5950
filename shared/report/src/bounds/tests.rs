//! What is too much, each by one, and what is named then.

use super::*;
use crate::report::tests::report;

const NOW: u64 = 1_790_000_008_000;

fn named(change: impl FnOnce(&mut Report)) -> String {
    let mut report = report();
    change(&mut report);
    let decoded = Report::decode(&report.encode().unwrap());
    decoded.and_then(|report| report.check_times(NOW)).map_or_else(|error| error.to_string(), |()| String::new())
}

#[test]
fn what_is_at_the_bound_is_taken_and_what_is_beyond_is_named_with_it() {
    let hour_us = SPAN_MS_MAX * 1000;
    let repeated = |report: &mut Report, entries: usize, spans: usize| {
        let start = report.sessions[0].present[0].start;
        report.sessions[0].present =
            (0..spans as u64).map(|n| Span { start: start + n * 10, end: start + n * 10 + 5 }).collect();
        report.sessions[0].watched.clear();
        report.sessions = vec![report.sessions[0].clone(); entries];
    };
    type Change = Box<dyn Fn(&mut Report, u64)>;
    let cases: Vec<(Change, &str, u64)> = vec![
        (Box::new(move |r, by| repeated(r, SESSIONS_MAX + by as usize, 1)), "entries of sessions", SESSIONS_MAX as u64),
        (Box::new(move |r, by| repeated(r, 2, SPANS_MAX + by as usize)), "present spans in one entry", SPANS_MAX as u64),
        (Box::new(move |r, by| repeated(r, 2048 + by as usize, 64)), "spans of sessions", ALL_SPANS_MAX as u64),
        (Box::new(|r, by| r.traffic = vec![r.traffic[0].clone(); TRAFFIC_MAX + by as usize]), "entries of traffic", TRAFFIC_MAX as u64),
        (Box::new(|r, by| r.quality = vec![r.quality[0].clone(); QUALITY_MAX + by as usize]), "entries of quality", QUALITY_MAX as u64),
        (Box::new(|r, by| r.sessions[0].present[0].end = r.sessions[0].present[0].start + SPAN_MS_MAX + by), "present span", SPAN_MS_MAX),
        (Box::new(move |r, by| r.sessions[0].watched[0].end = r.sessions[0].watched[0].start + hour_us + by), "watched span", hour_us),
        (Box::new(|r, by| r.traffic[0].bytes = COUNT_MAX + by), "bytes in a second", COUNT_MAX),
        (Box::new(|r, by| r.traffic[0].requests = COUNT_MAX + by), "requests in a second", COUNT_MAX),
        (Box::new(|r, by| r.quality[0].starvations = COUNT_MAX + by), "starvations", COUNT_MAX),
        (Box::new(|r, by| r.quality[0].starved_ms = COUNT_MAX + by), "starved time", COUNT_MAX),
        (Box::new(|r, by| r.incarnation = NOW + AHEAD_MS_MAX + by), "incarnation", NOW + AHEAD_MS_MAX),
        (Box::new(|r, by| r.sequence = NOW - r.incarnation + SEQUENCE_SLACK + by), "sequence number", 8000 + SEQUENCE_SLACK),
        (Box::new(|r, by| r.made_at_ms = NOW + AHEAD_MS_MAX + by), "made_at_ms", NOW + AHEAD_MS_MAX),
        (Box::new(|r, by| r.made_at_ms = NOW - BACK_MS_MAX - by), "made_at_ms", NOW - BACK_MS_MAX),
        (Box::new(|r, by| r.complete_until_ms = NOW + AHEAD_MS_MAX + by), "complete_until_ms", NOW + AHEAD_MS_MAX),
        (Box::new(|r, by| r.traffic[0].second = (NOW + AHEAD_MS_MAX) / 1000 + by), "second of traffic", NOW + AHEAD_MS_MAX),
        (Box::new(|r, by| r.traffic[0].second = (NOW - BACK_MS_MAX) / 1000 - by), "second of traffic", NOW - BACK_MS_MAX),
        (Box::new(|r, by| r.quality[0].minute = (NOW + AHEAD_MS_MAX) / 60_000 + by), "minute of quality", NOW + AHEAD_MS_MAX),
    ];
    for (change, field, bound) in cases {
        assert_eq!(named(|report| change(report, 0)), "", "{field} at the bound");
        let said = named(|report| change(report, 1));
        assert!(said.contains(field) && said.contains(&bound.to_string()), "{field}, {bound}: {said}");
    }
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
    report.sessions[0].present = vec![Span { start, end: start + 120_000 }, Span { start: start + 1, end: start + 120_001 }];
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
        named(|report| *report = Report { sessions: Vec::new(), quality: Vec::new(), traffic, ..report.clone() })
    };
    assert_eq!(of(MINUTES_MAX), "");
    assert!(of(MINUTES_MAX + 1).contains("4097 minutes of channels; at most 4096"), "{}", of(MINUTES_MAX + 1));
}
