//! A viewer's request: method, path, directives, cache, response.
//!
//! Invariants: what the grammar does not know is refused here and never reaches the upstream; request bodies and
//! request headers are not passed on (only the coding that the key names); every response can be read by a web page.

use crate::account::{Account, Sampling};
use crate::admission::{Admission, Admitted, Visitor};
use crate::body::EdgeBody;
use crate::cache::{Found, Store, Stored};
use crate::coalesce::Cause;
use crate::config::Config;
use crate::fill::Follower;
use crate::head::{Head, Served, Timing};
use crate::key::CacheKey;
use crate::metrics::Metrics;
use crate::places::Seats;
use crate::policy::{self, PolicyFeed};
use crate::reports::{Kind, Reported, pass_on};
use crate::upstream::{PROBE_PATH, Upstream};
use crate::viewers::{Viewers, Visit};
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use rust_embed::Embed;
use sigma_http::assets::Assets;
use sigma_http::headers::{accepts_gzip, preflight, without_body};
use sigma_http::listener::PeerConnection;
use sigma_http::ops::Readiness;
use sigma_http::problem::Problem;
use sigma_http::request_body::RequestBody;
use sigma_report::report::POP_HEADER;
use sigma_report::settled::SETTLED_HEADER;
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
    admission: Admission,
    policy: PolicyFeed,
    upstream: Upstream,
    viewers: Arc<Viewers>,
    own: Own,
}

/// What this edge is by its configuration.
struct Own {
    /// The start of every `CMSD-Dynamic`.
    pop: String,
    sampling: Sampling,
    /// POPs behind it that pass on what others post.
    shields: Vec<String>,
}

/// What can be said at once about a request.
enum Answer {
    /// The object is in the cache.
    Stored(Arc<Stored>),
    /// The object is on its way.
    Coming(Follower, Served),
    /// Nothing to do with the cache.
    Own(Box<Response<Full<Bytes>>>),
    /// The policy, perhaps once it changed.
    Policy {
        query: Option<Box<str>>,
        /// Whether a POP asks.
        trusted: bool,
    },
    /// What a POP behind this edge posts.
    Posted(Box<Reported>),
}

/// What a [`Handler`] is made of.
pub(crate) struct HandlerParts {
    pub(crate) store: Arc<Store>,
    pub(crate) policy: PolicyFeed,
    pub(crate) upstream: Upstream,
    pub(crate) viewers: Arc<Viewers>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Handler {
    pub(crate) fn new(parts: HandlerParts, config: &Config) -> Arc<Self> {
        let HandlerParts { store, policy, upstream, viewers, metrics } = parts;
        let (counting, counted) = (Arc::clone(&viewers), Arc::clone(&metrics));
        let admission = Admission::new(&config.sessions, policy.clone(), counting, counted);
        let sampling = Sampling(config.access_log.one_in);
        let own = Own { pop: config.pop.clone(), sampling, shields: config.reports.shields.clone() };
        Arc::new(Self { store, metrics, pages: Assets::new(), admission, policy, upstream, viewers, own })
    }

    /// Who has a place here.
    pub(crate) fn seats(&self) -> &Arc<Seats> {
        self.admission.seats()
    }

    /// Answers one request. Never fails: what goes wrong is a response.
    ///
    /// The request is gone when this returns, before anything is waited for: thousands wait at once, and hyper can go on
    /// with the buffer that the request was read into.
    pub(crate) fn serve(
        self: Arc<Self>,
        request: Request<RequestBody>,
        from: PeerConnection,
    ) -> impl Future<Output = Response<EdgeBody>> + Send + 'static {
        let (head, body) = request.into_parts();
        let request = Request::from_parts(head, ());
        let head_only = request.method() == Method::HEAD;
        let (address, trusted) = (from.peer.ip(), from.client.is_some());
        let mut account = Account::open(&self.metrics, &request, address, self.own.sampling);
        let answer = if request.uri().path() == policy::PATH && request.method() == Method::GET {
            Answer::Policy { query: request.uri().query().map(Into::into), trusted }
        } else if let Some(kind) = Kind::of(request.uri().path())
            && request.method() == Method::POST
            && let Some(client) = from.client
        {
            let said = |name| request.headers().get(name).cloned();
            let (named, settled) = (said(POP_HEADER), said(SETTLED_HEADER));
            Answer::Posted(Box::new(Reported { kind, client, named, settled, body }))
        } else {
            let visitor = Visitor::of(&request, address, trusted);
            self.route(&request, &visitor, &mut account).unwrap_or_else(Answer::Own)
        };
        self.deliver(answer, head_only, account)
    }

