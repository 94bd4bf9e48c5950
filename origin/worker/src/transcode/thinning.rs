//! Which pictures a rung with a lower frame rate keeps. Pure.
//!
//! Invariants: a segment start is always kept; between two of them pictures are kept as evenly as the source's own
//! spacing allows.
#![deny(clippy::disallowed_methods)]

use crate::protocol::Rational;

const TICKS_PER_SECOND: i64 = 90_000;

/// The thinning of one rung.
#[derive(Debug)]
pub(crate) struct Thinning {
    /// Ticks between kept pictures, and how much too early still counts; `None` keeps everything.
    spacing: Option<(i64, i64)>,
    due: Option<i64>,
}

impl Thinning {
    /// From a nominal `source` rate down to `frames_per_second_max`.
    pub(crate) fn new(source: Rational, frames_per_second_max: u32) -> Self {
        // A cap within a percent of the source is the source: 30000/1001 against 30, say.
        let capped =
            u64::from(source.num) * 100 > u64::from(frames_per_second_max) * u64::from(source.den) * 101;
        let spacing = (capped && frames_per_second_max > 0).then(|| {
            let source_ticks = TICKS_PER_SECOND * i64::from(source.den) / i64::from(source.num.max(1));
            (TICKS_PER_SECOND / i64::from(frames_per_second_max), source_ticks / 2)
        });
        Self { spacing, due: None }
    }

    /// The rate that remains of `source`.
    pub(crate) fn frame_rate(&self, source: Rational, frames_per_second_max: u32) -> Rational {
        match self.spacing {
            Some(_) => Rational { num: frames_per_second_max, den: 1 },
            None => source,
        }
    }

    /// Whether the rung encodes the picture at `pts` ticks. Call once per picture, in order.
    pub(crate) fn keeps(&mut self, pts: i64, segment_start: bool) -> bool {
        let Some((spacing, early)) = self.spacing else {
            return true;
        };
        let due = self.due.filter(|due| !segment_start && (pts - due).abs() <= spacing).unwrap_or(pts);
        let kept = pts + early >= due;
        self.due = Some(if kept { due + spacing } else { due });
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(source: u32, max: u32, segment_frames: i64, frames: i64) -> Vec<i64> {
        let mut thinning = Thinning::new(Rational { num: source, den: 1 }, max);
        let start = 160_000_000_000_000;
        (0..frames)
            .filter(|i| thinning.keeps(start + i * 90_000 / i64::from(source), i % segment_frames == 0))
            .collect()
    }

    #[test]
    fn a_cap_at_or_above_the_source_keeps_everything() {
        for max in [30, 60] {
            assert_eq!(kept(30, max, 60, 120).len(), 120);
        }
        let mut thinning = Thinning::new(Rational { num: 30_000, den: 1001 }, 30);
        assert!((0..100).all(|i| thinning.keeps(i * 3003, false)));
    }

    #[test]
    fn thinning_is_even_and_keeps_segment_starts() {
        for (source, max, segment_frames) in
            [(60, 30, 120), (60, 25, 120), (30, 25, 60), (60, 30, 119), (50, 15, 77)]
        {
            let frames = i64::from(source) * 10;
            let kept = kept(source, max, segment_frames, frames);
            assert!(
                (0..frames).step_by(segment_frames.try_into().unwrap()).all(|start| kept.contains(&start))
            );
            let wanted = i64::from(max) * 10;
            let extra = frames / segment_frames + 1;
            let got = i64::try_from(kept.len()).unwrap();
            assert!((wanted - 1..=wanted + extra).contains(&got), "{source}->{max}: {got}");
            let most = i64::from(source.div_ceil(max));
            assert!(kept.windows(2).all(|pair| pair[1] - pair[0] <= most), "{source}->{max}: {kept:?}");
        }
    }

    #[test]
    fn a_jump_in_time_starts_over() {
        let mut thinning = Thinning::new(Rational { num: 60, den: 1 }, 30);
        assert!(thinning.keeps(0, false));
        assert!(thinning.keeps(9_000_000, false));
        assert!(!thinning.keeps(9_001_500, false));
        assert!(thinning.keeps(9_003_000, false));
        assert!(thinning.keeps(0, false));
    }
}
