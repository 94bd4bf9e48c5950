//! RTMP on a socket: one task a connection around the sans-IO session of sigma-rtmp.
//!
//! Invariants: connections are bounded and the excess is closed and counted; a connection that does not publish, or
//! stops sending, is closed; whatever bytes arrive, this connection alone is affected. Stream keys are not logged.

use super::Ingest;
use crate::channel::Channels;
use crate::config::RtmpConfig;
use crate::metrics::{Metrics, RtmpEnd};
use bytes::BytesMut;
use sigma_http::drain::Drain;
use sigma_http::listener::set_socket_options;
use sigma_media::codec::{AacConfig, AvcConfig, CodecError};
use sigma_rtmp::flv::{AudioTag, FlvError, VideoTag};
use sigma_rtmp::{Limits, Refusal, ServerEvent, ServerSession, SessionError};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;

/// No encoder presents a picture this long after it is decoded, milliseconds.
const COMPOSITION_MS_MAX: u32 = 5000;

/// Why a connection ended, other than by the publisher's own wish.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("{0}")]
    Protocol(#[from] SessionError),
    #[error("{0}")]
    Tag(#[from] FlvError),
    #[error("{0}")]
    Codec(#[from] CodecError),
    #[error("refused: {0}")]
    Refused(#[from] super::PublishRefused),
    #[error("application `{0}` is not known here")]
    UnknownApp(String),
    #[error("did not begin to publish in time")]
    NoPublish,
    #[error("sent no media for too long")]
    Idle,
    #[error("{0}")]
    Socket(#[from] std::io::Error),
}

impl Ended {
    fn label(&self) -> RtmpEnd {
        match self {
            Self::Protocol(_) => RtmpEnd::Protocol,
            Self::Tag(_) | Self::Codec(_) => RtmpEnd::Media,
            Self::Refused(_) | Self::UnknownApp(_) => RtmpEnd::Refused,
            Self::NoPublish | Self::Idle => RtmpEnd::Timeout,
            Self::Socket(_) => RtmpEnd::Socket,
        }
    }
}

/// Everything a connection needs.
pub(crate) struct RtmpServer {
    pub(crate) config: RtmpConfig,
    pub(crate) channels: Arc<Channels>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) drain: Drain,
}

impl RtmpServer {
    /// Accepts publishers until the origin drains.
    pub(crate) async fn serve(self: Arc<Self>, listener: TcpListener, places: Arc<Semaphore>) {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.drain.started() => return,
            };
            let (socket, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "accepting an RTMP connection failed");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                self.metrics.rtmp_ended(RtmpEnd::Full);
                continue;
            };
            let server = Arc::clone(&self);
            tokio::spawn(async move {
                server.metrics.rtmp_connections.inc();
                let outcome = tokio::select! {
                    outcome = Connection::new(&server, peer).run(socket) => outcome,
                    () = server.drain.started() => Ok(()),
                };
                server.metrics.rtmp_connections.dec();
                match outcome {
                    Ok(()) => server.metrics.rtmp_ended(RtmpEnd::Publisher),
                    Err(error) => {
                        server.metrics.rtmp_ended(error.label());
                        tracing::warn!(%peer, "RTMP connection closed: {error}");
                    }
                }
                drop(place);
            });
        }
    }
}

struct Connection<'a> {
    server: &'a RtmpServer,
    peer: SocketAddr,
    session: ServerSession,
    app: String,
    publisher: Option<mpsc::Sender<Ingest>>,
    video: Option<AvcConfig>,
    has_audio: bool,
    /// When media last came; what else is sent does not keep the channel's place.
    last_media: Instant,
}

impl<'a> Connection<'a> {
    fn new(server: &'a RtmpServer, peer: SocketAddr) -> Self {
        let session = ServerSession::new(Limits::default());
        Self {
            server,
            peer,
            session,
            app: String::new(),
            publisher: None,
            video: None,
            has_audio: false,
            last_media: Instant::now(),
        }
    }

    async fn run(mut self, mut socket: TcpStream) -> Result<(), Ended> {
        let config = &self.server.config;
        set_socket_options(&socket, Duration::from_millis(config.idle_timeout_ms))?;
        let publish_by = Instant::now() + Duration::from_millis(config.publish_timeout_ms);
        let mut chunk = BytesMut::with_capacity(64 * 1024);
        loop {
            chunk.clear();
            let deadline = match self.publisher {
                None => publish_by,
                Some(_) => self.last_media + Duration::from_millis(config.idle_timeout_ms),
            };
            match tokio::time::timeout_at(deadline, socket.read_buf(&mut chunk)).await {
                Ok(Ok(0)) => return Ok(()),
                Ok(Ok(read)) => self.server.metrics.rtmp_bytes.inc_by(read as u64),
                Ok(Err(error)) => return Err(error.into()),
                Err(_) if self.publisher.is_none() => return Err(Ended::NoPublish),
                Err(_) => return Err(Ended::Idle),
            };
            let parsed = self.session.handle_input(&chunk);
            let handled = self.handle_events().await;
            // What the encoder is told, it is told whatever comes next.
            while let Some(bytes) = self.session.poll_output() {
                tokio::time::timeout_at(deadline, socket.write_all(&bytes))
                    .await
                    .map_err(|_| Ended::Idle)??;
            }
            parsed?;
            if handled? || self.session.is_over() {
                let _ = socket.shutdown().await;
                return Ok(());
            }
        }
    }

