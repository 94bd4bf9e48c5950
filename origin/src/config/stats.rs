//! `[stats]`: where statistics of viewers are kept, and for how long.

use super::Ranges;
use serde::Deserialize;
use sigma_http::config::Problem;
use sigma_shared::id::PopId;
use sigma_stats::aggregate::Retention;

/// `[stats]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct StatsConfig {
    /// `None`: a file in the data directory.
    pub(crate) database: Option<String>,
    pub(crate) seconds_days: u64,
    pub(crate) minutes_days: u64,
    pub(crate) hours_days: u64,
    pub(crate) sessions_days: u64,
    pub(crate) final_wait_s: u64,
    /// POPs that pass on reports of POPs behind them.
    pub(crate) shields: Vec<String>,
}

impl Default for StatsConfig {
    fn default() -> Self {
        let Retention { seconds_days, minutes_days, hours_days, sessions_days } = Retention::default();
        Self {
            database: None,
            seconds_days,
            minutes_days,
            hours_days,
            sessions_days,
            final_wait_s: 86_400,
            shields: Vec::new(),
        }
    }
}

impl StatsConfig {
    pub(crate) fn retention(&self) -> Retention {
        Retention {
            seconds_days: self.seconds_days,
            minutes_days: self.minutes_days,
            hours_days: self.hours_days,
            sessions_days: self.sessions_days,
        }
    }

    pub(super) fn check(&self, ranges: &mut Ranges) {
        ranges.check("stats.seconds_days", self.seconds_days, 2..=3650, "days");
        ranges.check("stats.minutes_days", self.minutes_days, self.seconds_days..=36_500, "days");
        ranges.check("stats.hours_days", self.hours_days, self.minutes_days..=36_500, "days");
        ranges.check("stats.sessions_days", self.sessions_days, 2..=3650, "days");
        ranges.check("stats.final_wait_s", self.final_wait_s, 10..=2_592_000, "seconds");
    }

    /// The shields, as ids; what is none, which a configuration that was checked has not, is left out.
    pub(crate) fn shields(&self) -> Vec<PopId> {
        self.shields.iter().filter_map(|pop| pop.parse().ok()).collect()
    }

    pub(super) fn problems(&self) -> Vec<Problem> {
        // Its password is nobody's business.
        let is_postgres = |url: &&String| url.starts_with("postgres://") || url.starts_with("postgresql://");
        let database = self.database.iter().filter(|url| !is_postgres(url));
        let database =
            database.map(|_| Problem::new("stats.database", "…", "postgres://USER:PASSWORD@HOST/DATABASE"));
        let shields = self.shields.iter().filter(|pop| pop.parse::<PopId>().is_err());
        let shields = shields.map(|pop| {
            Problem::new(
                "stats.shields",
                pop,
                "names of POPs, as in their certificates: 1 to 64 of a-z, 0-9, _ and -",
            )
        });
        database.chain(shields).collect()
    }
}
