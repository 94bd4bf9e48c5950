//! The way to the origin (or to another edge): one HTTP/2 connection that carries every fill.
//!
//! Invariants: a request is sent at most twice, and a second time only when the first broke before its response head;
//! a connection that the upstream is closing (GOAWAY) takes no new requests while its open streams finish; a dead
//! upstream is noticed by pings. Deliberately absent: caching, and any wait longer than the configured timeouts.

use crate::config::UpstreamConfig;
use crate::key::{CacheKey, Coding};
use crate::metrics::Metrics;
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Request, Response, Uri};
use http_body_util::BodyExt;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use sigma_http::listener::set_socket_options;
use sigma_http::tls::{ALPN_H2, TlsError, client_config};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;

/// A fill never needs more than this in flight: 8 parts of 2 MiB, or one segment in one round trip.
const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
const STREAM_WINDOW_BYTES: u32 = 2 * 1024 * 1024;
/// A connection that lived shorter than this counts as a failed attempt, so that it is not retried in a tight loop.
const STABLE_AFTER: Duration = Duration::from_secs(1);
const ATTEMPTS_MAX: usize = 2;
const RECONNECT_MS_MIN: u64 = 50;

/// Why there is no response. The upstream or the way to it is to blame.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    /// No connection within the connect timeout.
    #[error("no connection to the upstream")]
    Unreachable,
    /// No response head within the response timeout.
    #[error("no response in time")]
    TimedOut,
    /// The connection or the stream broke, twice.
    #[error(transparent)]
    Broken(#[from] hyper::Error),
}

/// Why a connection could not be made.
#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the upstream does not speak HTTP/2 over TLS (ALPN)")]
    NotHttp2,
    #[error("HTTP/2: {0}")]
    Http(#[from] hyper::Error),
    #[error("took longer than connect_timeout_ms")]
    TimedOut,
}

/// The body of an upstream's response.
#[derive(Debug)]
pub(crate) struct UpstreamBody(Incoming);

impl UpstreamBody {
    /// The next piece; `None` at the end. Trailers are not passed on.
    ///
    /// # Errors
    /// The response broke off.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        while let Some(frame) = self.0.frame().await {
            match frame?.into_data() {
                Ok(chunk) if !chunk.is_empty() => return Ok(Some(chunk)),
                Ok(_) | Err(_) => {}
            }
        }
        Ok(None)
    }
}

/// A handle on the upstream. Clones are the same upstream.
#[derive(Clone)]
pub(crate) struct Upstream(Arc<Inner>);

struct Inner {
    scheme: Scheme,
    authority: Authority,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    config: UpstreamConfig,
    link: watch::Sender<Option<Link>>,
    metrics: Arc<Metrics>,
    user_agent: HeaderValue,
}

/// The connection in use.
#[derive(Clone)]
struct Link {
    sender: SendRequest<Empty<Bytes>>,
    generation: u64,
}

impl Upstream {
    /// Begins to connect, and keeps connected from now on. Needs a tokio runtime.
    ///
    /// # Errors
    /// The CA file cannot be used.
    pub(crate) fn start(config: &UpstreamConfig, metrics: Arc<Metrics>) -> Result<Self, TlsError> {
        let tls = match (&config.urls[0].server_name, &config.ca) {
            (Some(name), Some(ca)) => Some((connector(ca)?, name.clone())),
            _ => None,
        };
        let inner = Arc::new(Inner {
            scheme: config.urls[0].scheme.clone(),
            authority: config.urls[0].authority.clone(),
            tls,
            config: config.clone(),
            link: watch::Sender::new(None),
            metrics,
            user_agent: HeaderValue::from_static(concat!("sigma-edge/", env!("CARGO_PKG_VERSION"))),
        });
        tokio::spawn(stay_connected(Arc::clone(&inner)));
        Ok(Self(inner))
    }

    /// Whether there is a connection that takes requests.
    pub(crate) fn is_connected(&self) -> bool {
        self.0.link.borrow().as_ref().is_some_and(|link| !link.sender.is_closed())
    }

    /// How long the upstream may be silent, before the response head and inside the body.
    pub(crate) fn patience(&self) -> Duration {
        self.0.config.response_timeout()
    }

    /// Asks for one object and waits for the response head.
    ///
    /// # Errors
    /// No connection, no answer in time, or a broken one.
    pub(crate) async fn fetch(&self, key: &CacheKey) -> Result<Response<UpstreamBody>, UpstreamError> {
        tokio::time::timeout(self.patience(), self.attempts(&key.to_string(), key.coding() == Coding::Gzip))
            .await
            .unwrap_or(Err(UpstreamError::TimedOut))
    }

    /// Asks for something that is no object of the cache.
    ///
    /// # Errors
    /// As [`Upstream::fetch`].
    pub(crate) async fn get_uncached(
        &self,
        path_and_query: &str,
    ) -> Result<Response<UpstreamBody>, UpstreamError> {
        tokio::time::timeout(self.patience(), self.attempts(path_and_query, false))
            .await
            .unwrap_or(Err(UpstreamError::TimedOut))
    }

    async fn attempts(&self, path: &str, gzip: bool) -> Result<Response<UpstreamBody>, UpstreamError> {
        let mut attempt = 1;
        loop {
            let mut link = self.link().await?;
            match link.sender.send_request(self.request(path, gzip)).await {
                Ok(response) => return Ok(response.map(UpstreamBody)),
                // Never sent: the connection is going away. This link is not tried again, so it ends.
                Err(error) if error.is_canceled() => self.0.retire(link.generation),
                Err(error) => {
                    if link.sender.is_closed() {
                        self.0.retire(link.generation);
                    }
                    if attempt == ATTEMPTS_MAX {
                        return Err(error.into());
                    }
                    attempt += 1;
                }
            }
        }
    }

