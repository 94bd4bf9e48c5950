//! A report on its way in: what it needs, what it adds.
#![deny(clippy::disallowed_methods)]

use super::{Aggregate, Broadcast, Channel, DAY_MS, Held, Retention, add_to};
use crate::deltas::{ChannelDelta, ScopeDelta};
use crate::key::{Key, Reporter};
use crate::pops::Pop;
use crate::scope::Scope;
use crate::series::Resolution;
use crate::session::{Of, Session, SessionId};
use crate::stretch::{by_period, seconds};
use sigma_report::report::{InvalidReport, QualityReport, Report, SessionReport, TrafficReport};
use sigma_report::settled::Settled;
use sigma_report::spans::Span;
use sigma_shared::id::{ChannelId, PopId};
use std::collections::BTreeMap;
use std::ops::Range;

/// A clock may be this far ahead of ours.
const AHEAD_MS: u64 = 3_600_000;

/// What of reports was not counted, and why. The POP need not send it again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Refusals {
    /// Of channels that this origin does not have.
    pub unknown_channel: u64,
    /// Older than what is kept, in the future, or impossibly long.
    pub out_of_time: u64,
    /// Sessions in too many pieces.
    pub no_room: u64,
}

/// What a report adds, to be given to [`Aggregate::add`].
#[derive(Debug)]
pub struct Added {
    pop: PopId,
    pub(super) channels: Vec<(ChannelId, ChannelDelta)>,
}

/// What became of a report.
#[derive(Debug)]
pub struct Absorbed {
    /// What it adds.
    pub added: Added,
    /// What was left out.
    pub refusals: Refusals,
    /// No report of that incarnation and sequence number had come before, or was said to come no more.
    pub is_new: bool,
}

impl Aggregate {
    /// The pieces that a report touches and that are not in memory.
    ///
    /// # Errors
    /// The report names a channel that cannot be one.
    pub fn wanted(&self, pop: &PopId, report: &Report, now_ms: u64) -> Result<Vec<Key>, InvalidReport> {
        let ids = report.channel_ids()?;
        let bounds = Bounds::new(&self.retention, now_ms);
        let reporter = Reporter { pop: pop.clone(), incarnation: report.incarnation };
        let of = |index: u32| {
            let id = &ids[index as usize];
            self.channels.get(id).map(|channel| (id, channel))
        };
        let mut wanted = Vec::new();
        for entry in report.sessions.iter().filter(|entry| bounds.holds_some(entry)) {
            let Some((id, channel)) = of(entry.channel) else { continue };
            if !channel.sessions.contains_key(&entry.session) {
                wanted.push(Key::Session(id.clone(), entry.session));
            }
        }
        for entry in report.traffic.iter().filter(|entry| bounds.holds_second(entry.second)) {
            let Some((id, channel)) = of(entry.channel) else { continue };
            let minute = entry.second / 60;
            if !channel.traffic.contains_key(&(reporter.clone(), entry.protocol, minute)) {
                wanted.push(Key::Traffic(id.clone(), reporter.clone(), entry.protocol, minute));
            }
        }
        for entry in report.quality.iter().filter(|entry| bounds.holds_minute(entry.minute)) {
            let Some((id, channel)) = of(entry.channel) else { continue };
            if !channel.quality.contains_key(&(reporter.clone(), entry.minute)) {
                wanted.push(Key::Quality(id.clone(), reporter.clone(), entry.minute));
            }
        }
        wanted.sort_unstable();
        wanted.dedup();
        Ok(wanted)
    }

    /// Unites a report with what is known. What it wanted has been put.
    ///
    /// # Errors
    /// The report names a channel that cannot be one.
    pub fn absorb(&mut self, pop: &PopId, report: &Report, now_ms: u64) -> Result<Absorbed, InvalidReport> {
        let ids = report.channel_ids()?;
        let reporter = Reporter { pop: pop.clone(), incarnation: report.incarnation };
        let bounds = Bounds::new(&self.retention, now_ms);
        let mut refusals = Refusals::default();
        let mut deltas: BTreeMap<u32, ChannelDelta> = BTreeMap::new();
        for entry in &report.sessions {
            let Some(channel) = self.channels.get_mut(&ids[entry.channel as usize]) else {
                refusals.unknown_channel += 1;
                continue;
            };
            let delta = deltas.entry(entry.channel).or_default();
            absorb_session(channel, delta, &Entry { pop, entry, bounds: &bounds }, &mut refusals);
        }
        for entry in &report.traffic {
            let Some(channel) = self.channels.get_mut(&ids[entry.channel as usize]) else {
                refusals.unknown_channel += 1;
                continue;
            };
            if !bounds.holds_second(entry.second) {
                refusals.out_of_time += 1;
                continue;
            }
            absorb_traffic(channel, deltas.entry(entry.channel).or_default(), &reporter, (entry, now_ms));
        }
        for entry in &report.quality {
            let Some(channel) = self.channels.get_mut(&ids[entry.channel as usize]) else {
                refusals.unknown_channel += 1;
                continue;
            };
            if !bounds.holds_minute(entry.minute) {
                refusals.out_of_time += 1;
                continue;
            }
            absorb_quality(channel, deltas.entry(entry.channel).or_default(), &reporter, (entry, now_ms));
        }
        let held = self.pops.entry(pop.clone()).or_insert_with(|| Held::new(Pop::new(), now_ms));
        let is_new = held.touch(now_ms).receive(report, now_ms);
        let channels =
            deltas.into_iter().map(|(index, delta)| (ids[index as usize].clone(), delta)).collect();
        Ok(Absorbed { added: Added { pop: pop.clone(), channels }, refusals, is_new })
    }

