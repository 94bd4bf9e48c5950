//! The report as a page: one file with its style, its drawings and a few lines of script, nothing from elsewhere.
//!
//! Invariants: everything that comes from outside is escaped; the page says everything without its script.
#![deny(clippy::disallowed_methods)]

mod proof;

use super::plot::{Escaped, Plot};
use super::series::{Axis, charts};
use super::{Report, Verdict};
use crate::procstat::UsageReport;
use crate::results::{Point, Slice};
use crate::tally::SpreadFigures;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};

/// The page.
pub(crate) fn page(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a String does not fail.
    let _ = write_page(report, &mut out);
    out
}

fn write_page(report: &Report, out: &mut String) -> fmt::Result {
    let name = name(report);
    write!(
        out,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\"><meta http-equiv=\"Content-Security-Policy\" \
         content=\"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\
         <title>Load test: {}</title><style>{}</style></head><body>",
        Escaped(&name),
        include_str!("page.css")
    )?;
    head(report, &name, out)?;
    verdict(report, out)?;
    tiles(report, out)?;
    proof::proof(report, out)?;
    plots(report, out)?;
    write!(out, "<div class=\"columns\"><section>")?;
    spreads(report, out)?;
    write!(out, "</section><section>")?;
    counts(report, out)?;
    write!(out, "</section></div>")?;
    pops(report, out)?;
    servers(&report.recorded.servers, out)?;
    for scenario in &report.recorded.scenarios {
        let text = toml::to_string(scenario).unwrap_or_default();
        write!(out, "<details><summary>Scenario as a file</summary><pre>{}</pre></details>", Escaped(&text))?;
    }
    write!(
        out,
        "<footer>sigma-load {}. Part delay compares clocks: origin and viewers must share one. Shaded: the time before \
         all viewers had started, which is in the plots, the errors, the start-up and the per-POP figures only.</footer>\
         <script>{}</script></body></html>",
        env!("CARGO_PKG_VERSION"),
        include_str!("page.js")
    )
}

fn name(report: &Report) -> String {
    let named: BTreeSet<&str> = report
        .recorded
        .scenarios
        .iter()
        .map(|scenario| scenario.name.as_str())
        .filter(|name| !name.is_empty())
        .collect();
    if named.is_empty() {
        format!("{} viewers", report.viewers)
    } else {
        named.into_iter().collect::<Vec<_>>().join(", ")
    }
}

fn head(report: &Report, name: &str, out: &mut String) -> fmt::Result {
    write!(out, "<header><h1>Load test: {}</h1><dl class=\"head\"><dt>Target</dt><dd>", Escaped(name))?;
    for url in &report.urls {
        write!(out, "<code>{}</code><br>", Escaped(url))?;
    }
    let begun = i64::try_from(report.recorded.results.started_at_ms)
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
        .map_or_else(String::new, |at| at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string());
    write!(out, "</dd><dt>Begun</dt><dd>{begun}</dd><dt>Scenario</dt><dd>")?;
    for scenario in &report.recorded.scenarios {
        let phases: Vec<String> = scenario
            .phases
            .iter()
            .map(|phase| {
                let kind = phase.kind.name();
                match phase.viewers {
                    0 => format!("{kind} {} s", phase.seconds),
                    viewers => format!("{kind} of {viewers} viewers in {} s", phase.seconds),
                }
            })
            .collect();
        write!(out, "{}; seed {}<br>", Escaped(&phases.join(", then ")), scenario.seed)?;
    }
    write!(
        out,
        "</dd><dt>Measured</dt><dd>{:.1} s after {:.1} s of ramp, over {}</dd><dt>Testers</dt><dd>{} \
         process{}, {} thread{}</dd><dt>Run</dt><dd><code>{}</code></dd></dl></header>",
        report.seconds,
        report.ramp_seconds,
        report.protocols(),
        report.recorded.processes,
        plural(report.recorded.processes.into(), "es"),
        report.recorded.results.tester.threads,
        plural(report.recorded.results.tester.threads.into(), "s"),
        Escaped(&report.recorded.runs.join(" ")),
    )
}

