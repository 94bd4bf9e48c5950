//! What edges get from the origin beside media: the policy, `GET /internal/edge/policy?after=VERSION`, and
//! that somebody is here, `GET /internal/edge/health`.
//!
//! Invariants: only a POP that has shown its certificate gets the policy, so a plain listener never gives it out; it is held for at
//! most eight seconds while it is the version that the POP has, so a change is everywhere at once.

use crate::policy::{Policies, Published};
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use sigma_http::headers;
use sigma_http::problem::Problem;
use std::sync::Arc;
use std::time::Duration;

/// Where POPs find the policy.
pub(super) const POLICY_PATH: &str = "/internal/edge/policy";
/// Where edges ask whether there is somebody, when they have nothing else to ask.
pub(super) const HEALTH_PATH: &str = "/internal/edge/health";
/// Where everybody finds the public keys.
pub(super) const JWKS_PATH: &str = "/.well-known/jwks.json";
const HOLD_MAX: Duration = Duration::from_secs(8);

/// The policy, as soon as it is not the one that the POP has.
pub(super) async fn policy(policies: &Policies, client: Option<&str>, query: &str) -> Response<Full<Bytes>> {
    let Some(pop) = client else {
        return Problem::new(StatusCode::FORBIDDEN, "only POPs get this, by their certificate").response();
    };
    let after = query.split('&').find_map(|pair| pair.strip_prefix("after="));
    let Ok(after) = after.map(str::parse::<u64>).transpose() else {
        return Problem::new(StatusCode::BAD_REQUEST, "after: a version is expected").response();
    };
    let mut published = policies.subscribe();
    let is_news = |published: &Arc<Published>| Some(published.version) != after;
    let newest = match tokio::time::timeout(HOLD_MAX, published.wait_for(is_news)).await {
        Ok(Ok(newest)) => Arc::clone(&newest),
        Ok(Err(_)) | Err(_) => Arc::clone(&policies.subscribe().borrow()),
    };
    tracing::debug!(pop, version = newest.version, "policy told");
    let mut response = Response::new(Full::new(newest.json.clone()));
    let head = response.headers_mut();
    head.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    head.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Whether an edge does well to ask here. It does: what a channel lacks is said in its own answers.
pub(super) fn health() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The keys that verify playback tokens, without the secret ones.
pub(super) fn jwks(policies: &Policies) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(policies.public_jwks()));
    let head = response.headers_mut();
    head.insert(CONTENT_TYPE, HeaderValue::from_static("application/jwk-set+json"));
    head.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=300"));
    headers::apply_cors(head);
    response
}
