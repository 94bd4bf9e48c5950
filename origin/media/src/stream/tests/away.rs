//! Nobody publishes for a while: gaps at the pace of the clock.

use super::*;

impl Simulation {
    /// Nobody publishes for `ms`; the clock is looked at every 50.
    pub(super) fn wait(&mut self, ms: u64) {
        for _ in 0..ms / 50 {
            self.now_ms += 50;
            self.stream.pass_time(self.now_ms).expect("passed");
            self.work();
        }
    }

    /// Seconds from the first part of the playlist's dated timeline to its end, and the wall clock's date of the end.
    fn end_ms(&self, id: &str) -> i64 {
        let snapshot = &self.latest[id];
        let (msn, part) = snapshot.tip.last_part();
        let segment = snapshot.segments.iter().find(|s| s.msn == msn).expect("in memory");
        assert_eq!(Some(segment.parts.len() as u32 - 1), part);
        segment.program_date_time_ms + i64::from(segment.line().duration) / 90
    }
}

#[test]
fn ev_11_playlists_go_on_in_gaps_at_the_pace_of_the_clock_while_nobody_publishes() {
    let mut simulation = Simulation::new(setup(ChannelKind::Hybrid, &["v360"]));
    simulation.connect();
    simulation.publish(0, 30 * 7);
    simulation.disconnect();
    let before = numbers(&simulation, "source");
    for seconds in 1..=12 {
        simulation.wait(1000);
        let behind: Vec<i64> =
            ["source", "v360", "audio"].map(|id| simulation.now_ms as i64 - simulation.end_ms(id)).to_vec();
        // A part is listed when all of it has passed: within a part and a look at the clock.
        assert!(
            seconds == 1 || behind.iter().all(|ms| (0..=250).contains(ms)),
            "after {seconds} s: {behind:?}"
        );
    }
    simulation.connect();
    simulation.publish(0, 30 * 7);
    let after = numbers(&simulation, "source");
    for id in ["source", "v360", "audio"] {
        let playlist = simulation.playlist(id);
        let found = segments(&playlist);
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), after, "MV-07 {id}");
        assert!(after.windows(2).all(|pair| pair[1] == pair[0] + 1), "EV-01 {after:?}");
        let marked: Vec<_> = found.iter().filter(|(_, s)| s.1).map(|(msn, _)| *msn).collect();
        let gaps: Vec<_> = found.iter().filter(|(_, s)| s.2).map(|(msn, _)| *msn).collect();
        let last = *before.last().expect("some");
        assert_eq!(gaps, (last + 1..marked[0]).collect::<Vec<_>>(), "{id}\n{playlist}");
        assert_eq!(marked.len(), 1, "one discontinuity, where it comes back, {id}");
        assert!(found.values().all(|(length, ..)| *length < 2.5), "SYN-11 {found:?}");
        let gone: f64 = found.values().filter(|s| s.2).map(|s| s.0).sum();
        assert!((11.5..=12.1).contains(&gone), "{gone}");
    }
}

#[test]
fn who_comes_back_at_once_leaves_no_gap() {
    let mut simulation = Simulation::new(setup(ChannelKind::Forward, &[]));
    simulation.connect();
    simulation.publish(0, 30 * 7);
    simulation.disconnect();
    simulation.wait(400);
    simulation.connect();
    simulation.publish(0, 30 * 7);
    assert!(!simulation.playlist("source").contains("#EXT-X-GAP"));
}

#[test]
fn a_session_that_ends_in_a_gap_ends_its_playlists_with_it() {
    let mut simulation = Simulation::new(setup(ChannelKind::Hybrid, &["v360"]));
    simulation.connect();
    simulation.publish(0, 30 * 7);
    simulation.disconnect();
    simulation.wait(3_100);
    simulation.stream.finish(simulation.now_ms).expect("finished");
    simulation.work();
    let ends: Vec<_> = ["source", "v360", "audio"].map(|id| simulation.playlist(id)).to_vec();
    for playlist in &ends {
        assert!(playlist.ends_with("#EXT-X-ENDLIST\n"), "{playlist}");
        assert!(segments(playlist).values().next_back().is_some_and(|last| last.2), "{playlist}");
    }
    simulation.wait(5_000);
    assert_eq!(simulation.playlist("source"), ends[0], "what has ended stays as it is");
}

#[test]
fn a_worker_that_never_delivers_the_rest_is_not_waited_for() {
    let mut simulation = Simulation::new(setup(ChannelKind::Hybrid, &["v360"]));
    simulation.connect();
    simulation.publish(0, 30 * 7);
    simulation.worker = false;
    simulation.stream.end_run(simulation.now_ms).expect("ended");
    let changes = simulation.stream.take_changes();
    changes
        .renditions
        .into_iter()
        .for_each(|(id, snapshot)| drop(simulation.latest.insert(id.to_string(), snapshot)));
    simulation.wait(5_000);
    assert_eq!(numbers(&simulation, "v360"), numbers(&simulation, "source"));
}

proptest! {
    #[test]
    fn comings_and_goings_keep_all_renditions_in_step(
        pauses in proptest::collection::vec((1u32..9, 0u64..130), 1..6),
    ) {
        let mut simulation = Simulation::new(setup(ChannelKind::Hybrid, &["v360"]));
        for (seconds, pause) in pauses {
            simulation.connect();
            simulation.publish(0, 30 * seconds + 7);
            simulation.disconnect();
            simulation.wait(pause * 50);
        }
        prop_assume!(simulation.latest.contains_key("source"));
        let source = segments(&simulation.playlist("source"));
        for id in ["v360", "audio"] {
            let other = segments(&simulation.playlist(id));
            let marks = |found: &BTreeMap<u64, (f64, bool, bool)>| found.iter().map(|(msn, s)| (*msn, s.1)).collect::<Vec<_>>();
            prop_assert_eq!(marks(&source), marks(&other));
            for (msn, (length, ..)) in &other {
                prop_assert!((length - source[msn].0).abs() < 0.05, "{} {}: {} {}", id, msn, length, source[msn].0);
            }
        }
    }
}
