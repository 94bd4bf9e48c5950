//! Sigma Live origin: takes live video, transcodes it, cuts it into parts and serves Low-Latency HLS.
//!
//! The way of a picture: `ingest` -> `channel` (the task around the pure stream of sigma-media) -> snapshots -> `http`.
//! The way of a request: listener (sigma-http) -> `http` -> the snapshot. Deliberately absent: FFmpeg in this process;
//! it lives in the child that the hidden subcommand makes of this binary (A11).

mod app;
mod archive;
mod channel;
mod claim;
mod cli;
mod config;
mod dev;
mod http;
mod ingest;
mod metrics;
mod numbers;
mod places;
mod playback_token;
mod policy;
mod stats;
#[cfg(test)]
mod tests;
mod transcode;

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
use tokio::runtime::Runtime;

// Playlists and parts come and go many times a second; glibc's allocator would keep the peak.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Origin server of Sigma Live: takes live video by RTMP, transcodes it, serves Low-Latency HLS.
///
/// It needs a configuration file; configs/origin.toml is the commented reference of every key. SIGTERM drains and exits
/// 0, SIGHUP reloads the certificate and what of the configuration can change.
#[derive(Parser)]
#[command(name = "sigma-origin", version)]
struct Cli {
    /// How logs are written to stderr; RUST_LOG filters them (default: info)
    #[arg(long, global = true, value_enum, default_value_t)]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve until SIGTERM
    Serve {
        /// Configuration file (TOML)
        #[arg(long, value_name = "FILE", env = "SIGMA_ORIGIN_CONFIG")]
        config: PathBuf,
    },
    /// Say whether a configuration file is right, and what is wrong with it
    CheckConfig {
        /// Configuration file (TOML)
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Tokens that open channels with playback = "token" to viewers
    PlaybackToken {
        #[command(subcommand)]
        command: playback_token::TokenCommand,
    },
    /// Show how many watch a channel: now, in sum, by POP, protocol or broadcast session
    Stats(cli::StatsArgs),
    /// Points of presence
    Pop {
        #[command(subcommand)]
        command: cli::PopCommand,
    },
    /// Start one origin and its edges with embedded defaults, for a first look and for development
    Dev(dev::DevArgs),
    /// The sandboxed FFmpeg child of one channel; started by `serve`, not by people
    #[command(hide = true, name = transcode::process::SUBCOMMAND)]
    MediaWorker {
        /// What it works for, as `ps` shows it
        name: Option<String>,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match cli.command {
        // Before anything else is set up: it closes what it does not need and enters its sandbox.
        Command::MediaWorker { .. } => return sigma_worker::run(),
        Command::CheckConfig { file } => {
            check(&file).map(|()| say(&mut std::io::stdout(), &format!("{}: ok", file.display())))
        }
        Command::PlaybackToken { command: playback_token::TokenCommand::Create(args) } => {
            playback_token::create(&args).map(|printed| say(&mut std::io::stdout(), &printed))
        }
        Command::Stats(args) => cli::stats(&args, &mut std::io::stdout()),
        Command::Pop { command } => cli::pop(&command, &mut std::io::stdout()),
        Command::Serve { config } => {
            logging::init(cli.log_format);
            serve(&config)
        }
        Command::Dev(args) => {
            logging::init(cli.log_format);
            dev::run(&args)
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
    app::check_files(&config).map_err(|error| format!("{}: {error}", file.display()))
}

/// Writes a line; a reader that went away is no failure of ours.
fn say(to: &mut impl Write, line: &str) {
    let _ = writeln!(to, "{line}");
}

fn serve(file: &Path) -> Result<(), String> {
    // Before there is a second thread: it takes what systemd left in the environment.
    let sockets = Sockets::from_environment();
    let runtime = Runtime::new().map_err(|error| error.to_string())?;
    let served = runtime.block_on(serve_until_drained(file, &sockets));
    // What still reads a file does not keep the process.
    runtime.shutdown_background();
    served
}

async fn serve_until_drained(file: &Path, sockets: &Sockets) -> Result<(), String> {
    let config: config::Config = sigma_http::config::load(file).map_err(|error| error.to_string())?;
    let running = Arc::new(app::start(&config, sockets).await.map_err(|error| error.to_string())?);
    logging::apply(&config.log);
    let mut file = Reloadable::new(file, config::LIVE_KEYS);
    let reloaded = Arc::clone(&running);
    let on_wish = move |wish| match wish {
        Wish::Reload => {
            file.reload_with(reloaded.certificate.as_deref(), |config: &config::Config| {
                reloaded.apply(config);
            });
        }
        // Publishers are connected to this process, and the archive has one writer.
        Wish::Restart => tracing::warn!("SIGUSR2: an origin cannot be replaced while it runs; restart it"),
    };
    signals::listen(running.drain.clone(), on_wish).map_err(|error| error.to_string())?;
    sockets.serving();
    systemd::serving();
    running.finished().await;
    tracing::info!("drained");
    Ok(())
}
