//! Requests that two servers in a row could read differently, and requests that could leave something behind for the
//! next viewer.
//!
//! What holds for every row: as many answers as requests, in order; the next request on the connection gets its own
//! answer or the connection is closed; the upstream is asked with GET, without a body, for nothing but what the edge's
//! own grammar made of the request, with headers that no viewer wrote.

use super::wire::{self, flag, kind};
use super::*;
use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// What an attacker wants somebody to ask for.
const SMUGGLED: &str = "GET /live/smuggled/v/1.m4s HTTP/1.1\r\nHost: edge\r\n\r\n";
/// What marks everything that an attacker writes.
const MARK: &str = "evil";

/// An edge whose upstream answers every request with the path that was asked for, and notes how it was asked.
struct Range {
    lab: Lab,
    asked: Arc<Mutex<Vec<String>>>,
    wrong: Arc<Mutex<Vec<String>>>,
}

impl Range {
    fn new() -> Self {
        let mut lab = Lab::new();
        let (_, never) = tokio::sync::mpsc::channel(1);
        let mut asks = std::mem::replace(&mut lab.fake.asks, never);
        let (asked, wrong) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
        let (paths, faults) = (Arc::clone(&asked), Arc::clone(&wrong));
        tokio::spawn(async move {
            while let Some(ask) = asks.recv().await {
                let names: HashSet<_> = ask.headers.keys().map(http::HeaderName::as_str).collect();
                let known = HashSet::from(["user-agent", "accept-encoding", "host"]);
                let headers = format!("{:?}", ask.headers);
                if ask.method != Method::GET
                    || ask.has_body
                    || !names.is_subset(&known)
                    || headers.contains(MARK)
                {
                    faults.lock().unwrap().push(format!("{} {} {headers}", ask.method, ask.path));
                }
                paths.lock().unwrap().push(ask.path.clone());
                let path: &'static str = Box::leak(ask.path.clone().into_boxed_str());
                ask.answer(200, 60, path).await;
            }
        });
        Self { lab, asked, wrong }
    }

    fn asked(&self, path: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|asked| *asked == path).count()
    }

    fn assert_nothing_got_through(&self) {
        assert_eq!(*self.wrong.lock().unwrap(), Vec::<String>::new());
        let asked = self.asked.lock().unwrap();
        assert!(!asked.iter().any(|path| path.contains("smuggled") || path.contains(MARK)), "{asked:?}");
    }
}

/// One answer of HTTP/1.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

/// Takes the first whole answer off the front of `bytes`; `ended` says that nothing follows.
fn take_answer(bytes: &mut Vec<u8>, ended: bool) -> Option<Answer> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
    let field = |name: &str| {
        let line = head.lines().find(|line| line.to_lowercase().starts_with(&format!("{name}:")))?;
        Some(line.split_once(':')?.1.trim().to_lowercase())
    };
    let (body, used) = if field("transfer-encoding").as_deref() == Some("chunked") {
        take_chunks(&bytes[end..])?
    } else if let Some(length) = field("content-length") {
        let length: usize = length.parse().unwrap();
        (bytes.get(end..end + length)?.to_vec(), length)
    } else if status == 204 || status == 304 {
        (Vec::new(), 0)
    } else if ended {
        (bytes[end..].to_vec(), bytes.len() - end)
    } else {
        return None;
    };
    bytes.drain(..end + used);
    Some(Answer { status, head, body: String::from_utf8(body).unwrap() })
}

fn take_chunks(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let line = bytes[at..].windows(2).position(|two| two == b"\r\n")?;
        let length = usize::from_str_radix(std::str::from_utf8(&bytes[at..at + line]).unwrap(), 16).unwrap();
        at += line + 2;
        body.extend(bytes.get(at..at + length)?);
        at += length + 2;
        if length == 0 {
            return (at <= bytes.len()).then_some((body, at));
        }
    }
}

