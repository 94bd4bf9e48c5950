//! What a run measured, in the form that reports are made of and that several processes' runs merge by.
//!
//! Invariants: everything here adds up: two processes' results are one larger run's. Seconds are those of the wall
//! clock, so that processes share them. Deliberately absent: rendering (`report`).
#![deny(clippy::disallowed_methods)]

use crate::dial::Protocol;
use crate::player::Kind;
use crate::steps::Steps;
use crate::tally::{Spread, Tally};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Viewers of one channel at one edge over one protocol.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct SliceKey {
    /// Authority of the edge, e.g. `127.0.0.1:8443`.
    pub(crate) edge: String,
    /// Channel of the URL, or its path if it is no `/live/{channel}/` one.
    pub(crate) channel: String,
    pub(crate) protocol: Protocol,
}

/// One second of a slice.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Point {
    /// Playback sessions that have had media and have not left, at the end of the second.
    pub(crate) viewers: u64,
    /// Of them, those whose buffer is empty.
    pub(crate) stalled: u64,
    /// In this second.
    pub(crate) started: u64,
    pub(crate) left: u64,
    pub(crate) requests: u64,
    pub(crate) bytes: u64,
    pub(crate) parts: u64,
    pub(crate) errors: u64,
    pub(crate) stalls: u64,
    /// Last byte minus `at` of CMSD-Static.
    pub(crate) part_delay: Steps,
    /// Wanted to last byte of what was not held: playlists, init sections, parts and segments.
    pub(crate) playlist: Steps,
    pub(crate) init: Steps,
    pub(crate) part: Steps,
    pub(crate) segment: Steps,
    /// Playhead behind the wall clock.
    pub(crate) live_latency: Steps,
}

impl Point {
    pub(crate) fn add(&mut self, other: &Self) {
        self.viewers += other.viewers;
        self.stalled += other.stalled;
        self.started += other.started;
        self.left += other.left;
        self.requests += other.requests;
        self.bytes += other.bytes;
        self.parts += other.parts;
        self.errors += other.errors;
        self.stalls += other.stalls;
        self.part_delay.add(&other.part_delay);
        self.playlist.add(&other.playlist);
        self.init.add(&other.init);
        self.part.add(&other.part);
        self.segment.add(&other.segment);
        self.live_latency.add(&other.live_latency);
    }

    /// A media object came, that long after it was wanted. Hinted parts do not count: they are held.
    pub(crate) fn answered(&mut self, kind: Kind, took: Duration) {
        match kind {
            Kind::Init => self.init.record(took),
            Kind::Part => self.part.record(took),
            Kind::Segment => self.segment.record(took),
            Kind::Hint => {}
        }
    }
}

/// What a slice did over the whole run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Slice {
    pub(crate) key: SliceKey,
    /// As `CMSD-Dynamic` names it; empty if nothing did.
    pub(crate) pop: String,
    /// Most viewers at the end of a second.
    pub(crate) peak_viewers: u64,
    /// By Unix second; seconds without anything are left out.
    pub(crate) seconds: BTreeMap<u64, Point>,
}

/// Whether the tester itself kept up.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Tester {
    pub(crate) threads: u32,
    /// CPU seconds of the process in the measured time.
    pub(crate) own_cpu_s: f64,
    /// The busiest thread's share of a core in its busiest second, percent.
    pub(crate) busiest_percent: f64,
    /// How late the event loops woke up.
    pub(crate) loop_lag: Spread,
    /// Wanted to sent, of requests that needed no new connection.
    pub(crate) send_lag: Spread,
    /// Why the figures say more about the tester than about the server; empty: they do not.
    pub(crate) limited: Vec<String>,
    /// Lines that the ground-truth log could not take.
    pub(crate) truth_lost: u64,
    /// Viewers that a fault of the tester ended.
    pub(crate) broken: u64,
}

/// Everything that a run measured.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Results {
    /// Unix milliseconds of the first viewer's start.
    pub(crate) started_at_ms: u64,
    /// Before the measured time, and in it.
    pub(crate) ramp_seconds: f64,
    pub(crate) seconds: f64,
    /// Playback sessions that the scenario has.
    pub(crate) viewers: u32,
    /// It ended before its time because somebody wanted it to.
    pub(crate) interrupted: bool,
    /// Bodies compared with an earlier one of the same URI.
    pub(crate) compared: u64,
    /// Of the measured time.
    pub(crate) tally: Tally,
    /// Before it.
    pub(crate) warm_up: Tally,
    pub(crate) slices: Vec<Slice>,
    pub(crate) tester: Tester,
}

impl Results {
    /// The whole run's counts.
    pub(crate) fn whole(&self) -> Tally {
        let mut whole = self.warm_up.clone();
        whole.add(&self.tally);
        whole
    }

