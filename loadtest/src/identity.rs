//! Byte identity: every viewer must get the same bytes for the same media URI, on every edge and origin (law A12).
//!
//! Invariant: memory is bounded; the oldest URIs are forgotten first. Objects are told apart by the part of their path
//! that does not depend on the viewer: from the last `/live/` on, so that signed session prefixes do not matter.
#![deny(clippy::disallowed_methods)]

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};

/// URIs remembered: minutes of a channel with many renditions.
pub(crate) const REMEMBERED_MAX: usize = 32_768;

/// What bytes each URI had.
#[derive(Debug, Default)]
pub(crate) struct Identity {
    hasher: RandomState,
    seen: HashMap<u64, (u64, u32)>,
    order: VecDeque<u64>,
    /// URIs compared at least once.
    compared: u64,
}

impl Identity {
    /// Whether a body of `bytes` with this CRC is what earlier viewers got; the first one decides.
    pub(crate) fn agrees(&mut self, path: &str, bytes: u64, crc: u32) -> bool {
        let path = path.split('?').next().unwrap_or_default();
        let object = path.rfind("/live/").map_or(path, |at| &path[at..]);
        let key = self.hasher.hash_one(object);
        if let Some(first) = self.seen.get(&key) {
            self.compared += 1;
            return *first == (bytes, crc);
        }
        if self.order.len() >= REMEMBERED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        self.order.push_back(key);
        self.seen.insert(key, (bytes, crc));
        true
    }

    /// How many bodies were compared with an earlier one.
    pub(crate) fn compared(&self) -> u64 {
        self.compared
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_body_decides() {
        let mut identity = Identity::default();
        assert!(identity.agrees("/live/a/v/1.0.m4s", 10, 7));
        assert!(identity.agrees("/s/TOKEN/live/a/v/1.0.m4s?CMCD=x", 10, 7), "another session");
        assert!(!identity.agrees("/live/a/v/1.0.m4s", 10, 8));
        assert!(!identity.agrees("/live/a/v/1.0.m4s", 11, 7));
        assert!(identity.agrees("/live/a/a/1.0.m4s", 10, 8), "another rendition");
        assert_eq!(identity.compared(), 3);
    }

    #[test]
    fn memory_is_bounded() {
        let mut identity = Identity::default();
        for n in 0..REMEMBERED_MAX + 10 {
            assert!(identity.agrees(&format!("/live/a/v/{n}.m4s"), 1, 1));
        }
        assert_eq!(identity.seen.len(), REMEMBERED_MAX);
        assert!(identity.agrees("/live/a/v/3.m4s", 2, 2), "forgotten, so it decides anew");
        assert!(!identity.agrees("/live/a/v/20000.m4s", 2, 2));
    }
}
