//! Stretches of time against sets of them: what of one is new, and which seconds it holds.
#![deny(clippy::disallowed_methods)]

use sigma_report::spans::Span;

/// What of `span` is in none of the sets, each of whose spans counts for `grace` longer than it says. In order.
pub(crate) fn uncovered<'a>(span: Span, sets: impl Iterator<Item = &'a [Span]>, grace: u64) -> Vec<Span> {
    let mut left = vec![span];
    for known in sets {
        if left.is_empty() {
            break;
        }
        left = left.into_iter().flat_map(|span| without(span, known, grace)).collect();
    }
    left
}

fn without(span: Span, known: &[Span], grace: u64) -> Vec<Span> {
    // Spans are in order and apart, so their ends are in order too, with or without grace.
    let first = known.partition_point(|known| known.end.saturating_add(grace) <= span.start);
    let mut left = Vec::with_capacity(1);
    let mut from = span.start;
    for known in known[first..].iter().take_while(|known| known.start < span.end) {
        left.extend(Span::new(from, known.start));
        from = from.max(known.end.saturating_add(grace));
    }
    left.extend(Span::new(from, span.end));
    left
}

/// The seconds that begin within a stretch of milliseconds.
pub(crate) fn seconds(span: Span) -> std::ops::Range<u64> {
    span.start.div_ceil(1000)..span.end.div_ceil(1000)
}

/// A stretch cut at the starts of periods, each with the period it is in: the last one that starts at or before it.
/// What lies before the first is in none and left out. `starts` are in order.
pub(crate) fn by_period(span: Span, starts: &[u64]) -> impl Iterator<Item = (usize, Span)> + '_ {
    let first = starts.partition_point(|start| *start <= span.start).saturating_sub(1);
    (first..starts.len()).take_while(move |index| starts[*index] < span.end).filter_map(move |index| {
        let end = starts.get(index + 1).map_or(span.end, |next| span.end.min(*next));
        Some((index, Span::new(span.start.max(starts[index]), end)?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sigma_report::spans::Spans;

    fn spans() -> impl Strategy<Value = Spans> {
        let span = (0u64..60, 1u64..10).prop_map(|(start, length)| Span { start, end: start + length });
        prop::collection::vec(span, 0..8).prop_map(|spans| spans.into_iter().collect())
    }

    proptest! {
        #[test]
        fn what_is_new_is_in_no_set(sets in prop::collection::vec(spans(), 0..4), start in 0u64..60, length in 1u64..30, grace in 0u64..5) {
            let span = Span { start, end: start + length };
            let covered = |moment: u64| {
                sets.iter().flat_map(Spans::as_slice).any(|span| (span.start..span.end + grace).contains(&moment))
            };
            let new: Vec<u64> = uncovered(span, sets.iter().map(Spans::as_slice), grace)
                .into_iter().flat_map(|span| span.start..span.end).collect();
            let expected: Vec<u64> = (span.start..span.end).filter(|moment| !covered(*moment)).collect();
            prop_assert_eq!(new, expected);
        }

        #[test]
        fn periods_share_a_stretch_among_them(start in 0u64..40, length in 1u64..40, mut starts in prop::collection::vec(0u64..60, 0..5)) {
            starts.sort_unstable();
            starts.dedup();
            let of = |moment: u64| starts.iter().rposition(|start| *start <= moment);
            let found: Vec<(usize, u64)> = by_period(Span { start, end: start + length }, &starts)
                .flat_map(|(index, span)| (span.start..span.end).map(move |moment| (index, moment))).collect();
            let expected: Vec<(usize, u64)> =
                (start..start + length).filter_map(|moment| Some((of(moment)?, moment))).collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_second_is_in_when_its_beginning_is() {
        let of = |start, end| seconds(Span { start, end }).collect::<Vec<_>>();
        assert_eq!(of(999, 1000), [0u64; 0]);
        assert_eq!(of(1000, 1001), [1]);
        assert_eq!(of(1, 3001), [1, 2, 3]);
    }
}
