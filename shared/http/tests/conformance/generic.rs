//! What has to work: the `generic` families.

use super::case::{Case, Expect, Step, row, steps};
use super::wire::{
    block, continuation, data, flag, frame, get, goaway, headers, indexed_literal, integer, literal, ping,
    priority, pseudo, reset, setting, settings, string, window_update,
};
use Expect::{Answer, Close, Ignored};

pub(super) fn cases() -> Vec<Case> {
    [streams(), frames(), connection_frames(), exchanges(), header_blocks()].concat()
}

fn streams() -> Vec<Case> {
    let held = || get(1, "/hold");
    vec![
        row("generic/1/1", "connection preface", &[], Ignored),
        row("generic/2/1", "PRIORITY in idle", &[priority(1, 0, 255), get(1, "/")], Answer(1)),
        row(
            "generic/2/2",
            "WINDOW_UPDATE in half-closed (remote)",
            &[held(), window_update(1, 100)],
            Ignored,
        ),
        row("generic/2/3", "PRIORITY in half-closed (remote)", &[held(), priority(1, 0, 255)], Ignored),
        row("generic/2/4", "RST_STREAM in half-closed (remote)", &[held(), reset(1, 8)], Ignored),
        steps(
            "generic/2/5",
            "PRIORITY in closed",
            vec![Step::Send(get(1, "/")), Step::AwaitEnd(1), Step::Send(priority(1, 0, 255))],
            Ignored,
        ),
        steps(
            "generic/2/6",
            "WINDOW_UPDATE in closed: sent before the end was seen",
            vec![Step::Send(get(1, "/")), Step::AwaitEnd(1), Step::Send(window_update(1, 100))],
            Ignored,
        ),
        steps(
            "generic/2/7",
            "RST_STREAM in closed: sent before the end was seen",
            vec![Step::Send(get(1, "/")), Step::AwaitEnd(1), Step::Send(reset(1, 8))],
            Ignored,
        ),
    ]
}

fn frames() -> Vec<Case> {
    let post = || headers(1, flag::END_HEADERS, &pseudo("POST", "/echo"));
    let padded = |content: &[u8]| [&[3][..], content, &[0; 3]].concat();
    let with_priority = |depends_on: u32, weight: u8| {
        let payload = [&depends_on.to_be_bytes()[..], &[weight], &pseudo("GET", "/")].concat();
        headers(1, flag::WHOLE | flag::PRIORITY, &payload)
    };
    vec![
        row("generic/3.1/1", "DATA", &[post(), data(1, flag::END_STREAM, b"test")], Answer(1)),
        row("generic/3.1/2", "two DATA", &[post(), data(1, 0, b"te"), data(1, 1, b"st")], Answer(1)),
        row(
            "generic/3.1/3",
            "padded DATA",
            &[post(), data(1, flag::END_STREAM | flag::PADDED, &padded(b"test"))],
            Answer(1),
        ),
        row("generic/3.2/1", "HEADERS", &[get(1, "/")], Answer(1)),
        row(
            "generic/3.2/2",
            "padded HEADERS",
            &[headers(1, flag::WHOLE | flag::PADDED, &padded(&pseudo("GET", "/")))],
            Answer(1),
        ),
        row("generic/3.2/3", "HEADERS with priority", &[with_priority(0, 10)], Answer(1)),
        row("generic/3.3/1", "PRIORITY 1", &[priority(1, 0, 0), get(1, "/")], Answer(1)),
        row("generic/3.3/2", "PRIORITY 256", &[priority(1, 0, 255), get(1, "/")], Answer(1)),
        row("generic/3.3/3", "PRIORITY with dependency", &[priority(3, 1, 9), get(1, "/")], Answer(1)),
        row("generic/3.3/4", "exclusive PRIORITY", &[priority(3, 1 << 31 | 1, 9), get(1, "/")], Answer(1)),
        row("generic/3.3/5", "PRIORITY of idle, then lower id", &[priority(5, 0, 9), get(1, "/")], Answer(1)),
        row("generic/3.4/1", "RST_STREAM", &[get(1, "/hold"), reset(1, 8), get(3, "/")], Answer(3)),
        row(
            "generic/3.5/1",
            "SETTINGS",
            &[
                settings(&[(setting::MAX_CONCURRENT_STREAMS, 10), (setting::HEADER_TABLE_SIZE, 0)]),
                get(1, "/"),
            ],
            Answer(1),
        ),
    ]
}