    /// Takes note of what a POP will not send any more, as it said with a report that was just absorbed.
    pub fn hear_settled(&mut self, pop: &PopId, incarnation: u64, settled: Settled) {
        if let Some(held) = self.pops.get_mut(pop) {
            // Absorbing the report has marked it as changed.
            held.value.settle(incarnation, settled);
        }
    }

    /// The blocks of series that are added to and not in memory.
    #[must_use]
    pub fn wanted_for(&self, added: &Added, now_ms: u64) -> Vec<Key> {
        let bounds = Bounds::new(&self.retention, now_ms);
        let mut wanted = Vec::new();
        for (id, delta) in &added.channels {
            let Some(channel) = self.channels.get(id) else { continue };
            for (scope, delta) in scopes(&added.pop, delta) {
                let minutes = delta.minutes(&bounds.seconds);
                for resolution in [Resolution::Second, Resolution::Minute, Resolution::Hour] {
                    let block = resolution.block_s() / 60;
                    let blocks = minutes
                        .as_slice()
                        .iter()
                        .flat_map(|span| span.start / block..=(span.end - 1) / block);
                    let absent = |at: &u64| !channel.series.contains_key(&(scope.clone(), resolution, *at));
                    let key = |at| Key::Series(id.clone(), scope.clone(), resolution, at);
                    wanted.extend(blocks.filter(absent).map(key));
                }
            }
        }
        wanted.sort_unstable();
        wanted.dedup();
        wanted
    }

    /// Counts what a report adds. What is wanted for it has been put.
    pub fn add(&mut self, added: &Added, now_ms: u64) {
        for (id, delta) in &added.channels {
            let Some(channel) = self.channels.get_mut(id) else { continue };
            for (scope, delta) in scopes(&added.pop, delta) {
                add_to(channel, &scope, delta, now_ms);
            }
        }
    }

    /// The broadcast sessions of a channel, in order.
    #[must_use]
    pub fn broadcasts(&self, channel: &ChannelId) -> Vec<Broadcast> {
        let channel = self.channels.get(channel);
        channel.map_or_else(Vec::new, |channel| {
            channel.broadcasts.values().map(|(held, _)| held.value).collect()
        })
    }
}

fn scopes<'a>(pop: &PopId, delta: &'a ChannelDelta) -> impl Iterator<Item = (Scope, &'a ScopeDelta)> {
    let protocols = delta.protocols.iter().map(|(protocol, delta)| (Scope::Protocol(*protocol), delta));
    let broadcasts = delta.broadcasts.iter().map(|(start_ms, delta)| (Scope::Broadcast(*start_ms), delta));
    [(Scope::All, &delta.all), (Scope::Pop(pop.clone()), &delta.pop)]
        .into_iter()
        .chain(protocols)
        .chain(broadcasts)
}

/// What of time is taken.
#[derive(Debug, Clone)]
struct Bounds {
    now_ms: u64,
    sessions_from_ms: u64,
    seconds: Range<u64>,
}

impl Bounds {
    fn new(retention: &Retention, now_ms: u64) -> Self {
        Self {
            now_ms,
            sessions_from_ms: now_ms.saturating_sub(retention.sessions_days * DAY_MS),
            seconds: now_ms.saturating_sub(retention.seconds_days * DAY_MS) / 1000
                ..now_ms.saturating_add(2 * AHEAD_MS) / 1000,
        }
    }

    fn holds_second(&self, second: u64) -> bool {
        self.seconds.contains(&second)
    }

    fn holds_minute(&self, minute: u64) -> bool {
        self.holds_second(minute.saturating_mul(60))
    }

    /// Whether something of a session's entry is counted; one that says nothing of time says who watches.
    fn holds_some(&self, entry: &SessionReport) -> bool {
        let says_nothing = entry.watched.is_empty() && entry.present.is_empty();
        says_nothing
            || entry.present.iter().any(|span| self.holds(*span, 1))
            || entry.watched.iter().any(|span| self.holds(*span, 1000))
    }

