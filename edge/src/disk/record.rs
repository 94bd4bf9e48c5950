//! An object's file, as bytes: a mark, a head with the object's name and fields, and its body in pieces with a checksum each.
//!
//! ```text
//! "SIGDISK1"  head length u32  head CRC-32 u32  head (postcard)  body
//! ```
//!
//! Invariants: bytes that are not what was written, or too few of them, are told from those that are, piece by piece and
//! before a viewer gets the piece; another version of this form has another mark. All numbers are little-endian.
#![deny(clippy::disallowed_methods)]

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

/// A file starts with it.
const MARK: [u8; 8] = *b"SIGDISK1";
/// Bytes in front of the head.
pub(super) const START: usize = 16;
/// The longest head: fields that upstreams send, and the checksums of 4 GiB.
const HEAD_BYTES_MAX: usize = 256 * 1024;
/// Bytes that a checksum is over, and that are read at once.
pub(super) const PIECE: usize = 256 * 1024;

/// What is no object's file, or not any more. Deleting it is the way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Spoilt {
    #[error("it is not a file of this cache, or of another version")]
    Mark,
    #[error("its head is not what was written")]
    Head,
    #[error("its body is not what was written")]
    Body,
    #[error("it is shorter or longer than what was written")]
    Length,
    #[error("it is another object's")]
    Name,
}

/// What a file says of its object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Path and query.
    pub(super) name: String,
    /// When it came from the upstream, Unix milliseconds.
    pub(super) arrived_ms: u64,
    /// How old it was by then, seconds.
    pub(super) age_s: u32,
    /// From then on it is not served, Unix milliseconds.
    pub(super) expires_ms: u64,
    pub(super) body_bytes: u64,
    fields: Vec<(String, Vec<u8>)>,
    /// CRC-32 of each piece of the body.
    sums: Vec<u32>,
}

/// When an object arrived, how old it was then, and until when it may be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Times {
    /// Unix milliseconds
    pub(super) arrived_ms: u64,
    pub(super) age_s: u32,
    /// Unix milliseconds
    pub(super) expires_ms: u64,
}

impl Record {
    /// What is to be said of an object.
    pub(super) fn new<'a>(
        name: String,
        times: Times,
        fields: impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)>,
        body: &[u8],
    ) -> Self {
        let Times { arrived_ms, age_s, expires_ms } = times;
        let fields = fields.map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()));
        let sums = body.chunks(PIECE).map(crc32fast::hash).collect();
        let body_bytes = body.len() as u64;
        Self { name, arrived_ms, age_s, expires_ms, body_bytes, fields: fields.collect(), sums }
    }

    /// What stands in the file before the body; `None` when it is too long.
    pub(super) fn written(&self) -> Option<Vec<u8>> {
        let head = postcard::to_allocvec(self).ok().filter(|head| head.len() <= HEAD_BYTES_MAX)?;
        let length = u32::try_from(head.len()).ok()?;
        let start: [&[u8]; 4] = [&MARK, &length.to_le_bytes(), &crc32fast::hash(&head).to_le_bytes(), &head];
        Some(start.concat())
    }

    /// The header fields of the object.
    pub(super) fn fields(&self) -> HeaderMap {
        let mut fields = HeaderMap::with_capacity(self.fields.len() + 3);
        for (name, value) in &self.fields {
            if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), HeaderValue::from_bytes(value)) {
                fields.append(name, value);
            }
        }
        fields
    }

    /// Pieces of the body.
    pub(super) fn pieces(&self) -> usize {
        self.sums.len()
    }

    /// Bytes of piece `n`.
    pub(super) fn piece_bytes(&self, n: usize) -> usize {
        let left = self.body_bytes.saturating_sub(n as u64 * PIECE as u64);
        usize::try_from(left).map_or(PIECE, |left| left.min(PIECE))
    }

    /// Bytes of the file.
    fn file_bytes(&self, start: Start) -> u64 {
        (START + start.head_bytes) as u64 + self.body_bytes
    }

    /// Piece `n`, if that is what these bytes are.
    pub(super) fn piece(&self, n: usize, bytes: Vec<u8>) -> Result<Bytes, Spoilt> {
        if bytes.len() != self.piece_bytes(n) {
            return Err(Spoilt::Length);
        }
        match self.sums.get(n) {
            Some(sum) if *sum == crc32fast::hash(&bytes) => Ok(bytes.into()),
            _ => Err(Spoilt::Body),
        }
    }
}

