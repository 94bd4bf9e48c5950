//! The origin's HTTP: viewers and edges. The whole routing is on this page.

pub(crate) mod api;
mod body;
mod internal;
mod metadata;
pub(crate) mod operator;
mod places;
mod playback;
mod reports;
mod revocations;

use crate::channel::Channels;
use crate::metrics::{Metrics, RequestKind};
use crate::policy::Policies;
use api::Api;
use api::token::AdminToken;
pub(crate) use body::Body;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use places::Holders;
use playback::Playback;
use reports::Reports;
use sigma_http::assets::Assets;
use sigma_http::headers;
use sigma_http::listener::PeerConnection;
use sigma_http::problem::Problem;
use sigma_http::request_body::RequestBody;
use sigma_report::{places as said_places, report};
use sigma_shared::id::{ChannelId, PopId};
use sigma_shared::resource::{LiveResource, MediaResource};
use sigma_stats::keeper::Stats;
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
    api: Api,
    reports: Reports,
    holders: Holders,
}

/// What answers are made of.
pub(crate) struct RouterParts {
    pub(crate) channels: Arc<Channels>,
    pub(crate) policies: Arc<Policies>,
    pub(crate) metrics: Arc<Metrics>,
    /// Requests that may wait for something.
    pub(crate) held_requests_max: usize,
    pub(crate) stats: Stats,
    /// POPs that pass on reports of others.
    pub(crate) shields: Vec<PopId>,
    pub(crate) admin_token: AdminToken,
}

impl Router {
    pub(crate) fn new(parts: RouterParts) -> Self {
        let RouterParts { channels, policies, metrics, held_requests_max, stats, shields, admin_token } =
            parts;
        let api = Api::new(stats.clone(), Arc::clone(&channels), admin_token);
        let playback = Playback::new(channels, Arc::clone(&metrics), held_requests_max);
        let reports = Reports { stats, shields };
        let holders = Holders::new();
        Self { playback, policies, assets: Assets::new(), metrics, api, reports, holders }
    }

    /// Answers one request, whenever that may be.
    pub(crate) async fn respond(
        self: Arc<Self>,
        request: Request<RequestBody>,
        from: PeerConnection,
    ) -> Response<Body> {
        let (head, body) = request.into_parts();
        let request = Request::from_parts(head, ());
        let client = from.client.as_deref();
        let (kind, response) = match request.uri().path() {
            report::PATH => {
                let response = reports::take(&self.reports, &request, (client, body)).await;
                (RequestKind::Report, response.map(Body::Left))
            }
            said_places::PATH => {
                let response = self.holders.take(&self.reports.shields, &request, (client, body)).await;
                (RequestKind::Places, response.map(Body::Left))
            }
            path if api::is_below(path) => {
                (RequestKind::Api, self.api.respond(&request).await.map(Body::Left))
            }
            _ => self.route(&request, client).await,
        };
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
                return (kind_of(&resource), for_edges(resource.channel()).map(Body::Left));
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

/// Viewers of a channel with tokens are let in by edges, which know and count their sessions, and which the origin knows by their
/// certificates. No token helps here, so this is not 401.
fn for_edges(channel: &ChannelId) -> Response<Full<Bytes>> {
    let detail = format!(
        "`{channel}` wants playback tokens, and those are for edges: the origin gives it to POPs alone, by their client \
         certificate. Ask an edge for /live/{channel}/index.m3u8?token=TOKEN"
    );
    Problem::new(StatusCode::FORBIDDEN, detail).response()
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
