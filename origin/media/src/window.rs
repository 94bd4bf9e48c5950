//! The live window of one rendition: the newest segments and parts in memory, and the list of everything that can be
//! had, which may reach back for hours into an archive.
//!
//! Invariants: one writer; readers get an immutable [`RenditionSnapshot`] (A2). A part's bytes never change once it is
//! in a snapshot. What is listed is in memory or in the archive, and segments leave the playlists before they leave both
//! (EV-07, PT-10). Deliberately absent: the archive itself; the window is told what is in it.

use crate::TICKS_PER_SECOND;
use crate::listing::{Frozen, Listing};
use crate::snapshot::RenditionSnapshot;
use crate::{daterange::DateRanges, fmp4};
use bytes::Bytes;
use sigma_shared::playlist::{PartLine, RenditionReport, SegmentLine, ServerControl};
use sigma_shared::reload::Tip;
use sigma_shared::resource::InitHash;
use std::collections::VecDeque;
use std::ops::RangeInclusive;
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
    /// Where the segments of this number are planned to start in all renditions; audio starts up to a frame later.
    pub boundary: i64,
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

    /// As listed; an open one with what it has so far.
    pub(crate) fn line(&self) -> SegmentLine {
        SegmentLine {
            msn: self.msn,
            duration: self.duration.unwrap_or_else(|| self.parts_duration()),
            discontinuity: self.discontinuity,
            gap: self.gap,
            independent: self.parts.first().is_some_and(|part| part.line.independent && !part.line.gap),
            init: self.init,
            program_date_time_ms: self.program_date_time_ms,
        }
    }

    fn end(&self) -> i64 {
        self.start + i64::from(self.line().duration)
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
    /// How much stays in memory after it has been listed this long, and length of the playlist without an archive, ticks
    /// of 1/90000 s; at least six segments are kept in any case (EV-06).
    pub window: i64,
    /// Length of the playlist with an archive, ticks of 1/90000 s; 0 without.
    pub dvr: i64,
    /// Bytes of media in memory, listed or not; at least six segments are kept in any case.
    pub bytes_max: u64,
    /// EXT-X-DISCONTINUITY-SEQUENCE to start with.
    pub discontinuity_sequence: u64,
}

/// The fewest segments in a playlist (EV-06).
const SEGMENTS_MIN: usize = 6;

/// What happens to a rendition, for its archive, in order.
#[derive(Debug, Clone)]
pub enum Event {
    /// An init section that segments from now on need.
    Init(InitHash, Bytes),
    /// A segment begins, at a tick, with EXT-X-DISCONTINUITY-SEQUENCE of a playlist that would begin with it.
    Begin(SegmentLine, i64, u64),
    /// One more part of it.
    Part(Bytes, PartLine),
    /// It is complete; `gap` when it is not whole.
    Finish {
        /// EXT-X-GAP
        gap: bool,
    },
}

/// A segment that the archive had when the origin started.
#[derive(Debug, Clone, Copy)]
pub struct ArchivedSegment {
    /// As it was listed.
    pub line: SegmentLine,
    /// Where it starts, ticks of 1/90000 s.
    pub start: i64,
    /// EXT-X-DISCONTINUITY-SEQUENCE of a playlist that begins with it.
    pub discontinuity_sequence: u64,
}

/// How many init sections are kept: one per change of codec configuration.
const INITS_MAX: usize = 64;

/// The window of one rendition.
#[derive(Debug)]
pub struct LiveWindow {
    limits: WindowLimits,
    segments: VecDeque<Arc<Segment>>,
    listing: Listing,
    /// Where the listed segments are planned to start, ticks.
    boundaries: VecDeque<i64>,
    /// Where the last of them ends, ticks.
    listed_until: Option<i64>,
    /// What the archive has.
    archived: Option<RangeInclusive<u64>>,
    frozen: Option<[Arc<Frozen>; 2]>,
    inits: VecDeque<(InitHash, Bytes)>,
    discontinuity_sequence: u64,
    /// Discontinuities before the end of the newest complete segment.
    passed: u64,
    rates: Rates,
    iframe_rates: Rates,
    ended: bool,
    /// For the archive; stays empty without one.
    events: Vec<Event>,
}