/// What belongs to the connection, and header blocks in pieces.
fn connection_frames() -> Vec<Case> {
    let pieces = || {
        let block = pseudo("GET", "/");
        let (one, two) = block.split_at(10);
        (one.to_vec(), two.to_vec())
    };
    let (one, two) = pieces();
    let (three, four) = two.split_at(10);
    vec![
        row("generic/3.7/1", "PING", &[ping(0, b"h2spec\0\0")], Ignored),
        row("generic/3.8/1", "GOAWAY", &[goaway(0, 0, 0)], Close),
        row(
            "generic/3.9/1",
            "WINDOW_UPDATE of the connection",
            &[window_update(0, 1), get(1, "/")],
            Answer(1),
        ),
        row("generic/3.9/2", "WINDOW_UPDATE of a stream", &[get(1, "/"), window_update(1, 1)], Answer(1)),
        row(
            "generic/3.10/1",
            "CONTINUATION",
            &[headers(1, flag::END_STREAM, &one), continuation(1, flag::END_HEADERS, &two)],
            Answer(1),
        ),
        row(
            "generic/3.10/2",
            "two CONTINUATION",
            &[
                headers(1, flag::END_STREAM, &one),
                continuation(1, 0, three),
                continuation(1, flag::END_HEADERS, four),
            ],
            Answer(1),
        ),
    ]
}

fn exchanges() -> Vec<Case> {
    let post = |flags| headers(1, flags, &pseudo("POST", "/echo"));
    vec![
        row("generic/4/1", "GET", &[get(1, "/")], Answer(1)),
        row("generic/4/2", "HEAD", &[headers(1, flag::WHOLE, &pseudo("HEAD", "/"))], Answer(1)),
        row("generic/4/3", "POST", &[post(flag::END_HEADERS), data(1, 1, b"test")], Answer(1)),
        row(
            "generic/4/4",
            "POST with trailers",
            &[
                post(flag::END_HEADERS),
                data(1, 0, b"test"),
                headers(1, flag::WHOLE, &block(&[("x-test", "ok")])),
            ],
            Answer(1),
        ),
        row(
            "generic/4/5",
            "POST that nobody reads",
            &[headers(1, 4, &pseudo("POST", "/")), data(1, 1, b"x")],
            Answer(1),
        ),
    ]
}

/// Requests whose headers are coded in every way there is.
fn header_blocks() -> Vec<Case> {
    let with = |extra: &[Vec<u8>]| headers(1, flag::WHOLE, &[pseudo("GET", "/"), extra.concat()].concat());
    let named = |first: u8, prefix: u32| [integer(first, prefix, 58), string(b"h2spec")].concat();
    let new = |first: u8| [vec![first], string(b"x-test"), string(b"h2spec")].concat();
    // www.example.com in Huffman code (RFC 7541 C.4.1).
    let authority = b"\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff";
    let huffman =
        [block(&[(":method", "GET"), (":scheme", "http"), (":path", "/")]), authority.to_vec()].concat();
    let size = |value| integer(0x20, 5, value);
    let resized = |sizes: &[usize]| {
        let updates: Vec<u8> = sizes.iter().flat_map(|value| size(*value)).collect();
        headers(1, flag::WHOLE, &[updates, pseudo("GET", "/")].concat())
    };
    vec![
        row(
            "generic/5/1",
            "indexed fields",
            &[headers(1, flag::WHOLE, &[&[0x82, 0x86, 0x84][..], &literal(":authority", "a")].concat())],
            Answer(1),
        ),
        row("generic/5/2", "literal, indexed, indexed name", &[with(&[named(0x40, 6)])], Answer(1)),
        row("generic/5/3", "literal, indexed, new name", &[with(&[new(0x40)])], Answer(1)),
        row("generic/5/4", "literal, not indexed, indexed name", &[with(&[named(0, 4)])], Answer(1)),
        row("generic/5/5", "literal, not indexed, new name", &[with(&[new(0)])], Answer(1)),
        row("generic/5/6", "literal, never indexed, indexed name", &[with(&[named(0x10, 4)])], Answer(1)),
        row("generic/5/7", "literal, never indexed, new name", &[with(&[new(0x10)])], Answer(1)),
        row(
            "generic/5/8",
            "a field of the dynamic table",
            &[with(&[indexed_literal("x-test", "h2spec"), vec![0x80 | 62]])],
            Answer(1),
        ),
        row("generic/5/9", "dynamic table size update", &[resized(&[128])], Answer(1)),
        row("generic/5/10", "two dynamic table size updates", &[resized(&[128, 4096])], Answer(1)),
        row("generic/5/11", "Huffman code", &[headers(1, flag::WHOLE, &huffman)], Answer(1)),
        row(
            "generic/5/12",
            "unknown frame between requests",
            &[frame(0xfa, 0, 0, b"x"), get(1, "/")],
            Answer(1),
        ),
        row(
            "generic/5/13",
            "PRIORITY_UPDATE (RFC 9218)",
            &[frame(0x10, 0, 0, b"\0\0\0\x01u=1"), get(1, "/")],
            Answer(1),
        ),
    ]
}
