//! The origin's pure core: what is decided between a publisher's access units and a viewer's bytes.
//!
//! Data flows one way (A1): [`timeline`] maps a publisher's clock to the channel's; [`plan`] says where segments start;
//! [`packager`] cuts parts and writes CMAF ([`fmp4`]); [`window`] keeps what is live; [`snapshot`] is what readers get of
//! it; [`stream`] is the one writer that owns them all (A2).
//!
//! Invariants: no clock, socket, task, lock or log in this crate; time comes in as an argument. All positions on a
//! channel's timeline are ticks of 1/90000 s since the Unix epoch, as `i64`.
#![deny(clippy::disallowed_methods)]

pub mod chunk;
pub mod codec;
pub mod daterange;
pub mod fmp4;
mod listing;
pub mod pace;
pub mod packager;
pub mod plan;
pub mod rendition;
pub mod snapshot;
pub mod stream;
pub mod timed;
pub mod timeline;
pub mod window;

/// Ticks per second of the channel timeline.
pub const TICKS_PER_SECOND: i64 = 90_000;
/// Ticks per millisecond of the channel timeline.
pub const TICKS_PER_MS: i64 = 90;

/// Where a stretch of a channel's timeline is in microseconds, rounded down: stretches that touch in ticks touch here, too.
/// `None` for an empty one.
#[must_use]
pub fn span_us(start: i64, duration: u32) -> Option<(u64, u64)> {
    // A tick is 100/9 of a microsecond.
    let us = |tick: i64| u64::try_from(i128::from(tick) * 100 / 9).ok();
    let (start, end) = (us(start)?, us(start.checked_add(i64::from(duration))?)?);
    (start < end).then_some((start, end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn neighbours_touch_in_microseconds(start in 0i64..(1 << 55), durations in proptest::collection::vec(1u32..2_000_000, 1..40)) {
            let (mut at, mut sum) = (start, 0);
            let mut before = None;
            for duration in &durations {
                let (from, to) = span_us(at, *duration).expect("not empty");
                prop_assert!(before.is_none_or(|before| before == from));
                before = Some(to);
                at += i64::from(*duration);
                sum += duration;
            }
            // A segment of these parts is exactly what they are.
            let whole = span_us(start, sum).expect("not empty");
            prop_assert_eq!((whole.0, Some(whole.1)), (span_us(start, 1).expect("not empty").0, before));
        }
    }

    #[test]
    fn what_is_empty_or_before_1970_is_no_span() {
        assert_eq!(span_us(90_000, 0), None);
        assert_eq!(span_us(-90_000, 45_000), None);
        assert_eq!(span_us(i64::MAX, 1), None);
        assert_eq!(span_us(9, 9), Some((100, 200)));
    }
}
