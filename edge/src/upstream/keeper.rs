//! Keeps one upstream connected: connects, watches, connects again.
//!
//! Invariants: HTTP/3 is preferred and never waited for: HTTP/2 starts a little later, and whichever completes first
//! is used; while on HTTP/2, HTTP/3 is tried again slowly. An upstream that is gone is tried often and by both, so that
//! its return is noticed within a fraction of a part. QUIC is not told when its peer's process dies: a connection that
//! answers nothing is replaced as soon as a new one can be made.

use super::connect::{ConnectError, Made};
use super::health::{Fault, rest};
use super::link::{Link, Protocol, Sender};
use super::peer::Peer;
use crate::config::UpstreamProtocol;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// A connection that lived shorter than this counts as a failed attempt, so that it is not retried in a tight loop.
const STABLE_AFTER: Duration = Duration::from_secs(1);
/// The longest rest between connections that end before they answered anything. That is a decision of the upstream, such as
/// against a certificate, and not an outage that is over any moment.
const REFUSED_REST_MAX: Duration = Duration::from_secs(5);
/// What HTTP/3 gets before HTTP/2 is tried beside it.
const HEAD_START: Duration = Duration::from_millis(250);
/// Another attempt beside those that had no answer yet: their first packet may be lost.
const STAGGER: Duration = Duration::from_millis(200);
/// How long QUIC packets may go unanswered before another connection is tried; acknowledgements take 25 ms and a
/// round trip.
const UNANSWERED_MAX: Duration = Duration::from_millis(500);
const WATCH_INTERVAL: Duration = Duration::from_millis(100);
/// About how often HTTP/3 is tried again while on HTTP/2.
const UPGRADE_INTERVAL: Duration = Duration::from_secs(60);

struct Keeper {
    peer: Arc<Peer>,
    failures: u32,
    /// Connections in a row that ended at once without an answer.
    refusals: u32,
    /// The last attempt at HTTP/3 had its time and failed.
    h3_failed: bool,
}

/// Runs for as long as the edge does.
pub(super) async fn keep_connected(peer: Arc<Peer>) {
    let mut keeper = Keeper { peer, failures: 0, refusals: 0, h3_failed: false };
    loop {
        if let Some(made) = keeper.connect(true).await {
            let (began, protocol) = (Instant::now(), made.sender.protocol());
            let stable = keeper.live_and_prove(made).await;
            if stable {
                (keeper.failures, keeper.refusals) = (0, 0);
                continue;
            }
            let peer = &keeper.peer;
            // Over plain HTTP nothing is refused: it is a proxy whose upstream is away.
            if !peer.connector.is_https() || peer.board().has_answered(peer.index, began.into_std()) {
                keeper.refusals = 0;
            } else {
                keeper.refused(protocol);
            }
        } else {
            keeper.refusals = 0;
        }
        keeper.failures = keeper.failures.saturating_add(1);
        let (count, max) = match keeper.refusals {
            0 => (keeper.failures, keeper.peer.config.reconnect_max()),
            refusals => (refusals, keeper.peer.config.reconnect_max().max(REFUSED_REST_MAX)),
        };
        sleep(rest(count, max, fastrand::u64(..))).await;
    }
}

type Attempts = JoinSet<(Protocol, Result<Made, ConnectError>)>;

impl Keeper {
    fn protocols(&self) -> (Protocol, Option<Protocol>) {
        match self.peer.config.protocol {
            _ if !self.peer.connector.is_https() => (Protocol::H2, None),
            UpstreamProtocol::Auto => (Protocol::H3, Some(Protocol::H2)),
            UpstreamProtocol::H2 => (Protocol::H2, None),
            UpstreamProtocol::H3 => (Protocol::H3, None),
        }
    }

    fn attempt(&self, attempts: &mut Attempts, protocol: Protocol) {
        let peer = Arc::clone(&self.peer);
        attempts.spawn(async move {
            let made = match protocol {
                Protocol::H2 => peer.connector.h2().await,
                Protocol::H3 => peer.connector.h3().await,
            };
            (protocol, made)
        });
    }