    async fn deliver(
        self: Arc<Self>,
        answer: Answer,
        head_only: bool,
        mut account: Box<Account>,
    ) -> Response<EdgeBody> {
        match answer {
            Answer::Stored(stored) => self.hit(&stored, head_only, account),
            Answer::Own(response) => own(*response, head_only, account),
            Answer::Policy { query, trusted } => {
                own(Box::pin(self.policy(query.as_deref(), trusted)).await, false, account)
            }
            Answer::Posted(reported) => {
                let passing = pass_on(&self.upstream, &self.own.shields, *reported);
                own(Box::pin(passing).await, false, account)
            }
            Answer::Coming(follower, served) => {
                account.waits();
                match follower.head().await {
                    Ok(head) => self.stream(&head, served, (!head_only).then_some(follower), account),
                    Err(cause) => own(unavailable(cause).response(), head_only, account),
                }
            }
        }
    }

    /// Decides what can be decided at once; an error is an answer too.
    fn route(
        &self,
        request: &Request<()>,
        visitor: &Visitor<'_>,
        account: &mut Account,
    ) -> Result<Answer, Box<Response<Full<Bytes>>>> {
        let requests = &self.metrics.requests;
        match *request.method() {
            Method::GET | Method::HEAD => {}
            Method::OPTIONS => {
                requests.preflight.inc();
                return Ok(Answer::Own(Box::new(preflight())));
            }
            _ => return Ok(Answer::Own(Box::new(self.method_not_allowed()))),
        }
        let uri = request.uri();
        let key = match self.admission.admit(uri.path(), uri.query(), visitor) {
            Admitted::Resource(resource, in_use, party) => {
                account.hold(in_use);
                if let Some(party) = party {
                    account.by(Visit::begin(&self.viewers, party, request));
                }
                self.key(resource, request)?
            }
            Admitted::Elsewhere if uri.path() == PROBE_PATH => {
                return Ok(Answer::Own(Box::new(self.health())));
            }
            Admitted::Elsewhere => return Err(self.page(request)),
            Admitted::Answer(response) => return Err(response),
        };
        match self.store.find(key) {
            Found::Stored(stored) => {
                let hit =
                    if stored.head.status.is_success() { &requests.hit } else { &requests.negative_hit };
                hit.inc();
                Ok(Answer::Stored(stored))
            }
            Found::Coming(follower, served) => {
                let outcome = match served {
                    Served::Miss => &requests.miss,
                    Served::Disk => &requests.disk_hit,
                    Served::Hit | Served::Joined => &requests.join,
                };
                outcome.inc();
                Ok(Answer::Coming(follower, served))
            }
            Found::Shed { retry_after_s } => {
                requests.shed.inc();
                let problem =
                    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many requests are waiting here")
                        .retry_after_s(retry_after_s);
                Ok(Answer::Own(Box::new(problem.response())))
            }
            Found::TooFarAhead => {
                let detail = "_HLS_msn or _HLS_part is too far ahead of the playlist";
                Ok(Answer::Own(Box::new(self.bad_request(detail.to_owned()))))
            }
        }
    }

    /// The policy, for edges behind this one.
    async fn policy(&self, query: Option<&str>, trusted: bool) -> Response<Full<Bytes>> {
        if trusted {
            return self.policy.respond(query).await;
        }
        self.metrics.requests.refused.inc();
        Problem::new(StatusCode::FORBIDDEN, "not allowed here").response()
    }

