//! What the server session tells its caller, and the words with which the caller refuses.
#![deny(clippy::disallowed_methods)]

use bytes::Bytes;

use crate::Metadata;

/// What a publisher did.
#[derive(Debug, Clone, PartialEq)]
pub enum ServerEvent {
    /// The publisher named the application; it has been answered.
    Connected {
        /// Application, without a slash at its end.
        app: String,
        /// The URL the publisher used, if it said so.
        tc_url: Option<String>,
        /// Name and version of the publishing program, if it said so.
        flash_ver: Option<String>,
    },
    /// The publisher wants to send a stream and waits for [`crate::ServerSession::accept_publish`] or
    /// [`crate::ServerSession::reject_publish`].
    PublishRequested {
        /// Application, without a slash at its end.
        app: String,
        /// Stream name up to `?`: the stream key. A secret.
        stream_name: String,
        /// What follows `?`, if there is one. May hold secrets.
        query: Option<String>,
    },
    /// What the publisher says about its stream.
    Metadata(Metadata),
    /// One video tag payload, never empty; read it with [`crate::flv::VideoTag::parse`].
    Video {
        /// Decoding time in milliseconds, wraps at 2^32.
        timestamp_ms: u32,
        /// FLV video tag payload.
        payload: Bytes,
    },
    /// One audio tag payload, never empty; read it with [`crate::flv::AudioTag::parse`].
    Audio {
        /// Time in milliseconds, wraps at 2^32.
        timestamp_ms: u32,
        /// FLV audio tag payload.
        payload: Bytes,
    },
    /// The publisher ended the stream. The connection stays; another publish may follow.
    Unpublished,
}

/// Why a publish is refused, as the code the publisher's program is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No stream has this name: `NetStream.Publish.BadName`.
    BadName,
    /// The name exists, but this publisher may not use it: `NetStream.Publish.Denied`.
    Denied,
    /// Somebody else publishes under this name: `NetStream.Publish.BadName`, as the specification has it.
    AlreadyPublishing,
    /// The server cannot take the stream now; a later attempt may succeed: `NetStream.Failed`.
    Unavailable,
}

impl Refusal {
    /// The status code on the wire.
    pub fn code(self) -> &'static str {
        match self {
            Self::BadName | Self::AlreadyPublishing => "NetStream.Publish.BadName",
            Self::Denied => "NetStream.Publish.Denied",
            Self::Unavailable => "NetStream.Failed",
        }
    }
}
