//! How fast is written to disk, so that writing leaves the disk, and what else uses it, alone.
//!
//! Invariant: over any stretch of time, what was let through is at most the rate times its length, and one piece.
#![deny(clippy::disallowed_methods)]

use std::time::{Duration, Instant};

/// See the module.
#[derive(Debug)]
pub(super) struct Pace {
    bytes_per_s: f64,
    /// When everything that was let through so far is through at this rate.
    through_at: Instant,
}

impl Pace {
    /// Lets `bytes_per_s` through, from `now` on.
    pub(super) fn new(bytes_per_s: u64, now: Instant) -> Self {
        Self { bytes_per_s: bytes_per_s.max(1) as f64, through_at: now }
    }

    /// How long `bytes` more have to wait.
    pub(super) fn wait(&mut self, bytes: usize, now: Instant) -> Duration {
        let start = self.through_at.max(now);
        self.through_at = start + Duration::from_secs_f64(bytes as f64 / self.bytes_per_s);
        start - now
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        fn never_faster_and_never_late(steps in prop::collection::vec((0..5_000u64, 1..100_000usize), 1..50)) {
            let began = Instant::now();
            let (mut pace, mut now) = (Pace::new(1_000_000, began), began);
            let (mut before, mut busy_since, mut at_once) = (0usize, began, true);
            for (rest_ms, bytes) in steps {
                let wait = pace.wait(bytes, now);
                // As soon as the rate allows: what went out since it was last idle fits the time since then.
                let allowed = busy_since + Duration::from_secs_f64(before as f64 / 1e6);
                if allowed <= now {
                    (busy_since, before, at_once) = (now, 0, true);
                }
                prop_assert_eq!(wait.is_zero(), at_once);
                let let_through = now + wait;
                let expected = busy_since + Duration::from_secs_f64(before as f64 / 1e6);
                let off = let_through.max(expected) - let_through.min(expected);
                prop_assert!(off < Duration::from_micros(1), "{off:?}");
                before += bytes;
                at_once = false;
                now = let_through + Duration::from_micros(rest_ms * 50);
            }
        }
    }
}
