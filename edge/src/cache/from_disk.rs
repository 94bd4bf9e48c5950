//! A fill from disk: the same way to those who wait as one from the upstream, which is asked for what cannot be read.
//!
//! Invariant: whatever breaks while an object is read, its viewers get every byte once: those that were read and checked, then the
//! upstream's from there on, which are the same (A12).

use super::{Begun, Fetch};
use crate::coalesce::Cause;
use crate::disk::Place;
use crate::head::Head;
use bytes::Bytes;
use std::sync::Arc;

impl Fetch {
    /// Reads an object; `None` when it is for the upstream to send it, or what is missing of it.
    pub(super) async fn read_kept(&mut self, place: Place) -> Result<Option<Arc<Head>>, Cause> {
        let Some(disk) = self.store.disk.clone() else { return Ok(None) };
        let Some((head, mut reading)) = disk.read(place).await else { return Ok(None) };
        let head = Arc::new(head);
        while let Some(piece) = reading.next().await {
            self.grow(piece.len())?;
            // Not before there is something to follow it: until then the upstream may say it.
            self.fill.head(Arc::clone(&head));
            self.fill.chunk(piece);
        }
        if reading.is_whole() {
            self.fill.head(Arc::clone(&head));
            return Ok(Some(head));
        }
        if self.bytes > 0 {
            self.begun = Some(Begun { head, bytes: self.bytes });
        }
        Ok(None)
    }

    /// What of a chunk from the upstream the viewers do not have from disk.
    pub(super) fn news(&mut self, mut chunk: Bytes) -> Bytes {
        let Some(begun) = &mut self.begun else { return chunk };
        let known = chunk.len().min(begun.bytes);
        begun.bytes -= known;
        chunk.split_off(known)
    }
}
