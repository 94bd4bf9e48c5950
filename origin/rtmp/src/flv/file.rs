//! The FLV file format, as bytes pushed in and tags pulled out, and its writers.
//!
//! A tag is returned with its last payload byte: the size field behind it is read later and not checked.
#![deny(clippy::disallowed_methods)]

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::FlvError;

const FILE_HEADER_BYTES: usize = 9;
const TAG_HEADER_BYTES: usize = 11;
const BACK_POINTER_BYTES: usize = 4;
/// Longest file header accepted, bytes; all known writers use 9.
const FILE_HEADER_BYTES_MAX: usize = 4096;
const ENCRYPTED: u8 = 0x20;

/// What a tag holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TagKind {
    /// Audio: [`super::AudioTag`].
    Audio,
    /// Video: [`super::VideoTag`].
    Video,
    /// AMF0 values, as `onMetaData`.
    Script,
}

impl TagKind {
    fn from_type(tag_type: u8) -> Option<Self> {
        match tag_type {
            8 => Some(Self::Audio),
            9 => Some(Self::Video),
            18 => Some(Self::Script),
            _ => None,
        }
    }

    fn to_type(self) -> u8 {
        match self {
            Self::Audio => 8,
            Self::Video => 9,
            Self::Script => 18,
        }
    }
}

/// One tag of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlvTag {
    /// Decoding time in milliseconds, wraps at 2^32.
    pub timestamp_ms: u32,
    /// What the payload is.
    pub kind: TagKind,
    /// The payload, at most 16 MiB.
    pub payload: Bytes,
}

/// Reads a file or pipe piece by piece. Holds at most one tag and what the last push brought, as long as the caller
/// pulls until `None` after every push.
#[derive(Debug)]
pub struct FlvReader {
    buffer: BytesMut,
    /// Bytes to drop before the next tag; `None` before the file header was read.
    skip: Option<usize>,
    tag_bytes_max: usize,
}

impl FlvReader {
    /// A reader that accepts tags with payloads of up to `tag_bytes_max` bytes.
    pub fn new(tag_bytes_max: usize) -> Self {
        Self { buffer: BytesMut::new(), skip: None, tag_bytes_max }
    }

    /// Adds the next bytes of the file.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole tag; `None` until more bytes are pushed.
    ///
    /// # Errors
    /// [`FlvError`] if this is no FLV file or a tag is not accepted; the reader is then of no further use.
    pub fn next_tag(&mut self) -> Result<Option<FlvTag>, FlvError> {
        if self.skip.is_none() {
            self.skip = self.read_file_header()?;
        }
        let Some(skip) = &mut self.skip else {
            return Ok(None);
        };
        let skipped = (*skip).min(self.buffer.len());
        self.buffer.advance(skipped);
        *skip -= skipped;
        if *skip > 0 {
            return Ok(None);
        }
        let Some(header) = self.buffer.first_chunk::<TAG_HEADER_BYTES>() else {
            return Ok(None);
        };
        let tag_type = header[0];
        let bytes = u32::from_be_bytes([0, header[1], header[2], header[3]]) as usize;
        let timestamp_ms = u32::from_be_bytes([header[7], header[4], header[5], header[6]]);
        let kind = TagKind::from_type(tag_type & 0x1F);
        let Some(kind) = kind.filter(|_| tag_type & ENCRYPTED == 0 && bytes <= self.tag_bytes_max) else {
            return Err(FlvError::BadTag { tag_type, bytes });
        };
        if self.buffer.len() < TAG_HEADER_BYTES + bytes {
            return Ok(None);
        }
        self.buffer.advance(TAG_HEADER_BYTES);
        let payload = self.buffer.split_to(bytes).freeze();
        self.skip = Some(BACK_POINTER_BYTES);
        Ok(Some(FlvTag { timestamp_ms, kind, payload }))
    }

    /// Whether what was pushed ends where a tag does, once `next_tag` has given `None`.
    pub fn is_whole(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Bytes to skip up to the first tag, once the header is there.
    fn read_file_header(&self) -> Result<Option<usize>, FlvError> {
        let seen = self.buffer.len().min(3);
        if self.buffer[..seen] != b"FLV"[..seen] {
            return Err(FlvError::NotFlv);
        }
        let Some(header) = self.buffer.first_chunk::<FILE_HEADER_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([header[5], header[6], header[7], header[8]]) as usize;
        if !(FILE_HEADER_BYTES..=FILE_HEADER_BYTES_MAX).contains(&length) {
            return Err(FlvError::NotFlv);
        }
        Ok(Some(length + BACK_POINTER_BYTES))
    }
}

/// Appends the beginning of a file that has `audio` and `video` tags.
pub fn write_file_header(audio: bool, video: bool, out: &mut BytesMut) {
    out.put_slice(b"FLV\x01");
    out.put_u8(u8::from(audio) << 2 | u8::from(video));
    out.put_u32(9);
    out.put_u32(0);
}

/// Appends one tag.
///
/// # Errors
/// [`FlvError::BadTag`] if the payload does not fit into 24 bits of length; nothing was written.
pub fn write_tag(tag: &FlvTag, out: &mut BytesMut) -> Result<(), FlvError> {
    let (tag_type, bytes) = (tag.kind.to_type(), tag.payload.len());
    let length = match u32::try_from(bytes) {
        Ok(length) if length <= 0xFF_FFFF => length,
        _ => return Err(FlvError::BadTag { tag_type, bytes }),
    };
    out.reserve(TAG_HEADER_BYTES + bytes + BACK_POINTER_BYTES);
    out.put_u32(u32::from(tag_type) << 24 | length);
    out.put_uint(u64::from(tag.timestamp_ms & 0xFF_FFFF), 3);
    out.put_uint(u64::from(tag.timestamp_ms >> 24), 1);
    out.put_uint(0, 3);
    out.put_slice(&tag.payload);
    out.put_u32(length + 11);
    Ok(())
}
