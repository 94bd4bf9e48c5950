//! The one who owns the state: takes reports, journals them, applies them, writes the state now and then, answers questions.
//!
//! It runs on a thread of its own, behind a bounded queue: nothing live waits for it (A9), and when the queue is full
//! reports are refused for later. Reports that wait together are journalled in one transaction, and acknowledged after it;
//! a failure of the database before that leaves nothing behind, and one after it is mended by reading state and journal
//! again, which is also what a start does.

mod counters;
mod loading;
mod mending;
#[cfg(test)]
mod tests;

use crate::aggregate::{Aggregate, Broadcast, NotRemoved, Retention};
use crate::key::Key;
use crate::scope::Scope;
use crate::series::{Point, Resolution};
use crate::session::{Session, SessionId};
use crate::store::{Entry, Store, StoreError};
use bytes::Bytes;
pub use counters::{ChannelGauges, Counters, Gauges};
use sigma_report::report::{BYTES_MAX, InvalidReport, Report};
use sigma_report::settled::Settled;
use sigma_shared::id::{ChannelId, PopId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

/// Reports and questions that may wait.
const QUEUE_MAX: usize = 512;
/// What the reports that wait may take together, KiB.
const QUEUE_KIB_MAX: usize = 64 << 10;
/// Reports of one transaction.
const GROUP_MAX: usize = 128;
/// How often the state is written.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(10);
/// What the journal may take before the state is written, bytes.
const JOURNAL_BYTES_MAX: u64 = 64 << 20;
/// How often what is too old is removed.
const SWEEP_INTERVAL: Duration = Duration::from_secs(600);
/// How often is looked at what is the case, for metrics.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Pieces other than sessions that are loaded until the state is written and what is long ago leaves memory: 2 KB each.
const LOADED_MAX: usize = 20_000;
/// Pieces other than sessions in memory above which those of long ago leave it early.
const HELD_MAX: usize = 40_000;

/// What is kept of, and how.
#[derive(Debug)]
pub struct Setup {
    /// The channels.
    pub channels: Vec<Source>,
    /// How long what is kept.
    pub retention: Retention,
    /// How long a silent POP is waited for until numbers are called final, milliseconds.
    pub final_wait_ms: u64,
}

/// A channel.
#[derive(Debug)]
pub struct Source {
    /// Its id.
    pub id: ChannelId,
    /// How long a session counts as present after it was, milliseconds.
    pub grace_ms: u64,
    /// Its newest broadcast sessions.
    pub broadcasts: watch::Receiver<Vec<Broadcast>>,
}

/// A report is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// The report's.
    pub incarnation: u64,
    /// The report's.
    pub sequence: u64,
}

/// A report as it came.
#[derive(Debug)]
pub struct Posted {
    /// The report.
    pub bytes: Bytes,
    /// What the POP said with it that it will not send any more.
    pub settled: Option<Settled>,
}

impl From<Bytes> for Posted {
    fn from(bytes: Bytes) -> Self {
        Self { bytes, settled: None }
    }
}

/// Why a report is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The POP's fault. Sending it again does not help.
    #[error(transparent)]
    Invalid(#[from] InvalidReport),
    /// It has more than [`BYTES_MAX`].
    #[error("a report has at most {BYTES_MAX} bytes")]
    TooLarge,
    /// Too many wait, or the database does not write. Sending it again later helps.
    #[error("reports cannot be kept at the moment")]
    Busy,
}

type Question = Box<dyn FnOnce(&Aggregate) + Send>;

enum Ask {
    Report(Incoming),
    Question(Question),
    /// Write the state now.
    Checkpoint(oneshot::Sender<()>),
    /// Forget a POP.
    Remove(PopId, oneshot::Sender<Result<(), NotRemoved>>),
    /// Somebody else has seen that the database fails.
    Failure(StoreError),
    /// Write the state and end.
    Close(oneshot::Sender<()>),
}

struct Incoming {
    pop: PopId,
    posted: Posted,
    reply: oneshot::Sender<Result<Ack, ReportError>>,
    _room: OwnedSemaphorePermit,
}

impl Incoming {
    fn entry(&self, id: u64, received_ms: u64) -> Entry<'_> {
        let Posted { bytes, settled } = &self.posted;
        Entry { id, pop: &self.pop, received_ms, report: bytes, settled: *settled }
    }
}

