//! How far live playlists have got, as the upstream says it of each; and what a request's numbers are worth by that.
//!
//! Invariants: numbers that a playlist has reached are one question, whoever makes them up: what it is now. A request for
//! what comes next is never refused. All others ("odd": far ahead, or about a playlist that nothing is known of just now)
//! are bounded in number at any moment, playlist by playlist. Whoever gets another question's answer gets what the origin
//! would have answered, no older than [`FRESH`]. Deliberately absent: clock and upstream.

use crate::key::CacheKey;
use moka::sync::Cache;
use sigma_shared::directives::Directives;
use sigma_shared::reload::{Decision, Tip};
use sigma_shared::resource::LiveResource;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// So long after it was told, a tip is where the playlist is.
const FRESH: Duration = Duration::from_secs(1);
/// Playlists remembered; about 300 bytes each. Only those that exist.
const KNOWN_MAX: u64 = 20_000;
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);
/// Odd requests that the upstream may be holding for one playlist.
pub(crate) const ODD_MAX: usize = 32;
/// So many segments a playlist is further than its tip says, at most: what the upstream may be behind, and what comes
/// while a tip is fresh.
const AHEAD_MSN: u64 = 2;
/// The shortest parts there are: they allow for the most of them in advance (BR-06).
const PART_TARGET_MS_MIN: u32 = 100;
/// Part Indices that are next, or next but one or two: what a player may ask for who is told of less than others.
const NEXT_PARTS: u32 = 3;

/// What to do with a request that is neither answered nor on its way.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Judged {
    /// Ask this.
    Ask(CacheKey),
    /// Ask this if there is a place for it.
    Odd(CacheKey),
    /// 400: it is further ahead than a playlist is waited for (BR-05, BR-06).
    TooFarAhead,
}

#[derive(Debug, Clone, Copy)]
struct Told {
    tip: Tip,
    at: Instant,
}

/// See the module.
pub(crate) struct Tips {
    known: Cache<LiveResource, Told>,
    odd: Mutex<HashMap<LiveResource, usize>>,
    /// Whether the upstream says such things, as far as it was heard last: an older one does not.
    told: AtomicBool,
}

impl Tips {
    /// Nothing is known yet.
    pub(crate) fn new() -> Self {
        let known = Cache::builder().max_capacity(KNOWN_MAX).time_to_live(FORGOTTEN_AFTER).build();
        Self { known, odd: Mutex::default(), told: AtomicBool::new(false) }
    }

    /// The upstream said it of this playlist, `at` then.
    pub(crate) fn learn(&self, playlist: &LiveResource, tip: Tip, at: Instant) {
        self.told.store(true, Ordering::Relaxed);
        if self.known.get(playlist).is_none_or(|known| known.at <= at) {
            self.known.insert(playlist.clone(), Told { tip, at });
        }
    }

    /// A playlist of an upstream that says no such thing: an older one, for the time being.
    pub(crate) fn unlearn(&self, playlist: &LiveResource) {
        self.told.store(false, Ordering::Relaxed);
        self.known.invalidate(playlist);
    }

    /// What to do with a request.
    pub(crate) fn judge(&self, key: CacheKey, now: Instant) -> Judged {
        if !key.directives().is_blocking() || !self.told.load(Ordering::Relaxed) {
            return Judged::Ask(key);
        }
        let Some(told) = self.known.get(key.resource()) else { return Judged::Odd(key) };
        told.judge(key, now)
    }

    /// Takes a place for an odd request, if there is one. Whoever gets it gives it back.
    pub(crate) fn take_place(&self, playlist: &LiveResource) -> bool {
        let mut odd = self.odd.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = odd.entry(playlist.clone()).or_default();
        if *taken >= ODD_MAX {
            return false;
        }
        *taken += 1;
        true
    }

    /// Gives a place back.
    pub(crate) fn leave_place(&self, playlist: &LiveResource) {
        let mut odd = self.odd.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = odd.get_mut(playlist) {
            *taken = taken.saturating_sub(1);
            if *taken == 0 {
                odd.remove(playlist);
            }
        }
    }
}

