//! The task of one channel: the shell around the pure stream.

use super::{AUDIO_ID, ChannelSpec, SOURCE_ID, View};
use crate::config::{ChannelType, ProfileConfig};
use crate::ingest::{Ingest, Session};
use crate::metrics::Metrics;
use crate::numbers::Numbers;
use crate::transcode::ladder::{self, JobParts};
use crate::transcode::process::{Worker, WorkerEvent};
use sigma_media::codec::{AacConfig, AvcConfig, FrameRate};
use sigma_media::fmp4::{Fmp4Error, TrackConfig};
use sigma_media::snapshot::RenditionSnapshot;
use sigma_media::stream::{
    ChannelKind, MultivariantSnapshot, Notice, Stream, StreamSetup, WorkerInput, WorkerPicture, WorkerSample,
};
use sigma_shared::id::RenditionId;
use sigma_worker::protocol::{self, FromWorker, ToWorker};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior};

/// Audio this long before any video configuration means that there is no video.
const AUDIO_ALONE: Duration = Duration::from_millis(1500);

/// A publisher that sends nothing usable for this long is complained about.
const KEYFRAME_PATIENCE: Duration = Duration::from_secs(5);

/// How often time is looked at while nobody publishes: well below a part.
const TICK: Duration = Duration::from_millis(50);
/// How long after a restart a channel that was on is taken to come back.
const RETURN_PATIENCE: Duration = Duration::from_secs(10);
/// A complaint that could be made again and again is made this often.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

/// A broadcast session.
struct Broadcast {
    stream: Stream,
    rungs: Vec<ProfileConfig>,
    multivariant: Option<Arc<MultivariantSnapshot>>,
    renditions: HashMap<RenditionId, watch::Sender<Arc<RenditionSnapshot>>>,
}

/// What a publisher has stated before its first sample.
#[derive(Default)]
struct Stated {
    frame_rate: Option<f64>,
    video: Option<AvcConfig>,
    audio: Option<AacConfig>,
    audio_since: Option<Instant>,
}

pub(super) struct Task {
    spec: ChannelSpec,
    numbers: Numbers,
    metrics: Arc<Metrics>,
    view: watch::Sender<Arc<View>>,
    session: Option<Session>,
    stated: Stated,
    broadcast: Option<Broadcast>,
    worker: Option<Worker>,
    /// The worker's process is there.
    worker_alive: bool,
    /// When the broadcast session ends unless its publisher comes back; afterwards, when it is forgotten.
    stops_at: Option<Instant>,
    ticks: Interval,
    complaint: KeyframeComplaint,
    jumps: Throttle,
    forced: Throttle,
}

/// A publisher whose samples cannot be used is told of once per run, not once per sample.
#[derive(Default)]
struct KeyframeComplaint {
    dropping_since: Option<Instant>,
    made: bool,
}

enum Event {
    Session(Session),
    Ingest(Option<Ingest>),
    Worker(Option<WorkerEvent>),
    /// Time goes on while nobody publishes.
    Tick,
    Stop,
}

