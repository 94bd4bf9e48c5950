//! `CMSD-Static` (CTA-5006): what the origin tells caches and clients about an object, so that an edge knows an
//! object's kind and duration without parsing it (law A5).

use crate::id::RenditionId;
use crate::reload::Tip;
use crate::resource::MediaResource;
use std::fmt;

/// The header's name, in the lower case of HTTP/2.
pub const CMSD_STATIC: &str = "cmsd-static";

/// Where an object is on its channel's timeline: a key of this project's own, a string `"START-END"` of microseconds.
pub const SPAN: &str = "com.sigma-live-span";

/// How far a Media Playlist has got: a key of this project's own, a string of what a [`Tip`] is made of.
pub const TIP: &str = "com.sigma-live-tip";

/// The renditions that a channel has, in a Multivariant Playlist's header: a key of this project's own, a string of names.
pub const RENDITIONS: &str = "com.sigma-live-renditions";

/// `ot`: the kind of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectType {
    /// `m`: a playlist
    Manifest,
    /// `a`: audio only
    Audio,
    /// `v`: video only
    Video,
    /// `i`: an init section
    Init,
}

/// The keys this project sets. `Display` writes the header value, keys in alphabetical order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CmsdStatic {
    /// `at`: wall clock at which the first byte was available at the origin, Unix milliseconds.
    pub available_at_ms: Option<u64>,
    /// [`RENDITIONS`]; not written when there are none.
    pub renditions: Vec<RenditionId>,
    /// [`SPAN`]: first moment and first moment after it, microseconds since 1970 on the channel's timeline. Neighbours touch.
    pub span_us: Option<(u64, u64)>,
    /// [`TIP`]
    pub tip: Option<Tip>,
    /// `d`: duration in milliseconds.
    pub duration_ms: Option<u32>,
    /// `ht`: how long this response was held, milliseconds.
    pub held_ms: Option<u32>,
    /// `nor`: the part that is asked for next, as Media Sequence Number and Part Index, in the same folder.
    pub next_part: Option<(u64, u32)>,
    /// `ot`
    pub object_type: ObjectType,
}

impl fmt::Display for CmsdStatic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(at) = self.available_at_ms {
            write!(f, "at={at},")?;
        }
        for (place, rendition) in self.renditions.iter().enumerate() {
            let before = if place == 0 { format_args!("{RENDITIONS}=\"") } else { format_args!(" ") };
            write!(f, "{before}{rendition}")?;
        }
        if !self.renditions.is_empty() {
            f.write_str("\",")?;
        }
        if let Some((start, end)) = self.span_us {
            write!(f, "{SPAN}=\"{start}-{end}\",")?;
        }
        if let Some(Tip { complete_msn, complete_parts, open_parts, ended }) = self.tip {
            let end = if ended { ".end" } else { "" };
            write!(f, "{TIP}=\"{complete_msn}.{complete_parts}.{open_parts}{end}\",")?;
        }
        if let Some(d) = self.duration_ms {
            write!(f, "d={d},")?;
        }
        if let Some(ht) = self.held_ms {
            write!(f, "ht={ht},")?;
        }
        if let Some((msn, part)) = self.next_part {
            write!(f, "nor=\"{}\",", MediaResource::Part { msn, part })?;
        }
        let ot = match self.object_type {
            ObjectType::Manifest => 'm',
            ObjectType::Audio => 'a',
            ObjectType::Video => 'v',
            ObjectType::Init => 'i',
        };
        write!(f, "ot={ot},sf=h,st=ll")
    }
}

/// The integer value of `key` in a CMSD-Static header, if it is there.
#[must_use]
pub fn integer(header: &str, key: &str) -> Option<u64> {
    header.split(',').find_map(|pair| pair.trim().strip_prefix(key)?.strip_prefix('=')?.parse().ok())
}

/// The string value of `key` in a CMSD-Static header, if it is there and holds no comma.
#[must_use]
pub fn string<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let value = header.split(',').find_map(|pair| pair.trim().strip_prefix(key)?.strip_prefix('='))?;
    value.strip_prefix('"')?.strip_suffix('"')
}

/// The kind that a CMSD-Static header says.
#[must_use]
pub fn object_type(header: &str) -> Option<ObjectType> {
    let token = header.split(',').find_map(|pair| pair.trim().strip_prefix("ot="))?;
    Some(match token {
        "m" => ObjectType::Manifest,
        "a" => ObjectType::Audio,
        "v" => ObjectType::Video,
        "i" => ObjectType::Init,
        _ => return None,
    })
}

