use super::*;
use crate::codec::test_record;
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::snapshot::{PartLookup, RenditionSnapshot};
use crate::window::Event;
use sigma_shared::mode::Mode;
use sigma_shared::resource::Listed;

mod away;
mod restore;

const NOW_MS: u64 = 1_795_333_200_700;

fn avc() -> AvcConfig {
    AvcConfig::parse(test_record()).expect("valid")
}

fn aac() -> AacConfig {
    AacConfig::parse(Bytes::from_static(&[0x11, 0x90])).expect("valid")
}

fn picture(idr: bool) -> AccessUnit {
    AccessUnit { data: Bytes::from_static(if idr { b"\0\0\0\x01\x65" } else { b"\0\0\0\x01\x41" }), idr }
}

fn setup(kind: ChannelKind, rungs: &[&str]) -> StreamSetup {
    StreamSetup {
        kind,
        segment_ms: 2000,
        part_target_ms: 200,
        window_ms: 60_000,
        dvr_ms: 0,
        window_bytes_max: 1 << 30,
        msn_min: 0,
        discontinuity_sequence: 0,
        rungs: rungs.iter().map(|id| id.parse().expect("id")).collect(),
        source_id: "source".parse().expect("id"),
        audio_id: "audio".parse().expect("id"),
    }
}

/// A publisher, a worker that delivers at once, and a reader of every snapshot, in simulated time.
struct Simulation {
    stream: Stream,
    now_ms: u64,
    gop: u32,
    has_video: bool,
    has_audio: bool,
    /// The worker's process is there.
    worker: bool,
    /// Pictures that its decoder has not given out, and how many those may be.
    decoded: BTreeMap<i64, WorkerPicture>,
    reorder: usize,
    latest: BTreeMap<String, Arc<RenditionSnapshot>>,
    multivariant: Option<String>,
    notices: Vec<Notice>,
    /// What the archive was told, by rendition.
    archive: BTreeMap<String, Vec<Event>>,
}

impl Simulation {
    fn new(setup: StreamSetup) -> Self {
        let worker = setup.kind != ChannelKind::Forward;
        let mut stream = Stream::new(setup);
        if worker {
            stream.worker_ready();
        }
        Self {
            stream,
            now_ms: NOW_MS,
            gop: 60,
            has_video: true,
            has_audio: true,
            worker,
            decoded: BTreeMap::new(),
            reorder: 0,
            latest: BTreeMap::new(),
            multivariant: None,
            notices: Vec::new(),
            archive: BTreeMap::new(),
        }
    }

    fn connect(&mut self) {
        self.stream.begin_publishing();
        if self.has_video {
            self.stream.configure_video(avc(), self.now_ms).expect("configured");
        }
        if self.has_audio {
            self.stream.configure_audio(aac(), self.now_ms).expect("configured");
        }
    }

    /// Publishes `frames` pictures at 30 per second and the audio to them, from source time `from_ms` on.
    fn publish(&mut self, from_ms: u32, frames: u32) {
        let mut audio = 0u32;
        let started = self.now_ms;
        for n in 0..frames {
            self.now_ms = started + u64::from(n * 1000 / 30);
            let raw = from_ms.wrapping_add(n * 1000 / 30);
            if self.has_video {
                self.stream
                    .push_video(raw, 0, picture(n.is_multiple_of(self.gop)), self.now_ms)
                    .expect("pushed");
                self.work();
            }
            while self.has_audio && audio * 1024 / 48 <= n * 1000 / 30 {
                let raw = from_ms.wrapping_add(audio * 1024 / 48);
                self.stream.push_audio(raw, Bytes::from_static(b"aac"), self.now_ms).expect("pushed");
                self.work();
                audio += 1;
            }
        }
        self.now_ms = started + u64::from(frames * 1000 / 30);
    }

    fn disconnect(&mut self) {
        self.stream.end_run(self.now_ms).expect("ended");
        self.work();
    }

