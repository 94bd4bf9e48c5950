//! The cache: finished objects in memory, bounded by bytes, and the fills of those that are not finished.
//!
//! Invariants: at any moment an object has at most one fill, and it belongs to the cache (A6); a fill leaves the table
//! only after its object can be found in the cache, so nobody in between fetches it again; errors live in a small cache
//! of their own and cannot push media out; numbers and names that somebody makes up cost a bounded number of fills (see
//! `tips`, `strangers`); what is on disk too is looked for there only when it is not in memory, and
//! comes to those who wait as what is fetched does. Deliberately absent: stale answers and revalidation.

mod from_disk;

use crate::coalesce::{Cause, retry_after_s};
use crate::config::CacheConfig;
use crate::disk::{Disk, Place};
use crate::fill::{Fill, Follower, WaiterLimits};
use crate::freshness::{Stated, keep_for};
use crate::head::{Head, Served};
use crate::key::CacheKey;
use crate::metrics::{Metrics, Reading};
use crate::strangers::Strangers;
use crate::tips::{Judged, Tips};
use crate::upstream::{Upstream, UpstreamBody, UpstreamError};
use bytes::Bytes;
use http::Response;
use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use sigma_http::ops::Readiness;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const SHARDS: usize = 64;
/// What the cache's own bookkeeping takes per object, bytes, roughly.
const ENTRY_OVERHEAD_BYTES: usize = 256;

/// A finished object.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) head: Arc<Head>,
    pub(crate) body: Bytes,
    keep_for: Duration,
}

/// What a request finds.
pub(crate) enum Found {
    /// It is there, complete.
    Stored(Arc<Stored>),
    /// It is on its way.
    Coming(Follower, Served),
    /// Too many are waiting already: come back after this many seconds.
    Shed {
        /// `Retry-After`
        retry_after_s: u32,
    },
    /// 400: no playlist is waited for that is so far ahead.
    TooFarAhead,
}

/// See the module.
pub(crate) struct Store {
    objects: Cache<CacheKey, Arc<Stored>>,
    negatives: Cache<CacheKey, Arc<Stored>>,
    filling: Vec<Mutex<HashMap<CacheKey, Arc<Fill>>>>,
    hasher: RandomState,
    upstream: Upstream,
    disk: Option<Arc<Disk>>,
    waiters: WaiterLimits,
    fills_max: usize,
    strangers: Strangers,
    tips: Tips,
    config: CacheConfig,
    metrics: Arc<Metrics>,
    /// Whether the log says already that the upstream redirects.
    redirect_told: AtomicBool,
}

/// What a [`Store`] is made of.
pub(crate) struct StoreParts {
    pub(crate) upstream: Upstream,
    pub(crate) disk: Option<Arc<Disk>>,
    pub(crate) waiters: WaiterLimits,
    pub(crate) fills_max: usize,
    /// Questions about channels that nothing was had of lately, per second.
    pub(crate) unknown_channels_per_s: u32,
    pub(crate) config: CacheConfig,
    pub(crate) metrics: Arc<Metrics>,
}

struct AsStated;

impl moka::Expiry<CacheKey, Arc<Stored>> for AsStated {
    fn expire_after_create(&self, _: &CacheKey, stored: &Arc<Stored>, _: Instant) -> Option<Duration> {
        Some(stored.keep_for)
    }

    fn expire_after_update(
        &self,
        _: &CacheKey,
        stored: &Arc<Stored>,
        _: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(stored.keep_for)
    }
}

fn bounded(bytes_max: u64, disk: Option<&Arc<Disk>>) -> Cache<CacheKey, Arc<Stored>> {
    let mut cache = Cache::builder();
    if let Some(disk) = disk.map(Arc::clone) {
        // What the disk had no time for when it came has a second chance when it goes.
        cache = cache.eviction_listener(move |key: Arc<CacheKey>, stored: Arc<Stored>, cause| {
            if cause == RemovalCause::Size {
                disk.offer(&key, &stored.head, &stored.body);
            }
        });
    }
    cache
        .max_capacity(bytes_max)
        // Live objects are asked for in the order they are made: what was frequent is what is over.
        .eviction_policy(EvictionPolicy::lru())
        .weigher(|key: &CacheKey, stored: &Arc<Stored>| {
            let bytes = key.weight() + stored.head.weight() + stored.body.len() + ENTRY_OVERHEAD_BYTES;
            u32::try_from(bytes).unwrap_or(u32::MAX)
        })
        .expire_after(AsStated)
        .build()
}