    /// The first connection that can be made within the connect timeout. `alarming` failures count against the
    /// upstream's health.
    async fn connect(&mut self, alarming: bool) -> Option<Made> {
        let (first, second) = self.protocols();
        let mut attempts = JoinSet::new();
        self.attempt(&mut attempts, first);
        let rushed = self.failures > 0 || self.h3_failed;
        let mut next = match second {
            Some(_) if rushed => Instant::now(),
            Some(_) => Instant::now() + HEAD_START,
            None => Instant::now() + STAGGER,
        };
        let deadline = Instant::now() + self.peer.config.connect_timeout();
        loop {
            tokio::select! {
                Some(joined) = attempts.join_next() => {
                    let Ok((protocol, made)) = joined else { continue };
                    match made {
                        Ok(made) => return Some(made),
                        Err(error) => self.note(protocol, &error, alarming),
                    }
                    if attempts.is_empty() {
                        second?;
                        next = next.min(Instant::now() + Duration::from_millis(10));
                    }
                }
                () = sleep_until(next) => {
                    self.attempt(&mut attempts, second.unwrap_or(first));
                    next = Instant::now() + STAGGER;
                }
                () = sleep_until(deadline) => {
                    self.h3_failed |= first == Protocol::H3;
                    self.note(first, &ConnectError::TimedOut, alarming);
                    return None;
                }
            }
        }
    }

    async fn connect_at_last(&mut self) -> Made {
        loop {
            if let Some(made) = self.connect(true).await {
                return made;
            }
            sleep(rest(1, self.peer.config.reconnect_max(), fastrand::u64(..))).await;
        }
    }

    fn note(&self, protocol: Protocol, error: &ConnectError, alarming: bool) {
        self.peer.counters.of(protocol).connect_failures.inc();
        if self.failures == 0 {
            let upstream = self.peer.name();
            tracing::warn!(upstream, protocol = protocol.name(), %error, "cannot connect; retrying");
        }
        if alarming {
            self.peer.failed(Fault::Connect);
        }
    }

    /// A connection was made and ended at once, before anything was answered: to who waits for answers, none was made. In TLS
    /// 1.3 a client learns only then that its certificate is refused.
    fn refused(&mut self, protocol: Protocol) {
        self.refusals = self.refusals.saturating_add(1);
        let peer = &self.peer;
        peer.counters.of(protocol).connect_failures.inc();
        peer.failed(Fault::Connect);
        if !peer.doubted.swap(true, Ordering::Relaxed) {
            tracing::error!(
                upstream = peer.name(),
                protocol = protocol.name(),
                "the upstream ends connections at once, before it answers anything; perhaps it refuses the certificate \
                 in upstream.certificate (expired? of a CA that it does not know?): see its log; trying again, ever slower"
            );
        }
    }

    /// Lives with a connection until it is retired. Whether that was a life.
    async fn live_and_prove(&mut self, made: Made) -> bool {
        let (peer, protocol) = (Arc::clone(&self.peer), made.sender.protocol());
        let mut life = pin!(self.live(made));
        if timeout(STABLE_AFTER, &mut life).await.is_ok() {
            return false;
        }
        if peer.doubted.swap(false, Ordering::Relaxed) {
            tracing::info!(upstream = peer.name(), protocol = protocol.name(), "connected, and it lasts");
        }
        life.await;
        true
    }

    /// Offers the connection to requests, and better ones when there are, until it is retired.
    async fn live(&mut self, made: Made) {
        let auto = self.protocols().1.is_some();
        let mut upgrade_at = Instant::now();
        if self.h3_failed {
            upgrade_at += upgrade_rest();
        }
        let mut links = self.peer.links();
        self.peer.offer(made.sender, made.driver);
        loop {
            let Some(link) = links.borrow_and_update().clone() else { return };
            let replaced = match &link.sender {
                Sender::H2(_) if auto => {
                    let upgraded = self.upgrade(&mut links, upgrade_at).await;
                    upgrade_at = Instant::now() + upgrade_rest();
                    upgraded
                }
                Sender::H2(_) => {
                    gone(&mut links).await;
                    None
                }
                Sender::H3(_, connection) => self.replace(&mut links, &connection.clone()).await,
            };
            if let Some(made) = replaced {
                drop(link);
                self.peer.offer(made.sender, made.driver);
            }
        }
    }

    /// Tries HTTP/3 once, when it is time.
    async fn upgrade(&mut self, links: &mut watch::Receiver<Option<Link>>, at: Instant) -> Option<Made> {
        let peer = Arc::clone(&self.peer);
        let attempt = async {
            sleep_until(at).await;
            timeout(peer.config.connect_timeout(), peer.connector.h3()).await
        };
        tokio::select! {
            () = gone(links) => None,
            attempted = attempt => {
                let made = attempted.unwrap_or(Err(ConnectError::TimedOut));
                self.h3_failed = made.is_err();
                if let Err(error) = &made {
                    self.peer.counters.of(Protocol::H3).connect_failures.inc();
                    tracing::debug!(upstream = self.peer.name(), %error, "stays on HTTP/2");
                }
                made.ok()
            }
        }
    }

