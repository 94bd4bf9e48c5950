//! Names that the upstream has not had anything of lately: how often it is asked for them.
//!
//! Invariants: whoever asks for one invented channel after the other, or for one invented rendition of a channel after the
//! other, costs a bounded number of upstream requests, and tables of bounded size; what the upstream had something of in
//! the last minutes is never held up by that, nor is a rendition that a Multivariant Playlist seen here lists. (While names
//! are invented, the first request for what is there may have to come again, of a channel or a rendition that this edge
//! knows nothing of yet.) Where there is a policy, channels that it does not know never get here.

use crate::head::Head;
use moka::sync::Cache;
use sigma_shared::id::{ChannelId, RenditionId};
use sigma_shared::resource::LiveResource;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Channels remembered; about 500 bytes each.
const KNOWN_MAX: u64 = 20_000;
/// Renditions remembered of each.
const RENDITIONS_MAX: usize = 64;
/// A channel that nobody asked for this long is a stranger again.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);
/// So many seconds' worth of questions may come at once: an edge that starts knows nobody.
const BURST_S: f64 = 10.0;

/// See the module.
pub(crate) struct Strangers {
    known: Cache<ChannelId, Arc<Acquaintance>>,
    per_s: f64,
    bucket: Bucket,
}

/// A channel that is there.
struct Acquaintance {
    renditions: Mutex<HashSet<RenditionId>>,
    bucket: Bucket,
}

impl Acquaintance {
    fn renditions(&self) -> MutexGuard<'_, HashSet<RenditionId>> {
        self.renditions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Bucket(Mutex<Level>);

struct Level {
    left: f64,
    at: Instant,
}

impl Bucket {
    fn full(per_s: f64, now: Instant) -> Self {
        Self(Mutex::new(Level { left: per_s * BURST_S, at: now }))
    }

    fn take(&self, per_s: f64, now: Instant) -> bool {
        let mut level = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = now.saturating_duration_since(level.at).as_secs_f64();
        level.at = now;
        level.left = (level.left + since * per_s).min(per_s * BURST_S);
        let may = level.left >= 1.0;
        if may {
            level.left -= 1.0;
        }
        may
    }
}

impl Strangers {
    /// Lets `per_s` questions about unknown channels through in a second, and ten times as many at once; and as many about
    /// each known channel that are strange.
    pub(crate) fn new(per_s: u32, now: Instant) -> Self {
        let per_s = f64::from(per_s);
        let known = Cache::builder().max_capacity(KNOWN_MAX).time_to_idle(FORGOTTEN_AFTER).build();
        Self { known, per_s, bucket: Bucket::full(per_s, now) }
    }

    /// Whether the upstream may be asked for this. `odd`: whatever is known of its names.
    pub(crate) fn may_ask(&self, resource: &LiveResource, odd: bool, now: Instant) -> bool {
        let Some(channel) = self.known.get(resource.channel()) else {
            return self.bucket.take(self.per_s, now);
        };
        let familiar = match resource {
            LiveResource::Multivariant(_) => true,
            LiveResource::Media(_, rendition, _) => channel.renditions().contains(rendition),
        };
        (familiar && !odd) || channel.bucket.take(self.per_s, now)
    }

    /// The upstream has this, and says so with this head.
    pub(crate) fn exists(&self, resource: &LiveResource, head: &Head, now: Instant) {
        let channel = self.known.get(resource.channel()).unwrap_or_else(|| {
            let bucket = Bucket::full(self.per_s, now);
            let new = Arc::new(Acquaintance { renditions: Mutex::default(), bucket });
            self.known.get_with(resource.channel().clone(), || new)
        });
        let mut renditions = channel.renditions();
        match resource {
            LiveResource::Multivariant(_) => {
                let mut listed = head.renditions().take(RENDITIONS_MAX).peekable();
                if listed.peek().is_some() {
                    *renditions = listed.collect();
                }
            }
            LiveResource::Media(_, rendition, _) if !renditions.contains(rendition) => {
                if renditions.len() < RENDITIONS_MAX {
                    renditions.insert(rendition.clone());
                }
            }
            LiveResource::Media(..) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Response;

    fn head(cmsd: &str, now: Instant) -> Head {
        Head::new(&Response::builder().header("cmsd-static", cmsd).body(()).unwrap(), now)
    }

    fn asked(strangers: &Strangers, path: impl Fn(usize) -> String, now: Instant) -> usize {
        let may = |n: &usize| strangers.may_ask(&LiveResource::parse(&path(*n)).unwrap(), false, now);
        (0..100).filter(may).count()
    }

    #[test]
    fn strangers_are_asked_for_at_a_rate_and_those_known_always() {
        let begin = Instant::now();
        let strangers = Strangers::new(2, begin);
        let asked = |from: usize, now| asked(&strangers, |n| format!("/live/c{}/index.m3u8", from + n), now);
        assert_eq!(asked(0, begin), 20);
        let known = LiveResource::parse("/live/c7/index.m3u8").unwrap();
        strangers.exists(&known, &head("ot=m", begin), begin);
        assert_eq!(asked(0, begin), 1, "the one that is there");
        assert_eq!(asked(100, begin + Duration::from_secs(3)), 6);
        assert_eq!(asked(100, begin + Duration::from_secs(3600)), 20, "no more than the burst");
    }

    #[test]
    fn renditions_that_are_invented_hold_up_none_that_is_there() {
        let begin = Instant::now();
        let strangers = Strangers::new(2, begin);
        let parse = |path: &str| LiveResource::parse(path).unwrap();
        let listing = head("com.sigma-live-renditions=\"v720 a\",ot=m", begin);
        strangers.exists(&parse("/live/demo/index.m3u8"), &listing, begin);
        let invented = |now| asked(&strangers, |n| format!("/live/demo/r{n}/media.m3u8"), now);
        assert_eq!(invented(begin), 20);
        assert_eq!(invented(begin + Duration::from_secs(3)), 6);
        let now = begin + Duration::from_secs(3);
        for path in ["/live/demo/index.m3u8", "/live/demo/v720/media.m3u8", "/live/demo/a/7.m4s"] {
            assert!(strangers.may_ask(&parse(path), false, now), "{path}");
        }
        assert!(!strangers.may_ask(&parse("/live/demo/a/media.m3u8"), true, now), "odd");
        // Another channel has its own, and what it had something of is known.
        let other = parse("/live/other/v720/7.m4s");
        strangers.exists(&other, &head("ot=v", now), now);
        assert_eq!(asked(&strangers, |n| format!("/live/other/r{n}/media.m3u8"), now), 20);
        assert!(strangers.may_ask(&other, false, now));
    }
}
