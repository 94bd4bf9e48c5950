//! The timeline: a publisher's clock, in 32-bit milliseconds that wrap, jump and go back, mapped to the channel's, in
//! ticks of 1/90000 s since the Unix epoch (A12).
//!
//! A run starts where its first random access point arrives: that point is put on the grid of segments, in the cell
//! of the wall clock, and stays the anchor. Program date and time is the wall clock at the anchor plus media time.
//!
//! Invariants: both tracks move together, also through a jump; nothing here goes back by more than a publisher's
//! frames do. Deliberately absent: making times gapless, which is [`crate::pace`]'s.

use crate::TICKS_PER_MS;

/// A step between two timestamps of a track that no pause explains is a jump of the publisher's clock, milliseconds.
const JUMP_MS: i64 = 3000;
/// An ordinary step from sample to sample is at most this, milliseconds.
const STEP_MS_MAX: i64 = 100;
/// Two tracks that jump by about the same belong to one jump, milliseconds.
const SAME_JUMP_MS: i64 = 1000;

/// The tracks a publisher sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Track {
    /// The one video track.
    Video,
    /// The one audio track.
    Audio,
}

/// Where a sample belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// At this tick of the channel's timeline.
    At(i64),
    /// The publisher's clock jumped by this many milliseconds; the sample continues where its track was.
    Jumped {
        /// At this tick of the channel's timeline.
        at: i64,
        /// How far the publisher's clock jumped.
        by_ms: i64,
    },
    /// Nothing came for this long, by both clocks: the run is over, a new one has to be anchored.
    Hole {
        /// How long.
        ms: i64,
    },
}

#[derive(Debug, Clone, Copy)]
struct Clock {
    last_raw: u32,
    /// Unwrapped milliseconds of the last sample.
    last_ms: i64,
    /// Wall clock of its arrival, Unix milliseconds.
    last_wall_ms: i64,
    /// Milliseconds to add to bring this track's time to the run's.
    shift_ms: i64,
    /// How far the last sample was after the one before it, as far as that was an ordinary step.
    step_ms: i64,
}

/// The mapping of one publishing run.
#[derive(Debug, Clone)]
pub struct Timeline {
    anchor_tick: i64,
    anchor_ms: i64,
    anchor_wall_ms: i64,
    clocks: [Option<Clock>; 2],
}

impl Timeline {
    /// Anchors a run: the sample with source time `raw_ms` of `track`, which arrived at `wall_ms`, is put at
    /// `anchor_tick`.
    #[must_use]
    pub fn anchor(track: Track, raw_ms: u32, wall_ms: i64, anchor_tick: i64) -> Self {
        let anchor_ms = i64::from(raw_ms);
        let mut clocks = [None; 2];
        clocks[track as usize] = Some(Clock {
            last_raw: raw_ms,
            last_ms: anchor_ms,
            last_wall_ms: wall_ms,
            shift_ms: 0,
            step_ms: 0,
        });
        Self { anchor_tick, anchor_ms, anchor_wall_ms: wall_ms, clocks }
    }

    /// The tick of a wall clock time, by the run's anchor: what program date and time is computed from (PDT-02).
    #[must_use]
    pub fn program_date_time_ms(&self, tick: i64) -> i64 {
        self.anchor_wall_ms + (tick - self.anchor_tick).div_euclid(TICKS_PER_MS)
    }

    /// The tick at which that program date and time is reached.
    #[must_use]
    pub fn tick_at(&self, wall_ms: i64) -> i64 {
        self.anchor_tick + (wall_ms - self.anchor_wall_ms) * TICKS_PER_MS
    }

    /// Places the next sample of `track`.
    pub fn place(&mut self, track: Track, raw_ms: u32, wall_ms: i64) -> Placement {
        let Some(clock) = self.clocks[track as usize] else {
            return Placement::At(self.first_of(track, raw_ms, wall_ms));
        };
        // The difference of two 32-bit clocks, right over the wrap (49.7 days) in both directions.
        let step_ms = i64::from(raw_ms.wrapping_sub(clock.last_raw).cast_signed());
        let pause_ms = wall_ms - clock.last_wall_ms;
        let last_ms = clock.last_ms + step_ms;
        let mut next = Clock { last_raw: raw_ms, last_ms, last_wall_ms: wall_ms, ..clock };
        if step_ms.abs() <= JUMP_MS {
            next.step_ms = step_ms.clamp(0, STEP_MS_MAX);
            self.clocks[track as usize] = Some(next);
            return Placement::At(self.tick(last_ms + next.shift_ms));
        }
        if (step_ms - pause_ms).abs() <= JUMP_MS && pause_ms > JUMP_MS / 2 {
            // Both clocks saw the pause. If the other track went on, this one comes back to where that one is now.
            let other = self.clocks[1 - track as usize];
            if track == Track::Audio && other.is_some_and(|other| wall_ms - other.last_wall_ms < JUMP_MS) {
                self.clocks[track as usize] = Some(next);
                return Placement::At(self.tick(last_ms + next.shift_ms));
            }
            return Placement::Hole { ms: step_ms };
        }
        next.shift_ms = self.shift_after_jump(track, &clock, last_ms);
        self.clocks[track as usize] = Some(next);
        Placement::Jumped { at: self.tick(last_ms + next.shift_ms), by_ms: step_ms }
    }

