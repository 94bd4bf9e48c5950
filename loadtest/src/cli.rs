//! The command line: what can be asked, within which bounds.

use crate::address::Address;
use crate::behaviour::Behaviour;
use crate::check::report::FailOn;
use crate::crowd::Pick;
use crate::dial::Protocol;
use crate::prometheus::Selector;
use crate::publish::Picture;
use crate::scenario::preset::Preset;
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug, Parser)]
#[command(
    name = "sigma-load",
    version,
    about = "LL-HLS viewers and publishers in numbers, measuring what a viewer gets, and a conformance checker",
    after_help = "Exit codes: 0 no errors beyond --max-errors; 1 errors, or a target that refuses; 2 wrong usage.\n\
                  Targets are loopback addresses only, unless --allow-remote is given.\n\
                  `sigma-load COMMAND --help` has examples."
)]
pub(crate) struct Cli {
    /// Log format on stderr; RUST_LOG chooses what is logged (default: info)
    #[arg(long, global = true, value_enum, default_value = "text")]
    pub(crate) log_format: LogFormat,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Many LL-HLS viewers: blocking reload and every new part, as a real player does
    Run(Box<RunArgs>),
    /// Reports of several processes as one, with exact percentiles
    Merge(MergeArgs),
    /// Many identical blocking requests at once: is everybody answered, and what did the upstream see?
    Herd(HerdArgs),
    /// Is this a server that the LL-HLS specification describes? Every rule, with evidence
    Check(CheckArgs),
    /// Send a file, a stream or a test source in real time by RTMP or SRT, as one or many publishers
    Publish(PublishArgs),
    /// Do the origin's statistics say what the viewers of a run know? Every metric, with its bar
    Verify(VerifyArgs),
    /// CPU time and memory of a process tree over a time
    Procstat(ProcstatArgs),
}

#[derive(Debug, Args)]
pub(crate) struct Target {
    /// HTTP version; default: h2 for https, h1 for http
    #[arg(long, value_enum)]
    pub(crate) protocol: Option<Protocol>,
    /// Believe certificates of this CA (PEM)
    #[arg(long, value_name = "FILE", conflicts_with = "insecure_loopback")]
    pub(crate) ca: Option<PathBuf>,
    /// Believe any certificate; loopback targets only
    #[arg(long)]
    pub(crate) insecure_loopback: bool,
    /// Permit targets that are not this machine. Test only what is yours
    #[arg(long)]
    pub(crate) allow_remote: bool,
    /// Longest wait for a complete response, held or not; default: 12
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u64).range(1..=300))]
    pub(crate) timeout_seconds: Option<u64>,
}

impl Target {
    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds.unwrap_or(12))
    }
}

