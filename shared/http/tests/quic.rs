//! HTTP/3 over real sockets: requests, given up and broken answers, drain, 0-RTT, Retry, a viewer that moves.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failing test may panic")]

use bytes::{Buf, Bytes};
use h3::error::StreamError;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use quinn::crypto::rustls::QuicClientConfig;
use sigma_http::connections::ConnectionMetrics;
use sigma_http::drain::Drain;
use sigma_http::handover::Sockets;
use sigma_http::listener::{Limits, PeerConnection, Server};
use sigma_http::quic::BoundUdp;
use sigma_http::request_body::RequestBody;
use sigma_http::tls::{ReloadableCertificate, client_config};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::UdpSocket;

const PATIENCE: Duration = Duration::from_secs(20);
const LARGE: usize = 3_000_000;

type Answer = BoxBody<Bytes, std::io::Error>;
type Ask = h3::client::SendRequest<h3_quinn::OpenStreams, Bytes>;

struct Lab {
    addr: SocketAddr,
    metrics: ConnectionMetrics,
    drain: Drain,
    server: Server,
    holding: Arc<AtomicUsize>,
    dir: TempDir,
}

/// Counts the requests that wait for an answer that never comes.
struct Holding(Arc<AtomicUsize>);

impl Holding {
    fn new(count: Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn whole(bytes: impl Into<Bytes>) -> Answer {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

fn broken() -> Answer {
    let frames = [Ok(Frame::data(Bytes::from_static(b"half"))), Err(std::io::Error::other("scripted"))];
    BoxBody::new(StreamBody::new(futures_iter(frames)))
}

fn futures_iter<T: Unpin>(items: impl IntoIterator<Item = T>) -> Items<T> {
    Items(items.into_iter().collect())
}

struct Items<T>(std::collections::VecDeque<T>);

impl<T: Unpin> futures_core::Stream for Items<T> {
    type Item = T;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<T>> {
        std::task::Poll::Ready(self.0.pop_front())
    }
}

impl Lab {
    fn new(limits: Limits) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
        std::fs::write(&cert, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let certificate = ReloadableCertificate::load(&cert, &key).unwrap();
        let (metrics, drain) = (ConnectionMetrics::default(), Drain::new());
        let server = Server::new(limits, metrics.clone(), drain.clone());
        let bound = BoundUdp::bind(&Sockets::none(), "127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = bound.local_addr();
        let holding = Arc::new(AtomicUsize::new(0));
        let held = Arc::clone(&holding);
        let handler = move |request: Request<RequestBody>, from: PeerConnection| {
            let held = Arc::clone(&held);
            async move {
                match request.uri().path() {
                    "/panic" => panic!("asked for"),
                    "/hold" => {
                        let _holding = Holding::new(held);
                        std::future::pending().await
                    }
                    "/broken" => Response::new(broken()),
                    "/count" => match request.into_body().read(LARGE, PATIENCE).await {
                        Ok(body) => Response::new(whole(body.len().to_string())),
                        Err(error) => error
                            .problem()
                            .response()
                            .map(|body| body.map_err(|never| match never {}).boxed()),
                    },
                    "/large" => Response::new(whole(vec![7; LARGE])),
                    _ => Response::new(whole(format!("{:?} {} {}", from.alpn, from.tls, from.peer.port()))),
                }
            }
        };
        server.serve_quic(bound, certificate, handler).unwrap();
        Self { addr, metrics, drain, server, holding, dir }
    }

    fn client(&self) -> quinn::Endpoint {
        self.client_as(quinn::TransportConfig::default())
    }

    fn client_as(&self, transport: quinn::TransportConfig) -> quinn::Endpoint {
        let tls = client_config(&self.dir.path().join("cert.pem"), &[b"h3"]).unwrap();
        let mut tls = Arc::unwrap_or_clone(tls);
        tls.enable_early_data = true;
        let crypto = QuicClientConfig::try_from(tls).unwrap();
        let mut endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        config.transport_config(Arc::new(transport));
        endpoint.set_default_client_config(config);
        endpoint
    }

    async fn connect(&self, endpoint: &quinn::Endpoint) -> (quinn::Connection, Ask) {
        let connection = within(endpoint.connect(self.addr, "localhost").unwrap()).await.unwrap();
        let ask = http3(connection.clone()).await;
        (connection, ask)
    }

    async fn until_holding(&self, n: usize) {
        within(until(|| self.holding.load(Ordering::SeqCst) == n)).await;
    }
}

async fn http3(connection: quinn::Connection) -> Ask {
    let (mut driver, ask) = within(h3::client::new(h3_quinn::Connection::new(connection))).await.unwrap();
    tokio::spawn(async move { std::future::poll_fn(|cx| driver.poll_close(cx)).await });
    ask
}

async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("it never happened")
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
    }
}

type Exchange = h3::client::RequestStream<h3_quinn::BidiStream<Bytes>, Bytes>;

async fn begin(ask: &mut Ask, path: &str) -> Exchange {
    let request = Request::get(format!("https://localhost{path}")).body(()).unwrap();
    let mut exchange = within(ask.send_request(request)).await.unwrap();
    within(exchange.finish()).await.unwrap();
    exchange
}

async fn post(ask: &mut Ask, path: &str, bytes: usize) -> Exchange {
    let request = Request::post(format!("https://localhost{path}")).body(()).unwrap();
    let mut exchange = within(ask.send_request(request)).await.unwrap();
    // A server that reads no more says so while it is sent.
    let _ = within(exchange.send_data(vec![1; bytes].into())).await;
    let _ = within(exchange.finish()).await;
    exchange
}

async fn finish(mut exchange: Exchange) -> Result<(Response<()>, Vec<u8>), StreamError> {
    let response = within(exchange.recv_response()).await?;
    let mut body = Vec::new();
    while let Some(mut chunk) = within(exchange.recv_data()).await? {
        body.extend_from_slice(&chunk.copy_to_bytes(chunk.remaining()));
    }
    Ok((response, body))
}

async fn get(ask: &mut Ask, path: &str) -> Result<(Response<()>, Vec<u8>), StreamError> {
    finish(begin(ask, path).await).await
}

#[tokio::test]
async fn answers_small_and_large() {
    let lab = Lab::new(Limits::default());
    let endpoint = lab.client();
    let (_connection, mut ask) = lab.connect(&endpoint).await;
    let (response, body) = get(&mut ask, "/").await.unwrap();
    let port = endpoint.local_addr().unwrap().port();
    assert_eq!(String::from_utf8(body).unwrap(), format!("Http3 true {port}"));
    assert!(response.headers().contains_key("date"), "as hyper does on TCP");
    let (response, body) = get(&mut ask, "/large").await.unwrap();
    assert_eq!(response.headers()["content-length"], LARGE.to_string());
    assert_eq!(body, vec![7; LARGE]);
    assert_eq!(lab.metrics.open.get(), 1);
}

#[tokio::test]
async fn bodies_are_read_when_wanted_and_bounded() {
    let lab = Lab::new(Limits::default());
    let (_connection, mut ask) = lab.connect(&lab.client()).await;
    for bytes in [0, 1, LARGE] {
        let (response, body) = finish(post(&mut ask, "/count", bytes).await).await.unwrap();
        assert_eq!((response.status(), body), (StatusCode::OK, bytes.to_string().into_bytes()));
    }
    let (response, _) = finish(post(&mut ask, "/count", LARGE + 1).await).await.unwrap();
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let (response, body) = finish(post(&mut ask, "/large", LARGE).await).await.unwrap();
    assert_eq!((response.status(), body.len()), (StatusCode::OK, LARGE), "nobody reads it");
}

#[tokio::test]
async fn a_request_ends_when_its_viewer_gives_it_up() {
    let lab = Lab::new(Limits::default());
    let endpoint = lab.client();
    let (connection, mut ask) = lab.connect(&endpoint).await;
    let mut one = begin(&mut ask, "/hold").await;
    let _other = begin(&mut ask, "/hold").await;
    lab.until_holding(2).await;
    one.stop_sending(h3::error::Code::H3_REQUEST_CANCELLED);
    lab.until_holding(1).await;
    connection.close(0_u32.into(), b"");
    lab.until_holding(0).await;
    within(until(|| lab.metrics.open.get() == 0)).await;
}

#[tokio::test]
async fn what_broke_off_never_looks_like_an_end() {
    let lab = Lab::new(Limits::default());
    let endpoint = lab.client();
    let (_connection, mut ask) = lab.connect(&endpoint).await;
    for path in ["/broken", "/panic"] {
        let error = get(&mut ask, path).await.expect_err(path);
        assert!(matches!(error, StreamError::RemoteTerminate { .. }), "{path}: {error:?}");
    }
    get(&mut ask, "/").await.expect("others go on");
}

#[tokio::test]
async fn drain_says_goodbye_and_bounds_what_is_held() {
    let limits = Limits { drain_timeout: Duration::from_millis(300), ..Limits::default() };
    let lab = Lab::new(limits);
    let endpoint = lab.client();
    let (connection, mut ask) = lab.connect(&endpoint).await;
    let held = begin(&mut ask, "/hold").await;
    lab.until_holding(1).await;
    lab.drain.start();
    within(lab.server.drained()).await;
    finish(held).await.expect_err("its time was up");
    let end = within(connection.closed()).await;
    assert!(matches!(end, quinn::ConnectionError::ApplicationClosed(_)), "{end}");
}

#[tokio::test]
async fn drain_does_not_wait_for_who_asks_for_nothing() {
    let lab = Lab::new(Limits { drain_timeout: Duration::from_secs(15), ..Limits::default() });
    let endpoint = lab.client();
    let (connection, mut ask) = lab.connect(&endpoint).await;
    get(&mut ask, "/").await.unwrap();
    let began = std::time::Instant::now();
    lab.drain.start();
    within(lab.server.drained()).await;
    let end = within(connection.closed()).await;
    assert!(matches!(end, quinn::ConnectionError::ApplicationClosed(_)), "{end}");
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test]
async fn what_is_asked_before_the_goodbye_is_heard_is_answered() {
    let lab = Lab::new(Limits::default());
    let endpoint = lab.client();
    let connection = within(endpoint.connect(lab.addr, "localhost").unwrap()).await.unwrap();
    // Nobody reads what the server says of the connection: the goodbye is not heard.
    let client = h3::client::new(h3_quinn::Connection::new(connection.clone()));
    let (_deaf, mut ask) = within(client).await.unwrap();
    get(&mut ask, "/").await.unwrap();
    let _held = begin(&mut ask, "/hold").await;
    lab.until_holding(1).await;
    let before = connection.stats().frame_rx.stream;
    lab.drain.start();
    within(until(|| connection.stats().frame_rx.stream > before)).await;
    for _ in 0..3 {
        get(&mut ask, "/").await.expect("it may have been on its way");
    }
    let refused = async {
        loop {
            if let Err(error) = get(&mut ask, "/").await {
                return error;
            }
        }
    };
    let error = within(refused).await;
    let rejected = h3::error::Code::H3_REQUEST_REJECTED;
    assert!(matches!(error, StreamError::RemoteTerminate { code, .. } if code == rejected), "{error:?}");
}

#[tokio::test]
async fn drain_refuses_who_comes_new() {
    let lab = Lab::new(Limits::default());
    let endpoint = lab.client();
    let (connection, mut ask) = lab.connect(&endpoint).await;
    let _held = begin(&mut ask, "/hold").await;
    lab.until_holding(1).await;
    lab.drain.start();
    let again = within(lab.client().connect(lab.addr, "localhost").unwrap()).await;
    again.expect_err("nothing is accepted any more");
    connection.close(0_u32.into(), b"");
    within(lab.server.drained()).await;
}

#[tokio::test]
async fn who_comes_back_asks_at_once() {
    let lab = Lab::new(Limits::default());
    let endpoint = lab.client();
    let (connection, mut ask) = lab.connect(&endpoint).await;
    get(&mut ask, "/").await.unwrap();
    connection.close(0_u32.into(), b"");
    let returning = endpoint.connect(lab.addr, "localhost").unwrap();
    let (connection, accepted) =
        returning.into_0rtt().unwrap_or_else(|_| panic!("no ticket that allows early data"));
    let mut ask = http3(connection).await;
    let (_, body) = get(&mut ask, "/").await.unwrap();
    assert!(body.starts_with(b"Http3"));
    assert!(within(accepted).await, "the early request was taken");
}

#[tokio::test]
async fn under_load_addresses_are_proven_first() {
    let lab = Lab::new(Limits { quic_handshakes_max: 0, ..Limits::default() });
    let endpoint = lab.client();
    let (_connection, mut ask) = lab.connect(&endpoint).await;
    get(&mut ask, "/").await.unwrap();
    assert_eq!(lab.metrics.quic_retries.get(), 1);
}

#[tokio::test]
async fn one_connection_too_many_is_refused_and_counted() {
    let lab = Lab::new(Limits { connections_max: 1, ..Limits::default() });
    let endpoint = lab.client();
    let (_connection, mut ask) = lab.connect(&endpoint).await;
    within(lab.client().connect(lab.addr, "localhost").unwrap()).await.expect_err("there is no place");
    assert_eq!(lab.metrics.refused.get(), 1);
    get(&mut ask, "/").await.unwrap();
}

#[tokio::test]
async fn who_does_not_take_what_it_asked_for_is_closed() {
    let window = Duration::from_millis(400);
    let limits = Limits { read_rate_window: window, read_bytes_per_s_min: 400_000, ..Limits::default() };
    let lab = Lab::new(limits);
    // Of what is not read, the peer takes less than asked for in the first window.
    let mut transport = quinn::TransportConfig::default();
    transport.stream_receive_window(50_000_u32.into());
    let (connection, mut ask) = lab.connect(&lab.client_as(transport)).await;
    // A held request owes nothing, for however many windows; neither does what was taken.
    let _held = begin(&mut ask, "/hold").await;
    for _ in 0..3 {
        get(&mut ask, "/large").await.unwrap();
        let taken = std::time::Instant::now();
        within(until(|| taken.elapsed() > window)).await;
    }
    assert_eq!(lab.metrics.slow.get(), 0);
    let began = std::time::Instant::now();
    let _untaken = begin(&mut ask, "/large").await;
    within(connection.closed()).await;
    assert_eq!((lab.metrics.slow.get(), lab.metrics.timed_out.get()), (1, 0));
    assert!(
        began.elapsed() < Duration::from_secs(8),
        "before the peer would be silent: {:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn an_answer_that_is_not_taken_is_given_up_alone() {
    let limits = Limits { read_rate_window: Duration::from_millis(400), ..Limits::default() };
    let lab = Lab::new(limits);
    let (connection, mut ask) = lab.connect(&lab.client()).await;
    let mut untaken = begin(&mut ask, "/large").await;
    within(untaken.recv_response()).await.unwrap();
    // Everything else is taken at once: the connection as a whole is fast.
    within(async {
        while lab.metrics.stuck.get() == 0 {
            get(&mut ask, "/large").await.unwrap();
            assert!(lab.metrics.held.get() >= LARGE as i64);
        }
    })
    .await;
    let ended = within(async {
        while untaken.recv_data().await?.is_some() {}
        Ok::<_, StreamError>(())
    })
    .await;
    let cancelled = h3::error::Code::H3_REQUEST_CANCELLED;
    assert!(
        matches!(ended, Err(StreamError::RemoteTerminate { code, .. }) if code == cancelled),
        "{ended:?}"
    );
    within(until(|| lab.metrics.held.get() == 0)).await;
    get(&mut ask, "/").await.expect("the connection goes on");
    assert!(connection.close_reason().is_none() && lab.metrics.slow.get() == 0);
}

#[tokio::test]
async fn who_holds_too_much_gets_no_more_until_it_took_some() {
    let lab = Lab::new(Limits { held_bytes_max: 0, ..Limits::default() });
    let (_connection, mut ask) = lab.connect(&lab.client()).await;
    let mut untaken = Vec::new();
    for _ in 0..3 {
        let mut exchange = begin(&mut ask, "/large").await;
        assert_eq!(within(exchange.recv_response()).await.unwrap().status(), 200);
        untaken.push(exchange);
    }
    let (response, _) = get(&mut ask, "/large").await.unwrap();
    assert_eq!((response.status(), lab.metrics.shed.get()), (StatusCode::SERVICE_UNAVAILABLE, 1));
    assert_eq!(get(&mut ask, "/").await.unwrap().0.status(), 200, "it is small");
    let (_other, mut elsewhere) = lab.connect(&lab.client()).await;
    assert_eq!(get(&mut elsewhere, "/large").await.unwrap().1.len(), LARGE, "somebody else");
    drop(untaken);
    within(until(|| lab.metrics.held.get() == 0)).await;
    assert_eq!(get(&mut ask, "/large").await.unwrap().1.len(), LARGE);
}

#[tokio::test]
async fn who_gives_up_more_than_it_takes_is_closed() {
    let limits = Limits {
        h2_control_frames_burst: 10,
        h2_control_frames_per_s: 1,
        h2_streams_max: 10,
        ..Limits::default()
    };
    let lab = Lab::new(limits);
    let (connection, mut ask) = lab.connect(&lab.client()).await;
    let mut given_up = 0;
    let flood = async {
        let hold = || Request::get("https://localhost/hold").body(()).unwrap();
        while let Ok(mut exchange) = ask.send_request(hold()).await {
            let _ = exchange.finish().await;
            exchange.stop_sending(h3::error::Code::H3_REQUEST_CANCELLED);
            given_up += 1;
        }
    };
    within(flood).await;
    assert!(given_up >= 30, "closed after {given_up}");
    let end = within(connection.closed()).await;
    let quinn::ConnectionError::ApplicationClosed(close) = end else { panic!("{end}") };
    assert_eq!(u64::from(close.error_code), h3::error::Code::H3_EXCESSIVE_LOAD.value());
    assert_eq!(lab.metrics.flooded.get(), 1);
    let (_connection, mut ask) = lab.connect(&lab.client()).await;
    for _ in 0..50 {
        get(&mut ask, "/").await.expect("who takes what it asked for");
    }
}

#[tokio::test]
async fn requests_that_name_no_host_are_refused_and_counted() {
    let lab = Lab::new(Limits::default());
    let endpoint = lab.client();
    let (_connection, mut ask) = lab.connect(&endpoint).await;
    let request = Request::get("https://user@localhost/").body(()).unwrap();
    let mut exchange = within(ask.send_request(request)).await.unwrap();
    within(exchange.finish()).await.unwrap();
    let (response, _) = finish(exchange).await.unwrap();
    assert_eq!((response.status().as_u16(), lab.metrics.malformed.get()), (400, 1));
}

#[tokio::test]
async fn a_viewer_that_moves_keeps_its_connection() {
    let lab = Lab::new(Limits::default());
    let endpoint = lab.client();
    let (_connection, mut ask) = lab.connect(&endpoint).await;
    get(&mut ask, "/").await.unwrap();
    let elsewhere = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = elsewhere.local_addr().unwrap().port();
    endpoint.rebind(elsewhere).unwrap();
    // The first request from there may still be seen as from the old place.
    get(&mut ask, "/large").await.unwrap();
    let (_, body) = get(&mut ask, "/").await.unwrap();
    assert_eq!(String::from_utf8(body).unwrap(), format!("Http3 true {port}"));
    assert_eq!(lab.metrics.accepted.get(), 1);
}

/// Carries datagrams to `server`, the second one only when the first was acknowledged.
async fn slow_second_datagram(server: SocketAddr) -> SocketAddr {
    let near = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let far = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    far.connect(server).await.unwrap();
    let addr = near.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut up, mut down) = (vec![0; 65_536], vec![0; 65_536]);
        let (length, client) = near.recv_from(&mut up).await.unwrap();
        far.send(&up[..length]).await.unwrap();
        let length = far.recv(&mut down).await.unwrap();
        near.send_to(&down[..length], client).await.unwrap();
        loop {
            tokio::select! {
                Ok(length) = near.recv(&mut up) => far.send(&up[..length]).await.unwrap(),
                Ok(length) = far.recv(&mut down) => near.send_to(&down[..length], client).await.unwrap(),
            };
        }
    });
    addr
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_hello_of_two_datagrams_may_come_in_parts() {
    let lab = Lab::new(Limits { handshake_timeout: 3 * PATIENCE, ..Limits::default() });
    for _ in 0..10 {
        let mut tls =
            Arc::unwrap_or_clone(client_config(&lab.dir.path().join("cert.pem"), &[b"h3"]).unwrap());
        // More than fits one.
        tls.alpn_protocols.extend((0..8).map(|n| vec![b'a' + n; 200]));
        let crypto = QuicClientConfig::try_from(tls).unwrap();
        let mut endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(crypto)));
        let relay = slow_second_datagram(lab.addr).await;
        let connection = within(endpoint.connect(relay, "localhost").unwrap()).await.unwrap();
        let mut ask = http3(connection).await;
        let (response, _) = within(get(&mut ask, "/")).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
    }
}
