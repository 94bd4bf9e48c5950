//! The life of one object while it is fetched: many ask, one asks the upstream, all are answered as it arrives.
//!
//! ```text
//! Absent --lead--> Asking --head--> Streaming --complete--> Complete   (kept as long as it may be)
//!                    \--------abort-------\--------------> Aborted     (gone: the next request leads again)
//! ```
//!
//! Invariants: Complete and Aborted are final and told apart, so that a broken fill never looks like an end; a waiter
//! that left is forgotten at once; the waiters of an object are bounded. Absent is the lack of an [`Object`]: who puts
//! one there leads. Deliberately absent: waking. Transitions return whom to wake, so that nobody is woken under a lock.
#![deny(clippy::disallowed_methods)]

use bytes::Bytes;

/// Why a fill ended without its object. The upstream is to blame; a retry may help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Cause {
    /// No connection to the upstream.
    #[error("the upstream cannot be reached")]
    Unreachable,
    /// No response head, or no more of the body, in time.
    #[error("the upstream did not answer in time")]
    TimedOut,
    /// The response broke off.
    #[error("the upstream's response broke off")]
    Broken,
    /// The response sends elsewhere, which is for viewers alone.
    #[error("the upstream is not set up for this edge")]
    Redirected,
    /// The object, or all unfinished objects together, are larger than configured.
    #[error("the upstream's response is too large")]
    TooLarge,
}

/// What a waiter finds at its place in the object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step<T> {
    /// It is there.
    Ready(T),
    /// It will never be there.
    Aborted(Cause),
    /// Not yet; the waiter will be woken.
    Wait,
}

/// A waiter's place. Only valid at the object that gave it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ticket(usize);

/// An object that is being fetched: head `H`, waiters woken by `W`.
#[derive(Debug)]
pub(crate) struct Object<H, W> {
    phase: Phase<H>,
    chunks: Vec<Bytes>,
    slots: Vec<Slot<W>>,
    free: Vec<usize>,
}

#[derive(Debug)]
enum Phase<H> {
    Asking,
    Streaming(H),
    Complete(H),
    Aborted(Option<H>, Cause),
}

#[derive(Debug)]
enum Slot<W> {
    Free,
    /// Awake: it has something to read.
    Taken,
    Waiting(W),
}

impl<H: Clone, W> Object<H, W> {
    /// An object that its leader just began to ask for.
    pub(crate) fn new() -> Self {
        Self { phase: Phase::Asking, chunks: Vec::new(), slots: Vec::new(), free: Vec::new() }
    }

    /// Takes a place, unless `waiters_max` places are taken: then the request is to be shed.
    pub(crate) fn join(&mut self, waiters_max: usize) -> Option<Ticket> {
        if self.waiters() >= waiters_max {
            return None;
        }
        let place = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::Free);
            self.slots.len() - 1
        });
        self.slots[place] = Slot::Taken;
        Some(Ticket(place))
    }

    /// Gives the place back.
    #[expect(clippy::needless_pass_by_value, reason = "a ticket is used up by leaving")]
    pub(crate) fn leave(&mut self, ticket: Ticket) {
        self.slots[ticket.0] = Slot::Free;
        self.free.push(ticket.0);
    }

    /// Places taken now.
    pub(crate) fn waiters(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// The response head arrived. Returns whom to wake.
    pub(crate) fn head(&mut self, head: H) -> Vec<W> {
        if matches!(self.phase, Phase::Asking) {
            self.phase = Phase::Streaming(head);
        }
        self.wake()
    }

    /// More of the body arrived. Returns whom to wake.
    pub(crate) fn chunk(&mut self, chunk: Bytes) -> Vec<W> {
        if matches!(self.phase, Phase::Streaming(_)) {
            self.chunks.push(chunk);
        }
        self.wake()
    }

    /// The body ended as it should. Returns whom to wake.
    pub(crate) fn complete(&mut self) -> Vec<W> {
        if let Phase::Streaming(head) = &self.phase {
            self.phase = Phase::Complete(head.clone());
        }
        self.wake()
    }

    /// The fill ended without the object. Changes nothing after [`Object::complete`]. Returns whom to wake.
    pub(crate) fn abort(&mut self, cause: Cause) -> Vec<W> {
        match &self.phase {
            Phase::Asking => self.phase = Phase::Aborted(None, cause),
            Phase::Streaming(head) => self.phase = Phase::Aborted(Some(head.clone()), cause),
            Phase::Complete(_) | Phase::Aborted(..) => {}
        }
        self.wake()
    }

    /// Whether the object is complete or aborted. Who still reads it waits for nobody any more.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Complete(_) | Phase::Aborted(..))
    }

    /// What arrived of the body.
    pub(crate) fn chunks(&self) -> &[Bytes] {
        &self.chunks
    }

    /// The head, or a place in the queue for it.
    pub(crate) fn read_head(&mut self, ticket: &Ticket, waker: impl FnOnce() -> W) -> Step<H> {
        match &self.phase {
            Phase::Streaming(head) | Phase::Complete(head) | Phase::Aborted(Some(head), _) => {
                Step::Ready(head.clone())
            }
            Phase::Aborted(None, cause) => Step::Aborted(*cause),
            Phase::Asking => {
                self.slots[ticket.0] = Slot::Waiting(waker());
                Step::Wait
            }
        }
    }

    /// The chunk at `position`, `None` at the end of the body, or a place in the queue for it.
    pub(crate) fn read_chunk(
        &mut self,
        ticket: &Ticket,
        position: usize,
        waker: impl FnOnce() -> W,
    ) -> Step<Option<Bytes>> {
        if let Some(chunk) = self.chunks.get(position) {
            return Step::Ready(Some(chunk.clone()));
        }
        match &self.phase {
            Phase::Complete(_) => Step::Ready(None),
            Phase::Aborted(_, cause) => Step::Aborted(*cause),
            Phase::Asking | Phase::Streaming(_) => {
                self.slots[ticket.0] = Slot::Waiting(waker());
                Step::Wait
            }
        }
    }

    fn wake(&mut self) -> Vec<W> {
        let taken = self.slots.iter_mut().filter(|slot| matches!(slot, Slot::Waiting(_)));
        taken
            .filter_map(|slot| match std::mem::replace(slot, Slot::Taken) {
                Slot::Waiting(waker) => Some(waker),
                Slot::Free | Slot::Taken => None,
            })
            .collect()
    }
}

/// When a shed viewer may come back, in seconds: spread over 1 to 3, so that they do not come back together.
/// `jitter` is any random number.
pub(crate) fn retry_after_s(jitter: u32) -> u32 {
    1 + jitter % 3
}

#[cfg(test)]
mod tests;
