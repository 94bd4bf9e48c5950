//! The report of a run, or of several that were merged: JSON for machines, a table for people, a page (`html`).
//!
//! Invariant: every figure is worked out from what was recorded, which the JSON carries too.

pub(crate) mod html;
mod plot;
mod series;
mod table;

use crate::dial::Protocol;
use crate::merge::Recorded;
use crate::results::Results;
use crate::tally::{Leaving, SpreadFigures, Tally};
use serde::Serialize;
use std::collections::BTreeMap;

pub(crate) use table::Cell;

/// The report. Names are part of the outside: scripts read them.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) verdict: Verdict,
    /// Nothing failed: no more errors than allowed, everything was recorded, and what was to be verified was and is so.
    pub(crate) passed: bool,
    /// Why not.
    pub(crate) failures: Vec<String>,
    /// It ended before its time because somebody wanted it to.
    pub(crate) interrupted: bool,
    pub(crate) urls: Vec<String>,
    /// Playback sessions that the scenario has.
    pub(crate) viewers: u32,
    /// Most of them at the end of a second, whole run; and on average of the measured time.
    pub(crate) peak_viewers: u64,
    pub(crate) mean_viewers: f64,
    /// Time that viewers were present and awake, from their first media on.
    pub(crate) viewer_seconds: f64,
    pub(crate) ramp_seconds: f64,
    pub(crate) seconds: f64,
    pub(crate) requests: u64,
    pub(crate) requests_per_s: f64,
    pub(crate) bytes_per_s: f64,
    pub(crate) playlists: u64,
    pub(crate) parts: u64,
    pub(crate) segments: u64,
    pub(crate) inits: u64,
    /// Parts (or segments, without parts) per second of a viewer's presence, over all its renditions.
    pub(crate) parts_per_viewer_s: f64,
    /// What that must be for viewers to keep up: renditions per viewer / mean duration of the parts got.
    pub(crate) expected_parts_per_viewer_s: f64,
    /// Seconds of media got per second of a viewer's presence and rendition. Below 1: not keeping up. Above: sessions
    /// that begin (or seek) get what is before the live edge too, which shows where they are short.
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
    /// Playback sessions begun, and of them those that got media, whole run.
    pub(crate) sessions: u64,
    pub(crate) viewers_started: u64,
    /// How sessions ended, whole run: all of them, and by what ended them.
    pub(crate) left: BTreeMap<Leaving, u64>,
    pub(crate) left_by_themselves: u64,
    pub(crate) broadcast_ended: u64,
    pub(crate) run_ended: u64,
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
    /// Requests made again because the server had said that it would not answer them on this connection.
    pub(crate) retried: u64,
    /// Why the tester and not the server was the limit; empty if it was not.
    pub(crate) tester_limited: Vec<String>,
    pub(crate) loop_lag_ms: Option<SpreadFigures>,
    pub(crate) busiest_thread_percent: f64,
    pub(crate) truth_lost: u64,
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

/// What the run says of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    Passed,
    Failed,
    /// Nothing failed, but the run was interrupted, or the tester was the limit and its figures are not the server's.
    Inconclusive,
}

impl Verdict {
    fn of(failures: &[String], measured: &Results) -> Self {
        match (failures, measured.tester.limited.as_slice()) {
            ([], []) if !measured.interrupted => Self::Passed,
            ([], _) => Self::Inconclusive,
            _ => Self::Failed,
        }
    }
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
    let broken = recorded.results.tester.broken;
    if broken > 0 {
        failures
            .push(format!("the tester is broken: {broken} of its viewers or threads panicked, see the log"));
    }
    if whole.errors_total() > recorded.max_errors {
        let allowed = recorded.max_errors;
        failures.push(format!("{} errors, {allowed} allowed", whole.errors_total()));
    }
    for verification in recorded.verification.iter().filter(|verification| !verification.passed) {
        let channel = &verification.channel;
        failures.push(format!("channel {channel}: the origin's statistics are not what its viewers know"));
    }
    failures.extend(recorded.unverified.iter().map(|reason| format!("not verified: {reason}")));
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
        let seconds_of = |us: u64| us as f64 / 1e6;
        let (viewer_s, rendition_s) = (seconds_of(tally.viewer_us), seconds_of(tally.rendition_us));
        let media_s = seconds_of(tally.media_us);
        let at_the_end = whole.left.get(&Leaving::End).copied().unwrap_or_default();
        let startup = whole.startup.figures();
        Self {
            verdict: Verdict::of(&failures, measured),
            interrupted: measured.interrupted,
            passed: failures.is_empty(),
            failures,
            urls: recorded.urls(),
            viewers: measured.viewers,
            peak_viewers: measured.peak_viewers(),
            mean_viewers: ratio(viewer_s, seconds),
            viewer_seconds: viewer_s,
            ramp_seconds: measured.ramp_seconds,
            seconds,
            requests: tally.requests,
            requests_per_s: ratio(requests, seconds),
            bytes_per_s: ratio(tally.bytes as f64, seconds),
            playlists: tally.playlists,
            parts: tally.parts,
            segments: tally.segments,
            inits: tally.inits,
            parts_per_viewer_s: ratio(units, viewer_s),
            expected_parts_per_viewer_s: ratio(ratio(rendition_s, viewer_s), ratio(media_s, units)),
            realtime_factor: ratio(media_s, rendition_s),
            part_delay_ms: tally.part_delay.figures(),
            playlist_hold_ms: tally.hold.figures(),
            media_first_byte_ms: tally.first_byte.figures(),
            startup_ms: startup,
            errors_total: whole.errors_total(),
            errors: whole.errors.iter().map(|(kind, count)| (kind.to_string(), *count)).collect(),
            viewers_started: whole.viewers_started,
            sessions: whole.sessions,
            left_by_themselves: whole.left.values().sum::<u64>() - at_the_end,
            broadcast_ended: whole.ended,
            run_ended: at_the_end.saturating_sub(whole.ended),
            left: whole.left.clone(),
            stalls: tally.stalls,
            stalled_s: tally.stalled_us as f64 / 1e6,
            rebuffer_ratio: ratio(tally.stalled_us as f64, (tally.stalled_us + tally.played_us) as f64),
            part_age_ms: tally.part_age.figures(),
            live_latency_ms: tally.live_latency.figures(),
            hinted: tally.hinted,
            deltas: tally.deltas,
            retried: whole.retried,
            tester_limited: measured.tester.limited.clone(),
            loop_lag_ms: measured.tester.loop_lag.figures(),
            busiest_thread_percent: measured.tester.busiest_percent,
            truth_lost: measured.tester.truth_lost,
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
    /// What the verdict suffers from, beside failures.
    pub(crate) fn doubts(&self) -> Vec<String> {
        let interrupted = self.interrupted.then(|| "the run was interrupted".to_owned());
        let limited = self.tester_limited.iter().map(|why| format!("the tester was the limit: {why}"));
        interrupted.into_iter().chain(limited).collect()
    }

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
