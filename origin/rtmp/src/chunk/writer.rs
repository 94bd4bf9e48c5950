//! Messages in, chunks out, with the shortest header the last one on the chunk stream allows.
#![deny(clippy::disallowed_methods)]

use bytes::{BufMut, BytesMut};

use super::{DEFAULT_CHUNK_SIZE, EXTENDED};
use crate::message::Message;

#[derive(Debug, Clone, Copy)]
struct Last {
    timestamp_ms: u32,
    /// `None` after a full header, whose timestamp is no delta that could be repeated.
    delta_ms: Option<u32>,
    length: u32,
    type_id: u8,
    stream_id: u32,
}

#[derive(Debug)]
pub(crate) struct ChunkWriter {
    chunk_size: usize,
    /// Last header per chunk stream id 0..8; this side uses 2 to 7.
    last: [Option<Last>; 8],
}

impl ChunkWriter {
    pub(crate) fn new() -> Self {
        Self { chunk_size: DEFAULT_CHUNK_SIZE, last: [None; 8] }
    }

    /// For messages written from now on, at least 1; the peer must have been told.
    pub(crate) fn set_chunk_size(&mut self, size: u32) {
        self.chunk_size = (size as usize).max(1);
    }

    /// Appends `message` on chunk stream `chunk_stream` (2 to 7). Its payload must be shorter than 16 MiB.
    pub(crate) fn write(&mut self, chunk_stream: u8, message: &Message, out: &mut BytesMut) {
        debug_assert!((2..8).contains(&chunk_stream) && message.payload.len() <= EXTENDED as usize);
        let chunk_stream = chunk_stream & 7;
        let length = u32::try_from(message.payload.len()).unwrap_or(EXTENDED).min(EXTENDED);
        let slot = &mut self.last[usize::from(chunk_stream)];
        let (format, delta) = match slot {
            // A step back or a jump of hours is written as an absolute time.
            Some(last) if last.stream_id == message.stream_id => {
                let delta = message.timestamp_ms.wrapping_sub(last.timestamp_ms);
                if delta >= EXTENDED {
                    (0, None)
                } else if last.length != length || last.type_id != message.type_id {
                    (1, Some(delta))
                } else if last.delta_ms != Some(delta) {
                    (2, Some(delta))
                } else {
                    (3, Some(delta))
                }
            }
            _ => (0, None),
        };
        *slot = Some(Last {
            timestamp_ms: message.timestamp_ms,
            delta_ms: delta,
            length,
            type_id: message.type_id,
            stream_id: message.stream_id,
        });
        let time = delta.unwrap_or(message.timestamp_ms);
        out.reserve(message.payload.len() + message.payload.len() / self.chunk_size * 5 + 18);
        out.put_u8(format << 6 | chunk_stream);
        if format < 3 {
            out.put_uint(u64::from(time.min(EXTENDED)), 3);
        }
        if format < 2 {
            out.put_uint(u64::from(length), 3);
            out.put_u8(message.type_id);
        }
        if format == 0 {
            out.put_u32_le(message.stream_id);
        }
        let extended = (time >= EXTENDED).then_some(time);
        if let Some(time) = extended {
            out.put_u32(time);
        }
        for (index, chunk) in message.payload.chunks(self.chunk_size).enumerate() {
            if index > 0 {
                out.put_u8(3 << 6 | chunk_stream);
                if let Some(time) = extended {
                    out.put_u32(time);
                }
            }
            out.put_slice(chunk);
        }
    }
}
