//! Bodies of requests that are too large: their sender learns so, over HTTP/1.1 and HTTP/2, and none goes on for ever.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failing test may panic")]

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use sigma_http::connections::ConnectionMetrics;
use sigma_http::drain::Drain;
use sigma_http::listener::{Bound, Limits, Server};
use sigma_http::request_body::RequestBody;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;

const PATIENCE: Duration = Duration::from_secs(20);
const TAKEN_MAX: usize = 100_000;

fn serve() -> SocketAddr {
    let bound = Bound::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = bound.local_addr();
    // Body bytes are of the budget of frames that ask for nothing, which is not what this is about.
    let limits = Limits { h2_control_frames_burst: 1 << 30, ..Limits::default() };
    let server = Server::new(limits, ConnectionMetrics::default(), Drain::new());
    server.serve(bound, None, |request: Request<hyper::body::Incoming>, _| async move {
        if request.uri().path() == "/refused" {
            RequestBody::from(request.into_body()).discard().await;
            return Response::new(Full::default());
        }
        match RequestBody::from(request.into_body()).read(TAKEN_MAX, PATIENCE).await {
            Ok(body) => Response::new(Full::new(Bytes::from(body.len().to_string()))),
            Err(error) => error.problem().response(),
        }
    });
    addr
}

/// So many bytes, and how many of them somebody took. Without `sized`, it does not say how many there are.
struct Long {
    left: u64,
    taken: Arc<AtomicU64>,
    sized: bool,
}

impl Body for Long {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let length = self.left.min(16_384);
        self.left -= length;
        self.taken.fetch_add(length, Ordering::SeqCst);
        let piece = (length > 0).then(|| Frame::data(Bytes::from(vec![7; usize::try_from(length).unwrap()])));
        Poll::Ready(piece.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> http_body::SizeHint {
        if self.sized { http_body::SizeHint::with_exact(self.left) } else { http_body::SizeHint::default() }
    }
}

/// The answer to a body, and how much of it was sent.
async fn post(version: Version, path: &str, (bytes, sized): (u64, bool)) -> (u16, String, u64) {
    let taken = Arc::new(AtomicU64::new(0));
    let body = Long { left: bytes, taken: Arc::clone(&taken), sized };
    let io = TokioIo::new(TcpStream::connect(serve()).await.unwrap());
    let asking = async {
        let answer = if version == Version::HTTP_2 {
            let (mut ask, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
            tokio::spawn(connection);
            ask.send_request(Request::post(format!("http://localhost{path}")).body(body).unwrap())
                .await
                .unwrap()
        } else {
            let (mut ask, connection) = http1::handshake(io).await.unwrap();
            tokio::spawn(connection);
            let request = Request::post(path).header("host", "localhost").body(body).unwrap();
            ask.send_request(request).await.unwrap()
        };
        let (head, body) = answer.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        (head.status.as_u16(), String::from_utf8(body.to_vec()).unwrap())
    };
    let (status, text) = tokio::time::timeout(PATIENCE, asking).await.unwrap();
    (status, text, taken.load(Ordering::SeqCst))
}

#[tokio::test]
async fn whoever_sends_too_much_sends_all_of_it_and_learns_so() {
    for version in [Version::HTTP_11, Version::HTTP_2] {
        for sized in [true, false] {
            let (status, text, _) = post(version, "/", (TAKEN_MAX as u64, sized)).await;
            assert_eq!((status, text.as_str()), (200, "100000"), "{version:?}");
            let (status, text, sent) = post(version, "/", (5_000_000, sized)).await;
            assert_eq!((status, sent), (413, 5_000_000), "{version:?}, sized {sized}");
            assert!(text.contains("at most 100000 bytes are read"), "{text}");
            let (status, _, sent) = post(version, "/refused", (5_000_000, sized)).await;
            assert_eq!((status, sent), (200, 5_000_000), "{version:?}, sized {sized}, and nobody reads it");
        }
    }
}

#[tokio::test]
async fn nobody_sends_for_ever() {
    let (status, _, sent) = post(Version::HTTP_2, "/", (u64::MAX, false)).await;
    assert_eq!(status, 413);
    assert!(sent < 100 << 20, "{sent} bytes");
}
