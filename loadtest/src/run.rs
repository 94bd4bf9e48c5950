//! `sigma-load run`: many viewers over a time, and what was measured.
//!
//! Viewers are spread over threads with an event loop each. Invariants: rates, delays and CPU are of the measured time,
//! which begins when the last viewer has started; errors, startup times and seconds are of the whole run. Requests still
//! under way at the end are not counted. Sessions that last to the end leave cleanly and are in the ground-truth log.

use crate::address::Address;
use crate::crowd::Crowd;
use crate::dial::DialError;
use crate::procstat::{self, ProcError, Usage, UsageReport, Watch};
use crate::pulse::{self, Pulse};
use crate::results::Results;
use crate::script::Script;
use crate::viewer::{self, Household, Plan};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::Instant;

/// How long sessions may take to leave when the run is over.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(10);

/// A run cannot begin, or not be trusted: the caller's or the machine's fault.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error("{address}: {error}")]
    Address { address: Address, error: DialError },
    #[error("--server-pid: {0}")]
    Server(#[from] ProcError),
    #[error("no thread for viewers: {0}")]
    Thread(std::io::Error),
    #[error("ground-truth log: {0}")]
    Ground(std::io::Error),
}

/// What to run.
#[derive(Debug, Clone)]
pub(crate) struct Scenario {
    /// Edges of one channel, or channels: viewers take turns on them, and move on to the next one.
    pub(crate) addresses: Vec<Address>,
    pub(crate) viewers: u32,
    /// Time over which viewers start, evenly.
    pub(crate) ramp: Duration,
    /// Time measured after that.
    pub(crate) duration: Duration,
    /// Mean time between a viewer's sessions, where they end.
    pub(crate) pause: Duration,
    pub(crate) server_pids: Vec<u32>,
    pub(crate) server_children: bool,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) results: Results,
    pub(crate) servers: Vec<UsageReport>,
}

/// Runs to the end, or until `stop` resolves.
pub(crate) async fn run(
    crowd: Arc<Crowd>,
    scenario: &Scenario,
    stop: impl Future<Output = ()>,
) -> Result<Outcome, RunError> {
    check(&crowd, scenario).await?;
    let started_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let start = Instant::now();
    let (stopping, stopped) = watch::channel(false);
    let (begin, began) = (start, start + scenario.ramp);
    let mut floors = JoinSet::new();
    let mut pulses = Vec::new();
    for shard in 0..crowd.threads() {
        let pulse = Pulse::default();
        pulses.push(Arc::clone(&pulse));
        let floor = Floor {
            crowd: Arc::clone(&crowd),
            scenario: scenario.clone(),
            shard,
            begin,
            pulse,
            stopped: stopped.clone(),
        };
        floors.spawn_blocking(move || floor.run());
    }
    let ticking = tokio::spawn(tick(Arc::clone(&crowd)));
    tokio::pin!(stop);
    let early = tokio::select! {
        () = tokio::time::sleep_until(began) => false,
        () = &mut stop => true,
    };
    let warm_up = crowd.take();
    pulse::restart(&pulses);
    let measured_from = Instant::now();
    let own_cpu_s = Usage::own_cpu_s();
    let watches = scenario
        .server_pids
        .iter()
        .map(|pid| Watch::start(*pid, scenario.server_children))
        .collect::<Result<Vec<_>, _>>()?;
    let over = async {
        tokio::select! {
            () = tokio::time::sleep_until(measured_from + scenario.duration), if !early => {}
            () = &mut stop, if !early => {}
            // Every broadcast ended: nobody is left to measure.
            () = async { while floors.join_next().await.is_some() {} }, if !early => {}
            else => {}
        }
    };
    let servers = procstat::follow(watches, over).await;
    let mut results = Results {
        started_at_ms: u64::try_from(started_at.as_millis()).unwrap_or_default(),
        ramp_seconds: scenario.ramp.as_secs_f64(),
        seconds: measured_from.elapsed().as_secs_f64(),
        viewers: scenario.viewers,
        renditions: crowd.renditions(),
        tally: crowd.take(),
        warm_up,
        tester: pulse::tester(&pulses, Usage::own_cpu_s() - own_cpu_s),
        ..Results::default()
    };
    stopping.send_replace(true);
    let _ = tokio::time::timeout(LEAVE_TIMEOUT, async { while floors.join_next().await.is_some() {} }).await;
    ticking.abort();
    crowd.tick(unix_s());
    results.compared = crowd.compared();
    // How sessions ended is known only now.
    let leaving = crowd.take();
    for (how, count) in leaving.left {
        *results.tally.left.entry(how).or_default() += count;
    }
    results.slices = crowd.slices();
    results.tester.truth_lost = finish_ground(crowd).await?;
    if results.tester.truth_lost > 0 {
        results.tester.limited.push("the ground-truth log could not keep up with its disk".to_owned());
    }
    Ok(Outcome { results, servers })
}

