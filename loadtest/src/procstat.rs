//! CPU time and memory of processes, read from `/proc`.
//!
//! Invariant: with children, CPU time of a child that ended is not lost (its parent keeps the sum of its reaped
//! children). Deliberately absent: shared memory told apart; RSS of a tree counts shared pages once per process.

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::fs;
use std::time::{Duration, Instant};
use tokio::time::MissedTickBehavior;

/// Clock ticks per second in `/proc/PID/stat`: fixed by the kernel's user interface on every architecture in use.
const TICKS_PER_SECOND: f64 = 100.0;
/// Processes followed below one root.
const TREE_MAX: usize = 1024;
/// RSS samples kept for the report; beyond that every second one is let go.
const SERIES_MAX: usize = 1024;

/// A process cannot be read: it does not exist (any more), or belongs to somebody else.
#[derive(Debug, thiserror::Error)]
#[error("process {pid}: {reason}")]
pub(crate) struct ProcError {
    pid: u32,
    reason: String,
}

/// CPU and memory of a process (and its children) at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Usage {
    /// User and system time since it started, seconds.
    pub(crate) cpu_s: f64,
    pub(crate) rss_bytes: u64,
    pub(crate) threads: u64,
    pub(crate) processes: u64,
}

impl Usage {
    /// Reads a process, with everything below it if asked for.
    pub(crate) fn of(pid: u32, children: bool) -> Result<Self, ProcError> {
        let mut sum = one(pid, children)?;
        if !children {
            return Ok(sum);
        }
        let mut pending = VecDeque::from([pid]);
        while let Some(parent) = pending.pop_front() {
            for child in children_of(parent) {
                // A child that went away meanwhile is in its parent's sum of reaped children at the next sample.
                let Ok(usage) = one(child, true) else { continue };
                sum.cpu_s += usage.cpu_s;
                sum.rss_bytes += usage.rss_bytes;
                sum.threads += usage.threads;
                sum.processes += 1;
                if sum.processes < TREE_MAX as u64 {
                    pending.push_back(child);
                }
            }
        }
        Ok(sum)
    }

    /// CPU seconds of this process so far, 0 if `/proc` cannot be read.
    pub(crate) fn own_cpu_s() -> f64 {
        Self::of(std::process::id(), false).map_or(0.0, |usage| usage.cpu_s)
    }
}

fn one(pid: u32, reaped_children: bool) -> Result<Usage, ProcError> {
    let error = |reason: String| ProcError { pid, reason };
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).map_err(|e| error(e.to_string()))?;
    let (cpu_s, threads) =
        parse_stat(&stat, reaped_children).ok_or_else(|| error("unreadable stat".into()))?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).map_err(|e| error(e.to_string()))?;
    Ok(Usage { cpu_s, rss_bytes: parse_rss(&status), threads, processes: 1 })
}

fn parse_stat(stat: &str, reaped_children: bool) -> Option<(f64, u64)> {
    // The name in parentheses may hold anything, also spaces and parentheses.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    let mut ticks = number(11)? + number(12)?;
    if reaped_children {
        ticks += number(13)? + number(14)?;
    }
    Some((ticks as f64 / TICKS_PER_SECOND, number(17)?))
}

fn parse_rss(status: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok())
        .unwrap_or_default()
        * 1024
}

fn children_of(pid: u32) -> Vec<u32> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|line| line.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}

/// What a process used over a time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct UsageReport {
    pub(crate) pid: u32,
    pub(crate) with_children: bool,
    pub(crate) seconds: f64,
    pub(crate) cpu_s: f64,
    /// CPU seconds per minute of wall time.
    pub(crate) cpu_s_per_minute: f64,
    pub(crate) cpu_percent_of_core: f64,
    pub(crate) rss_first_bytes: u64,
    pub(crate) rss_last_bytes: u64,
    pub(crate) rss_max_bytes: u64,
    pub(crate) rss_growth_bytes: i64,
    /// Slope of the straight line through all samples: steadier than last minus first.
    pub(crate) rss_trend_bytes_per_minute: f64,
    pub(crate) threads: u64,
    pub(crate) processes: u64,
    /// CPU microseconds of this process per request of the load, where there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_us_per_request: Option<f64>,
    /// (seconds since the start, RSS bytes)
    pub(crate) rss_series: Vec<(f64, u64)>,
}

/// Follows one process.
#[derive(Debug)]
pub(crate) struct Watch {
    pid: u32,
    children: bool,
    first: Usage,
    last: Usage,
    seconds: f64,
    rss_max: u64,
    series: Vec<(f64, u64)>,
    skip: usize,
    skipped: usize,
}

impl Watch {
    /// Starts with a first sample.
    pub(crate) fn start(pid: u32, children: bool) -> Result<Self, ProcError> {
        Ok(Self::from_first(pid, children, Usage::of(pid, children)?))
    }

    fn from_first(pid: u32, children: bool, first: Usage) -> Self {
        Self {
            pid,
            children,
            first,
            last: first,
            seconds: 0.0,
            rss_max: first.rss_bytes,
            series: vec![(0.0, first.rss_bytes)],
            skip: 0,
            skipped: 0,
        }
    }

