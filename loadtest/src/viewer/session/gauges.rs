//! What a session counts for: a viewer of its slice, perhaps a stalled one, and the time that it and its renditions are
//! there.
//!
//! Invariant: a session that is asleep or has no media yet weighs nothing.

use super::{Session, State};
use crate::crowd::Weight;
use crate::dial::Protocol;
use crate::results::SliceKey;

impl Session {
    /// The session is at this edge, over this protocol, from now on.
    pub(in crate::viewer) fn arrives(&self, edge: String, channel: &str, protocol: Protocol) {
        let mut state = self.state.borrow_mut();
        let key = SliceKey { edge, channel: channel.to_owned(), protocol };
        let slice = self.crowd.slice(&key);
        let (present, stalled) = (state.present, state.stalled);
        self.gauges(&mut state, false, false);
        state.slice = slice;
        state.pop = None;
        self.gauges(&mut state, present, stalled);
        if !state.edges.contains(&key.edge) {
            state.edges.push(key.edge);
        }
        state.protocols.retain(|known| *known != protocol);
        state.protocols.push(protocol);
    }

    /// Whether it counts as a viewer of its slice, and as a stalled one.
    pub(super) fn gauges(&self, state: &mut State, present: bool, stalled: bool) {
        if (state.present, state.stalled) == (present, stalled) {
            return;
        }
        let (was_present, was_stalled) = (state.present, state.stalled);
        self.crowd.count(self.shard, |counts| {
            let live = counts.live(state.slice);
            live.viewers =
                live.viewers.saturating_add(u64::from(present)).saturating_sub(u64::from(was_present));
            live.stalled =
                live.stalled.saturating_add(u64::from(stalled)).saturating_sub(u64::from(was_stalled));
        });
        (state.present, state.stalled) = (present, stalled);
        self.weigh(state);
    }

    /// Renditions begin and end.
    pub(in crate::viewer) fn plays(&self, more: u64, fewer: u64) {
        let mut state = self.state.borrow_mut();
        state.renditions = (state.renditions + more).saturating_sub(fewer);
        self.weigh(&mut state);
    }

    fn weigh(&self, state: &mut State) {
        let counts = state.present && !self.asleep.get();
        let weight = match counts {
            true => Weight { viewers: 1, renditions: state.renditions },
            false => Weight::default(),
        };
        let was = std::mem::replace(&mut state.weight, weight);
        if was != weight {
            self.crowd.weigh(self.shard, was, weight);
        }
    }

    /// The tab falls asleep: it asks for nothing, and nothing is played.
    pub(in crate::viewer) fn sleeps(&self) {
        self.asleep.set(true);
        let now_us = self.now_us();
        let mut state = self.state.borrow_mut();
        let happened = state.playback.pause(now_us);
        self.happened(&mut state, &happened);
        self.weigh(&mut state);
    }

    pub(in crate::viewer) fn is_asleep(&self) -> bool {
        self.asleep.get()
    }

    pub(in crate::viewer) fn wakes(&self) {
        self.asleep.set(false);
        self.weigh(&mut self.state.borrow_mut());
    }
}