/// Bit rates of segments.
#[derive(Debug, Default)]
struct Rates {
    peak_bps: u64,
    total_bits: u64,
    total_ticks: u64,
}

impl Rates {
    fn add(&mut self, bytes: u64, duration: u32) {
        if duration > 0 {
            let bits = bytes * 8;
            self.peak_bps = self.peak_bps.max(bits * TICKS_PER_SECOND.unsigned_abs() / u64::from(duration));
            self.total_bits += bits;
            self.total_ticks += u64::from(duration);
        }
    }

    fn peak_and_average(&self) -> (u64, u64) {
        // In 128 bits: weeks of a high rate, in bits times ticks, are beyond 64.
        let average = u128::from(self.total_bits) * u128::from(TICKS_PER_SECOND.unsigned_abs());
        let average = average.checked_div(u128::from(self.total_ticks)).unwrap_or(0);
        (self.peak_bps, u64::try_from(average).unwrap_or(u64::MAX))
    }
}

impl LiveWindow {
    /// An empty window.
    #[must_use]
    pub fn new(limits: WindowLimits) -> Self {
        Self {
            limits,
            segments: VecDeque::new(),
            listing: Listing::default(),
            boundaries: VecDeque::new(),
            listed_until: None,
            archived: None,
            frozen: None,
            inits: VecDeque::new(),
            discontinuity_sequence: limits.discontinuity_sequence,
            passed: limits.discontinuity_sequence,
            rates: Rates::default(),
            iframe_rates: Rates::default(),
            ended: false,
            events: Vec::new(),
        }
    }

    /// Adds an init section; old ones stay addressable.
    pub fn add_init(&mut self, hash: InitHash, bytes: Bytes) {
        if self.inits.iter().all(|(known, _)| *known != hash) {
            if self.inits.len() == INITS_MAX {
                self.inits.pop_front();
            }
            self.emit(|| Event::Init(hash, bytes.clone()));
            self.inits.push_back((hash, bytes));
        }
    }

    fn emit(&mut self, event: impl FnOnce() -> Event) {
        if self.limits.dvr > 0 {
            self.events.push(event());
        }
    }

    /// What has happened since the last call, for the archive.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Lists what the archive had when the origin started, and goes on behind it.
    pub fn restore(
        &mut self,
        segments: &[ArchivedSegment],
        inits: Vec<(InitHash, Bytes)>,
        rates: [(u64, u64); 2],
    ) {
        let Some((first, last)) = segments.first().zip(segments.last()) else { return };
        self.inits = inits.into_iter().collect();
        (self.discontinuity_sequence, self.passed) =
            (first.discontinuity_sequence, first.discontinuity_sequence);
        for segment in segments {
            self.list(segment.line, segment.start, segment.start + i64::from(segment.line.duration));
        }
        self.archived = Some(first.line.msn..=last.line.msn);
        for (of, (peak_bps, average_bps)) in [&mut self.rates, &mut self.iframe_rates].into_iter().zip(rates)
        {
            // As if it had been measured over a minute: what comes counts.
            *of = Rates {
                peak_bps,
                total_bits: average_bps * 60,
                total_ticks: 60 * TICKS_PER_SECOND.unsigned_abs(),
            };
        }
        self.evict();
    }

    /// Opens a segment; the one before must be complete.
    pub fn open(&mut self, segment: Segment) {
        self.segments.push_back(Arc::new(segment));
    }

    /// Adds a part to the open segment.
    pub fn append(&mut self, part: Part) {
        let passed = self.passed;
        let Some(segment) = self.open_segment_mut() else { return };
        let event = Event::Part(part.bytes.clone(), part.line);
        segment.parts.push(part);
        let is_first = segment.parts.len() == 1;
        let begun = is_first.then(|| Event::Begin(segment.line(), segment.start, passed));
        if let Some(begin) = begun {
            self.emit(|| begin);
        }
        self.emit(|| event);
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
        segment.duration = Some(segment.parts_duration());
        segment.gap = gap;
        let (line, boundary, end, size) = (segment.line(), segment.boundary, segment.end(), segment.size());
        let iframe = line.independent.then(|| fmp4::random_access_point(&segment.parts[0].bytes)).flatten();
        if !gap {
            self.rates.add(size, line.duration);
            self.iframe_rates.add(iframe.map_or(0, |bytes| bytes.len() as u64), line.duration);
        }
        self.list(line, boundary, end);
        self.emit(|| Event::Finish { gap });
        self.evict();
    }

