//! SYN: transport and syntax of playlists.
#![deny(clippy::disallowed_methods)]

use crate::check::catalog::Rule;
use crate::check::exchange::Exchange;
use crate::check::ledger::{Evidence, Ledger};
use crate::check::master::Master;
use crate::check::media::Media;
use crate::check::record::View;
use crate::check::sheet::{Sheet, Tag};
use std::collections::BTreeMap;
use std::time::Duration;

/// Rules that the readers judge: what has no flaw passed.
const READ: [Rule; 7] =
    [Rule::Syn02, Rule::Syn03, Rule::Syn04, Rule::Syn05, Rule::Syn06, Rule::Syn07, Rule::Syn09];

/// A media playlist.
pub(crate) fn check(view: &View, ledger: &mut Ledger) {
    transport(&view.exchange, ledger);
    flaws(&view.exchange, &view.media.sheet, ledger);
    versions(view, ledger);
    durations(view, ledger);
    dates(view, ledger);
    date_ranges(view, ledger);
    live(view, ledger);
}

/// A multivariant playlist.
pub(crate) fn check_master(exchange: &Exchange, master: &Master, ledger: &mut Ledger) {
    transport(exchange, ledger);
    flaws(exchange, &master.sheet, ledger);
    let needed = needed_by(&master.sheet, false);
    version(exchange, &master.sheet, needed, ledger);
}

fn transport(exchange: &Exchange, ledger: &mut Ledger) {
    let Some(answer) = exchange.ok() else { return };
    let path = exchange.ask.address.path.split('?').next().unwrap_or_default();
    let kind = answer.header("content-type").unwrap_or_default().to_ascii_lowercase();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    let apple = kind == "application/vnd.apple.mpegurl";
    let known = apple || kind == "audio/mpegurl" || path.ends_with(".m3u8") || path.ends_with(".m3u");
    let evidence = || Evidence::of(exchange.ask.to_string(), format!("Content-Type: {kind}"));
    ledger.judge(Rule::Syn01, known, evidence);
    ledger.judge(Rule::Syn01Apple, apple, evidence);
}

fn flaws(exchange: &Exchange, sheet: &Sheet, ledger: &mut Ledger) {
    for flaw in &sheet.flaws {
        let evidence = Evidence::of(exchange.ask.to_string(), flaw.said.clone());
        ledger.fail(flaw.rule, evidence.line(flaw.line, sheet.text(flaw.line)));
    }
    for rule in READ {
        if !sheet.flaws.iter().any(|flaw| flaw.rule == rule) {
            ledger.pass(rule);
        }
    }
}

/// The version that tags need, and why: common to both kinds of playlist (section 8).
fn needed_by(sheet: &Sheet, i_frames: bool) -> (u64, &'static str) {
    let mut needed = (1, "nothing in it");
    for tag in &sheet.tags {
        let has = |name: &str| tag.list.get(name).is_some();
        let this = match tag.name.as_str() {
            "EXTINF" if tag.value.contains('.') => (3, "a decimal EXTINF"),
            "EXT-X-BYTERANGE" => (4, "EXT-X-BYTERANGE"),
            "EXT-X-I-FRAMES-ONLY" => (4, "EXT-X-I-FRAMES-ONLY"),
            "EXT-X-KEY" if has("KEYFORMAT") || has("KEYFORMATVERSIONS") => (5, "KEYFORMAT"),
            "EXT-X-KEY" if has("IV") => (2, "IV"),
            "EXT-X-MAP" if i_frames => (5, "EXT-X-MAP"),
            "EXT-X-MAP" => (6, "EXT-X-MAP without EXT-X-I-FRAMES-ONLY"),
            "EXT-X-DEFINE" if has("QUERYPARAM") => (11, "QUERYPARAM"),
            "EXT-X-DEFINE" => (8, "EXT-X-DEFINE"),
            "EXT-X-SKIP" if has("RECENTLY-REMOVED-DATERANGES") => (10, "RECENTLY-REMOVED-DATERANGES"),
            "EXT-X-SKIP" => (9, "EXT-X-SKIP"),
            "EXT-X-STREAM-INF" if tag.list.0.iter().any(|a| a.name.starts_with("REQ-")) => (12, "REQ-"),
            "EXT-X-MEDIA" if tag.list.get("INSTREAM-ID").is_some_and(|id| id.starts_with("SERVICE")) => {
                (7, "INSTREAM-ID of SERVICE")
            }
            _ => continue,
        };
        needed = needed.max(this);
    }
    needed
}

fn versions(view: &View, ledger: &mut Ledger) {
    let needed = needed_by(&view.media.sheet, view.media.i_frames_only);
    version(&view.exchange, &view.media.sheet, needed, ledger);
}

fn version(exchange: &Exchange, sheet: &Sheet, (needed, why): (u64, &str), ledger: &mut Ledger) {
    let tag = sheet.tag("EXT-X-VERSION");
    let stated = tag.and_then(|tag| tag.value.parse().ok()).unwrap_or(1u64);
    let evidence = || {
        let said = format!("version {stated} is stated, {needed} is needed ({why})");
        let evidence = Evidence::of(exchange.ask.to_string(), said);
        tag.map_or(evidence.clone(), |tag| evidence.line(tag.line, sheet.text(tag.line)))
    };
    ledger.judge(Rule::Syn08, stated >= needed, evidence);
    ledger.judge(Rule::Syn08Should, stated <= needed, evidence);
}

