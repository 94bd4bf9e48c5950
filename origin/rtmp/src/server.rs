//! The server side of one connection that publishes one stream at a time.
//!
//! Invariants: every `PublishRequested` is followed by exactly one decision of the caller before another can come;
//! every accepted publish ends with one `Unpublished` or with the connection; media of another message stream than the
//! published one is never mixed in. Media that arrives before the decision is kept as events, so nothing of an eager
//! publisher is lost; refusing drops it.
#![deny(clippy::disallowed_methods)]

mod event;

use std::collections::VecDeque;

use bytes::Bytes;

use crate::amf0::Value;
use crate::command::{Command, status};
use crate::handshake::Role;
use crate::link::{ACK_WINDOW, COMMAND_CHUNKS, Incoming, Link};
use crate::message::{self, AggregateParts, Message};
use crate::{Limits, Metadata, SessionError};

pub use event::{Refusal, ServerEvent};

/// Chunk size of what the server sends, bytes: every answer fits into one chunk.
const OUT_CHUNK_SIZE: u32 = 4096;
/// "Dynamic" limit type of Set Peer Bandwidth.
const BANDWIDTH_DYNAMIC: u8 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Publish {
    None,
    /// Waiting for the caller's decision; `withdrawn` once the publisher no longer wants it.
    Requested {
        stream_id: u32,
        withdrawn: bool,
    },
    Accepted {
        stream_id: u32,
    },
    /// Refused: the connection is to be closed, input is ignored.
    Refused,
}

/// The server side of one connection. See the crate for what it leaves to its caller.
#[derive(Debug)]
pub struct ServerSession {
    link: Link,
    app: Option<String>,
    publish: Publish,
    last_stream_id: u32,
    events: VecDeque<ServerEvent>,
    failure: Option<SessionError>,
}

impl ServerSession {
    /// A session for a connection that has just been accepted.
    pub fn new(limits: Limits) -> Self {
        Self {
            link: Link::new(Role::Server, limits),
            app: None,
            publish: Publish::None,
            last_stream_id: 0,
            events: VecDeque::new(),
            failure: None,
        }
    }

    /// Takes bytes from the publisher. Drain [`Self::poll_event`] and [`Self::poll_output`] after every call and give
    /// at most 64 KiB at once.
    ///
    /// # Errors
    /// [`SessionError`] once the publisher broke the protocol or a limit, and from then on. Events and output from
    /// before can still be polled; the output may hold an explanation for the publisher. Then close the connection.
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

    /// The next thing the publisher did, in order.
    pub fn poll_event(&mut self) -> Option<ServerEvent> {
        self.events.pop_front()
    }

    /// Bytes for the publisher: everything there is, in order.
    pub fn poll_output(&mut self) -> Option<Bytes> {
        self.link.poll_output()
    }

    /// Lets the publisher send the stream it last asked for. Does nothing if no request waits for a decision.
    pub fn accept_publish(&mut self) {
        let Publish::Requested { stream_id, withdrawn } = self.publish else {
            return;
        };
        if withdrawn {
            self.publish = Publish::None;
            return;
        }
        self.publish = Publish::Accepted { stream_id };
        let code = "NetStream.Publish.Start";
        self.link.send_control(&Message::user_control(message::STREAM_BEGIN, stream_id));
        let ready = vec![status("status", code, "publishing", &[])];
        self.send_command(stream_id, Command::new("onFCPublish", 0.0, Value::Null, ready));
        self.send_command(stream_id, Command::on_status("status", code, "publishing"));
    }

    /// Refuses the waiting request, or ends the accepted publish, with a `description` shown to the person at the
    /// encoder. Media not polled yet is dropped and further input is ignored: flush [`Self::poll_output`], then
    /// close the connection.
    pub fn reject_publish(&mut self, refusal: Refusal, description: &str) {
        let stream_id = match self.publish {
            Publish::Requested { stream_id, .. } | Publish::Accepted { stream_id } => stream_id,
            Publish::None | Publish::Refused => return,
        };
        self.publish = Publish::Refused;
        self.events.clear();
        self.send_command(stream_id, Command::on_status("error", refusal.code(), description));
    }

