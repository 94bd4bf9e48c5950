//! `sigma-origin stats CHANNEL`: viewers now and in sum, once or every second.

use super::client::{Client, Server};
use super::table::{bytes, cell, duration, table};
use clap::{Args, ValueEnum};
use serde_json::Value;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// How often `--follow` asks.
const INTERVAL: Duration = Duration::from_secs(1);
/// Back to the corner, and nothing below.
const REDRAW: &str = "\x1b[H\x1b[J";
const CLEAR: &str = "\x1b[2J";

/// What is asked for.
#[derive(Args)]
pub(crate) struct StatsArgs {
    /// The channel's id
    #[arg(value_name = "CHANNEL")]
    channel: String,
    /// Tell the numbers apart
    #[arg(long, value_enum)]
    by: Option<By>,
    /// Ask every second: a live table in a terminal, a line a second elsewhere
    #[arg(long)]
    follow: bool,
    /// Print the API's JSON; with --follow one object a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum By {
    Pop,
    Protocol,
    Broadcast,
}

impl By {
    fn name(self) -> &'static str {
        match self {
            Self::Pop => "pop",
            Self::Protocol => "protocol",
            Self::Broadcast => "broadcast",
        }
    }
}

pub(super) fn run(args: &StatsArgs, out: &mut impl Write) -> Result<(), String> {
    let client = args.server.client()?;
    let by = args.by.map(|by| format!("?by={}", by.name())).unwrap_or_default();
    let path = format!("/api/v1/stats/{}{by}", args.channel);
    if args.follow {
        return follow(args, &client, (&path, out));
    }
    let stats = client.get(&path)?;
    let text = if args.json { format!("{stats:#}\n") } else { page(&stats, args.by) };
    // A reader that went away is no failure of ours.
    let _ = out.write_all(text.as_bytes());
    Ok(())
}

/// Until whoever reads goes away; the first question has to be answered, later ones are asked again.
fn follow(args: &StatsArgs, client: &Client, (path, out): (&str, &mut impl Write)) -> Result<(), String> {
    let is_live = std::io::stdout().is_terminal() && !args.json;
    let mut stats = client.get(path)?;
    let mut complaint = String::new();
    if is_live {
        let _ = write!(out, "{CLEAR}");
    }
    loop {
        let began = Instant::now();
        let text = if args.json {
            format!("{stats}\n")
        } else if is_live {
            format!("{REDRAW}{}\n{complaint}", page(&stats, args.by))
        } else if complaint.is_empty() {
            line(&stats)
        } else {
            format!("{complaint}\n")
        };
        if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
            return Ok(());
        }
        std::thread::sleep(INTERVAL.saturating_sub(began.elapsed()));
        match client.get(path) {
            Ok(newer) => (stats, complaint) = (newer, String::new()),
            Err(error) => complaint = error,
        }
    }
}

/// One line of one moment.
fn line(stats: &Value) -> String {
    let mut text = format!("{} viewers {}", cell(&stats["at"]), cell(&stats["viewers"]));
    for part in stats["by"].as_array().into_iter().flatten() {
        text.push_str(&format!(" {}={}", name_of(part), cell(&part["viewers"])));
    }
    text.push_str(&format!(" views {} watched {}\n", cell(&stats["views"]), duration(&stats["watch_ms"])));
    text
}

fn name_of(part: &Value) -> String {
    let names = ["pop", "protocol", "broadcast"];
    names.iter().find_map(|name| part[*name].as_str()).unwrap_or("").to_owned()
}

/// Everything, for a terminal.
fn page(stats: &Value, by: Option<By>) -> String {
    let at = |field: &str, name: &str| cell(&stats[field][name]);
    let ratio =
        stats["rebuffer_ratio"].as_f64().map_or("-".to_owned(), |ratio| format!("{:.3} %", ratio * 100.0));
    let latency =
        format!("{} / {} / {}", at("latency_ms", "p50"), at("latency_ms", "p95"), at("latency_ms", "p99"));
    let startup =
        format!("{} / {} / {}", at("startup_ms", "p50"), at("startup_ms", "p95"), at("startup_ms", "p99"));
    let peak = format!("{} at {}", cell(&stats["peak_viewers"]), cell(&stats["peak_at"]));
    let estimated = if stats["unique_viewers_estimated"] == true { " (estimate)" } else { "" };
    let rows = [
        ("viewers", cell(&stats["viewers"])),
        ("peak", peak),
        ("views", cell(&stats["views"])),
        ("unique viewers", format!("{}{estimated}", cell(&stats["unique_viewers"]))),
        ("watched", duration(&stats["watch_ms"])),
        ("average", duration(&stats["average_watch_ms"])),
        ("sent", format!("{} in {} requests", bytes(&stats["bytes"]), cell(&stats["requests"]))),
        ("rebuffering", format!("{ratio} of the time, {} times", cell(&stats["starvations"]))),
        ("startup p50/95/99", format!("{startup} ms")),
        ("latency p50/95/99", format!("{latency} ms")),
        ("final until", cell(&stats["final_until"])),
    ];
    let mut text = format!("{}  {}\n\n", cell(&stats["channel"]), cell(&stats["at"]));
    for (name, value) in rows {
        text.push_str(&format!("  {name:<18} {value}\n"));
    }
    let Some(by) = by else { return text };
    let row = |part: &Value| {
        vec![
            name_of(part),
            cell(&part["viewers"]),
            cell(&part["peak_viewers"]),
            cell(&part["views"]),
            cell(&part["unique_viewers"]),
            duration(&part["watch_ms"]),
            bytes(&part["bytes"]),
            cell(&part["latency_ms"]["p50"]),
        ]
    };
    let rows: Vec<Vec<String>> = stats["by"].as_array().into_iter().flatten().map(row).collect();
    let name = by.name().to_uppercase();
    let head = [name.as_str(), "VIEWERS", "PEAK", "VIEWS", "UNIQUE", "WATCHED", "SENT", "LATENCY ms"];
    text.push('\n');
    text.push_str(&table(&head, &rows));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_page_and_a_line_say_what_the_api_says() {
        let stats = json!({
            "channel": "demo", "at": "2026-11-22T20:00:00Z", "viewers": 12, "peak_viewers": 20, "peak_at": null,
            "views": 31, "watch_ms": 61_000, "average_watch_ms": 2000, "bytes": 1_200_000, "requests": 7,
            "unique_viewers": 9, "unique_viewers_estimated": true, "rebuffer_ratio": 0.0015,
            "starvations": 4,
            "latency_ms": {"p50": 1200, "p95": 1500, "p99": null},
            "by": [{"pop": "pop-1", "viewers": 7, "views": 20}, {"pop": "pop-2", "viewers": 5, "views": 11}],
        });
        let page = page(&stats, Some(By::Pop));
        for said in [
            "0.150 % of the time, 4 times",
            "9 (estimate)",
            "1200 / 1500 / - ms",
            "0:01:01",
            "1.2 MB",
            "POP ",
            "pop-2 ",
        ] {
            assert!(page.contains(said), "{said}: {page}");
        }
        assert_eq!(
            line(&stats),
            "2026-11-22T20:00:00Z viewers 12 pop-1=7 pop-2=5 views 31 watched 0:01:01\n"
        );
    }
}
