//! The live window of one rendition: the newest segments and parts, and the playlist over them.
//!
//! Invariants: one writer; readers get an immutable [`RenditionSnapshot`] whose playlist was rendered once, plain and
//! gzip (A2). A part's bytes never change once it is in a snapshot. Segments leave the playlist before they leave
//! memory (EV-07, PT-10).

use crate::TICKS_PER_SECOND;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use sigma_shared::playlist::{MediaPlaylist, PartLine, RenditionReport, SegmentLines, ServerControl};
use sigma_shared::reload::Tip;
use sigma_shared::resource::InitHash;
use std::collections::VecDeque;
use std::io::Write;
use std::sync::Arc;

/// One Partial Segment.
#[derive(Debug, Clone)]
pub struct Part {
    /// `moof` and `mdat`; empty for a gap.
    pub bytes: Bytes,
    /// As listed.
    pub line: PartLine,
    /// Wall clock at which it could first be had, Unix milliseconds.
    pub available_at_ms: u64,
}

/// One Media Segment, open or complete.
#[derive(Debug, Clone)]
pub struct Segment {
    /// Media Sequence Number.
    pub msn: u64,
    /// Where it starts, ticks of 1/90000 s.
    pub start: i64,
    /// `None` while it is open.
    pub duration: Option<u32>,
    /// EXT-X-DISCONTINUITY.
    pub discontinuity: bool,
    /// EXT-X-GAP: it is not whole.
    pub gap: bool,
    /// The init section it needs.
    pub init: InitHash,
    /// EXT-X-PROGRAM-DATE-TIME, Unix milliseconds.
    pub program_date_time_ms: i64,
    /// In order.
    pub parts: Vec<Part>,
}

impl Segment {
    fn parts_duration(&self) -> u32 {
        self.parts.iter().map(|part| part.line.duration).sum()
    }

    /// The decode time its first part states, as ticks of 1/90000 s.
    #[cfg(test)]
    pub(crate) fn start_of_media(&self) -> i64 {
        use mp4_atom::{DecodeMaybe, Moof};
        let first = &self.parts[0].bytes;
        let moof =
            Moof::decode_maybe(&mut std::io::Cursor::new(&first[..])).expect("readable").expect("whole");
        let time = moof.traf[0].tfdt.as_ref().expect("MP-03").base_media_decode_time as i64;
        // Times of the tests are seconds since 1970: what is more than twice that is not in ticks of 1/48000 s.
        if time > 1_795_333_200 * 60_000 { time } else { crate::packager::to_channel_ticks(time, 48_000) }
    }

    /// The composition offsets of its first part's samples.
    #[cfg(test)]
    pub(crate) fn composition_offsets(&self) -> Vec<i64> {
        use mp4_atom::{DecodeMaybe, Moof};
        let offsets = |part: &Part| {
            let mut cursor = std::io::Cursor::new(&part.bytes[..]);
            let moof = Moof::decode_maybe(&mut cursor).expect("readable").expect("whole");
            moof.traf[0].trun[0].samples.iter().filter_map(|sample| sample.cts).collect::<Vec<_>>()
        };
        self.parts.iter().flat_map(offsets).collect()
    }

    fn size(&self) -> u64 {
        self.parts.iter().map(|part| part.bytes.len() as u64).sum()
    }
}

/// What a window keeps.
#[derive(Debug, Clone, Copy)]
pub struct WindowLimits {
    /// Length of the playlist, ticks of 1/90000 s; at least six segments are kept in any case (EV-06).
    pub window: i64,
    /// Bytes of media in memory, listed or not; at least six segments are kept in any case.
    pub bytes_max: u64,
    /// EXT-X-DISCONTINUITY-SEQUENCE to start with.
    pub discontinuity_sequence: u64,
}

/// The fewest segments in a playlist (EV-06).
const SEGMENTS_MIN: usize = 6;
/// How many init sections are kept: one per change of codec configuration.
const INITS_MAX: usize = 64;

/// The window of one rendition.
#[derive(Debug)]
pub struct LiveWindow {
    limits: WindowLimits,
    segments: VecDeque<Arc<Segment>>,
    /// Index of the first listed segment.
    listed_from: usize,
    inits: VecDeque<(InitHash, Bytes)>,
    discontinuity_sequence: u64,
    peak_bps: u64,
    total_bits: u64,
    total_ticks: u64,
    ended: bool,
}

impl LiveWindow {
    /// An empty window.
    #[must_use]
    pub fn new(limits: WindowLimits) -> Self {
        Self {
            limits,
            segments: VecDeque::new(),
            listed_from: 0,
            inits: VecDeque::new(),
            discontinuity_sequence: limits.discontinuity_sequence,
            peak_bps: 0,
            total_bits: 0,
            total_ticks: 0,
            ended: false,
        }
    }

