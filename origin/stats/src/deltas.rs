//! What one report adds: to be put where the counters are. Sums, so their order does not matter.
#![deny(clippy::disallowed_methods)]

use crate::totals::Quality;
use sigma_report::report::Protocol;
use sigma_report::spans::{Span, Spans};
use std::collections::BTreeMap;
use std::ops::Range;

/// What is added to one second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SecondDelta {
    /// Less than nothing when a view turns out to have begun earlier.
    pub(crate) views: i64,
    pub(crate) bytes: u64,
    pub(crate) requests: u64,
}

/// What is added to a scope.
#[derive(Debug, Clone, Default)]
pub(crate) struct ScopeDelta {
    pub(crate) watch_us: u64,
    pub(crate) wall_ms: u64,
    pub(crate) views: u64,
    pub(crate) bytes: u64,
    pub(crate) requests: u64,
    pub(crate) quality: Quality,
    pub(crate) viewers: Vec<u64>,
    pub(crate) seconds: BTreeMap<u64, SecondDelta>,
    /// By how much the viewers become more, or fewer, from a second on: a session that was there for a day is two of these.
    pub(crate) steps: BTreeMap<u64, i64>,
}

/// What is added to a channel. Broadcast sessions by their place in the channel's list.
#[derive(Debug, Clone, Default)]
pub(crate) struct ChannelDelta {
    pub(crate) all: ScopeDelta,
    pub(crate) pop: ScopeDelta,
    pub(crate) protocols: BTreeMap<Protocol, ScopeDelta>,
    pub(crate) broadcasts: BTreeMap<u64, ScopeDelta>,
}

impl ScopeDelta {
    pub(crate) fn second(&mut self, second: u64) -> &mut SecondDelta {
        self.seconds.entry(second).or_default()
    }

    /// One more viewer in each of these seconds.
    pub(crate) fn present(&mut self, seconds: &Range<u64>) {
        if seconds.start < seconds.end {
            *self.steps.entry(seconds.start).or_default() += 1;
            *self.steps.entry(seconds.end).or_default() -= 1;
        }
    }

    /// So many bytes and requests more.
    pub(crate) fn traffic(&mut self, (bytes, requests): (u64, u64)) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.requests = self.requests.saturating_add(requests);
    }

    /// Seconds with the same number of viewers more than none, in order.
    pub(crate) fn stretches(&self) -> impl Iterator<Item = (Range<u64>, u32)> + '_ {
        let ends = self.steps.keys().skip(1).copied();
        let steps = self.steps.iter().zip(ends).scan(0i64, |viewers, ((from, step), until)| {
            *viewers += step;
            Some((*from..until, u32::try_from(*viewers).unwrap_or(0)))
        });
        steps.filter(|(_, viewers)| *viewers > 0)
    }

    /// The minutes that something is added to, as far as they are within these seconds.
    pub(crate) fn minutes(&self, within: &Range<u64>) -> Spans {
        let seconds = self.seconds.keys().map(|second| *second..second.saturating_add(1));
        let touched = seconds.chain(self.stretches().map(|(seconds, _)| seconds));
        let within =
            |seconds: Range<u64>| Span::new(seconds.start.max(within.start), seconds.end.min(within.end));
        touched
            .filter_map(within)
            .filter_map(|span| Span::new(span.start / 60, (span.end - 1) / 60 + 1))
            .collect()
    }

    /// A view that was not there, or began at another second than was known.
    pub(crate) fn view(&mut self, before: Option<Option<u64>>, after: Option<Option<u64>>) {
        if before == after {
            return;
        }
        self.views += u64::from(before.is_none());
        if let Some(second) = before.flatten() {
            self.second(second).views -= 1;
        }
        if let Some(second) = after.flatten() {
            self.second(second).views += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn stretches_are_the_sum_of_what_was_there(seconds in prop::collection::vec((0u64..300, 0u64..200), 0..20)) {
            let mut delta = ScopeDelta::default();
            let mut expected: BTreeMap<u64, u32> = BTreeMap::new();
            for (start, length) in &seconds {
                delta.present(&(*start..start + length));
                (*start..start + length).for_each(|second| *expected.entry(second).or_default() += 1);
            }
            let found: BTreeMap<u64, u32> = delta.stretches()
                .flat_map(|(seconds, viewers)| seconds.map(move |second| (second, viewers))).collect();
            prop_assert_eq!(&found, &expected);
            let minutes: Vec<u64> = delta.minutes(&(60..400)).as_slice().iter().flat_map(|span| span.start..span.end).collect();
            let mut touched: Vec<u64> = expected.keys().filter(|second| (60..400).contains(*second)).map(|second| second / 60).collect();
            touched.dedup();
            prop_assert_eq!(minutes, touched);
        }
    }

    #[test]
    fn a_day_of_many_costs_no_more_than_a_second_of_them() {
        let mut delta = ScopeDelta::default();
        for viewer in 0..20 {
            delta.present(&(1_790_000_000 + viewer..1_790_000_000 + 86_400 + viewer));
        }
        assert_eq!((delta.steps.len(), delta.seconds.len()), (40, 0));
    }
}