    /// Whether an edge behind this one does well to ask here: it does while this one has somebody to ask.
    fn health(&self) -> Response<Full<Bytes>> {
        self.metrics.requests.page.inc();
        let mut response = match self.store.upstream_readiness() {
            Readiness::Ready => Response::new(Full::default()),
            Readiness::NotReady(_) => {
                return Problem::new(StatusCode::SERVICE_UNAVAILABLE, "no upstream is well").response();
            }
        };
        *response.status_mut() = StatusCode::NO_CONTENT;
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }

    /// What is not under `/live/`.
    fn page(&self, request: &Request<()>) -> Box<Response<Full<Bytes>>> {
        if let Some(page) = self.pages.respond(request.uri().path(), request.headers()) {
            self.metrics.requests.page.inc();
            return Box::new(page);
        }
        self.metrics.requests.refused.inc();
        let max_age_s = max_age_s(Freshness::Media, false, TARGET_DURATION_S);
        Box::new(Problem::new(StatusCode::NOT_FOUND, "no such path").max_age_s(max_age_s).response())
    }

    fn key(
        &self,
        resource: LiveResource,
        request: &Request<()>,
    ) -> Result<CacheKey, Box<Response<Full<Bytes>>>> {
        let gzip = accepts_gzip(request.headers());
        CacheKey::new(resource, request.uri().query(), gzip)
            .map_err(|error| Box::new(self.bad_request(error.to_string())))
    }

    fn bad_request(&self, detail: String) -> Response<Full<Bytes>> {
        self.metrics.requests.refused.inc();
        let max_age_s = max_age_s(Freshness::BlockingPlaylist, false, TARGET_DURATION_S);
        Problem::new(StatusCode::BAD_REQUEST, detail).max_age_s(max_age_s).response()
    }

    fn hit(&self, stored: &Stored, head_only: bool, mut account: Box<Account>) -> Response<EdgeBody> {
        let delay = account.answered_with(stored.head.status, Some(Served::Hit), stored.head.object);
        let timing = Timing { pop: &self.own.pop, served: Served::Hit, delay };
        let bytes = if head_only { Bytes::new() } else { stored.body.clone() };
        stored.head.response(&timing, Instant::now(), EdgeBody::whole(bytes, account))
    }

    fn stream(
        &self,
        head: &Head,
        served: Served,
        follower: Option<Follower>,
        mut account: Box<Account>,
    ) -> Response<EdgeBody> {
        // Whoever followed, and whatever was expected: where it did come from.
        let served = match (head.from_disk, served) {
            (true, _) => Served::Disk,
            (false, Served::Disk) => Served::Miss,
            (false, served) => served,
        };
        let delay = account.answered_with(head.status, Some(served), head.object);
        if served != Served::Disk {
            self.metrics.hold_seconds.observe(delay.as_secs_f64());
        }
        let timing = Timing { pop: &self.own.pop, served, delay };
        let body = match follower {
            Some(follower) => EdgeBody::following(follower, head.content_length, account),
            None => EdgeBody::whole(Bytes::new(), account),
        };
        head.response(&timing, Instant::now(), body)
    }

    fn method_not_allowed(&self) -> Response<Full<Bytes>> {
        self.metrics.requests.refused.inc();
        let problem = Problem::new(StatusCode::METHOD_NOT_ALLOWED, "GET, HEAD and OPTIONS are answered here");
        let mut response = problem.response();
        let allow = HeaderValue::from_static("GET, HEAD, OPTIONS");
        response.headers_mut().insert(header::ALLOW, allow);
        response
    }
}

fn own(response: Response<Full<Bytes>>, head_only: bool, mut account: Box<Account>) -> Response<EdgeBody> {
    account.answered(response.status());
    let response = if head_only { without_body(response) } else { response };
    response.map(|body| EdgeBody::whole(body.into_inner().unwrap_or_default(), account))
}

fn unavailable(cause: Cause) -> Problem {
    let jitter = fastrand::u32(..);
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, cause.to_string())
        .retry_after_s(crate::coalesce::retry_after_s(jitter))
}
