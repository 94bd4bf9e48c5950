//! Blocking Playlist Reload as a decision: given how far a rendition has got and what a request wants, answer, wait or
//! refuse (draft-pantos-hls-rfc8216bis section 6.2.5.2). Waiting itself is the caller's.
//!
//! Decided where the specification is silent (llhls.md 1.9): the "last MSN" of the plus-two rule counts the open parent
//! as soon as it has a part; `_HLS_msn` alone waits for a complete Media Segment, not for an open parent.

use crate::directives::Directives;

/// How far a rendition has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tip {
    /// Media Sequence Number of the newest complete Media Segment.
    pub complete_msn: u64,
    /// How many Partial Segments that segment has.
    pub complete_parts: u32,
    /// How many Partial Segments the open parent (`complete_msn + 1`) has so far.
    pub open_parts: u32,
    /// The playlist carries EXT-X-ENDLIST.
    pub ended: bool,
}

/// What to do with a playlist request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Answer with the current playlist.
    Ready,
    /// Hold: it will be satisfied by a later tip.
    Wait,
    /// Answer 400.
    TooFarAhead,
}

/// The Advance Part Limit (section 6.2.5.2): ceil(3 / part target) below a second, else 3.
#[must_use]
pub fn advance_part_limit(part_target_ms: u32) -> u32 {
    if part_target_ms == 0 || part_target_ms >= 1000 { 3 } else { 3000u32.div_ceil(part_target_ms) }
}

impl Tip {
    /// The newest Partial Segment as (msn, part), as RENDITION-REPORT states it (RR-02).
    #[must_use]
    pub fn last_part(&self) -> (u64, Option<u32>) {
        if self.open_parts > 0 {
            (self.complete_msn + 1, Some(self.open_parts - 1))
        } else {
            (self.complete_msn, self.complete_parts.checked_sub(1))
        }
    }

    /// How many parts further this is than `earlier`, as far as that can be told: over more than one segment it is many.
    #[must_use]
    pub fn parts_since(&self, earlier: &Self) -> u32 {
        match self.complete_msn.checked_sub(earlier.complete_msn) {
            Some(0) => self.open_parts.saturating_sub(earlier.open_parts),
            Some(1) => self.complete_parts.saturating_sub(earlier.open_parts) + self.open_parts,
            Some(_) => u32::MAX,
            None => 0,
        }
    }

    /// The next Partial Segment to appear, as PRELOAD-HINT names it (PH-01).
    #[must_use]
    pub fn next_part(&self) -> (u64, u32) {
        (self.complete_msn + 1, self.open_parts)
    }

