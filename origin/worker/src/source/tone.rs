//! The sound of the test source: a quiet 440 Hz tone, and a 1 kHz beep in the first 60 ms of each second of the wall
//! clock, so that sound can be held against the burned-in clock. Pure.
#![deny(clippy::disallowed_methods)]

use std::f64::consts::TAU;
use std::time::Duration;

const TONE_HZ: f64 = 440.0;
const TONE_LEVEL: f64 = 0.03;
const BEEP_HZ: f64 = 1000.0;
const BEEP_LEVEL: f64 = 0.25;
const BEEP: Duration = Duration::from_millis(60);

/// A tone generator that knows the wall clock of its first sample.
#[derive(Debug)]
pub(crate) struct Tone {
    sample_rate: u32,
    /// Samples from the last full second of the wall clock to the first sample.
    offset: u64,
}

impl Tone {
    pub(crate) fn new(sample_rate: u32, started_unix: Duration) -> Self {
        let offset = u64::from(started_unix.subsec_nanos()) * u64::from(sample_rate) / 1_000_000_000;
        Self { sample_rate, offset }
    }

    /// Writes the samples from index `from` on.
    #[expect(clippy::cast_possible_truncation, reason = "samples are f32, computed in f64 for the phase")]
    #[expect(clippy::cast_precision_loss, reason = "the phase is taken from the sample within its second")]
    pub(crate) fn fill(&self, from: u64, samples: &mut [f32]) {
        let rate = u64::from(self.sample_rate);
        let beep_samples = rate * u64::try_from(BEEP.as_millis()).unwrap_or(0) / 1000;
        for (sample, index) in samples.iter_mut().zip(from + self.offset..) {
            let within = index % rate;
            let seconds = within as f64 / f64::from(self.sample_rate);
            // Both frequencies are whole per second, so the phase is continuous across seconds.
            let tone = (TAU * TONE_HZ * seconds).sin() * TONE_LEVEL;
            let beep = if within < beep_samples { (TAU * BEEP_HZ * seconds).sin() * BEEP_LEVEL } else { 0.0 };
            *sample = (tone + beep) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loudest(tone: &Tone, from: u64) -> f32 {
        let mut samples = [0.0; 480];
        tone.fill(from, &mut samples);
        samples.into_iter().fold(0.0, |loudest, sample| sample.abs().max(loudest))
    }

    #[test]
    fn the_beep_falls_on_the_wall_clock_second() {
        let tone = Tone::new(48_000, Duration::from_millis(1_700_000_000_750));
        assert!(loudest(&tone, 0) < 0.05);
        assert!(loudest(&tone, 11_900) > 0.2);
        assert!(loudest(&tone, 12_000) > 0.2);
        assert!(loudest(&tone, 12_000 + 2_880) < 0.05);
        assert!(loudest(&tone, 60_000) > 0.2);
    }
}
