//! The edge against a scripted upstream, over real sockets on ports from the system. Nothing here sleeps: tests wait
//! for what they expect, under one time limit.

mod answers;
mod disk;
mod fake;
mod fills;
mod invented;
mod ledger_cost;
mod places;
mod ports;
mod quic;
mod sessions;
mod shield;
mod smuggling;
mod upstreams;
mod viewers;
#[path = "../../shared/http/tests/conformance/wire.rs"]
mod wire;

use crate::app::{self, Running};
use crate::config::Config;
use crate::upstream::Counters;
use bytes::Bytes;
use fake::{Ask, Fake};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use sigma_http::handover::Sockets;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpStream;

/// Whatever takes longer than this will not happen.
const PATIENCE: Duration = Duration::from_secs(20);
pub(super) const PLAYLIST: &str = "/live/demo/v720/media.m3u8?_HLS_msn=7&_HLS_part=1";
pub(super) const PART: &str = "/live/demo/v720/7.1.m4s";

/// An edge and its upstream.
struct Lab {
    edge: Running,
    fake: Fake,
    dir: TempDir,
}

/// A directory with `cert.pem` and `key.pem` for 127.0.0.1.
fn certificates() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(dir.path().join("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(dir.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    dir
}

fn config(dir: &Path, upstream: SocketAddr) -> Config {
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    let text = format!(
        "pop = \"pop-1\"\n\
         [http]\nbind = [\"127.0.0.1:0\"]\n\
         [tls]\nbind = [\"127.0.0.1:0\"]\ncertificate = {cert:?}\nkey = {key:?}\n\
         [ops]\nbind = \"127.0.0.1:0\"\n\
         [upstream]\nurls = [\"https://{upstream}\"]\nca = {cert:?}\nprotocol = \"h2\"\nreconnect_ms_max = 50\n\
         [sessions]\nenabled = false\n"
    );
    sigma_http::config::parse(&text).unwrap()
}

impl Lab {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = certificates();
        let fake = Fake::start(dir.path(), "127.0.0.1:0".parse().unwrap(), 10_000);
        let mut config = config(dir.path(), fake.addr);
        change(&mut config);
        let edge = app::start(&config, &Sockets::none()).unwrap();
        Self { edge, fake, dir }
    }

    async fn ask(&mut self) -> Ask {
        within(self.fake.asks.recv()).await.unwrap()
    }

    async fn viewer(&self) -> Viewer {
        Viewer::h2(self.edge.http[0]).await
    }

    /// Asks as a new viewer in a task of its own.
    async fn begin(&self, path: &str) -> tokio::task::JoinHandle<Response<Incoming>> {
        let mut viewer = self.viewer().await;
        let path = path.to_owned();
        tokio::spawn(async move { viewer.get(&path).await })
    }

    async fn until_waiting(&self, n: i64) {
        within(until(|| self.edge.metrics.waiters.get() == n)).await;
    }

    async fn until_no_fills(&self) {
        within(until(|| self.edge.metrics.fills.get() == 0)).await;
    }
}

/// What an edge counted of one upstream.
fn counters(edge: &Running, upstream: SocketAddr) -> Counters {
    edge.metrics.upstreams.of(&upstream.to_string())
}

async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("it never happened")
}

/// Looks again whenever other tasks had their turn.
async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
    }
}

/// A viewer's HTTP/2 connection.
#[derive(Clone)]
struct Viewer(http2::SendRequest<Empty<Bytes>>);

impl Viewer {
    async fn h2(addr: SocketAddr) -> Self {
        let tcp = TcpStream::connect(addr).await.unwrap();
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(tcp)).await.unwrap();
        tokio::spawn(connection);
        Self(sender)
    }

    async fn get(&mut self, path: &str) -> Response<Incoming> {
        self.send(request(Method::GET, path)).await
    }

    async fn send(&mut self, request: Request<Empty<Bytes>>) -> Response<Incoming> {
        within(self.0.send_request(request)).await.unwrap()
    }
}

fn request(method: Method, path: &str) -> Request<Empty<Bytes>> {
    Request::builder().method(method).uri(format!("http://edge{path}")).body(Empty::new()).unwrap()
}

async fn h1(addr: SocketAddr) -> http1::SendRequest<Empty<Bytes>> {
    let tcp = TcpStream::connect(addr).await.unwrap();
    let (sender, connection) = http1::handshake(TokioIo::new(tcp)).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// The first piece of a body. An upstream that breaks off before it was read is asked again: whoever tests what comes
/// after the first byte has to read it.
async fn first_piece(response: &mut Response<Incoming>) -> Bytes {
    within(response.body_mut().frame()).await.unwrap().unwrap().into_data().unwrap()
}

async fn body(response: Response<Incoming>) -> Result<Bytes, hyper::Error> {
    Ok(within(response.into_body().collect()).await?.to_bytes())
}

fn header<'a>(response: &'a Response<Incoming>, name: &str) -> &'a str {
    response.headers().get(name).map_or("", |value| value.to_str().unwrap())
}
