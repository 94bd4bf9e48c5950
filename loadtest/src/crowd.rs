//! What all viewers of a run share: how they behave, the way to the servers, and what they count.
//!
//! Invariant: no lock is held while anything waits.

use crate::dial::Dialer;
use crate::fetch::Reply;
use crate::identity::Identity;
use crate::player::Patience;
use crate::playlist::VariantView;
use crate::tally::Tally;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Tallies that viewers share, to keep them from waiting for each other.
const TALLIES: usize = 8;
/// Which variant viewers choose.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Pick {
    #[default]
    First,
    Lowest,
    Highest,
    /// From 0, in the order of the playlist; the last one if there are fewer.
    Index(usize),
}

impl std::str::FromStr for Pick {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "first" => Ok(Self::First),
            "lowest" => Ok(Self::Lowest),
            "highest" => Ok(Self::Highest),
            number => number
                .parse()
                .map(Self::Index)
                .map_err(|_| "expected first, lowest, highest or a number from 0".to_owned()),
        }
    }
}

impl Pick {
    pub(crate) fn of<'a, 'b>(self, variants: &'b [VariantView<'a>]) -> Option<&'b VariantView<'a>> {
        match self {
            Self::First => variants.first(),
            Self::Lowest => variants.iter().min_by_key(|v| v.bandwidth_bps),
            Self::Highest => variants.iter().max_by_key(|v| v.bandwidth_bps),
            Self::Index(index) => variants.get(index).or(variants.last()),
        }
    }
}

/// How all viewers of a run behave.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Habits {
    pub(crate) pick: Pick,
    pub(crate) video_only: bool,
    pub(crate) patience: Patience,
    /// For one request, held or not.
    pub(crate) request_timeout: Duration,
}

/// What the viewers of a run share.
#[derive(Debug)]
pub(crate) struct Crowd {
    pub(crate) dialer: Dialer,
    pub(crate) habits: Habits,
    tallies: [Mutex<Tally>; TALLIES],
    identity: Mutex<Identity>,
    renditions: AtomicU64,
}

impl Crowd {
    pub(crate) fn new(dialer: Dialer, habits: Habits) -> Self {
        Self {
            dialer,
            habits,
            tallies: Default::default(),
            identity: Mutex::default(),
            renditions: AtomicU64::new(0),
        }
    }

    /// Everything counted since the last call.
    pub(crate) fn take(&self) -> Tally {
        let mut sum = Tally::default();
        for tally in &self.tallies {
            let taken = std::mem::take(&mut *tally.lock().unwrap_or_else(PoisonError::into_inner));
            sum.add(&taken);
        }
        sum
    }

    /// Renditions being played now.
    pub(crate) fn renditions(&self) -> u64 {
        self.renditions.load(Ordering::Relaxed)
    }

    /// Bodies compared with an earlier one of the same URI.
    pub(crate) fn compared(&self) -> u64 {
        self.identity.lock().unwrap_or_else(PoisonError::into_inner).compared()
    }

    /// Counts something for the viewer of that index.
    pub(crate) fn count(&self, viewer: u64, update: impl FnOnce(&mut Tally)) {
        let shard = usize::try_from(viewer % TALLIES as u64).unwrap_or_default();
        let mut tally = self.tallies[shard].lock().unwrap_or_else(PoisonError::into_inner);
        update(&mut tally);
    }

    /// Whether a body is what earlier viewers got under the same URI.
    pub(crate) fn agrees(&self, path: &str, reply: &Reply) -> bool {
        let mut identity = self.identity.lock().unwrap_or_else(PoisonError::into_inner);
        identity.agrees(path, reply.bytes, reply.crc)
    }

    pub(crate) fn rendition_starts(&self) {
        self.renditions.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn rendition_stops(&self) {
        self.renditions.fetch_sub(1, Ordering::Relaxed);
    }
}
