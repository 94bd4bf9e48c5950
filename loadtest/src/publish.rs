//! `sigma-load publish`: an FLV file or stream sent by RTMP in real time.
//!
//! Invariants: a tag leaves when it is due and not before; at most [`TAGS_AHEAD`] tags are read ahead; timestamps go on
//! across loops. Deliberately absent: transcoding, other containers, RTMPS, reconnecting (a broadcaster that loses its
//! server must see that).

use crate::loop_clock::LoopClock;
use bytes::Bytes;
use serde::Serialize;
use sigma_rtmp::amf0;
use sigma_rtmp::flv::{FlvError, FlvReader, FlvTag, TagKind};
use sigma_rtmp::{
    ClientConfig, ClientError, ClientEvent, ClientSession, Metadata, RtmpUrl, SessionError, UrlError,
};
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Tags read ahead of their time.
const TAGS_AHEAD: usize = 64;
/// Largest tag accepted, bytes: more than any frame of a camera.
const TAG_BYTES_MAX: usize = 8 << 20;
/// For connecting, and for the server's answer to it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The broadcast could not begin or go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PublishError {
    #[error("{0}")]
    Url(#[from] UrlError),
    #[error("rtmps is not supported, use rtmp")]
    Rtmps,
    #[error("{host} is not a loopback address; --allow-remote permits other targets")]
    NotLoopback { host: String },
    #[error("cannot connect to {server}: {error}")]
    Connect { server: String, error: std::io::Error },
    #[error("no answer from the server within {ANSWER_TIMEOUT:?}")]
    NoAnswer,
    #[error("refused by the server: {code} {description}")]
    Refused { code: String, description: String },
    #[error("the server closed the connection")]
    Closed,
    #[error("connection lost: {0}")]
    Lost(std::io::Error),
    #[error("the server breaks the protocol: {0}")]
    Protocol(#[from] SessionError),
    #[error("not sent: {0}")]
    Send(#[from] ClientError),
    #[error("{path}: {error}")]
    File { path: PathBuf, error: std::io::Error },
    #[error("the input is not usable: {0}")]
    Flv(#[from] FlvError),
    #[error("the input has no media that lasts, it cannot be looped")]
    NoLength,
}

/// What to send.
#[derive(Debug, Clone)]
pub(crate) struct Broadcast {
    pub(crate) url: String,
    /// `None`: standard input.
    pub(crate) file: Option<PathBuf>,
    pub(crate) repeat: bool,
    /// Ends after this time; `None`: with the input.
    pub(crate) duration: Option<Duration>,
    pub(crate) allow_remote: bool,
}

/// What was sent. Names are part of the outside.
#[derive(Debug, Default, Serialize)]
pub(crate) struct PublishReport {
    pub(crate) seconds: f64,
    pub(crate) video_tags: u64,
    pub(crate) audio_tags: u64,
    pub(crate) bytes: u64,
    /// How late a tag left at most: the server or the network did not keep up, or the input came late.
    pub(crate) late_max_ms: f64,
    /// The input came to its end, not the time.
    pub(crate) input_ended: bool,
}

impl fmt::Display for PublishReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "sent {:.1} s: {} video and {} audio tags, {} bytes, at most {:.1} ms late",
            self.seconds, self.video_tags, self.audio_tags, self.bytes, self.late_max_ms
        )
    }
}

/// A tag and when it is due.
struct Due {
    at_ms: u64,
    tag: FlvTag,
}

/// Sends until the input or the time ends, or `stop` resolves.
pub(crate) async fn run(
    broadcast: &Broadcast,
    stop: impl Future<Output = ()>,
) -> Result<PublishReport, PublishError> {
    let url = RtmpUrl::parse(&broadcast.url)?;
    let mut connection = Connection::open(&url, broadcast.allow_remote).await?;
    tokio::time::timeout(ANSWER_TIMEOUT, connection.until_ready())
        .await
        .map_err(|_| PublishError::NoAnswer)??;
    tracing::info!(server = %url.host, port = url.port, app = %url.app, "publishing");
    let (sender, tags) = mpsc::channel(TAGS_AHEAD);
    let reader = tokio::spawn(read(broadcast.file.clone(), broadcast.repeat, sender));
    let sent = connection.send_all(tags, broadcast.duration, stop).await;
    let mut report = match sent {
        Ok(report) => report,
        Err(error) => {
            reader.abort();
            return Err(error);
        }
    };
    if !report.input_ended {
        // It waits for a place in the queue, or for input, that nobody needs any more.
        reader.abort();
    } else if let Ok(read) = reader.await {
        read?;
    }
    report.bytes = connection.bytes;
    Ok(report)
}

struct Connection {
    socket: TcpStream,
    session: ClientSession,
    buffer: Vec<u8>,
    bytes: u64,
}

