//! What the page plots: what happened in each second, as lines over time.
//!
//! Invariants: all charts share one time axis; long runs are taken together in steps, so a page has at most
//! [`STEPS_MAX`] places on its axis. Percentiles of a step are of all values in it, not of percentiles.
#![deny(clippy::disallowed_methods)]

use crate::results::{Point, Results};
use crate::steps::Steps;
use std::collections::{BTreeMap, BTreeSet};

/// Places on the time axis: more cannot be told apart on a screen.
const STEPS_MAX: u64 = 360;
/// Lines of edges in a chart; the rest is one line.
const EDGES_MAX: usize = 6;

/// The time axis of all charts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Axis {
    /// Unix second of the left end.
    pub(super) begin: u64,
    /// Seconds to a step.
    pub(super) step: u64,
    pub(super) count: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line {
    pub(super) name: String,
    /// By step; `None`: nothing was measured.
    pub(super) values: Vec<Option<f64>>,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Chart {
    pub(super) title: &'static str,
    pub(super) unit: &'static str,
    /// What is shown, in a sentence.
    pub(super) caption: &'static str,
    pub(super) lines: Vec<Line>,
}

/// The seconds of some slices, taken together in the steps of the axis.
type Row = Vec<Point>;

impl Axis {
    pub(super) fn of(results: &Results) -> Self {
        let seconds: BTreeSet<u64> =
            results.slices.iter().flat_map(|slice| slice.seconds.keys().copied()).collect();
        let begin = seconds.first().copied().unwrap_or_default();
        let length = seconds.last().map_or(0, |last| (last - begin).saturating_add(1));
        let step = length.div_ceil(STEPS_MAX).max(1);
        Self { begin, step, count: length.div_ceil(step) as usize }
    }

    /// Sums of counts; of gauges, the greatest second of the step.
    fn row(&self, seconds: &BTreeMap<u64, Point>) -> Row {
        let mut row = vec![Point::default(); self.count];
        for (at, point) in seconds {
            let Some(into) = row.get_mut((at.saturating_sub(self.begin) / self.step) as usize) else {
                continue;
            };
            let (viewers, stalled) = (into.viewers.max(point.viewers), into.stalled.max(point.stalled));
            into.add(point);
            (into.viewers, into.stalled) = (viewers, stalled);
        }
        row
    }
}

fn line(name: &str, row: &Row, value: impl Fn(&Point) -> Option<f64>) -> Line {
    Line { name: name.to_owned(), values: row.iter().map(value).collect() }
}

fn percentiles(row: &Row, of: impl Fn(&Point) -> &Steps) -> Vec<Line> {
    [("p50", 0.5), ("p95", 0.95), ("p99", 0.99)]
        .into_iter()
        .map(|(name, at)| line(name, row, |point| of(point).quantile_ms(at)))
        .collect()
}

/// Viewers by edge, the greatest first.
fn viewers(axis: Axis, results: &Results) -> Vec<Line> {
    let mut edges: BTreeMap<String, BTreeMap<u64, Point>> = BTreeMap::new();
    for slice in &results.slices {
        let name = match slice.pop.as_str() {
            "" => slice.key.edge.clone(),
            pop => format!("{pop} ({})", slice.key.edge),
        };
        let seconds = edges.entry(name).or_default();
        for (at, point) in &slice.seconds {
            seconds.entry(*at).or_default().add(&Point { viewers: point.viewers, ..Point::default() });
        }
    }
    let peak = |seconds: &BTreeMap<u64, Point>| seconds.values().map(|point| point.viewers).max();
    let mut edges: Vec<_> = edges.into_iter().collect();
    edges.sort_by_key(|(_, seconds)| std::cmp::Reverse(peak(seconds)));
    let gauge = |point: &Point| Some(point.viewers as f64);
    if edges.len() > EDGES_MAX {
        let mut rest: BTreeMap<u64, Point> = BTreeMap::new();
        let others = edges.split_off(EDGES_MAX - 1);
        let name = format!("{} others", others.len());
        for (at, point) in others.iter().flat_map(|(_, seconds)| seconds) {
            rest.entry(*at).or_default().add(point);
        }
        edges.push((name, rest));
    }
    edges.iter().map(|(name, seconds)| line(name, &axis.row(seconds), gauge)).collect()
}

/// Everything that is plotted. Charts without any value are left out.
pub(super) fn charts(axis: Axis, results: &Results) -> Vec<Chart> {
    let row = axis.row(&results.seconds_of_all());
    let per_second = |count: u64| Some(count as f64 / axis.step as f64);
    let mut charts = vec![
        Chart {
            title: "Viewers",
            unit: "viewers",
            caption: "Playback sessions that have had media and have not left, by edge.",
            lines: viewers(axis, results),
        },
        Chart {
            title: "Part delay",
            unit: "ms",
            caption: "Last byte at the viewer minus the moment at which the origin had the part.",
            lines: percentiles(&row, |point| &point.part_delay),
        },
        Chart {
            title: "Live latency",
            unit: "ms",
            caption: "The playhead behind the wall clock of PROGRAM-DATE-TIME.",
            lines: percentiles(&row, |point| &point.live_latency),
        },
        Chart {
            title: "Request time, p95 by kind",
            unit: "ms",
            caption: "Wanted to last byte of what was not held: a tester that is late shows as slow.",
            lines: vec![
                line("playlists", &row, |point| point.playlist.quantile_ms(0.95)),
                line("init sections", &row, |point| point.init.quantile_ms(0.95)),
                line("parts", &row, |point| point.part.quantile_ms(0.95)),
                line("segments", &row, |point| point.segment.quantile_ms(0.95)),
            ],
        },
        Chart {
            title: "Stalls and errors",
            unit: "per second",
            caption: "Buffers that ran empty, and requests that went wrong.",
            lines: vec![
                line("stalls begun", &row, |point| per_second(point.stalls)),
                line("errors", &row, |point| per_second(point.errors)),
            ],
        },
        Chart {
            title: "Viewers stalled",
            unit: "viewers",
            caption: "Sessions whose buffer was empty at the end of a second.",
            lines: vec![line("stalled", &row, |point| Some(point.stalled as f64))],
        },
        Chart {
            title: "Throughput",
            unit: "Mbit/s",
            caption: "Bytes of bodies received by all viewers.",
            lines: vec![line("received", &row, |point| per_second(point.bytes * 8).map(|bits| bits / 1e6))],
        },
        Chart {
            title: "Requests and parts",
            unit: "per second",
            caption: "Requests answered or failed, and parts among them.",
            lines: vec![
                line("requests", &row, |point| per_second(point.requests)),
                line("parts", &row, |point| per_second(point.parts)),
            ],
        },
    ];
    for chart in &mut charts {
        chart.lines.retain(|line| line.values.iter().any(Option::is_some));
    }
    charts.retain(|chart| !chart.lines.is_empty());
    charts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dial::Protocol;
    use crate::results::{Slice, SliceKey};
    use std::time::Duration;

    fn results(edges: usize, seconds: std::ops::Range<u64>) -> Results {
        let mut results = Results::default();
        for edge in 0..edges {
            let key = SliceKey { edge: format!("edge-{edge}"), channel: "c".into(), protocol: Protocol::H2 };
            let mut slice = Slice::new(key);
            for at in seconds.clone() {
                let mut point = Point { viewers: edge as u64 + 1, bytes: 1_000_000, ..Point::default() };
                point.part_delay.record(Duration::from_millis(at % 100 + 1));
                slice.seconds.insert(at, point);
            }
            results.slices.push(slice);
        }
        results
    }

    fn named<'a>(charts: &'a [Chart], title: &str) -> &'a Chart {
        charts.iter().find(|chart| chart.title == title).unwrap()
    }

    #[test]
    fn long_runs_are_taken_together() {
        let results = results(2, 1000..1900);
        let axis = Axis::of(&results);
        assert_eq!(axis, Axis { begin: 1000, step: 3, count: 300 });
        let charts = charts(axis, &results);
        assert_eq!(named(&charts, "Viewers").lines[0].values[7], Some(2.0));
        assert_eq!(named(&charts, "Throughput").lines[0].values[7], Some(16.0));
        let p50 = named(&charts, "Part delay").lines[0].values[1].unwrap();
        assert!((p50 - 5.0).abs() < 0.2, "{p50}: seconds 3, 4, 5 after the start");
        assert!(charts.iter().all(|chart| chart.title != "Live latency"), "nothing was measured");
    }

    #[test]
    fn many_edges_are_few_lines_and_nobody_is_lost() {
        let results = results(9, 5..7);
        let lines = viewers(Axis::of(&results), &results);
        assert_eq!(lines.len(), EDGES_MAX);
        assert_eq!((lines[0].name.as_str(), lines[5].name.as_str()), ("edge-8", "4 others"));
        assert_eq!(lines.iter().map(|line| line.values[0].unwrap()).sum::<f64>(), 45.0);
    }

    #[test]
    fn nothing_is_nothing() {
        let results = Results::default();
        assert_eq!(charts(Axis::of(&results), &results), []);
    }
}
