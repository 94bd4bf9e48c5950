//! Making one connection to an upstream: TCP + TLS + HTTP/2, or QUIC + HTTP/3.
//!
//! Invariant: what comes out of here was answered by the upstream: a handshake was completed, with a certificate of the
//! configured CA. Deliberately absent: time limits and retries (see `keeper`).

use super::link::{BoxError, Sender};
use crate::config::{UpstreamConfig, UpstreamUrl};
use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use quinn::crypto::rustls::QuicClientConfig;
use sigma_http::listener::set_socket_options;
use sigma_http::tls::{ALPN_H2, ALPN_H3, ReloadableCertificate, TlsError, client_config_as};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// A fill never needs more than this in flight: 8 parts of 2 MiB, or one segment in one round trip.
const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
const STREAM_WINDOW_BYTES: u32 = 2 * 1024 * 1024;
/// A part arrives in one burst; the system may allow less.
const UDP_RECEIVE_BUFFER_BYTES: usize = 4 * 1024 * 1024;
/// Fits every path that carries QUIC without fragments, tunnels included; larger ones are found by probing.
const INITIAL_MTU_BYTES: u16 = 1_280;
/// What a lost first packet is judged by: repeated after three times this. QUIC's own 333 ms suits no data centre.
const INITIAL_RTT: Duration = Duration::from_millis(60);
const HEADER_BYTES_MAX: u64 = 64 * 1024;

/// Why a connection could not be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the upstream does not speak HTTP/2 over TLS (ALPN)")]
    NotHttp2,
    #[error("HTTP/2: {0}")]
    Http(#[from] hyper::Error),
    #[error("QUIC: {0}")]
    Quic(#[from] quinn::ConnectionError),
    #[error("QUIC: {0}")]
    QuicStart(#[from] quinn::ConnectError),
    #[error("HTTP/3: {0}")]
    Http3(#[from] h3::error::ConnectionError),
    #[error("its name has no address")]
    NoAddress,
    #[error("took longer than connect_timeout_ms")]
    TimedOut,
}

/// Runs a connection until it ends.
pub(super) type Driver = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;

/// A connection, and what has to run for it to work.
pub(super) struct Made {
    pub(super) sender: Sender,
    pub(super) driver: Driver,
}

/// How to connect to one upstream.
pub(super) struct Connector {
    url: UpstreamUrl,
    tls: Option<(TlsConnector, quinn::ClientConfig)>,
    ping_interval: Duration,
    ping_timeout: Duration,
}

impl Connector {
    /// Reads the CA that the configuration names. `identity` is shown as it is at each connection.
    pub(super) fn new(
        url: &UpstreamUrl,
        config: &UpstreamConfig,
        identity: Option<&Arc<ReloadableCertificate>>,
    ) -> Result<Self, TlsError> {
        let tls = match (&url.server_name, &config.ca) {
            (Some(_), Some(ca)) => {
                let h2 = client_config_as(ca, identity.cloned(), ALPN_H2)?;
                let h3 = client_config_as(ca, identity.cloned(), ALPN_H3)?;
                Some((TlsConnector::from(h2), quic_config(h3, config)?))
            }
            _ => None,
        };
        let (ping_interval, ping_timeout) = (config.ping_interval(), config.ping_timeout());
        Ok(Self { url: url.clone(), tls, ping_interval, ping_timeout })
    }

    /// Whether there can be HTTP/3 at all.
    pub(super) fn is_https(&self) -> bool {
        self.tls.is_some()
    }

    fn host(&self) -> &str {
        self.url.authority.host().trim_matches(['[', ']'])
    }

    pub(super) async fn h2(&self) -> Result<Made, ConnectError> {
        let tcp = TcpStream::connect((self.host(), self.url.port)).await?;
        set_socket_options(&tcp, self.ping_interval + self.ping_timeout)?;
        let (Some((tls, _)), Some(name)) = (&self.tls, &self.url.server_name) else {
            return self.handshake(tcp).await;
        };
        let stream = tls.connect(name.clone(), tcp).await?;
        if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(ConnectError::NotHttp2);
        }
        self.handshake(stream).await
    }

    async fn handshake<IO>(&self, io: IO) -> Result<Made, ConnectError>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            // Nothing is asked before the upstream has said how much it takes at a time: it would refuse the rest.
            .initial_max_send_streams(0)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .keep_alive_interval(self.ping_interval)
            .keep_alive_timeout(self.ping_timeout)
            .keep_alive_while_idle(true)
            .handshake::<_, Full<Bytes>>(TokioIo::new(io))
            .await?;
        let driver = Box::pin(async move { connection.await.map_err(BoxError::from) });
        Ok(Made { sender: Sender::H2(sender), driver })
    }

    pub(super) async fn h3(&self) -> Result<Made, ConnectError> {
        let Some((_, config)) = &self.tls else {
            return Err(ConnectError::NoAddress);
        };
        let mut addresses = tokio::net::lookup_host((self.host(), self.url.port)).await?;
        let address = addresses.next().ok_or(ConnectError::NoAddress)?;
        // An endpoint of its own: nothing is shared with a connection that went wrong.
        let endpoint = endpoint(address)?;
        let connection = endpoint.connect_with(config.clone(), address, self.host())?.await?;
        let (mut driver, sender) = h3::client::builder()
            .max_field_section_size(HEADER_BYTES_MAX)
            .send_grease(false)
            .build(h3_quinn::Connection::new(connection.clone()))
            .await?;
        let driver = Box::pin(async move {
            let ended = driver.wait_idle().await;
            drop(endpoint);
            if ended.is_h3_no_error() { Ok(()) } else { Err(ended.into()) }
        });
        Ok(Made { sender: Sender::H3(sender, connection), driver })
    }
}

fn endpoint(to: SocketAddr) -> io::Result<quinn::Endpoint> {
    let any = if to.is_ipv4() {
        SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))
    } else {
        SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))
    };
    let socket = UdpSocket::bind(any)?;
    // Less than this works too, with more loss.
    let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(UDP_RECEIVE_BUFFER_BYTES);
    let runtime = quinn::default_runtime().ok_or_else(|| io::Error::other("no async runtime"))?;
    quinn::Endpoint::new(quinn::EndpointConfig::default(), None, socket, runtime)
}

fn quic_config(
    tls: Arc<rustls::ClientConfig>,
    config: &UpstreamConfig,
) -> Result<quinn::ClientConfig, TlsError> {
    let crypto = QuicClientConfig::try_from(tls)
        .map_err(|error| TlsError::Config(rustls::Error::General(error.to_string())))?;
    let mut transport = quinn::TransportConfig::default();
    let idle = config.ping_interval() + config.ping_timeout();
    transport
        .keep_alive_interval(Some(config.ping_interval()))
        .max_idle_timeout(quinn::IdleTimeout::try_from(idle).ok())
        .stream_receive_window(STREAM_WINDOW_BYTES.into())
        .receive_window(CONNECTION_WINDOW_BYTES.into())
        .initial_mtu(INITIAL_MTU_BYTES)
        .initial_rtt(INITIAL_RTT)
        // The upstream opens its control and QPACK streams, and nothing else.
        .max_concurrent_bidi_streams(0_u32.into())
        .max_concurrent_uni_streams(8_u32.into())
        .datagram_receive_buffer_size(None);
    let mut client = quinn::ClientConfig::new(Arc::new(crypto));
    client.transport_config(Arc::new(transport));
    Ok(client)
}
