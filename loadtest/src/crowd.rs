//! What all viewers of a run share: how they behave, the way to the servers, and what they count.
//!
//! Invariants: no lock is held while anything waits; a thread's viewers count in its own shard, which others only look
//! at once a second.

use crate::adapt::Links;
use crate::dial::Dialer;
use crate::ground::{GroundLog, Record};
use crate::identity::Identity;
use crate::integral::Integral;
use crate::player::Patience;
use crate::playlist::VariantView;
use crate::results::{Point, Slice, SliceKey};
use crate::scenario::{CmcdIn, Scenario};
use crate::script::Conduct;
use crate::shelf::Shelf;
use crate::tally::{Spread, Tally};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Which variant viewers choose.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Pick {
    #[default]
    First,
    Lowest,
    Highest,
    /// From 0, in the order of the playlist.
    Index(usize),
    /// By what the link lets through, beginning with the first.
    Adaptive,
}

impl std::fmt::Display for Pick {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::First => f.write_str("first"),
            Self::Lowest => f.write_str("lowest"),
            Self::Highest => f.write_str("highest"),
            Self::Adaptive => f.write_str("auto"),
            Self::Index(index) => index.fmt(f),
        }
    }
}

impl std::str::FromStr for Pick {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "first" => Ok(Self::First),
            "lowest" => Ok(Self::Lowest),
            "highest" => Ok(Self::Highest),
            "auto" => Ok(Self::Adaptive),
            number => number
                .parse()
                .map(Self::Index)
                .map_err(|_| "expected auto, first, lowest, highest or a number from 0".to_owned()),
        }
    }
}

impl Pick {
    /// The index to begin with; `None` if there is no such variant.
    pub(crate) fn of(self, variants: &[VariantView<'_>]) -> Option<usize> {
        let rate = |index: &usize| variants[*index].bandwidth_bps;
        let all = 0..variants.len();
        match self {
            Self::First | Self::Adaptive => all.into_iter().next(),
            Self::Lowest => all.min_by_key(rate),
            Self::Highest => all.max_by_key(rate),
            Self::Index(index) => all.contains(&index).then_some(index),
        }
    }
}

/// How all viewers of a run behave.
#[derive(Debug, Clone)]
pub(crate) struct Habits {
    pub(crate) pick: Pick,
    pub(crate) video_only: bool,
    pub(crate) patience: Patience,
    /// For one request, held or not.
    pub(crate) request_timeout: Duration,
    pub(crate) cmcd: CmcdIn,
    pub(crate) links: Links,
    /// Share of viewers that ask for hinted parts, and for delta updates.
    pub(crate) hints: f64,
    pub(crate) deltas: f64,
    pub(crate) conduct: Conduct,
    /// How long the connection of a viewer stays that vanished, and how long one sleeps for good; at most to the end of
    /// the run.
    pub(crate) vanished: Duration,
    pub(crate) slept: Duration,
    /// Sessions that share a token.
    pub(crate) tabs: u64,
}

impl Habits {
    /// What a scenario says of its viewers.
    pub(crate) fn of(scenario: &Scenario) -> Self {
        let viewers = &scenario.viewers;
        Self {
            // A scenario that was handed out has a variant that can be read.
            pick: viewers.variant.parse().unwrap_or_default(),
            video_only: viewers.video_only,
            patience: Patience::default(),
            request_timeout: Duration::from_millis(scenario.limits.request_timeout_ms),
            cmcd: viewers.cmcd,
            links: Links {
                median_bps: viewers.links.median_kbps.map(|kbps| kbps * 1000.0),
                spread: viewers.links.spread,
                wobble: viewers.links.wobble,
            },
            hints: viewers.hints,
            deltas: viewers.deltas,
            conduct: Conduct {
                seeks_per_minute: viewers.seeks_per_minute,
                seek_stay: Duration::from_millis(viewers.seek_stay_ms),
                sleeps_per_minute: viewers.sleeps_per_minute,
                sleep: Duration::from_millis(viewers.sleep_ms),
                moves_per_minute: viewers.moves_per_minute,
                protocols: [viewers.protocols.h1, viewers.protocols.h2, viewers.protocols.h3],
            },
            vanished: Duration::from_secs(viewers.leaving.vanish_seconds),
            slept: Duration::from_secs(viewers.leaving.sleep_seconds),
            tabs: u64::from(viewers.tabs_per_token.max(1)),
        }
    }
}

/// What a viewer counts for while it is present and awake.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Weight {
    pub(crate) viewers: u64,
    pub(crate) renditions: u64,
}

/// What a thread's viewers count.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) tally: Tally,
    /// Wanted to sent, of requests that needed no new connection.
    pub(crate) send_lag: Spread,
    /// Viewers that are present and awake, and renditions that they play.
    present: Integral,
    renditions: Integral,
    /// By index of the slice: what is going on, and this second's events.
    live: Vec<Live>,
}

#[derive(Debug, Default, Clone)]
pub(crate) struct Live {
    /// Sessions that have had media and have not left, and of them, those that are stalled.
    pub(crate) viewers: u64,
    pub(crate) stalled: u64,
    pub(crate) point: Point,
}

impl Counts {
    /// The running second of a slice.
    pub(crate) fn live(&mut self, slice: usize) -> &mut Live {
        if self.live.len() <= slice {
            self.live.resize(slice + 1, Live::default());
        }
        &mut self.live[slice]
    }
}

/// What the viewers of a run share.
#[derive(Debug)]
pub(crate) struct Crowd {
    pub(crate) dialer: std::sync::Arc<Dialer>,
    pub(crate) habits: Habits,
    pub(crate) shelf: Shelf,
    ground: Option<Mutex<Option<GroundLog>>>,
    pub(crate) tokens: Vec<String>,
    pub(crate) seed: u64,
    shards: Vec<Mutex<Counts>>,
    slices: Mutex<Vec<Slice>>,
    identity: Mutex<Identity>,
    begun: Instant,
    broken: AtomicU64,
}

