//! The thread that writes: it has the folder's lock, knows what is in the folder, makes room, and writes what it is handed.
//!
//! Invariants: one process writes in a folder at a time, the others read; a disk that does not take something is left alone for
//! a while, said once, and tried again; nothing here is waited for by anybody (A9).

use super::files::taken;
use super::index::{Entry, ObjectId};
use super::pace::Pace;
use super::record::{PIECE, Record, Times};
use super::{Queued, Shared};
use crate::admission::now_ms;
use crate::head::Head;
use bytes::Bytes;
use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// How often is looked for what is to be done beside writing, and whether to end.
const TICK: Duration = Duration::from_millis(if cfg!(test) { 5 } else { 250 });
/// How long a disk that failed is left alone.
const REST: Duration = Duration::from_secs(if cfg!(test) { 0 } else { 30 });
/// How often the lock is asked for that another process has.
const LOCK_EVERY: Duration = Duration::from_millis(if cfg!(test) { 10 } else { 1_000 });

/// How often an object is tried again on a disk that is full, room being made each time: others write to it as well.
const FULL_TRIES: usize = 3;

/// An object that is to be written.
pub(super) struct Order {
    pub(super) id: ObjectId,
    pub(super) name: String,
    pub(super) head: Arc<Head>,
    pub(super) body: Bytes,
    pub(super) times: Times,
    pub(super) _queued: Queued,
}

