//! One playback session as it goes: the models of its viewer, and everything that is counted of it.
//!
//! Invariants: nothing here waits; what is counted of a response is what that response said. Times are microseconds
//! since the session began, or Unix milliseconds where the name says so.

mod gauges;
mod looks;
mod under_way;

use super::Sources;
use crate::adapt::{Estimate, Link, choose};
use crate::cmcd::{self, Object};
use crate::crowd::{Crowd, Weight};
use crate::dial::Protocol;
use crate::ground::Record;
use crate::listing::Position;
use crate::playback::{Happened, Playback};
use crate::player::{Kind, Manners, Player, Seen, Want};
use crate::random::Random;
use crate::scenario::CmcdIn;
use crate::shelf::Shelved;
use crate::tally::{ErrorKind, Leaving, Tally};
use crate::watched::{Presence, Watched};
use crate::wire::Answer;
use http::{HeaderName, HeaderValue};
use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use under_way::Waiting;

/// Clocks of one machine may differ by this much without saying anything.
const CLOCK_TOLERANCE_US: u64 = 5_000;
/// One in so many viewers hashes what it gets, and the first ones all.
const HASHED_EVERY: u64 = 16;
const HASHED_FIRST: u64 = 4;
/// Hinted parts that wait for their playlist.
const HINTS_MAX: usize = 8;

/// A hinted part that came before the playlist that says what it lasts.
struct Hinted {
    track: usize,
    at: Position,
    start_us: u64,
    arrived_us: u64,
    /// As CMSD-Static has it, for the last ones.
    lasts_us: Option<u64>,
}

/// See the module.
pub(super) struct Session {
    pub(super) crowd: Arc<Crowd>,
    shard: usize,
    pub(super) index: u64,
    begun: Instant,
    begun_unix_us: u64,
    hashes: bool,
    asleep: Cell<bool>,
    /// It does not wake up again.
    pub(super) for_good: Cell<bool>,
    /// Changes when there may be something new to get.
    pub(super) version: Cell<u32>,
    pub(super) state: RefCell<State>,
}

pub(super) struct State {
    pub(super) players: [Player; 2],
    pub(super) playback: Playback,
    link: Link,
    pub(super) estimate: Estimate,
    watched: Watched,
    presence: Presence,
    longest_part_us: u64,
    hinted: Vec<Hinted>,
    pub(super) sources: Sources,
    protocols: Vec<Protocol>,
    edges: Vec<String>,
    /// Where it got media, and where it is now, until that is noted.
    pops: Vec<String>,
    pop: Option<String>,
    slice: usize,
    /// Counted as a viewer of its slice, and as a stalled one.
    present: bool,
    stalled: bool,
    /// Renditions that it plays, and what it counts for.
    renditions: u64,
    weight: Weight,
    sid: String,
    bytes: u64,
    /// What is still to be said by CMCD.
    starved: bool,
    starved_us: Option<u64>,
    startup_us: Option<u64>,
    requests: u64,
    /// Requests under way.
    waiting: [Option<Waiting>; 4],
    /// It left while it was waiting for media.
    asking: bool,
    /// What that would have brought.
    unseen_us: u64,
    /// How much media was called off while it was under way.
    let_go_us: u64,
    /// Where it was called off before any had come from there.
    asked_pops: Vec<String>,
}

impl Session {
    pub(super) fn new(crowd: Arc<Crowd>, (shard, index): (usize, u64), sources: Sources) -> Self {
        let mut random = Random::new(crowd.seed, index.wrapping_mul(4));
        let habits = &crowd.habits;
        let manners = Manners { hints: random.happens(habits.hints), deltas: random.happens(habits.deltas) };
        let player = |track: u64| Player::new(habits.patience, index.wrapping_mul(2) + track, manners);
        let players = [player(0), player(1)];
        let link = Link::new(&habits.links, Random::new(crowd.seed, index.wrapping_mul(4) + 1));
        let begun_unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let state = State {
            players,
            playback: Playback::new(0, 1),
            link,
            estimate: Estimate::default(),
            watched: Watched::default(),
            presence: Presence::default(),
            longest_part_us: 0,
            hinted: Vec::new(),
            sources,
            protocols: Vec::new(),
            edges: Vec::new(),
            pops: Vec::new(),
            pop: None,
            slice: 0,
            present: false,
            stalled: false,
            renditions: 0,
            weight: Weight::default(),
            sid: format!("{:016x}{:016x}", random.next(), random.next()),
            bytes: 0,
            starved: false,
            starved_us: None,
            startup_us: None,
            requests: 0,
            waiting: [None; 4],
            asking: false,
            unseen_us: 0,
            let_go_us: 0,
            asked_pops: Vec::new(),
        };
        let session = Self {
            shard,
            index,
            begun: Instant::now(),
            begun_unix_us: u64::try_from(begun_unix.as_micros()).unwrap_or_default(),
            hashes: index < HASHED_FIRST || index.is_multiple_of(HASHED_EVERY),
            asleep: Cell::new(false),
            for_good: Cell::new(false),
            version: Cell::new(0),
            state: RefCell::new(state),
            crowd,
        };
        session.count(|tally| tally.sessions += 1);
        session
    }