    /// Handles what the session has found; true when the publisher is done.
    async fn handle_events(&mut self) -> Result<bool, Ended> {
        while let Some(event) = self.session.poll_event() {
            match event {
                ServerEvent::Connected { app, flash_ver, .. } => {
                    tracing::debug!(peer = %self.peer, app, ?flash_ver, "RTMP connected");
                    self.app = app;
                }
                ServerEvent::PublishRequested { stream_name, .. } => self.decide(&stream_name)?,
                ServerEvent::Metadata(metadata) => {
                    tracing::debug!(peer = %self.peer, ?metadata, "publisher's metadata");
                    if let Some(rate) = metadata.frame_rate {
                        self.send(Ingest::FrameRate(rate)).await?;
                    }
                }
                ServerEvent::Video { timestamp_ms, payload } => {
                    let tag = VideoTag::parse(payload)?;
                    self.video(timestamp_ms, tag).await?;
                }
                ServerEvent::Audio { timestamp_ms, payload } => {
                    let tag = AudioTag::parse(payload)?;
                    self.audio(timestamp_ms, tag).await?;
                }
                ServerEvent::Unpublished => return Ok(true),
            }
        }
        Ok(false)
    }

    fn decide(&mut self, key: &str) -> Result<(), Ended> {
        if self.app.trim_end_matches('/') != self.server.config.app {
            self.session.reject_publish(Refusal::Denied, "unknown application");
            return Err(Ended::UnknownApp(self.app.clone()));
        }
        match self.server.channels.publish(key, format!("RTMP {}", self.peer)) {
            Ok(publisher) => {
                self.session.accept_publish();
                self.last_media = Instant::now();
                self.publisher = Some(publisher);
                Ok(())
            }
            Err(refused) => {
                let refusal = match refused {
                    super::PublishRefused::UnknownKey => Refusal::Denied,
                    super::PublishRefused::Busy => Refusal::AlreadyPublishing,
                    super::PublishRefused::Closing => Refusal::Unavailable,
                };
                self.session.reject_publish(refusal, &refused.to_string());
                Err(refused.into())
            }
        }
    }

    async fn video(&mut self, timestamp_ms: u32, tag: VideoTag) -> Result<(), Ended> {
        match tag {
            VideoTag::AvcSequenceHeader(record) => {
                let config = AvcConfig::parse(&record)?;
                self.video = Some(config.clone());
                self.send(Ingest::VideoConfig(Box::new(config))).await
            }
            VideoTag::AvcNalUnits { composition_time_ms, data, .. } => {
                let Some(config) = &self.video else {
                    self.server.metrics.samples_dropped_unconfigured.inc();
                    return Ok(());
                };
                if composition_time_ms.unsigned_abs() > COMPOSITION_MS_MAX {
                    self.server.metrics.samples_dropped_broken.inc();
                    return Ok(());
                }
                // A single broken access unit is dropped, as a decoder would; the stream goes on.
                match config.access_unit(data) {
                    Ok(unit) => {
                        self.send(Ingest::Video { timestamp_ms, composition_ms: composition_time_ms, unit })
                            .await
                    }
                    Err(error) => {
                        self.server.metrics.samples_dropped_broken.inc();
                        tracing::debug!(peer = %self.peer, "{error}");
                        Ok(())
                    }
                }
            }
            VideoTag::AvcEndOfSequence | VideoTag::CommandFrame => Ok(()),
        }
    }

    async fn audio(&mut self, timestamp_ms: u32, tag: AudioTag) -> Result<(), Ended> {
        match tag {
            AudioTag::AacSequenceHeader(asc) => {
                let config = AacConfig::parse(asc)?;
                self.has_audio = true;
                self.send(Ingest::AudioConfig(config)).await
            }
            AudioTag::AacRaw(data) if self.has_audio && !data.is_empty() => {
                self.send(Ingest::Audio { timestamp_ms, data }).await
            }
            AudioTag::AacRaw(_) => {
                self.server.metrics.samples_dropped_unconfigured.inc();
                Ok(())
            }
            AudioTag::AacEndOfSequence | AudioTag::ChannelLayout => Ok(()),
        }
    }

    async fn send(&mut self, event: Ingest) -> Result<(), Ended> {
        self.last_media = Instant::now();
        match &self.publisher {
            Some(publisher) => publisher.send(event).await.map_err(|_| super::PublishRefused::Closing.into()),
            None => Ok(()),
        }
    }
}
