//! `sigma-load run`: many viewers over a time, and what was measured.
//!
//! Viewers are spread over threads with an event loop each. Invariants: rates, delays and CPU are of the measured time,
//! which begins when the last viewer has started; errors, startup times and seconds are of the whole run. At both ends of
//! the measured time all sessions are looked at, so that what goes on is counted up to then. Requests still under way at
//! the end are not counted, but those are errors that should have been answered. Sessions that last to the end leave
//! cleanly and are in the ground-truth log.

pub(crate) mod command;

use crate::address::Address;
use crate::crowd::Crowd;
use crate::dial::DialError;
use crate::procstat::{self, ProcError, Usage, UsageReport, Watch};
use crate::pulse::{self, Pulse};
use crate::random::Random;
use crate::results::{Point, Results};
use crate::scenario::Scenario;
use crate::scenario::plan::{Arrival, exoduses, plan};
use crate::script::{Script, Stay};
use crate::viewer::{self, Household, Places, Plan, TURN};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinSet, LocalSet};
use tokio::time::{Instant, MissedTickBehavior};

/// How long sessions may take to leave when the run is over.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a thread may take to look at all of its viewers.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);

/// A run cannot begin, or not be trusted: the caller's or the machine's fault.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error("{address}: {error}")]
    Address { address: Address, error: DialError },
    #[error("--server-pid: {0}")]
    Server(#[from] ProcError),
    #[error("ground-truth log: {0}")]
    Ground(std::io::Error),
}

/// What to run.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) scenario: Scenario,
    pub(crate) server_pids: Vec<u32>,
    pub(crate) server_children: bool,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) results: Results,
    pub(crate) servers: Vec<UsageReport>,
}

/// Runs to the end, or until `stop` resolves. `watcher` is told every second of the wall clock (Unix seconds) what
/// happened in it, by POP.
pub(crate) async fn run(
    crowd: Arc<Crowd>,
    order: &Order,
    watcher: impl FnMut(u64, &[(String, Point)]) + Send + 'static,
    stop: impl Future<Output = ()>,
) -> Result<Outcome, RunError> {
    let scenario = &order.scenario;
    let addresses = check(&crowd, order).await?;
    let places = Arc::new(Places {
        elsewhere: (0..addresses.len()).map(|place| scenario.elsewhere(place)).collect(),
        exoduses: exoduses(scenario),
        addresses,
    });
    let started_at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let start = Instant::now();
    let (stopping, stopped) = watch::channel(false);
    let (ramp, whole) = (scenario.warm_up(), scenario.duration());
    let Building { mut floors, calls, pulses } = open(&crowd, scenario, (places, start, &stopped));
    let ticking = tokio::spawn(tick(Arc::clone(&crowd), watcher));
    tokio::pin!(stop);
    let mut interrupted = tokio::select! {
        () = tokio::time::sleep_until(start + ramp) => false,
        () = &mut stop => true,
    };
    settle(&calls, false).await;
    let measured_from = Instant::now();
    let warm_up = crowd.take();
    pulse::restart(&pulses);
    crowd.take_send_lag();
    let own_cpu_s = Usage::own_cpu_s();
    let watch = |pid: &u32| Watch::start(*pid, order.server_children);
    let watches = order.server_pids.iter().map(watch).collect::<Result<Vec<_>, _>>()?;
    let over = async {
        if !interrupted {
            tokio::select! {
                () = tokio::time::sleep_until(measured_from + (whole - ramp)) => {}
                () = &mut stop => interrupted = true,
                // Every broadcast ended: nobody is left to measure.
                () = leave(&mut floors, &crowd) => {}
            }
        }
        settle(&calls, true).await;
    };
    let servers = procstat::follow(watches, over).await;
    // Both at once: presence is of exactly this time.
    let (measured, tally) = (measured_from.elapsed(), crowd.take());
    let mut results = Results {
        started_at_ms: u64::try_from(started_at.as_millis()).unwrap_or_default(),
        ramp_seconds: ramp.as_secs_f64(),
        seconds: measured.as_secs_f64(),
        viewers: u32::try_from(scenario.arrivals()).unwrap_or(u32::MAX),
        interrupted,
        tally,
        warm_up,
        tester: pulse::tester(&pulses, Usage::own_cpu_s() - own_cpu_s),
        ..Results::default()
    };
    results.tester.send_lag = crowd.take_send_lag();
    stopping.send_replace(true);
    let _ = tokio::time::timeout(LEAVE_TIMEOUT, leave(&mut floors, &crowd)).await;
    ticking.abort();
    finish(crowd, &mut results).await?;
    Ok(Outcome { results, servers })
}