/// See the module.
pub(super) struct Writer {
    shared: Arc<Shared>,
    orders: Receiver<Order>,
    pace: Pace,
    lock: Option<File>,
    scanned: bool,
    /// Whether that was with the lock: then nobody else has changed anything, and what is known is in the order of its use.
    scanned_alone: bool,
    /// Whether the log says already that nothing is written.
    complained: bool,
    /// Whether the log says already that the disk is smaller than the cache was to be.
    tight: bool,
    look_again: Instant,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, orders: Receiver<Order>, bytes_per_s: u64) -> Self {
        let now = Instant::now();
        Self {
            shared,
            orders,
            pace: Pace::new(bytes_per_s, now),
            lock: None,
            scanned: false,
            scanned_alone: false,
            complained: false,
            tight: false,
            look_again: now,
        }
    }

    /// Writes until nobody hands anything out any more, or this process is to leave the folder to another one.
    pub(super) fn run(mut self) {
        loop {
            if self.shared.released.load(Ordering::Relaxed) {
                break;
            }
            if self.look_again <= Instant::now() {
                self.look_again = Instant::now() + LOCK_EVERY;
                self.look_around();
            }
            match self.orders.recv_timeout(TICK) {
                Ok(order) => self.take(&order),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.shared.may_write(false);
    }

    fn look_around(&mut self) {
        if self.lock.is_none() {
            return match self.shared.files.lock() {
                Ok(Some(lock)) => {
                    self.lock = Some(lock);
                    self.begin();
                }
                Ok(None) if self.scanned => {}
                Ok(None) => {
                    tracing::info!(folder = %self.folder(), "another process writes to the disk cache: reading only");
                    self.scan();
                }
                Err(error) => self.rest(&error),
            };
        }
        let expired = self.shared.index(|index| index.expire(now_ms()));
        for id in expired {
            self.shared.files.remove(id);
            self.shared.metrics.disk.evictions.expired.inc();
        }
        if !self.shared.writable() {
            self.begin();
        }
    }

    /// Reads what is there, tries the disk out, and lets objects come if it takes something.
    fn begin(&mut self) {
        // A disk that takes nothing can still be read; but it is not read over and over.
        let read_before = self.scanned_alone;
        if read_before && !self.takes_something() {
            return;
        }
        // What another process wrote and deleted since.
        if self.scan() && (read_before || self.takes_something()) {
            self.shared.may_write(true);
        }
    }

    fn takes_something(&mut self) -> bool {
        let tried = self.on_a_full_disk(PIECE as u64, |writer| writer.shared.files.try_out());
        tried.map_err(|error| self.rest(&error)).is_ok()
    }

    /// Writes `bytes`. Of a disk that is full what was not asked for the longest is deleted, as if the cache had its bytes_max:
    /// it is the cache that filled it, or that is to make do with what others leave of it.
    fn on_a_full_disk(
        &mut self,
        bytes: u64,
        mut write: impl FnMut(&mut Self) -> io::Result<()>,
    ) -> io::Result<()> {
        for _ in 0..FULL_TRIES {
            match write(self) {
                Err(error) if is_full(&error) && self.give_back(bytes) => {}
                result => return result,
            }
        }
        write(self)
    }

    /// Deletes what was not used the longest, until about `bytes` are free that were not. Whether anything was: for what
    /// would not fit even then, nothing is.
    fn give_back(&mut self, bytes: u64) -> bool {
        let room =
            self.shared.files.free().unwrap_or(0).saturating_add(self.shared.index(|index| index.bytes()));
        if room < bytes {
            return false;
        }
        if !std::mem::replace(&mut self.tight, true) {
            tracing::warn!(
                folder = %self.folder(), held = self.shared.index(|index| index.bytes()),
                "the disk is full before disk_cache.bytes_max: from now on what was not asked for the longest is deleted"
            );
        }
        let gone = self.shared.index(|index| index.give_back(bytes));
        for id in &gone {
            self.shared.files.remove(*id);
            self.shared.metrics.disk.evictions.room.inc();
        }
        !gone.is_empty()
    }

    /// Reads what is in the folder. Whether that went well.
    fn scan(&mut self) -> bool {
        let began = Instant::now();
        let shared = &self.shared;
        let known = |id| self.scanned_alone && shared.index(|index| index.contains(id));
        let found = match shared.files.scan(known, self.lock.is_some()) {
            Ok(found) => found,
            Err(error) => {
                self.rest(&error);
                return false;
            }
        };
        let known: HashSet<ObjectId> = found.known.into_iter().collect();
        shared.index(|index| index.retain(|id| known.contains(&id)));
        let now_ms = now_ms();
        for seen in found.new {
            let fits = seen.entry.expires_ms > now_ms && self.make_room(seen.entry.bytes);
            if fits {
                shared.index(|index| index.insert(seen.id, seen.entry));
            } else if self.lock.is_some() {
                shared.files.remove(seen.id);
            }
        }
        if self.lock.is_some() {
            shared.metrics.disk.reads.corrupt.inc_by(found.spoilt);
        }
        let (objects, bytes) = shared.index(|index| (index.len(), index.bytes()));
        (self.scanned, self.scanned_alone) = (true, self.lock.is_some());
        // Of a disk that failed, enough is said.
        if !self.complained {
            let ms = began.elapsed().as_millis();
            tracing::info!(folder = %self.folder(), objects, bytes, spoilt = found.spoilt, ms, "disk cache read");
            let bytes_max = shared.index(|index| index.bytes_max());
            if let Some(shortage) = shared.files.shortage(bytes_max, bytes).filter(|_| self.lock.is_some()) {
                tracing::warn!("{shortage}");
            }
        }
        true
    }

    /// Deletes what was not used the longest, until there is room for `bytes`. Whether there is.
    fn make_room(&self, bytes: u64) -> bool {
        let Some(gone) = self.shared.index(|index| index.make_room(bytes)) else { return false };
        for id in gone {
            // Who reads only forgets.
            if self.lock.is_some() {
                self.shared.files.remove(id);
                self.shared.metrics.disk.evictions.room.inc();
            }
        }
        true
    }

    fn take(&mut self, order: &Order) {
        let writes = &self.shared.metrics.disk.writes;
        let now_ms = now_ms();
        let there = self.shared.index(|index| index.serves(order.id, now_ms));
        if there || order.times.expires_ms <= now_ms {
            return;
        }
        if !self.shared.writable() {
            writes.unwritable.inc();
            return;
        }
        let record = Record::new(order.name.clone(), order.times, order.head.fields(), &order.body);
        let head = record.written();
        let bytes = head.as_ref().map_or(0, |head| taken((head.len() + order.body.len()) as u64));
        let Some(head) = head.filter(|_| self.make_room(bytes)) else {
            writes.too_large.inc();
            return;
        };
        match self.on_a_full_disk(bytes, |writer| writer.write(order, &head)) {
            Ok(()) => {
                let entry = Entry { bytes, expires_ms: order.times.expires_ms };
                self.shared.index(|index| index.insert(order.id, entry));
                self.shared.metrics.disk.written_bytes.inc_by(bytes);
                self.shared.metrics.disk.writes.written.inc();
                // Not before: a disk that has room for little is nearly full, and that is said already.
                if std::mem::take(&mut self.complained) {
                    tracing::info!(folder = %self.folder(), "the disk cache is written to again");
                }
            }
            // Another process is to write from now on.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.shared.metrics.disk.writes.unwritable.inc();
            }
            Err(error) => {
                self.shared.metrics.disk.writes.failed.inc();
                self.rest(&error);
            }
        }
    }

    fn write(&mut self, order: &Order, head: &[u8]) -> io::Result<()> {
        let (shared, pace) = (Arc::clone(&self.shared), &mut self.pace);
        let go_on = |bytes| {
            std::thread::sleep(pace.wait(bytes, Instant::now()));
            !shared.released.load(Ordering::Relaxed)
        };
        self.shared.files.write(order.id, (head, &order.body), go_on)
    }

    /// Leaves the disk alone for a while.
    fn rest(&mut self, error: &io::Error) {
        self.shared.may_write(false);
        self.look_again = Instant::now() + REST.max(LOCK_EVERY);
        if !std::mem::replace(&mut self.complained, true) {
            tracing::error!(
                folder = %self.folder(), %error,
                "nothing is written to the disk cache until the disk takes something again; viewers are served without it"
            );
        }
    }

    fn folder(&self) -> std::path::Display<'_> {
        self.shared.files.root().display()
    }
}

/// Whether deleting something helps.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