    /// Delivers what the worker would, and reads what readers would.
    fn work(&mut self) {
        loop {
            let changes = self.stream.take_changes();
            for (id, events) in changes.archive {
                self.archive.entry(id.to_string()).or_default().extend(events);
                // An archive that keeps everything, at once.
                let newest =
                    find(&mut self.stream.renditions, &id).and_then(|one| one.window().complete_msn());
                self.stream.set_archived(&id, newest.map(|newest| 0..=newest));
            }
            for (id, snapshot) in changes.renditions {
                if snapshot.tip.open_parts == 0 {
                    spans_touch(&snapshot);
                }
                self.latest.insert(id.to_string(), snapshot);
            }
            if let Some(multivariant) = changes.multivariant {
                self.multivariant = Some(
                    String::from_utf8(multivariant.text(Mode::Ultra).to_bytes().to_vec()).expect("text"),
                );
            }
            if changes.worker.is_empty() {
                break;
            }
            changes.worker.into_iter().for_each(|input| self.deliver(input));
        }
        self.notices.extend(self.stream.take_notices());
    }

    fn deliver(&mut self, input: WorkerInput) {
        assert!(self.worker, "a dead worker is not fed");
        let now = self.now_ms;
        let rungs = self.stream.setup.rungs.len();
        match input {
            WorkerInput::Start { video, audio, frame_rate } => {
                for rung in 0..rungs {
                    let config = TrackConfig::Video(video.clone());
                    self.stream.configure_worker_track(Some(rung), config, frame_rate).expect("configured");
                }
                if let Some(audio) = audio {
                    self.stream
                        .configure_worker_track(None, TrackConfig::Audio(audio), None)
                        .expect("configured");
                }
            }
            WorkerInput::Sample(WorkerSample::Video { pts, segment_start, data, .. }) => {
                // A decoder gives pictures in the order of presentation.
                self.decoded.insert(pts, WorkerPicture { pts, sync: segment_start, segment_start, data });
                while self.decoded.len() > self.reorder {
                    let Some((_, picture)) = self.decoded.pop_first() else { break };
                    for rung in 0..rungs {
                        self.stream.push_worker_video(rung, picture.clone(), now).expect("pushed");
                    }
                }
            }
            WorkerInput::Sample(WorkerSample::Audio { pts, data }) => {
                self.stream.push_worker_audio(pts, data, now).expect("pushed");
            }
            WorkerInput::Flush => self.stream.worker_flushed(now).expect("flushed"),
        }
    }

    fn playlist(&self, id: &str) -> String {
        String::from_utf8(self.latest[id].playlist(Listed::Media, Mode::Ultra, None).to_bytes().to_vec())
            .expect("text")
    }
}

/// MSN to (PROGRAM-DATE-TIME, EXTINF, discontinuity, gap) of the complete segments of a playlist.
fn segments(playlist: &str) -> BTreeMap<u64, (f64, bool, bool)> {
    let (mut discontinuity, mut gap, mut extinf) = (false, false, 0.0);
    let mut found = BTreeMap::new();
    for line in playlist.lines() {
        match line {
            "#EXT-X-DISCONTINUITY" => discontinuity = true,
            "#EXT-X-GAP" => gap = true,
            _ if line.starts_with("#EXTINF:") => extinf = line[8..line.len() - 1].parse().expect("number"),
            _ if !line.starts_with('#') => {
                let msn = line.trim_end_matches(".m4s").parse().expect("msn");
                found.insert(msn, (extinf, discontinuity, gap));
                (discontinuity, gap) = (false, false);
            }
            _ => {}
        }
    }
    found
}

fn numbers(simulation: &Simulation, id: &str) -> Vec<u64> {
    segments(&simulation.playlist(id)).into_keys().collect()
}

