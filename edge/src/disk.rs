//! The disk cache: what is asked for over hours (segments and init sections of the DVR window), kept on a local disk behind the
//! cache in memory, so that the hours before come from this POP and not from the origin.
//!
//! Invariants: an object in memory is answered without a look in here; nobody waits for the disk but who asked for what is on
//! it, and not for long (A9); what is read is what was written, or it is fetched again; nothing is served longer than its
//! upstream said. Only what has its bytes for ever (A12) gets in: no playlists, no errors, nothing that is a person's.
//! Deliberately absent: what is of the live edge alone, which is over before it is written.

mod files;
mod index;
mod pace;
mod reading;
mod record;
#[cfg(test)]
mod tests;
mod writer;

use crate::admission::now_ms;
use crate::config::DiskCacheConfig;
use crate::freshness::{Stated, keep_for};
use crate::head::Head;
use crate::key::{CacheKey, Waits};
use crate::metrics::Metrics;
use bytes::Bytes;
use files::Files;
use http::StatusCode;
use index::{Found, Index, ObjectId};
use record::Times;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use writer::{Order, Writer};

/// What may be kept less long than this is of the live edge alone.
const LIFETIME_MIN: Duration = Duration::from_secs(60);
/// Objects known at most: about 300 MiB of memory, and 4 TiB of segments.
const ENTRIES_MAX: usize = 1 << 22;
/// Objects that wait to be written…
const QUEUE_MAX: usize = 1024;
/// …and their bytes; a single larger one may wait alone.
const QUEUE_BYTES_MAX: u64 = 64 << 20;
/// Objects read at once, each on a thread of its own.
const READS_MAX: usize = 32;
/// How long nothing is read after the disk was too slow.
const READ_REST_MS: u64 = 5_000;

/// Where an object is on disk, as far as is known.
#[derive(Debug)]
pub(crate) struct Place {
    id: ObjectId,
    name: String,
}

/// See the module.
pub(crate) struct Disk {
    shared: Arc<Shared>,
    orders: SyncSender<Order>,
}

/// What requests and the writer share.
struct Shared {
    files: Files,
    index: Mutex<Index>,
    metrics: Arc<Metrics>,
    writable: AtomicBool,
    released: AtomicBool,
    reads: Arc<Semaphore>,
    read_again_ms: AtomicU64,
}

impl Shared {
    /// Looks at the index, or changes it.
    fn index<T>(&self, with: impl FnOnce(&mut Index) -> T) -> T {
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        let result = with(&mut index);
        let gauge = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        self.metrics.disk.bytes.set(gauge(index.bytes()));
        self.metrics.disk.entries.set(gauge(index.len() as u64));
        result
    }

    fn writable(&self) -> bool {
        self.writable.load(Ordering::Relaxed)
    }

    fn may_write(&self, may: bool) {
        self.writable.store(may, Ordering::Relaxed);
        self.metrics.disk.writable.set(may.into());
    }
}

/// An object's bytes in the queue, counted off when it has left.
struct Queued {
    metrics: Arc<Metrics>,
    bytes: i64,
}

impl Queued {
    /// `None` when there is no room.
    fn reserve(metrics: &Arc<Metrics>, bytes: usize) -> Option<Self> {
        let queued = &metrics.disk.queue_bytes;
        let bytes = i64::try_from(bytes).ok()?;
        let before = queued.inc_by(bytes);
        let reserved = Self { metrics: Arc::clone(metrics), bytes };
        let fits = u64::try_from(before + bytes).is_ok_and(|all| all <= QUEUE_BYTES_MAX);
        (fits || before <= 0).then_some(reserved)
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.metrics.disk.queue_bytes.dec_by(self.bytes);
    }
}

/// Whether the folder of `[disk_cache]` can be used.
///
/// # Errors
/// It is no folder, or nothing can be written to it.
pub(crate) fn check(dir: &Path) -> io::Result<()> {
    files::usable(dir)
}

/// What is no mistake, but not what was asked for either: a disk that is smaller than the cache is to be.
pub(crate) fn shortage(config: &DiskCacheConfig, pop: &str) -> Option<String> {
    let files = Files::new(config.dir.as_ref()?.join(pop));
    files.shortage(config.bytes_max, files.held())
}

