//! Durations counted in steps of about 3 %: small enough to keep one histogram for each second of a run.
//!
//! Invariants: every process cuts the same steps, so histograms add up without loss; only steps that something fell
//! into take room.
#![deny(clippy::disallowed_methods)]

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Steps to a power of two, as bits.
const BITS: u32 = 5;

/// `[[step, count], ...]` in order. Up to 32 microseconds a step is a microsecond; then 32 steps to a power of two.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Steps(Vec<(u16, u64)>);

fn step(us: u32) -> u16 {
    if us < 1 << BITS {
        return us as u16;
    }
    let power = us.ilog2();
    let within = (us >> (power - BITS)) & ((1 << BITS) - 1);
    (((power - BITS + 1) << BITS) + within) as u16
}

/// The middle of a step, microseconds.
fn middle(step: u16) -> f64 {
    let (octave, within) = (u32::from(step) >> BITS, u32::from(step) & ((1 << BITS) - 1));
    if octave == 0 {
        return f64::from(within);
    }
    // A step beyond all durations can only come from a file that somebody wrote by hand.
    let width = 2_f64.powi(i32::try_from(octave - 1).unwrap_or(i32::MAX));
    (f64::from((1 << BITS) + within) + 0.5) * width
}

impl Steps {
    pub(crate) fn record(&mut self, duration: Duration) {
        let us = u32::try_from(duration.as_micros()).unwrap_or(u32::MAX);
        self.count(step(us), 1);
    }

    fn count(&mut self, step: u16, count: u64) {
        match self.0.binary_search_by_key(&step, |(step, _)| *step) {
            Ok(at) => self.0[at].1 += count,
            Err(at) => self.0.insert(at, (step, count)),
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        for (step, count) in &other.0 {
            self.count(*step, *count);
        }
    }

    pub(crate) fn len(&self) -> u64 {
        self.0.iter().map(|(_, count)| count).sum()
    }

    /// The value at this place, of 0 to 1, when all are in order: milliseconds, within 2 %. `None` without values.
    pub(crate) fn quantile_ms(&self, at: f64) -> Option<f64> {
        let rank = ((at.clamp(0.0, 1.0) * self.len() as f64).ceil() as u64).max(1);
        let mut below = 0;
        let (step, _) = self.0.iter().find(|(_, count)| {
            below += count;
            below >= rank
        })?;
        Some(middle(*step) / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn steps(us: &[u32]) -> Steps {
        let mut steps = Steps::default();
        for us in us {
            steps.record(Duration::from_micros(u64::from(*us)));
        }
        steps
    }

    #[test]
    fn steps_are_in_order_without_holes() {
        let mut last = 0;
        for us in (0..5000).chain((5000..u32::MAX - 200_000).step_by(100_003)).chain([u32::MAX]) {
            let step = step(us);
            assert!(step == last || us > 5000 && step > last || step == last + 1, "{us}: {last} {step}");
            assert!((middle(step) - f64::from(us)).abs() <= 0.016 * f64::from(us) + 0.5, "{us}");
            last = step;
        }
        assert_eq!(Steps::default().quantile_ms(0.5), None);
    }

    proptest! {
        #[test]
        fn quantiles_are_near_and_sums_are_exact(
            mut a in prop::collection::vec(any::<u32>(), 1..60),
            b in prop::collection::vec(0..2_000_000_u32, 0..60),
            at in 0.0..=1.0_f64,
        ) {
            let mut sum = steps(&a);
            sum.add(&steps(&b));
            a.extend(b);
            prop_assert_eq!(&sum, &steps(&a));
            a.sort_unstable();
            let rank = ((at * a.len() as f64).ceil() as usize).max(1) - 1;
            let (exact, found) = (f64::from(a[rank]) / 1000.0, sum.quantile_ms(at).unwrap());
            prop_assert!((found - exact).abs() <= 0.016 * exact + 0.0005, "{} {}", found, exact);
        }
    }
}
