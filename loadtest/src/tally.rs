//! What viewers count, and how it becomes figures.
//!
//! Invariants: counting is cheap and bounded; tallies of many viewers add up in any order, also those of several
//! processes: everything can be written as JSON and read again without losing a count. Histograms hold microseconds
//! with three significant digits. A request counts from the moment at which the player model wanted it, so a tester
//! that is late shows as slow and not as idle (coordinated omission).
#![deny(clippy::disallowed_methods)]

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{
    Deserializer as HistogramDeserializer, Serializer as _, V2DeflateSerializer,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
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
    /// No answer yet when the run ended, for longer than a live playlist may take to change.
    Overdue,
    /// The variant that was asked for is not there.
    NoVariant,
    /// A delta update that does not fit the playlist it updates.
    BadDelta,
    /// A playback token was refused or none was given (401, 403 at the multivariant playlist).
    Refused,
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
            Self::Overdue => "overdue",
            Self::NoVariant => "no_variant",
            Self::BadDelta => "bad_delta",
            Self::Refused => "refused",
        };
        f.write_str(name)
    }
}

impl std::str::FromStr for ErrorKind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        if let Some(status) = name.strip_prefix("http_") {
            return status.parse().map(Self::Status).map_err(|_| format!("{name}: no status"));
        }
        let known = [
            Self::Connect,
            Self::Tls,
            Self::Timeout,
            Self::Closed,
            Self::Truncated,
            Self::Oversize,
            Self::BadPlaylist,
            Self::BadUri,
            Self::HashMismatch,
            Self::Unsatisfied,
            Self::Regression,
            Self::Gap,
            Self::Overdue,
            Self::NoVariant,
            Self::BadDelta,
            Self::Refused,
        ];
        known
            .into_iter()
            .find(|kind| kind.to_string() == name)
            .ok_or_else(|| format!("{name}: no such error"))
    }
}

impl Serialize for ErrorKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ErrorKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
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

    /// Adds another one's values to these.
    pub(crate) fn add(&mut self, other: &Self) {
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

/// As HdrHistogram's V2 encoding, deflated, in Base64: other tools read it, and percentiles of a sum stay exact.
impl Serialize for Spread {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut encoded = Vec::new();
        V2DeflateSerializer::new().serialize(&self.0, &mut encoded).map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(&STANDARD.encode(encoded))
    }
}

impl<'de> Deserialize<'de> for Spread {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let custom = |error: &dyn fmt::Display| serde::de::Error::custom(format!("no histogram: {error}"));
        let encoded = STANDARD.decode(String::deserialize(deserializer)?).map_err(|error| custom(&error))?;
        let mut rest = encoded.as_slice();
        let read: Histogram<u64> =
            HistogramDeserializer::new().deserialize(&mut rest).map_err(|error| custom(&error))?;
        if !rest.is_empty() {
            return Err(custom(&format!("{} bytes too many", rest.len())));
        }
        let mut spread = Self::default();
        spread.0.add(read).map_err(|error| custom(&error))?;
        Ok(spread)
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

/// How a viewer left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Leaving {
    /// The connection closed cleanly: FIN, GOAWAY, CONNECTION_CLOSE.
    Close,
    /// TCP RST; with QUIC, closed with an error.
    Reset,
    /// Neither reads nor writes any more, while the connection stays open.
    Vanish,
    /// Asks for nothing for a time, its connection open, and then goes on.
    Sleep,
    /// Stayed to the end of the run or of the broadcast.
    End,
}

impl Leaving {
    /// As in reports and logs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Close => "close",
            Self::Reset => "reset",
            Self::Vanish => "vanish",
            Self::Sleep => "sleep",
            Self::End => "end",
        }
    }
}

