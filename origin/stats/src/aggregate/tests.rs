//! The state against a model of sets and seconds, and against itself in other orders.

use super::*;
use proptest::prelude::*;
use sigma_report::histogram::Histogram;
use sigma_report::report::{PopDescription, QualityReport, Report, SessionReport, TrafficReport};
use sigma_report::spans::Span;
use std::collections::BTreeSet;

const NOW: u64 = 1_795_387_560_000;
const BASE: u64 = NOW - 50_000;
const GRACE: u64 = 4000;
/// Spans are cut at multiples of this, milliseconds.
const TICK: u64 = 250;
const SECOND_BROADCAST: u64 = BASE + 10_000;

fn demo() -> ChannelId {
    "demo".parse().unwrap()
}

fn pop(name: &str) -> PopId {
    name.parse().unwrap()
}

/// What the database holds.
type Kept = (BTreeMap<Key, Vec<u8>>, BTreeMap<(ChannelId, Scope), BTreeSet<u64>>);

fn new() -> Aggregate {
    let mut aggregate = Aggregate::new(Retention::default());
    aggregate.channel(&demo(), GRACE);
    for start_ms in [BASE, SECOND_BROADCAST] {
        aggregate.broadcast(&demo(), Broadcast { start_ms, end_ms: None }, NOW);
    }
    aggregate
}

/// As the keeper does it, with nothing in the database.
fn take(aggregate: &mut Aggregate, (pop, report): &(PopId, Report)) -> Absorbed {
    for key in aggregate.wanted(pop, report, NOW).unwrap() {
        aggregate.put(&key, None, NOW).unwrap();
    }
    let absorbed = aggregate.absorb(pop, report, NOW).unwrap();
    for key in aggregate.wanted_for(&absorbed.added, NOW) {
        aggregate.put(&key, None, NOW).unwrap();
    }
    aggregate.add(&absorbed.added, NOW);
    absorbed
}

fn kept(aggregate: &mut Aggregate) -> Kept {
    let rows = aggregate.take_unsaved().unwrap().into_iter().map(|row| (row.key, row.value)).collect();
    let viewers = aggregate.take_unsaved_viewers().into_iter();
    (
        rows,
        viewers.map(|(channel, scope, viewers)| ((channel, scope), viewers.into_iter().collect())).collect(),
    )
}

fn after(reports: &[(PopId, Report)]) -> Kept {
    let mut aggregate = new();
    reports.iter().for_each(|report| drop(take(&mut aggregate, report)));
    kept(&mut aggregate)
}

fn empty(incarnation: u64, sequence: u64) -> Report {
    let text = String::new;
    Report {
        incarnation,
        sequence,
        made_at_ms: NOW,
        complete_until_ms: NOW,
        pop: PopDescription {
            name: text(),
            region: text(),
            coordinates: None,
            capacity_viewers: 0,
            version: text(),
            connections: 0,
        },
        channels: vec!["demo".to_owned(), "elsewhere".to_owned()],
        sessions: Vec::new(),
        traffic: Vec::new(),
        quality: Vec::new(),
    }
}

fn spans(unit: u64) -> impl Strategy<Value = Vec<Span>> {
    let span = (0u64..80, 1u64..12).prop_map(move |(start, length)| {
        let start = BASE + start * TICK;
        Span { start: start * unit, end: (start + length * TICK) * unit }
    });
    prop::collection::vec(span, 0..3)
}

fn protocol() -> impl Strategy<Value = Protocol> {
    prop::sample::select(crate::scope::PROTOCOLS.to_vec())
}

