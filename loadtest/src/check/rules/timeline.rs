//! What segments of one number have in common in all renditions: where they start, their dates, and their bit rates.
//!
//! Invariant: bounded memory: the newest numbers only.
#![deny(clippy::disallowed_methods)]

use crate::check::catalog::Rule;
use crate::check::fragment::{Fragment, Run, Sample};
use crate::check::init::{Init, Media, Track};
use crate::check::ledger::{Evidence, Ledger};
use crate::check::record::Case;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// Segments compared across renditions.
const COMPARED_MAX: usize = 64;
/// One segment's place on the timeline.
#[derive(Debug, Clone)]
struct Place {
    rendition: usize,
    name: String,
    audio: bool,
    request: String,
    start_us: i64,
    frame_us: i64,
    date_us: Option<i64>,
    dsn: u64,
}

/// What is compared across renditions.
#[derive(Debug, Default)]
pub(crate) struct Grid(BTreeMap<u64, Vec<Place>>);

/// Ticks as microseconds.
pub(crate) fn micros(ticks: i64, timescale: u32) -> i64 {
    let exact = i128::from(ticks) * 1_000_000 / i128::from(timescale.max(1));
    i64::try_from(exact).unwrap_or(i64::MAX)
}

fn earliest(run: &Run, track: &Track) -> Option<i64> {
    let at = |s: &Sample| i64::try_from(s.dts).unwrap_or(i64::MAX).saturating_add(s.composition);
    run.samples.iter().map(at).min().map(|ticks| micros(ticks - track.edit, track.timescale))
}

impl Grid {
    /// Enters a segment and compares it with those of the same number.
    pub(crate) fn place(
        &mut self,
        (fragment, init): (&Fragment, &Init),
        case: &Case,
        name: &str,
        ledger: &mut Ledger,
    ) {
        let leading = fragment.run(init, Media::Video).or_else(|| fragment.run(init, Media::Audio));
        let Some((run, track)) = leading else { return };
        let Some(start_us) = earliest(run, &track) else { return };
        let frame = run.samples.first().map_or(0, |sample| i64::from(sample.duration));
        let place = Place {
            rendition: case.rendition,
            name: name.to_owned(),
            audio: track.media == Media::Audio,
            request: case.request.clone(),
            start_us,
            frame_us: micros(frame, track.timescale),
            date_us: case.date_us,
            dsn: case.listing.dsn,
        };
        let row = self.0.entry(case.listing.msn).or_default();
        for other in row.iter().filter(|other| other.rendition != place.rendition) {
            compare(&place, other, ledger);
        }
        row.push(place);
        while self.0.len() > COMPARED_MAX {
            self.0.pop_first();
        }
    }
}

fn compare(place: &Place, other: &Place, ledger: &mut Ledger) {
    let evidence = |said: String| Evidence::of(place.request.clone(), said);
    ledger.judge(Rule::Mv07, place.dsn == other.dsn, || {
        evidence(format!("discontinuity sequence {}, {} in {}", place.dsn, other.dsn, other.name))
    });
    let apart = (place.start_us - other.start_us).abs();
    let said = || evidence(format!("it starts {apart} us from that of {}", other.name));
    if place.audio == other.audio {
        ledger.judge(Rule::Mv07Apple, apart <= 1000, said);
    } else {
        let frame = if place.audio { place.frame_us } else { other.frame_us };
        ledger.judge(Rule::Mp12, apart < frame, said);
        ledger.judge(Rule::Mv07Apple, apart <= place.frame_us.max(other.frame_us), said);
    }
    if let (Some(here), Some(there)) = (place.date_us, other.date_us) {
        // Dates are stated in whole milliseconds, each rounded on its own.
        let skew = (here - place.start_us) - (there - other.start_us);
        ledger.judge(Rule::Pdt02, skew.abs() <= 2000, || {
            evidence(format!("its date maps to media time {skew} us off that of {}", other.name))
        });
    }
}

/// Peak and average bit rate of a rendition: the peak over contiguous segments of 0.5 to 1.5 target durations.
pub(crate) fn rates(sizes: &VecDeque<(u64, u64)>, target: Duration) -> Option<(f64, f64)> {
    let target_us = target.as_micros() as f64;
    let rate = |(us, bytes): (u64, u64)| bytes as f64 * 8e6 / us as f64;
    let mut peak: Option<f64> = None;
    let mut total = (0u64, 0u64);
    for start in 0..sizes.len() {
        let mut sum = (0u64, 0u64);
        for (us, bytes) in sizes.iter().skip(start) {
            sum = (sum.0 + us, sum.1 + bytes);
            let length = sum.0 as f64;
            if length > target_us * 1.5 + 500_000.0 {
                break;
            }
            if length >= target_us * 0.5 {
                peak = Some(peak.unwrap_or(0.0).max(rate(sum)));
            }
        }
        total = (total.0 + sizes[start].0, total.1 + sizes[start].1);
    }
    Some((peak?, rate(total)))
}
