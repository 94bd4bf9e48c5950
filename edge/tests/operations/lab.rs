//! An edge process, and an upstream in this one that answers, holds and never answers.

use bytes::{Buf, Bytes};
use h3::error::StreamError;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use quinn::crypto::rustls::QuicClientConfig;
use sigma_http::connections::ConnectionMetrics;
use sigma_http::drain::Drain;
use sigma_http::listener::{Bound, Limits, Server};
use sigma_http::tls::client_config;
use sigma_token::policy::{ChannelPolicy, Document, Playback, SessionSecret};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

pub(crate) const PLAYLIST: &str = "/live/demo/v720/media.m3u8";
/// Answered when the test says so.
pub(crate) const HELD: &str = "/live/demo/v720/media.m3u8?_HLS_msn=7";
const POLICY: &str = "/internal/edge/policy";
/// More than sockets hold.
pub(crate) const BIG: &str = "/live/demo/v720/7.m4s";
/// Whatever takes longer than this will not happen.
/// Lines of a log that nobody has read yet; the process waits when there are more.
const LOG_LINES_MAX: usize = 10_000;

const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("it never happened")
}

/// Looks again whenever other tasks had their turn.
pub(crate) async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
    }
}

pub(crate) async fn until_refused(addr: SocketAddr) {
    while TcpStream::connect(addr).await.is_ok() {
        tokio::task::yield_now().await;
    }
}

pub(crate) fn request(path: &str) -> Request<Empty<Bytes>> {
    Request::builder().uri(format!("http://edge{path}")).body(Empty::new()).unwrap()
}

/// Asks over a connection of its own and reads the whole answer.
pub(crate) async fn get(edge: SocketAddr, h2: bool, path: &str) -> Result<StatusCode, String> {
    let io = TokioIo::new(TcpStream::connect(edge).await.map_err(|error| error.to_string())?);
    let answer = async {
        if h2 {
            let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
            tokio::spawn(connection);
            sender.send_request(request(path)).await
        } else {
            let (mut sender, connection) = http1::handshake(io).await?;
            tokio::spawn(connection);
            sender.send_request(request(path)).await
        }
    };
    let answer = answer.await.map_err(|error| format!("{error:?}"))?;
    let status = answer.status();
    answer.into_body().collect().await.map_err(|error| format!("{error:?}"))?;
    Ok(status)
}

/// An HTTP/3 connection.
pub(crate) struct Http3 {
    ask: h3::client::SendRequest<h3_quinn::OpenStreams, Bytes>,
}

impl Http3 {
    pub(crate) async fn connect(client: &quinn::Endpoint, edge: SocketAddr) -> Result<Self, String> {
        let connection =
            client.connect(edge, "127.0.0.1").unwrap().await.map_err(|error| error.to_string())?;
        let http3 = h3::client::new(h3_quinn::Connection::new(connection)).await;
        let (mut driver, ask) = http3.map_err(|error| error.to_string())?;
        tokio::spawn(async move { std::future::poll_fn(|cx| driver.poll_close(cx)).await });
        Ok(Self { ask })
    }

    /// Asks, and waits for the head of an answer that is good.
    pub(crate) async fn begin(&mut self, path: &str) -> Result<Exchange, String> {
        let uri = format!("https://127.0.0.1{path}");
        let begun = async {
            let mut exchange = self.ask.send_request(Request::get(uri).body(()).unwrap()).await?;
            // It may be answered before it ended, and then its end is not wanted.
            let _ = exchange.finish().await;
            assert_eq!(exchange.recv_response().await?.status(), StatusCode::OK);
            Ok(exchange)
        };
        begun.await.map_err(|error: StreamError| error.to_string())
    }

    /// How many bytes are left of an answer.
    pub(crate) async fn rest(exchange: &mut Exchange) -> Result<usize, String> {
        let mut bytes = 0;
        while let Some(chunk) = exchange.recv_data().await.map_err(|error| error.to_string())? {
            bytes += chunk.remaining();
        }
        Ok(bytes)
    }

    /// Asks and reads the whole answer.
    pub(crate) async fn get(&mut self, path: &str) -> Result<usize, String> {
        Self::rest(&mut self.begin(path).await?).await
    }
}

type Exchange = h3::client::RequestStream<h3_quinn::BidiStream<Bytes>, Bytes>;

/// Everything is public.
fn policy() -> Bytes {
    let channel = ("demo".to_owned(), ChannelPolicy { playback: Playback::Public });
    let session_keys = vec![SessionSecret::new(1, &[1; 32], true)];
    let document = Document { version: 1, session_keys, channels: [channel].into(), ..Document::default() };
    serde_json::to_vec(&document).unwrap().into()
}

