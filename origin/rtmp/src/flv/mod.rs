//! FLV: the tag payloads RTMP carries, and the file around them.
#![deny(clippy::disallowed_methods)]

mod audio;
mod file;
mod video;

use bytes::{Buf, Bytes};

pub use audio::AudioTag;
pub use file::{FlvReader, FlvTag, TagKind, write_file_header, write_tag};
pub use video::VideoTag;

/// Why FLV bytes cannot be read. The publisher is to blame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FlvError {
    /// The payload ends inside its header.
    #[error("the tag ends inside its header")]
    Truncated,
    /// A codec that is not taken.
    #[error("codec {name} is not supported: send H.264 video and AAC audio")]
    UnsupportedCodec {
        /// Name of the codec, for people.
        name: String,
    },
    /// A packet type the codec does not have.
    #[error("packet type {packet_type} is unknown")]
    UnknownPacketType {
        /// Packet type found.
        packet_type: u8,
    },
    /// The file does not begin as an FLV file does.
    #[error("this is no FLV file")]
    NotFlv,
    /// A tag of the file claims more than the limit, or is encrypted or of an unknown kind.
    #[error("a tag of type {tag_type} and {bytes} bytes is not accepted")]
    BadTag {
        /// Type byte found.
        tag_type: u8,
        /// Claimed length in bytes.
        bytes: usize,
    },
}

impl FlvError {
    fn unsupported(name: impl Into<String>) -> Self {
        Self::UnsupportedCodec { name: name.into() }
    }
}

/// Takes the front of an enhanced tag body, which begins after the tag's first byte: extension packets are skipped,
/// then packet type and FourCC are returned. `multitrack` is the packet type that stands for several tracks.
fn enhanced_header(first: u8, multitrack: u8, body: &mut Bytes) -> Result<(u8, [u8; 4]), FlvError> {
    const EXTENSION: u8 = 7;
    let mut packet_type = first & 0x0F;
    while packet_type == EXTENSION {
        let [short] = take_array(body)?;
        let mut length = usize::from(short) + 1;
        if length == 256 {
            length = usize::from(u16::from_be_bytes(take_array(body)?)) + 1;
        }
        if body.len() < length {
            return Err(FlvError::Truncated);
        }
        body.advance(length);
        let [next] = take_array(body)?;
        packet_type = next & 0x0F;
    }
    if packet_type == multitrack {
        return Err(FlvError::unsupported("multitrack"));
    }
    Ok((packet_type, take_array(body)?))
}

fn take_array<const N: usize>(body: &mut Bytes) -> Result<[u8; N], FlvError> {
    let taken = *body.first_chunk::<N>().ok_or(FlvError::Truncated)?;
    body.advance(N);
    Ok(taken)
}

/// A FourCC for people: its known name, else its letters.
fn four_cc_name(four_cc: [u8; 4]) -> String {
    let known = match &four_cc {
        b"hvc1" => "HEVC (H.265)",
        b"vvc1" => "VVC (H.266)",
        b"av01" => "AV1",
        b"vp08" => "VP8",
        b"vp09" => "VP9",
        b"Opus" => "Opus",
        b"fLaC" => "FLAC",
        b"ac-3" => "AC-3",
        b"ec-3" => "E-AC-3",
        b".mp3" => "MP3",
        _ => return four_cc.escape_ascii().to_string(),
    };
    known.to_owned()
}

#[cfg(test)]
mod tests;
