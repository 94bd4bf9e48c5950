//! The archive of a channel: what is listed beyond memory (DVR), on disk.
//!
//! A thread of its own writes what the channel's task hands it through a bounded queue; the task never waits for it, and
//! viewers of the live edge never touch it (A9). What cannot be written costs DVR and nothing else: when the disk is full or
//! fails, or the queue was full, the channel's archive is given up as a whole, so that all renditions have the same, and
//! begun again.
//!
//! Invariants: what [`Archive::range`] says can be read, unless the disk fails; nothing is done to files while a lock is
//! held that the channel's task takes.

use crate::claim::ClaimedDir;
use crate::metrics::Metrics;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sigma_dvr::{Limits, Log, LogReader, LoggedPart, PartEntry, ReadError, SegmentEntry, WriteError};
use sigma_media::span_us;
use sigma_media::stream::{Constants, Restored};
use sigma_media::window::{ArchivedSegment, Event};
use sigma_shared::id::{ChannelId, RenditionId};
use sigma_shared::playlist::ServerControl;
use std::collections::{HashMap, VecDeque};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// Messages that may wait for the disk: a part of a rendition each, so about a minute of a channel with four of them.
const QUEUE: usize = 1024;
/// Segments in a pair of files: what is deleted at once.
const PAIR_SEGMENTS: u64 = 128;
/// Kinds of notes in a log.
const NOTE_CONSTANTS: u8 = 1;
const NOTE_ENDED: u8 = 2;
/// A disk that fails is complained about this often.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);
/// How long the end of the origin waits for a disk that hangs.
const GOODBYE: Duration = Duration::from_secs(5);

/// What an archive keeps.
#[derive(Debug, Clone)]
pub(crate) struct ArchiveSpec {
    /// Ours while this is held.
    pub(crate) data_dir: Arc<ClaimedDir>,
    /// Where in it, with a folder for each rendition.
    pub(crate) folder: PathBuf,
    /// Length of the list, milliseconds. What has left it is kept for as long again (EV-07).
    pub(crate) window_ms: u64,
    /// Bytes of media per rendition.
    pub(crate) bytes_max: u64,
}

impl ArchiveSpec {
    fn dir(&self) -> PathBuf {
        self.data_dir.path().join(&self.folder)
    }
}

/// What is archived of one rendition, for readers.
#[derive(Debug)]
pub(crate) struct Archive {
    held: RwLock<Held>,
    reader: LogReader,
}

/// What can be asked of a segment.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kept {
    /// All of it.
    Segment,
    /// The part it begins with.
    FirstPart,
    /// A part that can be had although it is not in memory: of just before a restart (PT-10).
    Part(u32),
}

/// Where it is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Found {
    Segment(SegmentEntry),
    FirstPart(SegmentEntry),
    /// Of a segment by number, starting at a tick.
    Part(u64, PartEntry, i64),
}

impl Found {
    /// What is stated of it, milliseconds.
    pub(crate) fn duration_ms(&self) -> u32 {
        match self {
            Self::Segment(entry) | Self::FirstPart(entry) => entry.line.duration / 90,
            Self::Part(_, part, _) => part.line.duration / 90,
        }
    }

    /// Where it is on the channel's timeline, microseconds; nothing for a picture alone.
    pub(crate) fn span_us(&self) -> Option<(u64, u64)> {
        match self {
            Self::Segment(entry) => span_us(entry.start, entry.line.duration),
            Self::FirstPart(_) => None,
            Self::Part(_, part, start) => span_us(*start, part.line.duration),
        }
    }
}

#[derive(Debug, Default)]
struct Held {
    /// What can be read.
    entries: VecDeque<SegmentEntry>,
    /// The first of them that may be listed: what is before it is about to be deleted (EV-07).
    listed_from: u64,
    listed_bytes: u64,
    /// The parts of the newest segments before a restart (PT-10).
    parts: VecDeque<(u64, Vec<PartEntry>)>,
}

