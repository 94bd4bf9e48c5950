//! Scenarios by name, and what the flags of `run` mean as a scenario.
#![deny(clippy::disallowed_methods)]

use super::{Length, Limits, Phase, PhaseKind, Scenario, ScenarioError, Viewers, targets};
use crate::address::Address;

/// Sessions of the `churn` scenario last this long on average.
const CHURN_MEAN_S: f64 = 30.0;

/// Scenarios that need no file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Preset {
    /// Viewers come evenly over the ramp, then all stay
    #[default]
    Ramp,
    /// All come in the same moment and stay
    Herd,
    /// After the ramp, viewers stay 30 s on average, leave in every way there is, and others come for them
    Churn,
    /// Half way through, everybody at the first URL moves to the others
    PopDeath,
    /// All stay, some seek, sleep and move now and then
    Soak,
}

/// What was said on the command line.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Flags<'a> {
    pub(crate) preset: Preset,
    pub(crate) urls: &'a [Address],
    pub(crate) viewers: u32,
    pub(crate) ramp_seconds: u64,
    /// After the ramp.
    pub(crate) seconds: u64,
    pub(crate) seed: u64,
}

fn phase(kind: PhaseKind, seconds: u64, viewers: u64) -> Phase {
    Phase { kind, seconds, viewers, arrivals: None, length: None, from: None }
}

impl Scenario {
    /// A scenario by name.
    ///
    /// # Errors
    /// The scenario does not go with these flags: the caller has to change them.
    pub(crate) fn preset(flags: &Flags<'_>) -> Result<Self, ScenarioError> {
        let Flags { ramp_seconds, seconds, .. } = *flags;
        let viewers = u64::from(flags.viewers);
        let (mut name, mut habits) = ("ramp", Viewers::default());
        let ramp = phase(PhaseKind::Ramp, ramp_seconds, viewers);
        let soak = phase(PhaseKind::Soak, seconds, 0);
        let phases = match flags.preset {
            Preset::Ramp => vec![ramp, soak],
            Preset::Herd => {
                name = "herd";
                vec![phase(PhaseKind::Herd, ramp_seconds, viewers), soak]
            }
            Preset::Churn => {
                name = "churn";
                habits.length = Length::Exponential { mean_seconds: CHURN_MEAN_S };
                habits.leaving.reset = 1.0;
                habits.leaving.vanish = 0.2;
                let come = (viewers as f64 * seconds as f64 / CHURN_MEAN_S).ceil() as u64;
                vec![ramp, phase(PhaseKind::Churn, seconds, come)]
            }
            Preset::PopDeath => {
                name = "pop-death";
                let mut death = phase(PhaseKind::PopDeath, seconds - seconds / 2, 0);
                death.from = Some(0);
                vec![ramp, phase(PhaseKind::Soak, seconds / 2, 0), death]
            }
            Preset::Soak => {
                name = "soak";
                habits.seeks_per_minute = 0.1;
                habits.sleeps_per_minute = 0.05;
                habits.moves_per_minute = 0.05;
                vec![ramp, soak]
            }
        };
        let scenario = Self {
            name: name.to_owned(),
            seed: flags.seed,
            targets: targets(flags.urls),
            phases,
            viewers: habits,
            limits: Limits::default(),
        };
        scenario.checked()
    }
}
