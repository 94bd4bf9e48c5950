//! Who may not watch any more: a bounded list whose entries end.
#![deny(clippy::disallowed_methods)]

use sigma_token::policy::Revocation;

/// Most entries…
pub(super) const REVOCATIONS_MAX: usize = 100_000;
/// …and most bytes of them in the document that every edge gets at every change. Edges take documents of 16 MiB.
const BYTES_MAX: usize = 12 * 1024 * 1024;
/// Names, dates and punctuation of an entry in the document, bytes.
const ENTRY_BYTES: usize = 96;

/// The list is full: a retry helps once entries have ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

/// The entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Revocations(Vec<Revocation>);

impl Revocations {
    pub(super) fn new(mut entries: Vec<Revocation>) -> Self {
        let mut bytes = 0;
        entries.truncate(REVOCATIONS_MAX);
        entries.retain(|entry| {
            bytes += weight(entry);
            bytes <= BYTES_MAX
        });
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
            // Without a moment nothing is spared, whatever the other one says.
            known.before_ms = known.before_ms.zip(new.before_ms).map(|(known, new)| known.max(new));
            return Ok(());
        }
        let bytes: usize = self.0.iter().chain([&new]).map(weight).sum();
        if self.0.len() >= REVOCATIONS_MAX || bytes > BYTES_MAX {
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

/// The most bytes an entry takes in the document: every byte of a subject may have to be escaped.
fn weight(entry: &Revocation) -> usize {
    let escaped = |byte: u8| match byte {
        0..0x20 => 6,
        b'"' | b'\\' => 2,
        _ => 1,
    };
    let names = entry.session.iter().chain(&entry.subject);
    names.flat_map(|name| name.bytes()).map(escaped).sum::<usize>() + ENTRY_BYTES
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
        list.0.extend((1..REVOCATIONS_MAX).map(|n| Revocation::of_subject(&format!("s{n}"), 1, 200)));
        assert_eq!(list.add(Revocation::of_subject("more", 1, 200)), Err(Full));
        assert!(!list.forget(99) && list.forget(100));
        assert_eq!(list.add(Revocation::of_subject("more", 1, 200)), Ok(()));
        let document = serde_json::to_vec(list.entries()).unwrap().len();
        assert!(document < BYTES_MAX, "{document}");
    }

    #[test]
    fn what_spares_nothing_goes_on_sparing_nothing() {
        let everything = Revocation { before_ms: None, ..Revocation::of_subject("a", 0, 100) };
        for (first, second) in [(0, 1), (1, 0)] {
            let both = [everything.clone(), Revocation::of_subject("a", 5, 100)];
            let mut list = Revocations::default();
            for entry in [&both[first], &both[second]] {
                assert_eq!(list.add(entry.clone()), Ok(()));
            }
            assert_eq!(list.entries(), std::slice::from_ref(&everything));
        }
    }

    #[test]
    fn long_names_never_make_a_document_that_edges_refuse() {
        let mut list = Revocations::default();
        let name = |n: usize| format!("{n:06}{}", "\u{1}".repeat(250));
        let mut n = 0;
        list.0.extend((0..7_800).map(|n| Revocation::of_subject(&name(n), u64::MAX, u64::MAX)));
        while list.add(Revocation::of_subject(&name(10_000 + n), u64::MAX, u64::MAX)).is_ok() {
            n += 1;
        }
        let document = serde_json::to_vec(list.entries()).unwrap().len();
        assert!(document <= BYTES_MAX && document > BYTES_MAX - BYTES_MAX / 20, "{document}");
        assert_eq!(Revocations::new(list.entries().to_vec()), list, "all are there after a restart");
    }
}