    /// `unit` is how many of the span's are a millisecond; media may be a day ahead, as its clock is the encoder's.
    fn holds(&self, span: Span, unit: u64) -> bool {
        let ahead = if unit == 1 { AHEAD_MS } else { DAY_MS };
        span.length() <= DAY_MS * unit
            && span.end / unit <= self.now_ms.saturating_add(ahead)
            && span.end / unit >= self.sessions_from_ms
    }
}

struct Entry<'a> {
    pop: &'a PopId,
    entry: &'a SessionReport,
    bounds: &'a Bounds,
}

fn absorb_session(
    channel: &mut Channel,
    delta: &mut ChannelDelta,
    what: &Entry<'_>,
    refusals: &mut Refusals,
) {
    let Entry { pop, entry, bounds } = *what;
    if !bounds.holds_some(entry) {
        refusals.out_of_time += (entry.watched.len() + entry.present.len()) as u64;
        return;
    }
    let grace_ms = channel.grace_ms;
    let new = || Held::new(Session::new(grace_ms), bounds.now_ms);
    let held = channel.sessions.entry(entry.session).or_insert_with(new);
    let session = &mut held.value;
    let track = session.track(pop, entry.protocol).filter(|track| session.has_room(*track, entry));
    let Some(track) = track else {
        refusals.no_room += 1;
        return;
    };
    let ofs = [Of::All, Of::Pop(pop), Of::Protocol(entry.protocol)];
    let before = ofs.map(|of| session.view(of));
    let in_bounds = entry.watched.iter().filter(|span| bounds.holds(**span, 1000)).count()
        + entry.present.iter().filter(|span| bounds.holds(**span, 1)).count();
    refusals.out_of_time += (entry.watched.len() + entry.present.len() - in_bounds) as u64;
    let (mut changed, is_broadcast_view) = watch(session, track, delta, &(what, &channel.starts_us));
    changed |= be_present(session, track, delta, &(what, &channel.starts_ms));
    let is_new_viewer = session.add_viewer(track, entry.viewer);
    let protocol = delta.protocols.entry(entry.protocol).or_default();
    for ((of, before), delta) in ofs.into_iter().zip(before).zip([&mut delta.all, &mut delta.pop, protocol]) {
        let after = session.view(of);
        delta.view(before, after);
        if after.is_some() && (before.is_none() || is_new_viewer) {
            delta.viewers.extend(session.viewers(of).map(|viewer| who(viewer, &entry.session)));
        }
    }
    if is_new_viewer || is_broadcast_view {
        tell_broadcasts(session, &entry.session, &channel.starts_us, &mut delta.broadcasts);
    }
    if changed || is_new_viewer {
        held.touch(bounds.now_ms);
    }
}

/// Who watches; a viewer that nothing is known of is one by itself.
fn who(viewer: u64, session: &SessionId) -> u64 {
    let low = session.iter().take(8).fold(0, |sum, byte| (sum << 8) | u64::from(*byte));
    if viewer == 0 { low } else { viewer }
}

