//! What a run does: where viewers go, in which phases they come, how long they stay, how they behave and leave. Read
//! from TOML or made from the flags of `run`.
//!
//! Invariant: a `Scenario` that was handed out has been checked, everything in it is within its bounds. Deliberately
//! absent: doing it (`run`), and who comes when (`scenario::plan`).
#![deny(clippy::disallowed_methods)]

pub(crate) mod plan;
pub(crate) mod preset;

use crate::address::Address;
use crate::crowd::Pick;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Sessions that one phase may begin.
pub(crate) const ARRIVALS_MAX: u64 = 1_000_000;
/// Length of all phases together.
pub(crate) const SECONDS_MAX: u64 = 86_400;
/// The shortest length of a session that can be asked for, seconds.
pub(crate) const LENGTH_S_MIN: f64 = 0.001;
/// What happens at most, per viewer and minute.
pub(crate) const RATE_MAX: f64 = 600.0;
/// Of a logarithm's standard deviation.
pub(crate) const SPREAD_MAX: f64 = 3.0;
const TARGETS_MAX: usize = 256;
const PHASES_MAX: usize = 64;

/// A scenario that cannot be run: its author's fault, a retry does not help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ScenarioError {
    /// Not TOML, or a key that is unknown, missing or of another type; the text names line and key.
    #[error("{0}")]
    Syntax(String),
    #[error("{field} = {value}: {way_out}")]
    Value { field: String, value: String, way_out: String },
}

#[expect(clippy::needless_pass_by_value, reason = "numbers and literals, given as they are")]
fn wrong<T>(
    field: impl Into<String>,
    value: impl ToString,
    way_out: impl Into<String>,
) -> Result<T, ScenarioError> {
    Err(ScenarioError::Value { field: field.into(), value: value.to_string(), way_out: way_out.into() })
}

/// A run as it was ordered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scenario {
    /// For people, in reports.
    #[serde(default)]
    pub(crate) name: String,
    /// Everything random is drawn from it: the same seed is the same run.
    #[serde(default = "one")]
    pub(crate) seed: u64,
    /// Where viewers go. May be left out of a file if URLs are on the command line.
    #[serde(default)]
    pub(crate) targets: Vec<Target>,
    pub(crate) phases: Vec<Phase>,
    #[serde(default)]
    pub(crate) viewers: Viewers,
    #[serde(default)]
    pub(crate) limits: Limits,
}

fn one() -> u64 {
    1
}

/// One playlist at one edge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Target {
    pub(crate) url: String,
    /// Share of the viewers, relative to the other targets.
    #[serde(default = "unit")]
    pub(crate) weight: f64,
    /// How reports call it until the server says its own name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pop: Option<String>,
}

fn unit() -> f64 {
    1.0
}

/// What a phase is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PhaseKind {
    /// Viewers come evenly; `viewers` of them.
    Ramp,
    /// They all come in the first moment.
    Herd,
    /// They come at random, so many as said over the phase, while others leave.
    Churn,
    /// Nobody has to come; time passes.
    Soak,
    /// All viewers of the target `from` go to other targets of the same path in the first moment.
    PopDeath,
}

impl PhaseKind {
    /// As in scenario files.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ramp => "ramp",
            Self::Herd => "herd",
            Self::Churn => "churn",
            Self::Soak => "soak",
            Self::PopDeath => "pop-death",
        }
    }
}

/// How arrivals are spread over a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Arrivals {
    Linear,
    AtOnce,
    /// A Poisson process, given how many came.
    Poisson,
}

/// A stretch of the run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Phase {
    pub(crate) kind: PhaseKind,
    pub(crate) seconds: u64,
    /// Playback sessions that begin in it.
    #[serde(default)]
    pub(crate) viewers: u64,
    /// By default: ramp linear, herd at once, others Poisson.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) arrivals: Option<Arrivals>,
    /// How long those stay that come in this phase; by default `viewers.length`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) length: Option<Length>,
    /// Of `pop-death`: index of the target that dies, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) from: Option<usize>,
}

impl Phase {
    pub(crate) fn arrivals(&self) -> Arrivals {
        self.arrivals.unwrap_or(match self.kind {
            PhaseKind::Ramp => Arrivals::Linear,
            PhaseKind::Herd => Arrivals::AtOnce,
            PhaseKind::Churn | PhaseKind::Soak | PhaseKind::PopDeath => Arrivals::Poisson,
        })
    }

