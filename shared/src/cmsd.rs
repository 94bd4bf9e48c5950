//! `CMSD-Static` (CTA-5006): what the origin tells caches and clients about an object, so that an edge knows an
//! object's kind and duration without parsing it (law A5).

use crate::resource::MediaResource;
use std::fmt;

/// The header's name, in the lower case of HTTP/2.
pub const CMSD_STATIC: &str = "cmsd-static";

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_and_read() {
        let header = CmsdStatic {
            available_at_ms: Some(1_700_000_000_123),
            duration_ms: Some(200),
            held_ms: None,
            next_part: Some((7, 2)),
            object_type: ObjectType::Video,
        }
        .to_string();
        assert_eq!(header, "at=1700000000123,d=200,nor=\"7.2.m4s\",ot=v,sf=h,st=ll");
        assert_eq!(string(&header, "nor"), Some("7.2.m4s"));
        assert_eq!(string(&header, "ot"), None, "a token is no string");
        assert_eq!(integer(&header, "at"), Some(1_700_000_000_123));
        assert_eq!(integer(&header, "d"), Some(200));
        assert_eq!(integer(&header, "ht"), None);
    }
}
