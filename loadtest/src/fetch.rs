//! One GET: sent on a kept connection (dialled when there is none), timed, hashed, and bounded in time and bytes.
//!
//! Invariants: a connection is kept only after a complete response; media bodies are hashed as they arrive and never
//! held. Deliberately absent: retries (the player model's), redirects (the viewer's).

use crate::address::Authority;
use crate::dial::{DialError, Dialer, H1, H2, Protocol};
use crate::tally::ErrorKind;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// Largest playlist body read, in bytes.
const PLAYLIST_BYTES_MAX: usize = 4 << 20;
/// Largest media body read, in bytes.
const MEDIA_BYTES_MAX: u64 = 256 << 20;

/// No complete response.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("no complete response within {0:?}")]
    Timeout(Duration),
    #[error("the connection was closed before the response: {0}")]
    Closed(#[source] hyper::Error),
    #[error("the body was cut short: {0}")]
    Truncated(#[source] hyper::Error),
    #[error("the body is larger than anything of its kind")]
    Oversize,
    #[error("the path cannot be sent: {0}")]
    Path(#[from] http::Error),
}

impl FetchError {
    /// Under which name it is counted.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Dial(DialError::Timeout(_)) | Self::Timeout(_) => ErrorKind::Timeout,
            Self::Dial(DialError::Tls(_)) => ErrorKind::Tls,
            Self::Dial(_) => ErrorKind::Connect,
            Self::Closed(_) => ErrorKind::Closed,
            Self::Truncated(_) => ErrorKind::Truncated,
            Self::Oversize => ErrorKind::Oversize,
            Self::Path(_) => ErrorKind::BadUri,
        }
    }
}

/// A complete response.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    /// Request to response header.
    pub(crate) first_byte: Duration,
    /// Request to the end of the body.
    pub(crate) last_byte: Duration,
    pub(crate) bytes: u64,
    /// CRC-32 of the body.
    pub(crate) crc: u32,
}

/// What becomes of a body.
pub(crate) enum Sink<'a> {
    /// Kept, replacing what is in the buffer.
    Text(&'a mut Vec<u8>),
    /// Hashed and let go.
    Hash,
}

/// A viewer's way to one server.
pub(crate) struct Link {
    authority: Authority,
    host: HeaderValue,
    timeout: Duration,
    connection: Connection,
}

enum Connection {
    H1(Option<H1>),
    /// Shared by all links of the viewer.
    H2(Arc<Mutex<Option<H2>>>),
}

impl Link {
    /// Nothing is dialled yet. `timeout` is for one request.
    pub(crate) fn new(authority: &Authority, protocol: Protocol, timeout: Duration) -> Self {
        let host = authority.to_string();
        Self {
            authority: authority.clone(),
            // An authority that was parsed has visible ASCII only.
            host: HeaderValue::try_from(host).unwrap_or_else(|_| HeaderValue::from_static("localhost")),
            timeout,
            connection: match protocol {
                Protocol::H1 => Connection::H1(None),
                // The callers of this refuse HTTP/3 before.
                Protocol::H2 | Protocol::H3 => Connection::H2(Arc::default()),
            },
        }
    }

    /// A link that may be used at the same time: the same connection with HTTP/2, one of its own with HTTP/1.1.
    pub(crate) fn beside(&self) -> Self {
        Self {
            authority: self.authority.clone(),
            host: self.host.clone(),
            timeout: self.timeout,
            connection: match &self.connection {
                Connection::H1(_) => Connection::H1(None),
                Connection::H2(shared) => Connection::H2(Arc::clone(shared)),
            },
        }
    }

    pub(crate) fn authority(&self) -> &Authority {
        &self.authority
    }

    pub(crate) fn is_multiplexed(&self) -> bool {
        matches!(self.connection, Connection::H2(_))
    }

    /// Opens the connection if there is none.
    pub(crate) async fn open(&mut self, dialer: &Dialer) -> Result<(), DialError> {
        match &mut self.connection {
            Connection::H1(slot) => {
                // An idle connection that the server closed is no error of the next request.
                let alive = match slot {
                    Some(sender) => sender.ready().await.is_ok(),
                    None => false,
                };
                if !alive {
                    *slot = None;
                    // Boxed: rare, and its state would make every viewer larger.
                    *slot = Some(Box::pin(dialer.h1(&self.authority)).await?);
                }
            }
            Connection::H2(shared) => {
                let mut slot = shared.lock().await;
                if slot.as_ref().is_none_or(H2::is_closed) {
                    *slot = Some(Box::pin(dialer.h2(&self.authority)).await?);
                }
            }
        }
        Ok(())
    }

