//! The binary killed again and again while it counts viewers: what was reported before is told in the end, once, and
//! nothing that did not happen.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failing test may panic")]

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use sigma_http::connections::ConnectionMetrics;
use sigma_http::drain::Drain;
use sigma_http::listener::{Bound, Limits, Server};
use sigma_report::report::{PATH, Report};
use sigma_report::spans::Spans;
use sigma_token::policy::{ChannelPolicy, Document, Playback, SessionSecret};
use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::TcpStream;
use tokio::sync::watch;

const KILLS: u64 = 20;
const VIEWERS: usize = 8;
/// Parts that each viewer gets in a round before it is waited for the report of them, and after.
const REPORTED: u64 = 15;
const MORE: u64 = 5;
const PART_US: u64 = 200_000;
const PATIENCE: Duration = Duration::from_secs(30);

async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("it never happened")
}

fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// What the origin knows.
#[derive(Default)]
struct Known {
    away: bool,
    watched: HashMap<[u8; 16], Spans>,
    acknowledged: u64,
}

#[derive(Clone)]
struct Origin {
    addr: SocketAddr,
    known: Arc<Mutex<Known>>,
    /// The moment before which everything was said in some report, acknowledged or not.
    said: watch::Receiver<u64>,
}

impl Origin {
    fn start() -> Self {
        let bound = Bound::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = bound.local_addr();
        let known = Arc::new(Mutex::new(Known::default()));
        let (say, said) = watch::channel(0);
        let (state, say) = (Arc::clone(&known), Arc::new(say));
        let server = Server::new(Limits::default(), ConnectionMetrics::default(), Drain::new());
        server.serve(bound, None, move |request, _| {
            let (state, say) = (Arc::clone(&state), Arc::clone(&say));
            async move {
                let path = request.uri().path().to_owned();
                if path == PATH {
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    return reported(&state, &say, &body);
                }
                if path == "/internal/edge/policy" {
                    if request.uri().query().is_some_and(|query| query.contains("after=1")) {
                        std::future::pending::<()>().await;
                    }
                    return Response::new(Full::from(policy()));
                }
                part(&path).unwrap_or_else(|| {
                    let mut missing = Response::new(Full::default());
                    *missing.status_mut() = StatusCode::NOT_FOUND;
                    missing
                })
            }
        });
        Self { addr, known, said }
    }

    fn with<T>(&self, f: impl FnOnce(&mut Known) -> T) -> T {
        f(&mut self.known.lock().unwrap())
    }
}

fn policy() -> String {
    let channel = ("demo".to_owned(), ChannelPolicy { playback: Playback::Public });
    let session_keys = vec![SessionSecret::new(1, &[1; 32], true)];
    let document = Document { version: 1, session_keys, channels: [channel].into(), ..Document::default() };
    serde_json::to_string(&document).unwrap()
}

