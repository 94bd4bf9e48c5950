use super::*;
use proptest::prelude::*;
use sigma_report::histogram::Histogram;

fn moment() -> Moment {
    Moment {
        made_at_ms: 9_000,
        complete_before_ms: 7_000,
        complete_until_ms: 8_000,
        pop: PopDescription {
            name: String::new(),
            region: String::new(),
            coordinates: None,
            capacity_viewers: 0,
            version: "0".to_owned(),
            connections: 1,
        },
    }
}

fn session(n: u64, channel: u32, spans: u64) -> SessionReport {
    let mut session = [0; 16];
    session[..8].copy_from_slice(&n.to_be_bytes());
    let spans = |at: u64| (0..spans).map(|k| Span { start: at + k * 10, end: at + k * 10 + 5 }).collect();
    let (watched, present) = (spans(1_790_000_000_000_000), spans(1_790_000_000_000));
    SessionReport { session, viewer: n, channel, protocol: Protocol::H3, watched, present }
}

fn names() -> Vec<String> {
    ["demo", "bench", "other"].map(str::to_owned).to_vec()
}

fn numbered(reports: Vec<Report>, from: u64) -> Vec<Report> {
    let number = |(report, sequence)| Report { incarnation: 1, sequence, ..report };
    reports.into_iter().zip(from..).map(number).collect()
}

/// What an origin makes of reports: sets, and for each second the most that was said.
type State =
    (BTreeMap<([u8; 16], String, Protocol), (Spans, Spans)>, BTreeMap<(String, Protocol, u64), (u64, u64)>);

fn state<'a>(reports: impl IntoIterator<Item = &'a Report>) -> State {
    let (mut sessions, mut traffic) = State::default();
    for report in reports {
        let report = Report::decode(&report.encode().unwrap()).unwrap();
        for told in report.sessions {
            let key = (told.session, report.channels[told.channel as usize].clone(), told.protocol);
            let (watched, present): &mut (Spans, Spans) = sessions.entry(key).or_default();
            told.watched.iter().for_each(|span| drop(watched.insert(*span)));
            told.present.iter().for_each(|span| drop(present.insert(*span)));
        }
        for told in report.traffic {
            let key = (report.channels[told.channel as usize].clone(), told.protocol, told.second);
            let most: &mut (u64, u64) = traffic.entry(key).or_default();
            *most = (most.0.max(told.bytes), most.1.max(told.requests));
        }
    }
    (sessions, traffic)
}

#[test]
fn shards_are_summed() {
    let traffic = |bytes| TrafficReport { channel: 1, protocol: Protocol::H1, second: 7, bytes, requests: 1 };
    let quality = |starvations| {
        let mut latency_ms = Histogram::default();
        latency_ms.record(700);
        QualityReport { channel: 2, minute: 3, starvations, latency_ms, ..QualityReport::default() }
    };
    let due = Due {
        traffic: vec![traffic(10), traffic(5)],
        quality: vec![quality(1), quality(2)],
        ..Due::default()
    };
    let reports = compose(due, &names(), &moment());
    let report = &reports[0];
    assert_eq!((reports.len(), &report.channels[..]), (1, &["bench".to_owned(), "other".to_owned()][..]));
    assert_eq!(report.traffic, [TrafficReport { channel: 0, bytes: 15, requests: 2, ..traffic(0) }]);
    assert_eq!((report.quality[0].starvations, report.quality[0].latency_ms.count()), (3, 2));
    assert_eq!(report.complete_until_ms, 8_000);
}

#[test]
fn nothing_is_a_report_too() {
    let reports = numbered(compose(Due::default(), &names(), &moment()), 1);
    assert_eq!(reports.len(), 1);
    assert!(Report::decode(&reports[0].encode().unwrap()).unwrap().channels.is_empty());
}

#[test]
fn a_herd_is_told_in_several_reports_that_are_small_enough() {
    let sessions: Vec<_> = (0..3000).map(|n| session(n, (n % 3) as u32, 64)).collect();
    let all = sessions.clone();
    let reports = numbered(compose(Due { sessions, ..Due::default() }, &names(), &moment()), 1);
    assert!(reports.len() > 1);
    for report in &reports {
        assert!(report.encode().unwrap().len() <= BYTES_MAX);
    }
    let (last, before) = reports.split_last().unwrap();
    assert_eq!(last.complete_until_ms, 8_000);
    assert!(before.iter().all(|report| report.complete_until_ms == 7_000), "not before all is said");
    let (sessions, _) = state(&reports);
    assert_eq!(sessions.len(), 3000);
    for told in all {
        let (watched, _) = &sessions[&(told.session, names()[told.channel as usize].clone(), told.protocol)];
        assert_eq!(watched.as_slice(), told.watched);
    }
}

