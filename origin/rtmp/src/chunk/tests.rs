use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::*;
use crate::message::{AUDIO, Message, VIDEO};
use crate::{Limits, SessionError};

fn message(timestamp_ms: u32, type_id: u8, length: usize) -> Message {
    let payload = (0..length).map(|index| (index % 251) as u8).collect::<Bytes>();
    Message { timestamp_ms, type_id, stream_id: 1, payload }
}

fn read_all(reader: &mut ChunkReader, mut input: &[u8]) -> Result<Vec<Message>, SessionError> {
    let mut messages = Vec::new();
    while let Some(message) = reader.next_message(&mut input)? {
        messages.push(message);
    }
    assert!(input.is_empty());
    Ok(messages)
}

fn reader() -> ChunkReader {
    ChunkReader::new(Limits::default())
}

fn read(input: &[u8]) -> Result<Vec<Message>, SessionError> {
    read_all(&mut reader(), input)
}

/// A whole header of format 0 on chunk stream 3, message stream 1.
fn full_header(time: u32, length: usize, type_id: u8) -> Vec<u8> {
    let (time, length) = (time.to_be_bytes(), u32::try_from(length).unwrap().to_be_bytes());
    [&[3][..], &time[1..], &length[1..], &[type_id, 1, 0, 0, 0]].concat()
}

#[test]
fn example_1_of_the_specification_audio_with_shrinking_headers() {
    let messages = [1000, 1020, 1040, 1060].map(|time| message(time, AUDIO, 32));
    let (mut writer, mut out) = (ChunkWriter::new(), BytesMut::new());
    let sizes = messages.clone().map(|message| {
        let before = out.len();
        writer.write(3, &message, &mut out);
        out.len() - before
    });
    assert_eq!(sizes, [44, 36, 33, 33]);
    assert_eq!(read(&out).unwrap(), messages);
}

#[test]
fn example_2_of_the_specification_a_message_in_three_chunks() {
    let video = message(1000, VIDEO, 307);
    let mut out = BytesMut::new();
    ChunkWriter::new().write(4, &video, &mut out);
    assert_eq!(out.len(), 140 + 129 + 52);
    assert_eq!((out[0], out[140], out[269]), (0x04, 0xC4, 0xC4));
    assert_eq!(read(&out).unwrap(), [video]);
}

#[test]
fn chunk_stream_ids_take_one_to_three_bytes() {
    for basic in [&[3][..], &[63], &[0, 0], &[0, 255], &[1, 0, 1], &[1, 255, 255]] {
        let header = full_header(7, 2, AUDIO);
        let continued = [&[basic[0] | 0xC0], &basic[1..], b"cd"].concat();
        let bytes = [basic, &header[1..], b"ab", &continued].concat();
        let messages = read(&bytes).unwrap();
        assert_eq!(messages.len(), 2, "{basic:?}");
        assert_eq!((&messages[0].payload[..], &messages[1].payload[..]), (&b"ab"[..], &b"cd"[..]));
        assert_eq!((messages[0].timestamp_ms, messages[1].timestamp_ms), (7, 14));
    }
}

#[test]
fn interleaved_chunk_streams_are_told_apart() {
    let (audio, video) = (message(5, AUDIO, 200), message(6, VIDEO, 300));
    let (mut writer, mut one, mut other) = (ChunkWriter::new(), BytesMut::new(), BytesMut::new());
    writer.write(4, &audio, &mut one);
    writer.write(6, &video, &mut other);
    let (one_head, other_head) = (one.split_to(140), other.split_to(140));
    let other_middle = other.split_to(129);
    let bytes = [&other_head[..], &one_head, &other_middle, &one, &other].concat();
    assert_eq!(read(&bytes).unwrap(), [audio, video]);
}

#[test]
fn extended_timestamps_are_repeated_or_not() {
    for time in [0xFF_FFFE, 0xFF_FFFF, 0x100_0000, u32::MAX] {
        let expected = [message(time, VIDEO, 300)];
        let video = &expected[0];
        let mut repeated = BytesMut::new();
        ChunkWriter::new().write(3, video, &mut repeated);
        assert_eq!(repeated.len(), 12 + 300 + 2 + if time >= 0xFF_FFFF { 12 } else { 0 });
        let mut omitted = full_header(time.min(0xFF_FFFF), 300, VIDEO);
        if time >= 0xFF_FFFF {
            omitted.extend(time.to_be_bytes());
        }
        for (index, chunk) in video.payload.chunks(128).enumerate() {
            omitted.extend((index > 0).then_some(0xC3));
            omitted.extend(chunk);
        }
        for (bytes, label) in [(&repeated[..], "repeated"), (&omitted, "omitted")] {
            assert_eq!(read(bytes).unwrap(), expected, "{time:#x} {label}");
            let mut reader = reader();
            let mut single = bytes.iter().map(|byte| read_all(&mut reader, &[*byte]).unwrap());
            let last = single.by_ref().take(bytes.len() - 1).all(|messages| messages.is_empty());
            assert!(last, "{time:#x} {label}: nothing before the last byte");
            assert_eq!(single.next().unwrap(), expected, "{time:#x} {label}: at the last byte");
        }
    }
}

/// The chunk ends and another begins inside the four bytes that might have been the timestamp.
#[test]
fn payload_that_looks_like_the_beginning_of_a_timestamp_is_given_back() {
    let mut bytes = full_header(0xFF_FFFF, 129, VIDEO);
    bytes.extend(0x0102_0304u32.to_be_bytes());
    bytes.extend([7; 128]);
    bytes.extend([0xC3, 1]);
    let second = full_header(9, 1, AUDIO);
    bytes.extend([2]);
    bytes.extend(&second[1..]);
    bytes.extend([8]);
    let messages = read(&bytes).unwrap();
    assert_eq!(messages.len(), 2);
    assert_eq!(
        (messages[0].timestamp_ms, messages[0].payload.len(), messages[0].payload[128]),
        (0x0102_0304, 129, 1)
    );
    assert_eq!((messages[1].timestamp_ms, &messages[1].payload[..]), (9, &[8][..]));
}

