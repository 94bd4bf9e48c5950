//! Headers that every viewer-facing response carries, errors included: without them a browser sees status 0 instead of
//! a 404 (DL-09, DL-10, DL-11).

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body::Body;
use http_body_util::Full;

/// What scripts may read of a response: the player computes latency from `Age`, `Date` and CMSD.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "Age, Date, CMSD-Static, CMSD-Dynamic, Retry-After, Content-Length, Cache-Status",
);
const ANY: HeaderValue = HeaderValue::from_static("*");
const TIMING_ALLOW_ORIGIN: HeaderName = HeaderName::from_static("timing-allow-origin");

/// Lets any web page read the response and its timing.
pub fn apply_cors(headers: &mut HeaderMap) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, ANY);
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    headers.insert(TIMING_ALLOW_ORIGIN, ANY);
}

/// The answer to a CORS preflight: reading is allowed, with the headers players send, for a day.
#[must_use]
pub fn preflight() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    apply_cors(headers);
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, OPTIONS"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "Range, CMCD-Object, CMCD-Request, CMCD-Session, CMCD-Status"),
        (header::ACCESS_CONTROL_MAX_AGE, "86400"),
        (header::ALLOW, "GET, HEAD, OPTIONS"),
        (header::CACHE_CONTROL, "max-age=86400"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// The answer to HEAD: what GET would say, without the body.
#[must_use]
pub fn without_body<B: Body>(mut response: Response<B>) -> Response<Full<Bytes>> {
    if let Some(length) = response.body().size_hint().exact().filter(|length| *length > 0) {
        let headers = response.headers_mut();
        headers.entry(header::CONTENT_LENGTH).or_insert(HeaderValue::from(length));
    }
    response.map(|_| Full::default())
}

/// Whether the request's `Accept-Encoding` takes gzip: named, or `*`, and not with a weight of zero.
#[must_use]
pub fn accepts_gzip(headers: &HeaderMap) -> bool {
    let mut wildcard = false;
    for value in headers.get_all(header::ACCEPT_ENCODING) {
        for item in value.to_str().unwrap_or("").split(',') {
            let (coding, weight) = item.split_once(';').unwrap_or((item, ""));
            let coding = coding.trim();
            let accepted = !is_zero_weight(weight);
            if coding.eq_ignore_ascii_case("gzip") || coding.eq_ignore_ascii_case("x-gzip") {
                return accepted;
            }
            wildcard |= coding == "*" && accepted;
        }
    }
    wildcard
}

fn is_zero_weight(parameter: &str) -> bool {
    let parameter = parameter.trim();
    let Some(weight) = parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q=")) else {
        return false;
    };
    weight.trim().parse::<f32>().is_ok_and(|q| q <= 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_negotiation() {
        for (accept, expected) in [
            (None, false),
            (Some(""), false),
            (Some("gzip"), true),
            (Some("GZIP, deflate, br"), true),
            (Some("br;q=1.0, gzip;q=0.8"), true),
            (Some("gzip;q=0"), false),
            (Some("gzip; q=0.000, *"), false),
            (Some("*"), true),
            (Some("*;q=0"), false),
            (Some("identity"), false),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(accept) = accept {
                headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(accept));
            }
            assert_eq!(accepts_gzip(&headers), expected, "{accept:?}");
        }
    }

    #[test]
    fn dl_09_dl_10_on_a_preflight() {
        let response = preflight();
        for name in [
            "access-control-allow-origin",
            "access-control-expose-headers",
            "access-control-max-age",
            "timing-allow-origin",
        ] {
            assert!(response.headers().contains_key(name), "{name}");
        }
    }
}
