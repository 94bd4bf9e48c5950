//! The POPs that report: who they are, whether they are there, and until when everything of them is known.
//!
//! Invariants: what was received is a set of sequence numbers per incarnation; how far it is complete is a function
//! of it; what a POP says of itself is what it said last, by its clock as far as that is not ahead of ours, whatever
//! numbers its reports have. What it says will not come (`sigma-settled`) is as good as received: two floors that
//! only go up, so that whatever got lost, was told to another origin, or was forgotten here, is not waited for; what
//! comes of it all the same is counted. A POP that is silent holds up finality for a while only: what it has not told
//! within that may still come and count, but nobody waits for it.
#![deny(clippy::disallowed_methods)]

use crate::key::decoded;
use serde::{Deserialize, Serialize};
use sigma_report::report::{PopDescription, Report};
use sigma_report::settled::Settled;
use sigma_report::spans::{Span, Spans};
use std::collections::BTreeMap;

/// A POP without a report for this long is silent, milliseconds.
pub const SILENT_AFTER_MS: u64 = 10_000;
/// Incarnations that are remembered of a POP: those of the greatest numbers, and the one of its newest report.
const INCARNATIONS_MAX: usize = 64;
/// Reports that may be ahead of one that is missing, by incarnation.
const AHEAD_MAX: usize = 65_536;
/// Gaps between reports that are waited for, by incarnation; of more, the oldest is given up.
const GAPS_MAX: usize = 4096;

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
    /// When its newest report was made, Unix milliseconds; not after it came.
    described_ms: u64,
    /// Nothing comes of incarnations below this.
    oldest: u64,
}

/// Fields at the end of a [`Pop`] that were not kept always, all of them 0 then.
const NEWER_FIELDS: usize = 2;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Incarnation {
    received: Spans,
    /// What is complete with all that came without a gap, Unix milliseconds.
    complete_until_ms: u64,
    /// What would be complete, by sequence number, of those beyond a gap.
    ahead: BTreeMap<u64, u64>,
}

impl Incarnation {
    fn contiguous(&self) -> u64 {
        self.received.as_slice().first().filter(|span| span.start == 1).map_or(0, |span| span.end - 1)
    }

    fn receive(&mut self, sequence: u64, complete_until_ms: u64) -> bool {
        let new = self.have(sequence, sequence.saturating_add(1));
        let known = self.ahead.entry(sequence).or_default();
        *known = complete_until_ms.max(*known);
        self.unite();
        new
    }

    /// Nothing below this sequence number is waited for.
    fn settle(&mut self, sequence: u64) {
        self.have(1, sequence);
        self.unite();
    }

    /// Whether there was something new in it.
    fn have(&mut self, start: u64, end: u64) -> bool {
        let new = Span::new(start, end).is_some_and(|span| !self.received.insert(span).is_empty());
        if let [first, second, ..] = *self.received.as_slice()
            && self.received.as_slice().len() > GAPS_MAX
        {
            self.received.insert(Span { start: first.end, end: second.start });
        }
        new
    }

    fn unite(&mut self) {
        let contiguous = self.contiguous();
        while let Some(first) = self.ahead.first_entry().filter(|first| *first.key() <= contiguous) {
            self.complete_until_ms = self.complete_until_ms.max(first.remove());
        }
        while self.ahead.len() > AHEAD_MAX {
            self.ahead.pop_last();
        }
    }

    fn has_gap(&self) -> bool {
        self.received.as_slice().len() > 1 || self.contiguous() == 0
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
        let (newest, incarnations) = ((0, 0), BTreeMap::new());
        Self {
            description,
            newest,
            last_report_ms: 0,
            clock_offset_ms: 0,
            incarnations,
            described_ms: 0,
            oldest: 0,
        }
    }