#[test]
fn a_forward_channel_is_cut_on_the_grid() {
    let mut simulation = Simulation::new(setup(ChannelKind::Forward, &[]));
    simulation.connect();
    simulation.publish(0, 30 * 11);
    let cell = NOW_MS / 2000;
    for id in ["source", "audio"] {
        assert_eq!(
            numbers(&simulation, id),
            (cell..cell + 5).collect::<Vec<_>>(),
            "A12: the number is the cell's"
        );
    }
    assert!(segments(&simulation.playlist("source")).values().all(|(length, ..)| *length == 2.0));
    assert!(!simulation.playlist("source").contains("DISCONTINUITY\n"));
    let multivariant = simulation.multivariant.as_ref().expect("published");
    assert!(multivariant.contains("CODECS=\"avc1.4d401f,mp4a.40.2\",RESOLUTION=1280x720,FRAME-RATE=30.000"));
}

#[test]
fn mp_12_audio_and_video_of_a_segment_start_within_one_audio_frame() {
    let mut simulation = Simulation::new(setup(ChannelKind::Forward, &[]));
    simulation.connect();
    simulation.publish(40, 30 * 21);
    let (video, audio) = (&simulation.latest["source"], &simulation.latest["audio"]);
    for msn in numbers(&simulation, "source") {
        let (v, a) = (video.segment(msn).expect("there"), audio.segment(msn).expect("there"));
        assert!((0..1920).contains(&(a.start_of_media() - v.start_of_media())), "{msn}");
    }
}

#[test]
fn a_part_is_out_with_its_last_frame() {
    let mut simulation = Simulation::new(setup(ChannelKind::Forward, &[]));
    simulation.has_audio = false;
    simulation.connect();
    simulation.publish(0, 90);
    let before = simulation.latest["source"].tip;
    // 90 frames are the first segment and five parts of the second.
    assert_eq!((before.complete_parts, before.open_parts), (10, 5));
}

#[test]
fn a_reconnect_continues_the_numbers_behind_one_discontinuity() {
    let mut simulation = Simulation::new(setup(ChannelKind::Hybrid, &["v360"]));
    simulation.connect();
    simulation.publish(5000, 30 * 7);
    simulation.disconnect();
    let before = numbers(&simulation, "source");
    simulation.now_ms += 9000;
    simulation.connect();
    simulation.publish(0, 30 * 7);
    for id in ["source", "v360", "audio"] {
        let playlist = simulation.playlist(id);
        let found = segments(&playlist);
        let all: Vec<_> = found.keys().copied().collect();
        assert!(all.windows(2).all(|pair| pair[1] == pair[0] + 1), "EV-01 {id}: {all:?}");
        let marked: Vec<_> = found.iter().filter(|(_, s)| s.1).map(|(msn, _)| *msn).collect();
        assert_eq!(marked, [before[before.len() - 1] + 1], "{id}\n{playlist}");
        assert!(found.values().all(|s| !s.2), "no gaps in {id}");
    }
}

#[test]
fn a_lost_worker_costs_its_rungs_gaps_and_they_rejoin_aligned() {
    let mut simulation = Simulation::new(setup(ChannelKind::Hybrid, &["v480", "v360"]));
    simulation.connect();
    simulation.publish(0, 30 * 5);
    simulation.worker = false;
    simulation.stream.worker_lost(simulation.now_ms).expect("lost");
    simulation.gop = u32::MAX;
    simulation.has_audio = false;
    // Goes on in mid-segment without random access points of its own: the frames of the same run.
    simulation.publish_more(5000, 30 * 5, 30 * 10);
    simulation.worker = true;
    simulation.stream.worker_ready();
    simulation.publish_more(10_000, 30 * 10, 30 * 17);
    let (source, rung) = (segments(&simulation.playlist("source")), segments(&simulation.playlist("v480")));
    assert!(source.values().all(|s| !s.1 && !s.2), "the source is untouched");
    let gaps: Vec<_> = rung.iter().filter(|(_, s)| s.2).map(|(msn, _)| *msn).collect();
    let first = *source.keys().next().expect("some");
    assert_eq!(gaps, [first + 2, first + 3, first + 4], "{}", simulation.playlist("v480"));
    assert_eq!(source.keys().collect::<Vec<_>>(), rung.keys().collect::<Vec<_>>(), "in step");
    for (msn, (length, ..)) in &rung {
        assert!((length - source[msn].0).abs() < 0.001, "same length, {msn}");
    }
    assert!(matches!(simulation.latest["v480"].part(first + 2, 5), PartLookup::Absent));
}

