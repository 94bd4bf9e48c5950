//! QUIC endpoints and HTTP/3 connections of viewers.
//!
//! Viewers of a thread share an endpoint (one UDP socket), except who is going to vanish: that takes a socket of its
//! own, which can be made deaf and dumb while QUIC believes it works.

use super::Driver;
use crate::dial::DialError;
use bytes::Bytes;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use std::cell::RefCell;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

/// A part in one round trip; what is received is read at once.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 2 << 20;
/// Loopback and networks with tunnels; larger ones are found by probing.
const INITIAL_MTU_BYTES: u16 = 1_280;
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
const HEADER_BYTES_MAX: u64 = 64 * 1024;

/// A connection in use.
#[derive(Clone)]
pub(super) struct Sender {
    pub(super) requests: h3::client::SendRequest<h3_quinn::OpenStreams, Bytes>,
    connection: quinn::Connection,
}

impl Sender {
    pub(super) fn is_open(&self) -> bool {
        self.connection.close_reason().is_none()
    }

    /// Closes with an HTTP/3 error code; 0x100 is none.
    pub(super) fn close(&self, code: u32) {
        self.connection.close(code.into(), b"");
    }
}

/// Where viewers' QUIC connections come from. Made when the first one is dialled.
#[derive(Debug, Default)]
pub(crate) struct Quic {
    endpoints: RefCell<[Option<quinn::Endpoint>; 2]>,
    muted: Arc<AtomicBool>,
}

impl Quic {
    /// From now on its connections neither send nor receive, and do not know it.
    pub(super) fn mute(&self) {
        self.muted.store(true, Ordering::Relaxed);
    }

    fn endpoint(&self, to: SocketAddr) -> Result<quinn::Endpoint, DialError> {
        let slot = &mut self.endpoints.borrow_mut()[usize::from(to.is_ipv6())];
        if let Some(endpoint) = slot {
            return Ok(endpoint.clone());
        }
        let any = if to.is_ipv4() {
            SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))
        } else {
            SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))
        };
        let made = || {
            let socket = UdpSocket::bind(any)?;
            let runtime = quinn::default_runtime().ok_or_else(|| io::Error::other("no async runtime"))?;
            let inner = runtime.wrap_udp_socket(socket)?;
            let socket = Arc::new(Mutable { inner, muted: Arc::clone(&self.muted) });
            quinn::Endpoint::new_with_abstract_socket(quinn::EndpointConfig::default(), None, socket, runtime)
        };
        Ok(slot.insert(made().map_err(DialError::Connect)?).clone())
    }

    pub(super) async fn dial(
        &self,
        tls: Arc<rustls::ClientConfig>,
        to: SocketAddr,
        host: &str,
    ) -> Result<(Sender, Driver), DialError> {
        let quic = |error: &dyn std::fmt::Display| DialError::Quic(error.to_string());
        let crypto = QuicClientConfig::try_from(tls).map_err(|error| quic(&error))?;
        let mut transport = quinn::TransportConfig::default();
        transport
            .max_idle_timeout(quinn::IdleTimeout::try_from(IDLE_TIMEOUT).ok())
            .stream_receive_window(STREAM_WINDOW_BYTES.into())
            .receive_window(CONNECTION_WINDOW_BYTES.into())
            .initial_mtu(INITIAL_MTU_BYTES)
            // The server opens its control and QPACK streams, and nothing else.
            .max_concurrent_bidi_streams(0_u32.into())
            .max_concurrent_uni_streams(8_u32.into())
            .datagram_receive_buffer_size(None);
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        config.transport_config(Arc::new(transport));
        let connecting = self.endpoint(to)?.connect_with(config, to, host).map_err(|error| quic(&error))?;
        let connection = connecting.await.map_err(|error| quic(&error))?;
        let (mut driver, requests) = h3::client::builder()
            .max_field_section_size(HEADER_BYTES_MAX)
            .send_grease(false)
            .build(h3_quinn::Connection::new(connection.clone()))
            .await
            .map_err(|error| quic(&error))?;
        let driver = Box::pin(async move {
            // How a connection ended shows in the requests that were on it.
            let _ = driver.wait_idle().await;
        });
        Ok((Sender { requests, connection }, driver))
    }
}

#[derive(Debug)]
struct Mutable {
    inner: Arc<dyn AsyncUdpSocket>,
    muted: Arc<AtomicBool>,
}

impl AsyncUdpSocket for Mutable {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if self.muted.load(Ordering::Relaxed) { Ok(()) } else { self.inner.try_send(transmit) }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [io::IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        if self.muted.load(Ordering::Relaxed) { Poll::Pending } else { self.inner.poll_recv(cx, bufs, meta) }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}
