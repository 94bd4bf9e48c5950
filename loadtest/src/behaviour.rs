//! How viewers behave, as asked for on the command line.

use crate::access;
use crate::cli::RunArgs;
use crate::scenario::preset::Flags;
use crate::scenario::{
    CmcdIn, LENGTH_S_MIN, Leavings, Length, Links, Protocols, RATE_MAX, SECONDS_MAX, SPREAD_MAX, Scenario,
    Viewers,
};
use clap::Args;
use std::path::{Path, PathBuf};

#[derive(Debug, Args)]
pub(crate) struct Behaviour {
    /// Threads with an event loop each
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) threads: u16,
    /// Playback token of all viewers (several tabs with one token); default: $SIGMA_PLAYBACK_TOKEN
    #[arg(long, value_name = "JWT", conflicts_with = "token_file")]
    pub(crate) token: Option<String>,
    /// Playback tokens, one a line; viewers take turns on them
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Sessions (tabs) that share a token of --token-file before the next one has its turn; default: 1
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) tabs: Option<u32>,
    /// What viewers say of themselves; default: nothing
    #[arg(long, value_enum)]
    pub(crate) cmcd: Option<CmcdIn>,
    /// Write one JSON line per playback session: the ground truth that a server's viewer counts are held against
    #[arg(long, value_name = "FILE")]
    pub(crate) truth: Option<PathBuf>,
    /// Randomness; the same seed is the same run. Default: 1
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Share of viewers that ask for the part of EXT-X-PRELOAD-HINT before it exists; default: all
    #[arg(long, value_name = "0..1", value_parser = share)]
    pub(crate) hints: Option<f64>,
    /// Share of viewers that ask for delta updates; default: all
    #[arg(long, value_name = "0..1", value_parser = share)]
    pub(crate) deltas: Option<f64>,
    /// Median of the viewers' modelled links; default: no limit
    #[arg(long, value_name = "KBPS", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) bandwidth: Option<u32>,
    /// Spread between viewers' links: standard deviation of the logarithm
    #[arg(long, value_name = "SIGMA", value_parser = spread)]
    pub(crate) bandwidth_spread: Option<f64>,
    /// Change of a viewer's link over time, the same measure
    #[arg(long, value_name = "SIGMA", value_parser = spread)]
    pub(crate) bandwidth_wobble: Option<f64>,
    /// Mean length of sessions, exponentially distributed. Default: to the end
    #[arg(long, value_name = "S", value_parser = length)]
    pub(crate) session_seconds: Option<f64>,
    /// How sessions end, by weight: clean close, RST, gone without a word, asleep for good
    #[arg(long, value_name = "CLOSE,RESET,VANISH[,SLEEP]", value_parser = ways)]
    pub(crate) leave: Option<Weights<4>>,
    /// Protocols by weight, in place of --protocol
    #[arg(long, value_name = "H1,H2,H3", value_parser = weights::<3>)]
    pub(crate) protocols: Option<Weights<3>>,
    /// Seeks into the DVR window, per viewer and minute; 5 s there, and back
    #[arg(long, value_name = "N", value_parser = rate)]
    pub(crate) seeks: Option<f64>,
    /// Tabs that fall asleep for 10 s, per viewer and minute
    #[arg(long, value_name = "N", value_parser = rate)]
    pub(crate) sleeps: Option<f64>,
    /// Moves to the next URL's edge (and to a protocol of --protocols), per viewer and minute
    #[arg(long, value_name = "N", value_parser = rate)]
    pub(crate) moves: Option<f64>,
}

/// So many weights, not all of them 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Weights<const N: usize>(pub(crate) [f64; N]);

fn number(text: &str, (least, most): (f64, f64)) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "expected a number".to_owned())?;
    if (least..=most).contains(&number) { Ok(number) } else { Err(format!("expected {least} to {most}")) }
}

// The bounds that a scenario has.

fn amount(text: &str) -> Result<f64, String> {
    number(text, (0.0, 1e6))
}

fn share(text: &str) -> Result<f64, String> {
    number(text, (0.0, 1.0))
}

fn rate(text: &str) -> Result<f64, String> {
    number(text, (0.0, RATE_MAX))
}

