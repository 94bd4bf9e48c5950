//! `sigma-load run`: many viewers over a time, and the report.
//!
//! Invariants: rates, delays and CPU are of the measured time, which begins when the last viewer has started; errors
//! and startup times are of the whole run. Requests still under way at the end are not counted.

use crate::address::Address;
use crate::crowd::Crowd;
use crate::dial::DialError;
use crate::procstat::{self, ProcError, Usage, Watch};
use crate::report::{Measured, Report};
use crate::viewer::Viewer;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// A run cannot begin: the caller's fault.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error("{address}: {error}")]
    Address { address: Address, error: DialError },
    #[error("--server-pid: {0}")]
    Server(#[from] ProcError),
}

/// What to run.
#[derive(Debug)]
pub(crate) struct Scenario {
    /// Viewers take turns on them.
    pub(crate) addresses: Vec<Address>,
    pub(crate) viewers: u32,
    /// Time over which viewers start, evenly.
    pub(crate) ramp: Duration,
    /// Time measured after that.
    pub(crate) duration: Duration,
    pub(crate) server_pids: Vec<u32>,
    pub(crate) server_children: bool,
}

/// Runs to the end, or until `stop` resolves.
pub(crate) async fn run(
    crowd: Arc<Crowd>,
    scenario: &Scenario,
    stop: impl Future<Output = ()>,
) -> Result<Report, RunError> {
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
    let start = Instant::now();
    let mut viewers = JoinSet::new();
    for index in 0..scenario.viewers {
        let address = scenario.addresses[index as usize % scenario.addresses.len()].clone();
        let viewer = Viewer::new(Arc::clone(&crowd), index.into(), address);
        let at = start + scenario.ramp.mul_f64(f64::from(index) / f64::from(scenario.viewers));
        viewers.spawn(async move {
            tokio::time::sleep_until(at).await;
            Box::pin(viewer.watch()).await;
        });
    }
    tokio::pin!(stop);
    let stopped = tokio::select! {
        () = tokio::time::sleep_until(start + scenario.ramp) => false,
        () = &mut stop => true,
    };
    let warm_up = crowd.take();
    let begun = Instant::now();
    let own_cpu_s = Usage::own_cpu_s();
    let watches = scenario
        .server_pids
        .iter()
        .map(|pid| Watch::start(*pid, scenario.server_children))
        .collect::<Result<Vec<_>, _>>()?;
    let over = async {
        tokio::select! {
            () = tokio::time::sleep_until(begun + scenario.duration), if !stopped => {}
            () = &mut stop, if !stopped => {}
            // Every broadcast ended: nobody is left to measure.
            () = async { while viewers.join_next().await.is_some() {} }, if !stopped => {}
            else => {}
        }
    };
    let servers = procstat::follow(watches, over).await;
    let measured = Measured {
        seconds: begun.elapsed().as_secs_f64(),
        own_cpu_s: Usage::own_cpu_s() - own_cpu_s,
        renditions: crowd.renditions(),
        compared: crowd.compared(),
        tally: crowd.take(),
        warm_up,
        servers,
    };
    viewers.abort_all();
    Ok(Report::new(scenario, crowd.dialer.protocol(), measured))
}

#[cfg(test)]
mod tests;
