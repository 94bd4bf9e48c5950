//! The cluster's policy at this edge: asked for over and over from the upstream, kept, and served on to edges behind it.
//!
//! Invariants: the last good policy stays until a newer one of the same cluster is there, whatever the upstream does; who was
//! revoked by one origin of the cluster stays so when another one answers; the upstream is asked again within `policy_poll_ms` unless it holds the request, so that what changes is known here within 5 s. Deliberately
//! absent: keeping it on disk, because what it lets viewers have comes from the same upstream.

use crate::admission::now_ms;
use crate::metrics::{Metrics, Reading};
use crate::session::Gate;
use crate::upstream::{Upstream, UpstreamError};
use aws_lc_rs::rand;
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::Full;
use sigma_http::problem::Problem;
use sigma_token::policy::{Document, InvalidPolicy, Policy, SessionSecret};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Where it is asked for, here and at the upstream.
pub(crate) const PATH: &str = "/internal/edge/policy";
/// The largest document: 100,000 channels or revocations.
const DOCUMENT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long a request for a newer one is held.
const HOLD: Duration = Duration::from_secs(8);
/// An answer that took this long was held.
const HELD_AFTER: Duration = Duration::from_secs(1);
/// The rest after a change, so that an upstream whose version always changes costs little.
const REST_MS_MIN: u64 = 50;

/// The policy as it came.
#[derive(Debug)]
struct Received {
    gate: Gate,
    /// As it travels.
    json: Bytes,
    document: Document,
    at: Instant,
}

/// Where the policy is kept. Clones are the same place.
#[derive(Debug, Clone)]
pub(crate) struct PolicyFeed(Arc<watch::Sender<Option<Arc<Received>>>>);

/// Why there is no newer policy.
#[derive(Debug, thiserror::Error)]
enum PollError {
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    #[error("the upstream does not know this POP's certificate")]
    Forbidden,
    #[error("status {0}")]
    Status(StatusCode),
    #[error("longer than {DOCUMENT_BYTES_MAX} bytes")]
    TooLarge,
    #[error("the document did not arrive in time")]
    TimedOut,
    #[error(transparent)]
    Invalid(#[from] InvalidPolicy),
    /// Its keys would void every session that viewers have.
    #[error(
        "the policy is of another cluster ({theirs}; here {ours} is in force): origins behind the same edges need the same \
         playback.cluster_secret_file; if this one was set up anew, restart the edge"
    )]
    OtherCluster { ours: String, theirs: String },
}

/// The system has no randomness for a key.
#[derive(Debug, thiserror::Error)]
#[error("no random key for sessions could be made")]
pub(crate) struct NoKey;

