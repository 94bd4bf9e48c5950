//! The rules: their ids, how binding each is, and what each says. The one table that the checks, the report and the
//! documentation speak of.
//!
//! Invariant: a rule that binds at two levels is two entries with one id, so that each entry has one level. The ids
//! follow the families of draft-pantos-hls-rfc8216bis: syntax, server control, parts, hints, reports, dates, skipping,
//! blocking reload, evolution, media bytes, multivariant, delivery.
#![deny(clippy::disallowed_methods)]

use serde::Serialize;

/// How binding a rule is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub(crate) enum Level {
    /// MUST or REQUIRED of the draft, or of its low-latency server profile (B.1).
    #[serde(rename = "M")]
    Must,
    /// SHOULD of the draft.
    #[serde(rename = "S")]
    Should,
    /// A rule of Apple's authoring specification.
    #[serde(rename = "A")]
    Apple,
    /// RECOMMENDED.
    #[serde(rename = "R")]
    Recommended,
    /// Stronger than the specification: what this project's players and caches rely on.
    #[serde(rename = "O")]
    Ours,
}

impl Level {
    /// Its letter in reports.
    pub(crate) fn letter(self) -> &'static str {
        match self {
            Self::Must => "M",
            Self::Should => "S",
            Self::Apple => "A",
            Self::Recommended => "R",
            Self::Ours => "O",
        }
    }
}

/// What a rule is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) id: &'static str,
    pub(crate) level: Level,
    pub(crate) sentence: &'static str,
}

macro_rules! catalog {
    ($($rule:ident $id:literal $level:ident $sentence:literal;)*) => {
        /// One rule at one level.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(crate) enum Rule { $($rule),* }

        impl Rule {
            /// All of them, in the order of reports.
            pub(crate) const ALL: &[Self] = &[$(Self::$rule),*];

            /// What it says.
            pub(crate) fn entry(self) -> Entry {
                match self {
                    $(Self::$rule => Entry { id: $id, level: Level::$level, sentence: $sentence }),*
                }
            }
        }
    };
}

