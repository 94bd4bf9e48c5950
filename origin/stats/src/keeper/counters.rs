//! What is counted of the counting, and what is the case now: for metrics.

use crate::aggregate::Refusals;
use sigma_shared::id::{ChannelId, PopId};
use std::sync::atomic::{AtomicU64, Ordering};

/// What was counted of the counting.
#[derive(Debug, Default)]
pub struct Counters {
    /// Reports taken that had not come before.
    pub accepted: AtomicU64,
    /// Reports taken that had come before.
    pub repeated: AtomicU64,
    /// Reports that are none.
    pub invalid: AtomicU64,
    /// Reports put off.
    pub busy: AtomicU64,
    /// Entries of channels that are not there.
    pub unknown_channel: AtomicU64,
    /// Entries too old, in the future or too long.
    pub out_of_time: AtomicU64,
    /// Entries of sessions in too many pieces.
    pub no_room: AtomicU64,
    /// Transactions of the journal.
    pub commits: AtomicU64,
    /// How long they took together, microseconds.
    pub commit_us: AtomicU64,
    /// Times that the state was written.
    pub checkpoints: AtomicU64,
    /// How long that took together, microseconds.
    pub checkpoint_us: AtomicU64,
    /// Times that the database failed.
    pub failures: AtomicU64,
    /// What could not be read and is out of the way.
    pub set_aside: SetAside,
}

/// What could not be read and is out of the way.
#[derive(Debug, Default)]
pub struct SetAside {
    /// Pieces of the state.
    pub pieces: AtomicU64,
    /// Reports in the journal.
    pub reports: AtomicU64,
    /// Whole databases.
    pub database: AtomicU64,
}

impl Counters {
    pub(super) fn refuse(&self, refusals: Refusals) {
        self.unknown_channel.fetch_add(refusals.unknown_channel, Ordering::Relaxed);
        self.out_of_time.fetch_add(refusals.out_of_time, Ordering::Relaxed);
        self.no_room.fetch_add(refusals.no_room, Ordering::Relaxed);
    }
}

/// What is the case now, for metrics; a second old at most.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gauges {
    /// By channel.
    pub channels: Vec<ChannelGauges>,
    /// POPs that report.
    pub pops_up: u64,
    /// POPs that did, and fell silent.
    pub pops_silent: u64,
    /// Sessions in memory.
    pub sessions_held: u64,
}

/// A channel's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelGauges {
    /// Which.
    pub id: ChannelId,
    /// Viewers now, each once.
    pub viewers: u32,
    /// Views, ever.
    pub views: u64,
    /// Watched, ever, microseconds.
    pub watch_us: u64,
    /// Times that players' buffers ran empty, ever.
    pub starvations: u64,
    /// Viewers now by POP.
    pub pops: Vec<(PopId, u32)>,
}
