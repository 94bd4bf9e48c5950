//! An object on its way from the disk: read and checked piece by piece on a thread for that, handed to the task that waits.
//!
//! Invariants: a piece that is handed out is as it was written; who waits does so for a second at most, and then no one reads
//! from this disk for a while; a file that is not what was written is deleted, and counted.

use super::files::ReadError;
use super::record::{Record, Times};
use super::{Disk, Place, READ_REST_MS, Shared, arrival};
use crate::admission::now_ms;
use crate::head::Head;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

/// How long is waited for a place to read, for the head, and for each piece. The upstream is faster than what takes longer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Pieces read ahead.
const AHEAD: usize = 2;

enum Read {
    Record(Box<Record>),
    Piece(Bytes),
}

/// See the module.
pub(crate) struct Reading {
    shared: Arc<Shared>,
    read: mpsc::Receiver<Read>,
    left: u64,
}

impl Disk {
    /// Begins to read an object. `None` when it cannot be had, or not soon.
    pub(crate) async fn read(&self, place: Place) -> Option<(Head, Reading)> {
        let shared = Arc::clone(&self.shared);
        let permit = Arc::clone(&shared.reads).acquire_owned();
        let Ok(permit) = tokio::time::timeout(PATIENCE, permit).await else {
            shared.too_slow();
            return None;
        };
        let (sender, read) = mpsc::channel(AHEAD);
        let (reader, permit) = (Arc::clone(&shared), permit.ok()?);
        tokio::task::spawn_blocking(move || reader.read_through(&place, &sender, permit));
        let mut reading = Reading { shared, read, left: 0 };
        let Some(Read::Record(record)) = reading.receive().await else { return None };
        let now_ms = now_ms();
        if record.expires_ms <= now_ms {
            reading.shared.metrics.disk.reads.expired.inc();
            return None;
        }
        reading.left = record.body_bytes;
        let Record { arrived_ms, age_s, expires_ms, body_bytes, .. } = *record;
        let (arrived, age_s) = arrival(Times { arrived_ms, age_s, expires_ms }, now_ms, Instant::now());
        Some((Head::kept(record.fields(), arrived, (age_s, body_bytes)), reading))
    }
}

impl Reading {
    async fn receive(&mut self) -> Option<Read> {
        match tokio::time::timeout(PATIENCE, self.read.recv()).await {
            Ok(read) => read,
            Err(_elapsed) => {
                self.shared.too_slow();
                None
            }
        }
    }

    /// The next piece; `None` at the end, or when there is no more to be had.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        if self.left == 0 {
            return None;
        }
        let Read::Piece(piece) = self.receive().await? else { return None };
        self.left = self.left.saturating_sub(piece.len() as u64);
        self.shared.metrics.disk.read_bytes.inc_by(piece.len() as u64);
        Some(piece)
    }

    /// Whether all of it was handed out. Counts it.
    pub(crate) fn is_whole(&self) -> bool {
        let whole = self.left == 0;
        if whole {
            self.shared.metrics.disk.reads.hit.inc();
        }
        whole
    }
}

impl Shared {
    fn too_slow(&self) {
        self.metrics.disk.reads.late.inc();
        self.read_again_ms.store(now_ms().saturating_add(READ_REST_MS), Ordering::Relaxed);
    }

    /// Reads an object on a thread that may wait.
    fn read_through(&self, place: &Place, to: &mpsc::Sender<Read>, _permit: OwnedSemaphorePermit) {
        if let Err(error) = self.read_all(place, to) {
            let reads = &self.metrics.disk.reads;
            let counter = match error {
                ReadError::Gone => &reads.gone,
                ReadError::Spoilt(_) => &reads.corrupt,
                ReadError::Failed(_) => &reads.failed,
            };
            counter.inc();
            if matches!(error, ReadError::Failed(_)) {
                tracing::debug!(object = place.name, %error, "the disk cache cannot be read");
                return;
            }
            if matches!(error, ReadError::Spoilt(_)) {
                tracing::warn!(object = place.name, %error, "deleted from the disk cache");
                self.files.remove(place.id);
            }
            // Afterwards, so that it is not written again before it is deleted.
            self.index(|index| index.remove(place.id));
        }
    }

    fn read_all(&self, place: &Place, to: &mpsc::Sender<Read>) -> Result<(), ReadError> {
        let mut opened = self.files.open(place.id, &place.name)?;
        let record = Read::Record(Box::new(opened.record.clone()));
        let mut wanted = to.blocking_send(record).is_ok();
        while wanted {
            let Some(piece) = opened.piece()? else { break };
            wanted = to.blocking_send(Read::Piece(piece)).is_ok();
        }
        Ok(())
    }
}
