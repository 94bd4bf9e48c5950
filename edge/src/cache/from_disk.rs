//! A fill from disk: the same way to those who wait as one from the upstream, which is asked for what cannot be read. And
//! how a fill goes on elsewhere.
//!
//! Invariant: whatever breaks while an object is read or fetched, its viewers get every byte once: those that came first,
//! then another upstream's from there on, which has to begin with the same (A12).

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
        self.go_on_from(head);
        Ok(None)
    }

    /// The upstream that is asked next has to send what the viewers have, and then the rest.
    pub(super) fn go_on_from(&mut self, head: Arc<Head>) {
        if self.bytes > 0 {
            self.begun = Some(Begun { head, known: self.fill.body() });
        }
    }

    /// What of a chunk from the upstream the viewers do not have.
    ///
    /// # Errors
    /// It is another object than the one they have the beginning of.
    pub(super) fn news(&mut self, mut chunk: Bytes) -> Result<Bytes, Cause> {
        let Some(begun) = &mut self.begun else { return Ok(chunk) };
        let known = begun.known.split_to(chunk.len().min(begun.known.len()));
        let news = chunk.split_off(known.len());
        if chunk == known { Ok(news) } else { Err(Cause::Broken) }
    }
}
