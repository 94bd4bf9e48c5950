//! Frames and streams: the `http2` families 3 to 7.

use super::case::{BIG_BYTES, Case, Expect, STREAMS_MAX, Step, row, steps};
use super::wire::{
    COMPRESSION_ERROR, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, PREFACE, PROTOCOL_ERROR, REFUSED_STREAM,
    STREAM_CLOSED, continuation, data, flag, frame, get, goaway, headers, kind, literal, ping, priority,
    pseudo, reset, setting, settings, window_update,
};
use Expect::{Answer, AnswerOrStreamError, Close, ConnectionError, Ignored, StreamError};

pub(super) fn cases() -> Vec<Case> {
    [
        starting(),
        framing(),
        idle_and_half_closed(),
        closed(),
        identifiers(),
        errors_and_extensions(),
        data_and_headers(),
        priorities_and_resets(),
        settings_frames(),
        settings_values(),
        pings_and_goodbyes(),
        window_updates(),
        windows(),
        continuations(),
        error_codes(),
    ]
    .concat()
}

/// HEADERS of a request whose body is still to come.
fn open(stream: u32, path: &str) -> Vec<u8> {
    headers(stream, flag::END_HEADERS, &pseudo("POST", path))
}

/// HEADERS whose block is still to be continued.
fn unfinished(stream: u32) -> Vec<u8> {
    headers(stream, flag::END_STREAM, &pseudo("GET", "/"))
}

/// The end of a header block.
fn last(stream: u32) -> Vec<u8> {
    continuation(stream, flag::END_HEADERS, &literal("x-test", "ok"))
}

fn starting() -> Vec<Case> {
    let settings_first = || [PREFACE, &settings(&[])].concat();
    vec![
        row("http2/3.5/1", "preface, settings, request", &[settings_first(), get(1, "/")], Answer(1)),
        // Detection of the protocol takes it for HTTP/1.1, which knows no version 2.0 either: 400 and the end.
        row("http2/3.5/2", "invalid preface", &[b"PRI * HTTP/2.0\r\n\r\nSM?\r\n\r\n".to_vec()], Close),
        row("http2/3.5/3", "no SETTINGS behind the preface", &[PREFACE.to_vec(), ping(0, &[0; 8])], Close),
    ]
}

fn framing() -> Vec<Case> {
    let exact = vec![0; 16_384];
    let too_long = vec![0; 16_385];
    let reserved = |mut bytes: Vec<u8>| {
        bytes[5] |= 0x80;
        bytes
    };
    let long_block = [pseudo("GET", "/"), literal("x-long", &"x".repeat(16_384))].concat();
    vec![
        row("http2/4.1/1", "frame of unknown type", &[frame(0x16, 0, 0, &[0; 8])], Ignored),
        row("http2/4.1/2", "undefined flags", &[ping(0x16, &[0; 8])], Ignored),
        row("http2/4.1/3", "reserved bit set", &[reserved(ping(0, &[0; 8]))], Ignored),
        row("http2/4.2/1", "DATA of 2^14 octets", &[open(1, "/echo"), data(1, 1, &exact)], Answer(1)),
        row(
            "http2/4.2/2",
            "DATA above SETTINGS_MAX_FRAME_SIZE",
            &[open(1, "/echo"), data(1, 1, &too_long)],
            StreamError(&[FRAME_SIZE_ERROR]),
        ),
        row(
            "http2/4.2/3",
            "HEADERS above SETTINGS_MAX_FRAME_SIZE",
            &[headers(1, flag::WHOLE, &long_block)],
            ConnectionError(&[FRAME_SIZE_ERROR]),
        ),
        row("http2/4.2/4", "SETTINGS above the size", &[frame(kind::SETTINGS, 0, 0, &[0; 16_386])], Close),
        row(
            "http2/4.3/1",
            "invalid header block",
            &[headers(1, flag::WHOLE, &[0x40])],
            ConnectionError(&[COMPRESSION_ERROR]),
        ),
        row(
            "http2/4.3/2",
            "PRIORITY inside a header block",
            &[unfinished(1), priority(1, 0, 255), last(1)],
            ConnectionError(&[PROTOCOL_ERROR]),
        ),
        row(
            "http2/4.3/3",
            "HEADERS of another stream inside a header block",
            &[unfinished(1), get(3, "/"), last(1)],
            ConnectionError(&[PROTOCOL_ERROR]),
        ),
    ]
}

