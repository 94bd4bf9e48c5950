//! One RTMP connection that publishes.

use super::PublishError;
use super::target::Target;
use bytes::Bytes;
use sigma_rtmp::amf0;
use sigma_rtmp::flv::{FlvTag, TagKind};
use sigma_rtmp::{ClientConfig, ClientEvent, ClientSession, Metadata, RtmpUrl};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// For connecting, and for the server's answer to it.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// See the module.
pub(crate) struct Connection {
    socket: TcpStream,
    session: ClientSession,
    buffer: Vec<u8>,
    pub(crate) bytes: u64,
}

/// The addresses of a server, if it may be sent to.
///
/// # Errors
/// There is no such name, or it is another machine and that was not allowed.
pub(crate) async fn resolve(
    target: &Target,
    allow_remote: bool,
) -> Result<Vec<std::net::SocketAddr>, PublishError> {
    let failed = |error| PublishError::Connect { server: target.server(), error };
    let found = tokio::net::lookup_host((target.host(), target.port())).await.map_err(failed)?;
    let addresses: Vec<_> = found.collect();
    if !allow_remote && !addresses.iter().all(|address| address.ip().is_loopback()) {
        return Err(PublishError::NotLoopback { host: target.host().to_owned() });
    }
    Ok(addresses)
}

impl Connection {
    /// Connects and waits until the server wants media.
    pub(crate) async fn open(
        target: &Target,
        url: &RtmpUrl,
        allow_remote: bool,
    ) -> Result<Self, PublishError> {
        let failed = |error| PublishError::Connect { server: target.server(), error };
        let connect = async {
            let addresses = resolve(target, allow_remote).await?;
            let socket = TcpStream::connect(&addresses[..]).await.map_err(failed)?;
            socket.set_nodelay(true).map_err(failed)?;
            let mut connection = Self {
                socket,
                session: ClientSession::new(ClientConfig::from(url.clone())),
                buffer: vec![0; 16 << 10],
                bytes: 0,
            };
            connection.until_ready().await?;
            Ok(connection)
        };
        tokio::time::timeout(ANSWER_TIMEOUT, connect).await.map_err(|_| PublishError::NoAnswer)?
    }

    async fn until_ready(&mut self) -> Result<(), PublishError> {
        loop {
            self.flush().await?;
            if self.receive().await? {
                return self.flush().await;
            }
        }
    }

    pub(crate) async fn flush(&mut self) -> Result<(), PublishError> {
        while let Some(output) = self.session.poll_output() {
            self.bytes += output.len() as u64;
            self.socket.write_all(&output).await.map_err(PublishError::Lost)?;
        }
        Ok(())
    }

    /// Takes what the server says; true once it is ready for media. Safe to cancel.
    pub(crate) async fn receive(&mut self) -> Result<bool, PublishError> {
        let read = self.socket.read(&mut self.buffer).await.map_err(PublishError::Lost)?;
        if read == 0 {
            return Err(PublishError::Closed);
        }
        self.session.handle_input(&self.buffer[..read])?;
        let mut ready = false;
        while let Some(event) = self.session.poll_event() {
            match event {
                ClientEvent::Connected => {}
                ClientEvent::ReadyToPublish => ready = true,
                ClientEvent::Refused { code, description } => {
                    return Err(PublishError::Refused { code, description });
                }
            }
        }
        Ok(ready)
    }

    /// Puts a tag into what is flushed next.
    pub(crate) fn send(&mut self, tag: &FlvTag, at_ms: u64) -> Result<(), PublishError> {
        // RTMP timestamps wrap at 2^32 ms.
        let timestamp_ms = (at_ms & u64::from(u32::MAX)) as u32;
        let payload = tag.payload.clone();
        match tag.kind {
            TagKind::Video => self.session.send_video(timestamp_ms, payload)?,
            TagKind::Audio => self.session.send_audio(timestamp_ms, payload)?,
            TagKind::Script => {
                if let Some(metadata) = metadata(&payload) {
                    self.session.send_metadata(&metadata)?;
                }
            }
        }
        Ok(())
    }

    /// Says that this was all.
    pub(crate) async fn finish(&mut self) -> Result<(), PublishError> {
        self.session.finish();
        match tokio::time::timeout(ANSWER_TIMEOUT, self.flush()).await {
            Ok(flushed) => flushed,
            Err(_) => Err(PublishError::NoAnswer),
        }
    }
}

/// `onMetaData` of the input, as far as it is passed on.
fn metadata(payload: &Bytes) -> Option<Metadata> {
    let mut values = amf0::Decoder::new(payload);
    if values.next_value().ok()??.as_str() != Some("onMetaData") {
        return None;
    }
    let object = values.next_value().ok()??;
    let number = |key: &str| object.get(key).and_then(amf0::Value::as_number).filter(|n| n.is_finite());
    let pixels = |key: &str| number(key).filter(|n| (1.0..=65_535.0).contains(n)).map(|n| n as u32);
    Some(Metadata {
        encoder: Some("sigma-load".to_owned()),
        width: pixels("width"),
        height: pixels("height"),
        frame_rate: number("framerate"),
        video_kbps: number("videodatarate"),
        audio_kbps: number("audiodatarate"),
        ..Metadata::default()
    })
}
