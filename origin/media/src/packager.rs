//! The packager: cuts one rendition's samples into Partial Segments and Media Segments.
//!
//! A part closes as soon as it is known that the next sample would carry it over the part target (PT-03: a ceiling,
//! measured from the segment's start on the sample grid), without waiting for that sample. Only where the next sample
//! may start a segment, the part waits for it, so that a part is never announced that cannot come (PH-01).
//!
//! Invariants: a segment's parts follow one another without gap or overlap (MP-04, MP-05); a segment starts with a part.

use crate::TICKS_PER_SECOND;
use crate::fmp4::{self, Fmp4Error, FragmentSample};
use crate::pace::Paced;
use crate::plan::Boundary;
use crate::timed::Id3;
use bytes::Bytes;

/// Most metadata in front of one part.
const EVENTS_MAX: usize = 16;

/// One placed sample, in ticks of the track's timescale.
#[derive(Debug, Clone)]
pub struct TrackSample {
    /// Its place in decoding order.
    pub paced: Paced,
    /// Presentation minus decoding time.
    pub composition_offset: i32,
    /// It is a random access point.
    pub sync: bool,
    /// One access unit.
    pub data: Bytes,
}

/// What is known about the place where the next sample will start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Within the open segment.
    Continues,
    /// It may be the start of the next segment: wait and see.
    MayStartSegment,
    /// It is the start of the next segment.
    StartsSegment,
}

/// What has been cut.
#[derive(Debug, Clone)]
pub enum Cut {
    /// A segment starts here.
    Open {
        /// By the plan.
        boundary: Boundary,
        /// With a first sample that starts here, ticks of 1/90000 s.
        start: i64,
    },
    /// One more part of the open segment.
    Part {
        /// `moof` and `mdat`.
        bytes: Bytes,
        /// Ticks of 1/90000 s; the parts' durations add up to the segment's exactly (PT-14).
        duration: u32,
        /// It starts with a random access point (PT-05, PT-06).
        independent: bool,
    },
    /// The open segment is complete.
    Close,
}

/// The packager of one rendition.
#[derive(Debug)]
pub struct Packager {
    timescale: u32,
    part_ceiling: u32,
    nominal: u32,
    pending: Vec<FragmentSample>,
    pending_start: i64,
    pending_duration: u32,
    open: Option<(u64, u32)>,
    /// Metadata for the next part, with its number.
    events: Vec<(u32, Id3)>,
    cuts: Vec<Cut>,
}

impl Packager {
    /// A packager for samples of `nominal` ticks of `timescale` per second, with parts of at most `part_ceiling` ticks.
    #[must_use]
    pub fn new(timescale: u32, nominal: u32, part_ceiling: u32) -> Self {
        Self {
            timescale,
            part_ceiling,
            nominal,
            pending: Vec::new(),
            pending_start: 0,
            pending_duration: 0,
            open: None,
            events: Vec::new(),
            cuts: Vec::new(),
        }
    }

    /// The ceiling on a part's duration and the nominal duration of a sample, ticks, from here on.
    pub fn set_part(&mut self, part_ceiling: u32, nominal: u32) {
        self.part_ceiling = part_ceiling;
        self.nominal = nominal;
    }

    /// The Media Sequence Number of the open segment.
    #[must_use]
    pub fn open_msn(&self) -> Option<u64> {
        self.open.map(|(msn, _)| msn)
    }

    /// Puts metadata in front of the next part; false when that has as much as it may.
    pub fn add_event(&mut self, id: u32, event: Id3) -> bool {
        let room = self.events.len() < EVENTS_MAX;
        if room {
            self.events.push((id, event));
        }
        room
    }

    /// Takes what an earlier packager of this rendition still had to put in front of a part.
    pub fn inherit(&mut self, earlier: Self) {
        self.events = earlier.events;
    }

    /// Takes the next sample; with `starts`, it is the first of that segment.
    ///
    /// # Errors
    /// Only when the box writer has a bug.
    pub fn push(&mut self, sample: TrackSample, starts: Option<Boundary>) -> Result<(), Fmp4Error> {
        if let Some(boundary) = starts {
            self.close()?;
            self.open = Some((boundary.msn, 0));
            let start = self.to_channel_ticks(sample.paced.start);
            self.cuts.push(Cut::Open { boundary, start });
        }
        if self.open.is_none() {
            return Ok(());
        }
        if !self.pending.is_empty() && self.pending_duration + sample.paced.duration > self.part_ceiling {
            self.cut_part()?;
        }
        if self.pending.is_empty() {
            self.pending_start = sample.paced.start;
        }
        self.pending_duration += sample.paced.duration;
        self.pending.push(FragmentSample {
            duration: sample.paced.duration,
            composition_offset: sample.composition_offset,
            sync: sample.sync,
            data: sample.data,
        });
        Ok(())
    }

