//! What a thread's viewers share that cannot leave it: sockets, who is there, and when all have to go.
//!
//! Invariant: every session is looked at once a second, a few at a time, whatever its server does.

use super::session::Session;
use crate::wire::{Quic, Wire};
use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Between two turns of looking, and how many turns a second has.
pub(crate) const TURN: Duration = Duration::from_millis(50);
const TURNS: usize = 20;

/// See the module.
#[derive(Default)]
pub(crate) struct Household {
    pub(crate) quic: Rc<Quic>,
    /// Connections of viewers that vanished, and until when they stay.
    vanished: RefCell<Vec<(Instant, Wire)>>,
    /// Those that are there, and some that are not any more.
    sessions: RefCell<Vec<Weak<Session>>>,
    /// Which turn of this second is next, and whom it begins with.
    turn: Cell<usize>,
    next: Cell<usize>,
    stopping: Cell<bool>,
    stop: Notify,
}

impl Household {
    /// The run is over: everybody leaves.
    pub(crate) fn stop(&self) {
        self.stopping.set(true);
        self.stop.notify_waiters();
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// Resolves when the run is over.
    pub(crate) async fn stopping(&self) {
        let notified = self.stop.notified();
        if !self.is_stopping() {
            notified.await;
        }
    }

    pub(super) fn joins(&self, session: &Rc<Session>) {
        self.sessions.borrow_mut().push(Rc::downgrade(session));
    }

    /// Keeps a connection open whose viewer vanished.
    pub(super) fn keeps(&self, until: Instant, wire: Wire) {
        self.vanished.borrow_mut().push((until, wire));
    }

    /// A turn's share of the sessions is looked at; connections whose time has come go.
    pub(crate) fn turn(&self) {
        let turn = self.turn.get();
        let all = self.sessions.borrow().len();
        let first = if turn == 0 { 0 } else { self.next.get() };
        self.next.set(self.look(first, all * (turn + 1) / TURNS, Session::look));
        self.turn.set((turn + 1) % TURNS);
        if turn == 0 {
            let now = Instant::now();
            self.vanished.borrow_mut().retain(|(until, _)| *until > now);
        }
    }

    /// Everything up to now is counted, of everybody.
    pub(crate) fn settle(&self) {
        self.look(0, usize::MAX, Session::look);
    }

    /// So it is, and what nobody will wait for any more.
    pub(crate) fn close(&self) {
        self.look(0, usize::MAX, Session::closes);
    }

    /// Looks at those from `at` to `end`. Returns who is next.
    fn look(&self, mut at: usize, end: usize, look: impl Fn(&Session)) -> usize {
        let mut sessions = self.sessions.borrow_mut();
        while at < end.min(sessions.len()) {
            match sessions[at].upgrade() {
                Some(session) => {
                    look(&session);
                    at += 1;
                }
                // The last one takes its place, and is next.
                None => {
                    sessions.swap_remove(at);
                }
            }
        }
        at
    }
}
