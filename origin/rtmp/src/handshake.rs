//! The plain RTMP handshake, for both sides.
//!
//! A version field of zero in our packet tells clients with a digest handshake to continue with the plain one. What
//! the peer echoes is not checked: it proves nothing and some encoders echo something else.
#![deny(clippy::disallowed_methods)]

use bytes::{BufMut, BytesMut};

use crate::SessionError;

const VERSION: u8 = 3;
const PACKET_BYTES: usize = 1536;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Server,
    Client,
}

#[derive(Debug)]
enum Stage {
    /// Collecting the version byte and the peer's first packet.
    Greeting(Vec<u8>),
    /// Skipping the peer's echo; bytes left.
    Echo(usize),
    Done,
}

#[derive(Debug)]
pub(crate) struct Handshake {
    role: Role,
    stage: Stage,
}

impl Handshake {
    /// A client speaks first: its greeting is written to `out` at once.
    pub(crate) fn new(role: Role, out: &mut BytesMut) -> Self {
        if role == Role::Client {
            write_greeting(out, 0);
        }
        Self { role, stage: Stage::Greeting(Vec::new()) }
    }

    /// Takes what belongs to the handshake from the front of `input`; true once it is complete.
    pub(crate) fn advance(&mut self, input: &mut &[u8], out: &mut BytesMut) -> Result<bool, SessionError> {
        loop {
            match &mut self.stage {
                Stage::Done => return Ok(true),
                Stage::Greeting(seen) => {
                    let wanted = (1 + PACKET_BYTES - seen.len()).min(input.len());
                    let (head, rest) = input.split_at(wanted);
                    seen.extend_from_slice(head);
                    *input = rest;
                    match seen.first() {
                        Some(&version) if version != VERSION => {
                            return Err(SessionError::UnsupportedVersion { version });
                        }
                        _ if seen.len() <= PACKET_BYTES => return Ok(false),
                        _ => {}
                    }
                    if self.role == Role::Server {
                        write_greeting(out, u32::from_be_bytes([seen[9], seen[10], seen[11], seen[12]]));
                    }
                    out.put_slice(&seen[1..]);
                    self.stage = Stage::Echo(PACKET_BYTES);
                }
                Stage::Echo(left) => {
                    let skipped = (*left).min(input.len());
                    *input = &input[skipped..];
                    *left -= skipped;
                    if *left > 0 {
                        return Ok(false);
                    }
                    self.stage = Stage::Done;
                }
            }
        }
    }
}

/// Version, time 0, version field 0, then filler. The filler only has to differ from zero, not to be secret.
fn write_greeting(out: &mut BytesMut, seed: u32) {
    out.put_u8(VERSION);
    out.put_u64(0);
    let mut state = seed ^ 0x9E37_79B9;
    for _ in 0..(PACKET_BYTES - 8) / 4 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        out.put_u32(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_finish_byte_by_byte() {
        let (mut to_client, mut to_server) = (BytesMut::new(), BytesMut::new());
        let mut server = Handshake::new(Role::Server, &mut to_client);
        let mut client = Handshake::new(Role::Client, &mut to_server);
        let (mut server_done, mut client_done) = (false, false);
        for _ in 0..3 {
            for byte in to_server.split() {
                server_done = server.advance(&mut &[byte][..], &mut to_client).unwrap();
            }
            for byte in to_client.split() {
                client_done = client.advance(&mut &[byte][..], &mut to_server).unwrap();
            }
        }
        assert!(server_done && client_done);
    }

    #[test]
    fn a_web_request_is_refused_at_its_first_byte() {
        let mut out = BytesMut::new();
        let mut server = Handshake::new(Role::Server, &mut out);
        let refused = server.advance(&mut &b"GET / HTTP/1.1"[..], &mut out);
        assert_eq!(refused, Err(SessionError::UnsupportedVersion { version: b'G' }));
        assert!(out.is_empty());
    }

    #[test]
    fn what_follows_the_handshake_is_left_in_the_input() {
        let mut out = BytesMut::new();
        let mut server = Handshake::new(Role::Server, &mut out);
        let mut bytes = vec![0u8; 1 + 2 * PACKET_BYTES];
        bytes[0] = VERSION;
        bytes.extend_from_slice(b"next");
        let mut input = &bytes[..];
        assert_eq!(server.advance(&mut input, &mut out), Ok(true));
        assert_eq!(input, b"next");
        assert_eq!(out.len(), 1 + 2 * PACKET_BYTES);
    }
}