/// The stretch of its channel's timeline that an object is, microseconds, from a CMSD-Static header. Never empty.
#[must_use]
pub fn span_us(header: &str) -> Option<(u64, u64)> {
    let (start, end) = string(header, SPAN)?.split_once('-')?;
    let (start, end) = (start.parse().ok()?, end.parse().ok()?);
    (start < end).then_some((start, end))
}

/// How far the Media Playlist has got that a CMSD-Static header is of.
#[must_use]
pub fn tip(header: &str) -> Option<Tip> {
    let said = string(header, TIP)?;
    let (numbers, ended) = said.strip_suffix(".end").map_or((said, false), |numbers| (numbers, true));
    let mut numbers = numbers.split('.');
    let complete_msn = numbers.next()?.parse().ok()?;
    let (complete_parts, open_parts) = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
    // What is counted on from it stays a number.
    let sane = numbers.next().is_none() && complete_msn < u64::MAX / 2;
    sane.then_some(Tip { complete_msn, complete_parts, open_parts, ended })
}

/// The renditions that the channel has whose Multivariant Playlist a CMSD-Static header is of.
pub fn renditions(header: &str) -> impl Iterator<Item = RenditionId> {
    string(header, RENDITIONS).unwrap_or_default().split(' ').filter_map(|name| name.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn written_and_read() {
        let header = CmsdStatic {
            available_at_ms: Some(1_700_000_000_123),
            renditions: Vec::new(),
            tip: None,
            span_us: Some((1_700_000_000_000_000, 1_700_000_000_200_000)),
            duration_ms: Some(200),
            held_ms: None,
            next_part: Some((7, 2)),
            object_type: ObjectType::Video,
        }
        .to_string();
        assert_eq!(
            header,
            "at=1700000000123,com.sigma-live-span=\"1700000000000000-1700000000200000\",d=200,nor=\"7.2.m4s\",ot=v,sf=h,st=ll"
        );
        assert_eq!(span_us(&header), Some((1_700_000_000_000_000, 1_700_000_000_200_000)));
        assert_eq!(object_type(&header), Some(ObjectType::Video));
        assert_eq!(string(&header, "nor"), Some("7.2.m4s"));
        assert_eq!(string(&header, "ot"), None, "a token is no string");
        assert_eq!(integer(&header, "at"), Some(1_700_000_000_123));
        assert_eq!(integer(&header, "d"), Some(200));
        assert_eq!(integer(&header, "ht"), None);
    }

    #[test]
    fn tips_and_renditions_are_written_and_read() {
        for (ended, expected) in [(false, "\"100.6.2\""), (true, "\"100.6.2.end\"")] {
            let tip = Some(Tip { complete_msn: 100, complete_parts: 6, open_parts: 2, ended });
            let names = ["v720", "a"].map(|name| name.parse::<RenditionId>().unwrap()).to_vec();
            let written = CmsdStatic {
                available_at_ms: None,
                renditions: names.clone(),
                span_us: None,
                tip,
                duration_ms: None,
                held_ms: None,
                next_part: None,
                object_type: ObjectType::Manifest,
            }
            .to_string();
            assert_eq!(
                written,
                format!("com.sigma-live-renditions=\"v720 a\",com.sigma-live-tip={expected},ot=m,sf=h,st=ll")
            );
            assert_eq!(super::tip(&written), tip);
            assert_eq!(renditions(&written).collect::<Vec<_>>(), names);
        }
        for said in [
            "\"100.6\"",
            "\"100.6.2.1\"",
            "\"100.6.2.\"",
            "\"-1.6.2\"",
            "\".end\"",
            "100.6.2",
            "\"18446744073709551615.6.2\"",
        ] {
            assert_eq!(tip(&format!("{TIP}={said},ot=m")), None, "{said}");
        }
        assert_eq!(renditions("ot=m").count(), 0);
    }

    #[test]
    fn what_is_no_span_is_none() {
        for span in ["\"7-7\"", "\"8-7\"", "\"7\"", "\"-7\"", "7-8", "\"a-b\"", "\"1-18446744073709551616\""]
        {
            assert_eq!(span_us(&format!("{SPAN}={span},ot=v")), None, "{span}");
        }
        assert_eq!(object_type("ot=x"), None);
        assert_eq!(object_type("st=ll"), None);
    }

    proptest! {
        #[test]
        fn garbage_is_read_without_a_panic(header in "\\PC{0,60}", start: u64, end: u64) {
            let _ = (span_us(&header), object_type(&header), tip(&header), renditions(&header).count());
            let written = format!("{SPAN}=\"{start}-{end}\",{header}");
            prop_assert_eq!(span_us(&written), (start < end).then_some((start, end)));
        }
    }
}
