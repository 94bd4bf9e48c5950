//! Faults put into the correct server, and the rules that must fail for each: those and no others.

use super::super::catalog::Rule;
use super::super::fake::clip::{HEAD, Head};
use super::super::fake::{Fault, Scene};
use super::{check, failed};
use sigma_shared::directives::Directives;
use sigma_shared::reload::{Decision, Tip};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What is wrong, what must be said, separated by commas, and for how long to watch, in seconds.
type Case = (&'static str, Fault, &'static str, u64);

/// Long enough for all probes.
const SHORT: u64 = 9;
/// Long enough for what leaves the playlist to be asked for again.
const LONG: u64 = 24;

/// Numbers that make no two playlists alike.
static COUNT: AtomicU64 = AtomicU64::new(0);

async fn table(cases: &[Case]) {
    let mut wrong = Vec::new();
    for &(name, fault, expected, seconds) in cases {
        let compare = matches!(fault, Fault::Twin(_) | Fault::TwinMaster(_));
        let report = check(fault, compare, seconds).await;
        let found = failed(&report).into_iter().collect::<Vec<_>>().join(", ");
        let fine = match expected.strip_suffix(" and what follows from it") {
            Some(rules) => rules.split(", ").all(|rule| found.contains(rule)),
            None => found == expected,
        };
        if !fine {
            wrong.push(format!("{name}: found \"{found}\", expected \"{expected}\"\n{report}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// In a test server's path: a part, or a segment, of the media.
fn is_part(path: &str) -> bool {
    path.ends_with(".m4s") && path.matches('.').count() == 2 && !path.ends_with(".i.m4s")
}

fn is_segment(path: &str) -> bool {
    path.ends_with(".m4s") && path.matches('.').count() == 1 && !path.contains("no-such")
}

fn is_playlist(path: &str) -> bool {
    path.contains("media.m3u8")
}

fn without(text: &str, start: &str) -> String {
    text.lines().filter(|line| !line.starts_with(start)).map(|line| format!("{line}\n")).collect()
}

const SYNTAX: &[Case] = &[
    (
        "another type",
        Fault::Reply(|p, r| {
            if is_playlist(p) && r.status == 200 {
                r.set("content-type", "audio/mpegurl");
            }
        }),
        "SYN-01 A",
        SHORT,
    ),
    ("a control character", Fault::Media(|_, t| t + "# \u{7}\n"), "SYN-02 M", SHORT),
    ("another first line", Fault::Master(|t| t.replace("#EXTM3U", "#EXTM3U8")), "SYN-03 M", SHORT),
    ("white space", Fault::Media(|_, t| t + "# \n"), "SYN-04 M", SHORT),
    ("an exponent", Fault::Media(|_, t| t.replace("DURATION=5.0", "DURATION=5e0")), "SYN-05 M", SHORT),
    (
        "a tag twice",
        Fault::Media(|_, t| {
            t.replace("#EXT-X-TARGETDURATION:2\n", "#EXT-X-TARGETDURATION:2\n#EXT-X-TARGETDURATION:2\n")
        }),
        "SYN-06 M",
        SHORT,
    ),
    (
        "a tag of the multivariant",
        Fault::Media(|_, t| t + "#EXT-X-SESSION-DATA:DATA-ID=\"x\"\n"),
        "SYN-07 M",
        SHORT,
    ),
    ("version too low", Fault::Media(|_, t| t.replace("VERSION:6", "VERSION:5")), "SYN-08 M", SHORT),
    ("version too high", Fault::Media(|_, t| t.replace("VERSION:6", "VERSION:7")), "SYN-08 S", SHORT),
    (
        "a late sequence number",
        Fault::Media(|_, t| {
            without(&t, "#EXT-X-DISCONTINUITY-SEQUENCE") + "#EXT-X-DISCONTINUITY-SEQUENCE:0\n"
        }),
        "SYN-09 M",
        3,
    ),
    (
        "no target duration",
        Fault::Media(|_, t| without(&t, "#EXT-X-TARGETDURATION")),
        "EV-08 M, SYN-10 M and what follows from it",
        1,
    ),
    (
        "a long segment",
        Fault::Media(|_, t| t.replace("#EXTINF:2.00000,\n1008.", "#EXTINF:2.60000,\n1008.")),
        "SYN-11 M",
        SHORT,
    ),
    (
        "wrong durations",
        Fault::Media(|_, t| t.replace("#EXTINF:2.00000", "#EXTINF:1.95000")),
        "PT-14 O, SYN-12 A",
        SHORT,
    ),
    (
        "no ISO 8601",
        Fault::Media(|_, t| t.replace("TIME:2026-11-22T", "TIME:2026-11-22 ")),
        "PDT-01 M, PDT-01 S, SYN-13 M",
        SHORT,
    ),
    ("no milliseconds", Fault::Media(|_, t| t.replace(".000Z\n", "Z\n")), "SYN-13 S", SHORT),
    (
        "a date range that does not add up",
        Fault::Media(|_, t| t.replace("DURATION=5.0", "DURATION=5.0,END-DATE=\"2026-11-22T07:43:00.000Z\"")),
        "SYN-14 M",
        SHORT,
    ),
    ("an event", Fault::Media(|_, t| t + "#EXT-X-PLAYLIST-TYPE:EVENT\n"), "SYN-15 M", SHORT),
    ("a start near the end", Fault::Media(|_, t| t + "#EXT-X-START:TIME-OFFSET=-1.0\n"), "SYN-16 S", SHORT),
];

#[tokio::test(start_paused = true)]
async fn syntax() {
    table(SYNTAX).await;
}

const CONTROL: &[Case] = &[
    (
        "a near skip boundary",
        Fault::Media(|_, t| t.replace("CAN-SKIP-UNTIL=12.0", "CAN-SKIP-UNTIL=8.0")),
        "SC-01 M",
        SHORT,
    ),
    (
        "no skip boundary",
        Fault::Media(|_, t| t.replace("CAN-SKIP-UNTIL=12.0,", "")),
        "SC-02 M, SK-01 M",
        SHORT,
    ),
    ("a short hold back", Fault::Media(|_, t| t.replace("HOLD-BACK=6.0", "HOLD-BACK=5.0")), "SC-03 M", SHORT),
    ("no part hold back", Fault::Media(|_, t| t.replace(",PART-HOLD-BACK=1.5", "")), "SC-04 M", SHORT),
    (
        "part hold back 2 x",
        Fault::Media(|_, t| t.replace("PART-HOLD-BACK=1.5", "PART-HOLD-BACK=1.2")),
        "SC-05 A",
        SHORT,
    ),
    (
        "part hold back < 2 x",
        Fault::Media(|_, t| t.replace("PART-HOLD-BACK=1.5", "PART-HOLD-BACK=0.8")),
        "SC-05 A, SC-05 M",
        SHORT,
    ),
    ("no blocking", Fault::Media(|_, t| t.replace("CAN-BLOCK-RELOAD=YES,", "")), "SC-06 M", SHORT),
    (
        "another control",
        Fault::Media(|s, t| if s.rendition == "a" { t.replace("HOLD-BACK=6.0", "HOLD-BACK=7.0") } else { t }),
        "SC-07 M",
        SHORT,
    ),
    (
        "date ranges are kept",
        Fault::Media(|_, t| t.replace("CAN-SKIP-DATERANGES=YES,", "")),
        "SC-08 A",
        SHORT,
    ),
];

#[tokio::test(start_paused = true)]
async fn control() {
    table(CONTROL).await;
}

const PARTS: &[Case] = &[
    ("no part target", Fault::Media(|_, t| without(&t, "#EXT-X-PART-INF")), "PT-01 M", SHORT),
    (
        "no duration",
        Fault::Media(|_, t| t.replace("DURATION=0.50000,URI=\"1009.", "URI=\"1009.")),
        "PT-02 M, PT-14 O",
        SHORT,
    ),
    (
        "a long part",
        Fault::Media(|_, t| t.replace("0.50000,URI=\"1012.1", "0.51000,URI=\"1012.1")),
        "PT-03 M, PT-14 O",
        SHORT,
    ),
    (
        "a short part",
        Fault::Media(|_, t| t.replace("0.50000,URI=\"1012.1", "0.40000,URI=\"1012.1")),
        "PT-04 M, PT-14 O",
        SHORT,
    ),
    ("independence is not said", Fault::Media(|_, t| t.replace(",INDEPENDENT=YES", "")), "PT-05 S", SHORT),
    (
        "independence is wrongly said",
        Fault::Media(|_, t| t.replace(".1.m4s\"\n", ".1.m4s\",INDEPENDENT=YES\n")),
        "PT-06 O",
        SHORT,
    ),
    (
        "a date after the first part",
        Fault::Media(|_, t| {
            t.replace(
                "\"1012.0.m4s\",INDEPENDENT=YES\n",
                "\"1012.0.m4s\",INDEPENDENT=YES\n#EXT-X-PROGRAM-DATE-TIME:2026-11-22T07:40:24.000Z\n",
            )
        }),
        "PT-07 M",
        SHORT,
    ),
    (
        "old parts",
        Fault::Media(|_, t| {
            t.replace(
                "#EXTINF:2.00000,\n1006.m4s",
                "#EXT-X-PART:DURATION=2.00000,URI=\"1006.0.m4s\",INDEPENDENT=YES\n#EXTINF:2.00000,\n1006.m4s",
            )
        }),
        "PT-03 M, PT-09 S",
        5,
    ),
    (
        "a part is gone too early",
        Fault::Reply(|p, r| {
            if p.ends_with("/1010.0.m4s") {
                r.status = 404;
            }
        }),
        "PT-10 M",
        LONG,
    ),
    ("parts come slowly", Fault::Pace(Duration::from_secs(1)), "EV-05 M, PT-11 M", LONG),
    (
        "a part is slow to begin",
        Fault::Reply(|p, r| {
            if is_part(p) {
                r.delay = Duration::from_millis(700);
            }
        }),
        "PT-12 M",
        SHORT,
    ),
    (
        "a part is missing",
        Fault::Reply(|p, r| {
            if p.ends_with("/1013.2.m4s") {
                r.status = 404;
                r.set("cache-control", "max-age=2");
            }
        }),
        "BR-16 O, PH-05 M, PT-12 M",
        SHORT,
    ),
    (
        "no parts at all",
        Fault::Media(|s, t| {
            if s.rendition == "a" { without(&without(&t, "#EXT-X-PART:"), "#EXT-X-PRELOAD") } else { t }
        }),
        "BR-02 M, PT-15 O",
        SHORT,
    ),
    (
        "byte ranges",
        Fault::Media(|_, t| t.replace(".1.m4s\"\n", ".1.m4s\",BYTERANGE=\"10@0\"\n")),
        "BR-16 O, DL-05 M, PH-07 M, PT-12 M, PT-16 O",
        SHORT,
    ),
    (
        "parts of I-frames",
        Fault::Media(|s, t| {
            if s.i_frames {
                t.replacen("#EXTINF", "#EXT-X-PART:DURATION=2.00000,URI=\"1008.0.m4s\"\n#EXTINF", 1)
            } else {
                t
            }
        }),
        "PT-08 S and what follows from it",
        1,
    ),
];

#[tokio::test(start_paused = true)]
async fn parts() {
    table(PARTS).await;
}

const HINTS: &[Case] = &[
    (
        "another hint",
        Fault::Media(|_, t| t.replace("TYPE=PART,URI=\"", "TYPE=PART,URI=\"x")),
        "PH-01 M, PH-05 M",
        SHORT,
    ),
    ("no hint", Fault::Media(|_, t| without(&t, "#EXT-X-PRELOAD-HINT:TYPE=PART")), "PH-01 M", SHORT),
    ("a hint at the end", Fault::Media(|_, t| t + "#EXT-X-ENDLIST\n"), "BR-10 M, PH-02 M, SK-01 M", SHORT),
    (
        "two hints",
        Fault::Media(|s, t| if s.i_frames { t } else { t + "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"x.m4s\"\n" }),
        "PH-03 S",
        SHORT,
    ),
    (
        "no hint at the init section",
        Fault::Media(|_, t| without(&t, "#EXT-X-PRELOAD-HINT:TYPE=MAP")),
        "PH-04 M",
        LONG,
    ),
    ("a hint that is not held", Fault::HintUnknown, "PH-05 M", SHORT),
    (
        "a part that trickles",
        Fault::Reply(|p, r| {
            if is_part(p) {
                r.trickle = Duration::from_millis(450);
            }
        }),
        "PH-05 M, PT-12 M",
        SHORT,
    ),
    (
        "unknown is found",
        Fault::Reply(|p, r| {
            if p.contains("no-such") {
                r.status = 200;
                r.set("cache-control", "max-age=12");
                r.set("priority", "u=4");
            }
        }),
        "PH-06 S",
        SHORT,
    ),
    (
        "a misspelt range",
        Fault::Media(|_, t| t.replace("TYPE=PART,", "TYPE=PART,BYTERANGE-OFFSET=0,")),
        "DL-05 M, PH-07 M",
        SHORT,
    ),
];

#[tokio::test(start_paused = true)]
async fn hints() {
    table(HINTS).await;
}

const REPORTS_AND_DATES: &[Case] = &[
    (
        "a report is missing",
        Fault::Media(|_, t| without(&t, "#EXT-X-RENDITION-REPORT:URI=\"../w")),
        "RR-01 M",
        SHORT,
    ),
    ("no LAST-MSN", Fault::Media(|_, t| t.replace("LAST-MSN=", "X-MSN=")), "RR-02 M", SHORT),
    ("no LAST-PART", Fault::Media(|_, t| t.replace(",LAST-PART=", ",X-PART=")), "RR-02 M, RR-04 O", SHORT),
    ("an old report", Fault::Media(|_, t| t.replace("LAST-MSN=10", "LAST-MSN=9")), "RR-03 O", SHORT),
    (
        "a report from the future",
        Fault::Media(|_, t| t.replace("LAST-MSN=10", "LAST-MSN=11")),
        "RR-03 O",
        SHORT,
    ),
    (
        "a report of another URL",
        Fault::Media(|_, t| t.replace("w/media.m3u8\"", "w/media.m3u8?x=1\"")),
        "RR-04 O",
        SHORT,
    ),
    ("no dates", Fault::Media(|_, t| without(&t, "#EXT-X-PROGRAM")), "PDT-01 M, PDT-01 S, SYN-14 M", SHORT),
    (
        "another clock",
        Fault::Media(|s, t| if s.rendition == "a" { t.replace(".000Z\n", ".010Z\n") } else { t }),
        "PDT-02 M",
        SHORT,
    ),
    (
        "a date that jumps",
        Fault::Media(|_, t| t.replace("07:40:22.000Z\n", "07:40:29.000Z\n")),
        "PDT-03 M",
        SHORT,
    ),
];

#[tokio::test(start_paused = true)]
async fn reports_and_dates() {
    table(REPORTS_AND_DATES).await;
}

const SKIPPING: &[Case] = &[
    ("no delta updates", Fault::NoSkip, "SK-01 M", SHORT),
    (
        "another part",
        Fault::Media(|s, t| if s.delta { t.replace("0.50000", "0.49000") } else { t }),
        "SK-02 M",
        SHORT,
    ),
    (
        "too much is skipped",
        Fault::Media(|_, t| t.replace("CAN-SKIP-UNTIL=12.0", "CAN-SKIP-UNTIL=16.0")),
        "SK-02 M",
        SHORT,
    ),
    (
        "other numbers",
        Fault::Media(|s, t| if s.delta { t.replace("MEDIA-SEQUENCE:1", "MEDIA-SEQUENCE:2") } else { t }),
        "SK-02 M, SK-03 M",
        SHORT,
    ),
    (
        "removed date ranges",
        Fault::Media(|_, t| t.replace(",RECENTLY-REMOVED-DATERANGES=\"\"", "")),
        "SK-04 M",
        SHORT,
    ),
    ("commas", Fault::Media(|_, t| t.replace("DATERANGES=\"\"", "DATERANGES=\"a,b\"")), "SK-04 M", SHORT),
    (
        "no date again",
        Fault::Media(|s, t| if s.delta { without(&t, "#EXT-X-PROGRAM") } else { t }),
        "SK-05 O",
        SHORT,
    ),
    (
        "no MAP again",
        Fault::Media(|s, t| if s.delta { without(&t, "#EXT-X-MAP") } else { t }),
        "SK-02 M, SK-05 O",
        SHORT,
    ),
    (
        "an old version",
        Fault::Media(|_, t| t.replace("VERSION:9", "VERSION:8").replace("VERSION:10", "VERSION:8")),
        "SK-06 M",
        SHORT,
    ),
];

#[tokio::test(start_paused = true)]
async fn skipping() {
    table(SKIPPING).await;
}

/// Answers at once what should be held.
fn hurried(want: &Directives, tip: Tip, which: bool) -> Option<Decision> {
    (which && tip.decide(want, 500) == Decision::Wait).then_some(Decision::Ready)
}

const BLOCKING: &[Case] = &[
    (
        "an open parent is a segment",
        Fault::Decide(|w, t| hurried(w, t, w.msn.is_some() && w.part.is_none())),
        "BR-01 M, BR-13 S",
        SHORT,
    ),
    ("a part is not waited for", Fault::Decide(|w, t| hurried(w, t, w.part == Some(1))), "BR-02 M", SHORT),
    (
        "a part past the end",
        Fault::Decide(|w, t| {
            (w.msn == Some(t.complete_msn) && w.part >= Some(4)).then_some(Decision::TooFarAhead)
        }),
        "BR-03 M",
        SHORT,
    ),
    (
        "older than the window",
        Fault::Decide(|w, t| w.msn.is_some_and(|m| m + 7 < t.complete_msn).then_some(Decision::TooFarAhead)),
        "BR-04 M",
        SHORT,
    ),
    (
        "too far is answered",
        Fault::Decide(|w, t| w.msn.is_some_and(|m| m > t.complete_msn + 3).then_some(Decision::Ready)),
        "BR-05 S",
        SHORT,
    ),
    (
        "a far part is answered",
        Fault::Decide(|w, t| {
            (w.msn <= Some(t.complete_msn + 1) && w.part > Some(8)).then_some(Decision::Ready)
        }),
        "BR-06 S",
        SHORT,
    ),
    (
        "bad directives are ignored",
        Fault::Decide(|w, _| (*w == Directives::default()).then_some(Decision::Ready)),
        "BR-07 M, BR-08 O",
        SHORT,
    ),
    ("a patient server", Fault::Stop(Duration::from_secs(6)), "", LONG),
    ("an impatient server", Fault::Stop(Duration::from_secs(2)), "BR-09 S", LONG),
    (
        "only what is new",
        Fault::Media(|s, t| if s.asked && !s.delta { cut(s, &t) } else { t }),
        "BR-11 M, EV-06 A and what follows from it",
        SHORT,
    ),
    (
        "never the same bytes",
        Fault::Media(|_, t| format!("{t}# {}\n", COUNT.fetch_add(1, Ordering::Relaxed))),
        "BR-12 M, BR-14 O, DL-03 O",
        SHORT,
    ),
    ("one order only", Fault::OrderedQuery, "BR-14 O, DL-06 R", SHORT),
    ("a long hold", Fault::Late(Duration::from_secs(11)), "BR-17 O and what follows from it", LONG),
];

#[tokio::test(start_paused = true)]
async fn blocking() {
    table(BLOCKING).await;
}

/// The newest 3 segments.
fn cut(scene: &Scene<'_>, text: &str) -> String {
    let first = 1000 + scene.tip / 4 - 3;
    let mut out = String::new();
    let mut dropped = String::new();
    for line in text.lines() {
        dropped.push_str(line);
        dropped.push('\n');
        let number = line.split('.').next().and_then(|n| n.parse::<u64>().ok());
        match number {
            Some(msn) if msn < first => {
                let keep = |l: &&str| {
                    l.starts_with("#EXTM3U")
                        || l.starts_with("#EXT-X-")
                            && !l.starts_with("#EXT-X-PROGRAM")
                            && !l.starts_with("#EXT-X-PART:")
                            && *l != "#EXT-X-DISCONTINUITY"
                };
                let kept: Vec<&str> = dropped.lines().filter(keep).collect();
                kept.iter().for_each(|line| out.push_str(&format!("{line}\n")));
                dropped.clear();
            }
            _ => {
                out.push_str(&dropped);
                dropped.clear();
            }
        }
    }
    let old = 1000 + scene.tip / 4 - 8;
    out.replace(&format!("MEDIA-SEQUENCE:{old}"), &format!("MEDIA-SEQUENCE:{first}"))
}

const EVOLUTION: &[Case] = &[
    (
        "a number that stands",
        Fault::Media(|_, t| t.replace("MEDIA-SEQUENCE:1005", "MEDIA-SEQUENCE:1004")),
        "EV-01 M, EV-03 M and what follows from it",
        LONG,
    ),
    (
        "a discontinuity that is not counted",
        Fault::Media(|_, t| t.replace("DISCONTINUITY-SEQUENCE:1", "DISCONTINUITY-SEQUENCE:0")),
        "EV-02 M",
        LONG,
    ),
    (
        "another EXTINF",
        Fault::Media(
            |s, t| if s.tip > 55 { t.replace("2.00000,\n1008.m4s", "1.99000,\n1008.m4s") } else { t },
        ),
        "EV-03 M",
        SHORT,
    ),
    (
        "another target duration",
        Fault::Media(|s, t| if s.tip > 55 { t.replace("DURATION:2", "DURATION:3") } else { t }),
        "DL-06 R, EV-04 M, SC-01 M, SC-03 M",
        SHORT,
    ),
    (
        "another part target",
        Fault::Media(|s, t| if s.tip > 55 { t.replace("TARGET=0.5", "TARGET=0.52") } else { t }),
        "EV-04 O, SC-05 A",
        SHORT,
    ),
    ("five segments", Fault::Window(5), "EV-06 A", SHORT),
    ("two segments", Fault::Window(2), "EV-06 A, EV-06 M", SHORT),
    (
        "a segment is gone too early",
        Fault::Reply(|p, r| {
            if p.ends_with("/1005.m4s") {
                r.status = 404;
            }
        }),
        "EV-07 M",
        LONG,
    ),
    (
        "half a playlist",
        Fault::Reply(|p, r| {
            if p.contains("_HLS_part=2") && r.status == 200 {
                let n = r.body.len() - 9;
                r.body.truncate(n);
            }
        }),
        "EV-08 M, SYN-04 M and what follows from it",
        SHORT,
    ),
    (
        "a segment becomes a gap",
        Fault::Media(|s, t| {
            if s.tip > 55 {
                t.replace("#EXTINF:2.00000,\n1010", "#EXT-X-GAP\n#EXTINF:2.00000,\n1010")
            } else {
                t
            }
        }),
        "EV-09 M",
        SHORT,
    ),
    (
        "one rendition ends",
        Fault::Media(|s, t| {
            if s.rendition == "a" && s.tip > 55 {
                without(&t, "#EXT-X-PRELOAD") + "#EXT-X-ENDLIST\n"
            } else {
                t
            }
        }),
        "EV-10 M",
        SHORT,
    ),
    ("parts are gaps, the segment is none", Fault::Media(|_, t| without(&t, "#EXT-X-GAP")), "EV-11 M", LONG),
    ("another format", Fault::NewFormat, "EV-12 M, MV-03 M", 16),
    (
        "an old document",
        Fault::Reply(|p, r| {
            if is_playlist(p) {
                r.set("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT");
                r.set("date", "Sun, 06 Nov 1994 08:59:37 GMT");
            }
        }),
        "EV-13 A",
        SHORT,
    ),
];

#[tokio::test(start_paused = true)]
async fn evolution() {
    table(EVOLUTION).await;
}

const MEDIA: &[Case] = &[
    ("no MAP", Fault::Media(|_, t| without(&t, "#EXT-X-MAP")), "MP-01 M, SYN-08 S", SHORT),
    ("two audio tracks", Fault::Init(Head { tracks: 2, ..HEAD }), "MP-11 A", SHORT),
    ("an old brand", Fault::Init(Head { brand: *b"iso5", ..HEAD }), "MP-02 M", SHORT),
    ("a duration in the init section", Fault::Init(Head { duration: 7, ..HEAD }), "MP-02 M", SHORT),
    ("not relative to the moof", Fault::Clip(|_, t| t.base_is_moof = false), "MP-03 M", SHORT),
    ("a hole", Fault::Clip(|p, t| t.dts_shift = if p.msn > 1012 { 10 } else { 0 }), "MP-04 M", SHORT),
    (
        "another segment",
        Fault::Clip(|p, t| t.content = if p.whole { 9 } else { 7 }),
        "MP-05 M, MP-06 O",
        SHORT,
    ),
    (
        "the same samples in other bytes",
        Fault::Clip(|p, t| {
            if p.whole {
                t.sequence = Some(u32::try_from(p.msn * 4 + p.part).unwrap());
            }
        }),
        "MP-06 O",
        SHORT,
    ),
    ("sequence numbers that stand", Fault::Clip(|_, t| t.sequence = Some(1)), "MP-07 O", SHORT),
    ("no mdat", Fault::Clip(|p, t| t.without_mdat = p.part == 2), "MP-07 O", SHORT),
    (
        "a segment without IDR",
        Fault::Clip(|p, t| {
            if p.video && p.part == 0 {
                t.first_nal = Some(0x41);
                t.first_flags = Some(0x0101_0000);
            }
        }),
        "MP-08 M, PT-06 O",
        SHORT,
    ),
    (
        "an IDR by its flags only",
        Fault::Clip(|p, t| {
            if p.video && p.part == 0 {
                t.first_nal = Some(0x41);
            }
        }),
        "MP-08 M, PT-06 O",
        SHORT,
    ),
    (
        "an IDR that depends on others",
        Fault::Clip(|p, t| {
            if p.video && p.part == 0 {
                t.first_flags = Some(0x0100_0000);
            }
        }),
        "MP-09 O",
        SHORT,
    ),
    (
        "IDRs close together",
        Fault::Clip(|p, t| t.second_key = p.video && p.part == 1),
        "MP-10 O, PT-05 S",
        SHORT,
    ),
    (
        "audio is late",
        Fault::Clip(|p, t| t.dts_shift = if p.video { 0 } else { 2400 }),
        "MP-12 O, MV-07 A, PDT-02 M",
        SHORT,
    ),
    (
        "MPEG-TS",
        Fault::Reply(|p, r| {
            if is_segment(p) {
                r.body[0] = 0x47;
            }
        }),
        "MP-13 O",
        SHORT,
    ),
    ("no tfdt", Fault::Clip(|p, t| t.without_tfdt = p.part == 2), "MP-03 M, MP-04 M, SYN-12 A", SHORT),
];

#[tokio::test(start_paused = true)]
async fn media() {
    table(MEDIA).await;
}

const MULTIVARIANT: &[Case] = &[
    ("no bandwidth", Fault::Master(|t| t.replace("INF:BANDWIDTH=20000,", "INF:")), "MV-01 M", SHORT),
    (
        "no average",
        Fault::Master(|t| t.replace("AVERAGE-BANDWIDTH=20000,", "").replace("AVERAGE-BANDWIDTH=10000,", "")),
        "MV-01 A",
        SHORT,
    ),
    (
        "a bandwidth too low",
        Fault::Master(|t| t.replace("BANDWIDTH=50000", "BANDWIDTH=15000")),
        "MV-02 A",
        SHORT,
    ),
    ("another codec", Fault::Master(|t| t.replace("avc1.4d401f,mp4a", "avc1.64001f,mp4a")), "MV-03 M", SHORT),
    ("audio is not listed", Fault::Master(|t| t.replace(",mp4a.40.2", "")), "MV-03 M", SHORT),
    ("another size", Fault::Master(|t| t.replace("1280x720,FRAME", "1280x700,FRAME")), "MV-04 A", SHORT),
    ("two decimals", Fault::Master(|t| t.replace("30.000", "30.00")), "MV-04 A", SHORT),
    ("another rate", Fault::Master(|t| t.replace("30.000", "25.000")), "MV-04 A", SHORT),
    (
        "a group that is not there",
        Fault::Master(|t| t.replace("AUDIO=\"g\"", "AUDIO=\"h\"")),
        "MV-05 M",
        SHORT,
    ),
    (
        "two defaults",
        Fault::Master(|t| {
            t.replace(
                "#EXT-X-MEDIA",
                "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"g\",NAME=\"m\",LANGUAGE=\"de\",DEFAULT=YES\n#EXT-X-MEDIA",
            )
        }),
        "MV-06 M",
        SHORT,
    ),
    (
        "another discontinuity sequence",
        Fault::Media(|s, t| {
            if s.rendition == "a" {
                t.replace("DISCONTINUITY-SEQUENCE:", "DISCONTINUITY-SEQUENCE:5")
            } else {
                t
            }
        }),
        "MV-07 M",
        SHORT,
    ),
    ("no I-frames", Fault::Master(|t| without(&t, "#EXT-X-I-FRAME")), "MV-08 A", SHORT),
    ("segments may depend", Fault::Master(|t| without(&t, "#EXT-X-INDEP")), "MV-09 A", SHORT),
    ("no language", Fault::Master(|t| t.replace("LANGUAGE=\"en\",", "")), "MV-10 A", SHORT),
    (
        "steering to nowhere",
        Fault::Master(|t| t + "#EXT-X-CONTENT-STEERING:PATHWAY-ID=\"x\"\n"),
        "MV-12 M",
        SHORT,
    ),
    (
        "stable IDs on some",
        Fault::Master(|t| t.replace("INF:BANDWIDTH=60000", "INF:STABLE-VARIANT-ID=\"a\",BANDWIDTH=60000")),
        "MV-13 S",
        SHORT,
    ),
    (
        "another set of variants",
        Fault::TwinMaster(|t| {
            t.replace("#EXT-X-STREAM-INF:BANDWIDTH=50000", "# ").replace("\nw/media.m3u8", "")
        }),
        "MV-14 M",
        SHORT,
    ),
    ("other bytes elsewhere", Fault::Twin(|_, t| t.content = 9), "EV-03 M, MP-06 O", SHORT),
];

#[tokio::test(start_paused = true)]
async fn multivariant() {
    table(MULTIVARIANT).await;
}

const DELIVERY: &[Case] = &[
    ("an Age that is none", Fault::Reply(|_, r| r.set("age", "soon")), "DL-04 M", SHORT),
    (
        "far away",
        Fault::Reply(|p, r| {
            if is_playlist(p) && !p.contains("_HLS") {
                r.delay = Duration::from_millis(600);
            }
        }),
        "PT-13 A and what follows from it",
        SHORT,
    ),
    ("HTTP/1.1", Fault::Handshake("http/1.1", "TLSv1_3", "TLS13_AES_256_GCM_SHA384"), "DL-01 M", 3),
    ("TLS 1.2", Fault::Handshake("h2", "TLSv1_2", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"), "DL-08 R", 3),
    (
        "no forward secrecy",
        Fault::Handshake("h2", "TLSv1_2", "TLS_RSA_WITH_AES_128_CBC_SHA"),
        "DL-08 R, DL-14 A",
        3,
    ),
    ("no priority", Fault::Reply(|_, r| r.set("priority", "")), "DL-02 R", SHORT),
    (
        "more bits, more urgent",
        Fault::Reply(|p, r| {
            if p.contains("/v/") && p.ends_with("m4s") {
                r.set("priority", "u=2");
            }
        }),
        "DL-02 R",
        SHORT,
    ),
    ("no gzip", Fault::Reply(|_, r| r.set("content-encoding", "")), "DL-03 M", SHORT),
    ("no Vary", Fault::Reply(|_, r| r.set("vary", "")), "DL-03 O", SHORT),
    (
        "no cache",
        Fault::Reply(|p, r| {
            if is_playlist(p) {
                r.set("cache-control", "no-cache");
            }
        }),
        "DL-06 R",
        SHORT,
    ),
    (
        "no lifetime",
        Fault::Reply(|p, r| {
            if p.ends_with("m4s") {
                r.set("cache-control", "");
            }
        }),
        "DL-06 R, DL-07 S",
        SHORT,
    ),
    ("nothing exposed", Fault::Reply(|_, r| r.set("access-control-expose-headers", "")), "DL-09 O", SHORT),
    ("a short preflight", Fault::Reply(|_, r| r.set("access-control-max-age", "")), "DL-09 O", SHORT),
    ("no timing", Fault::Reply(|_, r| r.set("timing-allow-origin", "")), "DL-10 O", SHORT),
    (
        "errors without CORS",
        Fault::Reply(|_, r| {
            if r.status >= 400 {
                r.set("access-control-allow-origin", "");
            }
        }),
        "DL-11 O",
        SHORT,
    ),
    (
        "a redirect",
        Fault::Reply(|p, r| {
            if p.ends_with("/1013.1.m4s") {
                r.status = 302;
            }
        }),
        "BR-16 O, DL-12 A, PH-05 M, PT-12 M",
        SHORT,
    ),
    (
        "a plain type",
        Fault::Reply(|p, r| {
            if p.ends_with("m4s") && r.status == 200 {
                r.set("content-type", "text/plain");
            }
        }),
        "DL-13 A",
        SHORT,
    ),
    (
        "always old",
        Fault::Reply(|p, r| {
            if is_playlist(p) {
                r.set("age", "5");
            }
        }),
        "TI-01 O",
        SHORT,
    ),
];

#[tokio::test(start_paused = true)]
async fn delivery() {
    table(DELIVERY).await;
}

/// A playlist of whole segments, as other latency modes have it.
fn whole_segments(text: &str) -> String {
    let text = without(&without(&without(text, "#EXT-X-PART:"), "#EXT-X-PART-INF"), "#EXT-X-PRELOAD-HINT");
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for line in &mut lines {
        if let Some((report, _)) = line.split_once(",LAST-PART=") {
            *line = report.to_owned();
        }
    }
    let newest =
        lines.iter().rev().find(|line| line.ends_with("m4s")).and_then(|l| l.split('.').next()).unwrap();
    let newest = format!("LAST-MSN={newest}");
    let lines = lines.iter().map(|line| match line.split_once("LAST-MSN=") {
        Some((report, _)) => format!("{report}{newest}\n"),
        None => format!("{line}\n"),
    });
    lines.collect()
}

const WHOLE_SEGMENTS: &[Case] = &[
    ("whole segments", Fault::Media(|_, t| whole_segments(&t)), "", LONG),
    (
        "whole segments, polled",
        Fault::Media(|_, t| whole_segments(&t).replace("CAN-BLOCK-RELOAD=YES,", "")),
        "",
        LONG,
    ),
    (
        "a report two segments old",
        Fault::Media(|_, t| whole_segments(&t).replace("LAST-MSN=10", "LAST-MSN=9")),
        "RR-03 O",
        SHORT,
    ),
];

#[tokio::test(start_paused = true)]
async fn whole_segments_are_judged_too() {
    table(WHOLE_SEGMENTS).await;
}

/// Rules that no case is about, and why.
const WITHOUT_A_CASE: [(&str, &str); 3] = [
    ("SYN-01 M", "the paths of the fake server end as they should"),
    ("BR-15 O", "it takes a look at the upstream"),
    ("MV-11 A", "what is missing there is a second server, not a property of this one"),
];

#[test]
fn every_rule_has_a_fault_that_breaks_it() {
    let tables = [
        SYNTAX,
        CONTROL,
        PARTS,
        HINTS,
        REPORTS_AND_DATES,
        SKIPPING,
        BLOCKING,
        EVOLUTION,
        MEDIA,
        MULTIVARIANT,
        DELIVERY,
    ];
    let expected: String =
        tables.iter().flat_map(|table| table.iter()).map(|case| format!("{}, ", case.2)).collect();
    let rules = Rule::ALL.iter().map(|rule| format!("{} {}", rule.entry().id, rule.entry().level.letter()));
    let bare: Vec<String> = rules.filter(|rule| !expected.contains(rule.as_str())).collect();
    assert_eq!(bare, WITHOUT_A_CASE.map(|(rule, _)| rule));
}