    /// Watches a QUIC connection; a new one when this one answers nothing and a new one can be made.
    async fn replace(
        &mut self,
        links: &mut watch::Receiver<Option<Link>>,
        connection: &quinn::Connection,
    ) -> Option<Made> {
        tokio::select! {
            () = gone(links) => return None,
            () = unanswered(connection) => {}
        }
        let received = connection.stats().udp_rx.datagrams;
        let made = tokio::select! {
            () = gone(links) => None,
            () = answered(connection, received) => None,
            made = self.connect_at_last() => Some(made),
        };
        if made.is_some() && connection.stats().udp_rx.datagrams == received {
            // The upstream lives, and does not know this connection: what waits on it waits in vain.
            connection.close(0_u32.into(), b"replaced");
            return made;
        }
        None
    }
}

async fn gone(links: &mut watch::Receiver<Option<Link>>) {
    // The sender lives in the peer: the wait ends with the link only.
    let _ = links.wait_for(Option::is_none).await;
}

/// Returns when packets that ask for an answer were sent, and nothing came back for too long.
async fn unanswered(connection: &quinn::Connection) {
    let mut silence = Silence::new(Seen::of(&connection.stats()));
    loop {
        sleep(WATCH_INTERVAL).await;
        let lasted = silence.look(Seen::of(&connection.stats()), Instant::now());
        if lasted >= UNANSWERED_MAX.max(3 * connection.rtt()) {
            return;
        }
    }
}

/// What a connection has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    /// Datagrams that came.
    received: u64,
    /// Frames that went out and have to be acknowledged.
    asked: u64,
}

impl Seen {
    fn of(stats: &quinn::ConnectionStats) -> Self {
        let sent = &stats.frame_tx;
        // Acknowledgements are not acknowledged; a probe for the size of packets may be too large to arrive.
        let pings = sent.ping.saturating_sub(stats.path.sent_plpmtud_probes);
        let flow = sent.max_data
            + sent.max_stream_data
            + sent.max_streams_bidi
            + sent.max_streams_uni
            + sent.data_blocked
            + sent.stream_data_blocked
            + sent.streams_blocked_bidi
            + sent.streams_blocked_uni;
        let asked = pings + sent.stream + sent.crypto + sent.reset_stream + sent.stop_sending + flow;
        Self { received: stats.udp_rx.datagrams, asked }
    }
}

/// For how long a connection has been asked without an answer.
struct Silence {
    before: Seen,
    since: Option<Instant>,
}

impl Silence {
    fn new(before: Seen) -> Self {
        Self { before, since: None }
    }

    fn look(&mut self, seen: Seen, now: Instant) -> Duration {
        if seen.received != self.before.received {
            (self.before, self.since) = (seen, None);
        } else if seen.asked != self.before.asked {
            return now.duration_since(*self.since.get_or_insert(now));
        }
        Duration::ZERO
    }
}

async fn answered(connection: &quinn::Connection, received: u64) {
    while connection.stats().udp_rx.datagrams == received {
        sleep(WATCH_INTERVAL).await;
    }
}

fn upgrade_rest() -> Duration {
    UPGRADE_INTERVAL.mul_f64(0.75 + fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_asks_for_an_answer_is_waited_for() {
        let began = Instant::now();
        // Looks, 100 ms apart: datagrams that came, frames sent that have to be acknowledged; milliseconds of silence then.
        type Looks = &'static [(u64, u64, u64)];
        let cases: [(&str, Looks); 4] = [
            ("idle, or only acknowledging", &[(5, 5, 0), (5, 5, 0), (5, 5, 0), (5, 5, 0)]),
            ("answered", &[(5, 6, 0), (6, 6, 0), (6, 6, 0), (6, 6, 0)]),
            ("asked in vain", &[(5, 6, 0), (5, 6, 100), (5, 7, 200), (5, 7, 300)]),
            ("answered late, asked again", &[(5, 6, 0), (5, 6, 100), (6, 6, 0), (6, 7, 0), (6, 7, 100)]),
        ];
        for (case, looks) in cases {
            let mut silence = Silence::new(Seen { received: 5, asked: 5 });
            for (n, (received, asked, expected)) in (1u32..).zip(looks) {
                let seen = Seen { received: *received, asked: *asked };
                let lasted = silence.look(seen, began + n * WATCH_INTERVAL);
                assert_eq!(lasted, Duration::from_millis(*expected), "{case}, look {n}");
            }
        }
    }

    #[test]
    fn acknowledgements_and_probes_for_size_ask_nothing() {
        let mut stats = quinn::ConnectionStats::default();
        let quiet = Seen::of(&stats);
        stats.udp_tx.datagrams += 2;
        stats.frame_tx.acks += 1;
        stats.frame_tx.ping += 1;
        stats.path.sent_plpmtud_probes += 1;
        assert_eq!(Seen::of(&stats), quiet);
        stats.frame_tx.ping += 1;
        assert_ne!(Seen::of(&stats), quiet);
    }
}
