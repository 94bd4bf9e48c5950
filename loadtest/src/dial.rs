//! Connections: TCP, TLS and HTTP handshakes, and who may be dialled.
//!
//! Invariants: loopback only unless remote targets were allowed, and always loopback only when certificates are not
//! verified; the check is made on the resolved addresses, also after a redirect.

use crate::address::Authority;
use crate::tls::Trust;
use bytes::Bytes;
use http_body_util::Empty;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

/// Connections from one source address: the kernel has about 28,000 ports for one source and destination.
const CONNECTIONS_PER_SOURCE: u32 = 20_000;
/// Resolved names kept.
const NAMES_MAX: usize = 256;

/// HTTP version on the wire.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    clap::ValueEnum,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Protocol {
    /// HTTP/1.1: one keep-alive connection per rendition
    H1,
    /// HTTP/2 (without TLS: prior knowledge): one connection per viewer
    H2,
    /// HTTP/3: one QUIC connection per viewer
    H3,
}

impl Protocol {
    /// Its name in ALPN.
    pub(crate) fn alpn(self) -> &'static [u8] {
        match self {
            Self::H1 => b"http/1.1",
            Self::H2 => b"h2",
            Self::H3 => b"h3",
        }
    }
}

/// A connection could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("{0} is not a loopback address; --allow-remote permits other targets")]
    NotLoopback(IpAddr),
    #[error("{0} is not a loopback address; --insecure-loopback is for loopback targets only, use --ca")]
    InsecureRemote(IpAddr),
    #[error("https needs --ca FILE, or --insecure-loopback for a loopback target")]
    NoTrust,
    #[error("cannot connect: {0}")]
    Connect(#[source] std::io::Error),
    #[error("no answer to connecting within {0:?}")]
    Timeout(Duration),
    #[error("TLS handshake: {0}")]
    Tls(#[source] std::io::Error),
    #[error("HTTP handshake: {0}")]
    Http(#[source] hyper::Error),
}

impl DialError {
    /// The caller's fault: the same for every connection, a retry does not help.
    pub(crate) fn is_misuse(&self) -> bool {
        matches!(self, Self::NotLoopback(_) | Self::InsecureRemote(_) | Self::NoTrust)
    }
}

/// Sends requests on an HTTP/1.1 connection.
pub(crate) type H1 = http1::SendRequest<Empty<Bytes>>;
/// Sends requests on an HTTP/2 connection.
pub(crate) type H2 = http2::SendRequest<Empty<Bytes>>;

/// What a dialer may do.
#[derive(Debug, Clone)]
pub(crate) struct DialConfig {
    pub(crate) protocol: Protocol,
    pub(crate) trust: Option<Trust>,
    pub(crate) allow_remote: bool,
    /// For all handshakes of one connection together.
    pub(crate) timeout: Duration,
}

/// Opens the connections of all viewers.
#[derive(Debug)]
pub(crate) struct Dialer {
    config: DialConfig,
    names: Mutex<HashMap<(String, u16), SocketAddr>>,
    dialled: AtomicU32,
}

impl Dialer {
    pub(crate) fn new(config: DialConfig) -> Self {
        Self { config, names: Mutex::default(), dialled: AtomicU32::new(0) }
    }

    pub(crate) fn protocol(&self) -> Protocol {
        self.config.protocol
    }

    /// Resolves a name and checks that it may be dialled, so that misuse shows before any viewer starts.
    pub(crate) async fn resolve(&self, authority: &Authority) -> Result<SocketAddr, DialError> {
        if authority.tls && self.config.trust.is_none() {
            return Err(DialError::NoTrust);
        }
        let key = (authority.host.clone(), authority.port);
        let known = self.names.lock().unwrap_or_else(PoisonError::into_inner).get(&key).copied();
        let address = if let Some(address) = known {
            address
        } else {
            let found: Vec<SocketAddr> =
                tokio::net::lookup_host((key.0.as_str(), key.1)).await.map_err(DialError::Connect)?.collect();
            // A name like localhost may stand for both families; servers listen on IPv4 more often.
            let first = found.iter().find(|a| a.is_ipv4()).or(found.first()).copied();
            first.ok_or_else(|| DialError::Connect(std::io::ErrorKind::NotFound.into()))?
        };
        let insecure = authority.tls && self.config.trust.as_ref().is_some_and(|t| !t.verifies);
        if !address.ip().is_loopback() && insecure {
            return Err(DialError::InsecureRemote(address.ip()));
        }
        if !address.ip().is_loopback() && !self.config.allow_remote {
            return Err(DialError::NotLoopback(address.ip()));
        }
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if names.len() < NAMES_MAX {
            names.insert(key, address);
        }
        Ok(address)
    }

    /// A new HTTP/1.1 connection.
    pub(crate) async fn h1(&self, authority: &Authority) -> Result<H1, DialError> {
        self.in_time(async {
            let tcp = self.tcp(authority).await?;
            if authority.tls { h1_over(self.tls(tcp, authority).await?).await } else { h1_over(tcp).await }
        })
        .await
    }

    /// A new HTTP/2 connection.
    pub(crate) async fn h2(&self, authority: &Authority) -> Result<H2, DialError> {
        self.in_time(async {
            let tcp = self.tcp(authority).await?;
            if authority.tls { h2_over(self.tls(tcp, authority).await?).await } else { h2_over(tcp).await }
        })
        .await
    }

    /// What TLS agrees on when HTTP/2 and HTTP/1.1 are both offered: ALPN, protocol version and cipher suite.
    pub(crate) async fn agreement(
        &self,
        authority: &Authority,
    ) -> Result<(String, String, String), DialError> {
        let trust = self.config.trust.as_ref().ok_or(DialError::NoTrust)?;
        let mut offer = ClientConfig::clone(&trust.config);
        offer.alpn_protocols = [Protocol::H2, Protocol::H1].map(|p| p.alpn().to_vec()).to_vec();
        let stream = self
            .in_time(async {
                let tcp = self.tcp(authority).await?;
                self.tls_with(offer, tcp, authority).await
            })
            .await?;
        let session = stream.get_ref().1;
        let alpn = String::from_utf8_lossy(session.alpn_protocol().unwrap_or_default()).into_owned();
        let version = session.protocol_version().map_or_else(String::new, |v| format!("{v:?}"));
        let suite =
            session.negotiated_cipher_suite().map_or_else(String::new, |s| format!("{:?}", s.suite()));
        Ok((alpn, version, suite))
    }

    async fn in_time<T>(&self, dial: impl Future<Output = Result<T, DialError>>) -> Result<T, DialError> {
        match tokio::time::timeout(self.config.timeout, dial).await {
            Ok(result) => result,
            Err(_) => Err(DialError::Timeout(self.config.timeout)),
        }
    }

    async fn tcp(&self, authority: &Authority) -> Result<TcpStream, DialError> {
        let address = self.resolve(authority).await?;
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }
            .map_err(DialError::Connect)?;
        let source = self.dialled.fetch_add(1, Ordering::Relaxed) / CONNECTIONS_PER_SOURCE % 200;
        if address.ip().is_loopback() && address.is_ipv4() && source > 0 {
            let host = u8::try_from(source + 1).unwrap_or(1);
            let source = SocketAddr::from((Ipv4Addr::new(127, 0, 0, host), 0));
            socket.bind(source).map_err(DialError::Connect)?;
        }
        let tcp = socket.connect(address).await.map_err(DialError::Connect)?;
        tcp.set_nodelay(true).map_err(DialError::Connect)?;
        Ok(tcp)
    }

    async fn tls(
        &self,
        tcp: TcpStream,
        authority: &Authority,
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>, DialError> {
        let trust = self.config.trust.as_ref().ok_or(DialError::NoTrust)?;
        self.tls_with(Arc::clone(&trust.config), tcp, authority).await
    }

    async fn tls_with(
        &self,
        config: impl Into<Arc<ClientConfig>>,
        tcp: TcpStream,
        authority: &Authority,
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>, DialError> {
        let invalid = |e| DialError::Tls(std::io::Error::new(std::io::ErrorKind::InvalidInput, e));
        let name = ServerName::try_from(authority.host.clone()).map_err(invalid)?;
        TlsConnector::from(config.into()).connect(name, tcp).await.map_err(DialError::Tls)
    }
}

async fn h1_over<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(stream: S) -> Result<H1, DialError> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(DialError::Http)?;
    tokio::spawn(async move {
        // How a connection ended shows in the request that was on it.
        let _ = connection.await;
    });
    Ok(sender)
}

async fn h2_over<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(stream: S) -> Result<H2, DialError> {
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(8 << 20)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(DialError::Http)?;
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(sender)
}
