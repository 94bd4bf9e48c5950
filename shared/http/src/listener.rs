//! Listeners: plain TCP or TLS, HTTP/1.1 and HTTP/2 on the same port, every limit explicit. HTTP/3: `quic`.
//!
//! Invariants: a connection holds one permit of `connections_max` from accept to close; a handler that panics costs its
//! own connection at most; after the drain signal nothing is accepted and every connection ends within
//! `drain_timeout`. Deliberately absent: routing, and upgrades (WebSocket, CONNECT).

use crate::activity::{Activity, CountedIo, Finding, Socket, TrackedBody};
use crate::admission::{Admission, Permit};
use crate::answers::Holding;
use crate::connections::ConnectionMetrics;
use crate::cork::Corked;
use crate::detect::{Spoken, detect};
use crate::drain::Drain;
use crate::gate::{self, Verdict};
pub use crate::limits::{Limits, loopback};
use crate::piece::{Piece, in_pieces};
use crate::problem::Problem;
use crate::sockets::AcceptBackoff;
pub use crate::sockets::set_socket_options;
use crate::tls;
use crate::turn::Turn;
use bytes::Bytes;
use futures_util::future::{self, FutureExt};
use http::header::{self, HeaderValue};
use http::{Request, Response, StatusCode, Version};
use http_body::Body;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulConnection;
use prometheus_client::metrics::counter::Counter;
use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::{Pin, pin};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::io::AsyncWrite;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

/// An HTTP/1.1 or HTTP/2 connection.
type Driven = dyn GracefulConnection<Error = hyper::Error, Output = Result<(), hyper::Error>> + Send;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Where a request came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerConnection {
    /// The peer's address.
    pub peer: SocketAddr,
    /// The address it connected to.
    pub local: SocketAddr,
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// What ALPN chose; on plain TCP nothing was negotiated.
    pub alpn: Alpn,
    /// The POP whose certificate the peer showed, signed by the client CA; `None` for everybody else.
    pub client: Option<Arc<str>>,
}

/// The protocol chosen by ALPN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alpn {
    /// Nothing negotiated: detected from the first bytes.
    None,
    /// `http/1.1`
    Http1,
    /// `h2`
    Http2,
    /// `h3`
    Http3,
}

/// An address that cannot be listened on: the operator's configuration, or another process holds it.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {addr}: {source}")]
pub struct BindError {
    /// The address asked for.
    pub addr: SocketAddr,
    /// What the system said.
    pub source: io::Error,
}

/// A bound TCP port that nobody is answering yet.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    addr: SocketAddr,
}

impl Bound {
    /// Binds `addr`; port 0 takes a free one. Needs a tokio runtime.
    ///
    /// # Errors
    /// The address is in use, not ours or not allowed.
    pub fn bind(addr: SocketAddr) -> Result<Self, BindError> {
        let listen = || {
            let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            socket.set_reuseaddr(true)?;
            socket.bind(addr)?;
            let listener = socket.listen(4096)?;
            let addr = listener.local_addr()?;
            Ok(Self { listener, addr })
        };
        listen().map_err(|source| BindError { addr, source })
    }

    /// Takes over a socket that listens already. `asked` is what it is for.
    pub(crate) fn inherit(listener: std::net::TcpListener, asked: SocketAddr) -> Result<Self, BindError> {
        let take = || {
            listener.set_nonblocking(true)?;
            let addr = listener.local_addr()?;
            Ok(Self { listener: TcpListener::from_std(listener)?, addr })
        };
        take().map_err(|source| BindError { addr: asked, source })
    }

    /// The address really bound.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Bound {
    /// The listener itself, for a protocol other than HTTP.
    #[must_use]
    pub fn into_listener(self) -> TcpListener {
        self.listener
    }
}

impl AsFd for Bound {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}

/// What all listeners of a process share: limits, permits, counters and the drain signal. Clones are the same server.
#[derive(Clone)]
pub struct Server {
    limits: Arc<Limits>,
    admission: Admission,
    metrics: ConnectionMetrics,
    drain: Drain,
    alt_svc: Option<HeaderValue>,
    /// What connections accepted from now on get.
    coming: Arc<RwLock<Arc<Limits>>>,
    /// Loops that accept connections.
    accepting: watch::Sender<usize>,
}

