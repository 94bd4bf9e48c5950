//! RR: rendition reports.
#![deny(clippy::disallowed_methods)]

use crate::check::catalog::Rule;
use crate::check::ledger::Ledger;
use crate::check::record::{Rendition, Role, View};
use std::sync::Arc;

/// The reports of one playlist, and whether they are those of the other renditions.
pub(crate) fn check(view: &View, renditions: &[Rendition], ledger: &mut Ledger) {
    let media = &view.media;
    let own = &renditions[view.rendition];
    if own.role == Role::IFrames || media.ended {
        return;
    }
    let reports: Vec<_> = media.tagged("EXT-X-RENDITION-REPORT").collect();
    for report in &reports {
        let uri = report.list.get("URI").unwrap_or_default();
        let relative = !uri.is_empty() && !uri.contains("://") && !uri.starts_with('/');
        ledger.judge(Rule::Rr02, relative, || view.at(report.line, "the URI is missing or not relative"));
        ledger.judge(Rule::Rr02, report.list.integer("LAST-MSN").is_some(), || {
            view.at(report.line, "no LAST-MSN")
        });
        if media.part_target.is_some() {
            let part = report.list.integer("LAST-PART").is_some();
            ledger.judge(Rule::Rr02, part, || view.at(report.line, "no LAST-PART, though there are parts"));
            ledger.judge(Rule::Rr04, part, || view.at(report.line, "no LAST-PART"));
        }
        if renditions.len() > 1 {
            let target = own.address.join(uri).map(|address| address.to_string()).unwrap_or_default();
            let known =
                renditions.iter().any(|r| !target.is_empty() && r.address.to_string().starts_with(&target));
            ledger.judge(Rule::Rr04, known, || {
                view.at(report.line, format!("no playlist in use is at {target}"))
            });
        }
    }
    if media.part_target.is_none() {
        return ledger.skip(Rule::Rr01, "no playlist with parts was seen");
    }
    if renditions.len() < 2 {
        for rule in [Rule::Rr01, Rule::Rr02, Rule::Rr04] {
            ledger.skip(rule, "there is one media playlist");
        }
        return;
    }
    for (index, other) in renditions.iter().enumerate() {
        if other.role == Role::IFrames {
            continue;
        }
        let path = |s: &str| s.split('?').next().unwrap_or_default().to_owned();
        let hits = reports.iter().filter(|report| {
            let target = own.address.join(report.list.get("URI").unwrap_or_default());
            target.is_ok_and(|t| path(&t.to_string()) == path(&other.address.to_string()))
        });
        let (count, wanted) = (hits.count(), usize::from(index != view.rendition));
        ledger.judge(Rule::Rr01, count == wanted, || {
            view.whole(format!("{count} reports of {}, {wanted} wanted", other.name))
        });
    }
}

/// Reports against the playlists they report of, as those were before and after (RR-03).
pub(crate) fn check_together(
    [before, views, after]: [&[Arc<View>]; 3],
    renditions: &[Rendition],
    ledger: &mut Ledger,
) {
    ledger.skip(Rule::Rr03, "no report of another rendition was seen");
    for view in views {
        for report in view.media.tagged("EXT-X-RENDITION-REPORT") {
            let target = renditions[view.rendition].address.join(report.list.get("URI").unwrap_or_default());
            let of = |list: &[Arc<View>]| {
                let found = list
                    .iter()
                    .find(|v| target.as_ref().is_ok_and(|t| *t == renditions[v.rendition].address));
                found.map(Arc::clone)
            };
            let (Some(before), Some(after)) = (of(before), of(after)) else { continue };
            let Some(msn) = report.list.integer("LAST-MSN") else { continue };
            let part = report.list.integer("LAST-PART").and_then(|part| u32::try_from(part).ok());
            let fine = behind(&before, msn, part) <= 1 && !ahead(&after, msn, part);
            ledger.judge(Rule::Rr03, fine, || {
                let (was, is) = (before.media.next(), after.media.next());
                view.at(
                    report.line,
                    format!("what that playlist had next was {was:?} before and {is:?} after"),
                )
            });
        }
    }
}

/// How many parts (without parts: segments) a report is behind the end of the playlist it reports of.
fn behind(view: &View, msn: u64, part: Option<u32>) -> u64 {
    let media = &view.media;
    let Some(part) = part else {
        return media.newest().map_or(0, |newest| newest.msn.saturating_sub(msn));
    };
    let newer = |number: u64, index: usize| (number, index) > (msn, part as usize);
    let parts = media.segments.iter().flat_map(|s| (0..s.parts.len()).map(move |index| (s.msn, index)));
    parts.filter(|(number, index)| newer(*number, *index)).count() as u64
}

/// Whether a report names what is more than one part beyond the end.
fn ahead(view: &View, msn: u64, part: Option<u32>) -> bool {
    let media = &view.media;
    match part {
        Some(part) => (msn, part) > media.next(),
        None => media.newest().is_some_and(|newest| msn > newest.msn + 1),
    }
}
