//! What can be asked of the state.
#![deny(clippy::disallowed_methods)]

use super::{Aggregate, Broadcast};
use crate::pops::{self, Pop};
use crate::scope::Scope;
use crate::series::{Block, Resolution};
use crate::totals::Totals;
use sigma_shared::id::{ChannelId, PopId};

/// What is known of a scope at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Viewers in this second.
    pub viewers: u32,
    /// Sums over all time.
    pub totals: Totals,
    /// Different viewers.
    pub unique_viewers: u64,
    /// That number is an estimate.
    pub is_estimated: bool,
}

/// A broadcast session and what is known of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BroadcastView {
    /// When.
    pub broadcast: Broadcast,
    /// What.
    pub summary: Summary,
}

/// A POP and who watches through it.
#[derive(Debug, Clone, PartialEq)]
pub struct PopView {
    /// Its id.
    pub id: PopId,
    /// What is known of it.
    pub pop: Pop,
    /// Viewers of all channels in this second.
    pub viewers: u64,
}

impl Aggregate {
    /// The channels there are.
    pub fn channels(&self) -> impl Iterator<Item = &ChannelId> {
        self.channels.keys()
    }

    /// What is known of a scope. `None`: nothing is, or there is no such channel.
    #[must_use]
    pub fn summary(&self, channel: &ChannelId, scope: &Scope, now_ms: u64) -> Option<Summary> {
        let found = self.channels.get(channel)?;
        let counted = match scope {
            Scope::All => &found.all,
            Scope::Pop(pop) => found.pops.get(pop)?,
            Scope::Protocol(protocol) => found.protocols.get(protocol)?,
            Scope::Broadcast(start_ms) => &found.broadcasts.get(start_ms)?.1,
        };
        let (unique_viewers, is_estimated) = counted.unique_viewers();
        Some(Summary {
            viewers: self.viewers(channel, scope, now_ms),
            totals: counted.totals.clone(),
            unique_viewers,
            is_estimated,
        })
    }

    /// Viewers in a second that is in memory. Those of a broadcast session are the channel's while it is live.
    #[must_use]
    pub fn viewers(&self, channel: &ChannelId, scope: &Scope, now_ms: u64) -> u32 {
        let Some(found) = self.channels.get(channel) else { return 0 };
        if let Scope::Broadcast(start_ms) = scope {
            let is_live = found.starts_ms.last() == Some(start_ms)
                && found.broadcasts.get(start_ms).is_some_and(|(held, _)| held.value.end_ms.is_none());
            return if is_live { self.viewers(channel, &Scope::All, now_ms) } else { 0 };
        }
        let (minute, index) = Resolution::Second.place(now_ms / 1000);
        let block = found.series.get(&(scope.clone(), Resolution::Second, minute));
        block.map_or(0, |held| held.value.0[index].viewers)
    }

    /// POPs, protocols and broadcast sessions (newest first) that something is known of.
    #[must_use]
    pub fn scopes(&self, channel: &ChannelId) -> Vec<Scope> {
        let Some(channel) = self.channels.get(channel) else { return Vec::new() };
        let pops = channel.pops.keys().cloned().map(Scope::Pop);
        let protocols = channel.protocols.keys().copied().map(Scope::Protocol);
        let broadcasts = channel.starts_ms.iter().rev().copied().map(Scope::Broadcast);
        pops.chain(protocols).chain(broadcasts).collect()
    }

    /// Blocks of a series that are in memory, by number.
    #[must_use]
    pub fn blocks(
        &self,
        channel: &ChannelId,
        scope: &Scope,
        (resolution, numbers): (Resolution, std::ops::RangeInclusive<u64>),
    ) -> Vec<(u64, Block)> {
        let Some(channel) = self.channels.get(channel) else { return Vec::new() };
        let blocks = channel
            .series
            .iter()
            .filter(|((of, cut, number), _)| of == scope && *cut == resolution && numbers.contains(number));
        blocks.map(|((.., number), held)| (*number, held.value.clone())).collect()
    }

    /// The POPs that ever reported.
    #[must_use]
    pub fn pops(&self, now_ms: u64) -> Vec<PopView> {
        let viewers = |pop: &PopId| {
            let scope = Scope::Pop(pop.clone());
            self.channels.keys().map(|channel| u64::from(self.viewers(channel, &scope, now_ms))).sum()
        };
        let pops = self.pops.iter();
        pops.map(|(id, held)| PopView { id: id.clone(), pop: held.value.clone(), viewers: viewers(id) })
            .collect()
    }

    /// Everything before this is known of all POPs that are waited for, Unix milliseconds.
    #[must_use]
    pub fn final_until_ms(&self, now_ms: u64, wait_ms: u64) -> u64 {
        pops::final_until_ms(self.pops.values().map(|held| &held.value), now_ms, wait_ms)
    }
}