impl Told {
    fn judge(&self, key: CacheKey, now: Instant) -> Judged {
        let fresh = now.saturating_duration_since(self.at) < FRESH;
        let wanted = *key.directives();
        match self.tip.decide(&wanted, PART_TARGET_MS_MIN) {
            Decision::Ready if fresh => Judged::Ask(key.waiting_for(self.newest())),
            Decision::Wait if self.is_next(&wanted) => Judged::Ask(key),
            Decision::Wait if fresh && wanted.msn == Some(self.tip.complete_msn) => {
                // BR-03: a part past the end of its segment is the first of the next one.
                let (msn, part) = self.tip.next_part();
                Judged::Ask(key.waiting_for((msn, Some(part))))
            }
            Decision::TooFarAhead if fresh && self.is_too_far(&wanted) => Judged::TooFarAhead,
            Decision::Ready | Decision::Wait | Decision::TooFarAhead => Judged::Odd(key),
        }
    }

    /// What the playlist has now, as somebody would have waited for it.
    fn newest(&self) -> (u64, Option<u32>) {
        if self.tip.ended {
            // No answer to this is from before the end.
            return (self.tip.complete_msn.saturating_add(1), None);
        }
        self.tip.last_part()
    }

    fn is_next(&self, wanted: &Directives) -> bool {
        let ahead = wanted.msn.map_or(0, |msn| msn.saturating_sub(self.tip.complete_msn));
        match (ahead, wanted.part) {
            (1..=2, None) => true,
            (1, Some(part)) => part < self.tip.open_parts.saturating_add(NEXT_PARTS),
            (2, Some(part)) => part < NEXT_PARTS,
            _ => false,
        }
    }

