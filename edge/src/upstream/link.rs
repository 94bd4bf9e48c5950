//! One connection to an upstream, HTTP/2 or HTTP/3 alike: requests in, response heads and bodies out.
//!
//! Invariants: a connection stays open while a body is read from it, retired or not; a request that is dropped is
//! cancelled at the upstream (RST_STREAM, STOP_SENDING).

use super::peer::Peer;
use bytes::{Buf, Bytes, BytesMut};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// QUIC hands over a packet at a time: what is there is put together up to this, so that viewers are woken for more.
const CHUNK_BYTES: usize = 64 * 1024;

pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub(super) type H3Sender = h3::client::SendRequest<h3_quinn::OpenStreams, Bytes>;
type H3Body = h3::client::RequestStream<h3_quinn::RecvStream, Bytes>;

/// The protocol of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Protocol {
    /// HTTP/2
    H2,
    /// HTTP/3
    H3,
}

impl Protocol {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::H2 => "h2",
            Self::H3 => "h3",
        }
    }
}

/// A connection in use.
#[derive(Clone)]
pub(super) struct Link {
    pub(super) sender: Sender,
    pub(super) generation: u64,
}

/// What takes requests.
#[derive(Clone)]
pub(super) enum Sender {
    H2(http2::SendRequest<Full<Bytes>>),
    H3(H3Sender, quinn::Connection),
}

/// Why a request had no response head.
pub(super) enum SendError {
    /// The connection is going away; the upstream has not seen the request.
    NotSent,
    Broken(BoxError),
}

impl Sender {
    pub(super) fn protocol(&self) -> Protocol {
        match self {
            Self::H2(_) => Protocol::H2,
            Self::H3(..) => Protocol::H3,
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        match self {
            Self::H2(sender) => sender.is_closed(),
            Self::H3(_, connection) => connection.close_reason().is_some(),
        }
    }

    /// Sends a request and waits for the response head.
    pub(super) async fn send(&mut self, request: Request<Bytes>) -> Result<Response<Source>, SendError> {
        match self {
            Self::H2(sender) => match sender.send_request(request.map(Full::new)).await {
                Ok(response) => Ok(response.map(Source::H2)),
                Err(error) if error.is_canceled() => Err(SendError::NotSent),
                Err(error) => Err(SendError::Broken(error.into())),
            },
            Self::H3(sender, connection) => {
                let broken = |error: h3::error::StreamError| SendError::Broken(error.into());
                let (head, body) = request.into_parts();
                let mut stream = match sender.send_request(Request::from_parts(head, ())).await {
                    Ok(stream) => stream,
                    Err(h3::error::StreamError::RemoteClosing { .. }) => return Err(SendError::NotSent),
                    Err(_) if connection.close_reason().is_some() => return Err(SendError::NotSent),
                    Err(error) => return Err(broken(error)),
                };
                // An upstream that has answered may want no more of the request (RFC 9114 4.1.1): what comes of it is read
                // below, whatever became of the sending.
                let _ = match body.is_empty() {
                    true => stream.finish().await,
                    false => match stream.send_data(body).await {
                        Ok(()) => stream.finish().await,
                        stopped => stopped,
                    },
                };
                let (_, mut stream) = stream.split();
                let response = stream.recv_response().await.map_err(broken)?;
                // The last sender to go closes the connection: one stays with the body.
                let held = sender.clone();
                Ok(response.map(|()| Source::H3(Box::new(H3Source { stream, _open: held, ended: None }))))
            }
        }
    }
}

pub(super) enum Source {
    H2(Incoming),
    H3(Box<H3Source>),
}

pub(super) struct H3Source {
    stream: H3Body,
    _open: H3Sender,
    /// The end, when it came together with the last piece.
    ended: Option<Result<(), BoxError>>,
}

impl Source {
    async fn chunk(&mut self) -> Result<Option<Bytes>, BoxError> {
        match self {
            Self::H2(body) => {
                while let Some(frame) = body.frame().await {
                    match frame?.into_data() {
                        Ok(chunk) if !chunk.is_empty() => return Ok(Some(chunk)),
                        // Trailers are not passed on.
                        Ok(_) | Err(_) => {}
                    }
                }
                Ok(None)
            }
            Self::H3(body) => poll_fn(|cx| body.poll_chunk(cx)).await,
        }
    }
}

impl H3Source {
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, BoxError>> {
        let mut gathered = BytesMut::new();
        while self.ended.is_none() && gathered.len() < CHUNK_BYTES {
            match self.stream.poll_recv_data(cx) {
                Poll::Ready(Ok(Some(mut piece))) => {
                    while piece.has_remaining() {
                        let step = piece.chunk().len();
                        gathered.extend_from_slice(piece.chunk());
                        piece.advance(step);
                    }
                }
                Poll::Ready(Ok(None)) => self.ended = Some(Ok(())),
                Poll::Ready(Err(error)) => self.ended = Some(Err(error.into())),
                Poll::Pending if gathered.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        if !gathered.is_empty() {
            return Poll::Ready(Ok(Some(gathered.freeze())));
        }
        // An error is told once: who reads on has not listened.
        Poll::Ready(self.ended.replace(Ok(())).unwrap_or(Ok(())).map(|()| None))
    }
}

/// The body of an upstream's response.
pub(crate) struct UpstreamBody {
    source: Source,
    from: Arc<Peer>,
}

impl UpstreamBody {
    pub(super) fn new(source: Source, from: Arc<Peer>) -> Self {
        Self { source, from }
    }

    /// The next piece; `None` at the end. Trailers are not passed on.
    ///
    /// # Errors
    /// The response broke off: the upstream is to blame, and a retry elsewhere may help.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, super::UpstreamError> {
        self.source.chunk().await.map_err(|error| {
            self.from.broke_off();
            super::UpstreamError::Broken(error)
        })
    }

    /// All of it, if that is at most so many bytes and comes in time, and does not break off.
    pub(crate) async fn whole(mut self, bytes_max: usize, patience: Duration) -> Option<Bytes> {
        let mut gathered = BytesMut::new();
        let reading = async {
            while let Some(chunk) = self.chunk().await.ok()? {
                gathered.extend_from_slice(&chunk);
                if gathered.len() > bytes_max {
                    return None;
                }
            }
            Some(())
        };
        tokio::time::timeout(patience, reading).await.ok()??;
        Some(gathered.freeze())
    }

    /// Which upstream it comes from.
    pub(super) fn from(&self) -> usize {
        self.from.index
    }
}
