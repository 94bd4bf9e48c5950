//! The report of a check: a table for people, JSON for machines, and whether it is good enough.

use crate::check::catalog::{Level, Rule};
use crate::check::ledger::{Evidence, Ledger};
use crate::check::record::Presentation;
use serde::Serialize;
use std::fmt;

/// Which failures make the check fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum FailOn {
    /// Rules of level M
    Must,
    /// Rules of levels M, S, A and R
    Should,
    /// Every rule, those of this project (O) too
    Ours,
}

impl FailOn {
    fn covers(self, level: Level) -> bool {
        match self {
            Self::Must => level == Level::Must,
            Self::Should => level != Level::Ours,
            Self::Ours => true,
        }
    }
}

/// What came of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Outcome {
    Pass,
    Fail,
    /// There was nothing to check it on.
    Skip,
}

/// One rule in the report. Names are part of the outside: scripts read them.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) id: &'static str,
    pub(crate) level: Level,
    pub(crate) outcome: Outcome,
    pub(crate) sentence: &'static str,
    /// How often it was checked.
    pub(crate) checked: u64,
    /// How often it did not hold.
    pub(crate) failed: u64,
    /// A few of the failures.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) evidence: Vec<Evidence>,
    /// Why it was skipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) notes: Vec<String>,
}

/// The report.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) url: String,
    pub(crate) compared_with: Vec<String>,
    pub(crate) seconds: f64,
    /// URIs of the media playlists.
    pub(crate) playlists: Vec<String>,
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) skipped: usize,
    /// Failed rules by level.
    pub(crate) failed_levels: std::collections::BTreeMap<&'static str, usize>,
    pub(crate) rules: Vec<Row>,
}

impl Report {
    /// Of a finished ledger.
    pub(crate) fn new(ledger: &Ledger, presentation: &Presentation) -> Self {
        let rules: Vec<Row> = Rule::ALL.iter().map(|rule| row(*rule, ledger)).collect();
        let count = |outcome: Outcome| rules.iter().filter(|row| row.outcome == outcome).count();
        let mut failed_levels = std::collections::BTreeMap::new();
        for row in rules.iter().filter(|row| row.outcome == Outcome::Fail) {
            *failed_levels.entry(row.level.letter()).or_default() += 1;
        }
        Self {
            url: String::new(),
            compared_with: Vec::new(),
            seconds: 0.0,
            playlists: presentation.renditions.iter().map(|r| r.name.clone()).collect(),
            passed: count(Outcome::Pass),
            failed: count(Outcome::Fail),
            skipped: count(Outcome::Skip),
            failed_levels,
            rules,
        }
    }

    /// Whether no rule failed that counts.
    pub(crate) fn is_good(&self, fail_on: FailOn) -> bool {
        !self.rules.iter().any(|row| row.outcome == Outcome::Fail && fail_on.covers(row.level))
    }
}

fn row(rule: Rule, ledger: &Ledger) -> Row {
    let entry = rule.entry();
    let tally = ledger.of(rule);
    let outcome = match (tally.failed, tally.passed) {
        (1.., _) => Outcome::Fail,
        (0, 1..) => Outcome::Pass,
        (0, 0) => Outcome::Skip,
    };
    let unseen = || "nothing of the kind was seen".to_owned();
    Row {
        id: entry.id,
        level: entry.level,
        outcome,
        sentence: entry.sentence,
        checked: tally.passed + tally.failed,
        failed: tally.failed,
        evidence: tally.evidence,
        reason: (outcome == Outcome::Skip).then(|| tally.skipped.unwrap_or_else(unseen)),
        notes: tally.notes,
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.url)?;
        for url in &self.compared_with {
            writeln!(f, "compared with {url}")?;
        }
        writeln!(f, "{} media playlists, observed for {:.0} s\n", self.playlists.len(), self.seconds)?;
        for row in &self.rules {
            let outcome = match row.outcome {
                Outcome::Pass => "pass",
                Outcome::Fail => "FAIL",
                Outcome::Skip => "skip",
            };
            let count = match row.outcome {
                Outcome::Pass => format!("{}", row.checked),
                Outcome::Fail => format!("{}/{}", row.failed, row.checked),
                Outcome::Skip => String::new(),
            };
            writeln!(f, "{:<7}{:<2}{outcome} {count:>11}  {}", row.id, row.level.letter(), row.sentence)?;
            if let Some(reason) = &row.reason {
                writeln!(f, "{:27}- {reason}", "")?;
            }
            for note in &row.notes {
                writeln!(f, "{:27}note: {note}", "")?;
            }
            for evidence in &row.evidence {
                writeln!(f, "{:27}! {}", "", evidence.said)?;
                writeln!(f, "{:29}{}", "", evidence.request)?;
                if let Some(line) = evidence.line {
                    writeln!(f, "{:29}line {line}: {}", "", evidence.text)?;
                }
            }
        }
        write!(f, "\n{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)?;
        if !self.failed_levels.is_empty() {
            let levels: Vec<String> =
                self.failed_levels.iter().map(|(level, count)| format!("{level} {count}")).collect();
            write!(f, " (failed: {})", levels.join(", "))?;
        }
        Ok(())
    }
}
