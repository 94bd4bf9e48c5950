use super::*;
use proptest::prelude::*;

const MS: u64 = 1_000;

fn listed(playback: &mut Playback) {
    playback.listed(0, 2_000 * MS, (600 * MS, 400 * MS));
}

/// Parts of 200 ms, the first at media time 1.4 s, arriving as said; played until `end_ms`.
fn played(arrivals_ms: &[u64], end_ms: u64) -> (Playback, Vec<Happened>) {
    let mut playback = Playback::new(0, 1);
    listed(&mut playback);
    let mut happened = Vec::new();
    for (index, at) in (0u64..).zip(arrivals_ms) {
        let start = (1_400 + index * 200) * MS;
        happened.push(playback.appended(at * MS, 0, (start, start + 200 * MS)));
    }
    happened.push(playback.advance(end_ms * MS));
    (playback, happened)
}

#[test]
fn starts_with_enough_and_stalls_when_it_runs_out() {
    let (playback, happened) = played(&[10, 20, 30, 230, 430], 600);
    assert_eq!(happened[1].started_us, Some(20 * MS), "with two parts");
    assert_eq!((playback.stalls(), playback.startup_us()), (0, Some(20 * MS)));
    // One second of media from 20 ms on lasts to about 1,020 ms, a little less where it catches up.
    let (playback, happened) = played(&[10, 20, 30, 230, 430], 1_500);
    assert_eq!(
        (playback.stalls(), happened.last().unwrap().played_us),
        (
            1,
            playback.ahead_us() + 1_000 * MS
                - happened.iter().rev().skip(1).map(|h| h.played_us).sum::<u64>()
        )
    );
    assert!((480 * MS..540 * MS).contains(&playback.stalled_us()), "{}", playback.stalled_us());
    assert!(playback.is_stalled());
}

#[test]
fn a_stall_that_was_over_when_looked_at_was_one() {
    let (playback, happened) = played(&[0, 0, 0, 1_000, 1_000], 1_100);
    assert_eq!((playback.stalls(), playback.is_stalled()), (1, false));
    let ended = happened[4].stall_ended_us.unwrap();
    assert!((390 * MS..430 * MS).contains(&ended), "600 ms of media, then nothing until 1,000: {ended}");
    assert_eq!(playback.stalled_us(), ended);
}

#[test]
fn a_stall_that_goes_on_grows_whenever_somebody_looks() {
    let (mut playback, mut happened) = played(&[10, 20, 30], 1_000);
    happened.extend((11..40).map(|tenth| playback.advance(tenth * 100 * MS)));
    let stalled: u64 = happened.iter().map(|one| one.stalled_us).sum();
    assert_eq!((stalled, playback.stalls_since_us()), (playback.stalled_us(), Some(stalled)));
    assert!((3_250 * MS..3_310 * MS).contains(&stalled), "600 ms of media from 20 ms on: {stalled}");
    let ended = playback.appended(4_000 * MS, 0, (2_000 * MS, 2_600 * MS));
    assert_eq!((ended.stalled_us, ended.stall_ended_us), (100 * MS, Some(playback.stalled_us())));
    assert_eq!(playback.stalls_since_us(), None);
}

#[test]
fn who_is_behind_plays_faster_until_it_is_not() {
    let mut playback = Playback::new(0, 1);
    playback.listed(0, 10_000 * MS, (600 * MS, 400 * MS));
    // Two seconds behind the edge, all of it buffered, and what comes is buffered at once.
    playback.appended(0, 0, (8_000 * MS, 10_000 * MS));
    assert!((playback.rate() - CATCH_UP_RATE).abs() < 1e-9);
    for ms in (200..60_000).step_by(200) {
        playback.listed(ms * MS, (10_000 + ms) * MS, (600 * MS, 400 * MS));
        playback.appended(ms * MS, 0, ((9_800 + ms) * MS, (10_000 + ms) * MS));
    }
    assert_eq!(playback.rate(), 1.0);
    let behind = playback.behind_us().unwrap();
    assert!((600 * MS..=800 * MS).contains(&behind), "{behind}");
    assert_eq!(playback.stalls(), 0);
}

