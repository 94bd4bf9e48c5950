//! The player model: what a real LL-HLS player asks for next, given what it got (hls.js and the rules of
//! draft-pantos-hls-rfc8216bis sections 6.2.5 and 6.3).
//!
//! Invariants: no clock, no socket; waiting times are results, randomness is a seed. A unit is asked for at most once
//! unless the media sequence goes back. Retries are always spaced: no answer of a server can make a viewer spin.
//! Deliberately absent: rate adaptation, buffering and playback speed; a viewer keeps up or counts what it missed.
#![deny(clippy::disallowed_methods)]

use crate::playlist::{MediaView, Unit};
use sigma_shared::directives::Directives;
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

/// What the player does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Get the media playlist, `after` a wait.
    Playlist { directives: Directives, after: Duration },
    /// The broadcast is over.
    Ended,
    /// Give up on this media playlist and start at the multivariant playlist, `after` a wait.
    Restart { after: Duration },
}

/// What kind of object to get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Init,
    Part,
    Segment,
}

/// One object to get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Want {
    /// As in the playlist, unresolved.
    pub(crate) uri: String,
    pub(crate) kind: Kind,
    pub(crate) duration_us: u64,
    /// Learnt from a reload, not from the first playlist: its delay counts.
    pub(crate) live: bool,
}

/// What a playlist led to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// To be got, in this order.
    pub(crate) wants: Vec<Want>,
    /// Units that went by unseen or are marked GAP.
    pub(crate) missed: u64,
    /// The playlist went back in time: its tip or its media sequence.
    pub(crate) regressed: bool,
    /// A blocking reload was answered without what it asked for.
    pub(crate) unsatisfied: bool,
}

/// The player of one rendition.
#[derive(Debug)]
pub(crate) struct Player {
    patience: Patience,
    seed: u64,
    /// The newest unit asked for.
    last: Option<(u64, u32)>,
    /// Of the last playlist.
    tip: Option<(u64, u32)>,
    media_sequence: u64,
    init: String,
    failures: u32,
    asked: Directives,
    step: Step,
}

impl Player {
    /// `seed` tells viewers apart, so that they do not retry in step.
    pub(crate) fn new(patience: Patience, seed: u64) -> Self {
        Self {
            patience,
            seed,
            last: None,
            tip: None,
            media_sequence: 0,
            init: String::new(),
            failures: 0,
            asked: Directives::default(),
            step: plain(Duration::ZERO),
        }
    }

    /// What to do now. Asking again without an event in between gives the same answer.
    pub(crate) fn step(&self) -> Step {
        self.step
    }

    /// The playlist of the last step arrived.
    pub(crate) fn loaded(&mut self, view: &MediaView<'_>) -> Plan {
        let mut plan = Plan::default();
        if self.tip.is_some_and(|tip| view.next < tip) || view.media_sequence < self.media_sequence {
            plan.regressed = true;
            self.last = None;
        }
        let advanced = self.tip != Some(view.next);
        plan.unsatisfied = self
            .asked
            .msn
            .is_some_and(|msn| !view.ended && view.next <= (msn, self.asked.part.unwrap_or_default()));
        self.tip = Some(view.next);
        self.media_sequence = view.media_sequence;
        self.choose(view, &mut plan);
        self.step = self.after(view, advanced, plan.unsatisfied);
        self.asked = match self.step {
            Step::Playlist { directives, .. } => directives,
            _ => Directives::default(),
        };
        plan
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

    fn choose(&mut self, view: &MediaView<'_>, plan: &mut Plan) {
        let live = self.last.is_some();
        let start = match self.last {
            None => tune_in(view),
            Some(last) => {
                let start = view.units.iter().position(|unit| position(unit) > last);
                if let Some(start) = start {
                    plan.missed += missed(view, last, start);
                }
                start
            }
        };
        let Some(start) = start else { return };
        if let Some(init) = view.init
            && init != self.init
        {
            init.clone_into(&mut self.init);
            plan.wants.push(Want { uri: init.to_owned(), kind: Kind::Init, duration_us: 0, live: false });
        }
        for unit in &view.units[start..] {
            self.last = Some(position(unit));
            if unit.gap {
                plan.missed += 1;
                continue;
            }
            plan.wants.push(Want {
                uri: unit.uri.to_owned(),
                kind: if unit.part.is_some() { Kind::Part } else { Kind::Segment },
                duration_us: unit.duration_us,
                live,
            });
        }
    }

    fn after(&mut self, view: &MediaView<'_>, advanced: bool, unsatisfied: bool) -> Step {
        if view.ended {
            return Step::Ended;
        }
        if unsatisfied {
            self.failures = self.failures.saturating_add(1);
            return plain(self.patience.wait(self.failures, self.seed));
        }
        self.failures = 0;
        if view.can_block {
            let (msn, part) = view.next;
            let part = view.part_target_us.map(|_| part);
            return Step::Playlist {
                directives: Directives { msn: Some(msn), part, skip: None },
                after: Duration::ZERO,
            };
        }
        // Section 6.3.4: a target duration after a change, half of it otherwise.
        let unit = view.part_target_us.unwrap_or(view.target_duration_us);
        plain(Duration::from_micros(if advanced { unit } else { unit / 2 }.max(20_000)))
    }
}

fn plain(after: Duration) -> Step {
    Step::Playlist { directives: Directives::default(), after }
}

fn position(unit: &Unit<'_>) -> (u64, u32) {
    (unit.msn, unit.part.unwrap_or_default())
}

/// Where a viewer joins: the newest independent unit that is at least the hold-back away from the end; if none is that
/// old, the oldest independent one; if none is independent, the newest unit.
fn tune_in(view: &MediaView<'_>) -> Option<usize> {
    let hold_back = if view.part_target_us.is_some() {
        view.part_hold_back_us
    } else {
        view.hold_back_us.max(3 * view.target_duration_us)
    };
    let mut from_end = 0;
    let mut oldest = None;
    for (index, unit) in view.units.iter().enumerate().rev() {
        from_end += unit.duration_us;
        if unit.independent {
            oldest = Some(index);
            if from_end >= hold_back {
                break;
            }
        }
    }
    oldest.or_else(|| view.units.len().checked_sub(1))
}

/// Units between the last one asked for and the one at `start` that are no longer listed. Across segments their number
/// is estimated from the longest listed segment.
fn missed(view: &MediaView<'_>, last: (u64, u32), start: usize) -> u64 {
    let unit = &view.units[start];
    let Some(part) = unit.part else {
        return (unit.msn - last.0).saturating_sub(1);
    };
    if start.checked_sub(1).map(|before| position(&view.units[before])) == Some(last) {
        return 0;
    }
    let segment_parts = match view.part_target_us {
        Some(target) if view.segment_parts == 0 && target > 0 => view.target_duration_us / target,
        _ => u64::from(view.segment_parts),
    };
    ((unit.msn - last.0) * segment_parts + u64::from(part)).saturating_sub(u64::from(last.1) + 1)
}

#[cfg(test)]
mod tests;
