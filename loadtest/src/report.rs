//! The report of a run, or of several that were merged: JSON for machines, a table for people, a page (`html`).
//!
//! Invariant: every figure is worked out from what was recorded, which the JSON carries too.

pub(crate) mod html;
mod plot;
mod series;

use crate::dial::Protocol;
use crate::merge::Recorded;
use crate::procstat::UsageReport;
use crate::tally::{Leaving, SpreadFigures, Tally};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// The report. Names are part of the outside: scripts read them.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// No more errors than allowed, and everything could be measured.
    pub(crate) passed: bool,
    /// Why not.
    pub(crate) failures: Vec<String>,
    pub(crate) urls: Vec<String>,
    pub(crate) viewers: u32,
    pub(crate) ramp_seconds: f64,
    pub(crate) seconds: f64,
    pub(crate) requests: u64,
    pub(crate) requests_per_s: f64,
    pub(crate) bytes_per_s: f64,
    pub(crate) playlists: u64,
    pub(crate) parts: u64,
    pub(crate) segments: u64,
    pub(crate) inits: u64,
    /// Parts (or segments, without parts) per viewer and second, over all its renditions.
    pub(crate) parts_per_viewer_s: f64,
    /// What that must be for viewers to keep up: renditions per viewer / mean duration of the parts got.
    pub(crate) expected_parts_per_viewer_s: f64,
    /// Seconds of media got per second and rendition; below 1: not keeping up.
    pub(crate) realtime_factor: f64,
    /// Last byte at the viewer minus `at` of CMSD-Static, of parts learnt from a reload.
    pub(crate) part_delay_ms: Option<SpreadFigures>,
    /// Blocking reloads, request to last byte.
    pub(crate) playlist_hold_ms: Option<SpreadFigures>,
    /// Parts and segments, request to response header.
    pub(crate) media_first_byte_ms: Option<SpreadFigures>,
    /// First request to the end of the first media part, whole run.
    pub(crate) startup_ms: Option<SpreadFigures>,
    /// By kind, whole run.
    pub(crate) errors: BTreeMap<String, u64>,
    pub(crate) errors_total: u64,
    /// Playback sessions, and of them those that got media, whole run.
    pub(crate) sessions: u64,
    pub(crate) viewers_started: u64,
    /// How sessions ended, whole run.
    pub(crate) left: BTreeMap<Leaving, u64>,
    /// Buffers that ran empty, how long they were (ended stalls), and their share of all time of playing.
    pub(crate) stalls: u64,
    pub(crate) stalled_s: f64,
    pub(crate) rebuffer_ratio: f64,
    /// Last byte at the viewer minus the part's end in PROGRAM-DATE-TIME.
    pub(crate) part_age_ms: Option<SpreadFigures>,
    /// The playhead behind the wall clock in PROGRAM-DATE-TIME.
    pub(crate) live_latency_ms: Option<SpreadFigures>,
    /// Parts asked for before they existed, and delta updates.
    pub(crate) hinted: u64,
    pub(crate) deltas: u64,
    /// Why the tester and not the server was the limit; empty if it was not.
    pub(crate) tester_limited: Vec<String>,
    pub(crate) loop_lag_ms: Option<SpreadFigures>,
    pub(crate) busiest_thread_percent: f64,
    pub(crate) truth_lost: u64,
    /// Viewers whose broadcast ended.
    pub(crate) viewers_ended: u64,
    /// Bodies compared with what another viewer got under the same URI.
    pub(crate) bodies_compared: u64,
    /// Parts without `at`: their delay is unknown.
    pub(crate) parts_undated: u64,
    /// Parts with `at` in the future: the clocks differ, the delays mean nothing.
    pub(crate) parts_from_the_future: u64,
    /// CPU of the load tester.
    pub(crate) own_cpu_s: f64,
    pub(crate) own_cpu_us_per_request: f64,
    /// What the figures were made of.
    #[serde(flatten)]
    pub(crate) recorded: Recorded,
}

/// Why the run does not count as good.
fn failures(recorded: &Recorded, whole: &Tally) -> Vec<String> {
    let mut failures = Vec::new();
    if whole.viewers_started == 0 {
        failures.push("no viewer got any media".to_owned());
    }
    let lost = recorded.results.tester.truth_lost;
    if lost > 0 {
        failures.push(format!("the ground-truth log is not complete: {lost} sessions are missing"));
    }
    if whole.errors_total() > recorded.max_errors {
        let allowed = recorded.max_errors;
        failures.push(format!("{} errors, {allowed} allowed", whole.errors_total()));
    }
    failures
}

