//! Answers that their viewer does not take, on HTTP/2 connections that are read otherwise.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failing test may panic")]

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use sigma_http::connections::ConnectionMetrics;
use sigma_http::drain::Drain;
use sigma_http::listener::{Bound, Limits, Server};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;

const PATIENCE: Duration = Duration::from_secs(20);
const LARGE: usize = 3_000_000;
const SMALL: usize = 30_000;

type Ask = http2::SendRequest<Empty<Bytes>>;

async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("it never happened")
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
    }
}

fn lab(limits: Limits) -> (SocketAddr, ConnectionMetrics) {
    let metrics = ConnectionMetrics::default();
    let server = Server::new(limits, metrics.clone(), Drain::new());
    let bound = Bound::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = bound.local_addr();
    server.serve(bound, None, |request: Request<Incoming>, _from| async move {
        let bytes = if request.uri().path() == "/large" { LARGE } else { SMALL };
        Response::new(Full::new(Bytes::from(vec![7; bytes])))
    });
    (addr, metrics)
}

/// A client that takes `window` bytes of a stream that nobody reads.
async fn client(addr: SocketAddr, window: u32) -> Ask {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(window).initial_connection_window_size(1 << 30);
    let tcp = TcpStream::connect(addr).await.unwrap();
    let (ask, connection) = builder.handshake(TokioIo::new(tcp)).await.unwrap();
    tokio::spawn(connection);
    ask
}

async fn begin(ask: &mut Ask, path: &str) -> hyper::Result<Response<Incoming>> {
    ask.ready().await?;
    ask.send_request(Request::get(format!("http://server{path}")).body(Empty::new()).unwrap()).await
}

async fn get(ask: &mut Ask, path: &str) -> hyper::Result<(StatusCode, usize)> {
    let response = begin(ask, path).await?;
    Ok((response.status(), response.into_body().collect().await?.to_bytes().len()))
}

/// The window may be as small as it likes: in 16 KiB a whole answer is queued, which nobody can take back.
#[tokio::test]
async fn a_connection_with_an_answer_that_is_not_taken_ends_however_much_else_is() {
    for window in [16 * 1024, LARGE as u32 - 1] {
        let limits = Limits { read_rate_window: Duration::from_millis(400), ..Limits::default() };
        let (addr, metrics) = lab(limits);
        let mut ask = client(addr, window).await;
        let untaken = within(begin(&mut ask, "/large")).await.unwrap();
        let mut taken = 0;
        within(async {
            while let Ok((status, bytes)) = get(&mut ask, "/").await {
                assert_eq!((status, bytes), (StatusCode::OK, SMALL));
                taken += 1;
            }
        })
        .await;
        assert!(taken > 0 && metrics.stuck.get() == 1, "{window}: {taken}, {}", metrics.stuck.get());
        // Taken now, it would still be whole.
        within(until(|| (metrics.open.get(), metrics.held.get()) == (0, 0))).await;
        assert!(within(untaken.into_body().collect()).await.is_err(), "it was cut");
        assert_eq!(metrics.slow.get(), 0, "as a whole it was not");
    }
}

#[tokio::test]
async fn who_takes_a_little_of_everything_stays() {
    let window = Duration::from_millis(400);
    let limits = Limits { read_rate_window: window, ..Limits::default() };
    let (addr, metrics) = lab(limits);
    let mut ask = client(addr, 16 * 1024).await;
    let mut slow = within(begin(&mut ask, "/large")).await.unwrap().into_body();
    let began = std::time::Instant::now();
    let mut frames = 0;
    while began.elapsed() < 4 * window {
        if began.elapsed() > window / 4 * frames {
            within(slow.frame()).await.unwrap().unwrap();
            frames += 1;
        }
        assert_eq!(within(get(&mut ask, "/")).await.unwrap(), (StatusCode::OK, SMALL));
    }
    assert_eq!((metrics.stuck.get(), metrics.slow.get()), (0, 0));
}

#[tokio::test]
async fn who_holds_too_much_gets_no_more() {
    let (addr, metrics) = lab(Limits { held_bytes_max: 0, ..Limits::default() });
    let mut ask = client(addr, 16 * 1024).await;
    let mut untaken = Vec::new();
    for _ in 0..3 {
        let response = within(begin(&mut ask, "/large")).await.unwrap();
        assert_eq!(response.status(), 200);
        untaken.push(response);
    }
    let (status, _) = within(get(&mut ask, "/large")).await.unwrap();
    assert_eq!((status, metrics.shed.get()), (StatusCode::SERVICE_UNAVAILABLE, 1));
    assert_eq!(within(get(&mut ask, "/")).await.unwrap(), (StatusCode::OK, SMALL), "it is small");
    let mut other = client(addr, 16 * 1024).await;
    assert_eq!(within(get(&mut other, "/large")).await.unwrap(), (StatusCode::OK, LARGE), "somebody else");
    drop(untaken);
    within(until(|| metrics.held.get() == 0)).await;
    assert_eq!(within(get(&mut ask, "/large")).await.unwrap(), (StatusCode::OK, LARGE));
}
