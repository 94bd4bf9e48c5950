//! SC: EXT-X-SERVER-CONTROL.
#![deny(clippy::disallowed_methods)]

use crate::check::catalog::Rule;
use crate::check::ledger::Ledger;
use crate::check::record::View;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A playlist of more than this should offer delta updates (SC-08).
const LONG: Duration = Duration::from_secs(120);

/// One media playlist.
pub(crate) fn check(view: &View, ledger: &mut Ledger) {
    let media = &view.media;
    let line = media.sheet.tag("EXT-X-SERVER-CONTROL").map_or(1, |tag| tag.line);
    let td = media.target_duration;
    let skip_until = media.control_seconds("CAN-SKIP-UNTIL");
    if let Some(until) = skip_until {
        ledger.judge(Rule::Sc01, until >= td * 6, || view.at(line, format!("less than {:?}", td * 6)));
    } else {
        ledger.skip(Rule::Sc01, "no playlist offers delta updates");
    }
    let ranges = media.control.as_ref().is_some_and(|control| control.yes("CAN-SKIP-DATERANGES"));
    ledger.judge(Rule::Sc02, !ranges || skip_until.is_some(), || view.at(line, "no CAN-SKIP-UNTIL"));
    match media.control_seconds("HOLD-BACK") {
        Some(back) => {
            ledger.judge(Rule::Sc03, back >= td * 3, || view.at(line, format!("less than {:?}", td * 3)));
        }
        None => ledger.skip(Rule::Sc03, "no playlist has HOLD-BACK"),
    }
    if let Some(target) = media.part_target {
        hold_back(view, target, line, ledger);
        ledger
            .judge(Rule::Sc06, media.can_block() || media.ended, || view.at(line, "no CAN-BLOCK-RELOAD=YES"));
    } else {
        for rule in [Rule::Sc04, Rule::Sc05, Rule::Sc05Apple, Rule::Sc06] {
            ledger.skip(rule, "no playlist has EXT-X-PART-INF");
        }
    }
    if media.length() > LONG && !media.ended && media.skipped.is_none() {
        ledger.judge(Rule::Sc08, skip_until.is_some(), || {
            view.at(line, format!("{:?} long and no CAN-SKIP-UNTIL", media.length()))
        });
    }
    if skip_until.is_some() && media.sheet.tag("EXT-X-DATERANGE").is_some() {
        ledger.judge(Rule::Sc08, ranges, || view.at(line, "EXT-X-DATERANGE without CAN-SKIP-DATERANGES"));
    }
    ledger.skip(Rule::Sc08, "no playlist is longer than 2 minutes");
}

fn hold_back(view: &View, target: Duration, line: usize, ledger: &mut Ledger) {
    let back = view.media.control_seconds("PART-HOLD-BACK");
    ledger.judge(Rule::Sc04, back.is_some(), || view.at(line, "no PART-HOLD-BACK"));
    if let Some(back) = back {
        ledger.judge(Rule::Sc05, back >= target * 2, || view.at(line, format!("less than {:?}", target * 2)));
        ledger.judge(Rule::Sc05Apple, back >= target * 3, || {
            view.at(line, format!("less than {:?}", target * 3))
        });
    }
}

/// All media playlists at one moment.
pub(crate) fn check_together(views: &[Arc<View>], ledger: &mut Ledger) {
    let controls: Vec<_> = views.iter().map(|view| view.media.control.as_ref()).collect();
    if views.len() < 2 || controls.iter().all(Option::is_none) {
        return ledger.skip(Rule::Sc07, "there is one media playlist, or none has EXT-X-SERVER-CONTROL");
    }
    let sorted = |view: &View| -> BTreeMap<String, String> {
        let list = view.media.control.iter().flat_map(|control| control.0.iter());
        list.map(|a| (a.name.clone(), a.value.clone())).collect()
    };
    let first = sorted(&views[0]);
    for view in &views[1..] {
        let line = view.media.sheet.tag("EXT-X-SERVER-CONTROL").map_or(1, |tag| tag.line);
        ledger.judge(Rule::Sc07, sorted(view) == first, || {
            let other = views[0].media.sheet.tag("EXT-X-SERVER-CONTROL").map_or("", |tag| tag.value.as_str());
            view.at(line, format!("{} has \"{other}\"", views[0].exchange.ask.address.path))
        });
    }
    let longest = views.iter().filter_map(|view| view.media.part_target).max();
    for view in views {
        if let (Some(back), Some(longest)) = (view.media.control_seconds("PART-HOLD-BACK"), longest) {
            ledger.judge(Rule::Sc05Apple, back >= longest * 3, || {
                view.whole(format!(
                    "PART-HOLD-BACK is less than 3 times the largest part target, {longest:?}"
                ))
            });
        }
    }
}
