//! How long an answer of the upstream may be kept: what it says, and no longer (DL-06).
//!
//! Invariant: without a stated lifetime nothing is kept. There is no stale answer: a live playlist that is old is wrong.
#![deny(clippy::disallowed_methods)]

use std::time::Duration;

/// What the upstream said about an answer, and what the edge knows about its key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stated<'a> {
    /// The `Cache-Control` fields, joined by commas.
    pub(crate) cache_control: &'a str,
    /// `Age`, seconds: 0 from an origin, more from another cache.
    pub(crate) age_s: u32,
    /// Whether the status was 2xx.
    pub(crate) success: bool,
    /// [`crate::key::CacheKey::names_a_moment`]
    pub(crate) moment: bool,
}

/// How long the answer may be kept from its arrival on; `None` means not at all. Errors are kept `negative_max` at
/// most, and not at all about moments to come.
pub(crate) fn keep_for(stated: Stated<'_>, negative_max: Duration) -> Option<Duration> {
    let mut max_age = None;
    let mut shared_max_age = None;
    for directive in stated.cache_control.split(',') {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        let name = name.trim();
        let seconds = || value.trim().trim_matches('"').parse::<u32>().ok();
        if ["no-store", "no-cache", "private"].iter().any(|word| name.eq_ignore_ascii_case(word)) {
            return None;
        } else if name.eq_ignore_ascii_case("max-age") {
            max_age = seconds();
        } else if name.eq_ignore_ascii_case("s-maxage") {
            shared_max_age = seconds();
        }
    }
    let lifetime_s = shared_max_age.or(max_age)?.saturating_sub(stated.age_s);
    let lifetime = Duration::from_secs(lifetime_s.into());
    let kept = match (stated.success, stated.moment) {
        (true, _) => lifetime,
        (false, false) => lifetime.min(negative_max),
        (false, true) => return None,
    };
    (!kept.is_zero()).then_some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn obeys_what_is_stated() {
        for (cache_control, age_s, expected) in [
            ("max-age=12", 0, Some(12)),
            ("public, max-age=12, immutable", 0, Some(12)),
            ("max-age=12", 5, Some(7)),
            ("max-age=12", 12, None),
            ("max-age=12, s-maxage=3", 0, Some(3)),
            ("Max-Age=\"4\"", 0, Some(4)),
            ("max-age=0", 0, None),
            ("max-age=12, no-store", 0, None),
            ("private, max-age=12", 0, None),
            ("no-cache", 0, None),
            ("max-age=soon", 0, None),
            ("max-age=-1", 0, None),
            ("", 0, None),
        ] {
            let stated = Stated { cache_control, age_s, success: true, moment: true };
            assert_eq!(
                keep_for(stated, Duration::from_secs(1)),
                expected.map(Duration::from_secs),
                "{cache_control} {age_s}"
            );
        }
    }

    #[test]
    fn errors_are_kept_briefly_and_never_about_moments() {
        for (moment, max_age, expected_ms) in
            [(false, 8, Some(1500)), (false, 1, Some(1000)), (true, 8, None)]
        {
            let stated =
                Stated { cache_control: &format!("max-age={max_age}"), age_s: 0, success: false, moment };
            assert_eq!(keep_for(stated, Duration::from_millis(1500)), expected_ms.map(Duration::from_millis));
        }
    }
}