    /// Cuts what can be cut now that it is known where the next sample starts.
    ///
    /// # Errors
    /// Only when the box writer has a bug.
    pub fn settle(&mut self, next: Next) -> Result<(), Fmp4Error> {
        match next {
            Next::MayStartSegment => Ok(()),
            Next::StartsSegment => self.close(),
            Next::Continues if self.pending_duration + self.nominal > self.part_ceiling => self.cut_part(),
            Next::Continues => Ok(()),
        }
    }

    /// Closes the open segment with what is pending.
    ///
    /// # Errors
    /// Only when the box writer has a bug.
    pub fn close(&mut self) -> Result<(), Fmp4Error> {
        self.cut_part()?;
        if self.open.take().is_some() {
            self.cuts.push(Cut::Close);
        }
        Ok(())
    }

    /// Cuts what is pending and leaves the segment without a further part: its end is lost.
    ///
    /// # Errors
    /// Only when the box writer has a bug.
    pub fn abandon(&mut self) -> Result<(), Fmp4Error> {
        self.cut_part()?;
        self.open = None;
        Ok(())
    }

    /// What has been cut since the last call, in order.
    pub fn take_cuts(&mut self) -> Vec<Cut> {
        std::mem::take(&mut self.cuts)
    }

    fn cut_part(&mut self) -> Result<(), Fmp4Error> {
        let (Some((msn, index)), Some(first)) = (self.open, self.pending.first()) else {
            self.pending.clear();
            self.pending_duration = 0;
            return Ok(());
        };
        let independent = first.sync;
        let end = self.pending_start + i64::from(self.pending_duration);
        let duration = self.to_channel_ticks(end) - self.to_channel_ticks(self.pending_start);
        // Rising, and the same for the same part whoever packages it (MP-07).
        #[expect(clippy::cast_possible_truncation, reason = "mfhd has 32 bits, which wrap")]
        let sequence_number = (msn.wrapping_mul(64) as u32).wrapping_add(index);
        let decode_time = u64::try_from(self.pending_start).unwrap_or(0);
        let mut bytes = fmp4::part(sequence_number, decode_time, &self.pending)?;
        if !self.events.is_empty() {
            let mut with_events = Vec::new();
            for (id, event) in self.events.drain(..) {
                with_events.extend_from_slice(&event.emsg(id, decode_time, self.timescale)?);
            }
            with_events.extend_from_slice(&bytes);
            bytes = with_events.into();
        }
        self.pending.clear();
        self.pending_duration = 0;
        self.open = Some((msn, index + 1));
        self.cuts.push(Cut::Part { bytes, duration: u32::try_from(duration).unwrap_or(0), independent });
        Ok(())
    }

    fn to_channel_ticks(&self, position: i64) -> i64 {
        to_channel_ticks(position, self.timescale)
    }
}

/// A position in ticks of `timescale` as ticks of the channel's timeline, rounded down.
#[must_use]
pub fn to_channel_ticks(position: i64, timescale: u32) -> i64 {
    scale(position, TICKS_PER_SECOND, i64::from(timescale))
}

/// A position on the channel's timeline as ticks of `timescale`, rounded down.
#[must_use]
pub fn to_track_ticks(position: i64, timescale: u32) -> i64 {
    scale(position, i64::from(timescale), TICKS_PER_SECOND)
}

/// Positions are around 2^48 and factors below 2^17, so the product is taken in 128 bits.
fn scale(position: i64, to: i64, from: i64) -> i64 {
    if to == from {
        return position;
    }
    let scaled = (i128::from(position) * i128::from(to)).div_euclid(i128::from(from));
    i64::try_from(scaled).unwrap_or(i64::MAX)
}

/// The PART-TARGET of a rendition, milliseconds: the configured one, unless the sample grid leaves every part more than
/// 15 % below it (PT-04) or one sample is longer than it.
#[must_use]
pub fn part_target_ms(configured_ms: u32, nominal: u32, timescale: u32) -> u32 {
    let (nominal, timescale) = (u64::from(nominal.max(1)), u64::from(timescale.max(1)));
    let samples = (u64::from(configured_ms) * timescale / 1000 / nominal).max(1);
    let part_us = samples * nominal * 1_000_000 / timescale;
    let configured_us = u64::from(configured_ms) * 1000;
    if part_us <= configured_us && part_us * 100 >= configured_us * 85 {
        configured_ms
    } else {
        u32::try_from((samples * nominal * 1000).div_ceil(timescale)).unwrap_or(u32::MAX)
    }
}

/// A part target as a ceiling in ticks of `timescale`.
#[must_use]
pub fn part_ceiling(part_target_ms: u32, timescale: u32) -> u32 {
    u32::try_from(u64::from(part_target_ms) * u64::from(timescale) / 1000).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
