//! The fetch of one object from several upstreams: whom to ask, when to ask another one too, whose answer counts.
//!
//! Invariants: an upstream is asked at most twice after failures; only the authority's "there is no such thing" is an
//! answer (another one may be behind: it is asked again for a while, in case it catches up), and another's "the broadcast is
//! over" is one only when nobody says otherwise (its encoder may be gone, and not the authority's); at most one request is
//! asked of another upstream only because it is late. Deliberately absent: clock and sockets.
#![deny(clippy::disallowed_methods)]

use super::health::Order;
use std::time::{Duration, Instant};

const TRIES_MAX: u8 = 2;
/// The first rest before an upstream that may be behind is asked again: less than half of the shortest usual part. It
/// doubles each time up to the longest, so that who asks for nonsense costs a few requests.
const BEHIND_REST: Duration = Duration::from_millis(100);
const BEHIND_REST_MAX: Duration = Duration::from_millis(400);
/// How long an upstream may be behind: what a standby lags at most is a segment.
const BEHIND_MAX: Duration = Duration::from_secs(2);

/// What an upstream did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Got {
    /// An answer for viewers.
    Good,
    /// The playlist of a broadcast that is over: it may go on elsewhere.
    End,
    /// 4xx
    Refusal,
    /// 5xx
    Failure,
    /// No answer.
    Nothing,
}

/// What to do with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// This is the answer.
    Take,
    /// It is not, or not yet.
    Continue,
}

/// Why an upstream is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// It is its turn.
    Turn,
    /// The one before it is late.
    Hedge,
}

/// One object's race. Who asks calls [`Race::due`] until it has nothing more, then waits for answers or
/// [`Race::wake_at`].
#[derive(Debug)]
pub(crate) struct Race {
    order: Order,
    tries: Vec<u8>,
    running: usize,
    /// Upstreams to be asked because another one failed.
    owed: usize,
    hedge_at: Option<Instant>,
    again: Vec<(Instant, usize)>,
    behind_until: Instant,
    /// Somebody said that it is over.
    ended: bool,
}

impl Race {
    /// Begins at `now`. The next healthy upstream is asked too when there is no answer after `hedge_after`.
    pub(crate) fn new(order: Order, hedge_after: Duration, now: Instant) -> Self {
        let hedge_at = (order.healthy > 1).then(|| now + hedge_after);
        let tries = vec![0; order.ranked.len()];
        Self {
            order,
            tries,
            running: 0,
            owed: 1,
            hedge_at,
            again: Vec::new(),
            behind_until: now + BEHIND_MAX,
            ended: false,
        }
    }

    /// Whom to ask now.
    pub(crate) fn due(&mut self, now: Instant) -> Option<(usize, Why)> {
        if self.owed > 0 {
            self.owed -= 1;
            if let Some(upstream) = self.next_turn() {
                return Some(self.ask(upstream, Why::Turn));
            }
        }
        if let Some(position) = self.again.iter().position(|(at, _)| *at <= now) {
            let (_, upstream) = self.again.swap_remove(position);
            return Some(self.ask(upstream, Why::Turn));
        }
        if self.hedge_at.is_some_and(|at| at <= now) {
            self.hedge_at = None;
            let healthy = &self.order.ranked[..self.order.healthy];
            let next = healthy.iter().copied().find(|upstream| self.tries[*upstream] == 0);
            return next.map(|upstream| self.ask(upstream, Why::Hedge));
        }
        None
    }

    fn next_turn(&self) -> Option<usize> {
        let tried_less = |tries: u8| self.order.ranked.iter().copied().find(|u| self.tries[*u] == tries);
        (0..TRIES_MAX).find_map(tried_less)
    }

    fn ask(&mut self, upstream: usize, why: Why) -> (usize, Why) {
        self.tries[upstream] = self.tries[upstream].saturating_add(1);
        self.running += 1;
        (upstream, why)
    }

    /// An upstream that was asked is done.
    pub(crate) fn answered(&mut self, upstream: usize, got: Got, now: Instant) -> Verdict {
        self.running -= 1;
        match got {
            Got::Good => return Verdict::Take,
            Got::Refusal | Got::End if self.order.authority == Some(upstream) => return Verdict::Take,
            Got::Refusal => {
                let doublings = self.tries[upstream].saturating_sub(1).min(16);
                let at = now + BEHIND_REST.saturating_mul(1 << doublings).min(BEHIND_REST_MAX);
                if at < self.behind_until {
                    self.again.push((at, upstream));
                }
                // Another one may know more; those that were asked are on their way.
                if self.running == 0 && self.order.ranked.iter().any(|u| self.tries[*u] == 0) {
                    self.owed += 1;
                }
            }
            Got::Nothing if !self.ended => self.owed += 1,
            // It said what it had to say: only another one may know better. With an answer at hand, who is gone is not waited for.
            Got::Failure | Got::End | Got::Nothing => {
                self.owed += usize::from(self.order.ranked.iter().any(|u| self.tries[*u] == 0));
            }
        }
        self.ended |= got == Got::End;
        Verdict::Continue
    }

    /// When [`Race::due`] has something again without an answer.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        self.again.iter().map(|(at, _)| *at).chain(self.hedge_at).min()
    }

    /// Whether there is nothing left to wait for. Asked when [`Race::due`] had nothing.
    pub(crate) fn is_lost(&self) -> bool {
        self.running == 0 && self.again.is_empty()
    }

    /// Whether this upstream is the last one that can be asked: then it may take its time to connect.
    pub(crate) fn is_last_resort(&self, upstream: usize) -> bool {
        self.order.healthy == 0
            || self.order.ranked.iter().all(|other| *other == upstream || self.tries[*other] > 0)
    }
}

#[cfg(test)]
mod tests;