#[derive(Debug, Args)]
pub(crate) struct Output {
    /// Write the report as JSON to FILE; `-`: to stdout, instead of the table
    #[arg(long, value_name = "FILE|-")]
    pub(crate) json: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sigma-load run http://127.0.0.1:7070/live/bench/index.m3u8 --viewers 1000 --seconds 60 --ramp-seconds 5\n  \
    sigma-load run https://127.0.0.1:8443/live/demo/index.m3u8 --ca data/ca.pem --viewers 200 --seconds 60 \
--server-pid $(pidof sigma-edge) --json report.json\n  \
    sigma-load run --scenario churn --viewers 500 --threads 2 --ca data/ca.pem --truth truth.jsonl --verify \
--origin-token-file data/admin.token \\\n      \
        https://127.0.0.1:8443/live/bench/index.m3u8 https://127.0.0.1:8543/live/bench/index.m3u8\n  \
    sigma-load run --scenario-file configs/load/churn.toml --seed 7 --ca data/ca.pem\n\n\
    Part delay is the last byte at the viewer minus `at` of the part's CMSD-Static header, which the origin sets to \
the wall clock at which it had the part: origin and viewers must share a clock.\n\
    The real-time factor is seconds of media got per second of a viewer's presence and rendition: below 1, viewers do \
not keep up; sessions that begin or seek get what is before the live edge too, which shows where they are short.\n\n\
    Rates, delays and CPU are measured after the ramp; errors and start-up times are of the whole run. Parts missed \
(gap), playlists that go back (msn_regression), differing bytes (hash_mismatch) and requests that wait for longer than \
1.5 target durations (at least 2 s) when the run ends (overdue) are errors too. A stall counts as long as it lasts.\n\n\
    The verdict is `passed`; `failed`: more errors than --max-errors, nobody got media, a log with holes, or a \
verification that does not hold; or `inconclusive`: nothing failed, but the run was interrupted (Ctrl-C, SIGTERM; a \
second one ends the verification, too), or the tester was the limit (its threads or the machine were too busy), so that \
its figures are not the server's.\n\n\
    Exit codes: 0 passed or inconclusive; 1 failed, or a target that refuses; 2 wrong usage. A script that judges by \
the figures looks at `verdict` of the JSON.")]
pub(crate) struct RunArgs {
    /// Multivariant playlists (or media playlists); viewers take turns on them
    #[arg(required_unless_present = "scenario_file", num_args = 1..=256, value_name = "URL")]
    pub(crate) urls: Vec<Address>,
    /// Who comes when, and what they do
    #[arg(long, value_enum, default_value = "ramp")]
    pub(crate) scenario: Preset,
    /// A scenario of your own (configs/load has examples); URLs take the place of its targets, other flags of its values
    #[arg(long, value_name = "FILE", conflicts_with_all = ["scenario", "viewers", "seconds", "ramp_seconds"])]
    pub(crate) scenario_file: Option<PathBuf>,
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    pub(crate) viewers: u32,
    /// Time measured, after the ramp
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) seconds: u64,
    /// Time over which the viewers start
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(0..=3_600))]
    pub(crate) ramp_seconds: u64,
    /// auto (rate adaptation), first, lowest, highest, or a number from 0 (without such a variant: errors, no_variant); default: first
    #[arg(long)]
    pub(crate) variant: Option<Pick>,
    /// Leave the audio rendition out
    #[arg(long)]
    pub(crate) video_only: bool,
    /// Measure CPU and memory of this server; may be repeated
    #[arg(long, value_name = "PID", num_args = 1..=16)]
    pub(crate) server_pid: Vec<u32>,
    /// Include the servers' child processes
    #[arg(long)]
    pub(crate) server_children: bool,
    /// Errors up to this many still exit 0; default: none
    #[arg(long)]
    pub(crate) max_errors: Option<u64>,
    /// Write the report as a page with plots, complete in one file
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) view: ViewArgs,
    #[command(flatten)]
    pub(crate) behaviour: Behaviour,
    #[command(flatten)]
    pub(crate) proof: ProofArgs,
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(flatten)]
    pub(crate) output: Output,
}

/// What is shown while the run goes, on standard error. By default a progress bar on a terminal, elsewhere a log line
/// every 5 s.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct ViewArgs {
    /// Show the whole run on the terminal: every POP, viewers over time
    #[arg(long, conflicts_with_all = ["plain", "quiet"])]
    pub(crate) live: bool,
    /// A line every 5 s instead of a progress bar
    #[arg(long, conflicts_with = "quiet")]
    pub(crate) plain: bool,
    /// Show nothing while the run goes
    #[arg(long)]
    pub(crate) quiet: bool,
}

/// Whether the origin's numbers are held against the run.
#[derive(Debug, Args)]
pub(crate) struct ProofArgs {
    /// Afterwards, compare the origin's statistics with --truth, as `sigma-load verify` does; a difference is a failure
    #[arg(long, requires = "truth")]
    pub(crate) verify: bool,
    /// The origin's API; default: $SIGMA_URL, or http://127.0.0.1:7070
    #[arg(long, value_name = "URL", requires = "verify")]
    pub(crate) origin: Option<Address>,
    /// Token of the API; default: $SIGMA_TOKEN
    #[arg(long, value_name = "TOKEN", requires = "verify", conflicts_with = "origin_token_file")]
    pub(crate) origin_token: Option<String>,
    /// File with the token: `admin.token` in the origin's data_dir
    #[arg(long, value_name = "FILE", requires = "verify")]
    pub(crate) origin_token_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  \
    sigma-load herd http://127.0.0.1:8080/live/bench/source/media.m3u8 --requests 1000 \
--metrics http://127.0.0.1:8081/metrics\n\n\
    The edge must have no other viewers of the channel meanwhile, or their upstream requests are counted too.")]
pub(crate) struct HerdArgs {
    /// A media playlist with blocking reload
    pub(crate) url: Address,
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=50_000))]
    pub(crate) requests: u32,
    /// How far ahead the wanted part is, as far as the Advance Part Limit allows
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(0..=10_000))]
    pub(crate) lead_ms: u64,
    /// Metrics page of the edge, read before and after
    #[arg(long, value_name = "URL")]
    pub(crate) metrics: Option<Address>,
    /// What counts upstream requests there: NAME or NAME{label="value"}
    #[arg(long, default_value = "sigma_edge_upstream_requests_total")]
    pub(crate) metric: Selector,
    /// More upstream requests than this exit 1
    #[arg(long, default_value_t = 1)]
    pub(crate) max_upstream: u64,
    /// Errors up to this many still exit 0
    #[arg(long, default_value_t = 0)]
    pub(crate) max_errors: u64,
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
#[command(after_help = "Example, one report of two machines:\n  \
    sigma-load merge a.json b.json --html both.html --json both.json\n\n\
    The processes must have measured at the same time: rates add up. Percentiles are those of all values together. \
