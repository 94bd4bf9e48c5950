//! One emulated viewer: the player models driven over real connections, everything counted.
//!
//! A viewer is one task: its connections, both renditions' playlists and media, and what it does besides are polled
//! together. Invariants: the next reload waits while parts are fetched, as browsers do it; a session ends with its
//! script, with its broadcast or with the run. Deliberately absent: when sessions begin (`run`).

mod household;
mod play;
mod session;

use crate::address::Address;
use crate::crowd::{Crowd, Pick};
use crate::dial::Protocol;
use crate::ground;
use crate::playlist;
use crate::scenario::plan::Exodus;
use crate::script::{Act, Script};
use crate::tally::{ErrorKind, Leaving};
use crate::wire::{Lane, Route, Wire};
use session::Session;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) use household::{Household, TURN};

/// Redirects followed to the multivariant playlist: the signed path, and one to another edge.
const REDIRECTS_MAX: u32 = 2;

/// Turns of the event loop until what has arrived is read: from the socket, by the connection, by who asked for it.
const SETTLING_TURNS: u32 = 3;

/// Where viewers can be.
#[derive(Debug)]
pub(crate) struct Places {
    pub(crate) addresses: Vec<Address>,
    /// By place: others with the same channel.
    pub(crate) elsewhere: Vec<Vec<usize>>,
    pub(crate) exoduses: Vec<Exodus>,
}

/// Who watches what.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) places: Arc<Places>,
    /// Where it begins.
    pub(crate) place: usize,
    pub(crate) protocol: Protocol,
    pub(crate) script: Script,
    pub(crate) index: u64,
    /// The thread it runs on.
    pub(crate) shard: usize,
}

/// A variant as chosen from.
#[derive(Debug, Clone)]
pub(crate) struct Variant {
    pub(crate) uri: String,
    pub(crate) audio_uri: Option<String>,
    pub(crate) bandwidth_bps: u64,
}

/// What there is to play.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sources {
    pub(crate) channel: String,
    /// Empty if a media playlist was given directly.
    pub(crate) variants: Vec<Variant>,
    pub(crate) chosen: usize,
}

/// Why a viewer does something else than playing on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Exit {
    /// The broadcast is over.
    Ended,
    /// From the multivariant playlist on.
    Restart(Duration),
    /// Another variant.
    Switch(usize),
    /// Another edge, and perhaps another protocol.
    Move(Option<Protocol>),
    /// Away, if this place is the one that dies.
    Flee(usize),
    Leave(Leaving),
    /// The run is over.
    Stop,
    /// The multivariant playlist is on another server.
    Elsewhere,
}

/// Watches from the beginning to the end of a session. Returns whether the broadcast or the run is over.
pub(crate) async fn watch(crowd: Arc<Crowd>, household: Rc<Household>, plan: Plan) -> bool {
    let mut place = plan.place;
    let start = entry(&crowd, &plan);
    let sources = Sources { channel: channel_of(&start.path), ..Sources::default() };
    let session = Rc::new(Session::new(Arc::clone(&crowd), (plan.shard, plan.index), sources));
    household.joins(&session);
    // Who is going to vanish with QUIC needs a socket of its own for that.
    let quic = if plan.script.vanishes() { Rc::default() } else { Rc::clone(&household.quic) };
    let mut acts = plan.script.clone();
    let (mut at, mut protocol) = (start, plan.protocol);
    let left = loop {
        let route = Route { authority: &at.authority, protocol, timeout: crowd.habits.request_timeout };
        let wire = Wire::new(Arc::clone(&crowd.dialer), Rc::clone(&quic), &route);
        let channel = session.state.borrow().sources.channel.clone();
        session.arrives(at.authority.to_string(), &channel, protocol);
        let exit = {
            let playing = pin!(until_exit(&session, &wire, &mut at, (&plan, place, &mut acts)));
            tokio::select! {
                biased;
                exit = wire.driving(playing) => exit,
                () = async { household.stopping().await; settled().await } => Exit::Stop,
            }
        };
        match exit {
            Exit::Move(_) | Exit::Flee(_) => {
                session.calls_off();
                Box::pin(wire.close()).await;
                let to = match exit {
                    Exit::Flee(number) => flight(&plan, number, place),
                    _ => onward(&plan, place),
                };
                if let (Some(to), Some(address)) = (to, to.and_then(|to| plan.places.addresses.get(to))) {
                    place = to;
                    // The same signed path at another edge.
                    at.authority = address.authority.clone();
                }
                if let Exit::Move(Some(over)) = exit {
                    protocol = over;
                }
                session.count(|tally| tally.migrations += 1);
            }
            Exit::Elsewhere => Box::pin(wire.close()).await,
            Exit::Leave(how) => {
                session.ending();
                session.calls_off();
                depart(wire, how, &household, &crowd).await;
                break how;
            }
            exit => {
                let ended = exit == Exit::Ended && !session.for_good.get();
                session.count(|tally| tally.ended += u64::from(ended));
                session.ending();
                session.calls_off();
                Box::pin(wire.close()).await;
                break if session.for_good.get() { Leaving::Sleep } else { Leaving::End };
            }
        }
    };
    session.finish(left, ground::sid_of(&at.path));
    left == Leaving::End
}

