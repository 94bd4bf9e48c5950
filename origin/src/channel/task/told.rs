//! What a channel's task tells others: what there is to see, and which broadcast sessions there were.
//!
//! Invariant: a broadcast session is told of once, before anybody can have seen anything of it.

use super::broadcast::Broadcast;
use crate::channel::View;
use crate::numbers::Numbers;
use sigma_stats::aggregate::Broadcast as BroadcastSpan;
use std::sync::Arc;
use tokio::sync::watch;

/// Broadcast sessions that are told of: whoever counts by them looks every second.
const BROADCASTS_MAX: usize = 64;

/// See the module.
pub(in crate::channel) struct Told {
    pub(in crate::channel) view: watch::Sender<Arc<View>>,
    pub(in crate::channel) broadcasts: watch::Sender<Vec<BroadcastSpan>>,
}

impl Told {
    /// Says that a broadcast session has begun, as soon as it has.
    pub(super) fn beginning(&self, broadcast: &mut Broadcast, numbers: &Numbers) {
        let began = broadcast.stream.began_ms().and_then(|began| u64::try_from(began).ok());
        if let Some(start_ms) = began.filter(|_| !broadcast.is_told) {
            broadcast.is_told = true;
            self.began(start_ms);
            numbers.broadcast_began(start_ms);
        }
    }

    /// Says that the one before a restart goes on.
    pub(super) fn going_on(&self, broadcast: &mut Broadcast, numbers: &Numbers) {
        if let Some(start_ms) = numbers.broadcast_start_ms() {
            broadcast.is_told = true;
            self.began(start_ms);
        }
    }

    fn began(&self, start_ms: u64) {
        self.broadcasts.send_modify(|spans| {
            if let Some(last) = spans.last_mut() {
                last.end_ms.get_or_insert(start_ms);
            }
            spans.push(BroadcastSpan { start_ms, end_ms: None });
            let surplus = spans.len().saturating_sub(BROADCASTS_MAX);
            spans.drain(..surplus);
        });
    }

    /// Says that it has ended, at this program date and time.
    pub(super) fn end(&self, end_ms: u64) {
        self.broadcasts.send_modify(|spans| {
            if let Some(last) = spans.last_mut() {
                last.end_ms.get_or_insert(end_ms.max(last.start_ms));
            }
        });
    }
}
