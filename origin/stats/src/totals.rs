//! What is counted for ever: of a channel, or of one POP, protocol or broadcast session of it.
#![deny(clippy::disallowed_methods)]

use crate::deltas::ScopeDelta;
use crate::key::decoded;
use crate::uniques::Uniques;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sigma_report::histogram::Histogram;
use sigma_report::report::QualityReport;

/// Sums over all sessions and all time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Of the media timeline, microseconds; what a session got twice counts once.
    pub watch_us: u64,
    /// How long sessions were present, without grace, milliseconds.
    pub wall_ms: u64,
    /// Sessions that got some media.
    pub views: u64,
    /// The most viewers in a second.
    pub peak_viewers: u32,
    /// The first second with that many, Unix seconds.
    pub peak_second: u64,
    /// Of bodies.
    pub bytes: u64,
    /// Requests that ended.
    pub requests: u64,
    /// What players said.
    pub quality: Quality,
    /// How many different viewers there were, and whether that is an estimate: once nobody can come to it any more and they
    /// are forgotten.
    pub settled_uniques: Option<(u64, bool)>,
}

/// What players said (CMCD), summed up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quality {
    /// Times that a buffer ran empty.
    pub starvations: u64,
    /// How long that took, milliseconds, where players say so.
    pub starved_ms: u64,
    /// That again, with the time that it is of.
    #[serde(skip)]
    pub spoken: Spoken,
    /// From play to the first picture, milliseconds.
    pub startup_ms: Histogram,
    /// Behind live, milliseconds.
    pub latency_ms: Histogram,
    /// Measured, kbit/s.
    pub throughput_kbps: Histogram,
}

/// How long players were there that spoke, and how much of it they starved: of POPs that say both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spoken {
    /// Milliseconds.
    pub ms: u64,
    /// Milliseconds.
    pub starved_ms: u64,
}

impl Spoken {
    /// As it is kept: behind what it belongs to, where it was not kept always.
    fn behind(self, value: &impl Serialize) -> Result<Vec<u8>, postcard::Error> {
        let bytes = postcard::to_allocvec(value)?;
        if self == Self::default() { Ok(bytes) } else { postcard::to_extend(&self, bytes) }
    }

    fn part<T: DeserializeOwned>(bytes: &[u8]) -> Option<(T, Self)> {
        let (value, rest) = postcard::take_from_bytes(bytes).ok()?;
        Some((value, if rest.is_empty() { Self::default() } else { decoded(rest)? }))
    }
}

impl Quality {
    pub(crate) fn encode(&self) -> Result<Vec<u8>, postcard::Error> {
        self.spoken.behind(self)
    }

    /// From bytes, as they are kept; `None`: they are none.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (quality, spoken): (Self, _) = Spoken::part(bytes)?;
        Some(Self { spoken, ..quality })
    }

    /// Takes from a report what is more than known; returns how much more.
    pub(crate) fn unite(&mut self, report: &QualityReport) -> Self {
        let grown = |known: &mut u64, said: u64| {
            let more = said.saturating_sub(*known);
            *known += more;
            more
        };
        let starved_ms = if report.spoken_ms > 0 { report.starved_ms } else { 0 };
        let spread = |known: &mut Histogram, said: &Histogram| {
            let more = said.beyond(known);
            known.unite(said);
            more
        };
        Self {
            starvations: grown(&mut self.starvations, report.starvations),
            starved_ms: grown(&mut self.starved_ms, report.starved_ms),
            spoken: Spoken {
                ms: grown(&mut self.spoken.ms, report.spoken_ms),
                starved_ms: grown(&mut self.spoken.starved_ms, starved_ms),
            },
            startup_ms: spread(&mut self.startup_ms, &report.startup_ms),
            latency_ms: spread(&mut self.latency_ms, &report.latency_ms),
            throughput_kbps: spread(&mut self.throughput_kbps, &report.throughput_kbps),
        }
    }

    /// Adds another one's.
    pub(crate) fn add(&mut self, other: &Self) {
        self.starvations = self.starvations.saturating_add(other.starvations);
        self.starved_ms = self.starved_ms.saturating_add(other.starved_ms);
        self.spoken.ms = self.spoken.ms.saturating_add(other.spoken.ms);
        self.spoken.starved_ms = self.spoken.starved_ms.saturating_add(other.spoken.starved_ms);
        self.startup_ms.add(&other.startup_ms);
        self.latency_ms.add(&other.latency_ms);
        self.throughput_kbps.add(&other.throughput_kbps);
    }

    /// Whether players said anything.
    #[must_use]
    pub fn is_known(&self) -> bool {
        *self != Self::default()
    }
}

