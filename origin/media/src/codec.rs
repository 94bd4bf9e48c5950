//! Codec configuration as publishers send it: H.264 (`avcC`) and AAC (AudioSpecificConfig).

mod aac;
mod avc;

pub use aac::AacConfig;
pub use avc::{AccessUnit, AvcConfig};

/// A frame rate as a fraction, frames per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameRate {
    /// Numerator, 1 or more.
    pub num: u32,
    /// Denominator, 1 or more.
    pub den: u32,
}

impl FrameRate {
    /// The frame rate of a fraction between 1 and 240 frames per second, reduced to lowest terms.
    #[must_use]
    pub fn new(num: u32, den: u32) -> Option<Self> {
        if den == 0 || num < den || num / den > 240 {
            return None;
        }
        let divisor = gcd(num, den);
        Some(Self { num: num / divisor, den: den / divisor })
    }

    /// The nearest of the rates in use (23.976, 24, 25, 29.97, 30, 48, 50, 59.94, 60, whole numbers) to a measured
    /// one; `None` outside 1 to 240.
    #[must_use]
    pub fn nearest(frames_per_second: f64) -> Option<Self> {
        if !(0.9..=240.5).contains(&frames_per_second) {
            return None;
        }
        for base in [24u32, 30, 48, 60, 120] {
            let ntsc = f64::from(base) * 1000.0 / 1001.0;
            if (frames_per_second - ntsc).abs() < ntsc * 0.0004 {
                return Self::new(base * 1000, 1001);
            }
        }
        let whole = frames_per_second.round();
        if (frames_per_second - whole).abs() < 0.02 * whole {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "1 to 240, checked above"
            )]
            return Self::new(whole as u32, 1);
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most 240,000")]
        Self::new((frames_per_second * 1000.0).round() as u32, 1000)
    }

    /// The duration of one frame in ticks of 1/90000 s, rounded down.
    #[must_use]
    pub fn frame_ticks(&self) -> u32 {
        #[expect(clippy::cast_possible_truncation, reason = "at most 90,000: the rate is 1 or more")]
        let ticks = (u64::from(self.den) * 90_000 / u64::from(self.num)) as u32;
        ticks
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// What is wrong with a publisher's codec data. The publisher is to blame; the same bytes will fail again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The AVC decoder configuration record cannot be read.
    #[error("H.264 configuration (avcC) is broken: {0}")]
    AvcConfig(String),
    /// An access unit's NAL unit lengths do not add up.
    #[error("H.264 access unit is broken: NAL unit of {length} bytes in {left} left")]
    AccessUnit {
        /// The length a NAL unit claims.
        length: usize,
        /// The bytes that are left.
        left: usize,
    },
    /// The AudioSpecificConfig cannot be read or names what is not supported.
    #[error("AAC configuration is not usable: {0}")]
    AacConfig(&'static str),
}

/// A real record for the tests of this crate.
#[cfg(test)]
pub(crate) fn test_record() -> &'static [u8] {
    avc::tests::RECORD_720P30
}

#[cfg(test)]
mod tests {
    use super::FrameRate;

    #[test]
    fn rates_in_use_are_found() {
        for (fps, num, den) in [
            (23.976, 24_000, 1001),
            (24.0, 24, 1),
            (24.001, 24, 1),
            (25.0, 25, 1),
            (29.97, 30_000, 1001),
            (30.0, 30, 1),
            (30.01, 30, 1),
            (59.94, 60_000, 1001),
            (12.5, 25, 2),
            (15.0, 15, 1),
        ] {
            assert_eq!(FrameRate::nearest(fps), Some(FrameRate { num, den }), "{fps}");
        }
        for fps in [0.0, 0.5, 1000.0, f64::NAN, f64::INFINITY] {
            assert_eq!(FrameRate::nearest(fps), None, "{fps}");
        }
    }
}
