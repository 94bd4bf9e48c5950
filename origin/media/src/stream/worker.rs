//! The stream's side of the media worker: what it is fed, and what becomes of what it delivers.
//!
//! Invariants: the worker gets a job before its first sample, and starts at a random access point; its output joins the
//! playlists at the start of a segment of the plan, never in the middle. Losing it costs its own renditions only (A11).

use super::{ChannelKind, Notice, Stream};
use crate::codec::{AacConfig, AvcConfig, FrameRate};
use crate::fmp4::{Fmp4Error, TrackConfig};
use crate::packager::{TrackSample, to_track_ticks};
use crate::rendition::Feed;
use bytes::Bytes;

/// What the worker is told.
#[derive(Debug, Clone)]
pub enum WorkerInput {
    /// A job, before the first sample of a run and after a restart.
    Start {
        /// The publisher's video.
        video: AvcConfig,
        /// The publisher's audio, if it has any.
        audio: Option<AacConfig>,
        /// The publisher's frame rate, if it is known.
        frame_rate: Option<FrameRate>,
    },
    /// One sample.
    Sample(WorkerSample),
    /// The run is over: deliver what is left.
    Flush,
}

/// A sample for the worker, in ticks of the channel's timeline.
#[derive(Debug, Clone)]
pub enum WorkerSample {
    /// One picture.
    Video {
        /// Decoding time.
        dts: i64,
        /// Presentation time.
        pts: i64,
        /// Random access point.
        sync: bool,
        /// Every rung has to make this picture a random access point: a segment starts here.
        segment_start: bool,
        /// NAL units with 4-byte lengths.
        data: Bytes,
    },
    /// One AAC frame.
    Audio {
        /// Presentation time.
        pts: i64,
        /// Raw AAC.
        data: Bytes,
    },
}

/// A picture that the worker delivers.
#[derive(Debug, Clone)]
pub struct WorkerPicture {
    /// Presentation time as it was fed, ticks of the channel's timeline.
    pub pts: i64,
    /// Random access point.
    pub sync: bool,
    /// It is the picture that was marked as the start of a segment.
    pub segment_start: bool,
    /// NAL units with 4-byte lengths.
    pub data: Bytes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// No process, or nothing for it to do.
    Idle,
    /// It gets the job with the next random access point.
    AwaitsRandomAccess,
    /// It is being fed.
    Fed,
    /// Its queue was full: samples are dropped up to the next random access point.
    Skipping,
}

#[derive(Debug)]
pub(super) struct Worker {
    kind: ChannelKind,
    rungs: usize,
    alive: bool,
    state: State,
    job: Option<WorkerInput>,
    inputs: Vec<WorkerInput>,
}

impl Worker {
    pub(super) fn new(kind: ChannelKind, rungs: usize) -> Self {
        Self { kind, rungs, alive: false, state: State::Idle, job: None, inputs: Vec::new() }
    }

    pub(super) fn makes_audio(&self) -> bool {
        self.kind == ChannelKind::Transcode
    }

    pub(super) fn rungs(&self) -> usize {
        self.rungs
    }

    pub(super) fn start(
        &mut self,
        video: Option<&AvcConfig>,
        audio: Option<&AacConfig>,
        rate: Option<FrameRate>,
    ) {
        let Some(video) = video.filter(|_| self.kind != ChannelKind::Forward) else {
            return;
        };
        let audio = audio.filter(|_| self.makes_audio()).cloned();
        self.job = Some(WorkerInput::Start { video: video.clone(), audio, frame_rate: rate });
        if self.alive {
            self.state = State::AwaitsRandomAccess;
        }
    }

    pub(super) fn feed(&mut self, sample: WorkerSample) {
        let random_access = matches!(sample, WorkerSample::Video { sync: true, .. });
        let wanted = self.makes_audio() || matches!(sample, WorkerSample::Video { .. });
        match self.state {
            State::Fed if wanted => {}
            State::AwaitsRandomAccess if random_access => self.inputs.extend(self.job.clone()),
            State::Skipping if random_access => {}
            _ => return,
        }
        self.state = State::Fed;
        self.inputs.push(WorkerInput::Sample(sample));
    }

    pub(super) fn flush(&mut self) {
        if matches!(self.state, State::Fed | State::Skipping) {
            self.inputs.push(WorkerInput::Flush);
        }
        self.state = State::Idle;
        self.job = None;
    }

    pub(super) fn take_inputs(&mut self) -> Vec<WorkerInput> {
        std::mem::take(&mut self.inputs)
    }
}

impl Stream {
    /// A worker process is there to be fed.
    pub fn worker_ready(&mut self) {
        self.worker.alive = true;
        self.worker.state = if self.worker.job.is_some() { State::AwaitsRandomAccess } else { State::Idle };
    }

    /// The worker process is gone.
    ///
    /// # Errors
    /// Only when the box writer has a bug.
    pub fn worker_lost(&mut self, now_ms: u64) -> Result<(), Fmp4Error> {
        self.worker.alive = false;
        self.worker.state = State::Idle;
        self.worker.inputs.clear();
        for rendition in self.renditions.iter_mut().filter(|r| r.feed == Feed::Worker) {
            rendition.lose_feed()?;
        }
        self.apply(now_ms);
        Ok(())
    }

