//! The secrets of session paths: when a new one is made, when it begins to sign and when an old one is forgotten.
//!
//! Invariants: edges know a secret for [`SPREAD_MS`] before it signs, so that a viewer can go from one edge to another; a
//! secret verifies for as long as the longest session after the next one signs.
#![deny(clippy::disallowed_methods)]

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sigma_token::policy::SessionSecret;

/// How long before it signs a secret is told to the edges.
pub(super) const SPREAD_MS: u64 = 60_000;

/// When what happens, milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schedule {
    /// From one secret to the next.
    pub(super) rotation_ms: u64,
    /// The longest session.
    pub(super) session_max_ms: u64,
}

/// 32 random bytes.
pub(super) type Secret = [u8; 32];

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Key {
    kid: u8,
    #[serde(serialize_with = "encode", deserialize_with = "decode")]
    secret: Secret,
    made_ms: u64,
}

impl Key {
    fn signs_from_ms(&self) -> u64 {
        self.made_ms.saturating_add(SPREAD_MS)
    }
}

/// The secrets there are, the oldest first.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SessionKeys {
    keys: Vec<Key>,
}

impl SessionKeys {
    /// Makes what is due and forgets what is over; returns whether anything changed.
    pub(super) fn advance(
        &mut self,
        now_ms: u64,
        schedule: Schedule,
        secret: impl FnOnce() -> Secret,
    ) -> bool {
        let before = self.keys.len();
        let over = |next: &Key| next.signs_from_ms().saturating_add(schedule.session_max_ms) <= now_ms;
        while self.keys.get(1).is_some_and(over) {
            self.keys.remove(0);
        }
        let due = |last: &Key| now_ms >= last.made_ms.saturating_add(schedule.rotation_ms);
        let is_due = self.keys.last().is_none_or(due);
        if is_due {
            let kid = self.keys.last().map_or(1, |last| last.kid.wrapping_add(1));
            self.keys.push(Key { kid, secret: secret(), made_ms: now_ms });
        }
        is_due || self.keys.len() != before
    }

    /// As edges are told, the newest first.
    pub(super) fn secrets(&self, now_ms: u64) -> Vec<SessionSecret> {
        // The first secret of all signs at once, and so does the oldest should the clock have gone back.
        let signs = self.keys.iter().rposition(|key| key.signs_from_ms() <= now_ms).unwrap_or(0);
        let secrets = self.keys.iter().enumerate().rev();
        secrets.map(|(n, key)| SessionSecret::new(key.kid, &key.secret, n == signs)).collect()
    }

    /// When something changes next, Unix milliseconds.
    pub(super) fn next_change_ms(&self, now_ms: u64, schedule: Schedule) -> u64 {
        let Some(last) = self.keys.last() else { return now_ms };
        let rotation = last.made_ms.saturating_add(schedule.rotation_ms);
        let forgotten =
            self.keys.get(1).map(|next| next.signs_from_ms().saturating_add(schedule.session_max_ms));
        let signs = (self.keys.len() > 1).then(|| last.signs_from_ms());
        [Some(rotation), forgotten, signs]
            .into_iter()
            .flatten()
            .filter(|at| *at > now_ms)
            .min()
            .unwrap_or(now_ms)
    }
}

/// The secrets of a moment, the newest first, when each period of `rotation_ms` has one that everybody can work out: the
/// origins of a cluster agree without a word.
pub(super) fn of_periods(
    now_ms: u64,
    schedule: Schedule,
    secret: impl Fn(u64) -> Secret,
) -> Vec<SessionSecret> {
    let period = |at_ms: u64| at_ms / schedule.rotation_ms;
    let oldest = period(now_ms.saturating_sub(schedule.session_max_ms.saturating_add(SPREAD_MS)));
    let (signs, newest) = (period(now_ms), period(now_ms.saturating_add(SPREAD_MS)));
    // Numbers wrap around long after a secret is forgotten.
    let kid = |period: u64| u8::try_from(period % 256).unwrap_or_default();
    (oldest..=newest).rev().map(|n| SessionSecret::new(kid(n), &secret(n), n == signs)).collect()
}

/// When [`of_periods`] changes next, Unix milliseconds.
pub(super) fn next_of_periods_ms(now_ms: u64, schedule: Schedule) -> u64 {
    let boundary = |after_ms: u64| (after_ms / schedule.rotation_ms + 1).saturating_mul(schedule.rotation_ms);
    let kept_ms = schedule.session_max_ms.saturating_add(SPREAD_MS);
    let told = boundary(now_ms.saturating_add(SPREAD_MS)).saturating_sub(SPREAD_MS);
    let forgotten = boundary(now_ms.saturating_sub(kept_ms)).saturating_add(kept_ms);
    boundary(now_ms).min(told).min(forgotten)
}

