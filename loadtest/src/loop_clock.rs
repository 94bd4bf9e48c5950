//! Timestamps of a file that is sent again and again: they go on across the end, as one endless broadcast.
//!
//! Invariant: the next round begins when the longest track has been on for its whole length, so that this one goes on
//! without a gap, no track goes back, and audio and video stay together.
#![deny(clippy::disallowed_methods)]

/// Maps the timestamps of a file to those of the broadcast, in milliseconds.
#[derive(Debug, Default)]
pub(crate) struct LoopClock {
    offset_ms: u64,
    /// First and newest timestamp of this round.
    first_ms: Option<u64>,
    newest_ms: u64,
    /// By track: newest timestamp and longest usual step to it.
    tracks: [Option<Track>; 2],
}

#[derive(Debug, Clone, Copy, Default)]
struct Track {
    first_ms: u64,
    newest_ms: u64,
    steps: u64,
}

impl Track {
    /// From its first frame to where the next one would be.
    fn length_ms(self) -> u64 {
        let span = self.newest_ms - self.first_ms;
        span + span.checked_div(self.steps).unwrap_or(1).max(1)
    }
}

impl LoopClock {
    /// When a tag of `track` (0 or 1) at `file_ms` is due, since the beginning of the broadcast.
    pub(crate) fn due_ms(&mut self, track: usize, file_ms: u32) -> u64 {
        let file_ms = u64::from(file_ms);
        let first = *self.first_ms.get_or_insert(file_ms);
        let at = file_ms.saturating_sub(first);
        self.newest_ms = self.newest_ms.max(at);
        if let Some(slot) = self.tracks.get_mut(track) {
            let entry = slot.get_or_insert(Track { first_ms: at, newest_ms: at, steps: 0 });
            if at > entry.newest_ms {
                entry.newest_ms = at;
                entry.steps += 1;
            }
        }
        self.offset_ms + at
    }

    /// The file begins again. Returns whether it had any length: if not, sending it again would never end.
    pub(crate) fn rewind(&mut self) -> bool {
        let longest = self.tracks.iter().flatten().map(|track| track.length_ms()).max();
        self.offset_ms += longest.unwrap_or(self.newest_ms);
        let had_length = self.newest_ms > 0;
        self.first_ms = None;
        self.newest_ms = 0;
        self.tracks = [None; 2];
        had_length
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_follow_each_other() {
        let mut clock = LoopClock::default();
        let mut due = Vec::new();
        for _ in 0..3 {
            for (track, ms) in [(0, 1000), (1, 1000), (1, 1023), (0, 1040), (0, 1080), (1, 1046)] {
                due.push(clock.due_ms(track, ms));
            }
            assert!(clock.rewind());
        }
        assert_eq!(due[..6], [0, 0, 23, 40, 80, 46]);
        assert_eq!(due[6..12], [120, 120, 143, 160, 200, 166]);
        assert_eq!(due[12], 240);
    }

    /// Encoders put the first picture a little after the first sound.
    #[test]
    fn the_longest_track_goes_on_without_a_gap() {
        let mut clock = LoopClock::default();
        let mut pictures = Vec::new();
        for _ in 0..3 {
            for (track, ms) in [(0, 0), (1, 21), (0, 21), (0, 42), (1, 61), (0, 63), (1, 101), (0, 84)] {
                let due = clock.due_ms(track, ms);
                if track == 1 {
                    pictures.push(due);
                }
            }
            assert!(clock.rewind());
        }
        assert!(pictures.windows(2).all(|pair| pair[1] - pair[0] == 40), "{pictures:?}");
    }

    #[test]
    fn a_file_without_length_is_told() {
        let mut clock = LoopClock::default();
        assert!(!clock.rewind());
        clock.due_ms(0, 7);
        clock.due_ms(0, 7);
        assert!(!clock.rewind());
    }
}