/// Everything that is known only when all have left.
async fn finish(crowd: Arc<Crowd>, results: &mut Results) -> Result<(), RunError> {
    crowd.tick(unix_s());
    results.compared = crowd.compared();
    for (how, count) in crowd.take().left {
        *results.tally.left.entry(how).or_default() += count;
    }
    results.slices = crowd.slices();
    results.tester.broken = crowd.broken();
    results.tester.truth_lost = finish_ground(crowd).await?;
    if results.tester.truth_lost > 0 {
        results.tester.limited.push("the ground-truth log could not keep up with its disk".to_owned());
    }
    Ok(())
}

/// Asks a thread to look at all of its viewers now.
struct Call {
    /// The run is over.
    last: bool,
    done: oneshot::Sender<()>,
}

/// All threads.
struct Building {
    floors: JoinSet<()>,
    calls: Vec<mpsc::Sender<Call>>,
    pulses: Vec<Pulse>,
}

/// Begins with as many threads as there are shards.
fn open(
    crowd: &Arc<Crowd>,
    scenario: &Scenario,
    (places, begin, stopped): (Arc<Places>, Instant, &watch::Receiver<bool>),
) -> Building {
    let mut building = Building { floors: JoinSet::new(), calls: Vec::new(), pulses: Vec::new() };
    for shard in 0..crowd.threads() {
        let pulse = Pulse::default();
        building.pulses.push(Arc::clone(&pulse));
        // One call at each end of the measured time.
        let (call, calls) = mpsc::channel(2);
        building.calls.push(call);
        let floor = Floor {
            crowd: Arc::clone(crowd),
            scenario: scenario.clone(),
            places: Arc::clone(&places),
            shard,
            begin,
            pulse,
            calls,
            stopped: stopped.clone(),
        };
        building.floors.spawn_blocking(move || floor.run());
    }
    building
}

/// Lets everything that goes on be counted up to now.
async fn settle(calls: &[mpsc::Sender<Call>], last: bool) {
    let mut answers = Vec::new();
    for call in calls {
        let (done, answer) = oneshot::channel();
        // Who has no viewers any more is not there.
        if call.try_send(Call { last, done }).is_ok() {
            answers.push(answer);
        }
    }
    let all = async {
        for answer in answers {
            let _ = answer.await;
        }
    };
    if tokio::time::timeout(SETTLE_TIMEOUT, all).await.is_err() {
        tracing::warn!("a thread of viewers is so late that its last moments are not counted");
    }
}

/// Until all threads are through.
async fn leave(floors: &mut JoinSet<()>, crowd: &Crowd) {
    while let Some(left) = floors.join_next().await {
        note(left, crowd);
    }
}

/// Whoever did not come to its end shows in the report.
fn note<T>(ended: Result<T, JoinError>, crowd: &Crowd) {
    if let Err(error) = ended {
        tracing::error!(%error, "a viewer or a thread of them broke");
        crowd.breaks();
    }
}

async fn finish_ground(crowd: Arc<Crowd>) -> Result<u64, RunError> {
    let closed = tokio::task::spawn_blocking(move || crowd.finish_ground());
    match closed.await {
        Ok(Ok(lost)) => Ok(lost),
        Ok(Err(error)) => Err(RunError::Ground(error)),
        Err(error) => Err(RunError::Ground(std::io::Error::other(error))),
    }
}

