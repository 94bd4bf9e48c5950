//! Who is watching under a limit: the sessions of each subject whose token counts them, seen a moment ago.
//!
//! Invariants: bounded in total and per subject; a session that is not seen any more counts no more. What is counted is
//! this edge's: sessions of a subject at other edges are not known here.
#![deny(clippy::disallowed_methods)]

use crate::viewers::Counted;
use sigma_shared::id::ChannelId;
use sigma_token::session::{Session, SubjectHash};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Most sessions that are counted of one subject.
const SESSIONS_PER_SUBJECT_MAX: usize = 1024;

/// A session that proved to be authentic.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) session: Session,
    pub(crate) channel: ChannelId,
    /// Of the session keys it was verified with.
    pub(crate) keys_print: [u8; 32],
    /// What it is to the ledger.
    pub(crate) counted: Counted,
    seen_ms: AtomicU64,
}

impl Known {
    pub(crate) fn new(
        session: Session,
        channel: ChannelId,
        (keys_print, now_ms): ([u8; 32], u64),
        counted: Counted,
    ) -> Arc<Self> {
        Arc::new(Self { session, channel, keys_print, counted, seen_ms: AtomicU64::new(now_ms) })
    }

    /// Notes a request of it.
    pub(crate) fn seen(&self, now_ms: u64) {
        self.seen_ms.fetch_max(now_ms, Ordering::Relaxed);
    }
}

/// Sessions by subject.
pub(crate) struct Presence {
    subjects: HashMap<SubjectHash, Vec<Arc<Known>>>,
    entries: usize,
    entries_max: usize,
    gone_after_ms: u64,
    swept_at_ms: u64,
}

impl Presence {
    /// Counts up to `entries_max` sessions; each for `gone_after_ms` after its last request.
    pub(crate) fn new(entries_max: usize, gone_after_ms: u64) -> Self {
        Self { subjects: HashMap::new(), entries: 0, entries_max, gone_after_ms, swept_at_ms: 0 }
    }

    /// Counts a session in, if its subject has fewer than `sessions_max` others at this moment. A session that is in
    /// already is not counted twice.
    pub(crate) fn admit(&mut self, known: &Arc<Known>, sessions_max: usize, now_ms: u64) -> bool {
        self.make_room(now_ms);
        let after_ms = now_ms.saturating_sub(self.gone_after_ms);
        let sessions = self.subjects.entry(known.session.subject).or_default();
        let before = sessions.len();
        sessions.retain(|other| {
            other.seen_ms.load(Ordering::Relaxed) >= after_ms && other.session.id != known.session.id
        });
        let room = sessions.len() < sessions_max.min(SESSIONS_PER_SUBJECT_MAX);
        let gone = before - sessions.len();
        // With no room in the table the limit cannot be kept: nobody new gets in.
        let admitted = room && self.entries - gone < self.entries_max;
        if admitted {
            sessions.push(Arc::clone(known));
        }
        let is_empty = sessions.is_empty();
        self.entries = self.entries - gone + usize::from(admitted);
        if is_empty {
            self.subjects.remove(&known.session.subject);
        }
        admitted
    }

    /// Counts a session that was admitted elsewhere or earlier.
    pub(crate) fn arrive(&mut self, known: &Arc<Known>, now_ms: u64) {
        self.admit(known, SESSIONS_PER_SUBJECT_MAX, now_ms);
    }

    /// When the table is full: forgets who is gone, but looks at most once in `gone_after_ms`.
    fn make_room(&mut self, now_ms: u64) {
        if self.entries < self.entries_max || now_ms < self.swept_at_ms.saturating_add(self.gone_after_ms) {
            return;
        }
        self.swept_at_ms = now_ms;
        let after_ms = now_ms.saturating_sub(self.gone_after_ms);
        self.subjects.retain(|_, sessions| {
            sessions.retain(|known| known.seen_ms.load(Ordering::Relaxed) >= after_ms);
            !sessions.is_empty()
        });
        self.entries = self.subjects.values().map(Vec::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sigma_token::modes::Modes;
    use sigma_token::session::{NEVER_S, SessionId};

    fn known(subject: &str, id: u8, now_ms: u64) -> Arc<Known> {
        let session = Session {
            id: SessionId([id; 16]),
            subject: SubjectHash::of(subject),
            issued_at_s: 0,
            expires_at_s: NEVER_S,
            modes: Modes::ALL,
            by_token: true,
            limited: true,
            bound: None,
        };
        Known::new(session, "demo".parse().unwrap(), ([0; 32], now_ms), Counted::new(0, None))
    }

    #[test]
    fn a_subject_has_as_many_sessions_as_its_token_says() {
        let mut presence = Presence::new(100, 4_000);
        let (a, b) = (known("user", 1, 1_000), known("user", 2, 1_000));
        assert!(presence.admit(&a, 2, 1_000) && presence.admit(&b, 2, 1_000));
        assert!(!presence.admit(&known("user", 3, 1_000), 2, 1_000), "one too many");
        assert!(presence.admit(&known("other", 4, 1_000), 1, 1_000), "another subject");
        assert!(presence.admit(&a, 2, 2_000), "the same session again");
        a.seen(5_000);
        assert!(presence.admit(&known("user", 3, 5_001), 2, 5_001), "the second one is gone");
        assert!(!presence.admit(&b, 2, 5_001));
        assert_eq!(presence.entries, 3);
    }

    #[test]
    fn sessions_of_other_edges_count_when_they_arrive() {
        let mut presence = Presence::new(100, 4_000);
        for id in 0..3 {
            presence.arrive(&known("user", id, 0), 0);
        }
        assert!(!presence.admit(&known("user", 9, 0), 3, 0));
        assert!(presence.admit(&known("user", 9, 0), 4, 0));
    }

    #[test]
    fn a_full_table_lets_nobody_in_until_somebody_is_gone() {
        let mut presence = Presence::new(3, 4_000);
        for id in 0..3 {
            assert!(presence.admit(&known(&format!("user-{id}"), id, 10_000), 1, 10_000));
        }
        let late = known("late", 9, 12_000);
        assert!(!presence.admit(&late, 1, 12_000));
        assert!(presence.admit(&late, 1, 16_000));
        assert_eq!((presence.entries, presence.subjects.len()), (1, 1));
    }
}
