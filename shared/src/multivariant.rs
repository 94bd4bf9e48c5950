//! The Multivariant Playlist: its model and writer (draft-pantos-hls-rfc8216bis section 4.4.6).
//!
//! Invariant: variants are written in the order given; the first is where a player starts.

use std::fmt::{self, Write};

/// One EXT-X-STREAM-INF.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Variant {
    /// Relative URI of its Media Playlist.
    pub uri: String,
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

/// One EXT-X-MEDIA of TYPE=AUDIO; all are in the group `audio`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AudioRendition {
    /// Relative URI of its Media Playlist.
    pub uri: String,
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
}

impl fmt::Display for Multivariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // MV-09
        f.write_str("#EXTM3U\n#EXT-X-VERSION:6\n#EXT-X-INDEPENDENT-SEGMENTS\n")?;
        for (index, audio) in self.audio.iter().enumerate() {
            let default = if index == 0 { "YES" } else { "NO" };
            writeln!(
                f,
                "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"audio\",NAME=\"{}\",LANGUAGE=\"{}\",DEFAULT={default},\
                 AUTOSELECT=YES,CHANNELS=\"{}\",URI=\"{}\"",
                audio.name, audio.language, audio.channels, audio.uri
            )?;
        }
        for variant in &self.variants {
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
            if !self.audio.is_empty() && variant.resolution.is_some() {
                f.write_str(",AUDIO=\"audio\"")?;
            }
            f.write_str(",CLOSED-CAPTIONS=NONE\n")?;
            f.write_str(&variant.uri)?;
            f.write_char('\n')?;
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
                uri: "audio/media.m3u8".into(),
                name: "Original".into(),
                language: "und".into(),
                channels: 2,
            }],
            variants: vec![Variant {
                uri: "source/media.m3u8".into(),
                bandwidth_bps: 3_200_000,
                average_bandwidth_bps: 2_900_000,
                codecs: vec!["avc1.64001f".into(), "mp4a.40.2".into()],
                resolution: Some((1280, 720)),
                frame_rate: Some((30_000, 1001)),
            }],
        };
        insta::assert_snapshot!(playlist, @r##"
        #EXTM3U
        #EXT-X-VERSION:6
        #EXT-X-INDEPENDENT-SEGMENTS
        #EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="audio",NAME="Original",LANGUAGE="und",DEFAULT=YES,AUTOSELECT=YES,CHANNELS="2",URI="audio/media.m3u8"
        #EXT-X-STREAM-INF:BANDWIDTH=3200000,AVERAGE-BANDWIDTH=2900000,CODECS="avc1.64001f,mp4a.40.2",RESOLUTION=1280x720,FRAME-RATE=29.970,AUDIO="audio",CLOSED-CAPTIONS=NONE
        source/media.m3u8
        "##);
    }
}
