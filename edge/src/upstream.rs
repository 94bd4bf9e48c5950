//! The way to the origins (or to other edges): one connection each, and the choice of whom to ask.
//!
//! Invariants: a request goes to the best healthy upstream; one that fails before a response head, or is late, costs
//! the viewers no answer when another one has it; "there is no such thing" counts only from the upstream that requests
//! normally go to, and "it is over" from another one when nobody says otherwise. Pure: `health` (breakers, fail-back),
//! `race` (whom to ask, whose answer counts). Deliberately absent: caching, and any wait longer than the configured timeouts.

mod connect;
mod counters;
mod health;
mod keeper;
mod link;
mod peer;
mod probe;
mod race;

#[cfg(test)]
pub(crate) use counters::Counters;
pub(crate) use counters::Families;
#[cfg(test)]
pub(crate) use link::Protocol;
pub(crate) use link::UpstreamBody;
pub(crate) use probe::PATH as PROBE_PATH;

use crate::config::UpstreamConfig;
use crate::key::{CacheKey, Coding, Waits};
use crate::metrics::Metrics;
use bytes::Bytes;
use connect::Connector;
use health::{Board, Fault, Order, Rules};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Response};
use link::BoxError;
use peer::{Peer, Question};
use race::{Got, Race, Verdict, Why};
use sigma_http::certificate::Subject;
use sigma_http::ops::Readiness;
use sigma_http::tls::{ReloadableCertificate, TlsError};
use sigma_shared::cmsd;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};

/// What waits for a whole segment is late after so many times what a part is given.
const SEGMENT_HEDGE_FACTOR: u32 = 4;
/// And so is what waits for nothing, but may have to be read from a disk there.
const NOTHING_HEDGE_FACTOR: u32 = 2;
/// Whose hedge won is late when it takes so much longer: one that is a moment behind is as good as the other.
const LATE_BY: Duration = Duration::from_millis(100);
/// What the log calls the certificate that upstreams are shown.
pub(crate) const IDENTITY: Subject = Subject {
    name: "upstream.certificate",
    at_the_end: "upstreams refuse this edge, or give it neither the policy nor a place for its reports",
};
/// For a connection, while others could be asked.
const SHORT_WAIT: Duration = Duration::from_millis(50);

/// Why there is no response. The upstreams or the way to them are to blame; a retry may help.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    /// No connection within the connect timeout.
    #[error("no connection to the upstream")]
    Unreachable,
    /// No response head within the response timeout.
    #[error("no response in time")]
    TimedOut,
    /// Only an upstream that may be behind answered, and knew no such thing.
    #[error("no upstream that knows")]
    Behind,
    /// The connection or the stream broke.
    #[error("{0}")]
    Broken(BoxError),
}

/// A handle on all upstreams. Clones are the same.
#[derive(Clone)]
pub(crate) struct Upstream(Arc<Inner>);

struct Inner {
    peers: Vec<Arc<Peer>>,
    board: Arc<Mutex<Board>>,
    config: UpstreamConfig,
    identity: Option<Arc<ReloadableCertificate>>,
}

type Asked = Result<Response<UpstreamBody>, UpstreamError>;

impl Upstream {
    /// Begins to connect to all upstreams, and keeps connected from now on. Needs a tokio runtime.
    ///
    /// # Errors
    /// The CA file, or the client certificate and its key, cannot be used.
    pub(crate) fn start(config: &UpstreamConfig, metrics: Arc<Metrics>) -> Result<Self, TlsError> {
        let rules = Rules { rest_max: config.reconnect_max(), failback_after: config.failback_after() };
        let board = Arc::new(Mutex::new(Board::new(config.urls.len(), rules)));
        let identity = identity(config)?;
        let mut peers = Vec::with_capacity(config.urls.len());
        for (index, url) in config.urls.iter().enumerate() {
            let counters = metrics.upstreams.of(url.authority.as_str());
            let parts = (Connector::new(url, config, identity.as_ref())?, counters, Arc::clone(&board));
            peers.push(Peer::new(url, index, parts, config));
        }
        drop(metrics);
        for peer in &peers {
            tokio::spawn(keeper::keep_connected(Arc::clone(peer)));
            tokio::spawn(probe::watch(Arc::clone(peer)));
        }
        Ok(Self(Arc::new(Inner { peers, board, config: config.clone(), identity })))
    }

    /// The certificate that upstreams are shown. One that is read again is shown from the next connection on.
    pub(crate) fn identity(&self) -> Option<&Arc<ReloadableCertificate>> {
        self.0.identity.as_ref()
    }