/// Everything that an edge may have to say at once, far beyond the bounds of one report.
#[test]
fn nothing_that_is_made_is_beyond_what_is_taken() {
    const AT: u64 = 1_790_000_000_000;
    const DAY: u64 = 86_400_000;
    let long = |n: u64| SessionReport {
        watched: vec![Span { start: AT * 1000, end: (AT + 3 * DAY) * 1000 + n }],
        present: vec![Span { start: AT, end: AT + 3 * DAY + n }],
        ..session(n, (n % 3) as u32, 0)
    };
    let apart = SessionReport {
        present: (0..200).map(|n| Span { start: AT + n * DAY, end: AT + n * DAY + DAY / 2 }).collect(),
        ..session(99, 1, 0)
    };
    let traffic = |n: u64| TrafficReport {
        channel: 0,
        protocol: Protocol::H1,
        second: AT / 1000 + n,
        bytes: 1,
        requests: 1,
    };
    let due = Due {
        sessions: (0..40_000)
            .map(|n| session(n, 0, 1))
            .chain((0..5).map(long))
            .chain([apart.clone()])
            .collect(),
        traffic: (0..300_000).map(traffic).collect(),
        quality: (0..9000)
            .map(|minute| QualityReport { channel: 1, minute, ..QualityReport::default() })
            .collect(),
        ..Due::default()
    };
    let mut union = Union::default();
    let mut whole = Report {
        sessions: vec![long(1), apart.clone()],
        channels: names(),
        ..numbered(compose(Due::default(), &[], &moment()), 1).remove(0)
    };
    union.take(&mut whole);
    let composed = numbered(compose(due, &names(), &moment()), 1);
    let united = numbered(union.reports(&moment()), 1);
    for report in composed.iter().chain(&united) {
        let taken = Report::decode(&report.encode().unwrap());
        assert!(taken.is_ok(), "{:?}", taken.err());
    }
    for reports in [&composed, &united] {
        let (sessions, _) = state(reports);
        for told in [long(1), apart.clone()] {
            let key = (told.session, names()[told.channel as usize].clone(), told.protocol);
            let (watched, present) = &sessions[&key];
            assert_eq!(present.as_slice(), told.present, "all of it, and no more");
            assert!(told.watched.iter().all(|span| watched.as_slice().contains(span)));
        }
    }
    assert_eq!(state(&composed).1.len(), 300_000);
}

proptest! {
    #[test]
    fn uniting_changes_nothing_of_what_an_origin_knows(
        told in prop::collection::vec((0u64..5, 0u32..3, 0u64..200, 1u64..30, 0u64..9), 1..80),
        lost in any::<u16>(),
    ) {
        let originals: Vec<Report> = told.chunks(4).enumerate().map(|(n, told)| {
            let mut due = Due::default();
            for (id, channel, at, length, second) in told {
                let span = Span { start: *at, end: at + length };
                due.sessions.push(SessionReport { watched: vec![span], present: vec![span], ..session(*id, *channel, 0) });
                let bytes = n as u64;
                due.traffic.push(TrafficReport { channel: *channel, protocol: Protocol::H2, second: *second, bytes, requests: 1 });
            }
            numbered(compose(due, &names(), &moment()), n as u64 + 1).remove(0)
        }).collect();
        let mut union = Union::default();
        let mut shells = originals.clone();
        shells.iter_mut().for_each(|report| union.take(report));
        let united = numbered(union.reports(&moment()), 1000);
        prop_assert!(shells.iter().all(|shell| shell.sessions.is_empty() && shell.complete_until_ms == 0));
        // Whichever of the originals had arrived before.
        let arrived = originals.iter().enumerate().filter(|(n, _)| lost >> (n % 16) & 1 == 0).map(|(_, report)| report);
        prop_assert_eq!(state(arrived.chain(&united).chain(&shells)), state(&originals));
    }
}
