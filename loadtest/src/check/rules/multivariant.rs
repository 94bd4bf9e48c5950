//! MV: the multivariant playlist, by itself and against what its renditions turn out to be.
#![deny(clippy::disallowed_methods)]

use crate::check::catalog::Rule;
use crate::check::init::{Init, Media};
use crate::check::ledger::{Evidence, Ledger};
use crate::check::master::{Entry, Master};
use crate::check::record::{Presentation, View};
use crate::check::rules::media::Reel;
use crate::check::rules::timeline::rates;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Attributes that name a group, and the TYPE of its members.
const GROUPS: [(&str, &str); 3] = [("AUDIO", "AUDIO"), ("SUBTITLES", "SUBTITLES"), ("VIDEO", "VIDEO")];
const ALL: [Rule; 15] = [
    Rule::Mv01,
    Rule::Mv01Apple,
    Rule::Mv02,
    Rule::Mv03,
    Rule::Mv04,
    Rule::Mv05,
    Rule::Mv06,
    Rule::Mv08,
    Rule::Mv09,
    Rule::Mv10,
    Rule::Mv11,
    Rule::Mv12,
    Rule::Mv13,
    Rule::Mv14,
    Rule::Mv07,
];

struct Sheet<'a> {
    master: &'a Master,
    request: String,
}

impl Sheet<'_> {
    fn at(&self, entry: &Entry, said: impl Into<String>) -> Evidence {
        Evidence::of(self.request.clone(), said).line(entry.line, self.master.sheet.text(entry.line))
    }

    fn whole(&self, said: impl Into<String>) -> Evidence {
        Evidence::of(self.request.clone(), said)
    }
}

/// What the playlist says by itself.
pub(crate) fn check(presentation: &Presentation, ledger: &mut Ledger) {
    let Some(master) = &presentation.master else {
        for rule in ALL {
            ledger.skip(rule, "the target is a media playlist");
        }
        return;
    };
    let sheet = Sheet { master: &master.1, request: master.0.ask.to_string() };
    for entry in sheet.master.variants.iter().chain(&sheet.master.i_frames) {
        ledger.judge(Rule::Mv01, entry.bandwidth() > 0, || sheet.at(entry, "no BANDWIDTH"));
        let average = entry.list.integer("AVERAGE-BANDWIDTH").is_some();
        ledger.judge(Rule::Mv01Apple, average, || sheet.at(entry, "no AVERAGE-BANDWIDTH"));
        ledger.judge(Rule::Mv03, !entry.codecs().is_empty(), || sheet.at(entry, "no CODECS"));
    }
    groups(&sheet, ledger);
    members(&sheet, ledger);
    let i_frames = !sheet.master.i_frames.is_empty();
    ledger.judge(Rule::Mv08, i_frames, || sheet.whole("no EXT-X-I-FRAME-STREAM-INF"));
    authoring(&sheet, ledger);
    steering(&sheet, ledger);
    stable(&sheet, ledger);
}

fn groups(sheet: &Sheet<'_>, ledger: &mut Ledger) {
    for entry in &sheet.master.variants {
        for (attribute, kind) in GROUPS {
            if let Some(id) = entry.list.get(attribute) {
                let there = sheet.master.group(kind, id).next().is_some();
                ledger.judge(Rule::Mv05, there, || {
                    sheet.at(entry, format!("no EXT-X-MEDIA of TYPE={kind} in group \"{id}\""))
                });
            }
        }
    }
    let none = sheet.master.variants.iter().filter(|v| v.list.get("CLOSED-CAPTIONS") == Some("NONE")).count();
    let fine = none == 0 || none == sheet.master.variants.len();
    ledger.judge(Rule::Mv05, fine, || {
        sheet.whole(format!("CLOSED-CAPTIONS=NONE on {none} variants, not on all"))
    });
}

fn members(sheet: &Sheet<'_>, ledger: &mut Ledger) {
    let mut groups: BTreeMap<(&str, &str), Vec<&Entry>> = BTreeMap::new();
    for entry in &sheet.master.renditions {
        let key =
            (entry.list.get("TYPE").unwrap_or_default(), entry.list.get("GROUP-ID").unwrap_or_default());
        groups.entry(key).or_default().push(entry);
    }
    if groups.is_empty() {
        return ledger.skip(Rule::Mv06, "there is no EXT-X-MEDIA");
    }
    let mut by_type: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for ((kind, id), entries) in &groups {
        let names: BTreeSet<&str> = entries.iter().filter_map(|e| e.list.get("NAME")).collect();
        ledger.judge(Rule::Mv06, names.len() == entries.len(), || {
            sheet.at(entries[0], format!("names in group \"{id}\" are missing or alike"))
        });
        let defaults = entries.iter().filter(|e| e.list.yes("DEFAULT")).count();
        ledger.judge(Rule::Mv06, defaults <= 1, || {
            sheet.at(entries[0], format!("{defaults} are DEFAULT in group \"{id}\""))
        });
        let first = by_type.entry(kind).or_insert_with(|| names.clone());
        ledger.judge(Rule::Mv06, *first == names, || {
            sheet.at(entries[0], format!("group \"{id}\" has other members than others of {kind}"))
        });
    }
}

