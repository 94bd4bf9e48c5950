//! Listeners over real sockets: limits, isolation, drain, certificates.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failing test may panic")]

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prometheus_client::registry::Registry;
use sigma_http::connections::ConnectionMetrics;
use sigma_http::drain::Drain;
use sigma_http::listener::{Alpn, Bound, Limits, PeerConnection, Server};
use sigma_http::ops::{self, Endpoints, Readiness};
use sigma_http::tls::{ALPN_ALL, ReloadableCertificate, client_config, server_config};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const PATIENCE: Duration = Duration::from_secs(20);

struct Lab {
    addr: SocketAddr,
    metrics: ConnectionMetrics,
    drain: Drain,
    server: Server,
}

/// A server that says who asked; `/panic` panics and `/hold` never answers.
fn lab(limits: Limits, tls: Option<Arc<rustls::ServerConfig>>) -> Lab {
    let (metrics, drain) = (ConnectionMetrics::default(), Drain::new());
    let server = Server::new(limits, metrics.clone(), drain.clone());
    let bound = Bound::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = bound.local_addr();
    server.serve(bound, tls, |request: Request<hyper::body::Incoming>, from: PeerConnection| async move {
        match request.uri().path() {
            "/panic" => panic!("asked for"),
            "/hold" => std::future::pending().await,
            _ => Response::new(Full::new(Bytes::from(format!("{:?} {}", from.alpn, from.tls)))),
        }
    });
    Lab { addr, metrics, drain, server }
}

/// One lost probe must not end a held connection (10,000 of them are probed in the same moment, and some probes are lost).
#[tokio::test]
async fn silent_connections_are_probed_more_than_once_before_they_are_given_up() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let tcp = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    for seconds in [15, 60] {
        let patience = Duration::from_secs(seconds);
        sigma_http::listener::set_socket_options(&tcp, patience).unwrap();
        let socket = socket2::SockRef::from(&tcp);
        let (time, interval) =
            (socket.tcp_keepalive_time().unwrap(), socket.tcp_keepalive_interval().unwrap());
        assert!(time + 2 * interval < patience, "{time:?}, then every {interval:?}");
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(patience));
    }
}

async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("it never happened")
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
    }
}