    /// Takes a sample `at` a time since the start.
    pub(crate) fn sample(&mut self, at: Duration) -> Result<(), ProcError> {
        let usage = Usage::of(self.pid, self.children)?;
        self.add(at.as_secs_f64(), usage);
        Ok(())
    }

    fn add(&mut self, seconds: f64, usage: Usage) {
        self.last = usage;
        self.seconds = seconds;
        self.rss_max = self.rss_max.max(usage.rss_bytes);
        if self.skipped < self.skip {
            self.skipped += 1;
            return;
        }
        self.skipped = 0;
        self.series.push((seconds, usage.rss_bytes));
        if self.series.len() >= SERIES_MAX {
            let mut index = 0;
            self.series.retain(|_| {
                index += 1;
                index % 2 == 1
            });
            self.skip = self.skip * 2 + 1;
        }
    }

    /// The figures so far.
    pub(crate) fn report(&self) -> UsageReport {
        let cpu_s = (self.last.cpu_s - self.first.cpu_s).max(0.0);
        let per_second = if self.seconds > 0.0 { cpu_s / self.seconds } else { 0.0 };
        let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        UsageReport {
            pid: self.pid,
            with_children: self.children,
            seconds: self.seconds,
            cpu_s,
            cpu_s_per_minute: per_second * 60.0,
            cpu_percent_of_core: per_second * 100.0,
            rss_first_bytes: self.first.rss_bytes,
            rss_last_bytes: self.last.rss_bytes,
            rss_max_bytes: self.rss_max,
            rss_growth_bytes: signed(self.last.rss_bytes) - signed(self.first.rss_bytes),
            rss_trend_bytes_per_minute: trend(&self.series) * 60.0,
            threads: self.last.threads,
            processes: self.last.processes,
            cpu_us_per_request: None,
            rss_series: self.series.clone(),
        }
    }
}

/// Slope of the least-squares line.
fn trend(series: &[(f64, u64)]) -> f64 {
    let n = series.len() as f64;
    let mean_x = series.iter().map(|(x, _)| x).sum::<f64>() / n;
    let mean_y = series.iter().map(|(_, y)| *y as f64).sum::<f64>() / n;
    let (mut up, mut down) = (0.0, 0.0);
    for (x, y) in series {
        up += (x - mean_x) * (*y as f64 - mean_y);
        down += (x - mean_x).powi(2);
    }
    if down > 0.0 { up / down } else { 0.0 }
}

/// Samples processes each second until `stop` resolves. A process that ends early keeps the figures it had.
pub(crate) async fn follow(mut watches: Vec<Watch>, stop: impl Future<Output = ()>) -> Vec<UsageReport> {
    let started = Instant::now();
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    tokio::pin!(stop);
    loop {
        let stopped = tokio::select! {
            () = &mut stop => true,
            _ = ticks.tick() => false,
        };
        for watch in &mut watches {
            if let Err(error) = watch.sample(started.elapsed())
                && stopped
            {
                tracing::warn!(%error, "process ended before the measurement did");
            }
        }
        if stopped {
            return watches.iter().map(Watch::report).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_lines() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194560 1 2 3 4 150 50 30 20 20 0 7 0 100 1000 200 18446744073709551615";
        assert_eq!(parse_stat(stat, false), Some((2.0, 7)));
        assert_eq!(parse_stat(stat, true), Some((2.5, 7)));
        assert_eq!(parse_stat("42 (x) S 1", false), None);
        assert_eq!(parse_stat("", false), None);
        assert_eq!(parse_rss("Name:\tx\nVmRSS:\t    1234 kB\n"), 1234 * 1024);
        assert_eq!(parse_rss("Name:\tkthread\n"), 0);
    }

    #[test]
    fn this_process_and_one_that_cannot_be() {
        let usage = Usage::of(std::process::id(), true).unwrap();
        assert!(usage.rss_bytes > 0 && usage.threads > 0);
        assert!(Usage::of(u32::MAX, false).is_err());
    }

    #[test]
    fn figures_of_a_watch() {
        let usage = |cpu_s, rss_bytes| Usage { cpu_s, rss_bytes, threads: 2, processes: 1 };
        let mut watch = Watch::from_first(1, false, usage(10.0, 1000));
        for second in 1..=60u64 {
            watch.add(second as f64, usage(10.0 + second as f64 * 0.02, 1000 + second * 10));
        }
        let report = watch.report();
        assert!((report.cpu_s_per_minute - 1.2).abs() < 1e-6);
        assert!((report.cpu_percent_of_core - 2.0).abs() < 1e-6);
        assert!((report.rss_trend_bytes_per_minute - 600.0).abs() < 1e-6);
        assert_eq!((report.rss_growth_bytes, report.rss_max_bytes), (600, 1600));
    }

    #[test]
    fn a_day_of_samples_is_bounded() {
        let mut watch = Watch::from_first(1, false, Usage::default());
        for second in 1..86_400u64 {
            watch.add(second as f64, Usage { rss_bytes: second, ..Usage::default() });
        }
        let report = watch.report();
        assert!(report.rss_series.len() < SERIES_MAX);
        assert!((report.rss_trend_bytes_per_minute - 60.0).abs() < 0.1);
    }
}
