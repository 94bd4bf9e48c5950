//! SK: playlist delta updates.
#![deny(clippy::disallowed_methods)]

use crate::check::catalog::Rule;
use crate::check::date::date_time;
use crate::check::delta;
use crate::check::exchange::Exchange;
use crate::check::ledger::{Evidence, Ledger};
use crate::check::media::Media;
use crate::check::record::View;
use std::time::Duration;

const ALL: [Rule; 6] = [Rule::Sk01, Rule::Sk02, Rule::Sk03, Rule::Sk04, Rule::Sk05, Rule::Sk06];

/// The full playlist and its delta update for the same (msn, part), asked for at once. `before`: an earlier full one.
pub(crate) fn probe(kind: &str, before: &View, exchanges: &[Exchange], ledger: &mut Ledger) {
    let [full, delta] = exchanges else { return };
    let request = delta.ask.to_string();
    let (Some(full_answer), Some(answer)) = (full.ok(), delta.ok()) else {
        let said = format!("{} ({}: {})", delta.said(), full.ask, full.said());
        return ledger.fail(Rule::Sk01, Evidence::of(request, said));
    };
    let (full, delta) = (Media::read(&full_answer.body), Media::read(&answer.body));
    let Some(until) = full.control_seconds("CAN-SKIP-UNTIL").filter(|_| !full.ended) else {
        ledger.judge(Rule::Sk01, delta.skipped.is_none(), || {
            Evidence::of(request, "EXT-X-SKIP, though it is not offered")
        });
        for rule in &ALL[1..] {
            ledger.skip(*rule, "no playlist offers delta updates (CAN-SKIP-UNTIL)");
        }
        return;
    };
    let skippable = skippable(&full, until);
    if skippable == 0 && delta.skipped.is_none() {
        return ledger.skip(Rule::Sk01, "no playlist is longer than CAN-SKIP-UNTIL yet");
    }
    let Some(skipped) = delta.skipped else {
        return ledger.fail(
            Rule::Sk01,
            Evidence::of(request, format!("no EXT-X-SKIP, {skippable} segments could be skipped")),
        );
    };
    ledger.pass(Rule::Sk01);
    let tag = delta.sheet.tag("EXT-X-SKIP");
    let at = |said: String| {
        let line = tag.map_or(1, |tag| tag.line);
        Evidence::of(request.clone(), said).line(line, delta.sheet.text(line))
    };
    ledger.judge(Rule::Sk02, skipped <= skippable && skipped > 0, || {
        at(format!("{skippable} segments are farther than CAN-SKIP-UNTIL from the end"))
    });
    let numbers = |m: &Media| (m.media_sequence, m.discontinuity_sequence);
    ledger.judge(Rule::Sk03, numbers(&full) == numbers(&delta), || {
        at(format!("the full playlist has {:?}", numbers(&full)))
    });
    match delta::merge(&before.media, &delta) {
        None => ledger.fail(Rule::Sk02, at("it does not join the playlist of a moment ago".to_owned())),
        Some(merged) => {
            let wanted = delta::normal(&full);
            let differs = merged.iter().zip(&wanted).find(|(a, b)| a != b);
            ledger.judge(Rule::Sk02, merged == wanted, || match differs {
                Some((merged, wanted)) => at(format!("merged: \"{merged}\"; full: \"{wanted}\"")),
                None => {
                    at(format!("{} facts when merged, {} in the full playlist", merged.len(), wanted.len()))
                }
            });
        }
    }
    let needed =
        if kind == "v2" && tag.is_some_and(|tag| tag.list.get("RECENTLY-REMOVED-DATERANGES").is_some()) {
            10
        } else {
            9
        };
    ledger.judge(Rule::Sk06, delta.version.is_some_and(|v| v >= needed), || {
        at(format!("version {:?}", delta.version))
    });
    restated(&full, &delta, &at, ledger);
    if kind == "v2" && full.control.as_ref().is_some_and(|control| control.yes("CAN-SKIP-DATERANGES")) {
        v2((&full, &delta), until, &at, ledger);
    } else {
        ledger.skip(Rule::Sk04, "no playlist offers to skip date ranges (CAN-SKIP-DATERANGES)");
    }
}

/// Segments farther from the end of the last segment (or open parent) than the boundary.
fn skippable(full: &Media, until: Duration) -> u64 {
    let length = full.length();
    let mut position = Duration::ZERO;
    let mut count = 0;
    for segment in full.segments.iter().filter(|segment| segment.uri.is_some()) {
        position += segment.duration;
        if length.saturating_sub(position) >= until {
            count += 1;
        }
    }
    count
}

fn restated(full: &Media, delta: &Media, at: &dyn Fn(String) -> Evidence, ledger: &mut Ledger) {
    let Some(first) = delta.segments.first() else { return };
    let Some(was) = full.segments.iter().find(|segment| segment.msn == first.msn) else { return };
    ledger.judge(Rule::Sk05, first.map == was.map && first.key == was.key, || {
        at(format!("MAP of the first segment is {:?}, {:?} in the full playlist", first.map, was.map))
    });
    let dated = full
        .segments
        .iter()
        .take_while(|segment| segment.msn <= first.msn)
        .any(|segment| segment.pdt.is_some());
    ledger.judge(Rule::Sk05, !dated || first.pdt.is_some(), || at("no PDT at the first segment".to_owned()));
}

fn v2(
    (full, delta): (&Media, &Media),
    until: Duration,
    at: &dyn Fn(String) -> Evidence,
    ledger: &mut Ledger,
) {
    let removed = delta.sheet.tag("EXT-X-SKIP").and_then(|tag| tag.list.get("RECENTLY-REMOVED-DATERANGES"));
    ledger.judge(Rule::Sk04, removed.is_some(), || at("no RECENTLY-REMOVED-DATERANGES".to_owned()));
    if let Some(removed) = removed {
        let tabs = !removed.contains([',', ' ', ';']);
        ledger.judge(Rule::Sk04, tabs, || at("the IDs are not separated by tabs".to_owned()));
    }
    let last = full.segments.last();
    let full_view_end = last.and_then(|last| {
        let mut from = None;
        for segment in &full.segments {
            from = segment.pdt.map(|pdt| (segment.msn, pdt.unix_us)).or(from);
        }
        let (msn, unix_us) = from?;
        let since: Duration = full
            .segments
            .iter()
            .filter(|s| s.msn >= msn && s.msn <= last.msn)
            .map(crate::check::media::Segment::listed)
            .sum();
        Some(unix_us + i64::try_from(since.as_micros()).ok()?)
    });
    let Some(end) = full_view_end else { return };
    let boundary = end - i64::try_from(until.as_micros()).unwrap_or(i64::MAX);
    for tag in delta.tagged("EXT-X-DATERANGE") {
        let start = tag.list.get("START-DATE").and_then(date_time);
        let finish = tag.list.get("END-DATE").and_then(date_time).or(start);
        if let Some(finish) = finish {
            ledger.judge(Rule::Sk04, finish.unix_us >= boundary, || {
                at(format!("date range {:?} is older than CAN-SKIP-UNTIL", tag.list.get("ID")))
            });
        }
    }
}
