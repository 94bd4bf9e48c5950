//! A socket whose writes are gathered until its connection has nothing more to say for now.
//!
//! HTTP/2 writes frame by frame: a part of 18 KB and its playlist are five TLS records in three writes, and each write
//! wakes the peer. Gathered, they are two records in one.
//!
//! Invariants: what was taken is sent before anything else is, and before the socket is shut down; at most
//! [`GATHERED_BYTES_MAX`] are held, and for longer than one turn of the connection only while the socket takes no more,
//! which the peer owes ([`Activity::owe`]). Whoever drives the connection calls [`Corked::send`] after each turn: a flush
//! that the connection asks for sends nothing. A socket that broke is an error of whatever the connection does next. Deliberately absent: time.

use crate::activity::{Activity, Owed};
use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Held at most, bytes. Four full TLS records, and what rustls takes at a time.
const GATHERED_BYTES_MAX: usize = 64 * 1024;
/// Once a turn has filled the buffer, writes of so many bytes are no longer copied until a turn has less to send: a body
/// that is larger than the buffer is cheaper frame by frame.
const LARGE_BYTES: usize = 16 * 1024;

thread_local! {
    /// A buffer that no connection needs now: of thousands few have something to send at the same time.
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// See the module. Clones are the same socket.
pub(crate) struct Corked<IO>(Arc<Mutex<Pipe<IO>>>);

impl<IO> Clone for Corked<IO> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

struct Pipe<IO> {
    io: IO,
    activity: Arc<Activity>,
    gathered: Vec<u8>,
    /// Of `gathered`, what the socket has taken.
    sent: usize,
    /// Large bodies are on their way: the buffer was full, and no turn since had less than [`LARGE_BYTES`] to send.
    streaming: bool,
    /// Taken in this turn, bytes.
    taken: usize,
    /// Written past the buffer, and what it was written to may hold some of it, as TLS does.
    unflushed: bool,
    /// While the socket takes no more.
    owed: Option<Owed>,
    /// The socket broke, and what was gathered is lost.
    broke: Option<io::ErrorKind>,
}

impl<IO> Corked<IO> {
    pub(crate) fn new(io: IO, activity: Arc<Activity>) -> Self {
        let gathered = Vec::new();
        let (sent, taken, streaming, unflushed) = (0, 0, false, false);
        let (owed, broke) = (None, None);
        let pipe = Pipe { io, activity, gathered, sent, streaming, taken, unflushed, owed, broke };
        Self(Arc::new(Mutex::new(pipe)))
    }

    fn pipe(&self) -> MutexGuard<'_, Pipe<IO>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<IO: AsyncWrite + Unpin> Corked<IO> {
    /// Sends what was gathered, at the end of a turn. Pending while the socket takes no more of it.
    ///
    /// # Errors
    /// The socket broke just now; the connection finds out when it is polled.
    pub(crate) fn send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut pipe = self.pipe();
        let taken = std::mem::take(&mut pipe.taken);
        pipe.streaming &= taken == 0 || taken >= LARGE_BYTES;
        if pipe.gathered.is_empty() && !pipe.unflushed { Poll::Ready(Ok(())) } else { pipe.send(cx) }
    }
}