impl Task {
    pub(super) fn new(
        spec: ChannelSpec,
        numbers: Numbers,
        metrics: Arc<Metrics>,
        view: watch::Sender<Arc<View>>,
    ) -> Self {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            ticks,
            spec,
            numbers,
            metrics,
            view,
            session: None,
            stated: Stated::default(),
            broadcast: None,
            worker: None,
            worker_alive: false,
            stops_at: None,
            complaint: KeyframeComplaint::default(),
            jumps: Throttle::default(),
            forced: Throttle::default(),
        }
    }

    pub(super) async fn run(mut self, mut sessions: mpsc::Receiver<Session>) {
        if self.numbers.next() != (0, 0) {
            // This channel was on before the restart, and its publisher is likely to come back.
            self.prepare();
            self.stops_at = Some(Instant::now() + RETURN_PATIENCE);
        }
        loop {
            let event = self.next(&mut sessions).await;
            let outcome = match event {
                Some(Event::Session(session)) => {
                    self.begin(session);
                    Ok(())
                }
                Some(Event::Ingest(Some(event))) => self.ingest(event),
                Some(Event::Ingest(None)) => self.publisher_gone(),
                Some(Event::Worker(event)) => self.hear(event),
                Some(Event::Tick) => self.pass_time(),
                Some(Event::Stop) => self.stop(),
                None => return,
            };
            if let Err(error) = outcome {
                tracing::error!(channel = %self.spec.id, "bug: {error}");
            }
            self.publish();
        }
    }

    async fn next(&mut self, sessions: &mut mpsc::Receiver<Session>) -> Option<Event> {
        let idle = self.session.is_none();
        let publisher = async {
            match &mut self.session {
                Some(session) => Event::Ingest(session.events.recv().await),
                None => std::future::pending().await,
            }
        };
        let worker = async {
            match &mut self.worker {
                Some(worker) => Event::Worker(worker.event().await),
                None => std::future::pending().await,
            }
        };
        let stop = async {
            match self.stops_at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let away = self.broadcast.as_ref().is_some_and(|broadcast| !broadcast.stream.is_running());
        tokio::select! {
            event = publisher => Some(event),
            event = worker => Some(event),
            session = sessions.recv(), if idle => session.map(Event::Session),
            () = stop => Some(Event::Stop),
            _ = self.ticks.tick(), if away => Some(Event::Tick),
        }
    }

    fn begin(&mut self, session: Session) {
        tracing::info!(channel = %self.spec.id, publisher = %session.publisher, "publishing begins");
        self.metrics.publishing(&self.spec.id).set(1);
        self.session = Some(session);
        self.stated = Stated::default();
        self.complaint = KeyframeComplaint::default();
        self.stops_at = None;
        match &mut self.broadcast {
            Some(broadcast) => broadcast.stream.begin_publishing(),
            None => self.prepare(),
        }
        if self.spec.kind != ChannelType::Forward && !self.spec.ladder.is_empty() && self.worker.is_none() {
            let queue_max = self.spec.transcode.queue_samples_max;
            self.worker = Some(Worker::start(format!("transcode {}", self.spec.id), queue_max));
        }
    }

    /// Players are told to come back rather than that there is nothing: they do not ask again after a 404.
    fn prepare(&self) {
        self.view.send_replace(Arc::new(View { preparing: true, ..View::empty(self.spec.mode) }));
    }

    fn ingest(&mut self, event: Ingest) -> Result<(), Fmp4Error> {
        let now = now_ms();
        match event {
            Ingest::FrameRate(rate) => {
                self.stated.frame_rate = Some(rate);
                if let Some(broadcast) = &mut self.broadcast {
                    broadcast.stream.state_frame_rate(rate);
                }
            }
            Ingest::VideoConfig(config) => {
                self.stated.video = Some((*config).clone());
                if let Some(broadcast) = &mut self.broadcast {
                    broadcast.stream.configure_video(*config, now)?;
                }
            }
            Ingest::AudioConfig(config) => {
                self.stated.audio = Some(config.clone());
                if let Some(broadcast) = &mut self.broadcast {
                    broadcast.stream.configure_audio(config, now)?;
                }
            }
            Ingest::Video { timestamp_ms, composition_ms, unit } => {
                if let Some(broadcast) = self.broadcast(now)? {
                    broadcast.stream.push_video(timestamp_ms, composition_ms, unit, now)?;
                }
            }
            Ingest::Audio { timestamp_ms, data } => {
                let since = *self.stated.audio_since.get_or_insert_with(Instant::now);
                // Until it is clear whether there is video, it is not clear what the channel consists of.
                let alone = self.stated.video.is_none() && since.elapsed() < AUDIO_ALONE;
                if self.broadcast.is_none() && alone {
                    return Ok(());
                }
                if let Some(broadcast) = self.broadcast(now)? {
                    broadcast.stream.push_audio(timestamp_ms, data, now)?;
                }
            }
        }
        Ok(())
    }

    /// The broadcast session, begun if there is none.
    fn broadcast(&mut self, now: u64) -> Result<Option<&mut Broadcast>, Fmp4Error> {
        if self.broadcast.is_none() {
            let Some(mut broadcast) = self.new_broadcast() else {
                return Ok(None);
            };
            if let Some(rate) = self.stated.frame_rate {
                broadcast.stream.state_frame_rate(rate);
            }
            if let Some(video) = self.stated.video.clone() {
                broadcast.stream.configure_video(video, now)?;
            }
            if let Some(audio) = self.stated.audio.clone() {
                broadcast.stream.configure_audio(audio, now)?;
            }
            if self.worker_alive {
                broadcast.stream.worker_ready();
            }
            self.broadcast = Some(broadcast);
        }
        Ok(self.broadcast.as_mut())
    }

    fn new_broadcast(&self) -> Option<Broadcast> {
        let height = self.stated.video.as_ref().map_or(0, |video| video.height);
        let rungs =
            if height == 0 { Vec::new() } else { ladder::fitting(&self.spec.ladder, self.spec.kind, height) };
        let kind = match self.spec.kind {
            ChannelType::Forward => ChannelKind::Forward,
            // Without video, or without a rung that fits, there is nothing to transcode.
            _ if rungs.is_empty() => ChannelKind::Forward,
            ChannelType::Hybrid => ChannelKind::Hybrid,
            ChannelType::Transcode => ChannelKind::Transcode,
        };
        let (msn_min, discontinuity_sequence) = self.numbers.next();
        let setup = StreamSetup {
            kind,
            segment_ms: self.spec.segment_ms,
            part_target_ms: self.spec.part_target_ms,
            window_ms: self.spec.window_ms,
            dvr_ms: 0,
            window_bytes_max: self.spec.window_bytes_max,
            msn_min,
            discontinuity_sequence,
            rungs: rungs.iter().filter_map(|profile| profile.id.parse().ok()).collect(),
            source_id: SOURCE_ID.parse().ok()?,
            audio_id: AUDIO_ID.parse().ok()?,
        };
        Some(Broadcast { stream: Stream::new(setup), rungs, multivariant: None, renditions: HashMap::new() })
    }

    fn publisher_gone(&mut self) -> Result<(), Fmp4Error> {
        if let Some(session) = self.session.take() {
            let stop_timeout = self.spec.stop_timeout;
            tracing::info!(channel = %self.spec.id, publisher = %session.publisher, ?stop_timeout, "publisher is gone");
        }
        self.metrics.publishing(&self.spec.id).set(0);
        self.stops_at = Some(Instant::now() + self.spec.stop_timeout);
        match &mut self.broadcast {
            Some(broadcast) => broadcast.stream.end_run(now_ms()),
            None => Ok(()),
        }
    }

    fn pass_time(&mut self) -> Result<(), Fmp4Error> {
        match &mut self.broadcast {
            Some(broadcast) => broadcast.stream.pass_time(now_ms()),
            None => Ok(()),
        }
    }

    fn stop(&mut self) -> Result<(), Fmp4Error> {
        (self.worker, self.worker_alive) = (None, false);
        let Some(broadcast) = &mut self.broadcast else {
            // Nobody follows a playlist that ended this long ago.
            self.stops_at = None;
            self.view.send_replace(Arc::new(View::empty(self.spec.mode)));
            return Ok(());
        };
        self.stops_at = Some(Instant::now() + Duration::from_millis(self.spec.window_ms.into()));
        tracing::info!(channel = %self.spec.id, "broadcast session ends: its publisher did not come back");
        broadcast.stream.finish(now_ms())?;
        self.publish();
        if let Some(broadcast) = self.broadcast.take() {
            let (msn, discontinuities) = broadcast.stream.resume_point();
            // Whatever comes next does not continue this session's pictures.
            self.numbers.given_out(msn, discontinuities + 1);
        }
        Ok(())
    }

    fn hear(&mut self, event: Option<WorkerEvent>) -> Result<(), Fmp4Error> {
        let now = now_ms();
        match event {
            None => self.worker = None,
            Some(WorkerEvent::Ready) => {
                self.worker_alive = true;
                if let Some(broadcast) = &mut self.broadcast {
                    broadcast.stream.worker_ready();
                }
            }
            Some(WorkerEvent::Lost { reason, pause }) => {
                self.worker_alive = false;
                tracing::warn!(channel = %self.spec.id, ?pause, "media worker {reason}; starting it again");
                self.metrics.worker_losses(&self.spec.id).inc();
                if let Some(broadcast) = &mut self.broadcast {
                    broadcast.stream.worker_lost(now)?;
                }
            }
            Some(WorkerEvent::Said(message)) => {
                if let Some(broadcast) = &mut self.broadcast {
                    broadcast.take_from_worker(message, now, &self.spec.id)?;
                }
            }
        }
        Ok(())
    }

    /// Hands out what has changed.
    fn publish(&mut self) {
        let Some(broadcast) = &mut self.broadcast else {
            return;
        };
        let changes = broadcast.stream.take_changes();
        let mut skipping = false;
        for input in changes.worker {
            let is_sample = matches!(input, WorkerInput::Sample(_));
            if skipping && is_sample {
                continue;
            }
            let message = broadcast.to_worker(&self.spec, input);
            if self.worker.as_ref().is_none_or(|worker| worker.tell(message).is_err()) {
                skipping = true;
                self.metrics.worker_skips(&self.spec.id).inc();
                broadcast.stream.worker_congested();
            }
        }
        let mut appeared = false;
        for (id, snapshot) in changes.renditions {
            self.metrics.playlists_rendered.inc();
            match broadcast.renditions.get(&id) {
                Some(sender) => drop(sender.send_replace(snapshot)),
                None => {
                    broadcast.renditions.insert(id, watch::Sender::new(snapshot));
                    appeared = true;
                }
            }
        }
        if appeared || changes.multivariant.is_some() {
            broadcast.multivariant = changes.multivariant.or(broadcast.multivariant.take());
            let renditions = broadcast.renditions.iter();
            let renditions = renditions.map(|(id, sender)| (id.clone(), sender.subscribe())).collect();
            let multivariant = broadcast.multivariant.clone();
            let preparing = multivariant.is_none();
            self.view.send_replace(Arc::new(View {
                mode: self.spec.mode,
                multivariant,
                preparing,
                renditions,
            }));
        }
        self.notice();
    }

    fn notice(&mut self) {
        let Some(broadcast) = &mut self.broadcast else {
            return;
        };
        let id = &self.spec.id;
        for notice in broadcast.stream.take_notices() {
            match notice {
                Notice::RunStarted { msn } => {
                    self.complaint = KeyframeComplaint::default();
                    tracing::info!(channel = %id, msn, "live");
                }
                Notice::ClockJumped { by_ms } => {
                    if let Some(left_out) = self.jumps.admit() {
                        tracing::warn!(channel = %id, by_ms, left_out, "the publisher's clock jumped; the timeline goes on");
                    }
                }
                Notice::Hole { ms } => {
                    tracing::warn!(channel = %id, ms, "the publisher left a hole; a new run begins at its next keyframe");
                }
                Notice::VideoAbsent => {
                    tracing::warn!(channel = %id, "no pictures come any more; the audio goes on alone");
                }
                Notice::Reconfigured => {
                    tracing::info!(channel = %id, "codec configuration changed; a new run begins at the next keyframe");
                }
                Notice::SegmentForced { msn } => {
                    self.metrics.segments_forced(id).inc();
                    if let Some(left_out) = self.forced.admit() {
                        tracing::warn!(channel = %id, msn, left_out, "no keyframe in time: the segment had to end without one");
                    }
                }
                Notice::Straggler { rendition } => {
                    self.metrics.stragglers(id).inc();
                    tracing::warn!(channel = %id, %rendition, "nothing comes for it; its segments become gaps");
                }
                Notice::DroppedBeforeStart => {
                    self.metrics.dropped(id).inc();
                    if self.complaint.is_due() {
                        tracing::warn!(channel = %id, "media without a keyframe, or without codec configuration; nothing can be served");
                    }
                }
            }
        }
        let (msn, discontinuities) = broadcast.stream.resume_point();
        self.numbers.given_out(msn, discontinuities);
    }
}