fn report() -> impl Strategy<Value = (PopId, Report)> {
    let session = (0u8..4, 0u64..3, protocol(), spans(1000), spans(1)).prop_map(
        |(session, viewer, protocol, watched, present)| SessionReport {
            session: [session; 16],
            viewer,
            channel: 0,
            protocol,
            watched,
            present,
        },
    );
    let traffic = (protocol(), 0u64..30, 0u64..5, 0u64..3).prop_map(|(protocol, second, bytes, requests)| {
        TrafficReport { channel: 0, protocol, second: BASE / 1000 + second, bytes, requests }
    });
    let quality = (0u64..2, 0u64..4, prop::collection::vec(0u32..9, 0..4), 0u64..4).prop_map(
        |(minute, starvations, startups, spoken_ms)| {
            let mut startup_ms = Histogram::default();
            startups.into_iter().for_each(|startup| startup_ms.record(startup));
            let minute = BASE / 60_000 + minute;
            let starved_ms = spoken_ms / 2;
            QualityReport {
                channel: 0,
                minute,
                starvations,
                starved_ms,
                spoken_ms,
                startup_ms,
                ..Default::default()
            }
        },
    );
    let content = (
        prop::collection::vec(session, 0..4),
        prop::collection::vec(traffic, 0..3),
        prop::collection::vec(quality, 0..2),
    );
    (prop::sample::select(vec!["pop-1", "pop-2"]), 1u64..3, 1u64..9, content).prop_map(
        |(name, incarnation, sequence, (sessions, traffic, quality))| {
            (pop(name), Report { sessions, traffic, quality, ..empty(incarnation, sequence) })
        },
    )
}

/// The same in pieces of one entry each.
fn pieces(reports: &[(PopId, Report)]) -> Vec<(PopId, Report)> {
    let mut pieces = Vec::new();
    for (pop, report) in reports {
        let head =
            Report { sessions: Vec::new(), traffic: Vec::new(), quality: Vec::new(), ..report.clone() };
        let mut push = |piece| pieces.push((pop.clone(), piece));
        for session in &report.sessions {
            let only = |watched: &[Span], present: &[Span]| SessionReport {
                watched: watched.to_vec(),
                present: present.to_vec(),
                ..session.clone()
            };
            push(Report { sessions: vec![only(&session.watched, &[])], ..head.clone() });
            for span in &session.present {
                push(Report { sessions: vec![only(&[], &[*span])], ..head.clone() });
            }
        }
        for traffic in &report.traffic {
            push(Report { traffic: vec![traffic.clone()], ..head.clone() });
        }
        for quality in &report.quality {
            push(Report { quality: vec![quality.clone()], ..head.clone() });
        }
        push(head);
    }
    pieces
}

/// What a scope's sessions watched and when they were present.
struct Model<'a> {
    reports: &'a [(PopId, Report)],
}

type Chosen<'a> = dyn Fn(&PopId, &SessionReport) -> bool + 'a;

impl Model<'_> {
    fn entries<'a>(&'a self, chosen: &'a Chosen<'a>) -> impl Iterator<Item = &'a SessionReport> {
        let all = self.reports.iter().flat_map(|(pop, report)| report.sessions.iter().map(move |s| (pop, s)));
        all.filter(|(pop, session)| chosen(pop, session)).map(|(_, session)| session)
    }

    fn ticks(
        &self,
        chosen: &Chosen<'_>,
        of: fn(&SessionReport) -> &Vec<Span>,
        tick: u64,
    ) -> BTreeSet<(u8, u64)> {
        self.entries(chosen)
            .flat_map(|s| of(s).iter().map(|span| (s.session[0], *span)))
            .flat_map(|(id, span)| (span.start / tick..span.end / tick).map(move |at| (id, at)))
            .collect()
    }

    /// Views, watched microseconds, wall milliseconds.
    fn sums(&self, chosen: &Chosen<'_>) -> (u64, u64, u64) {
        let watched = self.ticks(chosen, |s| &s.watched, TICK * 1000);
        let present = self.ticks(chosen, |s| &s.present, TICK);
        let views: BTreeSet<u8> = watched.iter().map(|(id, _)| *id).collect();
        (views.len() as u64, watched.len() as u64 * TICK * 1000, present.len() as u64 * TICK)
    }

    fn viewers_at(&self, chosen: &Chosen<'_>, second: u64) -> u32 {
        let at = second * 1000;
        let present = self
            .entries(chosen)
            .filter(|s| s.present.iter().any(|span| (span.start..span.end + GRACE).contains(&at)));
        present.map(|s| s.session[0]).collect::<BTreeSet<_>>().len() as u32
    }

    fn unique(&self, chosen: &Chosen<'_>) -> u64 {
        let views: BTreeSet<u8> =
            self.entries(chosen).filter(|s| !s.watched.is_empty()).map(|s| s.session[0]).collect();
        let viewers =
            self.entries(chosen).filter(|s| views.contains(&s.session[0])).map(|s| match s.viewer {
                0 => (true, u64::from(s.session[0])),
                viewer => (false, viewer),
            });
        viewers.collect::<BTreeSet<_>>().len() as u64
    }

    /// Bytes of a POP's protocol in a second: the most that any report of an incarnation says.
    fn bytes(&self) -> u64 {
        let mut most: BTreeMap<(&PopId, u64, Protocol, u64), u64> = BTreeMap::new();
        for (pop, report) in self.reports {
            for traffic in &report.traffic {
                let known =
                    most.entry((pop, report.incarnation, traffic.protocol, traffic.second)).or_default();
                *known = traffic.bytes.max(*known);
            }
        }
        most.values().sum()
    }
}

