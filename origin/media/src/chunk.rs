//! Text in pieces, each with its compressed form, so that a long playlist whose end changes is neither written nor
//! compressed again.
//!
//! A piece is compressed on its own and ends on a byte boundary without ending the stream (RFC 1951 section 3.2.4, an
//! empty stored block), so pieces put one after the other are one deflate stream; their checksums are combined into
//! that of the whole, which makes it one gzip member (RFC 1952) that every client reads.

use bytes::Bytes;
use flate2::{Compress, Compression, FlushCompress, Status};

/// No name, no time, unknown system: the same text is the same bytes everywhere.
const GZIP_HEADER: &[u8] = &[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// An empty final block: the end of the deflate stream.
const STREAM_END: [u8; 2] = [0x03, 0x00];

/// One piece of a text.
#[derive(Debug)]
pub(crate) struct Chunk {
    plain: Bytes,
    deflated: Bytes,
    crc: u32,
}

impl Chunk {
    /// Compresses a piece. Level 6 halves what level 1 leaves of a playlist.
    pub(crate) fn new(text: String) -> Self {
        let plain = Bytes::from(text);
        let mut deflated = Vec::with_capacity(plain.len() / 4 + 64);
        let mut compress = Compress::new(Compression::new(6), false);
        loop {
            let taken = usize::try_from(compress.total_in()).unwrap_or(usize::MAX).min(plain.len());
            // Compressing into memory fails only for arguments that are not given here.
            let status = compress.compress_vec(&plain[taken..], &mut deflated, FlushCompress::Sync);
            let room = deflated.capacity() > deflated.len();
            if !matches!(status, Ok(Status::Ok | Status::BufError))
                || (room && compress.total_in() as usize >= plain.len())
            {
                break;
            }
            deflated.reserve(plain.len() / 2 + 64);
        }
        let crc = crc32fast::hash(&plain);
        Self { plain, deflated: deflated.into(), crc }
    }
}

/// A whole text, as it is and as gzip.
#[derive(Debug, Clone, Default)]
pub struct Text {
    /// The pieces in order.
    pub plain: Vec<Bytes>,
    /// One gzip member in pieces.
    pub gzip: Vec<Bytes>,
}

impl Text {
    /// Puts pieces together.
    pub(crate) fn of(chunks: &[&Chunk]) -> Self {
        let mut checksum = crc32fast::Hasher::new();
        let mut gzip = Vec::with_capacity(chunks.len() + 2);
        gzip.push(Bytes::from_static(GZIP_HEADER));
        let mut length = 0u32;
        for chunk in chunks {
            let size = chunk.plain.len() as u64;
            checksum.combine(&crc32fast::Hasher::new_with_initial_len(chunk.crc, size));
            length = length.wrapping_add(size as u32);
            gzip.push(chunk.deflated.clone());
        }
        let mut end = STREAM_END.to_vec();
        end.extend_from_slice(&checksum.finalize().to_le_bytes());
        end.extend_from_slice(&length.to_le_bytes());
        gzip.push(end.into());
        Self { plain: chunks.iter().map(|chunk| chunk.plain.clone()).collect(), gzip }
    }

    /// A text of one piece.
    pub(crate) fn from_string(text: String) -> Self {
        Self::of(&[&Chunk::new(text)])
    }

    /// The plain text in one piece.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        match &self.plain[..] {
            [one] => one.clone(),
            pieces => pieces.concat().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Read;

    fn unzipped(text: &Text) -> String {
        let mut out = String::new();
        // One member: a reader that stops after the first must have everything.
        flate2::read::GzDecoder::new(&text.gzip.concat()[..]).read_to_string(&mut out).expect("gzip");
        out
    }

    proptest! {
        #[test]
        fn pieces_are_one_gzip_member(pieces in proptest::collection::vec("\\PC{0,300}|(#EXTINF:2.00000,\n[0-9]{9}.m4s\n){0,500}", 0..6)) {
            let chunks: Vec<Chunk> = pieces.iter().cloned().map(Chunk::new).collect();
            let text = Text::of(&chunks.iter().collect::<Vec<_>>());
            prop_assert_eq!(unzipped(&text), pieces.concat());
            prop_assert_eq!(text.to_bytes(), pieces.concat().into_bytes());
        }
    }

    #[test]
    fn what_does_not_compress_is_whole() {
        let noise: String = (0u32..200_000)
            .map(|n| char::from(33 + (n.wrapping_mul(2_654_435_761) >> 25) as u8 % 90))
            .collect();
        assert_eq!(unzipped(&Text::from_string(noise.clone())), noise);
    }
}
