//! The origin's HTTP: viewers and edges. The whole routing is on this page.

mod body;
mod internal;
mod metadata;
pub(crate) mod operator;
mod playback;
mod revocations;

use crate::channel::Channels;
use crate::metrics::{Metrics, RequestKind};
use crate::policy::Policies;
pub(crate) use body::Body;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use playback::Playback;
use sigma_http::assets::Assets;
use sigma_http::headers;
use sigma_http::listener::PeerConnection;
use sigma_http::problem::Problem;
use sigma_http::request_body::RequestBody;
use sigma_shared::resource::{LiveResource, MediaResource};
use std::sync::Arc;

/// The watch page, built by npm before this crate is.
#[derive(rust_embed::Embed)]
#[folder = "console/dist"]
#[allow_missing = true]
struct Console;

/// Answers requests.
pub(crate) struct Router {
    playback: Playback,
    policies: Arc<Policies>,
    assets: Assets<Console>,
    metrics: Arc<Metrics>,
}

/// What answers are made of.
pub(crate) struct RouterParts {
    pub(crate) channels: Arc<Channels>,
    pub(crate) policies: Arc<Policies>,
    pub(crate) metrics: Arc<Metrics>,
    /// Requests that may wait for something.
    pub(crate) held_requests_max: usize,
}

impl Router {
    pub(crate) fn new(parts: RouterParts) -> Self {
        let RouterParts { channels, policies, metrics, held_requests_max } = parts;
        let playback = Playback::new(channels, Arc::clone(&metrics), held_requests_max);
        Self { playback, policies, assets: Assets::new(), metrics }
    }

    /// Answers one request, whenever that may be.
    pub(crate) async fn respond(
        self: Arc<Self>,
        request: Request<RequestBody>,
        from: PeerConnection,
    ) -> Response<Body> {
        let request = request.map(drop);
        let (kind, response) = self.route(&request, from.client.as_deref()).await;
        self.metrics.request(kind, response.status().as_u16());
        if request.method() == Method::HEAD {
            headers::without_body(response).map(Body::Left)
        } else {
            response
        }
    }

    /// `client` is the POP that asks.
    async fn route(&self, request: &Request<()>, client: Option<&str>) -> (RequestKind, Response<Body>) {
        match *request.method() {
            Method::GET | Method::HEAD => {}
            Method::OPTIONS => return (RequestKind::Other, headers::preflight().map(Body::Left)),
            _ => {
                let problem =
                    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "GET, HEAD and OPTIONS are answered here");
                let mut response = problem.response().map(Body::Left);
                response
                    .headers_mut()
                    .insert(http::header::ALLOW, http::HeaderValue::from_static("GET, HEAD, OPTIONS"));
                return (RequestKind::Other, response);
            }
        }
        let path = request.uri().path();
        let query = request.uri().query().unwrap_or("");
        if path.starts_with("/live/") {
            let Some(resource) = LiveResource::parse(path) else {
                return (RequestKind::Other, playback::not_found("no such resource").map(Body::Left));
            };
            if client.is_none() && self.policies.wants_token(resource.channel()) {
                return (kind_of(&resource), token_wanted().map(Body::Left));
            }
            let response = self.playback.respond(&resource, query, request.headers());
            return (kind_of(&resource), response.await);
        }
        match path {
            internal::POLICY_PATH => {
                let response = internal::policy(&self.policies, client, query).await;
                return (RequestKind::Policy, response.map(Body::Left));
            }
            internal::HEALTH_PATH => return (RequestKind::Other, internal::health().map(Body::Left)),
            internal::JWKS_PATH => {
                return (RequestKind::Other, internal::jwks(&self.policies).map(Body::Left));
            }
            _ => {}
        }
        if let Some(response) = self.assets.respond(path, request.headers()) {
            return (RequestKind::Page, response.map(Body::Left));
        }
        let problem = Problem::new(
            StatusCode::NOT_FOUND,
            "viewers find /watch/{channel} and /live/{channel}/index.m3u8",
        );
        (RequestKind::Other, problem.response().map(Body::Left))
    }
}

/// Viewers of a channel with tokens are let in by edges, which the origin knows by their certificates.
fn token_wanted() -> Response<Full<Bytes>> {
    Problem::new(StatusCode::UNAUTHORIZED, "not allowed here").response()
}

fn kind_of(resource: &LiveResource) -> RequestKind {
    match resource {
        LiveResource::Multivariant(_) => RequestKind::Multivariant,
        LiveResource::Media(.., MediaResource::Playlist(..)) => RequestKind::Playlist,
        LiveResource::Media(.., MediaResource::Init(_)) => RequestKind::Init,
        LiveResource::Media(.., MediaResource::Segment { .. } | MediaResource::IFrame { .. }) => {
            RequestKind::Segment
        }
        LiveResource::Media(.., MediaResource::Part { .. }) => RequestKind::Part,
    }
}