/// Objects below this path may be kept for an hour.
pub(crate) const LASTING: &str = "/live/hours/v720/";

/// What an object that may be kept is made of.
pub(crate) fn lasting(path: &str) -> Bytes {
    let line = format!("{path}\n");
    line.repeat((2 << 20) / line.len()).into()
}

pub(crate) struct Upstream {
    addr: SocketAddr,
    /// Nobody gets the policy.
    withheld: watch::Sender<bool>,
    /// How often what may be kept was asked for.
    pub(crate) asked_for_lasting: Arc<AtomicUsize>,
    held: watch::Receiver<usize>,
    released: watch::Sender<()>,
}

impl Upstream {
    pub(crate) fn start() -> Self {
        let bound = Bound::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = bound.local_addr();
        let (counted, held) = watch::channel(0);
        let released = watch::Sender::new(());
        let (releases, withheld) = (released.clone(), watch::Sender::new(false));
        let withholds = withheld.clone();
        let asked_for_lasting = Arc::new(AtomicUsize::new(0));
        let lasting_asked = Arc::clone(&asked_for_lasting);
        let server = Server::new(Limits::default(), ConnectionMetrics::default(), Drain::new());
        server.serve(bound, None, move |request, _| {
            let (counted, mut released) = (counted.clone(), releases.subscribe());
            let mut withheld = withholds.subscribe();
            let lasting_asked = Arc::clone(&lasting_asked);
            async move {
                if request.uri().path() == POLICY {
                    if request.uri().query().is_some_and(|query| query.contains("after=1")) {
                        std::future::pending::<()>().await;
                    }
                    withheld.wait_for(|withheld| !*withheld).await.unwrap();
                    return Response::new(Full::new(policy()));
                }
                let asked = request.uri().query().unwrap_or_default().to_owned();
                if asked.contains("_HLS_msn") {
                    counted.send_modify(|n| *n += 1);
                }
                if asked.contains("_HLS_msn=7") {
                    released.changed().await.unwrap();
                } else if asked.contains("_HLS_msn=99") {
                    std::future::pending::<()>().await;
                }
                let (body, cache_control) = match request.uri().path() {
                    BIG => (Bytes::from(vec![7; 16 << 20]), "max-age=1"),
                    path if path.starts_with(LASTING) => {
                        lasting_asked.fetch_add(1, Ordering::Relaxed);
                        (lasting(path), "max-age=3600")
                    }
                    _ => (Bytes::from_static(b"#EXTM3U\n"), "max-age=1"),
                };
                let mut response = Response::new(Full::new(body));
                response.headers_mut().insert("cache-control", cache_control.parse().unwrap());
                response
            }
        });
        Self { addr, withheld, asked_for_lasting, held, released }
    }

    /// Waits until this many requests, ever, are or were held.
    pub(crate) async fn until_held(&self, n: usize) {
        let mut held = self.held.clone();
        within(held.wait_for(|held| *held >= n)).await.unwrap();
    }

    /// From now on whoever has no policy gets none, or does.
    pub(crate) fn withhold_policy(&self, withheld: bool) {
        self.withheld.send_replace(withheld);
    }

    pub(crate) fn release(&self) {
        self.released.send_replace(());
    }
}

pub(crate) struct Edge {
    pub(crate) http: SocketAddr,
    /// TLS, and HTTP/3 on the same number.
    pub(crate) tls: SocketAddr,
    ops: SocketAddr,
    /// The process that serves now.
    pub(crate) pid: u32,
    first: Child,
    log: mpsc::Receiver<serde_json::Value>,
    file: PathBuf,
    dir: tempfile::TempDir,
}

impl Edge {
    pub(crate) fn start(upstream: &Upstream, more: &str) -> Self {
        Self::start_as(upstream, more, |_, _| {})
    }

    /// One that the upstream knows by a certificate, and that needs its policy.
    pub(crate) fn start_known(upstream: &Upstream) -> Self {
        Self::start_as(upstream, "", |_, file| {
            let (cert, key) = (file.with_file_name("cert.pem"), file.with_file_name("key.pem"));
            let known = format!("[upstream]\ncertificate = {cert:?}\nkey = {key:?}\n");
            let text = std::fs::read_to_string(file).unwrap();
            std::fs::write(file, text.replace("[upstream]\n", &known)).unwrap();
        })
    }