/// Sends `bytes` and then an honest request for `canary`; every answer until the canary's or the end.
async fn exchange(addr: SocketAddr, bytes: &[u8], canary: &str) -> (Vec<Answer>, bool) {
    let mut tcp = TcpStream::connect(addr).await.unwrap();
    let honest = format!("GET {canary} HTTP/1.1\r\nHost: edge\r\n\r\n");
    // The edge may close before it has read it all.
    let _ = tcp.write_all(&[bytes, honest.as_bytes()].concat()).await;
    let (mut unread, mut answers) = (Vec::new(), Vec::new());
    loop {
        let ended = !matches!(within(tcp.read_buf(&mut unread)).await, Ok(read) if read > 0);
        while let Some(answer) = take_answer(&mut unread, ended) {
            if answer.body == canary {
                assert!(unread.is_empty(), "something follows the last answer");
                return (answers, true);
            }
            answers.push(answer);
        }
        if ended {
            assert!(unread.is_empty(), "half an answer: {:?}", String::from_utf8_lossy(&unread));
            return (answers, false);
        }
    }
}

/// What becomes of a row.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// Answered as these requests, and the next one too.
    Answered(usize),
    /// Answered with this status, and closed.
    Refused(u16),
    /// Answered as one request, and closed.
    AnsweredAndClosed,
}
use Fate::{Answered, AnsweredAndClosed, Refused};

/// A request for a part of its own, with more header lines and a body.
fn raw(method: &str, version: &str, lines: &str, body: &str) -> String {
    format!("{method} /live/honest/v/1.m4s {version}\r\nHost: edge\r\n{lines}\r\n{body}")
}

