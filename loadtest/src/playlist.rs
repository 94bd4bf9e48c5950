//! Reading playlists the way a viewer does: which renditions there are, and which units of media are new.
//!
//! A tolerant reader restricted to what a viewer acts on, borrowing from the text: it runs once per part and viewer,
//! thousands of times a second, and must cost less than serving the playlist did. Invariants: linear in the text, at
//! most [`MAX_UNITS`] units kept, unknown tags skipped, nothing panics. Deliberately absent: validation (that is the
//! conformance checker's), delta updates (never asked for), byte ranges, keys.
#![deny(clippy::disallowed_methods)]

/// Units of media kept from one playlist, newest last; older ones are let go.
pub(crate) const MAX_UNITS: usize = 1024;

/// The playlist cannot be read as one: the server is to blame, a retry may help if it was cut short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PlaylistError {
    #[error("the body is not UTF-8 text")]
    NotText,
    #[error("the first line is not #EXTM3U")]
    NoHeader,
    #[error("no EXT-X-TARGETDURATION in a media playlist")]
    NoTargetDuration,
    #[error("no variant in a multivariant playlist")]
    NoVariant,
}

/// A Partial Segment, or a whole Media Segment where the playlist has no parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unit<'a> {
    pub(crate) msn: u64,
    /// `None`: a whole segment.
    pub(crate) part: Option<u32>,
    pub(crate) uri: &'a str,
    pub(crate) duration_us: u64,
    pub(crate) independent: bool,
    /// GAP: it cannot be had.
    pub(crate) gap: bool,
}

/// A Media Playlist as far as a viewer cares.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct MediaView<'a> {
    pub(crate) target_duration_us: u64,
    /// PART-TARGET; `None` when the playlist has no parts.
    pub(crate) part_target_us: Option<u64>,
    pub(crate) part_hold_back_us: u64,
    pub(crate) hold_back_us: u64,
    pub(crate) can_block: bool,
    pub(crate) ended: bool,
    pub(crate) media_sequence: u64,
    /// URI of the newest EXT-X-MAP.
    pub(crate) init: Option<&'a str>,
    pub(crate) units: Vec<Unit<'a>>,
    /// What does not exist yet: the (MSN, Part Index) after the newest unit. The part is 0 without parts.
    pub(crate) next: (u64, u32),
    /// Most parts that any complete segment lists, 0 if unknown.
    pub(crate) segment_parts: u32,
}

/// Whether the text is a Multivariant Playlist.
pub(crate) fn is_multivariant(text: &str) -> bool {
    text.contains("#EXT-X-STREAM-INF:")
}

/// Reads a Media Playlist.
pub(crate) fn media(body: &[u8]) -> Result<MediaView<'_>, PlaylistError> {
    let text = std::str::from_utf8(body).map_err(|_| PlaylistError::NotText)?;
    let mut lines = text.lines();
    if lines.next() != Some("#EXTM3U") {
        return Err(PlaylistError::NoHeader);
    }
    let mut reader = Reader::default();
    for line in lines {
        reader.line(line);
    }
    let mut view = reader.view;
    if view.target_duration_us == 0 {
        return Err(PlaylistError::NoTargetDuration);
    }
    view.next = (reader.msn.unwrap_or(view.media_sequence), reader.part);
    Ok(view)
}

#[derive(Default)]
struct Reader<'a> {
    view: MediaView<'a>,
    /// Of the segment being read.
    msn: Option<u64>,
    part: u32,
    duration_us: u64,
    gap: bool,
}

