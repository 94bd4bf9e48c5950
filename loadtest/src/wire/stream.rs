//! A TCP connection with or without TLS, which can be dropped with a RST.
//!
//! Read in large pieces: rustls asks for 4 KiB at a time, and a part would take ten system calls. Of thousands of viewers
//! few read at the same time, so the buffer for that belongs to the thread.

use super::stamped;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::cell::Cell;
use std::io;
use std::ops::Range;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Read from a socket at most, bytes at a time.
const PIECE_BYTES: usize = 64 * 1024;

thread_local! {
    /// The buffer of whoever reads next.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// What the connections of a wire share with it.
#[derive(Debug, Default)]
pub(super) struct Ties {
    /// What is dropped while this is set goes with a RST.
    pub(super) reset: Cell<bool>,
    /// When the latest came of all that was read.
    pub(super) arrived: Cell<Option<Instant>>,
}

/// A TCP connection that is read by the piece.
pub(super) struct Linger {
    tcp: TcpStream,
    ties: Rc<Ties>,
    /// Lent while `unread` of it is not empty, which it is again once the caller asks until there is no more.
    piece: Vec<u8>,
    unread: Range<usize>,
}

impl Linger {
    fn new(tcp: TcpStream, ties: Rc<Ties>) -> Self {
        stamped::ask(&tcp);
        Self { tcp, ties, piece: Vec::new(), unread: 0..0 }
    }

    /// Reads a piece. Nothing in it is the end.
    fn fetch(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.piece = SPARE.take();
        self.piece.resize(PIECE_BYTES, 0);
        let polled = stamped::poll_read(&self.tcp, cx, &mut self.piece);
        if let Poll::Ready(Ok((length, arrived))) = &polled {
            self.unread = 0..*length;
            // Of two connections the one that is read later may have had its bytes before.
            self.ties.arrived.set(self.ties.arrived.get().max(Some(*arrived)));
        }
        self.give_back();
        polled.map_ok(drop)
    }

    /// Gives as much of the piece as is asked for.
    fn give(&mut self, buf: &mut ReadBuf<'_>) {
        let rest = self.piece.get(self.unread.clone()).unwrap_or_default();
        let rest = rest.get(..buf.remaining()).unwrap_or(rest);
        buf.put_slice(rest);
        self.unread.start += rest.len();
        self.give_back();
    }

    fn give_back(&mut self) {
        if self.unread.is_empty() {
            SPARE.set(std::mem::take(&mut self.piece));
        }
    }
}

impl Drop for Linger {
    fn drop(&mut self) {
        if self.ties.reset.get() {
            // A socket that is gone already needs no RST.
            let _ = self.tcp.set_zero_linger();
        }
    }
}

/// See the module.
pub(super) enum Stream {
    Plain(Linger),
    Tls(Box<TlsStream<Linger>>),
}

impl Stream {
    pub(super) fn plain(tcp: TcpStream, ties: Rc<Ties>) -> Self {
        Self::Plain(Linger::new(tcp, ties))
    }

    pub(super) async fn secured(self, config: Arc<ClientConfig>, host: &str) -> io::Result<Self> {
        let Self::Plain(linger) = self else { return Ok(self) };
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        Ok(Self::Tls(Box::new(TlsConnector::from(config).connect(name, linger).await?)))
    }
}

macro_rules! delegate {
    ($self:ident, $io:ident => $call:expr) => {
        match $self.get_mut() {
            Stream::Plain(linger) => {
                let $io = Pin::new(&mut linger.tcp);
                $call
            }
            Stream::Tls(tls) => {
                let $io = Pin::new(&mut **tls);
                $call
            }
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(linger) => Pin::new(linger).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(&mut **tls).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        delegate!(self, io => io.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        delegate!(self, io => io.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, io => io.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, io => io.poll_shutdown(cx))
    }
}

impl AsyncRead for Linger {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.unread.is_empty() {
            ready!(this.fetch(cx))?;
        }
        if !this.unread.is_empty() {
            this.give(buf);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Linger {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().tcp).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn all_of_it_comes_in_order_in_whatever_amounts_it_is_asked_for() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut far, _) = listener.accept().await.unwrap();
        let sent: Vec<u8> = (0..400_000_u32).map(|at| (at % 253) as u8).collect();
        let whole = sent.clone();
        tokio::spawn(async move { far.write_all(&whole).await.unwrap() });
        let mut linger = Linger::new(near, Rc::default());
        let (mut got, mut asked) = (Vec::new(), 1);
        loop {
            let mut some = vec![0; asked];
            let length = linger.read(&mut some).await.unwrap();
            if length == 0 {
                break;
            }
            got.extend_from_slice(&some[..length]);
            asked = (asked * 3) % 100_003;
        }
        assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
        assert!(linger.piece.is_empty(), "it keeps a buffer at the end");
        assert_eq!(SPARE.take().len(), PIECE_BYTES);
    }
}
