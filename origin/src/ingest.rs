//! Publishers: whatever protocol they speak, they become a [`Session`] of [`Ingest`] events in their channel.
//!
//! Invariants: a channel has one session at a time; the queue between protocol and channel is bounded, and a full queue
//! is back-pressure on the publisher's connection (A1).

pub(crate) mod rtmp;
pub(crate) mod test_source;

use bytes::Bytes;
use sigma_media::codec::{AacConfig, AccessUnit, AvcConfig};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

/// Events that may wait for a channel: about half a second of audio and video.
pub(crate) const QUEUE_EVENTS: usize = 64;

/// What a publisher sends, taken apart.
#[derive(Debug)]
pub(crate) enum Ingest {
    /// Frames per second as stated outside the bitstream.
    FrameRate(f64),
    /// H.264 configuration.
    VideoConfig(Box<AvcConfig>),
    /// AAC configuration.
    AudioConfig(AacConfig),
    /// One picture; times in milliseconds of the publisher's clock.
    Video { timestamp_ms: u32, composition_ms: i32, unit: AccessUnit },
    /// One AAC frame.
    Audio { timestamp_ms: u32, data: Bytes },
}

/// One publisher connected to a channel. It has ended when its queue has.
#[derive(Debug)]
pub(crate) struct Session {
    /// What it sends.
    pub(crate) events: mpsc::Receiver<Ingest>,
    /// Who it is, for the log.
    pub(crate) publisher: String,
    /// The channel's one place for a publisher.
    pub(crate) _slot: OwnedSemaphorePermit,
}

/// Why nobody can publish now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PublishRefused {
    /// The publisher's to mend.
    #[error("unknown stream key")]
    UnknownKey,
    /// The other publisher goes on.
    #[error("another publisher is live on this channel")]
    Busy,
    /// The origin is about to stop: try again.
    #[error("the origin is shutting down")]
    Closing,
}
