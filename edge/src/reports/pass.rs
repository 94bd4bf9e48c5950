//! A shield's part: the reports of POPs behind it go on to its own upstream, and the answers back.
//!
//! Invariant: whose report it is, is said by a certificate: the reporting POP's own, or that of a POP which the configuration
//! says is a shield, too.

use crate::upstream::Upstream;
use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::Full;
use sigma_http::problem::Problem;
use sigma_http::request_body::RequestBody;
use sigma_report::report::{BYTES_MAX, MEDIA_TYPE, PATH, POP_HEADER, reporter};
use sigma_report::settled::SETTLED_HEADER;
use std::sync::Arc;
use std::time::Duration;

/// The largest answer that is passed back.
const ANSWER_BYTES_MAX: usize = 16 * 1024;
/// How long a report, or an answer, may take to arrive.
const PATIENCE: Duration = Duration::from_secs(10);
/// When the POP may come back, seconds.
const RETRY_AFTER_S: u32 = 1;

/// A report that is to be passed on.
pub(crate) struct Reported {
    /// The POP whose certificate was shown.
    pub(crate) client: Arc<str>,
    /// The POP whose report it is, when it is another one's.
    pub(crate) named: Option<HeaderValue>,
    /// What that POP will not send any more.
    pub(crate) settled: Option<HeaderValue>,
    pub(crate) body: RequestBody,
}

/// Passes a report on that came with a POP's certificate: its own, or, of one of the shields, one that it passes on itself and
/// names.
pub(crate) async fn pass_on(
    upstream: &Upstream,
    shields: &[String],
    reported: Reported,
) -> Response<Full<Bytes>> {
    let Reported { client, named, settled, body } = reported;
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
    let report = match body.read(BYTES_MAX, PATIENCE).await {
        Ok(report) => report,
        Err(error) => return error.problem().response(),
    };
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
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
    let answer = match upstream.post(PATH, headers, report).await {
        Ok(answer) => answer,
        Err(error) => return later(&error.to_string()),
    };
    let (head, mut body) = answer.into_parts();
    let mut text = BytesMut::new();
    let reading = async {
        while let Some(chunk) = body.chunk().await.map_err(drop)? {
            text.extend_from_slice(&chunk);
            if text.len() > ANSWER_BYTES_MAX {
                return Err(());
            }
        }
        Ok(())
    };
    if !matches!(tokio::time::timeout(PATIENCE, reading).await, Ok(Ok(()))) {
        return later("the upstream's answer broke off");
    }
    let mut response = Response::new(Full::new(text.freeze()));
    *response.status_mut() = head.status;
    for name in [header::CONTENT_TYPE, header::RETRY_AFTER] {
        if let Some(value) = head.headers.get(&name) {
            response.headers_mut().insert(name, value.clone());
        }
    }
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
