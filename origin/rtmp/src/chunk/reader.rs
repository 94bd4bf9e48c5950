//! Chunks in, messages out.
//!
//! Invariants: memory follows the bytes really received, never a claimed length; unfinished messages of all chunk
//! streams together stay within `max_message_bytes`; a message is returned with its last byte.
#![deny(clippy::disallowed_methods)]

use bytes::BytesMut;

use super::{DEFAULT_CHUNK_SIZE, EXTENDED};
use crate::message::Message;
use crate::{Limits, SessionError};

/// First reservation of a message in bytes: covers audio and most video, yet 64 bare headers cost only 2 MiB.
const FIRST_RESERVATION: usize = 32 << 10;
/// Basic header 3, message header 11, extended timestamp 4.
const MAX_HEADER_BYTES: usize = 18;

#[derive(Debug)]
struct ChunkStream {
    id: u32,
    timestamp_ms: u32,
    delta_ms: u32,
    /// Value of the extended timestamp field, while the last header had one.
    extended: Option<u32>,
    length: usize,
    type_id: u8,
    stream_id: u32,
    unfinished: Option<BytesMut>,
}

#[derive(Debug)]
pub(crate) struct ChunkReader {
    limits: Limits,
    chunk_size: usize,
    streams: Vec<ChunkStream>,
    header: [u8; MAX_HEADER_BYTES],
    header_len: usize,
    /// Bytes taken for an extended timestamp that turned out to be payload; read before the input.
    replay: Vec<u8>,
    /// Index of the chunk stream being filled, and the payload bytes its chunk still lacks.
    filling: Option<(usize, usize)>,
    unfinished_bytes: usize,
}

struct Header {
    format: u8,
    chunk_stream: u32,
    /// Bytes of the basic header, where the message header begins.
    basic: usize,
    extended: Option<u32>,
    used: usize,
}

