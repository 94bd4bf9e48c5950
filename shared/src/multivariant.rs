//! The Multivariant Playlist: its model and writer (draft-pantos-hls-rfc8216bis section 4.4.6).
//!
//! Invariants: variants are written in the order given; the first is where a player starts; all modes offer the same
//! renditions.

use crate::id::RenditionId;
use crate::mode::Mode;
use crate::resource::{Listed, MediaResource};
use std::fmt;

/// One EXT-X-STREAM-INF.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variant {
    /// Whose Media Playlist it is.
    pub rendition: RenditionId,
    /// BANDWIDTH: peak segment bit rate including the audio group, bits per second (MV-01, MV-02).
    pub bandwidth_bps: u64,
    /// AVERAGE-BANDWIDTH, bits per second.
    pub average_bandwidth_bps: u64,
    /// RFC 6381 strings of all formats, including the audio group's (MV-03).
    pub codecs: Vec<String>,
    /// RESOLUTION in pixels (MV-04); `None` without video.
    pub resolution: Option<(u32, u32)>,
    /// FRAME-RATE as a fraction (MV-04); `None` without video.
    pub frame_rate: Option<(u32, u32)>,
}

/// One EXT-X-I-FRAME-STREAM-INF (MV-08).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IFrameVariant {
    /// Whose random access points these are.
    pub rendition: RenditionId,
    /// BANDWIDTH: peak bit rate, bits per second.
    pub bandwidth_bps: u64,
    /// AVERAGE-BANDWIDTH, bits per second.
    pub average_bandwidth_bps: u64,
    /// RFC 6381 string of the video.
    pub codec: String,
    /// RESOLUTION in pixels.
    pub resolution: (u32, u32),
}

/// One EXT-X-MEDIA of TYPE=AUDIO; all are in the group `audio`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AudioRendition {
    /// Whose Media Playlist it is.
    pub rendition: RenditionId,
    /// NAME
    pub name: String,
    /// LANGUAGE (MV-10)
    pub language: String,
    /// CHANNELS
    pub channels: u32,
}

/// A whole Multivariant Playlist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Multivariant {
    /// Audio renditions; the first is the default.
    pub audio: Vec<AudioRendition>,
    /// Variants, the preferred first.
    pub variants: Vec<Variant>,
    /// I-frame playlists of the variants with video.
    pub iframes: Vec<IFrameVariant>,
}

impl Multivariant {
    /// The playlist of a mode: the same renditions, other Media Playlists.
    #[must_use]
    pub fn of_mode(&self, mode: Mode) -> impl fmt::Display + '_ {
        OfMode(self, mode)
    }
}

struct OfMode<'a>(&'a Multivariant, Mode);

impl fmt::Display for OfMode<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(playlist, mode) = self;
        let media = MediaResource::Playlist(Listed::Media, *mode);
        let iframes = MediaResource::Playlist(Listed::IFrames, *mode);
        // MV-09; nothing here needs an EXT-X-VERSION (SYN-08).
        f.write_str("#EXTM3U\n#EXT-X-INDEPENDENT-SEGMENTS\n")?;
        for (index, audio) in playlist.audio.iter().enumerate() {
            let default = if index == 0 { "YES" } else { "NO" };
            writeln!(
                f,
                "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"audio\",NAME=\"{}\",LANGUAGE=\"{}\",DEFAULT={default},\
                 AUTOSELECT=YES,CHANNELS=\"{}\",URI=\"{}/{media}\"",
                audio.name, audio.language, audio.channels, audio.rendition
            )?;
        }
        for variant in &playlist.variants {
            write!(
                f,
                "#EXT-X-STREAM-INF:BANDWIDTH={},AVERAGE-BANDWIDTH={},CODECS=\"{}\"",
                variant.bandwidth_bps,
                variant.average_bandwidth_bps,
                variant.codecs.join(",")
            )?;
            if let Some((width, height)) = variant.resolution {
                write!(f, ",RESOLUTION={width}x{height}")?;
            }
            if let Some((num, den)) = variant.frame_rate {
                let thousandths = (u64::from(num) * 1000 + u64::from(den) / 2) / u64::from(den.max(1));
                write!(f, ",FRAME-RATE={}.{:03}", thousandths / 1000, thousandths % 1000)?;
            }
            if !playlist.audio.is_empty() && variant.resolution.is_some() {
                f.write_str(",AUDIO=\"audio\"")?;
            }
            writeln!(f, ",CLOSED-CAPTIONS=NONE\n{}/{media}", variant.rendition)?;
        }
        for variant in &playlist.iframes {
            let (width, height) = variant.resolution;
            write!(f, "#EXT-X-I-FRAME-STREAM-INF:BANDWIDTH={}", variant.bandwidth_bps)?;
            write!(f, ",AVERAGE-BANDWIDTH={},CODECS=\"{}\"", variant.average_bandwidth_bps, variant.codec)?;
            writeln!(f, ",RESOLUTION={width}x{height},URI=\"{}/{iframes}\"", variant.rendition)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden() {
        let playlist = Multivariant {
            audio: vec![AudioRendition {
                rendition: "audio".parse().unwrap(),
                name: "Original".into(),
                language: "und".into(),
                channels: 2,
            }],
            variants: vec![Variant {
                rendition: "source".parse().unwrap(),
                bandwidth_bps: 3_200_000,
                average_bandwidth_bps: 2_900_000,
                codecs: vec!["avc1.64001f".into(), "mp4a.40.2".into()],
                resolution: Some((1280, 720)),
                frame_rate: Some((30_000, 1001)),
            }],
            iframes: vec![IFrameVariant {
                rendition: "source".parse().unwrap(),
                bandwidth_bps: 400_000,
                average_bandwidth_bps: 300_000,
                codec: "avc1.64001f".into(),
                resolution: (1280, 720),
            }],
        };
        insta::assert_snapshot!(playlist.of_mode(Mode::Ultra), @r##"
        #EXTM3U
        #EXT-X-INDEPENDENT-SEGMENTS
        #EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="audio",NAME="Original",LANGUAGE="und",DEFAULT=YES,AUTOSELECT=YES,CHANNELS="2",URI="audio/media.m3u8"
        #EXT-X-STREAM-INF:BANDWIDTH=3200000,AVERAGE-BANDWIDTH=2900000,CODECS="avc1.64001f,mp4a.40.2",RESOLUTION=1280x720,FRAME-RATE=29.970,AUDIO="audio",CLOSED-CAPTIONS=NONE
        source/media.m3u8
        #EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=400000,AVERAGE-BANDWIDTH=300000,CODECS="avc1.64001f",RESOLUTION=1280x720,URI="source/iframes.m3u8"
        "##);
        let low = playlist.of_mode(Mode::Low).to_string();
        let uris = ["audio/low.m3u8", "source/low.m3u8", "source/iframes-low.m3u8"];
        assert!(uris.iter().all(|uri| low.contains(uri)) && !low.contains("media.m3u8"), "{low}");
    }
}
