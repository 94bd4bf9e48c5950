//! What both sides of a connection share: handshake, chunks, acknowledgements and protocol control messages.
//!
//! Only messages for the session above come out. Output is collected until it is polled.
#![deny(clippy::disallowed_methods)]

use bytes::{Bytes, BytesMut};

use crate::chunk::{ChunkReader, ChunkWriter};
use crate::handshake::{Handshake, Role};
use crate::message::{self, Message};
use crate::{Limits, SessionError};

/// Chunk streams by what they carry.
pub(crate) const CONTROL_CHUNKS: u8 = 2;
pub(crate) const COMMAND_CHUNKS: u8 = 3;
pub(crate) const AUDIO_CHUNKS: u8 = 4;
pub(crate) const STREAM_CHUNKS: u8 = 5;
pub(crate) const VIDEO_CHUNKS: u8 = 6;

/// Acknowledgement window in bytes: what is asked of the peer, and what it gets until it asks for another.
pub(crate) const ACK_WINDOW: u32 = 2_500_000;
/// A peer that asks for an acknowledgement of every byte gets them this far apart, in bytes.
const ACK_WINDOW_MIN: u32 = 4096;

#[derive(Debug)]
pub(crate) enum Incoming {
    /// The handshake is complete.
    Open,
    Message(Message),
}

#[derive(Debug)]
pub(crate) struct Link {
    limits: Limits,
    handshake: Option<Handshake>,
    reader: ChunkReader,
    writer: ChunkWriter,
    output: BytesMut,
    /// All bytes received, modulo 2^32 as the acknowledgement wants it.
    received: u32,
    unacknowledged: u32,
    ack_window: u32,
}

impl Link {
    pub(crate) fn new(role: Role, limits: Limits) -> Self {
        let mut output = BytesMut::new();
        Self {
            handshake: Some(Handshake::new(role, &mut output)),
            reader: ChunkReader::new(limits.clone()),
            writer: ChunkWriter::new(),
            output,
            received: 0,
            unacknowledged: 0,
            ack_window: ACK_WINDOW,
            limits,
        }
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Takes the next thing for the session from the front of `input`; `None` when it is used up.
    pub(crate) fn receive(&mut self, input: &mut &[u8]) -> Result<Option<Incoming>, SessionError> {
        self.check_output()?;
        let available = input.len();
        let received = self.next_incoming(input);
        let used = u32::try_from(available - input.len()).unwrap_or(u32::MAX);
        self.received = self.received.wrapping_add(used);
        self.unacknowledged = self.unacknowledged.saturating_add(used);
        if self.unacknowledged >= self.ack_window && self.handshake.is_none() {
            self.unacknowledged = 0;
            self.send_control(&Message::control_number(message::ACKNOWLEDGEMENT, self.received));
        }
        received
    }

    fn next_incoming(&mut self, input: &mut &[u8]) -> Result<Option<Incoming>, SessionError> {
        if let Some(handshake) = &mut self.handshake {
            if !handshake.advance(input, &mut self.output)? {
                return Ok(None);
            }
            self.handshake = None;
            return Ok(Some(Incoming::Open));
        }
        while let Some(message) = self.reader.next_message(input)? {
            if !self.handle_control(&message)? {
                return Ok(Some(Incoming::Message(message)));
            }
            self.check_output()?;
        }
        Ok(None)
    }

    fn check_output(&self) -> Result<(), SessionError> {
        let bytes = self.output.len();
        if bytes > self.limits.max_pending_output_bytes {
            return Err(SessionError::OutputNotRead { bytes });
        }
        Ok(())
    }

    /// True if the message concerned the connection itself.
    fn handle_control(&mut self, message: &Message) -> Result<bool, SessionError> {
        match message.type_id {
            message::SET_CHUNK_SIZE => self.reader.set_chunk_size(message.number()?)?,
            message::ABORT => self.reader.abort(message.number()?),
            message::WINDOW_ACK_SIZE => self.ack_window = message.number()?.max(ACK_WINDOW_MIN),
            message::USER_CONTROL => self.handle_user_control(message)?,
            message::ACKNOWLEDGEMENT | message::SET_PEER_BANDWIDTH => {
                message.number()?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn handle_user_control(&mut self, message: &Message) -> Result<(), SessionError> {
        let malformed = SessionError::MalformedControl { type_id: message.type_id };
        let Some((event, rest)) = message.payload.split_first_chunk::<2>() else {
            return Err(malformed);
        };
        if u16::from_be_bytes(*event) == message::PING_REQUEST {
            let time = rest.first_chunk::<4>().ok_or(malformed)?;
            self.send_control(&Message::user_control(message::PING_RESPONSE, u32::from_be_bytes(*time)));
        }
        Ok(())
    }

    pub(crate) fn send_control(&mut self, message: &Message) {
        self.send(CONTROL_CHUNKS, message);
    }

    pub(crate) fn send(&mut self, chunk_stream: u8, message: &Message) {
        self.writer.write(chunk_stream, message, &mut self.output);
    }

    /// Tells the peer the chunk size, then uses it.
    pub(crate) fn announce_chunk_size(&mut self, size: u32) {
        self.send_control(&Message::control_number(message::SET_CHUNK_SIZE, size));
        self.writer.set_chunk_size(size);
    }

    pub(crate) fn output_len(&self) -> usize {
        self.output.len()
    }

    pub(crate) fn poll_output(&mut self) -> Option<Bytes> {
        (!self.output.is_empty()).then(|| self.output.split().freeze())
    }
}