    /// Adds what another process measured at the same time.
    pub(crate) fn add(&mut self, other: &Self) {
        self.started_at_ms = match (self.started_at_ms, other.started_at_ms) {
            (0, at) | (at, 0) => at,
            (mine, others) => mine.min(others),
        };
        self.ramp_seconds = self.ramp_seconds.max(other.ramp_seconds);
        self.seconds = self.seconds.max(other.seconds);
        self.viewers = self.viewers.saturating_add(other.viewers);
        self.interrupted |= other.interrupted;
        self.compared += other.compared;
        self.tally.add(&other.tally);
        self.warm_up.add(&other.warm_up);
        for slice in &other.slices {
            match self.slices.iter_mut().find(|mine| mine.key == slice.key) {
                Some(mine) => mine.add(slice),
                None => self.slices.push(slice.clone()),
            }
        }
        self.slices.sort_by(|a, b| a.key.cmp(&b.key));
        self.tester.add(&other.tester);
    }

    /// Most viewers at the end of a second.
    pub(crate) fn peak_viewers(&self) -> u64 {
        self.seconds_of_all().values().map(|point| point.viewers).max().unwrap_or_default()
    }

    /// All slices' points of each second.
    pub(crate) fn seconds_of_all(&self) -> BTreeMap<u64, Point> {
        let mut sum: BTreeMap<u64, Point> = BTreeMap::new();
        for slice in &self.slices {
            for (at, point) in &slice.seconds {
                sum.entry(*at).or_default().add(point);
            }
        }
        sum
    }
}

impl Slice {
    pub(crate) fn new(key: SliceKey) -> Self {
        Self { key, pop: String::new(), peak_viewers: 0, seconds: BTreeMap::new() }
    }

    /// Adds what the same slice did elsewhere.
    pub(crate) fn add(&mut self, other: &Self) {
        if self.pop.is_empty() || (!other.pop.is_empty() && other.pop < self.pop) {
            self.pop.clone_from(&other.pop);
        }
        for (at, point) in &other.seconds {
            self.seconds.entry(*at).or_default().add(point);
        }
        self.peak_viewers = self.seconds.values().map(|point| point.viewers).max().unwrap_or_default();
    }
}

impl Tester {
    fn add(&mut self, other: &Self) {
        self.threads += other.threads;
        self.own_cpu_s += other.own_cpu_s;
        self.busiest_percent = self.busiest_percent.max(other.busiest_percent);
        self.loop_lag.add(&other.loop_lag);
        self.send_lag.add(&other.send_lag);
        for reason in &other.limited {
            if !self.limited.contains(reason) {
                self.limited.push(reason.clone());
            }
        }
        self.truth_lost += other.truth_lost;
        self.broken += other.broken;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tally::{ErrorKind, Leaving};
    use std::time::Duration;

    fn results(edge: &str, second: u64) -> Results {
        let mut results = Results { started_at_ms: second * 1000, viewers: 3, ..Results::default() };
        results.tally.requests = 5;
        results.tally.error(ErrorKind::Status(503));
        results.tally.left.insert(Leaving::Reset, 2);
        results.tally.part_delay.record(Duration::from_millis(second));
        let key = SliceKey { edge: edge.into(), channel: "bench".into(), protocol: Protocol::H2 };
        let mut slice = Slice::new(key);
        slice.seconds.insert(second, Point { viewers: 3, parts: 7, ..Point::default() });
        slice.peak_viewers = 3;
        results.slices.push(slice);
        results.tester.limited.push("busy".into());
        results
    }

    #[test]
    fn two_processes_are_one_larger_run() {
        let mut sum = results("a", 10);
        sum.add(&results("a", 10));
        sum.add(&results("b", 11));
        assert_eq!((sum.viewers, sum.tally.requests, sum.started_at_ms), (9, 15, 10_000));
        assert_eq!((sum.slices.len(), sum.slices[0].peak_viewers), (2, 6));
        assert_eq!(
            sum.seconds_of_all().into_iter().map(|(at, p)| (at, p.parts)).collect::<Vec<_>>(),
            [(10, 14), (11, 7)]
        );
        assert_eq!(sum.tester.limited, ["busy"]);
        assert_eq!(sum.whole().left[&Leaving::Reset], 6);
    }

    #[test]
    fn what_is_written_is_read_again() {
        let mut one = results("a", 10);
        one.add(&results("b", 90));
        let text = serde_json::to_string(&one).unwrap();
        let read: Results = serde_json::from_str(&text).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), text);
        assert_eq!(read.tally.part_delay.figures(), one.tally.part_delay.figures());
        assert_eq!(read.tally.errors, one.tally.errors);
    }
}
