//! The shell around the viewer ledger: locks, clock, channel numbers; and a request's visit to it.
//!
//! Invariants: a session always comes to the same shard; the time of an event is read under its lock, so that what was told
//! until a moment is complete, and no event is between two settings of the clock (`steady`); no lock is held over anything
//! that waits. A request that is answered from memory takes one lock, once, when its body ends (A7).

mod steady;

use crate::admission::now_ms;
use crate::head::{Kind, Object};
use crate::ledger::{Due, Ended, Ledger, Waited, Who};
use crate::presence::Known;
use http::{HeaderMap, Method, Request, StatusCode, Version};
use sigma_report::report::Protocol;
use sigma_shared::cmcd::{self, Cmcd};
use sigma_shared::id::ChannelId;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use steady::{Look, Offset, Steady, unix_ms};
use tokio::time::Instant;

const SHARDS: usize = 16;
/// As many as one report may speak of.
const CHANNELS_MAX: usize = 65_536;

/// What a known session is to the ledger.
#[derive(Debug)]
pub(crate) struct Tally {
    /// A hash of who watches, 0 when nothing is known.
    pub(crate) viewer: u64,
    /// By number; `None` when it is one too many.
    pub(crate) channel: Option<u32>,
    places: [AtomicU64; 3],
}

impl Tally {
    pub(crate) fn new(viewer: u64, channel: Option<u32>) -> Self {
        Self { viewer, channel, places: Default::default() }
    }
}

/// A ledger, and the time by which it counts.
#[derive(Debug)]
struct Shard {
    ledger: Ledger,
    began: Instant,
    offset_ms: Offset,
}

impl Shard {
    fn now_ms(&self) -> u64 {
        unix_ms(since_ms(self.began), self.offset_ms)
    }

    /// Everything that is new, by the time until now. Returns until when that is complete.
    fn due(&mut self, look: Look, quality: bool, due: &mut Due) -> u64 {
        match look {
            Look::Goes(offset_ms) => {
                self.offset_ms = offset_ms;
                self.ledger.due(self.now_ms(), quality, due)
            }
            Look::Turns(offset_ms) => {
                let before_ms = self.now_ms();
                let until_ms = self.ledger.due(before_ms, true, due);
                self.offset_ms = offset_ms;
                self.ledger.turn(before_ms, self.now_ms());
                until_ms
            }
        }
    }
}

/// What there is to tell.
#[derive(Debug)]
pub(crate) struct Telling {
    pub(crate) due: Due,
    /// Until when it is complete, Unix milliseconds.
    pub(crate) complete_until_ms: u64,
    /// The wall clock was set, by so many milliseconds: what comes next is told by another time.
    pub(crate) turned_ms: Option<i64>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Viewers {
    began: Instant,
    steady: Mutex<Steady>,
    shards: Vec<Mutex<Shard>>,
    channels: RwLock<HashMap<ChannelId, u32>>,
    uncounted: AtomicU64,
}

/// Who makes a request that counts.
#[derive(Debug, Clone)]
pub(crate) struct Party {
    /// The session, when it has one.
    pub(crate) known: Option<Arc<Known>>,
    /// By number.
    pub(crate) channel: u32,
}

impl Viewers {
    /// For so many sessions.
    pub(crate) fn new(sessions_max: usize) -> Arc<Self> {
        Self::starting_at(sessions_max, now_ms())
    }

    fn starting_at(sessions_max: usize, wall_ms: u64) -> Arc<Self> {
        let (began, steady) = (Instant::now(), Steady::new(0, wall_ms));
        let shard = |_| {
            let ledger = Ledger::new(sessions_max.div_ceil(SHARDS));
            Mutex::new(Shard { ledger, began, offset_ms: steady.offset_ms() })
        };
        let shards = (0..SHARDS).map(shard).collect();
        let (channels, uncounted) = (RwLock::default(), AtomicU64::new(0));
        Arc::new(Self { began, steady: Mutex::new(steady), shards, channels, uncounted })
    }

