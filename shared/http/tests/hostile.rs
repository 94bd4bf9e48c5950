//! Every attack program against a listener: each connection is closed, and nobody else notices. Nothing here measures
//! time; the limits are short so that the tests are.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failing test may panic")]

#[path = "../examples/attack/attacks.rs"]
mod attacks;
#[path = "conformance/wire.rs"]
mod wire;

use attacks::Kind;
use bytes::Bytes;
use clap::ValueEnum;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use sigma_http::connections::ConnectionMetrics;
use sigma_http::drain::Drain;
use sigma_http::listener::{Bound, Limits, Server};
use sigma_http::tls::{ALPN_ALL, ReloadableCertificate, server_config};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

const PATIENCE: Duration = Duration::from_secs(20);

struct Lab {
    plain: SocketAddr,
    tls: SocketAddr,
    metrics: ConnectionMetrics,
}

fn impatient() -> Limits {
    let short = Duration::from_millis(300);
    Limits {
        handshake_timeout: short,
        header_read_timeout: short,
        read_rate_window: short,
        read_bytes_per_s_min: 64 * 1024,
        h2_control_frames_per_s: 1,
        ..Limits::default()
    }
}

/// `/big` has 32 MiB, `/hold` is never answered.
async fn answer(request: Request<Incoming>) -> Response<Full<Bytes>> {
    match request.uri().path() {
        "/hold" => std::future::pending().await,
        "/big" => Response::new(Full::new(Bytes::from(vec![0; 32 << 20]))),
        _ => Response::new(Full::new(Bytes::from_static(b"fine"))),
    }
}

fn lab(limits: Limits) -> Lab {
    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let certificate = ReloadableCertificate::load(&cert, &key).unwrap();
    let config = server_config(Arc::clone(&certificate), ALPN_ALL).unwrap();
    let metrics = ConnectionMetrics::default();
    let server = Server::new(limits, metrics.clone(), Drain::new());
    let bound = || Bound::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let (plain, encrypted) = (bound(), bound());
    let lab = Lab { plain: plain.local_addr(), tls: encrypted.local_addr(), metrics };
    server.serve(plain, None, |request, _from| answer(request));
    server.serve(encrypted, Some(config), |request, _from| answer(request));
    lab
}

async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("it never happened")
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
    }
}

async fn ask(addr: SocketAddr, path: &str) -> TcpStream {
    let mut tcp = TcpStream::connect(addr).await.unwrap();
    tcp.write_all(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).await.unwrap();
    tcp
}

async fn is_answered(addr: SocketAddr) -> bool {
    let mut tcp = ask(addr, "/").await;
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"fine") {
        if within(tcp.read_buf(&mut bytes)).await.unwrap_or(0) == 0 {
            return false;
        }
    }
    true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_attacker_is_let_go() {
    let lab = lab(impatient());
    // A held request of somebody honest, which has nothing to do with any of it.
    let mut held = ask(lab.plain, "/hold").await;
    let mut attackers = JoinSet::new();
    for kind in Kind::value_variants() {
        let addr = if *kind == Kind::TlsHandshakeStall { lab.tls } else { lab.plain };
        attackers.spawn(async move {
            let socket = TcpSocket::new_v4().unwrap();
            if kind.reads_slowly() {
                socket.set_recv_buffer_size(4096).unwrap();
            }
            let mut tcp = socket.connect(addr).await.unwrap();
            let ended = tokio::time::timeout(PATIENCE, attacks::perform(*kind, &mut tcp, "/big")).await;
            ended.is_err().then(|| kind.to_string())
        });
    }
    let stayed: Vec<_> = attackers.join_all().await.into_iter().flatten().collect();
    assert!(stayed.is_empty(), "still connected: {stayed:?}");
    within(until(|| lab.metrics.open.get() == 1)).await;
    assert!(is_answered(lab.plain).await && lab.metrics.flooded.get() >= 4 && lab.metrics.slow.get() >= 2);
    assert!(lab.metrics.handshake_failures.get() == 1 && lab.metrics.timed_out.get() >= 1);
    let mut byte = [0];
    assert!(held.try_read(&mut byte).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock));
    held.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_is_not_slow() {
    let lab = lab(impatient());
    let mut tcp = ask(lab.plain, "/big").await;
    let (mut sink, mut total) = (vec![0; 1 << 20], 0);
    while total < 32 << 20 {
        total += within(tcp.read(&mut sink)).await.unwrap();
    }
    assert_eq!(lab.metrics.slow.get(), 0);
    let slow = ask(lab.plain, "/big").await;
    within(until(|| lab.metrics.slow.get() == 1)).await;
    drop(slow);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_has_so_many_connections() {
    let limits = Limits { connections_per_ip_max: 2, connections_per_ip_exempt: vec![], ..Limits::default() };
    let lab = lab(limits);
    let from = async |last: u8| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, last], 0))).unwrap();
        let mut tcp = socket.connect(lab.plain).await.unwrap();
        let _ = tcp.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let answered = within(tcp.read_u8()).await.is_ok();
        (tcp, answered)
    };
    let (one, two, three) = (from(2).await, from(2).await, from(2).await);
    assert_eq!((one.1, two.1, three.1), (true, true, false));
    assert!(from(3).await.1, "another address has its own");
    assert_eq!((lab.metrics.refused_per_ip.get(), lab.metrics.refused.get()), (1, 0));
    drop((one, three));
    within(until(|| lab.metrics.open.get() == 1)).await;
    assert!(from(2).await.1, "who leaves makes room");
}

#[tokio::test]
async fn requests_that_name_no_host_are_refused_and_counted() {
    let lab = lab(Limits::default());
    let mut tcp = TcpStream::connect(lab.plain).await.unwrap();
    tcp.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    within(tcp.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("connection: close"), "{answer}");
    assert_eq!(lab.metrics.malformed.get(), 1);
}