#[test]
fn both_tracks_are_needed() {
    let mut playback = Playback::new(0, 2);
    listed(&mut playback);
    playback.appended(0, 0, (1_000 * MS, 3_000 * MS));
    assert_eq!((playback.ahead_us(), playback.startup_us()), (0, None));
    let happened = playback.appended(50 * MS, 1, (1_100 * MS, 1_700 * MS));
    assert_eq!(happened.started_us, Some(50 * MS));
    assert_eq!(playback.ahead_us(), 600 * MS, "from where both have something");
    playback.advance(1_000 * MS);
    assert!(playback.is_stalled(), "audio ran out");
}

#[test]
fn holes_are_jumped_and_seeks_are_no_stalls() {
    let mut playback = Playback::new(0, 1);
    listed(&mut playback);
    playback.appended(0, 0, (1_000 * MS, 1_500 * MS));
    playback.appended(0, 0, (2_000 * MS, 2_600 * MS));
    assert_eq!(playback.ahead_us(), 1_100 * MS);
    playback.advance(700 * MS);
    assert!((2_190 * MS..2_240 * MS).contains(&playback.playhead_us.unwrap()), "{:?}", playback.playhead_us);
    playback.seek(700 * MS);
    playback.advance(5_000 * MS);
    assert_eq!((playback.stalls(), playback.stalled_us(), playback.is_stalled()), (0, 0, false));
    let happened = playback.appended(5_000 * MS, 0, (100 * MS, 1_100 * MS));
    assert_eq!((happened.started_us, happened.stall_ended_us), (None, None));
    assert_eq!(playback.latency_us(1_200 * MS), Some(1_100 * MS));
}

proptest! {
    /// Looking more often changes nothing but rounding, and no time is lost: playing, waiting and stalling are all of it.
    #[test]
    fn time_adds_up(gaps in proptest::collection::vec(0u64..900, 1..60), looks in proptest::collection::vec(0u64..30_000, 0..40)) {
        let mut once = Playback::new(0, 1);
        let mut often = Playback::new(0, 1);
        let (mut at, mut played) = (0, 0);
        let mut looks = looks;
        looks.sort_unstable();
        for (index, gap) in (0u64..).zip(&gaps) {
            let before = at;
            at += gap;
            for look in looks.iter().filter(|look| (before..at).contains(*look)) {
                often.advance(look * MS);
            }
            let span = (index * 200 * MS, (index + 1) * 200 * MS);
            played += once.appended(at * MS, 0, span).played_us;
            often.appended(at * MS, 0, span);
        }
        prop_assert_eq!(once.stalls(), often.stalls());
        prop_assert!(once.stalled_us().abs_diff(often.stalled_us()) < MS);
        let startup = once.startup_us().unwrap();
        prop_assert!((played + once.stalled_us() + startup).abs_diff(at * MS) <= MS, "no edge, so no catching up");
    }
}

#[test]
fn a_tab_that_sleeps_plays_nothing_and_does_not_stall() {
    let (mut playback, _) = played(&[10, 20, 30], 100);
    playback.pause(100 * MS);
    // What was asked for still comes.
    playback.appended(150 * MS, 0, (2_000 * MS, 2_400 * MS));
    let asleep = playback.advance(30_000 * MS);
    assert_eq!((asleep.played_us, playback.stalls()), (0, 0));
    playback.seek(30_000 * MS);
    listed(&mut playback);
    playback.appended(30_010 * MS, 0, (31_000 * MS, 31_400 * MS));
    assert!(playback.advance(30_200 * MS).played_us > 0);
    assert_eq!((playback.stalls(), playback.stalled_us()), (0, 0));
}
