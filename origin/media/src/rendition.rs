//! One rendition: pacing, packager and window of one Media Playlist, whoever feeds it.
//!
//! Invariants: segments carry the numbers of the [`SegmentPlan`], one by one; what a feeder failed to deliver is in the
//! playlist as a gap, so that the numbers of all renditions stay in step (EV-11, MV-07).

use crate::TICKS_PER_MS;
use crate::codec::FrameRate;
use crate::fmp4::{self, Fmp4Error, TrackConfig};
use crate::pace::{Paced, Pacer};
use crate::packager::{Cut, Next, Packager, TrackSample, part_ceiling, part_target_ms, to_channel_ticks};
use crate::plan::{Boundary, SegmentPlan};
use crate::snapshot::RenditionSnapshot;
use crate::timed::Id3;
use crate::window::{Event, LiveWindow, Part, Segment, Shown, WindowLimits};
use bytes::Bytes;
use sigma_shared::id::RenditionId;
use sigma_shared::playlist::{PartLine, RenditionReport, ServerControl};
use sigma_shared::resource::InitHash;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// Who delivers a rendition's samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feed {
    /// The publisher: its samples are passed through.
    Publisher,
    /// The media worker.
    Worker,
}

/// One rendition of a channel.
#[derive(Debug)]
pub struct Rendition {
    /// Its name in URLs.
    pub id: RenditionId,
    /// Who delivers.
    pub feed: Feed,
    /// Codec configuration in force.
    pub config: TrackConfig,
    /// FRAME-RATE, for video.
    pub frame_rate: Option<FrameRate>,
    init: InitHash,
    pacer: Pacer,
    packager: Packager,
    window: LiveWindow,
    configured_part_ms: u32,
    part_target_ms: u32,
    /// Samples are being taken; false until a segment starts in this run, and after its feeder was lost.
    joined: bool,
    changed: bool,
    /// What it says of the others since it was last shown.
    pub reported: Arc<[RenditionReport]>,
}

/// What a rendition is made with.
#[derive(Debug, Clone)]
pub struct RenditionSetup {
    /// Its name in URLs.
    pub id: RenditionId,
    /// Who delivers.
    pub feed: Feed,
    /// Codec configuration.
    pub config: TrackConfig,
    /// Frame rate, for video.
    pub frame_rate: Option<FrameRate>,
    /// The configured part target, milliseconds.
    pub part_target_ms: u32,
    /// What its window keeps.
    pub limits: WindowLimits,
}

impl Rendition {
    /// A rendition without segments.
    ///
    /// # Errors
    /// Only when the box writer has a bug.
    pub fn new(setup: RenditionSetup) -> Result<Self, Fmp4Error> {
        let timescale = setup.config.timescale();
        let nominal = nominal(&setup.config, setup.frame_rate);
        let part_target_ms = part_target_ms(setup.part_target_ms, nominal, timescale);
        let mut rendition = Self {
            id: setup.id,
            feed: setup.feed,
            frame_rate: setup.frame_rate,
            init: InitHash(0),
            pacer: Pacer::new(nominal, timescale),
            packager: Packager::new(timescale, nominal, part_ceiling(part_target_ms, timescale)),
            window: LiveWindow::new(setup.limits),
            configured_part_ms: setup.part_target_ms,
            part_target_ms,
            joined: false,
            changed: false,
            reported: Arc::default(),
            config: setup.config,
        };
        rendition.add_init()?;
        Ok(rendition)
    }

    /// Another codec configuration from the next run on. The part target stays (EV-04).
    ///
    /// # Errors
    /// Only when the box writer has a bug.
    pub fn reconfigure(
        &mut self,
        config: TrackConfig,
        frame_rate: Option<FrameRate>,
    ) -> Result<(), Fmp4Error> {
        let timescale = config.timescale();
        let nominal = nominal(&config, frame_rate);
        self.pacer = Pacer::new(nominal, timescale);
        let packager = Packager::new(timescale, nominal, part_ceiling(self.part_target_ms, timescale));
        let earlier = std::mem::replace(&mut self.packager, packager);
        self.packager.inherit(earlier);
        self.config = config;
        self.frame_rate = frame_rate;
        self.add_init()
    }