fn length(text: &str) -> Result<f64, String> {
    number(text, (LENGTH_S_MIN, SECONDS_MAX as f64))
}

fn spread(text: &str) -> Result<f64, String> {
    number(text, (0.0, SPREAD_MAX))
}

fn weights<const N: usize>(text: &str) -> Result<Weights<N>, String> {
    let numbers: Vec<f64> = text.split(',').map(amount).collect::<Result<_, _>>()?;
    let weights: [f64; N] = numbers.try_into().map_err(|_| format!("expected {N} weights"))?;
    if weights.iter().sum::<f64>() > 0.0 { Ok(Weights(weights)) } else { Err("all weights are 0".to_owned()) }
}

/// The last one may be left out.
fn ways(text: &str) -> Result<Weights<4>, String> {
    if text.matches(',').count() != 2 {
        return weights(text);
    }
    weights(text).map(|Weights([close, reset, vanish])| Weights([close, reset, vanish, 0.0]))
}

impl Behaviour {
    /// The tokens to take turns on.
    ///
    /// # Errors
    /// The file cannot be read or has none.
    pub(crate) fn tokens(&self, scenario: &Scenario) -> Result<Vec<String>, String> {
        let of_scenario = scenario.viewers.token_file.as_ref().map(Path::new);
        let file = self.token_file.as_deref().or(of_scenario);
        access::playback_tokens(self.token.as_ref(), file, &access::environment)
    }

    fn tell(&self, viewers: &mut Viewers) {
        viewers.cmcd = self.cmcd.unwrap_or(viewers.cmcd);
        viewers.hints = self.hints.unwrap_or(viewers.hints);
        viewers.deltas = self.deltas.unwrap_or(viewers.deltas);
        viewers.links = Links {
            median_kbps: self.bandwidth.map(f64::from).or(viewers.links.median_kbps),
            spread: self.bandwidth_spread.unwrap_or(viewers.links.spread),
            wobble: self.bandwidth_wobble.unwrap_or(viewers.links.wobble),
        };
        if let Some(mean_seconds) = self.session_seconds {
            viewers.length = Length::Exponential { mean_seconds };
        }
        if let Some(Weights([close, reset, vanish, sleep])) = self.leave {
            viewers.leaving = Leavings { close, reset, vanish, sleep, ..viewers.leaving };
        }
        if let Some(Weights([h1, h2, h3])) = self.protocols {
            viewers.protocols = Protocols { h1, h2, h3 };
        }
        viewers.tabs_per_token = self.tabs.unwrap_or(viewers.tabs_per_token);
        viewers.seeks_per_minute = self.seeks.unwrap_or(viewers.seeks_per_minute);
        viewers.sleeps_per_minute = self.sleeps.unwrap_or(viewers.sleeps_per_minute);
        viewers.moves_per_minute = self.moves.unwrap_or(viewers.moves_per_minute);
    }
}

