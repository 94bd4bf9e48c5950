//! A playback session as the origin knows it: what it watched and when it was present, by POP and protocol.
//!
//! Invariants: sets only grow, and what is counted of them is what an addition newly covers, so counters are a function of
//! the sets. Deliberately absent: where the counters are (deltas).
#![deny(clippy::disallowed_methods)]

use crate::key::decoded;
use crate::stretch::uncovered;
use serde::{Deserialize, Serialize};
use sigma_report::report::{Protocol, SessionReport};
use sigma_report::spans::{Span, Spans};
use sigma_shared::id::PopId;

/// A session's id.
pub type SessionId = [u8; 16];

/// POPs and protocols of one session; what comes by further ones is refused and counted.
const TRACKS_MAX: usize = 64;
/// Spans of one kind, of one POP and protocol. A viewer who loses a part every minute of a day has 1440.
const SPANS_MAX: usize = 20_000;
/// Hashes of viewers by one POP and protocol.
const VIEWERS_MAX: usize = 16;

/// One session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// How long it counts as present after it was, milliseconds: the channel's when it came, for ever.
    pub grace_ms: u64,
    pub(crate) tracks: Vec<Track>,
}

/// What came by one POP over one protocol. In order of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Track {
    pub(crate) pop: PopId,
    pub(crate) protocol: Protocol,
    pub(crate) viewers: Vec<u64>,
    pub(crate) watched: Spans,
    pub(crate) present: Spans,
}

/// Which tracks are looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Of<'a> {
    All,
    Pop(&'a PopId),
    Protocol(Protocol),
}

impl Of<'_> {
    fn holds(self, track: &Track) -> bool {
        match self {
            Self::All => true,
            Self::Pop(pop) => track.pop == *pop,
            Self::Protocol(protocol) => track.protocol == protocol,
        }
    }
}

/// A session for the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionView {
    /// Its id.
    pub session: SessionId,
    /// The smallest hash of who watches, 0 when not known.
    pub viewer: u64,
    /// When the first media byte was sent, Unix milliseconds.
    pub first_media_ms: Option<u64>,
    /// When it was last present, Unix milliseconds.
    pub last_ms: Option<u64>,
    /// Sum of the stretches of the media timeline that it got, microseconds.
    pub watch_us: u64,
    /// How long it was present, without grace, milliseconds.
    pub wall_ms: u64,
    /// By which POPs it came.
    pub pops: Vec<PopId>,
    /// Over which protocols.
    pub protocols: Vec<Protocol>,
    /// Until when it counts as present, Unix milliseconds.
    pub present_until_ms: u64,
    /// It watched something.
    pub is_view: bool,
}

impl Session {
    /// A session that nothing is known of.
    #[must_use]
    pub fn new(grace_ms: u64) -> Self {
        Self { grace_ms, tracks: Vec::new() }
    }

    /// The index of a track, made if it is not there. `None`: there are too many.
    pub(crate) fn track(&mut self, pop: &PopId, protocol: Protocol) -> Option<usize> {
        match self.tracks.binary_search_by(|track| (&track.pop, track.protocol).cmp(&(pop, protocol))) {
            Ok(index) => Some(index),
            Err(_) if self.tracks.len() >= TRACKS_MAX => None,
            Err(index) => {
                let (watched, present) = (Spans::default(), Spans::default());
                let track = Track { pop: pop.clone(), protocol, viewers: Vec::new(), watched, present };
                self.tracks.insert(index, track);
                Some(index)
            }
        }
    }

    /// Whether a track has room for what is new of it.
    pub(crate) fn has_room(&self, track: usize, entry: &SessionReport) -> bool {
        let track = &self.tracks[track];
        track.watched.as_slice().len() + entry.watched.len() <= SPANS_MAX
            && track.present.as_slice().len() + entry.present.len() <= SPANS_MAX
    }

    /// Adds who watches; whether it is new.
    pub(crate) fn add_viewer(&mut self, track: usize, viewer: u64) -> bool {
        let viewers = &mut self.tracks[track].viewers;
        match viewers.binary_search(&viewer) {
            Err(index) if viewers.len() < VIEWERS_MAX => {
                viewers.insert(index, viewer);
                true
            }
            _ => false,
        }
    }

    fn of(&self, of: Of<'_>) -> impl Iterator<Item = &Track> {
        self.tracks.iter().filter(move |track| of.holds(track))
    }

