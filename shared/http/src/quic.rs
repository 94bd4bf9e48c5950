//! Listeners for HTTP/3: QUIC on a UDP port, the same handlers, limits, permits and drain as TCP.
//!
//! Invariants: a connection holds one permit of `connections_max`; a request is given up when its viewer gives it up;
//! requests that arrive before the handshake ended (0-RTT) are GETs that can be repeated; a peer whose address is not
//! proven has to prove it (Retry) while many handshakes are open, and gets at most three times the bytes it sent.
//! Deliberately absent: server push, datagrams.

use crate::activity::{Activity, Finding, InFlight};
use crate::admission::Permit;
use crate::gate::{self, Verdict};
use crate::h3_streams::{Aside, Newest, Payload, Receive, Reply, Streams};
use crate::handover::{Sockets, UdpPort};
use crate::listener::{Alpn, BindError, Limits, PeerConnection, Server};
use crate::problem::Problem;
use crate::request_body::RequestBody;
use crate::tls::{ReloadableCertificate, TlsError, pop_id, quic_tls_config};
use bytes::Bytes;
use h3::error::Code;
use h3::server::RequestStream;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::BodyExt;
use quinn::congestion::CubicConfig;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{AckFrequencyConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};
use rustls::pki_types::CertificateDer;
use std::future::Future;
use std::net::{SocketAddr, UdpSocket};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};
use tokio::task::JoinHandle;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Http3 = h3::server::Connection<Streams, Bytes>;
type Sending = RequestStream<Reply<Bytes>, Bytes>;

/// The socket's buffers: a burst of a few hundred parts, bytes. The system may grant less.
const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of responses a connection may have in flight: 80 Mbit/s over 200 ms.
const SEND_WINDOW_BYTES: u64 = 2 * 1024 * 1024;
/// Requests are small.
const STREAM_RECEIVE_WINDOW_BYTES: u32 = 32 * 1024;
const RECEIVE_WINDOW_BYTES: u32 = 256 * 1024;
/// A control stream, two of QPACK, and a few of extensions.
const ONE_WAY_STREAMS_MAX: u32 = 16;
/// Packets before the first acknowledgement: a playlist and the start of a part (RFC 9002 7.2 allows ten of 1,200 bytes;
/// TCP stacks of large sites use about this).
const INITIAL_WINDOW_BYTES: u64 = 32 * 1200;
/// A peer shows that it is alive when it is asked, this often.
const KEEP_ALIVE: Duration = Duration::from_secs(4);
/// A peer that is silent this long is gone.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// What is written at once, and has to be taken within `STALL_MAX`.
const WRITE_BYTES_MAX: usize = 256 * 1024;
const STALL_MAX: Duration = Duration::from_secs(10);

/// A bound UDP port that nobody is answering yet.
#[derive(Debug)]
pub struct BoundUdp(UdpPort);

impl BoundUdp {
    /// Binds `addr`, or takes over the socket that a predecessor had there; port 0 takes a free one.
    ///
    /// # Errors
    /// The address is in use, not ours or not allowed.
    pub fn bind(sockets: &Sockets, addr: SocketAddr) -> Result<Self, BindError> {
        let listen = |addr| {
            let socket = UdpSocket::bind(addr)?;
            let options = socket2::SockRef::from(&socket);
            options.set_recv_buffer_size(SOCKET_BUFFER_BYTES)?;
            options.set_send_buffer_size(SOCKET_BUFFER_BYTES)?;
            Ok(socket)
        };
        sockets.udp(addr, listen).map(Self)
    }

    /// The address really bound.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.0.local_addr()
    }
}

/// A QUIC listener that cannot begin: its TLS material cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct QuicError(#[from] TlsError);

fn transport(limits: &Limits) -> TransportConfig {
    let mut transport = TransportConfig::default();
    let mut congestion = CubicConfig::default();
    congestion.initial_window(INITIAL_WINDOW_BYTES);
    let mut acks = AckFrequencyConfig::default();
    // Of a peer that knows the extension: an acknowledgement every ten packets, or within 25 ms.
    acks.ack_eliciting_threshold(VarInt::from_u32(10)).max_ack_delay(Some(Duration::from_millis(25)));
    transport
        .max_concurrent_bidi_streams(limits.h2_streams_max.into())
        .max_concurrent_uni_streams(ONE_WAY_STREAMS_MAX.into())
        .stream_receive_window(STREAM_RECEIVE_WINDOW_BYTES.into())
        .receive_window(RECEIVE_WINDOW_BYTES.into())
        .send_window(SEND_WINDOW_BYTES)
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(IdleTimeout::try_from(SILENCE_MAX).ok())
        .mtu_discovery_config(Some(MtuDiscoveryConfig::default()))
        .ack_frequency_config(Some(acks))
        .congestion_controller_factory(Arc::new(congestion))
        .datagram_receive_buffer_size(None);
    transport
}

