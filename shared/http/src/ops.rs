//! The operator's endpoints on a listener of their own: `/metrics` (OpenMetrics), `/healthz`, `/readyz`, and what a server
//! has of its own.
//!
//! Invariant: scraping and probing never touch the viewer path's permits.

use crate::connections::ConnectionMetrics;
use crate::drain::Drain;
use crate::listener::{Bound, Limits, Server};
use crate::problem::Problem;
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use prometheus_client::registry::Registry;
use std::future::{Ready, ready};
use std::net::IpAddr;
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

/// What is answered.
#[derive(Debug)]
pub struct Endpoints<R, O> {
    /// `/metrics`
    pub registry: Registry,
    /// `/readyz`, until the drain signal.
    pub ready: R,
    /// Everything else, whatever its method.
    pub own: O,
}

/// A server without endpoints of its own: 404.
pub fn nothing_more(_: Request<Incoming>, _: IpAddr) -> Ready<Response<Full<Bytes>>> {
    ready(Problem::new(StatusCode::NOT_FOUND, "here are /metrics, /healthz and /readyz").response())
}

/// Serves the endpoints on `bound` until the drain signal. `/readyz` is not ready from the signal on.
pub fn serve<R, O, F>(bound: Bound, drain: Drain, endpoints: Endpoints<R, O>) -> JoinHandle<()>
where
    R: Fn() -> Readiness + Send + Sync + 'static,
    O: Fn(Request<Incoming>, IpAddr) -> F + Send + Sync + 'static,
    F: Future<Output = Response<Full<Bytes>>> + Send,
{
    let limits = Limits { connections_max: CONNECTIONS_MAX, ..Limits::default() };
    let server = Server::new(limits, ConnectionMetrics::default(), drain.clone());
    let endpoints = Arc::new(endpoints);
    server.serve(bound, None, move |request, from| {
        let (endpoints, drain) = (Arc::clone(&endpoints), drain.clone());
        async move {
            let readiness = || match drain.is_started() {
                true => Readiness::NotReady("draining".to_owned()),
                false => (endpoints.ready)(),
            };
            match answer(request.uri().path(), &endpoints.registry, readiness) {
                None => (endpoints.own)(request, from.peer.ip()).await,
                Some(answer) if matches!(*request.method(), Method::GET | Method::HEAD) => answer,
                Some(_) => {
                    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD are answered here").response()
                }
            }
        }
    })
}

fn answer(path: &str, registry: &Registry, ready: impl Fn() -> Readiness) -> Option<Response<Full<Bytes>>> {
    Some(match path {
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
        _ => return None,
    })
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
