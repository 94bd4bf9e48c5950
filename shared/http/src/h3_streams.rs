//! QUIC streams as the h3 crate takes them: quinn's, with notice when a peer gives a request up, and without copying bodies.
//!
//! Invariant: what belongs to the newest accepted request stream is in [`Newest`] from the moment the stream was handed
//! out until it is taken or the next stream replaces it. Deliberately absent: opening request streams, which only clients do.

use crate::answers::Answer;
use bytes::{Buf, Bytes};
use h3::error::Code;
use h3::quic::{ConnectionErrorIncoming, StreamErrorIncoming, StreamId, WriteBuf};
use quinn::{ConnectionError, ReadError, VarInt, WriteError};
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

type Accepting<T> = Pin<Box<dyn Future<Output = Result<T, ConnectionError>> + Send + Sync>>;

/// Ends when the peer wants no (more) response on a stream, or its connection is gone.
pub(crate) type Stopped = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What h3 has no place for, of one request stream.
pub(crate) struct Aside {
    pub(crate) stopped: Stopped,
    pub(crate) payload: Payload,
}

/// The bytes that are sent next. h3 hands on slices of them; with the owner at hand they need not be copied.
#[derive(Clone, Default)]
pub(crate) struct Payload(Arc<Mutex<Next>>);

#[derive(Default)]
struct Next {
    bytes: Bytes,
    /// What they are of.
    answer: Option<Arc<Answer>>,
}

impl Payload {
    fn next(&self) -> MutexGuard<'_, Next> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says whose bytes are sent from now on.
    pub(crate) fn belongs_to(&self, answer: &Arc<Answer>) {
        self.next().answer = Some(Arc::clone(answer));
    }

    /// Says what the next `send_data` sends.
    pub(crate) fn set(&self, bytes: Bytes) {
        self.next().bytes = bytes;
    }

    /// `slice` with its owner, if it is of what was set.
    fn owned(&self, slice: &[u8]) -> Option<Bytes> {
        let bytes = &self.next().bytes;
        let (whole, part) = (bytes.as_ptr_range(), slice.as_ptr_range());
        (whole.start <= part.start && part.end <= whole.end).then(|| bytes.slice_ref(slice))
    }

    /// The transport took so many bytes.
    fn took(&self, bytes: usize) {
        if let Some(answer) = &self.next().answer {
            answer.took(bytes);
        }
    }
}

/// Where what belongs to the newest request stream is left.
#[derive(Clone, Default)]
pub(crate) struct Newest(Arc<Mutex<Option<Aside>>>);

impl Newest {
    /// What belongs to the stream that was accepted last.
    pub(crate) fn take(&self) -> Option<Aside> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, aside: Aside) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(aside);
    }
}

/// A QUIC connection for the h3 crate's server.
pub(crate) struct Streams {
    connection: quinn::Connection,
    request: Option<Accepting<(quinn::SendStream, quinn::RecvStream)>>,
    one_way: Option<Accepting<quinn::RecvStream>>,
    opener: Opener,
    newest: Newest,
}

impl Streams {
    pub(crate) fn new(connection: quinn::Connection, newest: Newest) -> Self {
        let opener = Opener::new(connection.clone());
        Self { connection, request: None, one_way: None, opener, newest }
    }
}

/// Polls a future that is made when there is none, and forgotten when it ended.
fn poll_made<T>(
    slot: &mut Option<Accepting<T>>,
    cx: &mut Context<'_>,
    make: impl FnOnce() -> Accepting<T>,
) -> Poll<Result<T, ConnectionErrorIncoming>> {
    let ended = ready!(slot.get_or_insert_with(make).as_mut().poll(cx));
    *slot = None;
    Poll::Ready(ended.map_err(connection_lost))
}

impl<B: Buf> h3::quic::Connection<B> for Streams {
    type RecvStream = Receive;
    type OpenStreams = Opener;

    fn poll_accept_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Receive, ConnectionErrorIncoming>> {
        let connection = &self.connection;
        let make = || {
            let connection = connection.clone();
            Box::pin(async move { connection.accept_uni().await }) as Accepting<_>
        };
        poll_made(&mut self.one_way, cx, make).map_ok(Receive)
    }