/// The statistics, for everybody else.
#[derive(Debug, Clone)]
pub struct Stats {
    asks: mpsc::Sender<Ask>,
    room: Arc<Semaphore>,
    store: Store,
    counters: Arc<Counters>,
    gauges: watch::Receiver<Gauges>,
    available: watch::Receiver<bool>,
    final_wait_ms: u64,
    retention: Retention,
}

/// The database does not answer, or the statistics are being closed. A retry may help.
#[derive(Debug, thiserror::Error)]
#[error("the statistics cannot be read at the moment")]
pub struct Unavailable;

impl Stats {
    /// Reads the state and the journal and keeps them, on a thread of its own, until every [`Stats`] is dropped. A database
    /// that is not there is waited for. The thread's handle says when the last of it is written.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(store: Store, setup: Setup) -> std::io::Result<(Self, std::thread::JoinHandle<()>)> {
        let counters = Arc::new(Counters::default());
        let (asks, inbox) = mpsc::channel(QUEUE_MAX);
        let (final_wait_ms, retention) = (setup.final_wait_ms, setup.retention);
        let mut keeper = Keeper::new(store.clone(), setup, Arc::clone(&counters));
        let (gauges, available) = (keeper.gauges.subscribe(), keeper.available.subscribe());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let run = move || {
            runtime.block_on(keeper.run(inbox));
        };
        let thread = std::thread::Builder::new().name("stats".to_owned()).spawn(run)?;
        let room = Arc::new(Semaphore::new(QUEUE_KIB_MAX));
        Ok((Self { asks, room, store, counters, gauges, available, final_wait_ms, retention }, thread))
    }

    /// Takes a report of a POP. When this returns it is on disk, or an error says what to do.
    ///
    /// # Errors
    /// It is no report, or cannot be taken now.
    pub async fn report(&self, pop: PopId, posted: impl Into<Posted>) -> Result<Ack, ReportError> {
        let posted = posted.into();
        let bytes = &posted.bytes;
        if bytes.len() > BYTES_MAX {
            self.counters.invalid.fetch_add(1, Ordering::Relaxed);
            return Err(ReportError::TooLarge);
        }
        let busy = || {
            self.counters.busy.fetch_add(1, Ordering::Relaxed);
            ReportError::Busy
        };
        let kib = u32::try_from(bytes.len().div_ceil(1024)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).try_acquire_many_owned(kib).map_err(|_| busy())?;
        let (reply, answer) = oneshot::channel();
        let incoming = Incoming { pop, posted, reply, _room: room };
        self.asks.try_send(Ask::Report(incoming)).map_err(|_| busy())?;
        answer.await.unwrap_or_else(|_| Err(busy()))
    }

    /// Asks the state something.
    ///
    /// # Errors
    /// Nobody is there to answer.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Aggregate) -> T + Send + 'static,
    ) -> Result<T, Unavailable> {
        let (reply, answer) = oneshot::channel();
        let question = Box::new(move |aggregate: &Aggregate| drop(reply.send(question(aggregate))));
        self.asks.send(Ask::Question(question)).await.map_err(|_| Unavailable)?;
        answer.await.map_err(|_| Unavailable)
    }

    /// The points of a series from one Unix second to before another, by their first second; those without anything are
    /// left out.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn series(
        &self,
        channel: &ChannelId,
        scope: &Scope,
        (resolution, seconds): (Resolution, std::ops::Range<u64>),
    ) -> Result<BTreeMap<u64, Point>, Unavailable> {
        let numbers = seconds.start / resolution.block_s()..=seconds.end / resolution.block_s();
        // Memory first: what leaves it in between is in the database by then.
        let (id, of, range) = (channel.clone(), scope.clone(), numbers.clone());
        let held = self.ask(move |aggregate| aggregate.blocks(&id, &of, (resolution, range))).await?;
        let kept = self.store.blocks(channel, scope, (resolution, numbers)).await;
        let kept = kept.map_err(|error| self.unread(error))?;
        let blocks: BTreeMap<_, _> = kept.into_iter().chain(held).collect();
        let mut points = BTreeMap::new();
        for (number, block) in blocks {
            for (index, point) in block.points().iter().enumerate().filter(|(_, p)| **p != Point::default()) {
                let second = number * resolution.block_s() + index as u64 * resolution.point_s();
                if seconds.contains(&second) {
                    points.insert(second, *point);
                }
            }
        }
        Ok(points)
    }

    /// Sessions of a channel in the order of their ids, beyond one. The state is written first where a list begins.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn sessions(
        &self,
        channel: &ChannelId,
        beyond: Option<SessionId>,
        at_most: u32,
    ) -> Result<Vec<(SessionId, Session)>, Unavailable> {
        if beyond.is_none() {
            self.checkpoint().await?;
        }
        self.store.sessions(channel, beyond, at_most).await.map_err(|error| self.unread(error))
    }

    fn unread(&self, error: StoreError) -> Unavailable {
        tracing::warn!(%error, "statistics cannot be read");
        if error.is_broken_file() {
            // When its queue is full, the next question says so.
            drop(self.asks.try_send(Ask::Failure(error)));
        }
        Unavailable
    }

    /// Forgets a POP that is silent, until it reports again. What came by it stays counted.
    ///
    /// # Errors
    /// Nobody is there to do it; or, inside, why it is not done.
    pub async fn remove_pop(&self, pop: PopId) -> Result<Result<(), NotRemoved>, Unavailable> {
        let (reply, done) = oneshot::channel();
        self.asks.send(Ask::Remove(pop, reply)).await.map_err(|_| Unavailable)?;
        done.await.map_err(|_| Unavailable)
    }

    /// Whether reports are taken and questions answered.
    #[must_use]
    pub fn is_available(&self) -> bool {
        *self.available.borrow() && !self.asks.is_closed()
    }

    /// Waits until they are.
    ///
    /// # Errors
    /// Nobody is there any more.
    pub async fn available(&self) -> Result<(), Unavailable> {
        self.available.clone().wait_for(|available| *available).await.map(drop).map_err(|_| Unavailable)
    }

    /// Writes the state now.
    ///
    /// # Errors
    /// Nobody is there to do it.
    pub async fn checkpoint(&self) -> Result<(), Unavailable> {
        let (reply, done) = oneshot::channel();
        self.asks.send(Ask::Checkpoint(reply)).await.map_err(|_| Unavailable)?;
        done.await.map_err(|_| Unavailable)
    }

    /// Writes the state and ends. Nothing is taken or answered afterwards.
    pub async fn close(&self) {
        let (reply, done) = oneshot::channel();
        if self.asks.send(Ask::Close(reply)).await.is_ok() {
            // A keeper that is gone has nothing to write.
            let _ = done.await;
        }
    }

    /// What is the case now.
    #[must_use]
    pub fn gauges(&self) -> Gauges {
        self.gauges.borrow().clone()
    }

    /// What was counted of the counting.
    #[must_use]
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// How long what is kept.
    #[must_use]
    pub fn retention(&self) -> Retention {
        self.retention
    }

    /// How long a silent POP is waited for, milliseconds.
    #[must_use]
    pub fn final_wait_ms(&self) -> u64 {
        self.final_wait_ms
    }
}