impl ChunkReader {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            chunk_size: DEFAULT_CHUNK_SIZE,
            streams: Vec::new(),
            header: [0; MAX_HEADER_BYTES],
            header_len: 0,
            replay: Vec::new(),
            filling: None,
            unfinished_bytes: 0,
        }
    }

    /// Applies to every chunk that begins from now on.
    pub(crate) fn set_chunk_size(&mut self, size: u32) -> Result<(), SessionError> {
        let limit = self.limits.max_chunk_size;
        match usize::try_from(size) {
            Ok(accepted) if (1..=limit).contains(&accepted) => {
                self.chunk_size = accepted;
                Ok(())
            }
            _ => Err(SessionError::ChunkSize { size, limit }),
        }
    }

    /// Drops the unfinished message of a chunk stream.
    pub(crate) fn abort(&mut self, chunk_stream: u32) {
        if let Some(stream) = self.streams.iter_mut().find(|stream| stream.id == chunk_stream)
            && let Some(dropped) = stream.unfinished.take()
        {
            self.unfinished_bytes -= dropped.len();
        }
    }

    /// The next complete message; `None` when `input` is used up.
    pub(crate) fn next_message(&mut self, input: &mut &[u8]) -> Result<Option<Message>, SessionError> {
        loop {
            if let Some((index, left)) = self.filling {
                let Some(message) = self.fill(index, left, input)? else {
                    if self.filling.is_some() {
                        return Ok(None);
                    }
                    continue;
                };
                return Ok(Some(message));
            }
            let Some(byte) = self.next_byte(input) else {
                return Ok(None);
            };
            self.header[self.header_len] = byte;
            self.header_len += 1;
            if let Some(header) = self.read_header() {
                let index = self.begin_chunk(&header)?;
                let surplus = &self.header[header.used..self.header_len];
                self.replay.splice(0..0, surplus.iter().copied());
                self.header_len = 0;
                let stream = &self.streams[index];
                let missing = stream.length - stream.unfinished.as_ref().map_or(0, BytesMut::len);
                self.filling = Some((index, missing.min(self.chunk_size)));
            }
        }
    }

    fn next_byte(&mut self, input: &mut &[u8]) -> Option<u8> {
        if !self.replay.is_empty() {
            return Some(self.replay.remove(0));
        }
        let (byte, rest) = input.split_first()?;
        *input = rest;
        Some(*byte)
    }

    /// `None` while the header buffer holds less than a whole header.
    fn read_header(&self) -> Option<Header> {
        let seen = &self.header[..self.header_len];
        let first = *seen.first()?;
        let format = first >> 6;
        let (chunk_stream, basic) = match first & 0x3F {
            0 => (64 + u32::from(*seen.get(1)?), 2),
            1 => (64 + u32::from(*seen.get(1)?) + 256 * u32::from(*seen.get(2)?), 3),
            id => (u32::from(id), 1),
        };
        let fields = [11, 7, 3, 0][usize::from(format)];
        let tail = seen.get(basic + fields..)?;
        let header = |extended, used| Some(Header { format, chunk_stream, basic, extended, used });
        if format == 3 {
            let known = self.streams.iter().find(|stream| stream.id == chunk_stream);
            return match known.and_then(|stream| stream.extended) {
                None => header(None, basic),
                Some(value) => {
                    // Some encoders do not repeat the field, so only its exact value is taken for it.
                    let expected = value.to_be_bytes();
                    if !expected.starts_with(tail) {
                        header(Some(value), basic)
                    } else if tail.len() == expected.len() {
                        header(Some(value), basic + 4)
                    } else {
                        None
                    }
                }
            };
        }
        if be24(&seen[basic..]) != EXTENDED {
            return header(None, basic + fields);
        }
        let value = u32::from_be_bytes(*tail.first_chunk::<4>()?);
        header(Some(value), basic + fields + 4)
    }

    /// Applies a whole header and returns the index of its chunk stream.
    fn begin_chunk(&mut self, header: &Header) -> Result<usize, SessionError> {
        let chunk_stream = header.chunk_stream;
        let index = self.stream_index(header)?;
        let stream = &mut self.streams[index];
        let fields = &self.header[header.basic..];
        if stream.unfinished.is_some() {
            if header.format != 3 {
                return Err(SessionError::InterruptedMessage { chunk_stream });
            }
            return Ok(index);
        }
        if header.format < 3 {
            let time = header.extended.unwrap_or_else(|| be24(fields));
            stream.delta_ms = time;
            stream.extended = header.extended;
        }
        if header.format < 2 {
            stream.length = be24(&fields[3..]) as usize;
            stream.type_id = fields[6];
        }
        if header.format == 0 {
            stream.stream_id = u32::from_le_bytes([fields[7], fields[8], fields[9], fields[10]]);
            stream.timestamp_ms = stream.delta_ms;
        } else {
            stream.timestamp_ms = stream.timestamp_ms.wrapping_add(stream.delta_ms);
        }
        if stream.length > self.limits.max_message_bytes {
            let limit = self.limits.max_message_bytes;
            return Err(SessionError::MessageTooLarge { bytes: stream.length, limit });
        }
        stream.unfinished = Some(BytesMut::with_capacity(stream.length.min(FIRST_RESERVATION)));
        Ok(index)
    }

    fn stream_index(&mut self, header: &Header) -> Result<usize, SessionError> {
        let chunk_stream = header.chunk_stream;
        if let Some(index) = self.streams.iter().position(|stream| stream.id == chunk_stream) {
            return Ok(index);
        }
        // Format 1 may open a chunk stream: librtmp sends its first user control message that way.
        if header.format > 1 {
            return Err(SessionError::NoPreviousHeader { chunk_stream });
        }
        if self.streams.len() >= self.limits.max_chunk_streams {
            return Err(SessionError::TooManyChunkStreams { limit: self.limits.max_chunk_streams });
        }
        self.streams.push(ChunkStream {
            id: chunk_stream,
            timestamp_ms: 0,
            delta_ms: 0,
            extended: None,
            length: 0,
            type_id: 0,
            stream_id: 0,
            unfinished: None,
        });
        Ok(self.streams.len() - 1)
    }

    /// Moves payload into the chunk in hand; a message once it is complete.
    fn fill(
        &mut self,
        index: usize,
        mut left: usize,
        input: &mut &[u8],
    ) -> Result<Option<Message>, SessionError> {
        let stream = &mut self.streams[index];
        let payload = stream.unfinished.get_or_insert_default();
        let before = payload.len();
        if !self.replay.is_empty() {
            let taken = left.min(self.replay.len());
            payload.extend(self.replay.drain(..taken));
            left -= taken;
        }
        if self.replay.is_empty() {
            let (head, rest) = input.split_at(left.min(input.len()));
            payload.extend_from_slice(head);
            left -= head.len();
            *input = rest;
        }
        self.unfinished_bytes += payload.len() - before;
        if self.unfinished_bytes > self.limits.max_message_bytes {
            return Err(SessionError::UnfinishedTooLarge { limit: self.limits.max_message_bytes });
        }
        if left > 0 {
            self.filling = Some((index, left));
            return Ok(None);
        }
        self.filling = None;
        if payload.len() < stream.length {
            return Ok(None);
        }
        self.unfinished_bytes -= payload.len();
        Ok(Some(Message {
            timestamp_ms: stream.timestamp_ms,
            type_id: stream.type_id,
            stream_id: stream.stream_id,
            payload: stream.unfinished.take().unwrap_or_default().freeze(),
        }))
    }
}

fn be24(bytes: &[u8]) -> u32 {
    bytes.iter().take(3).fold(0, |value, byte| value << 8 | u32::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claimed_length_reserves_little() {
        let mut reader = ChunkReader::new(Limits::default());
        reader.set_chunk_size(10_000_000).unwrap();
        let header = [3, 0, 0, 0, 0x7F, 0xFF, 0xFF, 9, 1, 0, 0, 0, 0xAA];
        assert_eq!(reader.next_message(&mut &header[..]), Ok(None));
        let reserved = reader.streams[0].unfinished.as_ref().map(BytesMut::capacity);
        assert!(reserved.is_some_and(|reserved| reserved <= FIRST_RESERVATION));
    }
}
