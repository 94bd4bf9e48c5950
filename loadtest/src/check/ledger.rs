//! The ledger: what was checked against each rule, how often, and the evidence where it did not hold.
//!
//! Invariant: memory is bounded, however long the observation: per rule a few pieces of evidence are kept and the rest
//! counted.
#![deny(clippy::disallowed_methods)]

use crate::check::catalog::Rule;
use serde::Serialize;
use std::collections::BTreeMap;

/// Pieces of evidence, and notes, kept per rule.
const KEPT: usize = 5;
/// Longest line quoted, in characters.
const QUOTE_MAX: usize = 240;

/// What speaks against (or, in a note, about) a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Evidence {
    /// The request: method and URL.
    pub(crate) request: String,
    /// Of the response body, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) line: Option<usize>,
    /// The offending line.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) text: String,
    /// What is wrong.
    pub(crate) said: String,
}

impl Evidence {
    /// About a response as a whole.
    pub(crate) fn of(request: impl Into<String>, said: impl Into<String>) -> Self {
        Self { request: request.into(), line: None, text: String::new(), said: said.into() }
    }

    /// About a line of it, counted from 1.
    pub(crate) fn line(mut self, number: usize, text: &str) -> Self {
        self.line = Some(number);
        self.text = text.chars().take(QUOTE_MAX).collect();
        self
    }
}

/// What came of one rule.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) evidence: Vec<Evidence>,
    /// Why nothing could be checked.
    pub(crate) skipped: Option<String>,
    pub(crate) notes: Vec<String>,
}

/// All rules' tallies.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    tallies: BTreeMap<Rule, Tally>,
}

impl Ledger {
    fn tally(&mut self, rule: Rule) -> &mut Tally {
        self.tallies.entry(rule).or_default()
    }

    /// The rule held once more.
    pub(crate) fn pass(&mut self, rule: Rule) {
        self.tally(rule).passed += 1;
    }

    /// It did not hold. The same said of the same line again is counted, not kept.
    pub(crate) fn fail(&mut self, rule: Rule, evidence: Evidence) {
        let tally = self.tally(rule);
        tally.failed += 1;
        let known = |e: &Evidence| e.said == evidence.said && e.text == evidence.text;
        if tally.evidence.len() < KEPT && !tally.evidence.iter().any(known) {
            tally.evidence.push(evidence);
        }
    }

    /// Passes or fails.
    pub(crate) fn judge(&mut self, rule: Rule, holds: bool, evidence: impl FnOnce() -> Evidence) {
        if holds { self.pass(rule) } else { self.fail(rule, evidence()) }
    }

    /// Nothing to check it on, and why; the first reason counts, and only while nothing was checked.
    pub(crate) fn skip(&mut self, rule: Rule, reason: impl Into<String>) {
        let tally = self.tally(rule);
        if tally.skipped.is_none() {
            tally.skipped = Some(reason.into());
        }
    }

    /// Worth knowing, whatever the verdict.
    pub(crate) fn note(&mut self, rule: Rule, note: impl Into<String>) {
        let (tally, note) = (self.tally(rule), note.into());
        if tally.notes.len() < KEPT && !tally.notes.contains(&note) {
            tally.notes.push(note);
        }
    }

    /// What came of a rule.
    pub(crate) fn of(&self, rule: Rule) -> Tally {
        self.tallies.get(&rule).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_is_bounded_and_counted() {
        let mut ledger = Ledger::default();
        for n in 0..100 {
            ledger.fail(Rule::Syn04, Evidence::of("GET x", format!("number {n}")));
            ledger.judge(Rule::Syn04, true, || Evidence::of("GET x", "never made"));
            ledger.fail(Rule::Syn03, Evidence::of("GET x", "the same"));
        }
        let tally = ledger.of(Rule::Syn04);
        assert_eq!((tally.passed, tally.failed, tally.evidence.len()), (100, 100, KEPT));
        assert_eq!(ledger.of(Rule::Syn03).evidence.len(), 1);
        assert_eq!(ledger.of(Rule::Syn02).passed, 0);
    }
}