fn ratio(a: f64, b: f64) -> f64 {
    if b > 0.0 { a / b } else { 0.0 }
}

impl Report {
    pub(crate) fn new(mut recorded: Recorded) -> Self {
        let requests = recorded.results.tally.requests as f64;
        for server in &mut recorded.servers {
            server.cpu_us_per_request = Some(ratio(server.cpu_s * 1e6, requests));
        }
        let measured = &recorded.results;
        let whole = measured.whole();
        let failures = failures(&recorded, &whole);
        let tally = &measured.tally;
        let seconds = measured.seconds;
        let units = (tally.parts + tally.segments) as f64;
        let viewers = f64::from(measured.viewers.max(1));
        let media_s = tally.media_us as f64 / 1e6;
        let startup = whole.startup.figures();
        Self {
            passed: failures.is_empty(),
            failures,
            urls: recorded.urls(),
            viewers: measured.viewers,
            ramp_seconds: measured.ramp_seconds,
            seconds,
            requests: tally.requests,
            requests_per_s: ratio(requests, seconds),
            bytes_per_s: ratio(tally.bytes as f64, seconds),
            playlists: tally.playlists,
            parts: tally.parts,
            segments: tally.segments,
            inits: tally.inits,
            parts_per_viewer_s: ratio(units, viewers * seconds),
            expected_parts_per_viewer_s: ratio(measured.renditions as f64 / viewers, ratio(media_s, units)),
            realtime_factor: ratio(media_s, seconds * measured.renditions as f64),
            part_delay_ms: tally.part_delay.figures(),
            playlist_hold_ms: tally.hold.figures(),
            media_first_byte_ms: tally.first_byte.figures(),
            startup_ms: startup,
            errors_total: whole.errors_total(),
            errors: whole.errors.iter().map(|(kind, count)| (kind.to_string(), *count)).collect(),
            viewers_started: whole.viewers_started,
            sessions: whole.sessions,
            left: whole.left.clone(),
            stalls: tally.stalls,
            stalled_s: tally.stalled_us as f64 / 1e6,
            rebuffer_ratio: ratio(tally.stalled_us as f64, (tally.stalled_us + tally.played_us) as f64),
            part_age_ms: tally.part_age.figures(),
            live_latency_ms: tally.live_latency.figures(),
            hinted: tally.hinted,
            deltas: tally.deltas,
            tester_limited: measured.tester.limited.clone(),
            loop_lag_ms: measured.tester.loop_lag.figures(),
            busiest_thread_percent: measured.tester.busiest_percent,
            truth_lost: measured.tester.truth_lost,
            viewers_ended: whole.ended,
            bodies_compared: measured.compared,
            parts_undated: whole.undated,
            parts_from_the_future: whole.future,
            own_cpu_s: measured.tester.own_cpu_s,
            own_cpu_us_per_request: ratio(measured.tester.own_cpu_s * 1e6, requests),
            recorded,
        }
    }
}

impl Report {
    /// The protocols that viewers spoke.
    pub(crate) fn protocols(&self) -> String {
        let mut spoken: Vec<Protocol> =
            self.recorded.results.slices.iter().map(|slice| slice.key.protocol).collect();
        spoken.sort();
        spoken.dedup();
        if spoken.is_empty() {
            spoken.push(self.recorded.protocol);
        }
        let names: Vec<&str> = spoken
            .into_iter()
            .map(|protocol| match protocol {
                Protocol::H1 => "HTTP/1.1",
                Protocol::H2 => "HTTP/2",
                Protocol::H3 => "HTTP/3",
            })
            .collect();
        names.join(" and ")
    }
}

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
        writeln!(
            f,
            "{} viewers ({} started, {} ended), {}, {:.1} s measured after {:.1} s of ramp",
            self.viewers,
            self.viewers_started,
            self.viewers_ended,
            self.protocols(),
            self.seconds,
            self.ramp_seconds
        )?;
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
        for reason in &self.tester_limited {
            writeln!(f, "TESTER LIMITED     {reason}")?;
        }
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
        Ok(())
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
