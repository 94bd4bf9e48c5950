//! What is asked of the system's sockets: options, and patience when it has none to give.
//!
//! Deliberately absent: binding (`listener`) and UDP (`quic_port`).

use std::io;
use std::time::Duration;
use tokio::net::TcpStream;

/// The rest after a failed `accept`: none when the peer was gone already, longer and longer when the system is out of
/// something.
#[derive(Default)]
pub(crate) struct AcceptBackoff(u32);

impl AcceptBackoff {
    pub(crate) async fn after(&mut self, error: &io::Error) {
        use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
        if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) {
            return;
        }
        if self.0 == 0 {
            tracing::error!(%error, "cannot accept connections; retrying");
        }
        let rest = Duration::from_millis(10 << self.0.min(6));
        self.0 = self.0.saturating_add(1);
        tokio::time::sleep(rest).await;
    }
}

/// What systems count keep-alives in.
const KEEPALIVE_MIN: Duration = Duration::from_secs(1);

/// Sends small writes at once and lets go of peers that vanished without a word.
///
/// A connection without traffic is probed several times within `user_timeout`, at whose end Linux gives up when one probe
/// is unanswered, and not all connections at the same time: of ten thousand probes sent at once thousands are lost.
///
/// # Errors
/// The system refused an option; the socket works without it.
pub fn set_socket_options(stream: &TcpStream, user_timeout: Duration) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = socket2::SockRef::from(stream);
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(
            Duration::from_secs(fastrand::u64(user_timeout.as_secs() / 4..=user_timeout.as_secs() / 2))
                .max(KEEPALIVE_MIN),
        )
        .with_interval((user_timeout / 6).max(KEEPALIVE_MIN))
        .with_retries(3);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(user_timeout))
}