impl std::fmt::Debug for SessionKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|key| (key.kid, key.made_ms))).finish()
    }
}

pub(super) fn encode<S: Serializer>(secret: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&URL_SAFE_NO_PAD.encode(secret))
}

pub(super) fn decode<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
    let text = String::deserialize(deserializer)?;
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(D::Error::custom)?;
    bytes.try_into().map_err(|_| D::Error::custom("32 bytes in base64url are expected"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;
    const SCHEDULE: Schedule = Schedule { rotation_ms: 24 * HOUR, session_max_ms: 36 * HOUR };

    fn kids(keys: &SessionKeys, now_ms: u64) -> Vec<(u8, bool)> {
        keys.secrets(now_ms).iter().map(|secret| (secret.kid, secret.signs)).collect()
    }

    #[test]
    fn a_secret_is_known_before_it_signs_and_good_after_it_did() {
        let mut keys = SessionKeys::default();
        let start = 1_790_000_000_000;
        assert!(keys.advance(start, SCHEDULE, || [1; 32]));
        assert!(!keys.advance(start, SCHEDULE, || [9; 32]), "nothing is due");
        assert_eq!(kids(&keys, start), [(1, true)]);
        let day = keys.next_change_ms(start, SCHEDULE);
        assert_eq!(day, start + 24 * HOUR);
        assert!(keys.advance(day, SCHEDULE, || [2; 32]));
        assert_eq!(kids(&keys, day), [(2, false), (1, true)]);
        let signs = keys.next_change_ms(day, SCHEDULE);
        assert_eq!((signs, kids(&keys, signs)), (day + SPREAD_MS, vec![(2, true), (1, false)]));
        let second = keys.next_change_ms(signs, SCHEDULE);
        assert!(keys.advance(second, SCHEDULE, || [3; 32]));
        let over = signs + SCHEDULE.session_max_ms;
        assert!(!keys.advance(over - 1, SCHEDULE, || [9; 32]));
        assert!(keys.advance(over, SCHEDULE, || [9; 32]));
        assert_eq!(kids(&keys, over), [(3, true), (2, false)]);
    }

    #[test]
    fn there_is_always_one_that_signs_whatever_the_clock_does() {
        let mut keys = SessionKeys::default();
        for now in [100 * HOUR, 130 * HOUR, 1, 131 * HOUR, 5000 * HOUR, 0] {
            keys.advance(now, SCHEDULE, || [1; 32]);
            assert_eq!(keys.secrets(now).iter().filter(|secret| secret.signs).count(), 1);
            assert!(keys.keys.len() <= 4);
        }
    }

    #[test]
    fn origins_that_share_a_secret_agree_and_hand_over_without_a_gap() {
        let secret = |period: u64| [u8::try_from(period % 251).expect("small"); 32];
        let (start, hour) = (1_790_000_000_000 / (24 * HOUR) * (24 * HOUR), HOUR);
        let at = |now_ms: u64| of_periods(now_ms, SCHEDULE, secret);
        let mut now_ms = start;
        let mut before = at(now_ms);
        for _ in 0..12 {
            let next = next_of_periods_ms(now_ms, SCHEDULE);
            assert!(next > now_ms && next <= now_ms + 24 * hour);
            assert_eq!(at(next - 1), before, "nothing changes before");
            assert_ne!(at(next), before, "something changes then");
            (now_ms, before) = (next, at(next));
            assert_eq!(before.iter().filter(|key| key.signs).count(), 1);
            // An origin or edge whose clock is off by half a minute signs with what is known here.
            for skewed in [now_ms - 30_000, now_ms + 30_000] {
                let signs = at(skewed).into_iter().find(|key| key.signs).expect("one signs");
                assert!(before.iter().any(|key| key.secret == signs.secret), "{skewed}");
            }
            let aged = of_periods(now_ms - SCHEDULE.session_max_ms, SCHEDULE, secret);
            let signed = aged.iter().find(|key| key.signs).expect("one signs");
            assert!(
                before.iter().any(|key| key.secret == signed.secret),
                "the longest session is still good"
            );
        }
    }

    #[test]
    fn it_is_kept_and_never_shown() {
        let mut keys = SessionKeys::default();
        keys.advance(1, SCHEDULE, || [7; 32]);
        let kept = serde_json::to_string(&keys).expect("text");
        assert!(serde_json::from_str::<SessionKeys>(&kept).expect("read") == keys);
        assert!(!format!("{keys:?}").contains("Bwc"));
    }
}
