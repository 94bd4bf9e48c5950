//! Who is watching under a limit: the sessions of each subject whose token counts them, while they are used.
//!
//! Invariants: bounded in total and per subject; never more sessions of a subject are counted than its tokens allow, and a
//! session that is not counted is not served. A session in use (a request in flight, or one a moment ago) keeps its place;
//! one that is not loses it to whoever needs it, and has to find another when it is used again. A viewer who comes anew
//! (the page was loaded again) takes the place that the same device had, once nothing of it is in flight. Sessions of the
//! subject at other POPs count as well, as far as the origin has said of them lately (`elsewhere`), and what it says is too
//! many over all POPs loses its place; deliberately absent: how that is asked (`places`).
#![deny(clippy::disallowed_methods)]

mod elsewhere;

use crate::viewers::Tally;
use elsewhere::Elsewhere;
use sigma_report::places::{Answer, Place, SESSIONS_MAX, SESSIONS_PER_SUBJECT_MAX, SubjectPlaces};
use sigma_shared::id::ChannelId;
use sigma_token::session::{Session, SubjectHash};
use std::collections::{HashMap, HashSet};
use std::num::NonZeroU16;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// What a session is used from, as far as can be told: a hash of address and user agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Device(pub(crate) u64);

/// Milliseconds of a clock that is never set: nobody loses a place, and nobody keeps one, because somebody set the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment(pub(crate) u64);

/// A session that proved to be authentic.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) session: Session,
    pub(crate) channel: ChannelId,
    /// Of the session keys it was verified with.
    pub(crate) keys_print: [u8; 32],
    device: Device,
    seen_ms: AtomicU64,
    in_flight: AtomicU32,
    /// Whether it has a place, and since when; written by [`Presence`] only.
    counted: AtomicBool,
    since_ms: AtomicU64,
    /// What it is to the ledger, once that is asked.
    pub(crate) tally: OnceLock<Tally>,
}

impl Known {
    pub(crate) fn new(
        session: Session,
        channel: ChannelId,
        keys_print: [u8; 32],
        device: Device,
    ) -> Arc<Self> {
        let (seen_ms, in_flight, counted) = (AtomicU64::new(0), AtomicU32::new(0), AtomicBool::new(false));
        let (since_ms, tally) = (AtomicU64::new(0), OnceLock::new());
        Arc::new(Self { session, channel, keys_print, device, seen_ms, in_flight, counted, since_ms, tally })
    }

    /// Notes a request that begins.
    pub(crate) fn begin(&self, now: Moment) {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        self.seen_ms.fetch_max(now.0, Ordering::AcqRel);
    }

    /// Notes the end of one, whatever became of it.
    pub(crate) fn end(&self, now: Moment) {
        self.seen_ms.fetch_max(now.0, Ordering::AcqRel);
        self.in_flight.fetch_sub(1, Ordering::AcqRel);
    }

    /// Whether it has a place, used lately or not.
    pub(crate) fn is_counted(&self) -> bool {
        self.counted.load(Ordering::Acquire)
    }

    fn is_in_flight(&self) -> bool {
        self.in_flight.load(Ordering::Acquire) > 0
    }

    fn is_gone(&self, after_ms: u64) -> bool {
        !self.is_in_flight() && self.seen_ms.load(Ordering::Acquire) < after_ms
    }

    /// How many its token allows.
    fn max(&self) -> Option<NonZeroU16> {
        const MOST: NonZeroU16 = NonZeroU16::new(SESSIONS_PER_SUBJECT_MAX as u16).unwrap();
        self.session.sessions_max.map(|max| max.min(MOST))
    }

    fn told(&self, now_ms: u64) -> Option<Place> {
        let age_ms = now_ms.saturating_sub(self.since_ms.load(Ordering::Acquire));
        let age_ms = u32::try_from(age_ms).unwrap_or(u32::MAX);
        Some(Place { session: self.session.id.0, max: self.max()?, age_ms })
    }
}

/// Why a session asks for a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// It is made now: it may take the place of what its device does not use any more.
    New,
    /// It is there already, and is used.
    Used,
    /// It only wants to know (HEAD).
    Look,
}

/// What the origin is told, in its order.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) subjects: Vec<SubjectPlaces>,
    /// Sessions that have a place here.
    pub(crate) counted: usize,
    /// Those of them that there is no room to tell of: their limit is this edge's alone. Of subjects whose hash is high, so that
    /// every edge tells of the same.
    pub(crate) untold: usize,
}

/// Sessions by subject.
pub(crate) struct Presence {
    subjects: HashMap<SubjectHash, Vec<Arc<Known>>>,
    elsewhere: Elsewhere,
    entries: usize,
    entries_max: usize,
    gone_after_ms: u64,
    swept_at_ms: u64,
}

impl Presence {
    /// Counts up to `entries_max` sessions; each until `gone_after_ms` after the end of its last request.
    pub(crate) fn new(entries_max: usize, gone_after_ms: u64) -> Self {
        let (subjects, elsewhere) = (HashMap::new(), Elsewhere::default());
        Self { subjects, elsewhere, entries: 0, entries_max, gone_after_ms, swept_at_ms: 0 }
    }

