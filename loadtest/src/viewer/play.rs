//! Playing: the loops that reload playlists and fetch media, for video and, if it has its own, audio.
//!
//! Invariant: all loops of a viewer are polled together whenever one of them has something to do, playlists first, so
//! that what a playlist brings is fetched at once. Retries are spaced by the player model.

use super::session::Session;
use super::{Exit, Variant};
use crate::address::Address;
use crate::cmcd::Object;
use crate::player::{Kind, Step, Want};
use crate::tally::ErrorKind;
use crate::wire::{Answer, Ask, Lane, Wire};
use sigma_shared::directives::Directives;
use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

/// Media buffered at most; then fetching waits.
const BUFFER_MAX_US: u64 = 30_000_000;

/// A track, and whether it is audio beside video.
#[derive(Clone, Copy)]
struct Track {
    index: usize,
    /// There is an audio track of its own.
    split: bool,
}

/// Plays what was chosen.
pub(super) async fn play(session: &Session, wire: &Wire, at: &Address) -> Exit {
    loop {
        let variant = {
            let state = session.state.borrow();
            state.sources.variants.get(state.sources.chosen).cloned()
        };
        let exit = match addresses(at, variant.as_ref()) {
            Ok((main, audio)) => both(session, wire, (main, audio)).await,
            Err(kind) => {
                session.error(kind);
                Exit::Restart(session.crowd.habits.patience.wait(1, session.index))
            }
        };
        let Exit::Switch(to) = exit else { return exit };
        session.calls_off();
        let mut state = session.state.borrow_mut();
        let rate = |index: usize| state.sources.variants.get(index).map(|variant| variant.bandwidth_bps);
        let up = rate(to) > rate(state.sources.chosen);
        state.sources.chosen = to;
        state.players[0].switch();
        drop(state);
        session.count(|tally| if up { tally.switches_up += 1 } else { tally.switches_down += 1 });
    }
}

fn addresses(at: &Address, variant: Option<&Variant>) -> Result<(Address, Option<Address>), ErrorKind> {
    let Some(variant) = variant else { return Ok((at.clone(), None)) };
    let join = |uri: &String| {
        let target = at.join(uri).map_err(|_| ErrorKind::BadUri)?;
        (target.authority == at.authority).then_some(target).ok_or(ErrorKind::BadUri)
    };
    Ok((join(&variant.uri)?, variant.audio_uri.as_ref().map(join).transpose()?))
}

async fn both(session: &Session, wire: &Wire, (main, audio): (Address, Option<Address>)) -> Exit {
    let split = audio.is_some();
    session.state.borrow_mut().playback.set_tracks(1 + usize::from(split));
    let main = rendition(session, wire, (Track { index: 0, split }, &main));
    let Some(audio) = audio else { return main.await };
    // Boxed: half of all viewers have none.
    let mut audio = Box::pin(rendition(session, wire, (Track { index: 1, split }, &audio)));
    let mut main = pin!(main);
    let mut ended = [false; 2];
    poll_fn(|cx| {
        for (index, ended) in ended.iter_mut().enumerate() {
            let polled = match index {
                _ if *ended => continue,
                0 => main.as_mut().poll(cx),
                _ => audio.as_mut().poll(cx),
            };
            match polled {
                Poll::Ready(Exit::Ended) => *ended = true,
                Poll::Ready(exit) => return Poll::Ready(exit),
                Poll::Pending => {}
            }
        }
        if ended == [true; 2] { Poll::Ready(Exit::Ended) } else { Poll::Pending }
    })
    .await
}

/// Counts a rendition while it is played.
struct Played<'a>(&'a Session);

impl<'a> Played<'a> {
    fn new(session: &'a Session) -> Self {
        session.plays(1, 0);
        Self(session)
    }
}

impl Drop for Played<'_> {
    fn drop(&mut self) {
        self.0.plays(0, 1);
    }
}

