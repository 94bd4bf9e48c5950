//! A viewer's connections to one edge, over HTTP/1.1, HTTP/2 or HTTP/3, and the ways of leaving them.
//!
//! Everything of a viewer runs in the viewer's own task: whoever polls it calls [`Wire::drive`] too, so that a response
//! wakes one task and not three. Invariants: a kept connection has no unread response on it; bodies are hashed only if
//! asked for, and media is never held. With HTTP/1.1 each lane has a connection of its own, as browsers do it.
//! What a server refuses without having looked at it is asked for again on a new connection. Deliberately absent: other
//! retries (the player model's), redirects (the viewer's).

mod h3;
mod refusal;
mod shared;
mod stamped;
mod stream;

use crate::address::Authority;
use crate::dial::{DialError, Dialer, Protocol};
use crate::tally::ErrorKind;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, header, uri};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use shared::Shared;
use sigma_shared::cmsd;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use stream::{Stream, Ties};

pub(crate) use h3::Quic;

/// Largest playlist body read, in bytes.
const PLAYLIST_BYTES_MAX: usize = 4 << 20;
/// Largest media body read, in bytes.
const MEDIA_BYTES_MAX: u64 = 256 << 20;
/// HTTP/2 flow control: a part in one round trip. What is received is read at once, so it is a bound and not a buffer.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 2 << 20;
/// How long a clean close may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// How often a request is made again that its server did not take: one that is being restarted, or behind a balancer.
const REFUSALS_MAX: u8 = 4;

const CMSD_DYNAMIC: HeaderName = HeaderName::from_static("cmsd-dynamic");

/// No complete response.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("no complete response within {0:?}")]
    Timeout(Duration),
    #[error("the connection was closed before the response: {0}")]
    Closed(String),
    #[error("the server did not take the request: {0}")]
    Refused(String),
    #[error("the body was cut short: {0}")]
    Truncated(String),
    #[error("the body is larger than anything of its kind")]
    Oversize,
    #[error("the path cannot be sent: {0}")]
    Path(#[from] http::Error),
}

impl WireError {
    /// Under which name it is counted.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Dial(DialError::Timeout(_)) | Self::Timeout(_) => ErrorKind::Timeout,
            Self::Dial(DialError::Tls(_)) => ErrorKind::Tls,
            Self::Dial(_) => ErrorKind::Connect,
            Self::Closed(_) | Self::Refused(_) => ErrorKind::Closed,
            Self::Truncated(_) => ErrorKind::Truncated,
            Self::Oversize => ErrorKind::Oversize,
            Self::Path(_) => ErrorKind::BadUri,
        }
    }
}

fn closed(error: impl std::fmt::Display) -> WireError {
    WireError::Closed(error.to_string())
}

fn truncated(error: impl std::fmt::Display) -> WireError {
    WireError::Truncated(error.to_string())
}

/// A GET.
#[derive(Debug)]
pub(crate) struct Ask<'a> {
    /// With its query.
    pub(crate) path: &'a str,
    pub(crate) headers: &'a [(HeaderName, HeaderValue)],
    /// Whether the body is hashed.
    pub(crate) hash: bool,
}

/// A complete response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The request went out; later than it was wanted when a connection had to be made, or the tester was late.
    pub(crate) sent: Instant,
    pub(crate) dialled: bool,
    /// How often it was made again because the server did not take it.
    pub(crate) retried: u8,
    /// Response header, and what came with it.
    pub(crate) first_byte: Instant,
    /// End of the body: when it arrived, not when the tester came to it (over HTTP/3 it is that).
    pub(crate) ended: Instant,
    pub(crate) bytes: u64,
    /// CRC-32 of the body, if it was hashed.
    pub(crate) crc: Option<u32>,
    /// `at` of CMSD-Static: when the origin had the object, Unix milliseconds.
    pub(crate) at_ms: Option<u64>,
    /// `d` of CMSD-Static: what the object lasts, milliseconds.
    pub(crate) lasts_ms: Option<u64>,
    /// The edge that CMSD-Dynamic names, if that was asked for.
    pub(crate) pop: Option<String>,
    pub(crate) location: Option<String>,
}

type Driver = Pin<Box<dyn Future<Output = ()>>>;

/// See the module.
pub(crate) struct Wire {
    dialer: Arc<Dialer>,
    quic: Rc<Quic>,
    authority: Authority,
    host: HeaderValue,
    /// The same for HTTP/2 and HTTP/3.
    place: uri::Authority,
    protocol: Protocol,
    timeout: Duration,
    shared: tokio::sync::Mutex<Shared>,
    /// Counts the shared connections.
    dialled: Cell<u32>,
    drivers: RefCell<Vec<Driver>>,
    /// New since the drivers were polled last.
    fresh: RefCell<Vec<Driver>>,
    ties: Rc<Ties>,
    /// Whether responses are looked at for the name of the edge.
    pub(crate) nameless: Cell<bool>,
}

