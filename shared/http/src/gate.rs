//! What is wrong with a request before anybody looks at what it asks for: requests that two servers in a row could
//! read as different ones.
//!
//! Invariant: a request that passes names exactly one host and has no body that matters. Deliberately absent: what the
//! protocol libraries refuse themselves (conflicting lengths, folded headers, spaces before colons).
#![deny(clippy::disallowed_methods)]

use http::header::{self, HeaderMap, HeaderValue};
use http::uri::Authority;
use http::{Method, Request, Version};

/// What to do with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is as requests are.
    Answer,
    /// Answer it, and take no other one from this connection: it has a body that nobody reads (RFC 9112 9.3).
    AnswerAndClose,
    /// 400 with these words, and take no other one from this connection.
    Refuse(&'static str),
}

/// Judges a request; `has_body` as its framing says.
pub(crate) fn judge<B>(request: &Request<B>, has_body: bool) -> Verdict {
    let http1 = request.version() < Version::HTTP_2;
    if let Err(words) = host(request) {
        return Verdict::Refuse(words);
    }
    let headers = request.headers();
    // Both at once is how requests are smuggled; the library keeps one of the two only, so chunks alone are suspicious
    // where nobody sends bodies.
    let framed = has_body || headers.contains_key(header::TRANSFER_ENCODING);
    match (framed, request.method()) {
        (true, &Method::GET | &Method::HEAD | &Method::OPTIONS) if http1 => {
            Verdict::Refuse("a request for reading has no body")
        }
        (_, &Method::CONNECT) => Verdict::Refuse("this is no proxy"),
        (true, _) if http1 => Verdict::AnswerAndClose,
        _ => Verdict::Answer,
    }
}

/// One host, named once (RFC 9112 3.2, RFC 9113 8.3.1).
fn host<B>(request: &Request<B>) -> Result<(), &'static str> {
    let named = single(request.headers())?;
    let authority = request.uri().authority();
    if authority.is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("no user information in an authority");
    }
    match (named, authority) {
        (None, None) if request.version() > Version::HTTP_10 => Err("the Host header is missing"),
        (Some(host), _) if !host_is_valid(host) => Err("the Host header names no host"),
        (Some(host), Some(authority)) if !same(host, authority) => Err("two different hosts are named"),
        _ => Ok(()),
    }
}

fn single(headers: &HeaderMap) -> Result<Option<&HeaderValue>, &'static str> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let first = hosts.next();
    if hosts.next().is_some() { Err("the Host header is there twice") } else { Ok(first) }
}

/// An empty Host is allowed where there is no authority to name.
fn host_is_valid(host: &HeaderValue) -> bool {
    let bytes = host.as_bytes();
    bytes.is_empty() || (!bytes.contains(&b'@') && Authority::try_from(bytes).is_ok())
}

fn same(host: &HeaderValue, authority: &Authority) -> bool {
    host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(version: Version, uri: &str, headers: &[(&str, &str)], has_body: bool) -> Verdict {
        let mut request = Request::builder().version(version).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        judge(&request.body(()).unwrap(), has_body)
    }

    #[test]
    fn one_host() {
        let (v10, v11, v2) = (Version::HTTP_10, Version::HTTP_11, Version::HTTP_2);
        for (version, uri, hosts, answered) in [
            (v11, "/", &["a"][..], true),
            (v11, "/", &["a:8080"], true),
            (v11, "/", &["[::1]:8080"], true),
            (v11, "/", &[""], true),
            (v11, "/", &[], false),
            (v10, "/", &[], true),
            (v11, "/", &["a", "a"], false),
            (v10, "/", &["a", "b"], false),
            (v11, "/", &["a b"], false),
            (v11, "/", &["a,b"], true),
            (v11, "/", &["a/b"], false),
            (v11, "/", &["user@a"], false),
            (v11, "http://a/", &["a"], true),
            (v11, "http://a/", &["b"], false),
            (v11, "http://a/", &[], true),
            (v2, "https://a/", &[], true),
            (v2, "https://a/", &["A"], true),
            (v2, "https://a/", &["b"], false),
            (v2, "https://u@a/", &[], false),
            (v2, "/", &[], false),
        ] {
            let headers: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
            let verdict = verdict(version, uri, &headers, false);
            assert_eq!(verdict == Verdict::Answer, answered, "{version:?} {uri} {hosts:?}: {verdict:?}");
        }
    }

    #[test]
    fn bodies() {
        let host = ("host", "a");
        let refused = |verdict| matches!(verdict, Verdict::Refuse(_));
        assert!(refused(verdict(Version::HTTP_11, "/", &[host], true)));
        assert!(refused(verdict(Version::HTTP_11, "/", &[host, ("transfer-encoding", "chunked")], false)));
        assert_eq!(verdict(Version::HTTP_2, "https://a/", &[], true), Verdict::Answer);
        let post = Request::post("/").header("host", "a").body(()).unwrap();
        assert_eq!(judge(&post, true), Verdict::AnswerAndClose);
        assert_eq!(judge(&post, false), Verdict::Answer);
        let connect = Request::connect("a:1").header("host", "a:1").body(()).unwrap();
        assert!(refused(judge(&connect, false)));
    }
}
