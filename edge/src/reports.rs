//! Tells the origin who watches: a report every second, kept on disk until the origin has acknowledged it (A8).
//!
//! Invariants: viewers wait for nothing here, and what waits for the disk does so on a thread for that (A9); a report is on
//! disk before it is sent, so that nothing is acknowledged that a restart would tell differently; what is newest is sent
//! first, then what is left of a time without the origin.

mod compose;
mod files;
mod pass;
mod post;
mod refused;
mod spool;

pub(crate) use files::check as check_folder;
pub(crate) use pass::{Kind, Reported, pass_on};
pub(crate) use post::{Outcome, Post};

use crate::admission::now_ms;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::viewers::{Telling, Viewers};
use compose::{Moment, compose};
use http::StatusCode;
use sigma_report::report::{PopDescription, Report};
use spool::{Number, Spool};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, MissedTickBehavior};

/// What players said is told with every report of so many.
const QUALITY_EVERY: u32 = 5;
/// The longest rest after a failure, in intervals.
const REST_INTERVALS_MAX: u32 = 5;
/// How often is looked for what other processes left.
const ADOPT_EVERY: Duration = Duration::from_secs(10);
const REST_MS_MIN: u64 = 100;
/// How long the end of the process waits for acknowledgements. What has none by then is on disk.
const GOODBYE: Duration = Duration::from_secs(2);

/// What makes and sends reports needs.
struct Inner<P> {
    viewers: Arc<Viewers>,
    metrics: Arc<Metrics>,
    /// Nothing is kept and sent without.
    sending: Option<(Mutex<Spool>, P)>,
    description: PopDescription,
    interval: Duration,
    made: Notify,
    settled: Notify,
}

/// A running reporter.
pub(crate) struct Reporter {
    finish: Mutex<Option<oneshot::Sender<oneshot::Sender<()>>>>,
}

impl Reporter {
    /// Begins to report to `post`; without one, only the metrics say who watches. Needs a tokio runtime.
    ///
    /// # Errors
    /// The spool's folder cannot be used.
    pub(crate) fn start<P: Post>(
        config: &Config,
        viewers: Arc<Viewers>,
        metrics: Arc<Metrics>,
        post: Option<P>,
    ) -> io::Result<Self> {
        let reports = &config.reports;
        let sending = match post {
            Some(post) => {
                // Whoever sends a report is taken for the POP it is of: no POP sends another one's.
                let folder = config.spool_folder();
                let spool = Spool::open(folder.as_deref(), reports.spool_bytes_max, now_ms())?;
                if reports.spool_dir.is_none() {
                    tracing::warn!(
                        "no reports.spool_dir: what the origin has not acknowledged is lost when this process ends"
                    );
                }
                tracing::debug!(incarnation = spool.incarnation(), "reporting");
                Some((Mutex::new(spool), post))
            }
            None => None,
        };
        let described = &config.pop_description;
        let inner = Arc::new(Inner {
            viewers,
            metrics,
            sending,
            description: PopDescription {
                name: described.name.clone(),
                region: described.region.clone(),
                coordinates: described.coordinates(),
                capacity_viewers: described.capacity_viewers,
                version: env!("CARGO_PKG_VERSION").to_owned(),
                connections: 0,
            },
            interval: Duration::from_millis(reports.interval_ms),
            made: Notify::new(),
            settled: Notify::new(),
        });
        let (finish, finishing) = oneshot::channel();
        tokio::spawn(make(Arc::clone(&inner), finishing));
        tokio::spawn(send(inner));
        Ok(Self { finish: Mutex::new(Some(finish)) })
    }

    /// Makes a last report and waits until it is acknowledged, but not for long.
    pub(crate) async fn finish(&self) {
        let finish = self.finish.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (done, finished) = oneshot::channel();
        if finish.is_some_and(|finish| finish.send(done).is_ok()) {
            let _ = finished.await;
        }
    }
}

