//! Reports of POPs: `POST /internal/edge/reports`.
//!
//! Invariants: only a POP that has shown its certificate may report, for itself or, if the configuration says that it is a
//! shield, for a POP behind it; 200 says that the report is on disk, and every other answer says whether to send it again.

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use serde_json::json;
use sigma_http::problem::Problem;
use sigma_http::request_body::{BodyError, RequestBody};
use sigma_report::report::{self, BYTES_MAX, InvalidReport, POP_HEADER};
use sigma_report::settled::SETTLED_HEADER;
use sigma_shared::id::PopId;
use sigma_stats::keeper::{Ack, Posted, ReportError, Stats};
use std::time::Duration;

/// A report that takes longer to arrive may be sent again.
const PATIENCE: Duration = Duration::from_secs(20);
/// When a POP may come again with what could not be taken, seconds.
pub(super) const RETRY_AFTER_S: u32 = 1;
/// When it may come again with a report of a version that is not known here.
pub(super) const VERSION_RETRY_AFTER_S: u32 = 5;

/// Where reports go, and who may pass on those of others.
#[derive(Debug)]
pub(super) struct Reports {
    pub(super) stats: Stats,
    pub(super) shields: Vec<PopId>,
}

/// Takes one.
pub(super) async fn take(
    reports: &Reports,
    request: &Request<()>,
    (client, body): (Option<&str>, RequestBody),
) -> Response<Full<Bytes>> {
    match taken(reports, request, (client, body)).await {
        Ok(ack) => {
            let acknowledged = json!({ "incarnation": ack.incarnation, "sequence": ack.sequence });
            let mut response = Response::new(Full::new(Bytes::from(acknowledged.to_string())));
            let head = response.headers_mut();
            head.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            head.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        }
        Err(problem) => problem.response(),
    }
}

async fn taken(
    reports: &Reports,
    request: &Request<()>,
    (client, body): (Option<&str>, RequestBody),
) -> Result<Ack, Problem> {
    match reporter(&reports.shields, request, client) {
        Ok(pop) => {
            let bytes = body.read(BYTES_MAX, PATIENCE).await.map_err(BodyError::problem)?;
            // Without it, or with one that cannot be read, what is missing is waited for.
            let settled =
                request.headers().get(SETTLED_HEADER).and_then(|value| value.to_str().ok()?.parse().ok());
            reports.stats.report(pop, Posted { bytes, settled }).await.map_err(|error| problem_of(&error))
        }
        Err(problem) => {
            body.discard().await;
            Err(problem)
        }
    }
}

/// Whose report it is, if whoever sends it may report for that POP.
pub(super) fn reporter(
    shields: &[PopId],
    request: &Request<()>,
    client: Option<&str>,
) -> Result<PopId, Problem> {
    if request.method() != Method::POST {
        return Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, "what POPs say is POSTed"));
    }
    let Some(client) = client else {
        return Err(Problem::new(StatusCode::FORBIDDEN, "only POPs report, by their certificate"));
    };
    let header = request.headers().get(POP_HEADER).map(|value| value.to_str().unwrap_or(""));
    let pop = report::reporter(client, header)
        .map_err(|error| Problem::new(StatusCode::BAD_REQUEST, format!("{POP_HEADER}: {error}")))?;
    if pop.as_str() != client && !shields.iter().any(|shield| shield.as_str() == client) {
        return Err(no_shield(client, &pop));
    }
    Ok(pop)
}

/// Whoever may speak for others could make their numbers.
fn no_shield(client: &str, pop: &PopId) -> Problem {
    let detail = format!(
        "{POP_HEADER}: `{client}` may not pass on reports of `{pop}`; if it is a shield, add it to stats.shields of the \
         origin's configuration: shields = [\"{client}\"]"
    );
    Problem::new(StatusCode::FORBIDDEN, detail)
}

fn problem_of(error: &ReportError) -> Problem {
    match error {
        // Of an edge that is newer, or older, than this origin: it keeps the report for one that knows the version.
        ReportError::Invalid(InvalidReport::Version(_)) => {
            Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, error.to_string())
                .retry_after_s(VERSION_RETRY_AFTER_S)
        }
        ReportError::Invalid(InvalidReport::TooMany { .. }) => {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, error.to_string())
        }
        ReportError::Invalid(_) => Problem::new(StatusCode::BAD_REQUEST, error.to_string()),
        ReportError::TooLarge => Problem::new(StatusCode::PAYLOAD_TOO_LARGE, error.to_string()),
        ReportError::Busy => {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()).retry_after_s(RETRY_AFTER_S)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_that_is_not_known_is_not_for_ever() {
        let status = |error: InvalidReport| problem_of(&error.into()).response().status();
        assert_eq!(status(InvalidReport::Version(9)), StatusCode::UNSUPPORTED_MEDIA_TYPE);
        assert_eq!(status(InvalidReport::Range("length")), StatusCode::BAD_REQUEST);
        let too_many = InvalidReport::TooMany { field: "entries", value: 2, bound: 1 };
        assert_eq!(status(too_many), StatusCode::PAYLOAD_TOO_LARGE);
    }
}