async fn rendition(session: &Session, wire: &Wire, (track, address): (Track, &Address)) -> Exit {
    let _played = Played::new(session);
    let mut reloads = pin!(reloads(session, wire, (track, address)));
    let mut media = pin!(media(session, wire, (track, address)));
    poll_fn(|cx| match reloads.as_mut().poll(cx) {
        Poll::Ready(exit) => Poll::Ready(exit),
        Poll::Pending => media.as_mut().poll(cx),
    })
    .await
}

/// Resolves when the viewer is awake. Whatever wakes it up wakes its task.
async fn awake(session: &Session) {
    poll_fn(|_| if session.is_asleep() { Poll::Pending } else { Poll::Ready(()) }).await;
}

async fn reloads(session: &Session, wire: &Wire, (track, address): (Track, &Address)) -> Exit {
    let mut lane = Lane::default();
    loop {
        let step = session.state.borrow().players[track.index].step(session.now_us());
        let (directives, after) = match step {
            Step::Playlist { directives, after } => (directives, after),
            // What is listed is still being fetched and played.
            Step::Ended => std::future::pending().await,
            Step::Restart { after } => return Exit::Restart(after),
        };
        if !after.is_zero() {
            tokio::time::sleep(after).await;
        }
        awake(session).await;
        // A tab that slept asks anew.
        let step = session.state.borrow().players[track.index].step(session.now_us());
        let skip = match step {
            Step::Playlist { directives, .. } => directives.skip,
            _ => None,
        };
        let directives = Directives { skip, ..directives };
        if let Err(kind) = reload(
            session,
            wire,
            &mut lane,
            (track, &address.with_query(&directives.to_string()), directives),
        )
        .await
        {
            session.error(kind);
            session.state.borrow_mut().players[track.index].failed();
        }
    }
}

async fn reload(
    session: &Session,
    wire: &Wire,
    lane: &mut Lane,
    (track, path, directives): (Track, &str, Directives),
) -> Result<(), ErrorKind> {
    let held = directives.is_blocking();
    let wanted = Instant::now();
    let (answer, text) = manifest(session, wire, (lane, track.index * 2), path).await?;
    if answer.status != 200 {
        return Err(ErrorKind::Status(answer.status));
    }
    let shelf = &session.crowd.shelf;
    let mut shelved = shelf.read(path, &text).map_err(|_| ErrorKind::BadPlaylist)?;
    let delta = shelved.listing.skipped > 0;
    if delta {
        let base = session.state.borrow().players[track.index].base().cloned();
        shelved = base.and_then(|base| shelf.merged(&base, &shelved)).ok_or(ErrorKind::BadDelta)?;
    }
    let seen = session.loaded(track.index, shelved);
    let took = answer.ended.saturating_duration_since(wanted);
    if !held {
        session.count_playlist(took);
    }
    session.count(|tally| {
        tally.playlists += 1;
        tally.deltas += u64::from(delta);
        if held {
            tally.hold.record(took);
        }
        tally.errors_of(ErrorKind::Gap, seen.missed);
        tally.errors_of(ErrorKind::Regression, seen.regressed.into());
        tally.errors_of(ErrorKind::Unsatisfied, seen.unsatisfied.into());
    });
    Ok(())
}

/// Gets a playlist, held or not.
pub(super) async fn manifest(
    session: &Session,
    wire: &Wire,
    (lane, number): (&mut Lane, usize),
    path: &str,
) -> Result<(Answer, Vec<u8>), ErrorKind> {
    let wanted = Instant::now();
    let (said, headers) = session.says(Object::Manifest);
    let saying = said.map(|said| with_parameter(path, &said));
    let ask = Ask { path: saying.as_deref().unwrap_or(path), headers: &headers, hash: false };
    session.waits(number, None);
    // Kept only while it is read: thousands of viewers wait for theirs.
    let mut text = Vec::new();
    let result = wire.get(lane, &ask, Some(&mut text)).await;
    session.came(number, result.as_ref().ok().map(|answer| (answer, false)));
    session.requested(wanted, result.as_ref().ok());
    let answer = result.map_err(|error| {
        tracing::debug!(viewer = session.index, path, %error, "request failed");
        error.kind()
    })?;
    if answer.pop.is_some() {
        wire.nameless.set(false);
    }
    Ok((answer, text))
}

