//! What the edge counts. Names, units and meanings: docs/METRICS.md, "Edge".
//!
//! Invariant: the hot path touches atomics only; label sets are looked up once, here.

use crate::session::Refusal;
use crate::upstream::Families;
use http::StatusCode;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use sigma_http::connections::ConnectionMetrics;
use sigma_token::jwt::Refused;
use std::fmt;
use std::sync::Arc;

type Labels = Vec<(&'static str, &'static str)>;

macro_rules! labelled_counters {
    ($(#[$doc:meta])* $name:ident, $label:literal: $($field:ident),+ $(,)?) => {
        $(#[$doc])*
        #[derive(Debug, Clone)]
        pub(crate) struct $name { $(pub(crate) $field: Counter,)+ }

        impl $name {
            fn register(registry: &mut Registry, name: &str, help: &str) -> Self {
                let family = Family::<Labels, Counter>::default();
                registry.register(name, help, family.clone());
                Self { $($field: family.get_or_create_owned(&vec![($label, stringify!($field))]),)+ }
            }
        }
    };
}

labelled_counters!(
    /// Viewer requests by how they were answered.
    Requests, "outcome": hit, negative_hit, disk_hit, miss, join, shed, refused, redirect, page, preflight
);
labelled_counters!(
    /// Upstream requests by how they ended.
    UpstreamRequests, "result": success, error_status, unreachable, timed_out, broken, too_large
);
labelled_counters!(
    /// Playback sessions made here.
    SessionsMinted, "playback": public, token
);
labelled_counters!(
    /// Requests that were not let in.
    SessionRefusals, "reason": no_policy, no_channel, no_token, malformed, algorithm, unknown_key, signature, claims,
    expired, not_yet, channel, address, audience, forged, revoked, mode, sessions, query
);
labelled_counters!(
    /// Sessions looked up.
    Verdicts, "outcome": hit, miss
);
labelled_counters!(
    /// Questions for a newer policy.
    PolicyPolls, "result": changed, unchanged, failed
);
labelled_counters!(
    /// Viewer bodies by how they ended.
    Bodies, "end": complete, aborted
);

labelled_counters!(
    /// Body bytes handed to viewers' connections.
    ProtocolBytes, "protocol": h1, h2, h3
);

labelled_counters!(
    /// Reports by what became of them.
    Reports, "outcome": sent, acknowledged, refused, aggregated, unwritten, lost
);
labelled_counters!(
    /// Questions of who watches elsewhere, by what became of them.
    Places, "result": answered, refused, failed
);
labelled_counters!(
    /// What the viewer ledger had no room for.
    LedgerLost, "of": session, span
);

/// Reports that the upstream did not want, by its answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct ReportRefusals(Family<Vec<(&'static str, u16)>, Counter>);

impl ReportRefusals {
    /// Counts one. Of the statuses that `reports::post` takes for a refusal.
    pub(crate) fn count(&self, status: StatusCode) {
        self.of(status).inc();
    }

    /// How many there were.
    pub(crate) fn of(&self, status: StatusCode) -> Counter {
        self.0.get_or_create_owned(&vec![("status", status.as_u16())])
    }
}

labelled_counters!(
    /// Looks into the disk cache, by what came of them.
    DiskReads, "result": hit, miss, expired, gone, corrupt, failed, late
);
labelled_counters!(
    /// Objects offered to the disk cache, by what became of them.
    DiskWrites, "result": written, failed, queue_full, unwritable, too_large
);
labelled_counters!(
    /// Objects that left the disk cache by its own rules.
    DiskEvictions, "reason": room, expired
);

/// The disk cache.
#[derive(Debug)]
pub(crate) struct DiskMetrics {
    pub(crate) reads: DiskReads,
    pub(crate) writes: DiskWrites,
    pub(crate) evictions: DiskEvictions,
    pub(crate) read_bytes: Counter,
    pub(crate) written_bytes: Counter,
    pub(crate) bytes: Gauge,
    pub(crate) entries: Gauge,
    pub(crate) queue_bytes: Gauge,
    pub(crate) writable: Gauge,
}

impl DiskMetrics {
    fn register(registry: &mut Registry) -> Self {
        let registry = registry.sub_registry_with_prefix("disk");
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let read_bytes = counter("read_bytes", "Body bytes read from the disk cache");
        let written_bytes = counter("written_bytes", "Bytes written to the disk cache");
        let mut gauge = |name: &str, help: &str| {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        Self {
            bytes: gauge("bytes", "Bytes that the objects in the disk cache take"),
            entries: gauge("entries", "Objects in the disk cache"),
            queue_bytes: gauge("queue_bytes", "Bytes of the objects that wait to be written to disk"),
            writable: gauge("writable", "1 while this process writes to the disk cache"),
            reads: DiskReads::register(registry, "reads", "Looks into the disk cache, by what came of them"),
            writes: DiskWrites::register(
                registry,
                "writes",
                "Objects for the disk cache, by what became of them",
            ),
            evictions: DiskEvictions::register(
                registry,
                "evictions",
                "Objects deleted from the disk cache by its own rules",
            ),
            read_bytes,
            written_bytes,
        }
    }
}

/// Who watches, and telling it.
#[derive(Debug)]
pub(crate) struct Accounting {
    pub(crate) viewers: Gauge,
    pub(crate) sessions: Gauge,
    pub(crate) spooled: Gauge,
    pub(crate) spool_bytes: Gauge,
    pub(crate) disk_failing: Gauge,
    pub(crate) clock_turns: Counter,
    pub(crate) reports: Reports,
    pub(crate) refusals: ReportRefusals,
    pub(crate) lost: LedgerLost,
}

impl Accounting {
    fn register(registry: &mut Registry) -> Self {
        let mut gauge = |name: &str, help: &str| {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let (viewers, sessions) = (
            gauge("viewers", "Playback sessions that are present, over all protocols"),
            gauge("ledger_sessions", "Playback sessions in the viewer ledger"),
        );
        let (spooled, spool_bytes, disk_failing) = (
            gauge("reports_spooled", "Reports that the origin has not acknowledged yet"),
            gauge("reports_spool_bytes", "Bytes of the reports not acknowledged yet"),
            gauge("reports_disk_failing", "1 while the spool's disk takes no reports"),
        );
        let (refusals, clock_turns) = (ReportRefusals::default(), Counter::default());
        let help = "Reports that the upstream did not want, by its answer";
        registry.register("reports_refused", help, refusals.0.clone());
        let help = "Times that the wall clock was set, and viewers counted by its new time";
        registry.register("clock_turns", help, clock_turns.clone());
        Self {
            viewers,
            sessions,
            spooled,
            spool_bytes,
            disk_failing,
            clock_turns,
            refusals,
            reports: Reports::register(registry, "reports", "Reports by what became of them"),
            lost: LedgerLost::register(registry, "ledger_lost", "What the viewer ledger had no room for"),
        }
    }
}

impl SessionRefusals {
    /// Counts one.
    pub(crate) fn count(&self, refusal: Refusal) {
        let counter = match refusal {
            Refusal::NoPolicy => &self.no_policy,
            Refusal::NoChannel => &self.no_channel,
            Refusal::NoToken => &self.no_token,
            Refusal::Token(Refused::Malformed) => &self.malformed,
            Refusal::Token(Refused::Algorithm) => &self.algorithm,
            Refusal::Token(Refused::UnknownKey) => &self.unknown_key,
            Refusal::Token(Refused::Signature) => &self.signature,
            Refusal::Token(Refused::Claims) => &self.claims,
            Refusal::Expired | Refusal::Token(Refused::Expired) => &self.expired,
            Refusal::Token(Refused::NotYet) => &self.not_yet,
            Refusal::Token(Refused::Channel) => &self.channel,
            Refusal::Address | Refusal::Token(Refused::Address) => &self.address,
            Refusal::Token(Refused::Audience) => &self.audience,
            Refusal::Forged => &self.forged,
            Refusal::Revoked => &self.revoked,
            Refusal::Mode => &self.mode,
            Refusal::Sessions => &self.sessions,
            Refusal::Query | Refusal::Tokens => &self.query,
        };
        counter.inc();
    }
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Metrics {
    pub(crate) requests: Requests,
    pub(crate) upstream_requests: UpstreamRequests,
    pub(crate) upstreams: Families,
    pub(crate) fills: Gauge,
    pub(crate) fill_bytes: Gauge,
    pub(crate) waiters: Gauge,
    pub(crate) sessions_minted: SessionsMinted,
    pub(crate) session_refusals: SessionRefusals,
    pub(crate) verdicts: Verdicts,
    pub(crate) policy_polls: PolicyPolls,
    pub(crate) places: Places,
    pub(crate) places_lost: Counter,
    pub(crate) bodies: Bodies,
    pub(crate) body_bytes: ProtocolBytes,
    pub(crate) hold_seconds: Histogram,
    pub(crate) prefetches: Counter,
    pub(crate) accounting: Accounting,
    pub(crate) disk: DiskMetrics,
    pub(crate) connections: ConnectionMetrics,
}

impl Metrics {
    /// Registers everything under `sigma_edge_…`.
    pub(crate) fn register(registry: &mut Registry) -> Arc<Self> {
        let registry = registry.sub_registry_with_prefix("sigma_edge");
        let connections = ConnectionMetrics::default();
        connections.register(registry);
        let mut counter = |name: &str, help: &str| {
            let counter = Counter::default();
            registry.register(name, help, counter.clone());
            counter
        };
        let places_lost = counter(
            "session_places_lost",
            "Sessions that lost their place because their subject has too many over all POPs",
        );
        let prefetches = counter("prefetches", "Parts fetched because the origin said they come next");
        // 5 ms to 10 s.
        let hold_seconds = Histogram::new(exponential_buckets(0.005, 2.0, 12));
        registry.register(
            "hold_seconds",
            "From a request to the head of its answer, when it was not in the cache",
            hold_seconds.clone(),
        );
        let mut gauge = |name: &str, help: &str| {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        let fills = gauge("fills", "Objects being fetched now");
        let fill_bytes = gauge("fill_bytes", "Bytes of objects being fetched now");
        let waiters = gauge("waiters", "Requests attached to an object being fetched now");
        Arc::new(Self {
            requests: Requests::register(registry, "requests", "Viewer requests by how they were answered"),
            upstream_requests: UpstreamRequests::register(
                registry,
                "upstream_requests",
                "Objects fetched, by how that ended",
            ),
            sessions_minted: SessionsMinted::register(
                registry,
                "sessions_minted",
                "Playback sessions made here",
            ),
            session_refusals: SessionRefusals::register(registry, "session_refusals", "Requests not let in"),
            verdicts: Verdicts::register(registry, "session_verdicts", "Sessions looked up"),
            policy_polls: PolicyPolls::register(registry, "policy_polls", "Questions for a newer policy"),
            places: Places::register(
                registry,
                "place_posts",
                "Times that the upstream was told who has a place here",
            ),
            places_lost,
            bodies: Bodies::register(registry, "bodies", "Viewer bodies by how they ended"),
            upstreams: Families::register(registry),
            accounting: Accounting::register(registry),
            disk: DiskMetrics::register(registry),
            fills,
            fill_bytes,
            waiters,
            body_bytes: ProtocolBytes::register(
                registry,
                "body_bytes",
                "Body bytes that viewers' sockets took",
            ),
            hold_seconds,
            prefetches,
            connections,
        })
    }
}

/// Gauges that are read when somebody scrapes: `(name, help, value)`.
pub(crate) type Reading = (&'static str, &'static str, u64);

/// Reads its gauges at scrape time.
pub(crate) struct OnScrape<F>(pub(crate) F);

impl<F> fmt::Debug for OnScrape<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnScrape")
    }
}

impl<F: Fn() -> Vec<Reading> + Send + Sync + 'static> Collector for OnScrape<F> {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for (name, help, value) in (self.0)() {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            let metric = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
            gauge.encode(metric)?;
        }
        Ok(())
    }
}
