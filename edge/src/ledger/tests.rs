//! The cases of viewer accounting, in virtual time.

use super::*;
use proptest::prelude::*;
use sigma_report::spans::Spans;
use std::collections::HashMap;

/// When the tests begin, Unix milliseconds.
const T0: u64 = 1_790_000_000_000;
const PART_US: u64 = 200_000;

/// A ledger, and an origin that unites what it tells.
struct Lab {
    ledger: Ledger,
    watched: HashMap<[u8; 16], Spans>,
    present: HashMap<([u8; 16], Protocol), Spans>,
    traffic: HashMap<(u32, Protocol, u64), (u64, u64)>,
    last: Due,
}

fn who(session: u8) -> Who {
    Who { session: [session; 16], viewer: 7, channel: 0, protocol: Protocol::H2 }
}

fn part(n: u64) -> Ended {
    let start = T0 * 1000 + n * PART_US;
    let watched = Some(Span { start, end: start + PART_US });
    Ended { watched, media: true, first_byte_ms: None, good: true }
}

fn playlist() -> Ended {
    Ended { good: true, ..Ended::default() }
}

impl Lab {
    fn new() -> Self {
        Self {
            ledger: Ledger::new(1000),
            watched: HashMap::new(),
            present: HashMap::new(),
            traffic: HashMap::new(),
            last: Due::default(),
        }
    }

    fn ended(&mut self, who: &Who, ended: &Ended, at_ms: u64) {
        self.ledger.ended(who, 0, (ended, T0 + at_ms));
    }

    fn due(&mut self, at_ms: u64) {
        self.last = Due::default();
        self.ledger.due(T0 + at_ms, true, &mut self.last);
        for told in &self.last.sessions {
            let watched = self.watched.entry(told.session).or_default();
            told.watched.iter().for_each(|span| drop(watched.insert(*span)));
            let present = self.present.entry((told.session, told.protocol)).or_default();
            told.present.iter().for_each(|span| drop(present.insert(*span)));
        }
        for told in &self.last.traffic {
            let known = self.traffic.entry((told.channel, told.protocol, told.second)).or_default();
            *known = (known.0.max(told.bytes), known.1.max(told.requests));
        }
    }

    fn watched_ms(&self, session: u8) -> u64 {
        self.watched.get(&[session; 16]).map_or(0, Spans::length) / 1000
    }

    /// In milliseconds since the beginning.
    fn present(&self, session: u8) -> Vec<(u64, u64)> {
        let spans = self.present.get(&([session; 16], Protocol::H2));
        let relative = |span: &Span| (span.start - T0, span.end - T0);
        spans.map(|spans| spans.as_slice().iter().map(relative).collect()).unwrap_or_default()
    }
}

#[test]
fn a_viewer_that_comes_watches_and_closes() {
    let mut lab = Lab::new();
    lab.ended(&who(1), &playlist(), 0);
    for n in 0..50 {
        lab.ended(&who(1), &part(n), 100 + n * 200);
        if n % 5 == 4 {
            lab.due(150 + n * 200);
            assert_eq!((lab.last.present, lab.last.known), (1, 1));
        }
    }
    lab.due(11_000);
    assert_eq!(lab.present(1), [(100, 9_901)], "from the first media byte to the last answer");
    assert_eq!(lab.watched_ms(1), 10_000);
    lab.due(14_000);
    assert_eq!(lab.last.present, 0);
    assert!(lab.last.sessions.is_empty(), "nothing is told twice");
    lab.due(60_000);
    assert_eq!(lab.last.known, 0, "and then it is forgotten");
}

#[test]
fn a_session_known_by_playlists_alone_is_no_view() {
    let mut lab = Lab::new();
    for n in 0..20 {
        let place = lab.ledger.hold(&who(1), 0, T0 + n * 500);
        lab.ledger.release(place, Waited::Answered, T0 + n * 500 + 400);
        lab.ended(&who(1), &playlist(), n * 500 + 400);
        lab.due(n * 500 + 450);
        assert!(lab.last.sessions.is_empty());
    }
}

