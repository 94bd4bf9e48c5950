//! The ground truth of one playback session: what it watched, and when it was present.
//!
//! Definitions as in the contract of viewer accounting: watched is what it got of the channel's timeline, each moment once,
//! whatever the rendition and however often; present is from the first byte of media to the last completed response of
//! media or a playlist. Invariant: memory is bounded, however long the session.
#![deny(clippy::disallowed_methods)]

/// Dates of neighbours that touch differ by no more than this, as playlists round them; microseconds.
const ROUNDING_US: u64 = 3_000;
/// Stretches of the timeline that do not touch.
const STRETCHES_MAX: usize = 4096;
/// Stretches of presence kept.
const SPANS_MAX: usize = 4096;

/// What a session watched. Positions are media time, microseconds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watched {
    /// In order, and apart.
    stretches: Vec<(u64, u64)>,
    objects: u64,
}

impl Watched {
    /// A part or segment was delivered; returns whether something of it is new.
    pub(crate) fn add(&mut self, (start, end): (u64, u64)) -> bool {
        let first = self.stretches.partition_point(|known| known.1 + ROUNDING_US < start);
        let last = first + self.stretches[first..].partition_point(|known| known.0 <= end + ROUNDING_US);
        let touched = &self.stretches[first..last];
        if start >= end || (touched.is_empty() && self.stretches.len() >= STRETCHES_MAX) {
            return false;
        }
        let (known_start, known_end) = (touched.first(), touched.last());
        let all = (
            known_start.map_or(start, |known| known.0.min(start)),
            known_end.map_or(end, |known| known.1.max(end)),
        );
        let known_us: u64 = touched.iter().map(|known| known.1 - known.0).sum();
        self.stretches.splice(first..last, [all]);
        let new = all.1 - all.0 > known_us + ROUNDING_US;
        self.objects += u64::from(new);
        new
    }

    /// Sum of the lengths, microseconds.
    pub(crate) fn total_us(&self) -> u64 {
        self.stretches.iter().map(|known| known.1 - known.0).sum()
    }

    /// Parts and segments that brought something new.
    pub(crate) fn objects(&self) -> u64 {
        self.objects
    }
}

/// One response, Unix milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Touch {
    pub(crate) sent_ms: u64,
    pub(crate) first_byte_ms: u64,
    pub(crate) ended_ms: u64,
    /// Media, not a playlist.
    pub(crate) media: bool,
}

/// When a session was present.
#[derive(Debug, Default)]
pub(crate) struct Presence {
    spans: Vec<[u64; 2]>,
    grace_ms: u64,
    first_media_ms: Option<u64>,
    last_ms: Option<u64>,
}

/// Silence up to this is no absence, milliseconds; or two segments, if that is longer.
const GRACE_MS_MIN: u64 = 4_000;

impl Presence {
    /// What silence is allowed depends on the segments.
    pub(crate) fn set_segment(&mut self, target_duration_us: u64) {
        self.grace_ms = (2 * target_duration_us / 1000).max(GRACE_MS_MIN);
    }

    /// A response of media or a playlist was completed.
    pub(crate) fn touched(&mut self, touch: &Touch) {
        let grace_ms = self.grace_ms.max(GRACE_MS_MIN);
        if touch.media {
            let first = self.first_media_ms.get_or_insert(touch.first_byte_ms);
            *first = (*first).min(touch.first_byte_ms);
        }
        if self.first_media_ms.is_some() {
            self.last_ms = self.last_ms.max(Some(touch.ended_ms));
        }
        let room = self.spans.len() < SPANS_MAX;
        match self.spans.last_mut() {
            // Its request began while it was present; as long as it waited, it stayed.
            Some([_, end]) if touch.sent_ms <= *end + grace_ms => *end = (*end).max(touch.ended_ms),
            _ if touch.media && room => {
                self.spans.push([touch.first_byte_ms, touch.ended_ms]);
            }
            _ => {}
        }
    }

