//! The writer of a log.
//!
//! Invariant: the files end with what was acknowledged, also after a write that failed half-way.

use crate::record::{MAGIC, Record};
use crate::recover::{self, Recovered};
use crate::{LoggedPart, SegmentEntry};
use bytes::Bytes;
use sigma_shared::playlist::SegmentLine;
use sigma_shared::resource::InitHash;
use std::collections::{BTreeMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// How many init sections are repeated in each pair.
const INITS_MAX: usize = 64;

/// What a log keeps.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Segments in a pair of files: what goes at once when it is too old.
    pub pair_segments: u64,
    /// Bytes of media; the oldest pairs go when there are more. The pair being written stays.
    pub bytes_max: u64,
}

/// Why something was not written. What was written before is unharmed; the segment is given up.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The operator's: no space is left. A retry helps when there is.
    #[error("the disk is full: {0}")]
    Full(io::Error),
    /// The operator's: the disk does not do what it should.
    #[error("{0}")]
    Io(io::Error),
    /// No segment is open, because it was given up.
    #[error("the segment was given up")]
    GivenUp,
}

impl From<io::Error> for WriteError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::Full(error),
            _ => Self::Io(error),
        }
    }
}

/// The writer of one rendition's log.
#[derive(Debug)]
pub struct Log {
    dir: PathBuf,
    limits: Limits,
    current: Option<Pair>,
    pairs: VecDeque<Kept>,
    inits: VecDeque<(InitHash, Bytes)>,
    notes: BTreeMap<u8, Bytes>,
    open: Option<Open>,
}

/// A pair on disk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kept {
    pub(crate) first_msn: u64,
    pub(crate) bytes: u64,
}

/// The pair being written.
#[derive(Debug)]
struct Pair {
    first_msn: u64,
    media: File,
    media_length: u64,
    index: File,
    index_length: u64,
    segments: u64,
}

/// The segment being written.
#[derive(Debug)]
struct Open {
    line: SegmentLine,
    start: i64,
    discontinuity_sequence: u64,
    offset: u64,
    length: u32,
    crc: crc32fast::Hasher,
    first_part: Option<(u32, u32)>,
}

pub(crate) fn path(dir: &Path, first_msn: u64, kind: &str) -> PathBuf {
    dir.join(format!("{first_msn:020}.{kind}"))
}

impl Log {
    /// Opens the log in `dir`, made if it is not there, and says what is in it. What was not written wholly is cut off.
    ///
    /// # Errors
    /// The folder cannot be read or written.
    pub fn open(dir: &Path, limits: Limits) -> io::Result<(Self, Recovered)> {
        std::fs::create_dir_all(dir)?;
        let (recovered, pairs) = recover::recover(dir)?;
        let log = Self {
            dir: dir.to_owned(),
            limits,
            current: None,
            pairs,
            inits: recovered.inits.iter().cloned().collect(),
            notes: recovered.notes.clone(),
            open: None,
        };
        Ok((log, recovered))
    }