    pub(crate) fn start_as(
        upstream: &Upstream,
        more: &str,
        change: impl FnOnce(&mut Command, &Path),
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("edge.toml");
        write_certificate(dir.path());
        let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
        let config = format!(
            "pop = \"p\"\n[http]\nbind = [\"127.0.0.1:0\"]\n[ops]\nbind = \"127.0.0.1:0\"\n\
             [tls]\nbind = [\"127.0.0.1:0\"]\ncertificate = {cert:?}\nkey = {key:?}\n\
             [upstream]\nurls = [\"http://{}\"]\n{more}",
            upstream.addr
        );
        std::fs::write(&file, config).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_sigma-edge"));
        command.args(["--log-format", "json", "serve", "--config"]).arg(&file);
        command.env_remove("RUST_LOG").stderr(Stdio::piped());
        change(&mut command, &file);
        let mut first = command.spawn().unwrap();
        let (to, mut log) = mpsc::channel(LOG_LINES_MAX);
        let stderr = BufReader::new(first.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in stderr.lines() {
                // A process that cannot start says so in plain words.
                let Ok(event) = serde_json::from_str(&line.unwrap()) else { continue };
                if to.blocking_send(event).is_err() {
                    return;
                }
            }
        });
        let serving = tokio::task::block_in_place(|| {
            loop {
                let event: serde_json::Value = log.blocking_recv().expect("it starts");
                if event["message"] == "serving" {
                    break event;
                }
            }
        });
        let bound = |which: &str| serving[which].as_str().unwrap().trim_matches(['[', ']']).parse().unwrap();
        let (http, tls, ops) = (bound("http"), bound("https"), bound("ops"));
        Self { http, tls, ops, pid: first.id(), first, log, file, dir }
    }

    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.pid.to_string()]).status();
        assert!(status.unwrap().success());
    }

    pub(crate) async fn until_logged(&mut self, message: &str) -> serde_json::Value {
        let logged = async {
            loop {
                let event = self.log.recv().await.expect("a process writes the log");
                if event["message"] == message {
                    return event;
                }
            }
        };
        within(logged).await
    }

    /// Waits until a metric has this value.
    pub(crate) async fn until_measured(&self, name: &str, value: usize) {
        let line = format!("\n{name} {value}\n");
        let measured = async {
            loop {
                let tcp = TcpStream::connect(self.ops).await.unwrap();
                let (mut asked, connection) = http1::handshake(TokioIo::new(tcp)).await.unwrap();
                tokio::spawn(connection);
                let answer = asked.send_request(request("/metrics")).await.unwrap();
                let text = answer.into_body().collect().await.unwrap().to_bytes();
                if String::from_utf8_lossy(&text).contains(&line) {
                    break;
                }
            }
        };
        within(measured).await;
    }

    /// A client that believes the certificate.
    pub(crate) fn quic(&self) -> quinn::Endpoint {
        self.quic_as(quinn::TransportConfig::default())
    }

    /// One that repeats a first packet only when the test is over: what is lost is noticed.
    pub(crate) fn quic_once(&self) -> quinn::Endpoint {
        let mut transport = quinn::TransportConfig::default();
        transport.initial_rtt(PATIENCE);
        self.quic_as(transport)
    }

    fn quic_as(&self, transport: quinn::TransportConfig) -> quinn::Endpoint {
        let tls = client_config(&self.dir.path().join("cert.pem"), &[b"h3"]).unwrap();
        let crypto = QuicClientConfig::try_from(tls).unwrap();
        let mut endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        config.transport_config(Arc::new(transport));
        endpoint.set_default_client_config(config);
        endpoint
    }

    pub(crate) fn rewrite(&self, change: impl FnOnce(String) -> String) {
        let text = std::fs::read_to_string(&self.file).unwrap();
        std::fs::write(&self.file, change(text)).unwrap();
    }

    pub(crate) fn write_certificate(&self) {
        write_certificate(self.dir.path());
    }

    /// How the process ended that was started first.
    pub(crate) async fn first_exit(&mut self) -> Option<i32> {
        tokio::task::block_in_place(|| self.first.wait()).unwrap().code()
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        let _ = self.first.kill();
        let _ = self.first.wait();
        if self.pid != self.first.id() {
            let _ = Command::new("kill")
                .args(["-s", "KILL", &self.pid.to_string()])
                .stderr(Stdio::null())
                .status();
        }
    }
}

fn write_certificate(dir: &Path) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    std::fs::write(dir.join("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(dir.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
}