    /// A request that waits since `sent_ms` keeps its session present, until its transport goes.
    pub(crate) fn waited(&mut self, sent_ms: u64, until_ms: u64) {
        let grace_ms = self.grace_ms.max(GRACE_MS_MIN);
        if let Some([_, end]) = self.spans.last_mut()
            && sent_ms <= *end + grace_ms
        {
            *end = (*end).max(until_ms);
        }
    }

    pub(crate) fn spans(&self) -> &[[u64; 2]] {
        &self.spans
    }

    pub(crate) fn first_media_ms(&self) -> Option<u64> {
        self.first_media_ms
    }

    /// The end of the last completed response since there was media.
    pub(crate) fn last_ms(&self) -> Option<u64> {
        self.last_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn nothing_is_watched_twice() {
        let mut watched = Watched::default();
        assert!(watched.add((7_000_000, 7_166_660)));
        assert!(!watched.add((7_000_000, 7_166_660)), "another rendition, or a retry");
        assert!(watched.add((7_166_660, 7_333_320)), "the next one");
        assert!(watched.add((7_192_000, 7_384_000)), "audio is cut elsewhere, and a little ahead");
        assert_eq!(watched.total_us(), 384_000);
        assert!(watched.add((7_000_000, 8_000_000)), "a segment after some of its parts");
        assert!(!watched.add((7_333_320, 7_499_980)));
        assert_eq!((watched.total_us(), watched.objects()), (1_000_000, 4));
        assert!(watched.add((9_000_000, 9_100_000)) && !watched.add((5, 5)), "elsewhere; nothing at all");
        assert_eq!(watched.total_us(), 1_100_000);
    }

    proptest! {
        /// In any order, with any repetition.
        #[test]
        fn the_sum_is_that_of_the_set(events in proptest::collection::vec((0u64..200, 1u64..9), 1..300)) {
            let mut watched = Watched::default();
            let mut set = BTreeSet::new();
            for (start, length) in events {
                watched.add((start * 100_000, (start + length) * 100_000));
                set.extend(start..start + length);
            }
            prop_assert_eq!(watched.total_us(), set.len() as u64 * 100_000);
        }
    }

    #[test]
    fn a_day_takes_no_memory() {
        let mut watched = Watched::default();
        for part in 0..432_000 {
            // Listed with five digits, and dated anew with every segment.
            let start = part / 12 * 2_000_000 + part % 12 * 166_660;
            watched.add((start, start + 166_660));
        }
        assert_eq!(watched.total_us(), 431_999 / 12 * 2_000_000 + 12 * 166_660);
        assert_eq!(watched.stretches.len(), 1);
        for n in 0..10_000 {
            watched.add((n * 10_000_000_000, n * 10_000_000_000 + 1));
        }
        assert_eq!(watched.stretches.len(), STRETCHES_MAX);
    }

    #[test]
    fn presence_has_gaps_where_nobody_asked() {
        let touch =
            |sent_ms, ended_ms, media| Touch { sent_ms, first_byte_ms: ended_ms - 1, ended_ms, media };
        let mut presence = Presence::default();
        presence.set_segment(1_000_000);
        presence.touched(&touch(100, 120, false));
        assert!(presence.spans().is_empty() && presence.last_ms().is_none(), "a playlist is no media");
        presence.touched(&touch(130, 150, true));
        presence.touched(&touch(150, 9_000, false));
        assert_eq!(presence.spans(), [[149, 9_000]], "held for long, but held");
        presence.touched(&touch(20_000, 20_100, false));
        assert_eq!(presence.spans().len(), 1, "back, but without media yet");
        presence.touched(&touch(20_200, 20_300, true));
        presence.waited(20_300, 20_900);
        presence.waited(40_000, 50_000);
        assert_eq!(presence.spans(), [[149, 9_000], [20_299, 20_900]]);
        assert_eq!((presence.first_media_ms(), presence.last_ms()), (Some(149), Some(20_300)));
    }
}