async fn h2(addr: SocketAddr) -> http2::SendRequest<Empty<Bytes>> {
    let tcp = TcpStream::connect(addr).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(tcp)).await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn h1(addr: SocketAddr) -> http1::SendRequest<Empty<Bytes>> {
    let tcp = TcpStream::connect(addr).await.unwrap();
    let (sender, connection) = http1::handshake(TokioIo::new(tcp)).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn get(path: &str) -> Request<Empty<Bytes>> {
    Request::get(format!("http://server{path}")).body(Empty::new()).unwrap()
}

async fn text(response: Response<hyper::body::Incoming>) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn a_panic_costs_one_request_at_most() {
    let lab = lab(Limits::default(), None);
    let mut sender = h2(lab.addr).await;
    assert!(sender.send_request(get("/panic")).await.is_err());
    assert_eq!(text(sender.send_request(get("/")).await.unwrap()).await, "None false");
    let mut sender = h1(lab.addr).await;
    assert!(sender.send_request(get("/panic")).await.is_err());
    let mut sender = h1(lab.addr).await;
    assert_eq!(sender.send_request(get("/")).await.unwrap().status(), 200);
    within(until(|| lab.metrics.open.get() == 2)).await;
}

#[tokio::test]
async fn a_drain_cuts_what_does_not_end() {
    let limits = Limits { drain_timeout: Duration::from_millis(50), ..Limits::default() };
    let lab = lab(limits, None);
    let mut held = Vec::new();
    for _ in 0..2 {
        let (mut one, mut two) = (h1(lab.addr).await, h2(lab.addr).await);
        held.push(tokio::spawn(async move { one.send_request(get("/hold")).await.is_err() }));
        held.push(tokio::spawn(async move { two.send_request(get("/hold")).await.is_err() }));
    }
    within(until(|| lab.metrics.open.get() == 4)).await;
    lab.drain.start();
    within(lab.server.drained()).await;
    assert_eq!(lab.metrics.open.get(), 0);
    for request in held {
        assert!(within(request).await.unwrap(), "cut");
    }
}

#[tokio::test]
async fn a_peer_that_leaves_is_forgotten() {
    let lab = lab(Limits::default(), None);
    let mut sender = h1(lab.addr).await;
    let held = tokio::spawn(async move { sender.send_request(get("/hold")).await.is_err() });
    within(until(|| lab.metrics.open.get() == 1)).await;
    held.abort();
    within(until(|| lab.metrics.open.get() == 0)).await;
}

#[tokio::test]
async fn headers_are_bounded() {
    let lab = lab(Limits::default(), None);
    let mut tcp = TcpStream::connect(lab.addr).await.unwrap();
    let request = format!("GET / HTTP/1.1\r\nhost: a\r\nx-big: {}\r\n\r\n", "x".repeat(500_000));
    let _ = tcp.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = within(tcp.read_to_end(&mut answer)).await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"));
    let mut sender = h2(lab.addr).await;
    let mut big = get("/");
    big.headers_mut().insert("x-big", "x".repeat(20_000).parse().unwrap());
    let refused = within(sender.send_request(big)).await;
    assert!(refused.map_or(true, |response| response.status() == 431));
}

fn write_pair(dir: &Path) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(dir.join("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(dir.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
}

async fn connect(ca: &Path, addr: SocketAddr) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let connector = TlsConnector::from(client_config(ca, ALPN_ALL).unwrap());
    let name = rustls::pki_types::ServerName::try_from("127.0.0.1").unwrap();
    connector.connect(name, TcpStream::connect(addr).await?).await
}

#[tokio::test]
async fn certificates_are_replaced_while_serving() {
    let (dir, fresh) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write_pair(dir.path());
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let old_ca = dir.path().join("old.pem");
    std::fs::copy(&cert, &old_ca).unwrap();
    let certificate = ReloadableCertificate::load(&cert, &key).unwrap();
    let lab = lab(Limits::default(), Some(server_config(Arc::clone(&certificate), ALPN_ALL).unwrap()));

    let stream = connect(&old_ca, lab.addr).await.unwrap();
    let (mut open, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    assert_eq!(text(open.send_request(get("/")).await.unwrap()).await, format!("{:?} true", Alpn::Http2));

    write_pair(fresh.path());
    std::fs::copy(fresh.path().join("cert.pem"), &cert).unwrap();
    assert!(certificate.reload().is_err(), "the key is of the other certificate");
    assert!(connect(&old_ca, lab.addr).await.is_ok(), "so the old pair stays");
    std::fs::copy(fresh.path().join("key.pem"), &key).unwrap();
    certificate.reload().unwrap();
    assert!(connect(&old_ca, lab.addr).await.is_err());
    assert!(connect(&cert, lab.addr).await.is_ok());
    assert_eq!(open.send_request(get("/")).await.unwrap().status(), 200, "open connections stay");
}

#[test]
fn bad_pem_is_named() {
    let dir = tempfile::tempdir().unwrap();
    write_pair(dir.path());
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let missing = dir.path().join("missing.pem");
    let load = |cert: &Path, key: &Path| ReloadableCertificate::load(cert, key).unwrap_err().to_string();
    assert!(load(&missing, &key).contains("missing.pem: certificate expected"));
    assert!(load(&cert, &cert).contains("cert.pem: private key expected"));
    assert!(load(&key, &key).contains("key.pem: certificate expected"));
    assert!(client_config(&key, ALPN_ALL).is_err());
}

#[tokio::test]
async fn operators_get_their_answers() {
    let mut registry = Registry::default();
    ConnectionMetrics::default().register(&mut registry);
    let bound = Bound::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let (addr, drain) = (bound.local_addr(), Drain::new());
    let ready = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let asked = Arc::clone(&ready);
    let readiness = move || match asked.load(std::sync::atomic::Ordering::SeqCst) {
        true => Readiness::Ready,
        false => Readiness::NotReady("no \"upstream\"".to_owned()),
    };
    let endpoints = Endpoints { registry, ready: readiness, own: ops::nothing_more };
    ops::serve(bound, drain.clone(), endpoints);
    let mut sender = h1(addr).await;
    let mut ask = async |path: &str| {
        let response = sender.send_request(get(path)).await.unwrap();
        sender.ready().await.unwrap();
        (response.status().as_u16(), text(response).await)
    };
    assert_eq!(ask("/healthz").await, (200, "ok\n".to_owned()));
    assert_eq!(ask("/readyz").await, (503, r#"{"ready":false,"reason":"no \"upstream\""}"#.to_owned()));
    ready.store(true, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(ask("/readyz").await.0, 200);
    let (status, metrics) = ask("/metrics").await;
    assert_eq!(status, 200);
    assert!(metrics.contains("connections_accepted_total 0") && metrics.ends_with("# EOF\n"));
    assert_eq!(ask("/").await.0, 404);
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let bound = Bound::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let error = Bound::bind(bound.local_addr()).unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot listen on {}", bound.local_addr())), "{error}");
}

#[tokio::test(start_paused = true)]
async fn who_has_not_said_a_word_does_not_hold_up_the_end() {
    let lab = lab(Limits::default(), None);
    let _silent = TcpStream::connect(lab.addr).await.unwrap();
    within(until(|| lab.metrics.open.get() == 1)).await;
    let began = tokio::time::Instant::now();
    lab.drain.start();
    lab.server.drained().await;
    assert_eq!(lab.metrics.open.get(), 0);
    assert!(began.elapsed() < Limits::default().drain_timeout / 2, "{:?}", began.elapsed());
}