    fn add_init(&mut self) -> Result<(), Fmp4Error> {
        let bytes = fmp4::init_section(&self.config)?;
        self.init = InitHash(fnv1a(&bytes));
        self.window.add_init(self.init, bytes);
        self.pacer.set_ceiling(part_ceiling(self.part_target_ms, self.config.timescale()));
        Ok(())
    }

    /// Goes on with a part target and a window that were before.
    ///
    /// # Errors
    /// Only when the box writer has a bug.
    pub fn restore(
        &mut self,
        part_target_ms: u32,
        fill: impl FnOnce(&mut LiveWindow),
    ) -> Result<(), Fmp4Error> {
        fill(&mut self.window);
        self.set_part_target(part_target_ms);
        self.changed = true;
        self.add_init()
    }

    /// What has happened since the last call, for the archive.
    pub fn take_events(&mut self) -> Vec<Event> {
        self.window.take_events()
    }

    /// What the archive has now.
    pub fn set_archived(&mut self, archived: Option<RangeInclusive<u64>>) {
        self.window.set_archived(archived);
    }

    fn set_part_target(&mut self, part_target_ms: u32) {
        self.part_target_ms = part_target_ms;
        let ceiling = part_ceiling(part_target_ms, self.config.timescale());
        self.pacer.set_ceiling(ceiling);
        self.packager.set_part(ceiling, self.pacer.nominal());
    }

    /// A measured frame rate, before anything has been published: sets FRAME-RATE, pacing and part target.
    pub fn set_frame_rate(&mut self, frame_rate: FrameRate) {
        let timescale = self.config.timescale();
        self.frame_rate = Some(frame_rate);
        let nominal = nominal(&self.config, self.frame_rate);
        self.pacer.set_nominal(nominal);
        self.set_part_target(part_target_ms(self.configured_part_ms, nominal, timescale));
    }

    /// Puts metadata in front of the next part; false when that has as much as it may.
    pub fn add_event(&mut self, id: u32, event: Id3) -> bool {
        self.packager.add_event(id, event)
    }

    /// Its playlist has to be rendered again, for a reason of the stream's.
    pub fn touch(&mut self) {
        self.changed = true;
    }

    /// PART-TARGET, milliseconds.
    #[must_use]
    pub fn part_target_ms(&self) -> u32 {
        self.part_target_ms
    }

    /// Its window.
    #[must_use]
    pub fn window(&self) -> &LiveWindow {
        &self.window
    }

    /// Whether samples are being taken.
    #[must_use]
    pub fn is_joined(&self) -> bool {
        self.joined
    }

    /// Half a sample in ticks of the channel's timeline: how far from a boundary still counts as on it.
    #[must_use]
    pub fn tolerance(&self) -> i64 {
        to_channel_ticks(i64::from(self.pacer.nominal()), self.config.timescale()) / 2
    }

    /// Where the next sample will start, ticks of the channel's timeline.
    #[must_use]
    pub fn tip(&self) -> Option<i64> {
        self.pacer.tip().map(|tip| to_channel_ticks(tip, self.config.timescale()))
    }

    /// Places the next sample at `time`, ticks of the track's timescale.
    pub fn place(&mut self, time: i64) -> Paced {
        self.pacer.place(time)
    }

    /// Takes over the place that the publisher's track was given.
    pub fn follow(&mut self, paced: Paced) {
        self.pacer.follow(paced);
    }

    /// Takes a placed sample; `starts` when a segment starts with it.
    ///
    /// # Errors
    /// Only when the box writer has a bug.
    pub fn push(&mut self, sample: TrackSample, starts: Option<Boundary>) -> Result<(), Fmp4Error> {
        self.joined |= starts.is_some();
        self.packager.push(sample, starts)
    }

    /// The boundary of the segment after the newest one of this rendition, if it is decided and at or before `start`.
    #[must_use]
    pub fn next_boundary(&self, plan: &SegmentPlan, start: i64) -> Option<Boundary> {
        let next = match self.packager.open_msn().or(self.window.complete_msn()) {
            Some(msn) => plan.boundary(msn + 1)?,
            None => return plan.current().filter(|boundary| boundary.start <= start),
        };
        (next.start <= start).then_some(next)
    }

