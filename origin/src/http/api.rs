//! The REST API, `/api/v1/…`, for whoever has the admin's token. Its whole routing is on this page; `/api/openapi.json` says
//! the same to machines.
//!
//! Invariants: JSON in and out, errors are problem documents (RFC 9457) that name what is wrong; no page of another origin
//! can read it (no CORS), and nothing of it is cached; whoever shows no token is told so and nothing else (401), whatever
//! the path and the method: 404 and 405 are for those who may ask.

mod numbers;
mod params;
mod pops;
mod series;
mod sessions;
mod summary;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod token;

use crate::channel::Channels;
use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use params::Params;
use serde_json::Value;
use sigma_http::problem::Problem;
use sigma_shared::id::ChannelId;
use sigma_stats::keeper::{Stats, Unavailable};
use std::sync::Arc;
use token::AdminToken;

const OPENAPI_PATH: &str = "/api/openapi.json";
const OPENAPI: &[u8] = include_bytes!("api/openapi.json");
/// When it is worth trying again, seconds.
const RETRY_AFTER_S: u32 = 1;
/// What problems for viewers carry and these must not.
const FOR_VIEWERS: [HeaderName; 3] = [
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
    HeaderName::from_static("timing-allow-origin"),
];

/// Whether a path is the API's.
pub(super) fn is_below(path: &str) -> bool {
    path == "/api" || path.starts_with("/api/")
}

/// Whether a path is that of one POP.
fn is_pop(path: &str) -> bool {
    path.strip_prefix("/api/v1/pops/").is_some_and(|pop| !pop.contains('/'))
}

/// Answers the API's requests.
pub(super) struct Api {
    stats: Stats,
    channels: Arc<Channels>,
    token: AdminToken,
}

/// An answer, or why there is none.
type Answer = Result<Value, Problem>;

impl Api {
    pub(super) fn new(stats: Stats, channels: Arc<Channels>, token: AdminToken) -> Self {
        Self { stats, channels, token }
    }

    /// Answers one request.
    pub(super) async fn respond(&self, request: &Request<()>) -> Response<Full<Bytes>> {
        if request.uri().path() == OPENAPI_PATH && matches!(*request.method(), Method::GET | Method::HEAD) {
            return json(Bytes::from_static(OPENAPI));
        }
        let answer = match self.token.check(request.headers()) {
            Ok(()) => self.route(request).await,
            Err(refused) => return refused.response(),
        };
        match answer {
            Ok(value) => json(Bytes::from(value.to_string())),
            Err(problem) => {
                let is_method = problem.status == StatusCode::METHOD_NOT_ALLOWED;
                let mut response = refusal(&problem);
                if is_method {
                    let allowed =
                        if is_pop(request.uri().path()) { "GET, HEAD, DELETE" } else { "GET, HEAD" };
                    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
                }
                response
            }
        }
    }

    async fn route(&self, request: &Request<()>) -> Answer {
        let path: Vec<&str> = request.uri().path().split('/').skip(2).collect();
        let is_there = matches!(
            path[..],
            ["v1", "pops"]
                | ["v1", "pops", _]
                | ["v1", "stats", _]
                | ["v1", "stats", _, "series" | "playback-sessions"]
        );
        if !is_there {
            let detail = "here are /api/v1/pops, /api/v1/pops/{pop}, /api/v1/stats/{channel}, …/series and \
                          …/playback-sessions, as /api/openapi.json says";
            return Err(Problem::new(StatusCode::NOT_FOUND, detail));
        }
        let params = || Params::parse(request.uri().query().unwrap_or(""));
        match (request.method(), &path[..]) {
            (&Method::GET | &Method::HEAD, _) => self.read(&path, params()?).await,
            (&Method::DELETE, ["v1", "pops", pop]) => pops::delete(&self.stats, pop, params()?).await,
            (_, ["v1", "pops", _]) => {
                Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, "a POP can be read and deleted"))
            }
            _ => Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this can only be read")),
        }
    }

    async fn read(&self, path: &[&str], params: Params) -> Answer {
        match *path {
            ["v1", "pops"] => pops::list(&self.stats, params).await,
            ["v1", "pops", pop] => pops::show(&self.stats, pop, params).await,
            ["v1", "stats", channel] => summary::show(&self.stats, self.channel(channel)?, params).await,
            ["v1", "stats", channel, "series"] => {
                series::show(&self.stats, self.channel(channel)?, params).await
            }
            ["v1", "stats", channel, _] => sessions::list(&self.stats, self.channel(channel)?, params).await,
            _ => Err(Problem::new(StatusCode::NOT_FOUND, "no such resource")),
        }
    }

    fn channel(&self, id: &str) -> Result<ChannelId, Problem> {
        let known = id.parse().ok().filter(|id| self.channels.get(id).is_some());
        known.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, format!("channel: there is no `{id}`")))
    }
}

/// The statistics cannot be read.
fn not_now(_: Unavailable) -> Problem {
    let detail = "the statistics cannot be read at the moment";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after_s(RETRY_AFTER_S)
}

/// A problem, for programs and not for pages.
fn refusal(problem: &Problem) -> Response<Full<Bytes>> {
    let mut response = problem.response();
    for name in FOR_VIEWERS {
        response.headers_mut().remove(name);
    }
    response
}

fn json(body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    let head = response.headers_mut();
    head.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    head.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    head.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Unix milliseconds as RFC 3339, UTC.
fn date(ms: u64) -> Value {
    let date = i64::try_from(ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    date.map_or(Value::Null, |date| Value::String(date.to_string()))
}