    /// The number of a channel; `None` when there are too many.
    pub(crate) fn channel(&self, channel: &ChannelId) -> Option<u32> {
        let known = self.channels.read().unwrap_or_else(PoisonError::into_inner).get(channel).copied();
        if known.is_some() {
            return known;
        }
        let mut channels = self.channels.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = channels.get(channel) {
            return Some(*known);
        }
        if channels.len() >= CHANNELS_MAX {
            self.uncounted.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        let number = u32::try_from(channels.len()).ok()?;
        channels.insert(channel.clone(), number);
        Some(number)
    }

    /// The names of the channels, by number.
    pub(crate) fn channel_names(&self) -> Vec<String> {
        let channels = self.channels.read().unwrap_or_else(PoisonError::into_inner);
        let mut names = vec![String::new(); channels.len()];
        for (channel, number) in channels.iter() {
            if let Some(name) = names.get_mut(*number as usize) {
                channel.as_str().clone_into(name);
            }
        }
        names
    }

    /// Everything that is new, once.
    pub(crate) fn due(&self, quality: bool) -> Telling {
        self.due_by(now_ms(), quality)
    }

    fn due_by(&self, wall_ms: u64, quality: bool) -> Telling {
        let (look, turned_ms) = {
            let mut steady = self.steady.lock().unwrap_or_else(PoisonError::into_inner);
            let before_ms = steady.offset_ms();
            let look = steady.look(since_ms(self.began), wall_ms);
            let turns = matches!(look, Look::Turns(_));
            (look, turns.then(|| steady.offset_ms().saturating_sub(before_ms)))
        };
        let mut due = Due::default();
        // What one shard has told until, the others may not have: the least of them.
        let until = self.shards.iter().map(|shard| locked(shard).due(look, quality, &mut due)).min();
        due.lost.sessions += self.uncounted.swap(0, Ordering::Relaxed);
        Telling { due, complete_until_ms: until.unwrap_or(0), turned_ms }
    }

    fn shard(&self, session: &[u8; 16]) -> MutexGuard<'_, Shard> {
        locked(&self.shards[usize::from(session[15]) % SHARDS])
    }
}

fn since_ms(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn locked(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the headers and the query of a request say of its player.
fn said(query: Option<&str>, headers: &HeaderMap) -> Option<Cmcd> {
    let mut said = query.and_then(Cmcd::of_query);
    for name in cmcd::HEADERS {
        if let Some(value) = headers.get(name) {
            said.get_or_insert_default().read(value.as_bytes());
        }
    }
    said
}

/// One request, from its arrival to the end of its answer's body.
#[derive(Debug)]
pub(crate) struct Visit {
    viewers: Arc<Viewers>,
    party: Party,
    protocol: Protocol,
    /// Only a GET watches anything.
    get: bool,
    /// It waits, at this place.
    held: Option<u64>,
    answer: Option<(StatusCode, Object)>,
}

impl Visit {
    /// A request that was let in.
    pub(crate) fn begin(viewers: &Arc<Viewers>, party: Party, request: &Request<()>) -> Self {
        let protocol = match request.version() {
            Version::HTTP_2 => Protocol::H2,
            Version::HTTP_3 => Protocol::H3,
            _ => Protocol::H1,
        };
        let get = request.method() == Method::GET;
        let visit = Self { viewers: Arc::clone(viewers), party, protocol, get, held: None, answer: None };
        if let Some((known, who)) = visit.who()
            && let Some(said) = said(request.uri().query(), request.headers())
        {
            let place = known.place(visit.protocol);
            let mut shard = visit.viewers.shard(&who.session);
            let now_ms = shard.now_ms();
            shard.ledger.said(&who, place.load(Ordering::Relaxed), (&said, now_ms));
        }
        visit
    }

    fn who(&self) -> Option<(&Arc<Known>, Who)> {
        let known = self.party.known.as_ref()?;
        let (session, viewer) = (known.session.id.0, known.tally.get()?.viewer);
        Some((known, Who { session, viewer, channel: self.party.channel, protocol: self.protocol }))
    }

    /// It is to wait for something that is still to come.
    pub(crate) fn wait(&mut self) {
        if let Some((known, who)) = self.who().filter(|_| self.get) {
            let place = known.place(self.protocol);
            let mut shard = self.viewers.shard(&who.session);
            let now_ms = shard.now_ms();
            let held = shard.ledger.hold(&who, place.load(Ordering::Relaxed), now_ms);
            drop(shard);
            place.store(held, Ordering::Relaxed);
            self.held = Some(held);
        }
    }

    /// The head of its answer goes out.
    pub(crate) fn answered(&mut self, status: StatusCode, object: Object) {
        self.answer = Some((status, object));
        let good = status.is_success();
        let waited = if good { Waited::Answered } else { Waited::Refused };
        if let Some((held, (_, who))) = self.held.take().zip(self.who()) {
            let mut shard = self.viewers.shard(&who.session);
            let now_ms = shard.now_ms();
            shard.ledger.release(held, waited, now_ms);
        }
    }

    /// Some of its body went out, and there is more to come.
    pub(crate) fn going(&self) {
        let media = self.get && self.answer.is_some_and(|(_, object)| object.kind == Kind::Media);
        if let Some((known, who)) = self.who().filter(|_| media) {
            let place = known.place(self.protocol);
            let mut shard = self.viewers.shard(&who.session);
            let now_ms = shard.now_ms();
            let at = shard.ledger.going(&who, place.load(Ordering::Relaxed), now_ms);
            drop(shard);
            place.store(at, Ordering::Relaxed);
        }
    }

    /// Its body is over, with so many bytes handed to the connection; `complete` when that is all of it.
    pub(crate) fn end(&mut self, bytes: u64, complete: bool) {
        let Some((known, who)) = self.who() else {
            let shard = &self.viewers.shards[self.party.channel as usize % SHARDS];
            let mut shard = locked(shard);
            let now_ms = shard.now_ms();
            shard.ledger.sent(self.party.channel, self.protocol, (bytes, now_ms));
            return;
        };
        let ended = self.ended(bytes, complete);
        let place = known.place(self.protocol);
        let mut shard = self.viewers.shard(&who.session);
        let now_ms = shard.now_ms();
        if let Some(held) = self.held {
            // There was no head: the viewer's transport went away.
            shard.ledger.release(held, Waited::Left, now_ms);
        }
        shard.ledger.sent(who.channel, who.protocol, (bytes, now_ms));
        if let Some(ended) = ended {
            let hint = place.load(Ordering::Relaxed);
            let at = shard.ledger.ended(&who, hint, (&ended, now_ms));
            drop(shard);
            if at != hint {
                place.store(at, Ordering::Relaxed);
            }
        }
    }

    /// What its end says of who watches; `None` for nothing.
    fn ended(&self, bytes: u64, complete: bool) -> Option<Ended> {
        let (status, object) = self.answer.filter(|_| self.get && complete)?;
        let good = status.is_success();
        let whole = status == StatusCode::OK && bytes > 0;
        let media = whole && object.kind == Kind::Media;
        let watched = object.span.filter(|_| media);
        (good && object.kind != Kind::Other).then_some(Ended { watched, media, first_byte_ms: None, good })
    }
}

impl Known {
    fn place(&self, protocol: Protocol) -> &AtomicU64 {
        // Whoever has a party was tallied.
        let tally = self.tally.get_or_init(|| Tally::new(0, None));
        &tally.places[protocol as usize]
    }
}

#[cfg(test)]
impl Viewers {
    /// An answer that ended, and its bytes.
    pub(crate) fn tell(&self, who: &Who, ended: &Ended, bytes: u64) {
        let mut shard = self.shard(&who.session);
        let now_ms = shard.now_ms();
        shard.ledger.ended(who, 0, (ended, now_ms));
        shard.ledger.sent(who.channel, who.protocol, (bytes, now_ms));
    }
}

#[cfg(test)]
mod tests;