    /// Adds an init section; old ones stay addressable.
    pub fn add_init(&mut self, hash: InitHash, bytes: Bytes) {
        if self.inits.iter().all(|(known, _)| *known != hash) {
            if self.inits.len() == INITS_MAX {
                self.inits.pop_front();
            }
            self.inits.push_back((hash, bytes));
        }
    }

    /// Opens a segment; the one before must be complete.
    pub fn open(&mut self, segment: Segment) {
        self.segments.push_back(Arc::new(segment));
    }

    /// Adds a part to the open segment.
    pub fn append(&mut self, part: Part) {
        if let Some(segment) = self.open_segment_mut() {
            segment.parts.push(part);
        }
    }

    /// Completes the open segment. A segment without a part disappears: nothing of it was announced.
    pub fn close(&mut self, gap: bool) {
        let Some(segment) = self.open_segment_mut() else {
            return;
        };
        if segment.parts.is_empty() {
            self.segments.pop_back();
            return;
        }
        let duration = segment.parts_duration();
        segment.duration = Some(duration);
        segment.gap = gap;
        let bits = segment.size() * 8;
        if !gap && duration > 0 {
            let ticks_per_second = TICKS_PER_SECOND.unsigned_abs();
            self.peak_bps = self.peak_bps.max(bits * ticks_per_second / u64::from(duration));
            self.total_bits += bits;
            self.total_ticks += u64::from(duration);
        }
        self.evict();
    }

    /// Ends the playlist (EV-10).
    pub fn end(&mut self) {
        self.close(false);
        self.ended = true;
    }

    /// The open segment.
    #[must_use]
    pub fn open_segment(&self) -> Option<&Segment> {
        self.segments.back().filter(|segment| segment.duration.is_none()).map(AsRef::as_ref)
    }

    /// Where what it holds ends, ticks of 1/90000 s.
    #[must_use]
    pub fn tip_tick(&self) -> Option<i64> {
        self.segments
            .back()
            .map(|last| last.start + i64::from(last.duration.unwrap_or_else(|| last.parts_duration())))
    }

    /// The newest complete segment's number.
    #[must_use]
    pub fn complete_msn(&self) -> Option<u64> {
        self.complete().map(|segment| segment.msn)
    }

    /// How far this rendition has got, once it has a complete segment.
    #[must_use]
    pub fn tip(&self) -> Option<Tip> {
        let complete = self.complete()?;
        let count = |segment: &Segment| u32::try_from(segment.parts.len()).unwrap_or(u32::MAX);
        Some(Tip {
            complete_msn: complete.msn,
            complete_parts: count(complete),
            open_parts: self.open_segment().map_or(0, count),
            ended: self.ended,
        })
    }

    /// Peak and average bit rate of its segments so far, bits per second (MV-02).
    #[must_use]
    pub fn bit_rates(&self) -> (u64, u64) {
        // In 128 bits: weeks of a high rate, in bits times ticks, are beyond 64.
        let average = u128::from(self.total_bits) * u128::from(TICKS_PER_SECOND.unsigned_abs());
        (
            self.peak_bps,
            u64::try_from(average.checked_div(u128::from(self.total_ticks)).unwrap_or(0)).unwrap_or(u64::MAX),
        )
    }

    /// The longest complete segment it holds, ticks of 1/90000 s.
    #[must_use]
    pub fn longest(&self) -> Option<i64> {
        self.segments.iter().filter_map(|segment| segment.duration).max().map(i64::from)
    }

    /// How many discontinuities it has passed: EXT-X-DISCONTINUITY-SEQUENCE of whatever comes after its end.
    #[must_use]
    pub fn discontinuities(&self) -> u64 {
        let listed = self.segments.iter().skip(self.listed_from);
        self.discontinuity_sequence + listed.filter(|segment| segment.discontinuity).count() as u64
    }

    /// Renders the playlist and freezes the state for readers; `None` before the first complete segment, so that no
    /// client ever sees a playlist of parts alone.
    #[must_use]
    pub fn snapshot(&self, control: ServerControl, reports: &[RenditionReport]) -> Option<RenditionSnapshot> {
        let tip = self.tip()?;
        let lines: Vec<Vec<PartLine>> = self.part_lines(control);
        let listed = self.segments.iter().skip(self.listed_from).zip(&lines);
        let segments: Vec<SegmentLines<'_>> = listed
            .filter(|(segment, _)| segment.duration.is_some() || !segment.parts.is_empty())
            .map(|(segment, parts)| SegmentLines {
                msn: segment.msn,
                duration: segment.duration,
                discontinuity: segment.discontinuity,
                gap: segment.gap,
                init: segment.init,
                program_date_time_ms: segment.program_date_time_ms,
                parts,
            })
            .collect();
        let discontinuity_sequence = self.discontinuity_sequence;
        let playlist = MediaPlaylist { control, discontinuity_sequence, segments: &segments, tip, reports };
        let plain = Bytes::from(playlist.to_string());
        Some(RenditionSnapshot {
            gzip: gzip(&plain),
            plain,
            tip,
            control,
            segments: self.segments.clone(),
            inits: self.inits.clone(),
        })
    }

