//! `POST /internal/revocations`: a playback session, or everything that a subject was given, is good no more.

use crate::policy::{NotRevoked, Policies, now_ms};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use sigma_http::problem::Problem;
use sigma_token::claims::SUBJECT_BYTES_MAX;
use sigma_token::policy::Revocation;
use sigma_token::session::SessionId;
use std::sync::Arc;

/// Where it is asked for.
pub(super) const PATH: &str = "/internal/revocations";
/// How long a revocation is in force that does not say: longer than any session may be, and than tokens should be.
const DEFAULT_MS: u64 = 31 * 86_400_000;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    session: Option<String>,
    subject: Option<String>,
    /// For a subject: what was made from then on is spared. Without it: now.
    before: Option<String>,
    /// When it may be forgotten. Without it: in 31 days.
    until: Option<String>,
}

/// Revokes; every edge knows as soon as its held question is answered.
pub(super) async fn revoke(policies: Arc<Policies>, body: &[u8]) -> Result<Value, Problem> {
    let asked = read(body, now_ms()).map_err(|detail| Problem::new(StatusCode::BAD_REQUEST, detail))?;
    let until_ms = asked.until_ms;
    let revoked = tokio::task::spawn_blocking(move || policies.revoke(asked)).await;
    match revoked {
        Ok(Ok(version)) => {
            let until =
                i64::try_from(until_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
            Ok(json!({ "version": version, "until": until.map(|until| until.to_string()) }))
        }
        Ok(Err(error @ NotRevoked::Full)) => {
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()))
        }
        Ok(Err(error)) => Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
        Err(_) => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the origin stops")),
    }
}

fn read(body: &[u8], now_ms: u64) -> Result<Revocation, String> {
    const EXPECTED: &str =
        "{\"session\": \"...\"} or {\"subject\": \"...\", \"before\": \"RFC 3339\"} is expected";
    let asked: Asked = serde_json::from_slice(body).map_err(|error| format!("{error}; {EXPECTED}"))?;
    let until_ms = match &asked.until {
        Some(until) => date("until", until)?,
        None => now_ms.saturating_add(DEFAULT_MS),
    };
    if until_ms <= now_ms {
        return Err("until: a time to come is expected".to_owned());
    }
    match (asked.session, asked.subject, asked.before) {
        (Some(session), None, None) => {
            let session: SessionId =
                session.to_ascii_lowercase().parse().map_err(|error| format!("session: {error}"))?;
            Ok(Revocation::of_session(session, until_ms))
        }
        (None, Some(subject), before) => {
            if !(1..=SUBJECT_BYTES_MAX).contains(&subject.len()) {
                return Err(format!("subject: 1 to {SUBJECT_BYTES_MAX} bytes are expected"));
            }
            let before_ms = before.map_or(Ok(now_ms), |before| date("before", &before))?;
            Ok(Revocation::of_subject(&subject, before_ms, until_ms))
        }
        _ => Err(EXPECTED.to_owned()),
    }
}

fn date(name: &str, text: &str) -> Result<u64, String> {
    let parsed = text.parse::<jiff::Timestamp>().ok();
    let ms = parsed.and_then(|date| u64::try_from(date.as_millisecond()).ok());
    ms.ok_or_else(|| format!("{name}: {text}: RFC 3339 with a zone is expected"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_795_333_200_000;
    const SID: &str = "00112233445566778899aabbccddeeff";

    #[test]
    fn what_is_asked_is_read() {
        let session = read(format!("{{\"session\": \"{}\"}}", SID.to_uppercase()).as_bytes(), NOW);
        assert_eq!(session, Ok(Revocation::of_session(SID.parse().expect("an id"), NOW + DEFAULT_MS)));
        let until = r#""until": "2027-01-01T00:00:00Z""#;
        let subject = read(format!("{{\"subject\": \"a\", {until}}}").as_bytes(), NOW);
        assert_eq!(subject, Ok(Revocation::of_subject("a", NOW, 1_798_761_600_000)));
        let before = read(br#"{"subject": "a", "before": "1970-01-01T00:00:05Z"}"#, NOW);
        assert_eq!(before.expect("read").before_ms, Some(5000));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (body, named) in [
            ("{}", "session"),
            (r#"{"session": "x"}"#, "session"),
            (r#"{"subject": ""}"#, "subject"),
            (r#"{"session": "00112233445566778899aabbccddeeff", "subject": "a"}"#, "expected"),
            (
                r#"{"session": "00112233445566778899aabbccddeeff", "before": "2026-01-01T00:00:00Z"}"#,
                "expected",
            ),
            (r#"{"subject": "a", "before": "yesterday"}"#, "before: yesterday"),
            (r#"{"subject": "a", "until": "2020-01-01T00:00:00Z"}"#, "until"),
            (r#"{"subject": "a", "who": "b"}"#, "who"),
        ] {
            let error = read(body.as_bytes(), NOW).expect_err(body);
            assert!(error.contains(named), "{body}: {error}");
        }
    }
}
