//! The state: what all reports together say.
//!
//! How a report gets in, in four steps, so that loading stays outside: `wanted` says which pieces it touches, `put` takes
//! them, `absorb` unites the report with sessions and reported counters and says what that adds, `wanted_for` and `add` do
//! the same for what is counted. Invariant: between two reports the state is a function of the set of everything absorbed,
//! except for what is said of time (when a piece was touched, when a POP was heard).
#![deny(clippy::disallowed_methods)]

mod absorb;
mod query;
#[cfg(test)]
mod tests;

pub use absorb::{Absorbed, Added, Refusals};
pub use query::{BroadcastView, PopView, Summary};

use crate::deltas::ScopeDelta;
use crate::key::{Key, Reporter, Row, decoded};
use crate::pops::Pop;
use crate::scope::Scope;
use crate::series::{Block, Resolution, SIXTY};
use crate::session::{Session, SessionId};
use crate::totals::{Counted, Quality, Totals};
use crate::uniques::{CHANNEL_MAX, PART_MAX};
use serde::{Deserialize, Serialize};
use sigma_report::report::Protocol;
use sigma_shared::id::{ChannelId, PopId};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// A day, milliseconds.
pub const DAY_MS: u64 = 86_400_000;
/// What nobody touched for this long leaves memory once it is written, milliseconds.
const IDLE_MS: u64 = 600_000;

/// How long what is kept, days. Totals are kept for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Series by the second, and what POPs reported by the second and minute.
    pub seconds_days: u64,
    /// Series by the minute.
    pub minutes_days: u64,
    /// Series by the hour.
    pub hours_days: u64,
    /// Playback sessions after they were last heard of.
    pub sessions_days: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { seconds_days: 7, minutes_days: 90, hours_days: 1826, sessions_days: 30 }
    }
}

impl Retention {
    /// How long a series of this resolution is kept, days.
    #[must_use]
    pub fn days(&self, resolution: Resolution) -> u64 {
        match resolution {
            Resolution::Second => self.seconds_days,
            Resolution::Minute => self.minutes_days,
            Resolution::Hour => self.hours_days,
        }
    }
}

/// A piece in memory.
#[derive(Debug, Clone)]
struct Held<T> {
    value: T,
    is_dirty: bool,
    touched_ms: u64,
}

impl<T> Held<T> {
    fn new(value: T, now_ms: u64) -> Self {
        Self { value, is_dirty: false, touched_ms: now_ms }
    }

    fn touch(&mut self, now_ms: u64) -> &mut T {
        (self.is_dirty, self.touched_ms) = (true, now_ms);
        &mut self.value
    }

    fn is_idle(&self, now_ms: u64) -> bool {
        !self.is_dirty && self.touched_ms + IDLE_MS < now_ms
    }
}

/// Bytes and requests of the seconds of a minute, as reported.
type Traffic = Vec<(u64, u64)>;

/// A broadcast session on the media timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broadcast {
    /// Unix milliseconds of program date and time.
    pub start_ms: u64,
    /// Not known while it is live.
    pub end_ms: Option<u64>,
}

/// One channel.
#[derive(Debug)]
struct Channel {
    /// For sessions to come.
    grace_ms: u64,
    all: Counted,
    pops: BTreeMap<PopId, Counted>,
    protocols: BTreeMap<Protocol, Counted>,
    broadcasts: BTreeMap<u64, (Held<Broadcast>, Counted)>,
    /// Of the broadcast sessions, in order.
    starts_ms: Vec<u64>,
    starts_us: Vec<u64>,
    sessions: HashMap<SessionId, Held<Session>>,
    traffic: HashMap<(Reporter, Protocol, u64), Held<Traffic>>,
    quality: HashMap<(Reporter, u64), Held<Quality>>,
    series: HashMap<(Scope, Resolution, u64), Held<Block>>,
}

impl Channel {
    fn new(grace_ms: u64) -> Self {
        Self {
            grace_ms,
            all: Counted::new(CHANNEL_MAX),
            pops: BTreeMap::new(),
            protocols: BTreeMap::new(),
            broadcasts: BTreeMap::new(),
            starts_ms: Vec::new(),
            starts_us: Vec::new(),
            sessions: HashMap::new(),
            traffic: HashMap::new(),
            quality: HashMap::new(),
            series: HashMap::new(),
        }
    }