impl Connection {
    async fn open(url: &RtmpUrl, allow_remote: bool) -> Result<Self, PublishError> {
        if url.tls {
            return Err(PublishError::Rtmps);
        }
        let server = format!("{}:{}", url.host, url.port);
        let failed = |error| PublishError::Connect { server: server.clone(), error };
        let connect = async {
            let addresses: Vec<_> = tokio::net::lookup_host((url.host.as_str(), url.port)).await?.collect();
            if !allow_remote && !addresses.iter().all(|address| address.ip().is_loopback()) {
                return Ok(None);
            }
            TcpStream::connect(&addresses[..]).await.map(Some)
        };
        let socket = tokio::time::timeout(ANSWER_TIMEOUT, connect)
            .await
            .map_err(|_| PublishError::NoAnswer)?
            .map_err(failed)?
            .ok_or_else(|| PublishError::NotLoopback { host: url.host.clone() })?;
        socket.set_nodelay(true).map_err(failed)?;
        Ok(Self {
            socket,
            session: ClientSession::new(ClientConfig::from(url.clone())),
            buffer: vec![0; 16 << 10],
            bytes: 0,
        })
    }

    async fn until_ready(&mut self) -> Result<(), PublishError> {
        loop {
            self.flush().await?;
            if self.receive().await? {
                return self.flush().await;
            }
        }
    }

    async fn flush(&mut self) -> Result<(), PublishError> {
        while let Some(output) = self.session.poll_output() {
            self.bytes += output.len() as u64;
            self.socket.write_all(&output).await.map_err(PublishError::Lost)?;
        }
        Ok(())
    }

    /// Takes what the server says; true once it is ready for media. Safe to cancel.
    async fn receive(&mut self) -> Result<bool, PublishError> {
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

    async fn send_all(
        &mut self,
        mut tags: mpsc::Receiver<Due>,
        duration: Option<Duration>,
        stop: impl Future<Output = ()>,
    ) -> Result<PublishReport, PublishError> {
        let started = Instant::now();
        let over = async {
            match duration {
                Some(duration) => tokio::time::sleep(duration).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(stop, over);
        let mut report = PublishReport::default();
        let mut next: Option<Due> = None;
        loop {
            let due = started + Duration::from_millis(next.as_ref().map_or(0, |next| next.at_ms));
            tokio::select! {
                () = &mut stop => break,
                () = &mut over => break,
                received = self.receive() => { received?; }
                tag = tags.recv(), if next.is_none() => match tag {
                    Some(tag) => next = Some(tag),
                    None => {
                        report.input_ended = true;
                        break;
                    }
                },
                () = tokio::time::sleep_until(due), if next.is_some() => {
                    if let Some(tag) = next.take() {
                        let late = due.elapsed().as_secs_f64() * 1000.0;
                        report.late_max_ms = report.late_max_ms.max(late);
                        self.send(&tag, &mut report)?;
                    }
                }
            }
            self.flush().await?;
        }
        self.session.finish();
        self.flush().await?;
        report.seconds = started.elapsed().as_secs_f64();
        Ok(report)
    }

    fn send(&mut self, due: &Due, report: &mut PublishReport) -> Result<(), PublishError> {
        // RTMP timestamps wrap at 2^32 ms.
        let timestamp_ms = (due.at_ms & u64::from(u32::MAX)) as u32;
        let payload = due.tag.payload.clone();
        match due.tag.kind {
            TagKind::Video => {
                report.video_tags += 1;
                self.session.send_video(timestamp_ms, payload)?;
            }
            TagKind::Audio => {
                report.audio_tags += 1;
                self.session.send_audio(timestamp_ms, payload)?;
            }
            TagKind::Script => {
                if let Some(metadata) = metadata(&payload) {
                    self.session.send_metadata(&metadata)?;
                }
            }
        }
        Ok(())
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

/// Reads the input round after round and says when each tag is due.
async fn read(file: Option<PathBuf>, repeat: bool, tags: mpsc::Sender<Due>) -> Result<(), PublishError> {
    let mut clock = LoopClock::default();
    let Some(path) = file else {
        let from = Path::new("standard input");
        return round(tokio::io::stdin(), from, &mut clock, &tags).await.map(|_| ());
    };
    loop {
        let error = |error| PublishError::File { path: path.clone(), error };
        let input = tokio::fs::File::open(&path).await.map_err(error)?;
        let wanted = round(input, &path, &mut clock, &tags).await?;
        if !repeat || !wanted {
            return Ok(());
        }
        if !clock.rewind() {
            return Err(PublishError::NoLength);
        }
    }
}

/// One round through the input; false when nobody wants more.
async fn round(
    mut input: impl AsyncRead + Unpin,
    path: &Path,
    clock: &mut LoopClock,
    tags: &mpsc::Sender<Due>,
) -> Result<bool, PublishError> {
    let mut reader = FlvReader::new(TAG_BYTES_MAX);
    let mut buffer = vec![0; 64 << 10];
    loop {
        let error = |error| PublishError::File { path: path.to_owned(), error };
        let read = input.read(&mut buffer).await.map_err(error)?;
        if read == 0 {
            return Ok(true);
        }
        reader.push(&buffer[..read]);
        while let Some(tag) = reader.next_tag()? {
            let track = match tag.kind {
                TagKind::Video => 0,
                TagKind::Audio => 1,
                TagKind::Script => 2,
            };
            let at_ms = clock.due_ms(track, tag.timestamp_ms);
            if tags.send(Due { at_ms, tag }).await.is_err() {
                return Ok(false);
            }
        }
    }
}

#[cfg(test)]
mod tests;
