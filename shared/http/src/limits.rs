//! What one server lets its peers take.

use std::time::Duration;

/// What peers may take. Every field is a bound; none can be switched off.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections open at once over all listeners of a [`crate::listener::Server`]; one more is closed at once and counted.
    pub connections_max: usize,
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
    pub tcp_user_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 20_000,
            handshake_timeout: Duration::from_secs(10),
            header_read_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            drain_timeout: Duration::from_secs(10),
            h2_streams_max: 128,
            h2_header_list_bytes_max: 16 * 1024,
            h2_local_error_resets_max: 64,
            h2_window_bytes: 1024 * 1024,
            h2_send_buffer_bytes: 128 * 1024,
            ping_interval: Duration::from_secs(10),
            ping_timeout: Duration::from_secs(10),
            quic_handshakes_max: 256,
            tcp_user_timeout: Duration::from_secs(15),
        }
    }
}