#[test]
fn a_reset_in_the_middle_of_a_body_is_not_watched() {
    let mut lab = Lab::new();
    lab.ended(&who(1), &part(0), 0);
    // The first half of the second part goes out; then nothing.
    let place = lab.ledger.going(&who(1), 0, T0 + 200);
    lab.ledger.ended(&who(1), place, (&Ended::default(), T0 + 300));
    lab.due(1_000);
    assert_eq!(lab.watched_ms(1), 200);
    assert_eq!(lab.present(1), [(0, 200)]);
    // And one that never got more than a half.
    lab.ledger.going(&who(2), 0, T0 + 1_100);
    lab.ledger.ended(&who(2), 0, (&Ended::default(), T0 + 1_200));
    lab.due(2_000);
    assert_eq!((lab.watched_ms(2), lab.present(2)), (0, vec![]));
}

#[test]
fn a_held_request_keeps_its_session_as_long_as_its_transport_lives() {
    let mut lab = Lab::new();
    lab.ended(&who(1), &part(0), 0);
    let place = lab.ledger.hold(&who(1), 0, T0 + 100);
    for at in (1..=8).map(|n| n * 1000) {
        lab.due(at);
        assert_eq!((lab.last.present, lab.present(1)), (1, vec![(0, at)]), "it waits");
    }
    lab.ledger.release(place, Waited::Left, T0 + 8_500);
    lab.due(9_000);
    assert_eq!(lab.present(1), [(0, 8_500)]);
    lab.due(13_000);
    assert_eq!(lab.last.present, 0);
}

#[test]
fn what_is_refused_keeps_nobody() {
    let mut lab = Lab::new();
    lab.ended(&who(1), &part(0), 0);
    for n in 1..40 {
        let place = lab.ledger.hold(&who(1), 0, T0 + n * 200);
        lab.ledger.release(place, Waited::Refused, T0 + n * 200 + 5);
        lab.ledger.ended(&who(1), place, (&Ended::default(), T0 + n * 200 + 5));
    }
    lab.due(8_000);
    assert_eq!((lab.present(1), lab.last.present), (vec![(0, 1)], 0), "404 after 404");
}

#[test]
fn a_black_hole_ends_with_the_last_answer() {
    let mut lab = Lab::new();
    lab.ended(&who(1), &part(0), 0);
    // The answer goes into the void, the next request never comes.
    let place = lab.ledger.hold(&who(1), 0, T0 + 100);
    lab.ledger.release(place, Waited::Answered, T0 + 400);
    lab.ended(&who(1), &part(1), 400);
    for at in [1_000, 3_000, 5_000, 7_000] {
        lab.due(at);
    }
    assert_eq!((lab.present(1), lab.last.present), (vec![(0, 401)], 0));
}

#[test]
fn a_tab_that_sleeps_is_present_twice() {
    let mut lab = Lab::new();
    for n in 0..5 {
        lab.ended(&who(1), &part(n), n * 200);
    }
    lab.due(1_000);
    // It wakes after ten minutes, with a playlist first; in between it was forgotten or not.
    for sleep in [5_000, 600_000] {
        let at = lab.present(1).last().unwrap().1 + sleep;
        lab.due(at - 1);
        lab.ended(&who(1), &playlist(), at);
        lab.ended(&who(1), &part(at / 200), at + 100);
        lab.ended(&who(1), &part(at / 200 + 1), at + 300);
        lab.due(at + 1_000);
        assert_eq!(
            lab.present(1).last(),
            Some(&(at + 100, at + 301)),
            "from media on, not from the playlist"
        );
    }
    assert_eq!(lab.present(1).len(), 3);
    assert_eq!(lab.watched_ms(1), 1_000 + 2 * 400);
}