/// The wall clock, Unix milliseconds.
#[must_use]
pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

struct Keeper {
    store: Store,
    setup: Setup,
    counters: Arc<Counters>,
    aggregate: Aggregate,
    /// Memory is what state and journal of the database lead to: nothing else may be written, and no journal forgotten.
    is_whole: bool,
    /// Of the journal.
    newest_id: u64,
    /// In the journal since the state was written.
    journal_bytes: u64,
    /// Pieces other than sessions that were loaded since then.
    loaded: usize,
    written: Instant,
    swept: Option<Instant>,
    gauges: watch::Sender<Gauges>,
    available: watch::Sender<bool>,
    closing: Option<oneshot::Sender<()>>,
}

impl Keeper {
    async fn run(&mut self, mut inbox: mpsc::Receiver<Ask>) {
        if let Err(error) = self.reload().await {
            self.mend(error, &mut inbox).await;
        }
        let mut asks = Vec::with_capacity(GROUP_MAX);
        let mut ticks = tokio::time::interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while self.closing.is_none() {
            asks.clear();
            let received = tokio::select! {
                received = inbox.recv_many(&mut asks, GROUP_MAX) => Some(received),
                _ = ticks.tick() => None,
            };
            if received == Some(0) {
                break;
            }
            if let Err(error) = self.handle(&mut asks).await {
                self.is_whole = false;
                self.mend(error, &mut inbox).await;
            }
            if received.is_none() {
                let gauges = self.look();
                self.gauges.send_replace(gauges);
            }
        }
        let written = if self.is_whole { self.checkpoint().await.map(|()| true) } else { Ok(false) };
        match written {
            Ok(true) => self.store.close().await,
            Ok(false) => {
                tracing::error!("the state was not written; the journal has it all, for the next start");
            }
            Err(error) => tracing::error!(%error, "the journal of reports has what could not be written"),
        }
        if let Some(done) = self.closing.take() {
            // Whoever asked may be gone.
            let _ = done.send(());
        }
    }