/// Makes reports until the end.
async fn make<P: Post>(inner: Arc<Inner<P>>, mut finishing: oneshot::Receiver<oneshot::Sender<()>>) {
    let mut tick = tokio::time::interval(inner.interval);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut quality_at, mut adopt_at) = (Instant::now(), Instant::now() + ADOPT_EVERY);
    let mut complete_until_ms = 0;
    loop {
        let finished = tokio::select! {
            _ = tick.tick() => None,
            finish = &mut finishing => match finish {
                Ok(done) => Some(done),
                Err(_) => return,
            },
        };
        let now = Instant::now();
        let quality = finished.is_some() || now >= quality_at;
        if quality {
            quality_at = now + inner.interval * QUALITY_EVERY;
        }
        let adopt = now >= adopt_at;
        if adopt {
            adopt_at = now + ADOPT_EVERY;
        }
        complete_until_ms = report(&inner, (quality, adopt), complete_until_ms).await;
        if let Some(done) = finished {
            let _ = tokio::time::timeout(GOODBYE, until_settled(&inner)).await;
            let _ = done.send(());
            return;
        }
    }
}

/// Makes the reports of this moment. Returns until when they are complete.
async fn report<P: Post>(inner: &Arc<Inner<P>>, (quality, adopt): (bool, bool), before_ms: u64) -> u64 {
    let Telling { due, complete_until_ms, turned_ms } = inner.viewers.due(quality);
    let metrics = &inner.metrics.accounting;
    metrics.viewers.set(count(due.present));
    metrics.sessions.set(count(due.known));
    metrics.lost.session.inc_by(due.lost.sessions);
    metrics.lost.span.inc_by(due.lost.spans);
    if let Some(by_ms) = turned_ms {
        tracing::warn!(by_ms, "the wall clock was set: viewers are counted by its new time from now on");
        metrics.clock_turns.inc();
    }
    if inner.sending.is_none() {
        return complete_until_ms;
    }
    let nothing = due.sessions.is_empty() && due.traffic.is_empty() && due.quality.is_empty();
    let connections = inner.metrics.connections.open.get();
    let moment = Moment {
        made_at_ms: now_ms(),
        complete_before_ms: before_ms,
        complete_until_ms,
        pop: PopDescription {
            connections: u32::try_from(connections).unwrap_or(0),
            ..inner.description.clone()
        },
    };
    let reports = compose(due, &inner.viewers.channel_names(), &moment);
    let kept = Arc::clone(inner);
    let turned = turned_ms.is_some();
    let keep = move || kept.keep(reports, nothing, (adopt, turned));
    if tokio::task::spawn_blocking(keep).await.is_err() {
        tracing::error!("a report was not kept");
    }
    inner.made.notify_one();
    // By another time nothing is said yet.
    if turned { 0 } else { complete_until_ms }
}

impl<P: Post> Inner<P> {
    /// On a thread that may block.
    fn keep(&self, reports: Vec<Report>, nothing: bool, (adopt, turned): (bool, bool)) {
        self.with_spool(|spool| {
            if adopt && let Err(error) = spool.adopt() {
                tracing::warn!(%error, "what other processes left cannot be taken over");
            }
            // While the origin is away, that nothing happened can be said later.
            if !nothing || spool.backlog().0 < 2 {
                reports.into_iter().for_each(|report| spool.append(report));
            }
            if turned {
                spool.renew(now_ms());
            }
        });
    }

    /// A report is acknowledged, or refused for good. On a thread that may block.
    fn settle(&self, number: Number, refused: Option<(StatusCode, String)>) {
        self.with_spool(|spool| {
            let Some((status, why)) = refused else { return spool.settle(number) };
            let (incarnation, sequence) = number;
            match spool.refuse(number) {
                Some(path) => tracing::error!(
                    incarnation, sequence, status = status.as_u16(), why, path = %path.display(),
                    "a report is refused for good: it is set aside"
                ),
                None => tracing::error!(
                    incarnation,
                    sequence,
                    status = status.as_u16(),
                    why,
                    "a report is refused for good, and is not kept"
                ),
            }
        });
    }