    /// What the archive has of this rendition, by number; `None` while it has nothing. The list gets shorter when it is
    /// less than before.
    pub fn set_archived(&mut self, archived: Option<RangeInclusive<u64>>) {
        if self.archived != archived {
            self.archived = archived;
            self.evict();
        }
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
        self.segments.back().map(|last| last.end()).or(self.listed_until)
    }

    /// The newest complete segment's number.
    #[must_use]
    pub fn complete_msn(&self) -> Option<u64> {
        self.listing.lines().back().map(|line| line.msn)
    }

    /// How far this rendition has got, once it has a complete segment.
    #[must_use]
    pub fn tip(&self) -> Option<Tip> {
        let count = |segment: &Segment| u32::try_from(segment.parts.len()).unwrap_or(u32::MAX);
        Some(Tip {
            complete_msn: self.complete_msn()?,
            complete_parts: self.complete().map_or(0, count),
            open_parts: self.open_segment().map_or(0, count),
            ended: self.ended,
        })
    }

    /// Peak and average bit rate of its segments so far, bits per second (MV-02).
    #[must_use]
    pub fn bit_rates(&self) -> (u64, u64) {
        self.rates.peak_and_average()
    }

    /// Peak and average bit rate of its I-frame playlist so far, bits per second.
    #[must_use]
    pub fn iframe_bit_rates(&self) -> (u64, u64) {
        self.iframe_rates.peak_and_average()
    }

    /// The longest complete segment it holds, ticks of 1/90000 s.
    #[must_use]
    pub fn longest(&self) -> Option<i64> {
        self.segments.iter().filter_map(|segment| segment.duration).max().map(i64::from)
    }

    /// How many discontinuities it has passed: EXT-X-DISCONTINUITY-SEQUENCE of whatever comes after its end.
    #[must_use]
    pub fn discontinuities(&self) -> u64 {
        self.passed + u64::from(self.open_segment().is_some_and(|open| open.discontinuity))
    }

    /// The date of the first listed segment, Unix milliseconds.
    #[must_use]
    pub fn first_date_ms(&self) -> Option<i64> {
        self.listing.lines().front().map(|line| line.program_date_time_ms)
    }

    /// Freezes the state for readers; `None` before the first complete segment, so that no client ever sees a playlist
    /// of parts alone. `next_init` is what the next segment to open will need.
    #[must_use]
    pub fn snapshot(&mut self, shown: Shown) -> Option<RenditionSnapshot> {
        let tip = self.tip()?;
        let [media, iframes] = self.frozen(shown.control);
        let open = self.open_segment().filter(|segment| !segment.parts.is_empty());
        let newest_init = open.map(|segment| segment.init).or(self.complete().map(|segment| segment.init));
        // PH-04: parts of one segment share its init section.
        let next_init = shown.next_init.filter(|next| open.is_none() && Some(*next) != newest_init);
        let parts_since = self.parts_since(shown.control);
        Some(RenditionSnapshot {
            tip,
            control: shown.control,
            discontinuity_sequence: self.discontinuity_sequence,
            segments: self.segments.clone(),
            inits: self.inits.clone(),
            media,
            iframes,
            parts_since,
            next_init,
            dateranges: shown.dateranges,
            reports: shown.reports,
            iframe_reports: shown.iframe_reports,
            rendered: Default::default(),
        })
    }

    fn frozen(&mut self, control: ServerControl) -> [Arc<Frozen>; 2] {
        let since = self.parts_since(control);
        let recent = self.segments.iter().find(|segment| segment.start >= since).map(|segment| segment.msn);
        let recent_from = recent.unwrap_or_else(|| self.complete_msn().map_or(0, |msn| msn + 1));
        let skip_until = u64::from(control.skip_until_s()) * TICKS_PER_SECOND.unsigned_abs();
        let listing = &mut self.listing;
        self.frozen.get_or_insert_with(|| listing.freeze(recent_from, skip_until)).clone()
    }