fn authoring(sheet: &Sheet<'_>, ledger: &mut Ledger) {
    let videos: Vec<&Entry> =
        sheet.master.variants.iter().filter(|v| v.list.get("RESOLUTION").is_some()).collect();
    let rates: BTreeSet<u64> = videos.iter().map(|v| v.bandwidth()).collect();
    ledger.judge(Rule::Mv10, rates.len() > 1 || videos.is_empty(), || sheet.whole("one video bit rate"));
    let apart = videos
        .iter()
        .all(|v| v.list.get("AUDIO").is_some() || !v.codecs().iter().any(|c| c.starts_with("mp4a")));
    ledger.judge(Rule::Mv10, apart, || sheet.whole("audio and video in the same segments"));
    for entry in &sheet.master.renditions {
        let fine = entry.list.get("TYPE") == Some("VIDEO") || entry.list.get("LANGUAGE").is_some();
        ledger.judge(Rule::Mv10, fine, || sheet.at(entry, "no LANGUAGE"));
    }
    let mut alike: BTreeMap<(u64, Option<&str>), u32> = BTreeMap::new();
    for entry in &sheet.master.variants {
        *alike.entry((entry.bandwidth(), entry.list.get("CODECS"))).or_default() += 1;
    }
    let pathways: BTreeSet<&str> =
        sheet.master.variants.iter().filter_map(|v| v.list.get("PATHWAY-ID")).collect();
    if pathways.len() > 1 || alike.values().any(|count| *count > 1) {
        ledger.pass(Rule::Mv11);
    } else {
        ledger.skip(Rule::Mv11, "one pathway, no redundant variants: a single server");
    }
}

fn steering(sheet: &Sheet<'_>, ledger: &mut Ledger) {
    let tags: Vec<_> =
        sheet.master.sheet.tags.iter().filter(|t| t.name == "EXT-X-CONTENT-STEERING").collect();
    let Some(first) = tags.first() else {
        return ledger.skip(Rule::Mv12, "there is no EXT-X-CONTENT-STEERING");
    };
    let at = |said: &str| {
        Evidence::of(sheet.request.clone(), said).line(first.line, sheet.master.sheet.text(first.line))
    };
    ledger.judge(Rule::Mv12, tags.len() == 1, || at("more than one"));
    ledger.judge(Rule::Mv12, first.list.get("SERVER-URI").is_some(), || at("no SERVER-URI"));
    if let Some(id) = first.list.get("PATHWAY-ID") {
        let known = sheet.master.variants.iter().any(|v| v.list.get("PATHWAY-ID").unwrap_or(".") == id);
        ledger.judge(Rule::Mv12, known, || at("no variant is of this pathway"));
    }
}

fn stable(sheet: &Sheet<'_>, ledger: &mut Ledger) {
    for (entries, name) in
        [(&sheet.master.variants, "STABLE-VARIANT-ID"), (&sheet.master.renditions, "STABLE-RENDITION-ID")]
    {
        let with = entries.iter().filter(|e| e.list.get(name).is_some()).count();
        if with == 0 {
            continue;
        }
        let mut ids: BTreeMap<Option<&str>, &str> = BTreeMap::new();
        for entry in entries {
            let id = entry.list.get(name).unwrap_or_default();
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"+/=._-".contains(&b);
            ledger.judge(Rule::Mv13, !id.is_empty() && id.bytes().all(plain), || {
                sheet.at(entry, format!("{name} is missing or has other characters"))
            });
            let before = *ids.entry(entry.uri.as_deref()).or_insert(id);
            ledger.judge(Rule::Mv13, before == id, || {
                sheet.at(entry, format!("the same URI had \"{before}\""))
            });
        }
    }
    ledger.skip(Rule::Mv13, "there are no stable IDs");
}

/// All media playlists at one moment (MV-07), and MV-09.
pub(crate) fn check_together(presentation: &Presentation, views: &[Arc<View>], ledger: &mut Ledger) {
    if let [first, rest @ ..] = views {
        for view in rest {
            let line = view.media.sheet.tag("EXT-X-TARGETDURATION").map_or(1, |tag| tag.line);
            let td = first.media.target_duration;
            ledger.judge(Rule::Mv07, view.media.target_duration == td, || {
                view.at(line, format!("{} has {td:?}", first.exchange.ask.address.path))
            });
        }
    }
    if let Some(master) = &presentation.master {
        let here = master.1.sheet.tag("EXT-X-INDEPENDENT-SEGMENTS").is_some();
        let everywhere = views.iter().all(|view| view.media.independent_segments);
        ledger.judge(Rule::Mv09, here || everywhere, || {
            Evidence::of(
                master.0.ask.to_string(),
                "no EXT-X-INDEPENDENT-SEGMENTS, and not in every media playlist",
            )
        });
    }
}