impl PolicyFeed {
    /// A place without a policy.
    pub(crate) fn empty() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }

    /// A place with a policy of this edge's own: a random key, and everything public.
    ///
    /// # Errors
    /// The system has no randomness.
    pub(crate) fn open() -> Result<Self, NoKey> {
        let mut secret = [0; 32];
        rand::fill(&mut secret).map_err(|_| NoKey)?;
        let session_keys = vec![SessionSecret::new(0, &secret, true)];
        let policy = Policy::new(&Document { session_keys, ..Document::default() }).map_err(|_| NoKey)?;
        let received = Received {
            gate: Gate { policy, open: true },
            json: Bytes::new(),
            document: Document::default(),
            at: Instant::now(),
        };
        Ok(Self(Arc::new(watch::Sender::new(Some(Arc::new(received))))))
    }

    /// What counts now; `None` before the first policy.
    pub(crate) fn gate(&self) -> Option<impl std::ops::Deref<Target = Gate> + use<>> {
        self.0.borrow().as_ref().map(|received| Current(Arc::clone(received)))
    }

    fn version(&self) -> Option<u64> {
        self.0.borrow().as_ref().map(|received| received.gate.policy.version())
    }

    /// Takes a document in. Whether it replaced the one before.
    fn take(&self, json: Bytes, now_ms: u64) -> Result<bool, PollError> {
        let mut document: Document = serde_json::from_slice(&json).map_err(InvalidPolicy::from)?;
        let known = self.0.borrow().clone();
        if let Some(known) = &known {
            let known = &known.document;
            if known.cluster != document.cluster {
                let (ours, theirs) = (known.cluster.clone(), document.cluster);
                return Err(PollError::OtherCluster { ours, theirs });
            }
            // A lower version made later is of another origin of the cluster.
            if document.version <= known.version && document.issued_at_ms <= known.issued_at_ms {
                return Ok(false);
            }
            document.keep_revocations(&known.revocations, now_ms);
        }
        let policy = Policy::new(&document)?;
        let json = serde_json::to_vec(&document).map_or(json, Bytes::from);
        if policy.unusable_keys() > 0 {
            tracing::warn!(keys = policy.unusable_keys(), "keys in the policy cannot be used");
        }
        tracing::debug!(version = policy.version(), "policy received");
        let received = Received { gate: Gate { policy, open: false }, json, document, at: Instant::now() };
        self.0.send_replace(Some(Arc::new(received)));
        Ok(true)
    }

    /// Answers an edge behind this one: at once when it has another version, or else when there is one, or after 8 s.
    pub(crate) async fn respond(&self, query: Option<&str>) -> Response<Full<Bytes>> {
        let after = query.unwrap_or_default().split('&').find_map(|pair| pair.strip_prefix("after="));
        let after = after.and_then(|version| version.parse::<u64>().ok());
        let mut policies = self.0.subscribe();
        let newer = policies.wait_for(|received| {
            received.as_ref().is_some_and(|received| Some(received.gate.policy.version()) != after)
        });
        // Time is up, or there is one: what there is now is the answer.
        let _ = tokio::time::timeout(HOLD, newer).await.map(drop);
        let current = self.0.borrow().clone();
        let Some(received) = current.filter(|received| !received.gate.open) else {
            let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "no policy has arrived here yet");
            return problem.retry_after_s(1).response();
        };
        let mut response = Response::new(Full::new(received.json.clone()));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }

    /// What a scrape shows of it.
    pub(crate) fn readings(&self) -> Vec<Reading> {
        let current = self.0.borrow().clone();
        let Some(received) = current.filter(|received| !received.gate.open) else {
            return Vec::new();
        };
        let (policy, since) = (&received.gate.policy, received.at.elapsed().as_secs());
        vec![
            ("sigma_edge_policy_version", "Version of the policy in force", policy.version()),
            ("sigma_edge_policy_age_seconds", "Seconds since the policy in force arrived", since),
        ]
    }
}

/// A policy in use.
struct Current(Arc<Received>);

impl std::ops::Deref for Current {
    type Target = Gate;

    fn deref(&self) -> &Gate {
        &self.0.gate
    }
}

/// Asks the upstream for newer policies, for ever.
pub(crate) async fn follow(feed: PolicyFeed, upstream: Upstream, poll: Duration, metrics: Arc<Metrics>) {
    let poll_ms = u64::try_from(poll.as_millis()).unwrap_or(u64::MAX);
    let mut failures: u32 = 0;
    loop {
        let began = Instant::now();
        let rest_ms = match ask(&feed, &upstream).await {
            Ok(changed) => {
                let polls = &metrics.policy_polls;
                if changed {
                    polls.changed.inc()
                } else {
                    polls.unchanged.inc()
                };
                if failures > 0 {
                    tracing::info!("the policy can be had again");
                }
                failures = 0;
                // Who holds requests is asked again at once.
                if changed || began.elapsed() >= HELD_AFTER { REST_MS_MIN } else { poll_ms }
            }
            Err(error) => {
                metrics.policy_polls.failed.inc();
                if failures == 0 {
                    tracing::warn!(%error, "no newer policy; retrying");
                }
                failures = failures.saturating_add(1);
                backoff_ms(failures, poll_ms, fastrand::u64(..))
            }
        };
        tokio::time::sleep(Duration::from_millis(rest_ms)).await;
    }
}

/// The rest before the next attempt: doubling up to `most_ms`, half of it random.
fn backoff_ms(failures: u32, most_ms: u64, random: u64) -> u64 {
    let full = (REST_MS_MIN << failures.min(16)).min(most_ms).max(2);
    full / 2 + random % (full / 2)
}

async fn ask(feed: &PolicyFeed, upstream: &Upstream) -> Result<bool, PollError> {
    let path = match feed.version() {
        Some(version) => format!("{PATH}?after={version}"),
        None => PATH.to_owned(),
    };
    let response = upstream.get_uncached(&path).await?;
    match response.status() {
        StatusCode::OK => {}
        StatusCode::FORBIDDEN => return Err(PollError::Forbidden),
        other => return Err(PollError::Status(other)),
    }
    let mut body = response.into_body();
    let mut document = Vec::new();
    let whole = async {
        while let Some(chunk) = body.chunk().await? {
            if document.len() + chunk.len() > DOCUMENT_BYTES_MAX {
                return Err(PollError::TooLarge);
            }
            document.extend_from_slice(&chunk);
        }
        Ok(())
    };
    tokio::time::timeout(upstream.patience(), whole).await.map_err(|_| PollError::TimedOut)??;
    feed.take(document.into(), now_ms())
}