async fn check(crowd: &Crowd, order: &Order) -> Result<Vec<Address>, RunError> {
    let addresses = order.scenario.addresses();
    for address in &addresses {
        match crowd.dialer.resolve(&address.authority).await {
            Err(error) if error.is_misuse() => {
                return Err(RunError::Address { address: address.clone(), error });
            }
            _ => {}
        }
    }
    for pid in &order.server_pids {
        Watch::start(*pid, order.server_children)?;
    }
    Ok(addresses)
}

fn unix_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// At the end of each second of the wall clock, what happened in it is put away.
async fn tick(crowd: Arc<Crowd>, mut watcher: impl FnMut(u64, &[(String, Point)])) {
    loop {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let rest = Duration::from_secs(1) - Duration::from_nanos(now.subsec_nanos().into());
        tokio::time::sleep(rest).await;
        crowd.tick(now.as_secs());
        watcher(now.as_secs(), &crowd.second(now.as_secs()));
    }
}

/// One thread's part of a run.
struct Floor {
    crowd: Arc<Crowd>,
    scenario: Scenario,
    places: Arc<Places>,
    shard: usize,
    begin: Instant,
    pulse: Pulse,
    calls: mpsc::Receiver<Call>,
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
        let mut stopped = self.stopped.clone();
        let household = Rc::new(Household::default());
        let beat = tokio::task::spawn_local(pulse::watch(Arc::clone(&self.pulse)));
        let mut viewers = JoinSet::new();
        let threads = self.crowd.threads() as u64;
        let scenario = self.scenario.clone();
        // All threads draw the same arrivals, and each takes its own.
        let mut arrivals = plan(&scenario, scenario.seed)
            .filter(|arrival| arrival.index % threads == self.shard as u64)
            .peekable();
        let mut turns = tokio::time::interval(TURN);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let next = arrivals.peek().map(|arrival| self.begin + arrival.at);
            if next.is_none() && viewers.is_empty() {
                break;
            }
            tokio::select! {
                biased;
                _ = stopped.wait_for(|stopped| *stopped) => {
                    household.stop();
                    while let Some(left) = viewers.join_next().await {
                        note(left, &self.crowd);
                    }
                    break;
                }
                Some(call) = self.calls.recv() => {
                    viewer::settled().await;
                    if call.last { household.close() } else { household.settle() }
                    // Who called may have stopped waiting.
                    let _ = call.done.send(());
                }
                () = tokio::time::sleep_until(next.unwrap_or(self.begin)), if next.is_some() => {
                    if let Some(arrival) = arrivals.next() {
                        viewers.spawn_local(viewer::watch(
                            Arc::clone(&self.crowd),
                            Rc::clone(&household),
                            self.plan(&arrival),
                        ));
                    }
                }
                Some(left) = viewers.join_next(), if !viewers.is_empty() => note(left, &self.crowd),
                _ = turns.tick() => household.turn(),
            }
        }
        beat.abort();
    }

    fn plan(&self, arrival: &Arrival) -> Plan {
        let exoduses: Vec<Duration> =
            self.places.exoduses.iter().map(|exodus| exodus.at.saturating_sub(arrival.at)).collect();
        let stay = Stay {
            length: arrival.stay,
            leaving: arrival.leaving,
            horizon: self.scenario.duration().saturating_sub(arrival.at),
            exoduses: &exoduses,
        };
        let mut random = Random::new(arrival.seed, 1);
        Plan {
            places: Arc::clone(&self.places),
            place: arrival.target,
            protocol: arrival.protocol.unwrap_or(self.crowd.dialer.protocol()),
            script: Script::new(&self.crowd.habits.conduct, &stay, &mut random),
            index: arrival.index,
            shard: self.shard,
        }
    }
}

#[cfg(test)]
mod tests;