    /// `None`: a broadcast session that is not known.
    fn counted(&mut self, scope: &Scope) -> Option<&mut Counted> {
        let new = || Counted::new(PART_MAX);
        match scope {
            Scope::All => Some(&mut self.all),
            Scope::Pop(pop) => Some(self.pops.entry(pop.clone()).or_insert_with(new)),
            Scope::Protocol(protocol) => Some(self.protocols.entry(*protocol).or_insert_with(new)),
            Scope::Broadcast(start_ms) => self.broadcasts.get_mut(start_ms).map(|(_, counted)| counted),
        }
    }

    fn counted_mut(&mut self) -> impl Iterator<Item = (Scope, &mut Counted)> {
        let pops = self.pops.iter_mut().map(|(pop, counted)| (Scope::Pop(pop.clone()), counted));
        let protocols =
            self.protocols.iter_mut().map(|(protocol, counted)| (Scope::Protocol(*protocol), counted));
        let broadcasts = self.broadcasts.iter_mut();
        let broadcasts = broadcasts.map(|(start_ms, (_, counted))| (Scope::Broadcast(*start_ms), counted));
        std::iter::once((Scope::All, &mut self.all)).chain(pops).chain(protocols).chain(broadcasts)
    }

    /// Registers a broadcast session, or its end.
    fn broadcast(&mut self, broadcast: Broadcast, now_ms: u64) -> &mut Held<Broadcast> {
        let start_ms = broadcast.start_ms;
        if !self.broadcasts.contains_key(&start_ms) {
            let index = self.starts_ms.partition_point(|start| *start < start_ms);
            self.starts_ms.insert(index, start_ms);
            self.starts_us.insert(index, start_ms.saturating_mul(1000));
        }
        let new = || (Held::new(Broadcast { start_ms, end_ms: None }, now_ms), Counted::new(PART_MAX));
        let (held, _) = self.broadcasts.entry(start_ms).or_insert_with(new);
        held.value.end_ms = held.value.end_ms.max(broadcast.end_ms);
        held
    }
}

/// The whole.
#[derive(Debug)]
pub struct Aggregate {
    retention: Retention,
    channels: BTreeMap<ChannelId, Channel>,
    pops: BTreeMap<PopId, Held<Pop>>,
}

/// A piece from the database is not what it should be.
#[derive(Debug, thiserror::Error)]
#[error("what is kept of {0:?} cannot be read")]
pub struct Corrupt(pub Key);

/// Why a POP is not forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotRemoved {
    /// There is none of that name.
    Unknown,
    /// It reports.
    Up,
}

impl Aggregate {
    /// An empty one.
    #[must_use]
    pub fn new(retention: Retention) -> Self {
        Self { retention, channels: BTreeMap::new(), pops: BTreeMap::new() }
    }

    /// Says that there is a channel, and how long sessions count as present after they were.
    pub fn channel(&mut self, id: &ChannelId, grace_ms: u64) {
        let new = || Channel::new(grace_ms);
        self.channels.entry(id.clone()).or_insert_with(new).grace_ms = grace_ms;
    }

    /// Says that a broadcast session of a channel began, or ended. Before anything of it is reported: what was counted
    /// before stays with the session before it.
    pub fn broadcast(&mut self, channel: &ChannelId, broadcast: Broadcast, now_ms: u64) {
        let Some(channel) = self.channels.get_mut(channel) else { return };
        let held = channel.broadcasts.get(&broadcast.start_ms);
        if held.is_some_and(|(held, _)| held.value.end_ms >= broadcast.end_ms) {
            return;
        }
        channel.broadcast(broadcast, now_ms).touch(now_ms);
    }

    /// The same of one whose row cannot be read: when it began is in its key.
    pub(crate) fn restore_broadcast(&mut self, channel: &ChannelId, start_ms: u64, now_ms: u64) {
        let channel = self.channels.entry(channel.clone()).or_insert_with(|| Channel::new(0));
        channel.broadcast(Broadcast { start_ms, end_ms: None }, now_ms).touch(now_ms);
    }

