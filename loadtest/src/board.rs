//! What a run looks like while it goes: the last second of every POP and of all, and what came together since it began.
//!
//! Invariant: bounded, however long the run is. Deliberately absent: how it is shown (`progress`).
#![deny(clippy::disallowed_methods)]

use crate::results::Point;
use crate::steps::Steps;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Seconds of viewers kept.
pub(crate) const HISTORY: usize = 120;
/// Seconds that delays are of: less would be few parts, more would be long ago.
const RECENT: usize = 10;

/// One POP, or all.
#[derive(Debug, Clone, Default)]
pub(crate) struct Row {
    pub(crate) viewers: u64,
    pub(crate) stalled: u64,
    /// In the last second.
    pub(crate) requests: u64,
    pub(crate) bytes: u64,
    /// Since the beginning.
    pub(crate) stalls: u64,
    pub(crate) errors: u64,
    /// Viewers at the end of each second, the newest last.
    pub(crate) history: VecDeque<u64>,
    delays: VecDeque<Steps>,
}

impl Row {
    fn second(&mut self, point: Point) {
        (self.viewers, self.stalled) = (point.viewers, point.stalled);
        (self.requests, self.bytes) = (point.requests, point.bytes);
        self.stalls += point.stalls;
        self.errors += point.errors;
        push(&mut self.history, point.viewers, HISTORY);
        push(&mut self.delays, point.part_delay, RECENT);
    }

    /// Part delay of the last seconds; `None`: no part came.
    pub(crate) fn delay_ms(&self, quantile: f64) -> Option<f64> {
        let mut all = Steps::default();
        self.delays.iter().for_each(|steps| all.add(steps));
        all.quantile_ms(quantile)
    }
}

fn push<T>(queue: &mut VecDeque<T>, value: T, most: usize) {
    if queue.len() == most {
        queue.pop_front();
    }
    queue.push_back(value);
}

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Board {
    pub(crate) name: String,
    /// Name and end of each phase, since the beginning.
    phases: Vec<(String, Duration)>,
    /// Unix seconds of the beginning, when that is known.
    begun_s: Option<u64>,
    pub(crate) elapsed: Duration,
    pub(crate) all: Row,
    /// By name: as the POP calls itself, else by its address.
    pub(crate) pops: BTreeMap<String, Row>,
}

impl Board {
    /// Nothing has happened yet. Phases with their lengths.
    pub(crate) fn new(name: &str, phases: &[(String, Duration)]) -> Self {
        let mut end = Duration::ZERO;
        let phases = phases.iter().map(|(name, length)| {
            end += *length;
            (name.clone(), end)
        });
        Self {
            name: name.to_owned(),
            phases: phases.collect(),
            begun_s: None,
            elapsed: Duration::ZERO,
            all: Row::default(),
            pops: BTreeMap::new(),
        }
    }

    /// How long the run is meant to be.
    pub(crate) fn whole(&self) -> Duration {
        self.phases.last().map_or(Duration::ZERO, |(_, end)| *end)
    }

    /// What goes on.
    pub(crate) fn phase(&self) -> &str {
        let now = self.phases.iter().find(|(_, end)| self.elapsed < *end);
        now.map_or("leaving", |(name, _)| name)
    }

    /// A second of the wall clock has ended; what happened in it, by POP (a POP may be there more than once).
    pub(crate) fn second(&mut self, unix_s: u64, points: &[(String, Point)]) {
        let begun = *self.begun_s.get_or_insert(unix_s);
        self.elapsed = Duration::from_secs((unix_s + 1).saturating_sub(begun));
        let mut all = Point::default();
        let mut pops: BTreeMap<&str, Point> = BTreeMap::new();
        for (name, point) in points {
            all.add(point);
            pops.entry(name).or_default().add(point);
        }
        self.all.second(all);
        for name in pops.keys() {
            if !self.pops.contains_key(*name) {
                self.pops.insert((*name).to_owned(), Row::default());
            }
        }
        for (name, row) in &mut self.pops {
            row.second(pops.remove(name.as_str()).unwrap_or_default());
        }
        // An edge that has said its name by now is not there under its address any more.
        self.pops.retain(|_, row| {
            row.history.iter().any(|viewers| *viewers > 0) || row.errors > 0 || row.requests > 0
        });
    }

    /// In a line.
    pub(crate) fn line(&self) -> String {
        let Row { viewers, requests, stalls, errors, .. } = &self.all;
        let delay = self.all.delay_ms(0.99).map_or_else(|| "-".to_owned(), |ms| format!("{ms:.0} ms"));
        format!(
            "{}: {viewers} viewers, {requests} requests/s, part delay p99 {delay}, {stalls} stalls, {errors} errors",
            self.phase()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(viewers: u64, delay_ms: u64) -> Point {
        let mut point = Point { viewers, requests: 10, stalls: 1, errors: 2, ..Point::default() };
        point.part_delay.record(Duration::from_millis(delay_ms));
        point
    }

    fn board() -> Board {
        let seconds = Duration::from_secs;
        Board::new("x", &[("ramp".into(), seconds(2)), ("churn".into(), seconds(3))])
    }

    #[test]
    fn phases_follow_one_another() {
        let mut board = board();
        assert_eq!((board.phase(), board.whole()), ("ramp", Duration::from_secs(5)));
        let mut phases = Vec::new();
        for second in 100..106 {
            board.second(second, &[]);
            phases.push(board.phase().to_owned());
        }
        assert_eq!(phases, ["ramp", "churn", "churn", "churn", "leaving", "leaving"]);
        assert_eq!(board.elapsed, Duration::from_secs(6));
    }

    #[test]
    fn pops_and_all_of_them() {
        let mut board = board();
        for second in 0..20 {
            let both = [("a".into(), point(3, 50)), ("b".into(), point(1, 10)), ("a".into(), point(2, 50))];
            board.second(100 + second, &both);
        }
        board.second(120, &[("a".into(), point(7, 900))]);
        let (a, b) = (&board.pops["a"], &board.pops["b"]);
        assert_eq!((a.viewers, b.viewers, board.all.viewers), (7, 0, 7));
        assert_eq!((board.all.requests, board.all.errors, b.errors), (10, 20 * 6 + 2, 40));
        assert_eq!(a.history.iter().rev().take(2).copied().collect::<Vec<_>>(), [7, 5]);
        assert!(a.delay_ms(0.5).unwrap() < 60.0 && a.delay_ms(0.99).unwrap() > 880.0);
        assert!(board.line().contains("7 viewers, 10 requests/s, part delay p99 8"), "{}", board.line());
    }

    #[test]
    fn long_runs_stay_small() {
        let mut board = board();
        for second in 0..1_000 {
            board.second(second, &[("a".into(), point(1, 10))]);
        }
        assert_eq!((board.all.history.len(), board.all.delays.len()), (HISTORY, RECENT));
        for second in 1_000..1_000 + HISTORY as u64 {
            board.second(second, &[]);
        }
        assert!(board.pops.contains_key("a"), "what it did is not forgotten");
        assert_eq!(board.all.delay_ms(0.5), None);
    }
}