    /// Deals with what waited together: reports first, then questions.
    async fn handle(&mut self, asks: &mut Vec<Ask>) -> Result<(), StoreError> {
        let (mut reports, mut questions, mut writes) = (Vec::new(), Vec::new(), Vec::new());
        let (mut removals, mut failure) = (Vec::new(), None);
        for ask in asks.drain(..) {
            match ask {
                Ask::Report(incoming) => reports.push(incoming),
                Ask::Question(question) => questions.push(question),
                Ask::Checkpoint(done) => writes.push(done),
                Ask::Remove(pop, reply) => removals.push((pop, reply)),
                Ask::Failure(error) => failure = Some(error),
                Ask::Close(done) => self.closing = Some(done),
            }
        }
        if let Some(error) = failure {
            return Err(error);
        }
        self.hear_of_broadcasts().await?;
        let taken = self.take(reports).await;
        if taken.is_ok() {
            questions.into_iter().for_each(|question| question(&self.aggregate));
        }
        taken?;
        let is_due = self.written.elapsed() >= CHECKPOINT_INTERVAL
            || self.journal_bytes > JOURNAL_BYTES_MAX
            || self.loaded > LOADED_MAX;
        if is_due || !writes.is_empty() {
            self.checkpoint().await?;
            for done in writes {
                // Whoever asked may be gone.
                let _ = done.send(());
            }
        }
        for (pop, reply) in removals {
            let removed = self.remove(pop).await?;
            // Whoever asked may be gone.
            let _ = reply.send(removed);
        }
        if self.swept.is_none_or(|swept| swept.elapsed() >= SWEEP_INTERVAL) {
            self.sweep().await?;
        }
        Ok(())
    }

    /// Broadcast sessions are known before anything of them is counted, also after a restart.
    async fn hear_of_broadcasts(&mut self) -> Result<(), StoreError> {
        let now_ms = now_ms();
        let mut is_news = false;
        for source in &mut self.setup.channels {
            // A sender that is gone says nothing new.
            if source.broadcasts.has_changed().unwrap_or(false) {
                is_news = true;
                for broadcast in source.broadcasts.borrow_and_update().iter() {
                    self.aggregate.broadcast(&source.id, *broadcast, now_ms);
                }
            }
        }
        if is_news { self.checkpoint().await } else { Ok(()) }
    }

    async fn remove(&mut self, pop: PopId) -> Result<Result<(), NotRemoved>, StoreError> {
        let removed = self.aggregate.remove_pop(&pop, now_ms());
        if removed.is_ok() {
            // The journal may speak of it.
            self.checkpoint().await?;
            if let Some(place) = Key::Pop(pop).place() {
                self.store.remove(place).await?;
            }
        }
        Ok(removed)
    }

