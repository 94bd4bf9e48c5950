//! The stream's audio: held until its segment is decided, leading when there are no pictures.
//!
//! Invariant: audio never runs ahead of the place where the next segment may start, whoever decides on that.

use super::{Notice, Stream, WorkerSample, find};
use crate::TICKS_PER_MS;
use crate::fmp4::Fmp4Error;
use crate::pace::Paced;
use crate::packager::{TrackSample, to_channel_ticks, to_track_ticks};
use crate::plan::Leader;
use crate::rendition::{Feed, Rendition};
use crate::timeline::Track;
use bytes::Bytes;
use sigma_shared::id::RenditionId;

/// Audio frames that may wait for the picture that decides where a segment starts.
const HELD_AUDIO_MAX: usize = 1024;
/// Audio this far beyond the last picture goes on without pictures, milliseconds of media.
const VIDEO_ABSENT_MS: i64 = 6000;
/// Audio alone for this long means that there is no video, milliseconds of media.
const AUDIO_ALONE_MS: i64 = 1500;

impl Stream {
    /// An audio frame of the publisher.
    ///
    /// # Errors
    /// Only when the box writer has a bug.
    pub fn push_audio(&mut self, raw_ms: u32, data: Bytes, now_ms: u64) -> Result<(), Fmp4Error> {
        let Some((timescale, frame_samples)) = self.audio.as_ref().map(|a| (a.sample_rate, a.frame_samples))
        else {
            self.notices.push(Notice::DroppedBeforeStart);
            return Ok(());
        };
        if self.run.is_none() && !self.start_audio_alone(raw_ms, now_ms)? {
            return Ok(());
        }
        let Some(tick) = self.locate(Track::Audio, raw_ms, now_ms)? else {
            return Ok(());
        };
        let Some(run) = &mut self.run else { return Ok(()) };
        if tick < run.start {
            self.notices.push(Notice::DroppedBeforeStart);
            return Ok(());
        }
        let absent_for = tick - run.video.tip().unwrap_or(run.start);
        let video_absent = run.lead == Track::Video
            && (absent_for > VIDEO_ABSENT_MS * TICKS_PER_MS || run.held_audio.len() >= HELD_AUDIO_MAX);
        let time = to_track_ticks(tick, timescale);
        let paced = match passed_through(&mut self.renditions, &self.setup.audio_id) {
            Some(audio) => audio.place(time),
            None => Paced { start: time, duration: frame_samples },
        };
        let place = on_channel(paced, timescale);
        run.held_audio.push_back(TrackSample { paced, composition_offset: 0, sync: true, data });
        if video_absent {
            self.go_on_without_video(timescale)?;
        }
        if self.run.as_ref().is_some_and(|run| run.lead == Track::Audio) {
            self.lead_with_audio(place)?;
        }
        self.release_audio()?;
        self.settle(now_ms)
    }

    /// The pictures that decide where segments start do not come: from now on the audio does.
    fn go_on_without_video(&mut self, timescale: u32) -> Result<(), Fmp4Error> {
        self.notices.push(Notice::VideoAbsent);
        let Some(run) = &mut self.run else { return Ok(()) };
        run.lead = Track::Audio;
        let held: Vec<_> = run.held_audio.iter().map(|sample| on_channel(sample.paced, timescale)).collect();
        held.into_iter().try_for_each(|place| self.lead_with_audio(place))
    }

    fn lead_with_audio(&mut self, (start, end): (i64, i64)) -> Result<(), Fmp4Error> {
        let first = self.run.as_ref().is_none_or(|run| run.start == start);
        let leader = Leader { start, end, presented: start, random_access: true };
        match self.plan.lead(&leader, 0).filter(|_| !first) {
            Some(boundary) => self.segment_starts(boundary),
            None => Ok(()),
        }
    }

    /// Whether audio may start a run on its own: it has come for a while and no video configuration with it.
    pub(super) fn start_audio_alone(&mut self, raw_ms: u32, now_ms: u64) -> Result<bool, Fmp4Error> {
        let since = *self.audio_alone_since.get_or_insert(raw_ms);
        let alone_ms = i64::from(raw_ms.wrapping_sub(since).cast_signed());
        let patience_ms = if self.video.is_some() { VIDEO_ABSENT_MS } else { AUDIO_ALONE_MS };
        if alone_ms < patience_ms {
            self.notices.push(Notice::DroppedBeforeStart);
            return Ok(false);
        }
        self.start_run(Track::Audio, raw_ms, 0, now_ms)?;
        Ok(true)
    }

    /// Moves audio on whose segment is decided: everything before the place where the next segment may start, and
    /// everything that the pictures have passed.
    pub(super) fn release_audio(&mut self) -> Result<(), Fmp4Error> {
        let Some(run) = &mut self.run else { return Ok(()) };
        let Some(timescale) = self.audio.as_ref().map(|audio| audio.sample_rate) else { return Ok(()) };
        let passed = match run.lead {
            Track::Video => run.video.tip().unwrap_or(run.start),
            Track::Audio => i64::MAX,
        };
        let undecided_from = self.plan.next_from().unwrap_or(run.start).max(passed);
        let decided = |sample: &TrackSample| on_channel(sample.paced, timescale).0 < undecided_from;
        let count = run.held_audio.iter().take_while(|sample| decided(sample)).count();
        let released: Vec<_> = run.held_audio.drain(..count).collect();
        released.into_iter().try_for_each(|sample| self.deliver_audio(sample, timescale))
    }

    /// Audio whose segment is decided: into its rendition, or to the worker that makes one of it.
    pub(super) fn deliver_audio(&mut self, sample: TrackSample, timescale: u32) -> Result<(), Fmp4Error> {
        let (start, _) = on_channel(sample.paced, timescale);
        match passed_through(&mut self.renditions, &self.setup.audio_id) {
            Some(audio) => {
                let starts = audio.next_boundary(&self.plan, start);
                audio.push(sample, starts)
            }
            None => {
                self.worker.feed(WorkerSample::Audio { pts: start, data: sample.data });
                Ok(())
            }
        }
    }
}

/// The audio rendition, if the publisher's audio is served as it is.
fn passed_through<'a>(renditions: &'a mut [Rendition], audio: &RenditionId) -> Option<&'a mut Rendition> {
    find(renditions, audio).filter(|rendition| rendition.feed == Feed::Publisher)
}

/// Start and end of a sample on the channel's timeline.
pub(super) fn on_channel(paced: Paced, timescale: u32) -> (i64, i64) {
    (to_channel_ticks(paced.start, timescale), to_channel_ticks(paced.end(), timescale))
}
