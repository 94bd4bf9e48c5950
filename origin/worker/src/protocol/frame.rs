//! Length framing without IO: bytes in, messages out.
//!
//! Invariant: a reader never buffers for a message longer than [`MESSAGE_BYTES_MAX`]; a longer length field is an error
//! at once, and after an error the reader is finished, because the frame boundary is lost.
#![deny(clippy::disallowed_methods)]

use std::marker::PhantomData;

use bytes::{Buf, Bytes, BytesMut};

/// Longest message, kind byte included, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

const LENGTH_BYTES: usize = 4;

/// The two ends disagree. Always a defect of the sender; retrying on the same pipe never helps, a restart may.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// A frame claims or would need more than [`MESSAGE_BYTES_MAX`].
    #[error("message of {0} bytes, at most {MESSAGE_BYTES_MAX} allowed")]
    TooLong(usize),
    /// The kind byte means nothing in this direction.
    #[error("unknown message kind {0}")]
    Kind(u8),
    /// The body is shorter or longer than its kind needs, or a flag is unknown.
    #[error("malformed message body")]
    Body,
    /// The job is not the JSON it should be.
    #[error("malformed job: {0}")]
    Job(String),
}

/// One direction's message set.
pub trait Message: Sized {
    /// Appends kind byte and body to `out`.
    ///
    /// # Errors
    /// [`ProtocolError::Job`] when a job cannot be serialised.
    fn encode_body(&self, out: &mut Vec<u8>) -> Result<(), ProtocolError>;

    /// Reads kind byte and body. Payloads are slices of `body`, not copies.
    ///
    /// # Errors
    /// [`ProtocolError`] other than `TooLong`, for whatever is wrong with `body`.
    fn decode_body(body: Bytes) -> Result<Self, ProtocolError>;

    /// Appends one whole frame, length field included, to `out`. On error `out` is as it was.
    ///
    /// # Errors
    /// [`ProtocolError::TooLong`] beyond [`MESSAGE_BYTES_MAX`], or what `encode_body` answers.
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), ProtocolError> {
        let start = out.len();
        out.extend_from_slice(&[0; LENGTH_BYTES]);
        let encoded = self.encode_body(out).and_then(|()| {
            let length = out.len() - start - LENGTH_BYTES;
            u32::try_from(length)
                .ok()
                .filter(|_| length <= MESSAGE_BYTES_MAX)
                .ok_or(ProtocolError::TooLong(length))
        });
        match encoded {
            Ok(length) => out[start..start + LENGTH_BYTES].copy_from_slice(&length.to_be_bytes()),
            Err(_) => out.truncate(start),
        }
        encoded.map(|_| ())
    }
}

/// Cuts a byte stream into messages of one direction.
///
/// Push what was read, then pull until `None`; so at most one incomplete message plus one read stays buffered.
#[derive(Debug)]
pub struct FrameReader<M> {
    buffer: BytesMut,
    failed: Option<ProtocolError>,
    direction: PhantomData<fn() -> M>,
}

impl<M> Default for FrameReader<M> {
    fn default() -> Self {
        Self { buffer: BytesMut::new(), failed: None, direction: PhantomData }
    }
}

impl<M: Message> FrameReader<M> {
    /// An empty reader.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends bytes as they came from the pipe.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The buffer itself, for a reader that fills it in place (`read_buf`). Only append.
    pub fn buffer_mut(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The next whole message, or `None` when more bytes are needed.
    ///
    /// # Errors
    /// [`ProtocolError`] for a malformed message; every later call repeats it.
    pub fn pull(&mut self) -> Result<Option<M>, ProtocolError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let pulled = self.pull_frame();
        if let Err(error) = &pulled {
            self.failed = Some(error.clone());
            self.buffer = BytesMut::new();
        }
        pulled
    }

    /// Whether the stream may end here: nothing of a next message has arrived.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    fn pull_frame(&mut self) -> Result<Option<M>, ProtocolError> {
        let Some(length) = self.buffer.first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if length > MESSAGE_BYTES_MAX {
            return Err(ProtocolError::TooLong(length));
        }
        if self.buffer.len() < LENGTH_BYTES + length {
            self.buffer.reserve(LENGTH_BYTES + length - self.buffer.len());
            return Ok(None);
        }
        self.buffer.advance(LENGTH_BYTES);
        M::decode_body(self.buffer.split_to(length).freeze()).map(Some)
    }
}
