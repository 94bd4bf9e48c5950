//! What is in a log after whatever has happened to it.
//!
//! Only the index is read, and the media of the last segment. A segment that was being written is completed with the
//! parts that are there.

use crate::log::{Kept, path};
use crate::record::{MAGIC, Record};
use crate::{PartEntry, SegmentEntry, reader};
use bytes::Bytes;
use sigma_shared::playlist::{PartLine, SegmentLine};
use sigma_shared::resource::InitHash;
use std::collections::{BTreeMap, VecDeque};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;

/// A larger index is none: 256 segments of a hundred parts have less than a megabyte.
const INDEX_MAX: u64 = 64 << 20;

/// Of how many segments the parts are known again.
const RECENT_SEGMENTS: usize = 16;

/// What a log had when it was opened.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Complete segments; their numbers rise by one.
    pub segments: Vec<SegmentEntry>,
    /// Init sections, the oldest first.
    pub inits: Vec<(InitHash, Bytes)>,
    /// The parts of the newest segments, by number: they may still be asked for one by one (PT-10).
    pub parts: VecDeque<(u64, Vec<PartEntry>)>,
    /// The newest note of each kind.
    pub notes: BTreeMap<u8, Bytes>,
    /// Segments that cannot be used, because something between them and the newest is missing or spoilt.
    pub left_out: u64,
}

/// A segment whose records are being read.
struct Reading {
    entry: SegmentEntry,
    /// What the segment is with each part, its length and line, and the part.
    parts: Vec<(u32, SegmentLine, PartEntry)>,
}

pub(crate) fn recover(dir: &Path) -> io::Result<(Recovered, VecDeque<Kept>)> {
    let (mut found, mut media) = (Vec::new(), Vec::new());
    for file in std::fs::read_dir(dir)? {
        let name = file?.file_name();
        let Some((stem, kind)) = name.to_str().and_then(|name| name.split_once('.')) else { continue };
        let msn = stem.parse::<u64>().ok().filter(|_| stem.len() == 20);
        match kind {
            "index" => found.extend(msn),
            "media" => media.extend(msn),
            _ => {}
        }
    }
    // Media goes last when a pair is deleted: without its index it is of no use to anybody.
    for orphan in media.iter().filter(|msn| !found.contains(msn)) {
        std::fs::remove_file(path(dir, *orphan, "media"))?;
    }
    found.sort_unstable();
    let mut recovered = Recovered::default();
    let mut pairs = VecDeque::new();
    for (n, msn) in found.iter().enumerate() {
        if let Some(kept) = read_pair(dir, *msn, n + 1 == found.len(), &mut recovered)? {
            pairs.push_back(kept);
        }
    }
    Ok((recovered, pairs))
}

/// `None` for what is no pair.
fn read_pair(dir: &Path, first_msn: u64, last: bool, recovered: &mut Recovered) -> io::Result<Option<Kept>> {
    let index_path = path(dir, first_msn, "index");
    if std::fs::metadata(&index_path)?.len() > INDEX_MAX {
        return Ok(None);
    }
    let index = std::fs::read(&index_path)?;
    let Ok(media) = std::fs::metadata(path(dir, first_msn, "media")) else {
        return Ok(None);
    };
    if index.len() < MAGIC.len() && MAGIC.starts_with(&index) {
        // Killed while it was made: there is nothing in it.
        for kind in ["index", "media"] {
            std::fs::remove_file(path(dir, first_msn, kind))?;
        }
        return Ok(None);
    }
    if !index.starts_with(MAGIC) {
        return Ok(None);
    }
    let mut at = MAGIC.len();
    let mut open: Option<Reading> = None;
    while let Some((record, length)) = Record::decode(&index[at..]) {
        let taken = match record {
            Record::Init { hash, bytes } => {
                if recovered.inits.iter().all(|(known, _)| *known != hash) {
                    recovered.inits.push((hash, bytes));
                }
                true
            }
            Record::Note { kind, bytes } => {
                recovered.notes.insert(kind, bytes);
                true
            }
            Record::Open { .. } => {
                open = Reading::new(&record, first_msn);
                true
            }
            Record::Part { .. } => open.as_mut().is_some_and(|open| open.part(&record, media.len())),
            Record::Close { gap, crc } => match open.take() {
                Some(reading) => {
                    let entry = SegmentEntry {
                        line: SegmentLine { gap, ..reading.entry.line },
                        crc,
                        ..reading.entry
                    };
                    recovered.push(entry, &reading.parts);
                    true
                }
                None => false,
            },
        };
        if !taken {
            break;
        }
        at += length;
    }
    if last {
        finish_last(dir, first_msn, (&index[..at], open), recovered)?;
    }
    Ok(Some(Kept { first_msn, bytes: media.len() }))
}