#[test]
fn silence_within_the_grace_is_no_absence() {
    let mut lab = Lab::new();
    lab.ended(&who(1), &part(0), 0);
    lab.due(3_000);
    lab.ended(&who(1), &part(1), 3_900);
    lab.due(5_000);
    assert_eq!(lab.present(1), [(0, 3_901)]);
    // Whoever plays segments of six seconds asks every six seconds.
    let six = |n: u64| {
        let start = T0 * 1000 + n * 6_000_000;
        Ended { watched: Some(Span { start, end: start + 6_000_000 }), ..part(0) }
    };
    for n in 0..5 {
        lab.ended(&who(2), &six(n), 10_000 + n * 6_100);
        lab.due(12_000 + n * 6_100);
    }
    assert_eq!(lab.present(2), [(10_000, 34_401)]);
}

#[test]
fn what_is_got_twice_is_watched_once() {
    let mut lab = Lab::new();
    for n in 0..10 {
        lab.ended(&who(1), &part(n), n * 200);
        // The same part of another rendition, and the audio with it, which begins and ends a frame later.
        lab.ended(&who(1), &part(n), n * 200 + 50);
        let watched = part(n).watched.map(|span| Span { start: span.start + 9_000, end: span.end });
        lab.ended(&who(1), &Ended { watched, ..part(n) }, n * 200 + 60);
        if n == 4 {
            lab.due(1_000);
        }
    }
    // The segment after its parts.
    let start = T0 * 1000;
    let watched = Some(Span { start, end: start + 10 * PART_US });
    lab.ended(&who(1), &Ended { watched, ..part(0) }, 2_500);
    lab.due(3_000);
    assert_eq!(lab.watched_ms(1), 2_000);
}

#[test]
fn a_seek_is_another_stretch_of_what_was_watched() {
    let mut lab = Lab::new();
    for (at, n) in [5_000, 5_001, 100, 101, 102, 5_002, 101].into_iter().enumerate() {
        lab.ended(&who(1), &part(n), at as u64 * 200);
    }
    lab.due(2_000);
    assert_eq!(lab.watched_ms(1), 6 * 200);
    assert_eq!(lab.watched[&[1; 16]].as_slice().len(), 2);
    assert_eq!(lab.present(1), [(0, 1_201)]);
}

#[test]
fn many_stretches_come_in_several_pieces() {
    let mut lab = Lab::new();
    for n in 0..200 {
        lab.ended(&who(1), &part(n * 10), n);
    }
    lab.due(1_000);
    assert!(lab.last.sessions.iter().all(|told| told.watched.len() <= 64));
    assert_eq!((lab.last.sessions.len(), lab.watched_ms(1)), (4, 200 * 200));
}

#[test]
fn tabs_are_sessions_and_protocols_are_told_apart() {
    let mut lab = Lab::new();
    let over = |session, protocol| Who { protocol, ..who(session) };
    lab.ended(&over(1, Protocol::H2), &part(0), 0);
    lab.ended(&over(2, Protocol::H2), &part(0), 0);
    lab.ended(&over(1, Protocol::H3), &part(1), 200);
    lab.due(1_000);
    let told: Vec<_> = lab.last.sessions.iter().map(|told| (told.session[0], told.protocol)).collect();
    assert_eq!(told, [(1, Protocol::H2), (2, Protocol::H2), (1, Protocol::H3)]);
    assert_eq!((lab.watched_ms(1), lab.watched_ms(2)), (400, 200), "one view over two protocols");
}

#[test]
fn a_place_that_became_somebody_elses_is_not_believed() {
    let mut lab = Lab::new();
    let stale = lab.ledger.ended(&who(1), 0, (&part(0), T0));
    lab.due(1_000);
    lab.due(100_000);
    assert_eq!(lab.last.known, 0);
    let taken = lab.ledger.ended(&who(2), 0, (&part(0), T0 + 100_000));
    assert_eq!(stale & 0xffff, taken & 0xffff, "the same slot");
    assert_eq!(lab.ledger.ended(&who(1), stale, (&part(1), T0 + 100_000)) & 0xffff, 2);
    assert_eq!(lab.ledger.ended(&who(2), taken, (&part(1), T0 + 100_200)), taken);
    lab.ledger.release(stale, Waited::Left, T0 + 100_300);
    lab.due(101_000);
    assert_eq!((lab.watched_ms(1), lab.watched_ms(2)), (400, 400));
    // Whoever lost the hint is found again by its session.
    lab.ended(&who(2), &part(2), 101_100);
    lab.due(102_000);
    assert_eq!((lab.last.known, lab.watched_ms(2)), (2, 600));
}