    pub(crate) fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

/// How long a session lasts.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Length {
    /// To the end of the run.
    #[default]
    Whole,
    Fixed {
        seconds: f64,
    },
    Exponential {
        mean_seconds: f64,
    },
    Uniform {
        min_seconds: f64,
        max_seconds: f64,
    },
}

/// How viewers behave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Viewers {
    pub(crate) length: Length,
    pub(crate) leaving: Leavings,
    pub(crate) protocols: Protocols,
    pub(crate) links: Links,
    /// `auto` (by bandwidth), `first`, `lowest`, `highest` or a number from 0.
    pub(crate) variant: String,
    pub(crate) video_only: bool,
    /// Share of viewers that ask for hinted parts, and for delta updates.
    pub(crate) hints: f64,
    pub(crate) deltas: f64,
    /// Seeks back into the DVR window, and how long a viewer stays there.
    pub(crate) seeks_per_minute: f64,
    pub(crate) seek_stay_ms: u64,
    /// Tabs that fall asleep and wake up again.
    pub(crate) sleeps_per_minute: f64,
    pub(crate) sleep_ms: u64,
    /// Moves to another target of the same path, and perhaps another protocol.
    pub(crate) moves_per_minute: f64,
    /// File with playback tokens, one a line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token_file: Option<String>,
    /// Sessions that share one token.
    pub(crate) tabs_per_token: u32,
    pub(crate) cmcd: CmcdIn,
}

impl Default for Viewers {
    fn default() -> Self {
        Self {
            length: Length::Whole,
            leaving: Leavings::default(),
            protocols: Protocols::default(),
            links: Links::default(),
            variant: "first".to_owned(),
            video_only: false,
            hints: 1.0,
            deltas: 1.0,
            seeks_per_minute: 0.0,
            seek_stay_ms: 5_000,
            sleeps_per_minute: 0.0,
            sleep_ms: 10_000,
            moves_per_minute: 0.0,
            token_file: None,
            tabs_per_token: 1,
            cmcd: CmcdIn::Off,
        }
    }
}

/// Where viewers say how they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CmcdIn {
    /// Nowhere
    #[default]
    Off,
    /// In the query, as hls.js does by default
    Query,
    /// In the headers CMCD-Object, CMCD-Request, CMCD-Session and CMCD-Status
    Header,
}

/// Weights of how viewers leave, and for how long those are still there that only seem to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Leavings {
    pub(crate) close: f64,
    pub(crate) reset: f64,
    pub(crate) vanish: f64,
    pub(crate) sleep: f64,
    /// How long a connection stays open whose viewer vanished, at most to the end of the run.
    pub(crate) vanish_seconds: u64,
    /// How long a sleeper sleeps before its connection closes.
    pub(crate) sleep_seconds: u64,
}

impl Default for Leavings {
    fn default() -> Self {
        Self { close: 1.0, reset: 0.0, vanish: 0.0, sleep: 0.0, vanish_seconds: 30, sleep_seconds: 60 }
    }
}

/// Weights of the HTTP versions. All 0: what the URL suggests (h2 for https, h1 for http).
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Protocols {
    pub(crate) h1: f64,
    pub(crate) h2: f64,
    pub(crate) h3: f64,
}

/// How fast viewers' links are.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Links {
    /// Median over the viewers; without it there is no limit but the real connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) median_kbps: Option<f64>,
    /// Standard deviation of the logarithm, between viewers and over a viewer's time.
    pub(crate) spread: f64,
    pub(crate) wobble: f64,
}

/// What ends a run badly.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Limits {
    pub(crate) max_errors: u64,
    /// Longest wait for a complete response, held or not.
    pub(crate) request_timeout_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_errors: 0, request_timeout_ms: 12_000 }
    }
}

impl Scenario {
    /// Reads and checks a scenario. `urls`, if any, take the place of the targets.
    ///
    /// # Errors
    /// The text is not a scenario; the author has to change it.
    pub(crate) fn from_toml(text: &str, urls: &[Address]) -> Result<Self, ScenarioError> {
        let mut scenario: Self =
            toml::from_str(text).map_err(|error| ScenarioError::Syntax(error.to_string()))?;
        if !urls.is_empty() {
            scenario.targets = targets(urls);
        }
        scenario.checked()
    }

