//! What viewers count, and how it becomes figures.
//!
//! Invariants: counting is cheap and bounded; tallies of many viewers add up in any order. Histograms hold
//! microseconds with three significant digits.
#![deny(clippy::disallowed_methods)]

use hdrhistogram::Histogram;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// What went wrong, as viewers see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ErrorKind {
    /// A response that is neither success nor an expected redirect.
    Status(u16),
    /// No connection.
    Connect,
    /// No TLS session.
    Tls,
    /// Nothing, or not all of it, in time.
    Timeout,
    /// The connection ended before the response header.
    Closed,
    /// The body ended before its end.
    Truncated,
    /// A body beyond all bounds.
    Oversize,
    /// A body that is no playlist.
    BadPlaylist,
    /// A URI that cannot be followed, or leads to another server.
    BadUri,
    /// Other bytes than another viewer got under the same URI.
    HashMismatch,
    /// A blocking reload answered without what it asked for.
    Unsatisfied,
    /// A playlist that went back in time.
    Regression,
    /// A part or segment that could not be had any more, or was marked GAP.
    Gap,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Status(status) => return write!(f, "http_{status}"),
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Closed => "closed",
            Self::Truncated => "truncated",
            Self::Oversize => "oversize",
            Self::BadPlaylist => "bad_playlist",
            Self::BadUri => "bad_uri",
            Self::HashMismatch => "hash_mismatch",
            Self::Unsatisfied => "unsatisfied_reload",
            Self::Regression => "msn_regression",
            Self::Gap => "gap",
        };
        f.write_str(name)
    }
}

/// A histogram of durations.
#[derive(Debug, Clone)]
pub(crate) struct Spread(Histogram<u64>);

/// Longest duration told apart, microseconds.
const LONGEST_US: u64 = 120_000_000;

impl Default for Spread {
    #[expect(clippy::expect_used, reason = "the bounds are constants that hdrhistogram accepts")]
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, LONGEST_US, 3).expect("1 <= low, low * 2 <= high, 3 digits"))
    }
}

impl Spread {
    pub(crate) fn record(&mut self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(LONGEST_US);
        self.0.saturating_record(us.clamp(1, LONGEST_US));
    }

    fn add(&mut self, other: &Self) {
        // Both have the same bounds, which is the only way this fails.
        let _ = self.0.add(&other.0);
    }

    /// The figures, `None` without any value.
    pub(crate) fn figures(&self) -> Option<SpreadFigures> {
        let ms = |us: u64| us as f64 / 1000.0;
        (!self.0.is_empty()).then(|| SpreadFigures {
            count: self.0.len(),
            p50: ms(self.0.value_at_quantile(0.50)),
            p95: ms(self.0.value_at_quantile(0.95)),
            p99: ms(self.0.value_at_quantile(0.99)),
            max: ms(self.0.max()),
        })
    }
}

/// A histogram in short, milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct SpreadFigures {
    pub(crate) count: u64,
    pub(crate) p50: f64,
    pub(crate) p95: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

/// Everything counted by some viewers over some time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    /// Requests answered or failed.
    pub(crate) requests: u64,
    pub(crate) bytes: u64,
    pub(crate) playlists: u64,
    pub(crate) parts: u64,
    pub(crate) segments: u64,
    pub(crate) inits: u64,
    /// Sum of the durations of parts and segments.
    pub(crate) media_us: u64,
    /// Parts without `at` in CMSD-Static: their delay is unknown.
    pub(crate) undated: u64,
    /// Parts whose `at` is in the future: the clocks of origin and viewer differ.
    pub(crate) future: u64,
    /// Viewers whose broadcast ended.
    pub(crate) ended: u64,
    pub(crate) errors: BTreeMap<ErrorKind, u64>,
    pub(crate) part_delay: Spread,
    pub(crate) hold: Spread,
    pub(crate) first_byte: Spread,
    pub(crate) startup: Spread,
}

impl Tally {
    pub(crate) fn error(&mut self, kind: ErrorKind) {
        self.errors_of(kind, 1);
    }

    pub(crate) fn errors_of(&mut self, kind: ErrorKind, count: u64) {
        if count > 0 {
            *self.errors.entry(kind).or_default() += count;
        }
    }

    pub(crate) fn errors_total(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Adds another tally to this one.
    pub(crate) fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.bytes += other.bytes;
        self.playlists += other.playlists;
        self.parts += other.parts;
        self.segments += other.segments;
        self.inits += other.inits;
        self.media_us += other.media_us;
        self.undated += other.undated;
        self.future += other.future;
        self.ended += other.ended;
        for (kind, count) in &other.errors {
            self.errors_of(*kind, *count);
        }
        self.part_delay.add(&other.part_delay);
        self.hold.add(&other.hold);
        self.first_byte.add(&other.first_byte);
        self.startup.add(&other.startup);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tallies_add_up() {
        let mut a = Tally::default();
        a.error(ErrorKind::Status(404));
        a.part_delay.record(Duration::from_millis(10));
        let mut b = Tally { requests: 3, ..Tally::default() };
        b.errors_of(ErrorKind::Status(404), 2);
        b.errors_of(ErrorKind::Gap, 0);
        b.part_delay.record(Duration::from_millis(30));
        a.add(&b);
        assert_eq!((a.requests, a.errors_total(), a.errors.len()), (3, 3, 1));
        let figures = a.part_delay.figures().unwrap();
        assert_eq!(figures.count, 2);
        assert!((figures.p50 - 10.0).abs() < 0.1 && (figures.max - 30.0).abs() < 0.1);
        assert_eq!(a.hold.figures(), None);
    }

    #[test]
    fn durations_beyond_the_scale_are_kept_at_its_end() {
        let mut spread = Spread::default();
        spread.record(Duration::ZERO);
        spread.record(Duration::from_secs(100_000));
        let figures = spread.figures().unwrap();
        assert_eq!(figures.count, 2);
        assert!(figures.max >= 119_000.0);
    }
}