    /// Takes a piece from the database; `None` when it is not there.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn put(&mut self, key: &Key, value: Option<&[u8]>, now_ms: u64) -> Result<(), Corrupt> {
        self.put_piece(key, value, now_ms).ok_or_else(|| Corrupt(key.clone()))
    }

    fn put_piece(&mut self, key: &Key, value: Option<&[u8]>, now_ms: u64) -> Option<()> {
        if let Key::Pop(pop) = key {
            let value = Pop::decode(value?)?;
            self.pops.insert(pop.clone(), Held::new(value, now_ms));
            return Some(());
        }
        let (Key::Session(id, _)
        | Key::Traffic(id, ..)
        | Key::Quality(id, ..)
        | Key::Series(id, ..)
        | Key::Totals(id, _)
        | Key::Broadcast(id, _)) = key
        else {
            return None;
        };
        let channel = self.channels.entry(id.clone()).or_insert_with(|| Channel::new(0));
        match key {
            Key::Session(_, session) => {
                let grace_ms = channel.grace_ms;
                let value = value.map_or(Some(Session::new(grace_ms)), Session::decode)?;
                channel.sessions.insert(*session, Held::new(value, now_ms));
            }
            Key::Traffic(_, reporter, protocol, minute) => {
                let value: Traffic = match value {
                    Some(value) => decoded(value)?,
                    None => vec![(0, 0); SIXTY],
                };
                let key = (reporter.clone(), *protocol, *minute);
                (value.len() == SIXTY).then(|| channel.traffic.insert(key, Held::new(value, now_ms)))?;
            }
            Key::Quality(_, reporter, minute) => {
                let value = value.map_or(Some(Quality::default()), Quality::decode)?;
                channel.quality.insert((reporter.clone(), *minute), Held::new(value, now_ms));
            }
            Key::Series(_, scope, resolution, at) => {
                let value =
                    value.map_or(Some(Block::new(*resolution)), |value| Block::decode(*resolution, value))?;
                channel.series.insert((scope.clone(), *resolution, *at), Held::new(value, now_ms));
            }
            Key::Totals(_, scope) => {
                channel.counted(scope)?.totals = Totals::decode(value?)?;
            }
            Key::Broadcast(..) => {
                channel.broadcast(decoded(value?)?, now_ms);
            }
            Key::Pop(_) => return None,
        }
        Some(())
    }

    /// Takes viewers of a scope from the database.
    pub fn put_viewers(&mut self, channel: &ChannelId, scope: &Scope, viewers: impl Iterator<Item = u64>) {
        let channel = self.channels.entry(channel.clone()).or_insert_with(|| Channel::new(0));
        if let Some(counted) = channel.counted(scope) {
            viewers.for_each(|viewer| {
                counted.uniques.put(viewer);
            });
        }
    }

    /// Everything that changed since the last time, to be written.
    ///
    /// # Errors
    /// Never for these types; the format's own type of error.
    pub fn take_unsaved(&mut self) -> Result<Vec<Row>, postcard::Error> {
        let mut rows = Vec::new();
        for (id, channel) in &mut self.channels {
            unsaved_of(id, channel, &mut rows)?;
        }
        for (pop, held) in self.pops.iter_mut().filter(|(_, held)| held.is_dirty) {
            let value = postcard::to_allocvec(&held.value)?;
            rows.push(Row { key: Key::Pop(pop.clone()), touched_ms: held.touched_ms, value });
            held.is_dirty = false;
        }
        Ok(rows)
    }

    /// Viewers that were added since the last time, to be written.
    pub fn take_unsaved_viewers(&mut self) -> Vec<(ChannelId, Scope, Vec<u64>)> {
        let mut unsaved = Vec::new();
        for (id, channel) in &mut self.channels {
            for (scope, counted) in channel.counted_mut() {
                let viewers = std::mem::take(&mut counted.uniques.unsaved);
                if !viewers.is_empty() {
                    unsaved.push((id.clone(), scope, viewers));
                }
            }
        }
        unsaved
    }

    /// Forgets what nobody touched for a while and is written.
    pub fn forget(&mut self, now_ms: u64) {
        for channel in self.channels.values_mut() {
            channel.sessions.retain(|_, held| !held.is_idle(now_ms));
            channel.traffic.retain(|_, held| !held.is_idle(now_ms));
            channel.quality.retain(|_, held| !held.is_idle(now_ms));
            channel.series.retain(|_, held| !held.is_idle(now_ms));
        }
    }

    /// Settles broadcast sessions so old that no report of their time is taken any more; returns whose viewers may be
    /// forgotten in the database, after the next time that what changed is written.
    pub fn settle(&mut self, now_ms: u64) -> Vec<(ChannelId, Scope)> {
        let old_ms = now_ms.saturating_sub((self.retention.sessions_days + 1) * DAY_MS);
        let mut settled = Vec::new();
        for (id, channel) in &mut self.channels {
            // The time of one ends where the next begins.
            let ends: Vec<(u64, u64)> = channel
                .starts_ms
                .windows(2)
                .map(|pair| (pair[0], pair[1]))
                .filter(|(_, end)| *end < old_ms)
                .collect();
            for (start_ms, _) in ends {
                if channel.broadcasts.get_mut(&start_ms).is_some_and(|(_, counted)| counted.settle()) {
                    settled.push((id.clone(), Scope::Broadcast(start_ms)));
                }
            }
        }
        settled
    }

    /// Forgets who a POP is, as long as it is silent; what came by it stays counted.
    ///
    /// # Errors
    /// There is no such POP, or it is up.
    pub fn remove_pop(&mut self, pop: &PopId, now_ms: u64) -> Result<(), NotRemoved> {
        let held = self.pops.get(pop).ok_or(NotRemoved::Unknown)?;
        if held.value.is_up(now_ms) {
            return Err(NotRemoved::Up);
        }
        self.pops.remove(pop);
        Ok(())
    }

    /// Minutes, hours and days of series, and minutes as they were reported, in memory.
    #[must_use]
    pub fn pieces_held(&self) -> usize {
        self.channels.values().map(|held| held.series.len() + held.traffic.len() + held.quality.len()).sum()
    }

    /// Forgets all of them that are written and of a time before a minute.
    pub fn forget_before(&mut self, minute: u64) {
        for channel in self.channels.values_mut() {
            channel.traffic.retain(|(.., at), held| held.is_dirty || *at >= minute);
            channel.quality.retain(|(_, at), held| held.is_dirty || *at >= minute);
            channel.series.retain(|(_, resolution, at), held| {
                held.is_dirty || (*at + 1) * resolution.block_s() > minute * 60
            });
        }
    }

    /// Sessions in memory.
    #[must_use]
    pub fn sessions_held(&self) -> usize {
        self.channels.values().map(|channel| channel.sessions.len()).sum()
    }
}

