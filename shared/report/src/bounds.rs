//! How much one report may say, and of which time.
//!
//! What a report costs whoever counts it depends on how many sessions and spans it has and on how many minutes of channels
//! it touches, hardly on how long anybody was there. Invariants: a POP cuts what it has into reports within these bounds
//! (every entry of at most [`SPANS_MAX`] spans that are no longer than [`SPAN_MS_MAX`] fits into a report by itself), and
//! the origin looks at them before it does anything else.
#![deny(clippy::disallowed_methods)]

use crate::report::{InvalidReport, QualityReport, Report, SessionReport, TrafficReport};
use crate::spans::{Span, Spans};
use std::collections::BTreeMap;

/// The largest report on the wire, bytes. A POP with more to say says it in several.
pub const BYTES_MAX: usize = 4 << 20;
/// The most spans of one kind in a session's entry; a session with more has several entries.
pub const SPANS_MAX: usize = 64;
/// The longest span of presence, and of what was watched, milliseconds. A longer one is told as several that touch.
pub const SPAN_MS_MAX: u64 = 3_600_000;
/// The most entries of sessions.
pub const SESSIONS_MAX: usize = 32_768;
/// The most spans in all of them.
pub const ALL_SPANS_MAX: usize = 131_072;
/// The most entries of traffic.
pub const TRAFFIC_MAX: usize = 16_384;
/// The most entries of quality.
pub const QUALITY_MAX: usize = 4096;
/// The most minutes, each of each channel, in which somebody was present, something went out or was said.
pub const MINUTES_MAX: u64 = 4096;
/// How far ahead of the reader's clock a moment may be, milliseconds.
pub const AHEAD_MS_MAX: u64 = 86_400_000;
/// How far back a moment may be, milliseconds: ten years, the longest that anything by the second is kept. The media
/// timeline, which has a clock of its own, may be as far ahead, too.
pub const BACK_MS_MAX: u64 = 3650 * 86_400_000;
/// Reports that an incarnation may have made beyond one a millisecond.
pub const SEQUENCE_SLACK: u64 = 1 << 20;
/// The most bytes or requests of a second, and the most of what a minute's counters of quality say.
pub const COUNT_MAX: u64 = 1 << 50;

const _: () = assert!(SPANS_MAX as u64 * (SPAN_MS_MAX / 60_000 + 1) <= MINUTES_MAX);

/// The minutes of channels that a report speaks of.
#[derive(Debug, Default)]
pub struct Minutes {
    channels: BTreeMap<u32, Spans>,
    count: u64,
}

impl Minutes {
    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Those in which a session was present.
    pub fn add_session(&mut self, session: &SessionReport) {
        for span in &session.present {
            self.add(session.channel, span.start / 60_000, span.end.saturating_sub(1) / 60_000);
        }
    }

    /// That of a second's traffic.
    pub fn add_traffic(&mut self, traffic: &TrafficReport) {
        self.add(traffic.channel, traffic.second / 60, traffic.second / 60);
    }

    /// That of what players said.
    pub fn add_quality(&mut self, quality: &QualityReport) {
        self.add(quality.channel, quality.minute, quality.minute);
    }

    fn add(&mut self, channel: u32, first: u64, last: u64) {
        let Some(span) = Span::new(first, last.saturating_add(1)) else { return };
        let added = self.channels.entry(channel).or_default().insert(span);
        let added = added.into_iter().fold(0, |sum: u64, span| sum.saturating_add(span.length()));
        self.count = self.count.saturating_add(added);
    }
}

/// A moment of a report against a clock.
struct Clock {
    now_ms: u64,
}

impl Clock {
    fn not_ahead(&self, field: &'static str, ms: u64) -> Result<(), InvalidReport> {
        let bound = self.now_ms.saturating_add(AHEAD_MS_MAX);
        if ms <= bound { Ok(()) } else { Err(InvalidReport::Ahead { field, value: ms, bound }) }
    }

    fn holds(&self, field: &'static str, from_ms: u64, until_ms: u64) -> Result<(), InvalidReport> {
        let bound = self.now_ms.saturating_sub(BACK_MS_MAX);
        if from_ms < bound {
            return Err(InvalidReport::Behind { field, value: from_ms, bound });
        }
        self.not_ahead(field, until_ms)
    }

