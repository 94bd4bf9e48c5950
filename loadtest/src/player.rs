//! The player model: what a real LL-HLS player asks for next, given what it got (hls.js and the rules of
//! draft-pantos-hls-rfc8216bis sections 6.2.5 and 6.3).
//!
//! Invariants: no clock, no socket; waiting times are results, randomness is a seed. A unit is asked for at most once
//! unless the media sequence goes back. Retries are always spaced: no answer of a server can make a viewer spin.
//! Deliberately absent: rate adaptation (`adapt`), buffering and playback speed (`playback`).
#![deny(clippy::disallowed_methods)]

use crate::listing::{Listing, Position, Segment};
use crate::shelf::Shelved;
use sigma_shared::directives::{Directives, Skip};
use std::sync::Arc;
use std::time::Duration;

/// How a viewer retries.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// Wait after the first failure; doubles with each further one.
    pub(crate) first: Duration,
    /// The longest wait.
    pub(crate) longest: Duration,
    /// Failures in a row after which a viewer starts again at the multivariant playlist.
    pub(crate) restart_after: u32,
}

impl Default for Patience {
    fn default() -> Self {
        Self { first: Duration::from_millis(200), longest: Duration::from_secs(5), restart_after: 5 }
    }
}

impl Patience {
    /// The wait after `failures` (1 or more) in a row: exponential, bounded, spread by the seed over 75 % to 125 %.
    pub(crate) fn wait(&self, failures: u32, seed: u64) -> Duration {
        let doubled = self
            .first
            .saturating_mul(1u32.checked_shl(failures.saturating_sub(1).min(16)).unwrap_or(u32::MAX))
            .min(self.longest);
        let mixed = (seed ^ u64::from(failures)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let percent = 75 + u32::try_from(mixed % 51).unwrap_or_default();
        doubled * percent / 100
    }
}

/// What the player does next with its playlist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Get the media playlist, `after` a wait.
    Playlist { directives: Directives, after: Duration },
    /// The broadcast is over: nothing new will come.
    Ended,
    /// Give up on this media playlist and start at the multivariant playlist, `after` a wait.
    Restart { after: Duration },
}

/// What kind of object to get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Init,
    Part,
    /// A part that does not exist yet: the one that EXT-X-PRELOAD-HINT names.
    Hint,
    Segment,
}

/// One object to get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Want {
    /// As in the playlist, unresolved.
    pub(crate) uri: Arc<str>,
    pub(crate) kind: Kind,
    pub(crate) at: Position,
    /// 0 of a hint and an init section.
    pub(crate) duration_us: u64,
    /// Media time of its first moment.
    pub(crate) start_us: u64,
    /// It was not there yet when the viewer came to the live edge: its delay counts.
    pub(crate) live: bool,
}

/// What a playlist led to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Units that went by unseen or are marked GAP.
    pub(crate) missed: u64,
    /// The playlist went back in time: its tip or its media sequence.
    pub(crate) regressed: bool,
    /// A blocking reload was answered without what it asked for.
    pub(crate) unsatisfied: bool,
}

/// How a player asks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Manners {
    /// Ask for the hinted part before it exists.
    pub(crate) hints: bool,
    /// Ask for delta updates where they are offered.
    pub(crate) deltas: bool,
}

/// The player of one rendition.
#[derive(Debug)]
pub(crate) struct Player {
    patience: Patience,
    seed: u64,
    manners: Manners,
    listing: Option<Shelved>,
    /// When that listing was loaded, microseconds of the caller's clock.
    loaded_us: u64,
    /// The next unit to get.
    cursor: Option<Position>,
    /// From here on a unit's delay counts; `None` until the live edge is known.
    live_from: Option<Position>,
    init: Option<Arc<str>>,
    failures: u32,
    asked: Directives,
    step: Step,
}

impl Player {
    /// `seed` tells viewers apart, so that they do not retry in step.
    pub(crate) fn new(patience: Patience, seed: u64, manners: Manners) -> Self {
        Self {
            patience,
            seed,
            manners,
            listing: None,
            loaded_us: 0,
            cursor: None,
            live_from: None,
            init: None,
            failures: 0,
            asked: Directives::default(),
            step: plain(Duration::ZERO),
        }
    }

    /// What to do with the playlist now. Asking again without an event in between gives the same answer, but for
    /// `_HLS_skip`, which is left out when the playlist at hand has become too old (section 6.3.7).
    pub(crate) fn step(&self, now_us: u64) -> Step {
        match self.step {
            Step::Playlist { directives, after } => {
                Step::Playlist { directives: Directives { skip: self.skip(now_us), ..directives }, after }
            }
            step => step,
        }
    }

    fn skip(&self, now_us: u64) -> Option<Skip> {
        let listing = &self.listing.as_ref().filter(|_| self.manners.deltas && self.failures == 0)?.listing;
        let until_us = listing.skip_until_us.filter(|_| !listing.ended)?;
        let age_us = now_us.saturating_sub(self.loaded_us);
        (age_us < until_us / 2).then_some(if listing.skip_dateranges { Skip::V2 } else { Skip::Yes })
    }

