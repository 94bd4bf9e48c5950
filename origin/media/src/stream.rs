//! The stream of one channel: the one writer that owns timeline, plan, renditions and windows (A2).
//!
//! A broadcast session is a `Stream`; each time a publisher connects is a run within it. A run starts at its first
//! random access point, on the segment grid; between two runs the playlists stand still, and the next run continues
//! the numbers behind one EXT-X-DISCONTINUITY.
//!
//! Invariants: every method is a decision without waiting; what has to happen outside (render, feed the worker, log) is
//! collected and handed out by [`Stream::take_changes`]. Renditions of one stream are cut by one plan.

mod audio;
mod away;
mod metadata;
mod publish;
mod restore;
#[cfg(test)]
mod tests;
mod worker;

pub use metadata::NotTaken;
pub use publish::{Changes, MultivariantSnapshot};
pub use restore::{Constants, Restored};
pub use worker::{WorkerInput, WorkerPicture, WorkerSample};

use crate::codec::{AacConfig, AccessUnit, AvcConfig, FrameRate};
use crate::fmp4::{Fmp4Error, TrackConfig};
use crate::pace::Pacer;
use crate::packager::{TrackSample, part_ceiling, part_target_ms};
use crate::plan::{Boundary, Grid, Leader, SegmentPlan};
use crate::rendition::{Feed, Rendition, RenditionSetup};
use crate::timeline::{Placement, Timeline, Track};
use crate::window::WindowLimits;
use crate::{TICKS_PER_MS, TICKS_PER_SECOND};
use audio::on_channel;
use publish::Published;
use sigma_shared::id::RenditionId;
use std::collections::VecDeque;

/// A rendition that is further behind than this has lost its track, segments.
const SEGMENTS_BEHIND_MAX: u64 = 3;
/// No segment is longer before the target duration is fixed, seconds.
const SEGMENT_MAX_S: i64 = 10;

/// What a channel does with its publisher's streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelKind {
    /// Passes them through.
    Forward,
    /// Passes them through and adds transcoded rungs.
    Hybrid,
    /// Serves transcoded renditions only.
    Transcode,
}

/// What a stream is made with.
#[derive(Debug, Clone)]
pub struct StreamSetup {
    /// What is served.
    pub kind: ChannelKind,
    /// Length of a cell of the segment grid, milliseconds.
    pub segment_ms: u32,
    /// Part target, milliseconds.
    pub part_target_ms: u32,
    /// How long media stays in memory and listed without an archive, milliseconds.
    pub window_ms: u32,
    /// Length of a playlist with an archive, milliseconds; 0 without.
    pub dvr_ms: u32,
    /// Bytes of media that one rendition may keep in memory.
    pub window_bytes_max: u64,
    /// The lowest Media Sequence Number that has never been given out (A12).
    pub msn_min: u64,
    /// EXT-X-DISCONTINUITY-SEQUENCE to start with (EV-02).
    pub discontinuity_sequence: u64,
    /// The rungs that the media worker delivers, by its track number.
    pub rungs: Vec<RenditionId>,
    /// The id of the passed-through video.
    pub source_id: RenditionId,
    /// The id of the audio.
    pub audio_id: RenditionId,
}

/// Something worth a log line or a counter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A run started with this segment.
    RunStarted {
        /// Media Sequence Number.
        msn: u64,
    },
    /// The publisher's clock jumped; the timeline goes on.
    ClockJumped {
        /// Milliseconds.
        by_ms: i64,
    },
    /// Nothing came for this long; a new run begins at the next random access point.
    Hole {
        /// Milliseconds.
        ms: i64,
    },
    /// The codec configuration changed; a new run begins at the next random access point.
    Reconfigured,
    /// No pictures came for seconds while audio did: it goes on alone.
    VideoAbsent,
    /// A segment had to end without a random access point, because the publisher sends them too rarely.
    SegmentForced {
        /// Media Sequence Number.
        msn: u64,
    },
    /// A sample came before the first random access point, or before its track was configured, and was dropped.
    DroppedBeforeStart,
    /// A rendition's samples have not come for some segments: they become gaps until they do.
    Straggler {
        /// Its id.
        rendition: RenditionId,
    },
}