    /// Where a boundary is for this rendition: an encoder's pictures come in the order of presentation.
    fn place_of(&self, boundary: &Boundary) -> i64 {
        if self.feed == Feed::Worker { boundary.presented } else { boundary.start }
    }

    /// Cuts what can be cut, given what the plan knows of the place where the next sample starts.
    ///
    /// # Errors
    /// Only when the box writer has a bug.
    pub fn settle(&mut self, plan: &SegmentPlan) -> Result<(), Fmp4Error> {
        let (Some(tip), Some(msn)) = (self.tip(), self.packager.open_msn()) else {
            return Ok(());
        };
        // Audio has no frame to spare: its first frame at or after the boundary starts the segment (MP-12).
        let tolerance = if matches!(self.config, TrackConfig::Video(_)) { self.tolerance() } else { 0 };
        let next = match (plan.boundary(msn + 1), plan.next_from()) {
            (Some(boundary), _) if tip + tolerance >= self.place_of(&boundary) => Next::StartsSegment,
            (Some(_), _) | (None, None) => Next::Continues,
            (None, Some(from)) if tip + self.tolerance() >= from => Next::MayStartSegment,
            (None, Some(_)) => Next::Continues,
        };
        self.packager.settle(next)
    }

    /// Ends the run: what is pending is cut, the open segment completed. The next run starts with an init section of
    /// its own and a new pacing.
    ///
    /// # Errors
    /// Only when the box writer has a bug.
    pub fn end_run(&mut self) -> Result<(), Fmp4Error> {
        self.packager.close()?;
        self.restart_pacing();
        Ok(())
    }

    /// Its feeder is lost in mid-segment: the rest of the segment becomes a gap once its end is known.
    ///
    /// # Errors
    /// Only when the box writer has a bug.
    pub fn lose_feed(&mut self) -> Result<(), Fmp4Error> {
        self.packager.abandon()?;
        self.restart_pacing();
        Ok(())
    }

    /// How many segments it is behind the one that starts now, if it is being delivered.
    #[must_use]
    pub fn segments_behind(&self, msn: u64) -> u64 {
        let newest = self.packager.open_msn().or(self.window.complete_msn());
        newest.filter(|_| self.joined).map_or(0, |newest| msn.saturating_sub(newest))
    }

    /// A segment starts at `boundary`: if the samples before it did not reach it, the rest of theirs is lost.
    ///
    /// # Errors
    /// Only when the box writer has a bug.
    pub fn meet(&mut self, boundary: &Boundary) -> Result<(), Fmp4Error> {
        let distance =
            self.tip().filter(|_| self.joined).map_or(0, |tip| (tip - self.place_of(boundary)).abs());
        if distance > 2 * self.tolerance() + 1 { self.lose_feed() } else { Ok(()) }
    }

    fn restart_pacing(&mut self) {
        self.joined = false;
        self.pacer = Pacer::new(self.pacer.nominal(), self.config.timescale());
        self.pacer.set_ceiling(part_ceiling(self.part_target_ms, self.config.timescale()));
    }

    /// Writes gaps for everything before segment `msn` that has not been delivered (EV-11).
    pub fn fill_gaps_before(&mut self, msn: u64, plan: &SegmentPlan, pdt: impl Fn(i64) -> i64) {
        // What was delivered of the segment that was lost must be in the window first.
        self.apply_cuts(0, &pdt);
        let mut last = None;
        while let Some(next) =
            self.window.open_segment().map(|s| s.msn).or(self.window.complete_msn().map(|m| m + 1))
        {
            let (Some(boundary), Some(length)) = (plan.boundary(next), plan.length(next)) else {
                return;
            };
            // A segment without duration leaves nothing in the window: there is nothing to fill.
            if next >= msn || last.replace(next) == Some(next) {
                return;
            }
            if self.window.open_segment().is_none() {
                self.open_segment(&boundary, boundary.start, pdt(boundary.start));
            }
            let delivered = self.window.open_segment().map_or(0, |segment| {
                segment.parts.iter().map(|part| i64::from(part.line.duration)).sum::<i64>()
            });
            self.append_gap(length - delivered);
            self.window.close(true);
            self.changed = true;
        }
    }