    /// Hands the scenario out if everything is within its bounds.
    pub(crate) fn checked(self) -> Result<Self, ScenarioError> {
        self.check_targets()?;
        if self.phases.is_empty() || self.phases.len() > PHASES_MAX {
            return wrong("phases", self.phases.len(), format!("give 1 to {PHASES_MAX} [[phases]]"));
        }
        for (index, phase) in self.phases.iter().enumerate() {
            self.check_phase(index, phase)?;
        }
        let seconds = self.phases.iter().map(|phase| phase.seconds).fold(0, u64::saturating_add);
        if seconds == 0 || seconds > SECONDS_MAX {
            return wrong("phases: sum of seconds", seconds, format!("1 to {SECONDS_MAX} s (a day)"));
        }
        let arrivals = self.arrivals();
        if arrivals == 0 || arrivals > ARRIVALS_MAX {
            return wrong("phases: sum of viewers", arrivals, format!("1 to {ARRIVALS_MAX}"));
        }
        self.viewers.check()?;
        let timeout = self.limits.request_timeout_ms;
        if !(100..=300_000).contains(&timeout) {
            return wrong("limits.request_timeout_ms", timeout, "100 to 300000 (5 minutes)");
        }
        Ok(self)
    }

    fn check_targets(&self) -> Result<(), ScenarioError> {
        if self.targets.is_empty() || self.targets.len() > TARGETS_MAX {
            let way_out =
                format!("give 1 to {TARGETS_MAX} [[targets]] with a url, or URLs on the command line");
            return wrong("targets", self.targets.len(), way_out);
        }
        for (index, target) in self.targets.iter().enumerate() {
            if let Err(error) = target.url.parse::<Address>() {
                return wrong(format!("targets[{index}].url"), &target.url, error.to_string());
            }
            weight(&format!("targets[{index}].weight"), target.weight)?;
        }
        some_weight("targets: weight", self.targets.iter().map(|target| target.weight))
    }

    fn check_phase(&self, index: usize, phase: &Phase) -> Result<(), ScenarioError> {
        let field = |name: &str| format!("phases[{index}].{name}");
        if phase.viewers > ARRIVALS_MAX {
            return wrong(field("viewers"), phase.viewers, format!("at most {ARRIVALS_MAX}"));
        }
        if let Some(length) = &phase.length {
            length.check(&field("length"))?;
        }
        let comers = matches!(phase.kind, PhaseKind::Ramp | PhaseKind::Herd | PhaseKind::Churn);
        if comers && phase.viewers == 0 {
            return wrong(
                field("viewers"),
                0,
                "say how many come in this phase; if nobody does, kind = \"soak\"",
            );
        }
        match (phase.kind, phase.from) {
            (PhaseKind::PopDeath, None) => {
                wrong(field("from"), "(nothing)", "pop-death needs the index of the target that dies, from 0")
            }
            (PhaseKind::PopDeath, Some(from)) if from >= self.targets.len() => wrong(
                field("from"),
                from,
                format!("there are {} targets, counted from 0", self.targets.len()),
            ),
            (PhaseKind::PopDeath, Some(from)) if self.elsewhere(from).is_empty() => {
                let way_out = "no other target has the same path; viewers need somewhere to go";
                wrong(field("from"), from, way_out)
            }
            (PhaseKind::PopDeath, Some(_)) | (_, None) => Ok(()),
            (_, Some(from)) => wrong(field("from"), from, "only pop-death has it"),
        }
    }

    /// Targets with the same channel as this one: where its viewers can move.
    pub(crate) fn elsewhere(&self, target: usize) -> Vec<usize> {
        let path = |url: &str| url.parse::<Address>().ok().map(|address| address.path);
        let Some(own) = self.targets.get(target) else { return Vec::new() };
        let wanted = path(&own.url);
        (0..self.targets.len())
            .filter(|index| *index != target && self.targets[*index].url != own.url)
            .filter(|index| path(&self.targets[*index].url) == wanted)
            .collect()
    }

    /// Sessions that begin in the whole run.
    pub(crate) fn arrivals(&self) -> u64 {
        self.phases.iter().map(|phase| phase.viewers).fold(0, u64::saturating_add)
    }

    /// How long it lasts.
    pub(crate) fn duration(&self) -> Duration {
        self.phases.iter().map(Phase::duration).sum()
    }

    /// Time before the measured time: the ramps and herds that it begins with.
    pub(crate) fn warm_up(&self) -> Duration {
        let first = |phase: &&Phase| matches!(phase.kind, PhaseKind::Ramp | PhaseKind::Herd);
        self.phases.iter().take_while(first).map(Phase::duration).sum()
    }

    /// The targets as addresses, in order.
    pub(crate) fn addresses(&self) -> Vec<Address> {
        self.targets.iter().filter_map(|target| target.url.parse().ok()).collect()
    }
}

/// Equal targets for URLs.
pub(crate) fn targets(urls: &[Address]) -> Vec<Target> {
    urls.iter().map(|url| Target { url: url.to_string(), weight: 1.0, pop: None }).collect()
}

