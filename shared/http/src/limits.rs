//! What one server lets its peers take.

use crate::admission::{AddressRange, AdmissionLimits};
use crate::flood::{Allowance, POP_DATA_BYTES_PER_COST, VIEWER_DATA_BYTES_PER_COST};
use std::time::Duration;

/// What peers may take. Every field is a bound; none can be switched off.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections open at once over all listeners of a [`crate::listener::Server`]; one more is closed at once and counted.
    pub connections_max: usize,
    /// Connections open at once from one IPv4 address or one IPv6 /64.
    pub connections_per_ip_max: usize,
    /// Peers that `connections_per_ip_max` does not hold for: proxies that speak for many.
    pub connections_per_ip_exempt: Vec<AddressRange>,
    /// A peer that takes what it asked for slower than this is closed; bytes per second. Requests that are held and
    /// have nothing to send yet do not count.
    pub read_bytes_per_s_min: u32,
    /// Over how long that is averaged. An answer of which less than a tenth of that is taken in this time is given up,
    /// whatever else the peer takes.
    pub read_rate_window: Duration,
    /// Bytes of answers that viewers have not taken all of. When all hold more, a connection with more than 8 MiB of
    /// them is answered 503. POPs that have shown their certificate are not.
    pub held_bytes_max: u64,
    /// A TLS handshake that takes longer is cut.
    pub handshake_timeout: Duration,
    /// A request head that takes longer is cut. Also how long an HTTP/1.1 connection may stay silent.
    pub header_read_timeout: Duration,
    /// A connection without a request in flight is closed after this.
    pub idle_timeout: Duration,
    /// After the drain signal, or once found idle, a connection has this long to finish.
    pub drain_timeout: Duration,
    /// Requests at once on one HTTP/2 connection: 128 for viewers, thousands for an edge at its origin.
    pub h2_streams_max: u32,
    /// Decoded size of one request's headers on HTTP/2, bytes.
    pub h2_header_list_bytes_max: u32,
    /// Resets that a peer may provoke by breaking the protocol before its connection is closed (MadeYouReset).
    pub h2_local_error_resets_max: usize,
    /// HTTP/2 frames that ask for nothing (pings, settings, resets, window updates, bodies) which a peer may send at
    /// once, and requests that it may give up on HTTP/3, beside twice `h2_streams_max` and one per KiB that it takes…
    pub h2_control_frames_burst: u32,
    /// …and per second; a POP that has shown its certificate, whose reports are read, 32 times
    /// more. One more closes the connection.
    pub h2_control_frames_per_s: u32,
    /// Initial flow-control window of a stream and of the connection, bytes.
    pub h2_window_bytes: u32,
    /// Response bytes buffered per stream, bytes.
    pub h2_send_buffer_bytes: usize,
    /// An HTTP/2 ping is sent this often…
    pub ping_interval: Duration,
    /// …and the connection is closed when the answer takes longer than this.
    pub ping_timeout: Duration,
    /// QUIC handshakes open at once; further peers have to prove their address first (Retry).
    pub quic_handshakes_max: usize,
    /// Bytes that a peer's kernel does not acknowledge for this long close its connection: a black-holed peer leaves.
    /// One that has nothing to acknowledge is probed from half of it on.
    pub tcp_user_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 20_000,
            connections_per_ip_max: 2_000,
            connections_per_ip_exempt: loopback(),
            read_bytes_per_s_min: 16 * 1024,
            read_rate_window: Duration::from_secs(10),
            held_bytes_max: 512 * 1024 * 1024,
            handshake_timeout: Duration::from_secs(10),
            header_read_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(10),
            h2_streams_max: 128,
            h2_header_list_bytes_max: 16 * 1024,
            h2_local_error_resets_max: 64,
            h2_control_frames_burst: 1024,
            h2_control_frames_per_s: 100,
            h2_window_bytes: 1024 * 1024,
            h2_send_buffer_bytes: 128 * 1024,
            ping_interval: Duration::from_secs(10),
            ping_timeout: Duration::from_secs(10),
            quic_handshakes_max: 256,
            tcp_user_timeout: Duration::from_secs(15),
        }
    }
}

/// A POP may send so many times the frames of a viewer: by default 50 MB of reports a second, after 180 MB at once at an
/// origin, and 20 MB at an edge.
const POP_FRAMES_FACTOR: u32 = 32;

/// What is on this machine speaks for others: a proxy, a load tester.
#[must_use]
pub fn loopback() -> Vec<AddressRange> {
    ["127.0.0.0/8", "::1"].iter().filter_map(|range| range.parse().ok()).collect()
}

impl Limits {
    /// As [`crate::admission::Admission`] takes them.
    #[must_use]
    pub fn admission(&self) -> AdmissionLimits {
        AdmissionLimits {
            total_max: self.connections_max,
            per_ip_max: self.connections_per_ip_max,
            exempt: self.connections_per_ip_exempt.clone(),
        }
    }

    /// When a connection is looked at first.
    pub(crate) fn first_look(&self) -> Duration {
        self.header_read_timeout.min(self.read_rate_window / 2)
    }

    /// Of a viewer, or of a POP.
    pub(crate) fn control_frames(&self, is_pop: bool) -> Allowance {
        // An edge may give up all it asked for at once, and then some.
        let burst = self.h2_control_frames_burst.saturating_add(self.h2_streams_max.saturating_mul(2));
        let per_s = self.h2_control_frames_per_s;
        if is_pop {
            let per_s = per_s.saturating_mul(POP_FRAMES_FACTOR);
            Allowance { burst, per_s, data_bytes_per_cost: POP_DATA_BYTES_PER_COST }
        } else {
            Allowance { burst, per_s, data_bytes_per_cost: VIEWER_DATA_BYTES_PER_COST }
        }
    }
}
