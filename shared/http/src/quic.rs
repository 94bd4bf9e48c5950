//! Listeners for HTTP/3: QUIC on a UDP port, the same handlers, limits, permits and drain as TCP.
//!
//! Invariants: a connection holds one permit of `connections_max`; who gives up more requests than it takes is closed;
//! requests that arrive before the handshake ended (0-RTT) are GETs that can be repeated; a peer whose address is not
//! proven has to prove it (Retry) while many handshakes are open, and gets at most three times the bytes it sent.
//! Deliberately absent: server push, datagrams.

use crate::activity::{Activity, Finding};
use crate::admission::Permit;
use crate::drain::Drain;
use crate::flood::{Allowance, Budget};
use crate::h3_exchange::Asked;
use crate::h3_streams::{Newest, Streams};
use crate::handover::{Reading, Sockets, UdpPort};
use crate::listener::{Alpn, BindError, Limits, PeerConnection, Server};
use crate::piece::Piece;
use crate::quic_port::{Ours, QuicPort};
use crate::request_body::RequestBody;
use crate::tls::{ReloadableCertificate, TlsError, pop_id, quic_tls_config};
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use quinn::congestion::CubicConfig;
use quinn::crypto::rustls::QuicServerConfig;
use quinn::{AckFrequencyConfig, IdleTimeout, MtuDiscoveryConfig, Runtime, TransportConfig, VarInt};
use rustls::pki_types::CertificateDer;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Http3 = h3::server::Connection<Streams, Bytes>;

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
/// How often a connection that was told goodbye is looked at, whether it can be closed.
const LEAVING_LOOK: Duration = Duration::from_millis(200);
/// How many requests more a peer may have asked, or ask, before the goodbye reaches it (RFC 9114 5.2: first a goodbye that
/// refuses nothing, then the real one).
const UNHEARD_GOODBYE_REQUESTS: usize = 1 << 20;
/// `H3_EXCESSIVE_LOAD`
const EXCESSIVE_LOAD: VarInt = VarInt::from_u32(0x107);

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
        B: Body<Data: Piece> + Send + 'static,
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
            let open = tokio::select! {
                open = bound.0.open() => open,
                () = server.drain().started() => return,
            };
            match endpoint(config, open.socket, open.to_predecessor) {
                Ok((endpoint, port)) => {
                    let (handshakes, left) = (Arc::default(), Drain::new());
                    let listener =
                        QuicListener { server, endpoint, port, addr, asks_clients, handshakes, left };
                    listener.accept_loop(handler, open.reading).await;
                }
                Err(error) => tracing::error!(%addr, %error, "no HTTP/3: the system refuses the socket"),
            }
        }))
    }
}

/// An endpoint on a socket, which may have to be shared with the process before.
fn endpoint(
    config: quinn::ServerConfig,
    socket: UdpSocket,
    to_predecessor: Option<UnixDatagram>,
) -> io::Result<(quinn::Endpoint, Arc<QuicPort>)> {
    let (runtime, ours) = (Arc::new(quinn::TokioRuntime), Ours::new());
    let port = QuicPort::new(runtime.wrap_udp_socket(socket)?, ours, to_predecessor)?;
    let mut own = quinn::EndpointConfig::default();
    own.cid_generator(move || Box::new(ours.generator()));
    let shared = Arc::clone(&port);
    let endpoint = quinn::Endpoint::new_with_abstract_socket(own, Some(config), shared, runtime)?;
    Ok((endpoint, port))
}

struct QuicListener {
    server: Server,
    endpoint: quinn::Endpoint,
    port: Arc<QuicPort>,
    addr: SocketAddr,
    /// Handshakes that have not ended.
    handshakes: Arc<AtomicUsize>,
    /// A peer may show a certificate.
    asks_clients: bool,
    left: Drain,
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
    async fn accept_loop<H, F, B>(&self, handler: H, reading: Reading)
    where
        H: Fn(Request<RequestBody>, PeerConnection) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data: Piece> + Send + 'static,
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
                left: self.left.clone(),
            };
            let handler = handler.clone();
            tokio::spawn(async move { connection.run(incoming, handshake, handler).await });
        }
        // Connections end by themselves. Who comes new is refused, or comes again to the successor.
        let succeeded = self.hand_over(&reading);
        drop(reading);
        // Only now: whoever hears a goodbye comes again at once, and what is read here of that is lost, and with it a second.
        self.left.start();
        let mut idle = pin!(self.endpoint.wait_idle());
        loop {
            tokio::select! {
                () = &mut idle => return,
                Some(incoming) = self.endpoint.accept() => match succeeded {
                    true => incoming.ignore(),
                    false => incoming.refuse(),
                },
            }
        }
    }

    /// Leaves the port to a successor, if there is one.
    fn hand_over(&self, reading: &Reading) -> bool {
        let Some(from_successor) = reading.datagrams_of_successor() else { return false };
        let handed = self.port.hand_over(from_successor);
        if let Err(error) = &handed {
            tracing::error!(addr = %self.addr, %error, "QUIC connections are lost: nothing comes from the new process");
        }
        true
    }
}

struct QuicConnection {
    server: Server,
    local: SocketAddr,
    asks_clients: bool,
    permit: Permit,
    /// The port is not read here any more.
    left: Drain,
}