    /// The listing that a delta update updates.
    pub(crate) fn base(&self) -> Option<&Shelved> {
        self.listing.as_ref()
    }

    pub(crate) fn listing(&self) -> Option<&Listing> {
        self.listing.as_ref().map(|shelved| &*shelved.listing)
    }

    /// The playlist of the last step arrived, whole or made whole.
    pub(crate) fn loaded(&mut self, now_us: u64, shelved: Shelved) -> Seen {
        let mut seen = Seen::default();
        let listing = Arc::clone(&shelved.listing);
        let next = listing.next();
        let before = self.listing.as_ref().map(|old| (old.listing.next(), old.listing.media_sequence));
        if before.is_some_and(|(tip, sequence)| next < tip || listing.media_sequence < sequence) {
            seen.regressed = true;
            (self.cursor, self.live_from) = (None, None);
        }
        seen.unsatisfied = self
            .asked
            .msn
            .is_some_and(|msn| !listing.ended && next <= (msn, self.asked.part.unwrap_or_default()));
        let advanced = before.is_none_or(|(tip, _)| tip != next);
        match self.cursor {
            None => self.cursor = tune_in(&listing),
            Some(cursor) => {
                let first = listing.segments.first().map_or(next.0, |segment| segment.msn);
                if cursor.0 < first {
                    seen.missed = missed(&listing, cursor, first);
                    self.cursor = Some((first, 0));
                }
            }
        }
        self.live_from.get_or_insert(next);
        self.listing = Some(shelved);
        self.loaded_us = now_us;
        self.step = self.after(&listing, advanced, seen.unsatisfied);
        self.asked = match self.step {
            Step::Playlist { directives, .. } => directives,
            _ => Directives::default(),
        };
        seen
    }

    /// The playlist of the last step did not arrive: an error status, no answer, a broken or unreadable body.
    pub(crate) fn failed(&mut self) {
        self.failures = self.failures.saturating_add(1);
        let after = self.patience.wait(self.failures, self.seed);
        self.asked = Directives::default();
        self.step = if self.failures >= self.patience.restart_after {
            Step::Restart { after }
        } else {
            // Without directives: what was asked for may be what the server refused (400) or no longer has (404).
            plain(after)
        };
    }

    /// The multivariant playlist was loaded again: go on from where it was.
    pub(crate) fn restart(&mut self) {
        self.failures = 0;
        self.asked = Directives::default();
        self.step = plain(Duration::ZERO);
    }

    /// Another rendition was chosen: go on there from where it was.
    pub(crate) fn switch(&mut self) {
        self.restart();
        self.init = None;
        // Delta updates of the one do not fit the other's playlist, nor does its tip say anything.
        self.listing = None;
    }

    /// Where the next unit comes from.
    pub(crate) fn cursor(&self) -> Option<Position> {
        self.cursor
    }

    /// Goes to a segment of the window, or to the live edge: what a seek does, or a tab that wakes up.
    pub(crate) fn seek(&mut self, to: Option<u64>) {
        self.cursor = match (to, &self.listing) {
            (Some(msn), _) => Some((msn, 0)),
            (None, Some(shelved)) => tune_in(&shelved.listing),
            (None, None) => None,
        };
        // What had to wait for this viewer says nothing about the server.
        let next = self.listing.as_ref().map(|shelved| shelved.listing.next());
        self.live_from = if to.is_some() { Some((u64::MAX, 0)) } else { next };
    }

    /// Whether every unit there is has been asked for, and no more will come.
    pub(crate) fn is_done(&self) -> bool {
        self.listing()
            .is_some_and(|listing| listing.ended && self.cursor.is_none_or(|cursor| cursor >= listing.next()))
    }

    /// The next object to get, if there is one to be had; it counts as asked for. Units marked GAP are added to `gaps`.
    pub(crate) fn want(&mut self, gaps: &mut u64) -> Option<Want> {
        let shelved = self.listing.clone()?;
        let listing = &*shelved.listing;
        loop {
            let (msn, part) = self.cursor?;
            let Some(segment) = listing.segment(msn) else { return self.hinted(listing) };
            if let Some(init) = &segment.init
                && self.init.as_ref() != Some(init)
            {
                self.init = Some(Arc::clone(init));
                return Some(Want { uri: Arc::clone(init), kind: Kind::Init, ..self.bare((msn, part)) });
            }
            if let Some(unit) = segment.parts.get(part as usize) {
                self.cursor = Some((msn, part + 1));
                if unit.gap || segment.gap {
                    *gaps += 1;
                    continue;
                }
                return Some(Want {
                    uri: Arc::clone(&unit.uri),
                    kind: Kind::Part,
                    duration_us: unit.duration_us,
                    start_us: start_us(listing, segment) + segment.offset_us(part),
                    ..self.bare((msn, part))
                });
            }
            // All of its parts were got, or it lists none.
            let Some(uri) = &segment.uri else { return self.hinted(listing) };
            self.cursor = Some((msn + 1, 0));
            if part > 0 && !segment.parts.is_empty() {
                continue;
            }
            if segment.gap {
                *gaps += 1;
                continue;
            }
            return Some(Want {
                uri: Arc::clone(uri),
                kind: Kind::Segment,
                duration_us: segment.duration_us,
                start_us: start_us(listing, segment),
                ..self.bare((msn, 0))
            });
        }
    }