    /// The worker's queue is full: it gets nothing before the next random access point.
    pub fn worker_congested(&mut self) {
        if self.worker.state == State::Fed {
            self.worker.state = State::Skipping;
        }
    }

    /// The configuration of what the worker delivers: a rung by its number, or its audio.
    ///
    /// # Errors
    /// Only when the box writer has a bug.
    pub fn configure_worker_track(
        &mut self,
        rung: Option<usize>,
        config: TrackConfig,
        frame_rate: Option<FrameRate>,
    ) -> Result<(), Fmp4Error> {
        let id = match rung {
            Some(index) => self.setup.rungs.get(index).cloned(),
            None => self.worker.makes_audio().then(|| self.setup.audio_id.clone()),
        };
        let Some(id) = id else { return Ok(()) };
        self.add_rendition(id, Feed::Worker, config, frame_rate)
    }

    /// A picture of a rung. Times are ticks of the channel's timeline, as they were fed.
    ///
    /// # Errors
    /// Only when the box writer has a bug.
    pub fn push_worker_video(
        &mut self,
        rung: usize,
        picture: WorkerPicture,
        now_ms: u64,
    ) -> Result<(), Fmp4Error> {
        let Some(id) = self.setup.rungs.get(rung).cloned() else {
            return Ok(());
        };
        let WorkerPicture { pts, sync, segment_start, data } = picture;
        self.push_worker_sample(
            &id,
            pts,
            WorkerUnit { sync, starts_segment: sync && segment_start, data },
            now_ms,
        )
    }

    /// An AAC frame of the worker.
    ///
    /// # Errors
    /// Only when the box writer has a bug.
    pub fn push_worker_audio(&mut self, pts: i64, data: Bytes, now_ms: u64) -> Result<(), Fmp4Error> {
        let id = self.setup.audio_id.clone();
        self.push_worker_sample(&id, pts, WorkerUnit { sync: true, starts_segment: true, data }, now_ms)
    }

    fn push_worker_sample(
        &mut self,
        id: &sigma_shared::id::RenditionId,
        pts: i64,
        unit: WorkerUnit,
        now_ms: u64,
    ) -> Result<(), Fmp4Error> {
        let Some(index) = self.renditions.iter().position(|r| r.id == *id && r.feed == Feed::Worker) else {
            return Ok(());
        };
        let is_audio = matches!(self.renditions[index].config, TrackConfig::Audio(_));
        let timescale = self.renditions[index].config.timescale();
        let starts = if !unit.starts_segment {
            None
        } else if is_audio && self.renditions[index].is_joined() {
            // Audio frames are not marked: the first one at or after a boundary starts its segment (MP-12).
            let tip = self.renditions[index].tip().unwrap_or(pts);
            self.renditions[index].next_boundary(&self.plan, tip)
        } else if is_audio {
            let frame = 2 * self.renditions[index].tolerance();
            self.plan.boundary_at(pts, frame).filter(|boundary| boundary.start <= pts)
        } else {
            self.plan.boundary_at(pts, self.renditions[index].tolerance())
        };
        if let Some(boundary) = starts {
            self.renditions[index].meet(&boundary)?;
            self.apply(now_ms);
            self.fill_gaps_of(index, boundary.msn);
        }
        let rendition = &mut self.renditions[index];
        // What starts before the playlist's end belongs to a segment that has been given up as a gap.
        let late = rendition.window().complete_msn().zip(starts).is_some_and(|(done, b)| b.msn <= done);
        if late || (!rendition.is_joined() && starts.is_none()) {
            return Ok(());
        }
        let paced = rendition.place(to_track_ticks(pts, timescale));
        rendition
            .push(TrackSample { paced, composition_offset: 0, sync: unit.sync, data: unit.data }, starts)?;
        self.settle(now_ms)
    }

    /// The worker has delivered everything of a run that is over.
    ///
    /// # Errors
    /// Only when the box writer has a bug.
    pub fn worker_flushed(&mut self, now_ms: u64) -> Result<(), Fmp4Error> {
        for rendition in self.renditions.iter_mut().filter(|r| r.feed == Feed::Worker) {
            rendition.end_run()?;
        }
        self.apply(now_ms);
        Ok(())
    }

    /// Gaps in the renditions that nobody delivers, up to a segment that starts now (EV-11).
    pub(super) fn fill_gaps(&mut self, msn: u64) {
        for index in 0..self.renditions.len() {
            if !self.renditions[index].is_joined() {
                self.fill_gaps_of(index, msn);
            }
        }
    }

    fn fill_gaps_of(&mut self, index: usize, msn: u64) {
        let timeline = self.run.as_ref().map(|run| &run.timeline).or(self.published.last_timeline.as_ref());
        let pdt = |tick| timeline.map_or(0, |timeline| timeline.program_date_time_ms(tick));
        if let Some(rendition) = self.renditions.get_mut(index) {
            rendition.fill_gaps_before(msn, &self.plan, pdt);
        }
    }

    /// Every notice since the last call.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }
}

struct WorkerUnit {
    sync: bool,
    starts_segment: bool,
    data: Bytes,
}
