//! AAC: AudioSpecificConfig (ISO/IEC 14496-3 section 1.6.2.1).

use super::CodecError;
use bytes::Bytes;

/// An AAC track's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AacConfig {
    /// The AudioSpecificConfig as sent.
    pub asc: Bytes,
    /// MPEG-4 audio object type: 2 is AAC-LC, 5 and 29 are HE-AAC.
    pub object_type: u8,
    /// Samples per second of the core coder: the timescale of the track.
    pub sample_rate: u32,
    /// Channels; 0 means that a program config element states them.
    pub channels: u8,
    /// Audio samples in one access unit: 1024 or 960.
    pub frame_samples: u32,
}

const SAMPLE_RATES: [u32; 13] =
    [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8000, 7350];

impl AacConfig {
    /// Reads an AudioSpecificConfig.
    ///
    /// # Errors
    /// When it is cut short, or names an object type or sample rate that cannot be carried.
    pub fn parse(asc: Bytes) -> Result<Self, CodecError> {
        let mut bits = Bits { bytes: &asc, position: 0 };
        let object_type = bits.object_type()?;
        let sample_rate = bits.sample_rate()?;
        let channels = bits.take(4)?;
        // Explicit HE-AAC signalling names the extension's rate and then the core's object type.
        let core = if object_type == 5 || object_type == 29 {
            bits.sample_rate()?;
            bits.object_type()?
        } else {
            object_type
        };
        if core != 2 && core != 1 && core != 3 && core != 4 {
            return Err(CodecError::AacConfig("audio object type is not AAC Main, LC, SSR, LTP or HE-AAC"));
        }
        let frame_samples = if bits.take(1)? == 1 { 960 } else { 1024 };
        let channels = match channels {
            0..=6 => channels,
            7 => 8,
            _ => return Err(CodecError::AacConfig("channel configuration is reserved")),
        };
        #[expect(clippy::cast_possible_truncation, reason = "at most 8")]
        Ok(Self { object_type, sample_rate, channels: channels as u8, frame_samples, asc })
    }

    /// The RFC 6381 string, e.g. `mp4a.40.2` (MV-03).
    #[must_use]
    pub fn codec_string(&self) -> String {
        format!("mp4a.40.{}", self.object_type)
    }

    /// The sampling frequency index, 15 when the rate is written out.
    #[must_use]
    pub fn frequency_index(&self) -> u8 {
        #[expect(clippy::cast_possible_truncation, reason = "at most 12")]
        SAMPLE_RATES.iter().position(|rate| *rate == self.sample_rate).map_or(15, |index| index as u8)
    }
}

struct Bits<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl Bits<'_> {
    fn take(&mut self, count: usize) -> Result<u32, CodecError> {
        let mut value = 0;
        for _ in 0..count {
            let byte = self.bytes.get(self.position / 8).ok_or(CodecError::AacConfig("it is cut short"))?;
            value = value << 1 | u32::from(byte >> (7 - self.position % 8) & 1);
            self.position += 1;
        }
        Ok(value)
    }

    fn object_type(&mut self) -> Result<u8, CodecError> {
        let value = match self.take(5)? {
            31 => 32 + self.take(6)?,
            value => value,
        };
        #[expect(clippy::cast_possible_truncation, reason = "at most 95")]
        Ok(value as u8)
    }

    fn sample_rate(&mut self) -> Result<u32, CodecError> {
        let rate = match self.take(4)? {
            15 => self.take(24)?,
            index => SAMPLE_RATES.get(index as usize).copied().unwrap_or(0),
        };
        if (7350..=96_000).contains(&rate) {
            Ok(rate)
        } else {
            Err(CodecError::AacConfig("sample rate is not between 7350 and 96000 Hz"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn configurations_in_use() {
        for (asc, object_type, rate, channels, codec) in [
            (&[0x11, 0x90][..], 2, 48_000, 2, "mp4a.40.2"),
            (&[0x12, 0x10][..], 2, 44_100, 2, "mp4a.40.2"),
            (&[0x12, 0x08][..], 2, 44_100, 1, "mp4a.40.2"),
            (&[0x11, 0xb0][..], 2, 48_000, 6, "mp4a.40.2"),
            (&[0x2b, 0x11, 0x88, 0x00][..], 5, 24_000, 2, "mp4a.40.5"),
        ] {
            let config = AacConfig::parse(Bytes::copy_from_slice(asc)).expect("valid");
            let found = (config.object_type, config.sample_rate, config.channels, config.frame_samples);
            assert_eq!(found, (object_type, rate, channels, 1024));
            assert_eq!(config.codec_string(), codec);
        }
    }

    #[test]
    fn broken_ones_are_refused() {
        for asc in
            [&[][..], &[0x11][..], &[0xff, 0xff, 0xff, 0xff][..], &[0x16, 0x90][..], &[0xf8, 0, 0, 0][..]]
        {
            assert!(AacConfig::parse(Bytes::copy_from_slice(asc)).is_err(), "{asc:02x?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes(asc in proptest::collection::vec(any::<u8>(), 0..16)) {
            let _ = AacConfig::parse(asc.into());
        }
    }
}