fn plural(count: u64, ending: &str) -> &str {
    if count == 1 { "" } else { ending }
}

fn verdict(report: &Report, out: &mut String) -> fmt::Result {
    let mut say = |class: &str, what: &str, why: &[String]| {
        write!(out, "<div class=\"verdict {class}\"><strong>{what}</strong>")?;
        if !why.is_empty() {
            write!(out, "<ul>")?;
            for reason in why {
                write!(out, "<li>{}</li>", Escaped(reason))?;
            }
            write!(out, "</ul>")?;
        }
        write!(out, "</div>")
    };
    let errors = format!("{} error{}", report.errors_total, plural(report.errors_total, "s"));
    match report.verdict {
        Verdict::Passed => say("good", &format!("Passed: {errors}"), &[])?,
        Verdict::Inconclusive => {
            say("warn", &format!("Inconclusive: nothing failed, but ({errors})"), &report.doubts())?;
        }
        Verdict::Failed => {
            say("bad", "Failed", &report.failures)?;
            if !report.doubts().is_empty() {
                say("warn", "The figures are not the server's alone", &report.doubts())?;
            }
        }
    }
    let mut doubts = report.recorded.notes.clone();
    if report.parts_from_the_future > 0 {
        let future = report.parts_from_the_future;
        doubts.push(format!("{future} parts came from the future: the clocks of origin and tester differ"));
    }
    if report.parts_undated > 0 {
        doubts.push(format!("{} parts said nothing about when the origin had them", report.parts_undated));
    }
    if !doubts.is_empty() {
        say("warn", "To be read with care", &doubts)?;
    }
    Ok(())
}

fn milliseconds(figures: Option<&SpreadFigures>, of: impl Fn(&SpreadFigures) -> f64) -> String {
    figures.map_or_else(|| "–".to_owned(), |figures| number(of(figures)))
}

