//! What went out by seconds and what players said by minutes, until it is told as a whole.
//!
//! Invariant: the value of a second or a minute only grows, and is told at least once after it has stopped to.

use sigma_report::report::{Protocol, QualityReport, TrafficReport};
use sigma_shared::cmcd::Cmcd;
use std::collections::HashMap;

/// Seconds, or minutes, that are kept of one channel while nobody asks for them; then the oldest ones are put together.
const KEPT_MAX: usize = 120;

/// How long a second or a minute is told on after it is over. Several ledgers are asked one after the other and their values
/// summed up: while the last of them is asked, none forgets what another one has yet to tell as a whole.
const LINGER_MS: u64 = 1000;

/// How a player came to say something.
#[derive(Debug, Clone, Copy)]
pub(super) struct Speaking {
    /// Its start may be counted.
    pub(super) first: bool,
    /// The time that it speaks of.
    pub(super) spoken_ms: u64,
    pub(super) now_ms: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Totals {
    traffic: HashMap<(u32, Protocol), Vec<TrafficReport>>,
    quality: HashMap<u32, Vec<QualityReport>>,
}

impl Totals {
    /// An answer ended that had so many bytes.
    pub(super) fn sent(&mut self, channel: u32, protocol: Protocol, (bytes, now_ms): (u64, u64)) {
        let second = now_ms / 1000;
        let seconds = self.traffic.entry((channel, protocol)).or_default();
        let full = seconds.len() >= KEPT_MAX;
        let current = match seconds.last_mut() {
            Some(last) if last.second == second || full => last,
            _ => {
                seconds.push(TrafficReport { channel, protocol, second, bytes: 0, requests: 0 });
                // Just pushed.
                match seconds.last_mut() {
                    Some(last) => last,
                    None => return,
                }
            }
        };
        current.bytes += bytes;
        current.requests += 1;
    }

    /// A player said something.
    pub(super) fn said(&mut self, channel: u32, cmcd: &Cmcd, speaking: Speaking) {
        let Speaking { first, spoken_ms, now_ms } = speaking;
        let minute = now_ms / 60_000;
        let minutes = self.quality.entry(channel).or_default();
        let full = minutes.len() >= KEPT_MAX;
        if !full && minutes.last().is_none_or(|last| last.minute != minute) {
            minutes.push(QualityReport { channel, minute, ..QualityReport::default() });
        }
        let Some(current) = minutes.last_mut() else { return };
        current.starvations += u64::from(cmcd.starved);
        current.starved_ms += cmcd.starved_ms.map_or(0, u64::from);
        current.spoken_ms += spoken_ms;
        for (said, counted) in [
            (cmcd.startup_ms.filter(|_| first), &mut current.startup_ms),
            (cmcd.latency_ms, &mut current.latency_ms),
            (cmcd.throughput_kbps, &mut current.throughput_kbps),
        ] {
            if let Some(said) = said {
                counted.record(said);
            }
        }
    }

    /// The traffic until now; what has been over for a while is forgotten.
    pub(super) fn traffic(&mut self, now_ms: u64, told: &mut Vec<TrafficReport>) {
        self.traffic.retain(|_, seconds| {
            told.extend(seconds.iter().cloned());
            let used = !seconds.is_empty();
            seconds.retain(|traffic| traffic.second >= now_ms.saturating_sub(LINGER_MS) / 1000);
            used
        });
    }

    /// What was said until now; what has been over for a while is forgotten.
    pub(super) fn quality(&mut self, now_ms: u64, told: &mut Vec<QualityReport>) {
        self.quality.retain(|_, minutes| {
            told.extend(minutes.iter().cloned());
            minutes.retain(|quality| quality.minute >= now_ms.saturating_sub(LINGER_MS) / 60_000);
            !minutes.is_empty()
        });
    }
}
