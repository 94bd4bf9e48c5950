//! Which upstream is well, and which one is asked first: circuit breakers and fail-back.
//!
//! ```text
//! Closed --failures--> Open --retry time--> HalfOpen --answer--> Closed
//!                        ^-------failure-------/
//! ```
//!
//! Invariants: an upstream that is not well is asked only when no other is, or to find out; requests go back to a
//! preferred upstream only after it was well for a while, and for longer each time it failed again, so that a flapping
//! one does not take the viewers with it. Deliberately absent: clock, sockets and randomness; they are arguments.
#![deny(clippy::disallowed_methods)]

use std::time::{Duration, Instant};

/// What makes a breaker open, summed over failures without a success in between.
const WEIGHT_MAX: u32 = 3;
/// The first rest before an upstream that is not well is tried again.
const REST_MIN: Duration = Duration::from_millis(50);
/// The longest a preferred upstream has to be well before requests go back to it.
const FAILBACK_MAX: Duration = Duration::from_secs(60);

/// What went wrong with an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// No connection can be made.
    Connect,
    /// A probe had no good answer in time.
    Probe,
    /// A request had no answer in time.
    Timeout,
    /// Another upstream had answered first, by far.
    Late,
    /// It answered that it failed (5xx).
    Status,
    /// The answer broke off.
    Broken,
}

impl Fault {
    fn weight(self) -> u32 {
        match self {
            Self::Connect => WEIGHT_MAX,
            Self::Probe => 2,
            Self::Timeout | Self::Late | Self::Status | Self::Broken => 1,
        }
    }

    /// Whether it says that nothing will be answered, rather than that one answer was bad.
    fn is_silence(self) -> bool {
        matches!(self, Self::Connect | Self::Probe)
    }
}

/// The circuit to one upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Circuit {
    /// Well.
    Closed,
    /// Not well, and not to be tried before this.
    Open(Instant),
    /// Being tried.
    HalfOpen,
}

#[derive(Debug, Clone)]
struct Breaker {
    circuit: Circuit,
    connected: bool,
    /// Of what requests met with.
    weight: u32,
    /// Of what probes met with.
    probe_weight: u32,
    /// Failed attempts to close it again.
    failures: u32,
    /// Open because it is silent: what waits for it waits in vain.
    silent: bool,
    /// Well without interruption since then; `None` when it never failed.
    well_since: Option<Instant>,
    last_success: Option<Instant>,
}

/// How patient a [`Board`] is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// The longest rest between tries of an upstream that is not well.
    pub(crate) rest_max: Duration,
    /// How long a preferred upstream has to be well before requests go back to it.
    pub(crate) failback_after: Duration,
}

/// Whom to ask, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Order {
    /// All upstreams.
    pub(crate) ranked: Vec<usize>,
    /// So many of them are well.
    pub(crate) healthy: usize,
    /// The one whose "there is no such thing" is the truth; none for a while after the requests moved.
    pub(crate) authority: Option<usize>,
}

impl Order {
    /// Asks this one after all others.
    pub(crate) fn put_last(&mut self, upstream: usize) {
        let Some(place) = self.ranked.iter().position(|other| *other == upstream) else { return };
        self.ranked.remove(place);
        self.ranked.push(upstream);
        if place < self.healthy && self.ranked.len() > 1 {
            self.healthy -= 1;
        }
    }
}

/// All upstreams, in order of preference.
#[derive(Debug)]
pub(crate) struct Board {
    breakers: Vec<Breaker>,
    rules: Rules,
    active: usize,
    moved_at: Option<Instant>,
    /// When requests last went back to a preferred one, and how often that was too early.
    failed_back_at: Option<Instant>,
    relapses: u32,
}

impl Board {
    /// Upstreams that nothing is known of yet; the first is asked first.
    pub(crate) fn new(upstreams: usize, rules: Rules) -> Self {
        let unknown = Breaker {
            circuit: Circuit::Closed,
            connected: false,
            weight: 0,
            probe_weight: 0,
            failures: 0,
            silent: false,
            well_since: None,
            last_success: None,
        };
        Self {
            breakers: vec![unknown; upstreams],
            rules,
            active: 0,
            moved_at: None,
            failed_back_at: None,
            relapses: 0,
        }
    }

    /// There is a connection, or there is none any more.
    pub(crate) fn connected(&mut self, upstream: usize, connected: bool) {
        let breaker = &mut self.breakers[upstream];
        breaker.connected = connected;
        // A new connection is news: one that was silent is tried at once.
        if connected && breaker.silent {
            breaker.circuit = Circuit::HalfOpen;
        }
    }

    /// It answered a request.
    pub(crate) fn succeeded(&mut self, upstream: usize, now: Instant) {
        self.breakers[upstream].weight = 0;
        self.probed(upstream, now);
    }

    /// It answered a probe. That says nothing about requests which it answers late or badly.
    pub(crate) fn probed(&mut self, upstream: usize, now: Instant) {
        let breaker = &mut self.breakers[upstream];
        breaker.probe_weight = 0;
        breaker.failures = 0;
        breaker.silent = false;
        breaker.last_success = Some(now);
        if breaker.circuit != Circuit::Closed {
            breaker.circuit = Circuit::Closed;
            breaker.weight = 0;
            breaker.well_since = Some(now);
        }
    }