impl Store {
    /// An empty cache.
    pub(crate) fn new(parts: StoreParts) -> Arc<Self> {
        let StoreParts { upstream, disk, waiters, fills_max, unknown_channels_per_s, config, metrics } =
            parts;
        Arc::new(Self {
            objects: bounded(config.bytes_max, disk.as_ref()),
            negatives: bounded(config.negative_bytes_max, None),
            filling: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            upstream,
            disk,
            waiters,
            fills_max,
            strangers: Strangers::new(unknown_channels_per_s, Instant::now()),
            tips: Tips::new(),
            config,
            metrics,
            redirect_told: AtomicBool::new(false),
        })
    }

    /// Finds an object, and has it fetched when it is neither there nor on its way.
    pub(crate) fn find(self: &Arc<Self>, key: CacheKey) -> Found {
        if let Some(stored) = self.stored(&key) {
            return Found::Stored(stored);
        }
        if let Some(fill) = self.shard(&key).get(&key) {
            return coming(fill.follow(&self.waiters), Served::Joined);
        }
        match self.tips.judge(key, Instant::now()) {
            Judged::Ask(key) => self.find_or_fetch(key, false),
            Judged::Odd(key) => self.find_or_fetch(key, true),
            Judged::TooFarAhead => Found::TooFarAhead,
        }
    }

    fn find_or_fetch(self: &Arc<Self>, key: CacheKey, odd: bool) -> Found {
        let mut filling = self.shard(&key);
        if let Some(fill) = filling.get(&key) {
            return coming(fill.follow(&self.waiters), Served::Joined);
        }
        // Its fill may have ended since somebody looked.
        if let Some(stored) = self.stored(&key) {
            return Found::Stored(stored);
        }
        // First: what costs the upstream nothing is nothing to strangers' account, or it would be empty for others.
        if odd && !self.tips.take_place(key.resource()) {
            return coming(None, Served::Miss);
        }
        let place = self.disk.as_ref().and_then(|disk| disk.find(&key));
        let may = place.is_some() || self.strangers.may_ask(key.resource(), odd, Instant::now());
        let fill = Fill::new();
        let Some(follower) = may.then(|| self.reserve_fill(&fill)).flatten() else {
            if odd {
                self.tips.leave_place(key.resource());
            }
            return coming(None, Served::Miss);
        };
        filling.insert(key.clone(), Arc::clone(&fill));
        drop(filling);
        let served = if place.is_some() { Served::Disk } else { Served::Miss };
        let mut fetch = Fetch::new(self, key, fill);
        fetch.odd = odd;
        tokio::spawn(fetch.run(place));
        coming(Some(follower), served)
    }

    /// Has an object fetched that is expected to be asked for, unless there is no place for that.
    fn prefetch(self: &Arc<Self>, key: CacheKey) {
        if self.stored(&key).is_some() {
            return;
        }
        let mut filling = self.shard(&key);
        if filling.contains_key(&key) || !self.reserve_place() {
            return;
        }
        let fill = Fill::new();
        filling.insert(key.clone(), Arc::clone(&fill));
        drop(filling);
        self.metrics.prefetches.inc();
        tokio::spawn(Fetch::new(self, key, fill).run(None));
    }

    /// Counts one more fill if it is within bounds. [`Fetch`] counts it off.
    fn reserve_place(&self) -> bool {
        // `inc` returns the count before, so each of several racing fills sees its own place.
        let before = usize::try_from(self.metrics.fills.inc()).unwrap_or(usize::MAX);
        if before >= self.fills_max {
            self.metrics.fills.dec();
        }
        before < self.fills_max
    }

    /// Counts one more fill and its first waiter, if both are within bounds. [`Fetch`] counts it off.
    fn reserve_fill(&self, fill: &Arc<Fill>) -> Option<Follower> {
        if !self.reserve_place() {
            return None;
        }
        let follower = fill.follow(&self.waiters);
        if follower.is_none() {
            self.metrics.fills.dec();
        }
        follower
    }

    /// Whether what is not here can be had.
    pub(crate) fn upstream_readiness(&self) -> Readiness {
        self.upstream.readiness()
    }

    /// What is in the cache, read at scrape time.
    pub(crate) fn readings(&self) -> Vec<Reading> {
        for cache in [&self.objects, &self.negatives] {
            cache.run_pending_tasks();
        }
        vec![
            (
                "sigma_edge_cache_bytes",
                "Bytes of the objects in the cache, with overhead",
                self.objects.weighted_size(),
            ),
            ("sigma_edge_cache_entries", "Objects in the cache", self.objects.entry_count()),
            (
                "sigma_edge_negative_bytes",
                "Bytes of the cached error answers, with overhead",
                self.negatives.weighted_size(),
            ),
            ("sigma_edge_negative_entries", "Cached error answers", self.negatives.entry_count()),
        ]
    }

    fn stored(&self, key: &CacheKey) -> Option<Arc<Stored>> {
        self.objects.get(key).or_else(|| self.negatives.get(key))
    }