impl Server {
    /// Answers HTTP/3 on `bound` with `handler` until the drain signal.
    /// The returned task ends when accepting ended; see [`Server::drained`] for the connections.
    ///
    /// # Errors
    /// The certificate cannot be used for QUIC. A socket that the system refuses is said in the log.
    pub fn serve_quic<H, F, B>(
        &self,
        bound: BoundUdp,
        certificate: Arc<ReloadableCertificate>,
        handler: H,
    ) -> Result<JoinHandle<()>, QuicError>
    where
        H: Fn(Request<RequestBody>, PeerConnection) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let asks_clients = certificate.asks_clients();
        let tls = quic_tls_config(certificate)?;
        let crypto = QuicServerConfig::try_from(tls).map_err(|_| {
            TlsError::Config(rustls::Error::General("no cipher suite that QUIC begins with".to_owned()))
        })?;
        let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        config.transport_config(Arc::new(transport(self.limits())));
        let addr = bound.local_addr();
        let (server, counted) = (self.clone(), self.accepting());
        Ok(tokio::spawn(async move {
            let _counted = counted;
            // A predecessor may still be closing its connections there.
            let socket = tokio::select! {
                socket = bound.0.into_socket() => socket,
                () = server.drain().started() => return,
            };
            let runtime = Arc::new(quinn::TokioRuntime);
            let endpoint =
                quinn::Endpoint::new(quinn::EndpointConfig::default(), Some(config), socket, runtime);
            match endpoint {
                Ok(endpoint) => {
                    let listener =
                        QuicListener { server, endpoint, addr, asks_clients, handshakes: Arc::default() };
                    listener.accept_loop(handler).await;
                }
                Err(error) => tracing::error!(%addr, %error, "no HTTP/3: the system refuses the socket"),
            }
        }))
    }
}

struct QuicListener {
    server: Server,
    endpoint: quinn::Endpoint,
    addr: SocketAddr,
    /// Handshakes that have not ended.
    handshakes: Arc<AtomicUsize>,
    /// A peer may show a certificate.
    asks_clients: bool,
}

/// Counts a handshake while it lives.
struct Handshake(Arc<AtomicUsize>);

impl Handshake {
    fn begin(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl QuicListener {
    async fn accept_loop<H, F, B>(&self, handler: H)
    where
        H: Fn(Request<RequestBody>, PeerConnection) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let mut draining = pin!(self.server.drain().started());
        loop {
            let incoming = tokio::select! {
                () = &mut draining => break,
                incoming = self.endpoint.accept() => incoming,
            };
            let Some(incoming) = incoming else { return };
            let many = self.handshakes.load(Ordering::Relaxed) >= self.server.limits().quic_handshakes_max;
            if many && !incoming.remote_address_validated() {
                self.server.metrics().quic_retries.inc();
                // What cannot be asked to prove itself was asked before.
                if let Err(error) = incoming.retry() {
                    error.into_incoming().refuse();
                }
                continue;
            }
            let Some(permit) = self.server.admit(incoming.remote_address().ip()) else {
                incoming.refuse();
                continue;
            };
            let handshake = Handshake::begin(&self.handshakes);
            let connection = QuicConnection {
                server: self.server.for_connection(),
                local: self.addr,
                asks_clients: self.asks_clients,
                permit,
            };
            let handler = handler.clone();
            tokio::spawn(async move { connection.run(incoming, handshake, handler).await });
        }
        // New connections are refused, the others end by themselves.
        let mut idle = pin!(self.endpoint.wait_idle());
        loop {
            tokio::select! {
                () = &mut idle => return,
                Some(incoming) = self.endpoint.accept() => incoming.refuse(),
            }
        }
    }
}

struct QuicConnection {
    server: Server,
    local: SocketAddr,
    asks_clients: bool,
    permit: Permit,
}

impl QuicConnection {
    async fn run<H, F, B>(self, incoming: quinn::Incoming, handshake: Handshake, handler: H)
    where
        H: Fn(Request<RequestBody>, PeerConnection) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let _open = self.server.metrics().opened();
        let peer = incoming.remote_address();
        let failed = |error: &dyn std::fmt::Display| {
            self.server.metrics().handshake_failures.inc();
            tracing::debug!(%peer, %error, "QUIC handshake failed");
        };
        let connecting = match incoming.accept() {
            Ok(connecting) => connecting,
            Err(error) => return failed(&error),
        };
        // Servers can always go on before the end of the handshake.
        let Ok((connection, ended)) = connecting.into_0rtt() else { return };
        let (patience, shaken) = (self.server.limits().handshake_timeout, connection.clone());
        tokio::spawn(async move {
            if tokio::time::timeout(patience, ended).await.is_err() {
                shaken.close(VarInt::from_u32(0), b"the handshake takes too long");
            }
            drop(handshake);
        });
        let newest = Newest::default();
        let streams = Streams::new(connection.clone(), newest.clone());
        let mut builder = h3::server::builder();
        builder.max_field_section_size(self.server.limits().h2_header_list_bytes_max.into());
        let begun = tokio::time::timeout(self.server.limits().handshake_timeout, builder.build(streams));
        let http3 = match begun.await {
            Ok(Ok(http3)) => http3,
            Ok(Err(error)) => return failed(&error),
            Err(elapsed) => return failed(&elapsed),
        };
        let from = PeerConnection { peer, local: self.local, tls: true, alpn: Alpn::Http3, client: None };
        self.requests(http3, &connection, (newest, from), handler).await;
        connection.close(VarInt::from_u32(0x100), b"");
        drop(self.permit);
    }

