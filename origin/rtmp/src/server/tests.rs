use bytes::BytesMut;
use proptest::prelude::*;

use super::*;
use crate::chunk::ChunkWriter;
use crate::{ClientConfig, ClientSession};

/// What a client sends, message by message, after a valid handshake.
struct Script {
    bytes: BytesMut,
    writer: ChunkWriter,
}

impl Script {
    fn new() -> Self {
        let mut bytes = BytesMut::from(&[3u8][..]);
        bytes.resize(1 + 2 * 1536, 0x5A);
        Self { bytes, writer: ChunkWriter::new() }
    }

    /// Up to `createStream`.
    fn connected() -> Self {
        let app = Value::Object(vec![("app".to_owned(), Value::text("live/"))]);
        let mut script = Self::new();
        script.command(0, Command::new("connect", 1.0, app, vec![]));
        script.command(0, Command::new("createStream", 2.0, Value::Null, vec![]));
        script
    }

    fn publishing() -> Self {
        let mut script = Self::connected();
        script.publish("key");
        script
    }

    fn publish(&mut self, name: &str) {
        self.call(1, "publish", vec![Value::text(name), Value::text("live")]);
    }

    fn call(&mut self, stream_id: u32, name: &str, arguments: Vec<Value>) {
        self.command(stream_id, Command::new(name, 0.0, Value::Null, arguments));
    }

    fn command(&mut self, stream_id: u32, command: Command) {
        self.message(3, command.into_message(stream_id));
    }

    fn media(&mut self, type_id: u8, timestamp_ms: u32, payload: &[u8]) {
        let payload = Bytes::copy_from_slice(payload);
        self.message(4, Message { timestamp_ms, type_id, stream_id: 1, payload });
    }

    #[expect(clippy::needless_pass_by_value, reason = "callers build the message in place")]
    fn message(&mut self, chunk_stream: u8, message: Message) {
        self.writer.write(chunk_stream, &message, &mut self.bytes);
    }
}

/// Feeds `bytes` in `pieces`, accepting every publish; events of connecting are left out.
fn run<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> (Vec<ServerEvent>, Result<(), SessionError>, ServerSession) {
    let mut session = ServerSession::new(Limits::default());
    let mut events = Vec::new();
    for piece in pieces {
        let outcome = session.handle_input(piece);
        while let Some(event) = session.poll_event() {
            match event {
                ServerEvent::Connected { .. } => {}
                ServerEvent::PublishRequested { .. } => {
                    session.accept_publish();
                    events.push(event);
                }
                other => events.push(other),
            }
        }
        if outcome.is_err() {
            return (events, outcome, session);
        }
    }
    (events, Ok(()), session)
}

fn requested(stream_name: &str, query: Option<&str>) -> ServerEvent {
    let (app, stream_name) = ("live".to_owned(), stream_name.to_owned());
    ServerEvent::PublishRequested { app, stream_name, query: query.map(str::to_owned) }
}

fn video(timestamp_ms: u32, payload: &'static [u8]) -> ServerEvent {
    ServerEvent::Video { timestamp_ms, payload: Bytes::from_static(payload) }
}

/// Runs `script` in one piece and returns its events without the request for `key`.
fn after_publish(script: &Script) -> (Vec<ServerEvent>, Result<(), SessionError>) {
    let (mut events, outcome, _) = run([&script.bytes[..]]);
    assert_eq!(events.remove(0), requested("key", None));
    (events, outcome)
}

/// The answers in `output` after the handshake, as commands.
fn answers(session: &mut ServerSession) -> Vec<Command> {
    let output = session.poll_output().unwrap();
    let mut reader = crate::chunk::ChunkReader::new(Limits::default());
    let mut input = &output[1 + 2 * 1536..];
    let mut commands = Vec::new();
    while let Some(message) = reader.next_message(&mut input).unwrap() {
        match message.type_id {
            message::SET_CHUNK_SIZE => reader.set_chunk_size(message.number().unwrap()).unwrap(),
            message::COMMAND_AMF0 => commands.push(Command::decode(&message, &Limits::default()).unwrap()),
            _ => {}
        }
    }
    commands
}

fn code(command: &Command) -> &str {
    command.arguments[0].get("code").and_then(Value::as_str).unwrap_or_default()
}

