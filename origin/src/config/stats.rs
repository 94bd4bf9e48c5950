//! `[stats]`: where statistics of viewers are kept, and for how long.

use super::Ranges;
use serde::Deserialize;
use sigma_http::config::Problem;
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
}

impl Default for StatsConfig {
    fn default() -> Self {
        let Retention { seconds_days, minutes_days, hours_days, sessions_days } = Retention::default();
        Self { database: None, seconds_days, minutes_days, hours_days, sessions_days, final_wait_s: 86_400 }
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

    pub(super) fn problems(&self) -> Option<Problem> {
        let url = self.database.as_ref()?;
        // Its password is nobody's business.
        let is_postgres = url.starts_with("postgres://") || url.starts_with("postgresql://");
        (!is_postgres).then(|| Problem::new("stats.database", "…", "postgres://USER:PASSWORD@HOST/DATABASE"))
    }
}
