//! When an operator is told that a certificate ends.
#![deny(clippy::disallowed_methods)]

const DAY_S: i64 = 86_400;

/// What there is to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Notice {
    /// It ends within this many days.
    Days(u8),
    /// It has ended.
    Expired,
}

/// The notice for a certificate of `lifetime_s` that ends in `left_s` seconds. Days that are more than a third of the
/// lifetime are not told: a certificate of six days is not about to expire from the day it was made.
pub(super) fn notice(left_s: i64, lifetime_s: u64) -> Option<Notice> {
    if left_s <= 0 {
        return Some(Notice::Expired);
    }
    let lifetime = i64::try_from(lifetime_s).unwrap_or(i64::MAX);
    let told = |days: &u8| {
        let span = i64::from(*days) * DAY_S;
        left_s <= span && span <= lifetime / 3
    };
    [1, 7, 21].into_iter().find(told).map(Notice::Days)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_by_what_is_left() {
        let day = DAY_S;
        for (left, lifetime_days, expected) in [
            (90 * day, 90, None),
            (21 * day + 1, 90, None),
            (21 * day, 90, Some(Notice::Days(21))),
            (7 * day, 90, Some(Notice::Days(7))),
            (day, 90, Some(Notice::Days(1))),
            (1, 90, Some(Notice::Days(1))),
            (0, 90, Some(Notice::Expired)),
            (-day, 6, Some(Notice::Expired)),
            (5 * day, 6, None),
            (day, 6, Some(Notice::Days(1))),
            (3600, 1, None),
        ] {
            assert_eq!(notice(left, lifetime_days * 86_400), expected, "{left} of {lifetime_days} days");
        }
    }
}
