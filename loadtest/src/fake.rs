//! A low-latency server for tests: its time is made of events. A part comes into being when enough requests wait for
//! it, so tests need no clock; faults are injected per request.

use crate::address::Address;
use crate::dial::{DialConfig, Dialer, Protocol};
use bytes::Bytes;
use http::{Request, Response};
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use sigma_shared::directives::Directives;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

pub(crate) const FIRST_MSN: u64 = 100;
pub(crate) const SEGMENT_PARTS: u64 = 4;

/// What goes wrong with a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    Status(u16),
    /// No response at all.
    Close,
    /// Half the body.
    Truncate,
    /// A response that never comes.
    Stall,
    /// A body nobody else gets.
    OtherBytes,
    /// Answered as if the directives were not there, without waiting.
    Hurry,
    /// A playlist of long ago.
    Past,
    /// `302` to another path.
    Redirect(&'static str),
}

type Faults = Box<dyn Fn(&str, u64) -> Fault + Send + Sync>;

struct State {
    /// Parts that exist.
    tip: watch::Sender<u64>,
    /// Requests waiting for the next part.
    waiting: AtomicU64,
    /// How many must wait for it to appear.
    release_at: u64,
    faults: Faults,
    hits: Mutex<BTreeMap<String, u64>>,
    asked: watch::Sender<()>,
    media_served: AtomicU64,
    done_at: u64,
    done: watch::Sender<bool>,
}

pub(crate) struct Fake {
    pub(crate) address: Address,
    state: Arc<State>,
}

impl Fake {
    /// `faults` gets the path with its query and how often it was asked for, from 1.
    pub(crate) async fn start(
        release_at: u64,
        done_at: u64,
        faults: impl Fn(&str, u64) -> Fault + Send + Sync + 'static,
    ) -> Self {
        Self::start_with(None, release_at, done_at, Box::new(faults)).await
    }

    /// With a certificate, and nothing going wrong.
    pub(crate) async fn start_tls(tls: TlsAcceptor, done_at: u64) -> Self {
        Self::start_with(Some(tls), 1, done_at, Box::new(|_, _| Fault::None)).await
    }

    async fn start_with(tls: Option<TlsAcceptor>, release_at: u64, done_at: u64, faults: Faults) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let address = format!("{scheme}://{}/live/a/index.m3u8", listener.local_addr().unwrap());
        let state = Arc::new(State {
            tip: watch::channel(6).0,
            waiting: AtomicU64::new(0),
            release_at,
            faults,
            hits: Mutex::default(),
            asked: watch::channel(()).0,
            media_served: AtomicU64::new(0),
            done_at,
            done: watch::channel(false).0,
        });
        let serving = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let state = Arc::clone(&serving);
                let service = service_fn(move |request| respond(Arc::clone(&state), request));
                let tls = tls.clone();
                tokio::spawn(async move {
                    let builder = auto::Builder::new(TokioExecutor::new());
                    if let Some(tls) = tls {
                        if let Ok(stream) = tls.accept(stream).await {
                            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                        }
                    } else {
                        let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                    }
                });
            }
        });
        Self { address: address.parse().unwrap(), state }
    }

    /// Resolves when `done_at` parts have been served.
    pub(crate) async fn done(&self) {
        self.state.done.subscribe().wait_for(|done| *done).await.unwrap();
    }

    /// Resolves when a path has been asked for so often.
    pub(crate) async fn asked(&self, path: &str, times: u64) {
        let mut asked = self.state.asked.subscribe();
        while self.hits(path) < times {
            asked.changed().await.unwrap();
        }
    }

    pub(crate) fn hits(&self, path: &str) -> u64 {
        self.state.hits.lock().unwrap().get(path).copied().unwrap_or_default()
    }
}

/// A dialer without TLS.
pub(crate) fn dialer(protocol: Protocol) -> Dialer {
    Dialer::new(DialConfig { protocol, trust: None, allow_remote: false, timeout: Duration::from_secs(5) })
}