fn idle_and_half_closed() -> Vec<Case> {
    let held = || get(1, "/hold");
    let closed = StreamError(&[STREAM_CLOSED]);
    vec![
        row("http2/5.1/1", "idle: DATA", &[data(1, 1, b"test")], ConnectionError(&[PROTOCOL_ERROR])),
        row("http2/5.1/2", "idle: RST_STREAM", &[reset(1, 8)], ConnectionError(&[PROTOCOL_ERROR])),
        row("http2/5.1/3", "idle: WINDOW_UPDATE", &[window_update(1, 9)], ConnectionError(&[PROTOCOL_ERROR])),
        row("http2/5.1/4", "idle: CONTINUATION", &[last(1)], ConnectionError(&[PROTOCOL_ERROR])),
        row("http2/5.1/5", "half-closed (remote): DATA", &[held(), data(1, 1, b"test")], closed),
        row("http2/5.1/6", "half-closed (remote): HEADERS", &[held(), get(1, "/")], closed),
        row(
            "http2/5.1/7",
            "half-closed (remote): CONTINUATION",
            &[held(), last(1)],
            ConnectionError(&[STREAM_CLOSED, PROTOCOL_ERROR]),
        ),
    ]
}

fn closed() -> Vec<Case> {
    let answered = |id, what, bytes: Vec<u8>, expect| {
        steps(id, what, vec![Step::Send(get(1, "/")), Step::AwaitEnd(1), Step::Send(bytes)], expect)
    };
    let after_reset = |bytes: Vec<u8>| [open(1, "/hold"), reset(1, 8), bytes];
    let codes = StreamError(&[STREAM_CLOSED, PROTOCOL_ERROR]);
    vec![
        row("http2/5.1/8", "closed by RST_STREAM: DATA", &after_reset(data(1, 1, b"test")), codes),
        row("http2/5.1/9", "closed by RST_STREAM: HEADERS", &after_reset(get(1, "/")), codes),
        row("http2/5.1/10", "closed by RST_STREAM: CONTINUATION", &after_reset(last(1)), codes),
        answered("http2/5.1/11", "closed: DATA", data(1, 1, b"test"), codes),
        answered("http2/5.1/12", "closed: HEADERS", get(1, "/"), codes),
        answered("http2/5.1/13", "closed: CONTINUATION", last(1), codes),
    ]
}

fn identifiers() -> Vec<Case> {
    let many: Vec<u8> = (0..=STREAMS_MAX).flat_map(|n| get(2 * n + 1, "/hold")).collect();
    let own = |stream: u32| {
        let payload = [&stream.to_be_bytes()[..], &[255], &pseudo("GET", "/")].concat();
        headers(stream, flag::WHOLE | flag::PRIORITY, &payload)
    };
    vec![
        row("http2/5.1.1/1", "even stream id", &[get(2, "/")], ConnectionError(&[PROTOCOL_ERROR])),
        row(
            "http2/5.1.1/2",
            "stream id below an earlier one",
            &[get(5, "/hold"), get(3, "/")],
            ConnectionError(&[PROTOCOL_ERROR, STREAM_CLOSED]),
        ),
        row("http2/5.1.2/1", "too many streams", &[many], StreamError(&[PROTOCOL_ERROR, REFUSED_STREAM])),
        // RFC 9113 has no dependencies any more (5.3.1 of RFC 7540 asks for a stream error): what h2 does is allowed.
        row(
            "http2/5.3.1/1",
            "HEADERS that depend on themselves",
            &[own(1)],
            AnswerOrStreamError(1, &[PROTOCOL_ERROR]),
        ),
        row(
            "http2/5.3.1/2",
            "PRIORITY on itself",
            &[priority(2, 2, 255), get(3, "/")],
            AnswerOrStreamError(3, &[PROTOCOL_ERROR]),
        ),
    ]
}

fn errors_and_extensions() -> Vec<Case> {
    vec![
        row("http2/5.4.1/1", "a connection error closes", &[ping(0, b"short")], Close),
        row(
            "http2/5.4.1/2",
            "a connection error says goodbye",
            &[data(0, 1, b"test")],
            ConnectionError(&[PROTOCOL_ERROR]),
        ),
        row("http2/5.5/1", "unknown extension frame", &[frame(0x16, 0, 0, &[0; 8]), get(1, "/")], Answer(1)),
        row(
            "http2/5.5/2",
            "unknown extension frame inside a header block",
            &[unfinished(1), frame(0x16, 0, 0, &[0; 8]), last(1)],
            ConnectionError(&[PROTOCOL_ERROR]),
        ),
    ]
}