    /// Keeps an init section; it is in every pair from now on.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn init(&mut self, hash: InitHash, bytes: Bytes) -> Result<(), WriteError> {
        if self.inits.iter().any(|(known, _)| *known == hash) {
            return Ok(());
        }
        if self.inits.len() == INITS_MAX {
            self.inits.pop_front();
        }
        self.inits.push_back((hash, bytes.clone()));
        self.record(&Record::Init { hash, bytes })
    }

    /// Keeps a note; the newest of its kind is found again.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn note(&mut self, kind: u8, bytes: Bytes) -> Result<(), WriteError> {
        if self.notes.get(&kind) == Some(&bytes) {
            return Ok(());
        }
        self.notes.insert(kind, bytes.clone());
        self.record(&Record::Note { kind, bytes })
    }

    /// Begins a segment at `start` ticks of 1/90000 s. Its line's duration, and whether it is a gap and independent, come
    /// with its parts. `discontinuity_sequence` is that of a playlist that begins with it.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn begin(
        &mut self,
        line: SegmentLine,
        start: i64,
        discontinuity_sequence: u64,
    ) -> Result<(), WriteError> {
        self.open = None;
        if self.current.as_ref().is_none_or(|pair| pair.segments >= self.limits.pair_segments) {
            self.next_pair(line.msn)?;
        }
        let Some(pair) = &mut self.current else { return Err(WriteError::GivenUp) };
        let offset = pair.media_length;
        pair.segments += 1;
        self.record(&Record::Open {
            msn: line.msn,
            start,
            discontinuity: line.discontinuity,
            discontinuity_sequence,
            init: line.init,
            program_date_time_ms: line.program_date_time_ms,
        })?;
        let line = SegmentLine { duration: 0, gap: false, independent: false, ..line };
        self.open = Some(Open {
            line,
            start,
            discontinuity_sequence,
            offset,
            length: 0,
            crc: crc32fast::Hasher::new(),
            first_part: None,
        });
        Ok(())
    }

    /// Adds a part to the segment.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn part(&mut self, part: &LoggedPart) -> Result<(), WriteError> {
        let (Some(pair), Some(open)) = (&mut self.current, &mut self.open) else {
            return Err(WriteError::GivenUp);
        };
        let length = u32::try_from(part.bytes.len()).unwrap_or(u32::MAX);
        let Some(whole) = open.length.checked_add(length) else {
            return Err(WriteError::GivenUp);
        };
        let (offset, crc) = (pair.media_length, crc32fast::hash(&part.bytes));
        if let Err(error) = append(&mut pair.media, &mut pair.media_length, &part.bytes) {
            self.give_up();
            return Err(error.into());
        }
        open.length = whole;
        open.crc.update(&part.bytes);
        open.first_part.get_or_insert((length, crc));
        open.line.independent |= open.line.duration == 0 && part.line.independent && !part.line.gap;
        open.line.duration = open.line.duration.saturating_add(part.line.duration);
        let (duration, independent, gap) = (part.line.duration, part.line.independent, part.line.gap);
        self.record(&Record::Part { offset, length, crc, duration, independent, gap })
    }

    /// Completes the segment.
    ///
    /// # Errors
    /// See [`WriteError`].
    pub fn finish(&mut self, gap: bool) -> Result<SegmentEntry, WriteError> {
        let open = self.open.take().ok_or(WriteError::GivenUp)?;
        let crc = open.crc.finalize();
        self.record(&Record::Close { gap, crc })?;
        self.keep_bytes();
        Ok(SegmentEntry {
            line: SegmentLine { gap, ..open.line },
            start: open.start,
            discontinuity_sequence: open.discontinuity_sequence,
            pair: self.current.as_ref().map_or(0, |pair| pair.first_msn),
            offset: open.offset,
            length: open.length,
            crc,
            first_part: open.first_part.unwrap_or((0, crc32fast::hash(&[]))),
        })
    }

    /// Drops the pairs in which everything is older than segment `msn`.
    pub fn retain(&mut self, msn: u64) {
        while self.pairs.len() > 1 && self.pairs[1].first_msn <= msn {
            self.drop_oldest();
        }
    }

    /// The number of the oldest segment that is still there, unless nothing is.
    #[must_use]
    pub fn oldest(&self) -> Option<u64> {
        self.pairs.front().map(|pair| pair.first_msn)
    }

    /// Drops everything, so that there is space again. The next segment begins a new pair.
    pub fn clear(&mut self) {
        (self.current, self.open) = (None, None);
        while !self.pairs.is_empty() {
            self.drop_oldest();
        }
    }

    fn keep_bytes(&mut self) {
        if let (Some(kept), Some(pair)) = (self.pairs.back_mut(), &self.current) {
            kept.bytes = pair.media_length;
        }
        while self.pairs.len() > 1
            && self.pairs.iter().map(|pair| pair.bytes).sum::<u64>() > self.limits.bytes_max
        {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(pair) = self.pairs.pop_front() {
            // What cannot be removed now is found when the log is opened again.
            for kind in ["index", "media"] {
                let _ = std::fs::remove_file(path(&self.dir, pair.first_msn, kind));
            }
        }
    }

    fn next_pair(&mut self, first_msn: u64) -> Result<(), WriteError> {
        self.current = None;
        let create = |kind| {
            let path = path(&self.dir, first_msn, kind);
            OpenOptions::new().create(true).write(true).truncate(true).open(path)
        };
        let media = create("media")?;
        let pair =
            Pair { first_msn, media, media_length: 0, index: create("index")?, index_length: 0, segments: 0 };
        self.current = Some(pair);
        self.pairs.retain(|kept| kept.first_msn != first_msn);
        self.pairs.push_back(Kept { first_msn, bytes: 0 });
        let inits = self.inits.iter().map(|(hash, bytes)| Record::Init { hash: *hash, bytes: bytes.clone() });
        let notes = self.notes.iter().map(|(kind, bytes)| Record::Note { kind: *kind, bytes: bytes.clone() });
        let head = inits.chain(notes).fold(MAGIC.to_vec(), |mut head, record| {
            head.append(&mut record.encode());
            head
        });
        self.append_index(&head)
    }

    /// Appends a record to the pair being written; without one, the next pair has it.
    fn record(&mut self, record: &Record) -> Result<(), WriteError> {
        if self.current.is_none() { Ok(()) } else { self.append_index(&record.encode()) }
    }

    fn append_index(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        let Some(pair) = &mut self.current else { return Ok(()) };
        if let Err(error) = append(&mut pair.index, &mut pair.index_length, bytes) {
            self.give_up();
            return Err(error.into());
        }
        Ok(())
    }

    /// Nothing follows what was not written: the next segment begins a new pair.
    fn give_up(&mut self) {
        (self.current, self.open) = (None, None);
    }
}

/// Appends all or nothing.
fn append(file: &mut File, length: &mut u64, bytes: &[u8]) -> io::Result<()> {
    #[cfg(test)]
    let written = crate::tests::disk::write(file, bytes);
    #[cfg(not(test))]
    let written = io::Write::write_all(file, bytes);
    if let Err(error) = written {
        // Of no use to anybody; that it cannot be cut off either is found out when the log is opened.
        let _ = file.set_len(*length);
        return Err(error);
    }
    *length += bytes.len() as u64;
    Ok(())
}