impl Disk {
    /// Starts the disk cache of a POP, if there is to be one. A folder that cannot be used is tried again later.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(crate) fn start(
        config: &DiskCacheConfig,
        pop: &str,
        metrics: &Arc<Metrics>,
    ) -> io::Result<Option<Arc<Self>>> {
        let Some(dir) = &config.dir else { return Ok(None) };
        let shared = Arc::new(Shared {
            // Several edges on one machine write to a folder each.
            files: Files::new(dir.join(pop)),
            index: Mutex::new(Index::new(config.bytes_max, ENTRIES_MAX)),
            metrics: Arc::clone(metrics),
            writable: AtomicBool::new(false),
            released: AtomicBool::new(false),
            reads: Arc::new(Semaphore::new(READS_MAX)),
            read_again_ms: AtomicU64::new(0),
        });
        let (orders, ordered) = sync_channel(QUEUE_MAX);
        let writer = Writer::new(Arc::clone(&shared), ordered, config.write_bytes_per_s_max);
        std::thread::Builder::new().name("disk-cache".to_owned()).spawn(move || writer.run())?;
        Ok(Some(Arc::new(Self { shared, orders })))
    }

    /// Whether an object is on disk and may be served. Touches memory only.
    pub(crate) fn find(&self, key: &CacheKey) -> Option<Place> {
        if !key.is_immutable() {
            return None;
        }
        let now_ms = now_ms();
        if now_ms < self.shared.read_again_ms.load(Ordering::Relaxed) {
            return None;
        }
        let name = key.to_string();
        let id = ObjectId::of(&name);
        let reads = &self.shared.metrics.disk.reads;
        match self.shared.index(|index| index.find(id, now_ms)) {
            Found::Here => return Some(Place { id, name }),
            Found::Expired => reads.expired.inc(),
            // Parts are of the live edge: that they are not here says nothing.
            Found::Absent if key.waits_for() == Waits::Nothing => reads.miss.inc(),
            Found::Absent => 0,
        };
        None
    }

    /// Has an object written, if it is one for the disk and not there yet; it may as well not be, which is counted.
    pub(crate) fn offer(&self, key: &CacheKey, head: &Arc<Head>, body: &Bytes) {
        if !key.is_immutable() || head.status != StatusCode::OK {
            return;
        }
        let stated =
            Stated { cache_control: &head.cache_control(), age_s: head.age_s, success: true, moment: true };
        let Some(lifetime) = keep_for(stated, Duration::ZERO).filter(|lifetime| *lifetime >= LIFETIME_MIN)
        else {
            return;
        };
        let name = key.to_string();
        let id = ObjectId::of(&name);
        let now_ms = now_ms();
        if self.shared.index(|index| index.serves(id, now_ms)) {
            return;
        }
        let writes = &self.shared.metrics.disk.writes;
        if !self.shared.writable() {
            writes.unwritable.inc();
            return;
        }
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let arrived_ms = now_ms.saturating_sub(ms(head.arrived.elapsed()));
        let times =
            Times { arrived_ms, age_s: head.age_s, expires_ms: arrived_ms.saturating_add(ms(lifetime)) };
        let queued = Queued::reserve(&self.shared.metrics, body.len());
        let order = queued.map(|queued| Order {
            id,
            name,
            head: Arc::clone(head),
            body: body.clone(),
            times,
            _queued: queued,
        });
        if order.is_none_or(|order| self.orders.try_send(order).is_err()) {
            writes.queue_full.inc();
        }
    }

    /// Leaves the folder to the process that comes after this one; what is in it can still be read.
    pub(crate) fn release(&self) {
        self.shared.released.store(true, Ordering::Relaxed);
        self.shared.may_write(false);
    }
}

/// When something that arrived at `arrived_ms` did so by this process's clock, and how old it was then.
fn arrival(times: Times, now_ms: u64, now: Instant) -> (Instant, u32) {
    let since_ms = now_ms.saturating_sub(times.arrived_ms);
    let whole_s = u32::try_from(since_ms / 1000).unwrap_or(u32::MAX);
    // The rest of a second counts, so that Age turns when it would have turned in memory.
    let rest = Duration::from_millis(since_ms % 1000);
    (now.checked_sub(rest).unwrap_or(now), times.age_s.saturating_add(whole_s))
}
