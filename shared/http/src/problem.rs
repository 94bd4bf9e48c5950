//! Error responses: small RFC 9457 problem documents with the CORS headers that make them readable (DL-11).

use crate::headers::apply_cors;
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::Full;

/// An error as the client shall see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The HTTP status.
    pub status: StatusCode,
    /// What is wrong with this request, in words for a person. May quote the request: it is escaped.
    pub detail: String,
    /// `Retry-After`, seconds.
    pub retry_after_s: Option<u32>,
    /// How long caches may keep the error, seconds; `None` is `no-store`.
    pub max_age_s: Option<u32>,
}

impl Problem {
    /// A problem that is not cached and does not say when to retry.
    #[must_use]
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), retry_after_s: None, max_age_s: None }
    }

    /// Says when to retry, in seconds.
    #[must_use]
    pub fn retry_after_s(mut self, seconds: u32) -> Self {
        self.retry_after_s = Some(seconds);
        self
    }

    /// Lets caches keep the error, in seconds.
    #[must_use]
    pub fn max_age_s(mut self, seconds: u32) -> Self {
        self.max_age_s = Some(seconds);
        self
    }

    /// The problem document.
    #[must_use]
    pub fn document(&self) -> Bytes {
        let title = self.status.canonical_reason().unwrap_or("error");
        let document = serde_json::json!({
            "title": title, "status": self.status.as_u16(), "detail": self.detail,
        });
        Bytes::from(document.to_string())
    }

    /// The whole response.
    #[must_use]
    pub fn response(&self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(self.document()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        apply_cors(headers);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(header::CACHE_CONTROL, cache_control(self.max_age_s));
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

fn cache_control(max_age_s: Option<u32>) -> HeaderValue {
    max_age_s
        .and_then(|seconds| HeaderValue::from_str(&format!("max-age={seconds}")).ok())
        .unwrap_or(HeaderValue::from_static("no-store"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_cannot_break_out() {
        let problem = Problem::new(StatusCode::BAD_REQUEST, "a \"quoted\" <b>").retry_after_s(2);
        let parsed: serde_json::Value = serde_json::from_slice(&problem.document()).unwrap();
        assert_eq!(parsed["detail"], "a \"quoted\" <b>");
        let response = problem.response();
        assert_eq!(response.headers()["retry-after"], "2");
        assert_eq!(response.headers()["cache-control"], "no-store");
        assert_eq!(response.headers()["access-control-allow-origin"], "*");
    }
}
