//! What one report adds: to be put where the counters are. Sums, so their order does not matter.
#![deny(clippy::disallowed_methods)]

use crate::totals::Quality;
use sigma_report::report::Protocol;
use std::collections::BTreeMap;

/// What is added to one second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SecondDelta {
    pub(crate) viewers: u32,
    /// Less than nothing when a view turns out to have begun earlier.
    pub(crate) views: i64,
    pub(crate) bytes: u64,
    pub(crate) requests: u64,
}

/// What is added to a scope.
#[derive(Debug, Clone, Default)]
pub(crate) struct ScopeDelta {
    pub(crate) watch_us: u64,
    pub(crate) wall_ms: u64,
    pub(crate) views: u64,
    pub(crate) bytes: u64,
    pub(crate) requests: u64,
    pub(crate) quality: Quality,
    pub(crate) viewers: Vec<u64>,
    pub(crate) seconds: BTreeMap<u64, SecondDelta>,
}

/// What is added to a channel. Broadcast sessions by their place in the channel's list.
#[derive(Debug, Clone, Default)]
pub(crate) struct ChannelDelta {
    pub(crate) all: ScopeDelta,
    pub(crate) pop: ScopeDelta,
    pub(crate) protocols: BTreeMap<Protocol, ScopeDelta>,
    pub(crate) broadcasts: BTreeMap<u64, ScopeDelta>,
}

impl ScopeDelta {
    pub(crate) fn second(&mut self, second: u64) -> &mut SecondDelta {
        self.seconds.entry(second).or_default()
    }

    /// A view that was not there, or began at another second than was known.
    pub(crate) fn view(&mut self, before: Option<Option<u64>>, after: Option<Option<u64>>) {
        if before == after {
            return;
        }
        self.views += u64::from(before.is_none());
        if let Some(second) = before.flatten() {
            self.second(second).views -= 1;
        }
        if let Some(second) = after.flatten() {
            self.second(second).views += 1;
        }
    }
}