    /// From bytes, as they are kept; `None`: they are no POP.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        // A zero is a byte of zero.
        (0..=NEWER_FIELDS).find_map(|missing| decoded(&[bytes, &[0; NEWER_FIELDS][..missing]].concat()))
    }

    /// Takes note of a report; whether it is one that had not come before.
    pub(crate) fn receive(&mut self, report: &Report, now_ms: u64) -> bool {
        let made_at_ms = report.made_at_ms.min(now_ms);
        let this = (made_at_ms, report.incarnation, report.sequence);
        if this > (self.described_ms, self.newest.0, self.newest.1) {
            (self.described_ms, self.newest) = (made_at_ms, (report.incarnation, report.sequence));
            self.description = report.pop.clone();
            self.clock_offset_ms = report.made_at_ms.cast_signed().saturating_sub(now_ms.cast_signed());
        }
        self.last_report_ms = now_ms;
        let incarnation = self.incarnations.entry(report.incarnation).or_default();
        let new = incarnation.receive(report.sequence, report.complete_until_ms);
        if self.incarnations.len() > INCARNATIONS_MAX {
            let oldest = self.incarnations.keys().copied().find(|number| *number != self.newest.0);
            oldest.map(|number| self.incarnations.remove(&number));
        }
        new
    }

    /// Takes note of what it will not send any more, as it said with a report of an incarnation that was received.
    pub(crate) fn settle(&mut self, incarnation: u64, settled: Settled) {
        if let Some(incarnation) = self.incarnations.get_mut(&incarnation) {
            incarnation.settle(settled.sequence);
        }
        self.oldest = self.oldest.max(settled.oldest.unwrap_or(0));
    }

    /// Whether it reports. What came at a moment that is still to come did so before our clock was set back.
    #[must_use]
    pub fn is_up(&self, now_ms: u64) -> bool {
        now_ms.abs_diff(self.last_report_ms) < SILENT_AFTER_MS
    }

    /// Everything before this is known of it, Unix milliseconds: of the incarnation that made its newest report,
    /// and of others of which a report in the middle is still to come, as far as it did not say that they are over.
    /// By their numbers alone nothing is newest: those are times of a clock that may have been ahead.
    #[must_use]
    pub fn complete_until_ms(&self) -> u64 {
        let (newest, _) = self.newest;
        let waited_for = |(number, one): &(&u64, &Incarnation)| {
            **number == newest || (**number >= self.oldest && one.has_gap())
        };
        let of = |(_, one): (&u64, &Incarnation)| one.complete_until_ms;
        self.incarnations.iter().filter(waited_for).map(of).min().unwrap_or(0)
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

    #[test]
    fn an_incarnation_of_an_hour_ahead_does_not_hold_finality_up() {
        const HOUR: u64 = 3_600_000;
        let mut pop = Pop::new();
        // Its clock was ahead when it started, and was set right: by its number it is the greatest for an hour.
        pop.receive(&report(10 * HOUR, 1, 1000), 1000);
        for (sequence, until) in [(1, 2000), (2, 3000)] {
            pop.receive(&report(9 * HOUR, sequence, until), until);
        }
        assert_eq!(pop.complete_until_ms(), 3000);
        assert_eq!(final_until_ms([&pop].into_iter(), 3500, HOUR), 3000);
        // Nor is it forgotten for the others, however many there are.
        for n in 1..=2 * INCARNATIONS_MAX as u64 {
            pop.receive(&report(11 * HOUR + n, 1, 500), 4000);
        }
        pop.receive(&report(9 * HOUR, 3, 4000), 4000);
        assert_eq!((pop.complete_until_ms(), pop.incarnations.len()), (4000, INCARNATIONS_MAX));
    }

    #[test]
    fn a_pop_is_what_it_said_last_whatever_numbers_its_reports_had() {
        let mut pop = Pop::new();
        let said = |name: &str, incarnation, made_at_ms| {
            let mut report = report(incarnation, 1, made_at_ms);
            report.pop.name = name.to_owned();
            report
        };
        pop.receive(&said("forged", 9_000_000, 900_000), 5000);
        assert_eq!((pop.description.name.as_str(), pop.clock_offset_ms), ("forged", 895_000));
        pop.receive(&said("true", 5, 6000), 6001);
        assert_eq!((pop.description.name.as_str(), pop.newest, pop.clock_offset_ms), ("true", (5, 1), -1));
        pop.receive(&said("sent again", 4, 3000), 6002);
        assert_eq!(pop.description.name, "true", "what came late is not what it is now");
    }

    #[test]
    fn a_clock_that_is_set_back_brings_no_dead_pop_back() {
        let mut pop = Pop::new();
        pop.receive(&report(1, 1, 1000), 3_600_000);
        assert!(pop.is_up(3_600_001) && !pop.is_up(60_000));
        pop.receive(&report(1, 2, 2000), 60_000);
        assert!(pop.is_up(60_001) && !pop.is_up(70_000));
    }

    #[test]
    fn reports_with_gaps_for_ever_do_not_take_memory_for_ever() {
        let mut pop = Pop::new();
        for n in 0..3 * GAPS_MAX as u64 {
            assert!(pop.receive(&report(1, 2 * n + 1, 1000 + n), 5000));
        }
        let incarnation = &pop.incarnations[&1];
        assert_eq!(incarnation.received.as_slice().len(), GAPS_MAX);
        assert_eq!(incarnation.contiguous(), 2 * 2 * GAPS_MAX as u64 + 1, "the oldest gaps are given up");
    }

    #[test]
    fn one_that_was_kept_without_a_date_is_read() {
        let mut pop = Pop::new();
        for (sequence, until) in [(1, 1000), (3, 3000)] {
            pop.receive(&report(7, sequence, until), until);
        }
        let kept = postcard::to_allocvec(&pop).unwrap();
        assert_eq!(Pop::decode(&kept), Some(pop.clone()));
        let undated = postcard::to_allocvec(&(
            &pop.description,
            pop.newest,
            pop.last_report_ms,
            pop.clock_offset_ms,
            &pop.incarnations,
        ));
        assert_eq!(kept.last(), Some(&0), "nothing is over");
        assert_eq!(
            Pop::decode(&kept[..kept.len() - 1]),
            Some(pop.clone()),
            "before it was known what is over"
        );
        pop.described_ms = 0;
        assert_eq!(Pop::decode(&undated.unwrap()), Some(pop));
        assert_eq!(Pop::decode(&kept[..kept.len() / 2]), None);
    }

    fn settled(sequence: u64, oldest: Option<u64>) -> Settled {
        Settled { sequence, oldest }
    }

    #[test]
    fn what_will_not_come_is_not_waited_for() {
        let mut pop = Pop::new();
        pop.receive(&report(1, 5, 5000), 5000);
        assert_eq!(pop.complete_until_ms(), 0, "four are to come, for all that is known");
        pop.settle(1, settled(4, None));
        assert_eq!(pop.complete_until_ms(), 0);
        pop.settle(1, settled(5, None));
        assert_eq!(pop.complete_until_ms(), 5000);
        pop.settle(1, settled(2, None));
        assert_eq!(pop.complete_until_ms(), 5000, "a floor does not go down");
        pop.receive(&report(1, 9, 9000), 9000);
        pop.receive(&report(2, 1, 10_000), 10_000);
        assert_eq!(pop.complete_until_ms(), 5000, "of the first process there is a gap");
        pop.settle(2, settled(1, Some(1)));
        assert_eq!(pop.complete_until_ms(), 5000);
        pop.settle(2, settled(1, Some(2)));
        pop.settle(2, settled(1, Some(1)));
        assert_eq!(pop.complete_until_ms(), 10_000, "which is over");
        assert!(pop.receive(&report(1, 6, 6000), 11_000), "and still can come");
        assert_eq!(pop.complete_until_ms(), 10_000);
    }

    proptest! {
        #[test]
        fn order_repetition_and_partition_of_what_is_said_with_reports_do_not_matter(
            said in prop::collection::vec((1u64..4, 1u64..12, 0u64..12, prop::option::of(0u64..4)), 1..30),
            order in any::<u64>(), cut in 0usize..60,
        ) {
            type Said = (u64, u64, u64, Option<u64>);
            let hear = |pop: &mut Pop, said: &[Said]| {
                for &(incarnation, sequence, below, oldest) in said {
                    pop.receive(&report(incarnation, sequence, 100 * incarnation + sequence), 5000);
                    let oldest = oldest.map(|oldest| oldest.min(incarnation));
                    pop.settle(incarnation, settled(below.clamp(1, sequence), oldest));
                }
            };
            let mut pop = Pop::new();
            hear(&mut pop, &said);
            let mut shuffled: Vec<Said> = said.iter().chain(&said).copied().collect();
            shuffled.sort_by_cached_key(|said| {
                let mut state = std::hash::DefaultHasher::new();
                std::hash::Hash::hash(&(order, said), &mut state);
                std::hash::Hasher::finish(&state)
            });
            // In two parts, written and read in between.
            let (before, after) = shuffled.split_at(cut % shuffled.len());
            let mut other = Pop::new();
            hear(&mut other, before);
            let mut other = Pop::decode(&postcard::to_allocvec(&other).unwrap()).unwrap();
            hear(&mut other, after);
            prop_assert_eq!(other.complete_until_ms(), pop.complete_until_ms());
            prop_assert_eq!(other, pop);
        }

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