catalog! {
    Syn01 "SYN-01" Must "a playlist's path ends in .m3u8 or .m3u, or its Content-Type is application/vnd.apple.mpegurl or audio/mpegurl";
    Syn01Apple "SYN-01" Apple "the Content-Type of playlists is application/vnd.apple.mpegurl";
    Syn02 "SYN-02" Must "playlists are UTF-8 without BOM and without control characters except CR and LF, in NFC";
    Syn03 "SYN-03" Must "the first line is exactly #EXTM3U";
    Syn04 "SYN-04" Must "lines end in LF or CRLF, without stray white space";
    Syn05 "SYN-05" Must "attribute lists: names of [A-Z0-9-], no space around = and comma, each name once, values of the attribute's type";
    Syn06 "SYN-06" Must "VERSION, INDEPENDENT-SEGMENTS, START, SKIP and every media playlist tag occur at most once";
    Syn07 "SYN-07" Must "no media playlist or segment tag in a multivariant playlist, and none of its tags in a media playlist";
    Syn08 "SYN-08" Must "EXT-X-VERSION is at least what the tags in use need";
    Syn08Should "SYN-08" Should "EXT-X-VERSION is no greater than what the tags in use need";
    Syn09 "SYN-09" Must "MEDIA-SEQUENCE and DISCONTINUITY-SEQUENCE come before the first segment, the latter before any DISCONTINUITY";
    Syn10 "SYN-10" Must "EXT-X-TARGETDURATION is there, an integer of 1 or more";
    Syn11 "SYN-11" Must "every EXTINF, rounded to the nearest integer, is at most the target duration";
    Syn12 "SYN-12" Apple "EXTINF of any contiguous run is within one frame of the true media duration";
    Syn13 "SYN-13" Must "EXT-X-PROGRAM-DATE-TIME is an ISO 8601 date and time";
    Syn13Should "SYN-13" Should "EXT-X-PROGRAM-DATE-TIME has a time zone and milliseconds";
    Syn14 "SYN-14" Must "with EXT-X-DATERANGE there is a PDT, an ID's attributes agree, END-DATE = START-DATE + DURATION, END-ON-NEXT has CLASS and neither DURATION nor END-DATE";
    Syn15 "SYN-15" Must "a live playlist does not carry EXT-X-PLAYLIST-TYPE";
    Syn16 "SYN-16" Should "EXT-X-START of a live playlist does not point within 3 target durations of its end";

    Sc01 "SC-01" Must "CAN-SKIP-UNTIL is at least 6 target durations";
    Sc02 "SC-02" Must "CAN-SKIP-DATERANGES only together with CAN-SKIP-UNTIL";
    Sc03 "SC-03" Must "HOLD-BACK is at least 3 target durations";
    Sc04 "SC-04" Must "with EXT-X-PART-INF there is PART-HOLD-BACK";
    Sc05 "SC-05" Must "PART-HOLD-BACK is at least 2 part targets";
    Sc05Apple "SC-05" Apple "PART-HOLD-BACK is at least 3 part targets (the largest of all renditions)";
    Sc06 "SC-06" Must "a low-latency playlist says CAN-BLOCK-RELOAD=YES";
    Sc07 "SC-07" Must "if one media playlist has EXT-X-SERVER-CONTROL, all have it with the same attributes and values";
    Sc08 "SC-08" Apple "a playlist of more than 2 minutes offers delta updates, and CAN-SKIP-DATERANGES if it uses EXT-X-DATERANGE";

    Pt01 "PT-01" Must "with EXT-X-PART there is EXT-X-PART-INF with PART-TARGET";
    Pt02 "PT-02" Must "every EXT-X-PART has URI and DURATION";
    Pt03 "PT-03" Must "no part is longer than the part target";
    Pt04 "PT-04" Must "a part is at least 85 % of the part target, unless independent, a gap, before a gap, or the last of its parent";
    Pt05 "PT-05" Should "every part with an independent frame says INDEPENDENT=YES";
    Pt06 "PT-06" Ours "a part that says INDEPENDENT=YES starts with the random access point";
    Pt07 "PT-07" Must "DISCONTINUITY, KEY, MAP and PDT of a parent come before its first part";
    Pt08 "PT-08" Should "no parts in an I-frame playlist";
    Pt09 "PT-09" Should "no part is listed farther than 3 target durations from the end";
    Pt10 "PT-10" Must "a part is still to be had 3 target durations after its tag was removed";
    Pt11 "PT-11" Must "a new part appears at most one part target after the one before (and a budget for jitter)";
    Pt12 "PT-12" Must "a part can be had at full speed the instant it is listed";
    Pt13 "PT-13" Apple "the part target is at least the 95th percentile of the round trip time";
    Pt14 "PT-14" Ours "the durations of a segment's parts add up to its EXTINF, within one tick";
    Pt15 "PT-15" Ours "a rendition with EXT-X-PART-INF does publish parts";
    Pt16 "PT-16" Ours "parts have a URI of their own, no BYTERANGE";
    Ph01 "PH-01" Must "a live playlist with parts hints at the next part, and that is the URI published later";
    Ph02 "PH-02" Must "no EXT-X-PRELOAD-HINT together with EXT-X-ENDLIST";
    Ph03 "PH-03" Should "at most one EXT-X-PRELOAD-HINT of each TYPE";
    Ph04 "PH-04" Must "if the next part has another init section, a hint of TYPE=MAP names it";
    Ph05 "PH-05" Must "a GET of the hinted part is held until it exists, then 200; its body does not trickle";
    Ph06 "PH-06" Should "what does not exist and was not hinted is 404";
    Ph07 "PH-07" Must "a hint's byte range starts at BYTERANGE-START, and a range up to 2^53-1 is accepted";

    Rr01 "RR-01" Must "each media playlist has exactly one EXT-X-RENDITION-REPORT per other media playlist (no I-frame playlists), none for itself";
    Rr02 "RR-02" Must "a report has a relative URI, LAST-MSN, and LAST-PART when there are parts";
    Rr03 "RR-03" Ours "what a report says of a rendition is within one part of that rendition's playlist";
    Rr04 "RR-04" Ours "a report's URI leads to the exact playlist URL in use, and LAST-PART is always there with parts";
    Pdt01 "PDT-01" Must "every live media playlist has EXT-X-PROGRAM-DATE-TIME";
    Pdt01Should "PDT-01" Should "EXT-X-PROGRAM-DATE-TIME at every discontinuity";
    Pdt02 "PDT-02" Must "dates map to media time alike in all renditions: PDT - tfdt is constant within 1 ms per discontinuity";
    Pdt03 "PDT-03" Must "dates do not overlap ambiguously: no step of a second or more against the durations";

    Sk01 "SK-01" Must "_HLS_skip is answered with EXT-X-SKIP where CAN-SKIP-UNTIL is offered and old segments exist, and ignored elsewhere";
    Sk02 "SK-02" Must "the delta update merged into the previous playlist is the full playlist of the same (msn, part); only segments beyond CAN-SKIP-UNTIL are skipped";
    Sk03 "SK-03" Must "MEDIA-SEQUENCE and DISCONTINUITY-SEQUENCE are those of the full playlist";
    Sk04 "SK-04" Must "_HLS_skip=v2: RECENTLY-REMOVED-DATERANGES is there, tab-separated, and no date range older than CAN-SKIP-UNTIL";
    Sk05 "SK-05" Ours "a delta update states MAP, KEY and PDT of its first segment again";
    Sk06 "SK-06" Must "a delta update declares version 9 or more (10 for v2)";

    Br01 "BR-01" Must "_HLS_msn=M alone is held until segment M is complete in the playlist";
    Br02 "BR-02" Must "_HLS_msn=M&_HLS_part=N is held until that part is in the playlist, and no longer";
    Br03 "BR-03" Must "a part index beyond the end of a complete segment means part 0 of the next";
    Br04 "BR-04" Must "what the playlist has already, or had long ago, is answered at once with the whole current playlist";
    Br05 "BR-05" Should "_HLS_msn more than 2 beyond the last is 400 at once";
    Br06 "BR-06" Should "_HLS_part beyond the Advance Part Limit is 400 at once";
    Br07 "BR-07" Must "_HLS_part without _HLS_msn is 400";
    Br08 "BR-08" Ours "a directive that is no decimal integer is 400";
    Br09 "BR-09" Should "what does not come within 3 target durations is 503";
    Br10 "BR-10" Must "with EXT-X-ENDLIST directives are ignored";
    Br11 "BR-11" Must "a blocking reload is answered with the whole playlist";
    Br12 "BR-12" Must "identical blocking requests get identical bytes, and (ours) from every server";
    Br13 "BR-13" Should "I-frame playlists support _HLS_msn too";
    Br14 "BR-14" Ours "the order of the query and foreign parameters in it change nothing";
    Br15 "BR-15" Ours "1,000 identical blocking requests at an edge make one upstream request";
    Br16 "BR-16" Ours "no playlist lists a part that the same server does not have";
    Br17 "BR-17" Ours "nothing is held for 10 s or more";

    Ev01 "EV-01" Must "MEDIA-SEQUENCE never decreases and counts the removed segments";
    Ev02 "EV-02" Must "DISCONTINUITY-SEQUENCE never decreases and counts the removed DISCONTINUITY tags";
    Ev03 "EV-03" Must "one Media Sequence Number has one URI, EXTINF, discontinuity sequence and MAP, for ever and on every server";
    Ev04 "EV-04" Must "the target duration never changes";
    Ev04Ours "EV-04" Ours "the part target never changes";
    Ev05 "EV-05" Must "a new segment appears at most 1.5 target durations after the one before";
    Ev06 "EV-06" Must "the playlist is at least 3 target durations long once segments are removed";
    Ev06Apple "EV-06" Apple "a live playlist has at least 6 segments";
    Ev07 "EV-07" Must "a removed segment is still to be had for its duration and that of the longest playlist after it appeared";
    Ev08 "EV-08" Must "a playlist is never seen half written";
    Ev09 "EV-09" Must "playlists change only by appending, by removal from the head, and by dropping old parts and metadata";
    Ev10 "EV-10" Must "when one rendition has EXT-X-ENDLIST all have it";
    Ev11 "EV-11" Must "what cannot be had is marked EXT-X-GAP, its parts GAP=YES, and the timeline goes on";
    Ev12 "EV-12" Must "a change of track, format or timestamps has EXT-X-DISCONTINUITY before it";
    Ev13 "EV-13" Apple "Last-Modified, if sent, is within 3 target durations of Date";

    Mp01 "MP-01" Must "every fMP4 segment and part is in the scope of an EXT-X-MAP";
    Mp02 "MP-02" Must "init: ftyp compatible with iso6 or newer, then moov with mvex, no samples, durations of 0";
    Mp03 "MP-03" Must "every traf has a tfdt and addresses relative to its moof; no external data";
    Mp04 "MP-04" Must "tfdt goes on exactly where the durations before it end";
    Mp05 "MP-05" Must "the samples of the parts are the samples of the segment";
    Mp06 "MP-06" Ours "the bytes of the parts are the bytes of the segment, on every server";
    Mp07 "MP-07" Ours "a part is 1 or more complete chunks (styp, prft, emsg, moof, mdat), sequence numbers increasing";
    Mp08 "MP-08" Must "a video segment starts with an IDR";
    Mp09 "MP-09" Ours "an independent part's first sample is a sync sample that depends on none; another part's is not";
    Mp10 "MP-10" Ours "IDRs are 1 to 2 s apart";
    Mp11 "MP-11" Apple "one audio stream per media segment";
    Mp12 "MP-12" Ours "the earliest presentation times of audio and video of a segment differ by less than an audio frame";
    Mp13 "MP-13" Ours "media is fMP4, not MPEG-TS";

    Mv01 "MV-01" Must "BANDWIDTH on every variant and I-frame variant";
    Mv01Apple "MV-01" Apple "AVERAGE-BANDWIDTH on every variant";
    Mv02 "MV-02" Apple "measured peak < 125 % of BANDWIDTH, measured average < 110 % of AVERAGE-BANDWIDTH";
    Mv03 "MV-03" Must "CODECS lists every format in the variant and its groups, equal to what the init sections say";
    Mv04 "MV-04" Apple "RESOLUTION and FRAME-RATE (3 decimals) are there with video and equal to the bitstream's";
    Mv05 "MV-05" Must "AUDIO, SUBTITLES, VIDEO name a group that exists; CLOSED-CAPTIONS=NONE on all variants or none";
    Mv06 "MV-06" Must "in a group names differ and at most one is DEFAULT; groups of a type have the same members";
    Mv07 "MV-07" Must "target duration, timestamps and discontinuity sequence agree in all renditions";
    Mv07Apple "MV-07" Apple "segments have the same boundaries in all renditions";
    Mv08 "MV-08" Apple "there are I-frame playlists";
    Mv09 "MV-09" Apple "EXT-X-INDEPENDENT-SEGMENTS in the multivariant playlist, or in every video playlist";
    Mv10 "MV-10" Apple "several video bit rates, audio apart from video, LANGUAGE on every EXT-X-MEDIA that is not video";
    Mv11 "MV-11" Apple "failover by redundant variants or pathways";
    Mv12 "MV-12" Must "at most one EXT-X-CONTENT-STEERING, with SERVER-URI; its PATHWAY-ID is one of the variants'";
    Mv13 "MV-13" Should "STABLE-VARIANT-ID and STABLE-RENDITION-ID: allowed characters, one per URI, on all or none";
    Mv14 "MV-14" Must "every server offers the whole set of variants";

    Dl01 "DL-01" Must "playlists and media can be had by HTTP/2 or HTTP/3 (ALPN)";
    Dl02 "DL-02" Recommended "responses carry Priority: u=1 for playlists, u=2..6 for media, a higher bit rate never more urgent";
    Dl03 "DL-03" Must "playlists are gzipped for whoever accepts it";
    Dl03Ours "DL-03" Ours "playlists carry Vary: Accept-Encoding, and gzip changes nothing but the encoding";
    Dl04 "DL-04" Must "a cache states Age, an origin does not";
    Dl05 "DL-05" Must "ranges are served where BYTERANGE is used";
    Dl06 "DL-06" Recommended "max-age: blocking playlist and media 6 TD, their errors 4 TD and 1 TD, plain playlist half a TD, its errors 1 TD (rounded down)";
    Dl07 "DL-07" Should "media responses carry Cache-Control or Expires";
    Dl08 "DL-08" Recommended "TLS 1.3";
    Dl09 "DL-09" Ours "CORS: any origin, Age and Date exposed, OPTIONS answered for Range with a long Max-Age";
    Dl10 "DL-10" Ours "Timing-Allow-Origin: *";
    Dl11 "DL-11" Ours "400, 404 and 503 carry the CORS headers too";
    Dl12 "DL-12" Apple "media and media playlists are answered without redirects";
    Dl13 "DL-13" Apple "media types: video/iso.segment, video/mp4 or audio/mp4 for fMP4";
    Dl14 "DL-14" Apple "TLS 1.2 or newer with forward secrecy";

    Ti01 "TI-01" Ours "tuning in through a cache (Appendix C) takes at most 2 requests to get within one part of the edge";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn an_id_has_one_entry_per_level() {
        let all: BTreeSet<_> = Rule::ALL.iter().map(|rule| (rule.entry().id, rule.entry().level)).collect();
        assert_eq!(all.len(), Rule::ALL.len());
    }

    #[test]
    fn families_are_without_holes() {
        let ids: BTreeSet<_> = Rule::ALL.iter().map(|rule| rule.entry().id).collect();
        for (family, last) in [
            ("SYN", 16),
            ("SC", 8),
            ("PT", 16),
            ("PH", 7),
            ("RR", 4),
            ("PDT", 3),
            ("SK", 6),
            ("BR", 17),
            ("EV", 13),
            ("MP", 13),
            ("MV", 14),
            ("DL", 14),
            ("TI", 1),
        ] {
            for number in 1..=last {
                let id = format!("{family}-{number:02}");
                assert!(ids.contains(id.as_str()), "{id}");
            }
        }
    }
}