fn with_parameter(path: &str, parameter: &str) -> String {
    let join = if path.contains('?') { '&' } else { '?' };
    let mut whole = String::with_capacity(path.len() + parameter.len() + 1);
    whole.push_str(path);
    whole.push(join);
    whole.push_str(parameter);
    whole
}

async fn media(session: &Session, wire: &Wire, (track, address): (Track, &Address)) -> Exit {
    let mut lane = Lane::default();
    loop {
        awake(session).await;
        session.advance();
        if track.index == 0
            && let Some(to) = session.adapts()
        {
            return Exit::Switch(to);
        }
        let ahead = session.state.borrow().playback.ahead_of_track_us(track.index);
        if ahead > BUFFER_MAX_US {
            tokio::time::sleep(Duration::from_micros(ahead - BUFFER_MAX_US)).await;
            continue;
        }
        let version = session.version.get();
        let mut gaps = 0;
        let want = session.state.borrow_mut().players[track.index].want(&mut gaps);
        if gaps > 0 {
            session.count(|tally| tally.errors_of(ErrorKind::Gap, gaps));
        }
        let Some(want) = want else {
            if session.state.borrow().players[track.index].is_done() {
                return Exit::Ended;
            }
            poll_fn(|_| if session.version.get() == version { Poll::Pending } else { Poll::Ready(()) }).await;
            continue;
        };
        if let Err(kind) = object(session, wire, &mut lane, (track, address, &want)).await {
            let abandoned = want.kind == Kind::Hint && kind == ErrorKind::Status(404);
            if !abandoned {
                session.error(kind);
            }
            if want.kind == Kind::Hint {
                // It is asked for again when the playlist lists it.
                session.state.borrow_mut().players[track.index].unhint(want.at);
                poll_fn(|_| if session.version.get() == version { Poll::Pending } else { Poll::Ready(()) })
                    .await;
            }
        }
    }
}

async fn object(
    session: &Session,
    wire: &Wire,
    lane: &mut Lane,
    (track, playlist, want): (Track, &Address, &Want),
) -> Result<(), ErrorKind> {
    let wanted = Instant::now();
    let address = playlist.join(&want.uri).map_err(|_| ErrorKind::BadUri)?;
    if address.authority != *wire.authority() {
        return Err(ErrorKind::BadUri);
    }
    let object = Object::Media {
        kind: want.kind,
        audio: track.index == 1,
        muxed: !track.split,
        duration_us: want.duration_us,
    };
    let (said, headers) = session.says(object);
    let saying = said.map(|said| with_parameter(&address.path, &said));
    let path = saying.as_deref().unwrap_or(&address.path);
    let ask = Ask { path, headers: &headers, hash: session.hashes() };
    let number = track.index * 2 + 1;
    session.waits(number, Some(want));
    let result = wire.get(lane, &ask, None).await;
    let media = want.kind != Kind::Init;
    session.came(number, result.as_ref().ok().filter(|_| media).map(|answer| (answer, true)));
    session.requested(wanted, result.as_ref().ok());
    let answer = result.map_err(|error| {
        tracing::debug!(viewer = session.index, path, %error, "request failed");
        error.kind()
    })?;
    if answer.status != 200 {
        return Err(ErrorKind::Status(answer.status));
    }
    if let Some(crc) = answer.crc
        && !session.crowd.agrees(&address.path, answer.bytes, crc)
    {
        session.error(ErrorKind::HashMismatch);
    }
    session.count_media(want, wanted, &answer);
    if let Some(wait) = session.passes(&answer) {
        tokio::time::sleep(wait).await;
    }
    session.buffered(track.index, want, &answer);
    Ok(())
}