impl Crowd {
    pub(crate) fn new(dialer: Dialer, habits: Habits, threads: usize) -> Self {
        Self {
            dialer: std::sync::Arc::new(dialer),
            habits,
            shelf: Shelf::default(),
            ground: None,
            tokens: Vec::new(),
            seed: 0,
            shards: (0..threads.max(1)).map(|_| Mutex::default()).collect(),
            slices: Mutex::default(),
            identity: Mutex::default(),
            begun: Instant::now(),
            broken: AtomicU64::new(0),
        }
    }

    /// Sessions are logged from now on.
    pub(crate) fn log_to(&mut self, ground: GroundLog) {
        self.ground = Some(Mutex::new(Some(ground)));
    }

    /// A session ended.
    pub(crate) fn log(&self, record: impl FnOnce() -> Record) {
        if let Some(ground) = &self.ground
            && let Some(ground) = &*lock(ground)
        {
            ground.put(record());
        }
    }

    /// Ends the log. Returns how many sessions it lost.
    ///
    /// # Errors
    /// It could not be written.
    pub(crate) fn finish_ground(&self) -> std::io::Result<u64> {
        let Some(ground) = self.ground.as_ref().and_then(|ground| lock(ground).take()) else { return Ok(0) };
        ground.finish().map(|(lost, _)| lost)
    }

    /// A viewer, or a thread of them, did not come to its end: a fault of this program.
    pub(crate) fn breaks(&self) {
        self.broken.fetch_add(1, Ordering::Relaxed);
    }

    /// How many did not.
    pub(crate) fn broken(&self) -> u64 {
        self.broken.load(Ordering::Relaxed)
    }

    pub(crate) fn threads(&self) -> usize {
        self.shards.len()
    }

    /// Everything counted since the last call.
    pub(crate) fn take(&self) -> Tally {
        let mut sum = Tally::default();
        for shard in &self.shards {
            let mut counts = lock(shard);
            let now_us = self.now_us();
            counts.tally.viewer_us += counts.present.take(now_us);
            counts.tally.rendition_us += counts.renditions.take(now_us);
            sum.add(&std::mem::take(&mut counts.tally));
        }
        sum
    }

    /// How late requests were sent since the last call.
    pub(crate) fn take_send_lag(&self) -> Spread {
        let mut sum = Spread::default();
        for shard in &self.shards {
            sum.add(&std::mem::take(&mut lock(shard).send_lag));
        }
        sum
    }

    /// A second ended: what happened in it goes to the slices.
    pub(crate) fn tick(&self, unix_s: u64) {
        let mut slices = lock(&self.slices);
        for shard in &self.shards {
            for (index, live) in lock(shard).live.iter_mut().enumerate() {
                let mut point = std::mem::take(&mut live.point);
                (point.viewers, point.stalled) = (live.viewers, live.stalled);
                if let Some(slice) = slices.get_mut(index)
                    && point != Point::default()
                {
                    slice.seconds.entry(unix_s).or_default().add(&point);
                }
            }
        }
        for slice in slices.iter_mut() {
            let viewers = slice.seconds.get(&unix_s).map_or(0, |point| point.viewers);
            slice.peak_viewers = slice.peak_viewers.max(viewers);
        }
    }

    /// What happened in a second that has ended, by the POP's name, or its address as long as that is not known.
    pub(crate) fn second(&self, unix_s: u64) -> Vec<(String, Point)> {
        let slices = lock(&self.slices);
        let named = |slice: &Slice| {
            let name = if slice.pop.is_empty() { &slice.key.edge } else { &slice.pop };
            Some((name.clone(), slice.seconds.get(&unix_s)?.clone()))
        };
        slices.iter().filter_map(named).collect()
    }

    /// The slice of that key.
    pub(crate) fn slice(&self, key: &SliceKey) -> usize {
        let mut slices = lock(&self.slices);
        if let Some(index) = slices.iter().position(|slice| slice.key == *key) {
            return index;
        }
        slices.push(Slice::new(key.clone()));
        slices.len() - 1
    }

    /// The edge of a slice said its name.
    pub(crate) fn name_pop(&self, slice: usize, pop: &str) {
        if let Some(slice) = lock(&self.slices).get_mut(slice)
            && slice.pop.is_empty()
        {
            pop.clone_into(&mut slice.pop);
        }
    }

    /// All slices so far.
    pub(crate) fn slices(&self) -> Vec<Slice> {
        lock(&self.slices).clone()
    }

    /// Bodies compared with an earlier one of the same URI.
    pub(crate) fn compared(&self) -> u64 {
        lock(&self.identity).compared()
    }

    /// Counts something for a viewer of that thread.
    pub(crate) fn count(&self, shard: usize, update: impl FnOnce(&mut Counts)) {
        if let Some(counts) = self.shards.get(shard) {
            update(&mut lock(counts));
        }
    }

    /// Whether a body is what earlier viewers got under the same URI.
    pub(crate) fn agrees(&self, path: &str, bytes: u64, crc: u32) -> bool {
        lock(&self.identity).agrees(path, bytes, crc)
    }

    /// What a viewer of that thread weighs from now on: itself and its renditions, each as it was and as it is.
    pub(crate) fn weigh(&self, shard: usize, was: Weight, is: Weight) {
        self.count(shard, |counts| {
            let now_us = self.now_us();
            counts.present.change(now_us, was.viewers, is.viewers);
            counts.renditions.change(now_us, was.renditions, is.renditions);
        });
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