    /// Decides on a playlist request.
    #[must_use]
    pub fn decide(&self, want: &Directives, part_target_ms: u32) -> Decision {
        let Some(msn) = want.msn else {
            return Decision::Ready;
        };
        // BR-10: a finished playlist ignores directives.
        if self.ended {
            return Decision::Ready;
        }
        let last_msn = if self.open_parts > 0 { self.complete_msn + 1 } else { self.complete_msn };
        // BR-05
        if msn > last_msn.saturating_add(2) {
            return Decision::TooFarAhead;
        }
        let Some(part) = want.part else {
            // BR-01: without a part, a whole Media Segment is asked for.
            return if msn <= self.complete_msn { Decision::Ready } else { Decision::Wait };
        };
        if msn < self.complete_msn || (msn == self.complete_msn && part < self.complete_parts) {
            return Decision::Ready; // BR-04
        }
        if msn == self.complete_msn {
            // BR-03: past the end of a complete segment means part 0 of the next.
            return if self.open_parts > 0 { Decision::Ready } else { Decision::Wait };
        }
        if msn == self.complete_msn + 1 {
            if part < self.open_parts {
                return Decision::Ready;
            }
            // BR-06: measured from the last part, which is index -1 while the parent has none.
            if part >= self.open_parts.saturating_add(advance_part_limit(part_target_ms)) {
                return Decision::TooFarAhead;
            }
        } else if part >= advance_part_limit(part_target_ms) {
            return Decision::TooFarAhead;
        }
        Decision::Wait // BR-02
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PART_TARGET_MS: u32 = 334;

    fn tip(open_parts: u32) -> Tip {
        Tip { complete_msn: 100, complete_parts: 6, open_parts, ended: false }
    }

    fn want(msn: u64, part: Option<u32>) -> Directives {
        Directives { msn: Some(msn), part, skip: None }
    }

    #[test]
    fn decisions() {
        use Decision::{Ready, TooFarAhead, Wait};
        for (open, msn, part, expected, rule) in [
            (2, 100, None, Ready, "BR-04"),
            (2, 3, None, Ready, "BR-04 older than the window"),
            (2, 3, Some(9), Ready, "BR-04 older than the window"),
            (2, 101, None, Wait, "BR-01 an open parent is no segment"),
            (2, 101, Some(1), Ready, "BR-02"),
            (2, 101, Some(2), Wait, "BR-02"),
            (0, 101, Some(0), Wait, "BR-02"),
            (2, 100, Some(5), Ready, "BR-04"),
            (2, 100, Some(999), Ready, "BR-03"),
            (0, 100, Some(6), Wait, "BR-03 the next part 0 is not there yet"),
            (1, 100, Some(6), Ready, "BR-03"),
            (2, 103, None, Wait, "BR-05 last + 2"),
            (2, 104, None, TooFarAhead, "BR-05"),
            (0, 102, None, Wait, "BR-05 without an open parent"),
            (0, 103, None, TooFarAhead, "BR-05 without an open parent"),
            (2, 101, Some(10), Wait, "BR-06 last part 1 + limit 9"),
            (2, 101, Some(11), TooFarAhead, "BR-06"),
            (2, 102, Some(0), Wait, "BR-02 over the segment's end"),
            (2, 102, Some(9), TooFarAhead, "BR-06"),
            (2, u64::MAX, None, TooFarAhead, "BR-05 huge"),
        ] {
            assert_eq!(
                tip(open).decide(&want(msn, part), PART_TARGET_MS),
                expected,
                "{rule}: {open} {msn} {part:?}"
            );
        }
    }

    #[test]
    fn br_10_a_finished_playlist_ignores_directives() {
        let ended = Tip { ended: true, ..tip(0) };
        assert_eq!(ended.decide(&want(9999, Some(7)), PART_TARGET_MS), Decision::Ready);
        assert_eq!(tip(0).decide(&Directives::default(), PART_TARGET_MS), Decision::Ready);
    }

    #[test]
    fn parts_are_counted_over_the_end_of_a_segment() {
        let next = Tip { complete_msn: 101, ..tip(1) };
        for (earlier, now, parts) in [
            (tip(2), tip(2), 0),
            (tip(2), tip(4), 2),
            (tip(4), tip(2), 0),
            (tip(5), next, 2),
            (next, tip(5), 0),
            (tip(5), Tip { complete_msn: 102, ..next }, u32::MAX),
        ] {
            assert_eq!(now.parts_since(&earlier), parts, "{earlier:?} {now:?}");
        }
    }

    #[test]
    fn limits_of_the_advance() {
        for (ms, limit) in [(200, 15), (333, 10), (334, 9), (500, 6), (999, 4), (1000, 3), (2000, 3)] {
            assert_eq!(advance_part_limit(ms), limit, "{ms}");
        }
    }

    #[test]
    fn a_waiting_request_is_satisfied_by_some_later_tip() {
        // Every request that waits must become ready as parts and segments appear; never stay, never turn into 400.
        for msn in 99..=103 {
            for part in std::iter::once(None).chain((0..11).map(Some)) {
                let wanted = want(msn, part);
                let mut now = tip(0);
                if now.decide(&wanted, PART_TARGET_MS) != Decision::Wait {
                    continue;
                }
                let mut ready = false;
                for _ in 0..40 {
                    now.open_parts += 1;
                    if now.open_parts == 6 {
                        now = Tip { complete_msn: now.complete_msn + 1, open_parts: 0, ..now };
                    }
                    match now.decide(&wanted, PART_TARGET_MS) {
                        Decision::Ready => ready = true,
                        Decision::TooFarAhead => panic!("turned into 400: {wanted:?}"),
                        Decision::Wait => assert!(!ready, "went back to waiting: {wanted:?}"),
                    }
                }
                assert!(ready, "{wanted:?}");
            }
        }
    }
}