/// Counts one accepting loop while it lives.
pub(crate) struct Accepting(watch::Sender<usize>);

impl Drop for Accepting {
    fn drop(&mut self) {
        self.0.send_modify(|loops| *loops -= 1);
    }
}

impl Server {
    /// A server without listeners.
    #[must_use]
    pub fn new(limits: Limits, metrics: ConnectionMetrics, drain: Drain) -> Self {
        let admission = Admission::new(limits.admission());
        let limits = Arc::new(limits);
        let coming = Arc::new(RwLock::new(Arc::clone(&limits)));
        let accepting = watch::Sender::new(0);
        Self { limits, admission, metrics, drain, alt_svc: None, coming, accepting }
    }

    /// Says in every answer over TLS that HTTP/3 is to be had on UDP `port` of the same host (RFC 7838), for a day.
    #[must_use]
    pub(crate) fn with_http3_at(mut self, port: u16) -> Self {
        self.alt_svc = HeaderValue::from_str(&format!("h3=\":{port}\"; ma=86400")).ok();
        self
    }

    /// Gives connections that are accepted from now on these limits. `connections_max` stays what it was.
    pub fn set_limits(&self, limits: Limits) {
        *self.coming.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(limits);
    }

    /// This server with the limits that hold now.
    pub(crate) fn for_connection(&self) -> Self {
        let limits = Arc::clone(&self.coming.read().unwrap_or_else(PoisonError::into_inner));
        Self { limits, ..self.clone() }
    }

    /// Counts one more loop that accepts connections, while what is returned lives.
    pub(crate) fn accepting(&self) -> Accepting {
        self.accepting.send_modify(|loops| *loops += 1);
        Accepting(self.accepting.clone())
    }