impl<IO: AsyncWrite + Unpin> Pipe<IO> {
    fn send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let pushed = self.push(cx);
        match &pushed {
            Poll::Pending => {
                self.owed.get_or_insert_with(|| self.activity.owe());
                return Poll::Pending;
            }
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => self.broke = Some(error.kind()),
        }
        self.owed = None;
        self.unflushed = false;
        self.sent = 0;
        let mut spare = std::mem::take(&mut self.gathered);
        spare.clear();
        if spare.capacity() > 0 {
            SPARE.set(spare);
        }
        pushed
    }

    fn push(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.gathered.get(self.sent..).filter(|rest| !rest.is_empty()) {
            let taken = ready!(Pin::new(&mut self.io).poll_write(cx, rest))?;
            if taken == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += taken;
        }
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn is_whole(&self) -> io::Result<()> {
        self.broke.map_or(Ok(()), |kind| Err(kind.into()))
    }

    /// Takes what there is room for, at least one byte, once there is room.
    fn gather(&mut self, bufs: &[IoSlice<'_>], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.is_whole()?;
        if self.gathered.len() >= if self.streaming { LARGE_BYTES } else { GATHERED_BYTES_MAX } {
            ready!(self.send(cx))?;
            self.streaming = true;
        }
        let large = || bufs.iter().map(|buf| buf.len()).sum::<usize>() >= LARGE_BYTES;
        let taken = if self.streaming && self.gathered.is_empty() && large() {
            let taken = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, bufs))?;
            self.unflushed = true;
            taken
        } else {
            self.copy(bufs)
        };
        self.taken += taken;
        Poll::Ready(Ok(taken))
    }

    /// Holds what there is room for. Returns how much that is, bytes.
    fn copy(&mut self, bufs: &[IoSlice<'_>]) -> usize {
        if self.gathered.capacity() == 0 {
            self.gathered = SPARE.take();
            self.gathered.reserve_exact(GATHERED_BYTES_MAX);
        }
        let before = self.gathered.len();
        for buf in bufs {
            let room = GATHERED_BYTES_MAX - self.gathered.len();
            self.gathered.extend_from_slice(buf.get(..room).unwrap_or(buf));
        }
        self.gathered.len() - before
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Corked<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.pipe().io).poll_read(cx, buf)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Corked<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.pipe().gather(&[IoSlice::new(buf)], cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.pipe().gather(bufs, cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.pipe().is_whole())
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut pipe = self.pipe();
        ready!(pipe.send(cx))?;
        Pin::new(&mut pipe.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answers::Holding;
    use crate::limits::Limits;
    use std::pin::pin;
    use std::time::Instant;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    /// A cork on a pipe that holds `room` bytes, its other end, and what it is owed by.
    fn corked(room: usize) -> (Corked<tokio::io::DuplexStream>, tokio::io::DuplexStream, Arc<Activity>) {
        let (near, far) = duplex(room);
        let activity = Activity::new(Instant::now(), &Limits::default(), Holding::default());
        (Corked::new(near, Arc::clone(&activity)), far, activity)
    }

    fn now<T>(poll: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        poll(&mut Context::from_waker(std::task::Waker::noop()))
    }

    #[tokio::test]
    async fn what_is_written_in_one_turn_leaves_in_one_write_at_its_end() {
        let (mut cork, mut far, _) = corked(1 << 20);
        for piece in [&b"HEADERS"[..], b"DATA", b"HEADERS", b"DATA"] {
            cork.write_all(piece).await.unwrap();
            cork.flush().await.unwrap();
        }
        let mut got = [0; 64];
        let mut read = ReadBuf::new(&mut got);
        assert!(now(|cx| Pin::new(&mut far).poll_read(cx, &mut read)).is_pending(), "sent too early");
        assert!(matches!(now(|cx| cork.send(cx)), Poll::Ready(Ok(()))));
        assert_eq!(far.read(&mut got).await.unwrap(), 22);
        assert_eq!(&got[..22], b"HEADERSDATAHEADERSDATA");
        assert!(cork.pipe().gathered.capacity() == 0 && SPARE.take().capacity() >= GATHERED_BYTES_MAX);
    }

    #[tokio::test]
    async fn all_of_it_arrives_in_order_however_little_the_socket_takes() {
        let (mut cork, mut far, activity) = corked(1000);
        let sent: Vec<u8> = (0..300_000_u32).map(|at| (at % 251) as u8).collect();
        let (whole, other) = (sent.clone(), cork.clone());
        let writing = tokio::spawn(async move {
            for piece in whole.chunks(16_393) {
                cork.write_all(piece).await.unwrap();
                cork.flush().await.unwrap();
            }
            // Not flushed: shutting down does it.
            cork.shutdown().await.unwrap();
        });
        let mut got = Vec::new();
        let mut piece = [0; 7000];
        loop {
            let read = far.read(&mut piece).await.unwrap();
            if read == 0 {
                break;
            }
            got.extend_from_slice(&piece[..read]);
            assert!(other.pipe().gathered.len() <= GATHERED_BYTES_MAX);
        }
        writing.await.unwrap();
        assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
        assert!(!activity.is_owed());
    }

    #[tokio::test]
    async fn what_passes_by_the_buffer_is_flushed_too() {
        let (near, mut far) = duplex(1 << 20);
        let holding = tokio::io::BufWriter::with_capacity(4 * GATHERED_BYTES_MAX, near);
        let cork =
            Corked::new(holding, Activity::new(Instant::now(), &Limits::default(), Holding::default()));
        let piece = vec![7; LARGE_BYTES];
        let pieces = GATHERED_BYTES_MAX / LARGE_BYTES + 1;
        for _ in 0..pieces {
            cork.clone().write_all(&piece).await.unwrap();
        }
        assert!(cork.pipe().gathered.is_empty(), "the last one was copied");
        assert!(matches!(now(|cx| cork.send(cx)), Poll::Ready(Ok(()))));
        let mut got = vec![0; pieces * LARGE_BYTES];
        assert!(now(|cx| pin!(far.read_exact(&mut got)).poll(cx)).is_ready(), "still held");
    }

    #[tokio::test]
    async fn what_the_socket_does_not_take_is_owed_by_the_peer() {
        let (mut cork, mut far, activity) = corked(10);
        cork.write_all(b"twelve bytes").await.unwrap();
        assert!(!activity.is_owed(), "nobody was asked to take it yet");
        assert!(now(|cx| cork.send(cx)).is_pending());
        assert!(activity.is_owed());
        let mut got = [0; 12];
        far.read_exact(&mut got[..10]).await.unwrap();
        assert!(matches!(now(|cx| cork.send(cx)), Poll::Ready(Ok(()))));
        assert!(!activity.is_owed());
        far.read_exact(&mut got[10..]).await.unwrap();
        assert_eq!(&got, b"twelve bytes");
    }

    #[tokio::test]
    async fn more_than_may_be_held_waits_for_the_socket() {
        let (cork, far, _) = corked(10);
        let piece = vec![7; GATHERED_BYTES_MAX + 1];
        let first = now(|cx| Pin::new(&mut cork.clone()).poll_write(cx, &piece));
        assert!(matches!(first, Poll::Ready(Ok(GATHERED_BYTES_MAX))), "{first:?}");
        assert!(now(|cx| Pin::new(&mut cork.clone()).poll_write(cx, &piece)).is_pending());
        drop(far);
        let write = || now(|cx| Pin::new(&mut cork.clone()).poll_write(cx, &piece));
        assert!(matches!(write(), Poll::Ready(Err(_))));
        assert!(matches!(write(), Poll::Ready(Err(_))), "what was lost is not skipped");
        assert!(matches!(now(|cx| cork.send(cx)), Poll::Ready(Ok(()))), "told once");
    }
}
