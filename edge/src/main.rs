//! Sigma Live edge: holds viewers' requests, fetches every object from the upstream once, serves it from memory.
//!
//! The way of a request: listener (sigma-http) -> `handler` (asks `admission`) -> `cache` (+ `fill`, `coalesce`) -> `disk` or `upstream`; back out
//! through `body`. Pure: `key`, `freshness`, `coalesce`, `head`. Deliberately absent: parsing media or playlists (A5).

mod account;
mod admission;
mod app;
mod body;
mod cache;
mod coalesce;
mod config;
mod disk;
mod fill;
mod freshness;
mod handler;
mod head;
mod key;
mod ledger;
mod metrics;
mod places;
mod policy;
mod presence;
mod reports;
mod session;
mod strangers;
#[cfg(test)]
mod tests;
mod tips;
mod upstream;
mod viewers;

use clap::{Parser, Subcommand};
use sigma_http::handover::Sockets;
use sigma_http::logging::{self, LogFormat};
use sigma_http::reload::Reloadable;
use sigma_http::signals::{self, Wish};
use sigma_http::systemd;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use tokio::runtime::Builder;

// Many small, short-lived allocations on many threads: glibc's allocator keeps what it freed.
#[cfg(not(test))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What was freed goes back to the system within about a second, by a thread of its own: after a herd, memory is free again.
#[expect(unsafe_code, reason = "the allocator looks for a symbol of this name")]
#[unsafe(export_name = "_rjem_malloc_conf")]
static ALLOCATOR_CONFIG: &[u8] = b"background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0\0";

/// Tasks that have their turn, on one core, before new events are looked for. Each look is a system call, and what it
/// finds waits behind the tasks that were woken before it anyway.
const TASKS_BETWEEN_EVENTS: u32 = 512;

/// Edge server of Sigma Live: answers viewers at one point of presence, from memory.
///
/// It needs at least one upstream (an origin or another edge) and a configuration file; configs/edge.toml is the commented
/// reference of every key. SIGTERM drains and exits 0, SIGHUP reloads the certificates and what of the configuration can change,
/// SIGUSR2 starts the program anew without an interruption.
#[derive(Parser)]
#[command(name = "sigma-edge", version)]
struct Cli {
    /// How logs are written to stderr; RUST_LOG filters them (default: info)
    #[arg(long, global = true, value_enum, default_value_t)]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve viewers until SIGTERM
    Serve {
        /// Configuration file (TOML)
        #[arg(long, value_name = "FILE", env = "SIGMA_EDGE_CONFIG")]
        config: PathBuf,
        /// Refuse SIGUSR2: for a supervisor that takes the end of this very process for a failure
        #[arg(long)]
        no_successor: bool,
    },
    /// Say whether a configuration file is right, and what is wrong with it
    CheckConfig {
        /// Configuration file (TOML)
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command {
        Command::CheckConfig { file } => {
            check(&file).map(|()| say(&mut std::io::stdout(), &format!("{}: ok", file.display())))
        }
        Command::Serve { config, no_successor } => {
            logging::init(cli.log_format);
            serve(&config, !no_successor)
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&mut std::io::stderr(), &error);
            ExitCode::FAILURE
        }
    }
}

/// Checks a file and the files it names, as `serve` would.
fn check(file: &Path) -> Result<(), String> {
    let config: config::Config = sigma_http::config::load(file).map_err(|error| error.to_string())?;
    let wrong = |error: app::StartError| format!("{}: {error}", file.display());
    app::check_files(&config).map_err(wrong)?;
    for warning in app::warnings(&config).map_err(wrong)? {
        say(&mut std::io::stderr(), &format!("{}: warning: {warning}", file.display()));
    }
    Ok(())
}

/// Writes a line; a reader that went away is no failure of ours.
fn say(to: &mut impl Write, line: &str) {
    let _ = writeln!(to, "{line}");
}

fn serve(file: &Path, replaceable: bool) -> Result<(), String> {
    // Before there is a second thread: it takes what systemd or a predecessor left in the environment.
    let sockets = Sockets::from_environment();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut runtime = match cores {
        // On one core nothing is gained by threads that hand tasks to each other.
        1 => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    if cores == 1 {
        runtime.event_interval(TASKS_BETWEEN_EVENTS);
    }
    let runtime = runtime.enable_all().build().map_err(|error| format!("no runtime: {error}"))?;
    let served = runtime.block_on(serve_until_drained(file, &sockets, replaceable));
    // What still looks up a name or reads a file does not keep the process.
    runtime.shutdown_background();
    served
}

async fn serve_until_drained(file: &Path, sockets: &Sockets, replaceable: bool) -> Result<(), String> {
    let config: config::Config = sigma_http::config::load(file).map_err(|error| error.to_string())?;
    let running = Arc::new(app::start(&config, sockets).map_err(|error| error.to_string())?);
    logging::apply(&config.log);
    let mut file = Reloadable::new(file, config::LIVE_KEYS);
    let reloaded = Arc::clone(&running);
    let (again, drain) = (sockets.clone(), running.drain.clone());
    let on_wish = move |wish| match wish {
        Wish::Reload => {
            file.reload_with(reloaded.certificates(), |config: &config::Config| {
                reloaded.apply(config);
            });
        }
        Wish::Restart if replaceable => again.restart(&drain),
        Wish::Restart => tracing::warn!("SIGUSR2 is refused: this edge was started with --no-successor"),
    };
    signals::listen(running.drain.clone(), on_wish).map_err(|error| error.to_string())?;
    tracing::info!(
        pop = config.pop, http = ?running.http, https = ?running.tls, ops = %running.ops,
        upstreams = config.upstream.urls.len(), "serving"
    );
    running.until_ready().await.map_err(|error| error.to_string())?;
    sockets.serving();
    systemd::serving();
    running.until_drained().await;
    tracing::info!("drained");
    Ok(())
}