/// One thing at a time on a wire.
#[derive(Default)]
pub(crate) struct Lane(Option<http1::SendRequest<Empty<Bytes>>>);

/// How to reach an edge.
pub(crate) struct Route<'a> {
    pub(crate) authority: &'a Authority,
    pub(crate) protocol: Protocol,
    /// For one request, held or not.
    pub(crate) timeout: Duration,
}

impl Wire {
    /// Nothing is dialled yet.
    pub(crate) fn new(dialer: Arc<Dialer>, quic: Rc<Quic>, route: &Route<'_>) -> Self {
        let host = route.authority.to_string();
        Self {
            dialer,
            quic,
            authority: route.authority.clone(),
            // An authority that was parsed has visible ASCII only.
            place: host.parse().unwrap_or_else(|_| uri::Authority::from_static("localhost")),
            host: HeaderValue::try_from(host).unwrap_or_else(|_| HeaderValue::from_static("localhost")),
            protocol: route.protocol,
            timeout: route.timeout,
            shared: tokio::sync::Mutex::default(),
            dialled: Cell::new(0),
            drivers: RefCell::default(),
            fresh: RefCell::default(),
            ties: Rc::default(),
            nameless: Cell::new(true),
        }
    }

    pub(crate) fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Lets the connections work; to be called whenever the task that uses them runs.
    pub(crate) fn drive(&self, cx: &mut Context<'_>) {
        let mut drivers = self.drivers.borrow_mut();
        drivers.append(&mut self.fresh.borrow_mut());
        drivers.retain_mut(|driver| driver.as_mut().poll(cx).is_pending());
    }

    /// Runs something that uses this wire. It is kept where the caller has it: a future that takes another one by value
    /// has room for it twice, and there are thousands.
    pub(crate) async fn driving<F: Future>(&self, mut work: Pin<&mut F>) -> F::Output {
        poll_fn(|cx| {
            self.drive(cx);
            let done = work.as_mut().poll(cx);
            // What was just asked for goes out now. When the work is over nothing does: what it let go of would be called
            // off, and whoever vanishes says nothing.
            if done.is_pending() {
                self.drive(cx);
            }
            done
        })
        .await
    }

    /// GETs. A body that is kept replaces what is in `keep`.
    pub(crate) async fn get(
        &self,
        lane: &mut Lane,
        ask: &Ask<'_>,
        keep: Option<&mut Vec<u8>>,
    ) -> Result<Answer, WireError> {
        let timeout = self.timeout;
        let result = match tokio::time::timeout(timeout, self.exchange(lane, ask, keep)).await {
            Ok(result) => result,
            Err(_) => Err(WireError::Timeout(timeout)),
        };
        if result.is_err() {
            lane.0 = None;
        }
        result
    }

    async fn exchange(
        &self,
        lane: &mut Lane,
        ask: &Ask<'_>,
        mut keep: Option<&mut Vec<u8>>,
    ) -> Result<Answer, WireError> {
        let mut retried = 0;
        loop {
            let mut reading = Reading::new(ask.hash, keep.as_deref_mut());
            let result = match self.protocol {
                Protocol::H1 => Box::pin(self.over_h1(lane, ask, &mut reading)).await,
                Protocol::H2 => self.over_h2(ask, &mut reading).await,
                Protocol::H3 => Box::pin(self.over_h3(ask, &mut reading)).await,
            };
            match result {
                Err(WireError::Refused(_)) if retried < REFUSALS_MAX => retried += 1,
                result => return result.map(|answer| Answer { retried, ..answer }),
            }
        }
    }

    async fn over_h1(
        &self,
        lane: &mut Lane,
        ask: &Ask<'_>,
        reading: &mut Reading<'_>,
    ) -> Result<Answer, WireError> {
        // An idle connection that the server closed is no error of the next request.
        let alive = match &mut lane.0 {
            Some(sender) => sender.ready().await.is_ok(),
            None => false,
        };
        if !alive {
            let stream = Box::pin(self.dial()).await?;
            let (sender, connection) =
                http1::handshake(TokioIo::new(stream)).await.map_err(DialError::Http)?;
            self.fresh.borrow_mut().push(Box::pin(async move {
                // How a connection ended shows in the request that was on it.
                let _ = connection.await;
            }));
            lane.0 = Some(sender);
        }
        let Some(sender) = &mut lane.0 else { return Err(closed("no connection")) };
        let request = Request::get(ask.path).header(header::HOST, self.host.clone());
        let request = with_headers(request, ask).body(Empty::new())?;
        let sent = Instant::now();
        let response = match sender.send_request(request).await {
            Ok(response) => response,
            Err(error) => {
                lane.0 = None;
                return Err(if alive { refusal::of_h1(error, sent.elapsed()) } else { closed(error) });
            }
        };
        let (head, mut body) = response.into_parts();
        let first_byte = self.arrived();
        while let Some(frame) = body.frame().await {
            if let Some(chunk) = frame.map_err(truncated)?.data_ref() {
                reading.take(chunk)?;
            }
        }
        Ok(self.answer((head.status.as_u16(), &head.headers), (sent, !alive, first_byte), reading))
    }