    /// Whether only flushing the output and closing the connection is left.
    pub fn is_over(&self) -> bool {
        self.failure.is_some() || self.publish == Publish::Refused
    }

    fn handle_all(&mut self, input: &mut &[u8]) -> Result<(), SessionError> {
        while self.publish != Publish::Refused
            && let Some(incoming) = self.link.receive(input)?
        {
            if let Incoming::Message(message) = incoming {
                self.handle_message(message)?;
            }
        }
        Ok(())
    }

    fn handle_message(&mut self, message: Message) -> Result<(), SessionError> {
        match message.type_id {
            message::COMMAND_AMF0 | message::COMMAND_AMF3 => {
                let command = Command::decode(&message, self.link.limits())?;
                self.handle_command(&command, message.stream_id)
            }
            message::AGGREGATE => {
                let mut parts = AggregateParts::new(message);
                while let Some(part) = parts.next_part()? {
                    self.handle_media(part)?;
                }
                Ok(())
            }
            _ => self.handle_media(message),
        }
    }

    /// Anything that is not media of the current publish is ignored.
    fn handle_media(&mut self, message: Message) -> Result<(), SessionError> {
        let expected = match self.publish {
            Publish::Requested { stream_id, withdrawn: false } | Publish::Accepted { stream_id } => stream_id,
            _ => return Ok(()),
        };
        // Some encoders leave their media on message stream 0.
        if message.payload.is_empty() || (message.stream_id != expected && message.stream_id != 0) {
            return Ok(());
        }
        let Message { timestamp_ms, type_id, payload, .. } = message;
        match type_id {
            message::VIDEO => self.push_event(ServerEvent::Video { timestamp_ms, payload }),
            message::AUDIO => self.push_event(ServerEvent::Audio { timestamp_ms, payload }),
            message::DATA_AMF0 | message::DATA_AMF3 => {
                if payload.len() > self.link.limits().max_command_bytes {
                    return Ok(());
                }
                let message = Message { timestamp_ms, type_id, stream_id: expected, payload };
                match Metadata::from_amf0(message.amf0_bytes()) {
                    Some(metadata) => self.push_event(ServerEvent::Metadata(metadata)),
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }

    fn handle_command(&mut self, command: &Command, stream_id: u32) -> Result<(), SessionError> {
        match command.name.as_str() {
            "connect" => self.handle_connect(command),
            "createStream" => {
                self.last_stream_id = self.last_stream_id.wrapping_add(1).max(1);
                self.answer(command, Value::Number(f64::from(self.last_stream_id)));
                Ok(())
            }
            "releaseStream" | "FCPublish" | "_checkbw" => {
                self.answer(command, Value::Undefined);
                Ok(())
            }
            "publish" => self.handle_publish(command, stream_id),
            "FCUnpublish" => self.end_publish("onFCUnpublish"),
            "closeStream" => self.end_publish("onStatus"),
            "deleteStream" => match self.publish {
                // The argument names the stream; without one the only stream there is is meant.
                Publish::Accepted { stream_id: current } | Publish::Requested { stream_id: current, .. }
                    if command
                        .arguments
                        .first()
                        .and_then(Value::as_number)
                        .is_none_or(|id| id == f64::from(current)) =>
                {
                    self.end_publish("onStatus")
                }
                _ => Ok(()),
            },
            "play" | "play2" => {
                let description = "this server only takes publishers; watch over HTTP";
                self.send_command(
                    stream_id,
                    Command::on_status("error", "NetStream.Play.Failed", description),
                );
                Err(SessionError::PlayRequested)
            }
            // Answers to what the server never asked, and notices nobody waits an answer for.
            "_result" | "_error" | "onStatus" => Ok(()),
            _ => {
                if command.transaction != 0.0 {
                    let refusal = status("error", "NetConnection.Call.Failed", "unknown command", &[]);
                    let answer = Command::new("_error", command.transaction, Value::Null, vec![refusal]);
                    self.send_command(0, answer);
                }
                Ok(())
            }
        }
    }

    fn handle_connect(&mut self, command: &Command) -> Result<(), SessionError> {
        if self.app.is_some() {
            return Err(SessionError::UnexpectedCommand { command: "connect", when: "twice" });
        }
        let text = |key: &str| command.object.get(key).and_then(Value::as_str).map(str::to_owned);
        let Some(app) =
            text("app").map(|app| app.trim_end_matches('/').to_owned()).filter(|app| !app.is_empty())
        else {
            let refusal =
                status("error", "NetConnection.Connect.Rejected", "the URL names no application", &[]);
            self.send_command(0, Command::new("_error", command.transaction, Value::Null, vec![refusal]));
            return Err(SessionError::MissingField { command: "connect", field: "app" });
        };
        self.link.send_control(&Message::control_number(message::WINDOW_ACK_SIZE, ACK_WINDOW));
        let mut bandwidth = ACK_WINDOW.to_be_bytes().to_vec();
        bandwidth.push(BANDWIDTH_DYNAMIC);
        self.link.send_control(&Message::control(message::SET_PEER_BANDWIDTH, bandwidth));
        self.link.announce_chunk_size(OUT_CHUNK_SIZE);
        self.send_command(0, Command::connect_success(command.transaction));
        self.app = Some(app.clone());
        self.push_event(ServerEvent::Connected { app, tc_url: text("tcUrl"), flash_ver: text("flashVer") })
    }

    fn handle_publish(&mut self, command: &Command, stream_id: u32) -> Result<(), SessionError> {
        let unexpected = |when| SessionError::UnexpectedCommand { command: "publish", when };
        let app = self.app.clone().ok_or_else(|| unexpected("before `connect`"))?;
        match self.publish {
            Publish::None => {}
            Publish::Requested { .. } => {
                return Err(unexpected("before the previous `publish` was answered"));
            }
            Publish::Accepted { .. } | Publish::Refused => {
                let description = "this connection already publishes a stream";
                let code = Refusal::AlreadyPublishing.code();
                self.send_command(stream_id, Command::on_status("error", code, description));
                return Err(unexpected("while already publishing"));
            }
        }
        let Some(name) = command.text_argument(0) else {
            let description = "the URL names no stream key";
            let code = Refusal::BadName.code();
            self.send_command(stream_id, Command::on_status("error", code, description));
            return Err(SessionError::MissingField { command: "publish", field: "stream name" });
        };
        let (stream_name, query) = match name.split_once('?') {
            Some((stream_name, query)) => (stream_name, Some(query.to_owned())),
            None => (name, None),
        };
        self.publish = Publish::Requested { stream_id, withdrawn: false };
        self.push_event(ServerEvent::PublishRequested { app, stream_name: stream_name.to_owned(), query })
    }

    /// Ends the current publish, if there is one, and confirms it with the command `notice`.
    fn end_publish(&mut self, notice: &str) -> Result<(), SessionError> {
        let stream_id = match self.publish {
            Publish::Accepted { stream_id } => {
                self.publish = Publish::None;
                stream_id
            }
            Publish::Requested { stream_id, withdrawn: false } => {
                self.publish = Publish::Requested { stream_id, withdrawn: true };
                stream_id
            }
            _ => return Ok(()),
        };
        let outcome = vec![status("status", "NetStream.Unpublish.Success", "stream ended", &[])];
        self.send_command(stream_id, Command::new(notice, 0.0, Value::Null, outcome));
        self.push_event(ServerEvent::Unpublished)
    }

    fn push_event(&mut self, event: ServerEvent) -> Result<(), SessionError> {
        let limit = self.link.limits().max_pending_events;
        if self.events.len() >= limit {
            return Err(SessionError::TooManyEvents { limit });
        }
        self.events.push_back(event);
        Ok(())
    }

    fn answer(&mut self, command: &Command, argument: Value) {
        self.send_command(0, Command::new("_result", command.transaction, Value::Null, vec![argument]));
    }

    fn send_command(&mut self, stream_id: u32, command: Command) {
        self.link.send(COMMAND_CHUNKS, &command.into_message(stream_id));
    }
}

#[cfg(test)]
mod tests;