    /// The first sample of the second track: on the same clock as the first track's newest.
    fn first_of(&mut self, track: Track, raw_ms: u32, wall_ms: i64) -> i64 {
        let other = self.clocks[1 - track as usize];
        let (last_ms, shift_ms) = other.map_or((i64::from(raw_ms), 0), |other| {
            let step = i64::from(raw_ms.wrapping_sub(other.last_raw).cast_signed());
            // Tracks that count from different points belong together as they arrive.
            (other.last_ms + if step.abs() > JUMP_MS { 0 } else { step }, other.shift_ms)
        });
        self.clocks[track as usize] =
            Some(Clock { last_raw: raw_ms, last_ms, last_wall_ms: wall_ms, shift_ms, step_ms: 0 });
        self.tick(last_ms + shift_ms)
    }

    /// The shift that lets a track go on after a jump: the other track's, if it has made the same jump already, so that
    /// the distance of the two stays what it was; else the one that puts this sample as far after its predecessor as that one was after its own.
    fn shift_after_jump(&self, track: Track, clock: &Clock, last_ms: i64) -> i64 {
        let own = clock.last_ms + clock.shift_ms + clock.step_ms - last_ms;
        match self.clocks[1 - track as usize] {
            Some(other) if (other.shift_ms - own).abs() <= SAME_JUMP_MS => other.shift_ms,
            _ => own,
        }
    }

    fn tick(&self, ms: i64) -> i64 {
        self.anchor_tick + (ms - self.anchor_ms) * TICKS_PER_MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ANCHOR: i64 = 160_000_000_000_000;

    fn timeline(raw_ms: u32) -> Timeline {
        Timeline::anchor(Track::Video, raw_ms, 1_000_000, ANCHOR)
    }

    fn at(placement: Placement) -> i64 {
        match placement {
            Placement::At(at) | Placement::Jumped { at, .. } => at,
            Placement::Hole { ms } => panic!("hole of {ms} ms"),
        }
    }

    #[test]
    fn wraps_are_crossed() {
        // RTMP: 32 bits of milliseconds wrap after 49.7 days; 24 bits and the sign bit are edges of their own.
        for edge in [u32::MAX, 0x00ff_ffff, 0x7fff_ffff] {
            let start = edge - 100;
            let mut timeline = timeline(start);
            for n in 1..20u32 {
                let wall = 1_000_000 + i64::from(n) * 40;
                let video = timeline.place(Track::Video, start.wrapping_add(n * 40), wall);
                assert_eq!(video, Placement::At(ANCHOR + i64::from(n) * 3600));
                let audio = timeline.place(Track::Audio, start.wrapping_add(n * 40 + 10), wall);
                assert_eq!(audio, Placement::At(ANCHOR + i64::from(n) * 3600 + 900));
            }
        }
    }

    #[test]
    fn both_tracks_keep_their_distance_through_a_jump() {
        for jump in [26 * 3_600_000i64, -3_600_000, -50_000] {
            let mut timeline = timeline(100_000_000);
            let mut expected = ANCHOR;
            let mut offset = 0i64;
            for n in 1..200i64 {
                if n == 100 {
                    offset = jump;
                }
                let (wall, raw) = (1_000_000 + n * 40, 100_000_000 + n * 40 + offset);
                let video = at(timeline.place(Track::Video, raw as u32, wall));
                let audio = at(timeline.place(Track::Audio, (raw + 7) as u32, wall));
                assert_eq!(audio - video, 7 * 90, "jump {jump} at {n}");
                assert_eq!(video, expected + 3600, "jump {jump} at {n}");
                expected = video;
            }
        }
    }

    #[test]
    fn a_pause_that_both_clocks_saw_is_a_hole() {
        let mut timeline = timeline(0);
        assert_eq!(timeline.place(Track::Video, 10_000, 1_010_000), Placement::Hole { ms: 10_000 });
    }

    #[test]
    fn program_date_time_follows_the_wall_clock_at_the_anchor() {
        let timeline = timeline(5);
        assert_eq!(timeline.program_date_time_ms(ANCHOR), 1_000_000);
        assert_eq!(timeline.program_date_time_ms(ANCHOR + 90 * 1234), 1_001_234);
    }

    #[test]
    fn a_hole_in_the_audio_alone_is_no_hole() {
        let mut timeline = timeline(0);
        timeline.place(Track::Audio, 0, 1_000_000);
        for n in 1..=250 {
            assert!(matches!(
                timeline.place(Track::Video, n * 40, 1_000_000 + i64::from(n) * 40),
                Placement::At(_)
            ));
        }
        assert_eq!(timeline.place(Track::Audio, 10_000, 1_010_000), Placement::At(ANCHOR + 900_000));
    }

    #[test]
    fn tracks_that_count_from_different_points_start_together() {
        let mut timeline = timeline(10_000);
        assert_eq!(timeline.place(Track::Audio, 3, 1_000_010), Placement::At(ANCHOR));
        assert_eq!(timeline.place(Track::Audio, 24, 1_000_031), Placement::At(ANCHOR + 21 * 90));
    }

    proptest! {
        /// Whatever is sent, each sample is placed at most a tolerated step away from its track's sample before.
        #[test]
        fn no_timestamp_moves_a_track_by_more_than_a_tolerated_step(
            raws in proptest::collection::vec((any::<u32>(), any::<bool>()), 1..100),
        ) {
            let mut timeline = timeline(0);
            let mut last = [Some(ANCHOR), None];
            for (n, (raw, audio)) in raws.into_iter().enumerate() {
                let track = if audio { Track::Audio } else { Track::Video };
                let placement = timeline.place(track, raw, 1_000_000 + n as i64 * 20);
                let (Placement::At(tick) | Placement::Jumped { at: tick, .. }) = placement else { continue };
                if let Some(before) = last[track as usize] {
                    prop_assert!((tick - before).abs() <= (JUMP_MS + SAME_JUMP_MS) * 90, "{before} {tick}");
                }
                last[track as usize] = Some(tick);
            }
        }
    }
}