impl Held {
    fn push(&mut self, entry: SegmentEntry, listed_bytes_max: u64) {
        self.entries.push_back(entry);
        self.listed_bytes += entry.bytes();
        while self.listed_bytes > listed_bytes_max
            && let Some(first) = self.find(self.listed_from).or(self.entries.front().copied())
            && first.line.msn < entry.line.msn
        {
            self.listed_bytes -= first.bytes();
            self.listed_from = first.line.msn + 1;
        }
    }

    fn find(&self, msn: u64) -> Option<SegmentEntry> {
        let index = usize::try_from(msn.checked_sub(self.entries.front()?.line.msn)?).ok()?;
        self.entries.get(index).copied()
    }

    /// Forgets what is older than segment `msn`.
    fn forget(&mut self, msn: u64) {
        while let Some(oldest) = self.entries.front().filter(|oldest| oldest.line.msn < msn) {
            if oldest.line.msn >= self.listed_from {
                self.listed_bytes -= oldest.bytes();
            }
            self.entries.pop_front();
        }
    }
}

impl Archive {
    fn new(dir: &Path) -> Arc<Self> {
        Arc::new(Self { held: RwLock::default(), reader: LogReader::new(dir) })
    }

    /// The numbers that may be listed, without a hole.
    pub(crate) fn range(&self) -> Option<RangeInclusive<u64>> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        let (first, last) = (held.entries.front()?.line.msn, held.entries.back()?.line.msn);
        Some(first.max(held.listed_from)..=last)
    }

    /// Where something of segment `msn` is, if it can be had.
    pub(crate) fn find(&self, msn: u64, kept: Kept) -> Option<Found> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        let segment = || held.find(msn).filter(|entry| !entry.line.gap);
        Some(match kept {
            Kept::Segment => Found::Segment(segment()?),
            Kept::FirstPart => Found::FirstPart(segment()?),
            Kept::Part(part) => {
                let (_, parts) = held.parts.iter().find(|(known, _)| *known == msn)?;
                let index = usize::try_from(part).ok()?;
                let part = parts.get(index).copied().filter(|part| !part.line.gap)?;
                let before = parts[..index].iter().map(|part| i64::from(part.line.duration));
                Found::Part(msn, part, held.find(msn)?.start + before.sum::<i64>())
            }
        })
    }

    /// Reads it. Blocks.
    ///
    /// # Errors
    /// It has just been deleted, or the disk fails.
    pub(crate) fn read(&self, found: &Found) -> Result<Bytes, ReadError> {
        match found {
            Found::Segment(entry) => self.reader.segment(entry),
            Found::FirstPart(entry) => self.reader.first_part(entry),
            Found::Part(msn, part, _) => self.reader.part(*msn, part),
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Held) -> T) -> T {
        change(&mut self.held.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// The newest number there is.
    fn newest(&self) -> Option<u64> {
        self.range().map(|range| *range.end())
    }

    fn clear(&self) {
        self.change(|held| *held = Held::default());
    }
}

/// Constants as they are kept.
#[derive(Debug, Serialize, Deserialize)]
struct KeptConstants {
    from_worker: bool,
    frame_rate: Option<(u32, u32)>,
    part_target_ms: u32,
    target_duration_s: u32,
    channel_part_target_ms: u32,
    part_hold_back_ms: u32,
    rates: [(u64, u64); 2],
}

impl From<Constants> for KeptConstants {
    fn from(constants: Constants) -> Self {
        Self {
            from_worker: constants.from_worker,
            frame_rate: constants.frame_rate,
            part_target_ms: constants.part_target_ms,
            target_duration_s: constants.control.target_duration_s,
            channel_part_target_ms: constants.control.part_target_ms,
            part_hold_back_ms: constants.control.part_hold_back_ms,
            rates: constants.rates,
        }
    }
}

impl From<KeptConstants> for Constants {
    fn from(kept: KeptConstants) -> Self {
        Self {
            from_worker: kept.from_worker,
            frame_rate: kept.frame_rate,
            part_target_ms: kept.part_target_ms,
            control: ServerControl {
                target_duration_s: kept.target_duration_s,
                part_target_ms: kept.channel_part_target_ms,
                part_hold_back_ms: kept.part_hold_back_ms,
            },
            rates: kept.rates,
        }
    }
}

enum Message {
    Events(RenditionId, Arc<Archive>, Vec<Event>),
    Constants(RenditionId, Constants),
    /// The session is over: after a restart nothing of it is listed.
    Ended,
    /// A new session begins.
    Clear,
    /// What there is of a rendition is not gone on with.
    Forget(RenditionId),
}

/// The task's side of a channel's archive.
#[derive(Debug)]
pub(crate) struct Archivist {
    /// `None` once it is being dropped.
    messages: Option<SyncSender<Message>>,
    /// Nothing is ever sent here: it is disconnected when the thread has ended.
    ended: Receiver<()>,
    spec: ArchiveSpec,
    archives: HashMap<RenditionId, Arc<Archive>>,
    /// Renditions that lost an event: everything up to their next segment is of no use.
    lost: Vec<RenditionId>,
    /// Init sections that had no room in the queue.
    unsent: HashMap<RenditionId, Vec<Event>>,
    /// How long the end waits for the thread.
    goodbye: Duration,
    /// What there was of an earlier session is to go before anything else is written.
    clearing: bool,
    metrics: Arc<Metrics>,
    channel: ChannelId,
}

impl Archivist {
    /// Opens a channel's archive and says what of an unfinished session is in it. Blocks: the files are read.
    pub(crate) fn open(
        spec: ArchiveSpec,
        channel: &ChannelId,
        metrics: &Arc<Metrics>,
    ) -> (Self, Vec<Restored>) {
        let (messages, queue) = sync_channel(QUEUE);
        let mut writer = Writer {
            spec: spec.clone(),
            channel: channel.clone(),
            metrics: Arc::clone(metrics),
            logs: HashMap::new(),
            complained: None,
        };
        let restored = writer.restore();
        let archives =
            writer.logs.iter().map(|(id, (_, archive))| (id.clone(), Arc::clone(archive))).collect();
        let name = format!("archive {channel}");
        let (running, ended) = sync_channel::<()>(0);
        let thread = std::thread::Builder::new().name(name).spawn(move || {
            let _running = running;
            writer.run(&queue);
        });
        if let Err(error) = thread {
            tracing::error!(%channel, %error, "no thread for the archive: nothing is kept beyond memory");
        }
        let archivist = Self {
            messages: Some(messages),
            ended,
            spec,
            archives,
            lost: Vec::new(),
            unsent: HashMap::new(),
            goodbye: GOODBYE,
            clearing: false,
            metrics: Arc::clone(metrics),
            channel: channel.clone(),
        };
        (archivist, restored)
    }

    /// The archives by rendition, for readers.
    pub(crate) fn archives(&self) -> &HashMap<RenditionId, Arc<Archive>> {
        &self.archives
    }

    /// Keeps what has happened to a rendition; returns whether readers have to be told of its archive.
    pub(crate) fn keep(&mut self, id: &RenditionId, events: Vec<Event>) -> bool {
        let mut is_new = false;
        let dir = self.spec.dir().join(id.as_str());
        let archive = self.archives.entry(id.clone()).or_insert_with(|| {
            is_new = true;
            Archive::new(&dir)
        });
        let archive = Arc::clone(archive);
        self.clear_if_due();
        let mut batch = self.unsent.remove(id).unwrap_or_default();
        let mut skipping = self.lost.contains(id);
        for event in events {
            skipping &= !matches!(event, Event::Begin(..));
            if !skipping || matches!(event, Event::Init(..)) {
                batch.push(event);
            }
        }
        if !skipping {
            self.lost.retain(|lost| lost != id);
        }
        if batch.is_empty() {
            return is_new;
        }
        let sent = if self.clearing {
            Err(batch)
        } else {
            self.send(Message::Events(id.clone(), archive, batch)).map_err(|message| match message {
                Message::Events(_, _, batch) => batch,
                _ => Vec::new(),
            })
        };
        if let Err(batch) = sent {
            self.metrics.archive_dropped(&self.channel).inc();
            if !self.lost.contains(id) {
                self.lost.push(id.clone());
            }
            let inits = batch.into_iter().filter(|event| matches!(event, Event::Init(..)));
            self.unsent.entry(id.clone()).or_default().extend(inits);
        }
        is_new
    }

    fn send(&self, message: Message) -> Result<(), Message> {
        let Some(messages) = &self.messages else { return Err(message) };
        messages.try_send(message).map_err(|error| match error {
            TrySendError::Full(message) | TrySendError::Disconnected(message) => message,
        })
    }

    /// Keeps what a rendition states. Not vital: it is said again whenever the Multivariant Playlist changes.
    pub(crate) fn keep_constants(&self, constants: Vec<(RenditionId, Constants)>) {
        for (id, constants) in constants {
            let _ = self.send(Message::Constants(id, constants));
        }
    }

    /// The session is over.
    pub(crate) fn end(&self) {
        let _ = self.send(Message::Ended);
    }

    /// A session that continues nothing begins.
    pub(crate) fn clear(&mut self) {
        self.archives.values().for_each(|archive| archive.clear());
        self.clearing = true;
        self.clear_if_due();
    }

    /// Forgets the renditions that are not gone on with: when they come back, what they had would end in a hole, and a
    /// hole costs the whole channel's archive.
    pub(crate) fn retain(&mut self, gone_on_with: &[RenditionId]) {
        for (id, archive) in self.archives.iter().filter(|(id, _)| !gone_on_with.contains(id)) {
            archive.clear();
            // The queue is empty at this time; should it not be, what is left on disk is cut off by the next recovery.
            let _ = self.send(Message::Forget(id.clone()));
        }
    }

    fn clear_if_due(&mut self) {
        self.clearing = self.clearing && self.send(Message::Clear).is_err();
    }
}

impl Drop for Archivist {
    /// What was published is written before the origin ends, so that nobody was told of more than there is afterwards;
    /// a disk that hangs is not waited for.
    fn drop(&mut self) {
        self.messages = None;
        if self.ended.recv_timeout(self.goodbye) == Err(RecvTimeoutError::Timeout) {
            tracing::error!(channel = %self.channel, "the disk does not take what is left of the archive: it is lost");
        }
    }
}

/// The thread's side.
struct Writer {
    spec: ArchiveSpec,
    channel: ChannelId,
    metrics: Arc<Metrics>,
    logs: HashMap<RenditionId, (Log, Arc<Archive>)>,
    complained: Option<Instant>,
}

impl Writer {
    fn limits(&self) -> Limits {
        Limits { pair_segments: PAIR_SEGMENTS, bytes_max: self.spec.bytes_max }
    }

    fn restore(&mut self) -> Vec<Restored> {
        let Ok(folders) = std::fs::read_dir(self.spec.dir()) else {
            return Vec::new();
        };
        let mut restored = Vec::new();
        for folder in folders.flatten() {
            let Some(id) = folder.file_name().to_str().and_then(|name| name.parse::<RenditionId>().ok())
            else {
                continue;
            };
            let (log, found) = match Log::open(&folder.path(), self.limits()) {
                Ok(opened) => opened,
                Err(error) => {
                    tracing::error!(channel = %self.channel, rendition = %id, %error, "its archive cannot be read");
                    continue;
                }
            };
            let archive = Archive::new(&folder.path());
            let ended = found.notes.get(&NOTE_ENDED).is_some_and(|note| note == "ended");
            let constants = found.notes.get(&NOTE_CONSTANTS);
            let constants = constants.and_then(|note| serde_json::from_slice::<KeptConstants>(note).ok());
            if let Some(constants) = constants.filter(|_| !ended) {
                let as_listed = |entry: &SegmentEntry| ArchivedSegment {
                    line: entry.line,
                    start: entry.start,
                    discontinuity_sequence: entry.discontinuity_sequence,
                };
                let segments = found.segments.iter().map(as_listed).collect();
                archive.change(|held| {
                    held.parts = found.parts;
                    found.segments.iter().for_each(|entry| held.push(*entry, self.spec.bytes_max / 2));
                });
                let constants = constants.into();
                restored.push(Restored { id: id.clone(), constants, segments, inits: found.inits });
            }
            self.logs.insert(id, (log, archive));
        }
        restored
    }

    fn run(mut self, queue: &Receiver<Message>) {
        while let Ok(message) = queue.recv() {
            match message {
                Message::Events(id, archive, events) => self.write_all(&id, archive, events),
                Message::Constants(id, constants) => {
                    let note = serde_json::to_vec(&KeptConstants::from(constants)).unwrap_or_default();
                    self.noted(&id, NOTE_CONSTANTS, note.into());
                }
                Message::Ended => {
                    let ids: Vec<RenditionId> = self.logs.keys().cloned().collect();
                    ids.iter().for_each(|id| self.noted(id, NOTE_ENDED, Bytes::from_static(b"ended")));
                }
                Message::Clear => {
                    self.clear();
                    let ids: Vec<RenditionId> = self.logs.keys().cloned().collect();
                    ids.iter().for_each(|id| self.noted(id, NOTE_ENDED, Bytes::new()));
                }
                Message::Forget(id) => {
                    if let Some((log, _)) = self.logs.get_mut(&id) {
                        log.clear();
                    }
                    self.noted(&id, NOTE_ENDED, Bytes::new());
                }
            }
        }
    }

    fn noted(&mut self, id: &RenditionId, kind: u8, note: Bytes) {
        let outcome = self.logs.get_mut(id).map_or(Ok(()), |(log, _)| log.note(kind, note));
        self.judge(id, outcome);
    }

    fn write_all(&mut self, id: &RenditionId, archive: Arc<Archive>, events: Vec<Event>) {
        if !self.logs.contains_key(id) {
            match Log::open(&self.spec.dir().join(id.as_str()), self.limits()) {
                Ok((mut log, _)) => {
                    // Whatever there was is not of this session.
                    log.clear();
                    self.logs.insert(id.clone(), (log, archive));
                }
                Err(error) => return self.judge(id, Err(error.into())),
            }
        }
        for event in events {
            if let Event::Begin(line, ..) = &event
                && self.logs[id].1.newest().is_some_and(|newest| newest + 1 != line.msn)
            {
                // A hole: what is before it cannot be listed with what comes.
                self.clear();
            }
            let Some((log, archive)) = self.logs.get_mut(id) else { return };
            let outcome = write(&self.spec, log, archive, event);
            self.judge(id, outcome);
        }
    }

    fn clear(&mut self) {
        for (log, archive) in self.logs.values_mut() {
            archive.clear();
            log.clear();
        }
    }

    /// What could not be written costs the channel's archive, so that there is space again.
    fn judge(&mut self, id: &RenditionId, outcome: Result<(), WriteError>) {
        let error = match outcome {
            Ok(()) | Err(WriteError::GivenUp) => return,
            Err(error) => error,
        };
        self.clear();
        self.metrics.archive_shed(&self.channel).inc();
        if self.complained.is_none_or(|at| at.elapsed() > COMPLAINT_INTERVAL) {
            self.complained = Some(Instant::now());
            tracing::error!(channel = %self.channel, rendition = %id, %error, "DVR is shed, live goes on; make space or lower dvr_window_s");
        }
    }
}

fn write(spec: &ArchiveSpec, log: &mut Log, archive: &Archive, event: Event) -> Result<(), WriteError> {
    match event {
        Event::Init(hash, bytes) => log.init(hash, bytes),
        Event::Begin(line, start, discontinuity_sequence) => log.begin(line, start, discontinuity_sequence),
        Event::Part(bytes, line) => log.part(&LoggedPart { bytes, line }),
        Event::Finish { gap } => {
            let entry = log.finish(gap)?;
            let kept_for = i64::try_from(2 * spec.window_ms).unwrap_or(i64::MAX / 90) * 90;
            let oldest = archive.change(|held| {
                held.push(entry, spec.bytes_max / 2);
                let is_kept = |kept: &&SegmentEntry| kept.start >= entry.start - kept_for;
                let oldest = held.entries.iter().find(is_kept).map_or(entry.line.msn, |kept| kept.line.msn);
                held.forget(oldest);
                oldest
            });
            // Without the lock: deleting may take its time.
            log.retain(oldest);
            let there = log.oldest().unwrap_or(entry.line.msn);
            archive.change(|held| held.forget(there));
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests;