async fn finish_ground(crowd: Arc<Crowd>) -> Result<u64, RunError> {
    let closed = tokio::task::spawn_blocking(move || crowd.finish_ground());
    match closed.await {
        Ok(Ok(lost)) => Ok(lost),
        Ok(Err(error)) => Err(RunError::Ground(error)),
        Err(error) => Err(RunError::Ground(std::io::Error::other(error))),
    }
}

async fn check(crowd: &Crowd, scenario: &Scenario) -> Result<(), RunError> {
    for address in &scenario.addresses {
        match crowd.dialer.resolve(&address.authority).await {
            Err(error) if error.is_misuse() => {
                return Err(RunError::Address { address: address.clone(), error });
            }
            _ => {}
        }
    }
    for pid in &scenario.server_pids {
        Watch::start(*pid, scenario.server_children)?;
    }
    Ok(())
}

fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// At the end of each second of the wall clock, what happened in it is put away.
async fn tick(crowd: Arc<Crowd>) {
    loop {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let rest = Duration::from_secs(1) - Duration::from_nanos(now.subsec_nanos().into());
        tokio::time::sleep(rest).await;
        crowd.tick(now.as_secs());
    }
}

/// One thread's part of a run.
struct Floor {
    crowd: Arc<Crowd>,
    scenario: Scenario,
    shard: usize,
    begin: Instant,
    pulse: Pulse,
    stopped: watch::Receiver<bool>,
}

impl Floor {
    fn run(self) {
        // Without threads of its own there is nothing that can fail but the system.
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
            tracing::error!("no event loop for a thread of viewers");
            return;
        };
        LocalSet::new().block_on(&runtime, self.viewers());
    }

    async fn viewers(mut self) {
        let household = Rc::new(Household::default());
        let beat = tokio::task::spawn_local(pulse::watch(Arc::clone(&self.pulse)));
        let mut viewers = JoinSet::new();
        let threads = self.crowd.threads();
        for slot in (self.shard..self.scenario.viewers as usize).step_by(threads) {
            let share = slot as f64 / f64::from(self.scenario.viewers);
            let at = self.begin + self.scenario.ramp.mul_f64(share);
            let seat = Seat {
                crowd: Arc::clone(&self.crowd),
                household: Rc::clone(&household),
                addresses: rotated(&self.scenario.addresses, slot),
                slot: slot as u64,
                shard: self.shard,
                viewers: self.scenario.viewers.into(),
                pause: self.scenario.pause,
                end: self.begin + self.scenario.ramp + self.scenario.duration,
            };
            viewers.spawn_local(async move {
                tokio::time::sleep_until(at).await;
                seat.sit().await;
            });
        }
        let mut bury = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                done = viewers.join_next() => if done.is_none() { break },
                _ = bury.tick() => household.bury(std::time::Instant::now()),
                _ = self.stopped.wait_for(|stopped| *stopped) => {
                    household.stop();
                    while viewers.join_next().await.is_some() {}
                    break;
                }
            }
        }
        beat.abort();
    }
}

fn rotated(addresses: &[Address], by: usize) -> Rc<[Address]> {
    let by = by % addresses.len().max(1);
    addresses[by..].iter().chain(&addresses[..by]).cloned().collect()
}

/// Where one viewer after the other watches.
struct Seat {
    crowd: Arc<Crowd>,
    household: Rc<Household>,
    addresses: Rc<[Address]>,
    slot: u64,
    shard: usize,
    viewers: u64,
    pause: Duration,
    end: Instant,
}

impl Seat {
    async fn sit(self) {
        let conduct = &self.crowd.habits.conduct;
        for round in 0u64.. {
            // Viewers have numbers of their own, in the order of their seats.
            let index = self.slot + round * self.viewers;
            let mut random = viewer::random_of(&self.crowd, index);
            let horizon = self.end.saturating_duration_since(Instant::now()) + LEAVE_TIMEOUT;
            let plan = Plan {
                addresses: Rc::clone(&self.addresses),
                protocol: conduct.protocol(&mut random),
                script: Script::new(conduct, horizon, &mut random),
                index,
                shard: self.shard,
            };
            let pause = self.pause.mul_f64(random.exponential());
            // Boxed: between sessions there is nothing to keep.
            let over = Box::pin(viewer::watch(Arc::clone(&self.crowd), Rc::clone(&self.household), plan)).await;
            if over || self.household.is_stopping() {
                return;
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.household.stopping() => return,
            }
        }
    }
}

#[cfg(test)]
mod tests;
