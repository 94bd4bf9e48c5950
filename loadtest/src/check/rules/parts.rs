//! PT, PH: parts and hints, as one playlist lists them. What needs time or bytes is in `evolution` and `media`.
#![deny(clippy::disallowed_methods)]

use crate::check::catalog::Rule;
use crate::check::ledger::{Evidence, Ledger};
use crate::check::media::{Part, Segment};
use crate::check::record::{Object, View, Why};
use std::time::Duration;

/// Longest time to the first byte of what is there: a loaded machine, not a wait for the next part.
pub(crate) const AT_ONCE: Duration = Duration::from_millis(500);

/// One media playlist.
pub(crate) fn check(view: &View, ledger: &mut Ledger) {
    let media = &view.media;
    let listed: usize = media.segments.iter().map(|segment| segment.parts.len()).sum();
    hints(view, listed > 0, ledger);
    if !media.sheet.flaws.iter().any(|flaw| flaw.rule == Rule::Pt07) && listed > 0 {
        ledger.pass(Rule::Pt07);
    }
    if media.i_frames_only {
        return ledger.judge(Rule::Pt08, listed == 0, || view.whole("an I-frame playlist with parts"));
    }
    ledger.skip(Rule::Pt08, "no I-frame playlist was seen");
    if media.part_target.is_some() && !media.ended {
        ledger.judge(Rule::Pt15, listed > 0, || view.whole("EXT-X-PART-INF and not one EXT-X-PART"));
    }
    if listed == 0 {
        for rule in [
            Rule::Pt01,
            Rule::Pt02,
            Rule::Pt03,
            Rule::Pt04,
            Rule::Pt07,
            Rule::Pt09,
            Rule::Pt14,
            Rule::Pt15,
            Rule::Pt16,
        ] {
            ledger.skip(rule, "no playlist with parts was seen");
        }
        return;
    }
    let line = media.segments.iter().find_map(|s| s.parts.first()).map_or(1, |part| part.line);
    ledger.judge(Rule::Pt01, media.part_target.is_some(), || {
        view.at(line, "no EXT-X-PART-INF with PART-TARGET")
    });
    let mut from_end = Duration::ZERO;
    for segment in media.segments.iter().rev() {
        of_segment(view, segment, ledger);
        if let Some(part) = segment.parts.first() {
            ledger.judge(Rule::Pt09, from_end <= media.target_duration * 3, || {
                view.at(part.line, format!("its parent ends {from_end:?} before the end of the playlist"))
            });
        }
        from_end += segment.listed();
    }
}

fn of_segment(view: &View, segment: &Segment, ledger: &mut Ledger) {
    for (index, part) in segment.parts.iter().enumerate() {
        ledger.judge(Rule::Pt02, !part.uri.is_empty() && part.duration.is_some(), || {
            view.at(part.line, "URI or DURATION is missing")
        });
        ledger.judge(Rule::Pt16, part.range.is_none(), || view.at(part.line, "BYTERANGE"));
        let (Some(duration), Some(target)) = (part.duration, view.media.part_target) else { continue };
        ledger
            .judge(Rule::Pt03, duration <= target, || view.at(part.line, format!("longer than {target:?}")));
        let next: Option<&Part> = segment.parts.get(index + 1);
        // The last part listed of an open parent may turn out to be the last of it.
        let free = part.independent || part.gap || next.is_none_or(|next| next.gap);
        if !free {
            ledger.judge(Rule::Pt04, duration * 100 >= target * 85, || {
                view.at(part.line, format!("shorter than 85 % of {target:?}"))
            });
        }
    }
    if segment.uri.is_some() && !segment.parts.is_empty() {
        let sum = segment.listed_parts();
        let slack = Duration::from_micros(31 + 10 * segment.parts.len() as u64);
        ledger.judge(Rule::Pt14, sum.abs_diff(segment.duration) <= slack, || {
            view.at(segment.line, format!("its parts are {sum:?} together, EXTINF is {:?}", segment.duration))
        });
    }
}

fn hints(view: &View, has_parts: bool, ledger: &mut Ledger) {
    let media = &view.media;
    let hints: Vec<_> = media.tagged("EXT-X-PRELOAD-HINT").collect();
    if media.ended {
        return ledger
            .judge(Rule::Ph02, hints.is_empty(), || view.at(hints[0].line, "the playlist has ended"));
    }
    ledger.skip(Rule::Ph02, "no playlist with EXT-X-ENDLIST was seen");
    if has_parts {
        let uri = media.hint("PART").and_then(|hint| hint.list.get("URI")).unwrap_or_default();
        ledger.judge(Rule::Ph01, !uri.is_empty(), || {
            view.whole("no EXT-X-PRELOAD-HINT of TYPE=PART with a URI")
        });
    } else {
        ledger.skip(Rule::Ph01, "no playlist with parts was seen");
    }
    if hints.is_empty() {
        return ledger.skip(Rule::Ph03, "no hint was seen");
    }
    for kind in ["PART", "MAP"] {
        let mut of_kind = hints.iter().filter(|hint| hint.list.get("TYPE") == Some(kind)).skip(1);
        let second = of_kind.next();
        ledger.judge(Rule::Ph03, second.is_none(), || {
            view.at(second.map_or(1, |hint| hint.line), "a second hint")
        });
    }
    for hint in hints {
        let offset = hint.list.get("BYTERANGE-OFFSET");
        ledger.judge(Rule::Ph07, offset.is_none(), || view.at(hint.line, "BYTERANGE-OFFSET is no attribute"));
    }
}

/// A part or segment that was got.
pub(crate) fn object(object: &Object, ledger: &mut Ledger) {
    let request = || object.exchange.ask.to_string();
    let Some(answer) = object.exchange.ok() else {
        let rules: &[Rule] = match object.why {
            Why::Listed => &[Rule::Pt12, Rule::Br16],
            Why::Hinted => &[Rule::Ph05],
            Why::Removed => &[],
        };
        for rule in rules {
            ledger.fail(*rule, Evidence::of(request(), object.exchange.said()));
        }
        return;
    };
    let spread = answer.end.saturating_sub(answer.first_byte);
    // At less than twice the bit rate of the media, the body came as it was made.
    let trickles =
        !object.duration.is_zero() && spread * 2 > object.duration && spread > Duration::from_millis(50);
    let slow =
        || Evidence::of(request(), format!("its body took {spread:?}, {:?} of media", object.duration));
    match object.why {
        Why::Listed => {
            ledger.pass(Rule::Br16);
            let waited = answer.first_byte.saturating_sub(object.exchange.sent);
            ledger.judge(Rule::Pt12, waited <= AT_ONCE, || {
                Evidence::of(request(), format!("the first byte took {waited:?}"))
            });
            ledger.judge(Rule::Pt12, !trickles, slow);
        }
        Why::Hinted => ledger.judge(Rule::Ph05, !trickles, slow),
        Why::Removed => {}
    }
}