impl Simulation {
    /// Pictures `from..to` of a run that goes on, one random access point every 60.
    fn publish_more(&mut self, _from_ms: u32, from: u32, to: u32) {
        for n in from..to {
            let raw = n * 1000 / 30;
            self.now_ms = NOW_MS + u64::from(raw);
            self.stream.push_video(raw, 0, picture(n.is_multiple_of(60)), self.now_ms).expect("pushed");
            self.work();
        }
    }
}

#[test]
fn a_transcoded_channel_is_cut_exactly_on_the_grid_whatever_the_publisher_sends() {
    let mut simulation = Simulation::new(setup(ChannelKind::Transcode, &["v480"]));
    simulation.gop = 73;
    simulation.connect();
    simulation.publish(0, 30 * 15);
    assert!(!simulation.latest.contains_key("source"));
    let found = segments(&simulation.playlist("v480"));
    assert!(found.len() >= 6 && found.values().all(|s| s.0 == 2.0), "{found:?}");
    assert_eq!(numbers(&simulation, "v480"), numbers(&simulation, "audio"));
}

#[test]
fn video_alone_and_audio_alone_are_served() {
    for (has_video, has_audio) in [(true, false), (false, true)] {
        let mut simulation = Simulation::new(setup(ChannelKind::Forward, &[]));
        (simulation.has_video, simulation.has_audio) = (has_video, has_audio);
        simulation.connect();
        simulation.publish(0, 30 * 12);
        let id = if has_video { "source" } else { "audio" };
        assert!(numbers(&simulation, id).len() >= 4);
        let multivariant = simulation.multivariant.as_ref().expect("published");
        assert!(!multivariant.contains("TYPE=AUDIO"));
        assert!(multivariant.contains(&format!("{id}/media.m3u8")));
        assert_eq!(multivariant.contains("RESOLUTION"), has_video);
    }
}

#[test]
fn without_a_random_access_point_nothing_is_published() {
    let mut simulation = Simulation::new(setup(ChannelKind::Forward, &[]));
    simulation.connect();
    for n in 0..300u32 {
        simulation.stream.push_video(n * 33, 0, picture(false), NOW_MS).expect("dropped");
        simulation.work();
    }
    assert!(simulation.latest.is_empty());
    assert!(simulation.notices.iter().all(|n| *n == Notice::DroppedBeforeStart));
}

#[test]
fn a_track_that_vanishes_or_comes_late_does_not_stop_the_other() {
    let mut simulation = Simulation::new(setup(ChannelKind::Forward, &[]));
    simulation.connect();
    simulation.publish(0, 30 * 4);
    // Audio alone, for longer than it can be held.
    simulation.has_video = false;
    simulation.publish(4000, 30 * 15);
    let audio = numbers(&simulation, "audio");
    assert!(audio.len() >= 7, "audio goes on: {audio:?}");
    let video = segments(&simulation.playlist("source"));
    assert!(video.values().any(|s| s.2), "the video's playlist goes on with gaps");
    // Both again, then video alone: the audio's playlist goes on with gaps.
    simulation.has_video = true;
    simulation.publish(19_000, 30 * 6);
    simulation.has_audio = false;
    simulation.publish(25_000, 30 * 14);
    let (video, audio) = (numbers(&simulation, "source"), segments(&simulation.playlist("audio")));
    assert!(video.len() >= 16, "{video:?}");
    assert!(audio.iter().rev().take(2).all(|(_, s)| s.2), "{}", simulation.playlist("audio"));
    assert!(audio.keys().last() >= video.get(video.len() - 2), "in step");
}

