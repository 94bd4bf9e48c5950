//! What a viewer sees of what it gets: the playhead, the buffer before it, stalls, start-up, catching up.
//!
//! Time is an argument: microseconds of a clock that does not go back. Positions are media time in microseconds
//! (PROGRAM-DATE-TIME where the playlist has it). Events are applied exactly when they were, also when they are only
//! looked at later: a buffer that ran empty between two parts did so at its moment. Nothing of it happens by itself: who
//! wants to know it without an event says what time it is (`advance`). Tracks (video 0, audio 1) both have
//! to be there for playing. Deliberately absent: decoding, fetching, and what a playlist is.
#![deny(clippy::disallowed_methods)]

use std::collections::VecDeque;

/// How much faster than real time a viewer that is behind plays.
pub(crate) const CATCH_UP_RATE: f64 = 1.05;
/// Behind its target by more than this it catches up, microseconds.
const CATCH_UP_AFTER_US: u64 = 150_000;
/// Holes remembered ahead of the playhead.
const HOLES_MAX: usize = 16;
/// Smaller differences of neighbours are rounding.
const ROUNDING_US: u64 = 1_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing was played yet.
    Starting,
    Playing,
    /// Ran out, since then.
    Stalled(u64),
    /// Went elsewhere, and waits for media there: no stall.
    Seeking,
    /// Stands still until it goes elsewhere.
    Paused,
}

/// What happened that somebody may want to count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Happened {
    /// Playing began for the first time, so long after the viewer wanted it.
    pub(crate) started_us: Option<u64>,
    pub(crate) stalls_begun: u64,
    /// Time of stalls that passed, ended or not.
    pub(crate) stalled_us: u64,
    /// A stall ended after so long.
    pub(crate) stall_ended_us: Option<u64>,
    pub(crate) played_us: u64,
}

