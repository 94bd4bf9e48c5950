//! RTMP (Adobe specification 1.0) and FLV as sans-IO state machines.
//!
//! Bytes go in, events and bytes come out; sockets, tasks, time and logs belong to the caller. A session never panics
//! on any input, never allocates what a header merely claims, and gives the same events however the input is split.
//! Deliberately absent: playing streams, RTMPE, RTMPT, shared objects, AMF3 values (an AMF3 command whose values are
//! AMF0 is read), the digest handshake (its clients accept the plain answer).
#![deny(clippy::disallowed_methods)]

pub mod amf0;
mod chunk;
mod client;
mod command;
mod error;
pub mod flv;
mod handshake;
mod link;
mod message;
mod metadata;
mod server;
mod url;

pub use client::{ClientConfig, ClientError, ClientEvent, ClientSession};
pub use error::SessionError;
pub use metadata::Metadata;
pub use server::{Refusal, ServerEvent, ServerSession};
pub use url::{RtmpUrl, UrlError};

/// What one session may cost. Exceeding a limit ends the session with a [`SessionError`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Largest message in bytes, and the most that unfinished messages of all chunk streams may hold together.
    pub max_message_bytes: usize,
    /// Largest chunk size in bytes the peer may announce. Announcing one reserves nothing.
    pub max_chunk_size: usize,
    /// Most chunk streams the peer may open on one connection.
    pub max_chunk_streams: usize,
    /// Largest command message in bytes; larger metadata messages are skipped.
    pub max_command_bytes: usize,
    /// Most events waiting for `poll_event`. The default is out of reach for a publisher when the caller drains
    /// the events after every 64 KiB of input.
    pub max_pending_events: usize,
    /// Most bytes waiting for `poll_output` before more input is refused.
    pub max_pending_output_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_message_bytes: 8 << 20,
            max_chunk_size: 16 << 20,
            max_chunk_streams: 64,
            max_command_bytes: 64 << 10,
            max_pending_events: 8192,
            max_pending_output_bytes: 256 << 10,
        }
    }
}
