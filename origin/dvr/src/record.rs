//! Records of the index: a length, a checksum, a kind and its fields, all numbers little-endian.

use bytes::{Buf, BufMut, Bytes};
use sigma_shared::resource::InitHash;

/// What an index file begins with: the name of the format and its version.
pub(crate) const MAGIC: &[u8; 8] = b"SGMDVR\0\x01";
/// Longer is no record: an init section is the longest, and has a few hundred bytes.
const PAYLOAD_MAX: u32 = 1 << 20;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record {
    Init {
        hash: InitHash,
        bytes: Bytes,
    },
    /// What the writer of the log wants to find again; the newest of a kind counts.
    Note {
        kind: u8,
        bytes: Bytes,
    },
    Open {
        msn: u64,
        start: i64,
        discontinuity: bool,
        discontinuity_sequence: u64,
        init: InitHash,
        program_date_time_ms: i64,
    },
    Part {
        offset: u64,
        length: u32,
        crc: u32,
        duration: u32,
        independent: bool,
        gap: bool,
    },
    /// With the checksum of the whole segment.
    Close {
        gap: bool,
        crc: u32,
    },
}

impl Record {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut payload = Vec::with_capacity(48);
        match self {
            Self::Init { hash, bytes } => {
                payload.put_u8(1);
                payload.put_u64_le(hash.0);
                payload.put_slice(bytes);
            }
            Self::Note { kind, bytes } => {
                payload.put_u8(2);
                payload.put_u8(*kind);
                payload.put_slice(bytes);
            }
            Self::Open { msn, start, discontinuity, discontinuity_sequence, init, program_date_time_ms } => {
                payload.put_u8(3);
                payload.put_u64_le(*msn);
                payload.put_i64_le(*start);
                payload.put_u8(u8::from(*discontinuity));
                payload.put_u64_le(*discontinuity_sequence);
                payload.put_u64_le(init.0);
                payload.put_i64_le(*program_date_time_ms);
            }
            Self::Part { offset, length, crc, duration, independent, gap } => {
                payload.put_u8(4);
                payload.put_u64_le(*offset);
                payload.put_u32_le(*length);
                payload.put_u32_le(*crc);
                payload.put_u32_le(*duration);
                payload.put_u8(u8::from(*independent) | u8::from(*gap) << 1);
            }
            Self::Close { gap, crc } => {
                payload.put_u8(5);
                payload.put_u8(u8::from(*gap));
                payload.put_u32_le(*crc);
            }
        }
        let mut out = Vec::with_capacity(payload.len() + 8);
        out.put_u32_le(u32::try_from(payload.len()).unwrap_or(u32::MAX));
        out.put_u32_le(crc32fast::hash(&payload));
        out.append(&mut payload);
        out
    }

    /// The record at the start of `bytes` and its length; `None` when there is no whole one.
    pub(crate) fn decode(bytes: &[u8]) -> Option<(Self, usize)> {
        let mut head = bytes.get(..8)?;
        let (length, crc) = (head.get_u32_le(), head.get_u32_le());
        if length > PAYLOAD_MAX {
            return None;
        }
        let end = 8 + usize::try_from(length).ok()?;
        let payload = bytes.get(8..end)?;
        if crc32fast::hash(payload) != crc {
            return None;
        }
        Some((Self::read(payload)?, end))
    }

    fn read(mut at: &[u8]) -> Option<Self> {
        let record = match at.try_get_u8().ok()? {
            1 => Self::Init { hash: InitHash(at.try_get_u64_le().ok()?), bytes: rest(&mut at) },
            2 => Self::Note { kind: at.try_get_u8().ok()?, bytes: rest(&mut at) },
            3 => Self::Open {
                msn: at.try_get_u64_le().ok()?,
                start: at.try_get_i64_le().ok()?,
                discontinuity: at.try_get_u8().ok()? != 0,
                discontinuity_sequence: at.try_get_u64_le().ok()?,
                init: InitHash(at.try_get_u64_le().ok()?),
                program_date_time_ms: at.try_get_i64_le().ok()?,
            },
            4 => {
                let (offset, length) = (at.try_get_u64_le().ok()?, at.try_get_u32_le().ok()?);
                let (crc, duration) = (at.try_get_u32_le().ok()?, at.try_get_u32_le().ok()?);
                let flags = at.try_get_u8().ok()?;
                Self::Part { offset, length, crc, duration, independent: flags & 1 != 0, gap: flags & 2 != 0 }
            }
            5 => Self::Close { gap: at.try_get_u8().ok()? != 0, crc: at.try_get_u32_le().ok()? },
            _ => return None,
        };
        at.is_empty().then_some(record)
    }
}

fn rest(at: &mut &[u8]) -> Bytes {
    Bytes::copy_from_slice(std::mem::take(at))
}
