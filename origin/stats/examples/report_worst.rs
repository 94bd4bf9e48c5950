//! What the dearest reports that are taken cost the origin: at the bounds of sigma-report, over all of the time that is kept.
//!
//! `cargo run --release -p sigma-stats --example report_worst [DATABASE_URL]` prints, for each kind of report, how long
//! the keeper takes for one, and how much memory it has then.

use bytes::Bytes;
use sigma_report::bounds::{MINUTES_MAX, SESSIONS_MAX, SPAN_MS_MAX, SPANS_MAX, TRAFFIC_MAX};
use sigma_report::report::{PopDescription, Protocol, Report, SessionReport, TrafficReport};
use sigma_report::spans::Span;
use sigma_shared::id::{ChannelId, PopId};
use sigma_stats::aggregate::Retention;
use sigma_stats::keeper::{Setup, Source, Stats, now_ms};
use sigma_stats::store::Store;
use std::error::Error;
use std::io::Write;
use std::time::Instant;
use tokio::sync::watch;

fn empty(sequence: u64, at: u64) -> Report {
    Report {
        incarnation: 1,
        sequence,
        made_at_ms: at,
        complete_until_ms: at,
        pop: PopDescription {
            name: String::new(),
            region: String::new(),
            coordinates: None,
            capacity_viewers: 0,
            version: String::new(),
            connections: 0,
        },
        channels: vec!["bench".to_owned()],
        sessions: Vec::new(),
        traffic: Vec::new(),
        quality: Vec::new(),
    }
}

fn session(n: u64, present: Vec<Span>) -> SessionReport {
    let mut session = [0; 16];
    session[..8].copy_from_slice(&n.to_be_bytes());
    SessionReport { session, viewer: n + 1, channel: 0, protocol: Protocol::H2, watched: Vec::new(), present }
}

/// Name and content.
fn reports(now: u64) -> Vec<(&'static str, Report)> {
    let hours: Vec<Span> =
        (1..24).map(|n| Span { start: now - n * SPAN_MS_MAX, end: now - (n - 1) * SPAN_MS_MAX }).collect();
    let day = (0..20).map(|n| session(n, hours.clone())).collect();
    // As many minutes as there may be, as far apart as they may be, over all three protocols.
    let apart = |n: u64| {
        let at = now - (n % MINUTES_MAX) * 2 * 60_000 - n % 1000;
        let protocol = [Protocol::H1, Protocol::H2, Protocol::H3][(n / MINUTES_MAX % 3) as usize];
        SessionReport { protocol, ..session(1000 + n, vec![Span { start: at, end: at + 1000 }]) }
    };
    let everybody = (0..SESSIONS_MAX as u64).map(apart).collect();
    let traffic = (0..TRAFFIC_MAX as u64).map(|n| {
        let protocol = [Protocol::H1, Protocol::H2, Protocol::H3][(n / MINUTES_MAX % 3) as usize];
        TrafficReport {
            channel: 0,
            protocol,
            second: now / 1000 - n % MINUTES_MAX * 120,
            bytes: 1,
            requests: 1,
        }
    });
    // One session in as many pieces as fit, each before the ones that are known.
    let pieces = |n: u64| {
        let span = |k: u64| {
            let start = now - (n * SPANS_MAX as u64 + k) * 2000;
            Span { start, end: start + 1000 }
        };
        session(1, (0..SPANS_MAX as u64).map(span).collect())
    };
    vec![
        ("20 sessions, 23 hours", Report { sessions: day, ..empty(1, now) }),
        ("every session, minutes apart", Report { sessions: everybody, ..empty(2, now) }),
        ("traffic, minutes apart", Report { traffic: traffic.collect(), ..empty(3, now) }),
        ("one session in pieces", Report { sessions: (0..300).map(pieces).collect(), ..empty(4, now) }),
        ("the same again", Report { sessions: (0..300).map(pieces).collect(), ..empty(5, now) }),
    ]
}

/// Resident memory of this process, MiB.
fn memory() -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = status.split(' ').nth(1).unwrap_or("0").parse()?;
    Ok((pages * 4096) >> 20)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::temp_dir().join(format!("sigma-report-worst-{}", std::process::id()));
    let store = match std::env::args().nth(1) {
        Some(url) => Store::url(&url)?,
        None => Store::file(&folder.join("stats.sqlite"))?,
    };
    let (channel, pop): (ChannelId, PopId) = ("bench".parse()?, "pop-1".parse()?);
    let (_broadcasts, receiver) = watch::channel(Vec::new());
    let channels = vec![Source { id: channel, grace_ms: 4000, broadcasts: receiver }];
    let setup = Setup { channels, retention: Retention::default(), final_wait_ms: 60_000 };
    let (stats, thread) = Stats::start(store, setup)?;
    stats.checkpoint().await?;
    let mut out = std::io::stdout();
    for (name, report) in reports(now_ms()) {
        let bytes = report.encode()?;
        let (size, before) = (bytes.len() >> 10, memory()?);
        let began = Instant::now();
        stats.report(pop.clone(), Bytes::from(bytes)).await?;
        let taken = began.elapsed().as_millis();
        let began = Instant::now();
        stats.checkpoint().await?;
        let written = began.elapsed().as_millis();
        let after = memory()?;
        writeln!(
            out,
            "{name}: {size} KiB; taken in {taken} ms, written in {written} ms; memory {before} -> {after} MiB"
        )?;
    }
    stats.close().await;
    drop(stats);
    tokio::task::spawn_blocking(|| thread.join()).await?.map_err(|_| "the keeper panicked")?;
    let _ = std::fs::remove_dir_all(folder);
    Ok(())
}