    pub(super) fn now_us(&self) -> u64 {
        self.us(Instant::now())
    }

    fn us(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.begun).as_micros()).unwrap_or(u64::MAX)
    }

    fn unix_ms(&self, at: Instant) -> u64 {
        (self.begun_unix_us + self.us(at)) / 1000
    }

    pub(super) fn touch_version(&self) {
        self.version.set(self.version.get().wrapping_add(1));
    }

    pub(super) fn count(&self, update: impl FnOnce(&mut Tally)) {
        self.crowd.count(self.shard, |counts| update(&mut counts.tally));
    }

    pub(super) fn error(&self, kind: ErrorKind) {
        let slice = self.state.borrow().slice;
        self.crowd.count(self.shard, |counts| {
            counts.tally.error(kind);
            counts.live(slice).point.errors += 1;
        });
    }

    pub(super) fn set_sid(&self, sid: String) {
        self.state.borrow_mut().sid = sid;
    }

    /// Whether bodies are compared.
    pub(super) fn hashes(&self) -> bool {
        self.hashes
    }

    /// A response, or none, to a request that the model wanted at `wanted`.
    pub(super) fn requested(&self, wanted: Instant, answer: Option<&Answer>) {
        let mut state = self.state.borrow_mut();
        state.bytes += answer.map_or(0, |answer| answer.bytes);
        let slice = state.slice;
        self.crowd.count(self.shard, |counts| {
            counts.tally.requests += 1;
            let point = &mut counts.live(slice).point;
            point.requests += 1;
            let Some(answer) = answer else { return };
            point.bytes += answer.bytes;
            if !answer.dialled {
                counts.send_lag.record(answer.sent.saturating_duration_since(wanted));
            }
            counts.tally.bytes += answer.bytes;
            counts.tally.retried += u64::from(answer.retried);
        });
    }

    /// A playlist was understood.
    pub(super) fn loaded(&self, track: usize, shelved: Shelved) -> Seen {
        let now_us = self.now_us();
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let listing = Arc::clone(&shelved.listing);
        let seen = state.players[track].loaded(now_us, shelved);
        state.presence.set_segment(listing.target_duration_us);
        let enough = listing.part_target_us.map_or(listing.target_duration_us, |part| 2 * part);
        if let Some(end) = listing.end_us() {
            let happened = state.playback.listed(now_us, end, (listing.back_us(), enough));
            self.happened(state, &happened);
        }
        for hinted in std::mem::take(&mut state.hinted) {
            match state.players[hinted.track].duration_us(hinted.at) {
                Some(lasts) if hinted.track == track => {
                    let happened = self.watched(state, &hinted, lasts);
                    self.happened(state, &happened);
                }
                _ if state.hinted.len() < HINTS_MAX => state.hinted.push(hinted),
                _ => {}
            }
        }
        self.touch_version();
        seen
    }

    fn watched(&self, state: &mut State, hinted: &Hinted, lasts_us: u64) -> Happened {
        self.crowd.count(self.shard, |counts| counts.tally.media_us += lasts_us);
        let span = (hinted.start_us, hinted.start_us + lasts_us);
        state.watched.add(span);
        state.longest_part_us = state.longest_part_us.max(lasts_us);
        let now_us = self.now_us().max(hinted.arrived_us);
        state.playback.appended(now_us, hinted.track, span)
    }

    /// A media object arrived whole: when it has passed the viewer's own link. `None`: now.
    pub(super) fn passes(&self, answer: &Answer) -> Option<Duration> {
        let mut state = self.state.borrow_mut();
        let (from, here) = (self.us(answer.first_byte), self.us(answer.ended));
        let passed = state.link.passes(from, here, answer.bytes);
        state.estimate.measured(answer.bytes, passed.saturating_sub(from));
        passed.checked_sub(here).filter(|wait| *wait > 0).map(Duration::from_micros)
    }

    /// …and is in the buffer now.
    pub(super) fn buffered(&self, track: usize, want: &Want, answer: &Answer) {
        let now_us = self.now_us();
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let span = (want.start_us, want.start_us + want.duration_us);
        let happened = match want.kind {
            Kind::Init => return,
            Kind::Hint => {
                let hinted = Hinted {
                    track,
                    at: want.at,
                    start_us: want.start_us,
                    arrived_us: now_us,
                    lasts_us: answer.lasts_ms.map(|ms| ms * 1000),
                };
                match state.players[track].duration_us(want.at) {
                    Some(lasts) => self.watched(state, &hinted, lasts),
                    None => {
                        state.hinted.push(hinted);
                        Happened::default()
                    }
                }
            }
            Kind::Part | Kind::Segment => {
                if want.kind == Kind::Part {
                    state.longest_part_us = state.longest_part_us.max(want.duration_us);
                }
                state.watched.add(span);
                state.playback.appended(now_us, track, span)
            }
        };
        self.happened(state, &happened);
        if !state.present {
            self.gauges(state, true, false);
            self.crowd.count(self.shard, |counts| {
                counts.tally.viewers_started += 1;
                counts.live(state.slice).point.started += 1;
            });
        }
    }

    fn happened(&self, state: &mut State, happened: &Happened) {
        state.starved |= happened.stalls_begun > 0;
        if let Some(us) = happened.stall_ended_us {
            state.starved_us = Some(state.starved_us.unwrap_or_default() + us);
        }
        state.startup_us = state.startup_us.or(happened.started_us);
        let stalled = state.playback.is_stalled();
        self.gauges(state, state.present, stalled && state.present);
        let slice = state.slice;
        self.crowd.count(self.shard, |counts| {
            let tally = &mut counts.tally;
            tally.played_us += happened.played_us;
            if let Some(us) = happened.started_us {
                tally.startup.record(Duration::from_micros(us));
            }
            if let Some(us) = happened.stall_ended_us {
                tally.stall_time.record(Duration::from_micros(us));
            }
            tally.stalled_us += happened.stalled_us;
            if happened.stalls_begun > 0 {
                tally.stalls += happened.stalls_begun;
                counts.live(slice).point.stalls += happened.stalls_begun;
            }
        });
    }

    /// A playlist came that was not held, that long after it was wanted.
    pub(super) fn count_playlist(&self, took: Duration) {
        let slice = self.state.borrow().slice;
        self.crowd.count(self.shard, |counts| {
            counts.tally.playlist_time.record(took);
            counts.live(slice).point.playlist.record(took);
        });
    }

    /// Counts a media object by its kind.
    pub(super) fn count_media(&self, want: &Want, wanted: Instant, answer: &Answer) {
        let whole = answer.ended.saturating_duration_since(wanted);
        let slice = self.state.borrow().slice;
        let ended_us = self.begun_unix_us + self.us(answer.ended);
        self.crowd.count(self.shard, |counts| {
            counts.live(slice).point.answered(want.kind, whole);
            let tally = &mut counts.tally;
            match want.kind {
                Kind::Init => {
                    tally.inits += 1;
                    tally.init_time.record(whole);
                    return;
                }
                Kind::Part => {
                    tally.parts += 1;
                    tally.part_time.record(whole);
                }
                Kind::Hint => {
                    tally.parts += 1;
                    tally.hinted += 1;
                    tally.hint_time.record(whole);
                }
                Kind::Segment => {
                    tally.segments += 1;
                    tally.segment_time.record(whole);
                }
            }
            if want.kind != Kind::Hint {
                tally.first_byte.record(answer.first_byte.saturating_duration_since(wanted));
            }
            tally.media_us += want.duration_us;
            counts.live(slice).point.parts += 1;
            if want.live {
                delays(counts.live(slice), (want, ended_us), answer.at_ms);
                count_delay(&mut counts.tally, (want, ended_us), answer.at_ms);
            }
        });
    }

    /// The variant to switch to, at a segment's beginning.
    pub(super) fn adapts(&self) -> Option<usize> {
        let state = self.state.borrow();
        let starts = state.players[0].cursor().is_some_and(|(_, part)| part == 0);
        if !starts || state.sources.variants.len() < 2 {
            return None;
        }
        let rates: Vec<u64> = state.sources.variants.iter().map(|variant| variant.bandwidth_bps).collect();
        let ahead = state.playback.ahead_us() > 0;
        let chosen = choose(&rates, state.sources.chosen, state.estimate.bps()?, ahead);
        (chosen != state.sources.chosen).then_some(chosen)
    }

    pub(super) fn seek(&self, to: Option<f64>) {
        let now_us = self.now_us();
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let msn = to.and_then(|share| {
            let listing = state.players[0].listing()?;
            let whole = listing.segments.iter().filter(|segment| segment.uri.is_some()).count();
            listing.segments.get((share * whole as f64) as usize).map(|segment| segment.msn)
        });
        for player in &mut state.players {
            player.seek(msn);
        }
        let happened = state.playback.seek(now_us);
        self.happened(state, &happened);
        self.count(|tally| tally.seeks += 1);
        self.touch_version();
    }

    /// What CMCD says with a request.
    pub(super) fn says(&self, object: Object) -> (Option<String>, Vec<(HeaderName, HeaderValue)>) {
        let how = self.crowd.habits.cmcd;
        if how == CmcdIn::Off {
            return (None, Vec::new());
        }
        let now_us = self.now_us();
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        state.requests += 1;
        let rate = |variant: &super::Variant| variant.bandwidth_bps;
        let playing = state.playback.startup_us().is_some() && !state.playback.is_stalled();
        let dated = state.players[0].listing().is_some_and(|listing| listing.end_us().is_some());
        let said = cmcd::State {
            content: &state.sources.channel,
            session: &state.sid,
            bitrate_bps: state.sources.variants.get(state.sources.chosen).map(rate),
            top_bitrate_bps: state.sources.variants.iter().map(rate).max(),
            throughput_bps: state.estimate.bps(),
            buffer_us: Some(state.playback.ahead_us()),
            latency_us: state.playback.latency_us(self.begun_unix_us + now_us).filter(|_| dated),
            starved: std::mem::take(&mut state.starved),
            starved_us: state.starved_us.take(),
            startup_us: state.startup_us.take(),
            urgent: !playing,
            playing,
            rate: state.playback.rate(),
            number: state.requests,
        };
        match how {
            CmcdIn::Query => (Some(said.query(object)), Vec::new()),
            _ => (None, said.headers(object)),
        }
    }

    /// The end. `sid` is of the signed path, if there was one.
    pub(super) fn finish(&self, left: Leaving, sid: Option<String>) {
        let begun_ms = self.begun_unix_us / 1000;
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        for hinted in std::mem::take(&mut state.hinted) {
            if let Some(lasts) = hinted.lasts_us {
                state.watched.add((hinted.start_us, hinted.start_us + lasts));
            }
        }
        // Everybody else calls off what is under way.
        let unseen_us = if left == Leaving::Vanish { state.unseen_us } else { 0 };
        self.counts_running_stall(state);
        if state.present {
            self.gauges(state, false, false);
            self.crowd.count(self.shard, |counts| counts.live(state.slice).point.left += 1);
        }
        self.count(|tally| *tally.left.entry(left).or_default() += 1);
        state.asked_pops.retain(|pop| !state.pops.contains(pop));
        let pops = if state.pops.is_empty() { state.edges.clone() } else { std::mem::take(&mut state.pops) };
        self.crowd.log(|| Record {
            session: sid.unwrap_or_default(),
            channel: state.sources.channel.clone(),
            pops,
            protocol: state.protocols.last().copied().unwrap_or(Protocol::H1),
            started_at_ms: begun_ms,
            first_media_at_ms: state.presence.first_media_ms(),
            last_response_at_ms: state.presence.last_ms(),
            left,
            present_ms: state.presence.spans().to_vec(),
            watched_us: state.watched.total_us(),
            parts: state.watched.objects(),
            longest_part_us: state.longest_part_us,
            asking: state.asking,
            unseen_us,
            let_go_us: state.let_go_us,
            asked_pops: std::mem::take(&mut state.asked_pops),
            bytes: state.bytes,
            stalls: state.playback.stalls(),
            stalled_ms: state.playback.stalled_us() / 1000,
            startup_ms: state.playback.startup_us().map(|us| us / 1000),
            edges: state.edges.clone(),
            protocols: state.protocols.clone(),
        });
    }
}

fn delays(live: &mut crate::crowd::Live, (_, ended_us): (&Want, u64), at_ms: Option<u64>) {
    if let Some(at_ms) = at_ms {
        live.point.part_delay.record(Duration::from_micros(ended_us.saturating_sub(at_ms * 1000)));
    }
}

fn count_delay(tally: &mut Tally, (want, ended_us): (&Want, u64), at_ms: Option<u64>) {
    // Media time is a date where it is near now; other playlists have none.
    let end_us = want.start_us + want.duration_us;
    if want.start_us > 1_000_000_000_000_000 && want.kind != Kind::Hint {
        tally.part_age.record(Duration::from_micros(ended_us.saturating_sub(end_us)));
    }
    let Some(at_us) = at_ms.map(|ms| ms * 1000) else {
        tally.undated += 1;
        return;
    };
    tally.part_delay.record(Duration::from_micros(ended_us.saturating_sub(at_us)));
    if at_us > ended_us + CLOCK_TOLERANCE_US {
        tally.future += 1;
    }
}