/// How a body is framed: every way in which two servers could disagree.
fn framing_rows() -> Vec<(&'static str, String, Fate)> {
    let get = |lines: &str, body: &str| raw("GET", "HTTP/1.1", lines, body);
    let post = |lines: &str, body: &str| raw("POST", "HTTP/1.1", lines, body);
    let (te, chunks) = ("Transfer-Encoding: chunked\r\n", "0\r\n\r\n");
    let length = SMUGGLED.len();
    let sized = format!("Content-Length: {length}\r\n");
    let both = format!("{sized}{te}");
    let zero_then = format!("{chunks}{SMUGGLED}");
    vec![
        ("no body", get("", ""), Answered(1)),
        ("two requests", [get("", ""), get("", "")].concat(), Answered(2)),
        ("CL.TE", get(&both, &zero_then), Refused(400)),
        ("TE.CL", get(&format!("{te}Content-Length: 4\r\n"), &zero_then), Refused(400)),
        ("CL.TE with POST", post(&both, &zero_then), Refused(405)),
        ("TE.TE", get(&format!("{te}Transfer-Encoding: identity\r\n"), &zero_then), Refused(400)),
        ("TE.TE, the other way", get(&format!("Transfer-Encoding: x\r\n{te}"), &zero_then), Refused(400)),
        ("TE in a list", get("Transfer-Encoding: chunked, identity\r\n", &zero_then), Refused(400)),
        ("TE with a tab", get("Transfer-Encoding:\tchunked\r\n", &zero_then), Refused(400)),
        ("TE in capitals", get("Transfer-Encoding: CHUNKED\r\n", &zero_then), Refused(400)),
        ("TE xchunked", get("Transfer-Encoding: xchunked\r\n", SMUGGLED), Refused(400)),
        ("TE quoted", get("Transfer-Encoding: \"chunked\"\r\n", SMUGGLED), Refused(400)),
        ("TE with a vertical tab", get("Transfer-Encoding: \x0bchunked\r\n", SMUGGLED), Refused(400)),
        ("space before the colon", get("Transfer-Encoding : chunked\r\n", &zero_then), Refused(400)),
        ("space before a name", get(" Transfer-Encoding: chunked\r\n", &zero_then), Refused(400)),
        ("folded TE", get("X: y\r\n Transfer-Encoding: chunked\r\n", &zero_then), Refused(400)),
        ("folded value", get("Transfer-Encoding:\r\n chunked\r\n", &zero_then), Refused(400)),
        ("CR alone before TE", get("X: y\rTransfer-Encoding: chunked\r\n", &zero_then), Refused(400)),
        ("NUL in TE", get("Transfer-Encoding: chun\0ked\r\n", &zero_then), Refused(400)),
        ("HTTP/1.0 with TE", raw("GET", "HTTP/1.0", te, &zero_then), Refused(400)),
        ("two equal CL", get(&format!("{sized}{sized}"), SMUGGLED), Refused(400)),
        ("two different CL", get(&format!("Content-Length: 0\r\n{sized}"), SMUGGLED), Refused(400)),
        ("CL in a list", get(&format!("Content-Length: {length}, {length}\r\n"), SMUGGLED), Refused(400)),
        ("CL with a sign", get(&format!("Content-Length: +{length}\r\n"), SMUGGLED), Refused(400)),
        ("CL below zero", get("Content-Length: -1\r\n", SMUGGLED), Refused(400)),
        ("CL in hexadecimal", get("Content-Length: 0x10\r\n", SMUGGLED), Refused(400)),
        ("CL beyond 64 bits", get("Content-Length: 18446744073709551617\r\n", SMUGGLED), Refused(400)),
        ("CL that is empty", get("Content-Length: \r\n", SMUGGLED), Refused(400)),
        ("GET with a body", get(&sized, SMUGGLED), Refused(400)),
        ("CL 0 is no body", get("Content-Length: 0\r\n", ""), Answered(1)),
        ("POST with a body", post(&sized, SMUGGLED), Refused(405)),
        ("POST, chunk extension", post(te, &format!("2;a=\"\r\n\"\r\nab\r\n{zero_then}")), Refused(405)),
        ("POST, chunk length with a sign", post(te, &format!("+2\r\nab\r\n{zero_then}")), Refused(405)),
        ("POST, chunk ends with LF", post(te, &format!("2\nab\n{zero_then}")), Refused(405)),
        ("Expect", get("Expect: 100-continue\r\n", ""), Answered(1)),
        (
            "Upgrade to h2c",
            get("Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n", ""),
            Answered(1),
        ),
        ("Upgrade to websocket", get("Connection: Upgrade\r\nUpgrade: websocket\r\n", ""), Answered(1)),
        ("LF ends a line (RFC 9112 2.2)", get("", "").replace("\r\n", "\n"), Answered(1)),
        ("empty line before a request", format!("\r\n{}", get("", "")), Answered(1)),
        ("close", get("Connection: close\r\n", ""), AnsweredAndClosed),
        ("HTTP/1.0", raw("GET", "HTTP/1.0", "", ""), AnsweredAndClosed),
    ]
}