    /// Whether viewers can be served: some upstream is connected, well, and answered lately.
    pub(crate) fn readiness(&self) -> Readiness {
        let inner = &self.0;
        let patience = 3 * inner.config.probe_interval() + Duration::from_secs(1);
        let board = inner.board.lock().unwrap_or_else(PoisonError::into_inner);
        let since = Instant::now().checked_sub(patience);
        let any = |is: &dyn Fn(usize) -> bool| (0..inner.peers.len()).any(is);
        if any(&|peer| since.is_none_or(|since| board.is_fresh(peer, since))) {
            return Readiness::Ready;
        }
        if any(&|peer| board.is_healthy(peer)) {
            return Readiness::NotReady(format!("no upstream answered within {} ms", patience.as_millis()));
        }
        let names: Vec<_> = inner.peers.iter().map(|peer| peer.name()).collect();
        let connected = any(&|peer| board.is_connected(peer));
        let what = if connected { "is well" } else { "is connected" };
        Readiness::NotReady(format!("no upstream {what} (of {})", names.join(", ")))
    }

    /// How long an upstream may be silent, before the response head and inside the body.
    pub(crate) fn patience(&self) -> Duration {
        self.0.config.response_timeout()
    }

    /// How long the body of an object may take in all.
    pub(crate) fn body_patience(&self) -> Duration {
        self.0.config.body_timeout()
    }

    /// Asks for one object and waits for the response head; for what is left of the patience.
    ///
    /// # Errors
    /// No upstream has it: no connection, no answer in time, or a broken one.
    pub(crate) async fn fetch(&self, key: &CacheKey, left: Duration) -> Asked {
        let order = self.order();
        let end = Instant::now() + left;
        within(end, self.race(key, order, end)).await
    }

    /// Asks again after a body broke off, elsewhere if possible; for what is left of the patience.
    ///
    /// # Errors
    /// As [`Upstream::fetch`].
    pub(crate) async fn fetch_again(&self, key: &CacheKey, broken: &UpstreamBody, left: Duration) -> Asked {
        let mut order = self.order();
        order.put_last(broken.from());
        let end = Instant::now() + left;
        within(end, self.race(key, order, end)).await
    }

    /// Asks for something that is no object of the cache, of any upstream that answers.
    ///
    /// # Errors
    /// As [`Upstream::fetch`]; also when `path_and_query` is none.
    pub(crate) async fn get_uncached(&self, path_and_query: &str) -> Asked {
        let question = question(path_and_query, false, true)?;
        self.ask_any(&question).await
    }

    /// Posts something that may arrive twice, to any upstream that answers.
    ///
    /// # Errors
    /// As [`Upstream::fetch`]; also when `path` is none.
    pub(crate) async fn post(&self, path: &str, headers: HeaderMap, body: Bytes) -> Asked {
        let asked = question(path, false, true)?;
        let posted = Some(Arc::new((headers, body)));
        self.ask_any(&Question { method: Method::POST, posted, ..asked }).await
    }

    async fn ask_any(&self, question: &Question) -> Asked {
        let asking = async {
            let order = self.order();
            let mut failed = UpstreamError::Unreachable;
            let last = order.ranked.len().saturating_sub(1);
            for (place, upstream) in order.ranked.into_iter().enumerate() {
                let wait = if place == last { self.0.config.connect_timeout() } else { SHORT_WAIT };
                match self.0.peers[upstream].ask(question, wait).await {
                    Ok(response) => return Ok(response),
                    Err(error) => failed = error,
                }
            }
            Err(failed)
        };
        within(Instant::now() + self.patience(), asking).await
    }

    fn order(&self) -> Order {
        let mut board = self.0.board.lock().unwrap_or_else(PoisonError::into_inner);
        let before = board.active();
        let order = board.order(Instant::now());
        let active = board.active();
        drop(board);
        for peer in &self.0.peers {
            peer.counters.active.set(i64::from(peer.index == active));
        }
        if before != active {
            let (from, to) = (self.0.peers[before].name(), self.0.peers[active].name());
            tracing::warn!(from, to, "requests go to another upstream");
        }
        order
    }

    /// Until `end`: whoever has not answered by then has failed.
    async fn race(&self, key: &CacheKey, order: Order, end: Instant) -> Asked {
        let question = question(&key.to_string(), key.coding() == Coding::Gzip, key.names_a_moment())?;
        let late_after = self.0.config.hedge_after()
            * match key.waits_for() {
                Waits::Nothing => NOTHING_HEDGE_FACTOR,
                Waits::Part => 1,
                Waits::Segment => SEGMENT_HEDGE_FACTOR,
            };
        let mut race = Race::new(order, late_after, Instant::now());
        let mut runners = Runners { upstream: self, running: Vec::new(), late_after, end, heard: false };
        let mut last = UpstreamError::Unreachable;
        let mut spare = None;
        loop {
            while let Some((upstream, why)) = race.due(Instant::now()) {
                let alone = race.is_last_resort(upstream);
                let wait = if alone { self.0.config.connect_timeout() } else { SHORT_WAIT };
                runners.start(upstream, why, &question, wait);
            }
            if race.is_lost() {
                return spare.ok_or(last);
            }
            let (upstream, why, asked) = tokio::select! {
                finished = runners.next() => finished,
                () = until(race.wake_at()) => continue,
            };
            runners.heard |= asked.is_ok();
            let got = match &asked {
                Ok(response) if response.status().is_server_error() => Got::Failure,
                Ok(response) if response.status().is_client_error() => Got::Refusal,
                Ok(response) if is_over(response.headers()) => Got::End,
                Ok(_) => Got::Good,
                Err(_) => Got::Nothing,
            };
            match (race.answered(upstream, got, Instant::now()), asked) {
                (Verdict::Take, Ok(response)) => {
                    runners.won(upstream, why);
                    return Ok(response);
                }
                (_, Ok(response)) if got == Got::Failure => spare = Some(response),
                // Viewers come again after a failure, and after an end they do not.
                (_, Ok(response)) if got == Got::End => spare = spare.or(Some(response)),
                (_, Ok(_)) => last = UpstreamError::Behind,
                (_, Err(error)) => last = error,
            }
        }
    }
}

