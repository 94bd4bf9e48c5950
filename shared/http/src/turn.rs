//! When a connection that carries several requests is driven, and how much of it then leaves in one write.
//!
//! Each answer that is ready wakes the connection, and tokio runs at once what was woken last: a write per answer. Put
//! off until what is ready by now had its turn, several answers leave in one write, and one wake-up of the peer brings
//! it all of them. Deliberately absent: time. An idle runtime comes back at once, a busy one after some sixty tasks.

use crate::activity::Activity;
use crate::cork::Corked;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use tokio::io::AsyncWrite;

/// How a connection is driven. One for each.
pub(crate) struct Turn<IO> {
    /// What it writes to, when it carries several requests.
    cork: Option<Corked<IO>>,
    put_off: bool,
}

impl<IO: AsyncWrite + Unpin> Turn<IO> {
    /// For a connection that writes to `cork`; for one with a single answer at a time, `None`.
    pub(crate) fn new(cork: Option<Corked<IO>>) -> Self {
        Self { cork, put_off: false }
    }

    /// Polls `connection` and sends what it wrote, or puts it off once when other requests of it are being answered.
    pub(crate) fn poll<C: Future + ?Sized>(
        &mut self,
        connection: Pin<&mut C>,
        activity: &Activity,
        cx: &mut Context<'_>,
    ) -> Poll<C::Output> {
        let Some(cork) = &self.cork else { return connection.poll(cx) };
        // A single poll is enough: that has this task woken once the others had their turn.
        if !self.put_off && activity.is_answering() && pin!(tokio::task::yield_now()).poll(cx).is_pending() {
            self.put_off = true;
            return Poll::Pending;
        }
        self.put_off = false;
        let polled = connection.poll(cx);
        if let Poll::Ready(Err(_)) = cork.send(cx) {
            // The connection is told when it is polled, and told once.
            cx.waker().wake_by_ref();
        }
        polled
    }
}