    fn holds_media(&self, span: Span) -> Result<(), InvalidReport> {
        let field = "end of a watched span";
        let bound = self.now_ms.saturating_add(BACK_MS_MAX);
        if span.end / 1000 > bound {
            return Err(InvalidReport::Ahead { field, value: span.end / 1000, bound });
        }
        self.holds("start of a watched span", span.start / 1000, 0)
    }
}

fn few(field: &'static str, value: usize, bound: usize) -> Result<(), InvalidReport> {
    let (value, bound) = (value as u64, bound as u64);
    if value <= bound { Ok(()) } else { Err(InvalidReport::TooMany { field, value, bound }) }
}

fn within(field: &'static str, value: u64, bound: u64) -> Result<(), InvalidReport> {
    if value <= bound { Ok(()) } else { Err(InvalidReport::Beyond { field, value, bound }) }
}

/// Whether a report says no more than one may say at once.
pub(crate) fn check_size(report: &Report) -> Result<(), InvalidReport> {
    few("entries of sessions", report.sessions.len(), SESSIONS_MAX)?;
    few("entries of traffic", report.traffic.len(), TRAFFIC_MAX)?;
    few("entries of quality", report.quality.len(), QUALITY_MAX)?;
    let mut spans = 0;
    let mut minutes = Minutes::default();
    for session in &report.sessions {
        few("watched spans in one entry", session.watched.len(), SPANS_MAX)?;
        few("present spans in one entry", session.present.len(), SPANS_MAX)?;
        spans += session.watched.len() + session.present.len();
        for span in &session.watched {
            within("length of a watched span, in microseconds,", span.length(), SPAN_MS_MAX * 1000)?;
        }
        for span in &session.present {
            within("length of a present span, in milliseconds,", span.length(), SPAN_MS_MAX)?;
        }
        minutes.add_session(session);
    }
    few("spans of sessions", spans, ALL_SPANS_MAX)?;
    for traffic in &report.traffic {
        within("number of bytes in a second", traffic.bytes, COUNT_MAX)?;
        within("number of requests in a second", traffic.requests, COUNT_MAX)?;
        minutes.add_traffic(traffic);
    }
    for quality in &report.quality {
        within("number of starvations in a minute", quality.starvations, COUNT_MAX)?;
        within("starved time in a minute, in milliseconds,", quality.starved_ms, COUNT_MAX)?;
        within("time that players spoke in a minute, in milliseconds,", quality.spoken_ms, COUNT_MAX)?;
        minutes.add_quality(quality);
    }
    let (value, bound) = (minutes.count(), MINUTES_MAX);
    if value <= bound {
        Ok(())
    } else {
        Err(InvalidReport::TooMany { field: "minutes of channels", value, bound })
    }
}

impl Report {
    /// Whether it speaks of a time that a reader at this moment, Unix milliseconds, can take it to speak of.
    ///
    /// # Errors
    /// A moment, or a number that follows the clock, is absurdly far from now. Its clock, or the reader's, is wrong.
    pub fn check_times(&self, now_ms: u64) -> Result<(), InvalidReport> {
        let clock = Clock { now_ms };
        clock.not_ahead("incarnation", self.incarnation)?;
        let sequence_max = now_ms.saturating_sub(self.incarnation).saturating_add(SEQUENCE_SLACK);
        within("sequence number", self.sequence, sequence_max)?;
        clock.holds("made_at_ms", self.made_at_ms, self.made_at_ms)?;
        clock.not_ahead("complete_until_ms", self.complete_until_ms)?;
        for session in &self.sessions {
            for span in &session.present {
                clock.holds("present span", span.start, span.end)?;
            }
            session.watched.iter().try_for_each(|span| clock.holds_media(*span))?;
        }
        for traffic in &self.traffic {
            let at_ms = traffic.second.saturating_mul(1000);
            clock.holds("second of traffic", at_ms, at_ms)?;
        }
        for quality in &self.quality {
            let at_ms = quality.minute.saturating_mul(60_000);
            clock.holds("minute of quality", at_ms, at_ms)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