    /// After a failure: a rest that grows, or as long as was asked for.
    async fn rest(&self, failures: &mut u32, why: &str, asked: Option<Duration>) {
        if *failures == 0 {
            tracing::warn!(why, "reports are not acknowledged; they are kept and sent again");
        }
        *failures = failures.saturating_add(1);
        let most = self.interval * REST_INTERVALS_MAX;
        let backoff = backoff(*failures, most, fastrand::u64(..));
        tokio::time::sleep(asked.map_or(backoff, |asked| asked.max(backoff))).await;
    }

    fn with_spool<T>(&self, use_it: impl FnOnce(&mut Spool) -> T) -> Option<T> {
        let (spool, _) = self.sending.as_ref()?;
        let mut spool = spool.lock().unwrap_or_else(PoisonError::into_inner);
        let result = use_it(&mut spool);
        let (happened, (reports, bytes)) = (spool.happened(), spool.backlog());
        let failing = spool.is_failing();
        drop(spool);
        let metrics = &self.metrics.accounting;
        metrics.spooled.set(count(reports));
        metrics.spool_bytes.set(count(bytes));
        metrics.disk_failing.set(failing.into());
        metrics.reports.aggregated.inc_by(happened.aggregated);
        metrics.reports.unwritten.inc_by(happened.unwritten);
        metrics.reports.lost.inc_by(happened.lost);
        Some(result)
    }
}

fn count(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

async fn until_settled<P: Post>(inner: &Arc<Inner<P>>) {
    loop {
        let settled = inner.settled.notified();
        if inner.with_spool(|spool| spool.backlog().0).is_none_or(|left| left == 0) {
            return;
        }
        settled.await;
    }
}

/// Sends what there is, for as long as the process lives.
async fn send<P: Post>(inner: Arc<Inner<P>>) {
    let Some((_, post)) = &inner.sending else { return };
    let metrics = &inner.metrics.accounting.reports;
    let mut newest_sent: Number = (0, 0);
    let mut failures: u32 = 0;
    loop {
        let reading = Arc::clone(&inner);
        let next = move || reading.with_spool(|spool| spool.next(newest_sent)).flatten();
        let Ok(Some(report)) = tokio::task::spawn_blocking(next).await else {
            inner.made.notified().await;
            continue;
        };
        let number = report.number;
        newest_sent = newest_sent.max(number);
        metrics.sent.inc();
        let mut refused = None;
        match post.post(report).await {
            Outcome::Acknowledged => {
                metrics.acknowledged.inc();
                if failures > 0 {
                    tracing::info!("reports are acknowledged again");
                }
                failures = 0;
            }
            Outcome::Refused(status, why) => {
                metrics.refused.inc();
                inner.metrics.accounting.refusals.count(status);
                refused = Some((status, why));
            }
            Outcome::Unknown(why) => {
                inner.metrics.accounting.refusals.count(StatusCode::UNSUPPORTED_MEDIA_TYPE);
                inner.rest(&mut failures, &why, None).await;
                continue;
            }
            Outcome::Later(why, rest) => {
                inner.rest(&mut failures, &why, rest).await;
                continue;
            }
        }
        let settling = Arc::clone(&inner);
        let settle = move || settling.settle(number, refused);
        // The runtime is going away.
        if tokio::task::spawn_blocking(settle).await.is_err() {
            return;
        }
        inner.settled.notify_waiters();
    }
}

/// The rest before the next attempt: doubling up to `most`, half of it random.
fn backoff(failures: u32, most: Duration, random: u64) -> Duration {
    let most_ms = u64::try_from(most.as_millis()).unwrap_or(u64::MAX);
    let full_ms = (REST_MS_MIN << failures.min(16)).min(most_ms).max(2);
    Duration::from_millis(full_ms / 2 + random % (full_ms / 2))
}

#[cfg(test)]
mod tests;