    fn poll_accept_bidi(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Exchange<B>, ConnectionErrorIncoming>> {
        let connection = &self.connection;
        let make = || {
            let connection = connection.clone();
            Box::pin(async move { connection.accept_bi().await }) as Accepting<_>
        };
        let (send, receive) = ready!(poll_made(&mut self.request, cx, make))?;
        let stopped = send.stopped();
        let stopped = Box::pin(async move {
            let _ = stopped.await;
        });
        let payload = Payload::default();
        self.newest.put(Aside { stopped, payload: payload.clone() });
        Poll::Ready(Ok(Exchange { send: Reply::with_payload(send, payload), receive: Receive(receive) }))
    }

    fn opener(&self) -> Opener {
        Opener::new(self.connection.clone())
    }
}

impl<B: Buf> h3::quic::OpenStreams<B> for Streams {
    type BidiStream = Exchange<B>;
    type SendStream = Reply<B>;

    fn poll_open_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<Exchange<B>, StreamErrorIncoming>> {
        self.opener.poll_open_bidi(cx)
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<Reply<B>, StreamErrorIncoming>> {
        self.opener.poll_open_send(cx)
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        close(&self.connection, code, reason);
    }
}

/// Opens the server's own one-way streams (control, QPACK).
pub(crate) struct Opener {
    connection: quinn::Connection,
    opening: Option<Accepting<quinn::SendStream>>,
}

impl Opener {
    fn new(connection: quinn::Connection) -> Self {
        Self { connection, opening: None }
    }
}

impl<B: Buf> h3::quic::OpenStreams<B> for Opener {
    type BidiStream = Exchange<B>;
    type SendStream = Reply<B>;

    fn poll_open_bidi(&mut self, _: &mut Context<'_>) -> Poll<Result<Exchange<B>, StreamErrorIncoming>> {
        Poll::Ready(Err(StreamErrorIncoming::Unknown("servers open no request streams".into())))
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<Reply<B>, StreamErrorIncoming>> {
        let connection = &self.connection;
        let make = || {
            let connection = connection.clone();
            Box::pin(async move { connection.open_uni().await }) as Accepting<_>
        };
        poll_made(&mut self.opening, cx, make)
            .map_ok(Reply::new)
            .map_err(|connection_error| StreamErrorIncoming::ConnectionErrorIncoming { connection_error })
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        close(&self.connection, code, reason);
    }
}

/// A request stream.
pub(crate) struct Exchange<B> {
    send: Reply<B>,
    receive: Receive,
}

impl<B: Buf> h3::quic::BidiStream<B> for Exchange<B> {
    type SendStream = Reply<B>;
    type RecvStream = Receive;

    fn split(self) -> (Reply<B>, Receive) {
        (self.send, self.receive)
    }
}

impl<B: Buf> h3::quic::RecvStream for Exchange<B> {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        self.receive.poll_data(cx)
    }

    fn stop_sending(&mut self, error_code: u64) {
        self.receive.stop_sending(error_code);
    }

    fn recv_id(&self) -> StreamId {
        self.receive.recv_id()
    }
}

impl<B: Buf> h3::quic::SendStream<B> for Exchange<B> {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_ready(cx)
    }

    fn send_data<T: Into<WriteBuf<B>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.send.send_data(data)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_finish(cx)
    }

    fn reset(&mut self, reset_code: u64) {
        self.send.reset(reset_code);
    }

    fn send_id(&self) -> StreamId {
        self.send.send_id()
    }
}

/// What a stream sends. Unless it was finished, it ends with a reset: quinn alone would end it as if it were whole.
pub(crate) struct Reply<B> {
    stream: quinn::SendStream,
    writing: Option<WriteBuf<B>>,
    payload: Payload,
    finished: bool,
}

impl<B> Drop for Reply<B> {
    fn drop(&mut self) {
        if !self.finished {
            // The peer may have stopped it already.
            let _ = self.stream.reset(var_int(Code::H3_INTERNAL_ERROR.value()));
        }
    }
}

