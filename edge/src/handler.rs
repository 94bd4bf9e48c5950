//! A viewer's request: method, path, directives, cache, response.
//!
//! Invariants: what the grammar does not know is refused here and never reaches the upstream; request bodies and
//! request headers are not passed on (only the coding that the key names); every response can be read by a web page.

use crate::body::EdgeBody;
use crate::cache::{Found, Store, Stored};
use crate::coalesce::Cause;
use crate::fill::Follower;
use crate::head::{Head, Served};
use crate::key::CacheKey;
use crate::metrics::Metrics;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use rust_embed::Embed;
use sigma_http::assets::Assets;
use sigma_http::headers::{accepts_gzip, preflight, without_body};
use sigma_http::listener::PeerConnection;
use sigma_http::problem::Problem;
use sigma_shared::freshness::{Served as Freshness, max_age_s};
use sigma_shared::resource::LiveResource;
use std::sync::Arc;
use std::time::Instant;

/// The target duration that lifetimes go by where no playlist says one, seconds (DL-06).
const TARGET_DURATION_S: u32 = 2;

/// The watch page, built beside the origin's console.
#[derive(Embed)]
#[folder = "../origin/console/dist"]
#[allow_missing = true]
struct Pages;

/// What every request needs.
pub(crate) struct Handler {
    store: Arc<Store>,
    metrics: Arc<Metrics>,
    pages: Assets<Pages>,
}

impl Handler {
    pub(crate) fn new(store: Arc<Store>, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { store, metrics, pages: Assets::new() })
    }

    /// Answers one request. Never fails: what goes wrong is a response.
    pub(crate) async fn serve(
        self: Arc<Self>,
        request: Request<()>,
        _from: PeerConnection,
    ) -> Response<EdgeBody> {
        let head_only = request.method() == Method::HEAD;
        // The request is not kept while waiting: thousands wait at once.
        let (follower, served) = match self.route(&request) {
            Ok(waiting) => waiting,
            Err(response) => return *response,
        };
        drop(request);
        match follower.head().await {
            Ok(head) => self.stream(&head, served, (!head_only).then_some(follower)),
            Err(cause) => self.small(&unavailable(cause), head_only),
        }
    }

    /// Decides what can be decided at once; `Ok` is a request that has to wait for a fill.
    fn route(&self, request: &Request<()>) -> Result<(Follower, Served), Box<Response<EdgeBody>>> {
        let head_only = match *request.method() {
            Method::GET => false,
            Method::HEAD => true,
            Method::OPTIONS => {
                self.metrics.requests.preflight.inc();
                return Err(Box::new(self.own(preflight(), false)));
            }
            _ => return Err(Box::new(self.method_not_allowed())),
        };
        let key = self.key(request, head_only)?;
        let requests = &self.metrics.requests;
        match self.store.find(key) {
            Found::Stored(stored) => {
                let hit =
                    if stored.head.status.is_success() { &requests.hit } else { &requests.negative_hit };
                hit.inc();
                Err(Box::new(self.hit(&stored, request.headers(), head_only)))
            }
            Found::Coming(follower, served) => {
                let outcome = if served == Served::Miss { &requests.miss } else { &requests.join };
                outcome.inc();
                Ok((follower, served))
            }
            Found::Shed { retry_after_s } => {
                requests.shed.inc();
                let problem =
                    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many requests are waiting here")
                        .retry_after_s(retry_after_s);
                Err(Box::new(self.small(&problem, head_only)))
            }
        }
    }

    fn key(&self, request: &Request<()>, head_only: bool) -> Result<CacheKey, Box<Response<EdgeBody>>> {
        let (path, headers) = (request.uri().path(), request.headers());
        let refuse = |problem: &Problem| {
            self.metrics.requests.refused.inc();
            Box::new(self.small(problem, head_only))
        };
        let Some(resource) = LiveResource::parse(path) else {
            if let Some(page) = self.pages.respond(path, headers) {
                self.metrics.requests.page.inc();
                return Err(Box::new(self.own(page, head_only)));
            }
            let max_age_s = max_age_s(Freshness::Media, false, TARGET_DURATION_S);
            return Err(refuse(&Problem::new(StatusCode::NOT_FOUND, "no such path").max_age_s(max_age_s)));
        };
        CacheKey::new(resource, request.uri().query(), accepts_gzip(headers)).map_err(|error| {
            let max_age_s = max_age_s(Freshness::BlockingPlaylist, false, TARGET_DURATION_S);
            refuse(&Problem::new(StatusCode::BAD_REQUEST, error.to_string()).max_age_s(max_age_s))
        })
    }

    fn hit(&self, stored: &Stored, request_headers: &HeaderMap, head_only: bool) -> Response<EdgeBody> {
        let now = Instant::now();
        if stored.head.is_known_to(request_headers) {
            let body = EdgeBody::whole(Bytes::new(), Arc::clone(&self.metrics));
            return stored.head.not_modified(now, body);
        }
        let bytes = if head_only { Bytes::new() } else { stored.body.clone() };
        let body = EdgeBody::whole(bytes, Arc::clone(&self.metrics));
        stored.head.response(Served::Hit, now, body)
    }

    fn stream(&self, head: &Head, served: Served, follower: Option<Follower>) -> Response<EdgeBody> {
        let metrics = Arc::clone(&self.metrics);
        let body = match follower {
            Some(follower) => EdgeBody::following(follower, head.content_length, metrics),
            None => EdgeBody::whole(Bytes::new(), metrics),
        };
        head.response(served, Instant::now(), body)
    }

    fn method_not_allowed(&self) -> Response<EdgeBody> {
        self.metrics.requests.refused.inc();
        let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "GET, HEAD and OPTIONS are answered here");
        let mut response = self.small(&problem, false);
        let allow = HeaderValue::from_static("GET, HEAD, OPTIONS");
        response.headers_mut().insert(header::ALLOW, allow);
        response
    }

    fn small(&self, problem: &Problem, head_only: bool) -> Response<EdgeBody> {
        self.own(problem.response(), head_only)
    }

    fn own(&self, response: Response<Full<Bytes>>, head_only: bool) -> Response<EdgeBody> {
        let response = if head_only { without_body(response) } else { response };
        response.map(|body| EdgeBody::whole(body.into_inner().unwrap_or_default(), Arc::clone(&self.metrics)))
    }
}

fn unavailable(cause: Cause) -> Problem {
    let jitter = fastrand::u32(..);
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, cause.to_string())
        .retry_after_s(crate::coalesce::retry_after_s(jitter))
}
