//! Which HTTP a peer speaks on a plain connection, told from its first bytes without taking them.
//!
//! Invariant: nothing is read, so whoever serves the connection finds it as it came.

use std::io;
use std::time::Duration;
use tokio::net::TcpStream;

/// HTTP/2 with prior knowledge begins so (RFC 9113 3.4); no method of HTTP/1.1 does.
const HTTP2: &[u8] = b"PRI";
/// How often a peer is looked at that sent one or two bytes so far.
const REST: Duration = Duration::from_millis(10);

/// What is spoken on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spoken {
    Http1,
    Http2,
}

/// What begins with these bytes; `None` when that is not clear yet.
fn judge(bytes: &[u8]) -> Option<Spoken> {
    let n = bytes.len().min(HTTP2.len());
    match (bytes[..n] == HTTP2[..n], n == HTTP2.len()) {
        (true, true) => Some(Spoken::Http2),
        (true, false) => None,
        (false, _) => Some(Spoken::Http1),
    }
}

/// Waits for a peer's first bytes. The caller bounds the wait.
///
/// # Errors
/// The connection broke; or ended without a byte.
pub(crate) async fn detect(stream: &TcpStream) -> io::Result<Spoken> {
    let mut bytes = [0; HTTP2.len()];
    loop {
        let n = stream.peek(&mut bytes).await?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(spoken) = judge(&bytes[..n]) {
            return Ok(spoken);
        }
        tokio::time::sleep(REST).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes() {
        for (bytes, expected) in [
            (&b"PRI * HTTP/2.0"[..], Some(Spoken::Http2)),
            (b"PRI", Some(Spoken::Http2)),
            (b"PR", None),
            (b"P", None),
            (b"", None),
            (b"PU", Some(Spoken::Http1)),
            (b"POST /", Some(Spoken::Http1)),
            (b"G", Some(Spoken::Http1)),
            (b"\x16\x03\x01", Some(Spoken::Http1)),
        ] {
            assert_eq!(judge(bytes), expected, "{bytes:?}");
        }
    }
}