impl<'a> Reader<'a> {
    fn line(&mut self, line: &'a str) {
        let Some(tag) = line.strip_prefix("#EXT") else {
            if !line.is_empty() && !line.starts_with('#') {
                self.segment(line);
            }
            return;
        };
        let colon = tag.bytes().position(|b| b == b':').unwrap_or(tag.len());
        let (name, value) = (&tag[..colon], tag.get(colon + 1..).unwrap_or_default());
        let view = &mut self.view;
        match name {
            "-X-PART" => self.partial(value),
            "INF" => self.duration_us = micros(value.split(',').next().unwrap_or_default()),
            "-X-GAP" => self.gap = true,
            "-X-MAP" => view.init = attribute(value, "URI"),
            "-X-TARGETDURATION" => view.target_duration_us = micros(value),
            "-X-MEDIA-SEQUENCE" => {
                view.media_sequence = value.parse().unwrap_or_default();
                self.msn = Some(view.media_sequence);
            }
            "-X-PART-INF" => view.part_target_us = attribute(value, "PART-TARGET").map(micros),
            "-X-SERVER-CONTROL" => {
                view.can_block = attribute(value, "CAN-BLOCK-RELOAD") == Some("YES");
                view.part_hold_back_us = attribute(value, "PART-HOLD-BACK").map_or(0, micros);
                view.hold_back_us = attribute(value, "HOLD-BACK").map_or(0, micros);
            }
            "-X-ENDLIST" => view.ended = true,
            _ => {}
        }
    }

    fn partial(&mut self, attributes: &'a str) {
        let mut unit = Unit {
            msn: self.msn.unwrap_or_default(),
            part: Some(self.part),
            uri: "",
            duration_us: 0,
            independent: false,
            gap: false,
        };
        for (name, value) in Attributes(attributes) {
            match name {
                "URI" => unit.uri = value,
                "DURATION" => unit.duration_us = micros(value),
                "INDEPENDENT" => unit.independent = value == "YES",
                "GAP" => unit.gap = value == "YES",
                _ => {}
            }
        }
        if unit.uri.is_empty() {
            return;
        }
        self.part = self.part.saturating_add(1);
        self.keep(unit);
    }

    fn segment(&mut self, uri: &'a str) {
        let msn = self.msn.unwrap_or_default();
        if self.view.part_target_us.is_none() {
            self.keep(Unit {
                msn,
                part: None,
                uri,
                duration_us: self.duration_us,
                independent: true,
                gap: self.gap,
            });
        }
        self.view.segment_parts = self.view.segment_parts.max(self.part);
        self.msn = Some(msn.saturating_add(1));
        self.part = 0;
        self.gap = false;
    }

    fn keep(&mut self, unit: Unit<'a>) {
        if self.view.units.len() >= MAX_UNITS {
            self.view.units.drain(..MAX_UNITS / 2);
        }
        self.view.units.push(unit);
    }
}

/// One variant of a Multivariant Playlist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct VariantView<'a> {
    pub(crate) uri: &'a str,
    pub(crate) bandwidth_bps: u64,
    /// URI of the default audio rendition of its audio group, if that has one of its own.
    pub(crate) audio_uri: Option<&'a str>,
}

/// Reads the variants of a Multivariant Playlist, in its order.
pub(crate) fn multivariant(body: &[u8]) -> Result<Vec<VariantView<'_>>, PlaylistError> {
    let text = std::str::from_utf8(body).map_err(|_| PlaylistError::NotText)?;
    if !text.starts_with("#EXTM3U") {
        return Err(PlaylistError::NoHeader);
    }
    let audio = |group: &str| {
        let renditions = || {
            text.lines()
                .filter_map(|line| line.strip_prefix("#EXT-X-MEDIA:"))
                .filter(|a| attribute(a, "TYPE") == Some("AUDIO") && attribute(a, "GROUP-ID") == Some(group))
        };
        renditions()
            .find(|a| attribute(a, "DEFAULT") == Some("YES"))
            .or_else(|| renditions().next())
            .and_then(|a| attribute(a, "URI"))
    };
    let mut variants = Vec::new();
    let mut pending: Option<&str> = None;
    for line in text.lines() {
        if let Some(attributes) = line.strip_prefix("#EXT-X-STREAM-INF:") {
            pending = Some(attributes);
        } else if !line.is_empty()
            && !line.starts_with('#')
            && variants.len() < MAX_UNITS
            && let Some(attributes) = pending.take()
        {
            variants.push(VariantView {
                uri: line,
                bandwidth_bps: attribute(attributes, "BANDWIDTH")
                    .and_then(|v| v.parse().ok())
                    .unwrap_or_default(),
                audio_uri: attribute(attributes, "AUDIO").and_then(audio),
            });
        }
    }
    if variants.is_empty() {
        return Err(PlaylistError::NoVariant);
    }
    Ok(variants)
}

