//! Video tag payloads: H.264 in the original and in the enhanced (FourCC) form.
#![deny(clippy::disallowed_methods)]

use bytes::{BufMut, Bytes, BytesMut};

use super::{FlvError, enhanced_header, four_cc_name, take_array};

const KEY_FRAME: u8 = 1;
const GENERATED_KEY_FRAME: u8 = 4;
const COMMAND_FRAME: u8 = 5;
const CODEC_AVC: u8 = 7;
const ENHANCED: u8 = 0x80;
const MULTITRACK: u8 = 6;

/// What one video message carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VideoTag {
    /// An `AVCDecoderConfigurationRecord`.
    AvcSequenceHeader(Bytes),
    /// One access unit.
    AvcNalUnits {
        /// Presentation time minus decoding time, milliseconds, in 24 bits.
        composition_time_ms: i32,
        /// Whether the publisher marks it as a key frame.
        keyframe: bool,
        /// NAL units, each after its length.
        data: Bytes,
    },
    /// The publisher ends its sequence.
    AvcEndOfSequence,
    /// A hint for players, or colour metadata: no picture.
    CommandFrame,
}

impl VideoTag {
    /// Reads the payload of a video message or tag without copying.
    ///
    /// # Errors
    /// [`FlvError`] for a short payload, an unknown packet type, or a codec other than H.264, which is named.
    pub fn parse(mut payload: Bytes) -> Result<Self, FlvError> {
        let [first] = take_array(&mut payload)?;
        let frame_type = (first >> 4) & 0x07;
        if frame_type == COMMAND_FRAME {
            return Ok(Self::CommandFrame);
        }
        let keyframe = matches!(frame_type, KEY_FRAME | GENERATED_KEY_FRAME);
        if first & ENHANCED != 0 {
            return Self::parse_enhanced(first, keyframe, payload);
        }
        match first & 0x0F {
            CODEC_AVC => {}
            other => return Err(FlvError::unsupported(codec_name(other))),
        }
        let [packet_type] = take_array(&mut payload)?;
        let composition_time_ms = take_signed_24(&mut payload);
        match packet_type {
            0 => composition_time_ms.map(|_| Self::AvcSequenceHeader(payload)),
            1 => Ok(Self::AvcNalUnits { composition_time_ms: composition_time_ms?, keyframe, data: payload }),
            // Some encoders end the tag here.
            2 => Ok(Self::AvcEndOfSequence),
            packet_type => Err(FlvError::UnknownPacketType { packet_type }),
        }
    }

    fn parse_enhanced(first: u8, keyframe: bool, mut payload: Bytes) -> Result<Self, FlvError> {
        let (packet_type, four_cc) = enhanced_header(first, MULTITRACK, &mut payload)?;
        if &four_cc != b"avc1" {
            return Err(FlvError::unsupported(four_cc_name(four_cc)));
        }
        match packet_type {
            0 => Ok(Self::AvcSequenceHeader(payload)),
            1 => {
                let composition_time_ms = take_signed_24(&mut payload)?;
                Ok(Self::AvcNalUnits { composition_time_ms, keyframe, data: payload })
            }
            2 => Ok(Self::AvcEndOfSequence),
            3 => Ok(Self::AvcNalUnits { composition_time_ms: 0, keyframe, data: payload }),
            4 => Ok(Self::CommandFrame),
            packet_type => Err(FlvError::UnknownPacketType { packet_type }),
        }
    }

    /// The payload in the original form; a composition time beyond 24 bits is clamped.
    pub fn to_payload(&self) -> Bytes {
        let (frame_type, packet_type, composition_time_ms, data): (u8, u8, i32, &[u8]) = match self {
            Self::AvcSequenceHeader(record) => (KEY_FRAME, 0, 0, record),
            Self::AvcNalUnits { composition_time_ms, keyframe, data } => {
                (if *keyframe { KEY_FRAME } else { 2 }, 1, *composition_time_ms, data)
            }
            Self::AvcEndOfSequence => (KEY_FRAME, 2, 0, &[]),
            Self::CommandFrame => return Bytes::from_static(&[COMMAND_FRAME << 4 | CODEC_AVC, 0]),
        };
        let mut payload = BytesMut::with_capacity(5 + data.len());
        payload.put_u8(frame_type << 4 | CODEC_AVC);
        payload.put_u8(packet_type);
        payload.put_int(i64::from(composition_time_ms.clamp(-0x80_0000, 0x7F_FFFF)), 3);
        payload.put_slice(data);
        payload.freeze()
    }
}

fn take_signed_24(payload: &mut Bytes) -> Result<i32, FlvError> {
    let [high, middle, low] = take_array(payload)?;
    Ok(i32::from_be_bytes([high, middle, low, 0]) >> 8)
}

fn codec_name(codec: u8) -> String {
    let known = match codec {
        2 => "Sorenson H.263",
        3 => "Screen video",
        4 => "VP6",
        5 => "VP6 with alpha",
        6 => "Screen video 2",
        8 => "H.263",
        9 => "MPEG-4 part 2",
        12 => "HEVC (H.265)",
        13 => "AV1",
        _ => return format!("number {codec} (video)"),
    };
    known.to_owned()
}
