//! Who comes when, where to, for how long, and how each leaves: a scenario as a sequence of arrivals.
//!
//! Invariants: arrivals are in order of time; each phase has exactly as many as it says, within it; the same scenario
//! and seed give the same sequence; targets get their shares to within one viewer at any time. Nothing is kept but the
//! state of the draw, so a million arrivals need no memory.
#![deny(clippy::disallowed_methods)]

use super::{Arrivals, Leavings, Length, PhaseKind, Protocols, Scenario};
use crate::dial::Protocol;
use crate::random::Random;
use crate::tally::Leaving;
use std::time::Duration;

/// One playback session that is going to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Arrival {
    /// From 0, in the order of coming.
    pub(crate) index: u64,
    /// After the start of the run.
    pub(crate) at: Duration,
    pub(crate) phase: usize,
    pub(crate) target: usize,
    /// `None`: to the end of the run.
    pub(crate) stay: Option<Duration>,
    /// How it leaves if it does before the end.
    pub(crate) leaving: Leaving,
    /// `None`: what the URL suggests.
    pub(crate) protocol: Option<Protocol>,
    /// Which token it uses; to be taken modulo their number.
    pub(crate) token: u64,
    /// For everything else that it does.
    pub(crate) seed: u64,
}

/// Everybody at `from` goes to one of `to`, by turns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Exodus {
    pub(crate) at: Duration,
    pub(crate) from: usize,
    pub(crate) to: Vec<usize>,
}

/// The arrivals of a scenario. From the moment of an exodus on, nobody arrives where it was from.
pub(crate) fn plan(scenario: &Scenario, seed: u64) -> impl Iterator<Item = Arrival> + '_ {
    let mut draw = Draw::new(scenario, seed);
    std::iter::from_fn(move || draw.next())
}

/// The deaths of POPs in a scenario, in order.
pub(crate) fn exoduses(scenario: &Scenario) -> Vec<Exodus> {
    let mut at = Duration::ZERO;
    let mut deaths: Vec<Exodus> = Vec::new();
    for phase in &scenario.phases {
        if let (PhaseKind::PopDeath, Some(from)) = (phase.kind, phase.from) {
            let mut to = scenario.elsewhere(from);
            to.retain(|target| deaths.iter().all(|death| death.from != *target));
            deaths.push(Exodus { at, from, to });
        }
        at += phase.duration();
    }
    deaths
}

struct Draw<'a> {
    scenario: &'a Scenario,
    times: Random,
    rest: Random,
    turns: Turns,
    phase: usize,
    phase_start: Duration,
    /// Came in this phase, and when the last one did, as a share of it.
    came: u64,
    last: f64,
    index: u64,
}

impl<'a> Draw<'a> {
    fn new(scenario: &'a Scenario, seed: u64) -> Self {
        let mut draw = Self {
            scenario,
            // Apart, so that another length of sessions does not move the arrivals.
            times: Random::new(seed, 1),
            rest: Random::new(seed, 2),
            turns: Turns::new(scenario.targets.iter().map(|target| target.weight)),
            phase: 0,
            phase_start: Duration::ZERO,
            came: 0,
            last: 0.0,
            index: 0,
        };
        draw.begin_phase();
        draw
    }

    fn begin_phase(&mut self) {
        let Some(phase) = self.scenario.phases.get(self.phase) else { return };
        if let (PhaseKind::PopDeath, Some(from)) = (phase.kind, phase.from) {
            self.turns.leave_out(from);
        }
    }

    fn next(&mut self) -> Option<Arrival> {
        let scenario = self.scenario;
        let phase = loop {
            let phase = scenario.phases.get(self.phase)?;
            if self.came < phase.viewers {
                break phase;
            }
            self.phase_start += phase.duration();
            self.phase += 1;
            (self.came, self.last) = (0, 0.0);
            self.begin_phase();
        };
        self.last = match phase.arrivals() {
            Arrivals::Linear => self.came as f64 / phase.viewers as f64,
            Arrivals::AtOnce => 0.0,
            // The smallest of so many that are spread evenly over what is left.
            Arrivals::Poisson => {
                let left = (phase.viewers - self.came) as f64;
                let step = 1.0 - (1.0 - self.times.unit()).powf(1.0 / left);
                (self.last + (1.0 - self.last) * step).min(1.0)
            }
        };
        let viewers = &scenario.viewers;
        let arrival = Arrival {
            index: self.index,
            at: self.phase_start + phase.duration().mul_f64(self.last),
            phase: self.phase,
            target: self.turns.next(),
            stay: stay(phase.length.unwrap_or(viewers.length), &mut self.rest),
            leaving: leaving(&viewers.leaving, &mut self.rest),
            protocol: protocol(viewers.protocols, &mut self.rest),
            token: self.index / u64::from(viewers.tabs_per_token.max(1)),
            seed: self.rest.next(),
        };
        self.came += 1;
        self.index += 1;
        Some(arrival)
    }
}

fn stay(length: Length, random: &mut Random) -> Option<Duration> {
    // Drawn in any case, so that what follows does not depend on the kind.
    let (unit, exponential) = (random.unit(), random.exponential());
    let seconds = match length {
        Length::Whole => return None,
        Length::Fixed { seconds } => seconds,
        Length::Exponential { mean_seconds } => mean_seconds * exponential,
        Length::Uniform { min_seconds, max_seconds } => min_seconds + (max_seconds - min_seconds) * unit,
    };
    Some(Duration::from_secs_f64(seconds.clamp(0.0, 1e7)))
}

fn leaving(weights: &Leavings, random: &mut Random) -> Leaving {
    let ways = [weights.close, weights.reset, weights.vanish, weights.sleep];
    [Leaving::Close, Leaving::Reset, Leaving::Vanish, Leaving::Sleep]
        [random.weighted(ways.into_iter()).min(3)]
}

fn protocol(weights: Protocols, random: &mut Random) -> Option<Protocol> {
    let all = [weights.h1, weights.h2, weights.h3];
    let index = random.weighted(all.into_iter()).min(2);
    (all.iter().sum::<f64>() > 0.0).then_some([Protocol::H1, Protocol::H2, Protocol::H3][index])
}

/// Turns by weight: at any time each has had its share, to within one.
struct Turns(Vec<(f64, f64)>);

impl Turns {
    fn new(weights: impl Iterator<Item = f64>) -> Self {
        Self(weights.map(|weight| (weight, 0.0)).collect())
    }

    fn leave_out(&mut self, index: usize) {
        if let Some(turn) = self.0.get_mut(index) {
            *turn = (0.0, 0.0);
        }
        // Where nobody with a weight is left, all that live share.
        if self.0.iter().all(|(weight, _)| *weight <= 0.0) {
            for (other, turn) in self.0.iter_mut().enumerate() {
                turn.0 = if other == index { 0.0 } else { 1.0 };
            }
        }
    }

    fn next(&mut self) -> usize {
        let sum: f64 = self.0.iter().map(|(weight, _)| weight).sum();
        let mut best = 0;
        for index in 0..self.0.len() {
            let (weight, credit) = &mut self.0[index];
            *credit += *weight;
            if *weight > 0.0 && (self.0[index].1 > self.0[best].1 || self.0[best].0 <= 0.0) {
                best = index;
            }
        }
        if let Some((_, credit)) = self.0.get_mut(best) {
            *credit -= sum;
        }
        best
    }
}
