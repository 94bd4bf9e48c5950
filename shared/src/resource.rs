//! The URL grammar of viewers: one type, parsed and written in one place.
//!
//! ```text
//! /live/{channel}/index.m3u8                      Multivariant Playlist
//! /live/{channel}/{rendition}/media.m3u8          Media Playlist of mode ultra (low.m3u8, normal.m3u8: the other modes)
//! /live/{channel}/{rendition}/iframes.m3u8        I-frame playlist of mode ultra (iframes-low.m3u8, iframes-normal.m3u8)
//! /live/{channel}/{rendition}/init-{hash}.mp4     Media Initialization Section, named by its content
//! /live/{channel}/{rendition}/{msn}.m4s           Media Segment
//! /live/{channel}/{rendition}/{msn}.{part}.m4s    Partial Segment
//! /live/{channel}/{rendition}/{msn}.i.m4s         the random access point that a segment starts with, alone
//! ```
//!
//! Invariant: every path has exactly one spelling (no percent-encoding, no leading zeros), so a path that parses is
//! its own cache key.

use crate::id::{ChannelId, RenditionId};
use crate::mode::Mode;
use std::fmt;

/// The content hash in an init section's name: 16 lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct InitHash(pub u64);

impl fmt::Display for InitHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What a playlist of a rendition lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Listed {
    /// Media Segments, and Partial Segments where the mode has them.
    Media,
    /// The random access points of segments (EXT-X-I-FRAMES-ONLY).
    IFrames,
}

/// One object of a rendition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MediaResource {
    /// `media.m3u8` and its siblings.
    Playlist(Listed, Mode),
    /// `init-{hash}.mp4`
    Init(InitHash),
    /// `{msn}.m4s`
    Segment {
        /// Media Sequence Number
        msn: u64,
    },
    /// `{msn}.{part}.m4s`
    Part {
        /// Media Sequence Number of the parent segment
        msn: u64,
        /// Part Index
        part: u32,
    },
    /// `{msn}.i.m4s`
    IFrame {
        /// Media Sequence Number of the segment it starts
        msn: u64,
    },
}

/// The file names of playlists, the one place where they are spelled.
const PLAYLISTS: [(&str, Listed, Mode); 6] = [
    ("media.m3u8", Listed::Media, Mode::Ultra),
    ("low.m3u8", Listed::Media, Mode::Low),
    ("normal.m3u8", Listed::Media, Mode::Normal),
    ("iframes.m3u8", Listed::IFrames, Mode::Ultra),
    ("iframes-low.m3u8", Listed::IFrames, Mode::Low),
    ("iframes-normal.m3u8", Listed::IFrames, Mode::Normal),
];

/// Any object under `/live/`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum LiveResource {
    /// `/live/{channel}/index.m3u8`
    Multivariant(ChannelId),
    /// `/live/{channel}/{rendition}/…`
    Media(ChannelId, RenditionId, MediaResource),
}

impl LiveResource {
    /// Parses an absolute path (no query). `None` is a 404: the grammar is closed.
    #[must_use]
    pub fn parse(path: &str) -> Option<Self> {
        let mut segments = path.strip_prefix("/live/")?.split('/');
        let channel: ChannelId = segments.next()?.parse().ok()?;
        let second = segments.next()?;
        let Some(file) = segments.next() else {
            return (second == "index.m3u8").then_some(Self::Multivariant(channel));
        };
        if segments.next().is_some() {
            return None;
        }
        Some(Self::Media(channel, second.parse().ok()?, MediaResource::parse(file)?))
    }

    /// The channel this belongs to.
    #[must_use]
    pub fn channel(&self) -> &ChannelId {
        match self {
            Self::Multivariant(channel) | Self::Media(channel, ..) => channel,
        }
    }

    /// Whether this is a Media Playlist, the only kind that Delivery Directives apply to.
    #[must_use]
    pub fn is_media_playlist(&self) -> bool {
        matches!(self, Self::Media(.., MediaResource::Playlist(..)))
    }
}