    /// Accepts requests until the connection ends, is found idle, or the drain cuts it.
    async fn requests<H, F, B>(
        &self,
        mut http3: Http3,
        connection: &quinn::Connection,
        (newest, mut from): (Newest, PeerConnection),
        handler: H,
    ) where
        H: Fn(Request<RequestBody>, PeerConnection) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let limits = self.server.limits();
        let activity = Activity::new(Instant::now());
        let mut drain = pin!(self.server.drain().started());
        let mut timer = pin!(tokio::time::sleep(limits.header_read_timeout));
        let mut leaving = false;
        loop {
            tokio::select! {
                accepted = http3.accept() => match (accepted, newest.take()) {
                    (Ok(Some(resolver)), Some(aside)) => {
                        from.peer = connection.remote_address();
                        if self.asks_clients && from.client.is_none() {
                            // Known once the handshake has ended, or from the session that is gone on with.
                            from.client = client(connection);
                        }
                        let peer = from.clone();
                        activity.heard();
                        let (in_flight, handler) = (activity.begin(), handler.clone());
                        let patience = limits.header_read_timeout;
                        tokio::spawn(async move {
                            let resolved = tokio::time::timeout(patience, resolver.resolve_request()).await;
                            let Ok(Ok((request, exchange))) = resolved else { return };
                            let (sending, receiving) = exchange.split();
                            let (request, unwanted) = with_body(request, receiving);
                            match gate::judge(&request, false) {
                                Verdict::Refuse(words) => {
                                    let refusal = Problem::new(StatusCode::BAD_REQUEST, words).response();
                                    answer(sending, aside, std::future::ready(refusal), in_flight).await;
                                }
                                _ => answer(sending, aside, handler(request, peer), in_flight).await,
                            }
                            if let Some(mut receiving) = unwanted {
                                receiving.stop_sending(Code::H3_NO_ERROR);
                            }
                        });
                        continue;
                    }
                    _ => return,
                },
                () = &mut drain, if !leaving => {}
                () = &mut timer => {
                    if leaving {
                        return;
                    }
                    if let Finding::Later(next) = activity.look(Instant::now(), limits) {
                        timer.as_mut().reset(tokio::time::Instant::now() + next);
                        continue;
                    }
                    self.server.metrics().timed_out.inc();
                }
            }
            leaving = true;
            if http3.shutdown(0).await.is_err() {
                return;
            }
            timer.as_mut().reset(tokio::time::Instant::now() + limits.drain_timeout);
        }
    }
}

/// The request with what may come with it; nothing that is read comes with a request for reading.
fn with_body(
    request: Request<()>,
    receiving: RequestStream<Receive, Bytes>,
) -> (Request<RequestBody>, Option<RequestStream<Receive, Bytes>>) {
    match *request.method() {
        Method::GET | Method::HEAD | Method::OPTIONS => {
            (request.map(|()| RequestBody::empty()), Some(receiving))
        }
        _ => (request.map(|()| RequestBody::http3(receiving)), None),
    }
}

/// The POP that the peer has proven to be.
fn client(connection: &quinn::Connection) -> Option<Arc<str>> {
    let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    pop_id(&chain)
}

/// Sends the response when it is there, unless the viewer gives up before.
async fn answer<F, B>(mut sending: Sending, mut aside: Aside, response: F, _in_flight: InFlight)
where
    F: Future<Output = Response<B>>,
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let response = tokio::select! {
        response = response => response,
        () = &mut aside.stopped => return,
    };
    match send(&mut sending, &aside.payload, response).await {
        // What is sent is not there yet: closing the connection now would lose the end of it.
        Ok(()) => {
            let _ = tokio::time::timeout(STALL_MAX, aside.stopped).await;
        }
        Err(error) => {
            tracing::debug!(%error, "response not sent");
            sending.stop_stream(Code::H3_INTERNAL_ERROR);
        }
    }
}

async fn send<B>(sending: &mut Sending, payload: &Payload, response: Response<B>) -> Result<(), BoxError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let (mut head, body) = response.into_parts();
    let mut body = pin!(body.map_err(Into::<BoxError>::into));
    if let Some(length) = body.size_hint().exact().filter(|_| !body.is_end_stream()) {
        head.headers.entry(header::CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
    }
    if let Ok(now) = HeaderValue::from_str(&httpdate::fmt_http_date(SystemTime::now())) {
        head.headers.entry(header::DATE).or_insert(now);
    }
    sending.send_response(Response::from_parts(head, ())).await?;
    while let Some(frame) = body.frame().await {
        let Ok(mut bytes) = frame?.into_data() else { continue };
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(WRITE_BYTES_MAX));
            payload.set(piece.clone());
            tokio::time::timeout(STALL_MAX, sending.send_data(piece)).await??;
        }
    }
    sending.finish().await?;
    Ok(())
}