#[test]
fn a_full_ledger_counts_what_it_does_not_take() {
    let mut ledger = Ledger::new(2);
    for session in 0..5 {
        ledger.ended(&who(session), 0, (&part(0), T0));
    }
    assert_eq!(ledger.hold(&who(4), 0, T0), 0);
    let mut due = Due::default();
    ledger.due(T0 + 1_000, true, &mut due);
    assert_eq!((due.known, due.lost), (2, Lost { sessions: 4, spans: 0 }));
    for n in 0..300 {
        ledger.ended(&who(0), 0, (&part(n * 10), T0 + 1_000));
    }
    ledger.due(T0 + 2_000, true, &mut due);
    assert_eq!(due.lost.spans, 300 - 257);
}

#[test]
fn seconds_and_minutes_are_told_until_they_are_over() {
    let mut lab = Lab::new();
    for at in (0..10_000).step_by(100) {
        lab.ledger.sent(0, Protocol::H2, (10, T0 + at));
        if at % 700 == 0 {
            lab.due(at);
        }
    }
    lab.due(11_000);
    assert_eq!(lab.traffic.len(), 10);
    assert!(lab.traffic.values().all(|known| *known == (100, 10)), "{:?}", lab.traffic);
    let cmcd = Cmcd { starved: true, startup_ms: Some(500), latency_ms: Some(900), ..Cmcd::default() };
    for at in [12_000, 13_000, 80_000] {
        lab.ledger.said(&who(1), 0, (&cmcd, T0 + at));
    }
    lab.due(81_000);
    let told = |lab: &Lab| {
        let of = |quality: &QualityReport| {
            (quality.starvations, quality.startup_ms.count(), quality.latency_ms.count())
        };
        lab.last.quality.iter().map(of).collect::<Vec<_>>()
    };
    assert_eq!(told(&lab), [(2, 1, 2), (1, 0, 1)], "a session starts once");
    lab.due(200_000);
    assert_eq!(told(&lab), [(1, 0, 1)], "in the end, once more");
    lab.due(300_000);
    assert!(lab.last.quality.is_empty() && lab.last.traffic.is_empty());
}

#[test]
fn ledgers_that_are_asked_around_a_full_second_lose_nothing_of_it() {
    let (mut one, mut other) = (Ledger::new(4), Ledger::new(4));
    let second = T0.next_multiple_of(60_000) / 1000 + 59;
    let (before_ms, after_ms) = (second * 1000 + 999, second * 1000 + 1000);
    let starved = Cmcd { starved: true, ..Cmcd::default() };
    let mut known = (0, 0);
    let mut ask = |one: (&mut Ledger, u64), other: (&mut Ledger, u64)| {
        let mut due = Due::default();
        one.0.due(one.1, true, &mut due);
        other.0.due(other.1, true, &mut due);
        let traffic = due.traffic.iter().filter(|told| told.second == second);
        let quality = due.quality.iter().filter(|told| told.minute == second / 60);
        // As the composer and the origin do: the sum of the ledgers, and of several reports the most.
        known.0 = known.0.max(traffic.map(|told| told.bytes).sum());
        known.1 = known.1.max(quality.map(|told| told.starvations).sum());
        known
    };
    one.sent(0, Protocol::H2, (10, before_ms));
    other.sent(0, Protocol::H2, (20, before_ms));
    other.said(&who(2), 0, (&starved, before_ms));
    assert_eq!(ask((&mut one, before_ms), (&mut other, after_ms)), (30, 1));
    // Still of that second, for the one that was asked before its end.
    one.sent(0, Protocol::H2, (5, before_ms));
    one.said(&who(1), 0, (&starved, before_ms));
    assert_eq!(ask((&mut one, before_ms + 1000), (&mut other, after_ms + 1000)), (35, 2));
    assert_eq!(ask((&mut one, before_ms + 2000), (&mut other, after_ms + 2000)), (35, 2));
}

