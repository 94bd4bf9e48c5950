//! `sigma-load run` from its flags to its report: the scenario, the viewers, and what the origin says of them.
//!
//! Invariant: what was measured is reported whatever the comparison with the origin says, and the comparison is made
//! whatever was measured.

use super::Order;
use crate::address::Address;
use crate::behaviour;
use crate::cli::RunArgs;
use crate::crowd::{Crowd, Habits};
use crate::ground::GroundLog;
use crate::merge::Recorded;
use crate::progress::Progress;
use crate::report::Report;
use crate::results::Point;
use crate::verify::{self, compare};
use crate::viewer::channel_of;
use crate::{Failure, access, dialer, raise_open_files};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Viewers that open files are asked for, at most.
const OPEN_VIEWERS_MAX: u32 = 100_000;
/// How long after a run its numbers may take to be final.
const PROOF_WAIT: Duration = Duration::from_secs(30);

/// Runs to the end, or until `stop` resolves; then it is asked anew, for the comparison.
///
/// # Errors
/// It could not begin, or its log could not be written: the caller's or the machine's fault.
pub(crate) async fn run(arguments: &RunArgs, stop: impl AsyncFn()) -> Result<Report, Failure> {
    let scenario = behaviour::scenario(arguments)?;
    raise_open_files(u32::try_from(scenario.arrivals()).unwrap_or(u32::MAX).min(OPEN_VIEWERS_MAX));
    let addresses = scenario.addresses();
    let dialer = dialer(&arguments.target, &addresses)?;
    let protocol = dialer.protocol();
    let habits = Habits::of(&scenario);
    let mut crowd = Crowd::new(dialer, habits, arguments.behaviour.threads.into());
    crowd.tokens = arguments.behaviour.tokens(&scenario)?;
    crowd.seed = scenario.seed;
    if let Some(path) = &arguments.behaviour.truth {
        let log = GroundLog::create(path).map_err(|error| format!("{}: {error}", path.display()))?;
        crowd.log_to(log);
    }
    let order = Order {
        scenario,
        server_pids: arguments.server_pid.clone(),
        server_children: arguments.server_children,
    };
    let progress = Arc::new(Mutex::new(Some(Progress::begin(&arguments.view, &order.scenario)?)));
    let watched = Arc::clone(&progress);
    let show = move |unix_s: u64, points: &[(String, Point)]| {
        if let Some(progress) = &mut *lock(&watched) {
            progress.second(unix_s, points);
        }
    };
    let outcome = super::run(Arc::new(crowd), &order, show, stop()).await;
    // Whatever came of it: the terminal is free before anything is said of it.
    drop(lock(&progress).take());
    let outcome = outcome?;
    let mut recorded = Recorded::new(&order.scenario, protocol, outcome);
    if let Some(truth) = arguments.behaviour.truth.as_deref().filter(|_| arguments.proof.verify) {
        tokio::select! {
            () = prove(arguments, truth, &addresses, &mut recorded) => {}
            () = stop() => recorded.unverified.push("interrupted".to_owned()),
        }
    }
    Ok(Report::new(recorded))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The origin's numbers of every channel that was watched, held against the ground truth.
async fn prove(arguments: &RunArgs, truth: &Path, addresses: &[Address], recorded: &mut Recorded) {
    let mut channels: Vec<String> = addresses.iter().map(|address| channel_of(&address.path)).collect();
    channels.sort();
    channels.dedup();
    for channel in channels {
        match prove_one(arguments, truth, &channel).await {
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
    truth: &Path,
    channel: &str,
) -> Result<compare::Verification, Failure> {
    let proof = &arguments.proof;
    let (token, file) = (proof.origin_token.as_ref(), proof.origin_token_file.as_deref());
    let order = verify::Order {
        truth: vec![truth.to_owned()],
        url: access::url(proof.origin.as_ref(), &access::environment)?,
        token: access::token(token, file, &access::environment)?,
        channel: channel.to_owned(),
        bars: compare::Bars::default(),
        wait: PROOF_WAIT,
        timeout: arguments.target.timeout(),
    };
    let dialer = dialer(&arguments.target, std::slice::from_ref(&order.url))?;
    Ok(verify::run(&dialer, &order).await?)
}

#[cfg(test)]
mod tests;
