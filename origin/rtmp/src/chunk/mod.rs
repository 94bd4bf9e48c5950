//! The chunk stream: messages cut into chunks, interleaved, with compressed headers.

mod reader;
mod writer;

pub(crate) use reader::ChunkReader;
pub(crate) use writer::ChunkWriter;

/// Timestamp field value which says that four more bytes carry the real one.
const EXTENDED: u32 = 0xFF_FFFF;
/// Chunk size of both directions until one is announced, bytes.
const DEFAULT_CHUNK_SIZE: usize = 128;

#[cfg(test)]
mod tests;
