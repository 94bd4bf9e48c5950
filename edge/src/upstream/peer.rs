//! One upstream: its connection, what is known of its health, and asking it something.
//!
//! Invariants: who waits for an upstream that has fallen silent is told at once; a connection that broke is no fault of
//! the answers it carried (its keeper finds out whether the upstream is gone). The board's lock is never held over an
//! await.

use super::UpstreamError;
use super::connect::{Connector, Driver};
use super::counters::Counters;
use super::health::{Board, Circuit, Fault};
use super::link::{Link, Protocol, SendError, Sender, UpstreamBody};
use crate::config::{UpstreamConfig, UpstreamUrl};
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Response, StatusCode, Uri};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};

const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("sigma-edge/", env!("CARGO_PKG_VERSION")));
/// With so many requests in flight, one more may be waiting for a free stream: it says nothing about the upstream.
const BUSY: usize = 64;

/// What is asked.
#[derive(Debug, Clone)]
pub(super) struct Question {
    pub(super) method: Method,
    pub(super) path: PathAndQuery,
    pub(super) gzip: bool,
    /// Whether "not now" (503) is an answer that a healthy upstream may give.
    pub(super) moment: bool,
    /// Headers and body of what is posted.
    pub(super) posted: Option<Arc<(HeaderMap, Bytes)>>,
}

/// See the module.
pub(crate) struct Peer {
    pub(super) index: usize,
    pub(super) config: UpstreamConfig,
    pub(super) connector: Connector,
    pub(super) counters: Counters,
    /// The prober is to look again.
    pub(super) recheck: Notify,
    /// Its last connection ended before it answered anything: the log says so, and not again that one was made and lost.
    pub(super) doubted: AtomicBool,
    scheme: Scheme,
    authority: Authority,
    link: watch::Sender<Option<Link>>,
    generations: AtomicU64,
    silent: watch::Sender<bool>,
    in_flight: AtomicUsize,
    board: Arc<Mutex<Board>>,
}

impl Peer {
    pub(super) fn new(
        url: &UpstreamUrl,
        index: usize,
        parts: (Connector, Counters, Arc<Mutex<Board>>),
        config: &UpstreamConfig,
    ) -> Arc<Self> {
        let (connector, counters, board) = parts;
        Arc::new(Self {
            index,
            config: config.clone(),
            connector,
            counters,
            recheck: Notify::new(),
            doubted: AtomicBool::new(false),
            scheme: url.scheme.clone(),
            authority: url.authority.clone(),
            link: watch::Sender::new(None),
            generations: AtomicU64::new(0),
            silent: watch::Sender::new(false),
            in_flight: AtomicUsize::new(0),
            board,
        })
    }

    /// Host and port, for people.
    pub(super) fn name(&self) -> &str {
        self.authority.as_str()
    }

    pub(super) fn links(&self) -> watch::Receiver<Option<Link>> {
        self.link.subscribe()
    }

    pub(super) fn is_connected(&self) -> bool {
        self.link.borrow().is_some()
    }

    pub(super) fn is_busy(&self) -> bool {
        self.in_flight.load(Ordering::Relaxed) >= BUSY
    }

