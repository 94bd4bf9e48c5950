//! `sigma-load`: plays the part of viewers and publishers in numbers and measures what they get.
//!
//! This file turns the command line into runs, reports and exit codes. The pure core is `player` (what a viewer asks
//! for next), `check` (conformance), `scenario`, `board`, `integral`, `verify::compare`, `playlist`, `address`, `identity`, `tally`, `loop_clock` and `prometheus`; the shell around it is `dial`,
//! `fetch`, `crowd`, `viewer`, `run`, `herd`, `publish`, `verify` and `procstat`.

mod access;
mod adapt;
mod address;
mod behaviour;
mod board;
mod check;
mod cli;
mod cmcd;
mod crowd;
mod dial;
#[cfg(test)]
mod fake;
mod fetch;
mod ground;
mod herd;
mod identity;
mod integral;
mod listing;
mod loop_clock;
mod merge;
mod outlet;
mod playback;
mod player;
mod playlist;
mod procstat;
mod progress;
mod prometheus;
mod publish;
mod pulse;
mod random;
mod report;
mod results;
mod run;
mod scenario;
mod script;
mod shelf;
mod steps;
mod tally;
mod tls;
mod verify;
mod viewer;
mod watched;
mod wire;

use address::Address;
use clap::Parser;
use cli::{
    CheckArgs, Cli, Command, HerdArgs, LogFormat, MergeArgs, Output, ProcstatArgs, PublishArgs, RunArgs,
    Target, VerifyArgs,
};
use dial::{DialConfig, Dialer, Protocol};
use herd::HerdError;
use outlet::Outlets;
use report::Report;
use serde::Serialize;
use std::fmt::Display;
use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use tls::Trust;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use verify::VerifyError;

/// The longest wait for a connection.
const DIAL_TIMEOUT_MAX: Duration = Duration::from_secs(10);

// Thousands of viewers' small allocations of a few sizes: with glibc's allocator they were a quarter of the tester's CPU.
#[cfg(not(test))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What a burst of parts left goes back to the system within about a second: kept for ten, it is a third of a crowd's memory.
#[cfg(not(test))]
#[expect(unsafe_code, reason = "the allocator looks for a symbol of this name")]
#[unsafe(export_name = "_rjem_malloc_conf")]
static ALLOCATOR_CONFIG: &[u8] = b"dirty_decay_ms:1000,muzzy_decay_ms:0\0";

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The command line asks for what cannot be, whatever servers do: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Misuse(String);

pub(crate) fn misuse(error: impl Display) -> Failure {
    Misuse(error.to_string()).into()
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    log(cli.log_format);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "no runtime");
            return ExitCode::FAILURE;
        }
    };
    let checks = matches!(cli.command, Command::Check(_));
    let result = runtime.block_on(async {
        match cli.command {
            Command::Run(arguments) => run_viewers(&arguments).await,
            Command::Merge(arguments) => run_merge(&arguments),
            Command::Herd(arguments) => run_herd(arguments).await,
            Command::Check(arguments) => run_check(&arguments).await,
            Command::Publish(arguments) => run_publish(arguments).await,
            Command::Verify(arguments) => run_verify(arguments).await,
            Command::Procstat(arguments) => run_procstat(&arguments).await,
        }
    });
    // Reading standard input cannot be interrupted: do not wait for it.
    runtime.shutdown_background();
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::from(if checks || error.is::<Misuse>() { 2 } else { 1 })
        }
    }
}

fn log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(|| progress::console::Lines);
    match format {
        LogFormat::Text => subscriber.init(),
        LogFormat::Json => subscriber.json().init(),
    }
}

/// Resolves on Ctrl-C or SIGTERM: a run then ends early and still reports.
async fn interrupted() {
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut terminate) => {
                terminate.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminated => {}
    }
}

fn dialer(target: &Target, addresses: &[Address]) -> Result<Dialer, Failure> {
    let tls = addresses.iter().any(|address| address.authority.tls);
    let protocol = target.protocol.unwrap_or(if tls { Protocol::H2 } else { Protocol::H1 });
    let trust = match &target.ca {
        Some(path) => Some(Trust::ca_file(path, protocol.alpn()).map_err(misuse)?),
        None if target.insecure_loopback => Some(Trust::anyone(protocol.alpn())?),
        None => None,
    };
    Ok(Dialer::new(DialConfig {
        protocol,
        trust,
        allow_remote: target.allow_remote,
        timeout: target.timeout().min(DIAL_TIMEOUT_MAX),
    }))
}

/// Two sockets per viewer and some to spare.
fn raise_open_files(viewers: u32) {
    let wanted = u64::from(viewers) * 2 + 256;
    let limit = sigma_nofile::raise(wanted);
    if limit < wanted {
        tracing::warn!(limit, wanted, "open files are limited, some viewers may not connect (ulimit -n)");
    }
}

async fn run_viewers(arguments: &RunArgs) -> Result<bool, Failure> {
    let outlets = open(&arguments.output, arguments.html.as_deref())?;
    hand_out(outlets, &run::command::run(arguments, interrupted).await?)
}

fn run_merge(arguments: &MergeArgs) -> Result<bool, Failure> {
    let outlets = open(&arguments.output, arguments.html.as_deref())?;
    let Some(recorded) = merge::merge(&arguments.reports).map_err(misuse)? else {
        return Err("no report".into());
    };
    hand_out(outlets, &Report::new(recorded))
}