/// What changed of a channel, which counts as written afterwards.
fn unsaved_of(id: &ChannelId, channel: &mut Channel, rows: &mut Vec<Row>) -> Result<(), postcard::Error> {
    fn clean<K, T>(pieces: &mut HashMap<K, Held<T>>) -> impl Iterator<Item = (&K, u64, &T)> {
        pieces.iter_mut().filter(|(_, held)| held.is_dirty).map(|(key, held)| {
            held.is_dirty = false;
            (key, held.touched_ms, &held.value)
        })
    }
    let mut push = |key, touched_ms, value| rows.push(Row { key, touched_ms, value });
    for (session, touched_ms, value) in clean(&mut channel.sessions) {
        push(Key::Session(id.clone(), *session), touched_ms, value.encode()?);
    }
    for ((reporter, protocol, minute), touched_ms, value) in clean(&mut channel.traffic) {
        let key = Key::Traffic(id.clone(), reporter.clone(), *protocol, *minute);
        push(key, touched_ms, postcard::to_allocvec(value)?);
    }
    for ((reporter, minute), touched_ms, value) in clean(&mut channel.quality) {
        let key = Key::Quality(id.clone(), reporter.clone(), *minute);
        push(key, touched_ms, value.encode()?);
    }
    for ((scope, resolution, at), touched_ms, value) in clean(&mut channel.series) {
        push(Key::Series(id.clone(), scope.clone(), *resolution, *at), touched_ms, value.encode()?);
    }
    for (start_ms, (held, _)) in channel.broadcasts.iter_mut().filter(|(_, (held, _))| held.is_dirty) {
        let value = postcard::to_allocvec(&held.value)?;
        push(Key::Broadcast(id.clone(), *start_ms), held.touched_ms, value);
        held.is_dirty = false;
    }
    for (scope, counted) in channel.counted_mut().filter(|(_, counted)| counted.is_dirty) {
        push(Key::Totals(id.clone(), scope), 0, counted.totals.encode()?);
        counted.is_dirty = false;
    }
    Ok(())
}

