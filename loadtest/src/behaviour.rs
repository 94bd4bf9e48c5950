//! How viewers behave, as asked for on the command line.

use crate::cli::RunArgs;
use crate::scenario::preset::{Flags, Preset};
use crate::scenario::{CmcdIn, Leavings, Length, Links, Protocols, Scenario, ScenarioError, Viewers};
use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct Behaviour {
    /// Threads with an event loop each
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) threads: u16,
    /// Playback token of all viewers (several tabs with one token)
    #[arg(
        long,
        value_name = "JWT",
        conflicts_with = "token_file",
        env = "SIGMA_PLAYBACK_TOKEN",
        hide_env_values = true
    )]
    pub(crate) token: Option<String>,
    /// Playback tokens, one a line; viewers take turns on them
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// What viewers say of themselves
    #[arg(long, value_enum, default_value = "off")]
    pub(crate) cmcd: CmcdIn,
    /// Write one JSON line per playback session: the ground truth that a server's viewer counts are held against
    #[arg(long, value_name = "FILE")]
    pub(crate) truth: Option<PathBuf>,
    /// Randomness; the same seed is the same run
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
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
    #[arg(long, value_name = "SIGMA", default_value_t = 0.0, value_parser = amount)]
    pub(crate) bandwidth_spread: f64,
    /// Change of a viewer's link over time, the same measure
    #[arg(long, value_name = "SIGMA", default_value_t = 0.0, value_parser = amount)]
    pub(crate) bandwidth_wobble: f64,
    /// Mean length of sessions, exponentially distributed. Default: to the end
    #[arg(long, value_name = "S", value_parser = amount)]
    pub(crate) session_seconds: Option<f64>,
    /// How sessions end, by weight: clean close, RST, gone without a word
    #[arg(long, value_name = "CLOSE,RESET,VANISH", value_parser = weights)]
    pub(crate) leave: Option<Weights>,
    /// Protocols by weight, in place of --protocol
    #[arg(long, value_name = "H1,H2,H3", value_parser = weights)]
    pub(crate) protocols: Option<Weights>,
    /// Seeks into the DVR window, per viewer and minute; 5 s there, and back
    #[arg(long, value_name = "N", value_parser = amount)]
    pub(crate) seeks: Option<f64>,
    /// Tabs that fall asleep for 10 s, per viewer and minute
    #[arg(long, value_name = "N", value_parser = amount)]
    pub(crate) sleeps: Option<f64>,
    /// Moves to the next URL's edge (and to a protocol of --protocols), per viewer and minute
    #[arg(long, value_name = "N", value_parser = amount)]
    pub(crate) moves: Option<f64>,
}

/// Three weights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Weights(pub(crate) [f64; 3]);

fn amount(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "expected a number".to_owned())?;
    if (0.0..=1e6).contains(&number) { Ok(number) } else { Err("expected 0 to 1000000".to_owned()) }
}

fn share(text: &str) -> Result<f64, String> {
    amount(text).and_then(|share| if share <= 1.0 { Ok(share) } else { Err("expected 0 to 1".to_owned()) })
}

fn weights(text: &str) -> Result<Weights, String> {
    let numbers: Vec<f64> = text.split(',').map(amount).collect::<Result<_, _>>()?;
    let weights: [f64; 3] = numbers.try_into().map_err(|_| "expected three weights".to_owned())?;
    if weights.iter().sum::<f64>() > 0.0 { Ok(Weights(weights)) } else { Err("all weights are 0".to_owned()) }
}

impl Behaviour {
    /// The tokens to take turns on.
    ///
    /// # Errors
    /// The file cannot be read or has none.
    pub(crate) fn tokens(&self) -> Result<Vec<String>, String> {
        let Some(path) = &self.token_file else { return Ok(self.token.iter().cloned().collect()) };
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let tokens: Vec<String> =
            text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
        if tokens.is_empty() { Err(format!("{}: no token in it", path.display())) } else { Ok(tokens) }
    }

    fn tell(&self, viewers: &mut Viewers) {
        viewers.cmcd = self.cmcd;
        viewers.hints = self.hints.unwrap_or(viewers.hints);
        viewers.deltas = self.deltas.unwrap_or(viewers.deltas);
        viewers.links = Links {
            median_kbps: self.bandwidth.map(f64::from),
            spread: self.bandwidth_spread,
            wobble: self.bandwidth_wobble,
        };
        if let Some(mean_seconds) = self.session_seconds {
            viewers.length = Length::Exponential { mean_seconds };
        }
        if let Some(Weights([close, reset, vanish])) = self.leave {
            viewers.leaving = Leavings { close, reset, vanish, ..viewers.leaving };
        }
        if let Some(Weights([h1, h2, h3])) = self.protocols {
            viewers.protocols = Protocols { h1, h2, h3 };
        }
        viewers.seeks_per_minute = self.seeks.unwrap_or(viewers.seeks_per_minute);
        viewers.sleeps_per_minute = self.sleeps.unwrap_or(viewers.sleeps_per_minute);
        viewers.moves_per_minute = self.moves.unwrap_or(viewers.moves_per_minute);
    }
}

/// What the flags of `run` mean.
///
/// # Errors
/// Flags that do not go together: the caller has to change them.
pub(crate) fn scenario(arguments: &RunArgs) -> Result<Scenario, ScenarioError> {
    let mut scenario = Scenario::preset(&Flags {
        preset: Preset::Ramp,
        urls: &arguments.urls,
        viewers: arguments.viewers,
        ramp_seconds: arguments.ramp_seconds,
        seconds: arguments.seconds,
        seed: arguments.behaviour.seed,
    })?;
    scenario.viewers.variant = arguments.variant.to_string();
    scenario.viewers.video_only = arguments.video_only;
    scenario.limits.max_errors = arguments.max_errors;
    scenario.limits.request_timeout_ms = arguments.target.timeout_seconds * 1000;
    arguments.behaviour.tell(&mut scenario.viewers);
    scenario.checked()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_and_shares() {
        assert_eq!(weights("1,0,2.5").unwrap(), Weights([1.0, 0.0, 2.5]));
        for bad in ["", "1,2", "1,2,3,4", "0,0,0", "1,-1,1", "a,b,c", "inf,1,1", "NaN,1,1"] {
            assert!(weights(bad).is_err(), "{bad}");
        }
        assert_eq!(share("0.25"), Ok(0.25));
        assert!(share("1.1").is_err() && share("-0.1").is_err());
    }
}
