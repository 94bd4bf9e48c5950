//! Rate adaptation: a viewer's modelled link, what it measures of it, and which variant it chooses.
//!
//! The link is a model, as thousands of viewers share one machine: it says when a body that has arrived here would have
//! arrived there. Time and randomness are arguments. Deliberately absent: loss and round trips, which the real
//! connection has.
#![deny(clippy::disallowed_methods)]

use crate::random::Random;

/// A link's capacity changes this often, microseconds.
const WEATHER_US: u64 = 2_000_000;
/// Half-lives of the two estimates in seconds of download; the lower one counts (hls.js).
const FAST_S: f64 = 3.0;
const SLOW_S: f64 = 9.0;
/// Share of the estimate that a variant may need to be switched up to, and to stay at.
const UP_SHARE: f64 = 0.7;
const STAY_SHARE: f64 = 0.95;

/// How fast viewers' links are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Links {
    /// Median over viewers, bits per second; `None`: no limit but the real connection.
    pub(crate) median_bps: Option<f64>,
    /// Spread between viewers, standard deviation of the logarithm.
    pub(crate) spread: f64,
    /// Change over time around a viewer's own median, the same measure.
    pub(crate) wobble: f64,
}

impl Default for Links {
    fn default() -> Self {
        Self { median_bps: None, spread: 0.0, wobble: 0.0 }
    }
}

/// One viewer's link. Transfers share it one after the other.
#[derive(Debug, Clone)]
pub(crate) struct Link {
    own_bps: Option<f64>,
    wobble: f64,
    now_bps: f64,
    changed_us: u64,
    busy_until_us: u64,
    random: Random,
}

impl Link {
    pub(crate) fn new(links: &Links, mut random: Random) -> Self {
        let own_bps = links.median_bps.map(|median| random.log_normal(median, links.spread).max(1_000.0));
        Self {
            own_bps,
            wobble: links.wobble,
            now_bps: own_bps.unwrap_or_default(),
            changed_us: 0,
            busy_until_us: 0,
            random,
        }
    }

    /// When a body of so many bytes, on its way since `from_us` and here at `here_us`, has passed the link.
    pub(crate) fn passes(&mut self, from_us: u64, here_us: u64, bytes: u64) -> u64 {
        let Some(own) = self.own_bps else { return here_us };
        if self.wobble > 0.0 && here_us.saturating_sub(self.changed_us) >= WEATHER_US {
            self.changed_us = here_us;
            self.now_bps = self.random.log_normal(own, self.wobble).max(1_000.0);
        }
        let begins = from_us.max(self.busy_until_us);
        let takes = bytes as f64 * 8.0 / self.now_bps * 1e6;
        self.busy_until_us = here_us.max(begins + takes as u64);
        self.busy_until_us
    }
}

/// A moving average that starts unbiased.
#[derive(Debug, Clone, Copy, Default)]
struct Average {
    sum: f64,
    weight: f64,
}

impl Average {
    fn add(&mut self, value: f64, seconds: f64, half_life: f64) {
        let keep = 0.5f64.powf(seconds / half_life);
        self.sum = self.sum * keep + value * (1.0 - keep);
        self.weight = self.weight * keep + (1.0 - keep);
    }

    fn value(self) -> Option<f64> {
        (self.weight > 0.0).then(|| self.sum / self.weight)
    }
}

/// What a viewer believes of its link.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Estimate {
    fast: Average,
    slow: Average,
}

/// Bodies that are over in no time say little.
const SECONDS_MIN: f64 = 0.005;
/// Smaller bodies say nothing of a link.
const BYTES_MIN: u64 = 1_000;

impl Estimate {
    /// A body of so many bytes took so long from its first byte.
    pub(crate) fn measured(&mut self, bytes: u64, took_us: u64) {
        if bytes < BYTES_MIN {
            return;
        }
        let seconds = (took_us as f64 / 1e6).max(SECONDS_MIN);
        let bps = bytes as f64 * 8.0 / seconds;
        self.fast.add(bps, seconds, FAST_S);
        self.slow.add(bps, seconds, SLOW_S);
    }

    /// Bits per second.
    pub(crate) fn bps(&self) -> Option<f64> {
        Some(self.fast.value()?.min(self.slow.value()?))
    }
}

/// The variant to go on with: `rates` are their bits per second, `now` is the one being played. `ahead` says whether
/// the buffer is worth risking something for.
pub(crate) fn choose(rates: &[u64], now: usize, estimate_bps: f64, ahead: bool) -> usize {
    let own = rates.get(now).copied().unwrap_or_default();
    let fits = |index: &usize| {
        let rate = rates[*index] as f64;
        let share = if rates[*index] > own { UP_SHARE } else { STAY_SHARE };
        rate <= estimate_bps * share && (ahead || rates[*index] <= own)
    };
    let best = (0..rates.len()).filter(fits).max_by_key(|index| (rates[*index], *index == now));
    // Nothing fits: the least there is.
    best.or_else(|| (0..rates.len()).min_by_key(|index| rates[*index])).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATES: [u64; 4] = [3_000_000, 1_500_000, 800_000, 300_000];

    #[test]
    fn variants_by_throughput() {
        for (now, mbps, ahead, chosen) in [
            (3, 10.0, true, 0),
            (3, 10.0, false, 3), // nothing to risk
            (0, 3.2, true, 0),   // stays
            (0, 3.0, true, 1),   // 0.95 of it is too little
            (1, 4.0, true, 1),   // 0.7 of it is too little to go up
            (1, 4.4, true, 0),
            (0, 0.1, true, 3),
            (0, 0.1, false, 3),
            (2, 0.85, false, 2),
        ] {
            assert_eq!(choose(&RATES, now, mbps * 1e6, ahead), chosen, "{now} {mbps} {ahead}");
        }
        assert_eq!(choose(&[], 0, 1e6, true), 0);
    }

    #[test]
    fn a_link_lets_through_what_it_can_and_no_earlier_than_it_came() {
        let links = Links { median_bps: Some(8_000_000.0), spread: 0.0, wobble: 0.0 };
        let mut link = Link::new(&links, Random::new(1, 1));
        assert_eq!(link.passes(0, 10, 1_000_000), 1_000_000, "1 MB at 1 MB/s");
        assert_eq!(link.passes(500_000, 500_010, 500_000), 1_500_000, "behind the first one");
        assert_eq!(link.passes(2_000_000, 4_000_000, 1_000), 4_000_000, "the server was slower");
        let mut free = Link::new(&Links::default(), Random::new(1, 1));
        assert_eq!(free.passes(0, 77, 1 << 30), 77);
    }

    #[test]
    fn the_estimate_finds_the_link_and_follows_it_down_faster_than_up() {
        let mut estimate = Estimate::default();
        assert_eq!(estimate.bps(), None);
        for _ in 0..40 {
            estimate.measured(100_000, 200_000);
        }
        let steady = estimate.bps().unwrap();
        assert!((steady - 4e6).abs() < 1e4, "{steady}");
        for _ in 0..10 {
            estimate.measured(100_000, 800_000);
        }
        let down = estimate.bps().unwrap();
        assert!(down < 1.7e6, "{down}");
        for _ in 0..40 {
            estimate.measured(100_000, 200_000);
        }
        assert!(estimate.bps().unwrap() < 3.2e6, "slowly up");
        estimate.measured(10, 1);
        assert!(estimate.bps().unwrap() < 4e6, "small bodies say nothing");
    }
}