/// Lets one complaint of a kind through per interval, and counts the others.
#[derive(Default)]
struct Throttle {
    last: Option<Instant>,
    left_out: u32,
}

impl Throttle {
    /// How many were left out since the last one, if this one may be made.
    fn admit(&mut self) -> Option<u32> {
        if self.last.is_some_and(|last| last.elapsed() < COMPLAINT_INTERVAL) {
            self.left_out += 1;
            return None;
        }
        self.last = Some(Instant::now());
        Some(std::mem::take(&mut self.left_out))
    }
}

impl KeyframeComplaint {
    /// True once, when samples have been dropped for a while.
    fn is_due(&mut self) -> bool {
        let since = *self.dropping_since.get_or_insert_with(Instant::now);
        let due = !self.made && since.elapsed() > KEYFRAME_PATIENCE;
        self.made |= due;
        due
    }
}

impl Broadcast {
    fn to_worker(&self, spec: &ChannelSpec, input: WorkerInput) -> ToWorker {
        match input {
            WorkerInput::Start { video, audio, frame_rate } => {
                let parts = JobParts {
                    video: &video,
                    audio: audio.as_ref(),
                    frame_rate,
                    rungs: &self.rungs,
                    threads: spec.transcode.threads,
                    audio_bitrate_bps: spec.transcode.audio_bitrate_bps,
                };
                ToWorker::Start(Box::new(ladder::job(&parts)))
            }
            WorkerInput::Sample(WorkerSample::Video { dts, pts, sync, segment_start, data }) => {
                ToWorker::Video(protocol::VideoSample { dts, pts, sync, segment_start, payload: data })
            }
            WorkerInput::Sample(WorkerSample::Audio { pts, data }) => {
                ToWorker::Audio(protocol::AudioFrame { pts, payload: data })
            }
            WorkerInput::Flush => ToWorker::Flush,
        }
    }

