//! What an edge tells its upstream: where it stands, and who watches there.

use super::MIB;
use serde::Deserialize;
use sigma_http::config::Problem;
use sigma_shared::id::PopId;
use std::path::PathBuf;

/// `[pop_description]`
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PopDescriptionConfig {
    pub(crate) name: String,
    pub(crate) region: String,
    pub(crate) latitude: Option<f64>,
    pub(crate) longitude: Option<f64>,
    pub(crate) capacity_viewers: u32,
}

/// `[reports]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct ReportsConfig {
    pub(crate) enabled: bool,
    pub(crate) interval_ms: u64,
    pub(crate) spool_dir: Option<PathBuf>,
    pub(crate) spool_bytes_max: u64,
    pub(crate) sessions_max: usize,
    /// POPs behind this edge that pass on reports of POPs behind them.
    pub(crate) shields: Vec<String>,
}

impl ReportsConfig {
    pub(super) fn problems(&self, found: &mut Vec<Problem>) {
        let no_pops = self.shields.iter().filter(|pop| pop.parse::<PopId>().is_err());
        found.extend(no_pops.map(|pop| Problem::new("reports.shields", pop, "names of POPs")));
        if self.spool_dir.as_ref().is_some_and(|dir| dir.as_os_str().is_empty()) {
            let allowed = "a folder on a local disk, or no such line: reports are in memory only then";
            found.push(Problem::new("reports.spool_dir", "\"\"", allowed));
        }
    }
}

impl Default for ReportsConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            interval_ms: 1_000,
            spool_dir: None,
            spool_bytes_max: 256 * MIB,
            sessions_max: 200_000,
            shields: Vec::new(),
        }
    }
}

impl PopDescriptionConfig {
    /// Degrees, when both are said.
    pub(crate) fn coordinates(&self) -> Option<(f64, f64)> {
        self.latitude.zip(self.longitude)
    }

    pub(super) fn problems(&self, found: &mut Vec<Problem>) {
        let text = [("pop_description.name", &self.name), ("pop_description.region", &self.region)];
        for (key, text) in text {
            if text.len() > 128 || text.contains(char::is_control) {
                found.push(Problem::new(key, text, "at most 128 bytes without control characters"));
            }
        }
        if self.latitude.is_some() != self.longitude.is_some() {
            let allowed = "both pop_description.latitude and pop_description.longitude, or neither";
            found.push(Problem::new("pop_description.latitude", "one of two", allowed));
        }
        for (key, degrees, most) in [
            ("pop_description.latitude", self.latitude, 90.0),
            ("pop_description.longitude", self.longitude, 180.0),
        ] {
            if let Some(degrees) = degrees.filter(|degrees| !(-most..=most).contains(degrees)) {
                found.push(Problem::new(key, degrees, format!("-{most} to {most} degrees")));
            }
        }
    }
}