    fn bare(&self, at: Position) -> Want {
        let live = self.live_from.is_some_and(|from| at >= from);
        Want { uri: Arc::from(""), kind: Kind::Init, at, duration_us: 0, start_us: 0, live }
    }

    /// The part that comes next, while the playlist that lists it is waited for.
    fn hinted(&mut self, listing: &Listing) -> Option<Want> {
        let cursor =
            self.cursor.filter(|cursor| self.manners.hints && *cursor == listing.next() && !listing.ended)?;
        let uri = Arc::clone(listing.hint.as_ref()?);
        let end = listing
            .end_us()
            .or_else(|| listing.segments.last().map(|s| start_us(listing, s) + s.duration_us));
        self.cursor = Some((cursor.0, cursor.1 + 1));
        Some(Want { uri, kind: Kind::Hint, start_us: end?, ..self.bare(cursor) })
    }

    /// A hinted part was not there after all: it is asked for again when it is listed.
    pub(crate) fn unhint(&mut self, at: Position) {
        if self.cursor == Some((at.0, at.1 + 1)) {
            self.cursor = Some(at);
        }
    }

    /// What a unit lasts, once it is listed.
    pub(crate) fn duration_us(&self, at: Position) -> Option<u64> {
        self.listing()?.segment(at.0)?.parts.get(at.1 as usize).map(|part| part.duration_us)
    }

    fn after(&mut self, listing: &Listing, advanced: bool, unsatisfied: bool) -> Step {
        if listing.ended {
            return Step::Ended;
        }
        if unsatisfied {
            self.failures = self.failures.saturating_add(1);
            return plain(self.patience.wait(self.failures, self.seed));
        }
        self.failures = 0;
        if listing.can_block {
            let (msn, part) = listing.next();
            let part = listing.part_target_us.map(|_| part);
            return Step::Playlist {
                directives: Directives { msn: Some(msn), part, skip: None },
                after: Duration::ZERO,
            };
        }
        // Section 6.3.4: a target duration after a change, half of it otherwise.
        let unit = listing.part_target_us.unwrap_or(listing.target_duration_us);
        plain(Duration::from_micros(if advanced { unit } else { unit / 2 }.max(20_000)))
    }
}

fn plain(after: Duration) -> Step {
    Step::Playlist { directives: Directives::default(), after }
}

/// Media time of a segment: its date, or without dates what its number says.
fn start_us(listing: &Listing, segment: &Segment) -> u64 {
    segment.start_us.unwrap_or(segment.msn.saturating_mul(listing.target_duration_us))
}

/// Where a viewer joins: the newest independent unit that is at least the hold-back away from the end; if none is that
/// old, the oldest independent one; if none is independent, the newest unit.
fn tune_in(listing: &Listing) -> Option<Position> {
    let back_us = listing.back_us();
    let (mut from_end, mut oldest) = (0, None);
    for segment in listing.segments.iter().rev() {
        let whole = segment.parts.is_empty();
        for (index, part) in segment.parts.iter().enumerate().rev() {
            from_end += part.duration_us;
            if part.independent {
                oldest = Some((segment.msn, u32::try_from(index).unwrap_or_default()));
                if from_end >= back_us {
                    return oldest;
                }
            }
        }
        if whole {
            from_end += segment.duration_us;
            oldest = Some((segment.msn, 0));
            if from_end >= back_us {
                return oldest;
            }
        }
    }
    oldest.or_else(|| {
        let last = listing.segments.last()?;
        Some((last.msn, u32::try_from(last.parts.len().saturating_sub(1)).unwrap_or_default()))
    })
}

/// Units between the cursor and segment `first` that are no longer listed. Their number is estimated from the longest
/// listed segment.
fn missed(listing: &Listing, cursor: Position, first: u64) -> u64 {
    let longest = listing.segments.iter().map(|segment| segment.parts.len() as u64).max().unwrap_or_default();
    let parts = match listing.part_target_us {
        None => 1,
        Some(target) if longest == 0 && target > 0 => (listing.target_duration_us / target).max(1),
        Some(_) => longest,
    };
    ((first - cursor.0) * parts).saturating_sub(cursor.1.into())
}

#[cfg(test)]
mod tests;