/// Puts what is added to a scope where it belongs. Seconds that are not in memory are beyond the retention.
fn add_to(channel: &mut Channel, scope: &Scope, delta: &ScopeDelta, now_ms: u64) {
    let mut minutes = BTreeSet::new();
    let seen = add_viewers(channel, scope, delta, (&mut minutes, now_ms));
    for (second, more) in &delta.seconds {
        let (minute, index) = Resolution::Second.place(*second);
        let Some(held) = channel.series.get_mut(&(scope.clone(), Resolution::Second, minute)) else {
            continue;
        };
        let point = &mut held.touch(now_ms).0[index];
        let views = i64::from(point.views).saturating_add(more.views).max(0);
        point.views = u32::try_from(views).unwrap_or(u32::MAX);
        point.bytes = point.bytes.saturating_add(more.bytes);
        point.requests = point.requests.saturating_add(more.requests);
        minutes.insert(minute);
    }
    roll_up(channel, scope, minutes, now_ms);
    if *scope == Scope::All {
        let starts_ms = &channel.starts_ms;
        let after = |second: u64| starts_ms.partition_point(|start| *start <= second.saturating_mul(1000));
        let mut rest = &seen[..];
        while let Some((first, _)) = rest.first() {
            let period = after(*first);
            let end_ms = starts_ms.get(period).copied().unwrap_or(u64::MAX);
            let (within, later) = rest
                .split_at(rest.partition_point(|(second, _)| second.saturating_mul(1000) < end_ms).max(1));
            rest = later;
            let start_ms = period.checked_sub(1).map(|index| starts_ms[index]);
            if let Some((_, counted)) = start_ms.and_then(|start_ms| channel.broadcasts.get_mut(&start_ms)) {
                within.iter().for_each(|(second, viewers)| counted.totals.look_at(*second, *viewers));
                counted.is_dirty = true;
            }
        }
    }
    let Some(counted) = channel.counted(scope) else { return };
    counted.is_dirty = true;
    seen.iter().for_each(|(second, viewers)| counted.totals.look_at(*second, *viewers));
    counted.totals.add(delta);
    if counted.totals.settled_uniques.is_none() {
        delta.viewers.iter().for_each(|viewer| counted.uniques.add(*viewer));
    }
}

/// Adds who was there to the seconds that are in memory, by whole stretches. Returns these seconds, in order, with all who
/// were.
fn add_viewers(
    channel: &mut Channel,
    scope: &Scope,
    delta: &ScopeDelta,
    (minutes, now_ms): (&mut BTreeSet<u64>, u64),
) -> Vec<(u64, u32)> {
    let mut seen = Vec::new();
    for (stretch, more) in delta.stretches() {
        let mut from = stretch.start;
        while from < stretch.end {
            let (minute, index) = Resolution::Second.place(from);
            let until = stretch.end.min((minute + 1) * 60);
            if let Some(held) = channel.series.get_mut(&(scope.clone(), Resolution::Second, minute)) {
                let points = held.touch(now_ms).0.iter_mut().skip(index);
                for (second, point) in (from..until).zip(points) {
                    point.viewers = point.viewers.saturating_add(more);
                    point.viewer_seconds = point.viewers.into();
                    seen.push((second, point.viewers));
                }
                minutes.insert(minute);
            }
            from = until;
        }
    }
    seen
}

/// Computes what lies above these minutes, and then what lies above that, anew.
fn roll_up(channel: &mut Channel, scope: &Scope, minutes: BTreeSet<u64>, now_ms: u64) {
    let (mut lower, mut numbers) = (Resolution::Second, minutes);
    for upper in [Resolution::Minute, Resolution::Hour] {
        let mut above = BTreeSet::new();
        for number in numbers {
            let Some(whole) = channel.series.get(&(scope.clone(), lower, number)) else { continue };
            let whole = whole.value.rolled_up();
            let (block, index) = upper.place(number * lower.block_s());
            let Some(held) = channel.series.get_mut(&(scope.clone(), upper, block)) else { continue };
            held.touch(now_ms).0[index] = whole;
            above.insert(block);
        }
        (lower, numbers) = (upper, above);
    }
}
