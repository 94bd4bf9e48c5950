//! Sets of stretches of time: what a session watched, when it was present.
//!
//! Invariants: spans are in order, apart from each other and not empty; uniting is commutative, associative and
//! idempotent. Units are the caller's.

use serde::{Deserialize, Serialize};

/// A stretch from `start` to before `end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Span {
    /// The first moment of it.
    pub start: u64,
    /// The first moment after it.
    pub end: u64,
}

impl Span {
    /// A span, if it is not empty.
    #[must_use]
    pub fn new(start: u64, end: u64) -> Option<Self> {
        (start < end).then_some(Self { start, end })
    }

    /// How long it is.
    #[must_use]
    pub fn length(self) -> u64 {
        self.end.saturating_sub(self.start)
    }
}

/// A set of moments, as the spans that it consists of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<Span>", into = "Vec<Span>")]
pub struct Spans(Vec<Span>);

impl From<Vec<Span>> for Spans {
    fn from(spans: Vec<Span>) -> Self {
        spans.into_iter().collect()
    }
}

impl From<Spans> for Vec<Span> {
    fn from(spans: Spans) -> Self {
        spans.0
    }
}

impl Spans {
    /// Adds a span. Returns the parts of it that were not there before, in order; mostly one or none. One that is empty, or
    /// ends before it starts, adds nothing.
    pub fn insert(&mut self, span: Span) -> Vec<Span> {
        if span.start >= span.end {
            return Vec::new();
        }
        // The newest is at the end and goes on: the common case allocates nothing but its answer.
        let first = self.0.partition_point(|known| known.end < span.start);
        let last = first + self.0[first..].partition_point(|known| known.start <= span.end);
        let mut added = Vec::new();
        let mut from = span.start;
        for known in &self.0[first..last] {
            added.extend(Span::new(from, known.start.min(span.end)));
            from = from.max(known.end);
        }
        added.extend(Span::new(from, span.end));
        let touched = &self.0[first..last];
        let start = touched.first().map_or(span.start, |known| known.start.min(span.start));
        let end = touched.last().map_or(span.end, |known| known.end.max(span.end));
        self.0.splice(first..last, [Span { start, end }]);
        added
    }

    /// The spans, in order.
    #[must_use]
    pub fn as_slice(&self) -> &[Span] {
        &self.0
    }

    /// The sum of all lengths.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.0.iter().fold(0, |sum: u64, span| sum.saturating_add(span.length()))
    }

    /// Whether a moment is in it.
    #[must_use]
    pub fn contains(&self, moment: u64) -> bool {
        let index = self.0.partition_point(|span| span.end <= moment);
        self.0.get(index).is_some_and(|span| span.start <= moment)
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Everything in it, which is nothing afterwards.
    pub fn take(&mut self) -> Vec<Span> {
        std::mem::take(&mut self.0)
    }
}

impl FromIterator<Span> for Spans {
    fn from_iter<I: IntoIterator<Item = Span>>(iter: I) -> Self {
        let mut spans = Self::default();
        for span in iter {
            spans.insert(span);
        }
        spans
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn span() -> impl Strategy<Value = Span> {
        (0u64..60, 1u64..12).prop_map(|(start, length)| Span { start, end: start + length })
    }

    proptest! {
        #[test]
        fn it_is_the_set_of_its_moments(spans in prop::collection::vec(span(), 0..20)) {
            let (mut set, mut moments) = (Spans::default(), BTreeSet::new());
            for span in &spans {
                let added: Vec<u64> =
                    set.insert(*span).into_iter().flat_map(|added| added.start..added.end).collect();
                let new: Vec<u64> = (span.start..span.end).filter(|moment| moments.insert(*moment)).collect();
                prop_assert_eq!(added, new, "what is new, once");
            }
            prop_assert_eq!(set.length(), moments.len() as u64);
            for moment in 0..80 {
                prop_assert_eq!(set.contains(moment), moments.contains(&moment));
            }
            prop_assert!(set.as_slice().windows(2).all(|pair| pair[0].end < pair[1].start), "{:?}", set);
        }

        #[test]
        fn order_and_repetition_do_not_matter(spans in prop::collection::vec(span(), 0..12), seed: u64) {
            let once: Spans = spans.iter().copied().collect();
            let mut shuffled = [spans.clone(), spans].concat();
            let length = shuffled.len().max(1);
            for index in 0..shuffled.len() {
                let random = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(index as u64) >> 33;
                shuffled.swap(index, usize::try_from(random).unwrap() % length);
            }
            prop_assert_eq!(shuffled.into_iter().collect::<Spans>(), once);
        }
    }
}
