//! Why a session ended. Every variant blames the peer; none is worth a retry with the same bytes.

use crate::amf0::Amf0Error;

/// What the peer did wrong. The session is over: flush `poll_output`, then close the connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// The first byte of the connection is not the RTMP version.
    #[error("the peer does not speak plain RTMP: handshake version {version} instead of 3")]
    UnsupportedVersion {
        /// First byte received.
        version: u8,
    },
    /// A chunk size of zero or above the limit was announced.
    #[error("the peer announced a chunk size of {size} bytes; 1 to {limit} are accepted")]
    ChunkSize {
        /// Announced size in bytes.
        size: u32,
        /// [`crate::Limits::max_chunk_size`].
        limit: usize,
    },
    /// A message header claims more than the limit.
    #[error("the peer began a message of {bytes} bytes; at most {limit} are accepted")]
    MessageTooLarge {
        /// Claimed length in bytes.
        bytes: usize,
        /// [`crate::Limits::max_message_bytes`].
        limit: usize,
    },
    /// Unfinished messages of several chunk streams exceed the limit together.
    #[error("the peer left more than {limit} bytes of messages unfinished")]
    UnfinishedTooLarge {
        /// [`crate::Limits::max_message_bytes`].
        limit: usize,
    },
    /// More chunk streams than allowed were opened.
    #[error("the peer opened more than {limit} chunk streams")]
    TooManyChunkStreams {
        /// [`crate::Limits::max_chunk_streams`].
        limit: usize,
    },
    /// A chunk refers to an earlier header that never was.
    #[error("the peer began chunk stream {chunk_stream} with a header that continues nothing")]
    NoPreviousHeader {
        /// Chunk stream id.
        chunk_stream: u32,
    },
    /// A new message header came before the previous message of the chunk stream was complete.
    #[error("the peer began a message inside an unfinished message of chunk stream {chunk_stream}")]
    InterruptedMessage {
        /// Chunk stream id.
        chunk_stream: u32,
    },
    /// A protocol control message is too short for its type.
    #[error("the peer sent a truncated control message of type {type_id}")]
    MalformedControl {
        /// Message type id.
        type_id: u8,
    },
    /// A command is not valid AMF0.
    #[error("the peer sent a command that cannot be read: {0}")]
    MalformedCommand(#[from] Amf0Error),
    /// A command message exceeds the limit.
    #[error("the peer sent a command of {bytes} bytes; at most {limit} are accepted")]
    CommandTooLarge {
        /// Length in bytes.
        bytes: usize,
        /// [`crate::Limits::max_command_bytes`].
        limit: usize,
    },
    /// An aggregate message does not divide into whole messages.
    #[error("the peer sent an aggregate message whose parts do not add up")]
    MalformedAggregate,
    /// A command is not allowed at this point of the session.
    #[error("the peer sent `{command}` {when}")]
    UnexpectedCommand {
        /// Command name.
        command: &'static str,
        /// The state in which it came.
        when: &'static str,
    },
    /// `connect` or `publish` lacks its name.
    #[error("the peer sent `{command}` without a {field}")]
    MissingField {
        /// Command name.
        command: &'static str,
        /// Missing field.
        field: &'static str,
    },
    /// The peer wants to watch; this side only takes publishers.
    #[error("the peer asked to play a stream; only publishing is served")]
    PlayRequested,
    /// More messages in one input than any publisher has reason to send.
    #[error("the peer flooded the session with more than {limit} messages at once")]
    TooManyEvents {
        /// [`crate::Limits::max_pending_events`].
        limit: usize,
    },
    /// The peer keeps asking without reading the answers.
    #[error("the peer does not read what it is sent: {bytes} bytes are waiting")]
    OutputNotRead {
        /// Bytes waiting.
        bytes: usize,
    },
}
