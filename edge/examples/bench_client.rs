//! Load for measuring servers by themselves, on loopback only. `bench_client h3 ADDRESS PATH CA REQUESTS`: that many GETs over
//! eight QUIC connections. `bench_client herd ADDRESS PATH CA|- CONNECTIONS`: as many HTTP/1.1 connections that ask for one
//! object which is not there yet (`bench_upstream`'s `hold`); prints `held` when all have asked.
#![expect(clippy::print_stdout, reason = "what it measured")]

use bytes::Buf;
use http::Request;
use quinn::crypto::rustls::QuicClientConfig;
use sigma_http::tls::{ALPN_H3, client_config};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const QUIC_CONNECTIONS: usize = 8;
const STREAMS: usize = 4;
/// More from one address make connecting itself slow.
const PER_ADDRESS: usize = 5_000;
/// Handshakes at once.
const CONNECTING_MAX: usize = 64;

async fn h3(address: SocketAddr, path: &str, ca: &Path, requests: usize) -> Result<(), Failure> {
    let crypto = QuicClientConfig::try_from(client_config(ca, ALPN_H3)?)?;
    let mut transport = quinn::TransportConfig::default();
    transport.receive_window((64_u32 << 20).into()).stream_receive_window((8_u32 << 20).into());
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport));
    let mut endpoint = quinn::Endpoint::client(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    endpoint.set_default_client_config(config);
    let uri: http::Uri = format!("https://localhost:{}{path}", address.port()).parse()?;
    let left = Arc::new(AtomicUsize::new(requests));
    let mut tasks = JoinSet::new();
    for _ in 0..QUIC_CONNECTIONS {
        let connection = endpoint.connect(address, "localhost")?.await?;
        let (mut driver, ask) = h3::client::new(h3_quinn::Connection::new(connection)).await?;
        tokio::spawn(async move { std::future::poll_fn(|cx| driver.poll_close(cx)).await });
        for _ in 0..STREAMS {
            let (mut ask, uri, left) = (ask.clone(), uri.clone(), Arc::clone(&left));
            tasks.spawn(async move {
                let mut bytes = 0;
                while left
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                    .is_ok()
                {
                    let mut exchange = ask.send_request(Request::get(uri.clone()).body(())?).await?;
                    exchange.finish().await?;
                    let response = exchange.recv_response().await?;
                    if response.status() != 200 {
                        return Err(format!("answered {}", response.status()).into());
                    }
                    while let Some(chunk) = exchange.recv_data().await? {
                        bytes += chunk.remaining();
                    }
                }
                Ok::<usize, Failure>(bytes)
            });
        }
    }
    let mut bytes = 0;
    while let Some(done) = tasks.join_next().await {
        bytes += done??;
    }
    println!("requests {requests} bytes {bytes}");
    Ok(())
}

fn now_ns() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

/// The moment the first byte came, and the stamp that the body begins with.
async fn wait<IO: AsyncRead + AsyncWrite + Unpin>(
    mut io: IO,
    head: &str,
    asked: &AtomicUsize,
) -> Result<(i64, i64), Failure> {
    io.write_all(head.as_bytes()).await?;
    asked.fetch_add(1, Ordering::Relaxed);
    let mut got = Vec::with_capacity(6_000);
    let mut first = 0;
    loop {
        if io.read_buf(&mut got).await? == 0 {
            return Err("closed".into());
        }
        if first == 0 {
            first = now_ns();
        }
        let text = String::from_utf8_lossy(&got);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        if !head.starts_with("HTTP/1.1 200") {
            return Err(head.lines().next().unwrap_or("no status").into());
        }
        if let Some(stamp) = body.strip_prefix('A').and_then(|rest| rest.get(..20)) {
            return Ok((first, stamp.trim_start_matches('0').parse()?));
        }
    }
}

async fn herd(address: SocketAddr, path: &str, ca: Option<&Path>, connections: usize) -> Result<(), Failure> {
    let tls = ca.map(|ca| client_config(ca, &[b"http/1.1"])).transpose()?.map(TlsConnector::from);
    let head: Arc<str> = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n").into();
    let (asked, connecting) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(CONNECTING_MAX)));
    let mut tasks = JoinSet::new();
    for n in 0..connections {
        let (tls, head, asked, connecting) =
            (tls.clone(), Arc::clone(&head), Arc::clone(&asked), Arc::clone(&connecting));
        tasks.spawn(async move {
            let place = connecting.acquire_owned().await?;
            let socket = TcpSocket::new_v4()?;
            let last = u8::try_from(1 + n / PER_ADDRESS)?;
            socket.bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)), 0))?;
            let tcp = socket.connect(address).await?;
            match tls {
                None => {
                    drop(place);
                    wait(tcp, &head, &asked).await
                }
                Some(tls) => {
                    let io = tls.connect("localhost".try_into()?, tcp).await?;
                    drop(place);
                    wait(io, &head, &asked).await
                }
            }
        });
    }
    while asked.load(Ordering::Relaxed) < connections {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("held");
    let (mut delays, mut failed) = (Vec::new(), 0);
    let mut reason = String::new();
    while let Some(done) = tasks.join_next().await {
        match done? {
            Ok((first, stamp)) => delays.push((first - stamp) / 1_000),
            Err(error) => {
                failed += 1;
                reason = format!(" ({error})");
            }
        }
    }
    delays.sort_unstable();
    let at = |share: usize| delays.get(delays.len() * share / 100).map_or(0.0, |us| *us as f64 / 1000.0);
    println!("answered {} failed {failed}{reason} p50_ms {:.1} p99_ms {:.1}", delays.len(), at(50), at(99));
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [mode, address, path, ca, count] = args.as_slice() else {
        return Err("see the head of this file".into());
    };
    let (address, count): (SocketAddr, usize) = (address.parse()?, count.parse()?);
    if !address.ip().is_loopback() {
        return Err(format!("{address}: loopback only").into());
    }
    match mode.as_str() {
        "h3" => h3(address, path, Path::new(ca), count).await,
        "herd" => herd(address, path, (ca != "-").then(|| Path::new(ca.as_str())), count).await,
        other => Err(format!("{other}: h3 or herd").into()),
    }
}
