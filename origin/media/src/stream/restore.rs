//! A session goes on after the origin was restarted: what the archive has is listed again, the time since is a gap, and
//! whoever publishes next continues the numbers.
//!
//! Invariant: no name is given out twice. The archive may lack the last part that viewers were told of, so the segment
//! after the newest archived one is a gap in any case, and so is everything below the numbers known to be free (A12).

use super::{Stream, StreamSetup, find};
use crate::codec::FrameRate;
use crate::fmp4::{self, Fmp4Error};
use crate::rendition::{Feed, Rendition, RenditionSetup};
use crate::timeline::{Timeline, Track};
use crate::window::{ArchivedSegment, WindowLimits};
use bytes::Bytes;
use sigma_shared::id::RenditionId;
use sigma_shared::playlist::ServerControl;
use sigma_shared::resource::InitHash;
use std::ops::RangeInclusive;

/// An archive that is further behind the numbers given out is of another time.
const GAPS_MAX: u64 = 64;

/// What of a rendition must not change while its playlist lives, and is not in its segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Constants {
    /// The media worker delivers it.
    pub from_worker: bool,
    /// FRAME-RATE as numerator and denominator, for video.
    pub frame_rate: Option<(u32, u32)>,
    /// Its own PART-TARGET, milliseconds.
    pub part_target_ms: u32,
    /// What all playlists of the channel state.
    pub control: ServerControl,
    /// Peak and average bit rate, of its media and of its I-frames, bits per second.
    pub rates: [(u64, u64); 2],
}

/// What an archive has of a rendition.
#[derive(Debug, Clone)]
pub struct Restored {
    /// Its name in URLs.
    pub id: RenditionId,
    /// As stated before.
    pub constants: Constants,
    /// In order; numbers rise by one.
    pub segments: Vec<ArchivedSegment>,
    /// The init sections they need.
    pub inits: Vec<(InitHash, Bytes)>,
}

impl Stream {
    /// A stream that goes on where an earlier one stopped; `None` if nothing of it can be shown. Renditions that are
    /// further behind than the segment that was being written are left out: they come back like new ones.
    ///
    /// # Errors
    /// Only when the box writer has a bug.
    pub fn restore(setup: StreamSetup, mut restored: Vec<Restored>) -> Result<Option<Self>, Fmp4Error> {
        let last = |one: &Restored| one.segments.last().copied();
        let Some(newest) = restored.iter().filter_map(last).max_by_key(|last| (last.line.msn, last.start))
        else {
            return Ok(None);
        };
        restored.retain(|one| last(one).is_some_and(|last| last.line.msn + 1 >= newest.line.msn));
        let Some(control) = restored.first().map(|one| one.constants.control) else {
            return Ok(None);
        };
        let mut stream = Self::new(setup);
        for one in restored {
            stream.restore_rendition(one)?;
        }
        if stream.renditions.is_empty() {
            return Ok(None);
        }
        let passed = stream.renditions.iter().map(|r| r.window().discontinuities()).max().unwrap_or(0);
        (stream.setup.discontinuity_sequence, stream.runs) = (passed, 1);
        stream.published.last_timeline =
            Some(Timeline::anchor(Track::Video, 0, newest.line.program_date_time_ms, newest.start));
        stream.plan.start_gap(newest.line.msn, newest.start);
        stream.keep_constants(control, newest.line.msn);
        stream.video_end = stream.timeline_end();
        let free = stream.setup.msn_min.saturating_sub(newest.line.msn + 1);
        if free > GAPS_MAX {
            return Ok(None);
        }
        stream.continue_in_gaps(newest.line.msn, newest.start, free.max(1));
        Ok(Some(stream))
    }

    fn restore_rendition(&mut self, one: Restored) -> Result<(), Fmp4Error> {
        let init =
            one.segments.last().and_then(|last| one.inits.iter().find(|(hash, _)| *hash == last.line.init));
        let Some(config) = init.and_then(|(_, bytes)| fmp4::track_config(bytes)) else {
            return Ok(());
        };
        let setup = RenditionSetup {
            id: one.id,
            feed: if one.constants.from_worker { Feed::Worker } else { Feed::Publisher },
            config,
            frame_rate: one.constants.frame_rate.and_then(|(num, den)| FrameRate::new(num, den)),
            part_target_ms: self.setup.part_target_ms,
            limits: WindowLimits { discontinuity_sequence: 0, ..self.limits() },
        };
        let mut rendition = Rendition::new(setup)?;
        rendition.restore(one.constants.part_target_ms, |window| {
            window.restore(&one.segments, one.inits, one.constants.rates);
        })?;
        self.renditions.push(rendition);
        Ok(())
    }

    /// The renditions there are.
    pub fn rendition_ids(&self) -> impl Iterator<Item = &RenditionId> {
        self.renditions.iter().map(|rendition| &rendition.id)
    }

    /// What an archive has to keep beside the segments, for every rendition that is shown.
    #[must_use]
    pub fn constants(&self) -> Vec<(RenditionId, Constants)> {
        let Some(control) = self.published.control else {
            return Vec::new();
        };
        let shown = self.renditions.iter().filter(|rendition| rendition.window().tip().is_some());
        let constants = shown.map(|rendition| {
            let constants = Constants {
                from_worker: rendition.feed == Feed::Worker,
                frame_rate: rendition.frame_rate.map(|rate| (rate.num, rate.den)),
                part_target_ms: rendition.part_target_ms(),
                control,
                rates: [rendition.window().bit_rates(), rendition.window().iframe_bit_rates()],
            };
            (rendition.id.clone(), constants)
        });
        constants.collect()
    }

    /// What the archive has of a rendition now, by number.
    pub fn set_archived(&mut self, id: &RenditionId, archived: Option<RangeInclusive<u64>>) {
        if let Some(rendition) = find(&mut self.renditions, id) {
            rendition.set_archived(archived);
        }
    }
}
