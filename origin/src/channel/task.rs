//! The task of one channel: the shell around the pure stream.

mod broadcast;
mod complaints;
mod told;

use super::{AUDIO_ID, Annotation, ChannelSpec, NotAnnotated, Request, SOURCE_ID, View};
use crate::archive::Archivist;
use crate::config::{ChannelType, ProfileConfig};
use crate::ingest::{Ingest, Session};
use crate::metrics::Metrics;
use crate::numbers::Numbers;
use crate::transcode::ladder;
use crate::transcode::process::{Worker, WorkerEvent};
use broadcast::Broadcast;
use complaints::Complaints;
use sigma_media::codec::{AacConfig, AvcConfig};
use sigma_media::fmp4::Fmp4Error;
use sigma_media::stream::{ChannelKind, NotTaken, Stream, StreamSetup, WorkerInput};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior};
pub(super) use told::Told;

/// Audio this long before any video configuration means that there is no video.
const AUDIO_ALONE: Duration = Duration::from_millis(1500);

/// How often time is looked at while nobody publishes: well below a part.
const TICK: Duration = Duration::from_millis(50);
/// How long after a restart a channel that was on is taken to come back.
const RETURN_PATIENCE: Duration = Duration::from_secs(10);
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
    told: Told,
    session: Option<Session>,
    stated: Stated,
    broadcast: Option<Broadcast>,
    archivist: Option<Archivist>,
    worker: Option<Worker>,
    /// The worker's process is there.
    worker_alive: bool,
    /// When the broadcast session ends unless its publisher comes back; afterwards, when it is forgotten.
    stops_at: Option<Instant>,
    ticks: Interval,
    complaints: Complaints,
}

/// Where a task is asked for something.
struct Inbox {
    sessions: mpsc::Receiver<Session>,
    requests: mpsc::Receiver<Request>,
}

enum Event {
    Session(Session),
    Ingest(Option<Ingest>),
    Worker(Option<WorkerEvent>),
    Request(Request),
    /// Time goes on while nobody publishes.
    Tick,
    Stop,
}

