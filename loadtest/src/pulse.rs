//! Whether the tester itself keeps up: lateness of its event loops, and how much of a core its threads use.
//!
//! A tester at its limit reports a slow server where there is none; it has to say so. Deliberately absent: what the
//! whole machine does, which the run-queue wait of the own threads shows as far as it matters.

use crate::results::Tester;
use crate::tally::Spread;
use std::fs;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often a loop is looked at.
const PROBE: Duration = Duration::from_millis(20);
/// How often CPU time is.
const LOOK: Duration = Duration::from_secs(1);
/// Beyond these the tester is to blame: share of a core in a second, share of a second in the run queue, lateness.
const BUSY_PERCENT: f64 = 90.0;
const QUEUED_PERCENT: f64 = 20.0;
const LAG_P99: Duration = Duration::from_millis(50);
/// Seconds over the limit that are forgiven.
const FORGIVEN: u32 = 2;

/// What is known of one thread, or of all together.
#[derive(Debug, Default, Clone)]
pub(crate) struct Health {
    lag: Spread,
    busiest_percent: f64,
    busy_seconds: u32,
    queued_seconds: u32,
}

/// See the module. One per thread.
pub(crate) type Pulse = Arc<Mutex<Health>>;

/// Nanoseconds on a core, and waiting for one, of this thread so far.
fn schedule() -> Option<(u64, u64)> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let mut numbers = text.split_ascii_whitespace().map(|number| number.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

/// Watches the thread that it runs on, without end.
pub(crate) async fn watch(pulse: Pulse) {
    let lock = || pulse.lock().unwrap_or_else(PoisonError::into_inner);
    let (mut looked, mut before) = (Instant::now(), schedule());
    loop {
        let due = Instant::now() + PROBE;
        tokio::time::sleep_until(due.into()).await;
        let now = Instant::now();
        lock().lag.record(now.saturating_duration_since(due));
        let passed = now.saturating_duration_since(looked);
        if passed < LOOK {
            continue;
        }
        let after = schedule();
        if let (Some(before), Some(after)) = (before, after) {
            let share = |ns: u64| ns as f64 / passed.as_nanos() as f64 * 100.0;
            lock().second(share(after.0.saturating_sub(before.0)), share(after.1.saturating_sub(before.1)));
        }
        (looked, before) = (now, after);
    }
}

impl Health {
    fn second(&mut self, busy_percent: f64, queued_percent: f64) {
        self.busiest_percent = self.busiest_percent.max(busy_percent);
        self.busy_seconds += u32::from(busy_percent >= BUSY_PERCENT);
        self.queued_seconds += u32::from(queued_percent >= QUEUED_PERCENT);
    }

    fn add(&mut self, other: &Self) {
        self.lag.add(&other.lag);
        self.busiest_percent = self.busiest_percent.max(other.busiest_percent);
        self.busy_seconds = self.busy_seconds.max(other.busy_seconds);
        self.queued_seconds = self.queued_seconds.max(other.queued_seconds);
    }

    fn reasons(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.busy_seconds > FORGIVEN {
            reasons.push(format!(
                "a thread used {:.0} % of a core, and {BUSY_PERCENT} % or more for {} s: use --threads or more processes",
                self.busiest_percent, self.busy_seconds
            ));
        }
        if self.queued_seconds > FORGIVEN {
            reasons.push(format!(
                "a thread waited for a core {QUEUED_PERCENT} % of the time or more for {} s: the machine is too busy",
                self.queued_seconds
            ));
        }
        if let Some(figures) = self.lag.figures()
            && figures.p99 > LAG_P99.as_secs_f64() * 1000.0
        {
            reasons.push(format!("the event loop was {:.0} ms late (p99)", figures.p99));
        }
        reasons
    }
}

/// Forgets what was before the measured time.
pub(crate) fn restart(pulses: &[Pulse]) {
    for pulse in pulses {
        *pulse.lock().unwrap_or_else(PoisonError::into_inner) = Health::default();
    }
}

/// The tester's own part of the results.
pub(crate) fn tester(pulses: &[Pulse], own_cpu_s: f64) -> Tester {
    let mut all = Health::default();
    for pulse in pulses {
        all.add(&pulse.lock().unwrap_or_else(PoisonError::into_inner));
    }
    Tester {
        threads: u32::try_from(pulses.len()).unwrap_or(u32::MAX),
        own_cpu_s,
        busiest_percent: all.busiest_percent,
        limited: all.reasons(),
        loop_lag: all.lag,
        ..Tester::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_second_is_forgiven_and_a_busy_run_is_not() {
        let mut health = Health::default();
        for _ in 0..FORGIVEN {
            health.second(99.0, 50.0);
        }
        health.second(50.0, 1.0);
        assert_eq!(health.reasons(), [""; 0]);
        health.second(95.0, 30.0);
        let reasons = health.reasons();
        assert!(
            reasons[0].contains("99 % of a core") && reasons[1].contains("waited for a core"),
            "{reasons:?}"
        );
        let mut late = Health::default();
        late.lag.record(Duration::from_millis(80));
        assert!(late.reasons()[0].contains("80 ms late"));
        let mut both = Health::default();
        both.add(&health);
        both.add(&late);
        assert_eq!(both.reasons().len(), 3);
    }

    #[test]
    fn this_thread_uses_time() {
        assert!(schedule().is_some());
    }
}
