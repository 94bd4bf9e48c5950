//! What a viewer is going to do besides watching: seek, sleep, move to another edge or protocol, and leave.
//!
//! Decided at its beginning from a seed, so that a run can be repeated and a viewer that is going to vanish can prepare
//! for it. Invariant: acts are in order of time, nothing comes after leaving.
#![deny(clippy::disallowed_methods)]

use crate::dial::Protocol;
use crate::random::Random;
use crate::tally::Leaving;
use std::time::Duration;

/// Acts planned at most per session.
const ACTS_MAX: usize = 256;

/// What happens besides watching, how often per viewer and minute.
#[derive(Debug, Clone, Default)]
pub(crate) struct Conduct {
    pub(crate) seeks_per_minute: f64,
    /// How long a viewer stays where it sought to.
    pub(crate) seek_stay: Duration,
    pub(crate) sleeps_per_minute: f64,
    pub(crate) sleep: Duration,
    pub(crate) moves_per_minute: f64,
    /// Weights of HTTP/1.1, /2 and /3, of which a move chooses; all 0: it keeps its own.
    pub(crate) protocols: [f64; 3],
}

impl Conduct {
    fn protocol(&self, random: &mut Random) -> Option<Protocol> {
        let index = random.weighted(self.protocols.iter().copied()).min(2);
        let any = self.protocols.iter().any(|weight| *weight > 0.0);
        any.then_some([Protocol::H1, Protocol::H2, Protocol::H3][index])
    }
}

/// What a session's end is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stay<'a> {
    /// `None`: to the end of the run.
    pub(crate) length: Option<Duration>,
    pub(crate) leaving: Leaving,
    /// What is left of the run.
    pub(crate) horizon: Duration,
    /// When everybody at a place has to go, after the beginning of this session.
    pub(crate) exoduses: &'a [Duration],
}

/// One thing that a viewer does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Act {
    /// Back into the window: 0 is its start, 1 the live edge.
    Seek(f64),
    /// To the live edge.
    Live,
    Sleep,
    Wake,
    /// To the next edge, and over this protocol if there is a choice.
    Move(Option<Protocol>),
    /// Away, if the viewer is at a place that dies; the number of the exodus.
    Flee(usize),
    Leave(Leaving),
}

/// The acts of a session, each so long after its beginning.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Script(pub(crate) Vec<(Duration, Act)>);

impl Script {
    /// Acts after the end of the run are left out.
    pub(crate) fn new(conduct: &Conduct, stay: &Stay<'_>, random: &mut Random) -> Self {
        let length = stay.length.filter(|length| *length < stay.horizon);
        let end = length.unwrap_or(stay.horizon);
        let mut acts = Vec::new();
        for at in times(conduct.seeks_per_minute, end, random) {
            acts.push((at, Act::Seek(random.unit())));
            acts.push((at + conduct.seek_stay, Act::Live));
        }
        for at in times(conduct.sleeps_per_minute, end, random) {
            acts.push((at, Act::Sleep));
            acts.push((at + conduct.sleep, Act::Wake));
        }
        for at in times(conduct.moves_per_minute, end, random) {
            acts.push((at, Act::Move(conduct.protocol(random))));
        }
        acts.extend(stay.exoduses.iter().enumerate().map(|(number, at)| (*at, Act::Flee(number))));
        acts.retain(|(at, _)| *at < end);
        acts.sort_by_key(|(at, _)| *at);
        if length.is_some() {
            acts.push((end, Act::Leave(stay.leaving)));
        }
        Self(acts)
    }

    /// Whether it ends in a black hole.
    pub(crate) fn vanishes(&self) -> bool {
        matches!(self.0.last(), Some((_, Act::Leave(Leaving::Vanish))))
    }
}

fn times(per_minute: f64, end: Duration, random: &mut Random) -> Vec<Duration> {
    let mut times = Vec::new();
    let mut at = 0.0;
    while per_minute > 0.0 && times.len() < ACTS_MAX {
        at += 60.0 / per_minute * random.exponential();
        if at >= end.as_secs_f64() {
            break;
        }
        times.push(Duration::from_secs_f64(at));
    }
    times
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lively() -> Conduct {
        Conduct {
            seeks_per_minute: 2.0,
            sleeps_per_minute: 1.0,
            moves_per_minute: 1.0,
            protocols: [1.0, 1.0, 1.0],
            ..Conduct::default()
        }
    }

    fn stay(length_s: Option<u64>, horizon_s: u64) -> Stay<'static> {
        const EXODUSES: [Duration; 2] = [Duration::from_secs(20), Duration::from_secs(70)];
        Stay {
            length: length_s.map(Duration::from_secs),
            leaving: Leaving::Vanish,
            horizon: Duration::from_secs(horizon_s),
            exoduses: &EXODUSES,
        }
    }

    proptest! {
        #[test]
        fn in_order_and_nothing_after_leaving(seed in any::<u64>(), length in 1u64..200) {
            let script = Script::new(&lively(), &stay(Some(length), 120), &mut Random::new(seed, 1));
            prop_assert!(script.0.is_sorted_by_key(|(at, _)| *at));
            let leaves = script.0.iter().position(|(_, act)| matches!(act, Act::Leave(_)));
            prop_assert!(leaves.is_none_or(|at| at + 1 == script.0.len()));
            prop_assert_eq!(script.vanishes(), length < 120);
            prop_assert!(script.0.iter().all(|(at, _)| at.as_secs() < 120));
            prop_assert_eq!(&script, &Script::new(&lively(), &stay(Some(length), 120), &mut Random::new(seed, 1)));
        }
    }

    #[test]
    fn as_often_as_said() {
        let (mut seeks, mut flights) = (0, 0);
        for seed in 0..2_000 {
            let script = Script::new(&lively(), &stay(Some(60), 10_000), &mut Random::new(seed, 1));
            seeks += script.0.iter().filter(|(_, act)| matches!(act, Act::Seek(_))).count();
            flights += script.0.iter().filter(|(_, act)| matches!(act, Act::Flee(_))).count();
        }
        assert!((3_800..4_200).contains(&seeks), "two a minute, a minute long: {seeks}");
        assert_eq!(flights, 2_000, "one of the two while they are there");
        let quiet = Stay { exoduses: &[], ..stay(None, 60) };
        assert_eq!(Script::new(&Conduct::default(), &quiet, &mut Random::new(1, 1)).0, []);
    }
}
