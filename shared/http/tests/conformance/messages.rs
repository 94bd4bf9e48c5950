//! Malformed messages and push: the `http2` families of section 8.

use super::case::{Case, Expect, row};
use super::wire::{PROTOCOL_ERROR, block, data, flag, frame, headers, kind, literal, pseudo, raw_literal};
use Expect::{Answer, ConnectionError, StreamError};

pub(super) fn cases() -> Vec<Case> {
    [exchange(), fields(), pseudo_fields(), connection_specific(), required(), lengths(), push()].concat()
}

/// A malformed request is a stream error (8.1.1).
const MALFORMED: Expect = StreamError(&[PROTOCOL_ERROR]);

fn post(extra: &[(&str, &str)]) -> Vec<u8> {
    headers(1, flag::END_HEADERS, &[pseudo("POST", "/echo"), block(extra)].concat())
}

fn request(fields: &[(&str, &str)]) -> Vec<Vec<u8>> {
    vec![headers(1, flag::WHOLE, &block(fields))]
}

fn with(extra: Vec<u8>) -> Vec<Vec<u8>> {
    vec![headers(1, flag::WHOLE, &[pseudo("GET", "/"), extra].concat())]
}

fn exchange() -> Vec<Case> {
    let again = || headers(1, flag::END_HEADERS, &block(&[("x-test", "ok")]));
    vec![row("http2/8.1/1", "second HEADERS without END_STREAM", &[post(&[]), again()], MALFORMED)]
}

fn fields() -> Vec<Case> {
    vec![
        row("http2/8.1.2/1", "upper-case name", &with(literal("X-TEST", "ok")), MALFORMED),
        row("http2/8.1.2/2", "empty name", &with(literal("", "ok")), MALFORMED),
        row("http2/8.1.2/3", "space in a name", &with(literal("x test", "ok")), MALFORMED),
        row("http2/8.1.2/4", "colon inside a name", &with(literal("x:test", "ok")), MALFORMED),
        row("http2/8.1.2/5", "CR LF in a value", &with(literal("x-test", "a\r\nhost: b")), MALFORMED),
        row("http2/8.1.2/6", "LF in a value", &with(literal("x-test", "a\nb")), MALFORMED),
        row("http2/8.1.2/7", "NUL in a value", &with(literal("x-test", "a\0b")), MALFORMED),
        row("http2/8.1.2/8", "bytes above 0x7f in a name", &with(raw_literal(b"x-\xff", b"a")), MALFORMED),
    ]
}

fn pseudo_fields() -> Vec<Case> {
    let trailers =
        |fields: &[(&str, &str)]| [post(&[]), data(1, 0, b"x"), headers(1, flag::WHOLE, &block(fields))];
    vec![
        row("http2/8.1.2.1/1", "unknown pseudo-header", &with(literal(":test", "ok")), MALFORMED),
        row("http2/8.1.2.1/2", "pseudo-header of responses", &with(literal(":status", "200")), MALFORMED),
        row("http2/8.1.2.1/3", "pseudo-header in trailers", &trailers(&[(":method", "GET")]), MALFORMED),
        row(
            "http2/8.1.2.1/4",
            "pseudo-header behind a header",
            &request(&[
                (":method", "GET"),
                (":scheme", "http"),
                ("x-test", "ok"),
                (":path", "/"),
                (":authority", "a"),
            ]),
            MALFORMED,
        ),
        // RFC 8441 was not offered in SETTINGS.
        row("http2/8.1.2.1/5", "extended CONNECT", &with(literal(":protocol", "websocket")), MALFORMED),
    ]
}

