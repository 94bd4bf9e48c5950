//! How many different viewers there were.
//!
//! Invariants: exact up to a bound; beyond it the smallest hashes of that number are kept, and how densely they lie tells
//! how many there are (k minimum values). Either way the state is a function of the set of all that were added.
#![deny(clippy::disallowed_methods)]

use std::collections::BTreeSet;

/// Viewers that are told apart exactly on a channel as a whole; beyond, the count is right within about 0.2 %.
pub const CHANNEL_MAX: usize = 2_000_000;
/// The same of one POP, protocol or broadcast session of it; beyond, within about 0.6 %.
pub const PART_MAX: usize = 262_144;

/// A set of viewers, by hash.
#[derive(Debug, Clone)]
pub struct Uniques {
    smallest: BTreeSet<u64>,
    max: usize,
    /// Something was left out.
    estimated: bool,
    /// Added since the set was last written.
    pub(crate) unsaved: Vec<u64>,
}

impl Uniques {
    /// An empty set that keeps this many, at least 2.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { smallest: BTreeSet::new(), max: max.max(2), estimated: false, unsaved: Vec::new() }
    }

    /// Adds one. Its hash is mixed once more: nothing is asked of it but to differ from others.
    pub fn add(&mut self, viewer: u64) {
        let mixed = mix(viewer);
        if self.put(mixed) {
            self.unsaved.push(mixed);
        }
    }

    /// Adds one that is mixed already; whether it was new.
    pub(crate) fn put(&mut self, mixed: u64) -> bool {
        if self.estimated && self.smallest.last().is_some_and(|last| *last < mixed) {
            return false;
        }
        let new = self.smallest.insert(mixed);
        if self.smallest.len() > self.max {
            self.smallest.pop_last();
            self.estimated = true;
        }
        new
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        *self = Self::new(self.max);
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        let kept = self.smallest.len() as u64;
        match self.smallest.last() {
            Some(last) if self.estimated => {
                let estimate = u128::from(kept - 1) * (u128::from(u64::MAX) + 1) / u128::from((*last).max(1));
                u64::try_from(estimate).unwrap_or(u64::MAX)
            }
            _ => kept,
        }
    }

    /// Whether the count is an estimate.
    #[must_use]
    pub fn is_estimated(&self) -> bool {
        self.estimated
    }

    #[cfg(test)]
    pub(crate) fn hashes(&self) -> impl Iterator<Item = u64> + '_ {
        self.smallest.iter().copied()
    }
}

/// Spreads hashes evenly (the finaliser of SplitMix64), one to one.
fn mix(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_up_to_the_bound_and_near_beyond_it() {
        let mut uniques = Uniques::new(10_000);
        for viewer in (0..10_000u64).chain(0..10_000) {
            uniques.add(viewer);
        }
        assert_eq!((uniques.count(), uniques.is_estimated()), (10_000, false));
        for viewer in 0..200_000u64 {
            uniques.add(viewer);
        }
        assert!(uniques.is_estimated());
        assert!(uniques.count().abs_diff(200_000) < 6_000, "{}", uniques.count());
    }

    #[test]
    fn order_does_not_matter_beyond_the_bound() {
        let (mut up, mut down) = (Uniques::new(50), Uniques::new(50));
        (0..500u64).for_each(|viewer| up.add(viewer));
        (0..500u64).rev().chain(0..500).for_each(|viewer| down.add(viewer));
        assert!(up.hashes().eq(down.hashes()));
        assert_eq!(up.count(), down.count());
    }
}
