//! Pieces of response bodies on their way to the socket.
//!
//! Invariant: a piece that is dropped with nothing left was taken whole by the socket (over QUIC, by the stream's send
//! buffer); of one that is dropped with something left, the rest never went out.

use bytes::{Buf, Bytes};
use http::Response;
use http_body_util::Full;

/// See the module.
pub trait Piece: Buf + From<Bytes> + Send + 'static {
    /// What is left, without a copy.
    fn rest(&self) -> Bytes;
}

impl Piece for Bytes {
    fn rest(&self) -> Bytes {
        self.clone()
    }
}

/// The same answer in pieces of another kind.
pub(crate) fn in_pieces<P: Piece>(response: Response<Full<Bytes>>) -> Response<Full<P>> {
    response.map(|body| body.into_inner().map_or_else(Full::default, |bytes| Full::new(P::from(bytes))))
}