/// Request lines and hosts that could mean two things.
fn head_rows() -> Vec<(&'static str, String, Fate)> {
    let line = |line: &str| format!("{line}\r\nHost: edge\r\n\r\n");
    let hosts = |target: &str, hosts: &str| format!("GET {target} HTTP/1.1\r\n{hosts}\r\n");
    let part = "/live/honest/v/1.m4s";
    vec![
        ("no Host", hosts(part, ""), Refused(400)),
        ("two Hosts", hosts(part, "Host: edge\r\nHost: evil\r\n"), Refused(400)),
        ("Host that is no host", hosts(part, "Host: edge/../evil\r\n"), Refused(400)),
        ("Host with a user", hosts(part, "Host: evil@edge\r\n"), Refused(400)),
        ("absolute form", hosts(&format!("http://edge{part}"), "Host: edge\r\n"), Answered(1)),
        ("absolute form, other Host", hosts(&format!("http://evil{part}"), "Host: edge\r\n"), Refused(400)),
        ("CONNECT", line("CONNECT evil:443 HTTP/1.1"), Refused(400)),
        ("TRACE", line(&format!("TRACE {part} HTTP/1.1")), Answered(1)),
        ("HTTP/0.9", format!("GET {part}\r\n"), Refused(400)),
        ("HTTP/1.2", line(&format!("GET {part} HTTP/1.2")), Refused(400)),
        ("HTTP/2.0", line(&format!("GET {part} HTTP/2.0")), Refused(400)),
        ("space in the target", line("GET /live/honest/v/1.m4s evil HTTP/1.1"), Refused(400)),
        ("two spaces", line(&format!("GET  {part} HTTP/1.1")), Refused(400)),
        ("tab in the target", line("GET /live/honest\t/v/1.m4s HTTP/1.1"), Refused(400)),
        ("NUL in the target", line("GET /live/honest/v/1\0.m4s HTTP/1.1"), Refused(400)),
        ("CR in the target", line("GET /live/honest/v/1\r.m4s HTTP/1.1"), Refused(400)),
        ("method that is no token", line(&format!("G@T {part} HTTP/1.1")), Refused(400)),
        (
            "name that is no token",
            format!("GET {part} HTTP/1.1\r\nHost: edge\r\nX(Y: z\r\n\r\n"),
            Refused(400),
        ),
        ("line without a colon", format!("GET {part} HTTP/1.1\r\nHost: edge\r\nXY\r\n\r\n"), Refused(400)),
        (
            "control character in a value",
            format!("GET {part} HTTP/1.1\r\nHost: edge\r\nX: \x01\r\n\r\n"),
            Refused(400),
        ),
        (
            "101 headers",
            format!("GET {part} HTTP/1.1\r\nHost: e\r\n{}\r\n", "X: y\r\n".repeat(101)),
            Refused(431),
        ),
        ("overlong target", line(&format!("GET /{} HTTP/1.1", "x".repeat(70_000))), Refused(414)),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_request_one_answer() {
    let range = Range::new();
    let mut divergences = Vec::new();
    for (n, (what, bytes, fate)) in framing_rows().into_iter().chain(head_rows()).enumerate() {
        let canary = format!("/live/canary/v/{n}.m4s");
        let (answers, canary_answered) = exchange(range.lab.edge.http[0], bytes.as_bytes(), &canary).await;
        let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
        let as_expected = match fate {
            Answered(count) => statuses.len() == count && canary_answered,
            Refused(status) => statuses == [status] && !canary_answered,
            AnsweredAndClosed => statuses == [200] && !canary_answered,
        };
        let leaked = answers.iter().any(|answer| answer.body.contains("smuggled"));
        if !as_expected || leaked {
            divergences.push(format!("{what}: {fate:?} expected, got {statuses:?}, next {canary_answered}"));
        }
        if canary_answered != (range.asked(&canary) == 1) {
            divergences.push(format!("{what}: the next request was asked for {}", range.asked(&canary)));
        }
    }
    assert!(divergences.is_empty(), "{} divergences:\n{}", divergences.len(), divergences.join("\n"));
    range.assert_nothing_got_through();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paths_have_one_spelling() {
    let range = Range::new();
    let deep = format!("/{}", "../".repeat(200));
    let targets = [
        "/live/../live/demo/v/1.m4s",
        "/live/demo/../demo/v/1.m4s",
        "/live/demo/./v/1.m4s",
        "//live/demo/v/1.m4s",
        "/live//demo/v/1.m4s",
        "/live/demo/v//1.m4s",
        "/live/demo/v/1.m4s/",
        "/live/demo/v/1.m4s/.",
        "/live/%64emo/v/1.m4s",
        "/live/demo%2fv/1.m4s",
        "/live/demo/v%2F1.m4s",
        "/%6cive/demo/v/1.m4s",
        "/live/demo/v/1.m4s%00",
        "/live/demo/v/1.m4s%00.html",
        "/live/demo/v/%2e%2e/1.m4s",
        "/live/demo/v/%252e/1.m4s",
        "/live/demo/v/..%2f1.m4s",
        "/live/demo/v/..%5c1.m4s",
        "/live/demo/v/..\\1.m4s",
        "/live/demo/v/%c0%ae%c0%ae/1.m4s",
        "/live/demo/v/%e0%80%ae/1.m4s",
        "/live/demo/v/%u002e/1.m4s",
        "/live/demo/v/1.m4s;x",
        "/live/demo;x/v/1.m4s",
        "/live/DEMO/v/1.m4s",
        "/LIVE/demo/v/1.m4s",
        "/live/demo/v/1.M4S",
        "/live/demo/v/01.m4s",
        "/live/demo/v/+1.m4s",
        "/live/demo/v/1.m4s%20",
        "/live/demo/v/1.m4s%0d%0aX:%20evil",
        "/live/demo/v/1.m4s%23x",
        "/live/demo/v/1.m4s%3fx",
        "/live/demo/v/1%2em4s",
        "/watch/../live/demo/v/1.m4s",
        "/watch/assets/..%2f..%2fmain.rs",
        "/watch/%2e%2e",
        "/watch/assets/%00",
        "/metrics",
        "/healthz",
        "*",
        deep.as_str(),
    ];
    for target in targets {
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: edge\r\n\r\n");
        let (answers, _) = exchange(range.lab.edge.http[0], bytes.as_bytes(), "/live/canary/v/1.m4s").await;
        let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
        assert!(matches!(statuses[..], [400 | 404]), "{target}: {statuses:?}");
        assert!(answers.iter().all(|answer| !answer.head.to_lowercase().contains("\r\nx: evil")), "{target}");
    }
    // Overlong UTF-8 and other bytes that are no ASCII.
    for bytes in [&b"\xc0\xae\xc0\xae"[..], b"\xff", b"\xe2\x80\xae", b"\x80"] {
        let bytes = [b"GET /live/demo/v/", bytes, b"/1.m4s HTTP/1.1\r\nHost: edge\r\n\r\n"].concat();
        let (answers, _) = exchange(range.lab.edge.http[0], &bytes, "/live/canary/v/2.m4s").await;
        assert!(matches!(answers[..], [Answer { status: 400 | 404, .. }]), "{bytes:?}: {answers:?}");
    }
    range.assert_nothing_got_through();
    let asked = range.asked.lock().unwrap();
    assert!(asked.iter().all(|path| path.starts_with("/live/canary/")), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_in_the_key_leaves_nothing_behind() {
    let range = Range::new();
    let lines = [
        "X-Forwarded-Host: evil",
        "X-Forwarded-Scheme: evil",
        "X-Forwarded-For: evil",
        "Forwarded: host=evil",
        "X-Original-URL: /live/evil/v/1.m4s",
        "X-Rewrite-URL: /live/evil/v/1.m4s",
        "X-HTTP-Method-Override: DELETE",
        "X-Host: evil",
        "Origin: https://evil",
        "Referer: https://evil",
        "Cookie: evil=1",
        "Range: bytes=0-1",
        "If-None-Match: \"evil\"",
        "If-Match: \"evil\"",
        "If-Modified-Since: Thu, 01 Jan 2099 00:00:00 GMT",
        "Accept-Encoding: evil",
        "Accept: evil",
        "Accept-Language: evil",
        "User-Agent: evil",
        "Via: 1.1 evil",
        "Authorization: Bearer evil",
        "Cache-Control: no-cache, evil",
        "Pragma: no-cache",
        "TE: trailers, evil",
        "Max-Forwards: 0",
        "CMCD-Object: evil",
        "X-Forwarded-Port: 1",
        "Content-Type: evil",
        "Connection: x-evil",
    ];
    for (n, line) in lines.into_iter().enumerate() {
        for (path, query) in [
            (format!("/live/honest/v/{n}.m4s"), "?x=evil&_HLS_msn=evil"),
            (format!("/live/honest/r{n}/media.m3u8"), "?evil&CMCD=evil&token=evil"),
        ] {
            let poison = format!("GET {path}{query} HTTP/1.1\r\nHost: evil\r\n{line}\r\n\r\n");
            let canary = format!("/live/canary{n}/v/1.m4s");
            let (answers, _) = exchange(range.lab.edge.http[0], poison.as_bytes(), &canary).await;
            assert_eq!(answers.len(), 1, "{line}");
            assert_eq!((answers[0].status, answers[0].body.as_str()), (200, path.as_str()), "{line}");
            range.lab.until_no_fills().await;
            let honest = format!("GET {path} HTTP/1.1\r\nHost: edge\r\n\r\n");
            let (answers, _) = exchange(range.lab.edge.http[0], honest.as_bytes(), &canary).await;
            assert_eq!((answers[0].status, answers[0].body.as_str()), (200, path.as_str()), "{line}");
            assert!(!answers[0].head.contains(MARK), "{line}: {}", answers[0].head);
            assert_eq!(range.asked(&path), 1, "{line}: one object, one key");
        }
    }
    range.assert_nothing_got_through();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queries_have_one_meaning() {
    let range = Range::new();
    let playlist = "/live/honest/v/media.m3u8";
    for (query, asked) in [
        ("_HLS_msn=7", Some("?_HLS_msn=7")),
        ("_HLS_part=1&x=y&_HLS_msn=7", Some("?_HLS_msn=7&_HLS_part=1")),
        ("_HLS%5Fmsn=7", None),
        ("%5FHLS_msn=7", None),
        ("_HLS_msn=%37", None),
        ("_HLS_msn=7&_HLS_msn=8", None),
        ("_HLS_msn=7&_HLS%5Fmsn=8", None),
        ("_HLS_msn=7;_HLS_part=1", None),
        ("_HLS_msn=7%00", None),
        ("_HLS_msn=7%26_HLS_part=1", None),
        ("_HLS_msn=7#_HLS_part=1", Some("?_HLS_msn=7")),
        ("_hls_msn=7", Some("")),
        ("?_HLS_msn=7", Some("")),
        ("amp;_HLS_msn=7", Some("")),
    ] {
        let before = range.asked.lock().unwrap().len();
        let bytes = format!("GET {playlist}?{query} HTTP/1.1\r\nHost: edge\r\n\r\n");
        let (answers, _) = exchange(range.lab.edge.http[0], bytes.as_bytes(), "/live/canary/v/1.m4s").await;
        range.lab.until_no_fills().await;
        match asked {
            Some(normal) => assert_eq!(answers[0].body, format!("{playlist}{normal}"), "{query}"),
            None => assert_eq!(answers[0].status, 400, "{query}"),
        }
        let after: Vec<_> = range.asked.lock().unwrap()[before..].to_vec();
        assert!(asked.is_some() || after.iter().all(|path| path.contains("canary")), "{query}: {after:?}");
    }
    range.assert_nothing_got_through();
}

/// Sends one HTTP/2 request of these fields and an honest one behind it: what the first became, and whether the second
/// was answered. Fields that no decoder takes end the connection.
async fn exchange_h2(addr: SocketAddr, fields: &[(&str, &str)], canary: &str) -> (String, bool) {
    let mut tcp = TcpStream::connect(addr).await.unwrap();
    let request = wire::headers(1, flag::WHOLE, &wire::block(fields));
    let bytes = [wire::PREFACE, &wire::settings(&[]), &request, &wire::get(3, canary)].concat();
    let _ = tcp.write_all(&bytes).await;
    let (mut unread, mut first) = (Vec::new(), String::from("nothing"));
    let mut ends = [false; 2];
    loop {
        while let Some(frame) = wire::take_frame(&mut unread) {
            match (frame.kind, frame.stream) {
                (kind::GOAWAY, _) if frame.code() != Some(0) => return ("goaway".to_owned(), false),
                (kind::RST_STREAM, 1) if frame.code() != Some(0) => "reset".clone_into(&mut first),
                (kind::HEADERS, 1) => (if frame.is_ok() { "ok" } else { "error" }).clone_into(&mut first),
                (kind::DATA, 3) if !frame.payload.is_empty() => assert_eq!(frame.payload, canary.as_bytes()),
                _ => {}
            }
            let over = frame.kind == kind::RST_STREAM
                || matches!(frame.kind, kind::DATA | kind::HEADERS) && frame.flags & flag::END_STREAM != 0;
            match frame.stream {
                1 if over => ends[0] = true,
                3 if over => ends[1] = true,
                _ => {}
            }
        }
        if ends == [true; 2] {
            return (first, true);
        }
        if !matches!(within(tcp.read_buf(&mut unread)).await, Ok(read) if read > 0) {
            return (first, false);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_fields_cannot_become_http1_lines() {
    let range = Range::new();
    let part = "/live/honest/v/1.m4s";
    let (get, http, path, edge) =
        ((":method", "GET"), (":scheme", "http"), (":path", part), (":authority", "edge"));
    let line = "/live/honest/v/1.m4s HTTP/1.1\r\nHost: evil\r\n\r\nGET /live/smuggled/v/1.m4s";
    let smuggled = format!("x\r\n\r\n{SMUGGLED}");
    type Row<'a> = (&'a str, Vec<(&'a str, &'a str)>, &'a str);
    let rows: Vec<Row<'_>> = vec![
        ("honest", vec![get, http, path, edge], "ok"),
        ("request line in :path", vec![get, http, (":path", line), edge], "reset"),
        (
            "request line in :method",
            vec![(":method", "GET /live/smuggled/v/1.m4s HTTP/1.1\r\n"), http, path, edge],
            "goaway",
        ),
        ("CR LF in :authority", vec![get, http, path, (":authority", "edge\r\nx: evil")], "reset"),
        ("CR LF in :scheme", vec![get, (":scheme", "http\r\n"), path, edge], "reset"),
        ("request in a value", vec![get, http, path, edge, ("x", &smuggled)], "goaway"),
        ("request in a name", vec![get, http, path, edge, ("x: y\r\nx", "z")], "goaway"),
        ("transfer-encoding", vec![get, http, path, edge, ("transfer-encoding", "chunked")], "reset"),
        ("content-length without a body", vec![get, http, path, edge, ("content-length", "49")], "reset"),
        ("other host", vec![get, http, path, edge, ("host", "evil")], "error"),
        ("same host", vec![get, http, path, edge, ("host", "edge")], "ok"),
        ("no host at all", vec![get, http, path], "error"),
        ("user in :authority", vec![get, http, path, (":authority", "evil@edge")], "error"),
        (":path without a slash", vec![get, http, (":path", "live/honest/v/1.m4s"), edge], "reset"),
        (":path with a host", vec![get, http, (":path", "http://evil/live/honest/v/1.m4s"), edge], "reset"),
        ("fragment in :path", vec![get, http, (":path", "/live/honest/v/1.m4s#evil"), edge], "ok"),
        ("space in :path", vec![get, http, (":path", "/live/honest/v/1.m4s evil"), edge], "reset"),
        ("CONNECT", vec![(":method", "CONNECT"), (":authority", "evil:443")], "error"),
    ];
    let mut divergences = Vec::new();
    for (n, (what, fields, expected)) in rows.iter().enumerate() {
        let canary = format!("/live/canary/v/{n}.m4s");
        let (first, second) = exchange_h2(range.lab.edge.http[0], fields, &canary).await;
        if first != *expected || second == (first == "goaway") {
            divergences.push(format!("{what}: {expected} expected, got {first}, next {second}"));
        }
    }
    assert!(divergences.is_empty(), "{}", divergences.join("\n"));
    range.assert_nothing_got_through();
}
