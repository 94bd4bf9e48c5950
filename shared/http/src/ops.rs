//! The operator's endpoints on a listener of their own: `/metrics` (OpenMetrics), `/healthz`, `/readyz`.
//!
//! Invariant: scraping and probing never touch the viewer path's permits.

use crate::connections::ConnectionMetrics;
use crate::drain::Drain;
use crate::listener::{Bound, Limits, Server};
use crate::problem::Problem;
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Response, StatusCode};
use http_body_util::Full;
use prometheus_client::registry::Registry;
use std::sync::Arc;
use tokio::task::JoinHandle;

const OPENMETRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// Scrapers and probes at once.
const CONNECTIONS_MAX: usize = 64;

/// The answer to "may traffic be sent here?".
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// Yes.
    Ready,
    /// No, for this reason.
    NotReady(String),
}

/// Serves the endpoints on `bound` until the drain signal. `/readyz` is not ready from the signal on.
pub fn serve(
    bound: Bound,
    drain: Drain,
    registry: Arc<Registry>,
    ready: impl Fn() -> Readiness + Send + Sync + 'static,
) -> JoinHandle<()> {
    let limits = Limits { connections_max: CONNECTIONS_MAX, ..Limits::default() };
    let server = Server::new(limits, ConnectionMetrics::default(), drain.clone());
    let ready = Arc::new(ready);
    server.serve(bound, None, move |request, _from| {
        let readiness = || {
            if drain.is_started() { Readiness::NotReady("draining".to_owned()) } else { ready() }
        };
        let response = if request.method() == Method::GET || request.method() == Method::HEAD {
            answer(request.uri().path(), &registry, readiness)
        } else {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD are answered here").response()
        };
        std::future::ready(response)
    })
}

fn answer(path: &str, registry: &Registry, ready: impl Fn() -> Readiness) -> Response<Full<Bytes>> {
    match path {
        "/metrics" => metrics(registry),
        "/healthz" => text(StatusCode::OK, HeaderValue::from_static("text/plain"), "ok\n".to_owned()),
        "/readyz" => {
            let (status, body) = match ready() {
                Readiness::Ready => (StatusCode::OK, serde_json::json!({"ready": true})),
                Readiness::NotReady(reason) => {
                    (StatusCode::SERVICE_UNAVAILABLE, serde_json::json!({"ready": false, "reason": reason}))
                }
            };
            text(status, HeaderValue::from_static("application/json"), body.to_string())
        }
        _ => Problem::new(StatusCode::NOT_FOUND, "here are /metrics, /healthz and /readyz").response(),
    }
}

fn metrics(registry: &Registry) -> Response<Full<Bytes>> {
    let mut body = String::new();
    match prometheus_client::encoding::text::encode(&mut body, registry) {
        Ok(()) => text(StatusCode::OK, OPENMETRICS, body),
        Err(error) => Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).response(),
    }
}

fn text(status: StatusCode, content_type: HeaderValue, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, content_type);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
