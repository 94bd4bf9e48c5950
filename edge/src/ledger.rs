//! The viewer ledger: which playback sessions watched what, when they were present, what went out, and what players said.
//! ARCHITECTURE.md, "How a viewer is counted", says why it is so.
//!
//! Invariants: everything that happened is told by [`Ledger::due`] once, and is then forgotten here: whoever asked keeps it;
//! a session that nothing is known of any more may come back, as sets are united where they are told; times do not go
//! back before what was told as complete, but by a turn of the clock. Bounded, and what is not taken in is counted. Deliberately absent: clocks and
//! locks (`viewers`), and keeping what was told (`reports`).
#![deny(clippy::disallowed_methods)]

mod entry;
mod pieces;
mod totals;

pub(crate) use entry::Waited;

use entry::Entry;
use sigma_report::report::{Protocol, QualityReport, SessionReport, TrafficReport};
use sigma_report::spans::Span;
use sigma_shared::cmcd::Cmcd;
use std::collections::HashMap;
use totals::{Speaking, Totals};

/// A session, over a protocol.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Who {
    pub(crate) session: [u8; 16],
    pub(crate) viewer: u64,
    /// By number.
    pub(crate) channel: u32,
    pub(crate) protocol: Protocol,
}

/// Where a session is in its ledger: a hint, which may have become wrong. 0 is none.
pub(crate) type Place = u64;

/// An answer that ended.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ended {
    /// What was watched with it: a part or segment that a GET got whole.
    pub(crate) watched: Option<Span>,
    /// It was media, and some of it went out…
    pub(crate) media: bool,
    /// …from this moment on; Unix milliseconds. Without, now.
    pub(crate) first_byte_ms: Option<u64>,
    /// Media or a playlist that was answered to its end.
    pub(crate) good: bool,
}

/// What a ledger had no room for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Lost {
    /// Events of sessions that are not known.
    pub(crate) sessions: u64,
    /// Stretches of known ones.
    pub(crate) spans: u64,
}

/// What there is to tell. Channels by number.
#[derive(Debug, Default)]
pub(crate) struct Due {
    pub(crate) sessions: Vec<SessionReport>,
    pub(crate) traffic: Vec<TrafficReport>,
    pub(crate) quality: Vec<QualityReport>,
    /// Sessions that are present now.
    pub(crate) present: u64,
    /// Sessions that are kept.
    pub(crate) known: u64,
    /// Since the last time.
    pub(crate) lost: Lost,
}

type Key = ([u8; 16], u32, Protocol);

/// See the module.
#[derive(Debug)]
pub(crate) struct Ledger {
    slots: Vec<Option<Entry>>,
    free: Vec<u32>,
    index: HashMap<Key, u32>,
    totals: Totals,
    sessions_max: usize,
    generations: u32,
    /// What was told is complete until here.
    floor_ms: u64,
    lost: Lost,
}

