//! PDT: program dates within one playlist. Against media time they are judged with the media (`media`).
#![deny(clippy::disallowed_methods)]

use crate::check::catalog::Rule;
use crate::check::ledger::Ledger;
use crate::check::record::View;
use std::time::Duration;

/// A drift correction below this is allowed.
const STEP: i64 = 1_000_000;

/// One media playlist.
pub(crate) fn check(view: &View, ledger: &mut Ledger) {
    let media = &view.media;
    if media.ended || media.segments.is_empty() {
        return;
    }
    let dated = media.segments.iter().any(|segment| segment.pdt.is_some());
    ledger.judge(Rule::Pdt01, dated, || view.whole("no EXT-X-PROGRAM-DATE-TIME"));
    let mut expected: Option<i64> = None;
    for segment in &media.segments {
        if segment.discontinuity {
            ledger.judge(Rule::Pdt01Should, segment.pdt.is_some(), || {
                view.at(segment.line, "a discontinuity without one")
            });
        }
        if let (Some(pdt), Some(expected)) = (segment.pdt, expected) {
            let step = pdt.unix_us - expected;
            // Across a discontinuity time may be left out, but not be there twice.
            let fine = step > -STEP && (step < STEP || segment.discontinuity);
            ledger.judge(Rule::Pdt03, fine, || {
                view.at(segment.line, format!("{step} us from where durations lead"))
            });
        }
        let length = i64::try_from(segment.listed().as_micros()).unwrap_or(i64::MAX);
        expected = segment.pdt.map(|pdt| pdt.unix_us).or(expected).map(|at| at.saturating_add(length));
    }
    ledger.skip(Rule::Pdt01Should, "no discontinuity was seen");
    ledger.skip(Rule::Pdt03, "no playlist with two dates was seen");
}

/// The date of a segment, by the newest date at or before it and the durations since; Unix microseconds.
pub(crate) fn date_of(view: &View, msn: u64) -> Option<i64> {
    let mut at: Option<i64> = None;
    let mut since = Duration::ZERO;
    for segment in &view.media.segments {
        if let Some(pdt) = segment.pdt {
            at = Some(pdt.unix_us);
            since = Duration::ZERO;
        } else if segment.discontinuity {
            at = None;
        }
        if segment.msn == msn {
            return at.map(|at| at + i64::try_from(since.as_micros()).unwrap_or(0));
        }
        since += segment.listed();
    }
    None
}