fn weight(field: &str, value: f64) -> Result<(), ScenarioError> {
    if (0.0..=1e6).contains(&value) { Ok(()) } else { wrong(field, value, "a number from 0 to 1000000") }
}

fn some_weight(field: &str, weights: impl Iterator<Item = f64>) -> Result<(), ScenarioError> {
    if weights.sum::<f64>() > 0.0 { Ok(()) } else { wrong(field, 0, "at least one must be above 0") }
}

impl Length {
    fn check(&self, field: &str) -> Result<(), ScenarioError> {
        let seconds = |name: &str, value: f64| {
            if (LENGTH_S_MIN..=SECONDS_MAX as f64).contains(&value) {
                Ok(())
            } else {
                wrong(format!("{field}.{name}"), value, format!("{LENGTH_S_MIN} to {SECONDS_MAX}"))
            }
        };
        match *self {
            Self::Whole => Ok(()),
            Self::Fixed { seconds: value } => seconds("seconds", value),
            Self::Exponential { mean_seconds } => seconds("mean_seconds", mean_seconds),
            Self::Uniform { min_seconds, max_seconds } => {
                seconds("min_seconds", min_seconds)?;
                seconds("max_seconds", max_seconds)?;
                if min_seconds <= max_seconds {
                    return Ok(());
                }
                wrong(
                    format!("{field}.max_seconds"),
                    max_seconds,
                    format!("at least min_seconds, {min_seconds}"),
                )
            }
        }
    }
}

impl Viewers {
    fn check(&self) -> Result<(), ScenarioError> {
        self.length.check("viewers.length")?;
        if let Err(way_out) = self.variant.parse::<Pick>() {
            return wrong("viewers.variant", &self.variant, way_out);
        }
        for (field, share) in [("viewers.hints", self.hints), ("viewers.deltas", self.deltas)] {
            if !(0.0..=1.0).contains(&share) {
                return wrong(field, share, "a share from 0 to 1");
            }
        }
        for (field, rate) in [
            ("viewers.seeks_per_minute", self.seeks_per_minute),
            ("viewers.sleeps_per_minute", self.sleeps_per_minute),
            ("viewers.moves_per_minute", self.moves_per_minute),
        ] {
            if !(0.0..=RATE_MAX).contains(&rate) {
                return wrong(field, rate, format!("0 to {RATE_MAX}"));
            }
        }
        for (field, ms) in [("viewers.seek_stay_ms", self.seek_stay_ms), ("viewers.sleep_ms", self.sleep_ms)]
        {
            if ms > SECONDS_MAX * 1000 {
                return wrong(field, ms, format!("at most {} (a day)", SECONDS_MAX * 1000));
            }
        }
        if !(1..=1_000_000).contains(&self.tabs_per_token) {
            return wrong("viewers.tabs_per_token", self.tabs_per_token, "1 to 1000000");
        }
        let leaving = self.leaving;
        let ways = [
            ("viewers.leaving.close", leaving.close),
            ("viewers.leaving.reset", leaving.reset),
            ("viewers.leaving.vanish", leaving.vanish),
            ("viewers.leaving.sleep", leaving.sleep),
        ];
        for (field, value) in ways {
            weight(field, value)?;
        }
        some_weight("viewers.leaving", ways.iter().map(|(_, value)| *value))?;
        for (field, seconds) in [
            ("viewers.leaving.vanish_seconds", leaving.vanish_seconds),
            ("viewers.leaving.sleep_seconds", leaving.sleep_seconds),
        ] {
            if seconds > SECONDS_MAX {
                return wrong(field, seconds, format!("at most {SECONDS_MAX} (a day)"));
            }
        }
        let Protocols { h1, h2, h3 } = self.protocols;
        for (field, value) in
            [("viewers.protocols.h1", h1), ("viewers.protocols.h2", h2), ("viewers.protocols.h3", h3)]
        {
            weight(field, value)?;
        }
        self.links.check()
    }
}

impl Links {
    fn check(&self) -> Result<(), ScenarioError> {
        if let Some(kbps) = self.median_kbps
            && !(1.0..=1e7).contains(&kbps)
        {
            return wrong("viewers.links.median_kbps", kbps, "1 to 10000000");
        }
        for (field, value) in [("viewers.links.spread", self.spread), ("viewers.links.wobble", self.wobble)] {
            if !(0.0..=SPREAD_MAX).contains(&value) {
                return wrong(field, value, format!("0 (all alike) to {SPREAD_MAX}"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
