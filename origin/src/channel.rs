//! Channels: who may publish, and the one task per channel that owns its stream.
//!
//! A channel's task takes events of its publisher and of its media worker, lets the pure `Stream` decide, and hands
//! the resulting snapshots to readers through `watch`, so that readers can neither wait for it nor slow it down (A2).
//!
//! Invariants: one publisher at a time; a session ends when its publisher has been away for the stop timeout.

mod task;

use crate::archive::{Archive, ArchiveSpec};
use crate::claim::ClaimedDir;
use crate::config::{ChannelType, Config, ProfileConfig};
use crate::ingest::{Ingest, PublishRefused, QUEUE_EVENTS, Session};
use crate::metrics::Metrics;
use crate::numbers::Numbers;
use sigma_media::snapshot::RenditionSnapshot;
use sigma_media::stream::MultivariantSnapshot;
use sigma_media::timed::Id3;
use sigma_shared::daterange::Statement;
use sigma_shared::id::{ChannelId, InvalidId, RenditionId};
use sigma_shared::mode::Mode;
use sigma_stats::aggregate::Broadcast as BroadcastSpan;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

/// The id of the passed-through video.
pub(crate) const SOURCE_ID: &str = "source";
/// The id of the audio.
pub(crate) const AUDIO_ID: &str = "audio";

/// What a channel is, from the configuration.
#[derive(Debug, Clone)]
pub(crate) struct ChannelSpec {
    pub(crate) id: ChannelId,
    pub(crate) kind: ChannelType,
    pub(crate) mode: Mode,
    pub(crate) ladder: Vec<ProfileConfig>,
    pub(crate) stop_timeout: Duration,
    pub(crate) segment_ms: u32,
    pub(crate) part_target_ms: u32,
    pub(crate) window_ms: u32,
    pub(crate) window_bytes_max: u64,
    /// `None` without DVR.
    pub(crate) archive: Option<ArchiveSpec>,
    pub(crate) transcode: crate::config::TranscodeConfig,
}

/// What readers see of a channel.
#[derive(Debug)]
pub(crate) struct View {
    /// What a viewer gets who asks for no mode.
    pub(crate) mode: Mode,
    /// `None` while nothing is on; an ended session stays for the length of a playlist.
    pub(crate) multivariant: Option<Arc<MultivariantSnapshot>>,
    /// Somebody publishes, or did just before a restart, and nothing can be shown yet: try again.
    pub(crate) preparing: bool,
    /// By id; changes with every part.
    pub(crate) renditions: HashMap<RenditionId, watch::Receiver<Arc<RenditionSnapshot>>>,
    /// What is listed beyond memory.
    pub(crate) archives: HashMap<RenditionId, Arc<Archive>>,
}

impl View {
    /// Nothing to see.
    pub(crate) fn empty(mode: Mode) -> Self {
        Self {
            mode,
            multivariant: None,
            preparing: false,
            renditions: HashMap::new(),
            archives: HashMap::new(),
        }
    }
}

/// Timed metadata from the broadcaster.
#[derive(Debug)]
pub(crate) enum Annotation {
    /// EXT-X-DATERANGE; without a start it starts now.
    DateRange { statement: Statement, start_ms: Option<i64> },
    /// An ID3 tag in the next part.
    Id3(Id3),
}

/// Why an annotation is not taken.
#[derive(Debug)]
pub(crate) enum NotAnnotated {
    /// A retry helps once somebody publishes.
    NotLive,
    /// The broadcaster's fault.
    Invalid(String),
    /// Too many at once: a retry helps.
    Busy,
}

/// What is asked of a channel's task, and where it says what became of it: the date at which it starts, if it has one.
#[derive(Debug)]
struct Request {
    annotation: Annotation,
    reply: oneshot::Sender<Result<Option<i64>, NotAnnotated>>,
}

/// Annotations that may wait for a channel's task.
const QUEUE_REQUESTS: usize = 64;

/// A channel's face to publishers and readers.
#[derive(Debug)]
pub(crate) struct Channel {
    id: ChannelId,
    segment_ms: u32,
    place: Arc<Semaphore>,
    sessions: mpsc::Sender<Session>,
    requests: mpsc::Sender<Request>,
    view: watch::Receiver<Arc<View>>,
    broadcasts: watch::Receiver<Vec<BroadcastSpan>>,
}

