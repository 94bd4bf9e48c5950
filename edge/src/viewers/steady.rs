//! The clock that viewers are counted by: it runs as the monotonic one and stays with the wall clock.
//!
//! Invariants: it is never set while it counts; what drifts apart is made good so slowly that no presence is longer or shorter
//! for it than by a fiftieth. A wall clock that was set (by hand, by time synchronisation, over a suspended machine) is followed in one
//! turn, once it has stayed where it is for a while: whoever counts ends everything before the turn by the old time, and
//! goes on by the new one. Pure.
#![deny(clippy::disallowed_methods)]

/// Within this many milliseconds the clocks are drawn together; what is further apart was set.
const NEAR_MS: i64 = 1_000;
/// Of so many milliseconds one is made good.
const SLEW_ONE_IN: u64 = 50;
/// A wall clock that was set is followed after so many milliseconds: it may be set back at once.
const SETTLED_MS: u64 = 10_000;

/// How to get from the monotonic clock to Unix time, milliseconds.
pub(super) type Offset = i64;

/// What is to be done after a look at the clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// It goes on by this.
    Goes(Offset),
    /// The wall clock was set: what is counted ends by the offset until now, and begins anew by this one.
    Turns(Offset),
}

#[derive(Debug, Clone, Copy)]
struct Apart {
    by_ms: i64,
    since_ms: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Steady {
    offset_ms: Offset,
    looked_ms: u64,
    apart: Option<Apart>,
}

/// Unix milliseconds of a moment of the monotonic clock.
pub(super) fn unix_ms(monotonic_ms: u64, offset_ms: Offset) -> u64 {
    monotonic_ms.saturating_add_signed(offset_ms)
}

impl Steady {
    /// As the wall clock at this moment; milliseconds of both.
    pub(super) fn new(monotonic_ms: u64, wall_ms: u64) -> Self {
        let offset_ms = difference(wall_ms, monotonic_ms);
        Self { offset_ms, looked_ms: monotonic_ms, apart: None }
    }

    /// How to get to Unix time until the next look.
    pub(super) fn offset_ms(&self) -> Offset {
        self.offset_ms
    }

    /// Looks at both clocks.
    pub(super) fn look(&mut self, monotonic_ms: u64, wall_ms: u64) -> Look {
        let elapsed_ms = monotonic_ms.saturating_sub(self.looked_ms);
        self.looked_ms = self.looked_ms.max(monotonic_ms);
        let by_ms = difference(wall_ms, unix_ms(monotonic_ms, self.offset_ms));
        if by_ms.abs() <= NEAR_MS {
            self.apart = None;
            let most_ms = i64::try_from(elapsed_ms / SLEW_ONE_IN).unwrap_or(NEAR_MS).min(NEAR_MS);
            self.offset_ms += by_ms.clamp(-most_ms, most_ms);
            return Look::Goes(self.offset_ms);
        }
        let stays = self.apart.filter(|apart| by_ms.abs_diff(apart.by_ms) <= NEAR_MS.unsigned_abs());
        let apart = *self.apart.insert(stays.unwrap_or(Apart { by_ms, since_ms: monotonic_ms }));
        if monotonic_ms.saturating_sub(apart.since_ms) < SETTLED_MS {
            return Look::Goes(self.offset_ms);
        }
        self.apart = None;
        self.offset_ms = self.offset_ms.saturating_add(by_ms);
        Look::Turns(self.offset_ms)
    }
}

fn difference(a: u64, b: u64) -> i64 {
    i64::try_from(i128::from(a) - i128::from(b)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const T0: u64 = 1_790_000_000_000;
    const HOUR_MS: i64 = 3_600_000;

    /// Looks every second for so many; `wall` is how far the wall clock is from the true one, at a second.
    fn run(seconds: u64, wall: impl Fn(u64) -> i64) -> (Vec<(u64, i64)>, Vec<i64>) {
        let mut steady = Steady::new(5_000, T0.saturating_add_signed(wall(0)));
        let (mut turns, mut told) = (Vec::new(), Vec::new());
        for second in 1..=seconds {
            let monotonic_ms = 5_000 + second * 1_000;
            let before_ms = unix_ms(monotonic_ms, steady.offset_ms());
            let wall_ms = (T0 + second * 1_000).saturating_add_signed(wall(second));
            if let Look::Turns(offset_ms) = steady.look(monotonic_ms, wall_ms) {
                turns.push((second, difference(unix_ms(monotonic_ms, offset_ms), before_ms)));
            }
            told.push(difference(unix_ms(monotonic_ms, steady.offset_ms()), T0));
        }
        (turns, told)
    }

    #[test]
    fn a_wall_clock_that_is_set_is_followed_once_it_stays() {
        for step_ms in [HOUR_MS, -HOUR_MS, 24 * HOUR_MS, -1_001, 1_001] {
            let (turns, told) = run(60, |second| if second < 20 { 0 } else { step_ms });
            assert_eq!(turns, [(30, step_ms)]);
            assert!(told[..29].windows(2).all(|two| two[1] - two[0] == 1_000), "until then nothing changes");
            assert!(told[30..].windows(2).all(|two| two[1] - two[0] == 1_000));
        }
    }

    #[test]
    fn one_that_is_set_for_a_moment_is_not() {
        let (turns, told) = run(100, |second| if (20..29).contains(&second) { HOUR_MS } else { 0 });
        assert!(turns.is_empty() && told.windows(2).all(|two| two[1] - two[0] == 1_000));
        // One that cannot make up its mind, neither.
        let (turns, _) = run(100, |second| i64::try_from(second / 5).unwrap() * HOUR_MS);
        assert!(turns.is_empty(), "{turns:?}");
    }

    #[test]
    fn what_drifts_is_made_good_slowly() {
        for drift_ppm in [500, -500, 10_000, -10_000] {
            let wall = |second: u64| i64::try_from(second).unwrap() * drift_ppm / 1_000;
            let (turns, told) = run(3_600, wall);
            assert!(turns.is_empty(), "{drift_ppm}");
            for (second, told) in (1..).zip(&told) {
                let true_ms = difference(second * 1_000, 0) + wall(second);
                assert!(told.abs_diff(true_ms) <= 10, "{drift_ppm}: {told} of {true_ms}");
            }
        }
        let (turns, told) = run(60, |second| if second < 5 { 0 } else { -900 });
        assert_eq!((turns, told[59]), (Vec::new(), 60_000 - 900));
        assert!(
            told.windows(2).all(|two| (980..=1_000).contains(&(two[1] - two[0]))),
            "it never stands still"
        );
    }
}
