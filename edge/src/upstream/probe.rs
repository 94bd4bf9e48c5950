//! Finds out how an upstream is when nobody asks it anything: a standby, a new connection, one that failed.
//!
//! Invariant: an upstream that answers requests is not probed. Origins answer the question at once and without side
//! effects; a shield answers with what it knows of its own upstreams, 503 when none is well, so that "well" means the
//! whole chain. Anything but 5xx is a sign of life.

use super::health::Fault;
use super::peer::{Peer, Question};
use http::Method;
use http::uri::PathAndQuery;
use std::sync::Arc;
use tokio::time::{Instant, sleep_until, timeout};

/// Where it is asked, here and at the upstream.
pub(crate) const PATH: &str = "/internal/edge/health";

/// Runs for as long as the edge does.
pub(super) async fn watch(peer: Arc<Peer>) {
    let path = PathAndQuery::from_static(PATH);
    let question = Question { method: Method::HEAD, path, gzip: false, moment: false, posted: None };
    let mut links = peer.links();
    loop {
        if links.borrow_and_update().is_none() {
            // The sender lives in the peer.
            let _ = links.changed().await;
            continue;
        }
        let now = std::time::Instant::now();
        let at = peer.board().probe_at(peer.index, peer.config.probe_interval(), now);
        let later = at.saturating_duration_since(now);
        if !later.is_zero() {
            tokio::select! {
                () = sleep_until(Instant::now() + later) => {}
                _ = links.changed() => {}
                () = peer.recheck.notified() => {}
            }
            continue;
        }
        if peer.may_probe() {
            probe(&peer, &question).await;
        }
    }
}

async fn probe(peer: &Arc<Peer>, question: &Question) {
    let began = std::time::Instant::now();
    let answer = timeout(peer.config.connect_timeout(), peer.ask_now(question)).await;
    match answer {
        Ok(Ok(response)) if !response.status().is_server_error() => {
            peer.counters.probes_good.inc();
            peer.probed();
        }
        // Its keeper knows more.
        Ok(Err(_)) if !peer.is_connected() => {}
        // It answers others meanwhile: the probe may have waited for a free stream.
        Err(_elapsed) if peer.is_busy() || peer.board().is_fresh(peer.index, began) => {}
        Ok(_) | Err(_) => {
            peer.counters.probes_failed.inc();
            peer.failed(Fault::Probe);
        }
    }
}