/// One publishing run.
#[derive(Debug)]
struct Run {
    timeline: Timeline,
    lead: Track,
    /// Places of the publisher's video, whether it is served or only transcoded.
    video: Pacer,
    /// The first picture's presentation minus decoding time, ticks: pictures are shifted by it so that the run starts
    /// with its presentation on the grid (MP-12).
    composition_base: i64,
    start: i64,
    frames: u32,
    held_audio: VecDeque<TrackSample>,
}

/// See the module.
#[derive(Debug)]
pub struct Stream {
    setup: StreamSetup,
    plan: SegmentPlan,
    renditions: Vec<Rendition>,
    video: Option<AvcConfig>,
    audio: Option<AacConfig>,
    /// Frame rate that the publisher states outside the bitstream.
    stated_frame_rate: Option<FrameRate>,
    run: Option<Run>,
    /// Media time of the first audio of a run that has no video yet.
    audio_alone_since: Option<u32>,
    /// Where the newest picture of all runs ends, ticks.
    video_end: i64,
    /// How many runs have started.
    runs: u64,
    /// Program date and time of the first one's start.
    began_ms: Option<i64>,
    /// The gap that is being listed while nobody publishes.
    gap: Option<away::Gap>,
    finished: bool,
    /// How many ID3 tags have been sent.
    events: u32,
    published: Published,
    worker: worker::Worker,
    notices: Vec<Notice>,
}

impl Stream {
    /// A stream that nobody publishes to yet.
    #[must_use]
    pub fn new(setup: StreamSetup) -> Self {
        let cell = i64::from(setup.segment_ms) * TICKS_PER_MS;
        let grid = if setup.kind == ChannelKind::Transcode { Grid::Exact } else { Grid::RandomAccess };
        Self {
            plan: SegmentPlan::new(cell, grid, SEGMENT_MAX_S * TICKS_PER_SECOND),
            renditions: Vec::new(),
            video: None,
            audio: None,
            stated_frame_rate: None,
            run: None,
            audio_alone_since: None,
            video_end: 0,
            runs: 0,
            began_ms: None,
            gap: None,
            finished: false,
            // Another start, other ids: players drop a tag whose id they know.
            events: (setup.msn_min as u32).wrapping_mul(64),
            published: Published::default(),
            worker: worker::Worker::new(setup.kind, setup.rungs.len()),
            notices: Vec::new(),
            setup,
        }
    }

    /// A publisher has connected: what an earlier one stated does not hold for it.
    pub fn begin_publishing(&mut self) {
        (self.video, self.audio, self.stated_frame_rate) = (None, None, None);
    }

    /// What the publisher says of its frame rate beside the bitstream (onMetaData).
    pub fn state_frame_rate(&mut self, frames_per_second: f64) {
        self.stated_frame_rate = FrameRate::nearest(frames_per_second);
    }

    /// The video's configuration. A change ends the run.
    ///
    /// # Errors
    /// Only when the box writer has a bug.
    pub fn configure_video(&mut self, config: AvcConfig, now_ms: u64) -> Result<(), Fmp4Error> {
        if self.video.as_ref() == Some(&config) {
            return Ok(());
        }
        self.interrupt_for_change(now_ms)?;
        self.video = Some(config);
        Ok(())
    }

    /// The audio's configuration. A change ends the run.
    ///
    /// # Errors
    /// Only when the box writer has a bug.
    pub fn configure_audio(&mut self, config: AacConfig, now_ms: u64) -> Result<(), Fmp4Error> {
        if self.audio.as_ref() == Some(&config) {
            return Ok(());
        }
        if self.audio.is_some() {
            self.interrupt_for_change(now_ms)?;
        }
        self.audio = Some(config);
        if self.run.is_some() {
            self.add_publisher_renditions()?;
        }
        Ok(())
    }