#[test]
fn deltas_wrap_and_may_be_extended() {
    let mut bytes = full_header(0xFF_FFFF, 1, AUDIO);
    bytes.extend((u32::MAX - 5).to_be_bytes());
    bytes.push(1);
    bytes.extend([0x83, 0, 0, 20, 2]);
    bytes.extend([0xC3, 3]);
    bytes.extend([0x83, 0xFF, 0xFF, 0xFF, 1, 0, 0, 0, 4]);
    let times: Vec<u32> = read(&bytes).unwrap().iter().map(|message| message.timestamp_ms).collect();
    assert_eq!(times, [u32::MAX - 5, 14, 34, 0x0100_0000 + 34]);
}

#[test]
fn an_aborted_message_is_dropped() {
    let video = message(1, VIDEO, 200);
    let mut out = BytesMut::new();
    ChunkWriter::new().write(3, &video, &mut out);
    let mut reader = reader();
    assert_eq!(read_all(&mut reader, &out[..140]).unwrap(), []);
    reader.abort(3);
    reader.abort(9);
    assert_eq!(read_all(&mut reader, &out).unwrap(), [video]);
}

#[test]
fn an_empty_message_is_complete_with_its_header() {
    assert_eq!(read(&full_header(4, 0, AUDIO)).unwrap(), [message(4, AUDIO, 0)]);
}

#[test]
fn what_breaks_the_chunk_stream_is_named() {
    let limit = Limits::default().max_message_bytes;
    let many: Vec<u8> =
        (0..65u8).flat_map(|id| [&[0, id][..], &full_header(0, 1, AUDIO)[1..], &[0]].concat()).collect();
    let interrupted = [full_header(0, 200, VIDEO), vec![0; 128], full_header(0, 1, VIDEO)].concat();
    let cases = [
        (vec![0x83, 0, 0, 0], SessionError::NoPreviousHeader { chunk_stream: 3 }),
        (vec![0xC3], SessionError::NoPreviousHeader { chunk_stream: 3 }),
        (full_header(0, limit + 1, VIDEO), SessionError::MessageTooLarge { bytes: limit + 1, limit }),
        (many, SessionError::TooManyChunkStreams { limit: 64 }),
        (interrupted, SessionError::InterruptedMessage { chunk_stream: 3 }),
    ];
    for (bytes, error) in cases {
        assert_eq!(read(&bytes), Err(error));
    }
}

#[test]
fn unfinished_messages_share_one_limit() {
    let limits = Limits { max_message_bytes: 1000, ..Limits::default() };
    let mut reader = ChunkReader::new(limits);
    reader.set_chunk_size(600).unwrap();
    let first = [full_header(0, 1000, VIDEO), vec![0; 600]].concat();
    assert_eq!(read_all(&mut reader, &first).unwrap(), []);
    let second = [&[4], &first[1..]].concat();
    assert_eq!(read_all(&mut reader, &second), Err(SessionError::UnfinishedTooLarge { limit: 1000 }));
}

#[test]
fn chunk_sizes_up_to_the_limit_are_taken() {
    let limit = Limits::default().max_chunk_size;
    for (size, ok) in [
        (0, false),
        (1, true),
        (10_000_000, true),
        (16 << 20, true),
        ((16 << 20) + 1, false),
        (u32::MAX, false),
    ] {
        let expected = if ok { Ok(()) } else { Err(SessionError::ChunkSize { size, limit }) };
        assert_eq!(reader().set_chunk_size(size), expected);
    }
    let mut reader = reader();
    reader.set_chunk_size(10_000_000).unwrap();
    let video = message(3, VIDEO, 1_000_000);
    let bytes = [full_header(3, 1_000_000, VIDEO), video.payload.to_vec()].concat();
    assert_eq!(read_all(&mut reader, &bytes).unwrap(), [video]);
}

fn any_messages() -> impl Strategy<Value = Vec<(u8, Message)>> {
    let time = prop_oneof![0u32..100, 0xFF_FFF0u32..0x100_0010, any::<u32>()];
    let one = (2u8..8, time, 0u8..40, 0u32..3, prop_oneof![0usize..4, 0usize..700]);
    proptest::collection::vec(one, 0..12).prop_map(|all| {
        let build = |(chunk_stream, timestamp_ms, type_id, stream_id, length)| {
            (chunk_stream, Message { stream_id, ..message(timestamp_ms, type_id, length) })
        };
        all.into_iter().map(build).collect()
    })
}

proptest! {
    #[test]
    fn what_is_written_is_read_in_any_pieces(
        messages in any_messages(),
        chunk_size in prop_oneof![1u32..9, 100u32..200],
        piece in 1usize..50,
    ) {
        let (mut writer, mut reader, mut out) = (ChunkWriter::new(), reader(), BytesMut::new());
        writer.set_chunk_size(chunk_size);
        reader.set_chunk_size(chunk_size).unwrap();
        messages.iter().for_each(|(chunk_stream, message)| writer.write(*chunk_stream, message, &mut out));
        let mut read = Vec::new();
        for piece in out.chunks(piece) {
            read.extend(read_all(&mut reader, piece).unwrap());
        }
        let written: Vec<Message> = messages.into_iter().map(|(_, message)| message).collect();
        prop_assert_eq!(read, written);
    }
}
