//! Attacks on a server of one's own, to see what its other peers notice: each is bounded in connections and time, and
//! goes to this machine only. `scripts/bench-attacks` measures with it.
//!
//! One line of JSON says what became of the attackers' connections. Deliberately absent: any target but loopback, and
//! anything that is not in the list of `--help`.

#[path = "../../tests/conformance/wire.rs"]
mod wire;

mod attacks;

use attacks::Kind;
use clap::Parser;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

/// Attacks a server on this machine and says how soon it let go of the attackers.
#[derive(Parser)]
struct Arguments {
    /// What to do
    kind: Kind,
    /// The server: a loopback address and the port of its plain HTTP (of TLS for tls-handshake-stall)
    #[arg(long)]
    target: SocketAddr,
    /// The loopback address to come from
    #[arg(long, default_value = "127.0.0.2")]
    from: IpAddr,
    /// Attackers' connections at once
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    connections: u32,
    /// How long to go on
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=120))]
    seconds: u64,
    /// How long an attacker rests before it comes back
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    rest_ms: u64,
    /// What is asked for; the larger it is, the better for slow readers
    #[arg(long, default_value = "/")]
    path: String,
}

/// An attacker comes back this often at most.
const ATTEMPTS_MAX: u32 = 1000;

/// What became of the connections.
#[derive(Default)]
struct Tally {
    attempts: u64,
    refused: u64,
    /// Milliseconds that those connections lasted which the server closed.
    closed_ms: Vec<u64>,
    /// Connections that were still open at the end.
    open: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if !arguments.target.ip().is_loopback() || !arguments.from.is_loopback() {
        let _ = writeln!(std::io::stderr(), "attack: only this machine is attacked: --target 127.0.0.1:PORT");
        return ExitCode::FAILURE;
    }
    let tally = run(&arguments).await;
    let written = writeln!(std::io::stdout(), "{}", report(&arguments, tally));
    if written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn run(arguments: &Arguments) -> Tally {
    let deadline = Instant::now() + Duration::from_secs(arguments.seconds);
    let mut attackers = JoinSet::new();
    for _ in 0..arguments.connections {
        let (kind, target, from) = (arguments.kind, arguments.target, arguments.from);
        let (path, rest) = (arguments.path.clone(), Duration::from_millis(arguments.rest_ms));
        attackers.spawn(async move {
            let mut tally = Tally::default();
            for _ in 0..ATTEMPTS_MAX {
                if Instant::now() >= deadline {
                    break;
                }
                tally.attempts += 1;
                attempt(&mut tally, kind, Ends { target, from, path: &path, deadline }).await;
                tokio::time::sleep_until((Instant::now() + rest).min(deadline).into()).await;
            }
            tally
        });
    }
    let mut whole = Tally::default();
    while let Some(ended) = attackers.join_next().await {
        let Ok(tally) = ended else { continue };
        whole.attempts += tally.attempts;
        whole.refused += tally.refused;
        whole.open += tally.open;
        whole.closed_ms.extend(tally.closed_ms);
    }
    whole
}

/// Where an attack goes and when it is over.
struct Ends<'a> {
    target: SocketAddr,
    from: IpAddr,
    path: &'a str,
    deadline: Instant,
}

async fn attempt(tally: &mut Tally, kind: Kind, ends: Ends<'_>) {
    let Ok(mut tcp) = connect(kind, &ends).await else {
        tally.refused += 1;
        return;
    };
    let began = Instant::now();
    let attack = attacks::perform(kind, &mut tcp, ends.path);
    match tokio::time::timeout_at(ends.deadline.into(), attack).await {
        Ok(()) => tally.closed_ms.push(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)),
        Err(_) => tally.open += 1,
    }
}

async fn connect(kind: Kind, ends: &Ends<'_>) -> std::io::Result<TcpStream> {
    let socket = if ends.target.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if kind.reads_slowly() {
        socket.set_recv_buffer_size(4096)?;
    }
    socket.bind(SocketAddr::new(ends.from, 0))?;
    let tcp = socket.connect(ends.target).await?;
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

fn report(arguments: &Arguments, mut tally: Tally) -> serde_json::Value {
    tally.closed_ms.sort_unstable();
    let at = |share: usize| tally.closed_ms.get((tally.closed_ms.len().max(1) - 1) * share / 100).copied();
    serde_json::json!({
        "attack": arguments.kind.to_string(),
        "connections": arguments.connections,
        "seconds": arguments.seconds,
        "attempts": tally.attempts,
        "not_accepted": tally.refused,
        "closed_by_server": tally.closed_ms.len(),
        "closed_ms_p50": at(50),
        "closed_ms_max": at(100),
        "still_open": tally.open,
    })
}