Verifications (`run --verify`) are kept, by channel and run; a channel whose viewers were several processes' is better \
verified once for all, with all their logs: `sigma-load verify --truth a.jsonl --truth b.jsonl`. Each run counts once: \
a report that is there twice, or in a merged one, is refused.")]
pub(crate) struct MergeArgs {
    /// What `run --json` (or `merge --json`) wrote
    #[arg(required = true, value_name = "FILE")]
    pub(crate) reports: Vec<PathBuf>,
    /// Write the report as a page with plots, complete in one file
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sigma-load check http://127.0.0.1:7070/live/demo/index.m3u8\n  \
    sigma-load check https://127.0.0.1:8443/live/demo/index.m3u8 --ca data/ca.pem --fail-on ours \\\n      \
        --compare http://127.0.0.1:7070/live/demo/index.m3u8 --json check.json\n\n\
    Levels: M a MUST of the specification (draft-pantos-hls-rfc8216bis and its low-latency server profile), S a \
SHOULD, R recommended, A a rule of Apple's authoring specification, O a rule of this project.\n\
    --fail-on must counts M; should counts M, S, A and R; ours counts all.\n\
    A rule is skipped when nothing was seen that it speaks of; the reason is given.\n\n\
    Exit codes: 0 no rule failed that counts; 1 some did; 2 wrong usage, a target that refuses, no playlist there.")]
pub(crate) struct CheckArgs {
    /// Multivariant playlist, or a media playlist, in any latency mode
    pub(crate) url: Address,
    /// The same presentation at another server: bytes must be the same; may be repeated
    #[arg(long, value_name = "URL")]
    pub(crate) compare: Vec<Address>,
    /// How long to watch: rules about time and removal need some target durations
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) seconds: u64,
    /// Which failed rules count
    #[arg(long, value_enum, default_value = "must")]
    pub(crate) fail_on: FailOn,
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sigma-load publish rtmp://127.0.0.1:1935/live/KEY --file clip.flv --loop --seconds 60\n  \
    sigma-load publish 'rtmp://127.0.0.1:1935/live/key-{\u{1b}[0mn}' --count 20 --test-source 640x360@30 --seconds 60\n  \
    sigma-load publish 'srt://127.0.0.1:8890?streamid=KEY' --file clip.mp4 --loop\n  \
    ffmpeg -re -i clip.mp4 -c copy -f flv - | sigma-load publish rtmp://127.0.0.1:1935/live/KEY\n\n\
    FLV is read as it is. Other files (with codecs that FLV has), the test source and SRT need the program ffmpeg.\n\
    All publishers send the same test source, encoded once, and who does not keep up loses pictures of it; files are \
read for each.\n\n\
    A publisher that sent nothing, an input that ends in the middle of a tag, and a server that takes nothing any more \
are errors.\n\n\
    Exit codes: 0 no errors beyond --max-errors; 1 errors, or a target that refuses; 2 wrong usage.")]
pub(crate) struct PublishArgs {
    // A style that changes nothing stands in the middle of what would be taken for a line break.
    #[arg(
        help = "`rtmp://HOST[:PORT]/APP/KEY` or `srt://HOST:PORT?streamid=...`; `{\u{1b}[0mn}` stands for the \
publisher's number, from 1"
    )]
    pub(crate) url: String,
    /// Publishers
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) count: u32,
    /// What to send; without it, or with `-`, FLV is read from stdin
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Send a test picture and a tone
    #[arg(long, value_name = "WxH@FPS", conflicts_with = "file")]
    pub(crate) test_source: Option<Picture>,
    /// Bit rate of the test picture
    #[arg(long, value_name = "KBPS", default_value_t = 1_500, requires = "test_source", conflicts_with = "file", value_parser = clap::value_parser!(u32).range(50..=100_000))]
    pub(crate) test_kbps: u32,
    /// Begin again at the end of the file, with timestamps that go on
    #[arg(long = "loop", requires = "file")]
    pub(crate) repeat: bool,
    /// End after this time
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) seconds: Option<u64>,
    /// How often each publisher may connect again, a second after it lost its server
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) reconnects: u32,
    /// Errors up to this many still exit 0; a lost connection is one
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) max_errors: u64,
    /// The program that reads what is no FLV, makes the test source and sends by SRT
    #[arg(long, value_name = "PROGRAM", env = "SIGMA_FFMPEG", default_value = "ffmpeg")]
    pub(crate) ffmpeg: PathBuf,
    /// Permit targets that are not this machine. Test only what is yours
    #[arg(long)]
    pub(crate) allow_remote: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    sigma-load verify --truth truth.jsonl --channel bench --token-file data/admin.token\n  \
    sigma-load verify --truth a.jsonl --truth b.jsonl --url https://127.0.0.1:7443 --ca data/ca.pem \\\n      \
        --channel bench --token-file admin.token --json verify.json\n\n\
    The logs are those of all load testers that watched the channel at the time: a viewer that is in none of them is \