/// Unites what was watched; whether something of it is new, and whether it is a view of another broadcast session.
fn watch(
    session: &mut Session,
    track: usize,
    delta: &mut ChannelDelta,
    (what, starts_us): &(&Entry<'_>, &Vec<u64>),
) -> (bool, bool) {
    let Entry { pop, entry, bounds } = what;
    let length =
        |spans: Vec<Span>| spans.into_iter().fold(0, |sum: u64, span| sum.saturating_add(span.length()));
    let (mut changed, mut is_broadcast_view) = (false, false);
    for span in entry.watched.iter().filter(|span| bounds.holds(**span, 1000)) {
        // Between two pieces of a span that are new lies one that is known: the same broadcast session has no two firsts.
        for new in session.unwatched(Of::All, *span) {
            delta.all.watch_us = delta.all.watch_us.saturating_add(new.length());
            for (index, new) in by_period(new, starts_us) {
                let broadcast = delta.broadcasts.entry(starts_us[index] / 1000).or_default();
                broadcast.watch_us = broadcast.watch_us.saturating_add(new.length());
                let end = starts_us.get(index + 1).copied().unwrap_or(u64::MAX);
                if !session.watched_within(starts_us[index], end) {
                    broadcast.views += 1;
                    is_broadcast_view = true;
                }
            }
        }
        let of_pop = length(session.unwatched(Of::Pop(pop), *span));
        delta.pop.watch_us = delta.pop.watch_us.saturating_add(of_pop);
        let protocol = delta.protocols.entry(entry.protocol).or_default();
        let of_protocol = length(session.unwatched(Of::Protocol(entry.protocol), *span));
        protocol.watch_us = protocol.watch_us.saturating_add(of_protocol);
        changed |= !session.tracks[track].watched.insert(*span).is_empty();
    }
    (changed, is_broadcast_view)
}

/// Unites when it was present; whether something of it is new.
fn be_present(
    session: &mut Session,
    track: usize,
    delta: &mut ChannelDelta,
    (what, starts_ms): &(&Entry<'_>, &Vec<u64>),
) -> bool {
    let Entry { pop, entry, bounds } = what;
    let grace_ms = session.grace_ms;
    let mut changed = false;
    for span in entry.present.iter().filter(|span| bounds.holds(**span, 1)) {
        let protocol = delta.protocols.entry(entry.protocol).or_default();
        let scopes = [
            (Of::All, &mut delta.all),
            (Of::Pop(pop), &mut delta.pop),
            (Of::Protocol(entry.protocol), protocol),
        ];
        let with_grace = Span { start: span.start, end: span.end.saturating_add(grace_ms) };
        for (of, scope) in scopes {
            for new in session.absent(of, *span, 0) {
                scope.wall_ms = scope.wall_ms.saturating_add(new.length());
                if matches!(of, Of::All) {
                    for (index, new) in by_period(new, starts_ms) {
                        let broadcast = delta.broadcasts.entry(starts_ms[index]).or_default();
                        broadcast.wall_ms = broadcast.wall_ms.saturating_add(new.length());
                    }
                }
            }
            for new in session.absent(of, with_grace, grace_ms) {
                scope.present(&seconds(new));
            }
        }
        changed |= !session.tracks[track].present.insert(*span).is_empty();
    }
    changed
}

/// Says who watches to the broadcast sessions that they watched something of.
fn tell_broadcasts(
    session: &Session,
    id: &SessionId,
    starts_us: &[u64],
    broadcasts: &mut BTreeMap<u64, ScopeDelta>,
) {
    let Some(Span { start, end }) = session.watched_extent() else { return };
    for (index, _) in by_period(Span { start, end }, starts_us) {
        let (start, end) = (starts_us[index], starts_us.get(index + 1).copied().unwrap_or(u64::MAX));
        if session.watched_within(start, end) {
            let viewers = session.viewers(Of::All).map(|viewer| who(viewer, id));
            broadcasts.entry(start / 1000).or_default().viewers.extend(viewers);
        }
    }
}

/// The broadcast session that a moment belongs to, by its start.
fn broadcast_at(channel: &Channel, moment_ms: u64) -> Option<u64> {
    let period = channel.starts_ms.partition_point(|start| *start <= moment_ms).checked_sub(1)?;
    channel.starts_ms.get(period).copied()
}

fn absorb_traffic(
    channel: &mut Channel,
    delta: &mut ChannelDelta,
    reporter: &Reporter,
    (entry, now_ms): (&TrafficReport, u64),
) {
    let (minute, index) = Resolution::Second.place(entry.second);
    let broadcast = broadcast_at(channel, entry.second.saturating_mul(1000).saturating_add(999));
    let key = (reporter.clone(), entry.protocol, minute);
    let held = channel.traffic.entry(key).or_insert_with(|| Held::new(vec![(0, 0); 60], now_ms));
    let (bytes, requests) = held.value[index];
    let more = (entry.bytes.saturating_sub(bytes), entry.requests.saturating_sub(requests));
    if more == (0, 0) {
        return;
    }
    held.touch(now_ms)[index] = (bytes + more.0, requests + more.1);
    let protocol = delta.protocols.entry(entry.protocol).or_default();
    for scope in [&mut delta.all, &mut delta.pop, protocol] {
        scope.traffic(more);
        let second = scope.second(entry.second);
        second.bytes = second.bytes.saturating_add(more.0);
        second.requests = second.requests.saturating_add(more.1);
    }
    if let Some(start_ms) = broadcast {
        delta.broadcasts.entry(start_ms).or_default().traffic(more);
    }
}

fn absorb_quality(
    channel: &mut Channel,
    delta: &mut ChannelDelta,
    reporter: &Reporter,
    (entry, now_ms): (&QualityReport, u64),
) {
    let broadcast = broadcast_at(channel, entry.minute.saturating_mul(60_000).saturating_add(59_999));
    let key = (reporter.clone(), entry.minute);
    let held = channel.quality.entry(key).or_insert_with(|| Held::new(Default::default(), now_ms));
    let more = held.touch(now_ms).unite(entry);
    delta.all.quality.add(&more);
    delta.pop.quality.add(&more);
    if let Some(start_ms) = broadcast {
        delta.broadcasts.entry(start_ms).or_default().quality.add(&more);
    }
}