    /// Counts a session in, if its subject has fewer others at this moment than the session's token allows. A session
    /// that is in already is not counted twice.
    pub(crate) fn admit(&mut self, known: &Arc<Known>, entry: Entry, now: Moment) -> bool {
        let Some(max) = known.max() else {
            return true;
        };
        let (subject, max) = (known.session.subject, usize::from(max.get()));
        self.make_room(now.0);
        let after_ms = now.0.saturating_sub(self.gone_after_ms);
        let sessions = self.subjects.entry(subject).or_default();
        let before = sessions.len();
        let mut since_ms = None;
        sessions.retain(|other| {
            let is_self = other.session.id == known.session.id;
            let stays = !other.is_gone(after_ms) && !is_self;
            if is_self && !other.is_gone(after_ms) {
                since_ms = Some(other.since_ms.load(Ordering::Acquire));
            }
            other.counted.store(stays, Ordering::Release);
            stays
        });
        // Verified once more, it has its place still.
        let keeps = since_ms.is_some();
        let here = sessions.iter().chain([known]).map(|one| one.session.id);
        let others = sessions.len() + self.elsewhere.count(subject, here, now.0);
        let left = || {
            sessions
                .iter()
                .enumerate()
                .filter(|(_, other)| other.device == known.device && !other.is_in_flight())
        };
        let left =
            left().min_by_key(|(_, other)| other.seen_ms.load(Ordering::Acquire)).map(|(place, _)| place);
        let gives_way = left.filter(|_| others >= max && !keeps && entry != Entry::Used);
        if let (Some(place), Entry::New) = (gives_way, entry) {
            let other = sessions.swap_remove(place);
            other.counted.store(false, Ordering::Release);
            // It is the same place: nobody else's is older for it.
            since_ms = Some(other.since_ms.load(Ordering::Acquire));
        }
        let room = others < max || keeps || gives_way.is_some();
        if !room {
            self.elsewhere.refused(subject, now.0);
        }
        // With no room in the table the limit cannot be kept: nobody new gets in.
        let admitted = room && self.entries + sessions.len() - before < self.entries_max;
        if admitted && entry != Entry::Look {
            known.seen_ms.fetch_max(now.0, Ordering::AcqRel);
            known.since_ms.store(since_ms.unwrap_or(now.0), Ordering::Release);
            known.counted.store(true, Ordering::Release);
            sessions.push(Arc::clone(known));
        }
        self.entries = self.entries + sessions.len() - before;
        if sessions.is_empty() {
            self.subjects.remove(&subject);
        }
        admitted
    }

    /// Whom to tell the origin of: everybody who has a place. Who is gone has none from now on, here as elsewhere.
    pub(crate) fn tell(&mut self, now: Moment) -> Told {
        self.forget_the_gone(now.0);
        let told = self.subjects.iter().map(|(subject, sessions)| {
            let mut sessions: Vec<Place> = sessions.iter().filter_map(|known| known.told(now.0)).collect();
            sessions.sort_unstable_by_key(|place| place.session);
            SubjectPlaces { subject: subject.0, sessions }
        });
        let mut subjects: Vec<SubjectPlaces> = told.collect();
        let here = &self.subjects;
        let asked = self.elsewhere.asked(now.0).filter(|subject| !here.contains_key(&SubjectHash(*subject)));
        subjects.extend(asked.map(|subject| SubjectPlaces { subject, sessions: Vec::new() }));
        subjects.sort_unstable_by_key(|one| one.subject);
        let mut untold = 0;
        let mut left = SESSIONS_MAX;
        subjects.retain(|one| {
            let sessions = one.sessions.len();
            // None of what follows is told then.
            left = if sessions > left { 0 } else { left };
            let fits = sessions <= left;
            left -= if fits { sessions } else { 0 };
            untold += if fits { 0 } else { sessions };
            fits
        });
        Told { subjects, counted: self.entries, untold }
    }

    /// Takes what the origin answered: what its subjects have at other POPs, and who loses its place. Returns how many did.
    pub(crate) fn hear(&mut self, answer: &Answer, now: Moment) -> u64 {
        self.elsewhere.learn(answer, now.0);
        let mut lost = 0;
        for known in answer.subjects.iter().filter(|known| !known.over.is_empty()) {
            let subject = SubjectHash(known.subject);
            let Some(sessions) = self.subjects.get_mut(&subject) else { continue };
            let over: HashSet<_> = known.over.iter().collect();
            let before = sessions.len();
            sessions.retain(|one| {
                let stays = !over.contains(&one.session.id.0);
                one.counted.store(stays, Ordering::Release);
                stays
            });
            self.entries -= before - sessions.len();
            lost += before.saturating_sub(sessions.len()) as u64;
            if sessions.is_empty() {
                self.subjects.remove(&subject);
            }
            // It comes back soon: by then is known whether there is a place.
            self.elsewhere.refused(subject, now.0);
        }
        lost
    }

    /// When the table is full: forgets who is gone, but looks at most once in `gone_after_ms`.
    fn make_room(&mut self, now_ms: u64) {
        if self.entries < self.entries_max || now_ms < self.swept_at_ms.saturating_add(self.gone_after_ms) {
            return;
        }
        self.swept_at_ms = now_ms;
        self.forget_the_gone(now_ms);
    }

    fn forget_the_gone(&mut self, now_ms: u64) {
        let after_ms = now_ms.saturating_sub(self.gone_after_ms);
        self.subjects.retain(|_, sessions| {
            sessions.retain(|known| {
                let stays = !known.is_gone(after_ms);
                known.counted.store(stays, Ordering::Release);
                stays
            });
            !sessions.is_empty()
        });
        self.entries = self.subjects.values().map(Vec::len).sum();
    }
}

#[cfg(test)]
mod tests;
