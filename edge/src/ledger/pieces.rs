//! What is new of a set of stretches of time since it was last told: mostly one stretch that grows at its end.
//!
//! Invariants: what touches the newest stretch takes no memory; bounded, and what has no room is said to have none.

use sigma_report::spans::{Span, Spans};

/// The most stretches that do not touch.
const PIECES_MAX: usize = 256;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    newest: Option<Span>,
    others: Vec<Span>,
}

impl Pieces {
    /// Adds a stretch; false when there is no room for one more.
    pub(crate) fn insert(&mut self, span: Span) -> bool {
        let Some(newest) = &mut self.newest else {
            self.newest = Some(span);
            return true;
        };
        if span.start <= newest.end && newest.start <= span.end {
            *newest = Span { start: newest.start.min(span.start), end: newest.end.max(span.end) };
            return true;
        }
        if self.others.iter().any(|known| known.start <= span.start && span.end <= known.end) {
            return true;
        }
        if self.others.len() >= PIECES_MAX {
            self.others = self.others.drain(..).collect::<Spans>().take();
        }
        if self.others.len() >= PIECES_MAX {
            return false;
        }
        self.others.push(std::mem::replace(newest, span));
        true
    }

    /// Whether there is nothing to tell.
    pub(crate) fn is_empty(&self) -> bool {
        self.newest.is_none()
    }

    /// Everything in it, in order, which is nothing afterwards.
    pub(crate) fn take(&mut self) -> Vec<Span> {
        let newest = self.newest.take();
        if self.others.is_empty() {
            return newest.into_iter().collect();
        }
        self.others.drain(..).chain(newest).collect::<Spans>().take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_the_same_set(spans in prop::collection::vec((0u64..200, 1u64..9), 0..60)) {
            let mut pieces = Pieces::default();
            let spans: Vec<Span> = spans.iter().map(|(start, length)| Span { start: *start, end: start + length }).collect();
            for span in &spans {
                prop_assert!(pieces.insert(*span));
            }
            prop_assert_eq!(pieces.take(), spans.into_iter().collect::<Spans>().take());
            prop_assert!(pieces.is_empty());
        }
    }

    #[test]
    fn it_is_bounded() {
        let mut pieces = Pieces::default();
        let taken = (0..1000).filter(|n| pieces.insert(Span { start: n * 10, end: n * 10 + 5 })).count();
        assert_eq!(taken, PIECES_MAX + 1);
        assert_eq!(pieces.take().len(), PIECES_MAX + 1);
    }

    #[test]
    fn what_grows_at_its_end_takes_no_memory() {
        let mut pieces = Pieces::default();
        for n in 0..1000 {
            pieces.insert(Span { start: n * 10, end: n * 10 + 10 });
        }
        assert_eq!(pieces.others.capacity(), 0);
        assert_eq!(pieces.take(), [Span { start: 0, end: 10_000 }]);
    }
}