    /// The parts to list with each listed segment: PT-09 wants none older than three target durations from the end.
    fn part_lines(&self, control: ServerControl) -> Vec<Vec<PartLine>> {
        let length =
            |segment: &Segment| i64::from(segment.duration.unwrap_or_else(|| segment.parts_duration()));
        let end = self.segments.back().map_or(0, |last| last.start + length(last));
        let since = end - 3 * i64::from(control.target_duration_s) * TICKS_PER_SECOND;
        let of = |segment: &Segment| {
            if segment.start >= since {
                segment.parts.iter().map(|part| part.line).collect()
            } else {
                Vec::new()
            }
        };
        self.segments.iter().skip(self.listed_from).map(|segment| of(segment)).collect()
    }

    fn complete(&self) -> Option<&Segment> {
        self.segments.iter().rev().find(|segment| segment.duration.is_some()).map(AsRef::as_ref)
    }

    fn open_segment_mut(&mut self) -> Option<&mut Segment> {
        let last = self.segments.back_mut().filter(|segment| segment.duration.is_none())?;
        Some(Arc::make_mut(last))
    }

    /// Takes segments off the playlist that are wholly before the window, and out of memory once they have been off it
    /// for as long as the playlist is (EV-07), or when they are too many bytes.
    fn evict(&mut self) {
        let Some(end) = self.segments.back().map(|last| last.start + i64::from(last.duration.unwrap_or(0)))
        else {
            return;
        };
        let before =
            |segment: &Segment, since: i64| segment.start + i64::from(segment.duration.unwrap_or(0)) <= since;
        let mut bytes: u64 = self.segments.iter().map(|segment| segment.size()).sum();
        while self.listed_from > 0 && bytes > self.limits.bytes_max {
            bytes -= self.segments.pop_front().map_or(0, |segment| segment.size());
            self.listed_from -= 1;
        }
        let mut listed = bytes;
        while self.segments.len() - self.listed_from > SEGMENTS_MIN
            && (before(&self.segments[self.listed_from], end - self.limits.window)
                || listed > self.limits.bytes_max)
        {
            listed -= self.segments[self.listed_from].size();
            self.discontinuity_sequence += u64::from(self.segments[self.listed_from].discontinuity); // EV-02
            self.listed_from += 1;
        }
        while self.listed_from > 0 && before(&self.segments[0], end - 2 * self.limits.window) {
            self.segments.pop_front();
            self.listed_from -= 1;
        }
    }
}

/// Level 6 halves what level 1 leaves of a playlist and costs tens of microseconds, once per part.
pub(crate) fn gzip(plain: &Bytes) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 4), Compression::new(6));
    // Writing to a Vec cannot fail; were it to, clients would get the plain text.
    match encoder.write_all(plain).and_then(|()| encoder.finish()) {
        Ok(bytes) => bytes.into(),
        Err(_) => Bytes::new(),
    }
}

/// One moment of a rendition, shared by all readers.
#[derive(Debug)]
pub struct RenditionSnapshot {
    /// The Media Playlist.
    pub plain: Bytes,
    /// The same, gzip.
    pub gzip: Bytes,
    /// How far it has got.
    pub tip: Tip,
    /// Constants of the playlist.
    pub control: ServerControl,
    segments: VecDeque<Arc<Segment>>,
    inits: VecDeque<(InitHash, Bytes)>,
}

/// Where a part is.
#[derive(Debug)]
pub enum PartLookup<'a> {
    /// Here.
    Found(&'a Part),
    /// It is the hinted one: it will come (PH-05).
    Hinted,
    /// It never was, is gone, or was hinted and then not made (PH-06).
    Absent,
}

impl RenditionSnapshot {
    /// Looks a part up.
    #[must_use]
    pub fn part(&self, msn: u64, index: u32) -> PartLookup<'_> {
        let found = self.find(msn).and_then(|segment| segment.parts.get(index as usize));
        match found {
            Some(part) if part.line.gap => PartLookup::Absent,
            Some(part) => PartLookup::Found(part),
            None if !self.tip.ended && (msn, index) == self.tip.next_part() => PartLookup::Hinted,
            None => PartLookup::Absent,
        }
    }

    /// A complete segment that is whole.
    #[must_use]
    pub fn segment(&self, msn: u64) -> Option<&Arc<Segment>> {
        self.find(msn).filter(|segment| segment.duration.is_some() && !segment.gap)
    }

    /// An init section.
    #[must_use]
    pub fn init(&self, hash: InitHash) -> Option<&Bytes> {
        self.inits.iter().find(|(known, _)| *known == hash).map(|(_, bytes)| bytes)
    }

    fn find(&self, msn: u64) -> Option<&Arc<Segment>> {
        let first = self.segments.front()?.msn;
        self.segments.get(usize::try_from(msn.checked_sub(first)?).ok()?)
    }
}

#[cfg(test)]
mod tests;