/// What a file starts with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Start {
    pub(super) head_bytes: usize,
    sum: u32,
}

impl Start {
    /// Reads it.
    pub(super) fn read(bytes: [u8; START]) -> Result<Self, Spoilt> {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let head_bytes = word(8) as usize;
        if bytes[..8] != MARK {
            return Err(Spoilt::Mark);
        }
        if head_bytes > HEAD_BYTES_MAX {
            return Err(Spoilt::Head);
        }
        Ok(Self { head_bytes, sum: word(12) })
    }

    /// Reads the head that follows, in a file of `file_bytes`.
    pub(super) fn record(self, head: &[u8], file_bytes: u64) -> Result<Record, Spoilt> {
        if head.len() != self.head_bytes {
            return Err(Spoilt::Length);
        }
        if crc32fast::hash(head) != self.sum {
            return Err(Spoilt::Head);
        }
        let record: Record = postcard::from_bytes(head).map_err(|_| Spoilt::Head)?;
        if record.sums.len() as u64 != record.body_bytes.div_ceil(PIECE as u64) {
            return Err(Spoilt::Head);
        }
        if record.file_bytes(self) != file_bytes {
            return Err(Spoilt::Length);
        }
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(file: &[u8]) -> Result<(Record, Vec<u8>), Spoilt> {
        let (start, rest) = file.split_first_chunk().ok_or(Spoilt::Length)?;
        let start = Start::read(*start)?;
        let (head, mut rest) = rest.split_at_checked(start.head_bytes).ok_or(Spoilt::Length)?;
        let record = start.record(head, file.len() as u64)?;
        let mut body = Vec::new();
        for n in 0..record.pieces() {
            let (piece, after) = rest.split_at_checked(record.piece_bytes(n)).ok_or(Spoilt::Length)?;
            body.extend(record.piece(n, piece.to_vec())?);
            rest = after;
        }
        Ok((record, body))
    }

    fn file(body: &[u8]) -> (Record, Vec<u8>) {
        let times = Times { arrived_ms: 1_700_000_000_123, age_s: 3, expires_ms: 1_700_086_400_123 };
        let mut fields = HeaderMap::new();
        fields.insert("cmsd-static", HeaderValue::from_static("ot=v"));
        fields.append("cmsd-dynamic", HeaderValue::from_static("\"a\";rd=1"));
        fields.append("cmsd-dynamic", HeaderValue::from_static("\"b\";rd=2"));
        let record = Record::new("/live/demo/v/7.m4s".to_owned(), times, fields.iter(), body);
        assert_eq!(record.fields(), fields);
        let mut file = record.written().unwrap();
        file.extend(body);
        (record, file)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn what_is_written_is_read(length in 0..2 * PIECE + 9, seed: u8) {
            let body: Vec<u8> = (0..length).map(|n| (n as u8).wrapping_mul(31) ^ seed).collect();
            let (record, file) = file(&body);
            prop_assert_eq!(read(&file), Ok((record, body)));
        }

        #[test]
        fn whatever_is_changed_or_cut_is_noticed(at in any::<prop::sample::Index>(), bit in 0..8u8, cut: bool) {
            let body: Vec<u8> = (0..PIECE + 999).map(|n| (n % 251) as u8).collect();
            let (_, mut file) = file(&body);
            let at = at.index(file.len());
            if cut {
                file.truncate(at);
            } else {
                file[at] ^= 1 << bit;
            }
            prop_assert!(read(&file).is_err(), "{at} {cut}");
        }

        #[test]
        fn garbage_is_read_without_a_panic(mut file in prop::collection::vec(any::<u8>(), 0..400), marked: bool) {
            if marked && file.len() >= START {
                file[..8].copy_from_slice(&MARK);
                let length = u32::try_from(file.len() - START).unwrap();
                file[8..12].copy_from_slice(&length.to_le_bytes());
                let sum = crc32fast::hash(&file[START..]);
                file[12..16].copy_from_slice(&sum.to_le_bytes());
            }
            let _ = read(&file);
        }
    }
}