#[test]
fn the_query_is_split_from_the_stream_name() {
    for (name, stream_name, query) in
        [("a", "a", None), ("a?", "a", Some("")), ("a?b=c?d", "a", Some("b=c?d")), ("?x", "", Some("x"))]
    {
        let mut script = Script::connected();
        script.publish(name);
        assert_eq!(run([&script.bytes[..]]).0, [requested(stream_name, query)]);
    }
}

#[test]
fn every_way_to_end_a_stream_ends_it_once_and_another_may_follow() {
    for ends in [&["FCUnpublish", "deleteStream"][..], &["deleteStream"], &["closeStream", "FCUnpublish"]] {
        let mut script = Script::publishing();
        script.media(message::VIDEO, 1, b"v");
        for end in ends {
            let argument = if *end == "deleteStream" { Value::Number(1.0) } else { Value::text("key") };
            script.call(1, end, vec![argument]);
        }
        script.media(message::VIDEO, 2, b"late");
        let first = script.bytes.split();
        script.publish("other");
        script.media(message::VIDEO, 3, b"w");
        let (events, outcome, _) = run([&first[..], &script.bytes]);
        let expected = [
            requested("key", None),
            video(1, b"v"),
            ServerEvent::Unpublished,
            requested("other", None),
            video(3, b"w"),
        ];
        assert_eq!((events, outcome), (expected.to_vec(), Ok(())), "{ends:?}");
    }
}

#[test]
fn deleting_another_stream_changes_nothing() {
    let mut script = Script::publishing();
    script.call(0, "deleteStream", vec![Value::Number(7.0)]);
    script.media(message::VIDEO, 1, b"v");
    assert_eq!(after_publish(&script), (vec![video(1, b"v")], Ok(())));
}

#[test]
fn a_decision_never_applies_to_a_later_request() {
    let mut script = Script::publishing();
    script.call(1, "closeStream", vec![]);
    let withdrawn = script.bytes.clone();
    script.publish("other");
    let mut session = ServerSession::new(Limits::default());
    let when = "before the previous `publish` was answered";
    let unexpected = SessionError::UnexpectedCommand { command: "publish", when };
    assert_eq!(session.handle_input(&script.bytes), Err(unexpected));

    let mut session = ServerSession::new(Limits::default());
    session.handle_input(&withdrawn).unwrap();
    session.poll_output();
    session.accept_publish();
    assert_eq!(session.poll_output(), None);
    assert_eq!(session.publish, Publish::None);
}

#[test]
fn refusing_drops_media_that_came_early() {
    let mut script = Script::publishing();
    script.media(message::VIDEO, 1, b"v");
    let mut session = ServerSession::new(Limits::default());
    session.handle_input(&script.bytes).unwrap();
    session.reject_publish(Refusal::BadName, "unknown stream key");
    assert_eq!(session.poll_event(), None);
    assert_eq!(session.handle_input(&script.bytes), Ok(()));
    assert_eq!(session.poll_event(), None);
    let commands = answers(&mut session);
    let last = commands.last().unwrap();
    assert_eq!((last.name.as_str(), code(last)), ("onStatus", "NetStream.Publish.BadName"));
    assert_eq!(last.arguments[0].get("level"), Some(&Value::text("error")));
    assert_eq!(last.arguments[0].get("description"), Some(&Value::text("unknown stream key")));
}

#[test]
fn what_a_publisher_may_not_do_is_answered_and_named() {
    let unexpected = |command, when| SessionError::UnexpectedCommand { command, when };
    let name = |name: &str| vec![Value::text(name), Value::text("live")];
    let mut early = Script::new();
    early.call(1, "publish", name("key"));
    let mut second = Script::publishing();
    let first_half = second.bytes.split();
    second.call(2, "publish", name("other"));
    let second = [&first_half[..], &second.bytes[..]];
    let mut play = Script::connected();
    play.call(1, "play", name("key"));
    let mut nameless = Script::connected();
    nameless.call(1, "publish", vec![]);
    let mut twice = Script::connected();
    twice.command(0, Command::new("connect", 9.0, Value::Null, vec![]));
    let nothing = &[][..];
    let cases = [
        ([&early.bytes[..], nothing], unexpected("publish", "before `connect`"), ""),
        (second, unexpected("publish", "while already publishing"), "NetStream.Publish.BadName"),
        ([&play.bytes, nothing], SessionError::PlayRequested, "NetStream.Play.Failed"),
        (
            [&nameless.bytes, nothing],
            SessionError::MissingField { command: "publish", field: "stream name" },
            "NetStream.Publish.BadName",
        ),
        ([&twice.bytes, nothing], unexpected("connect", "twice"), ""),
    ];
    for (pieces, error, expected) in cases {
        let (_, outcome, mut session) = run(pieces);
        assert_eq!(outcome, Err(error.clone()));
        assert_eq!(session.handle_input(b"more"), Err(error));
        assert!(session.is_over());
        if !expected.is_empty() {
            assert_eq!(code(answers(&mut session).last().unwrap()), expected);
        }
    }
}

