//! What is counted of each upstream, labelled by its host and port: as many series as the configuration has upstreams.

use super::link::Protocol;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::fmt;

type Labels = Vec<(&'static str, String)>;
type Histograms = Family<Labels, Histogram, fn() -> Histogram>;

/// Seconds: a part that is there, one that is held, a hold that ended in nothing.
const HEAD_SECONDS: [f64; 11] = [0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.35, 0.55, 1.0, 3.0, 10.0];

/// The families, before the upstreams are known.
#[derive(Debug, Clone)]
pub(crate) struct Families {
    state: Family<Labels, Gauge>,
    active: Family<Labels, Gauge>,
    connected: Family<Labels, Gauge>,
    attempts: Family<Labels, Counter>,
    hedges: Family<Labels, Counter>,
    connects: Family<Labels, Counter>,
    connect_failures: Family<Labels, Counter>,
    probes: Family<Labels, Counter>,
    head_seconds: Histograms,
}

impl Families {
    /// Registers them in the edge's registry.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let families = Self {
            state: Family::default(),
            active: Family::default(),
            connected: Family::default(),
            attempts: Family::default(),
            hedges: Family::default(),
            connects: Family::default(),
            connect_failures: Family::default(),
            probes: Family::default(),
            head_seconds: Family::new_with_constructor(|| Histogram::new(HEAD_SECONDS)),
        };
        for (name, help, gauges) in [
            ("upstream_state", "0 well, 1 being tried, 2 not well", &families.state),
            ("upstream_active", "1 for the upstream that requests go to first", &families.active),
            ("upstream_connected", "1 for the protocol of the connection in use", &families.connected),
        ] {
            registry.register(name, help, gauges.clone());
        }
        for (name, help, counters) in [
            ("upstream_attempts", "Requests to each upstream by how they ended", &families.attempts),
            ("upstream_hedges", "Requests sent because another upstream was late", &families.hedges),
            ("upstream_connects", "Connections made to each upstream", &families.connects),
            ("upstream_connect_failures", "Failed attempts to connect", &families.connect_failures),
            ("upstream_probes", "Probes of each upstream by result", &families.probes),
        ] {
            registry.register(name, help, counters.clone());
        }
        let help = "Time to the response head";
        registry.register_with_unit("upstream_head", help, Unit::Seconds, families.head_seconds.clone());
        families
    }

    /// The counters of one upstream.
    pub(crate) fn of(&self, upstream: &str) -> Counters {
        let one = || vec![("upstream", upstream.to_owned())];
        let two = |label, value: &str| vec![("upstream", upstream.to_owned()), (label, value.to_owned())];
        let attempts = |result| self.attempts.get_or_create_owned(&two("result", result));
        Counters {
            state: self.state.get_or_create_owned(&one()),
            active: self.active.get_or_create_owned(&one()),
            success: attempts("success"),
            error_status: attempts("error_status"),
            broken: attempts("broken"),
            timed_out: attempts("timed_out"),
            unreachable: attempts("unreachable"),
            cancelled: attempts("cancelled"),
            hedges_sent: self.hedges.get_or_create_owned(&two("outcome", "sent")),
            hedges_won: self.hedges.get_or_create_owned(&two("outcome", "won")),
            probes_good: self.probes.get_or_create_owned(&two("result", "good")),
            probes_failed: self.probes.get_or_create_owned(&two("result", "failed")),
            head_seconds: self.head_seconds.get_or_create_owned(&one()),
            h2: self.protocol(upstream, Protocol::H2),
            h3: self.protocol(upstream, Protocol::H3),
        }
    }

    fn protocol(&self, upstream: &str, protocol: Protocol) -> ProtocolCounters {
        let labels = vec![("upstream", upstream.to_owned()), ("protocol", protocol.name().to_owned())];
        ProtocolCounters {
            connected: self.connected.get_or_create_owned(&labels),
            connects: self.connects.get_or_create_owned(&labels),
            connect_failures: self.connect_failures.get_or_create_owned(&labels),
        }
    }
}

/// Of one upstream. The hot path touches atomics only.
pub(crate) struct Counters {
    pub(crate) state: Gauge,
    pub(crate) active: Gauge,
    pub(crate) success: Counter,
    pub(crate) error_status: Counter,
    pub(crate) broken: Counter,
    pub(crate) timed_out: Counter,
    pub(crate) unreachable: Counter,
    pub(crate) cancelled: Counter,
    pub(crate) hedges_sent: Counter,
    pub(crate) hedges_won: Counter,
    pub(crate) probes_good: Counter,
    pub(crate) probes_failed: Counter,
    pub(crate) head_seconds: Histogram,
    h2: ProtocolCounters,
    h3: ProtocolCounters,
}

/// Of one upstream and protocol.
pub(crate) struct ProtocolCounters {
    pub(crate) connected: Gauge,
    pub(crate) connects: Counter,
    pub(crate) connect_failures: Counter,
}

impl Counters {
    pub(crate) fn of(&self, protocol: Protocol) -> &ProtocolCounters {
        match protocol {
            Protocol::H2 => &self.h2,
            Protocol::H3 => &self.h3,
        }
    }
}

impl fmt::Debug for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Counters")
    }
}