#[test]
fn another_resolution_gets_an_init_section_of_its_own_and_keeps_the_old() {
    let mut simulation = Simulation::new(setup(ChannelKind::Forward, &[]));
    simulation.connect();
    simulation.publish(0, 150);
    let old = simulation.playlist("source");
    let map = |playlist: &str| playlist.lines().rfind(|l| l.starts_with("#EXT-X-MAP")).map(str::to_owned);
    let mut record = test_record().to_vec();
    record[3] = 0x20; // another level: another configuration
    simulation
        .stream
        .configure_video(AvcConfig::parse(&record).expect("valid"), simulation.now_ms)
        .expect("set");
    simulation.publish(5000, 150);
    let new = simulation.playlist("source");
    assert_ne!(map(&old), map(&new));
    assert_eq!(new.matches("#EXT-X-DISCONTINUITY\n").count(), 1);
    assert!(new.contains(&map(&old).expect("mapped")), "EV-03");
}

#[test]
fn a_group_of_pictures_of_four_seconds_sets_the_target_duration() {
    let mut simulation = Simulation::new(setup(ChannelKind::Forward, &[]));
    simulation.gop = 120;
    simulation.connect();
    simulation.publish(0, 30 * 30);
    let playlist = simulation.playlist("source");
    assert!(playlist.contains("#EXT-X-TARGETDURATION:4\n"), "{playlist}");
    assert!(segments(&playlist).values().all(|s| s.0 == 4.0));
}

#[test]
fn syn_11_random_access_points_that_become_rare_do_not_exceed_the_target_duration() {
    let mut simulation = Simulation::new(setup(ChannelKind::Forward, &[]));
    simulation.connect();
    simulation.publish(0, 120);
    simulation.gop = 400;
    simulation.publish(4000, 600);
    let playlist = simulation.playlist("source");
    assert!(segments(&playlist).values().all(|s| s.0 < 2.5), "{playlist}");
    assert!(simulation.notices.iter().any(|n| matches!(n, Notice::SegmentForced { .. })));
}

#[test]
fn ev_10_a_finished_session_ends_its_playlists_and_names_where_the_next_may_start() {
    let mut simulation = Simulation::new(setup(ChannelKind::Hybrid, &["v360"]));
    simulation.connect();
    simulation.publish(0, 200);
    simulation.stream.finish(simulation.now_ms).expect("finished");
    simulation.work();
    for id in ["source", "v360", "audio"] {
        assert!(simulation.playlist(id).ends_with("#EXT-X-ENDLIST\n"));
        assert!(!simulation.playlist(id).contains("PRELOAD-HINT"), "PH-02");
    }
    let newest = *numbers(&simulation, "source").last().expect("some");
    assert!(simulation.stream.resume_point().0 > newest);
}

/// Presentation minus decoding time of a group of pictures in decoding order I P B B P B B, two frames late.
fn composition_ms(n: u32) -> i32 {
    match n {
        0 => 67,
        n if (n - 1).is_multiple_of(3) => 133,
        _ => 33,
    }
}

#[test]
fn b_frames_keep_their_order_and_the_first_picture_is_on_the_grid() {
    let mut stream = Stream::new(setup(ChannelKind::Forward, &[]));
    stream.configure_video(avc(), NOW_MS).expect("set");
    for n in 0..123u32 {
        let idr = n.is_multiple_of(61);
        stream.push_video(n * 1000 / 30, composition_ms(n % 61), picture(idr), NOW_MS).expect("pushed");
    }
    let changes = stream.take_changes();
    let segment = Arc::clone(changes.renditions[0].1.segment(NOW_MS / 2000).expect("there"));
    assert_eq!(segment.start_of_media(), segment.start, "the first picture is presented on the grid");
    let offsets = segment.composition_offsets();
    assert_eq!(offsets[..7], [0, 6000, -3000, -3000, 6000, -3000, -3000], "whole frames, order kept");
}

#[test]
fn a_transcoded_channel_takes_pictures_out_of_order_off_the_grid() {
    let mut simulation = Simulation::new(setup(ChannelKind::Transcode, &["v480"]));
    simulation.reorder = 3;
    simulation.connect();
    for n in 0..30 * 20u32 {
        let (raw, idr) = (n * 1000 / 30, n.is_multiple_of(250));
        simulation.now_ms = NOW_MS + u64::from(raw);
        let composition = composition_ms(n % 250);
        simulation.stream.push_video(raw, composition, picture(idr), simulation.now_ms).expect("pushed");
        simulation.work();
    }
    let found = segments(&simulation.playlist("v480"));
    assert!(found.len() >= 8 && found.values().all(|s| !s.2), "no gaps: {found:?}");
}

