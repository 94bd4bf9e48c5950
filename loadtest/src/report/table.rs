//! The report as a table for people.

use super::{Report, Verdict};
use crate::procstat::UsageReport;
use crate::tally::{Leaving, SpreadFigures};
use std::fmt;

/// A spread as one cell.
pub(crate) struct Cell<'a>(pub(crate) &'a Option<SpreadFigures>);

impl fmt::Display for Cell<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("-"),
            Some(s) => write!(
                f,
                "p50 {:.1}  p95 {:.1}  p99 {:.1}  max {:.1}  (n {})",
                s.p50, s.p95, s.p99, s.max, s.count
            ),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.sessions(f)?;
        self.leaving(f)?;
        writeln!(
            f,
            "requests           {:.0}/s, {:.2} MB/s ({} playlists, {} parts, {} segments)",
            self.requests_per_s,
            self.bytes_per_s / 1e6,
            self.playlists,
            self.parts,
            self.segments
        )?;
        writeln!(
            f,
            "parts per viewer   {:.3}/s, expected {:.3}/s, real-time factor {:.3}",
            self.parts_per_viewer_s, self.expected_parts_per_viewer_s, self.realtime_factor
        )?;
        writeln!(f, "part delay ms      {}", Cell(&self.part_delay_ms))?;
        writeln!(f, "playlist hold ms   {}", Cell(&self.playlist_hold_ms))?;
        writeln!(f, "media 1st byte ms  {}", Cell(&self.media_first_byte_ms))?;
        writeln!(f, "startup ms         {}", Cell(&self.startup_ms))?;
        writeln!(f, "live latency ms    {}", Cell(&self.live_latency_ms))?;
        writeln!(
            f,
            "stalls             {} ({:.2} s, {:.4} % of playing)",
            self.stalls,
            self.stalled_s,
            self.rebuffer_ratio * 100.0
        )?;
        writeln!(f, "byte identity      {} bodies compared", self.bodies_compared)?;
        if self.parts_undated > 0 {
            writeln!(f, "parts without `at` {} (delay unknown)", self.parts_undated)?;
        }
        if self.parts_from_the_future > 0 {
            writeln!(f, "clocks differ      {} parts from the future", self.parts_from_the_future)?;
        }
        writeln!(
            f,
            "own CPU            {:.2} s, {:.1} us per request",
            self.own_cpu_s, self.own_cpu_us_per_request
        )?;
        for note in &self.recorded.notes {
            writeln!(f, "NOTE               {note}")?;
        }
        for server in &self.recorded.servers {
            server.fmt(f)?;
        }
        write!(f, "errors             {}", self.errors_total)?;
        for (kind, count) in &self.errors {
            write!(f, "  {kind} {count}")?;
        }
        if self.retried > 0 {
            write!(f, "  ({} requests refused unanswered and made again, no errors)", self.retried)?;
        }
        writeln!(f)?;
        self.judgement(f)?;
        let verification = &self.recorded.verification;
        verification.iter().try_for_each(|verification| write!(f, "\n\n{verification}"))
    }
}

impl Report {
    fn sessions(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} sessions begun, {} got media, at most {} viewers at once, {:.1} on average; {}",
            self.sessions,
            self.viewers_started,
            self.peak_viewers,
            self.mean_viewers,
            self.protocols()
        )?;
        writeln!(
            f,
            "measured           {:.1} s after {:.1} s of ramp, {:.1} viewer-seconds",
            self.seconds, self.ramp_seconds, self.viewer_seconds
        )
    }

    /// How sessions ended.
    fn leaving(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sessions ended     {} by themselves", self.left_by_themselves)?;
        let ways: Vec<String> = (self.left.iter())
            .filter(|(how, _)| **how != Leaving::End)
            .map(|(how, count)| format!("{} {count}", how.name()))
            .collect();
        if !ways.is_empty() {
            write!(f, " ({})", ways.join(", "))?;
        }
        writeln!(f, ", {} with their broadcast, {} with the run", self.broadcast_ended, self.run_ended)
    }

    fn judgement(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let doubts = self.doubts();
        match self.verdict {
            Verdict::Passed => write!(f, "verdict            passed"),
            Verdict::Inconclusive => write!(f, "verdict            inconclusive: {}", doubts.join("; ")),
            Verdict::Failed => {
                let why: Vec<&str> = self.failures.iter().chain(&doubts).map(String::as_str).collect();
                write!(f, "verdict            FAILED: {}", why.join("; "))
            }
        }
    }
}

impl fmt::Display for UsageReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mb = |bytes: u64| bytes as f64 / 1e6;
        write!(
            f,
            "process {:<10} {:.2} CPU s in {:.1} s = {:.2} CPU s/min ({:.1} % of a core)",
            self.pid, self.cpu_s, self.seconds, self.cpu_s_per_minute, self.cpu_percent_of_core
        )?;
        if let Some(us) = self.cpu_us_per_request {
            write!(f, ", {us:.1} us per request")?;
        }
        writeln!(
            f,
            ", RSS MB first {:.1} last {:.1} max {:.1} trend {:+.3}/min",
            mb(self.rss_first_bytes),
            mb(self.rss_last_bytes),
            mb(self.rss_max_bytes),
            self.rss_trend_bytes_per_minute / 1e6
        )
    }
}
