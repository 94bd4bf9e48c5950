//! Timed metadata from the operator: `POST /internal/channels/{channel}/metadata`.

use crate::channel::{Annotation, Channel, NotAnnotated};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use sigma_http::problem::Problem;
use sigma_media::timed::Id3;
use sigma_shared::daterange::{self, Statement};
use std::collections::BTreeMap;

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

/// Gives it to the channel's task.
pub(super) async fn annotate(channel: &Channel, body: &[u8]) -> Result<Value, Problem> {
    let refuse = |status, detail: &str| Err(Problem::new(status, detail));
    let annotation = read(body).map_err(|detail| Problem::new(StatusCode::BAD_REQUEST, detail))?;
    match channel.annotate(annotation).await {
        Ok(start_ms) => {
            let start = start_ms.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
            Ok(json!({ "start_date": start.map(|date| date.to_string()) }))
        }
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

impl From<Attribute> for daterange::Value {
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
