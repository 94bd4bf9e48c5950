//! What a viewer is going to do besides watching: seek, sleep, move to another edge or protocol, and leave.
//!
//! Decided at its beginning from a seed, so that a run can be repeated and a viewer that is going to vanish can prepare
//! for it. Invariant: acts are in order of time, nothing comes after leaving.
#![deny(clippy::disallowed_methods)]

use crate::dial::Protocol;
use crate::random::Random;
use crate::tally::Leaving;
use std::time::Duration;

/// What happens besides watching, how often per viewer and minute.
#[derive(Debug, Clone, Default, PartialEq)]
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

/// When something happens again and again, at random, until the end.
#[derive(Debug, Clone, PartialEq)]
struct Times {
    per_minute: f64,
    /// The next time, in seconds; `None`: never again.
    next_s: Option<f64>,
    random: Random,
}

impl Times {
    fn new(per_minute: f64, random: Random) -> Self {
        let mut times = Self { per_minute, next_s: Some(0.0), random };
        times.pass();
        times
    }

    /// The next time is over.
    fn pass(&mut self) {
        let gap_s = 60.0 / self.per_minute * self.random.exponential();
        // An end that no session comes to.
        let next_s = self.next_s.map(|at| at + gap_s).filter(|at| self.per_minute > 0.0 && *at < 1e9);
        self.next_s = next_s;
    }

    fn next(&self) -> Option<Duration> {
        self.next_s.map(Duration::from_secs_f64)
    }
}

/// The acts of a session, each so long after its beginning: worked out one by one, so that a day of them takes no memory.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Script {
    conduct: Conduct,
    seeks: Times,
    sleeps: Times,
    moves: Times,
    /// Draws what acts are like.
    random: Random,
    /// When it is back from the last seek, and awake again.
    live: Option<Duration>,
    wake: Option<Duration>,
    exoduses: Vec<Duration>,
    fled: usize,
    end: Duration,
    /// How it leaves, if it does before the run ends.
    leaving: Option<Leaving>,
    left: bool,
}

impl Script {
    /// Acts after the end of the run are left out.
    pub(crate) fn new(conduct: &Conduct, stay: &Stay<'_>, random: &mut Random) -> Self {
        let length = stay.length.filter(|length| *length < stay.horizon);
        let mut fork = || Random::new(random.next(), 1);
        Self {
            seeks: Times::new(conduct.seeks_per_minute, fork()),
            sleeps: Times::new(conduct.sleeps_per_minute, fork()),
            moves: Times::new(conduct.moves_per_minute, fork()),
            random: fork(),
            conduct: conduct.clone(),
            live: None,
            wake: None,
            exoduses: stay.exoduses.to_vec(),
            fled: 0,
            end: length.unwrap_or(stay.horizon),
            leaving: length.map(|_| stay.leaving),
            left: false,
        }
    }

    /// Whether it ends in a black hole.
    pub(crate) fn vanishes(&self) -> bool {
        self.leaving == Some(Leaving::Vanish)
    }

    /// When the next act is.
    pub(crate) fn next_at(&self) -> Option<Duration> {
        let leaves = self.leaving.filter(|_| !self.left).map(|_| self.end);
        self.kinds().into_iter().flatten().filter(|at| *at < self.end).min().or(leaves)
    }

    /// By kind, the next time of each; those of a kind that comes first here go first.
    fn kinds(&self) -> [Option<Duration>; 6] {
        let flight = self.exoduses.get(self.fled).copied();
        [self.live, self.wake, self.seeks.next(), self.sleeps.next(), self.moves.next(), flight]
    }
}

/// The acts in order. Who seeks again before it is back stays on where it went; who is asleep does not fall asleep.
impl Iterator for Script {
    type Item = (Duration, Act);

