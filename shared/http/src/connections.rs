//! Counting connections, and knowing when one of them is idle.
//!
//! Invariant: a connection is counted open exactly as long as its `OpenConnection` lives, and a request is in flight
//! exactly as long as its response body lives.

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What the listeners of one server count. Clones share the counters.
#[derive(Debug, Clone, Default)]
pub struct ConnectionMetrics {
    /// Connections open now.
    pub open: Gauge,
    /// Connections accepted.
    pub accepted: Counter,
    /// Connections closed at once because `connections_max` was reached.
    pub refused: Counter,
    /// Failed `accept` calls, for example for want of file descriptors.
    pub accept_errors: Counter,
    /// TLS handshakes that failed or took too long.
    pub handshake_failures: Counter,
    /// Connections closed for sending no (complete) request in time.
    pub timed_out: Counter,
}

impl ConnectionMetrics {
    /// Registers everything under `connections…`, prefixed as `registry` says.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("connections", "Connections open now", self.open.clone());
        for (name, help, counter) in [
            ("connections_accepted", "Connections accepted", &self.accepted),
            (
                "connections_refused",
                "Connections closed at once because connections_max was reached",
                &self.refused,
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
        ] {
            registry.register(name, help, counter.clone());
        }
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

/// HTTP/2's connection preface: what protocol detection may wait for.
const PREFACE_BYTES: u64 = 24;

/// What happened on one connection, written by its requests and its socket.
#[derive(Debug)]
pub(crate) struct Activity {
    opened: Instant,
    in_flight: AtomicUsize,
    /// Milliseconds since `opened` at which the last response ended.
    last_end_ms: AtomicU64,
    bytes_read: AtomicU64,
}

impl Activity {
    pub(crate) fn new(now: Instant) -> Arc<Self> {
        Arc::new(Self {
            opened: now,
            in_flight: AtomicUsize::new(0),
            last_end_ms: AtomicU64::new(0),
            bytes_read: AtomicU64::new(0),
        })
    }

    pub(crate) fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }

    /// Whether nothing was asked on the connection yet (or one request was answered within its first millisecond).
    pub(crate) fn awaits_first_request(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) == 0 && self.last_end_ms.load(Ordering::Relaxed) == 0
    }

    /// When the connection may be closed as idle, seen from `now`: `None` means now.
    pub(crate) fn next_check(&self, now: Instant, limits: &crate::listener::Limits) -> Option<Duration> {
        if self.in_flight.load(Ordering::Relaxed) > 0 {
            return Some(limits.idle_timeout);
        }
        let age = now.saturating_duration_since(self.opened);
        if self.bytes_read.load(Ordering::Relaxed) <= PREFACE_BYTES && age >= limits.header_read_timeout {
            return None;
        }
        let last_end = Duration::from_millis(self.last_end_ms.load(Ordering::Relaxed));
        let left = limits.idle_timeout.saturating_sub(age.saturating_sub(last_end));
        (!left.is_zero()).then_some(left)
    }
}

/// One request that is being answered.
pub(crate) struct InFlight(Arc<Activity>);

impl Drop for InFlight {
    fn drop(&mut self) {
        let ms = self.0.opened.elapsed().as_millis();
        self.0.last_end_ms.store(u64::try_from(ms).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

pin_project! {
    /// A response body that keeps its request in flight until it is dropped.
    pub(crate) struct TrackedBody<B> {
        #[pin]
        body: B,
        _in_flight: InFlight,
    }
}

impl<B> TrackedBody<B> {
    pub(crate) fn new(body: B, in_flight: InFlight) -> Self {
        Self { body, _in_flight: in_flight }
    }
}

impl<B: Body> Body for TrackedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.project().body.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

pin_project! {
    /// A socket whose received bytes are counted.
    pub(crate) struct CountedIo<IO> {
        #[pin]
        io: IO,
        activity: Arc<Activity>,
    }
}

impl<IO> CountedIo<IO> {
    pub(crate) fn new(io: IO, activity: Arc<Activity>) -> Self {
        Self { io, activity }
    }
}

impl<IO: AsyncRead> AsyncRead for CountedIo<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let this = self.project();
        let before = buf.filled().len();
        ready!(this.io.poll_read(cx, buf))?;
        let read = buf.filled().len().saturating_sub(before);
        this.activity.bytes_read.fetch_add(read as u64, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl<IO: AsyncWrite> AsyncWrite for CountedIo<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        self.project().io.poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        self.project().io.poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.project().io.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.project().io.poll_shutdown(cx)
    }
}