#[cfg(test)]
mod tests {
    use super::*;
    use sigma_token::policy::Revocation;

    fn document(version: u64, issued_at_ms: u64) -> Bytes {
        of_cluster("a", version, issued_at_ms, Vec::new())
    }

    fn of_cluster(cluster: &str, version: u64, issued_at_ms: u64, revocations: Vec<Revocation>) -> Bytes {
        let session_keys = vec![SessionSecret::new(1, &[1; 32], true)];
        let cluster = cluster.to_owned();
        let document =
            Document { version, issued_at_ms, cluster, session_keys, revocations, ..Document::default() };
        serde_json::to_vec(&document).unwrap().into()
    }

    #[test]
    fn another_origin_of_the_cluster_voids_nothing_and_another_cluster_is_refused() {
        let feed = PolicyFeed::empty();
        let revoked = |name: &str, until_ms| Revocation::of_subject(name, 1, until_ms);
        feed.take(of_cluster("a", 5, 100, vec![revoked("x", 1_000), revoked("y", 500)]), 0).unwrap();
        assert!(feed.take(of_cluster("a", 4, 200, vec![revoked("z", 900)]), 600).unwrap());
        let now = feed.0.borrow().clone().unwrap();
        assert_eq!(now.document.revocations, [revoked("z", 900), revoked("x", 1_000)], "y is over");
        let told: Document = serde_json::from_slice(&now.json).unwrap();
        assert_eq!(told, now.document, "edges behind this one are told the same");
        let error = feed.take(of_cluster("b", 9, 900, Vec::new()), 600).unwrap_err().to_string();
        assert!(error.contains("cluster (b; here a"), "{error}");
        assert_eq!(feed.version(), Some(4));
    }

    #[test]
    fn only_what_is_newer_replaces_a_policy() {
        let feed = PolicyFeed::empty();
        for (version, issued_at_ms, taken, kept) in
            [(5, 100, true, 5), (5, 100, false, 5), (4, 90, false, 5), (6, 100, true, 6), (1, 200, true, 1)]
        {
            assert_eq!(feed.take(document(version, issued_at_ms), 0).unwrap(), taken, "{version}");
            assert_eq!(feed.version(), Some(kept));
        }
        assert!(feed.take(Bytes::from_static(b"{}"), 0).is_err());
        assert_eq!(feed.version(), Some(1), "the last good one stays");
    }

    #[test]
    fn failures_back_off_to_the_poll_interval() {
        for (failures, low, high) in [(1, 50, 100), (2, 100, 200), (3, 200, 400), (40, 500, 1_000)] {
            for random in [0, 1, 999, u64::MAX] {
                let rest = backoff_ms(failures, 1_000, random);
                assert!((low..=high).contains(&rest), "{failures} {random}: {rest}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_edge_behind_is_held_until_there_is_another_version() {
        let feed = PolicyFeed::empty();
        assert_eq!(feed.respond(None).await.status(), StatusCode::SERVICE_UNAVAILABLE);
        feed.take(document(5, 100), 0).unwrap();
        for query in [None, Some("after=4"), Some("after=x"), Some("x&after=6")] {
            let began = tokio::time::Instant::now();
            assert_eq!(feed.respond(query).await.status(), StatusCode::OK);
            assert_eq!(began.elapsed(), Duration::ZERO, "{query:?}");
        }
        let began = tokio::time::Instant::now();
        assert_eq!(feed.respond(Some("after=5")).await.status(), StatusCode::OK);
        assert_eq!(began.elapsed(), HOLD);
        let began = tokio::time::Instant::now();
        let (response, _) = tokio::join!(feed.respond(Some("after=5")), async {
            tokio::time::advance(Duration::from_secs(1)).await;
            feed.take(document(6, 100), 0).unwrap()
        });
        assert_eq!(response.status(), StatusCode::OK);
        assert!(began.elapsed() < HOLD);
        let open = PolicyFeed::open().unwrap();
        assert_eq!(open.respond(None).await.status(), StatusCode::SERVICE_UNAVAILABLE);
    }
}
