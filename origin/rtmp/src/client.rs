//! The client side of one connection that publishes one stream.
//!
//! Invariant: media goes out only between `ReadyToPublish` and `finish`, and output never grows beyond its limit.
#![deny(clippy::disallowed_methods)]

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use crate::amf0::{self, Value};
use crate::command::Command;
use crate::handshake::Role;
use crate::link::{AUDIO_CHUNKS, COMMAND_CHUNKS, Incoming, Link, STREAM_CHUNKS, VIDEO_CHUNKS};
use crate::message::{self, Message};
use crate::{Limits, Metadata, RtmpUrl, SessionError};

/// Largest payload a message length field can say, bytes.
const PAYLOAD_BYTES_MAX: usize = 0xFF_FFFF;

const CONNECT: f64 = 1.0;
const CREATE_STREAM: f64 = 4.0;

/// What to publish where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientConfig {
    /// Address without the stream name.
    pub tc_url: String,
    /// Application.
    pub app: String,
    /// Stream name, the stream key, with its query. A secret.
    pub stream_name: String,
    /// How this program names itself to the server.
    pub flash_ver: String,
    /// Chunk size of what is sent, bytes, at least 1.
    pub chunk_size: u32,
    /// Most bytes waiting for `poll_output` before media is refused.
    pub max_pending_output_bytes: usize,
}

impl ClientConfig {
    /// With a chunk size of 4096 bytes and up to 16 MiB of output waiting.
    pub fn new(tc_url: impl Into<String>, app: impl Into<String>, stream_name: impl Into<String>) -> Self {
        Self {
            tc_url: tc_url.into(),
            app: app.into(),
            stream_name: stream_name.into(),
            flash_ver: concat!("FMLE/3.0 (compatible; sigma/", env!("CARGO_PKG_VERSION"), ")").to_owned(),
            chunk_size: 4096,
            max_pending_output_bytes: 16 << 20,
        }
    }
}

impl From<RtmpUrl> for ClientConfig {
    fn from(url: RtmpUrl) -> Self {
        Self::new(url.tc_url, url.app, url.stream_name)
    }
}

/// What the server did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientEvent {
    /// The server accepted the application.
    Connected,
    /// The server accepted the stream: media may be sent.
    ReadyToPublish,
    /// The server refused the connection or the stream, or ended it. Close the connection.
    Refused {
        /// Status code, as `NetStream.Publish.BadName`; empty if there was none.
        code: String,
        /// The server's words; empty if there were none.
        description: String,
    },
}

/// Why media was not taken. The caller is to blame, or a server that does not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// Before `ReadyToPublish` or after `finish`. Retry after that event.
    #[error("the stream is not open for media")]
    NotReady,
    /// The payload is longer than a message can be. A retry does not help.
    #[error("the payload of {bytes} bytes does not fit into a message")]
    PayloadTooLarge {
        /// Its length in bytes.
        bytes: usize,
    },
    /// Too much output waits. Retry once it has been written, or drop the media.
    #[error("{bytes} bytes of output wait to be written")]
    OutputFull {
        /// Bytes waiting.
        bytes: usize,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Connecting,
    CreatingStream,
    Requested { stream_id: u32 },
    Publishing { stream_id: u32 },
    Over,
}

/// The client side of one connection. Write its output from the beginning: it speaks first.
#[derive(Debug)]
pub struct ClientSession {
    config: ClientConfig,
    link: Link,
    state: State,
    events: VecDeque<ClientEvent>,
    failure: Option<SessionError>,
}

impl ClientSession {
    /// A session for a connection that has just been opened.
    pub fn new(config: ClientConfig) -> Self {
        let limits = Limits { max_pending_output_bytes: usize::MAX, ..Limits::default() };
        Self {
            config,
            link: Link::new(Role::Client, limits),
            state: State::Connecting,
            events: VecDeque::new(),
            failure: None,
        }
    }

    /// Takes bytes from the server. Drain [`Self::poll_event`] and [`Self::poll_output`] after every call.
    ///
    /// # Errors
    /// [`SessionError`] once the server broke the protocol or a limit, and from then on.
    pub fn handle_input(&mut self, mut input: &[u8]) -> Result<(), SessionError> {
        if let Some(failure) = &self.failure {
            return Err(failure.clone());
        }
        let outcome = self.handle_all(&mut input);
        if let Err(failure) = &outcome {
            self.failure = Some(failure.clone());
        }
        outcome
    }

    /// The next thing the server did, in order.
    pub fn poll_event(&mut self) -> Option<ClientEvent> {
        self.events.pop_front()
    }

    /// Bytes for the server: everything there is, in order.
    pub fn poll_output(&mut self) -> Option<Bytes> {
        self.link.poll_output()
    }

    /// Bytes waiting for [`Self::poll_output`].
    pub fn pending_output_bytes(&self) -> usize {
        self.link.output_len()
    }

    /// Sends one FLV video tag payload; `timestamp_ms` is its decoding time and wraps at 2^32.
    ///
    /// # Errors
    /// [`ClientError`]: nothing was sent.
    pub fn send_video(&mut self, timestamp_ms: u32, payload: Bytes) -> Result<(), ClientError> {
        self.send_media(VIDEO_CHUNKS, message::VIDEO, timestamp_ms, payload)
    }

