//! Channels that the upstream has not had anything of lately: how often it is asked for them.
//!
//! Invariants: whoever asks for one invented name after the other costs a bounded number of upstream requests, and a table of
//! bounded size; a channel that is on is never held up, as its first answer makes it known. Where there is a policy, names
//! that it does not know never get here.

use moka::sync::Cache;
use sigma_shared::id::ChannelId;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Channels remembered; about 200 bytes each.
const KNOWN_MAX: u64 = 20_000;
/// A channel that nobody asked for this long is a stranger again.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);
/// So many seconds' worth of questions may come at once: an edge that starts knows nobody.
const BURST_S: f64 = 10.0;

/// See the module.
pub(crate) struct Strangers {
    known: Cache<ChannelId, ()>,
    per_s: f64,
    bucket: Mutex<Bucket>,
}

struct Bucket {
    left: f64,
    at: Instant,
}

impl Strangers {
    /// Lets `per_s` questions about unknown channels through in a second, and ten times as many at once.
    pub(crate) fn new(per_s: u32, now: Instant) -> Self {
        let per_s = f64::from(per_s);
        let known = Cache::builder().max_capacity(KNOWN_MAX).time_to_idle(FORGOTTEN_AFTER).build();
        Self { known, per_s, bucket: Mutex::new(Bucket { left: per_s * BURST_S, at: now }) }
    }

    /// Whether the upstream may be asked for something of a channel.
    pub(crate) fn may_ask(&self, channel: &ChannelId, now: Instant) -> bool {
        if self.known.get(channel).is_some() {
            return true;
        }
        let mut bucket = self.bucket.lock().unwrap_or_else(PoisonError::into_inner);
        let since = now.saturating_duration_since(bucket.at).as_secs_f64();
        bucket.at = now;
        bucket.left = (bucket.left + since * self.per_s).min(self.per_s * BURST_S);
        let may = bucket.left >= 1.0;
        if may {
            bucket.left -= 1.0;
        }
        may
    }

    /// The upstream has something of it.
    pub(crate) fn exists(&self, channel: &ChannelId) {
        if self.known.get(channel).is_none() {
            self.known.insert(channel.clone(), ());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_are_asked_for_at_a_rate_and_those_known_always() {
        let begin = Instant::now();
        let strangers = Strangers::new(2, begin);
        let channel = |n: usize| -> ChannelId { format!("c{n}").parse().unwrap() };
        let asked =
            |from: usize, now| (from..from + 100).filter(|n| strangers.may_ask(&channel(*n), now)).count();
        assert_eq!(asked(0, begin), 20);
        strangers.exists(&channel(7));
        assert_eq!(asked(0, begin), 1, "the one that is there");
        assert_eq!(asked(100, begin + Duration::from_secs(3)), 6);
        assert_eq!(asked(100, begin + Duration::from_secs(3600)), 20, "no more than the burst");
    }
}