/// Codecs, picture sizes, frame rates and bit rates against the media.
pub(crate) fn finish(presentation: &Presentation, reels: &[Reel], target: Duration, ledger: &mut Ledger) {
    let Some(master) = &presentation.master else { return };
    let sheet = Sheet { master: &master.1, request: master.0.ask.to_string() };
    let reel = |uri: Option<&str>| {
        let index = presentation.renditions.iter().position(|r| Some(r.name.as_str()) == uri);
        index.and_then(|index| reels.get(index))
    };
    for entry in &sheet.master.variants {
        let Some(own) = reel(entry.uri.as_deref()) else { continue };
        let group = entry.list.get("AUDIO").unwrap_or_default();
        let audio: Vec<&Reel> = sheet
            .master
            .group("AUDIO", group)
            .filter_map(|r| r.uri.as_deref())
            .filter_map(|uri| reel(Some(uri)))
            .collect();
        let variant = Variant { entry, own, audio };
        codecs(&sheet, &variant, ledger);
        if let Some(init) = &own.init {
            picture(&sheet, &variant, init, ledger);
        }
        bandwidth(&sheet, &variant, target, ledger);
    }
    ledger.skip(Rule::Mv02, "too few segments were seen to measure bit rates");
    ledger.skip(Rule::Mv04, "no video was seen");
    ledger.skip(Rule::Mv14, "no other server was given (--compare)");
}

/// A variant and the media in it.
struct Variant<'a> {
    entry: &'a Entry,
    own: &'a Reel,
    audio: Vec<&'a Reel>,
}

fn codecs(sheet: &Sheet<'_>, variant: &Variant<'_>, ledger: &mut Ledger) {
    let Variant { entry, own, audio } = variant;
    let listed = entry.codecs();
    let inits = std::iter::once(*own).chain(audio.iter().copied()).filter_map(|reel| reel.init.as_ref());
    for track in inits.flat_map(|init| &init.tracks) {
        // The Authoring Specification compares strings; case does not tell codecs apart.
        let there = listed.iter().any(|codec| codec.eq_ignore_ascii_case(&track.codec));
        ledger.judge(Rule::Mv03, there, || sheet.at(entry, format!("the init section says {}", track.codec)));
    }
}

fn picture(sheet: &Sheet<'_>, variant: &Variant<'_>, init: &Init, ledger: &mut Ledger) {
    let Variant { entry, own, .. } = variant;
    let Some(track) = init.tracks.iter().find(|track| track.media == Media::Video) else { return };
    let stated = entry.list.get("RESOLUTION").and_then(|r| r.split_once('x'));
    let stated = stated.and_then(|(w, h)| Some((w.parse::<u32>().ok()?, h.parse::<u32>().ok()?)));
    ledger.judge(Rule::Mv04, stated.is_some() && (track.size.is_none() || stated == track.size), || {
        sheet.at(entry, format!("the bitstream is {:?}", track.size))
    });
    let rate = entry.list.get("FRAME-RATE");
    let digits = rate.and_then(|rate| rate.split_once('.')).map_or(0, |(_, fraction)| fraction.len());
    ledger.judge(Rule::Mv04, digits == 3, || sheet.at(entry, "FRAME-RATE is missing or has not 3 decimals"));
    if let (Some(rate), Some(measured)) = (rate.and_then(|rate| rate.parse::<f64>().ok()), own.frame_rate()) {
        ledger.judge(Rule::Mv04, (measured - rate).abs() <= rate * 0.01, || {
            sheet.at(entry, format!("{measured:.3} frames per second were measured"))
        });
    }
}

fn bandwidth(sheet: &Sheet<'_>, variant: &Variant<'_>, target: Duration, ledger: &mut Ledger) {
    let Variant { entry, own, audio } = variant;
    let Some((peak, average)) = rates(&own.sizes, target) else { return };
    let add = audio
        .iter()
        .filter_map(|reel| rates(&reel.sizes, target))
        .fold((0.0f64, 0.0f64), |most, rate| (most.0.max(rate.0), most.1.max(rate.1)));
    let (peak, average) = (peak + add.0, average + add.1);
    let stated = entry.bandwidth() as f64;
    ledger.judge(Rule::Mv02, peak < stated * 1.25, || {
        sheet.at(entry, format!("the measured peak is {peak:.0} bit/s"))
    });
    if let Some(stated) = entry.list.integer("AVERAGE-BANDWIDTH") {
        ledger.judge(Rule::Mv02, average < stated as f64 * 1.10, || {
            sheet.at(entry, format!("the measured average is {average:.0} bit/s"))
        });
    }
}

/// Another server's variants against this one's (MV-14).
pub(crate) fn elsewhere(here: &Presentation, request: &str, there: &Presentation, ledger: &mut Ledger) {
    let names = |p: &Presentation| p.renditions.iter().map(|r| r.name.clone()).collect::<BTreeSet<_>>();
    let (here, there) = (names(here), names(there));
    ledger.judge(Rule::Mv14, here == there, || {
        let missing: Vec<_> = here.symmetric_difference(&there).cloned().collect();
        Evidence::of(request, format!("not at both servers: {}", missing.join(", ")))
    });
}