/// Everything counted by some viewers over some time.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Tally {
    /// Requests answered or failed.
    pub(crate) requests: u64,
    pub(crate) bytes: u64,
    pub(crate) playlists: u64,
    /// Of them, delta updates.
    pub(crate) deltas: u64,
    pub(crate) parts: u64,
    /// Of them, asked for by EXT-X-PRELOAD-HINT before they existed.
    pub(crate) hinted: u64,
    pub(crate) segments: u64,
    pub(crate) inits: u64,
    /// Sum of the durations of parts and segments.
    pub(crate) media_us: u64,
    /// Time that viewers were present and awake, from their first media on, and that of their renditions.
    pub(crate) viewer_us: u64,
    pub(crate) rendition_us: u64,
    /// Requests made again on a new connection because the server had said that it would not answer them on the old one.
    pub(crate) retried: u64,
    /// Parts without `at` in CMSD-Static: their delay is unknown.
    pub(crate) undated: u64,
    /// Parts whose `at` is in the future: the clocks of origin and viewer differ.
    pub(crate) future: u64,
    /// Playback sessions begun, and of them those that got media.
    pub(crate) sessions: u64,
    pub(crate) viewers_started: u64,
    /// Viewers whose broadcast ended.
    pub(crate) ended: u64,
    /// Playback sessions that ended, by how.
    pub(crate) left: BTreeMap<Leaving, u64>,
    pub(crate) stalls: u64,
    pub(crate) stalled_us: u64,
    /// Media time played out.
    pub(crate) played_us: u64,
    pub(crate) switches_up: u64,
    pub(crate) switches_down: u64,
    pub(crate) seeks: u64,
    /// Moves of a session to another edge, and to another protocol.
    pub(crate) migrations: u64,
    pub(crate) errors: BTreeMap<ErrorKind, u64>,
    /// Last byte at the viewer minus `at` of CMSD-Static, of parts learnt from a reload.
    pub(crate) part_delay: Spread,
    /// Last byte at the viewer minus the part's end in PROGRAM-DATE-TIME, of the same parts.
    pub(crate) part_age: Spread,
    /// Blocking reloads, wanted to last byte.
    pub(crate) hold: Spread,
    /// Parts and segments, wanted to response header.
    pub(crate) first_byte: Spread,
    pub(crate) startup: Spread,
    /// Wanted to last byte, by kind: playlists that were not held, init sections, parts that existed, hinted parts,
    /// whole segments.
    pub(crate) playlist_time: Spread,
    pub(crate) init_time: Spread,
    pub(crate) part_time: Spread,
    pub(crate) hint_time: Spread,
    pub(crate) segment_time: Spread,
    pub(crate) stall_time: Spread,
    /// Playhead behind the wall clock in PROGRAM-DATE-TIME, once a second and viewer.
    pub(crate) live_latency: Spread,
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
        macro_rules! sum {
            ($($field:ident)*) => { $(self.$field += other.$field;)* };
        }
        macro_rules! merge {
            ($($field:ident)*) => { $(self.$field.add(&other.$field);)* };
        }
        sum!(requests bytes playlists deltas parts hinted segments inits media_us undated future);
        sum!(viewer_us rendition_us retried);
        sum!(sessions viewers_started ended stalls stalled_us played_us switches_up switches_down seeks migrations);
        for (kind, count) in &other.errors {
            self.errors_of(*kind, *count);
        }
        for (how, count) in &other.left {
            *self.left.entry(*how).or_default() += count;
        }
        merge!(part_delay part_age hold first_byte startup playlist_time init_time part_time);
        merge!(hint_time segment_time stall_time live_latency);
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
    fn what_is_no_histogram_is_refused() {
        for text in ["\"\"", "\"AAAA\"", "\"?\"", "7", "[[1,1]]"] {
            assert!(serde_json::from_str::<Spread>(text).is_err(), "{text}");
        }
        let encoded = serde_json::to_string(&Spread::default()).unwrap();
        let mut bytes = STANDARD.decode(encoded.trim_matches('"')).unwrap();
        let read = |bytes: &[u8]| serde_json::from_str::<Spread>(&format!("\"{}\"", STANDARD.encode(bytes)));
        assert!(read(&bytes).is_ok());
        bytes.push(0);
        assert!(read(&bytes).unwrap_err().to_string().contains("1 bytes too many"));
        // Of other bounds: beyond the scale of ours.
        let mut wide = Histogram::<u64>::new_with_bounds(1, 1 << 40, 3).unwrap();
        wide.record(1 << 39).unwrap();
        let text = serde_json::to_string(&Spread(wide)).unwrap();
        assert!(serde_json::from_str::<Spread>(&text).is_err());
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
