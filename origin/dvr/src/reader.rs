//! Reading segments back, from any thread.

use crate::log::path;
use crate::{PartEntry, SegmentEntry};
use bytes::Bytes;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

/// A longer segment is none.
const LENGTH_MAX: u32 = 512 << 20;

/// Why a segment cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It was dropped, or the disk fails.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The bytes are not those that were written: the disk's fault, a retry does not help.
    #[error("segment {msn} is spoilt on disk")]
    Corrupt {
        /// Media Sequence Number.
        msn: u64,
    },
}

/// Reads one log. Files are opened for each read: one kept open would keep what was deleted on the disk.
#[derive(Debug, Clone)]
pub struct LogReader(Arc<Path>);

impl LogReader {
    /// A reader of the log in `dir`.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self(dir.into())
    }

    /// A whole segment.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn segment(&self, entry: &SegmentEntry) -> Result<Bytes, ReadError> {
        self.read((entry.pair, entry.offset, entry.length), entry.crc, entry.line.msn)
    }

    /// The first part of a segment.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn first_part(&self, entry: &SegmentEntry) -> Result<Bytes, ReadError> {
        self.read((entry.pair, entry.offset, entry.first_part.0), entry.first_part.1, entry.line.msn)
    }

    /// A part of segment `msn`.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn part(&self, msn: u64, part: &PartEntry) -> Result<Bytes, ReadError> {
        self.read((part.pair, part.offset, part.length), part.crc, msn)
    }

    fn read(&self, (pair, offset, length): (u64, u64, u32), crc: u32, msn: u64) -> Result<Bytes, ReadError> {
        let file = File::open(path(&self.0, pair, "media"))?;
        let bytes = read_at(&file, offset, length)?;
        if crc32fast::hash(&bytes) == crc { Ok(bytes) } else { Err(ReadError::Corrupt { msn }) }
    }
}

fn read_at(file: &File, offset: u64, length: u32) -> io::Result<Bytes> {
    if length > LENGTH_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes.into())
}

/// Whether a segment is on disk as it was written.
pub(crate) fn is_whole(dir: &Path, entry: &SegmentEntry) -> bool {
    let bytes = File::open(path(dir, entry.pair, "media"))
        .and_then(|file| read_at(&file, entry.offset, entry.length));
    bytes.is_ok_and(|bytes| crc32fast::hash(&bytes) == entry.crc)
}
