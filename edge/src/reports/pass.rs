//! A shield's part: what POPs behind it post, reports and who has a place there, goes on to its own upstream, and the answers
//! back.
//!
//! Invariant: whose it is, is said by a certificate: the reporting POP's own, or that of a POP which the configuration
//! says is a shield, too.

use crate::upstream::Upstream;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::Full;
use sigma_http::problem::Problem;
use sigma_http::request_body::RequestBody;
use sigma_report::places;
use sigma_report::report::{self, POP_HEADER, reporter};
use sigma_report::settled::SETTLED_HEADER;
use std::sync::Arc;
use std::time::Duration;

/// The largest answer to a report that is passed back.
const ACKNOWLEDGEMENT_BYTES_MAX: usize = 16 * 1024;
/// How long what is posted, or an answer, may take to arrive.
const PATIENCE: Duration = Duration::from_secs(10);
/// When the POP may come back, seconds.
const RETRY_AFTER_S: u32 = 1;

/// What POPs post.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Who watches.
    Report,
    /// Who has a place.
    Places,
}

impl Kind {
    /// What is posted to a path.
    pub(crate) fn of(path: &str) -> Option<Self> {
        [Self::Report, Self::Places].into_iter().find(|kind| kind.path() == path)
    }

    fn path(self) -> &'static str {
        match self {
            Self::Report => report::PATH,
            Self::Places => places::PATH,
        }
    }

    fn media_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Report => report::MEDIA_TYPE,
            Self::Places => places::MEDIA_TYPE,
        })
    }

    /// Of what is posted, and of the answer.
    fn bytes_max(self) -> (usize, usize) {
        match self {
            Self::Report => (report::BYTES_MAX, ACKNOWLEDGEMENT_BYTES_MAX),
            Self::Places => (places::BYTES_MAX, places::ANSWER_BYTES_MAX),
        }
    }
}

/// What is to be passed on.
pub(crate) struct Reported {
    pub(crate) kind: Kind,
    /// The POP whose certificate was shown.
    pub(crate) client: Arc<str>,
    /// The POP whose it is, when it is another one's.
    pub(crate) named: Option<HeaderValue>,
    /// What that POP will not send any more.
    pub(crate) settled: Option<HeaderValue>,
    pub(crate) body: RequestBody,
}

/// Passes on what came with a POP's certificate: its own, or, of one of the shields, what it passes on itself for a POP that it
/// names.
pub(crate) async fn pass_on(
    upstream: &Upstream,
    shields: &[String],
    reported: Reported,
) -> Response<Full<Bytes>> {
    let Reported { kind, client, named, settled, body } = reported;
    let client = &*client;
    let named = named.as_ref().map(|pop| pop.to_str().unwrap_or_default());
    let Ok(pop) = reporter(client, named) else {
        return Problem::new(StatusCode::BAD_REQUEST, "sigma-pop names no POP").response();
    };
    if pop.as_str() != client && !shields.iter().any(|shield| shield == client) {
        body.discard().await;
        let detail = format!(
            "{POP_HEADER}: `{client}` may not pass on reports of `{pop}`; if it is a shield, add it to reports.shields of this \
             edge's configuration: shields = [\"{client}\"]"
        );
        return Problem::new(StatusCode::FORBIDDEN, detail).response();
    }
    let (bytes_max, answer_bytes_max) = kind.bytes_max();
    let posted = match body.read(bytes_max, PATIENCE).await {
        Ok(posted) => posted,
        Err(error) => return error.problem().response(),
    };
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, kind.media_type());
    // An id is always a header value.
    if let Ok(pop) = HeaderValue::from_str(pop.as_str()) {
        headers.insert(POP_HEADER, pop);
    }
    if let Some(settled) = settled {
        headers.insert(SETTLED_HEADER, settled);
    }
    let later = |why: &str| {
        let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, why).retry_after_s(RETRY_AFTER_S);
        problem.response()
    };
    let answer = match upstream.post(kind.path(), headers, posted).await {
        Ok(answer) => answer,
        Err(error) => return later(&error.to_string()),
    };
    let (head, body) = answer.into_parts();
    let Some(answer) = body.whole(answer_bytes_max, PATIENCE).await else {
        return later("the upstream's answer broke off");
    };
    let mut response = Response::new(Full::new(answer));
    *response.status_mut() = head.status;
    for name in [header::CONTENT_TYPE, header::RETRY_AFTER] {
        if let Some(value) = head.headers.get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
