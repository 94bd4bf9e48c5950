//! What happens on one connection: whether it is idle, whether its peer takes what it asked for, whether it floods.
//!
//! Invariants: a request is in flight exactly as long as its response body lives. Something is owed to the peer exactly
//! while a response waits for the transport: bytes that the socket has not taken, or a body that is not asked for more.
//! A held request owes nothing, and neither does a body that waits for its source.

use crate::answers::{Answer, Answers, Holding};
use crate::flood::{Allowance, FrameBudget};
use crate::limits::Limits;
use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;

/// HTTP/2's connection preface: what protocol detection may wait for.
const PREFACE_BYTES: u64 = 24;

/// What happened on one connection, written by its requests and its socket.
#[derive(Debug)]
pub(crate) struct Activity {
    opened: Instant,
    in_flight: AtomicUsize,
    /// Milliseconds since `opened` at which the last response ended.
    last_end_ms: AtomicU64,
    bytes_read: AtomicU64,
    bytes_written: AtomicU64,
    flooded: AtomicBool,
    /// The connection is closed against the peer's will.
    cut: AtomicBool,
    /// Buffers and bodies that wait for the transport.
    owed: AtomicUsize,
    /// When `owed` became more than zero, or the last window ended; milliseconds since `opened`.
    owed_since_ms: AtomicU64,
    /// `bytes_written` at that moment.
    owed_since_bytes: AtomicU64,
    answers: Arc<Answers>,
    /// When the age of the answers began; milliseconds since `opened`.
    age_since_ms: AtomicU64,
    /// Who is stuck gives up.
    giving_up: Notify,
    /// Requests that the peer gave up since this was looked at.
    given_up: AtomicU64,
}

/// What a look at a connection found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finding {
    /// Look again after this.
    Later(Duration),
    /// Nothing was asked for too long.
    Idle,
    /// It takes what it asked for too slowly.
    Slow,
    /// It takes nothing of so many answers, whatever it takes of others.
    Stuck(usize),
}

/// Several answers share a connection: each has to be taken at this fraction of the rate that is asked of all.
const ANSWER_RATE_FRACTION: u64 = 10;

impl Activity {
    /// Of a connection that begins `now`.
    pub(crate) fn new(now: Instant, limits: &Limits, all: Holding) -> Arc<Self> {
        let taken_ms = u64::from(limits.read_bytes_per_s_min) * millis(limits.read_rate_window);
        let step_bytes = (taken_ms / 1000 / ANSWER_RATE_FRACTION).max(1);
        Arc::new(Self {
            answers: Arc::new(Answers::new(step_bytes, all)),
            age_since_ms: AtomicU64::new(0),
            giving_up: Notify::new(),
            given_up: AtomicU64::new(0),
            opened: now,
            in_flight: AtomicUsize::new(0),
            last_end_ms: AtomicU64::new(0),
            bytes_read: AtomicU64::new(0),
            bytes_written: AtomicU64::new(0),
            flooded: AtomicBool::new(false),
            cut: AtomicBool::new(false),
            owed: AtomicUsize::new(0),
            owed_since_ms: AtomicU64::new(0),
            owed_since_bytes: AtomicU64::new(0),
        })
    }