#[test]
fn unknown_commands_are_answered_if_they_ask_for_it() {
    let mut script = Script::connected();
    script.command(0, Command::new("getStreamLength", 8.0, Value::Null, vec![]));
    script.call(0, "notice", vec![]);
    let (_, outcome, mut session) = run([&script.bytes[..]]);
    assert_eq!(outcome, Ok(()));
    let commands = answers(&mut session);
    let last = commands.last().unwrap();
    assert_eq!((last.name.as_str(), last.transaction), ("_error", 8.0));
}

#[test]
fn amf3_messages_with_amf0_values_are_read() {
    let mut script = Script::connected();
    let publish = Command::new("publish", 0.0, Value::Null, vec![Value::text("key")]).into_message(1);
    let payload = Bytes::from([&[0], &publish.payload[..]].concat());
    script.message(3, Message { type_id: message::COMMAND_AMF3, payload, ..publish });
    script.media(message::DATA_AMF3, 0, b"\0\x02\0\x0AonMetaData\x08\0\0\0\0\0\0\x09");
    assert_eq!(after_publish(&script), (vec![ServerEvent::Metadata(Metadata::default())], Ok(())));
}

#[test]
fn aggregates_are_taken_apart() {
    let mut script = Script::publishing();
    let parts = b"\x09\0\0\x01\0\0\x05\0\0\0\0v\0\0\0\x0C\x09\0\0\x02\0\0\x2B\0\0\0\0vw\0\0\0\x0D";
    script.media(message::AGGREGATE, 1000, parts);
    assert_eq!(after_publish(&script), (vec![video(1000, b"v"), video(1038, b"vw")], Ok(())));
    script.media(message::AGGREGATE, 1000, &parts[..13]);
    script.media(message::AGGREGATE, 1000, &parts[..5]);
    let (events, outcome) = after_publish(&script);
    assert_eq!((events.len(), outcome), (3, Err(SessionError::MalformedAggregate)));
}

#[test]
fn media_of_other_message_streams_is_not_mixed_in() {
    let mut script = Script::publishing();
    for stream_id in [0, 1, 2] {
        let payload = Bytes::from(vec![stream_id as u8]);
        script.message(4, Message { timestamp_ms: 0, type_id: message::VIDEO, stream_id, payload });
    }
    script.media(message::VIDEO, 0, b"");
    assert_eq!(after_publish(&script), (vec![video(0, &[0]), video(0, &[1])], Ok(())));
}

#[test]
fn pings_are_answered_and_bytes_acknowledged() {
    let mut script = Script::publishing();
    script.message(2, Message::control_number(message::WINDOW_ACK_SIZE, 1));
    script.message(2, Message::user_control(message::PING_REQUEST, 0x0102_0304));
    let mut session = ServerSession::new(Limits::default());
    session.handle_input(&script.bytes).unwrap();
    let output = session.poll_output().unwrap();
    let ping = b"\0\x07\x01\x02\x03\x04";
    assert!(output.windows(6).any(|window| window == ping));
    let mut received = script.bytes.split().len();
    script.media(message::VIDEO, 0, &[0; 5000]);
    session.handle_input(&script.bytes).unwrap();
    received += script.bytes.len();
    let output = session.poll_output().unwrap();
    assert_eq!(output[output.len() - 4..], u32::try_from(received).unwrap().to_be_bytes());
    assert!(session.poll_output().is_none());
}

