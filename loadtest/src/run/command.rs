//! `sigma-load run` from its flags to its report: the scenario, the viewers, and what the origin says of them.
//!
//! Invariant: what was measured is reported whatever the comparison with the origin says, and the comparison is made
//! whatever was measured.

use super::{Order, RunError};
use crate::address::Address;
use crate::behaviour;
use crate::cli::RunArgs;
use crate::crowd::{Crowd, Habits};
use crate::dial::Dialer;
use crate::ground::GroundLog;
use crate::merge::Recorded;
use crate::progress::Progress;
use crate::report::Report;
use crate::results::Point;
use crate::verify::compare::{self, Totals};
use crate::viewer::channel_of;
use crate::{Failure, access, dialer, misuse, raise_open_files, verify};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Viewers that open files are asked for, at most.
const OPEN_VIEWERS_MAX: u32 = 100_000;
/// How long after a run its numbers may take to be final.
const PROOF_WAIT: Duration = Duration::from_secs(30);
/// How long before a run the numbers of what was before may take to be.
const BASELINE_WAIT: Duration = Duration::from_secs(10);

/// Runs to the end, or until `stop` resolves; then it is asked anew, for the comparison.
///
/// # Errors
/// It could not begin, or its log could not be written: the caller's or the machine's fault.
pub(crate) async fn run(arguments: &RunArgs, stop: impl AsyncFn()) -> Result<Report, Failure> {
    let scenario = behaviour::scenario(arguments).map_err(misuse)?;
    raise_open_files(u32::try_from(scenario.arrivals()).unwrap_or(u32::MAX).min(OPEN_VIEWERS_MAX));
    let addresses = scenario.addresses();
    let dialer = dialer(&arguments.target, &addresses)?;
    let protocol = dialer.protocol();
    let habits = Habits::of(&scenario);
    let mut crowd = Crowd::new(dialer, habits, arguments.behaviour.threads.into());
    crowd.tokens = arguments.behaviour.tokens(&scenario).map_err(misuse)?;
    crowd.seed = scenario.seed;
    if let Some(path) = &arguments.behaviour.truth {
        let log = GroundLog::create(path).map_err(|error| misuse(format!("{}: {error}", path.display())))?;
        crowd.log_to(log);
    }
    let order = Order {
        scenario,
        server_pids: arguments.server_pid.clone(),
        server_children: arguments.server_children,
    };
    let before = match arguments.proof.verify {
        true => tokio::select! {
            before = baseline(arguments, &addresses) => before?,
            () = stop() => return Err("interrupted before it began".into()),
        },
        false => BTreeMap::new(),
    };
    let progress =
        Arc::new(Mutex::new(Some(Progress::begin(&arguments.view, &order.scenario).map_err(misuse)?)));
    let watched = Arc::clone(&progress);
    let show = move |unix_s: u64, points: &[(String, Point)]| {
        if let Some(progress) = &mut *lock(&watched) {
            progress.second(unix_s, points);
        }
    };
    let outcome = super::run(Arc::new(crowd), &order, show, stop()).await;
    // Whatever came of it: the terminal is free before anything is said of it.
    drop(lock(&progress).take());
    let outcome = outcome.map_err(|error| match error {
        RunError::Ground(_) => error.into(),
        RunError::Address { .. } | RunError::Server(_) => misuse(error),
    })?;
    let mut recorded = Recorded::new(&order.scenario, protocol, outcome);
    if arguments.proof.verify {
        tokio::select! {
            () = prove(arguments, &addresses, &before, &mut recorded) => {}
            () = stop() => recorded.unverified.push("interrupted".to_owned()),
        }
    }
    Ok(Report::new(recorded))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn channels(addresses: &[Address]) -> BTreeSet<String> {
    addresses.iter().map(|address| channel_of(&address.path)).collect()
}

/// The origin's totals of every channel that is going to be watched. Those that it does not tell are left out.
async fn baseline(arguments: &RunArgs, addresses: &[Address]) -> Result<BTreeMap<String, Totals>, Failure> {
    let mut known = BTreeMap::new();
    for channel in channels(addresses) {
        let (dialer, order) = asking(arguments, &channel)?;
        let order = verify::Order { wait: BASELINE_WAIT, ..order };
        match verify::totals(&dialer, &order).await {
            Ok(totals) => {
                known.insert(channel, totals);
            }
            Err(error) => tracing::warn!("what the origin counted before the run is not known: {error}"),
        }
    }
    Ok(known)
}

/// The origin's numbers of every channel that was watched, held against the ground truth.
async fn prove(
    arguments: &RunArgs,
    addresses: &[Address],
    before: &BTreeMap<String, Totals>,
    recorded: &mut Recorded,
) {
    for channel in channels(addresses) {
        match prove_one(arguments, &channel, before.get(&channel).copied()).await {
            Ok(mut verification) => {
                verification.run = recorded.runs.concat();
                recorded.verification.push(verification);
            }
            Err(error) => recorded.unverified.push(format!("channel {channel}: {error}")),
        }
    }
}

async fn prove_one(
    arguments: &RunArgs,
    channel: &str,
    before: Option<Totals>,
) -> Result<compare::Verification, Failure> {
    let (dialer, order) = asking(arguments, channel)?;
    Ok(verify::run(&dialer, &verify::Order { before, ..order }).await?)
}

/// How the origin is asked.
fn asking(arguments: &RunArgs, channel: &str) -> Result<(Dialer, verify::Order), Failure> {
    let proof = &arguments.proof;
    let (token, file) = (proof.origin_token.as_ref(), proof.origin_token_file.as_deref());
    let order = verify::Order {
        truth: arguments.behaviour.truth.iter().cloned().collect(),
        url: access::url(proof.origin.as_ref(), &access::environment).map_err(misuse)?,
        token: access::token(token, file, &access::environment).map_err(misuse)?,
        channel: channel.to_owned(),
        before: None,
        bars: compare::Bars::default(),
        wait: PROOF_WAIT,
        timeout: arguments.target.timeout(),
    };
    Ok((dialer(&arguments.target, std::slice::from_ref(&order.url))?, order))
}

#[cfg(test)]
mod tests;