fn durations(view: &View, ledger: &mut Ledger) {
    let media = &view.media;
    let line = media.sheet.tag("EXT-X-TARGETDURATION").map_or(1, |tag| tag.line);
    ledger.judge(Rule::Syn10, media.target_duration >= Duration::from_secs(1), || {
        view.at(line, "no target duration of 1 or more")
    });
    let limit = media.target_duration + Duration::from_millis(500);
    for segment in media.segments.iter().filter(|segment| segment.uri.is_some()) {
        ledger.judge(Rule::Syn11, segment.duration < limit, || {
            let said =
                format!("{:?} with a target duration of {:?}", segment.duration, media.target_duration);
            view.at(segment.line, said)
        });
    }
}

fn dates(view: &View, ledger: &mut Ledger) {
    for tag in view.media.tagged("EXT-X-PROGRAM-DATE-TIME") {
        let read = crate::check::date::date_time(&tag.value);
        ledger.judge(Rule::Syn13, read.is_some(), || view.at(tag.line, "not ISO 8601"));
        if let Some(read) = read {
            ledger.judge(Rule::Syn13Should, read.exact, || {
                view.at(tag.line, "no time zone or no milliseconds")
            });
        }
    }
}

fn date_ranges(view: &View, ledger: &mut Ledger) {
    let ranges: Vec<&Tag> = view.media.tagged("EXT-X-DATERANGE").collect();
    if ranges.is_empty() {
        return ledger.skip(Rule::Syn14, "no EXT-X-DATERANGE was seen");
    }
    let dated = view.media.tagged("EXT-X-PROGRAM-DATE-TIME").next().is_some() || view.media.skipped.is_some();
    ledger
        .judge(Rule::Syn14, dated, || view.at(ranges[0].line, "no EXT-X-PROGRAM-DATE-TIME in the playlist"));
    let mut attributes: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    for tag in ranges {
        let wrong = date_range(tag, &mut attributes);
        ledger.judge(Rule::Syn14, wrong.is_none(), || view.at(tag.line, wrong.unwrap_or_default()));
    }
}

/// What is wrong with a date range.
fn date_range<'a>(tag: &'a Tag, seen: &mut BTreeMap<(&'a str, &'a str), &'a str>) -> Option<String> {
    let list = &tag.list;
    let id = list.get("ID").or(list.get("CLASS").filter(|_| list.yes("END-ON-NEXT")));
    let Some(id) = id else { return Some("no ID".to_owned()) };
    for attribute in &list.0 {
        let before = seen.entry((id, &attribute.name)).or_insert(&attribute.value);
        if *before != attribute.value {
            return Some(format!("{} was \"{before}\" for the same ID", attribute.name));
        }
    }
    let date = |name: &str| list.get(name).and_then(crate::check::date::date_time);
    let (start, end, duration) = (date("START-DATE"), date("END-DATE"), list.seconds("DURATION"));
    if list.get("START-DATE").is_some() && start.is_none() || list.get("END-DATE").is_some() && end.is_none()
    {
        return Some("a date that is not ISO 8601".to_owned());
    }
    if let (Some(start), Some(end), Some(duration)) = (start, end, duration) {
        let stated = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        if (end.unix_us - start.unix_us - stated).abs() > 1000 {
            return Some("END-DATE is not START-DATE + DURATION".to_owned());
        }
    }
    if list.yes("END-ON-NEXT")
        && (list.get("CLASS").is_none() || duration.is_some() || list.get("END-DATE").is_some())
    {
        return Some("END-ON-NEXT without CLASS, or with DURATION or END-DATE".to_owned());
    }
    None
}

fn live(view: &View, ledger: &mut Ledger) {
    let media = &view.media;
    if media.ended {
        return;
    }
    let kind = media.sheet.tag("EXT-X-PLAYLIST-TYPE");
    ledger
        .judge(Rule::Syn15, kind.is_none(), || view.at(kind.map_or(1, |tag| tag.line), "in a live playlist"));
    match media.sheet.tag("EXT-X-START") {
        None => ledger.skip(Rule::Syn16, "no EXT-X-START was seen"),
        Some(tag) => ledger.judge(Rule::Syn16, !near_end(tag, media), || {
            view.at(tag.line, format!("less than 3 target durations from the end ({:?})", media.length()))
        }),
    }
}

fn near_end(tag: &Tag, media: &Media) -> bool {
    let offset = tag.list.get("TIME-OFFSET").unwrap_or_default();
    let limit = media.target_duration * 3;
    match offset.strip_prefix('-') {
        Some(from_end) => crate::check::attributes::seconds(from_end).is_some_and(|at| at < limit),
        None => crate::check::attributes::seconds(offset).is_some_and(|at| at + limit > media.length()),
    }
}