    async fn link(&self) -> Result<Link, UpstreamError> {
        let mut links = self.0.link.subscribe();
        let connected = links.wait_for(Option::is_some);
        match tokio::time::timeout(self.0.config.connect_timeout(), connected).await {
            Ok(Ok(link)) => link.clone().ok_or(UpstreamError::Unreachable),
            _ => Err(UpstreamError::Unreachable),
        }
    }

    fn request(&self, path: &str, gzip: bool) -> Request<Empty<Bytes>> {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.0.scheme.clone());
        parts.authority = Some(self.0.authority.clone());
        // Keys print as plain paths: what the grammar accepts needs no escaping.
        parts.path_and_query = path.parse::<PathAndQuery>().ok();
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
        let headers = request.headers_mut();
        headers.insert(header::USER_AGENT, self.0.user_agent.clone());
        if gzip {
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        }
        request
    }
}

fn connector(ca: &Path) -> Result<TlsConnector, TlsError> {
    client_config(ca, ALPN_H2).map(|config: Arc<ClientConfig>| TlsConnector::from(config))
}

/// Connects, waits until the connection is retired, connects again; with longer rests while that fails.
async fn stay_connected(inner: Arc<Inner>) {
    let mut failures: u32 = 0;
    for generation in 0_u64.. {
        let connected = tokio::time::timeout(inner.config.connect_timeout(), inner.connect())
            .await
            .unwrap_or(Err(ConnectError::TimedOut));
        match connected {
            Ok((sender, io)) => {
                inner.metrics.upstream_connects.inc();
                tracing::info!(upstream = %inner.authority, "connected");
                let began = Instant::now();
                inner.live(Link { sender, generation }, io).await;
                if began.elapsed() >= STABLE_AFTER {
                    failures = 0;
                    continue;
                }
            }
            Err(error) => {
                inner.metrics.upstream_connect_failures.inc();
                if failures == 0 {
                    tracing::warn!(upstream = %inner.authority, %error, "cannot connect; retrying");
                }
            }
        }
        failures = failures.saturating_add(1);
        let rest_ms = backoff_ms(failures, inner.config.reconnect_ms_max, fastrand::u64(..));
        tokio::time::sleep(Duration::from_millis(rest_ms)).await;
    }
}

/// The rest before attempt `failures + 1`: doubling up to `max_ms`, half of it random.
fn backoff_ms(failures: u32, max_ms: u64, jitter: u64) -> u64 {
    let full = (RECONNECT_MS_MIN << failures.saturating_sub(1).min(16)).min(max_ms);
    full / 2 + jitter % (full / 2 + 1)
}

type Driver = std::pin::Pin<Box<dyn Future<Output = Result<(), hyper::Error>> + Send>>;

impl Inner {
    async fn connect(&self) -> Result<(SendRequest<Empty<Bytes>>, Driver), ConnectError> {
        let host = self.authority.host().trim_matches(['[', ']']);
        let tcp = TcpStream::connect((host, self.config.urls[0].port)).await?;
        set_socket_options(&tcp, self.config.ping_interval() + self.config.ping_timeout())?;
        let Some((tls, name)) = &self.tls else {
            return self.handshake(tcp).await;
        };
        let stream = tls.connect(name.clone(), tcp).await?;
        if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(ConnectError::NotHttp2);
        }
        self.handshake(stream).await
    }

    async fn handshake<IO>(&self, io: IO) -> Result<(SendRequest<Empty<Bytes>>, Driver), ConnectError>
    where
        IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .keep_alive_interval(self.config.ping_interval())
            .keep_alive_timeout(self.config.ping_timeout())
            .keep_alive_while_idle(true)
            .handshake(TokioIo::new(io))
            .await?;
        Ok((sender, Box::pin(connection)))
    }

    /// Offers the connection to fills until it is retired. Its open streams may outlive that.
    async fn live(self: &Arc<Self>, link: Link, driver: Driver) {
        let generation = link.generation;
        let mut links = self.link.subscribe();
        self.link.send_replace(Some(link));
        self.metrics.upstream_connected.set(1);
        let inner = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(error) = driver.await {
                tracing::warn!(upstream = %inner.authority, %error, "connection lost");
            }
            inner.retire(generation);
        });
        // The sender lives in `self`: the wait ends with the link only.
        let _ = links.wait_for(Option::is_none).await;
        self.metrics.upstream_connected.set(0);
    }

    fn retire(&self, generation: u64) {
        self.link.send_if_modified(|link| {
            let current = link.as_ref().is_some_and(|link| link.generation == generation);
            if current {
                *link = None;
            }
            current
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reconnects_back_off_and_spread() {
        for (failures, low, high) in [(1, 25, 50), (2, 50, 100), (3, 100, 200), (40, 1000, 2000)] {
            for jitter in [0, 1, 999, u64::MAX] {
                let rest = backoff_ms(failures, 2000, jitter);
                assert!((low..=high).contains(&rest), "{failures} {jitter}: {rest}");
            }
        }
        assert_ne!(backoff_ms(40, 2000, 1), backoff_ms(40, 2000, 2));
    }
}