#[test]
fn a_worker_that_dies_before_a_quick_reconnect_is_only_a_gap() {
    for kind in [ChannelKind::Transcode, ChannelKind::Hybrid] {
        let mut simulation = Simulation::new(setup(kind, &["v480"]));
        simulation.connect();
        simulation.publish(0, 30 * 4 + 1);
        simulation.worker = false;
        simulation.stream.worker_lost(simulation.now_ms).expect("lost");
        // Up to the picture that starts a segment, and back at once, in the same cell of the grid.
        simulation.publish_more(4033, 30 * 4 + 1, 30 * 6 + 1);
        simulation.disconnect();
        simulation.connect();
        simulation.publish(0, 30 * 5);
        simulation.worker = true;
        simulation.stream.worker_ready();
        simulation.publish_more(5000, 30 * 5, 30 * 12);
        let found = segments(&simulation.playlist("v480"));
        let numbers: Vec<_> = found.keys().copied().collect();
        assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "{kind:?} {numbers:?}");
        assert!(found.values().all(|s| s.0 < 2.5), "SYN-11 {kind:?} {found:?}");
        assert!(found.values().last().is_some_and(|s| !s.2), "it is back: {kind:?}");
    }
}

#[test]
fn a_worker_that_skips_leaves_a_gap_and_its_next_segment_starts_in_place() {
    let mut simulation = Simulation::new(setup(ChannelKind::Hybrid, &["v480"]));
    simulation.connect();
    simulation.publish(0, 30 * 5);
    simulation.stream.worker_congested();
    simulation.publish_more(5000, 30 * 5, 30 * 13);
    let (source, rung) = (segments(&simulation.playlist("source")), segments(&simulation.playlist("v480")));
    let gaps: Vec<_> = rung.iter().filter(|(_, s)| s.2).map(|(msn, _)| *msn).collect();
    let first = *source.keys().next().expect("some");
    assert_eq!(gaps, [first + 2], "{}", simulation.playlist("v480"));
    for (msn, (length, _, gap)) in &rung {
        assert!((length - source[msn].0).abs() < 0.001, "same length, {msn}");
        if !gap {
            let segment = |id: &str| Arc::clone(simulation.latest[id].segment(*msn).expect("there"));
            assert_eq!(segment("v480").start_of_media(), segment("source").start_of_media());
        }
    }
}

#[test]
fn a_rendition_that_appears_in_a_later_run_counts_the_same_discontinuities() {
    let mut simulation = Simulation::new(setup(ChannelKind::Forward, &[]));
    simulation.has_audio = false;
    simulation.connect();
    simulation.publish(0, 30 * 5);
    simulation.disconnect();
    simulation.has_audio = true;
    simulation.connect();
    // Long enough for the discontinuity to leave the playlists.
    simulation.publish(0, 30 * 75);
    let sequence = |id: &str| {
        let playlist = simulation.playlist(id);
        playlist.lines().find(|line| line.starts_with("#EXT-X-DISCONTINUITY-SEQUENCE")).map(str::to_owned)
    };
    assert_eq!(sequence("audio"), sequence("source"));
}

#[test]
fn a_publisher_that_comes_back_without_video_is_served() {
    let mut simulation = Simulation::new(setup(ChannelKind::Forward, &[]));
    simulation.connect();
    simulation.publish(0, 30 * 5);
    simulation.disconnect();
    let before = numbers(&simulation, "audio").len();
    simulation.has_video = false;
    simulation.connect();
    simulation.publish(0, 30 * 9);
    assert!(numbers(&simulation, "audio").len() >= before + 3);
}