impl Task {
    pub(super) fn new(spec: ChannelSpec, numbers: Numbers, metrics: Arc<Metrics>, told: Told) -> Self {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            ticks,
            spec,
            numbers,
            metrics,
            told,
            session: None,
            stated: Stated::default(),
            broadcast: None,
            archivist: None,
            worker: None,
            worker_alive: false,
            stops_at: None,
            complaints: Complaints::default(),
        }
    }

    pub(super) async fn run(mut self, sessions: mpsc::Receiver<Session>, requests: mpsc::Receiver<Request>) {
        let mut inbox = Inbox { sessions, requests };
        let was_on = self.numbers.next() != (0, 0);
        if was_on {
            self.prepare();
        }
        let restored = self.restore().await.unwrap_or_else(|error| {
            tracing::error!(channel = %self.spec.id, "bug: {error}");
            false
        });
        if restored {
            self.stops_at = Some(Instant::now() + self.spec.stop_timeout.max(RETURN_PATIENCE));
            self.publish();
        } else if was_on {
            // Its publisher is likely to come back.
            self.stops_at = Some(Instant::now() + RETURN_PATIENCE);
        }
        loop {
            let event = self.next(&mut inbox).await;
            let outcome = match event {
                Some(Event::Session(session)) => {
                    self.begin(session);
                    Ok(())
                }
                Some(Event::Ingest(Some(event))) => self.ingest(event),
                Some(Event::Ingest(None)) => self.publisher_gone(),
                Some(Event::Worker(event)) => self.hear(event),
                Some(Event::Request(request)) => {
                    self.annotate(request);
                    Ok(())
                }
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

    /// Goes on with the session that was on when the origin stopped, if its archive is there.
    async fn restore(&mut self) -> Result<bool, Fmp4Error> {
        let Some(spec) = self.spec.archive.clone() else {
            return Ok(false);
        };
        let (channel, metrics, window_ms) = (self.spec.id.clone(), Arc::clone(&self.metrics), spec.window_ms);
        let opened = tokio::task::spawn_blocking(move || Archivist::open(spec, &channel, &metrics)).await;
        let Ok((archivist, mut restored)) = opened else {
            return Ok(false);
        };
        self.archivist = Some(archivist);
        let rungs: Vec<ProfileConfig> = {
            let is_there =
                |profile: &&ProfileConfig| restored.iter().any(|one| one.id.as_str() == profile.id);
            self.spec.ladder.iter().filter(is_there).cloned().collect()
        };
        let served = |id: &str| {
            let source = id == SOURCE_ID && (self.spec.kind != ChannelType::Transcode || rungs.is_empty());
            source || id == AUDIO_ID || rungs.iter().any(|rung| rung.id == id)
        };
        restored.retain(|one| served(one.id.as_str()));
        let ended_ms =
            restored.iter().filter_map(|one| one.segments.last()).map(|last| last.line.program_date_time_ms);
        let too_old =
            ended_ms.max().is_none_or(|ended| now_ms().saturating_sub(ended.unsigned_abs()) > window_ms);
        if too_old {
            return Ok(false);
        }
        let Some(setup) = self.setup(&rungs) else { return Ok(false) };
        let Some(stream) = Stream::restore(setup, restored)? else { return Ok(false) };
        tracing::info!(channel = %self.spec.id, "going on with the session that was on before");
        if let Some(archivist) = &mut self.archivist {
            let gone_on_with: Vec<_> = stream.rendition_ids().cloned().collect();
            archivist.retain(&gone_on_with);
        }
        let broadcast = self.broadcast.insert(Broadcast::new(stream, rungs));
        self.told.going_on(broadcast, &self.numbers);
        self.pass_time()?;
        Ok(true)
    }

    async fn next(&mut self, inbox: &mut Inbox) -> Option<Event> {
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
            session = inbox.sessions.recv(), if idle => session.map(Event::Session),
            Some(request) = inbox.requests.recv() => Some(Event::Request(request)),
            () = stop => Some(Event::Stop),
            _ = self.ticks.tick(), if away => Some(Event::Tick),
        }
    }

    fn begin(&mut self, session: Session) {
        tracing::info!(channel = %self.spec.id, publisher = %session.publisher, "publishing begins");
        self.metrics.publishing(&self.spec.id).set(1);
        self.session = Some(session);
        self.stated = Stated::default();
        self.complaints.begin();
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
        self.told.view.send_replace(Arc::new(View { preparing: true, ..View::empty(self.spec.mode) }));
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
            if let Some(archivist) = &mut self.archivist {
                archivist.clear();
            }
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
        let stream = Stream::new(self.setup(&rungs)?);
        Some(Broadcast::new(stream, rungs))
    }

    fn setup(&self, rungs: &[ProfileConfig]) -> Option<StreamSetup> {
        let kind = match self.spec.kind {
            ChannelType::Forward => ChannelKind::Forward,
            // Without video, or without a rung that fits, there is nothing to transcode.
            _ if rungs.is_empty() => ChannelKind::Forward,
            ChannelType::Hybrid => ChannelKind::Hybrid,
            ChannelType::Transcode => ChannelKind::Transcode,
        };
        let (msn_min, discontinuity_sequence) = self.numbers.next();
        let dvr_ms = self.spec.archive.as_ref().map_or(0, |archive| archive.window_ms);
        Some(StreamSetup {
            kind,
            segment_ms: self.spec.segment_ms,
            part_target_ms: self.spec.part_target_ms,
            window_ms: self.spec.window_ms,
            dvr_ms: u32::try_from(dvr_ms).unwrap_or(u32::MAX),
            window_bytes_max: self.spec.window_bytes_max,
            msn_min,
            discontinuity_sequence,
            rungs: rungs.iter().filter_map(|profile| profile.id.parse().ok()).collect(),
            source_id: SOURCE_ID.parse().ok()?,
            audio_id: AUDIO_ID.parse().ok()?,
        })
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

    fn annotate(&mut self, Request { annotation, reply }: Request) {
        let taken = match &mut self.broadcast {
            None => Err(NotAnnotated::NotLive),
            Some(broadcast) => {
                let stream = &mut broadcast.stream;
                let taken = match annotation {
                    Annotation::DateRange { statement, start_ms } => {
                        stream.add_daterange(statement, start_ms).map(Some)
                    }
                    Annotation::Id3(tag) => stream.add_id3(&tag).map(|()| None),
                };
                taken.map_err(|error| match error {
                    NotTaken::NotLive => NotAnnotated::NotLive,
                    NotTaken::TooMany => NotAnnotated::Busy,
                    NotTaken::Invalid(_) | NotTaken::Refused(_) => NotAnnotated::Invalid(error.to_string()),
                })
            }
        };
        // Whoever asked may be gone; what was taken stays taken.
        let _ = reply.send(taken);
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
            self.told.view.send_replace(Arc::new(View::empty(self.spec.mode)));
            return Ok(());
        };
        // Whoever is in the middle of its list can watch to its end.
        let listed_ms = self.spec.archive.as_ref().map_or(0, |archive| archive.window_ms);
        self.stops_at =
            Some(Instant::now() + Duration::from_millis(listed_ms.max(self.spec.window_ms.into())));
        tracing::info!(channel = %self.spec.id, "broadcast session ends: its publisher did not come back");
        broadcast.stream.finish(now_ms())?;
        let end_ms = broadcast.stream.live_date_ms().and_then(|end| u64::try_from(end).ok());
        self.told.end(end_ms.unwrap_or_else(now_ms));
        self.publish();
        if let Some(archivist) = &self.archivist {
            archivist.end();
        }
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
        self.told.beginning(broadcast, &self.numbers);
        if let Some(archivist) = &self.archivist {
            for (id, archive) in archivist.archives() {
                broadcast.stream.set_archived(id, archive.range());
            }
        }
        let changes = broadcast.stream.take_changes();
        let mut appeared = false;
        if let Some(archivist) = &mut self.archivist {
            for (id, events) in changes.archive {
                appeared |= archivist.keep(&id, events);
            }
            if changes.multivariant.is_some() {
                archivist.keep_constants(broadcast.stream.constants());
            }
        }
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
            let archives =
                self.archivist.as_ref().map(|archivist| archivist.archives().clone()).unwrap_or_default();
            let view = View { mode: self.spec.mode, multivariant, preparing, renditions, archives };
            self.told.view.send_replace(Arc::new(view));
        }
        for notice in broadcast.stream.take_notices() {
            self.complaints.tell(&self.spec.id, notice, &self.metrics);
        }
        let (msn, discontinuities) = broadcast.stream.resume_point();
        self.numbers.given_out(msn, discontinuities);
    }
}

/// The wall clock, Unix milliseconds.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
