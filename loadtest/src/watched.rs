//! The ground truth of one playback session: what it watched, and when it was present.
//!
//! Definitions as in the contract of viewer accounting: watched is the sum of the durations of distinct (Media Sequence
//! Number, part), whatever the rendition and however often; present is from the first byte of media to the last
//! completed response of media or a playlist. Invariant: memory is bounded, however long the session.
#![deny(clippy::disallowed_methods)]

use crate::listing::Position;
use std::collections::BTreeMap;

/// Segments whose parts are told apart; older ones are known as a whole.
const RECENT_MAX: usize = 24;
/// Segments that were got in part only and are remembered beyond that.
const PARTIAL_MAX: usize = 96;
/// Sums of rounded durations differ by this much and are the same, microseconds.
const ROUNDING_US: u64 = 5_000;
/// Stretches of presence kept.
const SPANS_MAX: usize = 4096;

#[derive(Debug, Clone, Copy, Default)]
struct Got {
    parts: u128,
    us: u64,
}

/// What a session watched.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    got: BTreeMap<u64, Got>,
    /// Segments got whole, first and last.
    whole: Vec<(u64, u64)>,
    total_us: u64,
    parts: u64,
}

impl Watched {
    /// A part was delivered; returns whether for the first time.
    pub(crate) fn part(&mut self, (msn, part): Position, duration_us: u64) -> bool {
        let bit = 1u128 << part.min(127);
        if self.is_whole(msn) {
            return false;
        }
        let got = self.got.entry(msn).or_default();
        if got.parts & bit != 0 {
            return false;
        }
        got.parts |= bit;
        got.us += duration_us;
        self.total_us += duration_us;
        self.parts += 1;
        true
    }

    /// A whole segment was delivered.
    pub(crate) fn segment(&mut self, msn: u64, duration_us: u64) {
        if self.is_whole(msn) {
            return;
        }
        let got = self.got.remove(&msn).unwrap_or_default();
        self.total_us += duration_us.saturating_sub(got.us);
        self.parts += 1;
        self.add_whole(msn);
    }

    /// Forgets the parts of old segments; `lasts` says what a segment lasts, where that is known.
    pub(crate) fn tidy(&mut self, lasts: impl Fn(u64) -> Option<u64>) {
        while self.got.len() > RECENT_MAX {
            let complete = self.got.iter().rev().skip(RECENT_MAX / 2).find_map(|(msn, got)| {
                lasts(*msn).filter(|lasts| got.us + ROUNDING_US >= *lasts).map(|_| *msn)
            });
            let over = self.got.len() > PARTIAL_MAX;
            let oldest = self.got.keys().next().copied().filter(|_| over);
            let Some(msn) = complete.or(oldest) else { return };
            self.got.remove(&msn);
            self.add_whole(msn);
        }
    }

    fn is_whole(&self, msn: u64) -> bool {
        self.whole.iter().rev().any(|(first, last)| (*first..=*last).contains(&msn))
    }

    fn add_whole(&mut self, msn: u64) {
        let at = self.whole.partition_point(|(_, last)| *last < msn);
        let joins_before = at > 0 && self.whole[at - 1].1 + 1 == msn;
        let joins_after = self.whole.get(at).is_some_and(|(first, _)| msn + 1 == *first);
        match (joins_before, joins_after) {
            (true, true) => {
                self.whole[at - 1].1 = self.whole[at].1;
                self.whole.remove(at);
            }
            (true, false) => self.whole[at - 1].1 = msn,
            (false, true) => self.whole[at].0 = msn,
            (false, false) => self.whole.insert(at, (msn, msn)),
        }
    }

    /// Sum of the durations, microseconds.
    pub(crate) fn total_us(&self) -> u64 {
        self.total_us
    }

    /// Distinct parts, and segments that had no parts listed.
    pub(crate) fn parts(&self) -> u64 {
        self.parts
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
        assert!(watched.part((7, 0), 200_000));
        assert!(!watched.part((7, 0), 200_000), "another rendition, or a retry");
        assert!(watched.part((7, 1), 200_000));
        watched.segment(7, 800_000);
        assert_eq!(watched.total_us(), 800_000, "a segment after two of its parts");
        assert!(!watched.part((7, 2), 200_000));
        watched.segment(7, 800_000);
        assert_eq!((watched.total_us(), watched.parts()), (800_000, 3));
    }

    proptest! {
        /// In any order, with any repetition, over a session as long as it likes, and tidied at any time.
        #[test]
        fn the_sum_is_that_of_the_set(events in proptest::collection::vec((0u64..60, 0u32..4), 1..600)) {
            let mut watched = Watched::default();
            let mut set = BTreeSet::new();
            for (msn, part) in events {
                watched.part((msn, part), 200_000);
                set.insert((msn, part));
                watched.tidy(|_| Some(800_000));
            }
            prop_assert_eq!(watched.total_us(), set.len() as u64 * 200_000);
        }
    }

    #[test]
    fn a_day_takes_no_memory() {
        let mut watched = Watched::default();
        for msn in 0..86_400 {
            for part in 0..5 {
                watched.part((msn, part), 200_000);
            }
            watched.tidy(|_| Some(1_000_000));
        }
        assert_eq!(watched.total_us(), 86_400_000_000);
        assert!(watched.got.len() <= RECENT_MAX && watched.whole.len() == 1);
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