fn data_and_headers() -> Vec<Case> {
    let padding_only = |kind, flags, content: &[u8]| frame(kind, flags | flag::PADDED, 1, content);
    let broken = ConnectionError(&[PROTOCOL_ERROR]);
    let block = pseudo("GET", "/");
    let overlong = [&[block.len() as u8 + 1][..], &block].concat();
    vec![
        row("http2/6.1/1", "DATA on stream 0", &[data(0, 1, b"test")], broken),
        row(
            "http2/6.1/2",
            "DATA where none is open",
            &[get(1, "/hold"), data(1, 1, b"x")],
            StreamError(&[STREAM_CLOSED]),
        ),
        row(
            "http2/6.1/3",
            "DATA with too much padding",
            &[open(1, "/echo"), padding_only(kind::DATA, 1, b"\x06test!")],
            broken,
        ),
        row(
            "http2/6.1/4",
            "padded DATA without a length",
            &[open(1, "/echo"), padding_only(kind::DATA, 1, b"")],
            Close,
        ),
        row("http2/6.2/1", "HEADERS continued by PRIORITY", &[unfinished(1), priority(1, 0, 9)], broken),
        row("http2/6.2/2", "HEADERS continued on another stream", &[unfinished(1), last(3)], broken),
        row("http2/6.2/3", "HEADERS on stream 0", &[get(0, "/")], broken),
        row(
            "http2/6.2/4",
            "HEADERS with too much padding",
            &[padding_only(kind::HEADERS, flag::WHOLE, &overlong)],
            broken,
        ),
    ]
}

fn priorities_and_resets() -> Vec<Case> {
    let broken = ConnectionError(&[PROTOCOL_ERROR]);
    vec![
        row("http2/6.3/1", "PRIORITY on stream 0", &[priority(0, 1, 255)], broken),
        // h2 makes a connection error of it, as 5.4.2 lets it.
        row(
            "http2/6.3/2",
            "PRIORITY of 4 octets",
            &[get(1, "/hold"), frame(kind::PRIORITY, 0, 1, &[0x80, 0, 0, 1])],
            StreamError(&[FRAME_SIZE_ERROR]),
        ),
        row("http2/6.4/1", "RST_STREAM on stream 0", &[reset(0, 8)], broken),
        row("http2/6.4/2", "RST_STREAM in idle", &[reset(1, 8)], broken),
        row(
            "http2/6.4/3",
            "RST_STREAM of 3 octets",
            &[get(1, "/hold"), frame(kind::RST_STREAM, 0, 1, &[0; 3])],
            ConnectionError(&[FRAME_SIZE_ERROR]),
        ),
    ]
}

fn settings_frames() -> Vec<Case> {
    let size = ConnectionError(&[FRAME_SIZE_ERROR]);
    let broken = ConnectionError(&[PROTOCOL_ERROR]);
    vec![
        row(
            "http2/6.5/1",
            "SETTINGS acknowledgement with a payload",
            &[frame(kind::SETTINGS, 1, 0, &[0])],
            size,
        ),
        row(
            "http2/6.5/2",
            "SETTINGS on a stream",
            &[frame(kind::SETTINGS, 0, 1, &[0, 3, 0, 0, 0, 9])],
            broken,
        ),
        row("http2/6.5/3", "SETTINGS of 3 octets", &[frame(kind::SETTINGS, 0, 0, &[0, 3, 0])], size),
        steps(
            "http2/6.5.3/1",
            "the last of several values counts",
            vec![
                Step::Send(settings(&[
                    (setting::INITIAL_WINDOW_SIZE, 100),
                    (setting::INITIAL_WINDOW_SIZE, 1),
                ])),
                Step::Send(get(1, "/")),
                Step::AwaitData(1),
            ],
            Ignored,
        ),
        row("http2/6.5.3/2", "SETTINGS are acknowledged", &[settings(&[])], Ignored),
    ]
}

fn settings_values() -> Vec<Case> {
    let one = |id, value| [settings(&[(id, value)])];
    let broken = ConnectionError(&[PROTOCOL_ERROR]);
    let window = ConnectionError(&[FLOW_CONTROL_ERROR]);
    vec![
        row("http2/6.5.2/1", "ENABLE_PUSH 2", &one(setting::ENABLE_PUSH, 2), broken),
        row("http2/6.5.2/2", "INITIAL_WINDOW_SIZE 2^31", &one(setting::INITIAL_WINDOW_SIZE, 1 << 31), window),
        row("http2/6.5.2/3", "MAX_FRAME_SIZE 2^14 - 1", &one(setting::MAX_FRAME_SIZE, 16_383), broken),
        row("http2/6.5.2/4", "MAX_FRAME_SIZE 2^24", &one(setting::MAX_FRAME_SIZE, 1 << 24), broken),
        row("http2/6.5.2/5", "unknown setting", &one(0xff, 1), Ignored),
    ]
}

fn pings_and_goodbyes() -> Vec<Case> {
    vec![
        row("http2/6.7/1", "PING", &[ping(0, b"h2spec\0\0")], Ignored),
        row("http2/6.7/2", "PING acknowledgement of nothing", &[ping(flag::ACK, b"invalid\0")], Ignored),
        row(
            "http2/6.7/3",
            "PING on a stream",
            &[frame(kind::PING, 0, 1, &[0; 8])],
            ConnectionError(&[PROTOCOL_ERROR]),
        ),
        row("http2/6.7/4", "PING of 6 octets", &[ping(0, &[0; 6])], ConnectionError(&[FRAME_SIZE_ERROR])),
        row("http2/6.8/1", "GOAWAY on a stream", &[goaway(1, 0, 0)], ConnectionError(&[PROTOCOL_ERROR])),
    ]
}