impl QuicConnection {
    async fn run<H, F, B>(self, incoming: quinn::Incoming, handshake: Handshake, handler: H)
    where
        H: Fn(Request<RequestBody>, PeerConnection) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Response<B>> + Send + 'static,
        B: Body<Data: Piece> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let _open = self.server.metrics().opened();
        let peer = incoming.remote_address();
        let failed = |error: &dyn std::fmt::Display| {
            self.server.metrics().handshake_failures.inc();
            tracing::debug!(%peer, %error, "QUIC handshake failed");
        };
        let mut connecting = match incoming.accept() {
            Ok(connecting) => connecting,
            Err(error) => return failed(&error),
        };
        // A ClientHello may take two datagrams. Before the second one is here the peer has not said how many streams it takes,
        // and who waits to open one then is not told when it does.
        let hello = connecting.handshake_data();
        match tokio::time::timeout(self.server.limits().handshake_timeout, hello).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return failed(&error),
            Err(elapsed) => return failed(&elapsed),
        }
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
        B: Body<Data: Piece> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let limits = self.server.limits();
        let activity = self.server.activity();
        let mut drain = pin!(async {
            self.left.started().await;
            self.server.drain_of(&activity).await
        });
        let mut timer = pin!(tokio::time::sleep(limits.first_look()));
        let (mut leaving, mut bound) = (None, false);
        let mut flood = Flooding::of(limits.control_frames(false));
        loop {
            tokio::select! {
                accepted = http3.accept() => match (accepted, newest.take()) {
                    (Ok(Some(resolver)), Some(aside)) => {
                        if self.who(&mut from, connection) {
                            flood = Flooding::of(limits.control_frames(true));
                        }
                        if self.floods(&mut flood, connection, &activity) {
                            return;
                        }
                        activity.heard();
                        let asked = Asked {
                            in_flight: activity.begin(),
                            malformed: self.server.metrics().malformed.clone(),
                            by_viewer: from.client.is_none(),
                            patience: limits.header_read_timeout,
                        };
                        let (peer, handler) = (from.clone(), handler.clone());
                        let respond = move |request| handler(request, peer);
                        tokio::spawn(asked.answered(resolver, aside, respond));
                        continue;
                    }
                    _ => return,
                },
                _ = &mut drain, if leaving.is_none() => {}
                () = &mut timer => {
                    let due = leaving.is_some() && !bound;
                    match self.look(connection, &activity, leaving) {
                        _ if due => {}
                        Look::Later(next) => {
                            timer.as_mut().reset(tokio::time::Instant::now() + next);
                            continue;
                        }
                        Look::SayGoodbye => {}
                        Look::Close => return,
                    }
                }
            }
            // What was asked before the first goodbye was heard is answered: the second refuses what comes later than that.
            bound = leaving.is_some();
            leaving.get_or_insert_with(|| Instant::now() + limits.drain_timeout);
            let more = if bound { 0 } else { UNHEARD_GOODBYE_REQUESTS };
            if http3.shutdown(more).await.is_err() {
                return;
            }
            let rest = limits.drain_timeout.min(LEAVING_LOOK.max(2 * connection.rtt()));
            timer.as_mut().reset(tokio::time::Instant::now() + rest);
        }
    }

    /// Closes the connection if its peer gives up too much.
    fn floods(&self, flood: &mut Flooding, connection: &quinn::Connection, activity: &Activity) -> bool {
        let floods = flood.is_one(connection, activity);
        if floods {
            self.server.metrics().flooded.inc();
            connection.close(EXCESSIVE_LOAD, b"");
        }
        floods
    }

    /// Notes from where it asks now. Returns whether it has turned out to be a POP.
    fn who(&self, from: &mut PeerConnection, connection: &quinn::Connection) -> bool {
        from.peer = connection.remote_address();
        if !self.asks_clients || from.client.is_some() {
            return false;
        }
        // Known once the handshake has ended, or from the session that is gone on with.
        from.client = client(connection);
        from.client.is_some()
    }

    /// What to do with the connection, which was told goodbye if it has to be gone at `leaving`.
    fn look(&self, connection: &quinn::Connection, activity: &Activity, leaving: Option<Instant>) -> Look {
        let now = Instant::now();
        if let Some(end) = leaving {
            // Nothing is asked any more: whatever comes now is above what the goodbye names, and is asked elsewhere.
            if now >= end || !activity.is_answering() {
                return Look::Close;
            }
            return Look::Later(LEAVING_LOOK.min(end - now));
        }
        // Sent is taken: what the peer does not acknowledge or has no window for stops the sending.
        activity.wrote(connection.stats().udp_tx.bytes);
        let limits = self.server.limits();
        match activity.look(now, limits) {
            Finding::Later(next) => Look::Later(next),
            Finding::Slow => {
                self.server.metrics().slow.inc();
                Look::Close
            }
            Finding::Stuck(answers) => {
                self.server.metrics().stuck.inc_by(answers as u64);
                activity.give_up_stuck();
                Look::Later(limits.read_rate_window / 2)
            }
            Finding::Idle => {
                self.server.metrics().timed_out.inc();
                Look::SayGoodbye
            }
        }
    }
}

/// Whether a peer gives up more than it takes.
struct Flooding {
    budget: Budget,
    /// What it took when that was looked at.
    taken: u64,
}

impl Flooding {
    fn of(allowance: Allowance) -> Self {
        Self { budget: Budget::new(allowance), taken: 0 }
    }

    /// Cheap for a peer that gave nothing up.
    fn is_one(&mut self, connection: &quinn::Connection, activity: &Activity) -> bool {
        let given_up = activity.take_given_up();
        if given_up == 0 {
            return false;
        }
        let taken = connection.stats().udp_tx.bytes;
        self.budget.written(taken.saturating_sub(std::mem::replace(&mut self.taken, taken)));
        self.budget.spend(given_up, &|| activity.age()).is_err()
    }
}

/// What a look at a connection says to do.
enum Look {
    /// Nothing for this long.
    Later(Duration),
    SayGoodbye,
    Close,
}

/// The POP that the peer has proven to be.
fn client(connection: &quinn::Connection) -> Option<Arc<str>> {
    let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    pop_id(&chain)
}
