//! Answers on their way to one peer: which of them are stuck, and how many bytes of memory they keep.
//!
//! A connection that takes playlists all the time may leave segments unread beside them, one per stream: each answer is
//! judged by itself.
//!
//! Invariants: an answer is judged only while something of it waits for the transport; its bytes are held from the moment
//! it is answered until the transport let go of the last piece, because a piece keeps the whole object. Deliberately
//! absent: time. Whoever looks at the connection says when an age begins ([`Answers::next_age`]), so a request costs no
//! timer and no clock.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// An answer that moved in none of so many ages, beside the one in which it moved last, is stuck.
const STUCK_AGES: u32 = 3;
const AGES: usize = STUCK_AGES as usize + 1;
/// What a connection may hold however much all of them do, bytes: two segments of 8 Mbit/s, or a few of less.
const SHARE_BYTES: u64 = 8 * 1024 * 1024;
/// Up to this, an answer is worth more than it holds: playlists, parts, errors.
const SMALL_BYTES: u64 = 64 * 1024;

/// What all connections hold together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Holding {
    pub(crate) bytes: Gauge,
    pub(crate) bytes_max: u64,
    /// Answers refused because it is too much.
    pub(crate) shed: Counter,
}

/// The answers of one connection.
#[derive(Debug)]
pub(crate) struct Answers {
    age: AtomicU32,
    /// Of the answers that wait for the transport: how many moved last in each age.
    moved_in: [AtomicUsize; AGES],
    /// An answer has moved when this many more of its bytes were taken.
    step_bytes: u64,
    held: AtomicU64,
    all: Holding,
}

impl Answers {
    /// No answer yet. An answer has moved when `step_bytes` more of it were taken.
    pub(crate) fn new(step_bytes: u64, all: Holding) -> Self {
        let (age, held) = (AtomicU32::new(0), AtomicU64::new(0));
        Self { age, moved_in: Default::default(), step_bytes, held, all }
    }

    /// Whether an answer of so many bytes is too much, because all hold too much and this peer more than its share: then it
    /// is counted as refused.
    pub(crate) fn shed(&self, bytes: u64) -> bool {
        let shed = bytes > SMALL_BYTES
            && self.held.load(Relaxed) > SHARE_BYTES
            && u64::try_from(self.all.bytes.get()).is_ok_and(|all| all > self.all.bytes_max);
        self.all.shed.inc_by(shed.into());
        shed
    }

    /// Begins an age. Returns how many answers are stuck.
    pub(crate) fn next_age(&self) -> usize {
        let age = self.age.fetch_add(1, Relaxed).wrapping_add(1);
        self.moved_in(age.wrapping_sub(STUCK_AGES)).load(Relaxed)
    }

    fn moved_in(&self, age: u32) -> &AtomicUsize {
        &self.moved_in[age as usize % AGES]
    }
}

/// One answer of a connection.
#[derive(Debug)]
pub(crate) struct Answer {
    of: Arc<Answers>,
    held: AtomicU64,
    moving: Mutex<Moving>,
}

#[derive(Debug, Default)]
struct Moving {
    /// What of it waits for the transport.
    pieces: usize,
    /// When it moved last, or began to wait.
    age: u32,
    /// Bytes taken since then.
    taken: u64,
}

impl Answer {
    /// An answer of at least so many bytes.
    pub(crate) fn new(of: &Arc<Answers>, bytes: u64) -> Arc<Self> {
        let answer =
            Self { of: Arc::clone(of), held: AtomicU64::new(0), moving: Mutex::new(Moving::default()) };
        answer.holds(bytes);
        Arc::new(answer)
    }

    /// It has at least so many bytes, all in all.
    pub(crate) fn holds(&self, bytes: u64) {
        let more = bytes.saturating_sub(self.held.fetch_max(bytes, Relaxed));
        if more > 0 {
            self.of.held.fetch_add(more, Relaxed);
            self.of.all.bytes.inc_by(step(more));
        }
    }

    fn moving(&self) -> MutexGuard<'_, Moving> {
        self.moving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more piece of it waits for the transport.
    pub(crate) fn wait(&self) {
        let mut moving = self.moving();
        moving.pieces += 1;
        if moving.pieces == 1 {
            (moving.age, moving.taken) = (self.of.age.load(Relaxed), 0);
            self.of.moved_in(moving.age).fetch_add(1, Relaxed);
        }
    }

    /// The transport took so many bytes of it.
    pub(crate) fn took(&self, bytes: usize) {
        let mut moving = self.moving();
        moving.taken = moving.taken.saturating_add(bytes as u64);
        let now = self.of.age.load(Relaxed);
        if moving.pieces == 0 || moving.taken < self.of.step_bytes {
            return;
        }
        moving.taken = 0;
        if moving.age != now {
            self.of.moved_in(moving.age).fetch_sub(1, Relaxed);
            self.of.moved_in(now).fetch_add(1, Relaxed);
            moving.age = now;
        }
    }