    fn is_too_far(&self, wanted: &Directives) -> bool {
        let complete_msn = self.tip.complete_msn.saturating_add(AHEAD_MSN);
        let later = Tip { complete_msn, ..self.tip };
        later.decide(wanted, PART_TARGET_MS_MIN) == Decision::TooFarAhead
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAYLIST: &str = "/live/demo/v720/media.m3u8";

    fn key(path: &str, query: &str) -> CacheKey {
        CacheKey::new(LiveResource::parse(path).unwrap(), Some(query), false).unwrap()
    }

    fn tip(open_parts: u32) -> Tip {
        Tip { complete_msn: 100, complete_parts: 6, open_parts, ended: false }
    }

    #[test]
    fn what_numbers_are_worth() {
        let now = Instant::now();
        let low = "/live/demo/v720/low.m3u8";
        let ask = |query: &str| Some(query.to_owned());
        for (path, tip, query, expected) in [
            // Past: what is newest.
            (PLAYLIST, tip(2), "_HLS_msn=3", ask("_HLS_msn=101&_HLS_part=1")),
            (PLAYLIST, tip(2), "_HLS_msn=3&_HLS_part=999", ask("_HLS_msn=101&_HLS_part=1")),
            (PLAYLIST, tip(2), "_HLS_msn=101&_HLS_part=0", ask("_HLS_msn=101&_HLS_part=1")),
            (PLAYLIST, tip(2), "_HLS_msn=100&_HLS_skip=v2", ask("_HLS_msn=101&_HLS_part=1&_HLS_skip=v2")),
            (PLAYLIST, tip(0), "_HLS_msn=100&_HLS_part=3", ask("_HLS_msn=100&_HLS_part=5")),
            (low, tip(0), "_HLS_msn=7", ask("_HLS_msn=100")),
            // Next: as it is.
            (PLAYLIST, tip(2), "_HLS_msn=101&_HLS_part=2", ask("_HLS_msn=101&_HLS_part=2")),
            (PLAYLIST, tip(2), "_HLS_msn=101&_HLS_part=4", ask("_HLS_msn=101&_HLS_part=4")),
            (PLAYLIST, tip(2), "_HLS_msn=102&_HLS_part=0", ask("_HLS_msn=102&_HLS_part=0")),
            (PLAYLIST, tip(2), "_HLS_msn=101", ask("_HLS_msn=101")),
            (low, tip(0), "_HLS_msn=101&_HLS_skip=YES", ask("_HLS_msn=101&_HLS_skip=YES")),
            (low, tip(0), "_HLS_msn=102", ask("_HLS_msn=102")),
            // BR-03: under one name.
            (PLAYLIST, tip(0), "_HLS_msn=100&_HLS_part=6", ask("_HLS_msn=101&_HLS_part=0")),
            (PLAYLIST, tip(0), "_HLS_msn=100&_HLS_part=4000", ask("_HLS_msn=101&_HLS_part=0")),
            // Without directives there is nothing to judge.
            (PLAYLIST, tip(2), "", ask("")),
            (PLAYLIST, tip(2), "_HLS_skip=YES", ask("_HLS_skip=YES")),
            // Too far even for an upstream that is behind.
            (PLAYLIST, tip(2), "_HLS_msn=106", None),
            (low, tip(0), "_HLS_msn=105", None),
            (PLAYLIST, tip(2), "_HLS_msn=18446744073709551615&_HLS_part=0", None),
        ] {
            let tips = Tips::new();
            tips.learn(&LiveResource::parse(path).unwrap(), tip, now);
            let expected = expected.map_or(Judged::TooFarAhead, |query| Judged::Ask(key(path, &query)));
            assert_eq!(tips.judge(key(path, query), now), expected, "{tip:?} {query}");
        }
    }

    #[test]
    fn what_is_odd() {
        let before = Instant::now();
        let now = before + FRESH;
        let tips = Tips::new();
        let odd =
            |query: &str, now| tips.judge(key(PLAYLIST, query), now) == Judged::Odd(key(PLAYLIST, query));
        assert!(!odd("_HLS_msn=101&_HLS_part=2", now), "of an upstream that tells nothing");
        tips.learn(&LiveResource::parse("/live/demo/v360/media.m3u8").unwrap(), tip(2), now);
        assert!(odd("_HLS_msn=101&_HLS_part=2", now), "nothing is known of it");
        tips.learn(&LiveResource::parse(PLAYLIST).unwrap(), tip(2), now);
        for query in ["_HLS_msn=101&_HLS_part=5", "_HLS_msn=102&_HLS_part=3", "_HLS_msn=103", "_HLS_msn=105"]
        {
            assert!(odd(query, now), "{query}");
        }
        // A while later it may be anywhere.
        let later = now + FRESH;
        for query in ["_HLS_msn=3", "_HLS_msn=101&_HLS_part=0", "_HLS_msn=100&_HLS_part=6", "_HLS_msn=999"] {
            assert!(!odd(query, now) && odd(query, later), "{query}");
        }
        assert!(!odd("_HLS_msn=101&_HLS_part=2", later), "what comes next is never in doubt");
        // What was told before, and arrives after, changes nothing.
        tips.learn(&LiveResource::parse(PLAYLIST).unwrap(), tip(0), before);
        assert!(!odd("_HLS_msn=101&_HLS_part=0", now));
        // An older upstream took over.
        tips.unlearn(&LiveResource::parse(PLAYLIST).unwrap());
        assert!(!odd("_HLS_msn=999", now), "as before anything was told");
        tips.learn(&LiveResource::parse("/live/demo/v360/media.m3u8").unwrap(), tip(2), now);
        assert!(odd("_HLS_msn=101&_HLS_part=2", now), "what was known of it is not");
    }

    #[test]
    fn br_10_of_a_finished_playlist_all_numbers_are_one() {
        let now = Instant::now();
        let tips = Tips::new();
        tips.learn(&LiveResource::parse(PLAYLIST).unwrap(), Tip { ended: true, ..tip(0) }, now);
        for query in ["_HLS_msn=3", "_HLS_msn=101&_HLS_part=0", "_HLS_msn=9999&_HLS_part=7"] {
            let after_the_end = Judged::Ask(key(PLAYLIST, "_HLS_msn=101"));
            assert_eq!(tips.judge(key(PLAYLIST, query), now), after_the_end, "{query}");
        }
    }

    #[test]
    fn odd_requests_have_so_many_places() {
        let tips = Tips::new();
        let [one, other] =
            [PLAYLIST, "/live/demo/v720/low.m3u8"].map(|path| LiveResource::parse(path).unwrap());
        assert_eq!((0..100).filter(|_| tips.take_place(&one)).count(), ODD_MAX);
        assert!(tips.take_place(&other), "each playlist has its own");
        tips.leave_place(&one);
        assert_eq!((0..100).filter(|_| tips.take_place(&one)).count(), 1);
        (0..ODD_MAX).for_each(|_| tips.leave_place(&one));
        tips.leave_place(&other);
        assert!(tips.odd.lock().unwrap().is_empty());
    }
}