impl Totals {
    pub(crate) fn encode(&self) -> Result<Vec<u8>, postcard::Error> {
        self.quality.spoken.behind(self)
    }

    /// From bytes, as they are kept; `None`: they are none.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (mut totals, spoken): (Self, _) = Spoken::part(bytes)?;
        totals.quality.spoken = spoken;
        Some(totals)
    }

    /// Adds what a report adds. Numbers that are true never come near the end of their range; those that are not end there.
    pub(crate) fn add(&mut self, delta: &ScopeDelta) {
        self.watch_us = self.watch_us.saturating_add(delta.watch_us);
        self.wall_ms = self.wall_ms.saturating_add(delta.wall_ms);
        self.views = self.views.saturating_add(delta.views);
        self.bytes = self.bytes.saturating_add(delta.bytes);
        self.requests = self.requests.saturating_add(delta.requests);
        self.quality.add(&delta.quality);
    }

    /// Looks at a second's viewers, which only become more: the peak is then a function of all of them.
    pub(crate) fn look_at(&mut self, second: u64, viewers: u32) {
        let higher = viewers > self.peak_viewers;
        if higher || (viewers == self.peak_viewers && viewers > 0 && second < self.peak_second) {
            (self.peak_viewers, self.peak_second) = (viewers, second);
        }
    }
}

/// Totals, and who the viewers were.
#[derive(Debug, Clone)]
pub struct Counted {
    /// The sums.
    pub totals: Totals,
    /// Different viewers.
    pub uniques: Uniques,
    pub(crate) is_dirty: bool,
}

impl Counted {
    pub(crate) fn new(viewers_max: usize) -> Self {
        Self { totals: Totals::default(), uniques: Uniques::new(viewers_max), is_dirty: false }
    }

    /// How many different viewers there were, and whether that is an estimate.
    pub(crate) fn unique_viewers(&self) -> (u64, bool) {
        self.totals.settled_uniques.unwrap_or((self.uniques.count(), self.uniques.is_estimated()))
    }

    /// Keeps the number and forgets who they were; whether there is something to forget.
    pub(crate) fn settle(&mut self) -> bool {
        let is_news = self.totals.settled_uniques.is_none();
        if is_news {
            self.totals.settled_uniques = Some(self.unique_viewers());
            self.uniques.clear();
            self.is_dirty = true;
        }
        is_news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_without_the_time_spoken_is_read_and_held_against_nobody() {
        let older =
            Totals { quality: Quality { starved_ms: 900, ..Quality::default() }, ..Totals::default() };
        assert_eq!(Totals::decode(&postcard::to_allocvec(&older).unwrap()), Some(older.clone()));
        let mut totals = older;
        let mut minute = Quality::default();
        for (starved_ms, spoken_ms) in [(10, 100), (10, 100), (5, 80), (30, 200)] {
            let report = QualityReport { starved_ms, spoken_ms, ..QualityReport::default() };
            totals.quality.add(&minute.unite(&report));
        }
        assert_eq!(totals.quality.spoken, Spoken { ms: 200, starved_ms: 30 }, "not of what was before");
        assert_eq!(totals.quality.starved_ms, 930);
        assert_eq!(Totals::decode(&totals.encode().unwrap()), Some(totals));
        assert_eq!(Quality::decode(&minute.encode().unwrap()), Some(minute));
    }
}