impl<B> Reply<B> {
    fn new(stream: quinn::SendStream) -> Self {
        Self::with_payload(stream, Payload::default())
    }

    fn with_payload(stream: quinn::SendStream, payload: Payload) -> Self {
        Self { stream, writing: None, payload, finished: false }
    }
}

impl<B: Buf> h3::quic::SendStream<B> for Reply<B> {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        if let Some(data) = &mut self.writing {
            while data.has_remaining() {
                let written = match self.payload.owned(data.chunk()) {
                    Some(bytes) => {
                        let written = ready!(pin!(self.stream.write_chunks(&mut [bytes])).poll(cx));
                        written.map(|written| written.bytes)
                    }
                    None => ready!(Pin::new(&mut self.stream).poll_write(cx, data.chunk())),
                };
                let written = written.map_err(not_written)?;
                self.payload.took(written);
                data.advance(written);
            }
            self.writing = None;
            self.payload.set(Bytes::new());
        }
        Poll::Ready(Ok(()))
    }

    fn send_data<T: Into<WriteBuf<B>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        if self.writing.is_some() {
            return Err(StreamErrorIncoming::Unknown("the data before is still being written".into()));
        }
        self.writing = Some(data.into());
        Ok(())
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.finished = true;
        Poll::Ready(self.stream.finish().map_err(|closed| StreamErrorIncoming::Unknown(closed.into())))
    }

    fn reset(&mut self, reset_code: u64) {
        self.finished = true;
        // A stream that is closed already needs no reset.
        let _ = self.stream.reset(var_int(reset_code));
    }

    fn send_id(&self) -> StreamId {
        stream_id(self.stream.id())
    }
}

/// What a stream receives.
pub(crate) struct Receive(quinn::RecvStream);

impl h3::quic::RecvStream for Receive {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        const CHUNK_BYTES_MAX: usize = 16 * 1024;
        // Cancelling it loses nothing: it takes a chunk in the poll in which it ends.
        let read = ready!(pin!(self.0.read_chunk(CHUNK_BYTES_MAX, true)).poll(cx));
        Poll::Ready(read.map(|chunk| chunk.map(|chunk| chunk.bytes)).map_err(not_read))
    }

    fn stop_sending(&mut self, error_code: u64) {
        // A stream that ended already needs no stop.
        let _ = self.0.stop(var_int(error_code));
    }

    fn recv_id(&self) -> StreamId {
        stream_id(self.0.id())
    }
}

fn close(connection: &quinn::Connection, code: Code, reason: &[u8]) {
    connection.close(var_int(code.value()), reason);
}

fn var_int(code: u64) -> VarInt {
    VarInt::from_u64(code).unwrap_or(VarInt::MAX)
}

#[expect(clippy::expect_used, reason = "both are 62 bits wide")]
fn stream_id(id: quinn::StreamId) -> StreamId {
    u64::from(id).try_into().expect("a QUIC stream id is one of HTTP/3")
}

fn connection_lost(error: ConnectionError) -> ConnectionErrorIncoming {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            ConnectionErrorIncoming::ApplicationClose { error_code: close.error_code.into() }
        }
        ConnectionError::TimedOut => ConnectionErrorIncoming::Timeout,
        other => ConnectionErrorIncoming::Undefined(Arc::new(other)),
    }
}

fn not_written(error: WriteError) -> StreamErrorIncoming {
    match error {
        WriteError::Stopped(code) => StreamErrorIncoming::StreamTerminated { error_code: code.into() },
        WriteError::ConnectionLost(lost) => {
            StreamErrorIncoming::ConnectionErrorIncoming { connection_error: connection_lost(lost) }
        }
        other => StreamErrorIncoming::Unknown(other.into()),
    }
}

fn not_read(error: ReadError) -> StreamErrorIncoming {
    match error {
        ReadError::Reset(code) => StreamErrorIncoming::StreamTerminated { error_code: code.into() },
        ReadError::ConnectionLost(lost) => {
            StreamErrorIncoming::ConnectionErrorIncoming { connection_error: connection_lost(lost) }
        }
        other => StreamErrorIncoming::Unknown(other.into()),
    }
}