    fn interrupt_for_change(&mut self, now_ms: u64) -> Result<(), Fmp4Error> {
        if self.run.is_some() {
            self.notices.push(Notice::Reconfigured);
            self.end_run(now_ms)?;
        }
        Ok(())
    }

    /// A picture of the publisher. `raw_ms` is its decoding time on the publisher's clock, `now_ms` the wall clock.
    ///
    /// # Errors
    /// Only when the box writer has a bug.
    pub fn push_video(
        &mut self,
        raw_ms: u32,
        composition_ms: i32,
        unit: AccessUnit,
        now_ms: u64,
    ) -> Result<(), Fmp4Error> {
        let composition = i64::from(composition_ms) * TICKS_PER_MS;
        if unit.idr && self.run.as_ref().is_some_and(|run| run.lead == Track::Audio) {
            // The audio went on alone; with pictures, segments start with pictures again.
            self.end_run(now_ms)?;
        }
        if self.run.is_none() {
            if !unit.idr || self.video.is_none() {
                self.notices.push(Notice::DroppedBeforeStart);
                return Ok(());
            }
            self.start_run(Track::Video, raw_ms, composition, now_ms)?;
        }
        let Some(tick) = self.locate(Track::Video, raw_ms, now_ms)? else {
            // The picture after a hole can begin the next run itself.
            return if unit.idr { self.push_video(raw_ms, composition_ms, unit, now_ms) } else { Ok(()) };
        };
        let Some(run) = &mut self.run else { return Ok(()) };
        if run.lead == Track::Audio {
            self.notices.push(Notice::DroppedBeforeStart);
            return Ok(());
        }
        let paced = run.video.place(tick + run.composition_base);
        run.frames += 1;
        let nominal = i64::from(run.video.nominal());
        let offset = snap(composition - run.composition_base, nominal);
        let starts = if paced.start == run.start {
            self.plan.current()
        } else {
            let presented = paced.start + offset;
            let leader = Leader { start: paced.start, end: paced.end(), presented, random_access: unit.idr };
            self.plan.lead(&leader, nominal / 2)
        };
        if let Some(boundary) = starts {
            self.segment_starts(boundary)?;
        }
        let sample = WorkerSample::Video {
            dts: paced.start,
            pts: paced.start + offset,
            sync: unit.idr,
            segment_start: starts.is_some(),
            data: unit.data.clone(),
        };
        self.worker.feed(sample);
        if let Some(source) = find(&mut self.renditions, &self.setup.source_id) {
            source.follow(paced);
            let composition_offset = i32::try_from(offset).unwrap_or(0);
            source
                .push(TrackSample { paced, composition_offset, sync: unit.idr, data: unit.data }, starts)?;
        }
        self.release_audio()?;
        self.settle(now_ms)
    }

    /// The publisher is gone: everything that was delivered is published; the playlists then stand still.
    ///
    /// # Errors
    /// Only when the box writer has a bug.
    pub fn end_run(&mut self, now_ms: u64) -> Result<(), Fmp4Error> {
        self.audio_alone_since = None;
        let Some(mut run) = self.run.take() else {
            return Ok(());
        };
        self.video_end = self.video_end.max(run.video.tip().unwrap_or(0));
        // Audio beyond the last picture stays in that picture's segment, as far as its length allows (SYN-11).
        let limit = self.plan.current().map_or(i64::MAX, |current| current.start + self.plan.limit());
        let timescale = self.audio.as_ref().map_or(1, |audio| audio.sample_rate);
        for sample in run.held_audio.drain(..).filter(|s| on_channel(s.paced, timescale).1 <= limit) {
            self.deliver_audio(sample, timescale)?;
        }
        for rendition in self.renditions.iter_mut().filter(|r| r.feed == Feed::Publisher) {
            rendition.end_run()?;
        }
        self.worker.flush();
        self.published.last_timeline = Some(run.timeline);
        self.apply(now_ms);
        Ok(())
    }