/// Reads the certificate that upstreams are to be shown, if there is one.
///
/// # Errors
/// It and its key cannot be used.
pub(crate) fn identity(config: &UpstreamConfig) -> Result<Option<Arc<ReloadableCertificate>>, TlsError> {
    config.identity().map(|(certificate, key)| ReloadableCertificate::load(certificate, key)).transpose()
}

fn question(path: &str, gzip: bool, moment: bool) -> Result<Question, UpstreamError> {
    // Keys print as plain paths: what the grammar accepts needs no escaping.
    let path = path.parse::<PathAndQuery>().map_err(|error| UpstreamError::Broken(error.into()))?;
    Ok(Question { method: Method::GET, path, gzip, moment, posted: None })
}

/// Whether it is the playlist of a broadcast that is over.
fn is_over(headers: &HeaderMap) -> bool {
    let said = headers.get(cmsd::CMSD_STATIC).and_then(|value| value.to_str().ok());
    said.and_then(cmsd::tip).is_some_and(|tip| tip.ended)
}

async fn within(end: Instant, asking: impl Future<Output = Asked>) -> Asked {
    tokio::time::timeout_at(end.into(), asking).await.unwrap_or(Err(UpstreamError::TimedOut))
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// The requests of one race that are on their way. Those that are left when it is dropped are cancelled.
struct Runners<'a> {
    upstream: &'a Upstream,
    running: Vec<Runner>,
    /// Who is silent for longer is late.
    late_after: Duration,
    /// Of the race.
    end: Instant,
    /// Some upstream answered, whatever it said.
    heard: bool,
}

struct Runner {
    upstream: usize,
    why: Why,
    since: Instant,
    asking: Pin<Box<dyn Future<Output = Asked> + Send>>,
}

impl Runners<'_> {
    fn start(&mut self, upstream: usize, why: Why, question: &Question, wait: Duration) {
        let peer = &self.upstream.0.peers[upstream];
        if why == Why::Hedge {
            peer.counters.hedges_sent.inc();
        }
        let (peer, question) = (Arc::clone(peer), question.clone());
        let asking = Box::pin(async move { peer.ask(&question, wait).await });
        self.running.push(Runner { upstream, why, since: Instant::now(), asking });
    }

    /// Waits for the next one to finish; for ever when there is none.
    async fn next(&mut self) -> (usize, Why, Asked) {
        poll_fn(|cx| {
            for place in 0..self.running.len() {
                if let Poll::Ready(asked) = self.running[place].asking.as_mut().poll(cx) {
                    let runner = self.running.swap_remove(place);
                    return Poll::Ready((runner.upstream, runner.why, asked));
                }
            }
            Poll::Pending
        })
        .await
    }

    /// The others are not needed any more. Whom a hedge won against has a moment left to show that it was not far behind.
    fn won(&mut self, upstream: usize, why: Why) {
        let peers = &self.upstream.0.peers;
        if why == Why::Hedge {
            peers[upstream].counters.hedges_won.inc();
        }
        for other in self.running.drain(..) {
            let peer = Arc::clone(&peers[other.upstream]);
            peer.counters.cancelled.inc();
            if why == Why::Hedge {
                tokio::spawn(async move {
                    // What it answers is dropped, which cancels the rest. What went wrong is noted where it is asked.
                    if tokio::time::timeout(LATE_BY, other.asking).await.is_err() {
                        peer.failed(Fault::Late);
                    }
                });
            }
        }
    }
}

impl Drop for Runners<'_> {
    fn drop(&mut self) {
        let now = Instant::now();
        for left in self.running.drain(..) {
            let peer = &self.upstream.0.peers[left.upstream];
            // While another one answers that there is nothing yet, one that began later may well be waiting for it.
            let given = if self.heard { self.upstream.patience() } else { self.late_after };
            if now >= self.end && now.saturating_duration_since(left.since) >= given {
                peer.counters.timed_out.inc();
                peer.failed(Fault::Timeout);
            } else {
                peer.counters.cancelled.inc();
            }
        }
    }
}