fn window_updates() -> Vec<Case> {
    vec![
        row(
            "http2/6.9/1",
            "increment 0 for the connection",
            &[window_update(0, 0)],
            ConnectionError(&[PROTOCOL_ERROR]),
        ),
        // h2 makes a connection error of it, as 5.4.2 lets it.
        row(
            "http2/6.9/2",
            "increment 0 for a stream",
            &[get(1, "/hold"), window_update(1, 0)],
            StreamError(&[PROTOCOL_ERROR]),
        ),
        row(
            "http2/6.9/3",
            "WINDOW_UPDATE of 3 octets",
            &[frame(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 1])],
            ConnectionError(&[FRAME_SIZE_ERROR]),
        ),
    ]
}

fn windows() -> Vec<Case> {
    let initial = |value| settings(&[(setting::INITIAL_WINDOW_SIZE, value)]);
    let most = 0x7fff_ffff;
    let send = |frames: &[Vec<u8>]| Step::Send(frames.concat());
    vec![
        steps(
            "http2/6.9.1/1",
            "a window of 1 is kept to",
            vec![send(&[initial(1), get(1, "/")]), Step::AwaitData(1)],
            Ignored,
        ),
        row(
            "http2/6.9.1/2",
            "window of the connection above 2^31 - 1",
            &[window_update(0, most), window_update(0, most)],
            ConnectionError(&[FLOW_CONTROL_ERROR]),
        ),
        row(
            "http2/6.9.1/3",
            "window of a stream above 2^31 - 1",
            &[get(1, "/hold"), window_update(1, most), window_update(1, most)],
            StreamError(&[FLOW_CONTROL_ERROR]),
        ),
        steps(
            "http2/6.9.2/1",
            "a changed initial window holds for open streams",
            vec![send(&[initial(0), get(1, "/")]), send(&[initial(1)]), Step::AwaitData(1)],
            Ignored,
        ),
        steps(
            "http2/6.9.2/2",
            "a negative window is waited out",
            vec![
                send(&[initial(3), get(1, "/")]),
                Step::AwaitData(3),
                send(&[initial(2), window_update(1, 2)]),
                Step::AwaitData(1),
            ],
            Ignored,
        ),
        row(
            "http2/6.9.2/3",
            "initial window above 2^31 - 1",
            &[settings(&[(setting::INITIAL_WINDOW_SIZE, 1 << 31)])],
            ConnectionError(&[FLOW_CONTROL_ERROR]),
        ),
        steps(
            "http2/6.9.2/4",
            "a large body waits for the windows and comes whole",
            vec![
                Step::Send(get(1, "/big")),
                Step::Send([window_update(0, BIG_BYTES as u32), window_update(1, BIG_BYTES as u32)].concat()),
                Step::AwaitEnd(1),
            ],
            Ignored,
        ),
    ]
}

fn continuations() -> Vec<Case> {
    let broken = ConnectionError(&[PROTOCOL_ERROR]);
    let whole = || headers(1, flag::WHOLE, &pseudo("GET", "/hold"));
    let more = |flags| continuation(1, flags, &literal("x-more", "ok"));
    vec![
        row("http2/6.10/1", "several CONTINUATION", &[unfinished(1), more(0), more(0), last(1)], Answer(1)),
        row("http2/6.10/2", "CONTINUATION, then DATA", &[unfinished(1), more(0), data(1, 1, b"x")], broken),
        row("http2/6.10/3", "CONTINUATION on stream 0", &[unfinished(1), last(0)], broken),
        row("http2/6.10/4", "HEADERS with END_HEADERS, then CONTINUATION", &[whole(), last(1)], broken),
        row(
            "http2/6.10/5",
            "CONTINUATION with END_HEADERS, then another",
            &[headers(1, flag::END_STREAM, &pseudo("GET", "/hold")), last(1), last(1)],
            broken,
        ),
        row(
            "http2/6.10/6",
            "DATA, then CONTINUATION",
            &[open(1, "/hold"), data(1, 1, b"test"), last(1)],
            broken,
        ),
    ]
}

fn error_codes() -> Vec<Case> {
    vec![
        row("http2/7/1", "GOAWAY with an unknown code", &[goaway(0, 0, 0xff)], Close),
        row(
            "http2/7/2",
            "RST_STREAM with an unknown code",
            &[get(1, "/hold"), reset(1, 0xff), get(3, "/")],
            Answer(3),
        ),
    ]
}
