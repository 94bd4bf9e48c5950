//! What was answered about subjects' sessions at other POPs, and whom to ask about because a session of theirs was refused.
//!
//! Invariants: what nobody confirms for [`FORGOTTEN_AFTER_MS`] is forgotten, so that without an answer the limit is this
//! edge's alone; a session is never in its own way, even before the origin knows that it came here; bounded.
#![deny(clippy::disallowed_methods)]

use sigma_report::places::{ASKED_MAX, Answer, FORGOTTEN_AFTER_MS, Mark, Subject, mark};
use sigma_token::session::{SessionId, SubjectHash};
use std::collections::HashMap;

/// For so long after a refusal its subject is asked about, so that whoever tries again is let in when there is a place, and not
/// for a moment now and then.
const ASKED_FOR_MS: u64 = 60_000;

/// See the module.
#[derive(Default)]
pub(super) struct Elsewhere {
    others: HashMap<SubjectHash, Others>,
    until_ms: u64,
    refused: HashMap<SubjectHash, u64>,
}

/// A subject's sessions at other POPs.
struct Others {
    count: usize,
    /// In ascending order.
    marks: Vec<Mark>,
}

impl Elsewhere {
    /// Takes what was answered, in place of what was before.
    pub(super) fn learn(&mut self, answer: &Answer, now_ms: u64) {
        let others = answer.subjects.iter().filter(|known| known.elsewhere > 0).map(|known| {
            let count = usize::try_from(known.elsewhere).unwrap_or(usize::MAX);
            (SubjectHash(known.subject), Others { count, marks: known.marks.clone() })
        });
        self.others = others.collect();
        self.until_ms = now_ms.saturating_add(FORGOTTEN_AFTER_MS);
    }

    /// How many sessions a subject has at other POPs, without those that are here, too.
    pub(super) fn count(
        &self,
        subject: SubjectHash,
        here: impl Iterator<Item = SessionId>,
        now_ms: u64,
    ) -> usize {
        let Some(others) = self.others.get(&subject).filter(|_| now_ms < self.until_ms) else { return 0 };
        let came = here.filter(|id| others.marks.binary_search(&mark(&id.0)).is_ok()).count();
        others.count.saturating_sub(came)
    }

    /// Notes that a session of a subject had no place.
    pub(super) fn refused(&mut self, subject: SubjectHash, now_ms: u64) {
        if self.refused.len() >= ASKED_MAX {
            self.forget(now_ms);
        }
        // Of those for whom there is no room nothing is asked: the limit is this edge's for them.
        if self.refused.len() < ASKED_MAX || self.refused.contains_key(&subject) {
            self.refused.insert(subject, now_ms);
        }
    }

    fn forget(&mut self, now_ms: u64) {
        self.refused.retain(|_, at_ms| now_ms < at_ms.saturating_add(ASKED_FOR_MS));
    }

    /// Whom to ask about.
    pub(super) fn asked(&mut self, now_ms: u64) -> impl Iterator<Item = Subject> + use<'_> {
        self.forget(now_ms);
        self.refused.keys().map(|subject| subject.0)
    }
}
