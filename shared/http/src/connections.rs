//! Counting connections and what was refused or dropped of them.
//!
//! Invariant: a connection is counted open exactly as long as its `OpenConnection` lives.

use crate::admission::Refusal;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// What the listeners of one server count. Clones share the counters.
#[derive(Debug, Clone, Default)]
pub struct ConnectionMetrics {
    /// Connections open now.
    pub open: Gauge,
    /// Connections accepted.
    pub accepted: Counter,
    /// Connections closed at once because `connections_max` was reached.
    pub refused: Counter,
    /// Connections closed at once because `connections_per_ip_max` was reached.
    pub refused_per_ip: Counter,
    /// Failed `accept` calls, for example for want of file descriptors.
    pub accept_errors: Counter,
    /// TLS handshakes that failed or took too long.
    pub handshake_failures: Counter,
    /// Connections closed for sending no (complete) request in time.
    pub timed_out: Counter,
    /// QUIC peers asked to prove their address.
    pub quic_retries: Counter,
    /// Connections closed for taking what they asked for too slowly.
    pub slow: Counter,
    /// Answers that their viewers took nothing of for too long.
    pub stuck: Counter,
    /// Bytes of the answers that viewers have not taken all of.
    pub held: Gauge,
    /// Answers refused because viewers hold too much.
    pub shed: Counter,
    /// Connections closed for sending more HTTP/2 control frames, or giving up more HTTP/3 requests, than anybody does.
    pub flooded: Counter,
    /// Requests refused before anybody looked at what they ask for: no host or two, a body where none belongs.
    pub malformed: Counter,
}

impl ConnectionMetrics {
    /// Registers everything under `connections…`, prefixed as `registry` says.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("connections", "Connections open now", self.open.clone());
        registry.register(
            "held_bytes",
            "Bytes of the answers that viewers have not taken all of",
            self.held.clone(),
        );
        for (name, help, counter) in [
            ("connections_accepted", "Connections accepted", &self.accepted),
            (
                "connections_refused",
                "Connections closed at once because connections_max was reached",
                &self.refused,
            ),
            (
                "connections_refused_per_ip",
                "Connections closed at once because connections_per_ip_max was reached",
                &self.refused_per_ip,
            ),
            ("accept_errors", "Failed accept calls", &self.accept_errors),
            (
                "tls_handshake_failures",
                "TLS handshakes that failed or took too long",
                &self.handshake_failures,
            ),
            (
                "connections_timed_out",
                "Connections closed for sending no complete request in time",
                &self.timed_out,
            ),
            (
                "quic_retries",
                "QUIC peers asked to prove their address while many handshakes were open",
                &self.quic_retries,
            ),
            ("connections_slow", "Connections closed for taking what they asked for too slowly", &self.slow),
            (
                "answers_stuck",
                "Answers given up because their viewers took nothing of them for too long",
                &self.stuck,
            ),
            (
                "answers_shed",
                "Answers refused because viewers hold more than held_bytes_max, and who asked more than its share",
                &self.shed,
            ),
            (
                "connections_flooded",
                "Connections closed for sending more control frames or giving up more requests than anybody does",
                &self.flooded,
            ),
            ("requests_malformed", "Requests refused for their hosts or their framing", &self.malformed),
        ] {
            registry.register(name, help, counter.clone());
        }
    }

    /// Counts a connection that was not admitted.
    pub(crate) fn refused(&self, refusal: Refusal) {
        let counter = match refusal {
            Refusal::Total => &self.refused,
            Refusal::PerIp => &self.refused_per_ip,
        };
        counter.inc();
    }

    pub(crate) fn opened(&self) -> OpenConnection {
        self.accepted.inc();
        self.open.inc();
        OpenConnection(self.open.clone())
    }
}

/// Counts one connection as open while it lives.
pub(crate) struct OpenConnection(Gauge);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}
