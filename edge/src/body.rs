//! Response bodies, and the guard that accounts for each of them when it ends (A7).
//!
//! Invariant: a body that follows an aborted fill ends with an error, which the server turns into a reset stream or a
//! connection closed short; never into an end.

use crate::coalesce::Cause;
use crate::fill::Follower;
use crate::metrics::Metrics;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

/// A viewer's response body.
pub(crate) struct EdgeBody {
    source: Source,
    account: Account,
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

/// Counts what went out, and how the body ended, when it is dropped.
struct Account {
    bytes: u64,
    complete: bool,
    metrics: Arc<Metrics>,
}

impl Drop for Account {
    fn drop(&mut self) {
        self.metrics.body_bytes.inc_by(self.bytes);
        let ends = &self.metrics.bodies;
        let end = if self.complete { &ends.complete } else { &ends.aborted };
        end.inc();
    }
}

impl EdgeBody {
    /// A body that is there as a whole.
    pub(crate) fn whole(bytes: Bytes, metrics: Arc<Metrics>) -> Self {
        let source = if bytes.is_empty() { Source::Ended } else { Source::Whole(bytes) };
        Self::new(source, metrics)
    }

    /// A body that is still being fetched.
    pub(crate) fn following(follower: Follower, content_length: Option<u64>, metrics: Arc<Metrics>) -> Self {
        let source = Source::Following { follower, position: 0, left: content_length };
        Self::new(source, metrics)
    }

    fn new(source: Source, metrics: Arc<Metrics>) -> Self {
        let complete = matches!(source, Source::Ended | Source::Following { left: Some(0), .. });
        let account = Account { bytes: 0, complete, metrics };
        Self { source, account }
    }
}

impl Body for EdgeBody {
    type Data = Bytes;
    type Error = Cause;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cause>>> {
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
                        Some(chunk)
                    }
                    Ok(None) => {
                        *source = Source::Ended;
                        None
                    }
                    Err(cause) => {
                        *source = Source::Ended;
                        account.complete = false;
                        return Poll::Ready(Some(Err(cause)));
                    }
                }
            }
        };
        account.bytes += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        account.complete = matches!(source, Source::Ended | Source::Following { left: Some(0), .. });
        Poll::Ready(chunk.map(|chunk| Ok(Frame::data(chunk))))
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