    fn next(&mut self) -> Option<(Duration, Act)> {
        loop {
            let at = self.next_at()?;
            let act = match self.kinds().iter().position(|next| *next == Some(at) && at < self.end) {
                Some(0) => {
                    self.live = None;
                    Act::Live
                }
                Some(1) => {
                    self.wake = None;
                    Act::Wake
                }
                Some(2) => {
                    self.seeks.pass();
                    self.live = Some(at + self.conduct.seek_stay);
                    Act::Seek(self.random.unit())
                }
                Some(3) => {
                    self.sleeps.pass();
                    if self.wake.is_some() {
                        continue;
                    }
                    self.wake = Some(at + self.conduct.sleep);
                    Act::Sleep
                }
                Some(4) => {
                    self.moves.pass();
                    Act::Move(self.conduct.protocol(&mut self.random))
                }
                Some(_) => {
                    self.fled += 1;
                    Act::Flee(self.fled - 1)
                }
                None => {
                    self.left = true;
                    Act::Leave(self.leaving?)
                }
            };
            return Some((at, act));
        }
    }
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
            sleep: Duration::from_secs(10),
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
            prop_assert_eq!(script.vanishes(), length < 120);
            let acts: Vec<_> = script.collect();
            prop_assert!(acts.is_sorted_by_key(|(at, _)| *at));
            let leaves = acts.iter().position(|(_, act)| matches!(act, Act::Leave(_)));
            prop_assert!(leaves.is_none_or(|at| at + 1 == acts.len()) && leaves.is_some() == (length < 120));
            prop_assert!(acts.iter().all(|(at, _)| at.as_secs() < 120));
            let again = Script::new(&lively(), &stay(Some(length), 120), &mut Random::new(seed, 1));
            prop_assert_eq!(&acts, &again.collect::<Vec<_>>());
            // Back and forth by turns, whatever is drawn.
            let of = |kinds: fn(&Act) -> bool| acts.iter().map(|(_, act)| *act).filter(kinds).collect::<Vec<_>>();
            let naps = of(|act| matches!(act, Act::Sleep | Act::Wake));
            prop_assert!(naps.chunks(2).all(|two| two[0] == Act::Sleep && two.get(1).is_none_or(|b| *b == Act::Wake)));
            let seeks = of(|act| matches!(act, Act::Seek(_) | Act::Live));
            prop_assert!(seeks.windows(2).all(|two| two != [Act::Live; 2]) && seeks.first() != Some(&Act::Live));
        }
    }

    #[test]
    fn a_day_is_as_lively_at_its_end_as_at_its_beginning() {
        let day = 86_400;
        let script = Script::new(&lively(), &stay(None, day), &mut Random::new(7, 1));
        let acts: Vec<_> = script.collect();
        let late = |wanted: fn(&Act) -> bool| {
            acts.iter().filter(|(at, act)| at.as_secs() > day - 6_000 && wanted(act)).count()
        };
        for (count, expected) in
            [(late(|act| matches!(act, Act::Seek(_))), 200), (late(|act| matches!(act, Act::Move(_))), 100)]
        {
            assert!(count.abs_diff(expected) < expected / 2, "{count} of {expected}");
        }
        let naps = acts.iter().filter(|(_, act)| *act == Act::Sleep).count();
        assert!(
            (1_100..1_370).contains(&naps),
            "one a minute, but none while asleep for ten seconds: {naps}"
        );
    }

    #[test]
    fn as_often_as_said() {
        let (mut seeks, mut flights) = (0, 0);
        for seed in 0..2_000 {
            let acts: Vec<_> =
                Script::new(&lively(), &stay(Some(60), 10_000), &mut Random::new(seed, 1)).collect();
            seeks += acts.iter().filter(|(_, act)| matches!(act, Act::Seek(_))).count();
            flights += acts.iter().filter(|(_, act)| matches!(act, Act::Flee(_))).count();
        }
        assert!((3_800..4_200).contains(&seeks), "two a minute, a minute long: {seeks}");
        assert_eq!(flights, 2_000, "one of the two while they are there");
        let quiet = Stay { exoduses: &[], ..stay(None, 60) };
        assert_eq!(Script::new(&Conduct::default(), &quiet, &mut Random::new(1, 1)).next(), None);
    }
}