impl Ledger {
    /// An empty one, for so many sessions.
    pub(crate) fn new(sessions_max: usize) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            index: HashMap::new(),
            totals: Totals::default(),
            sessions_max,
            generations: 0,
            floor_ms: 0,
            lost: Lost::default(),
        }
    }

    /// A request begins to wait. Every one of these needs its [`Ledger::release`], with the place that this returns.
    pub(crate) fn hold(&mut self, who: &Who, hint: Place, now_ms: u64) -> Place {
        let now_ms = now_ms.max(self.floor_ms);
        self.entry(who, hint, now_ms).map_or(0, |(entry, place)| {
            entry.hold(now_ms);
            place
        })
    }

    /// A request waits no more.
    pub(crate) fn release(&mut self, place: Place, waited: Waited, now_ms: u64) {
        let now_ms = now_ms.max(self.floor_ms);
        if let Some(entry) = self.at(place) {
            entry.release(waited, now_ms);
        }
    }

    /// Bytes of media go out, and there are more to come.
    pub(crate) fn going(&mut self, who: &Who, hint: Place, now_ms: u64) -> Place {
        let now_ms = now_ms.max(self.floor_ms);
        let Some((entry, place)) = self.entry(who, hint, now_ms) else { return 0 };
        let room = entry.media(now_ms);
        self.lost.spans += u64::from(!room);
        place
    }

    /// An answer ended.
    pub(crate) fn ended(&mut self, who: &Who, hint: Place, (ended, now_ms): (&Ended, u64)) -> Place {
        let now_ms = now_ms.max(self.floor_ms);
        let first_byte_ms = ended.first_byte_ms.map(|at| at.max(self.floor_ms));
        let Some((entry, place)) = self.entry(who, hint, now_ms) else { return 0 };
        let room = entry.ended(&Ended { first_byte_ms, ..*ended }, now_ms);
        self.lost.spans += u64::from(!room);
        place
    }

    /// Bytes of a body that ended.
    pub(crate) fn sent(&mut self, channel: u32, protocol: Protocol, (bytes, now_ms): (u64, u64)) {
        self.totals.sent(channel, protocol, (bytes, now_ms.max(self.floor_ms)));
    }

    /// What a player says of itself. It cannot have starved for longer than since it spoke before: what one viewer says
    /// weighs no more than the time it was there.
    pub(crate) fn said(&mut self, who: &Who, hint: Place, (cmcd, now_ms): (&Cmcd, u64)) {
        let now_ms = now_ms.max(self.floor_ms);
        let Some((entry, _)) = self.entry(who, hint, now_ms) else { return };
        let first = cmcd.startup_ms.is_some() && !std::mem::replace(&mut entry.startup_told, true);
        let (since_ms, spoke) = entry.hear(now_ms);
        let at_most_ms = u32::try_from(since_ms).unwrap_or(u32::MAX);
        let cmcd = Cmcd { starved_ms: cmcd.starved_ms.map(|ms| ms.min(at_most_ms)), ..*cmcd };
        // How long it had been there when it spoke first is not known, but that it starved so long.
        let spoken_ms = if spoke { since_ms } else { cmcd.starved_ms.map_or(0, u64::from) };
        self.totals.said(who.channel, &cmcd, Speaking { first, spoken_ms, now_ms });
    }

    /// Everything that is new before `now_ms`, once, and what is so far of the second that is running. With it all of the
    /// time before is told, until the moment that is returned. What players said is told when `quality` is set.
    pub(crate) fn due(&mut self, now_ms: u64, quality: bool, due: &mut Due) -> u64 {
        let now_ms = now_ms.max(self.floor_ms);
        self.floor_ms = now_ms;
        for (slot, place) in self.slots.iter_mut().zip(0u32..) {
            let Some(entry) = slot else { continue };
            entry.due(now_ms, &mut due.sessions);
            due.present += u64::from(entry.is_present(now_ms));
            if entry.is_idle(now_ms) {
                self.index.remove(&(entry.session, entry.channel, entry.protocol));
                self.free.push(place);
                *slot = None;
            }
        }
        due.known += self.index.len() as u64;
        self.totals.traffic(now_ms, &mut due.traffic);
        if quality {
            self.totals.quality(now_ms, &mut due.quality);
        }
        let lost = std::mem::take(&mut self.lost);
        due.lost.sessions += lost.sessions;
        due.lost.spans += lost.spans;
        self.shrink();
        now_ms
    }

    /// The clock is set from one moment to another. Everything before must have been told ([`Ledger::due`], with quality):
    /// who is present stays, by the new time, and what was counted by the old one is not counted on.
    pub(crate) fn turn(&mut self, before_ms: u64, now_ms: u64) {
        self.floor_ms = now_ms;
        self.totals = Totals::default();
        for entry in self.slots.iter_mut().flatten() {
            entry.turn(before_ms, now_ms);
        }
    }

    /// After a herd, memory is free again.
    fn shrink(&mut self) {
        if self.index.is_empty() && self.slots.capacity() > 1024 {
            (self.slots, self.free, self.index) = (Vec::new(), Vec::new(), HashMap::new());
        }
    }

    fn at(&mut self, place: Place) -> Option<&mut Entry> {
        let (slot, generation) = parts(place)?;
        self.slots.get_mut(slot)?.as_mut().filter(|entry| entry.generation == generation)
    }

    fn entry(&mut self, who: &Who, hint: Place, now_ms: u64) -> Option<(&mut Entry, Place)> {
        let hinted = parts(hint).filter(|(slot, generation)| {
            let entry = self.slots.get(*slot).and_then(Option::as_ref);
            entry.is_some_and(|entry| entry.generation == *generation && entry.session == who.session)
        });
        let slot = match hinted {
            Some((slot, _)) => slot,
            None => self.looked_up(who, now_ms)?,
        };
        let entry = self.slots.get_mut(slot)?.as_mut()?;
        let place = u64::from(entry.generation) << 32 | (slot as u64 + 1);
        Some((entry, place))
    }

    fn looked_up(&mut self, who: &Who, now_ms: u64) -> Option<usize> {
        let key = (who.session, who.channel, who.protocol);
        if let Some(slot) = self.index.get(&key) {
            return Some(*slot as usize);
        }
        let next = u32::try_from(self.slots.len()).ok();
        if self.index.len() >= self.sessions_max {
            self.lost.sessions += 1;
            return None;
        }
        self.generations = self.generations.wrapping_add(1);
        let entry = Entry::new(who, self.generations, now_ms);
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = Some(entry);
                slot
            }
            None => {
                self.slots.push(Some(entry));
                next?
            }
        };
        self.index.insert(key, slot);
        Some(slot as usize)
    }
}

fn parts(place: Place) -> Option<(usize, u32)> {
    let slot = usize::try_from((place & u64::from(u32::MAX)).checked_sub(1)?).ok()?;
    Some((slot, u32::try_from(place >> 32).ok()?))
}

#[cfg(test)]
mod tests;