#[test]
fn nobody_starves_for_longer_than_it_was_there() {
    let mut lab = Lab::new();
    let day = Cmcd { starved: true, starved_ms: Some(86_400_000), ..Cmcd::default() };
    for at in [0, 500, 700] {
        lab.ledger.said(&who(1), 0, (&day, T0 + at));
    }
    let honest = Cmcd { starved_ms: Some(200), ..day };
    lab.ledger.said(&who(1), 0, (&honest, T0 + 1_700));
    lab.due(2_000);
    let spoken_ms: u64 = lab.last.quality.iter().map(|quality| quality.spoken_ms).sum();
    assert_eq!(spoken_ms, 10_000 + 500 + 200 + 1000, "nobody starves for longer than is spoken of");
    let starved_ms = lab.last.quality.iter().map(|quality| quality.starved_ms).collect::<Vec<_>>();
    assert_eq!(
        starved_ms,
        [10_000 + 500 + 200 + 200],
        "of the time before the first word, as long as a session is kept"
    );
}

#[test]
fn a_clock_that_goes_back_changes_nothing_that_was_complete() {
    let mut lab = Lab::new();
    lab.ended(&who(1), &part(0), 9_900);
    lab.ledger.sent(0, Protocol::H2, (10, T0 + 9_900));
    lab.due(10_500);
    lab.ended(&who(1), &part(1), 100);
    lab.ledger.sent(0, Protocol::H2, (10, T0 + 100));
    lab.due(2_000);
    assert_eq!(lab.present(1), [(9_900, 10_501)]);
    assert_eq!(lab.watched_ms(1), 400);
    assert_eq!(lab.traffic.values().map(|(bytes, _)| bytes).sum::<u64>(), 20);
}

#[derive(Debug, Clone)]
enum Step {
    Part(u8, u64),
    Playlist(u8),
    Held(u8, u64),
    Due,
}

fn steps() -> impl Strategy<Value = Vec<(u64, Step)>> {
    let step = prop_oneof![
        (0u8..4, 0u64..60).prop_map(|(session, n)| Step::Part(session, n)),
        (0u8..4).prop_map(Step::Playlist),
        (0u8..4, 0u64..3_000).prop_map(|(session, wait)| Step::Held(session, wait)),
        Just(Step::Due),
    ];
    prop::collection::vec((0u64..6_000, step), 1..80)
}

proptest! {
    /// What is told does not depend on when somebody asks.
    #[test]
    fn asking_often_and_asking_once_are_the_same(steps in steps()) {
        let (mut often, mut once) = (Lab::new(), Lab::new());
        let mut at = 0;
        for (pause, step) in steps {
            at += pause;
            for lab in [&mut often, &mut once] {
                match step {
                    Step::Part(session, n) => lab.ended(&who(session), &part(n), at),
                    Step::Playlist(session) => lab.ended(&who(session), &playlist(), at),
                    Step::Held(session, wait) => {
                        let place = lab.ledger.hold(&who(session), 0, T0 + at);
                        lab.ledger.release(place, Waited::Answered, T0 + at + wait);
                        lab.ended(&who(session), &playlist(), at + wait);
                    }
                    Step::Due => {}
                }
            }
            at += if let Step::Held(_, wait) = step { wait } else { 0 };
            if matches!(step, Step::Due) {
                often.due(at);
            }
        }
        often.due(at + 1);
        once.due(at + 1);
        prop_assert_eq!(&often.watched, &once.watched);
        prop_assert_eq!(&often.present, &once.present);
    }
}

#[test]
fn the_time_that_is_spoken_of_is_that_of_those_who_speak() {
    let mut lab = Lab::new();
    // It says nothing of what is read; it is there, and does not starve.
    for at in [0, 1_000, 3_500] {
        lab.ledger.said(&who(1), 0, (&Cmcd::default(), T0 + at));
    }
    lab.due(4_000);
    let told: Vec<_> = lab.last.quality.iter().map(|told| (told.spoken_ms, told.starved_ms)).collect();
    assert_eq!(told, [(3_500, 0)]);
}