impl MediaResource {
    /// Parses the last path segment.
    #[must_use]
    pub fn parse(file: &str) -> Option<Self> {
        if let Some((_, listed, mode)) = PLAYLISTS.iter().find(|(name, ..)| *name == file) {
            return Some(Self::Playlist(*listed, *mode));
        }
        if let Some(hash) = file.strip_prefix("init-").and_then(|rest| rest.strip_suffix(".mp4")) {
            let lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
            if hash.len() != 16 || !hash.bytes().all(lower_hex) {
                return None;
            }
            return u64::from_str_radix(hash, 16).ok().map(|hash| Self::Init(InitHash(hash)));
        }
        let stem = file.strip_suffix(".m4s")?;
        match stem.split_once('.') {
            None => Some(Self::Segment { msn: canonical(stem)? }),
            Some((msn, "i")) => Some(Self::IFrame { msn: canonical(msn)? }),
            Some((msn, part)) => Some(Self::Part { msn: canonical(msn)?, part: canonical(part)? }),
        }
    }
}

/// A decimal without sign or leading zeros: one number, one spelling.
fn canonical<T: std::str::FromStr>(digits: &str) -> Option<T> {
    let canonical = digits == "0" || !digits.starts_with('0');
    (canonical && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

impl fmt::Display for MediaResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Playlist(listed, mode) => {
                let named = PLAYLISTS.iter().find(|(_, l, m)| (l, m) == (listed, mode));
                f.write_str(named.map_or("", |(name, ..)| name))
            }
            Self::Init(hash) => write!(f, "init-{hash}.mp4"),
            Self::Segment { msn } => write!(f, "{msn}.m4s"),
            Self::Part { msn, part } => write!(f, "{msn}.{part}.m4s"),
            Self::IFrame { msn } => write!(f, "{msn}.i.m4s"),
        }
    }
}

impl fmt::Display for LiveResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Multivariant(channel) => write!(f, "/live/{channel}/index.m3u8"),
            Self::Media(channel, rendition, object) => write!(f, "/live/{channel}/{rendition}/{object}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_spelling_each() {
        for path in [
            "/live/demo/index.m3u8",
            "/live/demo/v720/media.m3u8",
            "/live/demo/v720/low.m3u8",
            "/live/demo/v720/normal.m3u8",
            "/live/demo/v720/iframes.m3u8",
            "/live/demo/v720/iframes-low.m3u8",
            "/live/demo/v720/iframes-normal.m3u8",
            "/live/demo/v720/885123.i.m4s",
            "/live/demo/v720/init-00000000000000af.mp4",
            "/live/demo/v720/885123.m4s",
            "/live/demo/a/0.0.m4s",
            "/live/demo/a/885123.11.m4s",
        ] {
            assert_eq!(LiveResource::parse(path).map(|r| r.to_string()).as_deref(), Some(path));
        }
    }

    #[test]
    fn everything_else_is_unknown() {
        for path in [
            "",
            "/",
            "/live/",
            "/live/demo",
            "/live/demo/",
            "/live/demo/media.m3u8",
            "/live/Demo/index.m3u8",
            "/live/demo/v720/",
            "/live/demo/v720/index.m3u8",
            "/live/demo/v720/1.m4s/",
            "/live/demo/v720/01.m4s",
            "/live/demo/v720/+1.m4s",
            "/live/demo/v720/1.01.m4s",
            "/live/demo/v720/1.I.m4s",
            "/live/demo/v720/iframes-ultra.m3u8",
            "/live/demo/v720/1.2.3.m4s",
            "/live/demo/v720/-1.m4s",
            "/live/demo/v720/18446744073709551616.m4s",
            "/live/demo/v720/init-AF.mp4",
            "/live/demo/v720/init-00000000000000AF.mp4",
            "/live/../v720/media.m3u8",
            "/live/%64emo/index.m3u8",
            "//live/demo/index.m3u8",
        ] {
            assert_eq!(LiveResource::parse(path), None, "{path}");
        }
    }

    proptest! {
        #[test]
        fn what_parses_prints_as_it_was(path in "/live/[a-z0-9./_-]{0,40}|\\PC{0,40}") {
            if let Some(resource) = LiveResource::parse(&path) {
                prop_assert_eq!(resource.to_string(), path);
            }
        }
    }
}
