//! When a certificate is renewed, and when a failed order is tried again. Times are Unix seconds; `chance` is 0 to 1.
#![deny(clippy::disallowed_methods)]

use std::time::Duration;

const RETRY_FIRST_S: u64 = 60;
const RETRY_MAX_S: u64 = 6 * 3600;

/// Two thirds into the lifetime, or up to a twentieth of it later, so that a fleet does not come at once.
pub(super) fn renew_at(not_before: u64, not_after: u64, chance: f64) -> u64 {
    let lifetime = Duration::from_secs(not_after.saturating_sub(not_before));
    let part = 2.0 / 3.0 + chance.clamp(0.0, 1.0) / 20.0;
    not_before.saturating_add(lifetime.mul_f64(part).as_secs())
}

/// The rest after this many failures in a row: a minute, doubling up to six hours, of which up to half is random.
pub(super) fn retry_after(failures: u32, chance: f64) -> Duration {
    let doubled = RETRY_FIRST_S.saturating_mul(1 << failures.saturating_sub(1).min(16));
    Duration::from_secs(doubled.min(RETRY_MAX_S)).mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_falls_between_two_thirds_and_three_quarters() {
        for (lifetime, chance, after) in [(90, 0.0, 60), (90, 1.0, 64), (6, 0.5, 4), (0, 1.0, 0)] {
            let day = 86_400;
            assert_eq!(
                (renew_at(1_000, 1_000 + lifetime * day, chance) - 1_000) / day,
                after,
                "{lifetime} days"
            );
        }
        assert_eq!(renew_at(10, 5, 0.5), 10, "one that ends before it begins is due");
    }

    #[test]
    fn rests_grow_and_stay_bounded() {
        let mut last = Duration::ZERO;
        for failures in 1..100 {
            let (least, most) = (retry_after(failures, 0.0), retry_after(failures, 1.0));
            assert!(least >= Duration::from_secs(30) && most <= Duration::from_secs(RETRY_MAX_S));
            assert!(most >= last && least * 2 == most);
            last = most;
        }
        assert_eq!(last, Duration::from_secs(RETRY_MAX_S));
    }
}
