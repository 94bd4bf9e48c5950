//! Who may not watch any more: a bounded list whose entries end.
#![deny(clippy::disallowed_methods)]

use sigma_token::policy::Revocation;

/// Most entries: about a megabyte for every edge at every change.
pub(super) const REVOCATIONS_MAX: usize = 10_000;

/// The list is full: a retry helps once entries have ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

/// The entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Revocations(Vec<Revocation>);

impl Revocations {
    pub(super) fn new(mut entries: Vec<Revocation>) -> Self {
        entries.truncate(REVOCATIONS_MAX);
        Self(entries)
    }

    pub(super) fn entries(&self) -> &[Revocation] {
        &self.0
    }

    /// Adds an entry; with one about the same session or subject it becomes one that says the more of both.
    ///
    /// # Errors
    /// No room.
    pub(super) fn add(&mut self, new: Revocation) -> Result<(), Full> {
        let same = |known: &&mut Revocation| known.session == new.session && known.subject == new.subject;
        if let Some(known) = self.0.iter_mut().find(same) {
            known.until_ms = known.until_ms.max(new.until_ms);
            known.before_ms = known.before_ms.max(new.before_ms);
            return Ok(());
        }
        if self.0.len() >= REVOCATIONS_MAX {
            return Err(Full);
        }
        self.0.push(new);
        Ok(())
    }

    /// Forgets what has ended; returns whether there was any.
    pub(super) fn forget(&mut self, now_ms: u64) -> bool {
        let before = self.0.len();
        self.0.retain(|entry| entry.until_ms > now_ms);
        self.0.len() != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_merged_bounded_and_end() {
        let mut list = Revocations::default();
        for (before, until) in [(5, 100), (9, 50), (7, 80)] {
            assert_eq!(list.add(Revocation::of_subject("a", before, until)), Ok(()));
        }
        assert_eq!(list.entries(), [Revocation::of_subject("a", 9, 100)]);
        for n in 1..REVOCATIONS_MAX {
            assert_eq!(list.add(Revocation::of_subject(&format!("s{n}"), 1, 200)), Ok(()));
        }
        assert_eq!(list.add(Revocation::of_subject("more", 1, 200)), Err(Full));
        assert!(!list.forget(99) && list.forget(100));
        assert_eq!(list.add(Revocation::of_subject("more", 1, 200)), Ok(()));
    }
}
