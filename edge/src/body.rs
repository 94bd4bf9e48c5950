//! Response bodies, each with the account that is closed when it ends (A7).
//!
//! Invariants: a body that follows an aborted fill ends with an error, which the server turns into a reset stream or a
//! connection closed short; never into an end. It ended whole when the socket took the last of it, not when the server did:
//! who leaves while thousands are answered leaves before that.

use crate::account::Account;
use crate::coalesce::Cause;
use crate::fill::Follower;
use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use sigma_http::piece::Piece;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// A viewer's response body.
pub(crate) struct EdgeBody {
    source: Source,
    /// Closed by whichever is dropped last, the body or a piece of it.
    account: Arc<Account>,
}

/// A piece of a body.
pub(crate) struct Accounted {
    bytes: Bytes,
    /// None of what the server says by itself.
    account: Option<Arc<Account>>,
}

impl From<Bytes> for Accounted {
    fn from(bytes: Bytes) -> Self {
        Self { bytes, account: None }
    }
}

impl Piece for Accounted {
    fn rest(&self) -> Bytes {
        self.bytes.clone()
    }
}

impl Buf for Accounted {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
    }

    fn copy_to_bytes(&mut self, count: usize) -> Bytes {
        self.bytes.copy_to_bytes(count)
    }
}

impl Drop for Accounted {
    fn drop(&mut self) {
        if let Some(account) = self.account.as_ref().filter(|_| self.bytes.has_remaining()) {
            account.not_taken(self.bytes.remaining());
        }
    }
}

enum Source {
    Whole(Bytes),
    Following {
        follower: Follower,
        position: usize,
        /// Bytes still to come, when the upstream said how many there are.
        left: Option<u64>,
    },
    Ended,
}

impl Source {
    /// Whether nothing that belongs to the body is still to be handed out.
    fn is_complete(&self) -> bool {
        matches!(self, Self::Ended | Self::Following { left: Some(0), .. })
    }
}

impl EdgeBody {
    /// A body that is there as a whole.
    pub(crate) fn whole(bytes: Bytes, account: Box<Account>) -> Self {
        Self::new(if bytes.is_empty() { Source::Ended } else { Source::Whole(bytes) }, account)
    }

    /// A body that is still being fetched.
    pub(crate) fn following(follower: Follower, content_length: Option<u64>, account: Box<Account>) -> Self {
        Self::new(Source::Following { follower, position: 0, left: content_length }, account)
    }

    fn new(source: Source, account: Box<Account>) -> Self {
        account.complete(source.is_complete());
        Self { source, account: Arc::from(account) }
    }
}

impl Body for EdgeBody {
    type Data = Accounted;
    type Error = Cause;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Accounted>, Cause>>> {
        let Self { source, account } = self.get_mut();
        let chunk = match source {
            Source::Ended => None,
            Source::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                *source = Source::Ended;
                Some(bytes)
            }
            Source::Following { follower, position, left } => {
                match ready!(follower.poll_chunk(*position, cx)) {
                    Ok(Some(chunk)) => {
                        *position += 1;
                        let given = chunk.len() as u64;
                        *left = left.map(|left| left.saturating_sub(given));
                        // All of it: no need to wait for the fill to say so, and the end goes with the last frame.
                        if *left == Some(0) {
                            *source = Source::Ended;
                        }
                        Some(chunk)
                    }
                    Ok(None) => {
                        *source = Source::Ended;
                        None
                    }
                    Err(cause) => {
                        *source = Source::Ended;
                        account.complete(false);
                        return Poll::Ready(Some(Err(cause)));
                    }
                }
            }
        };
        account.sent(chunk.as_ref().map_or(0, Bytes::len), source.is_complete());
        let piece = |bytes| Accounted { bytes, account: Some(Arc::clone(account)) };
        Poll::Ready(chunk.map(|bytes| Ok(Frame::data(piece(bytes)))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.source, Source::Ended)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Ended => SizeHint::with_exact(0),
            Source::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Following { left: Some(left), .. } => SizeHint::with_exact(*left),
            Source::Following { left: None, .. } => SizeHint::default(),
        }
    }
}