    /// Lists segment `msn`, which is a gap from the first to the second of `span`, as far as it has passed at `now`.
    pub fn pass_gap(&mut self, msn: u64, span: (i64, i64), now: i64, pdt: impl Fn(i64) -> i64) {
        if self.window.complete_msn().is_none_or(|complete| complete + 1 != msn) {
            return;
        }
        let mut at = self.window.tip_tick().unwrap_or(span.0);
        while at < span.1 {
            let next = (at + i64::from(self.part_target_ms) * TICKS_PER_MS).min(span.1);
            if next > now {
                return;
            }
            if self.window.open_segment().is_none() {
                let planned = span.0;
                let boundary =
                    Boundary { msn, start: planned, presented: planned, run_start: false, forced: false };
                self.open_segment(&boundary, at, pdt(at));
            }
            self.append_gap(next - at);
            self.changed = true;
            at = next;
        }
        self.window.close(true);
    }

    /// The gap that is being listed ends at `end`, ticks.
    pub fn end_gap(&mut self, end: i64) {
        if self.window.open_segment().is_some() {
            self.append_gap(end - self.window.tip_tick().unwrap_or(end));
            self.window.close(true);
            self.changed = true;
        }
    }

    /// Gap parts, none longer than the part target (PT-03).
    fn append_gap(&mut self, ticks: i64) {
        let mut left = u32::try_from(ticks).unwrap_or(0);
        let ceiling = self.part_target_ms * 90;
        while left > 0 {
            let duration = left.min(ceiling);
            let line = PartLine { duration, independent: false, gap: true };
            self.window.append(Part { bytes: Bytes::new(), line, available_at_ms: 0 });
            left -= duration;
        }
    }

    /// Moves what has been cut into the window. `now_ms` is the wall clock, Unix milliseconds; `pdt` maps a tick to
    /// EXT-X-PROGRAM-DATE-TIME.
    pub fn apply_cuts(&mut self, now_ms: u64, pdt: impl Fn(i64) -> i64) {
        for cut in self.packager.take_cuts() {
            self.changed = true;
            match cut {
                // PDT-02: the date of its own first sample, which for audio is up to a frame after the boundary.
                Cut::Open { boundary, start } => self.open_segment(&boundary, start, pdt(start)),
                Cut::Part { bytes, duration, independent } => {
                    let line = PartLine { duration, independent, gap: false };
                    self.window.append(Part { bytes, line, available_at_ms: now_ms });
                }
                Cut::Close => self.window.close(false),
            }
        }
    }

    fn open_segment(&mut self, boundary: &Boundary, start: i64, program_date_time_ms: i64) {
        // The first segment of all has nothing before it to be discontinuous with.
        let discontinuity = boundary.run_start && self.window.complete_msn().is_some();
        self.window.open(Segment {
            msn: boundary.msn,
            start,
            boundary: boundary.start,
            duration: None,
            discontinuity,
            gap: false,
            init: self.init,
            program_date_time_ms,
            parts: Vec::new(),
        });
    }

    /// Ends the playlist (EV-10).
    pub fn finish(&mut self) {
        self.window.end();
        self.changed = true;
    }

    /// Whether the playlist has to be rendered again.
    #[must_use]
    pub fn is_changed(&self) -> bool {
        self.changed
    }

    /// Whether the playlist has to be rendered again; resets itself.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// What readers get, if there is something to show.
    #[must_use]
    pub fn snapshot(&mut self, shown: Shown) -> Option<RenditionSnapshot> {
        let control = ServerControl { part_target_ms: self.part_target_ms, ..shown.control };
        self.window.snapshot(Shown { control, next_init: Some(self.init), ..shown })
    }
}

/// The nominal duration of a sample, ticks of the track's timescale.
fn nominal(config: &TrackConfig, frame_rate: Option<FrameRate>) -> u32 {
    match config {
        TrackConfig::Audio(aac) => aac.frame_samples,
        TrackConfig::Video(_) => frame_rate.map_or(3000, |rate| rate.frame_ticks()),
    }
}

/// FNV-1a: names an init section by its content. Not for secrets; a publisher who forged a collision would only spoil
/// its own stream.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