/// Three significant digits or so.
fn number(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

fn tiles(report: &Report, out: &mut String) -> fmt::Result {
    let ms = |figures: &Option<SpreadFigures>, of: fn(&SpreadFigures) -> f64| {
        format!("{} ms", milliseconds(figures.as_ref(), of))
    };
    let tiles = [
        (report.peak_viewers.to_string(), "viewers at the peak"),
        (ms(&report.part_delay_ms, |f| f.p50), "part delay, p50"),
        (ms(&report.part_delay_ms, |f| f.p99), "part delay, p99"),
        (ms(&report.live_latency_ms, |f| f.p50), "live latency, p50"),
        (ms(&report.startup_ms, |f| f.p95), "start-up, p95"),
        (report.stalls.to_string(), "stalls"),
        (format!("{:.3} %", report.rebuffer_ratio * 100.0), "of playing time stalled"),
        (report.errors_total.to_string(), "errors"),
        (format!("{:.0}/s", report.requests_per_s), "requests"),
        (format!("{:.1} Mbit/s", report.bytes_per_s * 8.0 / 1e6), "received"),
    ];
    write!(out, "<div class=\"tiles\">")?;
    for (figure, what) in tiles {
        write!(out, "<div><b>{}</b><span>{what}</span></div>", Escaped(&figure))?;
    }
    write!(out, "</div>")
}

fn plots(report: &Report, out: &mut String) -> fmt::Result {
    let results = &report.recorded.results;
    let axis = Axis::of(results);
    let charts = charts(axis, results);
    if charts.is_empty() {
        return write!(out, "<p>Nothing was measured over time.</p>");
    }
    write!(
        out,
        "<h2>Over time{}</h2><div class=\"plots\">",
        match axis.step {
            1 => String::new(),
            step => format!(" <span class=\"soft\">({step} s a step)</span>"),
        }
    )?;
    for chart in &charts {
        Plot { axis, ramp: results.ramp_seconds, chart }.draw(out)?;
    }
    write!(out, "</div>")
}

fn spreads(report: &Report, out: &mut String) -> fmt::Result {
    let whole = report.recorded.results.whole();
    let tally = &report.recorded.results.tally;
    let tester = &report.recorded.results.tester;
    let rows = [
        ("Part delay", tally.part_delay.figures()),
        ("Part age (from PROGRAM-DATE-TIME)", tally.part_age.figures()),
        ("Live latency", tally.live_latency.figures()),
        ("Start-up (whole run)", whole.startup.figures()),
        ("Blocking reload, held", tally.hold.figures()),
        ("Hinted part, held", tally.hint_time.figures()),
        ("Playlist", tally.playlist_time.figures()),
        ("Init section", tally.init_time.figures()),
        ("Part", tally.part_time.figures()),
        ("Segment", tally.segment_time.figures()),
        ("Media, first byte", tally.first_byte.figures()),
        ("Stall", tally.stall_time.figures()),
        ("Tester: event loop late", tester.loop_lag.figures()),
        ("Tester: request sent late", tester.send_lag.figures()),
    ];
    write!(
        out,
        "<h2>Times <span class=\"soft\">(ms)</span></h2><div class=\"scroll\"><table><thead><tr><th></th><th>p50</th>\
         <th>p95</th><th>p99</th><th>max</th><th>count</th></tr></thead><tbody>"
    )?;
    for (name, figures) in rows {
        let Some(f) = figures else { continue };
        write!(
            out,
            "<tr><td>{name}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            number(f.p50),
            number(f.p95),
            number(f.p99),
            number(f.max),
            f.count
        )?;
    }
    write!(out, "</tbody></table></div>")
}

fn counts(report: &Report, out: &mut String) -> fmt::Result {
    let tally = &report.recorded.results.tally;
    let left: Vec<String> =
        report.left.iter().map(|(how, count)| format!("{} {count}", how.name())).collect();
    let errors: Vec<String> = report.errors.iter().map(|(kind, count)| format!("{kind} {count}")).collect();
    let joined = |parts: Vec<String>| if parts.is_empty() { "none".to_owned() } else { parts.join(", ") };
    let rows = [
        ("Playback sessions begun, with media", format!("{}, {}", report.sessions, report.viewers_started)),
        (
            "Ended by themselves, with their broadcast, with the run",
            format!("{}, {}, {}", report.left_by_themselves, report.broadcast_ended, report.run_ended),
        ),
        ("Sessions that ended, by how", joined(left)),
        ("Viewers on average", number(report.mean_viewers)),
        ("Errors (whole run)", joined(errors)),
        ("Requests", tally.requests.to_string()),
        ("Playlists, delta updates of them", format!("{}, {}", tally.playlists, tally.deltas)),
        ("Parts, hinted of them", format!("{}, {}", tally.parts, tally.hinted)),
        ("Segments", tally.segments.to_string()),
        (
            "Parts per viewer and second, expected",
            format!("{:.3}, {:.3}", report.parts_per_viewer_s, report.expected_parts_per_viewer_s),
        ),
        ("Media got per second of presence and rendition", format!("{:.3}", report.realtime_factor)),
        ("Time stalled", format!("{:.2} s", report.stalled_s)),
        ("Rendition switches up, down", format!("{}, {}", tally.switches_up, tally.switches_down)),
        ("Seeks, moves", format!("{}, {}", tally.seeks, tally.migrations)),
        ("Refused unanswered and made again", report.retried.to_string()),
        ("Bodies compared byte by byte", report.bodies_compared.to_string()),
        (
            "CPU of the tester",
            format!("{:.2} s, {:.1} µs a request", report.own_cpu_s, report.own_cpu_us_per_request),
        ),
        ("Busiest thread of the tester", format!("{:.0} % of a core", report.busiest_thread_percent)),
    ];
    write!(out, "<h2>Counts</h2><div class=\"scroll\"><table><tbody>")?;
    for (name, figure) in rows {
        write!(out, "<tr><td>{name}</td><td>{}</td></tr>", Escaped(&figure))?;
    }
    write!(out, "</tbody></table></div>")
}

/// A POP's (or nameless edge's) seconds and edges.
#[derive(Default)]
struct Place {
    edges: BTreeSet<String>,
    seconds: BTreeMap<u64, Point>,
}

fn places(slices: &[Slice]) -> BTreeMap<&str, Place> {
    let mut places: BTreeMap<&str, Place> = BTreeMap::new();
    for slice in slices {
        let name = if slice.pop.is_empty() { &slice.key.edge } else { &slice.pop };
        let place = places.entry(name).or_default();
        place.edges.insert(slice.key.edge.clone());
        for (at, point) in &slice.seconds {
            place.seconds.entry(*at).or_default().add(point);
        }
    }
    places
}

fn pops(report: &Report, out: &mut String) -> fmt::Result {
    write!(
        out,
        "<h2>By POP <span class=\"soft\">(whole run)</span></h2><div class=\"scroll\"><table><thead><tr><th>POP</th>\
         <th>edges</th><th>peak viewers</th><th>started</th><th>left</th><th>requests</th><th>MB</th><th>parts</th>\
         <th>delay p50 ms</th><th>p95</th><th>p99</th><th>latency p50 ms</th><th>stalls</th><th>errors</th></tr></thead>\
         <tbody>"
    )?;
    for (name, place) in places(&report.recorded.results.slices) {
        let peak = place.seconds.values().map(|point| point.viewers).max().unwrap_or_default();
        let mut sum = Point::default();
        for point in place.seconds.values() {
            sum.add(point);
        }
        let ms = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), number);
        let edges = place.edges.into_iter().collect::<Vec<_>>().join(", ");
        write!(out, "<tr><td>{}</td><td>{}</td><td>{peak}</td>", Escaped(name), Escaped(&edges))?;
        let megabytes = number(sum.bytes as f64 / 1e6);
        for figure in [sum.started.to_string(), sum.left.to_string(), sum.requests.to_string(), megabytes]
            .into_iter()
            .chain([sum.parts.to_string(), ms(sum.part_delay.quantile_ms(0.5))])
            .chain([ms(sum.part_delay.quantile_ms(0.95)), ms(sum.part_delay.quantile_ms(0.99))])
            .chain([ms(sum.live_latency.quantile_ms(0.5)), sum.stalls.to_string(), sum.errors.to_string()])
        {
            write!(out, "<td>{figure}</td>")?;
        }
        write!(out, "</tr>")?;
    }
    write!(out, "</tbody></table></div>")
}

fn servers(servers: &[UsageReport], out: &mut String) -> fmt::Result {
    if servers.is_empty() {
        return Ok(());
    }
    write!(
        out,
        "<h2>Servers</h2><div class=\"scroll\"><table><thead><tr><th>process</th><th>CPU s</th><th>% of a core</th>\
         <th>CPU µs a request</th><th>RSS MB at the end</th><th>at most</th><th>trend MB/min</th></tr></thead><tbody>"
    )?;
    let mb = |bytes: u64| number(bytes as f64 / 1e6);
    for server in servers {
        write!(
            out,
            "<tr><td>{}</td><td>{:.2}</td><td>{:.1}</td><td>{}</td><td>{}</td><td>{}</td><td>{:+.2}</td></tr>",
            server.pid,
            server.cpu_s,
            server.cpu_percent_of_core,
            server.cpu_us_per_request.map_or_else(|| "–".to_owned(), number),
            mb(server.rss_last_bytes),
            mb(server.rss_max_bytes),
            server.rss_trend_bytes_per_minute / 1e6
        )?;
    }
    write!(out, "</tbody></table></div>")
}

#[cfg(test)]
mod tests;
