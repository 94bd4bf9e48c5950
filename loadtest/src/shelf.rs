//! Playlists that viewers share: the same bytes under the same URI are read once per process.
//!
//! Invariants: a viewer gets the reading of exactly the bytes that it received: what is on the shelf is compared byte
//! by byte, and what differs is read anew. Bounded; the oldest go first.

use crate::listing::Listing;
use crate::playlist::PlaylistError;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

/// Texts remembered: seconds of many renditions with parts, and the last ones at least of very many.
const TEXTS_MAX: usize = 512;

/// A listing with a number that tells it from every other one.
#[derive(Debug, Clone)]
pub(crate) struct Shelved {
    pub(crate) number: u64,
    pub(crate) listing: Arc<Listing>,
}

#[derive(Debug, Default)]
struct Inner {
    /// By what does not depend on the viewer of a URI.
    texts: HashMap<Box<str>, (Box<[u8]>, Shelved)>,
    merged: HashMap<(u64, u64), Option<Shelved>>,
    order: VecDeque<Box<str>>,
    merged_order: VecDeque<(u64, u64)>,
    numbers: u64,
    read: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Shelf(Mutex<Inner>);

/// The part of a path with its query that is the same for every viewer, and for every edge.
pub(crate) fn common_part(path: &str) -> &str {
    let end = path.find('?').unwrap_or(path.len());
    path[..end].rfind("/live/").map_or(path, |at| &path[at..])
}

impl Shelf {
    /// The listing of `body`, received for `path`; the query belongs to it as far as the server acts on it.
    pub(crate) fn read(&self, path: &str, body: &[u8]) -> Result<Shelved, PlaylistError> {
        let key = common_part(path);
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((text, shelved)) = inner.texts.get(key)
            && **text == *body
        {
            return Ok(shelved.clone());
        }
        let listing = Arc::new(Listing::read(body)?);
        inner.read += 1;
        let shelved = Shelved { number: inner.number(), listing };
        if inner.texts.insert(key.into(), (body.into(), shelved.clone())).is_none() {
            inner.order.push_back(key.into());
        }
        if inner.order.len() > TEXTS_MAX
            && let Some(oldest) = inner.order.pop_front()
        {
            inner.texts.remove(&oldest);
        }
        Ok(shelved)
    }

    /// What the delta update makes of `base`; `None` if it does not fit.
    pub(crate) fn merged(&self, base: &Shelved, delta: &Shelved) -> Option<Shelved> {
        let key = (base.number, delta.number);
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(merged) = inner.merged.get(&key) {
            return merged.clone();
        }
        let merged = delta.listing.merged(&base.listing).map(Arc::new);
        let merged = merged.map(|listing| Shelved { number: inner.number(), listing });
        inner.merged.insert(key, merged.clone());
        inner.merged_order.push_back(key);
        if inner.merged_order.len() > TEXTS_MAX
            && let Some(oldest) = inner.merged_order.pop_front()
        {
            inner.merged.remove(&oldest);
        }
        merged
    }
}

impl Inner {
    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(parts: u32) -> Vec<u8> {
        let mut text = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXT-X-PART-INF:PART-TARGET=0.2\n".to_owned();
        for part in 0..parts {
            text += &format!("#EXT-X-PART:DURATION=0.2,URI=\"0.{part}.m4s\"\n");
        }
        text.into_bytes()
    }

    #[test]
    fn the_same_bytes_are_read_once_and_others_anew() {
        let shelf = Shelf::default();
        let one = shelf.read("/s/A/live/x/v/media.m3u8?_HLS_msn=0", &text(1)).unwrap();
        let again = shelf.read("/s/B/live/x/v/media.m3u8?_HLS_msn=0", &text(1)).unwrap();
        assert!(Arc::ptr_eq(&one.listing, &again.listing), "another session, the same bytes");
        let other = shelf.read("/s/B/live/x/v/media.m3u8?_HLS_msn=0", &text(2)).unwrap();
        assert_eq!(other.listing.next(), (0, 2), "its own bytes, not what others got");
        assert_ne!(one.number, other.number);
        assert!(shelf.read("/live/x/v/media.m3u8", b"no").is_err());
        assert_eq!(shelf.0.lock().unwrap().read, 2);
    }

    #[test]
    fn memory_is_bounded() {
        let shelf = Shelf::default();
        for n in 0..TEXTS_MAX + 10 {
            shelf.read(&format!("/live/x/{n}/media.m3u8"), &text(1)).unwrap();
        }
        assert_eq!(shelf.0.lock().unwrap().texts.len(), TEXTS_MAX);
    }
}
