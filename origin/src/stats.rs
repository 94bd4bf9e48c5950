//! The statistics of viewers, put together for this origin: its channels, its configuration, its metrics.

use crate::channel::Channels;
use crate::claim::ClaimedDir;
use crate::config::StatsConfig;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use sigma_stats::keeper::{Counters, Setup, Source, Stats};
use sigma_stats::store::{Store, StoreError};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A session counts as present for two segments after it was, and for this at least, milliseconds.
const GRACE_MIN_MS: u64 = 4000;
/// How long the end of the origin waits for the database.
const GOODBYE: Duration = Duration::from_secs(5);

/// Why there are no statistics: the operator's to mend.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StatsError {
    #[error("stats.database: {0}")]
    Store(#[from] StoreError),
    #[error("the statistics' thread cannot be started: {0}")]
    Thread(#[from] std::io::Error),
}

/// Starts keeping them. A database that does not answer is waited for in the background: live goes on without.
pub(crate) fn start(
    config: &StatsConfig,
    data_dir: &ClaimedDir,
    channels: &Channels,
) -> Result<Stats, StatsError> {
    let store = match &config.database {
        Some(url) => Store::url(url)?,
        None => Store::file(&data_dir.path().join("stats").join("stats.sqlite"))?,
    };
    let source = |channel: &std::sync::Arc<crate::channel::Channel>| Source {
        id: channel.id().clone(),
        grace_ms: GRACE_MIN_MS.max(2 * u64::from(channel.segment_ms())),
        broadcasts: channel.broadcasts(),
    };
    let setup = Setup {
        channels: channels.iter().map(source).collect(),
        retention: config.retention(),
        final_wait_ms: config.final_wait_s * 1000,
    };
    let (stats, _thread) = Stats::start(store, setup)?;
    Ok(stats)
}

/// Writes what is not written yet.
pub(crate) async fn close(stats: &Stats) {
    if tokio::time::timeout(GOODBYE, stats.close()).await.is_err() {
        tracing::warn!("the statistics' database does not answer; the next start reads the journal");
    }
}

/// What Prometheus sees of them.
#[derive(Debug)]
pub(crate) struct StatsMetrics(pub(crate) Stats);

impl Collector for StatsMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let gauges = self.0.gauges();
        let (viewers, by_pop) = (Family::<_, Gauge>::default(), Family::<_, Gauge>::default());
        let (views, watched) = (Family::<_, Counted>::default(), Family::<_, Counted>::default());
        let starved = Family::<_, Counted>::default();
        for channel in &gauges.channels {
            let label = [("channel", channel.id.to_string())];
            viewers.get_or_create(&label).set(channel.viewers.into());
            views.get_or_create(&label).inc_by(channel.views);
            watched.get_or_create(&label).inc_by(channel.watch_us / 1_000_000);
            starved.get_or_create(&label).inc_by(channel.starvations);
            for (pop, viewers) in &channel.pops {
                let label = [("channel", channel.id.to_string()), ("pop", pop.to_string())];
                by_pop.get_or_create(&label).set(i64::from(*viewers));
            }
        }
        let mut write =
            |name: &str, help: &str, metric: &dyn DynMetric| metric.write(&mut encoder, name, help);
        write("viewers", "Concurrent viewers of a channel, each session once", &viewers)?;
        write("pop_viewers", "Concurrent viewers of a channel through a POP", &by_pop)?;
        write("views", "Playback sessions that got some media, ever", &views)?;
        write("watch_seconds", "Watched of the media timeline, ever", &watched)?;
        write("starvations", "Times that players said that their buffer ran empty (CMCD), ever", &starved)?;
        let gauge = |value: u64| ConstGauge::new(value.cast_signed());
        write("pops_up", "POPs that report", &gauge(gauges.pops_up))?;
        write("pops_silent", "POPs without a report for 10 s", &gauge(gauges.pops_silent))?;
        write("stats_sessions_held", "Playback sessions in memory", &gauge(gauges.sessions_held))?;
        let counters: &Counters = self.0.counters();
        let count = |counter: &AtomicU64| ConstCounter::new(counter.load(Ordering::Relaxed));
        let reports = Family::<_, Counted>::default();
        let entries = Family::<_, Counted>::default();
        for (outcome, counter) in [
            ("accepted", &counters.accepted),
            ("repeated", &counters.repeated),
            ("invalid", &counters.invalid),
            ("busy", &counters.busy),
        ] {
            reports.get_or_create(&[("outcome", outcome)]).inc_by(counter.load(Ordering::Relaxed));
        }
        for (reason, counter) in [
            ("unknown_channel", &counters.unknown_channel),
            ("out_of_time", &counters.out_of_time),
            ("no_room", &counters.no_room),
        ] {
            entries.get_or_create(&[("reason", reason)]).inc_by(counter.load(Ordering::Relaxed));
        }
        write("reports", "Reports of POPs by what became of them", &reports)?;
        write("report_entries_refused", "Entries of reports that were not counted", &entries)?;
        write("stats_commits", "Transactions of the journal of reports", &count(&counters.commits))?;
        let seconds = |counter: &AtomicU64| ConstCounter::new(counter.load(Ordering::Relaxed) as f64 / 1e6);
        write("stats_commit_seconds", "Time they took", &seconds(&counters.commit_us))?;
        write("stats_checkpoints", "Times that the state was written", &count(&counters.checkpoints))?;
        write("stats_checkpoint_seconds", "Time that took", &seconds(&counters.checkpoint_us))?;
        write("stats_database_failures", "Times that the database failed", &count(&counters.failures))?;
        let aside = Family::<_, Counted>::default();
        for (what, counter) in [
            ("row", &counters.set_aside.pieces),
            ("report", &counters.set_aside.reports),
            ("database", &counters.set_aside.database),
        ] {
            aside.get_or_create(&[("what", what)]).inc_by(counter.load(Ordering::Relaxed));
        }
        write("stats_set_aside", "What of the database could not be read and is set aside", &aside)?;
        let available = gauge(u64::from(self.0.is_available()));
        write("stats_available", "1 while reports are taken and questions answered", &available)
    }
}

type Counted = prometheus_client::metrics::counter::Counter;

/// A metric of any kind, written under its name.
trait DynMetric {
    fn write(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
    ) -> Result<(), std::fmt::Error>;
}

impl<M: EncodeMetric> DynMetric for M {
    fn write(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
    ) -> Result<(), std::fmt::Error> {
        let metric = encoder.encode_descriptor(name, help, None, self.metric_type())?;
        self.encode(metric)
    }
}