    fn shard(&self, key: &CacheKey) -> MutexGuard<'_, HashMap<CacheKey, Arc<Fill>>> {
        let hash = usize::try_from(self.hasher.hash_one(key)).unwrap_or(0);
        self.filling[hash % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, key: &CacheKey, head: &Arc<Head>, body: Bytes) {
        let success = head.status.is_success();
        if success {
            self.strangers.exists(key.resource(), head, Instant::now());
        }
        let stated = Stated {
            cache_control: &head.cache_control(),
            age_s: head.age_s,
            success,
            moment: key.names_a_moment(),
        };
        let negative_max = Duration::from_millis(self.config.negative_age_ms_max);
        let Some(lifetime) = keep_for(stated, negative_max) else {
            return;
        };
        let keep_for = lifetime.saturating_sub(head.arrived.elapsed());
        if keep_for.is_zero() {
            return;
        }
        if let Some(disk) = &self.disk {
            disk.offer(key, head, &body);
        }
        let cache = if success { &self.objects } else { &self.negatives };
        cache.insert(key.clone(), Arc::new(Stored { head: Arc::clone(head), body, keep_for }));
        // Evict now, not when enough has piled up: the bound is on bytes, and objects are large and few.
        cache.run_pending_tasks();
    }
}

fn coming(follower: Option<Follower>, served: Served) -> Found {
    match follower {
        Some(follower) => Found::Coming(follower, served),
        None => Found::Shed { retry_after_s: retry_after_s(fastrand::u32(..)) },
    }
}

/// The detached task that fetches one object. However it ends, by panic too, the fill leaves the table and has an end.
struct Fetch {
    store: Arc<Store>,
    key: CacheKey,
    fill: Arc<Fill>,
    /// When somebody began to wait for it.
    since: Instant,
    /// It has one of the places for odd requests.
    odd: bool,
    /// Of what was handed on.
    bytes: usize,
    /// What the viewers have from elsewhere, when the rest has to come from the upstream that is asked now.
    begun: Option<Begun>,
}

/// An object that the disk had only the beginning of, or that an upstream broke off.
struct Begun {
    /// Its viewers have this head.
    head: Arc<Head>,
    /// They have these bytes too, which the upstream has not sent yet.
    known: Bytes,
}

impl Fetch {
    fn new(store: &Arc<Store>, key: CacheKey, fill: Arc<Fill>) -> Self {
        let since = Instant::now();
        Self { store: Arc::clone(store), key, fill, since, odd: false, bytes: 0, begun: None }
    }

    async fn run(mut self, place: Option<Place>) {
        let read = match place {
            Some(place) => Box::pin(self.read_kept(place)).await,
            None => Ok(None),
        };
        let ended = match read {
            Ok(Some(head)) => Ok(head),
            Ok(None) => {
                let ended = self.fetch().await;
                self.count(&ended);
                ended
            }
            Err(cause) => Err(cause),
        };
        match ended {
            Ok(head) => {
                self.store.keep(&self.key, &head, self.fill.body());
                self.leave_table();
                self.fill.complete(&self.store.waiters);
            }
            Err(cause) => {
                tracing::debug!(key = %self.key, %cause, "fill aborted");
                self.leave_table();
                self.fill.abort(cause, &self.store.waiters);
            }
        }
    }

    fn count(&self, ended: &Result<Arc<Head>, Cause>) {
        let results = &self.store.metrics.upstream_requests;
        let result = match ended {
            Ok(head) if head.status.is_success() => &results.success,
            Ok(_) => &results.error_status,
            Err(Cause::Unreachable) => &results.unreachable,
            Err(Cause::TimedOut) => &results.timed_out,
            Err(Cause::Broken | Cause::Redirected) => &results.broken,
            Err(Cause::TooLarge) => &results.too_large,
        };
        result.inc();
    }

    async fn fetch(&mut self) -> Result<Arc<Head>, Cause> {
        let upstream = self.store.upstream.clone();
        if self.begun.is_some() {
            // What the disk had is with the viewers already.
            self.since = Instant::now();
        }
        let left = |fetch: &Self| upstream.patience().saturating_sub(fetch.since.elapsed());
        let response =
            upstream.fetch(&self.key, left(self)).await.map_err(|error| self.no_response(&error))?;
        let head = self.accept(&response)?;
        self.fill.head(Arc::clone(&head));
        self.prefetch_next(&head);
        let mut body = response.into_body();
        match self.read(&mut body).await {
            // The same bytes from elsewhere are as good (A12): all of it, or the rest of what has them for ever.
            Err(Cause::Broken) if self.bytes == 0 || self.key.is_immutable() => {}
            ended => return ended.and_then(|()| self.whole(head)),
        }
        let again = upstream.fetch_again(&self.key, &body, left(self)).await;
        let again = again.map_err(|error| self.no_response(&error))?;
        let second = self.accept(&again)?;
        if !second.begins_like(&head) {
            return Err(Cause::Broken);
        }
        self.go_on_from(head);
        self.read(&mut again.into_body()).await?;
        self.whole(second)
    }

