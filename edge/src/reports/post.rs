//! Sending a report, and what the answer means.

use crate::upstream::Upstream;
use bytes::BytesMut;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use serde::Deserialize;
use sigma_report::report::{MEDIA_TYPE, PATH};
use sigma_report::settled::SETTLED_HEADER;
use std::time::Duration;

use super::spool::{Number, Outgoing};

/// The largest answer that is read.
const ANSWER_BYTES_MAX: usize = 16 * 1024;
/// How long the body of an answer may take.
const ANSWER_PATIENCE: Duration = Duration::from_secs(5);
/// The longest rest that an upstream may ask for.
const RETRY_AFTER_S_MAX: u64 = 30;

/// What became of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is durable.
    Acknowledged,
    /// It will not be taken, however often it is sent.
    Refused(StatusCode, String),
    /// The upstream does not know this version of reports: one that is newer will.
    Unknown(String),
    /// Not now; perhaps after a rest.
    Later(String, Option<Duration>),
}

/// Where reports go.
pub(crate) trait Post: Send + Sync + 'static {
    /// Sends one.
    fn post(&self, report: Outgoing) -> impl Future<Output = Outcome> + Send;
}

#[derive(Deserialize)]
struct Acknowledgement {
    incarnation: u64,
    sequence: u64,
}

impl Post for Upstream {
    async fn post(&self, report: Outgoing) -> Outcome {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        // Digits are always a header value.
        if let Ok(settled) = HeaderValue::from_str(&report.settled.to_string()) {
            headers.insert(SETTLED_HEADER, settled);
        }
        // Of the same name, and not the trait's.
        let answer = match Self::post(self, PATH, headers, report.bytes).await {
            Ok(answer) => answer,
            Err(error) => return Outcome::Later(error.to_string(), None),
        };
        let (head, mut body) = answer.into_parts();
        let mut text = BytesMut::new();
        let reading = async {
            while let Ok(Some(chunk)) = body.chunk().await {
                text.extend_from_slice(&chunk);
                if text.len() > ANSWER_BYTES_MAX {
                    break;
                }
            }
        };
        let _ = tokio::time::timeout(ANSWER_PATIENCE, reading).await;
        judge(report.number, &Response::from_parts(head, &text[..]))
    }
}

/// What an answer means.
fn judge(number: Number, answer: &Response<&[u8]>) -> Outcome {
    let status = answer.status();
    if status == StatusCode::OK {
        return match serde_json::from_slice::<Acknowledgement>(answer.body()) {
            Ok(ack) if (ack.incarnation, ack.sequence) == number => Outcome::Acknowledged,
            Ok(_) => Outcome::Later("the acknowledgement is of another report".to_owned(), None),
            Err(error) => Outcome::Later(format!("the acknowledgement cannot be read: {error}"), None),
        };
    }
    let text: String = String::from_utf8_lossy(answer.body()).chars().take(300).collect();
    let why = format!("{status}: {text}");
    match status {
        StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY => {
            return Outcome::Refused(status, why);
        }
        StatusCode::UNSUPPORTED_MEDIA_TYPE => return Outcome::Unknown(why),
        _ => {}
    }
    let retry_after = answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    let rest_s = retry_after.and_then(|text| text.trim().parse::<u64>().ok());
    Outcome::Later(why, rest_s.map(|s| Duration::from_secs(s.min(RETRY_AFTER_S_MAX))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_answers_mean() {
        let judged = |status: u16, body: &'static str| {
            let answer = Response::builder().status(status).header("retry-after", "7").body(body.as_bytes());
            judge((5, 9), &answer.unwrap())
        };
        assert_eq!(judged(200, r#"{"incarnation":5,"sequence":9}"#), Outcome::Acknowledged);
        for (status, body) in [
            (200, r#"{"incarnation":5,"sequence":8}"#),
            (200, "ok"),
            (403, ""),
            (404, ""),
            (429, ""),
            (500, ""),
            (503, ""),
        ] {
            assert!(matches!(judged(status, body), Outcome::Later(..)), "{status} {body}");
        }
        let Outcome::Later(_, rest) = judged(503, "") else { panic!() };
        assert_eq!(rest, Some(Duration::from_secs(7)));
        for status in [400, 413, 422] {
            let refused = matches!(judged(status, "why"),
                Outcome::Refused(said, why) if said == status && why.contains("why"));
            assert!(refused, "{status}");
        }
        assert!(matches!(judged(415, "which?"), Outcome::Unknown(why) if why.contains("which?")));
    }
}