fn reported(state: &Mutex<Known>, say: &watch::Sender<u64>, body: &[u8]) -> Response<Full<Bytes>> {
    let report = Report::decode(body).unwrap();
    say.send_modify(|said| *said = report.complete_until_ms.max(*said));
    let mut known = state.lock().unwrap();
    if known.away {
        let mut later = Response::new(Full::default());
        *later.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        return later;
    }
    known.acknowledged += 1;
    for told in report.sessions {
        let spans = known.watched.entry(told.session).or_default();
        told.watched.iter().for_each(|span| drop(spans.insert(*span)));
    }
    let (incarnation, sequence) = (report.incarnation, report.sequence);
    Response::new(Full::from(format!(r#"{{"incarnation":{incarnation},"sequence":{sequence}}}"#)))
}

/// Part `n` of the channel is `n/10.n%10`.
fn part(path: &str) -> Option<Response<Full<Bytes>>> {
    let (msn, part) = path.strip_prefix("/live/demo/v720/")?.strip_suffix(".m4s")?.split_once('.')?;
    let n = msn.parse::<u64>().ok()? * 10 + part.parse::<u64>().ok()?;
    let (start, end) = (n * PART_US, (n + 1) * PART_US);
    let mut response = Response::new(Full::from(vec![7; 2_000]));
    let cmsd = format!("com.sigma-live-span=\"{start}-{end}\",d=200,ot=v");
    response.headers_mut().insert("cmsd-static", cmsd.parse().unwrap());
    response.headers_mut().insert("cache-control", "max-age=60".parse().unwrap());
    Some(response)
}

/// An edge process.
struct Edge {
    child: Child,
    http: SocketAddr,
}

impl Edge {
    fn start(config: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sigma-edge"));
        command.args(["--log-format", "json", "serve", "--config"]).arg(config);
        let mut child = command.env_remove("RUST_LOG").stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let serving = loop {
            let line = lines.next().expect("it starts").unwrap();
            let event: serde_json::Value = serde_json::from_str(&line).expect(&line);
            if event["message"] == "serving" {
                break event;
            }
        };
        // Somebody has to read what else it says.
        std::thread::spawn(move || lines.for_each(drop));
        let http = serving["http"].as_str().unwrap().trim_matches(['[', ']']).parse().unwrap();
        Self { child, http }
    }

    async fn viewer(&self) -> SendRequest<Empty<Bytes>> {
        let io = TokioIo::new(TcpStream::connect(self.http).await.unwrap());
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        sender
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        // SIGKILL: nothing is finished and nothing is said.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn get(viewer: &mut SendRequest<Empty<Bytes>>, path: &str) -> Response<Bytes> {
    loop {
        let request = Request::builder().uri(format!("http://edge{path}")).body(Empty::new()).unwrap();
        let (head, body) = within(viewer.send_request(request)).await.unwrap().into_parts();
        let body = within(body.collect()).await.unwrap().to_bytes();
        // Until it has its policy it says 503.
        if head.status != StatusCode::SERVICE_UNAVAILABLE {
            return Response::from_parts(head, body);
        }
        tokio::task::yield_now().await;
    }
}

/// Every viewer gets these parts, one after the other.
async fn watch_parts(edge: &Edge, sessions: &[String], parts: std::ops::Range<u64>) {
    let mut watching = Vec::new();
    for session in sessions {
        let (mut viewer, session, parts) = (edge.viewer().await, session.clone(), parts.clone());
        watching.push(tokio::spawn(async move {
            for n in parts {
                let answer = get(&mut viewer, &format!("{session}/v720/{}.{}.m4s", n / 10, n % 10)).await;
                assert_eq!((answer.status(), answer.body().len()), (StatusCode::OK, 2_000));
            }
        }));
    }
    for viewer in watching {
        viewer.await.unwrap();
    }
}

fn configured(dir: &Path, origin: &Origin) -> std::path::PathBuf {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let (spool, file) = (dir.join("spool"), dir.join("edge.toml"));
    let text = format!(
        "pop = \"pop-1\"\n[http]\nbind = [\"127.0.0.1:0\"]\n[ops]\nbind = \"127.0.0.1:0\"\n\
         [upstream]\nurls = [\"http://{}\"]\ncertificate = {cert:?}\nkey = {key:?}\n\
         [reports]\ninterval_ms = 100\nspool_dir = {spool:?}\n",
        origin.addr
    );
    std::fs::write(&file, text).unwrap();
    file
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_killed_twenty_times_loses_only_what_it_had_not_reported() {
    let (dir, origin) = (tempfile::tempdir().unwrap(), Origin::start());
    let config = configured(dir.path(), &origin);
    let mut sessions = Vec::new();
    let mut next = 1_000_000;
    let mut reported = Vec::new();
    for round in 0..KILLS {
        let edge = Edge::start(&config);
        while sessions.len() < VIEWERS {
            let mut viewer = edge.viewer().await;
            let sent = get(&mut viewer, "/live/demo/index.m3u8").await;
            let location = sent.headers()["location"].to_str().unwrap();
            sessions.push(location.strip_suffix("/index.m3u8").unwrap().to_owned());
        }
        // Every other time the origin does not take what it is told.
        origin.with(|known| known.away = round % 2 == 1);
        watch_parts(&edge, &sessions, next..next + REPORTED).await;
        reported.push(next..next + REPORTED);
        let (until, mut said) = (now_ms() + 1, origin.said.clone());
        within(said.wait_for(|said| *said >= until)).await.unwrap();
        watch_parts(&edge, &sessions, next + REPORTED..next + REPORTED + MORE).await;
        next += REPORTED + MORE + 10;
    }
    origin.with(|known| known.away = false);
    let edge = Edge::start(&config);
    let told = |n: u64, spans: &Spans| spans.contains(n * PART_US) && spans.contains((n + 1) * PART_US - 1);
    let complete = || {
        origin.with(|known| {
            let all = |spans: &Spans| reported.iter().cloned().flatten().all(|n| told(n, spans));
            known.watched.len() == VIEWERS && known.watched.values().all(all)
        })
    };
    within(async {
        while !complete() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // And nothing else than what was asked for.
    let most = KILLS * (REPORTED + MORE) * PART_US;
    origin.with(|known| {
        assert!(known.watched.values().all(|spans| spans.length() <= most), "extra watch time");
        assert_eq!(known.watched.len(), VIEWERS, "extra views");
        assert!(known.acknowledged > KILLS);
    });
    drop(edge);
}
