//! `CMSD-Static` (CTA-5006): what the origin tells caches and clients about an object, so that an edge knows an
//! object's kind and duration without parsing it (law A5).

use crate::resource::MediaResource;
use std::fmt;

/// The header's name, in the lower case of HTTP/2.
pub const CMSD_STATIC: &str = "cmsd-static";

/// Where an object is on its channel's timeline: a key of this project's own, a string `"START-END"` of microseconds.
pub const SPAN: &str = "com.sigma-live-span";

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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CmsdStatic {
    /// `at`: wall clock at which the first byte was available at the origin, Unix milliseconds.
    pub available_at_ms: Option<u64>,
    /// [`SPAN`]: first moment and first moment after it, microseconds since 1970 on the channel's timeline. Neighbours touch.
    pub span_us: Option<(u64, u64)>,
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
        if let Some((start, end)) = self.span_us {
            write!(f, "{SPAN}=\"{start}-{end}\",")?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn written_and_read() {
        let header = CmsdStatic {
            available_at_ms: Some(1_700_000_000_123),
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
            let _ = (span_us(&header), object_type(&header));
            let written = format!("{SPAN}=\"{start}-{end}\",{header}");
            prop_assert_eq!(span_us(&written), (start < end).then_some((start, end)));
        }
    }
}
