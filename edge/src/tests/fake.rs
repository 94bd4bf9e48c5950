//! The scripted upstream: every request it gets is handed to the test, which answers it piece by piece or not at all.

use super::quic;
use crate::upstream::PROBE_PATH;
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use sigma_http::connections::ConnectionMetrics;
use sigma_http::drain::Drain;
use sigma_http::listener::{Bound, Limits, Server};
use sigma_http::tls::{ALPN_H2, ReloadableCertificate, server_config};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};

/// A request to the upstream that waits for its answer.
pub(super) struct Ask {
    pub(super) method: http::Method,
    pub(super) path: String,
    pub(super) has_body: bool,
    pub(super) body: Bytes,
    pub(super) headers: HeaderMap,
    reply: oneshot::Sender<Response<Fed>>,
}

/// A response body fed by the test.
pub(super) struct Feed(mpsc::Sender<io::Result<Bytes>>);

/// What the test feeds.
pub(super) struct Fed(mpsc::Receiver<io::Result<Bytes>>);

impl Body for Fed {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.0.poll_recv(cx).map_ok(Frame::data)
    }
}

impl Feed {
    pub(super) async fn send(&self, chunk: &'static str) {
        assert!(self.try_send(chunk).await, "the edge gave up on this response");
    }

    /// Whether the edge still wants this response.
    pub(super) async fn try_send(&self, chunk: &'static str) -> bool {
        self.0.send(Ok(Bytes::from_static(chunk.as_bytes()))).await.is_ok()
    }

    /// Breaks the response off. Dropping the feed ends it as it should.
    pub(super) async fn abort(self) {
        self.0.send(Err(io::Error::other("scripted"))).await.unwrap();
    }
}

impl Ask {
    /// Sends the head; the body follows through the feed.
    pub(super) fn head(self, status: u16, headers: &[(&str, &str)]) -> Feed {
        let (feed, fed) = mpsc::channel(64);
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        // The edge may have given up on this request: part of some scripts.
        let _ = self.reply.send(response.body(Fed(fed)).unwrap());
        Feed(feed)
    }

    /// Returns when the edge does not want an answer any more.
    pub(super) async fn cancelled(mut self) {
        self.reply.closed().await;
    }

    /// An error whose body the edge may not want to read.
    pub(super) async fn refuse(self, status: u16) {
        let _ = self.head(status, &[("cache-control", "max-age=2")]).try_send("no").await;
    }

    /// The whole answer, of any bytes.
    pub(super) async fn answer_bytes(self, status: u16, bytes: Vec<u8>) {
        // The edge may have given up on it.
        let _ = self.head(status, &[]).0.send(Ok(bytes.into())).await;
    }

    /// The whole answer, with a lifetime.
    pub(super) async fn answer(self, status: u16, max_age_s: u32, text: &'static str) {
        let cache_control = format!("max-age={max_age_s}");
        let headers = [("cache-control", cache_control.as_str()), ("cmsd-static", "ot=v,sf=h,st=ll")];
        self.head(status, &headers).send(text).await;
    }
}

pub(super) struct Fake {
    pub(super) addr: SocketAddr,
    pub(super) asks: mpsc::Receiver<Ask>,
    /// Requests that arrived so far.
    pub(super) count: Arc<AtomicUsize>,
    pub(super) connections: ConnectionMetrics,
    /// GOAWAY on all connections, and no new ones.
    pub(super) drain: Drain,
    /// Probes are not answered either.
    pub(super) mute: Arc<AtomicBool>,
    process: Process,
}

/// The runtime that a fake lives in. Dropped, it takes all sockets with it, as a process that is killed.
struct Process(Option<Runtime>);

impl Process {
    fn start() -> Self {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        Self(Some(builder.worker_threads(1).enable_all().build().unwrap()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.take().unwrap().shutdown_background();
    }
}

/// What a request needs to get to the test.
#[derive(Clone)]
pub(super) struct Script {
    asks: mpsc::Sender<Ask>,
    count: Arc<AtomicUsize>,
    mute: Arc<AtomicBool>,
}

impl Fake {
    pub(super) fn start(certificates: &Path, addr: SocketAddr, streams_max: u32) -> Self {
        let certificate =
            ReloadableCertificate::load(&certificates.join("cert.pem"), &certificates.join("key.pem"));
        let tls = server_config(certificate.unwrap(), ALPN_H2).unwrap();
        let process = Process::start();
        let _inside = process.0.as_ref().unwrap().enter();
        let bound = Bound::bind(addr).unwrap();
        let limits = Limits {
            h2_streams_max: streams_max,
            drain_timeout: Duration::from_secs(30),
            ..Limits::default()
        };
        let (connections, drain) = (ConnectionMetrics::default(), Drain::new());
        let server = Server::new(limits, connections.clone(), drain.clone());
        let (sender, asks) = mpsc::channel(10_000);
        let count = Arc::new(AtomicUsize::new(0));
        let fake = Self {
            addr: bound.local_addr(),
            asks,
            count: Arc::clone(&count),
            connections,
            drain,
            mute: Arc::default(),
            process,
        };
        let script = Script { asks: sender, count, mute: Arc::clone(&fake.mute) };
        server.serve(bound, Some(tls), move |request: Request<Incoming>, _from| {
            let script = script.clone();
            async move {
                let (head, body) = request.into_parts();
                let has_body = !body.is_end_stream();
                let body = body.collect().await.unwrap().to_bytes();
                serve(Request::from_parts(head, (has_body, body)), script).await
            }
        });
        fake
    }

    /// The same over QUIC, on a port of its own or on that of a fake that speaks HTTP/2.
    pub(super) fn start_h3(certificates: &Path, addr: SocketAddr) -> Self {
        let (sender, asks) = mpsc::channel(10_000);
        let (count, mute) = (Arc::default(), Arc::default());
        let script = Script { asks: sender, count: Arc::clone(&count), mute: Arc::clone(&mute) };
        let process = Process::start();
        let _inside = process.0.as_ref().unwrap().enter();
        let (connections, drain) = (ConnectionMetrics::default(), Drain::new());
        let endpoint = quic::listen(certificates, addr, script, connections.clone());
        let addr = endpoint.local_addr().unwrap();
        Self { addr, asks, count, connections, drain, mute, process }
    }

    pub(super) fn kill(self) {
        drop(self.process);
    }

    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }
}

/// Answers as the test says. The request's body is whether it has one, and what is in it.
pub(super) async fn serve(request: Request<(bool, Bytes)>, script: Script) -> Response<Fed> {
    let (reply, answer) = oneshot::channel();
    let path = request.uri().path_and_query().unwrap().to_string();
    if path == PROBE_PATH {
        while script.mute.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
        let (_, fed) = mpsc::channel(1);
        return Response::builder().status(404).body(Fed(fed)).unwrap();
    }
    script.count.fetch_add(1, Ordering::SeqCst);
    let ask = Ask {
        method: request.method().clone(),
        has_body: request.body().0,
        body: request.body().1.clone(),
        path,
        headers: request.headers().clone(),
        reply,
    };
    script.asks.send(ask).await.ok();
    match answer.await {
        Ok(response) => response,
        // The test dropped the ask: break the stream off before its head.
        Err(_) => panic!("scripted: no answer"),
    }
}