    fn take_from_worker(
        &mut self,
        message: FromWorker,
        now: u64,
        channel: &sigma_shared::id::ChannelId,
    ) -> Result<(), Fmp4Error> {
        let refused = |error| tracing::error!(%channel, "media worker delivers what cannot be used: {error}");
        match message {
            FromWorker::VideoConfig(config) => match AvcConfig::parse(&config.avcc) {
                Ok(avc) => {
                    let rate = FrameRate::new(config.frame_rate.num, config.frame_rate.den);
                    let track = Some(usize::from(config.track));
                    self.stream.configure_worker_track(track, TrackConfig::Video(avc), rate)
                }
                Err(error) => {
                    refused(error);
                    Ok(())
                }
            },
            FromWorker::AudioConfig(asc) => match AacConfig::parse(asc) {
                Ok(aac) => self.stream.configure_worker_track(None, TrackConfig::Audio(aac), None),
                Err(error) => {
                    refused(error);
                    Ok(())
                }
            },
            FromWorker::Video(frame) => {
                let picture = WorkerPicture {
                    pts: frame.pts,
                    sync: frame.sync,
                    segment_start: frame.segment_start,
                    data: frame.payload,
                };
                self.stream.push_worker_video(usize::from(frame.track), picture, now)
            }
            FromWorker::Audio(frame) => self.stream.push_worker_audio(frame.pts, frame.payload, now),
            FromWorker::Flushed(totals) => {
                tracing::debug!(%channel, ?totals, "media worker has delivered everything of the run");
                self.stream.worker_flushed(now)
            }
        }
    }
}

/// The wall clock, Unix milliseconds.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