#[test]
fn a_peer_that_does_not_read_or_floods_is_stopped() {
    let mut script = Script::publishing();
    (0..50_000).for_each(|time| script.message(2, Message::user_control(message::PING_REQUEST, time)));
    assert!(matches!(run([&script.bytes[..]]).1, Err(SessionError::OutputNotRead { .. })));
    let mut script = Script::publishing();
    (0..20_000).for_each(|time| script.media(message::AUDIO, time, b"a"));
    let (events, outcome) = after_publish(&script);
    let limit = Limits::default().max_pending_events;
    assert_eq!(outcome, Err(SessionError::TooManyEvents { limit }));
    assert_eq!(events.len(), limit - 2, "connect and publish are events as well");
}

#[test]
fn a_command_has_a_limit_of_its_own() {
    let mut script = Script::connected();
    script.publish(&"k".repeat(70_000));
    assert!(matches!(run([&script.bytes[..]]).1, Err(SessionError::CommandTooLarge { .. })));
}

/// Everything a client sends in a short publish, with the chunk sizes and timestamps that are hard to get right.
fn recording() -> Vec<u8> {
    let mut script = Script::publishing();
    let mut recording = script.bytes.split().to_vec();
    script.message(2, Message::control_number(message::WINDOW_ACK_SIZE, 5000));
    for (timestamp_ms, length) in
        [(0, 60), (33, 60), (66, 60), (0xFF_FFFF, 400), (0x100_0000, 300), (u32::MAX, 3)]
    {
        script.media(message::VIDEO, timestamp_ms, &vec![0x17; length]);
        script.media(message::AUDIO, timestamp_ms, &[0xAF; 9]);
    }
    script.message(2, Message::control_number(message::SET_CHUNK_SIZE, 10_000_000));
    script.writer.set_chunk_size(10_000_000);
    script.media(message::VIDEO, 5, &[0x27; 5000]);
    script.message(2, Message::user_control(message::PING_REQUEST, 1));
    script.call(0, "FCUnpublish", vec![Value::text("key")]);
    script.call(0, "deleteStream", vec![Value::Number(1.0)]);
    recording.extend(script.bytes);
    recording
}

fn split<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
    at.extend([0, bytes.len()]);
    at.sort_unstable();
    at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

#[test]
fn the_recording_is_understood_whole_and_byte_by_byte() {
    let recording = recording();
    let (events, outcome, _) = run([&recording[..]]);
    assert_eq!((events.len(), outcome), (1 + 13 + 1, Ok(())));
    assert_eq!(run(recording.chunks(1)).0, events);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_split_gives_the_same_events(cuts: Vec<prop::sample::Index>) {
        let recording = recording();
        let (expected, _, _) = run([&recording[..]]);
        let (events, outcome, _) = run(split(&recording, &cuts));
        prop_assert_eq!((events, outcome), (expected, Ok(())));
    }

    #[test]
    fn garbage_after_the_handshake_harms_nobody(
        garbage in proptest::collection::vec(prop_oneof![0u8..8, any::<u8>()], 0..4000),
        cuts: [prop::sample::Index; 3],
        published: bool,
    ) {
        let mut script = if published { Script::publishing() } else { Script::new() };
        script.bytes.extend_from_slice(&garbage);
        let (events, outcome, _) = run([&script.bytes[..]]);
        let (split_events, split_outcome, _) = run(split(&script.bytes, &cuts));
        prop_assert_eq!((events, outcome), (split_events, split_outcome));
    }

    #[test]
    fn damaged_streams_harm_nobody(
        damage: [(prop::sample::Index, u8); 4],
        cuts: [prop::sample::Index; 3],
    ) {
        let mut recording = recording();
        let handshake = 1 + 2 * 1536;
        for (at, byte) in damage {
            let at = handshake + at.index(recording.len() - handshake);
            recording[at] = byte;
        }
        let (events, outcome, _) = run([&recording[..]]);
        let (split_events, split_outcome, _) = run(split(&recording, &cuts));
        prop_assert_eq!((events, outcome), (split_events, split_outcome));
    }

    #[test]
    fn a_client_survives_any_server(
        garbage in proptest::collection::vec(prop_oneof![0u8..8, any::<u8>()], 0..2000),
        piece in 1usize..100,
    ) {
        let mut client = ClientSession::new(ClientConfig::new("rtmp://h/live", "live", "key"));
        let mut bytes = Script::new().bytes;
        bytes.extend_from_slice(&garbage);
        for piece in bytes.chunks(piece) {
            let _ = client.handle_input(piece);
        }
    }
}
