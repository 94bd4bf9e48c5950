//! What reports cost the origin: POPs with some thousand sessions each report once a second, as fast as they are taken.
//!
//! `cargo run --release -p sigma-stats --example report_cost [SESSIONS] [SECONDS] [DATABASE_URL]` prints the processor time
//! of one session's entry, journal, checkpoints and all, and what that makes of a core at one report a second.

use bytes::Bytes;
use sigma_report::report::{PopDescription, Protocol, Report, SessionReport, TrafficReport};
use sigma_report::spans::Span;
use sigma_shared::id::{ChannelId, PopId};
use sigma_stats::aggregate::{Broadcast, Retention};
use sigma_stats::keeper::{Setup, Source, Stats, now_ms};
use sigma_stats::scope::Scope;
use sigma_stats::store::Store;
use std::error::Error;
use std::io::Write;
use std::time::Instant;
use tokio::sync::watch;

/// The state is written this often, in reports: as often as in life, where one comes a second.
const CHECKPOINT_EVERY: u64 = 10;

/// Processor time of this process, milliseconds.
fn cpu_ms() -> Result<u64, Box<dyn Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks: u64 = [11, 12].iter().filter_map(|index| fields.get(*index)?.parse::<u64>().ok()).sum();
    Ok(ticks * 10)
}

/// A second of every session. Half came over HTTP/2; one in a hundred is new each second.
fn report(sessions: u64, sequence: u64, base_ms: u64) -> Report {
    let at = base_ms + sequence * 1000;
    let entry = |n: u64| {
        let churned = if n % 100 == sequence % 100 { n + sessions * sequence } else { n };
        let mut session = [0; 16];
        session[..8].copy_from_slice(&churned.to_be_bytes());
        SessionReport {
            session,
            viewer: churned + 1,
            channel: 0,
            protocol: if n.is_multiple_of(2) { Protocol::H2 } else { Protocol::H3 },
            watched: vec![Span { start: at * 1000, end: (at + 1000) * 1000 }],
            present: vec![Span { start: at + n % 1000, end: at + n % 1000 + 1000 }],
        }
    };
    let traffic = [Protocol::H2, Protocol::H3].map(|protocol| TrafficReport {
        channel: 0,
        protocol,
        second: at / 1000,
        bytes: 1 << 20,
        requests: sessions,
    });
    let text = || "pop-1".to_owned();
    Report {
        incarnation: 1,
        sequence,
        made_at_ms: at,
        complete_until_ms: at,
        pop: PopDescription {
            name: text(),
            region: text(),
            coordinates: None,
            capacity_viewers: 0,
            version: text(),
            connections: 0,
        },
        channels: vec!["bench".to_owned()],
        sessions: (0..sessions).map(entry).collect(),
        traffic: traffic.into(),
        quality: Vec::new(),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let sessions: u64 = arguments.next().map_or(Ok(5000), |sessions| sessions.parse())?;
    let reports: u64 = arguments.next().map_or(Ok(60), |reports| reports.parse())?;
    let folder = std::env::temp_dir().join(format!("sigma-report-cost-{}", std::process::id()));
    let store = match arguments.next() {
        Some(url) => Store::url(&url)?,
        None => Store::file(&folder.join("stats.sqlite"))?,
    };
    let (channel, pop): (ChannelId, PopId) = ("bench".parse()?, "pop-1".parse()?);
    let base_ms = now_ms() - (reports + 10) * 1000;
    let (broadcasts, receiver) = watch::channel(Vec::new());
    let channels = vec![Source { id: channel.clone(), grace_ms: 4000, broadcasts: receiver }];
    let setup = Setup { channels, retention: Retention::default(), final_wait_ms: 60_000 };
    let (stats, thread) = Stats::start(store, setup)?;
    broadcasts.send_replace(vec![Broadcast { start_ms: base_ms, end_ms: None }]);
    let bytes: Vec<_> = (1..=reports)
        .map(|sequence| report(sessions, sequence, base_ms).encode())
        .collect::<Result<_, _>>()?;
    let size: usize = bytes.iter().map(Vec::len).sum();
    let (began, cpu_began) = (Instant::now(), cpu_ms()?);
    for (sequence, bytes) in (1u64..).zip(bytes) {
        stats.report(pop.clone(), Bytes::from(bytes)).await?;
        if sequence.is_multiple_of(CHECKPOINT_EVERY) {
            stats.checkpoint().await?;
        }
    }
    let (wall, cpu) = (began.elapsed(), cpu_ms()? - cpu_began);
    let at_ms = base_ms + reports * 1000;
    let totals = stats.ask(move |aggregate| aggregate.summary(&channel, &Scope::All, at_ms)).await?;
    drop(stats);
    tokio::task::spawn_blocking(|| thread.join()).await?.map_err(|_| "the keeper panicked")?;
    let entries = sessions * reports;
    writeln!(
        std::io::stdout(),
        "{sessions} sessions x {reports} reports: {:.2} us of processor time an entry, {:.1} % of a core at a report \
         a second; {:.0} ms a report; {} bytes an entry; views {}",
        cpu as f64 * 1000.0 / entries as f64,
        cpu as f64 / reports as f64 / 10.0,
        wall.as_millis() as f64 / reports as f64,
        size as u64 / entries,
        totals.map_or(0, |summary| summary.totals.views),
    )?;
    let _ = std::fs::remove_dir_all(folder);
    Ok(())
}