    /// Answers everything that connects to `bound` with `handler` until the drain signal; with `tls`, encrypted.
    /// The returned task ends when accepting ended; see [`Server::drained`] for the connections.
    pub fn serve<H, F, B>(
        &self,
        bound: Bound,
        tls: Option<Arc<rustls::ServerConfig>>,
        handler: H,
    ) -> JoinHandle<()>
    where
        H: Fn(Request<Incoming>, PeerConnection) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data: Piece> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let server = self.clone();
        let acceptor = tls.map(TlsAcceptor::from);
        let counted = self.accepting();
        tokio::spawn(async move {
            server.accept_loop(&bound, acceptor, handler).await;
            drop((bound, counted));
        })
    }

    /// Waits until every connection is gone. Bounded by `drain_timeout` once the drain signal was given.
    pub async fn drained(&self) {
        let drain_timeout = self.for_connection().limits.drain_timeout.max(self.limits.drain_timeout);
        // The connections end themselves in time, those in a TLS handshake do not; the slack covers a busy machine.
        let bound = drain_timeout + Duration::from_millis(500);
        let mut accepting = self.accepting.subscribe();
        let wait = async {
            // First: whoever is accepted at the last moment needs a permit.
            let _ = accepting.wait_for(|loops| *loops == 0).await;
            self.admission.emptied(bound).await
        };
        if !tokio::time::timeout(bound, wait).await.unwrap_or(false) {
            tracing::warn!("connections were still open when the drain ended");
        }
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(crate) fn metrics(&self) -> &ConnectionMetrics {
        &self.metrics
    }

    /// What happens on a connection that begins now.
    pub(crate) fn activity(&self) -> Arc<Activity> {
        let ConnectionMetrics { held, shed, .. } = &self.metrics;
        let bytes_max = self.limits.held_bytes_max;
        let all = Holding { bytes: held.clone(), bytes_max, shed: shed.clone() };
        Activity::new(Instant::now(), &self.limits, all)
    }

    pub(crate) fn drain(&self) -> &Drain {
        &self.drain
    }

    /// A place for one more connection of this peer; without one it is counted as refused.
    pub(crate) fn admit(&self, peer: IpAddr) -> Option<Permit> {
        self.admission.admit(peer).map_err(|refusal| self.metrics.refused(refusal)).ok()
    }

    async fn accept_loop<H, F, B>(&self, bound: &Bound, acceptor: Option<TlsAcceptor>, handler: H)
    where
        H: Fn(Request<Incoming>, PeerConnection) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data: Piece> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let mut backoff = AcceptBackoff::default();
        let mut draining = pin!(self.drain.started());
        loop {
            let accepted = tokio::select! {
                () = &mut draining => return,
                accepted = bound.listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(connection) => connection,
                Err(error) => {
                    self.metrics.accept_errors.inc();
                    backoff.after(&error).await;
                    continue;
                }
            };
            backoff = AcceptBackoff::default();
            let Some(permit) = self.admit(peer.ip()) else { continue };
            let open = self.metrics.opened();
            let (server, acceptor, handler) = (self.for_connection(), acceptor.clone(), handler.clone());
            let local = bound.addr;
            tokio::spawn(async move {
                let _held = (permit, open);
                server.connection(stream, Ends { peer, local }, acceptor, handler).await;
            });
        }
    }

    async fn connection<H, F, B>(
        &self,
        stream: TcpStream,
        ends: Ends,
        acceptor: Option<TlsAcceptor>,
        handler: H,
    ) where
        H: Fn(Request<Incoming>, PeerConnection) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data: Piece> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        if let Err(error) = set_socket_options(&stream, self.limits.tcp_user_timeout) {
            tracing::debug!(peer = %ends.peer, %error, "socket options refused");
        }
        let mut from = PeerConnection {
            peer: ends.peer,
            local: stream.local_addr().unwrap_or(ends.local),
            tls: acceptor.is_some(),
            alpn: Alpn::None,
            client: None,
        };
        let Some(acceptor) = acceptor else {
            // Its own patience is over when this one is.
            let detected = tokio::time::timeout(self.limits.header_read_timeout, detect(&stream));
            let detected = tokio::select! {
                detected = detected => detected,
                () = self.drain_of_silent() => return,
            };
            return match detected {
                Ok(Ok(spoken)) => self.serve_io(stream, spoken, from, handler).await,
                Ok(Err(_)) => {}
                Err(_elapsed) => {
                    self.metrics.timed_out.inc();
                }
            };
        };
        // In a box, as it is large and soon over.
        let accepting = Box::pin(acceptor.accept(stream));
        let handshake = tokio::time::timeout(self.limits.handshake_timeout, accepting);
        let stream = match handshake.await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                self.metrics.handshake_failures.inc();
                tracing::debug!(peer = %from.peer, %error, "TLS handshake failed");
                return;
            }
            Err(_elapsed) => {
                self.metrics.handshake_failures.inc();
                return;
            }
        };
        from.alpn = match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => Alpn::Http2,
            Some(b"http/1.1") => Alpn::Http1,
            _ => Alpn::None,
        };
        from.client = stream.get_ref().1.peer_certificates().and_then(tls::pop_id);
        // Without ALPN it is HTTP/1.1 (RFC 9113 3.2).
        let spoken = if from.alpn == Alpn::Http2 { Spoken::Http2 } else { Spoken::Http1 };
        self.serve_io(stream, spoken, from, handler).await;
    }

    /// Serves one connection until it ends, is found idle, or the drain cuts it.
    async fn serve_io<IO, H, F, B>(&self, io: IO, spoken: Spoken, from: PeerConnection, handler: H)
    where
        IO: Socket + Unpin + Send + 'static,
        H: Fn(Request<Incoming>, PeerConnection) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data: Piece> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let activity = self.activity();
        let allowance = self.limits.control_frames(from.client.is_some());
        let io = CountedIo::new(io, Arc::clone(&activity), allowance);
        let requests = Arc::clone(&activity);
        let malformed = self.metrics.malformed.clone();
        let alt_svc = self.alt_svc.clone().filter(|_| from.tls);
        let asking = from.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let in_flight = requests.begin();
            let screened = Screened::of(&request, &malformed);
            let alt_svc = alt_svc.clone();
            let is_viewer = asking.client.is_none();
            let sealed = move |response: Response<Either<B, Full<B::Data>>>| {
                let too_much = is_viewer && in_flight.activity().shed(response.body());
                let response =
                    if too_much { in_pieces(held_too_much()).map(Either::Right) } else { response };
                let response = screened.seal(announced(response, alt_svc));
                Ok::<_, Infallible>(response.map(|body| TrackedBody::new(body, in_flight)))
            };
            // Not in an `async` block: that would hold the handler's future twice, and thousands wait at once.
            match screened.refusal {
                Some(words) => {
                    let refusal = in_pieces(Problem::new(StatusCode::BAD_REQUEST, words).response());
                    future::Either::Left(future::ready(sealed(refusal.map(Either::Right))))
                }
                None => {
                    let answer = handler(request, asking.clone());
                    future::Either::Right(answer.map(|response| sealed(response.map(Either::Left))))
                }
            }
        });
        // In a box of its own: connections are of one kind or the other, and there are many.
        let (mut connection, turn): (Pin<Box<Driven>>, _) = match spoken {
            Spoken::Http1 => {
                (Box::pin(self.http1().serve_connection(TokioIo::new(io), service)), Turn::new(None))
            }
            Spoken::Http2 => {
                let cork = Corked::new(io, Arc::clone(&activity));
                let io = TokioIo::new(cork.clone());
                (Box::pin(self.http2().serve_connection(io, service)), Turn::new(Some(cork)))
            }
        };
        self.attend(connection.as_mut(), &activity, (from.peer, turn)).await;
    }

    /// Drives a connection until it ends, is found idle or slow, or the drain cuts it.
    async fn attend<IO: AsyncWrite + Unpin>(
        &self,
        mut connection: Pin<&mut Driven>,
        activity: &Activity,
        (peer, mut turn): (SocketAddr, Turn<IO>),
    ) {
        let mut drain = pin!(self.drain_of(activity));
        let mut spent = Duration::ZERO;
        let mut timer = pin!(tokio::time::sleep(self.limits.first_look()));
        let mut leaving = Leaving::No;
        loop {
            tokio::select! {
                ended = future::poll_fn(|cx| turn.poll(connection.as_mut(), activity, cx)) => {
                    self.metrics.flooded.inc_by(u64::from(activity.flooded()));
                    if let Err(error) = ended {
                        tracing::debug!(%peer, %error, "connection ended early");
                    }
                    return;
                }
                waited = &mut drain, if leaving != Leaving::Drained => {
                    spent = waited;
                    leaving = Leaving::Drained;
                }
                () = &mut timer => match (leaving, activity.look(Instant::now(), &self.limits)) {
                    (_, Finding::Slow) => {
                        self.metrics.slow.inc();
                        activity.cut();
                        return;
                    }
                    (Leaving::Drained, _) | (Leaving::Idle, Finding::Idle) => return,
                    (Leaving::Stuck, _) => {
                        activity.cut();
                        return;
                    }
                    // A request was on its way while the connection looked idle: it is answered.
                    (Leaving::Idle, _) => leaving = Leaving::Drained,
                    (Leaving::No, Finding::Later(next)) => {
                        timer.as_mut().reset(tokio::time::Instant::now() + next);
                        continue;
                    }
                    (Leaving::No, Finding::Idle) => {
                        self.metrics.timed_out.inc();
                        leaving = Leaving::Idle;
                    }
                    // Neither hyper nor h2 lets go of what a stream has queued: the connection ends with it, and what else is
                    // asked on it ends well or is asked on another one.
                    (Leaving::No, Finding::Stuck(answers)) => {
                        self.metrics.stuck.inc_by(answers as u64);
                        leaving = Leaving::Stuck;
                    }
                },
            }
            connection.as_mut().graceful_shutdown();
            let rest = leaving.rest(&self.limits, spent);
            timer.as_mut().reset(tokio::time::Instant::now() + rest);
        }
    }

    /// The drain as one connection sees it: one that has not asked for anything yet was accepted a moment ago, and its
    /// first request is on the way. It is waited for, so that nobody is sent off without an answer. Returns how long.
    pub(crate) async fn drain_of(&self, activity: &Activity) -> Duration {
        self.drain.started().await;
        let grace = FIRST_REQUEST.min(self.limits.drain_timeout / 2);
        let began = Instant::now();
        while activity.awaits_first_request() && began.elapsed() < grace {
            tokio::time::sleep(FIRST_REQUEST / 50).await;
        }
        began.elapsed()
    }

    /// The drain as a connection without a byte sees it: over when no first request came in its time.
    async fn drain_of_silent(&self) {
        self.drain.started().await;
        tokio::time::sleep(FIRST_REQUEST.min(self.limits.drain_timeout / 2)).await;
    }

    fn http1(&self) -> http1::Builder {
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.header_read_timeout)
            .max_buf_size(64 * 1024);
        builder
    }

    fn http2(&self) -> http2::Builder<TokioExecutor> {
        let limits = &self.limits;
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.h2_streams_max)
            .max_header_list_size(limits.h2_header_list_bytes_max)
            .max_local_error_reset_streams(limits.h2_local_error_resets_max)
            .initial_stream_window_size(limits.h2_window_bytes)
            .initial_connection_window_size(limits.h2_window_bytes)
            .max_send_buf_size(limits.h2_send_buffer_bytes)
            .keep_alive_interval(limits.ping_interval)
            .keep_alive_timeout(limits.ping_timeout);
        builder
    }
}

