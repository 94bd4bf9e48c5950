//! `sigma-origin dev`: one origin and N edges with embedded defaults, behind one Ctrl-C.
//!
//! It writes the configuration files, keys and certificates that a person would, into the data directory, starts the
//! same binaries with them that production starts, and stops them again. Deliberately absent: any way to serve that
//! `serve` does not have.

pub(crate) mod certificates;
mod layout;
mod processes;

use clap::Args;
use layout::Layout;
use processes::Processes;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long everything may take until it serves.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// What `dev` can be asked for.
#[derive(Args)]
pub(crate) struct DevArgs {
    /// Where configuration, keys, certificates and state go
    #[arg(long, value_name = "DIR", default_value = "./data")]
    data: PathBuf,
    /// How many edges to start, `pop-1` to `pop-N`
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(0..=50))]
    edges: u16,
    /// Added to every port, so that several can run side by side
    #[arg(long, value_name = "K", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=50_000))]
    port_offset: u16,
    /// Start without the test source on channel `demo`
    #[arg(long)]
    no_source: bool,
    /// Write a JSON object with all addresses here when everything serves
    #[arg(long, value_name = "PATH")]
    ready_file: Option<PathBuf>,
    /// The edge's binary [default: sigma-edge beside this one]
    #[arg(long, value_name = "PATH")]
    edge_binary: Option<PathBuf>,
}

/// Runs until a signal, or until one of the processes ends by itself.
#[tokio::main]
pub(crate) async fn run(args: &DevArgs) -> Result<(), String> {
    if let Some(path) = &args.ready_file {
        // A file of an earlier run would say "ready" too early.
        remove_if_there(path)?;
    }
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let layout = Layout::new(&args.data, args.port_offset, args.edges)?;
    let keys = layout.write(!args.no_source, cores)?;
    let own = std::env::current_exe().map_err(|error| format!("this binary cannot be found: {error}"))?;
    let edge = args.edge_binary.clone().unwrap_or_else(|| own.with_file_name("sigma-edge"));

    layout.check_ports()?;
    let mut processes = Processes::new()?;
    let config = OsStr::new("--config");
    processes.start("origin", &own, &[config, layout.origin_config().as_os_str()])?;
    for n in 0..args.edges {
        // A successor would be nobody's child here.
        let file = layout.edge_config(n);
        let arguments = [config, file.as_os_str(), OsStr::new("--no-successor")];
        processes.start(&layout::pop(n), &edge, &arguments)?;
    }
    let ready = tokio::time::timeout(START_TIMEOUT, layout.wait_until_ready());
    let outcome = tokio::select! {
        ready = ready => ready.map_err(|_| format!("not everything serves after {} s", START_TIMEOUT.as_secs())),
        ended = processes.ended() => Err(ended),
        () = processes.signalled() => { processes.stop().await; return Ok(()) }
    };
    if let Err(error) = outcome {
        processes.stop().await;
        return Err(error);
    }
    let announcement = layout.announcement(&keys, &processes.pids());
    if let Some(path) = &args.ready_file {
        write_whole(path, announcement.json.as_bytes())?;
    }
    crate::say(&mut std::io::stdout(), &announcement.text);
    let outcome = tokio::select! {
        ended = processes.ended() => Err(ended),
        () = processes.signalled() => Ok(()),
    };
    processes.stop().await;
    if let Some(path) = &args.ready_file {
        remove_if_there(path)?;
    }
    outcome
}

fn remove_if_there(path: &Path) -> Result<(), String> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("{}: cannot be removed: {error}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Beside and renamed: whoever waits for the file sees all of it.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), String> {
    let beside = path.with_extension("new");
    std::fs::write(&beside, bytes)
        .and_then(|()| std::fs::rename(&beside, path))
        .map_err(|error| format!("{}: cannot be written: {error}", path.display()))
}