#[test]
fn a_transcoded_channel_goes_on_with_audio_when_the_pictures_stop() {
    let mut simulation = Simulation::new(setup(ChannelKind::Transcode, &["v480"]));
    simulation.connect();
    simulation.publish(0, 30 * 4);
    simulation.has_video = false;
    simulation.publish(4000, 30 * 20);
    let found = segments(&simulation.playlist("audio"));
    assert!(found.len() >= 9 && found.values().all(|s| s.0 < 2.5), "A10, SYN-11: {found:?}");
}

/// What viewers are told of where parts and segments are has no overlap, and no hole but between runs. What is a gap is
/// nothing that can be watched: it may overlap by the audio frame that the media before it is longer.
fn spans_touch(snapshot: &RenditionSnapshot) {
    let mut until = None;
    for segment in &snapshot.segments {
        let first = until;
        for (index, part) in (0..).zip(&segment.parts) {
            let start = snapshot.part_start(segment.msn, index).expect("there");
            let (from, to) = crate::span_us(start, part.line.duration).expect("not empty");
            // Where another track takes over the lead, its first sample may be a fraction of a millisecond early.
            let begins = |until: u64| {
                index == 0 && (from.abs_diff(until) < 1000 || (segment.discontinuity && from > until))
            };
            let touches = |until| from == until || begins(until);
            assert!(
                part.line.gap || until.is_none_or(touches),
                "{until:?} {from} in {}.{index}",
                segment.msn
            );
            until = (!part.line.gap).then_some(to);
        }
        if let Some(duration) = segment.duration.filter(|_| !segment.gap) {
            let (from, to) = crate::span_us(segment.start, duration).expect("not empty");
            assert!(
                first.is_none_or(|first| first <= from + 1000) && Some(to) == until,
                "segment {}",
                segment.msn
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    /// Whatever times a publisher sends, the playlists keep their promises.
    #[test]
    fn any_timestamps(
        steps in proptest::collection::vec((0u32..200, any::<bool>(), 0u8..60, any::<u32>()), 50..400),
    ) {
        let mut stream = Stream::new(setup(ChannelKind::Forward, &[]));
        stream.configure_video(avc(), NOW_MS).expect("set");
        stream.configure_audio(aac(), NOW_MS).expect("set");
        let (mut raw, mut now, mut newest) = (0u32, NOW_MS, BTreeMap::new());
        for (step, idr, odd, wild) in steps {
            raw = if odd == 0 { wild } else { raw.wrapping_add(step).wrapping_sub(u32::from(odd == 1) * 150) };
            now += u64::from(step);
            if odd % 2 == 0 {
                stream.push_video(raw, (wild % 300) as i32, picture(idr), now).expect("pushed");
            } else {
                stream.push_audio(raw, Bytes::from_static(b"aac"), now).expect("pushed");
            }
            for (id, snapshot) in stream.take_changes().renditions {
                let playlist = String::from_utf8(snapshot.playlist(Listed::Media, Mode::Ultra, None).to_bytes().to_vec()).expect("text");
                let target: f64 = playlist.split("PART-TARGET=").nth(1).and_then(|t| t.lines().next())
                    .and_then(|t| t.parse().ok()).expect("stated");
                for part in playlist.lines().filter_map(|line| line.strip_prefix("#EXT-X-PART:DURATION=")) {
                    let duration: f64 = part.split(',').next().and_then(|d| d.parse().ok()).expect("stated");
                    prop_assert!(duration <= target + 0.00002, "PT-03 {duration} > {target}");
                }
                let td: f64 = playlist.split("TARGETDURATION:").nth(1).and_then(|t| t.lines().next())
                    .and_then(|t| t.parse().ok()).expect("stated");
                for (_, (length, ..)) in segments(&playlist) {
                    prop_assert!(length.round() <= td, "SYN-11 {length} > {td}\n{playlist}");
                }
                let tip = snapshot.tip.last_part();
                let before = newest.insert(id, tip);
                prop_assert!(before.is_none_or(|before| before <= tip), "EV-01 {before:?} {tip:?}");
            }
        }
    }
}
