//! One playback session over one protocol: what it watched and when it was present, as far as that is not told yet.
//!
//! Present is who got a first byte of media, until its last completed answer, and while a request of it waits for something
//! that is still to come. Who is silent for longer than the grace that the origin adds, and comes back, is present again
//! from its next media on: two stretches.

use super::pieces::Pieces;
use super::{Ended, Who};
use sigma_report::report::{Protocol, SPANS_MAX, SessionReport};
use sigma_report::spans::Span;

/// The least grace, milliseconds: silence that is no absence.
const GRACE_MS_MIN: u32 = 4_000;
/// A session without a request is forgotten after this, milliseconds.
const IDLE_MS: u64 = 10_000;
/// The most stretches of presence between two reports.
const GONE_MAX: usize = 64;

/// How a wait came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waited {
    /// With what was asked for.
    Answered,
    /// With an error, which says nothing of who waited.
    Refused,
    /// The viewer's transport went away.
    Left,
}

#[derive(Debug)]
struct Present {
    /// What is not told begins here.
    from: u64,
    end: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) session: [u8; 16],
    viewer: u64,
    pub(super) channel: u32,
    pub(super) protocol: Protocol,
    pub(super) generation: u32,
    held: u32,
    grace_ms: u32,
    /// Present as long as a request waits.
    kept: bool,
    /// It said how long its start took.
    pub(super) startup_told: bool,
    touched_ms: u64,
    /// Its player spoke before.
    spoke: bool,
    /// When its player spoke last; of a new one, when the session that may have been forgotten did at the latest.
    heard_ms: u64,
    present: Option<Present>,
    gone: Vec<Span>,
    watched: Pieces,
}

impl Entry {
    pub(super) fn new(who: &Who, generation: u32, now_ms: u64) -> Self {
        Self {
            session: who.session,
            viewer: who.viewer,
            channel: who.channel,
            protocol: who.protocol,
            generation,
            held: 0,
            grace_ms: GRACE_MS_MIN,
            kept: false,
            startup_told: false,
            spoke: false,
            touched_ms: now_ms,
            heard_ms: now_ms.saturating_sub(IDLE_MS),
            present: None,
            gone: Vec::new(),
            watched: Pieces::default(),
        }
    }

    pub(super) fn is_present(&self, now_ms: u64) -> bool {
        let grace_ms = u64::from(self.grace_ms);
        self.present.as_ref().is_some_and(|present| self.kept || now_ms <= present.end + grace_ms)
    }

    /// It was there until now, if it was there before.
    pub(super) fn stay(&mut self, now_ms: u64) {
        self.touched_ms = now_ms;
        if self.is_present(now_ms)
            && let Some(present) = &mut self.present
        {
            present.end = present.end.max(now_ms);
        }
    }

    /// Its player speaks. Returns for how long it may have starved since it did before, and whether it did, milliseconds.
    pub(super) fn hear(&mut self, now_ms: u64) -> (u64, bool) {
        let since_ms = now_ms.saturating_sub(std::mem::replace(&mut self.heard_ms, now_ms));
        (since_ms, std::mem::replace(&mut self.spoke, true))
    }

    /// A request of it begins to wait.
    pub(super) fn hold(&mut self, now_ms: u64) {
        self.touched_ms = now_ms;
        self.held += 1;
        self.kept |= self.is_present(now_ms);
    }

    /// A request waits no more.
    pub(super) fn release(&mut self, waited: Waited, now_ms: u64) {
        if self.kept && waited != Waited::Refused {
            self.stay(now_ms);
        }
        self.touched_ms = now_ms;
        self.held = self.held.saturating_sub(1);
        self.kept &= self.held > 0;
    }

    /// A first byte of media went out. False when there was no room to remember when it was present before.
    pub(super) fn media(&mut self, now_ms: u64) -> bool {
        if self.is_present(now_ms) {
            self.stay(now_ms);
            return true;
        }
        self.touched_ms = now_ms;
        let before = self.present.replace(Present { from: now_ms, end: now_ms });
        self.kept = self.held > 0;
        let untold = before.and_then(|before| Span::new(before.from, before.end));
        let room = self.gone.len() < GONE_MAX;
        self.gone.extend(untold.filter(|_| room));
        room || untold.is_none()
    }

    /// An answer ended. False when there was no room for what it watched.
    pub(super) fn ended(&mut self, ended: &Ended, now_ms: u64) -> bool {
        self.touched_ms = now_ms;
        let mut room = true;
        if ended.media {
            room &= self.media(ended.first_byte_ms.unwrap_or(now_ms).min(now_ms));
        }
        if let Some(watched) = ended.watched {
            // Of two objects of this length, the origin waits that long for the next; a little less, as lengths differ.
            let grace_ms = watched.length() / 1000 * 2 * 15 / 16;
            self.grace_ms = u32::try_from(grace_ms).unwrap_or(GRACE_MS_MIN).clamp(GRACE_MS_MIN, 60_000);
            room &= self.watched.insert(watched);
        }
        if ended.good {
            // The moment itself is in it.
            self.stay(now_ms + 1);
        }
        room
    }

    /// Whether it can be forgotten: nothing is to be told of it, and it is gone.
    pub(super) fn is_idle(&self, now_ms: u64) -> bool {
        let silent_after = self.touched_ms + u64::from(self.grace_ms).max(IDLE_MS);
        let told = self.present.as_ref().is_none_or(|present| present.from >= present.end);
        self.held == 0 && now_ms > silent_after && told && self.gone.is_empty() && self.watched.is_empty()
    }

    /// The clock is set, and everything before was told: it has been silent for as long as before, and what it is present
    /// from now on is by the new time.
    pub(super) fn turn(&mut self, before_ms: u64, now_ms: u64) {
        let moved = |at: u64| now_ms.saturating_sub(before_ms.saturating_sub(at));
        self.touched_ms = moved(self.touched_ms);
        self.heard_ms = moved(self.heard_ms);
        if let Some(present) = &mut self.present {
            let end = moved(present.end);
            *present = Present { from: end, end };
        }
    }

    /// What is new, once; several pieces when there are many stretches.
    pub(super) fn due(&mut self, now_ms: u64, told: &mut Vec<SessionReport>) {
        if self.kept {
            self.stay(now_ms);
        }
        let mut present = std::mem::take(&mut self.gone);
        if let Some(open) = &mut self.present {
            present.extend(Span::new(open.from, open.end));
            open.from = open.from.max(open.end);
        }
        if present.is_empty() && self.watched.is_empty() {
            return;
        }
        let watched = self.watched.take();
        let of = |spans: &[Span], piece: usize| {
            spans.chunks(SPANS_MAX).nth(piece).map(<[Span]>::to_vec).unwrap_or_default()
        };
        let pieces = present.len().max(watched.len()).div_ceil(SPANS_MAX);
        told.extend((0..pieces).map(|piece| SessionReport {
            session: self.session,
            viewer: self.viewer,
            channel: self.channel,
            protocol: self.protocol,
            watched: of(&watched, piece),
            present: of(&present, piece),
        }));
    }
}