/// What the gate makes of a request.
#[derive(Clone, Copy)]
struct Screened {
    refusal: Option<&'static str>,
    /// No other request is taken from this connection.
    close: bool,
}

impl Screened {
    fn of(request: &Request<Incoming>, malformed: &Counter) -> Self {
        let verdict = gate::judge(request, !request.body().is_end_stream());
        let refusal = match verdict {
            Verdict::Refuse(words) => Some(words),
            Verdict::Answer | Verdict::AnswerAndClose => None,
        };
        malformed.inc_by(refusal.is_some().into());
        // On HTTP/2 one request does not endanger the next.
        Self { refusal, close: verdict != Verdict::Answer && request.version() < Version::HTTP_2 }
    }

    fn seal<B>(self, mut response: Response<B>) -> Response<B> {
        if self.close {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// Whether a connection is being closed, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leaving {
    No,
    /// Nothing happened on it for too long.
    Idle,
    /// Its peer does not take some of what it asked for.
    Stuck,
    /// The server is going away.
    Drained,
}

/// How long the first request of a connection is waited for when the server is going away.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

impl Leaving {
    /// How long the peer has for it, when `spent` of its time is over.
    fn rest(self, limits: &Limits, spent: Duration) -> Duration {
        let drain_timeout = limits.drain_timeout;
        match self {
            Self::Idle => IDLE_GOODBYE.min(drain_timeout),
            Self::Stuck => (limits.read_rate_window / 2).min(drain_timeout),
            Self::No | Self::Drained => drain_timeout.saturating_sub(spent),
        }
    }
}

/// The answer with what every answer says of its server.
fn announced<B>(mut response: Response<B>, alt_svc: Option<HeaderValue>) -> Response<B> {
    if let Some(alt_svc) = alt_svc {
        response.headers_mut().insert(header::ALT_SVC, alt_svc);
    }
    response
}

/// The answer for a viewer that holds more than its share while all hold too much.
pub(crate) fn held_too_much() -> Response<Full<Bytes>> {
    let words = "too much of what was asked for on this connection has not been taken yet";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, words).retry_after_s(1).response()
}

/// How long an idle peer may take to say goodbye in HTTP/2.
const IDLE_GOODBYE: Duration = Duration::from_secs(1);

/// The two addresses of a connection.
struct Ends {
    peer: SocketAddr,
    local: SocketAddr,
}
