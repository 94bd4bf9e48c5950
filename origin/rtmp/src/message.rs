//! RTMP messages: type ids, protocol control payloads, and aggregates taken apart.
#![deny(clippy::disallowed_methods)]

use bytes::{BufMut, Bytes, BytesMut};

use crate::SessionError;

pub(crate) const SET_CHUNK_SIZE: u8 = 1;
pub(crate) const ABORT: u8 = 2;
pub(crate) const ACKNOWLEDGEMENT: u8 = 3;
pub(crate) const USER_CONTROL: u8 = 4;
pub(crate) const WINDOW_ACK_SIZE: u8 = 5;
pub(crate) const SET_PEER_BANDWIDTH: u8 = 6;
pub(crate) const AUDIO: u8 = 8;
pub(crate) const VIDEO: u8 = 9;
pub(crate) const DATA_AMF3: u8 = 15;
pub(crate) const COMMAND_AMF3: u8 = 17;
pub(crate) const DATA_AMF0: u8 = 18;
pub(crate) const COMMAND_AMF0: u8 = 20;
pub(crate) const AGGREGATE: u8 = 22;

pub(crate) const STREAM_BEGIN: u16 = 0;
pub(crate) const PING_REQUEST: u16 = 6;
pub(crate) const PING_RESPONSE: u16 = 7;

/// One message, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) timestamp_ms: u32,
    pub(crate) type_id: u8,
    pub(crate) stream_id: u32,
    pub(crate) payload: Bytes,
}

impl Message {
    /// A protocol control message: message stream 0, time 0.
    pub(crate) fn control(type_id: u8, payload: impl Into<Bytes>) -> Self {
        Self { timestamp_ms: 0, type_id, stream_id: 0, payload: payload.into() }
    }

    /// A control message whose payload is one number.
    pub(crate) fn control_number(type_id: u8, number: u32) -> Self {
        Self::control(type_id, number.to_be_bytes().to_vec())
    }

    /// A user control message with one number.
    pub(crate) fn user_control(event: u16, number: u32) -> Self {
        let mut payload = BytesMut::with_capacity(6);
        payload.put_u16(event);
        payload.put_u32(number);
        Self::control(USER_CONTROL, payload)
    }

    /// The number that makes up a control message.
    pub(crate) fn number(&self) -> Result<u32, SessionError> {
        let bytes = self.payload.first_chunk::<4>();
        bytes
            .map(|bytes| u32::from_be_bytes(*bytes))
            .ok_or(SessionError::MalformedControl { type_id: self.type_id })
    }

    /// The AMF0 bytes of a command or data message: the AMF3 kinds begin with a format byte.
    pub(crate) fn amf0_bytes(&self) -> &[u8] {
        match (self.type_id, self.payload.split_first()) {
            (COMMAND_AMF3 | DATA_AMF3, Some((0, rest))) => rest,
            _ => &self.payload,
        }
    }
}

/// Takes an aggregate message apart, without copying payloads.
///
/// Its parts carry times of their own; the time of the aggregate says where the first of them belongs.
#[derive(Debug)]
pub(crate) struct AggregateParts {
    rest: Bytes,
    stream_id: u32,
    timestamp_ms: u32,
    offset_ms: Option<u32>,
}

const PART_HEADER_BYTES: usize = 11;
const BACK_POINTER_BYTES: usize = 4;

impl AggregateParts {
    pub(crate) fn new(aggregate: Message) -> Self {
        Self {
            rest: aggregate.payload,
            stream_id: aggregate.stream_id,
            timestamp_ms: aggregate.timestamp_ms,
            offset_ms: None,
        }
    }

    pub(crate) fn next_part(&mut self) -> Result<Option<Message>, SessionError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let Some(header) = self.rest.first_chunk::<PART_HEADER_BYTES>() else {
            return Err(SessionError::MalformedAggregate);
        };
        let type_id = header[0];
        let length = u32::from_be_bytes([0, header[1], header[2], header[3]]) as usize;
        let own_ms = u32::from_be_bytes([header[7], header[4], header[5], header[6]]);
        let end = PART_HEADER_BYTES + length;
        if self.rest.len() < end {
            return Err(SessionError::MalformedAggregate);
        }
        let mut part = self.rest.split_to(end);
        // The back pointer after the last part is left out by some encoders.
        let _ = self.rest.split_to(BACK_POINTER_BYTES.min(self.rest.len()));
        let offset_ms = *self.offset_ms.get_or_insert(self.timestamp_ms.wrapping_sub(own_ms));
        Ok(Some(Message {
            timestamp_ms: own_ms.wrapping_add(offset_ms),
            type_id,
            stream_id: self.stream_id,
            payload: part.split_off(PART_HEADER_BYTES),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(type_id: u8, timestamp: u32, payload: &[u8]) -> Vec<u8> {
        let time = timestamp.to_be_bytes();
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut bytes =
            vec![type_id, length[1], length[2], length[3], time[1], time[2], time[3], time[0], 0, 0, 0];
        bytes.extend_from_slice(payload);
        bytes.extend_from_slice(&(11 + u32::try_from(payload.len()).unwrap()).to_be_bytes());
        bytes
    }

    #[test]
    fn parts_are_rebased_on_the_time_of_the_aggregate() {
        let mut payload = part(AUDIO, 0x0100_0000, b"a");
        payload.extend(part(VIDEO, 0x0100_0017, b"vv"));
        payload.truncate(payload.len() - 4);
        let mut parts = AggregateParts::new(Message {
            timestamp_ms: u32::MAX,
            type_id: AGGREGATE,
            stream_id: 1,
            payload: payload.into(),
        });
        let expected = |timestamp_ms, type_id, payload: &'static [u8]| Message {
            timestamp_ms,
            type_id,
            stream_id: 1,
            payload: Bytes::from_static(payload),
        };
        assert_eq!(parts.next_part().unwrap(), Some(expected(u32::MAX, AUDIO, b"a")));
        assert_eq!(parts.next_part().unwrap(), Some(expected(22, VIDEO, b"vv")));
        assert_eq!(parts.next_part().unwrap(), None);
    }

    #[test]
    fn a_part_longer_than_the_aggregate_is_refused() {
        for cut in 1..11 + 3 {
            let mut payload = part(VIDEO, 0, b"abc");
            payload.truncate(cut);
            let mut parts = AggregateParts::new(Message::control(AGGREGATE, payload));
            assert_eq!(parts.next_part(), Err(SessionError::MalformedAggregate), "cut at {cut}");
        }
    }
}