    /// It did not. `jitter` is any random number.
    pub(crate) fn failed(&mut self, upstream: usize, fault: Fault, now: Instant, jitter: u64) {
        let rest_max = self.rules.rest_max;
        let breaker = &mut self.breakers[upstream];
        breaker.well_since = Some(now);
        breaker.silent |= breaker.circuit != Circuit::Closed && fault.is_silence();
        match breaker.circuit {
            // Answers to what was asked before say nothing new.
            Circuit::Open(_) if !fault.is_silence() => return,
            Circuit::Closed => {
                let weight = if fault.is_silence() { &mut breaker.probe_weight } else { &mut breaker.weight };
                *weight += fault.weight();
                if *weight < WEIGHT_MAX {
                    return;
                }
                breaker.silent = fault.is_silence();
            }
            Circuit::Open(_) | Circuit::HalfOpen => {}
        }
        breaker.failures = breaker.failures.saturating_add(1);
        breaker.circuit = Circuit::Open(now + rest(breaker.failures, rest_max, jitter));
    }

    /// Whether the upstream may be tried now; it is half open from then on. One that is well may always.
    pub(crate) fn may_probe(&mut self, upstream: usize, now: Instant) -> bool {
        let breaker = &mut self.breakers[upstream];
        if let Circuit::Open(until) = breaker.circuit {
            if now < until {
                return false;
            }
            breaker.circuit = Circuit::HalfOpen;
        }
        true
    }

    /// When to ask the upstream something to know how it is: `interval` after its last answer, or when its circuit
    /// may be tried.
    pub(crate) fn probe_at(&self, upstream: usize, interval: Duration, now: Instant) -> Instant {
        let breaker = &self.breakers[upstream];
        match breaker.circuit {
            Circuit::Open(until) => until,
            Circuit::HalfOpen => now,
            // A failure since makes it urgent.
            Circuit::Closed if breaker.probe_weight > 0 => now,
            Circuit::Closed => breaker.last_success.map_or(now, |at| at + interval),
        }
    }

    /// The circuit to an upstream.
    pub(crate) fn circuit(&self, upstream: usize) -> Circuit {
        self.breakers[upstream].circuit
    }

    /// Whether waiting for an answer of this upstream is in vain.
    pub(crate) fn is_silent(&self, upstream: usize) -> bool {
        self.breakers[upstream].silent
    }

    /// Whether there is a connection.
    pub(crate) fn is_connected(&self, upstream: usize) -> bool {
        self.breakers[upstream].connected
    }

    /// Whether requests should go to this upstream.
    pub(crate) fn is_healthy(&self, upstream: usize) -> bool {
        let breaker = &self.breakers[upstream];
        breaker.connected && breaker.circuit == Circuit::Closed
    }

    /// Whether the upstream is connected, well and answered after `since`.
    pub(crate) fn is_fresh(&self, upstream: usize, since: Instant) -> bool {
        self.is_healthy(upstream) && self.has_answered(upstream, since)
    }

    /// Whether the upstream answered anything after `since`.
    pub(crate) fn has_answered(&self, upstream: usize, since: Instant) -> bool {
        self.breakers[upstream].last_success.is_some_and(|at| at >= since)
    }

    /// Whom requests go to first.
    pub(crate) fn active(&self) -> usize {
        self.active
    }

    /// Whom to ask now. Moves the requests to another upstream when it is time to.
    pub(crate) fn order(&mut self, now: Instant) -> Order {
        self.settle(now);
        let healthy = |upstream: &usize| self.is_healthy(*upstream);
        let others = || (0..self.breakers.len()).filter(|upstream| *upstream != self.active);
        let mut ranked = Vec::with_capacity(self.breakers.len());
        ranked.extend(Some(self.active).filter(healthy));
        ranked.extend(others().filter(healthy));
        let healthy_count = ranked.len();
        ranked.extend(Some(self.active).filter(|upstream| !healthy(upstream)));
        ranked.extend(others().filter(|upstream| !healthy(upstream)));
        let settled =
            self.moved_at.is_none_or(|at| now.saturating_duration_since(at) >= self.rules.failback_after);
        let alone = self.breakers.len() == 1;
        Order { ranked, healthy: healthy_count, authority: (alone || settled).then_some(self.active) }
    }

    fn settle(&mut self, now: Instant) {
        let first_well = (0..self.breakers.len()).find(|upstream| self.is_healthy(*upstream));
        let Some(first_well) = first_well else { return };
        if !self.is_healthy(self.active) {
            let relapsed =
                self.failed_back_at.is_some_and(|at| now.saturating_duration_since(at) < FAILBACK_MAX);
            self.relapses = if relapsed { self.relapses.saturating_add(1) } else { 0 };
            self.move_to(first_well, now);
            return;
        }
        let wait = self.failback_wait();
        let preferred = (0..self.active).find(|upstream| {
            let well_since = self.breakers[*upstream].well_since;
            self.is_healthy(*upstream)
                && well_since.is_none_or(|since| now.saturating_duration_since(since) >= wait)
        });
        if let Some(preferred) = preferred {
            // The first move to one that never failed is the start, not a return.
            let returned = self.breakers[preferred].well_since.is_some();
            self.move_to(preferred, now);
            if returned {
                self.failed_back_at = Some(now);
            } else {
                self.moved_at = None;
            }
        }
    }

    fn failback_wait(&self) -> Duration {
        let doubled = self.rules.failback_after.saturating_mul(1 << self.relapses.min(16));
        doubled.min(FAILBACK_MAX.max(self.rules.failback_after))
    }

    fn move_to(&mut self, upstream: usize, now: Instant) {
        self.active = upstream;
        self.moved_at = Some(now);
    }
}

/// The rest after so many failures in a row: doubling up to `max`, half of it random.
pub(crate) fn rest(failures: u32, max: Duration, jitter: u64) -> Duration {
    let full = REST_MIN.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(max);
    let half_ms = u64::try_from(full.as_millis() / 2).unwrap_or(u64::MAX);
    Duration::from_millis(half_ms + jitter % (half_ms + 1))
}

#[cfg(test)]
mod tests;