    fn no_response(&self, error: &UpstreamError) -> Cause {
        tracing::debug!(key = %self.key, %error, "no response");
        match error {
            UpstreamError::Unreachable | UpstreamError::Behind => Cause::Unreachable,
            UpstreamError::TimedOut => Cause::TimedOut,
            UpstreamError::Broken(_) => Cause::Broken,
        }
    }

    fn accept(&self, response: &Response<UpstreamBody>) -> Result<Arc<Head>, Cause> {
        let head = Arc::new(Head::new(response, Instant::now()));
        let object_bytes_max = self.store.config.object_bytes_max;
        if self.key.resource().is_media_playlist() {
            match head.tip() {
                Some(tip) => self.store.tips.learn(self.key.resource(), tip, head.said_at()),
                None if head.status.is_success() => self.store.tips.unlearn(self.key.resource()),
                None => {}
            }
        }
        if head.status.is_redirection() {
            // A shield sends viewers to sessions. Passed on, that would send ours round in circles.
            if !self.store.redirect_told.swap(true, Ordering::Relaxed) {
                tracing::error!(
                    key = %self.key,
                    "the upstream redirects: it takes this edge for a viewer; set upstream.certificate, and tls.client_ca there"
                );
            }
            return Err(Cause::Redirected);
        }
        if self.begun.as_ref().is_some_and(|begun| !head.begins_like(&begun.head)) {
            return Err(Cause::Broken);
        }
        match head.content_length {
            Some(length) if length > object_bytes_max => Err(Cause::TooLarge),
            _ => Ok(head),
        }
    }

    fn whole(&self, head: Arc<Head>) -> Result<Arc<Head>, Cause> {
        if self.begun.as_ref().is_some_and(|begun| !begun.known.is_empty()) {
            return Err(Cause::Broken);
        }
        match head.content_length {
            Some(length) if length != self.bytes as u64 => Err(Cause::Broken),
            _ => Ok(head),
        }
    }

    /// The part that a playlist announces is asked for as soon as the playlist is there: its viewers will. What was
    /// prefetched announces nothing, so there is no chain without viewers.
    fn prefetch_next(&self, head: &Head) {
        let next = head.next_object().and_then(|name| self.key.next_part(name));
        if let Some(next) = next.filter(|_| head.status.is_success()) {
            self.store.prefetch(next);
        }
    }

    async fn read(&mut self, body: &mut UpstreamBody) -> Result<(), Cause> {
        let patience = self.store.upstream.patience();
        let end = Instant::now() + self.store.upstream.body_patience();
        loop {
            // An upstream that trickles must not hold a place for ever.
            let left = end.saturating_duration_since(Instant::now());
            let chunk = match tokio::time::timeout(patience.min(left), body.chunk()).await {
                Ok(Ok(Some(chunk))) => chunk,
                Ok(Ok(None)) => return Ok(()),
                Ok(Err(error)) => {
                    tracing::debug!(key = %self.key, %error, "response broke off");
                    return Err(Cause::Broken);
                }
                Err(_elapsed) => return Err(Cause::TimedOut),
            };
            let chunk = self.news(chunk)?;
            if self.begun.is_some() && chunk.is_empty() {
                continue;
            }
            self.grow(chunk.len())?;
            self.fill.chunk(chunk);
        }
    }

    fn grow(&mut self, bytes: usize) -> Result<(), Cause> {
        let config = &self.store.config;
        self.bytes += bytes;
        let all = self.store.metrics.fill_bytes.inc_by(gauge_step(bytes));
        let all = u64::try_from(all).unwrap_or(0).saturating_add(bytes as u64);
        if self.bytes as u64 > config.object_bytes_max || all > config.fill_bytes_max {
            return Err(Cause::TooLarge);
        }
        Ok(())
    }

    fn leave_table(&self) {
        let mut filling = self.store.shard(&self.key);
        if filling.get(&self.key).is_some_and(|fill| Arc::ptr_eq(fill, &self.fill)) {
            filling.remove(&self.key);
        }
    }
}

impl Drop for Fetch {
    fn drop(&mut self) {
        self.leave_table();
        // Changes nothing after a proper end.
        self.fill.abort(Cause::Broken, &self.store.waiters);
        if self.odd {
            self.store.tips.leave_place(self.key.resource());
        }
        self.store.metrics.fills.dec();
        self.store.metrics.fill_bytes.dec_by(gauge_step(self.bytes));
    }
}

fn gauge_step(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
