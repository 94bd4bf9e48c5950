//! The Date Ranges of a broadcast: which are listed, and which were until a moment ago.
//!
//! Invariant: one that is listed stays as it is (SYN-14), until what it is about has left the playlist.

use sigma_shared::daterange::DateRange;
use std::sync::Arc;

/// More at once would make every playlist long.
const LISTED_MAX: usize = 256;

/// Why a Date Range is not taken: the broadcaster's fault, a retry does not help before older ones have left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// SYN-14: an id stands for one Date Range, which may be completed: the same again, and more.
    #[error(
        "id: there is another one of this id, or was until a moment ago; to complete one, state it again and more"
    )]
    Known,
    /// Too many.
    #[error("{LISTED_MAX} are listed already")]
    Full,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct DateRanges {
    listed: Vec<Listed>,
    /// Ids, and when they were taken off, Unix milliseconds of the timeline.
    removed: Vec<(String, i64)>,
}

#[derive(Debug, Clone)]
struct Listed {
    range: Arc<DateRange>,
    /// End of the playlist when it was added, Unix milliseconds of the timeline.
    added_ms: i64,
}

impl DateRanges {
    /// Lists one more. `end_ms` is where the playlist ends now, Unix milliseconds of the timeline.
    ///
    /// # Errors
    /// What [`Refused`] says.
    pub fn add(&mut self, range: DateRange, end_ms: i64) -> Result<(), Refused> {
        if let Some(known) = self.listed.iter_mut().find(|known| known.range.id() == range.id()) {
            if !range.completes(&known.range) {
                return Err(Refused::Known);
            }
            *known = Listed { range: Arc::new(range), added_ms: end_ms };
            return Ok(());
        }
        // SK-04: a delta update cannot say both.
        if self.removed.iter().any(|(id, _)| id == range.id()) {
            return Err(Refused::Known);
        }
        if self.listed.len() >= LISTED_MAX {
            return Err(Refused::Full);
        }
        self.listed.push(Listed { range: Arc::new(range), added_ms: end_ms });
        Ok(())
    }

    /// Takes those off that were over before the playlist starts at `first_ms`, and forgets of them what a client has
    /// been told for `skip_until_ms`. Returns whether anything has changed.
    pub fn advance(&mut self, first_ms: i64, end_ms: i64, skip_until_ms: i64) -> bool {
        let before = (self.listed.len(), self.removed.len());
        let removed = &mut self.removed;
        self.listed.retain(|known| {
            // Listed for as long as a delta update counts on it, whatever its dates say.
            let over = known.range.end_ms() < first_ms && known.added_ms + skip_until_ms < end_ms;
            if over {
                removed.push((known.range.id().to_owned(), end_ms));
            }
            !over
        });
        self.removed.retain(|(_, at)| at + skip_until_ms >= end_ms);
        before != (self.listed.len(), self.removed.len())
    }

    /// Those to list: all, or in a delta update that leaves older ones out, those added since `since_ms` (SK-04).
    #[must_use]
    pub fn listed(&self, since_ms: Option<i64>) -> Vec<&DateRange> {
        let recent = |known: &&Listed| since_ms.is_none_or(|since| known.added_ms >= since);
        self.listed.iter().filter(recent).map(|known| known.range.as_ref()).collect()
    }

    /// When the one of that id starts, Unix milliseconds.
    #[must_use]
    pub fn start_ms(&self, id: &str) -> Option<i64> {
        self.listed.iter().find(|known| known.range.id() == id).map(|known| known.range.start_ms())
    }

    /// RECENTLY-REMOVED-DATERANGES
    #[must_use]
    pub fn recently_removed(&self) -> Vec<String> {
        self.removed.iter().map(|(id, _)| id.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sigma_shared::daterange::Statement;

    fn range(id: &str, start_ms: i64, duration_ms: u64) -> DateRange {
        DateRange::new(Statement {
            id: id.into(),
            start_ms,
            duration_ms: Some(duration_ms),
            ..Statement::default()
        })
        .expect("valid")
    }

    #[test]
    fn a_date_range_comes_stays_and_goes() {
        let mut ranges = DateRanges::default();
        ranges.add(range("a", 100_000, 5_000), 101_000).expect("room");
        assert_eq!(ranges.add(range("a", 100_000, 5_000), 101_000), Err(Refused::Known), "SYN-14");
        ranges.add(range("old", 1_000, 5_000), 101_000).expect("room");
        assert!(!ranges.advance(90_000, 110_000, 12_000));
        assert_eq!(ranges.listed(None).len(), 2, "what a delta update counts on stays");
        assert_eq!(ranges.listed(Some(102_000)).len(), 0, "SK-04");
        assert_eq!(ranges.listed(Some(101_000)).len(), 2, "SK-04");
        assert!(ranges.advance(90_000, 114_000, 12_000));
        assert_eq!(ranges.recently_removed(), ["old"]);
        assert_eq!(ranges.add(range("old", 1, 1), 114_000), Err(Refused::Known), "SK-04");
        assert_eq!(ranges.listed(None)[0].id(), "a");
        assert!(ranges.advance(106_000, 130_000, 12_000));
        assert_eq!(ranges.recently_removed(), ["a"], "the other is long known to be gone");
    }

    #[test]
    fn one_whose_end_was_not_known_can_be_completed() {
        let open = Statement { id: "poll".into(), start_ms: 5_000, ..Statement::default() };
        let closed = Statement { duration_ms: Some(9_000), ..open.clone() };
        let mut ranges = DateRanges::default();
        ranges.add(DateRange::new(open).expect("valid"), 5_000).expect("room");
        ranges.add(DateRange::new(closed.clone()).expect("valid"), 14_000).expect("completed");
        assert_eq!(ranges.listed(Some(14_000)).len(), 1, "news to a delta update");
        let other = Statement { duration_ms: Some(8_000), ..closed };
        assert_eq!(ranges.add(DateRange::new(other).expect("valid"), 15_000), Err(Refused::Known), "SYN-14");
    }

    #[test]
    fn a10_they_are_bounded() {
        let mut ranges = DateRanges::default();
        for n in 0..LISTED_MAX {
            ranges.add(range(&n.to_string(), 0, 1), 0).expect("room");
        }
        assert_eq!(ranges.add(range("more", 0, 1), 0), Err(Refused::Full));
    }
}