async fn depart(wire: Wire, how: Leaving, household: &Household, crowd: &Crowd) {
    match how {
        Leaving::Reset => wire.reset(),
        Leaving::Vanish => {
            wire.vanish();
            household.keeps(Instant::now() + crowd.habits.vanished, wire);
        }
        _ => Box::pin(wire.close()).await,
    }
}

/// Where the next edge is, if there is another one.
fn onward(plan: &Plan, place: usize) -> Option<usize> {
    let others = plan.places.elsewhere.get(place)?;
    // By turns, from a place that depends on who it is.
    others.get(usize::try_from(plan.index).unwrap_or_default().checked_rem(others.len())?).copied()
}

/// Where who is at a place that dies goes.
fn flight(plan: &Plan, number: usize, place: usize) -> Option<usize> {
    let exodus = plan.places.exoduses.get(number).filter(|exodus| exodus.from == place)?;
    exodus.to.get(usize::try_from(plan.index).unwrap_or_default().checked_rem(exodus.to.len())?).copied()
}

/// The channel in a path, or the path.
pub(crate) fn channel_of(path: &str) -> String {
    let path = path.split('?').next().unwrap_or_default();
    let channel = path.split_once("/live/").and_then(|(_, rest)| rest.split('/').next());
    channel.unwrap_or(path).to_owned()
}

/// Where a viewer comes in: its place, with its token.
fn entry(crowd: &Crowd, plan: &Plan) -> Address {
    let mut address = plan.places.addresses[plan.place].clone();
    let turn = (plan.index / crowd.habits.tabs).checked_rem(crowd.tokens.len() as u64);
    let token = turn.and_then(|turn| crowd.tokens.get(usize::try_from(turn).ok()?));
    if let Some(token) = token {
        let join = if address.path.contains('?') { '&' } else { '?' };
        address.path = format!("{}{join}token={token}", address.path);
    }
    address
}

/// Plays until something ends it, doing in between what the script says.
async fn until_exit(
    session: &Session,
    wire: &Wire,
    at: &mut Address,
    (plan, place, acts): (&Plan, usize, &mut Script),
) -> Exit {
    let acting = async {
        let exit = act(session, (plan, place), acts).await;
        settled().await;
        exit
    };
    tokio::select! {
        biased;
        exit = playing(session, wire, at) => exit,
        exit = acting => exit,
    }
}

/// Resolves when what had arrived by now was read: a tester that is late must not take for lost what only waits for it.
pub(crate) async fn settled() {
    for _ in 0..SETTLING_TURNS {
        tokio::task::yield_now().await;
    }
}