    /// From where on segments are listed with parts: PT-09 wants none older than three target durations from the end.
    fn parts_since(&self, control: ServerControl) -> i64 {
        let end = self.tip_tick().unwrap_or(0);
        end - 3 * i64::from(control.target_duration_s) * TICKS_PER_SECOND
    }

    fn complete(&self) -> Option<&Segment> {
        self.segments.iter().rev().find(|segment| segment.duration.is_some()).map(AsRef::as_ref)
    }

    fn open_segment_mut(&mut self) -> Option<&mut Segment> {
        let last = self.segments.back_mut().filter(|segment| segment.duration.is_none())?;
        Some(Arc::make_mut(last))
    }

    /// Takes segments out of memory once they have been in it for twice the window, or when they are too many bytes, and
    /// off the list when they are before its start or can no longer be had. Without an archive, what leaves the list is
    /// in memory for as long again as the playlist is (EV-07).
    fn evict(&mut self) {
        let (Some(newest), Some(end)) = (self.boundaries.back().copied(), self.listed_until) else {
            return;
        };
        // Measured by boundaries alone, so that all renditions list from the same number on (MV-07): the newest segment is
        // taken to be as long as the one before it.
        let before = self.boundaries.iter().rev().nth(1).copied().unwrap_or(newest);
        let until = 2 * newest - before;
        let listed_for = self.limits.window.max(self.limits.dvr);
        while self.boundaries.len() > SEGMENTS_MIN && self.boundaries[1] <= until - listed_for {
            self.unlist();
        }
        let complete = |segment: &&Arc<Segment>| segment.duration.is_some();
        let mut left = self.segments.iter().filter(complete).count();
        let mut bytes: u64 = self.segments.iter().map(|segment| segment.size()).sum();
        while left > SEGMENTS_MIN
            && (bytes > self.limits.bytes_max || self.segments[0].end() <= end - 2 * self.limits.window)
        {
            bytes -= self.segments.pop_front().map_or(0, |segment| segment.size());
            left -= 1;
        }
        let next = self.complete_msn().map_or(u64::MAX, |msn| msn.saturating_add(1));
        let in_memory = self.segments.front().map_or(next, |segment| segment.msn);
        let had_from = match &self.archived {
            Some(archived) if archived.end().saturating_add(1) >= in_memory => {
                *archived.start().min(&in_memory)
            }
            _ => in_memory,
        };
        // The last one stays: without it nothing says where the list goes on.
        while self.boundaries.len() > 1
            && self.listing.lines().front().is_some_and(|line| line.msn < had_from)
        {
            self.unlist();
        }
    }

    fn list(&mut self, line: SegmentLine, boundary: i64, end: i64) {
        self.frozen = None;
        if self.complete_msn().is_some_and(|last| last + 1 != line.msn) {
            // The listing begins anew with a number that does not follow.
            self.boundaries.clear();
            self.discontinuity_sequence = self.passed;
        }
        self.passed += u64::from(line.discontinuity);
        self.listing.push(line);
        self.boundaries.push_back(boundary);
        self.listed_until = Some(end);
    }

    fn unlist(&mut self) {
        self.frozen = None;
        self.boundaries.pop_front();
        let line = self.listing.pop_front();
        self.discontinuity_sequence += u64::from(line.is_some_and(|line| line.discontinuity)); // EV-02
    }
}

/// What a snapshot shows beside the window's own.
#[derive(Debug)]
pub struct Shown {
    /// Constants of the playlists.
    pub control: ServerControl,
    /// The init section of the next segment to open.
    pub next_init: Option<InitHash>,
    /// Date Ranges of the broadcast.
    pub dateranges: Arc<DateRanges>,
    /// The other renditions (RR-01).
    pub reports: Arc<[RenditionReport]>,
    /// All renditions: to an I-frame playlist, its own rendition's is another one too.
    pub iframe_reports: Arc<[RenditionReport]>,
}

#[cfg(test)]
mod tests;
