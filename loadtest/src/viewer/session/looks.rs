//! What is seen of a session without anything happening to it: its playhead goes on, its buffer runs empty, its requests
//! grow old.
//!
//! Invariant: a server that says nothing any more shows in the counts as it does to its viewers.

use super::{Session, State};
use crate::tally::ErrorKind;
use std::time::{Duration, Instant};

/// A live playlist changes within one and a half target durations (RFC 8216bis, section 6.2.1), or within this where
/// they are short or not known yet, milliseconds. Older requests are overdue.
const OVERDUE_MS_MIN: u64 = 2_000;

impl Session {
    /// The playhead goes on; what it was is counted.
    pub(in crate::viewer) fn advance(&self) {
        let now_us = self.now_us();
        let mut state = self.state.borrow_mut();
        let happened = state.playback.advance(now_us);
        self.happened(&mut state, &happened);
    }

    /// Once a second: the playhead goes on, and how far it is behind is counted.
    pub(in crate::viewer) fn look(&self) {
        let now_us = self.now_us();
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let happened = state.playback.advance(now_us);
        self.happened(state, &happened);
        let dated = state.players[0].listing().is_some_and(|listing| listing.end_us().is_some());
        let latency_us = state.playback.latency_us(self.begun_unix_us + now_us);
        let Some(us) = latency_us.filter(|_| dated && !self.asleep.get()) else { return };
        let slice = state.slice;
        self.crowd.count(self.shard, |counts| {
            counts.tally.live_latency.record(Duration::from_micros(us));
            counts.live(slice).point.live_latency.record(Duration::from_micros(us));
        });
    }

    /// The run is over: what goes on is counted up to now, and requests that should have been answered are errors.
    pub(in crate::viewer) fn closes(&self) {
        self.advance();
        let now_ms = self.unix_ms(Instant::now());
        let overdue = {
            let state = self.state.borrow();
            self.counts_running_stall(&state);
            let listings = state.players.iter().filter_map(|player| player.listing());
            let target_us = listings.map(|listing| listing.target_duration_us).max().unwrap_or_default();
            let longest_ms = (target_us * 3 / 2 / 1000).max(OVERDUE_MS_MIN);
            state.waiting.iter().flatten().filter(|waiting| waiting.age_ms(now_ms) > longest_ms).count()
        };
        (0..overdue).for_each(|_| self.error(ErrorKind::Overdue));
    }

    /// A stall that nobody sees the end of lasted until now.
    pub(super) fn counts_running_stall(&self, state: &State) {
        if let Some(us) = state.playback.stalls_since_us() {
            self.count(|tally| tally.stall_time.record(Duration::from_micros(us)));
        }
    }
}