    pub(crate) fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Relaxed);
        InFlight(Arc::clone(self))
    }

    /// Notes a request where no socket of its own is read.
    pub(crate) fn heard(&self) {
        self.bytes_read.store(PREFACE_BYTES + 1, Relaxed);
    }

    /// Notes how many bytes were written so far where no socket of its own is written to.
    pub(crate) fn wrote(&self, bytes: u64) {
        self.bytes_written.store(bytes, Relaxed);
    }

    /// Notes a request that the peer gave up where no frames of its own are counted.
    pub(crate) fn gave_up(&self) {
        self.given_up.fetch_add(1, Relaxed);
    }

    /// How many requests the peer gave up since the last time.
    pub(crate) fn take_given_up(&self) -> u64 {
        if self.given_up.load(Relaxed) == 0 { 0 } else { self.given_up.swap(0, Relaxed) }
    }

    /// How long the connection is open.
    pub(crate) fn age(&self) -> Duration {
        self.opened.elapsed()
    }

    /// Whether nothing was asked on the connection yet (or one request was answered within its first millisecond).
    pub(crate) fn awaits_first_request(&self) -> bool {
        self.in_flight.load(Relaxed) == 0 && self.last_end_ms.load(Relaxed) == 0
    }

    /// Whether a request is being answered.
    pub(crate) fn is_answering(&self) -> bool {
        self.in_flight.load(Relaxed) > 0
    }

    /// Whether something waits for the transport.
    #[cfg(test)]
    pub(crate) fn is_owed(&self) -> bool {
        self.owed.load(Relaxed) > 0
    }

    /// Whether the connection was closed for flooding.
    pub(crate) fn flooded(&self) -> bool {
        self.flooded.load(Relaxed)
    }

    /// Makes the socket forget what it holds when it is closed.
    pub(crate) fn cut(&self) {
        self.cut.store(true, Relaxed);
    }

    /// What is on its way to the peer.
    pub(crate) fn answers(&self) -> &Arc<Answers> {
        &self.answers
    }

    /// Ends what waits in [`Activity::until_stuck`] for an answer that is.
    pub(crate) fn give_up_stuck(&self) {
        self.giving_up.notify_waiters();
    }

    /// Waits until `answer` was found stuck and is to be given up.
    pub(crate) async fn until_stuck(&self, answer: &Answer) {
        loop {
            self.giving_up.notified().await;
            if answer.is_stuck() {
                return;
            }
        }
    }

    /// Whether `body` is too much for this peer now ([`Answers::shed`]).
    pub(crate) fn shed(&self, body: &impl Body) -> bool {
        self.answers.shed(body.size_hint().lower())
    }

    /// Judges the connection, seen from `now`.
    pub(crate) fn look(&self, now: Instant, limits: &Limits) -> Finding {
        let age = now.saturating_duration_since(self.opened);
        // Half a window, so that a slow peer is noticed in one.
        let half = limits.read_rate_window / 2;
        let rate = match self.rate(age, limits) {
            Some(Finding::Later(rest)) => rest.min(half),
            None => half,
            Some(slow) => return slow,
        };
        let stuck = self.stuck(age, half);
        if stuck > 0 {
            return Finding::Stuck(stuck);
        }
        if self.in_flight.load(Relaxed) > 0 {
            return Finding::Later(rate);
        }
        let last_end = Duration::from_millis(self.last_end_ms.load(Relaxed));
        let mut left = limits.idle_timeout.saturating_sub(age.saturating_sub(last_end));
        if self.bytes_read.load(Relaxed) <= PREFACE_BYTES {
            left = left.min(limits.header_read_timeout.saturating_sub(age));
        }
        if left.is_zero() { Finding::Idle } else { Finding::Later(left.min(rate)) }
    }

    /// Whether what is owed is taken fast enough; `None` when nothing is.
    fn rate(&self, age: Duration, limits: &Limits) -> Option<Finding> {
        if self.owed.load(Relaxed) == 0 {
            return None;
        }
        let since = Duration::from_millis(self.owed_since_ms.load(Relaxed));
        let lasted = age.saturating_sub(since);
        let window = limits.read_rate_window;
        if lasted < window {
            return Some(Finding::Later(window.saturating_sub(lasted)));
        }
        let written = self.bytes_written.load(Relaxed);
        let taken = written.saturating_sub(self.owed_since_bytes.load(Relaxed));
        if u128::from(taken) * 1000 < u128::from(limits.read_bytes_per_s_min) * lasted.as_millis() {
            return Some(Finding::Slow);
        }
        self.begin_window(age);
        Some(Finding::Later(window))
    }

    /// How many answers did not move for a window.
    fn stuck(&self, age: Duration, half: Duration) -> usize {
        let since = Duration::from_millis(self.age_since_ms.load(Relaxed));
        if age.saturating_sub(since) < half {
            return 0;
        }
        self.age_since_ms.store(millis(age), Relaxed);
        self.answers.next_age()
    }

    fn begin_window(&self, age: Duration) {
        self.owed_since_ms.store(millis(age), Relaxed);
        self.owed_since_bytes.store(self.bytes_written.load(Relaxed), Relaxed);
    }

    /// Something waits for the transport from now on, until what is returned is dropped.
    pub(crate) fn owe(self: &Arc<Self>) -> Owed {
        if self.owed.fetch_add(1, Relaxed) == 0 {
            self.begin_window(self.opened.elapsed());
        }
        Owed(Arc::clone(self))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// One request that is being answered.
pub(crate) struct InFlight(Arc<Activity>);

impl InFlight {
    /// What happens on its connection.
    pub(crate) fn activity(&self) -> &Arc<Activity> {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.last_end_ms.store(millis(self.0.opened.elapsed()), Relaxed);
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

/// Something that waits for the transport.
#[must_use]
pub(crate) struct Owed(Arc<Activity>);

impl Drop for Owed {
    fn drop(&mut self) {
        self.0.owed.fetch_sub(1, Relaxed);
    }
}

/// Something of an answer that waits for the transport.
#[must_use]
pub(crate) struct OwedPiece {
    answer: Arc<Answer>,
    _owed: Owed,
}

impl OwedPiece {
    pub(crate) fn new(answer: &Arc<Answer>, activity: &Arc<Activity>) -> Self {
        answer.wait();
        Self { answer: Arc::clone(answer), _owed: activity.owe() }
    }
}

impl Drop for OwedPiece {
    fn drop(&mut self) {
        self.answer.done();
    }
}

/// A piece of a response that is owed until the transport took it all, or dropped it.
pub(crate) struct OwedBytes<P> {
    bytes: P,
    piece: OwedPiece,
}

impl<P: Buf> Buf for OwedBytes<P> {
    fn remaining(&self) -> usize {
        self.bytes.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.chunk()
    }

    fn advance(&mut self, count: usize) {
        self.piece.answer.took(count);
        self.bytes.advance(count);
    }

    fn copy_to_bytes(&mut self, count: usize) -> Bytes {
        self.piece.answer.took(count);
        self.bytes.copy_to_bytes(count)
    }
}

pin_project! {
    /// A response body that keeps its request in flight until it is dropped.
    pub(crate) struct TrackedBody<B> {
        #[pin]
        body: B,
        answer: Arc<Answer>,
        given: u64,
        // Held while the transport, not the source, is what the body waits for.
        owed: Option<OwedPiece>,
        in_flight: InFlight,
    }
}

impl<B: Body> TrackedBody<B> {
    pub(crate) fn new(body: B, in_flight: InFlight) -> Self {
        let answer = Answer::new(&in_flight.0.answers, body.size_hint().lower());
        let owed = (!body.is_end_stream()).then(|| OwedPiece::new(&answer, &in_flight.0));
        Self { body, answer, given: 0, owed, in_flight }
    }
}

impl<B: Body> Body for TrackedBody<B> {
    type Data = OwedBytes<B::Data>;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<OwedBytes<B::Data>>, B::Error>>> {
        let this = self.project();
        let owe = || OwedPiece::new(this.answer, &this.in_flight.0);
        let polled = this.body.poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                this.owed.get_or_insert_with(owe);
                *this.given += frame.data_ref().map_or(0, |bytes| bytes.remaining() as u64);
                this.answer.holds(*this.given);
            }
            Poll::Pending | Poll::Ready(_) => *this.owed = None,
        }
        polled.map_ok(|frame| frame.map_data(|bytes| OwedBytes { bytes, piece: owe() }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

pin_project! {
    /// A socket whose bytes are counted, and whose reads fail once the peer floods.
    pub(crate) struct CountedIo<IO: Socket> {
        #[pin]
        io: IO,
        activity: Arc<Activity>,
        budget: FrameBudget,
    }

    impl<IO: Socket> PinnedDrop for CountedIo<IO> {
        fn drop(this: Pin<&mut Self>) {
            if this.activity.cut.load(Relaxed) {
                this.io.cut();
            }
        }
    }
}

/// What connections come over.
pub(crate) trait Socket: AsyncRead + AsyncWrite {
    /// Forgets what the peer has not taken: without this the system would keep megabytes for a peer that takes none.
    fn cut(&self);
}

impl Socket for TcpStream {
    fn cut(&self) {
        // A socket that refuses is closed the usual way.
        let _ = socket2::SockRef::from(self).set_linger(Some(Duration::ZERO));
    }
}

impl Socket for tokio_rustls::server::TlsStream<TcpStream> {
    fn cut(&self) {
        self.get_ref().0.cut();
    }
}

impl<IO: Socket> CountedIo<IO> {
    pub(crate) fn new(io: IO, activity: Arc<Activity>, allowance: Allowance) -> Self {
        Self { io, activity, budget: FrameBudget::new(allowance) }
    }
}

impl<IO: Socket> AsyncRead for CountedIo<IO> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.project();
        let before = buf.filled().len();
        ready!(this.io.poll_read(cx, buf))?;
        let arrived = buf.filled().get(before..).unwrap_or_default();
        this.activity.bytes_read.fetch_add(arrived.len() as u64, Relaxed);
        let opened = this.activity.opened;
        if let Err(flood) = this.budget.received(arrived, || opened.elapsed()) {
            this.activity.flooded.store(true, Relaxed);
            this.activity.cut();
            return Poll::Ready(Err(io::Error::other(flood)));
        }
        Poll::Ready(Ok(()))
    }
}

impl<IO: Socket> AsyncWrite for CountedIo<IO> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.project();
        let written = ready!(this.io.poll_write(cx, buf))?;
        this.activity.bytes_written.fetch_add(written as u64, Relaxed);
        this.budget.written(written);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.project();
        let written = ready!(this.io.poll_write_vectored(cx, bufs))?;
        this.activity.bytes_written.fetch_add(written as u64, Relaxed);
        this.budget.written(written);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().io.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().io.poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{Empty, Full};

    fn rate_limits() -> Limits {
        Limits { read_bytes_per_s_min: 100, ..Limits::default() }
    }

    fn activity() -> Arc<Activity> {
        Activity::new(Instant::now(), &rate_limits(), Holding::default())
    }

    fn poll<B: Body<Data = Bytes> + Unpin>(body: &mut TrackedBody<B>) -> Option<OwedBytes<Bytes>> {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        match Pin::new(body).poll_frame(&mut cx) {
            Poll::Ready(Some(Ok(frame))) => frame.into_data().ok(),
            _ => None,
        }
    }

    #[test]
    fn what_the_transport_holds_is_owed() {
        let activity = activity();
        let owed = || activity.owed.load(Relaxed);
        let empty = TrackedBody::new(Empty::<Bytes>::new(), activity.begin());
        assert_eq!(owed(), 0);
        drop(empty);
        let mut body = TrackedBody::new(Full::new(Bytes::from_static(b"abc")), activity.begin());
        assert_eq!(owed(), 1, "nobody asked for it yet");
        let mut chunk = poll(&mut body).unwrap();
        assert_eq!(owed(), 2);
        drop(body);
        chunk.advance(2);
        assert_eq!((owed(), chunk.chunk()), (1, &b"c"[..]), "the socket has not taken it all");
        drop(chunk);
        assert_eq!((owed(), activity.in_flight.load(Relaxed)), (0, 0));
    }

    /// A body whose source says nothing.
    struct Silent;

    impl Body for Silent {
        type Data = Bytes;
        type Error = io::Error;

        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
            Poll::Pending
        }
    }

    #[test]
    fn a_body_that_waits_for_its_source_is_not_owed() {
        let activity = activity();
        let mut body = TrackedBody::new(Silent, activity.begin());
        assert!(poll(&mut body).is_none());
        assert_eq!(activity.owed.load(Relaxed), 0);
        let later = activity.opened + Duration::from_secs(600);
        assert_eq!(activity.look(later, &rate_limits()), Finding::Later(Duration::from_secs(5)));
    }

    #[test]
    fn slow_is_less_than_the_rate_over_a_window() {
        let limits = rate_limits();
        for (taken, expected) in [(999, Finding::Slow), (1000, Finding::Later(Duration::from_secs(5)))] {
            let activity = activity();
            let _owed = activity.owe();
            activity.owed_since_ms.store(0, Relaxed);
            activity.bytes_written.store(taken, Relaxed);
            activity.bytes_read.store(100, Relaxed);
            let at = |s| activity.look(activity.opened + Duration::from_secs(s), &limits);
            assert_eq!(at(6), Finding::Later(Duration::from_secs(4)), "counted as idle or slow too early");
            assert_eq!(at(10), expected);
        }
    }

    #[test]
    fn idle_is_nothing_asked_for_too_long() {
        let limits = Limits::default();
        let activity = activity();
        let at = |s| activity.look(activity.opened + Duration::from_secs(s), &limits);
        assert_eq!(at(1), Finding::Later(Duration::from_secs(5)));
        assert_eq!(at(10), Finding::Idle, "it said nothing at all");
        activity.bytes_read.store(100, Relaxed);
        assert_eq!(at(58), Finding::Later(Duration::from_secs(2)));
        assert_eq!(at(60), Finding::Idle);
        let held = activity.begin();
        assert_eq!(at(600), Finding::Later(Duration::from_secs(5)), "a held request is no idleness");
        drop(held);
    }
}