    /// What of a stretch of the media timeline was not watched yet.
    pub(crate) fn unwatched(&self, of: Of<'_>, span: Span) -> Vec<Span> {
        uncovered(span, self.of(of).map(|track| track.watched.as_slice()), 0)
    }

    /// What of a stretch of time was not known; with grace, or as it is.
    pub(crate) fn absent(&self, of: Of<'_>, span: Span, grace_ms: u64) -> Vec<Span> {
        uncovered(span, self.of(of).map(|track| track.present.as_slice()), grace_ms)
    }

    /// Whether something was watched of `start` to before `end`.
    pub(crate) fn watched_within(&self, start: u64, end: u64) -> bool {
        self.tracks.iter().any(|track| {
            let spans = track.watched.as_slice();
            let index = spans.partition_point(|span| span.end <= start);
            spans.get(index).is_some_and(|span| span.start < end)
        })
    }

    /// From the first moment of the media timeline that was watched to the last.
    pub(crate) fn watched_extent(&self) -> Option<Span> {
        let spans = || self.tracks.iter().map(|track| track.watched.as_slice());
        let start = spans().filter_map(|spans| Some(spans.first()?.start)).min()?;
        let end = spans().filter_map(|spans| Some(spans.last()?.end)).max()?;
        Span::new(start, end)
    }

    /// Whether it is a view, and if so in which second it began, if that is known.
    pub(crate) fn view(&self, of: Of<'_>) -> Option<Option<u64>> {
        let is_view = self.of(of).any(|track| !track.watched.is_empty());
        let begins = self.of(of).filter_map(|track| track.present.as_slice().first()).map(|span| span.start);
        is_view.then(|| begins.min().map(|start| start / 1000))
    }

    /// Who watches, as far as it is known; several when it came by several ways.
    pub(crate) fn viewers(&self, of: Of<'_>) -> impl Iterator<Item = u64> {
        self.of(of).flat_map(|track| track.viewers.iter().copied())
    }

    /// For the API.
    #[must_use]
    pub fn view_of(&self, session: SessionId) -> SessionView {
        let united = |spans: fn(&Track) -> &Spans| -> Spans {
            self.tracks.iter().flat_map(|track| spans(track).as_slice().iter().copied()).collect()
        };
        let (watched, present) = (united(|track| &track.watched), united(|track| &track.present));
        let mut pops: Vec<PopId> = self.tracks.iter().map(|track| track.pop.clone()).collect();
        pops.dedup();
        let mut protocols: Vec<Protocol> = self.tracks.iter().map(|track| track.protocol).collect();
        protocols.sort_unstable();
        protocols.dedup();
        let last_ms = present.as_slice().last().map(|span| span.end);
        SessionView {
            session,
            viewer: self.viewers(Of::All).filter(|viewer| *viewer != 0).min().unwrap_or(0),
            first_media_ms: present.as_slice().first().map(|span| span.start),
            last_ms,
            watch_us: watched.length(),
            wall_ms: present.length(),
            pops,
            protocols,
            present_until_ms: last_ms.map_or(0, |last| last.saturating_add(self.grace_ms)),
            is_view: !watched.is_empty(),
        }
    }
}

/// As it is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    grace_ms: u64,
    tracks: Vec<KeptTrack>,
}

#[derive(Serialize, Deserialize)]
struct KeptTrack {
    pop: String,
    protocol: Protocol,
    viewers: Vec<u64>,
    watched: Vec<Span>,
    present: Vec<Span>,
}

impl Session {
    /// As bytes.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, postcard::Error> {
        let tracks = self.tracks.iter().map(|track| KeptTrack {
            pop: track.pop.to_string(),
            protocol: track.protocol,
            viewers: track.viewers.clone(),
            watched: track.watched.as_slice().to_vec(),
            present: track.present.as_slice().to_vec(),
        });
        postcard::to_allocvec(&Kept { grace_ms: self.grace_ms, tracks: tracks.collect() })
    }

    /// From bytes; `None`: they are no session.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let kept: Kept = decoded(bytes)?;
        let mut session = Self::new(kept.grace_ms);
        for track in kept.tracks {
            session.tracks.push(Track {
                pop: track.pop.parse().ok()?,
                protocol: track.protocol,
                viewers: track.viewers,
                watched: track.watched.into_iter().collect(),
                present: track.present.into_iter().collect(),
            });
        }
        Some(session)
    }
}
