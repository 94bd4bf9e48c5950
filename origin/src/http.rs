//! The origin's HTTP: viewers and edges. The whole routing is on this page.

mod body;
pub(crate) mod metadata;
mod playback;

use crate::channel::Channels;
use crate::metrics::{Metrics, RequestKind};
pub(crate) use body::Body;
use http::{Method, Request, Response, StatusCode};
use playback::Playback;
use sigma_http::assets::Assets;
use sigma_http::headers;
use sigma_http::problem::Problem;
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
    assets: Assets<Console>,
    metrics: Arc<Metrics>,
}

impl Router {
    pub(crate) fn new(channels: Arc<Channels>, metrics: Arc<Metrics>, held_requests_max: usize) -> Self {
        let playback = Playback::new(channels, Arc::clone(&metrics), held_requests_max);
        Self { playback, assets: Assets::new(), metrics }
    }

    /// Answers one request, whenever that may be.
    pub(crate) async fn respond(self: Arc<Self>, request: Request<()>) -> Response<Body> {
        let (kind, response) = self.route(&request).await;
        self.metrics.request(kind, response.status().as_u16());
        if request.method() == Method::HEAD {
            headers::without_body(response).map(Body::Left)
        } else {
            response
        }
    }

    async fn route(&self, request: &Request<()>) -> (RequestKind, Response<Body>) {
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
        if path.starts_with("/live/") {
            let Some(resource) = LiveResource::parse(path) else {
                return (RequestKind::Other, playback::not_found("no such resource").map(Body::Left));
            };
            let response =
                self.playback.respond(&resource, request.uri().query().unwrap_or(""), request.headers());
            return (kind_of(&resource), response.await);
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
