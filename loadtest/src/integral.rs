//! What comes and goes, added up over time: viewer-seconds, and seconds of their renditions.
#![deny(clippy::disallowed_methods)]

/// A count, and its sum over time since it was taken last. Times are microseconds of one clock.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Integral {
    count: u64,
    since_us: u64,
    sum_us: u64,
}

impl Integral {
    /// Of what is counted here, `from` is `to` from now on.
    pub(crate) fn change(&mut self, now_us: u64, from: u64, to: u64) {
        self.sum_up(now_us);
        self.count = self.count.saturating_sub(from).saturating_add(to);
    }

    /// The sum since the last call: count times microseconds.
    pub(crate) fn take(&mut self, now_us: u64) -> u64 {
        self.sum_up(now_us);
        std::mem::take(&mut self.sum_us)
    }

    fn sum_up(&mut self, now_us: u64) {
        self.sum_us += self.count * now_us.saturating_sub(self.since_us);
        self.since_us = self.since_us.max(now_us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn everybody_counts_for_as_long_as_they_were_there(
            stays in prop::collection::vec((0..1_000_u64, 0..1_000_u64, 1..3_u64), 0..20),
            cut in 0..2_000_u64,
        ) {
            let mut changes: Vec<(u64, u64, u64)> = stays
                .iter()
                .flat_map(|(from, length, weight)| [(*from, 0, *weight), (from + length, *weight, 0)])
                .collect();
            changes.sort_by_key(|change| change.0);
            let mut integral = Integral::default();
            let (before, after) = changes.iter().partition::<Vec<_>, _>(|change| change.0 <= cut);
            let apply = |integral: &mut Integral, changes: &[&(u64, u64, u64)]| {
                changes.iter().for_each(|(at, from, to)| integral.change(*at, *from, *to));
            };
            apply(&mut integral, &before);
            let first = integral.take(cut);
            apply(&mut integral, &after);
            let second = integral.take(2_000);
            let of = |begin: u64, end: u64| -> u64 {
                let shared = |from: u64, to: u64| to.min(end).saturating_sub(from.max(begin));
                stays.iter().map(|(from, length, weight)| weight * shared(*from, from + length)).sum()
            };
            prop_assert_eq!((first, second), (of(0, cut), of(cut, 2_000)));
        }
    }
}