    /// Journals reports in one transaction, acknowledges them, and applies them.
    async fn take(&mut self, reports: Vec<Incoming>) -> Result<(), StoreError> {
        let now_ms = now_ms();
        let read = |bytes: &[u8]| {
            let report = Report::decode(bytes)?;
            report.check_times(now_ms).map(|()| report)
        };
        let mut taken = Vec::with_capacity(reports.len());
        for mut incoming in reports {
            match read(&incoming.posted.bytes) {
                Ok(report) => {
                    incoming.posted.settled =
                        incoming.posted.settled.filter(|settled| settled.is_of(&report));
                    self.newest_id += 1;
                    taken.push((self.newest_id, incoming, report));
                }
                Err(error) => {
                    tracing::warn!(pop = %incoming.pop, %error, "a report is refused");
                    self.counters.invalid.fetch_add(1, Ordering::Relaxed);
                    // The POP may be gone.
                    let _ = incoming.reply.send(Err(error.into()));
                }
            }
        }
        if taken.is_empty() {
            return Ok(());
        }
        let rows: Vec<_> = taken.iter().map(|(id, incoming, _)| incoming.entry(*id, now_ms)).collect();
        let began = Instant::now();
        if let Err(error) = self.store.journal(&rows).await {
            self.counters.busy.fetch_add(taken.len() as u64, Ordering::Relaxed);
            for (_, incoming, _) in taken {
                let _ = incoming.reply.send(Err(ReportError::Busy));
            }
            return Err(error);
        }
        count_time(&self.counters.commits, &self.counters.commit_us, began);
        let mut reports = Vec::with_capacity(taken.len());
        for (_, incoming, report) in taken {
            let Incoming { pop, posted, reply, .. } = incoming;
            self.journal_bytes += posted.bytes.len() as u64;
            reports.push((pop, (report, posted.settled), reply));
        }
        for (pop, (report, settled), reply) in reports {
            let ack = Ack { incarnation: report.incarnation, sequence: report.sequence };
            let applied = self.apply(&pop, (&report, settled), now_ms).await;
            if let Ok(is_new) = applied {
                let counter = if is_new { &self.counters.accepted } else { &self.counters.repeated };
                counter.fetch_add(1, Ordering::Relaxed);
            }
            // It is on disk whether or not it could be applied; but a broken file is read no more.
            let is_lost = applied.as_ref().is_err_and(StoreError::is_broken_file);
            let _ = reply.send(if is_lost { Err(ReportError::Busy) } else { Ok(ack) });
            applied?;
        }
        Ok(())
    }

    fn look(&self) -> Gauges {
        let now_ms = now_ms();
        let pops = self.aggregate.pops(now_ms);
        let up = pops.iter().filter(|pop| pop.pop.is_up(now_ms)).count() as u64;
        let channel = |id: &ChannelId| {
            let summary = self.aggregate.summary(id, &Scope::All, now_ms)?;
            let by_pop = pops.iter().map(|pop| {
                let viewers = self.aggregate.viewers(id, &Scope::Pop(pop.id.clone()), now_ms);
                (pop.id.clone(), viewers)
            });
            Some(ChannelGauges {
                id: id.clone(),
                viewers: summary.viewers,
                views: summary.totals.views,
                watch_us: summary.totals.watch_us,
                starvations: summary.totals.quality.starvations,
                pops: by_pop.collect(),
            })
        };
        Gauges {
            channels: self.aggregate.channels().filter_map(channel).collect(),
            pops_up: up,
            pops_silent: pops.len() as u64 - up,
            sessions_held: self.aggregate.sessions_held() as u64,
        }
    }

    async fn checkpoint(&mut self) -> Result<(), StoreError> {
        let began = Instant::now();
        let encoded = |error| StoreError::Database(sqlx::Error::Encode(Box::new(error)));
        let rows = self.aggregate.take_unsaved().map_err(encoded)?;
        let viewers = self.aggregate.take_unsaved_viewers();
        if !rows.is_empty() || !viewers.is_empty() || self.journal_bytes > 0 {
            self.store.checkpoint(&rows, &viewers, self.newest_id).await?;
            count_time(&self.counters.checkpoints, &self.counters.checkpoint_us, began);
        }
        (self.journal_bytes, self.loaded) = (0, 0);
        self.written = Instant::now();
        let now_ms = now_ms();
        self.aggregate.forget(now_ms);
        if self.aggregate.pieces_held() > HELD_MAX {
            self.aggregate.forget_before(loading::recent(now_ms));
        }
        Ok(())
    }
}

fn count_time(times: &AtomicU64, us: &AtomicU64, began: Instant) {
    times.fetch_add(1, Ordering::Relaxed);
    us.fetch_add(u64::try_from(began.elapsed().as_micros()).unwrap_or(0), Ordering::Relaxed);
}
