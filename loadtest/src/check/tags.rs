//! The tags of the draft: where each may stand, how often, and of which type its attributes are.
#![deny(clippy::disallowed_methods)]

use crate::check::attributes::Kind;

/// Where a tag may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Either kind of playlist.
    Both,
    /// A media playlist.
    Media,
    /// A multivariant playlist.
    Multivariant,
}

/// What is known of a tag.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    pub(crate) scope: Scope,
    /// At most once per playlist (SYN-06).
    pub(crate) once: bool,
    /// Its value is an attribute list.
    pub(crate) listed: bool,
}

/// Name, scope, at most once, attribute list.
const TAGS: &[(&str, Scope, bool, bool)] = &[
    ("EXTM3U", Scope::Both, true, false),
    ("EXT-X-VERSION", Scope::Both, true, false),
    ("EXT-X-INDEPENDENT-SEGMENTS", Scope::Both, true, false),
    ("EXT-X-START", Scope::Both, true, true),
    ("EXT-X-DEFINE", Scope::Both, false, true),
    ("EXT-X-TARGETDURATION", Scope::Media, true, false),
    ("EXT-X-MEDIA-SEQUENCE", Scope::Media, true, false),
    ("EXT-X-DISCONTINUITY-SEQUENCE", Scope::Media, true, false),
    ("EXT-X-ENDLIST", Scope::Media, true, false),
    ("EXT-X-PLAYLIST-TYPE", Scope::Media, true, false),
    ("EXT-X-I-FRAMES-ONLY", Scope::Media, true, false),
    ("EXT-X-PART-INF", Scope::Media, true, true),
    ("EXT-X-SERVER-CONTROL", Scope::Media, true, true),
    ("EXTINF", Scope::Media, false, false),
    ("EXT-X-BYTERANGE", Scope::Media, false, false),
    ("EXT-X-DISCONTINUITY", Scope::Media, false, false),
    ("EXT-X-KEY", Scope::Media, false, true),
    ("EXT-X-MAP", Scope::Media, false, true),
    ("EXT-X-PROGRAM-DATE-TIME", Scope::Media, false, false),
    ("EXT-X-GAP", Scope::Media, false, false),
    ("EXT-X-BITRATE", Scope::Media, false, false),
    ("EXT-X-PART", Scope::Media, false, true),
    ("EXT-X-DATERANGE", Scope::Media, false, true),
    ("EXT-X-SKIP", Scope::Media, true, true),
    ("EXT-X-PRELOAD-HINT", Scope::Media, false, true),
    ("EXT-X-RENDITION-REPORT", Scope::Media, false, true),
    ("EXT-X-MEDIA", Scope::Multivariant, false, true),
    ("EXT-X-STREAM-INF", Scope::Multivariant, false, true),
    ("EXT-X-I-FRAME-STREAM-INF", Scope::Multivariant, false, true),
    ("EXT-X-SESSION-DATA", Scope::Multivariant, false, true),
    ("EXT-X-SESSION-KEY", Scope::Multivariant, false, true),
    ("EXT-X-CONTENT-STEERING", Scope::Multivariant, false, true),
];

/// What is known of the tag of this name (without `#`).
pub(crate) fn known(name: &str) -> Option<Known> {
    let (_, scope, once, listed) = TAGS.iter().find(|(known, ..)| *known == name)?;
    Some(Known { scope: *scope, once: *once, listed: *listed })
}

/// Of which type an attribute is; `None`: not in the draft, anything goes.
pub(crate) fn kind(tag: &str, attribute: &str) -> Option<Kind> {
    use Kind::{Enumerated, Float, Hex, Integer, Quoted, Resolution, SignedFloat};
    let kind = match attribute {
        "CHARACTERISTICS" if tag == "EXT-X-MEDIA" => Quoted,
        "BYTERANGE" | "URI" => Quoted,
        "IV" => Hex,
        "TIME-OFFSET" => SignedFloat,
        "PART-TARGET" | "CAN-SKIP-UNTIL" | "HOLD-BACK" | "PART-HOLD-BACK" | "DURATION"
        | "PLANNED-DURATION" | "FRAME-RATE" | "SCORE" => Float,
        "CAN-BLOCK-RELOAD"
        | "CAN-SKIP-DATERANGES"
        | "INDEPENDENT"
        | "GAP"
        | "PRECISE"
        | "DEFAULT"
        | "AUTOSELECT"
        | "FORCED"
        | "END-ON-NEXT"
        | "METHOD"
        | "TYPE"
        | "HDCP-LEVEL"
        | "VIDEO-RANGE" => Enumerated,
        "BANDWIDTH" | "AVERAGE-BANDWIDTH" | "LAST-MSN" | "LAST-PART" | "SKIPPED-SEGMENTS"
        | "BYTERANGE-START" | "BYTERANGE-LENGTH" | "BIT-DEPTH" | "SAMPLE-RATE" => Integer,
        "RESOLUTION" => Resolution,
        "CODECS"
        | "SUPPLEMENTAL-CODECS"
        | "GROUP-ID"
        | "NAME"
        | "LANGUAGE"
        | "ASSOC-LANGUAGE"
        | "CHANNELS"
        | "INSTREAM-ID"
        | "AUDIO"
        | "VIDEO"
        | "SUBTITLES"
        | "PATHWAY-ID"
        | "SERVER-URI"
        | "STABLE-VARIANT-ID"
        | "STABLE-RENDITION-ID"
        | "ID"
        | "CLASS"
        | "CUE"
        | "START-DATE"
        | "END-DATE"
        | "RECENTLY-REMOVED-DATERANGES"
        | "KEYFORMAT"
        | "KEYFORMATVERSIONS"
        | "DATA-ID"
        | "REQ-VIDEO-LAYOUT"
        | "ALLOWED-CPC" => Quoted,
        "SCTE35-CMD" | "SCTE35-OUT" | "SCTE35-IN" => Hex,
        _ => return None,
    };
    // CLOSED-CAPTIONS is NONE or quoted; VALUE and QUERYPARAM differ by tag: not judged.
    Some(kind)
}
