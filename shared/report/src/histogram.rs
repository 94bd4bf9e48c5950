//! Counts by size, in buckets that every process cuts at the same places, so that histograms add up and can be compared.
//!
//! Invariant: a bucket's width is at most a quarter of its lower bound; everything has a bucket.

use serde::{Deserialize, Serialize};

/// Buckets: exact up to 4, then four to a power of two, up to 2^22 (over an hour in milliseconds).
pub const BUCKETS: usize = 84;

/// Counts of values by bucket. Empty buckets at the end are not kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histogram(Vec<u32>);

/// The bucket that a value falls into.
fn bucket(value: u32) -> usize {
    if value < 4 {
        return value as usize;
    }
    let power = value.ilog2();
    let quarter = (value >> (power - 2)) & 3;
    ((power as usize - 1) * 4 + quarter as usize).min(BUCKETS - 1)
}

/// The smallest value that falls into a bucket.
fn lower_bound(bucket: usize) -> u32 {
    if bucket < 4 {
        return u32::try_from(bucket).unwrap_or_default();
    }
    let (power, quarter) = (bucket / 4 + 1, u32::try_from(bucket % 4).unwrap_or_default());
    (4 + quarter) << (power - 2)
}

impl Histogram {
    /// Counts one value.
    pub fn record(&mut self, value: u32) {
        let index = bucket(value);
        if self.0.len() <= index {
            self.0.resize(index + 1, 0);
        }
        self.0[index] = self.0[index].saturating_add(1);
    }

    /// Adds another one's counts.
    pub fn add(&mut self, other: &Self) {
        self.merge(other, u32::saturating_add);
    }

    /// Takes the greater count of each bucket: what is known of one histogram that only grows, from two looks at it.
    pub fn unite(&mut self, other: &Self) {
        self.merge(other, u32::max);
    }

    /// What this one counts that `known` does not: what uniting adds to it.
    #[must_use]
    pub fn beyond(&self, known: &Self) -> Self {
        let known = known.0.iter().copied().chain(std::iter::repeat(0));
        let mut beyond: Vec<u32> =
            self.0.iter().zip(known).map(|(own, known)| own.saturating_sub(known)).collect();
        while beyond.last() == Some(&0) {
            beyond.pop();
        }
        Self(beyond)
    }

    fn merge(&mut self, other: &Self, merged: impl Fn(u32, u32) -> u32) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (own, other) in self.0.iter_mut().zip(&other.0) {
            *own = merged(*own, *other);
        }
    }

    /// How many values were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().copied().map(u64::from).sum()
    }

    /// The smallest value that may be at this place, of 0 to 1, when all are in order; at most a quarter below the real
    /// one. `None` without values.
    #[must_use]
    pub fn quantile(&self, at: f64) -> Option<u32> {
        let count = self.count();
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_sign_loss,
            clippy::cast_possible_truncation,
            reason = "a rank between 1 and the count"
        )]
        let rank = ((at.clamp(0.0, 1.0) * count as f64).ceil() as u64).max(1);
        let mut below = 0;
        let index = self.0.iter().position(|counted| {
            below += u64::from(*counted);
            below >= rank
        })?;
        Some(lower_bound(index))
    }

    /// Whether it is one that this process can work with.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.0.len() <= BUCKETS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn buckets_are_in_order_without_holes() {
        for index in 0..BUCKETS {
            assert_eq!(bucket(lower_bound(index)), index);
            assert!(index == 0 || bucket(lower_bound(index) - 1) == index - 1, "{index}");
        }
        assert_eq!(bucket(u32::MAX), BUCKETS - 1);
    }

    proptest! {
        #[test]
        fn a_quantile_is_at_most_a_quarter_below(mut values in prop::collection::vec(0u32..3_000_000, 1..50), at in 0.0f64..1.0) {
            let mut histogram = Histogram::default();
            values.iter().for_each(|value| histogram.record(*value));
            values.sort_unstable();
            let rank = ((at * values.len() as f64).ceil() as usize).max(1);
            let (exact, found) = (values[rank - 1], histogram.quantile(at).unwrap());
            prop_assert!(found <= exact && exact - found <= found / 4, "{} for {}", found, exact);
        }
    }

    #[test]
    fn uniting_twice_changes_nothing() {
        let (mut older, mut newer) = (Histogram::default(), Histogram::default());
        older.record(10);
        newer.record(10);
        newer.record(5000);
        older.unite(&newer);
        let once = older.clone();
        older.unite(&newer);
        assert_eq!((older.count(), &older), (2, &once));
        assert_eq!(newer.beyond(&older), Histogram::default());
        newer.record(10);
        assert_eq!(newer.beyond(&older).quantile(1.0), Some(10));
        assert_eq!(Histogram::default().quantile(0.5), None);
    }
}