    fn uri(&self, path: &str) -> Result<Uri, http::Error> {
        let mut parts = uri::Parts::default();
        parts.path_and_query = Some(path.parse()?);
        let scheme = if self.authority.tls { uri::Scheme::HTTPS } else { uri::Scheme::HTTP };
        (parts.scheme, parts.authority) = (Some(scheme), Some(self.place.clone()));
        Ok(Uri::from_parts(parts)?)
    }

    async fn dial(&self) -> Result<Stream, DialError> {
        let config = if self.authority.tls { Some(self.dialer.tls_config(self.protocol)?) } else { None };
        let dialling = async {
            let tcp = self.dialer.tcp(&self.authority).await?;
            let stream = Stream::plain(tcp, Rc::clone(&self.ties));
            match config {
                Some(config) => stream.secured(config, &self.authority.host).await.map_err(DialError::Tls),
                None => Ok(stream),
            }
        };
        self.dialer.in_time(dialling).await
    }

    fn answer(
        &self,
        (status, headers): (u16, &HeaderMap),
        (sent, dialled, first_byte): (Instant, bool, Instant),
        reading: &Reading<'_>,
    ) -> Answer {
        let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
        let pop = if self.nameless.get() { text(CMSD_DYNAMIC).and_then(edge_of) } else { None };
        let told = text(HeaderName::from_static(cmsd::CMSD_STATIC));
        let ended = self.arrived().max(sent);
        Answer {
            status,
            sent,
            dialled,
            retried: 0,
            first_byte: first_byte.clamp(sent, ended),
            ended,
            bytes: reading.bytes,
            crc: reading.hasher.clone().map(crc32fast::Hasher::finalize),
            at_ms: told.and_then(|text| cmsd::integer(text, "at")),
            lasts_ms: told.and_then(|text| cmsd::integer(text, "d")),
            pop,
            location: if (300..400).contains(&status) {
                text(header::LOCATION).map(str::to_owned)
            } else {
                None
            },
        }
    }

    /// When all that was read had come: an answer's last bytes, or something that came after them.
    fn arrived(&self) -> Instant {
        self.ties.arrived.get().unwrap_or_else(Instant::now)
    }

    /// Closes as a player does that is done: GOAWAY, TLS close, FIN; or CONNECTION_CLOSE.
    pub(crate) async fn close(self) {
        if let Shared::H3(sender) = self.shared.into_inner() {
            sender.close(0x100);
        }
        let mut drivers = self.drivers.into_inner();
        drivers.append(&mut self.fresh.into_inner());
        let ended = poll_fn(|cx| {
            drivers.retain_mut(|driver| driver.as_mut().poll(cx).is_pending());
            if drivers.is_empty() { Poll::Ready(()) } else { Poll::Pending }
        });
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, ended).await;
    }

    /// Drops everything: TCP RST, or a QUIC close with an error.
    pub(crate) fn reset(self) {
        self.ties.reset.set(true);
        if let Shared::H3(sender) = self.shared.into_inner() {
            // H3_REQUEST_CANCELLED
            sender.close(0x10c);
        }
    }

    /// From now on nothing is sent and nothing received, not even acknowledgements of QUIC. The connection is not closed
    /// as long as the wire is kept.
    pub(crate) fn vanish(&self) {
        self.quic.mute();
    }
}

/// The last edge that a response passed: the one that the viewer talks to.
fn edge_of(dynamic: &str) -> Option<String> {
    let last = dynamic.rsplit(',').find_map(|item| item.trim().strip_prefix('"')?.split_once('"'))?;
    Some(last.0.to_owned())
}

fn with_headers(request: http::request::Builder, ask: &Ask<'_>) -> http::request::Builder {
    let request = request.header(header::USER_AGENT, HeaderValue::from_static("sigma-load"));
    ask.headers.iter().fold(request, |request, (name, value)| request.header(name, value))
}

/// What becomes of a body.
struct Reading<'a> {
    bytes: u64,
    hasher: Option<crc32fast::Hasher>,
    keep: Option<&'a mut Vec<u8>>,
}

impl<'a> Reading<'a> {
    fn new(hash: bool, mut keep: Option<&'a mut Vec<u8>>) -> Self {
        if let Some(text) = &mut keep {
            text.clear();
        }
        Self { bytes: 0, hasher: hash.then(crc32fast::Hasher::new), keep }
    }

    fn take(&mut self, chunk: &[u8]) -> Result<(), WireError> {
        self.bytes += chunk.len() as u64;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(chunk);
        }
        match &mut self.keep {
            Some(text) if text.len() + chunk.len() > PLAYLIST_BYTES_MAX => return Err(WireError::Oversize),
            Some(text) => text.extend_from_slice(chunk),
            None if self.bytes > MEDIA_BYTES_MAX => return Err(WireError::Oversize),
            None => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