    /// One piece less waits.
    pub(crate) fn done(&self) {
        let mut moving = self.moving();
        moving.pieces -= 1;
        if moving.pieces == 0 {
            self.of.moved_in(moving.age).fetch_sub(1, Relaxed);
        }
    }

    /// Whether it waits, and moved too long ago.
    pub(crate) fn is_stuck(&self) -> bool {
        let moving = self.moving();
        moving.pieces > 0 && self.of.age.load(Relaxed).wrapping_sub(moving.age) >= STUCK_AGES
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let held = self.held.load(Relaxed);
        self.of.held.fetch_sub(held, Relaxed);
        self.of.all.bytes.dec_by(step(held));
    }
}

fn step(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn answers() -> (Arc<Answers>, Gauge) {
        let all = Holding { bytes_max: 3 * SHARE_BYTES, ..Holding::default() };
        (Arc::new(Answers::new(100, all.clone())), all.bytes)
    }

    #[test]
    fn an_answer_that_does_not_move_is_stuck_whatever_others_do() {
        let (answers, _) = answers();
        let (unread, read) = (Answer::new(&answers, 5000), Answer::new(&answers, 5000));
        unread.wait();
        read.wait();
        for (age, stuck) in [(1, 0), (2, 0), (3, 1)] {
            read.took(100);
            unread.took(33);
            assert_eq!(answers.next_age(), stuck, "age {age}");
        }
        assert!(unread.is_stuck() && !read.is_stuck());
        unread.took(1);
        assert!(!unread.is_stuck(), "a step is a step, however long it took");
        unread.done();
        assert_eq!([(); 3].map(|()| answers.next_age()), [0, 1, 0], "the other one");
    }

    #[test]
    fn what_waits_for_its_source_is_not_stuck() {
        let (answers, _) = answers();
        let answer = Answer::new(&answers, 0);
        answer.wait();
        answer.done();
        assert!((0..10).all(|_| answers.next_age() == 0 && !answer.is_stuck()));
        answer.wait();
        assert!(!answer.is_stuck(), "it waits since now");
    }

    #[test]
    fn an_object_is_held_until_its_last_piece_is_gone() {
        let (answers, all) = answers();
        let (one, other) = (Answer::new(&answers, 5000), Answer::new(&answers, 0));
        other.holds(10);
        other.holds(7);
        assert_eq!((answers.held.load(Relaxed), all.get()), (5010, 5010));
        let piece = Arc::clone(&one);
        drop(one);
        assert_eq!(all.get(), 5010);
        drop((piece, other));
        assert_eq!((answers.held.load(Relaxed), all.get()), (0, 0));
    }

    #[test]
    fn who_holds_more_than_its_share_is_refused_more_when_all_hold_too_much() {
        let all = Holding { bytes_max: 3 * SHARE_BYTES, ..Holding::default() };
        let of = || Arc::new(Answers::new(100, all.clone()));
        let (greedy, other, third) = (of(), of(), of());
        let mut held = vec![Answer::new(&greedy, 2 * SHARE_BYTES), Answer::new(&other, SHARE_BYTES)];
        assert!(!greedy.shed(SHARE_BYTES), "there is room");
        held.push(Answer::new(&third, 1));
        assert!(greedy.shed(SHARE_BYTES) && !other.shed(SHARE_BYTES) && !third.shed(SHARE_BYTES));
        assert!(!greedy.shed(SMALL_BYTES), "a playlist costs nothing");
        held.remove(0);
        assert!(!greedy.shed(SHARE_BYTES));
        assert_eq!(all.shed.get(), 1);
    }

    proptest! {
        /// Whatever happens, the counts are those of the answers that wait, and nothing is left.
        #[test]
        fn counts_are_exact(acts in proptest::collection::vec((0_usize..4, 0_u8..5), 0..200)) {
            let (answers, all) = answers();
            let some: Vec<_> = (0..4).map(|n| Answer::new(&answers, n * 10)).collect();
            let mut pieces = [0_usize; 4];
            for (which, act) in acts {
                match act {
                    0 => { some[which].wait(); pieces[which] += 1; }
                    1 if pieces[which] > 0 => { some[which].done(); pieces[which] -= 1; }
                    2 => some[which].took(30),
                    3 => some[which].took(200),
                    _ => { answers.next_age(); }
                }
                let counted: usize = answers.moved_in.iter().map(|n| n.load(Relaxed)).sum();
                prop_assert_eq!(counted, pieces.iter().filter(|n| **n > 0).count());
            }
            for (answer, pieces) in some.iter().zip(pieces) {
                (0..pieces).for_each(|_| answer.done());
            }
            drop(some);
            prop_assert!(answers.moved_in.iter().all(|n| n.load(Relaxed) == 0));
            prop_assert_eq!((answers.held.load(Relaxed), all.get()), (0, 0));
        }
    }
}
