//! An object being fetched, shared by the fetch that writes it and the requests that follow it.
//!
//! Invariants: wakers are called after the lock is released; a [`Follower`] that is dropped gives its place back, and a
//! fill that is over has no waiters however slowly its followers read, so the waiters gauge is what is really waiting.
//! The lock is never held over an await.

use crate::coalesce::{Cause, Object, Step, Ticket};
use crate::head::Head;
use bytes::Bytes;
use prometheus_client::metrics::gauge::Gauge;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

type Fetched = Object<Arc<Head>, Waker>;

/// One object on its way.
#[derive(Debug)]
pub(crate) struct Fill(Mutex<Fetched>);

/// How many requests may follow fills.
#[derive(Debug, Clone)]
pub(crate) struct WaiterLimits {
    pub(crate) per_object_max: usize,
    pub(crate) total_max: usize,
    /// All waiters of the edge; also what is enforced.
    pub(crate) waiting: Gauge,
}

impl Fill {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Object::new())))
    }

    fn object(&self) -> MutexGuard<'_, Fetched> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a transition, then wakes whom it concerns.
    fn change(&self, transition: impl FnOnce(&mut Fetched) -> Vec<Waker>) {
        let woken = transition(&mut self.object());
        for waker in woken {
            waker.wake();
        }
    }

    pub(crate) fn head(&self, head: Arc<Head>) {
        self.change(|object| object.head(head));
    }

    pub(crate) fn chunk(&self, chunk: Bytes) {
        self.change(|object| object.chunk(chunk));
    }

    /// The end: who follows from now on reads what is there, and is no waiter any more.
    pub(crate) fn complete(&self, limits: &WaiterLimits) {
        self.end(limits, Object::complete);
    }

    /// The other end. Changes nothing when the fill is over already.
    pub(crate) fn abort(&self, cause: Cause, limits: &WaiterLimits) {
        self.end(limits, |object| object.abort(cause));
    }

    fn end(&self, limits: &WaiterLimits, transition: impl FnOnce(&mut Fetched) -> Vec<Waker>) {
        self.change(|object| {
            let released = if object.is_over() { 0 } else { object.waiters() };
            limits.waiting.dec_by(i64::try_from(released).unwrap_or(i64::MAX));
            transition(object)
        });
    }

    /// The body so far, in one piece.
    pub(crate) fn body(&self) -> Bytes {
        let chunks = self.object().chunks().to_vec();
        match <[Bytes; 1]>::try_from(chunks) {
            // A single chunk is copied too: it is a slice of a larger read buffer, which it would keep alive.
            Ok([only]) => Bytes::copy_from_slice(&only),
            Err(chunks) => Bytes::from(chunks.concat()),
        }
    }

    /// Follows the object; `None` when a limit is reached and the request is to be shed.
    pub(crate) fn follow(self: &Arc<Self>, limits: &WaiterLimits) -> Option<Follower> {
        // `inc` returns the count before, so each of several racing requests sees its own place.
        let before = usize::try_from(limits.waiting.inc()).unwrap_or(usize::MAX);
        let ticket = (before < limits.total_max).then(|| self.object().join(limits.per_object_max)).flatten();
        if ticket.is_none() {
            limits.waiting.dec();
        }
        Some(Follower { fill: Arc::clone(self), ticket: Some(ticket?), waiting: limits.waiting.clone() })
    }
}

/// A request's place at a fill.
#[derive(Debug)]
pub(crate) struct Follower {
    fill: Arc<Fill>,
    /// Taken by `drop` only.
    ticket: Option<Ticket>,
    waiting: Gauge,
}

impl Follower {
    /// Waits for the response head.
    pub(crate) async fn head(&self) -> Result<Arc<Head>, Cause> {
        poll_fn(|cx| self.poll(|object, ticket| object.read_head(ticket, || cx.waker().clone()))).await
    }

    /// The chunk at `position`, or `None` at the end of the body.
    pub(crate) fn poll_chunk(&self, position: usize, cx: &Context<'_>) -> Poll<Result<Option<Bytes>, Cause>> {
        self.poll(|object, ticket| object.read_chunk(ticket, position, || cx.waker().clone()))
    }

    fn poll<T>(&self, read: impl FnOnce(&mut Fetched, &Ticket) -> Step<T>) -> Poll<Result<T, Cause>> {
        let Some(ticket) = &self.ticket else {
            return Poll::Ready(Err(Cause::Broken));
        };
        match read(&mut self.fill.object(), ticket) {
            Step::Ready(value) => Poll::Ready(Ok(value)),
            Step::Aborted(cause) => Poll::Ready(Err(cause)),
            Step::Wait => Poll::Pending,
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            let mut object = self.fill.object();
            object.leave(ticket);
            if !object.is_over() {
                self.waiting.dec();
            }
        }
    }
}
