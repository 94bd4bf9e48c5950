//! The append-only part log of one rendition on disk: what is listed beyond memory (DVR) is served from it, and it is
//! there again after a crash, with the same numbers and the same bytes.
//!
//! A log is a folder of pairs of files, named by the number of their first segment: `{msn}.media` has the bytes of the
//! parts and nothing else, `{msn}.index` has records with a checksum each, saying what they are. Media is written before
//! the record that speaks of it, so after a kill every whole record speaks of bytes that are there. Nothing is synced: after
//! a power cut bytes may be missing, and their checksum says so when they are read. Each pair repeats the init sections, so
//! that older pairs can go.
//!
//! Invariants: blocking calls, for threads that may block; what is on disk is not trusted, its lengths are bounded; what
//! was written wholly is never changed; a reader gets the bytes that were written or an error. Deliberately absent: tasks,
//! queues, logging and retries, which are the caller's.

mod log;
mod reader;
mod record;
mod recover;

pub use log::{Limits, Log, WriteError};
pub use reader::{LogReader, ReadError};
pub use recover::Recovered;

use sigma_shared::playlist::{PartLine, SegmentLine};

/// Where a complete segment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentEntry {
    /// As it is listed.
    pub line: SegmentLine,
    /// Where it starts, ticks of 1/90000 s.
    pub start: i64,
    /// EXT-X-DISCONTINUITY-SEQUENCE of a playlist that begins with it.
    pub discontinuity_sequence: u64,
    /// The pair it is in.
    pair: u64,
    offset: u64,
    length: u32,
    crc: u32,
    first_part: (u32, u32),
}

impl SegmentEntry {
    /// How many bytes of media it has.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        u64::from(self.length)
    }
}

/// Where a part of one of the newest segments is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartEntry {
    /// As it is listed.
    pub line: PartLine,
    pair: u64,
    offset: u64,
    length: u32,
    crc: u32,
}

/// A part to be logged.
#[derive(Debug, Clone)]
pub struct LoggedPart {
    /// Its bytes; none for a gap.
    pub bytes: bytes::Bytes,
    /// As it is listed.
    pub line: PartLine,
}

#[cfg(test)]
mod tests;
