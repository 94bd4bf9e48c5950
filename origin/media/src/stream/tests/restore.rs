//! An origin that was killed goes on with what its archive has.

use super::*;
use crate::stream::{Constants, Restored};
use crate::window::ArchivedSegment;

fn dvr(rungs: &[&str]) -> StreamSetup {
    StreamSetup { dvr_ms: 3_600_000, window_ms: 20_000, ..setup(ChannelKind::Hybrid, rungs) }
}

/// What a log that has `events` gives back: a segment that was being written is completed with what there is of it.
fn archived(id: &RenditionId, constants: Constants, events: &[Event]) -> Restored {
    let mut restored = Restored { id: id.clone(), constants, segments: Vec::new(), inits: Vec::new() };
    let mut segments: Vec<ArchivedSegment> = Vec::new();
    for event in events {
        match event {
            Event::Init(hash, bytes) => restored.inits.push((*hash, bytes.clone())),
            Event::Begin(line, start, discontinuity_sequence) => {
                let line = sigma_shared::playlist::SegmentLine { duration: 0, ..*line };
                segments.push(ArchivedSegment {
                    line,
                    start: *start,
                    discontinuity_sequence: *discontinuity_sequence,
                });
            }
            Event::Part(_, line) => segments.last_mut().expect("begun").line.duration += line.duration,
            Event::Finish { gap } => segments.last_mut().expect("begun").line.gap = *gap,
        }
    }
    segments.retain(|segment| segment.line.duration > 0);
    restored.segments = segments;
    restored
}

impl Simulation {
    /// The origin is killed, the archive having lost the last `lost` events of each rendition, and starts again.
    fn restart(&mut self, setup: StreamSetup, lost: usize) {
        let constants = self.stream.constants();
        let archive = self.archive.clone();
        let restored = constants.iter().map(|(id, constants)| {
            let events = &archive[&id.to_string()];
            archived(id, *constants, &events[..events.len() - lost])
        });
        let stream = Stream::restore(setup, restored.collect()).expect("restored").expect("something");
        let ranges: Vec<_> =
            stream.renditions.iter().map(|r| (r.id.clone(), r.window().complete_msn())).collect();
        *self = Simulation { stream, now_ms: self.now_ms, archive, ..Simulation::new(dvr(&["v360"])) };
        self.stream.worker_ready();
        for (id, newest) in ranges {
            self.stream.set_archived(&id, newest.map(|newest| 0..=newest));
        }
        self.work();
    }
}

/// The complete segments of a playlist, as text, without parts.
fn listed(simulation: &Simulation, id: &str) -> String {
    let text = simulation.latest[id].playlist(Listed::Media, Mode::Normal, None).to_bytes();
    String::from_utf8(text.to_vec()).expect("text")
}

#[test]
fn the_list_goes_on_with_the_same_lines() {
    for lost in (0..20).step_by(3) {
        let mut simulation = Simulation::new(dvr(&["v360"]));
        simulation.connect();
        simulation.publish(0, 30 * 41);
        simulation.disconnect();
        simulation.wait(3_000);
        simulation.connect();
        simulation.publish(0, 30 * 27 + 11);
        let before = ["source", "v360", "audio"].map(|id| listed(&simulation, id));
        simulation.restart(dvr(&["v360"]), lost);
        for (id, before) in ["source", "v360", "audio"].iter().zip(&before) {
            let after = listed(&simulation, id);
            let kept = segments(before).len() - 1 - lost / 8;
            let whole = before.split("#EXTINF").take(kept).collect::<Vec<_>>().join("#EXTINF");
            assert!(after.starts_with(&whole), "{id}, {lost} lost\n{before}\n{after}");
            assert!(segments(&after).values().next_back().is_some(), "{id}");
        }
        let numbers_then = numbers(&simulation, "source");
        assert!(["v360", "audio"].iter().all(|id| numbers(&simulation, id) == numbers_then), "MV-07");
    }
}

#[test]
fn a12_no_name_is_given_out_twice_after_a_kill() {
    for (lost, away_ms) in [(0, 0), (1, 0), (1, 350), (2, 2_000), (1, 14_000)] {
        let mut simulation = Simulation::new(dvr(&["v360"]));
        simulation.connect();
        simulation.publish(0, 30 * 20 + 17);
        let told = simulation.latest["source"].tip.next_part();
        simulation.restart(dvr(&["v360"]), lost);
        simulation.wait(away_ms);
        simulation.connect();
        simulation.publish(0, 30 * 9);
        for id in ["source", "v360", "audio"] {
            let found = segments(&simulation.playlist(id));
            let (again, _) =
                found.iter().rev().find(|(_, s)| s.1).expect("a discontinuity where it comes back");
            assert!(*again > told.0, "{id}: {again} was announced as {told:?}");
            let gaps: Vec<_> = found.range(told.0 + 1..*again).collect();
            assert!(!gaps.is_empty() && gaps.iter().all(|(_, s)| s.2), "{id}: gaps between {found:?}");
            let all: Vec<_> = found.keys().copied().collect();
            assert!(all.windows(2).all(|pair| pair[1] == pair[0] + 1), "EV-01 {id} {all:?}");
        }
        let at = |id: &str| simulation.latest[id].playlist(Listed::Media, Mode::Low, None).to_bytes();
        assert!(String::from_utf8_lossy(&at("audio")).contains("#EXT-X-DISCONTINUITY-SEQUENCE:0\n"));
    }
}

#[test]
fn a_rendition_whose_archive_is_behind_comes_back_like_a_new_one() {
    let mut simulation = Simulation::new(dvr(&["v360"]));
    simulation.connect();
    simulation.publish(0, 30 * 20);
    let events = simulation.archive.get_mut("v360").expect("archived");
    events.truncate(events.len() / 2);
    simulation.restart(dvr(&["v360"]), 0);
    assert!(!simulation.latest.contains_key("v360"), "its list would not be in step");
    simulation.connect();
    simulation.publish(0, 30 * 9);
    let newest = |id: &str| numbers(&simulation, id).last().copied();
    assert_eq!(newest("v360"), newest("source"));
    let sequence = |id: &str| {
        let text = simulation.playlist(id);
        let marks = text.matches("#EXT-X-DISCONTINUITY\n").count();
        let stated = text
            .split("DISCONTINUITY-SEQUENCE:")
            .nth(1)
            .and_then(|rest| rest.lines().next().map(str::to_owned));
        stated.expect("stated").parse::<usize>().expect("number") + marks
    };
    assert_eq!(sequence("v360"), sequence("source"), "MV-07: it has passed the same discontinuities");
}