    /// The broadcast session is over: the playlists end.
    ///
    /// # Errors
    /// Only when the box writer has a bug.
    pub fn finish(&mut self, now_ms: u64) -> Result<(), Fmp4Error> {
        self.end_run(now_ms)?;
        self.end_gap();
        self.finished = true;
        for rendition in &mut self.renditions {
            rendition.end_run()?;
        }
        self.apply(now_ms);
        self.renditions.iter_mut().for_each(Rendition::finish);
        Ok(())
    }

    /// Where the timeline began, Unix milliseconds: the start of the cell of the grid, on the timeline by which viewers' watch
    /// time is counted. EXT-X-PROGRAM-DATE-TIME is later by less than a segment. A session that was restored does not know.
    #[must_use]
    pub fn began_ms(&self) -> Option<i64> {
        self.began_ms
    }

    /// The lowest Media Sequence Number and the EXT-X-DISCONTINUITY-SEQUENCE that a later stream of this channel may
    /// start with (A12).
    #[must_use]
    pub fn resume_point(&self) -> (u64, u64) {
        let msn = self.plan.current().map_or(self.setup.msn_min, |current| current.msn + 1);
        let passed = self.renditions.iter().map(|r| r.window().discontinuities()).max();
        (msn, passed.unwrap_or(self.setup.discontinuity_sequence))
    }

    /// Starts a run at a random access point: it goes to the start of the wall clock's cell of the grid.
    fn start_run(
        &mut self,
        lead: Track,
        raw_ms: u32,
        composition: i64,
        now_ms: u64,
    ) -> Result<(), Fmp4Error> {
        let now_ms = i64::try_from(now_ms).unwrap_or(i64::MAX);
        self.end_gap();
        let newest = self.plan.current().map_or(self.setup.msn_min, |current| current.msn + 1);
        let first = self.plan.current().is_none();
        let past = self.timeline_end();
        let wall_cell = self.plan.cell_of(now_ms * TICKS_PER_MS);
        let cell = wall_cell.max(self.plan.cell_of(past - 1) + u64::from(past > 0));
        let cell = if first { cell.max(newest) } else { cell };
        let start = self.plan.cell_start(cell);
        // Within a session the numbers go on by one; a pause has numbers of its own (EV-01, EV-11).
        let msn = if first { cell } else { newest };
        let anchor = start - composition;
        let frame_rate = self.frame_rate();
        let nominal = frame_rate.map_or(3000, |rate| rate.frame_ticks());
        let mut video = Pacer::new(nominal, 90_000);
        video.set_ceiling(part_ceiling(part_target_ms(self.setup.part_target_ms, nominal, 90_000), 90_000));
        self.run = Some(Run {
            timeline: Timeline::anchor(lead, raw_ms, now_ms, anchor),
            lead,
            video,
            composition_base: composition,
            start,
            frames: 0,
            held_audio: VecDeque::new(),
        });
        self.began_ms.get_or_insert(start / TICKS_PER_MS);
        self.runs += 1;
        self.add_publisher_renditions()?;
        let boundary = self.plan.start_run(msn, start);
        self.notices.push(Notice::RunStarted { msn });
        self.worker.start(self.video.as_ref(), self.audio.as_ref(), frame_rate);
        self.fill_gaps(boundary.msn);
        Ok(())
    }

    fn add_publisher_renditions(&mut self) -> Result<(), Fmp4Error> {
        let frame_rate = self.frame_rate();
        if self.setup.kind != ChannelKind::Transcode
            && let Some(video) = self.video.clone()
        {
            let id = self.setup.source_id.clone();
            self.add_rendition(id, Feed::Publisher, TrackConfig::Video(video), frame_rate)?;
        }
        if !self.worker.makes_audio()
            && let Some(audio) = self.audio.clone()
        {
            let id = self.setup.audio_id.clone();
            self.add_rendition(id, Feed::Publisher, TrackConfig::Audio(audio), None)?;
        }
        Ok(())
    }

