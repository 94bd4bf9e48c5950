//! The internal API for timed metadata, on the operator's listener: `POST /internal/channels/{channel}/metadata`.
//!
//! Invariants: only this machine may use it; a browser cannot, because JSON from another origin asks permission first and
//! gets none. The public API comes with the control plane.

use crate::channel::{Annotation, Channels, NotAnnotated};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use sigma_http::problem::Problem;
use sigma_media::timed::Id3;
use sigma_shared::daterange::{Statement, Value};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// More is no metadata.
const BODY_MAX: usize = 64 << 10;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "lowercase")]
enum Asked {
    DateRange(DateRange),
    Id3(Text),
}

/// EXT-X-DATERANGE
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DateRange {
    id: String,
    class: Option<String>,
    /// Without it: now.
    start_date: Option<String>,
    duration_ms: Option<u64>,
    planned_duration_ms: Option<u64>,
    #[serde(default)]
    end_on_next: bool,
    #[serde(default)]
    attributes: BTreeMap<String, Attribute>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Attribute {
    Number(f64),
    Text(String),
}

/// A TXXX frame.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    description: String,
    text: String,
}

/// Answers what is below `/internal/`.
pub(crate) async fn respond(
    channels: &Channels,
    request: Request<Incoming>,
    from: IpAddr,
) -> Response<Full<Bytes>> {
    match annotate(channels, request, from).await {
        Ok(start_date) => {
            let body = serde_json::json!({ "start_date": start_date.map(|date| date.to_string()) });
            let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
            let json = http::HeaderValue::from_static("application/json");
            response.headers_mut().insert(http::header::CONTENT_TYPE, json);
            response
        }
        Err(problem) => problem.response(),
    }
}

async fn annotate(
    channels: &Channels,
    request: Request<Incoming>,
    from: IpAddr,
) -> Result<Option<jiff::Timestamp>, Problem> {
    let refuse = |status, detail: &str| Err(Problem::new(status, detail));
    let path = request.uri().path();
    let Some(channel) =
        path.strip_prefix("/internal/channels/").and_then(|rest| rest.strip_suffix("/metadata"))
    else {
        return refuse(
            StatusCode::NOT_FOUND,
            "here are /metrics, /healthz, /readyz and /internal/channels/{channel}/metadata",
        );
    };
    if !from.to_canonical().is_loopback() {
        return refuse(StatusCode::FORBIDDEN, "the internal API answers this machine only");
    }
    if request.method() != Method::POST {
        return refuse(StatusCode::METHOD_NOT_ALLOWED, "metadata is POSTed");
    }
    let header = |name: http::HeaderName| request.headers().get(name).and_then(|value| value.to_str().ok());
    // A browser that was told a false address of ours still says whom it means.
    let host = header(http::header::HOST).unwrap_or("localhost");
    let host = host.rsplit_once(':').map_or(host, |(name, _)| name).trim_matches(['[', ']']);
    if host != "localhost" && host.parse::<IpAddr>().is_err() {
        return refuse(
            StatusCode::FORBIDDEN,
            "the internal API answers to an address or to localhost, not to a name",
        );
    }
    let kind = header(http::header::CONTENT_TYPE).and_then(|kind| kind.split(';').next());
    if !kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json")) {
        return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Content-Type: application/json is expected");
    }
    let channel = channel.parse().ok().and_then(|id| channels.get(&id).cloned());
    let Some(channel) = channel else {
        return refuse(StatusCode::NOT_FOUND, "no channel of that id");
    };
    let Ok(body) = Limited::new(request.into_body(), BODY_MAX).collect().await else {
        return refuse(StatusCode::PAYLOAD_TOO_LARGE, "at most 64 KiB are read");
    };
    let annotation =
        read(&body.to_bytes()).map_err(|detail| Problem::new(StatusCode::BAD_REQUEST, detail))?;
    match channel.annotate(annotation).await {
        Ok(start_ms) => Ok(start_ms.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())),
        Err(NotAnnotated::NotLive) => refuse(StatusCode::CONFLICT, "the channel is not live"),
        Err(NotAnnotated::Invalid(detail)) => refuse(StatusCode::BAD_REQUEST, &detail),
        Err(NotAnnotated::Busy) => {
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the channel is busy").retry_after_s(1))
        }
    }
}

fn read(body: &[u8]) -> Result<Annotation, String> {
    let asked = serde_json::from_slice(body).map_err(|error| {
        format!("{error}; {{\"daterange\": {{...}}}} or {{\"id3\": {{...}}}} is expected")
    })?;
    Ok(match asked {
        Asked::Id3(Text { description, text }) => {
            Annotation::Id3(Id3::text(&description, &text).map_err(|error| error.to_string())?)
        }
        Asked::DateRange(range) => Annotation::DateRange {
            start_ms: range.start_date.as_deref().map(start).transpose()?,
            statement: Statement {
                id: range.id,
                class: range.class,
                start_ms: 0,
                duration_ms: range.duration_ms,
                planned_duration_ms: range.planned_duration_ms,
                end_on_next: range.end_on_next,
                attributes: range.attributes.into_iter().map(|(name, value)| (name, value.into())).collect(),
            },
        },
    })
}

fn start(date: &str) -> Result<i64, String> {
    let parsed: Result<jiff::Timestamp, _> = date.parse();
    parsed
        .map(jiff::Timestamp::as_millisecond)
        .map_err(|_| format!("start_date: {date}: RFC 3339 with a zone is expected"))
}

impl From<Attribute> for Value {
    fn from(attribute: Attribute) -> Self {
        match attribute {
            Attribute::Number(number) => Self::Number(number),
            Attribute::Text(text) => Self::Text(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_is_read() {
        let full =
            br#"{"daterange": {"id": "p", "class": "com.example", "start_date": "2026-11-22T07:40:00.5Z",
            "duration_ms": 500, "attributes": {"X-Q": "Who?", "X-N": 2}}}"#;
        let Ok(Annotation::DateRange { statement, start_ms }) = read(full) else { panic!("is read") };
        assert_eq!((start_ms, statement.duration_ms), (Some(1_795_333_200_500), Some(500)));
        assert_eq!(statement.attributes.len(), 2);
        assert!(matches!(
            read(br#"{"id3": {"description": "notice", "text": "hello"}}"#),
            Ok(Annotation::Id3(_))
        ));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (body, named) in [
            ("", "daterange"),
            ("{}", "daterange"),
            (r#"{"daterange": {}}"#, "id"),
            (r#"{"daterange": {"id": "a", "length": 1}}"#, "length"),
            (r#"{"daterange": {"id": "a", "start_date": "yesterday"}}"#, "start_date: yesterday"),
            (r#"{"id3": {"description": "a"}}"#, "text"),
            (r#"{"id3": {"description": "a", "text": "b\u0000"}}"#, "text"),
        ] {
            let error = read(body.as_bytes()).expect_err(body);
            assert!(error.contains(named), "{body}: {error}");
        }
    }
}