    /// Sends one FLV audio tag payload; `timestamp_ms` wraps at 2^32.
    ///
    /// # Errors
    /// [`ClientError`]: nothing was sent.
    pub fn send_audio(&mut self, timestamp_ms: u32, payload: Bytes) -> Result<(), ClientError> {
        self.send_media(AUDIO_CHUNKS, message::AUDIO, timestamp_ms, payload)
    }

    /// Sends what is known about the stream, as `@setDataFrame`.
    ///
    /// # Errors
    /// [`ClientError`]: nothing was sent.
    pub fn send_metadata(&mut self, metadata: &Metadata) -> Result<(), ClientError> {
        let mut payload = BytesMut::new();
        let values = [Value::text("@setDataFrame"), Value::text("onMetaData"), metadata.to_amf0()];
        values.iter().for_each(|value| amf0::encode(value, &mut payload));
        self.send_media(STREAM_CHUNKS, message::DATA_AMF0, 0, payload.freeze())
    }

    /// Ends the stream: flush [`Self::poll_output`], then close the connection.
    pub fn finish(&mut self) {
        if let State::Publishing { stream_id } | State::Requested { stream_id } = self.state {
            let name = Value::String(self.config.stream_name.clone());
            self.send_command(0, Command::new("FCUnpublish", 0.0, Value::Null, vec![name]));
            let stream = Value::Number(f64::from(stream_id));
            self.send_command(0, Command::new("deleteStream", 0.0, Value::Null, vec![stream]));
        }
        self.state = State::Over;
    }

    fn send_media(
        &mut self,
        chunk_stream: u8,
        type_id: u8,
        timestamp_ms: u32,
        payload: Bytes,
    ) -> Result<(), ClientError> {
        let State::Publishing { stream_id } = self.state else {
            return Err(ClientError::NotReady);
        };
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(ClientError::PayloadTooLarge { bytes: payload.len() });
        }
        let bytes = self.link.output_len();
        if bytes > 0 && bytes + payload.len() > self.config.max_pending_output_bytes {
            return Err(ClientError::OutputFull { bytes });
        }
        self.link.send(chunk_stream, &Message { timestamp_ms, type_id, stream_id, payload });
        Ok(())
    }

    fn handle_all(&mut self, input: &mut &[u8]) -> Result<(), SessionError> {
        while let Some(incoming) = self.link.receive(input)? {
            match incoming {
                Incoming::Open => self.connect(),
                Incoming::Message(message)
                    if matches!(message.type_id, message::COMMAND_AMF0 | message::COMMAND_AMF3) =>
                {
                    let command = Command::decode(&message, self.link.limits())?;
                    self.handle_command(&command);
                }
                Incoming::Message(_) => {}
            }
        }
        Ok(())
    }

    fn connect(&mut self) {
        self.link.announce_chunk_size(self.config.chunk_size.max(1));
        let field = |key: &str, value: &str| (key.to_owned(), Value::text(value));
        let object = Value::Object(vec![
            field("app", &self.config.app),
            field("type", "nonprivate"),
            field("flashVer", &self.config.flash_ver),
            field("tcUrl", &self.config.tc_url),
        ]);
        self.send_command(0, Command::new("connect", CONNECT, object, Vec::new()));
    }

    fn handle_command(&mut self, command: &Command) {
        match (command.name.as_str(), self.state) {
            (_, State::Over) => {}
            ("_result", State::Connecting) if command.transaction == CONNECT => {
                self.state = State::CreatingStream;
                self.events.push_back(ClientEvent::Connected);
                let name = Value::String(self.config.stream_name.clone());
                for (transaction, command) in [(2.0, "releaseStream"), (3.0, "FCPublish")] {
                    self.send_command(0, Command::new(command, transaction, Value::Null, vec![name.clone()]));
                }
                self.send_command(0, Command::new("createStream", CREATE_STREAM, Value::Null, Vec::new()));
            }
            ("_result", State::CreatingStream) if command.transaction == CREATE_STREAM => {
                self.publish(command);
            }
            ("_error", State::Connecting) if command.transaction == CONNECT => self.refuse(command),
            ("_error", State::CreatingStream) if command.transaction == CREATE_STREAM => self.refuse(command),
            ("onStatus", _) if status_text(command, "level") == "error" => self.refuse(command),
            ("onStatus", State::Requested { stream_id })
                if status_text(command, "code") == "NetStream.Publish.Start" =>
            {
                self.state = State::Publishing { stream_id };
                self.events.push_back(ClientEvent::ReadyToPublish);
            }
            _ => {}
        }
    }

    /// An absurd stream id saturates.
    fn publish(&mut self, created: &Command) {
        let stream_id = created.arguments.first().and_then(Value::as_number).map_or(1, |id| id as u32);
        self.state = State::Requested { stream_id };
        let arguments = vec![Value::String(self.config.stream_name.clone()), Value::text("live")];
        self.send_command(stream_id, Command::new("publish", 5.0, Value::Null, arguments));
    }

    fn refuse(&mut self, command: &Command) {
        self.state = State::Over;
        let (code, description) = (status_text(command, "code"), status_text(command, "description"));
        let (code, description) = (code.to_owned(), description.to_owned());
        self.events.push_back(ClientEvent::Refused { code, description });
    }

    fn send_command(&mut self, stream_id: u32, command: Command) {
        self.link.send(COMMAND_CHUNKS, &command.into_message(stream_id));
    }
}

fn status_text<'a>(command: &'a Command, key: &str) -> &'a str {
    command.arguments.first().and_then(|status| status.get(key)).and_then(Value::as_str).unwrap_or_default()
}

#[cfg(test)]
mod tests;