async fn respond(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Content>, &'static str> {
    let whole = request.uri().path_and_query().unwrap().as_str();
    // What viewers say of themselves is nothing that they ask for.
    let whole = whole.split(['?', '&']).filter(|pair| !pair.starts_with("CMCD=")).collect::<Vec<_>>();
    let whole = [whole[..1].concat(), whole[1..].join("&")].join("?").trim_end_matches('?').to_owned();
    let hit = {
        let mut hits = state.hits.lock().unwrap();
        let hit = hits.entry(whole.clone()).or_default();
        *hit += 1;
        *hit
    };
    state.asked.send_replace(());
    let fault = (state.faults)(&whole, hit);
    let response = Response::builder();
    match fault {
        Fault::Status(status) => return Ok(response.status(status).body(Content::whole("no")).unwrap()),
        Fault::Close => return Err("closed"),
        Fault::Stall => std::future::pending().await,
        Fault::Redirect(to) => {
            return Ok(response.status(302).header("location", to).body(Content::whole("")).unwrap());
        }
        _ => {}
    }
    let path = request.uri().path();
    let file = path.rsplit('/').next().unwrap();
    let mut content = match file {
        "index.m3u8" => Content::whole(
            "#EXTM3U\n#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"g\",NAME=\"x\",DEFAULT=YES,URI=\"a/media.m3u8\"\n\
             #EXT-X-STREAM-INF:BANDWIDTH=1,AUDIO=\"g\"\nv/media.m3u8\n",
        ),
        "media.m3u8" => {
            let directives = Directives::parse(request.uri().query().unwrap_or_default()).unwrap();
            Content::whole(state.playlist(directives, fault).await)
        }
        "metrics" => Content::whole(format!("up_total{{x=\"y\"}} {}\n", *state.tip.borrow())),
        _ => {
            if state.media_served.fetch_add(1, Ordering::Relaxed) + 1 >= state.done_at {
                state.done.send_replace(true);
            }
            Content::whole(format!("bytes of {}", &path[path.rfind("/live/").unwrap()..]))
        }
    };
    if fault == Fault::OtherBytes {
        content.pieces.push(Ok(Bytes::from("!")));
    }
    let length: usize = content.pieces.iter().flatten().map(Bytes::len).sum();
    if fault == Fault::Truncate {
        content.pieces = vec![Ok(Bytes::from("b")), Err("cut")];
    }
    content.pieces.reverse();
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    Ok(response
        .header("content-length", length)
        .header("cmsd-static", format!("at={now_ms},ot=v"))
        .body(content)
        .unwrap())
}

impl State {
    async fn playlist(&self, want: Directives, fault: Fault) -> String {
        if let Some(msn) = want.msn.filter(|_| fault != Fault::Hurry) {
            let index = (msn - FIRST_MSN) * SEGMENT_PARTS + u64::from(want.part.unwrap_or_default());
            if *self.tip.borrow() <= index {
                if self.waiting.fetch_add(1, Ordering::SeqCst) + 1 >= self.release_at {
                    self.waiting.store(0, Ordering::SeqCst);
                    self.tip.send_modify(|tip| *tip = (*tip).max(index + 1));
                }
                self.tip.subscribe().wait_for(|tip| *tip > index).await.unwrap();
            }
        }
        let tip = if fault == Fault::Past { 5 } else { *self.tip.borrow() };
        let mut text = format!(
            "#EXTM3U\n#EXT-X-TARGETDURATION:1\n\
             #EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=0.6\n\
             #EXT-X-PART-INF:PART-TARGET=0.2\n#EXT-X-MEDIA-SEQUENCE:{FIRST_MSN}\n#EXT-X-MAP:URI=\"init.mp4\"\n"
        );
        for index in 0..tip {
            let (msn, part) = (FIRST_MSN + index / SEGMENT_PARTS, index % SEGMENT_PARTS);
            let independent = if part == 0 { ",INDEPENDENT=YES" } else { "" };
            writeln!(text, "#EXT-X-PART:DURATION=0.2,URI=\"{msn}.{part}.m4s\"{independent}").unwrap();
            if part + 1 == SEGMENT_PARTS {
                writeln!(text, "#EXTINF:0.8,\n{msn}.m4s").unwrap();
            }
        }
        text
    }
}

/// A body in pieces, the next one last; an error breaks the response off.
pub(crate) struct Content {
    pieces: Vec<Result<Bytes, &'static str>>,
    paused: bool,
}

impl Content {
    fn whole(text: impl Into<String>) -> Self {
        Self { pieces: vec![Ok(Bytes::from(text.into()))], paused: false }
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        // What was given before an error is sent before it.
        if matches!(self.pieces.last(), Some(Err(_))) && !std::mem::replace(&mut self.paused, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(self.pieces.pop().map(|piece| piece.map(Frame::data)))
    }
}