fn connection_specific() -> Vec<Case> {
    let one = |name, value| with(literal(name, value));
    vec![
        row("http2/8.1.2.2/1", "connection", &one("connection", "keep-alive"), MALFORMED),
        row("http2/8.1.2.2/2", "te that is not trailers", &one("te", "trailers, deflate"), MALFORMED),
        row("http2/8.1.2.2/3", "transfer-encoding", &one("transfer-encoding", "chunked"), MALFORMED),
        row("http2/8.1.2.2/4", "proxy-connection", &one("proxy-connection", "keep-alive"), MALFORMED),
        row("http2/8.1.2.2/5", "keep-alive", &one("keep-alive", "timeout=5"), MALFORMED),
        row("http2/8.1.2.2/6", "upgrade", &one("upgrade", "h2c"), MALFORMED),
        row("http2/8.1.2.2/7", "te: trailers is allowed", &one("te", "trailers"), Answer(1)),
    ]
}

/// Id, what is wrong, and the fields of a request.
type Incomplete<'a> = (&'static str, &'static str, &'a [(&'a str, &'a str)]);

fn required() -> Vec<Case> {
    let (method, scheme, path, authority) =
        ((":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a"));
    let rows: [Incomplete; 10] = [
        ("http2/8.1.2.3/1", "empty :path", &[method, scheme, (":path", ""), authority]),
        ("http2/8.1.2.3/2", "no :method", &[scheme, path, authority]),
        ("http2/8.1.2.3/3", "no :scheme", &[method, path, authority]),
        ("http2/8.1.2.3/4", "no :path", &[method, scheme, authority]),
        ("http2/8.1.2.3/5", "two :method", &[method, method, scheme, path, authority]),
        ("http2/8.1.2.3/6", "two :scheme", &[method, scheme, scheme, path, authority]),
        ("http2/8.1.2.3/7", "two :path", &[method, scheme, path, path, authority]),
        ("http2/8.1.2.3/8", "two :authority", &[method, scheme, path, authority, authority]),
        ("http2/8.1.2.3/9", "space in :method", &[(":method", "GET / HTTP/1.1"), scheme, path, authority]),
        ("http2/8.1.2.3/10", ":path that is no path", &[method, scheme, (":path", "a b"), authority]),
    ];
    rows.into_iter().map(|(id, what, fields)| row(id, what, &request(fields), MALFORMED)).collect()
}

fn lengths() -> Vec<Case> {
    let claims_one = || post(&[("content-length", "1")]);
    vec![
        row(
            "http2/8.1.2.6/1",
            "content-length is not that of one DATA",
            &[claims_one(), data(1, 1, b"test")],
            MALFORMED,
        ),
        row(
            "http2/8.1.2.6/2",
            "content-length is not the sum of several DATA",
            &[claims_one(), data(1, 0, b"te"), data(1, 1, b"st")],
            MALFORMED,
        ),
        row(
            "http2/8.1.2.6/3",
            "less than content-length",
            &[post(&[("content-length", "9")]), data(1, 1, b"x")],
            MALFORMED,
        ),
        row(
            "http2/8.1.2.6/4",
            "content-length without a body",
            &with(literal("content-length", "5")),
            MALFORMED,
        ),
        row(
            "http2/8.1.2.6/5",
            "content-length that is no number",
            &with(literal("content-length", "+0")),
            MALFORMED,
        ),
        row(
            "http2/8.1.2.6/6",
            "two content-length",
            &[post(&[("content-length", "1"), ("content-length", "2")]), data(1, 1, b"x")],
            MALFORMED,
        ),
    ]
}

fn push() -> Vec<Case> {
    let promise = [&2_u32.to_be_bytes()[..], &pseudo("GET", "/")].concat();
    vec![
        row(
            "http2/8.2/1",
            "PUSH_PROMISE of a client",
            &[
                headers(1, flag::WHOLE, &pseudo("GET", "/hold")),
                frame(kind::PUSH_PROMISE, flag::END_HEADERS, 1, &promise),
            ],
            ConnectionError(&[PROTOCOL_ERROR]),
        ),
        row(
            "http2/8.2/2",
            "PUSH_PROMISE on stream 0",
            &[frame(kind::PUSH_PROMISE, flag::END_HEADERS, 0, &promise)],
            ConnectionError(&[PROTOCOL_ERROR]),
        ),
    ]
}
