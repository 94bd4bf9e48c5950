//! What comes with a request, over any HTTP: unread until a handler reads it, and then bounded in bytes and time.
//!
//! Invariants: a body that is dropped unread costs its sender the stream at most; one that is too large is let run out for a
//! while, so that its sender, who reads no answer before, learns why it is not taken. Deliberately absent: trailers, and
//! bodies that are handled while they arrive.

use crate::h3_streams::Receive;
use crate::problem::Problem;
use bytes::{Buf, Bytes, BytesMut};
use h3::error::Code;
use h3::server::RequestStream;
use http::StatusCode;
use http_body::Body;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::fmt;
use std::time::Duration;

/// What still comes of a body that is too large is thrown away up to this, bytes…
const RUN_OUT_MAX: u64 = 16 << 20;
/// …and for so long.
const RUN_OUT_PATIENCE: Duration = Duration::from_secs(3);

/// The body of a request.
pub struct RequestBody(Coming);

enum Coming {
    Nothing,
    Hyper(Incoming),
    Http3(Box<Http3Body>),
}

struct Http3Body(RequestStream<Receive, Bytes>);

impl Drop for Http3Body {
    fn drop(&mut self) {
        // Whatever still comes is not wanted.
        self.0.stop_sending(Code::H3_NO_ERROR);
    }
}

/// Why a body was not read. The sender is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// More than is taken.
    #[error("at most {0} bytes are read")]
    TooLarge(usize),
    /// It did not arrive in time; a retry may help.
    #[error("the request's body did not arrive in time")]
    TooSlow,
    /// It broke off.
    #[error("the request's body broke off")]
    Broken,
}

impl BodyError {
    /// The answer to such a request.
    #[must_use]
    pub fn problem(self) -> Problem {
        let status = match self {
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Broken => StatusCode::BAD_REQUEST,
        };
        Problem::new(status, self.to_string())
    }
}

impl RequestBody {
    /// Nothing came.
    #[must_use]
    pub fn empty() -> Self {
        Self(Coming::Nothing)
    }

    pub(crate) fn http3(stream: RequestStream<Receive, Bytes>) -> Self {
        Self(Coming::Http3(Box::new(Http3Body(stream))))
    }

    /// Throws it away as it comes, for a while: for a request that is refused whatever it brings, so that its sender, who reads
    /// no answer before, learns why.
    pub async fn discard(self) {
        if let Coming::Hyper(body) = self.0 {
            // A sender that takes longer, or has more, is cut off.
            let _ = tokio::time::timeout(RUN_OUT_PATIENCE, run_out(body)).await;
        }
    }

    /// All of it, if that is at most `bytes_max` and arrives within `patience`.
    ///
    /// # Errors
    /// It is too large, too slow, or broke off.
    pub async fn read(self, bytes_max: usize, patience: Duration) -> Result<Bytes, BodyError> {
        let reading = async {
            match self.0 {
                Coming::Nothing => Ok(Ok(Bytes::new())),
                Coming::Hyper(body) => collect(body, bytes_max).await,
                Coming::Http3(body) => collect_http3(body, bytes_max).await.map(Ok),
            }
        };
        let read = tokio::time::timeout(patience, reading).await.unwrap_or(Err(BodyError::TooSlow))?;
        match read {
            Ok(body) => Ok(body),
            Err(TooLarge(rest)) => {
                Self(Coming::Hyper(rest)).discard().await;
                Err(BodyError::TooLarge(bytes_max))
            }
        }
    }
}

/// What is left of a body that is too large.
struct TooLarge(Incoming);

async fn collect(mut body: Incoming, bytes_max: usize) -> Result<Result<Bytes, TooLarge>, BodyError> {
    let mut whole = BytesMut::new();
    if body.size_hint().lower() > bytes_max as u64 {
        return Ok(Err(TooLarge(body)));
    }
    while let Some(frame) = body.frame().await {
        let Ok(piece) = frame.map_err(|_| BodyError::Broken)?.into_data() else { continue };
        if whole.len() + piece.len() > bytes_max {
            return Ok(Err(TooLarge(body)));
        }
        whole.extend_from_slice(&piece);
    }
    Ok(Ok(whole.freeze()))
}

async fn run_out(mut rest: Incoming) {
    let mut read = 0;
    while read < RUN_OUT_MAX
        && let Some(Ok(frame)) = rest.frame().await
    {
        read += frame.data_ref().map_or(0, |piece| piece.len() as u64);
    }
}

async fn collect_http3(mut body: Box<Http3Body>, bytes_max: usize) -> Result<Bytes, BodyError> {
    let mut whole = BytesMut::new();
    while let Some(mut piece) = body.0.recv_data().await.map_err(|_| BodyError::Broken)? {
        if whole.len() + piece.remaining() > bytes_max {
            return Err(BodyError::TooLarge(bytes_max));
        }
        while piece.has_remaining() {
            whole.extend_from_slice(piece.chunk());
            piece.advance(piece.chunk().len());
        }
    }
    Ok(whole.freeze())
}

impl From<Incoming> for RequestBody {
    fn from(body: Incoming) -> Self {
        Self(Coming::Hyper(body))
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Coming::Nothing => "RequestBody(nothing)",
            Coming::Hyper(_) => "RequestBody(hyper)",
            Coming::Http3(_) => "RequestBody(h3)",
        })
    }
}