an error. Sessions that ended before the first of the logs are left out.\n\
    Views and watch time in total are summed up from the origin's sessions of that time; `run --verify` asks for its \
totals before the run, and holds against it what was added to them.\n\
    Views must be the same number; viewers of each second may differ by 0.5 % of the peak from those who came 2 s \
before and have not left, to those who left within 6 s (10 s if they vanished without a word); watch time by 0.1 % \
in total and by one part for each session, or by what it let go of while that was under way, as only the server knows \
whether it was sent.\n\n\
    Exit codes: 0 all within their bars; 1 some are not, or nothing could be compared; 2 wrong usage.")]
pub(crate) struct VerifyArgs {
    /// Ground-truth log of a run, JSON lines; may be repeated
    #[arg(long, required = true, value_name = "FILE")]
    pub(crate) truth: Vec<PathBuf>,
    /// The origin's API; default: $SIGMA_URL, or http://127.0.0.1:7070
    #[arg(long)]
    pub(crate) url: Option<Address>,
    /// Token of the API; default: $SIGMA_TOKEN
    #[arg(long, conflicts_with = "token_file")]
    pub(crate) token: Option<String>,
    /// File with the token: `admin.token` in the origin's data_dir
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    #[arg(long)]
    pub(crate) channel: sigma_shared::id::ChannelId,
    /// Duration of a part, by which one session's watch time may be off; default: the longest part got
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub(crate) part_ms: Option<u64>,
    /// Wait for the numbers to be final, at most this long
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=3_600))]
    pub(crate) wait_seconds: u64,
    #[command(flatten)]
    pub(crate) target: Target,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  sigma-load procstat --pid $(pidof sigma-origin) --seconds 600 --children --json -"
)]
pub(crate) struct ProcstatArgs {
    #[arg(long)]
    pub(crate) pid: u32,
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) seconds: u64,
    /// Wait this long before the first sample
    #[arg(long, value_name = "S", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    pub(crate) warm_up_seconds: u64,
    /// Include child processes
    #[arg(long)]
    pub(crate) children: bool,
    #[command(flatten)]
    pub(crate) output: Output,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_stands_for_a_number_is_no_line_break() {
        let mut cli = Cli::command();
        let publish = cli.find_subcommand_mut("publish").unwrap();
        for help in [publish.render_long_help().to_string(), publish.render_help().to_string()] {
            assert!(help.contains("`{n}` stands") && help.contains("live/key-{n}' --count"), "{help}");
        }
    }

    const URL: &str = "http://127.0.0.1/live/a/index.m3u8";

    fn accepts(arguments: &[&str], accepted: bool) {
        let result = Cli::try_parse_from(std::iter::once("sigma-load").chain(arguments.iter().copied()));
        assert_eq!(result.is_ok(), accepted, "{arguments:?}");
    }

    #[test]
    fn bounds_of_runs() {
        let url = URL;
        for (arguments, accepted) in [
            (vec!["run", url], true),
            (vec!["run", url, url, "--viewers", "50000", "--seconds", "86400"], true),
            (vec!["run"], false),
            (vec!["run", "file:///x"], false),
            (vec!["run", url, "--viewers", "50001"], false),
            (vec!["run", url, "--viewers", "0"], false),
            (vec!["run", url, "--seconds", "86401"], false),
            (vec!["run", url, "--variant", "best"], false),
            (vec!["run", url, "--ca", "x", "--insecure-loopback"], false),
            (vec!["run", url, "--scenario", "churn", "--leave", "1,1,1,1", "--seed", "7"], true),
            (vec!["run", url, "--scenario", "stampede"], false),
            (vec!["run", url, "--live"], true),
            (vec!["run", url, "--live", "--plain"], false),
            (vec!["run", url, "--plain", "--quiet"], false),
            (vec!["run", "--scenario-file", "x.toml", "--seed", "7"], true),
            (vec!["run", "--scenario-file", "x.toml", "--viewers", "7"], false),
            (vec!["run", "--scenario-file", "x.toml", "--scenario", "churn"], false),
            (vec!["run", url, "--verify"], false),
            (vec!["run", url, "--verify", "--truth", "t", "--origin-token-file", "x"], true),
            (
                vec![
                    "run",
                    url,
                    "--verify",
                    "--truth",
                    "t",
                    "--origin-token-file",
                    "x",
                    "--origin-token",
                    "y",
                ],
                false,
            ),
            (vec!["run", url, "--origin", "http://127.0.0.1:7070"], false),
            (vec!["run", url, "--token", "x", "--token-file", "y"], false),
            (vec!["herd", url, "--metric", "x{a=\"b\"}"], true),
            (vec!["herd", url, "--metric", "x y"], false),
            (vec!["run", url, "--json", "a.json", "--html", "a.html"], true),
            (vec!["run", url, "--seeks", "601"], false),
            (vec!["run", url, "--session-seconds", "0"], false),
            (
                vec!["run", url, "--session-seconds", "86400", "--seeks", "600", "--bandwidth-spread", "3"],
                true,
            ),
            (vec!["merge", "a.json", "b.json", "--html", "c.html", "--json", "-"], true),
            (vec!["merge"], false),
        ] {
            accepts(&arguments, accepted);
        }
    }

    #[test]
    fn bounds_of_the_rest() {
        for (arguments, accepted) in [
            (vec!["publish", "rtmp://127.0.0.1/live/k", "--loop"], false),
            (
                vec!["publish", "rtmp://127.0.0.1/live/{n}", "--count", "9", "--test-source", "640x360@30"],
                true,
            ),
            (vec!["publish", "rtmp://127.0.0.1/live/{n}", "--count", "1001"], false),
            (vec!["publish", "rtmp://127.0.0.1/live/k", "--test-source", "big"], false),
            (vec!["publish", "rtmp://127.0.0.1/live/k", "--test-source", "640x360@30", "--file", "x"], false),
            (vec!["publish", "rtmp://127.0.0.1/live/k", "--test-kbps", "500"], false),
            (vec!["publish", "rtmp://127.0.0.1/live/k", "--test-kbps", "500", "--file", "x"], false),
            (
                vec!["publish", "rtmp://127.0.0.1/live/k", "--test-kbps", "500", "--test-source", "64x64@9"],
                true,
            ),
            (vec!["procstat", "--pid", "1", "--seconds", "5"], true),
            (vec!["verify", "--truth", "a", "--truth", "b", "--channel", "bench"], true),
            (vec!["verify", "--truth", "a", "--channel", "no/channel"], false),
            (vec!["verify", "--channel", "bench"], false),
        ] {
            accepts(&arguments, accepted);
        }
    }
}