/// What the flags of `run` mean: a scenario by name or from a file, and what they change of it.
///
/// # Errors
/// A file that cannot be read or is no scenario, or flags that do not go together: the caller has to change them.
pub(crate) fn scenario(arguments: &RunArgs) -> Result<Scenario, Box<dyn std::error::Error + Send + Sync>> {
    let seed = arguments.behaviour.seed;
    let mut scenario = match &arguments.scenario_file {
        Some(path) => {
            let named = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
            let text = std::fs::read_to_string(path).map_err(|error| named(&error))?;
            Scenario::from_toml(&text, &arguments.urls).map_err(|error| named(&error))?
        }
        None => Scenario::preset(&Flags {
            preset: arguments.scenario,
            urls: &arguments.urls,
            viewers: arguments.viewers,
            ramp_seconds: arguments.ramp_seconds,
            seconds: arguments.seconds,
            seed: 1,
        })?,
    };
    scenario.seed = seed.unwrap_or(scenario.seed);
    if let Some(variant) = arguments.variant {
        scenario.viewers.variant = variant.to_string();
    }
    scenario.viewers.video_only |= arguments.video_only;
    scenario.limits.max_errors = arguments.max_errors.unwrap_or(scenario.limits.max_errors);
    if let Some(seconds) = arguments.target.timeout_seconds {
        scenario.limits.request_timeout_ms = seconds * 1000;
    }
    arguments.behaviour.tell(&mut scenario.viewers);
    let tokens = arguments.behaviour.token_file.is_some() || scenario.viewers.token_file.is_some();
    if arguments.behaviour.tabs.is_some() && !tokens {
        return Err("--tabs: needs --token-file, or a scenario's `token_file`: one token is all tabs'".into());
    }
    Ok(scenario.checked()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    #[test]
    fn weights_and_shares() {
        assert_eq!(weights("1,0,2.5").unwrap(), Weights([1.0, 0.0, 2.5]));
        assert_eq!(ways("1,0,2.5").unwrap(), Weights([1.0, 0.0, 2.5, 0.0]));
        assert_eq!(ways("0,0,0,1").unwrap(), Weights([0.0, 0.0, 0.0, 1.0]));
        assert!(ways("1,1").is_err() && ways("1,1,1,1,1").is_err());
        for bad in ["", "1,2", "1,2,3,4", "0,0,0", "1,-1,1", "a,b,c", "inf,1,1", "NaN,1,1"] {
            assert!(weights::<3>(bad).is_err(), "{bad}");
        }
        assert_eq!(share("0.25"), Ok(0.25));
        assert!(share("1.1").is_err() && share("-0.1").is_err());
    }

    fn of(arguments: &[&str]) -> Result<Scenario, String> {
        let line = ["sigma-load", "run"].iter().chain(arguments).copied();
        let Command::Run(arguments) = Cli::try_parse_from(line).unwrap().command else { unreachable!() };
        scenario(&arguments).map_err(|error| error.to_string())
    }

    #[test]
    fn what_a_file_says_stands_where_no_flag_says_otherwise() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("own.toml");
        let text = "seed = 5\nphases = [{ kind = \"herd\", seconds = 9, viewers = 3 }]\n\
            targets = [{ url = \"http://127.0.0.1:1/live/a/index.m3u8\" }]\n[viewers]\nvariant = \"lowest\"\n\
            cmcd = \"header\"\nlinks = { median_kbps = 900.0, spread = 0.5 }\n\
            [limits]\nmax_errors = 4\nrequest_timeout_ms = 700\n";
        std::fs::write(&path, text).unwrap();
        let file = path.to_str().unwrap();
        let own = of(&["--scenario-file", file]).unwrap();
        assert_eq!(own, Scenario::from_toml(text, &[]).unwrap());
        let other = "http://127.0.0.1:2/live/b/index.m3u8";
        let changed = of(&[
            "--scenario-file",
            file,
            other,
            "--seed",
            "7",
            "--max-errors",
            "0",
            "--cmcd",
            "off",
            "--variant",
            "auto",
            "--timeout-seconds",
            "3",
            "--leave",
            "0,0,0,1",
        ])
        .unwrap();
        assert_eq!(
            (changed.seed, changed.limits.max_errors, changed.limits.request_timeout_ms),
            (7, 0, 3_000)
        );
        assert_eq!((changed.viewers.variant.as_str(), changed.targets[0].url.as_str()), ("auto", other));
        assert_eq!((changed.viewers.cmcd, changed.viewers.leaving.sleep), (CmcdIn::Off, 1.0));
        assert_eq!((changed.viewers.links, changed.phases), (own.viewers.links, own.phases));
        std::fs::write(&path, "phases = 1").unwrap();
        assert!(of(&["--scenario-file", file]).unwrap_err().contains("own.toml"));
    }

    #[test]
    fn scenarios_by_name() {
        let url = "http://127.0.0.1:1/live/a/index.m3u8";
        for name in ["ramp", "herd", "churn", "soak"] {
            assert_eq!(of(&[url, "--scenario", name]).unwrap().name, name);
        }
        assert_eq!(of(&[url, "--scenario", "churn"]).unwrap().viewers.leaving.vanish, 0.2, "its own way");
        assert!(of(&[url, "--tabs", "3"]).unwrap_err().contains("--token-file"));
        assert!(of(&[url, "--tabs", "3", "--token-file", "x"]).is_ok());
        assert!(of(&[url, "--scenario", "pop-death"]).unwrap_err().contains("same path"));
    }
}
