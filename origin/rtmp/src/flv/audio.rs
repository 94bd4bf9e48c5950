//! Audio tag payloads: AAC in the original and in the enhanced (FourCC) form.
#![deny(clippy::disallowed_methods)]

use bytes::{BufMut, Bytes, BytesMut};

use super::{FlvError, enhanced_header, four_cc_name, take_array};

const FORMAT_ENHANCED: u8 = 9;
const FORMAT_AAC: u8 = 10;
/// AAC, 44 kHz, 16 bit, stereo: the only value the format allows for AAC, whatever the stream is.
const AAC_FIRST_BYTE: u8 = 0xAF;
const MULTITRACK: u8 = 5;

/// What one audio message carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AudioTag {
    /// An `AudioSpecificConfig`.
    AacSequenceHeader(Bytes),
    /// One raw access unit; may be empty.
    AacRaw(Bytes),
    /// The publisher ends its sequence (enhanced form only).
    AacEndOfSequence,
    /// A channel layout (enhanced form only); the `AudioSpecificConfig` says the same.
    ChannelLayout,
}

impl AudioTag {
    /// Reads the payload of an audio message or tag without copying.
    ///
    /// # Errors
    /// [`FlvError`] for a short payload, an unknown packet type, or a codec other than AAC, which is named.
    pub fn parse(mut payload: Bytes) -> Result<Self, FlvError> {
        let [first] = take_array(&mut payload)?;
        match first >> 4 {
            FORMAT_AAC => {
                let [packet_type] = take_array(&mut payload)?;
                match packet_type {
                    0 => Ok(Self::AacSequenceHeader(payload)),
                    1 => Ok(Self::AacRaw(payload)),
                    packet_type => Err(FlvError::UnknownPacketType { packet_type }),
                }
            }
            FORMAT_ENHANCED => {
                let (packet_type, four_cc) = enhanced_header(first, MULTITRACK, &mut payload)?;
                if &four_cc != b"mp4a" {
                    return Err(FlvError::unsupported(four_cc_name(four_cc)));
                }
                match packet_type {
                    0 => Ok(Self::AacSequenceHeader(payload)),
                    1 => Ok(Self::AacRaw(payload)),
                    2 => Ok(Self::AacEndOfSequence),
                    4 => Ok(Self::ChannelLayout),
                    packet_type => Err(FlvError::UnknownPacketType { packet_type }),
                }
            }
            other => Err(FlvError::unsupported(format_name(other))),
        }
    }

    /// The payload: in the original form, or in the enhanced form where there is no other.
    pub fn to_payload(&self) -> Bytes {
        let (packet_type, data) = match self {
            Self::AacSequenceHeader(config) => (0, config),
            Self::AacRaw(data) => (1, data),
            Self::AacEndOfSequence => return Bytes::from_static(b"\x92mp4a"),
            // Layout order 0: unspecified, no channels named.
            Self::ChannelLayout => return Bytes::from_static(b"\x94mp4a\0\0"),
        };
        let mut payload = BytesMut::with_capacity(2 + data.len());
        payload.put_u8(AAC_FIRST_BYTE);
        payload.put_u8(packet_type);
        payload.put_slice(data);
        payload.freeze()
    }
}

fn format_name(format: u8) -> String {
    let known = match format {
        0 | 3 => "PCM",
        1 => "ADPCM",
        2 | 14 => "MP3",
        4..=6 => "Nellymoser",
        7 => "G.711 A-law",
        8 => "G.711 mu-law",
        11 => "Speex",
        13 => "Opus",
        _ => return format!("number {format} (audio)"),
    };
    known.to_owned()
}
