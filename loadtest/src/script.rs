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

/// How long a session lasts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Length {
    /// To the end of the run.
    Whole,
    Fixed(Duration),
    /// By its mean.
    Exponential(Duration),
    /// By its median and the standard deviation of the logarithm.
    LogNormal(Duration, f64),
}

impl Length {
    fn draw(self, random: &mut Random) -> Option<Duration> {
        match self {
            Self::Whole => None,
            Self::Fixed(length) => Some(length),
            Self::Exponential(mean) => Some(mean.mul_f64(random.exponential())),
            Self::LogNormal(median, sigma) => {
                Some(Duration::from_secs_f64(random.log_normal(median.as_secs_f64(), sigma).min(1e7)))
            }
        }
    }
}

/// What happens besides watching, how often per viewer and minute, and how sessions end.
#[derive(Debug, Clone)]
pub(crate) struct Conduct {
    pub(crate) length: Length,
    /// Weights of leaving with close, reset and vanish.
    pub(crate) leaving: [f64; 3],
    pub(crate) seeks_per_minute: f64,
    /// How long a viewer stays where it sought to.
    pub(crate) seek_stay: Duration,
    pub(crate) sleeps_per_minute: f64,
    pub(crate) sleep: Duration,
    pub(crate) moves_per_minute: f64,
    /// Weights of HTTP/1.1, /2 and /3; a move chooses anew.
    pub(crate) protocols: [f64; 3],
}

impl Conduct {
    /// Watches over one protocol to the end.
    pub(crate) fn steady(protocol: Protocol) -> Self {
        let mut protocols = [0.0; 3];
        protocols[protocol as usize] = 1.0;
        Self {
            length: Length::Whole,
            leaving: [1.0, 0.0, 0.0],
            seeks_per_minute: 0.0,
            seek_stay: Duration::from_secs(5),
            sleeps_per_minute: 0.0,
            sleep: Duration::from_secs(10),
            moves_per_minute: 0.0,
            protocols,
        }
    }

    pub(crate) fn protocol(&self, random: &mut Random) -> Protocol {
        [Protocol::H1, Protocol::H2, Protocol::H3][random.weighted(self.protocols.iter().copied()).min(2)]
    }
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
    /// To the next edge, and over this protocol.
    Move(Protocol),
    Leave(Leaving),
}

/// The acts of a session, each so long after its beginning.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Script(pub(crate) Vec<(Duration, Act)>);

impl Script {
    /// Acts after `horizon` are left out; the run is over by then.
    pub(crate) fn new(conduct: &Conduct, horizon: Duration, random: &mut Random) -> Self {
        let length = conduct.length.draw(random).filter(|length| *length < horizon);
        let end = length.unwrap_or(horizon);
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
        acts.retain(|(at, _)| *at < end);
        acts.sort_by_key(|(at, _)| *at);
        let how = random.weighted(conduct.leaving.iter().copied());
        if length.is_some() {
            acts.push((end, Act::Leave([Leaving::Close, Leaving::Reset, Leaving::Vanish][how.min(2)])));
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
            length: Length::Exponential(Duration::from_secs(60)),
            leaving: [1.0, 1.0, 2.0],
            seeks_per_minute: 2.0,
            sleeps_per_minute: 1.0,
            moves_per_minute: 1.0,
            protocols: [1.0, 1.0, 1.0],
            ..Conduct::steady(Protocol::H2)
        }
    }

    proptest! {
        #[test]
        fn in_order_and_nothing_after_leaving(seed in any::<u64>()) {
            let horizon = Duration::from_secs(120);
            let script = Script::new(&lively(), horizon, &mut Random::new(seed, 1));
            prop_assert!(script.0.is_sorted_by_key(|(at, _)| *at));
            let leaves = script.0.iter().position(|(_, act)| matches!(act, Act::Leave(_)));
            prop_assert!(leaves.is_none_or(|at| at + 1 == script.0.len()));
            prop_assert!(script.0.iter().all(|(at, _)| *at < horizon));
            prop_assert_eq!(&script, &Script::new(&lively(), horizon, &mut Random::new(seed, 1)));
        }
    }

    #[test]
    fn as_often_as_said() {
        let (mut seeks, mut left, mut vanished) = (0, 0, 0);
        for seed in 0..2_000 {
            let script = Script::new(&lively(), Duration::from_secs(10_000), &mut Random::new(seed, 1));
            seeks += script.0.iter().filter(|(_, act)| matches!(act, Act::Seek(_))).count();
            left += usize::from(matches!(script.0.last(), Some((_, Act::Leave(_)))));
            vanished += usize::from(script.vanishes());
        }
        assert_eq!(left, 2_000);
        assert!((900..1_100).contains(&vanished), "{vanished}");
        assert!((3_700..4_300).contains(&seeks), "two a minute, a minute long: {seeks}");
        let quiet = Script::new(&Conduct::steady(Protocol::H1), Duration::from_secs(60), &mut Random::new(1, 1));
        assert_eq!(quiet.0, []);
    }
}