fn viewers_of(aggregate: &Aggregate, scope: &Scope, second: u64) -> u32 {
    aggregate.viewers(&demo(), scope, second * 1000)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_order_repetition_and_partition_gives_the_same(
        reports in prop::collection::vec(report(), 1..8), seed: u64,
    ) {
        let expected = after(&reports);
        let mut shuffled = [pieces(&reports), reports.clone(), pieces(&reports)].concat();
        let length = shuffled.len() as u64;
        for index in 0..shuffled.len() {
            let random = seed.wrapping_add(index as u64).wrapping_mul(6_364_136_223_846_793_005) >> 33;
            shuffled.swap(index, usize::try_from(random % length).unwrap());
        }
        prop_assert_eq!(after(&shuffled), expected);
    }

    #[test]
    fn what_is_counted_is_what_a_model_counts(reports in prop::collection::vec(report(), 1..8)) {
        let mut aggregate = new();
        reports.iter().for_each(|report| drop(take(&mut aggregate, report)));
        let model = Model { reports: &reports };
        let pop_1 = pop("pop-1");
        let scopes: [(Scope, Box<Chosen<'_>>); 3] = [
            (Scope::All, Box::new(|_, _| true)),
            (Scope::Pop(pop_1.clone()), Box::new(|pop, _| *pop == pop_1)),
            (Scope::Protocol(Protocol::H3), Box::new(|_, session| session.protocol == Protocol::H3)),
        ];
        for (scope, chosen) in &scopes {
            let Some(summary) = aggregate.summary(&demo(), scope, NOW) else {
                prop_assert_eq!(model.sums(chosen), (0, 0, 0));
                continue;
            };
            let totals = &summary.totals;
            prop_assert_eq!((totals.views, totals.watch_us, totals.wall_ms), model.sums(chosen));
            prop_assert_eq!(summary.unique_viewers, model.unique(chosen));
            let seconds: Vec<(u64, u32)> = (BASE / 1000..BASE / 1000 + 40)
                .map(|second| (second, model.viewers_at(chosen, second))).collect();
            for (second, viewers) in &seconds {
                prop_assert_eq!(viewers_of(&aggregate, scope, *second), *viewers, "{:?} {}", scope, second);
            }
            let peak = seconds.iter().map(|(_, viewers)| *viewers).max().unwrap();
            let at = seconds.iter().find(|(_, viewers)| *viewers == peak && peak > 0).map_or(0, |(at, _)| *at);
            prop_assert_eq!((totals.peak_viewers, totals.peak_second), (peak, at));
        }
        let all = aggregate.summary(&demo(), &Scope::All, NOW).unwrap().totals;
        prop_assert_eq!(all.bytes, model.bytes());
        // Of a broadcast session: what was watched of its content.
        let of = |start: u64, end: u64| {
            let ticks = model.ticks(&|_, _| true, |s| &s.watched, TICK * 1000);
            let within: Vec<_> = ticks.iter().filter(|(_, at)| (start..end).contains(&(at * TICK))).collect();
            let views: BTreeSet<u8> = within.iter().map(|(id, _)| *id).collect();
            (views.len() as u64, within.len() as u64 * TICK * 1000)
        };
        for (start, end) in [(BASE, SECOND_BROADCAST), (SECOND_BROADCAST, u64::MAX)] {
            let totals = aggregate.summary(&demo(), &Scope::Broadcast(start), NOW).unwrap().totals;
            prop_assert_eq!((totals.views, totals.watch_us), of(start, end));
        }
        // Views and bytes over time add up to the totals; roll-ups add up to the seconds.
        for resolution in [Resolution::Second, Resolution::Minute, Resolution::Hour] {
            let blocks = aggregate.blocks(&demo(), &Scope::All, (resolution, 0..=u64::MAX));
            let sum = |of: fn(&crate::series::Point) -> u64| -> u64 {
                blocks.iter().flat_map(|(_, block)| block.points()).map(of).sum()
            };
            prop_assert_eq!(sum(|point| point.bytes), all.bytes);
            let begun = model.entries(&|_, _| true).filter(|s| !s.watched.is_empty()).map(|s| s.session[0]);
            let begun: BTreeSet<u8> = begun.collect();
            let seen = model.entries(&|_, _| true).filter(|s| !s.present.is_empty()).map(|s| s.session[0]);
            let dated = seen.filter(|id| begun.contains(id)).collect::<BTreeSet<_>>().len() as u64;
            prop_assert_eq!(sum(|point| point.views.into()), dated);
        }
    }
}

#[test]
fn a_thousand_repeated_and_reordered_reports_change_nothing() {
    let reports: Vec<_> = (0..100u8)
        .map(|n| {
            let start = BASE + u64::from(n) * TICK;
            let span = |unit: u64| vec![Span { start: start * unit, end: (start + TICK) * unit }];
            let session = SessionReport {
                session: [n % 7; 16],
                viewer: u64::from(n % 5),
                channel: 0,
                protocol: Protocol::H2,
                watched: span(1000),
                present: span(1),
            };
            (pop("pop-1"), Report { sessions: vec![session], ..empty(1, u64::from(n) + 1) })
        })
        .collect();
    let mut aggregate = new();
    reports.iter().for_each(|report| assert!(take(&mut aggregate, report).is_new));
    let summary = aggregate.summary(&demo(), &Scope::All, NOW);
    assert_eq!(summary.as_ref().map(|summary| summary.totals.views), Some(7));
    let (mut before, _) = kept(&mut aggregate);
    for n in 0..1000usize {
        assert!(!take(&mut aggregate, &reports[n * 37 % reports.len()]).is_new);
    }
    assert_eq!(aggregate.summary(&demo(), &Scope::All, NOW), summary);
    let (again, viewers) = kept(&mut aggregate);
    for (key, value) in again {
        assert_eq!(before.insert(key.clone(), value.clone()), Some(value), "{key:?}");
    }
    assert_eq!(viewers, BTreeMap::new());
}

#[test]
fn what_cannot_be_counted_is_left_out_and_said() {
    let session = |channel, span: (u64, u64)| SessionReport {
        session: [9; 16],
        viewer: 1,
        channel,
        protocol: Protocol::H1,
        watched: Vec::new(),
        present: vec![Span { start: span.0, end: span.1 }],
    };
    let old = NOW - 31 * DAY_MS;
    let sessions = vec![
        session(1, (BASE, BASE + 1)),
        session(0, (old, old + 1)),
        session(0, (NOW, NOW + 2 * DAY_MS)),
        session(0, (NOW + DAY_MS, NOW + DAY_MS + 1)),
    ];
    let second = |ms: u64| TrafficReport {
        channel: 0,
        protocol: Protocol::H1,
        second: ms / 1000,
        bytes: 1,
        requests: 1,
    };
    let traffic = vec![second(NOW - 8 * DAY_MS), second(NOW + DAY_MS)];
    let mut aggregate = new();
    let report = (pop("pop-1"), Report { sessions, traffic, ..empty(1, 1) });
    let refusals = take(&mut aggregate, &report).refusals;
    assert_eq!(refusals, Refusals { unknown_channel: 1, out_of_time: 5, no_room: 0 });
    let totals = aggregate.summary(&demo(), &Scope::All, NOW).unwrap().totals;
    assert_eq!(totals, Totals::default());
}

#[test]
fn a_day_of_presence_is_two_steps_and_nothing_is_loaded_for_what_is_not_counted() {
    let session = |id: u8, from: u64, until: u64| SessionReport {
        session: [id; 16],
        viewer: u64::from(id) + 1,
        channel: 0,
        protocol: Protocol::H2,
        watched: Vec::new(),
        present: vec![Span { start: from, end: until }],
    };
    let day = |n: u8| session(n, NOW - DAY_MS + 3_600_000 + 1000 * u64::from(n), NOW);
    let sessions: Vec<_> = (0..20).map(day).collect();
    let mut aggregate = new();
    let report = (pop("pop-1"), Report { sessions, ..empty(1, 1) });
    let absorbed = aggregate.absorb(&report.0, &report.1, NOW).unwrap();
    let (.., delta) = &absorbed.added.channels[0];
    assert_eq!(delta.all.steps.len(), 21, "20 came one after the other, and left together");
    assert_eq!(delta.all.seconds.len(), 0);
    aggregate.add(&absorbed.added, NOW);
    let mut aggregate = new();
    take(&mut aggregate, &report);
    let totals = aggregate.summary(&demo(), &Scope::All, NOW).unwrap().totals;
    assert_eq!((totals.peak_viewers, totals.wall_ms / 20), (20, 23 * 3_600_000 - 9_500));
    let old = NOW - 31 * DAY_MS;
    let traffic =
        |second: u64| TrafficReport { channel: 0, protocol: Protocol::H1, second, bytes: 1, requests: 1 };
    let quality = |minute: u64| QualityReport { channel: 0, minute, starvations: 1, ..Default::default() };
    let beyond = Report {
        sessions: vec![session(90, old, old + 1000), session(91, NOW + DAY_MS, NOW + DAY_MS + 1)],
        traffic: vec![traffic(old / 1000), traffic(u64::MAX)],
        quality: vec![quality(old / 60_000), quality(u64::MAX)],
        ..empty(1, 2)
    };
    assert_eq!(aggregate.wanted(&pop("pop-1"), &beyond, NOW).unwrap(), []);
    let refusals = take(&mut aggregate, &(pop("pop-1"), beyond)).refusals;
    assert_eq!(refusals, Refusals { unknown_channel: 0, out_of_time: 6, no_room: 0 });
    assert_eq!(aggregate.sessions_held(), 20, "nobody is remembered for nothing");
}

#[test]
fn forged_numbers_end_where_numbers_end() {
    let most = |second: u64, by: u64| TrafficReport {
        channel: 0,
        protocol: Protocol::H1,
        second: BASE / 1000 + second,
        bytes: u64::MAX - by,
        requests: u64::MAX - by,
    };
    let mut startup_ms = Histogram::default();
    startup_ms.record(1);
    let quality = |minute: u64| QualityReport {
        channel: 0,
        minute: BASE / 60_000 + minute,
        starvations: u64::MAX,
        starved_ms: u64::MAX,
        startup_ms: startup_ms.clone(),
        ..Default::default()
    };
    let mut aggregate = new();
    for name in ["pop-1", "pop-2"] {
        for sequence in 1..3 {
            let traffic = vec![most(0, 2 - sequence), most(1, 0), most(70, 0)];
            let forged = Report { traffic, quality: vec![quality(0), quality(1)], ..empty(1, sequence) };
            take(&mut aggregate, &(pop(name), forged));
        }
    }
    let totals = aggregate.summary(&demo(), &Scope::All, NOW).unwrap().totals;
    assert_eq!((totals.bytes, totals.requests), (u64::MAX, u64::MAX));
    assert_eq!((totals.quality.starvations, totals.quality.starved_ms), (u64::MAX, u64::MAX));
    let blocks = aggregate.blocks(&demo(), &Scope::All, (Resolution::Hour, 0..=u64::MAX));
    assert_eq!(
        blocks.iter().flat_map(|(_, block)| block.points()).map(|point| point.bytes).max(),
        Some(u64::MAX)
    );
}

#[test]
fn a_silent_pop_can_be_forgotten_and_what_came_by_it_stays() {
    let mut aggregate = new();
    let traffic =
        TrafficReport { channel: 0, protocol: Protocol::H1, second: BASE / 1000, bytes: 7, requests: 1 };
    take(&mut aggregate, &(pop("pop-1"), Report { traffic: vec![traffic], ..empty(1, 1) }));
    assert_eq!(aggregate.remove_pop(&pop("pop-2"), NOW), Err(NotRemoved::Unknown));
    assert_eq!(aggregate.remove_pop(&pop("pop-1"), NOW + 9_999), Err(NotRemoved::Up));
    assert_eq!(aggregate.final_until_ms(NOW + 60_000, 86_400_000), NOW, "it is waited for");
    assert_eq!(aggregate.remove_pop(&pop("pop-1"), NOW + 10_000), Ok(()));
    assert_eq!(aggregate.pops(NOW), []);
    assert_eq!(aggregate.final_until_ms(NOW + 60_000, 86_400_000), NOW + 60_000);
    let of_pop = aggregate.summary(&demo(), &Scope::Pop(pop("pop-1")), NOW).unwrap();
    assert_eq!(of_pop.totals.bytes, 7);
}

#[test]
fn old_broadcast_sessions_keep_the_number_of_their_viewers_and_forget_who_they_were() {
    let mut aggregate = new();
    let session = SessionReport {
        session: [9; 16],
        viewer: 1,
        channel: 0,
        protocol: Protocol::H1,
        watched: vec![Span { start: BASE * 1000, end: (SECOND_BROADCAST + 1) * 1000 }],
        present: Vec::new(),
    };
    take(&mut aggregate, &(pop("pop-1"), Report { sessions: vec![session], ..empty(1, 1) }));
    let later = SECOND_BROADCAST + 31 * DAY_MS;
    assert_eq!(aggregate.settle(later), [], "reports of that time are still taken");
    assert_eq!(aggregate.settle(later + 1), [(demo(), Scope::Broadcast(BASE))]);
    assert_eq!(aggregate.settle(later + 1), [], "once; the newest stays open");
    let (_, viewers) = kept(&mut aggregate);
    assert!(!viewers.contains_key(&(demo(), Scope::Broadcast(BASE))));
    for start_ms in [BASE, SECOND_BROADCAST] {
        let summary = aggregate.summary(&demo(), &Scope::Broadcast(start_ms), NOW).unwrap();
        assert_eq!((summary.unique_viewers, summary.is_estimated), (1, false), "{start_ms}");
    }
}

#[test]
fn what_is_idle_leaves_memory_once_it_is_written() {
    let mut aggregate = new();
    let session = SessionReport {
        session: [9; 16],
        viewer: 1,
        channel: 0,
        protocol: Protocol::H1,
        watched: Vec::new(),
        present: vec![Span { start: BASE, end: BASE + 1 }],
    };
    take(&mut aggregate, &(pop("pop-1"), Report { sessions: vec![session], ..empty(1, 1) }));
    aggregate.forget(NOW + 2 * IDLE_MS);
    assert_eq!(aggregate.sessions_held(), 1, "not written yet");
    kept(&mut aggregate);
    aggregate.forget(NOW + IDLE_MS);
    assert_eq!(aggregate.sessions_held(), 1, "not idle yet");
    aggregate.forget(NOW + IDLE_MS + 1);
    assert_eq!(aggregate.sessions_held(), 0);
}