    fn add_rendition(
        &mut self,
        id: RenditionId,
        feed: Feed,
        config: TrackConfig,
        frame_rate: Option<FrameRate>,
    ) -> Result<(), Fmp4Error> {
        if let Some(known) = find(&mut self.renditions, &id) {
            if known.config != config {
                known.reconfigure(config, frame_rate)?;
            }
            return Ok(());
        }
        let limits = self.limits();
        let part_target_ms = self.setup.part_target_ms;
        let setup = RenditionSetup { id, feed, config, frame_rate, part_target_ms, limits };
        self.renditions.push(Rendition::new(setup)?);
        Ok(())
    }

    fn limits(&self) -> WindowLimits {
        WindowLimits {
            window: i64::from(self.setup.window_ms) * TICKS_PER_MS,
            dvr: i64::from(self.setup.dvr_ms) * TICKS_PER_MS,
            bytes_max: self.setup.window_bytes_max,
            // A rendition that appears in a later run has passed the same discontinuities as the others (MV-07).
            discontinuity_sequence: self.setup.discontinuity_sequence + self.runs.saturating_sub(1),
        }
    }

    fn frame_rate(&self) -> Option<FrameRate> {
        self.video.as_ref().and_then(|video| video.frame_rate).or(self.stated_frame_rate)
    }

    /// The tick of a sample on the timeline; `None` when it ended the run.
    fn locate(&mut self, track: Track, raw_ms: u32, now_ms: u64) -> Result<Option<i64>, Fmp4Error> {
        let Some(run) = &mut self.run else { return Ok(None) };
        match run.timeline.place(track, raw_ms, i64::try_from(now_ms).unwrap_or(i64::MAX)) {
            Placement::At(tick) => Ok(Some(tick)),
            Placement::Jumped { at, by_ms } => {
                self.notices.push(Notice::ClockJumped { by_ms });
                Ok(Some(at))
            }
            Placement::Hole { ms } => {
                self.notices.push(Notice::Hole { ms });
                self.end_run(now_ms)?;
                Ok(None)
            }
        }
    }

    /// A segment starts: the first one that does so in a session fixes what playlists must keep constant.
    fn segment_starts(&mut self, boundary: Boundary) -> Result<(), Fmp4Error> {
        if boundary.forced {
            self.notices.push(Notice::SegmentForced { msn: boundary.msn });
        }
        if !boundary.run_start {
            self.fix_constants();
            self.give_up_on_stragglers(boundary.msn)?;
            self.fill_gaps(boundary.msn);
        }
        Ok(())
    }

    /// Whoever is this far behind delivers nothing any more: its segments become gaps until it does again.
    fn give_up_on_stragglers(&mut self, msn: u64) -> Result<(), Fmp4Error> {
        for rendition in self.renditions.iter_mut().filter(|r| r.segments_behind(msn) > SEGMENTS_BEHIND_MAX) {
            self.notices.push(Notice::Straggler { rendition: rendition.id.clone() });
            rendition.lose_feed()?;
        }
        Ok(())
    }

    fn settle(&mut self, now_ms: u64) -> Result<(), Fmp4Error> {
        for rendition in &mut self.renditions {
            rendition.settle(&self.plan)?;
        }
        self.apply(now_ms);
        Ok(())
    }

    fn apply(&mut self, now_ms: u64) {
        let timeline = self.run.as_ref().map(|run| &run.timeline).or(self.published.last_timeline.as_ref());
        let pdt = |tick| timeline.map_or(0, |timeline| timeline.program_date_time_ms(tick));
        for rendition in &mut self.renditions {
            rendition.apply_cuts(now_ms, pdt);
        }
    }
}

fn find<'a>(renditions: &'a mut [Rendition], id: &RenditionId) -> Option<&'a mut Rendition> {
    renditions.iter_mut().find(|rendition| rendition.id == *id)
}

/// A composition offset in whole samples, if the milliseconds of the ingest protocol hide one.
fn snap(offset: i64, nominal: i64) -> i64 {
    let samples = (offset + nominal / 2).div_euclid(nominal);
    let snapped = samples * nominal;
    if (snapped - offset).abs() <= 2 * TICKS_PER_MS { snapped } else { offset }
}
