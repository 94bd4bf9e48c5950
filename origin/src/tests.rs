//! The origin on real sockets, from an RTMP publisher to a viewer's bytes. Media time is not real time here: a
//! publisher sends as fast as it is read, so nothing sleeps.

mod dvr;
mod garbage;
mod metadata;
mod metrics;
mod places;
mod policy;
mod publish;
mod stats;
mod viewer;

use crate::app::{self, Running};
use crate::config::Config;
use bytes::Bytes;
use sigma_http::handover::Sockets;
use sigma_rtmp::flv::{AudioTag, VideoTag};
use sigma_rtmp::{ClientConfig, ClientEvent, ClientSession};
use std::net::SocketAddr;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

/// Nothing in a test takes this long unless it is broken.
const BOUND: Duration = Duration::from_secs(20);

/// 1280x720, 30 frames per second.
const AVCC: &[u8] = &[
    0x01, 0x4d, 0x40, 0x1f, 0xff, 0xe1, 0x00, 0x17, 0x67, 0x4d, 0x40, 0x1f, 0xda, 0x01, 0x40, 0x16, 0xec,
    0x04, 0x40, 0x00, 0x00, 0x03, 0x00, 0x40, 0x00, 0x00, 0x0f, 0x23, 0xc6, 0x0c, 0xa8, 0x01, 0x00, 0x04,
    0x68, 0xef, 0x0f, 0xc8,
];
const ASC: &[u8] = &[0x11, 0x90];

pub(crate) struct Origin {
    pub(crate) running: Running,
    data: TempDir,
}

/// An origin with a forward channel `one` (key `key-of-one`) and 200 ms parts.
pub(crate) async fn origin(more: &str) -> Origin {
    let data = tempfile::tempdir().expect("a folder");
    let running = start(data.path(), more, "").await;
    Origin { running, data }
}

/// The same, on a folder that may have been used before, with more to say of the channel.
async fn start(data: &std::path::Path, more: &str, channel: &str) -> Running {
    let file = format!(
        "data_dir = {data:?}\n[http]\nbind = [\"127.0.0.1:0\"]\n[ops]\nbind = \"127.0.0.1:0\"\n{more}\n\
         [[channels]]\nid = \"one\"\ntype = \"forward\"\nkey = \"key-of-one\"\npart_target_ms = 200\n{channel}\n",
    );
    let file = if file.contains("[rtmp]") {
        file
    } else {
        file.replace("[ops]", "[rtmp]\nbind = [\"127.0.0.1:0\"]\n[ops]")
    };
    let config: Config = sigma_http::config::parse(&file).expect("valid");
    app::start(&config, &Sockets::none()).await.expect("started")
}

impl Origin {
    pub(crate) fn folder(&self) -> &std::path::Path {
        self.data.path()
    }

    pub(crate) fn http(&self) -> SocketAddr {
        self.running.http[0]
    }

    fn rtmp(&self) -> SocketAddr {
        self.running.rtmp[0]
    }
}

/// A publisher on a socket of its own.
struct Publisher {
    socket: TcpStream,
    session: ClientSession,
    frame: u32,
    audio: u32,
}

impl Publisher {
    /// Connects and asks to publish; `Err` is the refusal's code and description.
    async fn connect(origin: &Origin, key: &str) -> Result<Self, (String, String)> {
        let socket = TcpStream::connect(origin.rtmp()).await.expect("connected");
        let config = ClientConfig::new("rtmp://127.0.0.1/live", "live", key);
        let mut publisher = Self { socket, session: ClientSession::new(config), frame: 0, audio: 0 };
        loop {
            publisher.flush().await;
            while let Some(event) = publisher.session.poll_event() {
                match event {
                    ClientEvent::ReadyToPublish => {
                        publisher.configure().await;
                        return Ok(publisher);
                    }
                    ClientEvent::Refused { code, description } => return Err((code, description)),
                    ClientEvent::Connected => {}
                }
            }
            publisher.hear().await;
        }
    }

    async fn hear(&mut self) {
        let mut chunk = [0; 4096];
        let read =
            tokio::time::timeout(BOUND, self.socket.read(&mut chunk)).await.expect("in time").expect("read");
        assert!(read > 0, "closed without an answer");
        self.session.handle_input(&chunk[..read]).expect("understood");
    }

    async fn configure(&mut self) {
        let video = VideoTag::AvcSequenceHeader(Bytes::from_static(AVCC));
        let audio = AudioTag::AacSequenceHeader(Bytes::from_static(ASC));
        self.session.send_video(0, video.to_payload()).expect("queued");
        self.session.send_audio(0, audio.to_payload()).expect("queued");
        self.flush().await;
    }

    /// Sends pictures at 30 per second with a keyframe every 60, and the audio to them.
    async fn frames(&mut self, count: u32) {
        for _ in 0..count {
            let now_ms = self.frame * 1000 / 30;
            let keyframe = self.frame.is_multiple_of(60);
            let picture = format!("picture {}", self.frame);
            let mut data = u32::try_from(picture.len() + 1).expect("short").to_be_bytes().to_vec();
            data.push(if keyframe { 0x65 } else { 0x41 });
            data.extend(picture.as_bytes());
            let tag = VideoTag::AvcNalUnits { composition_time_ms: 0, keyframe, data: data.into() };
            self.session.send_video(now_ms, tag.to_payload()).expect("queued");
            while self.audio * 1024 / 48 <= now_ms {
                let tag = AudioTag::AacRaw(Bytes::from(format!("audio {}", self.audio)));
                self.session.send_audio(self.audio * 1024 / 48, tag.to_payload()).expect("queued");
                self.audio += 1;
            }
            self.frame += 1;
            self.flush().await;
        }
    }

    async fn flush(&mut self) {
        while let Some(bytes) = self.session.poll_output() {
            self.socket.write_all(&bytes).await.expect("sent");
        }
    }
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

async fn request(origin: &Origin, method: &str, path: &str, more: &str) -> Answer {
    ask(origin.http(), method, path, more).await
}

/// `more` are further header lines, and after an empty one the body.
pub(crate) async fn ask(at: SocketAddr, method: &str, path: &str, more: &str) -> Answer {
    exchange(TcpStream::connect(at).await.expect("connected"), method, path, more).await
}

async fn exchange<S>(mut socket: S, method: &str, path: &str, more: &str) -> Answer
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let end = if more.contains("\r\n\r\n") { "" } else { "\r\n" };
    let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{more}{end}");
    socket.write_all(head.as_bytes()).await.expect("sent");
    let mut raw = Vec::new();
    tokio::time::timeout(BOUND, socket.read_to_end(&mut raw)).await.expect("in time").expect("read");
    let split = raw.windows(4).position(|w| w == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8(raw[..split].to_vec()).expect("text");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Answer { status, head, body: raw[split + 4..].to_vec() }
}

async fn get(origin: &Origin, path: &str) -> Answer {
    request(origin, "GET", path, "").await
}

/// Asks until the answer is a 200: the publisher's bytes are on their way through another task.
async fn eventually(origin: &Origin, path: &str) -> Answer {
    let asking = async {
        loop {
            let answer = get(origin, path).await;
            if answer.status == 200 {
                return answer;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(BOUND, asking).await.expect("in time")
}
