//! What a report keeps of a run besides its figures, and `sigma-load merge`: the runs of several processes as one.
//!
//! Invariants: figures are worked out after adding, never added, so percentiles of a sum are exact; the order of the
//! files does not matter to any figure. Deliberately absent: the figures (`report`).

use crate::dial::Protocol;
use crate::procstat::UsageReport;
use crate::results::Results;
use crate::run::Outcome;
use crate::scenario::Scenario;
use crate::verify::compare::Verification;
use serde::{Deserialize, Serialize};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};

/// What a report says it is.
const FORMAT: &str = "sigma-load run";
/// Grows when a reader of the version before would misunderstand a report.
const VERSION: u32 = 2;

/// A report cannot be added.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MergeError {
    #[error("{path}: {error}")]
    File { path: PathBuf, error: std::io::Error },
    #[error("{path}: not a report of `sigma-load run --json`: {reason}")]
    Foreign { path: PathBuf, reason: String },
    #[error(
        "{path}: a report of version {version}; this sigma-load reads version {VERSION}: use one for all of them"
    )]
    Version { path: PathBuf, version: u32 },
    #[error("{path}: run {run} is in another of these reports already: each run counts once")]
    Twice { path: PathBuf, run: String },
}

/// All that a run left behind: what reports are made of and merge by.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Recorded {
    /// [`FORMAT`] and [`VERSION`].
    pub(crate) format: String,
    pub(crate) version: u32,
    /// The ids of the runs that are added up, in order.
    pub(crate) runs: Vec<String>,
    /// How many those are.
    pub(crate) processes: u32,
    /// Of viewers whose scenario says nothing else.
    pub(crate) protocol: Protocol,
    /// Errors up to this many are none.
    pub(crate) max_errors: u64,
    /// What casts doubt on the figures of a sum.
    pub(crate) notes: Vec<String>,
    /// What was asked for; equal ones once.
    pub(crate) scenarios: Vec<Scenario>,
    pub(crate) servers: Vec<UsageReport>,
    /// How the origin's statistics compare with what viewers know, by channel and run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) verification: Vec<Verification>,
    /// Why something that was to be compared was not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) unverified: Vec<String>,
    pub(crate) results: Results,
}

/// An id that no other run has.
fn run_id() -> String {
    // Each state has keys of its own, from the system's randomness.
    let word = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", word(), word())
}

impl Recorded {
    pub(crate) fn new(scenario: &Scenario, protocol: Protocol, outcome: Outcome) -> Self {
        Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            runs: vec![run_id()],
            processes: 1,
            protocol,
            max_errors: scenario.limits.max_errors,
            notes: Vec::new(),
            scenarios: vec![scenario.clone()],
            servers: outcome.servers,
            verification: Vec::new(),
            unverified: Vec::new(),
            results: outcome.results,
        }
    }

    /// The URLs of all scenarios.
    pub(crate) fn urls(&self) -> Vec<String> {
        let mut urls: Vec<String> = Vec::new();
        for target in self.scenarios.iter().flat_map(|scenario| &scenario.targets) {
            if !urls.contains(&target.url) {
                urls.push(target.url.clone());
            }
        }
        urls
    }

    /// The measured time, Unix milliseconds.
    fn measured_ms(&self) -> (u64, u64) {
        let ms = |seconds: f64| (seconds * 1000.0) as u64;
        let begin = self.results.started_at_ms.saturating_add(ms(self.results.ramp_seconds));
        (begin, begin.saturating_add(ms(self.results.seconds)))
    }

    /// Adds another process's run.
    pub(crate) fn add(&mut self, other: &Self) {
        let (mine, others) = (self.measured_ms(), other.measured_ms());
        let shared = mine.1.min(others.1).saturating_sub(mine.0.max(others.0));
        let longer = (mine.1 - mine.0).max(others.1 - others.0);
        if shared.saturating_mul(10) < longer.saturating_mul(9) {
            let note = "not all processes measured at the same time: rates are of the longest run";
            if !self.notes.iter().any(|known| known == note) {
                self.notes.push(note.to_owned());
            }
        }
        for note in &other.notes {
            if !self.notes.contains(note) {
                self.notes.push(note.clone());
            }
        }
        self.runs.extend(other.runs.iter().cloned());
        self.runs.sort();
        self.verification.extend(other.verification.iter().cloned());
        self.verification.sort_by(|a, b| (&a.channel, &a.run).cmp(&(&b.channel, &b.run)));
        self.unverified.extend(other.unverified.iter().cloned());
        self.unverified.sort();
        self.processes += other.processes;
        self.max_errors = self.max_errors.saturating_add(other.max_errors);
        for scenario in &other.scenarios {
            if !self.scenarios.contains(scenario) {
                self.scenarios.push(scenario.clone());
            }
        }
        self.servers.extend(other.servers.iter().cloned());
        self.results.add(&other.results);
    }
}

/// Reads what `run --json` or `merge --json` wrote.
///
/// # Errors
/// There is no such file, or it is something else, or of another version: the caller's fault.
pub(crate) fn read(path: &Path) -> Result<Recorded, MergeError> {
    let text = std::fs::read(path).map_err(|error| MergeError::File { path: path.to_owned(), error })?;
    parse(&text).map_err(|error| match error {
        Wrong::Foreign(reason) => MergeError::Foreign { path: path.to_owned(), reason },
        Wrong::Version(version) => MergeError::Version { path: path.to_owned(), version },
    })
}

#[derive(Debug, PartialEq)]
enum Wrong {
    Foreign(String),
    Version(u32),
}

fn parse(text: &[u8]) -> Result<Recorded, Wrong> {
    #[derive(Deserialize)]
    struct Head {
        format: String,
        version: u32,
    }
    let foreign = |error: serde_json::Error| Wrong::Foreign(error.to_string());
    let head: Head = serde_json::from_slice(text).map_err(foreign)?;
    if head.format != FORMAT {
        return Err(Wrong::Foreign(format!("it says it is {:?}", head.format)));
    }
    if head.version != VERSION {
        return Err(Wrong::Version(head.version));
    }
    serde_json::from_slice(text).map_err(foreign)
}

/// The runs of several reports as one; `None` without any.
///
/// # Errors
/// As [`read`]; or a run is in several of them.
pub(crate) fn merge(paths: &[PathBuf]) -> Result<Option<Recorded>, MergeError> {
    let mut sum: Option<Recorded> = None;
    for path in paths {
        let one = read(path)?;
        let twice = sum.as_ref().and_then(|sum| one.runs.iter().find(|run| sum.runs.contains(run)));
        if let Some(run) = twice {
            return Err(MergeError::Twice { path: path.clone(), run: run.clone() });
        }
        match &mut sum {
            Some(sum) => sum.add(&one),
            None => sum = Some(one),
        }
    }
    Ok(sum)
}

#[cfg(test)]
mod tests;