impl Happened {
    fn add(&mut self, other: Self) {
        self.started_us = self.started_us.or(other.started_us);
        self.stalls_begun += other.stalls_begun;
        self.stalled_us += other.stalled_us;
        self.stall_ended_us = other.stall_ended_us.or(self.stall_ended_us);
        self.played_us += other.played_us;
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Playback {
    wanted_us: u64,
    now_us: u64,
    state: State,
    playhead_us: Option<u64>,
    /// End of what is buffered, by track; `None` for a track that has nothing yet or is not there.
    ends_us: [Option<u64>; 2],
    tracks: usize,
    holes: VecDeque<(u64, u64)>,
    /// Buffer needed to start and to go on.
    enough_us: u64,
    /// How far behind the end of the playlist it wants to be, and where that end was when.
    target_us: u64,
    edge: Option<(u64, u64)>,
    stalls: u64,
    stalled_us: u64,
    startup_us: Option<u64>,
}

impl Playback {
    /// A viewer that wants to play since `wanted_us`, with one track or two.
    pub(crate) fn new(wanted_us: u64, tracks: usize) -> Self {
        Self {
            wanted_us,
            now_us: wanted_us,
            state: State::Starting,
            playhead_us: None,
            ends_us: [None; 2],
            tracks: tracks.clamp(1, 2),
            holes: VecDeque::new(),
            enough_us: 0,
            target_us: 0,
            edge: None,
            stalls: 0,
            stalled_us: 0,
            startup_us: None,
        }
    }

    /// How many tracks there are is known.
    pub(crate) fn set_tracks(&mut self, tracks: usize) {
        self.tracks = tracks.clamp(1, 2);
    }

    /// A playlist says where the live edge is: its end, the hold-back from it, and the shortest buffer worth playing.
    pub(crate) fn listed(
        &mut self,
        now_us: u64,
        end_us: u64,
        (hold_back_us, enough_us): (u64, u64),
    ) -> Happened {
        let happened = self.advance(now_us);
        self.edge = Some((now_us, end_us));
        self.target_us = hold_back_us;
        self.enough_us = enough_us.min(hold_back_us);
        happened
    }

    /// A part or segment arrived.
    pub(crate) fn appended(&mut self, now_us: u64, track: usize, (start_us, end_us): (u64, u64)) -> Happened {
        let mut happened = self.advance(now_us);
        let slot = &mut self.ends_us[track.min(1)];
        let first = slot.is_none();
        match slot {
            Some(end) if start_us > *end + ROUNDING_US => {
                if self.holes.len() < HOLES_MAX {
                    self.holes.push_back((*end, start_us));
                }
                *end = end_us;
            }
            Some(end) => *end = (*end).max(end_us),
            None => *slot = Some(end_us),
        }
        if self
            .playhead_us
            .is_none_or(|playhead| first && self.state != State::Playing && start_us > playhead)
        {
            // Tracks begin together at the later one's start.
            self.playhead_us = Some(start_us);
        }
        happened.add(self.resume(now_us));
        happened
    }

    /// Lets the playhead move up to now.
    pub(crate) fn advance(&mut self, now_us: u64) -> Happened {
        let mut happened = Happened::default();
        let passed = now_us.saturating_sub(self.now_us);
        let rate = self.rate();
        let before_us = self.now_us;
        self.now_us = self.now_us.max(now_us);
        if let State::Stalled(_) = self.state {
            happened.stalled_us = passed;
        }
        if self.state != State::Playing || passed == 0 {
            self.stalled_us += happened.stalled_us;
            return happened;
        }
        let ahead = self.ahead_us();
        let wanted = (passed as f64 * rate) as u64;
        let moved = wanted.min(ahead);
        happened.played_us = moved;
        self.go(moved);
        if wanted >= ahead {
            let lasted = ((ahead as f64 / rate) as u64).min(passed);
            self.state = State::Stalled(before_us + lasted);
            self.stalls += 1;
            happened.stalls_begun = 1;
            happened.stalled_us = passed - lasted;
        }
        self.stalled_us += happened.stalled_us;
        happened
    }

    fn resume(&mut self, now_us: u64) -> Happened {
        let mut happened = Happened::default();
        let stays = matches!(self.state, State::Playing | State::Paused);
        if stays || self.ahead_us() < self.enough_us.max(1) {
            return happened;
        }
        match self.state {
            State::Stalled(since) => happened.stall_ended_us = Some(now_us.saturating_sub(since)),
            State::Starting => {
                let startup = now_us.saturating_sub(self.wanted_us);
                self.startup_us = Some(startup);
                happened.started_us = Some(startup);
            }
            State::Seeking | State::Playing | State::Paused => {}
        }
        self.state = State::Playing;
        happened
    }

    /// Moves the playhead by so much media, over holes.
    fn go(&mut self, mut by_us: u64) {
        let Some(mut playhead) = self.playhead_us else { return };
        while let Some((from, to)) = self.holes.front().copied() {
            if playhead + by_us < from {
                break;
            }
            by_us -= from.saturating_sub(playhead).min(by_us);
            playhead = playhead.max(to);
            self.holes.pop_front();
        }
        self.playhead_us = Some(playhead + by_us);
    }

    /// Media buffered before the playhead on all tracks.
    pub(crate) fn ahead_us(&self) -> u64 {
        let (Some(playhead), Some(end)) = (self.playhead_us, self.end_us()) else { return 0 };
        let holes: u64 =
            self.holes.iter().map(|(from, to)| (*to).min(end).saturating_sub((*from).max(playhead))).sum();
        end.saturating_sub(playhead).saturating_sub(holes)
    }

    fn end_us(&self) -> Option<u64> {
        match (self.ends_us, self.tracks) {
            ([first, _], 1) => first,
            ([first, second], _) => Some(first?.min(second?)),
        }
    }

    /// Of one track alone.
    pub(crate) fn ahead_of_track_us(&self, track: usize) -> u64 {
        let end = self.ends_us.get(track).copied().flatten();
        end.zip(self.playhead_us).map_or(0, |(end, playhead)| end.saturating_sub(playhead))
    }

    /// How far the playhead is behind the end of the playlist, which goes on growing in real time.
    pub(crate) fn behind_us(&self) -> Option<u64> {
        let (at, end) = self.edge?;
        Some((end + self.now_us.saturating_sub(at)).saturating_sub(self.playhead_us?))
    }

    /// The playhead behind the wall clock: live latency, where positions are dates.
    pub(crate) fn latency_us(&self, wall_us: u64) -> Option<u64> {
        let playhead_us = self.playhead_us.filter(|_| self.state != State::Starting)?;
        Some(wall_us.saturating_sub(playhead_us))
    }

    /// How fast it plays: faster while it is behind its target and has enough.
    pub(crate) fn rate(&self) -> f64 {
        let late = self.behind_us().is_some_and(|behind| behind > self.target_us + CATCH_UP_AFTER_US);
        if late && self.ahead_us() > self.enough_us { CATCH_UP_RATE } else { 1.0 }
    }

    /// Throws the buffer away and goes on elsewhere: a seek. Waiting for it is no stall.
    pub(crate) fn seek(&mut self, now_us: u64) -> Happened {
        let mut happened = self.advance(now_us);
        happened.stall_ended_us = self.stalls_since_us();
        self.state = if self.startup_us.is_some() { State::Seeking } else { State::Starting };
        self.playhead_us = None;
        self.ends_us = [None; 2];
        self.holes.clear();
        happened
    }

    /// Nobody looks any more: the playhead stands still until the next seek.
    pub(crate) fn pause(&mut self, now_us: u64) -> Happened {
        let happened = self.seek(now_us);
        self.state = State::Paused;
        happened
    }

    pub(crate) fn is_stalled(&self) -> bool {
        matches!(self.state, State::Stalled(_))
    }

    /// How long the running stall has been going on.
    pub(crate) fn stalls_since_us(&self) -> Option<u64> {
        match self.state {
            State::Stalled(since) => Some(self.now_us.saturating_sub(since)),
            _ => None,
        }
    }

    pub(crate) fn stalls(&self) -> u64 {
        self.stalls
    }

    /// All stalls so far, the running one included.
    pub(crate) fn stalled_us(&self) -> u64 {
        self.stalled_us
    }

    pub(crate) fn startup_us(&self) -> Option<u64> {
        self.startup_us
    }
}

#[cfg(test)]
mod tests;