/// The value of an attribute, without its quotes.
pub(crate) fn attribute<'a>(list: &'a str, wanted: &str) -> Option<&'a str> {
    Attributes(list).find(|(name, _)| *name == wanted).map(|(_, value)| value)
}

/// Names and values (without quotes) of an attribute list, as far as it is well-formed. Searches bytes: the pieces are
/// too short for a general string search to pay.
struct Attributes<'a>(&'a str);

impl<'a> Iterator for Attributes<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let find = |text: &str, byte: u8| text.bytes().position(|b| b == byte);
        let equals = find(self.0, b'=')?;
        let (name, after) = (&self.0[..equals], &self.0[equals + 1..]);
        let (value, tail) = if let Some(quoted) = after.strip_prefix('"') {
            let end = find(quoted, b'"')?;
            (&quoted[..end], &quoted[end + 1..])
        } else {
            let end = find(after, b',').unwrap_or(after.len());
            (&after[..end], &after[end..])
        };
        self.0 = tail.strip_prefix(',').unwrap_or(tail);
        Some((name.trim_start(), value))
    }
}

/// Decimal seconds as microseconds; digits beyond the sixth are dropped, what is no number counts as 0.
pub(crate) fn micros(seconds: &str) -> u64 {
    let (whole, fraction) = seconds.trim().split_once('.').unwrap_or((seconds.trim(), ""));
    let digit = |b: u8| {
        if b.is_ascii_digit() { u64::from(b - b'0') } else { 0 }
    };
    let mut value = whole.parse::<u64>().unwrap_or_default();
    let mut digits = fraction.bytes();
    for _ in 0..6 {
        value = value.saturating_mul(10).saturating_add(digits.next().map_or(0, digit));
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) const LIVE: &str = "#EXTM3U\n#EXT-X-VERSION:6\n#EXT-X-TARGETDURATION:2\n\
        #EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,HOLD-BACK=6.0,PART-HOLD-BACK=1.002\n\
        #EXT-X-PART-INF:PART-TARGET=0.334\n#EXT-X-MEDIA-SEQUENCE:100\n#EXT-X-DISCONTINUITY-SEQUENCE:0\n\
        #EXT-X-MAP:URI=\"init-0000000000000abc.mp4\"\n#EXTINF:2.00000,\n100.m4s\n\
        #EXT-X-PART:DURATION=0.33333,URI=\"101.0.m4s\",INDEPENDENT=YES\n\
        #EXT-X-PART:DURATION=0.33333,URI=\"101.1.m4s\"\n#EXTINF:0.66666,\n101.m4s\n\
        #EXT-X-PART:DURATION=0.33333,URI=\"102.0.m4s\",INDEPENDENT=YES,GAP=YES\n\
        #EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"102.1.m4s\"\n\
        #EXT-X-RENDITION-REPORT:URI=\"../a/media.m3u8\",LAST-MSN=102,LAST-PART=0\n";

    #[test]
    fn a_live_playlist() {
        let view = media(LIVE.as_bytes()).unwrap();
        assert_eq!(view.target_duration_us, 2_000_000);
        assert_eq!(view.part_target_us, Some(334_000));
        assert_eq!(view.part_hold_back_us, 1_002_000);
        assert!(view.can_block && !view.ended);
        assert_eq!(view.init, Some("init-0000000000000abc.mp4"));
        assert_eq!((view.next, view.segment_parts), ((102, 1), 2));
        let units: Vec<_> = view.units.iter().map(|u| (u.msn, u.part, u.uri, u.independent, u.gap)).collect();
        assert_eq!(
            units,
            [
                (101, Some(0), "101.0.m4s", true, false),
                (101, Some(1), "101.1.m4s", false, false),
                (102, Some(0), "102.0.m4s", true, true),
            ]
        );
        assert_eq!(view.units[0].duration_us, 333_330);
    }

    #[test]
    fn whole_segments_without_parts() {
        let text = "#EXTM3U\r\n#EXT-X-TARGETDURATION:4\r\n#EXT-X-MEDIA-SEQUENCE:7\r\n#EXTINF:4,\r\na.ts\r\n\
            #EXT-X-GAP\r\n#EXTINF:3.5,\r\nb.ts\r\n#EXT-X-ENDLIST\r\n";
        let view = media(text.as_bytes()).unwrap();
        assert!(view.ended && !view.can_block);
        assert_eq!(view.next, (9, 0));
        assert_eq!(view.units[1].uri, "b.ts");
        assert_eq!((view.units[1].duration_us, view.units[1].gap), (3_500_000, true));
        assert!(!view.units[0].gap);
    }

    #[test]
    fn refused() {
        for (text, error) in [
            ("", PlaylistError::NoHeader),
            ("<html>", PlaylistError::NoHeader),
            ("#EXTM3U\n", PlaylistError::NoTargetDuration),
        ] {
            assert_eq!(media(text.as_bytes()), Err(error), "{text}");
        }
        assert_eq!(media(b"\xff\xfe"), Err(PlaylistError::NotText));
        assert_eq!(multivariant(b"#EXTM3U\n"), Err(PlaylistError::NoVariant));
    }

    #[test]
    fn variants_and_their_audio() {
        let text = "#EXTM3U\n#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"audio\",NAME=\"x, URI=no\",DEFAULT=NO,URI=\"b/media.m3u8\"\n\
            #EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"audio\",NAME=\"y\",DEFAULT=YES,URI=\"a/media.m3u8\"\n\
            #EXT-X-STREAM-INF:BANDWIDTH=300,CODECS=\"avc1.64001f,mp4a.40.2\",AUDIO=\"audio\"\nv1/media.m3u8\n\
            #EXT-X-STREAM-INF:BANDWIDTH=100,AVERAGE-BANDWIDTH=90\nv2/media.m3u8\n";
        assert!(is_multivariant(text) && !is_multivariant(LIVE));
        let variants = multivariant(text.as_bytes()).unwrap();
        assert_eq!(variants.len(), 2);
        assert_eq!(variants[0].audio_uri, Some("a/media.m3u8"));
        assert_eq!((variants[1].uri, variants[1].bandwidth_bps), ("v2/media.m3u8", 100));
        assert_eq!(variants[1].audio_uri, None);
    }

    #[test]
    fn the_writer_of_the_treaty_is_understood() {
        use sigma_shared::mode::Mode;
        use sigma_shared::playlist::{Foot, Head, PartLine, SegmentLine, SegmentWriter, ServerControl};
        use sigma_shared::reload::Tip;
        use sigma_shared::resource::{InitHash, Listed};
        let part = PartLine { duration: 18_000, independent: false, gap: false };
        let segment = |msn| SegmentLine {
            msn,
            duration: 36_000,
            discontinuity: false,
            gap: false,
            independent: true,
            init: InitHash(1),
            program_date_time_ms: 0,
        };
        let tip = Tip { complete_msn: 8, complete_parts: 2, open_parts: 1, ended: false };
        let control = ServerControl { target_duration_s: 1, part_target_ms: 200, part_hold_back_ms: 600 };
        let (listed, mode) = (Listed::Media, Mode::Ultra);
        let mut text =
            Head { listed, mode, control, media_sequence: 8, discontinuity_sequence: 0, skipped: None }
                .to_string();
        let mut writer = SegmentWriter::new(listed, None);
        writer.segment(&mut text, &segment(8), &[part, part]);
        writer.open(&mut text, &segment(9), &[part]);
        let foot = Foot { listed, mode, tip, next_init: None, dateranges: &[], reports: &[] };
        text.push_str(&foot.to_string());
        let view = media(text.as_bytes()).unwrap();
        assert_eq!(view.next, tip.next_part());
        assert_eq!(view.units.last().map(|u| (u.msn, u.part)), Some((9, Some(0))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(tail in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut body = b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-PART:".to_vec();
            body.extend_from_slice(&tail);
            let _ = media(&body);
            let _ = multivariant(&body);
        }
    }

    #[test]
    fn units_are_bounded() {
        let mut text = String::from("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-PART-INF:PART-TARGET=0.2\n");
        for parts in 1..=3000u32 {
            text.push_str("#EXT-X-PART:DURATION=0.2,URI=\"p\"\n");
            if parts % 500 == 0 {
                let view = media(text.as_bytes()).unwrap();
                assert!(view.units.len() <= MAX_UNITS);
                assert_eq!(view.next.1, parts);
            }
        }
    }
}