/// Does what the script says; ends with what cannot be done beside playing.
async fn act(session: &Session, (plan, place): (&Plan, usize), acts: &mut Script) -> Exit {
    while let Some(at) = acts.next_at() {
        let now = Duration::from_micros(session.now_us());
        if at > now {
            tokio::time::sleep(at - now).await;
        }
        let Some((_, act)) = acts.next() else { break };
        match act {
            // What it asked for still comes; then it is there, and does nothing.
            Act::Leave(Leaving::Sleep) => {
                session.sleeps();
                session.for_good.set(true);
                tokio::time::sleep(session.crowd.habits.slept).await;
                return Exit::Leave(Leaving::Sleep);
            }
            Act::Seek(share) => session.seek(Some(share)),
            Act::Live => session.seek(None),
            Act::Sleep => session.sleeps(),
            Act::Wake => {
                session.wakes();
                session.seek(None);
            }
            Act::Move(protocol) => return Exit::Move(protocol),
            Act::Flee(number) if flight(plan, number, place).is_some() => return Exit::Flee(number),
            Act::Flee(_) => {}
            Act::Leave(how) => return Exit::Leave(how),
        }
    }
    std::future::pending().await
}

/// From the multivariant playlist on, again and again.
async fn playing(session: &Session, wire: &Wire, at: &mut Address) -> Exit {
    let patience = session.crowd.habits.patience;
    let mut failures = 0u32;
    loop {
        let wait = match select(session, wire, at).await {
            Ok(false) => return Exit::Elsewhere,
            Ok(true) => {
                failures = 0;
                match play::play(session, wire, at).await {
                    Exit::Restart(after) => {
                        session.calls_off();
                        after
                    }
                    exit => return exit,
                }
            }
            Err(kind) => {
                session.error(kind);
                failures = failures.saturating_add(1);
                patience.wait(failures, session.index)
            }
        };
        tokio::time::sleep(wait).await;
        session.state.borrow_mut().players.iter_mut().for_each(crate::player::Player::restart);
    }
}

/// Gets the multivariant playlist, following redirects (a signed session path), and chooses. False if it is elsewhere.
async fn select(session: &Session, wire: &Wire, at: &mut Address) -> Result<bool, ErrorKind> {
    let (mut lane, mut text) = (Lane::default(), Vec::new());
    let mut redirects = 0;
    let answer = loop {
        let (answer, body) = play::manifest(session, wire, (&mut lane, 0), &at.path).await?;
        text = if body.is_empty() { text } else { body };
        if !matches!(answer.status, 301 | 302 | 303 | 307 | 308) {
            break answer;
        }
        redirects += 1;
        let target = answer.location.as_deref().filter(|_| redirects <= REDIRECTS_MAX);
        *at = at.join(target.ok_or(ErrorKind::Status(answer.status))?).map_err(|_| ErrorKind::BadUri)?;
        if let Some(sid) = ground::sid_of(&at.path) {
            session.set_sid(sid);
        }
        if at.authority != *wire.authority() {
            return Ok(false);
        }
    };
    match answer.status {
        200 => {}
        401 | 403 => return Err(ErrorKind::Refused),
        status => return Err(ErrorKind::Status(status)),
    }
    session.count(|tally| tally.playlists += 1);
    let mut state = session.state.borrow_mut();
    if !std::str::from_utf8(&text).is_ok_and(playlist::is_multivariant) {
        // A media playlist may be given directly.
        state.sources.variants.clear();
        return Ok(true);
    }
    let variants = playlist::multivariant(&text).map_err(|_| ErrorKind::BadPlaylist)?;
    let habits = &session.crowd.habits;
    let known = state.sources.variants.len() == variants.len() && habits.pick == Pick::Adaptive;
    if !known {
        state.sources.chosen = habits.pick.of(&variants).ok_or(ErrorKind::NoVariant)?;
    }
    let owned = |variant: &playlist::VariantView<'_>| Variant {
        uri: variant.uri.to_owned(),
        audio_uri: variant
            .audio_uri
            .filter(|uri| !habits.video_only && *uri != variant.uri)
            .map(str::to_owned),
        bandwidth_bps: variant.bandwidth_bps,
    };
    state.sources.variants = match habits.pick {
        Pick::Adaptive => variants.iter().map(owned).collect(),
        _ => {
            let chosen = std::mem::take(&mut state.sources.chosen);
            variants.get(chosen).map(owned).into_iter().collect()
        }
    };
    Ok(true)
}
