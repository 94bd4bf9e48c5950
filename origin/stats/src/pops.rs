//! The POPs that report: who they are, whether they are there, and until when everything of them is known.
//!
//! Invariants: what was received is a set of sequence numbers per incarnation; how far it is complete is a function of it.
//! A POP that is silent holds up finality for a while only: what it has not told within that may still come and count, but
//! nobody waits for it.
#![deny(clippy::disallowed_methods)]

use serde::{Deserialize, Serialize};
use sigma_report::report::{PopDescription, Report};
use sigma_report::spans::{Span, Spans};
use std::collections::BTreeMap;

/// A POP without a report for this long is silent, milliseconds.
pub const SILENT_AFTER_MS: u64 = 10_000;
/// Incarnations that are remembered of a POP; the newest.
const INCARNATIONS_MAX: usize = 64;
/// Reports that may be ahead of one that is missing, by incarnation.
const AHEAD_MAX: usize = 65_536;

/// A POP.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Pop {
    /// What it says of itself, in its newest report.
    pub description: PopDescription,
    /// Incarnation and sequence number of that.
    pub newest: (u64, u64),
    /// When something of it came last, Unix milliseconds of the origin's clock.
    pub last_report_ms: u64,
    /// Its clock less ours, milliseconds, with the time the report took; from its newest report.
    pub clock_offset_ms: i64,
    incarnations: BTreeMap<u64, Incarnation>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Incarnation {
    received: Vec<Span>,
    /// What is complete with all that came without a gap, Unix milliseconds.
    complete_until_ms: u64,
    /// What would be complete, by sequence number, of those beyond a gap.
    ahead: BTreeMap<u64, u64>,
}

impl Incarnation {
    fn contiguous(&self) -> u64 {
        self.received.first().filter(|span| span.start == 1).map_or(0, |span| span.end - 1)
    }

    fn receive(&mut self, sequence: u64, complete_until_ms: u64) -> bool {
        let mut received: Spans = self.received.iter().copied().collect();
        let end = sequence.saturating_add(1);
        let new = Span::new(sequence, end).is_some_and(|span| !received.insert(span).is_empty());
        self.received = received.take();
        let contiguous = self.contiguous();
        if sequence <= contiguous {
            self.complete_until_ms = self.complete_until_ms.max(complete_until_ms);
        } else if self.ahead.len() < AHEAD_MAX {
            let known = self.ahead.entry(sequence).or_default();
            *known = complete_until_ms.max(*known);
        }
        while let Some(first) = self.ahead.first_entry().filter(|first| *first.key() <= contiguous) {
            self.complete_until_ms = self.complete_until_ms.max(first.remove());
        }
        new
    }

    fn has_gap(&self) -> bool {
        self.received.len() > 1 || self.contiguous() == 0
    }
}

impl Pop {
    /// One that nothing is known of.
    pub(crate) fn new() -> Self {
        let description = PopDescription {
            name: String::new(),
            region: String::new(),
            coordinates: None,
            capacity_viewers: 0,
            version: String::new(),
            connections: 0,
        };
        let incarnations = BTreeMap::new();
        Self { description, newest: (0, 0), last_report_ms: 0, clock_offset_ms: 0, incarnations }
    }

    /// Takes note of a report; whether it is one that had not come before.
    pub(crate) fn receive(&mut self, report: &Report, now_ms: u64) -> bool {
        let this = (report.incarnation, report.sequence);
        if this > self.newest {
            self.newest = this;
            self.description = report.pop.clone();
            self.clock_offset_ms = report.made_at_ms.cast_signed().saturating_sub(now_ms.cast_signed());
        }
        self.last_report_ms = self.last_report_ms.max(now_ms);
        let incarnation = self.incarnations.entry(report.incarnation).or_default();
        let new = incarnation.receive(report.sequence, report.complete_until_ms);
        if self.incarnations.len() > INCARNATIONS_MAX {
            self.incarnations.pop_first();
        }
        new
    }

    /// Whether it reports.
    #[must_use]
    pub fn is_up(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.last_report_ms) < SILENT_AFTER_MS
    }

    /// Everything before this is known of it, Unix milliseconds: of its newest incarnation, and of earlier ones of which a
    /// report in the middle is still to come.
    #[must_use]
    pub fn complete_until_ms(&self) -> u64 {
        let newest = self.incarnations.last_key_value().map(|(_, newest)| newest);
        let earlier = self.incarnations.values().rev().skip(1).filter(|incarnation| incarnation.has_gap());
        newest.into_iter().chain(earlier).map(|one| one.complete_until_ms).min().unwrap_or(0)
    }
}

/// Until when everything is known of all POPs, Unix milliseconds; at most now. No POP is waited for longer than `wait_ms`.
#[must_use]
pub fn final_until_ms<'a>(pops: impl Iterator<Item = &'a Pop>, now_ms: u64, wait_ms: u64) -> u64 {
    let waited_for = now_ms.saturating_sub(wait_ms);
    let of = |pop: &Pop| pop.complete_until_ms().clamp(waited_for, now_ms);
    pops.map(of).min().unwrap_or(now_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn report(incarnation: u64, sequence: u64, complete_until_ms: u64) -> Report {
        Report {
            incarnation,
            sequence,
            made_at_ms: complete_until_ms,
            complete_until_ms,
            pop: Pop::new().description,
            channels: Vec::new(),
            sessions: Vec::new(),
            traffic: Vec::new(),
            quality: Vec::new(),
        }
    }

    #[test]
    fn what_is_missing_holds_finality_up_for_as_long_as_it_is_waited_for() {
        let mut pop = Pop::new();
        for (sequence, until) in [(1, 1000), (2, 2000), (4, 4000)] {
            assert!(pop.receive(&report(1, sequence, until), until));
        }
        assert_eq!(pop.complete_until_ms(), 2000);
        assert!(!pop.receive(&report(1, 2, 2000), 4000), "again");
        // Another incarnation does not make the gap good.
        pop.receive(&report(2, 1, 9000), 9000);
        assert_eq!(pop.complete_until_ms(), 2000);
        assert_eq!(final_until_ms([&pop].into_iter(), 9000, 60_000), 2000);
        assert_eq!(final_until_ms([&pop].into_iter(), 90_000, 60_000), 30_000);
        pop.receive(&report(1, 3, 3000), 9000);
        assert_eq!(pop.complete_until_ms(), 9000);
        assert_eq!(final_until_ms([&pop].into_iter(), 8000, 60_000), 8000, "never beyond now");
        assert!(pop.is_up(18_999) && !pop.is_up(19_000));
    }

    proptest! {
        #[test]
        fn order_and_repetition_of_reports_do_not_matter(
            reports in prop::collection::vec((1u64..4, 1u64..9), 1..30), rotate in 0usize..30,
        ) {
            let receive = |reports: &[(u64, u64)]| {
                let mut pop = Pop::new();
                for (incarnation, sequence) in reports {
                    pop.receive(&report(*incarnation, *sequence, 100 * incarnation + sequence), 5000);
                }
                pop
            };
            let mut other: Vec<_> = reports.iter().chain(&reports).copied().rev().collect();
            let length = other.len();
            other.rotate_left(rotate % length);
            prop_assert_eq!(receive(&reports), receive(&other));
        }
    }
}