/// Completes the segment that was being written with the parts that are whole, and cuts off what is not.
fn finish_last(
    dir: &Path,
    first_msn: u64,
    (whole, open): (&[u8], Option<Reading>),
    recovered: &mut Recovered,
) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path(dir, first_msn, "index"))?;
    file.set_len(whole.len() as u64)?;
    let Some(mut reading) = open else {
        if recovered.segments.last().is_some_and(|last| !reader::is_whole(dir, last)) {
            recovered.segments.pop();
            recovered.left_out += 1;
        }
        return Ok(());
    };
    while let Some((length, line, _)) = reading.parts.last().copied() {
        let mut checksum = crc32fast::Hasher::new();
        for (.., part) in &reading.parts {
            checksum.combine(&crc32fast::Hasher::new_with_initial_len(part.crc, u64::from(part.length)));
        }
        let crc = checksum.finalize();
        let end = SegmentEntry { line, length, crc, ..reading.entry };
        if reader::is_whole(dir, &end) {
            let mut file = OpenOptions::new().append(true).open(path(dir, first_msn, "index"))?;
            file.write_all(&Record::Close { gap: line.gap, crc }.encode())?;
            recovered.push(end, &reading.parts);
            break;
        }
        reading.parts.pop();
    }
    Ok(())
}

impl Reading {
    fn new(record: &Record, pair: u64) -> Option<Self> {
        let Record::Open { msn, start, discontinuity, discontinuity_sequence, init, program_date_time_ms } =
            *record
        else {
            return None;
        };
        let (gap, independent) = (false, false);
        let line =
            SegmentLine { msn, duration: 0, discontinuity, gap, independent, init, program_date_time_ms };
        let (offset, length, crc, first_part) = (0, 0, 0, (0, 0));
        let entry =
            SegmentEntry { line, start, discontinuity_sequence, pair, offset, length, crc, first_part };
        Some(Self { entry, parts: Vec::new() })
    }

    /// Takes a part; false for one that cannot be.
    fn part(&mut self, record: &Record, media_length: u64) -> bool {
        let Record::Part { offset, length, crc, duration, independent, gap } = *record else {
            return false;
        };
        let entry = &mut self.entry;
        if self.parts.is_empty() {
            entry.offset = offset;
            entry.first_part = (length, crc);
            entry.line.independent = independent && !gap;
        }
        let follows = entry.offset.checked_add(u64::from(entry.length)) == Some(offset);
        let end = offset.checked_add(u64::from(length)).filter(|end| *end <= media_length);
        let (Some(whole), true, Some(_)) = (entry.length.checked_add(length), follows, end) else {
            return false;
        };
        entry.length = whole;
        // What is not whole is a gap as a whole (EV-11).
        entry.line.gap |= gap;
        entry.line.duration = entry.line.duration.saturating_add(duration);
        let line = PartLine { duration, independent, gap };
        self.parts.push((whole, entry.line, PartEntry { line, pair: entry.pair, offset, length, crc }));
        true
    }
}

impl Recovered {
    fn push(&mut self, entry: SegmentEntry, parts: &[(u32, SegmentLine, PartEntry)]) {
        if self.segments.last().is_some_and(|last| last.line.msn + 1 != entry.line.msn) {
            self.left_out += self.segments.len() as u64;
            self.segments.clear();
        }
        self.segments.push(entry);
        if self.parts.len() == RECENT_SEGMENTS {
            self.parts.pop_front();
        }
        self.parts.push_back((entry.line.msn, parts.iter().map(|(.., part)| *part).collect()));
    }
}
