//! The internal API on the operator's listener: who may use it, and what there is.
//!
//! Invariants: only this machine may use it; a browser cannot, because JSON from another origin asks permission first and
//! gets none. The public API comes with the control plane.

use super::{metadata, revocations};
use crate::channel::Channels;
use crate::policy::Policies;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use serde_json::Value;
use sigma_http::problem::Problem;
use std::net::IpAddr;
use std::sync::Arc;

/// More is nothing we ask for.
const BODY_MAX: usize = 64 << 10;

/// What it works on.
#[derive(Debug, Clone)]
pub(crate) struct Operated {
    pub(crate) channels: Arc<Channels>,
    pub(crate) policies: Arc<Policies>,
}

/// Answers what is below `/internal/`.
pub(crate) async fn respond(
    operated: Operated,
    request: Request<Incoming>,
    from: IpAddr,
) -> Response<Full<Bytes>> {
    match answer(operated, request, from).await {
        Ok(body) => {
            let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
            let json = http::HeaderValue::from_static("application/json");
            response.headers_mut().insert(http::header::CONTENT_TYPE, json);
            response
        }
        Err(problem) => problem.response(),
    }
}

async fn answer(operated: Operated, request: Request<Incoming>, from: IpAddr) -> Result<Value, Problem> {
    let path = request.uri().path().to_owned();
    let metadata = path.strip_prefix("/internal/channels/").and_then(|rest| rest.strip_suffix("/metadata"));
    if metadata.is_none() && path != revocations::PATH {
        return Err(Problem::new(
            StatusCode::NOT_FOUND,
            "here are /metrics, /healthz, /readyz, /internal/channels/{channel}/metadata and /internal/revocations",
        ));
    }
    check(&request, from)?;
    let channel = metadata.map(|id| id.parse().ok().and_then(|id| operated.channels.get(&id).cloned()));
    let read = async || match Limited::new(request.into_body(), BODY_MAX).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(_) => Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "at most 64 KiB are read")),
    };
    match channel {
        Some(Some(channel)) => metadata::annotate(&channel, &read().await?).await,
        Some(None) => Err(Problem::new(StatusCode::NOT_FOUND, "no channel of that id")),
        None => revocations::revoke(operated.policies, &read().await?).await,
    }
}

/// Whether whoever asks may.
fn check(request: &Request<Incoming>, from: IpAddr) -> Result<(), Problem> {
    let refuse = |status, detail: &str| Err(Problem::new(status, detail));
    if !from.to_canonical().is_loopback() {
        return refuse(StatusCode::FORBIDDEN, "the internal API answers this machine only");
    }
    if request.method() != Method::POST {
        return refuse(StatusCode::METHOD_NOT_ALLOWED, "this is POSTed");
    }
    let header = |name: http::HeaderName| request.headers().get(name).and_then(|value| value.to_str().ok());
    // A browser that was told a false address of ours still says whom it means.
    let host = header(http::header::HOST).unwrap_or("localhost");
    let host = host.rsplit_once(':').map_or(host, |(name, _)| name).trim_matches(['[', ']']);
    if host != "localhost" && host.parse::<IpAddr>().is_err() {
        return refuse(
            StatusCode::FORBIDDEN,
            "the internal API answers to an address or to localhost, not to a name",
        );
    }
    let kind = header(http::header::CONTENT_TYPE).and_then(|kind| kind.split(';').next());
    if !kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json")) {
        return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Content-Type: application/json is expected");
    }
    Ok(())
}