    pub(super) fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, transition: impl FnOnce(&mut Board)) {
        let mut board = self.board();
        let before = board.circuit(self.index);
        transition(&mut board);
        let (after, silent) = (board.circuit(self.index), board.is_silent(self.index));
        self.counters.state.set(match after {
            Circuit::Closed => 0,
            Circuit::HalfOpen => 1,
            Circuit::Open(_) => 2,
        });
        self.silent.send_if_modified(|was| std::mem::replace(was, silent) != silent);
        drop(board);
        match (before, after) {
            (Circuit::Closed, Circuit::Open(_)) => tracing::warn!(upstream = self.name(), "not well"),
            (Circuit::Open(_) | Circuit::HalfOpen, Circuit::Closed) => {
                tracing::info!(upstream = self.name(), "well again");
            }
            _ => {}
        }
    }

    pub(super) fn succeeded(&self) {
        self.change(|board| board.succeeded(self.index, Instant::now()));
    }

    pub(super) fn probed(&self) {
        self.change(|board| board.probed(self.index, Instant::now()));
    }

    pub(super) fn may_probe(&self) -> bool {
        let mut may = false;
        self.change(|board| may = board.may_probe(self.index, Instant::now()));
        may
    }

    pub(super) fn failed(&self, fault: Fault) {
        self.change(|board| board.failed(self.index, fault, Instant::now(), fastrand::u64(..)));
        self.recheck.notify_one();
    }

    /// A body broke off.
    pub(super) fn broke_off(&self) {
        self.counters.broken.inc();
        if self.is_connected() {
            self.failed(Fault::Broken);
        }
    }

    /// Offers a connection to requests. Open streams of the one before go on.
    pub(super) fn offer(self: &Arc<Self>, sender: Sender, driver: Driver) {
        let generation = self.generations.fetch_add(1, Ordering::Relaxed);
        let protocol = sender.protocol();
        self.counters.of(protocol).connects.inc();
        self.set_connected(Some(protocol));
        self.change(|board| board.connected(self.index, true));
        self.link.send_replace(Some(Link { sender, generation }));
        if !self.doubted.load(Ordering::Relaxed) {
            tracing::info!(upstream = self.name(), protocol = protocol.name(), "connected");
        }
        let peer = Arc::clone(self);
        tokio::spawn(async move {
            match driver.await {
                Err(error) if peer.doubted.load(Ordering::Relaxed) => {
                    tracing::debug!(upstream = peer.name(), %error, "connection lost again");
                }
                Err(error) => tracing::warn!(upstream = peer.name(), %error, "connection lost"),
                Ok(()) => {}
            }
            peer.retire(generation);
        });
    }

    /// Takes a connection out of use, if it is the one in use.
    pub(super) fn retire(&self, generation: u64) {
        self.link.send_if_modified(|link| {
            let current = link.as_ref().is_some_and(|link| link.generation == generation);
            if current {
                *link = None;
                self.set_connected(None);
                self.change(|board| board.connected(self.index, false));
            }
            current
        });
    }

    fn set_connected(&self, in_use: Option<Protocol>) {
        for protocol in [Protocol::H2, Protocol::H3] {
            self.counters.of(protocol).connected.set(i64::from(in_use == Some(protocol)));
        }
    }

    /// Asks, and waits for the response head; for a connection up to `wait`.
    pub(super) async fn ask(
        self: &Arc<Self>,
        question: &Question,
        wait: Duration,
    ) -> Result<Response<UpstreamBody>, UpstreamError> {
        let began = Instant::now();
        let asked = tokio::select! {
            biased;
            asked = self.ask_when_well(question, wait) => asked,
            () = self.fell_silent() => Err(UpstreamError::Unreachable),
        };
        match &asked {
            Ok(response) => {
                let status = response.status();
                self.counters.head_seconds.observe(began.elapsed().as_secs_f64());
                let good = status.is_success() || status.is_redirection();
                if good { &self.counters.success } else { &self.counters.error_status }.inc();
                let later = response.headers().contains_key(header::RETRY_AFTER);
                match status {
                    // It waited in vain, as it should have; or what was asked for is not there yet, as of a channel that
                    // is about to be live. Whether the upstream itself is well, its probes say.
                    StatusCode::SERVICE_UNAVAILABLE if question.moment || later => {}
                    status if status.is_server_error() => self.failed(Fault::Status),
                    _ => self.succeeded(),
                }
            }
            Err(UpstreamError::Broken(_)) => {
                self.counters.broken.inc();
            }
            Err(_) => {
                self.counters.unreachable.inc();
            }
        }
        asked
    }

    async fn ask_when_well(
        self: &Arc<Self>,
        question: &Question,
        wait: Duration,
    ) -> Result<Response<UpstreamBody>, UpstreamError> {
        let (mut silent, mut links) = (self.silent.subscribe(), self.links());
        loop {
            let well = async {
                // The senders live in `self`: neither wait ends early.
                let _ = silent.wait_for(|silent| !*silent).await;
                links.wait_for(Option::is_some).await.ok().and_then(|link| link.clone())
            };
            let link = tokio::time::timeout(wait, well).await.ok().flatten();
            let link = link.ok_or(UpstreamError::Unreachable)?;
            if let Some(answer) = self.ask_over(link, question).await {
                return answer;
            }
        }
    }

    /// Asks over the connection in use, whatever is known of it.
    pub(super) async fn ask_now(
        self: &Arc<Self>,
        question: &Question,
    ) -> Result<Response<UpstreamBody>, UpstreamError> {
        let link = self.link.borrow().clone().ok_or(UpstreamError::Unreachable)?;
        self.ask_over(link, question).await.unwrap_or(Err(UpstreamError::Unreachable))
    }

    /// `None` when the connection was going away and the upstream has not seen the request.
    async fn ask_over(
        self: &Arc<Self>,
        mut link: Link,
        question: &Question,
    ) -> Option<Result<Response<UpstreamBody>, UpstreamError>> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        let _counted = InFlight(&self.in_flight);
        match link.sender.send(self.request(question)).await {
            Ok(response) => Some(Ok(response.map(|source| UpstreamBody::new(source, Arc::clone(self))))),
            // This link is not tried again, so asking ends.
            Err(SendError::NotSent) => {
                self.retire(link.generation);
                None
            }
            Err(SendError::Broken(error)) => {
                if link.sender.is_closed() {
                    self.retire(link.generation);
                } else {
                    self.failed(Fault::Broken);
                }
                Some(Err(UpstreamError::Broken(error)))
            }
        }
    }

    /// Returns when the upstream becomes silent after it was not.
    async fn fell_silent(&self) {
        let mut silent = self.silent.subscribe();
        let _ = silent.wait_for(|silent| !*silent).await;
        let _ = silent.wait_for(|silent| *silent).await;
    }

    fn request(&self, question: &Question) -> Request<Bytes> {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(question.path.clone());
        let (headers, body) = question.posted.as_deref().cloned().unwrap_or_default();
        let mut request = Request::new(body);
        *request.headers_mut() = headers;
        *request.method_mut() = question.method.clone();
        *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
        let headers = request.headers_mut();
        headers.insert(header::USER_AGENT, USER_AGENT);
        if question.gzip {
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        }
        request
    }
}

struct InFlight<'a>(&'a AtomicUsize);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