    /// GETs `path` (with its query).
    pub(crate) async fn get(
        &mut self,
        dialer: &Dialer,
        path: &str,
        sink: Sink<'_>,
    ) -> Result<Reply, FetchError> {
        let timeout = self.timeout;
        let result = match tokio::time::timeout(timeout, self.exchange(dialer, path, sink)).await {
            Ok(result) => result,
            Err(_) => Err(FetchError::Timeout(timeout)),
        };
        if result.is_err()
            && let Connection::H1(slot) = &mut self.connection
        {
            *slot = None;
        }
        result
    }

    /// Sends a request (its URI a path with its query) and returns the response before its body. Not bounded in time.
    pub(crate) async fn request(
        &mut self,
        dialer: &Dialer,
        request: http::request::Builder,
    ) -> Result<Response<Incoming>, FetchError> {
        self.open(dialer).await?;
        self.send(request).await
    }

    async fn exchange(&mut self, dialer: &Dialer, path: &str, sink: Sink<'_>) -> Result<Reply, FetchError> {
        self.open(dialer).await?;
        let started = Instant::now();
        let response = self.send(Request::get(path)).await?;
        let first_byte = started.elapsed();
        let (head, body) = response.into_parts();
        let (bytes, crc) = read(body, sink).await?;
        Ok(Reply { status: head.status.as_u16(), first_byte, last_byte: started.elapsed(), bytes, crc })
    }

    async fn send(&mut self, request: http::request::Builder) -> Result<Response<Incoming>, FetchError> {
        let request = request.header(header::USER_AGENT, "sigma-load");
        match &mut self.connection {
            Connection::H1(slot) => {
                let request = request.header(header::HOST, self.host.clone()).body(Empty::<Bytes>::new())?;
                match slot {
                    Some(sender) => sender.send_request(request).await.map_err(FetchError::Closed),
                    None => {
                        Err(FetchError::Dial(DialError::Connect(std::io::ErrorKind::NotConnected.into())))
                    }
                }
            }
            Connection::H2(shared) => {
                let scheme = if self.authority.tls { "https" } else { "http" };
                let path = request.uri_ref().and_then(http::Uri::path_and_query).cloned();
                let uri = http::Uri::builder()
                    .scheme(scheme)
                    .authority(self.host.as_bytes())
                    .path_and_query(path.unwrap_or_else(|| http::uri::PathAndQuery::from_static("/")))
                    .build()?;
                let request = request.uri(uri).body(Empty::<Bytes>::new())?;
                let sender = shared.lock().await.clone();
                match sender {
                    Some(mut sender) => {
                        sender.ready().await.map_err(FetchError::Closed)?;
                        sender.send_request(request).await.map_err(FetchError::Closed)
                    }
                    None => {
                        Err(FetchError::Dial(DialError::Connect(std::io::ErrorKind::NotConnected.into())))
                    }
                }
            }
        }
    }
}

async fn read(mut body: Incoming, mut sink: Sink<'_>) -> Result<(u64, u32), FetchError> {
    let mut hasher = crc32fast::Hasher::new();
    let mut bytes = 0u64;
    if let Sink::Text(text) = &mut sink {
        text.clear();
    }
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(FetchError::Truncated)?;
        let Some(chunk) = frame.data_ref() else { continue };
        bytes += chunk.len() as u64;
        match &mut sink {
            Sink::Text(text) => {
                if text.len() + chunk.len() > PLAYLIST_BYTES_MAX {
                    return Err(FetchError::Oversize);
                }
                text.extend_from_slice(chunk);
            }
            Sink::Hash => {
                if bytes > MEDIA_BYTES_MAX {
                    return Err(FetchError::Oversize);
                }
                hasher.update(chunk);
            }
        }
    }
    if let Sink::Text(text) = &sink {
        hasher.update(text);
    }
    Ok((bytes, hasher.finalize()))
}
