//! Pacing: turns the times that samples claim into the gapless run of durations that CMAF wants.
//!
//! Every sample starts where the one before it ended (MP-04, zero ticks of tolerance), so a sample's duration is known
//! when it arrives and a part never waits for the sample after it. Times that keep to the nominal frame duration within
//! the rounding of the ingest protocol are put on that grid exactly; a hole is paid off by longer samples, none longer
//! than the ceiling (PT-03), until the run is on time again.
//!
//! Deliberately absent: jumps of a publisher's clock. [`crate::timeline`] has taken them out before.

/// One sample on the track's timeline, in ticks of the track's timescale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paced {
    /// Where it starts: exactly the end of the sample before.
    pub start: i64,
    /// 1 or more.
    pub duration: u32,
}

impl Paced {
    /// Where the next sample will start.
    #[must_use]
    pub fn end(&self) -> i64 {
        self.start + i64::from(self.duration)
    }
}

/// The pacing of one track within one publishing run.
#[derive(Debug, Clone)]
pub struct Pacer {
    nominal: u32,
    tolerance: i64,
    ceiling: u32,
    tip: Option<i64>,
}

impl Pacer {
    /// A track whose samples last `nominal` ticks of `timescale` per second, unless their times say otherwise.
    #[must_use]
    pub fn new(nominal: u32, timescale: u32) -> Self {
        // RTMP rounds to whole milliseconds, and encoders differ in which way: two of them, and a little for both.
        let tolerance = i64::from(timescale) / 400;
        Self { nominal: nominal.max(1), tolerance, ceiling: u32::MAX, tip: None }
    }

    /// No sample will be longer than this from now on, ticks.
    pub fn set_ceiling(&mut self, ceiling: u32) {
        self.ceiling = ceiling.max(self.nominal);
    }

    /// The nominal duration of a sample, ticks.
    #[must_use]
    pub fn nominal(&self) -> u32 {
        self.nominal
    }

    /// Another nominal duration from here on, ticks.
    pub fn set_nominal(&mut self, nominal: u32) {
        self.nominal = nominal.max(1);
        self.ceiling = self.ceiling.max(self.nominal);
    }

    /// Takes over a place that another pacer gave.
    pub fn follow(&mut self, paced: Paced) {
        self.tip = Some(paced.end());
    }

    /// Where the next sample will start, once one has been placed.
    #[must_use]
    pub fn tip(&self) -> Option<i64> {
        self.tip
    }

    /// Places the next sample, which claims to start at `time`.
    pub fn place(&mut self, time: i64) -> Paced {
        let start = self.tip.unwrap_or(time);
        let late = time - start;
        let nominal = i64::from(self.nominal);
        let duration = if late.abs() <= self.tolerance {
            nominal
        } else {
            // It ends where its own time says, however far that is: its start is given.
            (late + nominal).clamp((nominal / 8).max(1), i64::from(self.ceiling))
        };
        #[expect(
            clippy::cast_sign_loss,
            clippy::cast_possible_truncation,
            reason = "clamped to 1..=ceiling: u32"
        )]
        let paced = Paced { start, duration: duration as u32 };
        self.tip = Some(paced.end());
        paced
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ms(value: i64) -> i64 {
        value * 90
    }

    #[test]
    fn millisecond_rounding_disappears() {
        let mut pacer = Pacer::new(3000, 90_000);
        for frame in 0..3000i64 {
            let rounded = frame * 1000 / 30;
            assert_eq!(pacer.place(ms(rounded)), Paced { start: frame * 3000, duration: 3000 });
        }
    }

    #[test]
    fn a_wrong_nominal_gives_true_durations() {
        // The stream says 25 frames per second and sends 30.
        let mut pacer = Pacer::new(3600, 90_000);
        let durations: Vec<_> = (0..300i64).map(|n| pacer.place(n * 3000).duration).collect();
        assert!(durations[1..].iter().all(|d| *d == 3000), "{durations:?}");
    }

    #[test]
    fn a_hole_is_paid_off_below_the_ceiling() {
        let mut pacer = Pacer::new(3000, 90_000);
        pacer.set_ceiling(30_000);
        pacer.place(0);
        let hole = 90_000; // the next 30 frames are missing
        let mut frame = 0;
        loop {
            let time = 3000 + hole + frame * 3000;
            let paced = pacer.place(time);
            assert!(paced.duration <= 30_000);
            frame += 1;
            if paced.end() == time + 3000 {
                break;
            }
            assert!(frame < 10, "never on time again");
        }
    }

    proptest! {
        #[test]
        fn mp_04_no_gap_no_overlap_and_never_back(
            times in proptest::collection::vec(-500_000i64..500_000, 1..200),
            nominal in 1u32..10_000,
        ) {
            let mut pacer = Pacer::new(nominal, 90_000);
            pacer.set_ceiling(60_000);
            let mut tip = None;
            for time in times {
                let paced = pacer.place(time);
                prop_assert_eq!(paced.start, tip.unwrap_or(time));
                prop_assert!(paced.duration >= 1 && paced.duration <= 60_000);
                tip = Some(paced.end());
            }
        }
    }
}