impl Channel {
    /// Starts a channel's task.
    pub(crate) fn start(spec: ChannelSpec, numbers: Numbers, metrics: Arc<Metrics>) -> Arc<Self> {
        let (session_sender, sessions) = mpsc::channel(1);
        let (request_sender, requests) = mpsc::channel(QUEUE_REQUESTS);
        let (view_sender, view) = watch::channel(Arc::new(View::empty(spec.mode)));
        let (broadcast_sender, broadcasts) = watch::channel(Vec::new());
        let channel = Self {
            id: spec.id.clone(),
            segment_ms: spec.segment_ms,
            place: Arc::new(Semaphore::new(1)),
            sessions: session_sender,
            requests: request_sender,
            view,
            broadcasts,
        };
        let told = task::Told { view: view_sender, broadcasts: broadcast_sender };
        tokio::spawn(task::Task::new(spec, numbers, metrics, told).run(sessions, requests));
        Arc::new(channel)
    }

    pub(crate) fn id(&self) -> &ChannelId {
        &self.id
    }

    pub(crate) fn segment_ms(&self) -> u32 {
        self.segment_ms
    }

    /// The newest broadcast sessions, for whoever counts by them.
    pub(crate) fn broadcasts(&self) -> watch::Receiver<Vec<BroadcastSpan>> {
        self.broadcasts.clone()
    }

    /// What readers see now.
    pub(crate) fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.borrow())
    }

    /// Gives the broadcast timed metadata; returns the date at which it starts, Unix milliseconds, if it has one.
    ///
    /// # Errors
    /// What [`NotAnnotated`] says.
    pub(crate) async fn annotate(&self, annotation: Annotation) -> Result<Option<i64>, NotAnnotated> {
        let (reply, answer) = oneshot::channel();
        self.requests.try_send(Request { annotation, reply }).map_err(|_| NotAnnotated::Busy)?;
        answer.await.unwrap_or(Err(NotAnnotated::NotLive))
    }

    /// Takes the channel's place for a publisher. It is given back when the sender is dropped and what it has sent is
    /// dealt with.
    ///
    /// # Errors
    /// [`PublishRefused::Busy`] while somebody else publishes.
    pub(crate) fn publish(&self, publisher: String) -> Result<mpsc::Sender<Ingest>, PublishRefused> {
        let slot = Arc::clone(&self.place).try_acquire_owned().map_err(|_| PublishRefused::Busy)?;
        let (sender, events) = mpsc::channel(QUEUE_EVENTS);
        let session = Session { events, publisher, _slot: slot };
        // The task takes a session before the place is free again, so there is room for this one.
        self.sessions.try_send(session).map_err(|_| PublishRefused::Closing)?;
        Ok(sender)
    }
}

/// All channels.
#[derive(Debug)]
pub(crate) struct Channels {
    by_id: HashMap<ChannelId, Arc<Channel>>,
    by_key: HashMap<String, Arc<Channel>>,
}

impl Channels {
    /// Starts all channels of the configuration.
    ///
    /// # Errors
    /// An id that the configuration's own check would have refused.
    pub(crate) fn start(
        config: &Config,
        data_dir: &Arc<ClaimedDir>,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, InvalidId> {
        let mut channels = Self { by_id: HashMap::new(), by_key: HashMap::new() };
        for channel in &config.channels {
            let id: ChannelId = channel.id.parse()?;
            let ladder = config.profiles.iter().filter(|profile| channel.profiles.contains(&profile.id));
            let spec = ChannelSpec {
                id: id.clone(),
                kind: channel.kind,
                mode: channel.mode.into(),
                ladder: ladder.cloned().collect(),
                stop_timeout: Duration::from_secs(channel.stop_timeout_s),
                segment_ms: channel.segment_ms.unwrap_or(config.live.segment_ms),
                part_target_ms: channel.part_target_ms.unwrap_or(config.live.part_target_ms),
                window_ms: config.live.window_ms,
                window_bytes_max: config.live.window_bytes_max,
                archive: (channel.dvr_window_s > 0).then(|| ArchiveSpec {
                    data_dir: Arc::clone(data_dir),
                    folder: Path::new("dvr").join(id.as_str()),
                    window_ms: channel.dvr_window_s * 1000,
                    bytes_max: config.live.dvr_bytes_max,
                }),
                transcode: config.transcode.clone(),
            };
            let numbers = Numbers::load(data_dir, &id);
            let started = Channel::start(spec, numbers, Arc::clone(metrics));
            channels.by_id.insert(id, Arc::clone(&started));
            channels.by_key.insert(channel.key.clone(), started);
        }
        Ok(channels)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Channel>> {
        self.by_id.values()
    }

    pub(crate) fn get(&self, id: &ChannelId) -> Option<&Arc<Channel>> {
        self.by_id.get(id)
    }

    /// Takes the place of the channel that `key` belongs to.
    ///
    /// # Errors
    /// An unknown key, or a channel that somebody publishes to.
    pub(crate) fn publish(
        &self,
        key: &str,
        publisher: String,
    ) -> Result<mpsc::Sender<Ingest>, PublishRefused> {
        self.by_key.get(key).ok_or(PublishRefused::UnknownKey)?.publish(publisher)
    }
}