fn open(output: &Output, html: Option<&Path>) -> Result<Outlets, Failure> {
    Outlets::open(output.json.as_deref(), html).map_err(misuse)
}

/// Writes a report wherever it was wanted. Returns whether the run was good.
fn hand_out(outlets: Outlets, report: &Report) -> Result<bool, Failure> {
    let written = outlets.hand_out(&mut std::io::stdout().lock(), report, || report::html::page(report));
    for failure in &report.failures {
        tracing::error!("{failure}");
    }
    written.map(|()| report.passed)
}

/// The same for one that has no page.
fn write<R: Serialize + Display>(outlets: Outlets, report: &R) -> Result<(), Failure> {
    outlets.hand_out(&mut std::io::stdout().lock(), report, String::new)
}

async fn run_herd(arguments: HerdArgs) -> Result<bool, Failure> {
    let outlets = open(&arguments.output, None)?;
    raise_open_files(arguments.requests);
    let dialer = Arc::new(dialer(&arguments.target, std::slice::from_ref(&arguments.url))?);
    let herd = herd::Herd {
        address: arguments.url,
        requests: arguments.requests,
        lead: Duration::from_millis(arguments.lead_ms),
        timeout: arguments.target.timeout(),
        metrics: arguments.metrics.map(|address| (address, arguments.metric)),
    };
    let report = herd::run(dialer, &herd).await.map_err(|error| match error {
        HerdError::Dial(dial) if dial.is_misuse() => misuse(dial),
        error => error.into(),
    })?;
    write(outlets, &report)?;
    let alike = report.distinct_bodies == 1;
    let coalesced = report.upstream_requests.is_none_or(|n| n <= arguments.max_upstream as f64);
    Ok(alike && coalesced && report.errors_total <= arguments.max_errors)
}

async fn run_check(arguments: &CheckArgs) -> Result<bool, Failure> {
    let outlets = open(&arguments.output, None)?;
    let addresses: Vec<Address> =
        std::iter::once(&arguments.url).chain(&arguments.compare).cloned().collect();
    let dialer = dialer(&arguments.target, &addresses)?;
    for address in &addresses {
        dialer.resolve(&address.authority).await?;
    }
    let wire = check::wire::Wire::new(dialer, arguments.target.timeout());
    let plan = check::Plan {
        address: arguments.url.clone(),
        compare: arguments.compare.clone(),
        duration: Duration::from_secs(arguments.seconds),
    };
    let report = check::run(Arc::new(wire), &plan).await?;
    write(outlets, &report)?;
    Ok(report.is_good(arguments.fail_on))
}

async fn run_publish(arguments: PublishArgs) -> Result<bool, Failure> {
    let outlets = open(&arguments.output, None)?;
    let input = match (arguments.test_source, arguments.file) {
        (Some(picture), _) => publish::Input::Test(picture, arguments.test_kbps),
        (None, Some(path)) if path != Path::new("-") => publish::Input::File(path),
        _ => publish::Input::Stdin,
    };
    let order = publish::Order {
        url: arguments.url,
        count: arguments.count,
        input,
        repeat: arguments.repeat,
        duration: arguments.seconds.map(Duration::from_secs),
        reconnects: arguments.reconnects,
        allow_remote: arguments.allow_remote,
        ffmpeg: arguments.ffmpeg,
        max_errors: arguments.max_errors,
    };
    let report = publish::run(order, interrupted()).await.map_err(misuse)?;
    write(outlets, &report)?;
    Ok(report.passed)
}

async fn run_verify(arguments: VerifyArgs) -> Result<bool, Failure> {
    let outlets = open(&arguments.output, None)?;
    let (token, file) = (arguments.token.as_ref(), arguments.token_file.as_deref());
    let token = access::token(token, file, &access::environment).map_err(misuse)?;
    let url = access::url(arguments.url.as_ref(), &access::environment).map_err(misuse)?;
    let dialer = dialer(&arguments.target, std::slice::from_ref(&url))?;
    let order = verify::Order {
        truth: arguments.truth,
        url,
        token,
        channel: arguments.channel.to_string(),
        before: None,
        bars: verify::compare::Bars { part_ms: arguments.part_ms },
        wait: Duration::from_secs(arguments.wait_seconds),
        timeout: arguments.target.timeout(),
    };
    let verification = verify::run(&dialer, &order).await.map_err(|error| match error {
        VerifyError::File { .. } | VerifyError::Line { .. } => misuse(error),
        error => error.into(),
    })?;
    write(outlets, &verification)?;
    Ok(verification.passed)
}

async fn run_procstat(arguments: &ProcstatArgs) -> Result<bool, Failure> {
    let outlets = open(&arguments.output, None)?;
    procstat::Watch::start(arguments.pid, arguments.children).map_err(misuse)?;
    tokio::time::sleep(Duration::from_secs(arguments.warm_up_seconds)).await;
    let watch = procstat::Watch::start(arguments.pid, arguments.children)?;
    let over = async {
        tokio::select! {
            () = tokio::time::sleep(Duration::from_secs(arguments.seconds)) => {}
            () = interrupted() => {}
        }
    };
    if let Some(report) = procstat::follow(vec![watch], over).await.first() {
        write(outlets, report)?;
    }
    Ok(true)
}
