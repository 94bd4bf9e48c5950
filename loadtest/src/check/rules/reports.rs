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
        ledger.judge(Rule::Rr02, report.list.integer("LAST-MSN").is_some(), || view.at(report.line, "no LAST-MSN"));
        if media.part_target.is_some() {
            let part = report.list.integer("LAST-PART").is_some();
            ledger.judge(Rule::Rr02, part, || view.at(report.line, "no LAST-PART, though there are parts"));
            ledger.judge(Rule::Rr04, part, || view.at(report.line, "no LAST-PART"));
        }
        let target = own.address.join(uri).map(|address| address.to_string()).unwrap_or_default();
        let known = renditions.iter().any(|r| !target.is_empty() && r.address.to_string().starts_with(&target));
        ledger.judge(Rule::Rr04, known, || view.at(report.line, format!("no playlist in use is at {target}")));
    }
    if media.part_target.is_none() {
        return ledger.skip(Rule::Rr01, "no playlist with parts was seen");
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
    if renditions.len() < 2 {
        for rule in [Rule::Rr02, Rule::Rr04] {
            ledger.skip(rule, "there is one media playlist");
        }
    }
}

/// Reports against the playlists they report of, all asked for at the same moment (RR-03).
pub(crate) fn check_together(views: &[Arc<View>], renditions: &[Rendition], ledger: &mut Ledger) {
    ledger.skip(Rule::Rr03, "no report of another rendition was seen");
    for view in views {
        for report in view.media.tagged("EXT-X-RENDITION-REPORT") {
            let target = renditions[view.rendition].address.join(report.list.get("URI").unwrap_or_default());
            let found = views.iter().find(|v| target.as_ref().is_ok_and(|t| *t == renditions[v.rendition].address));
            let (Some(other), Some(msn)) = (found, report.list.integer("LAST-MSN")) else { continue };
            let part = report.list.integer("LAST-PART").and_then(|part| u32::try_from(part).ok());
            let apart = distance(other, msn, part);
            let limit = if part.is_some() { 1 } else { 0 };
            ledger.judge(Rule::Rr03, apart <= limit, || {
                let next = other.media.next();
                view.at(report.line, format!("{apart} parts (or segments) from that playlist, whose next is {next:?}"))
            });
        }
    }
}

/// How many parts (without parts: segments) lie between what is reported and the newest of the playlist itself.
fn distance(other: &View, msn: u64, part: Option<u32>) -> u64 {
    let media = &other.media;
    let Some(part) = part else {
        return media.newest().map_or(u64::MAX, |newest| newest.msn.abs_diff(msn));
    };
    let mut index = 0;
    let (mut reported, mut newest) = (None, 0);
    for segment in &media.segments {
        for number in 0..segment.parts.len() {
            if (segment.msn, number) == (msn, part as usize) {
                reported = Some(index);
            }
            newest = index;
            index += 1;
        }
    }
    match reported {
        Some(at) => newest - at,
        // Ahead of the playlist by one, or not to be found in it.
        None if media.next() == (msn, part) => 1,
        None => u64::MAX,
    }
}
