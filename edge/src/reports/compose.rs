//! Reports made of what the ledger told, none larger than a report may be; and many reports made into few.
//!
//! Invariants: only the last of the reports of a moment says that everything before it is said; uniting adds nothing and
//! loses nothing: of sessions, sets are united. Pure.
#![deny(clippy::disallowed_methods)]

use crate::ledger::Due;
use sigma_report::report::{
    BYTES_MAX, PopDescription, Protocol, QualityReport, Report, SPANS_MAX, SessionReport, TrafficReport,
};
use sigma_report::spans::{Span, Spans};
use std::collections::{BTreeMap, HashMap};

/// What a report may hold of sessions, traffic and quality, bytes: the rest is for its head.
const CONTENT_MAX: usize = BYTES_MAX - 64 * 1024;

/// When a report is made, and by whom.
#[derive(Debug, Clone)]
pub(crate) struct Moment {
    pub(crate) made_at_ms: u64,
    /// What was said before was complete until here…
    pub(crate) complete_before_ms: u64,
    /// …and with this it is until here.
    pub(crate) complete_until_ms: u64,
    pub(crate) pop: PopDescription,
}

/// Reports without numbers: whoever keeps them gives them.
#[derive(Debug)]
struct Composer<'a> {
    names: &'a [String],
    moment: &'a Moment,
    reports: Vec<Report>,
    /// Numbers of channels in the report that is being made.
    places: HashMap<u32, u32>,
    bytes: usize,
}

impl<'a> Composer<'a> {
    fn new(names: &'a [String], moment: &'a Moment) -> Self {
        let mut composer = Self { names, moment, reports: Vec::new(), places: HashMap::new(), bytes: 0 };
        composer.begin();
        composer
    }

    fn begin(&mut self) {
        self.places.clear();
        self.bytes = 0;
        self.reports.push(Report {
            incarnation: 0,
            sequence: 0,
            made_at_ms: self.moment.made_at_ms,
            complete_until_ms: self.moment.complete_before_ms,
            pop: self.moment.pop.clone(),
            channels: Vec::new(),
            sessions: Vec::new(),
            traffic: Vec::new(),
            quality: Vec::new(),
        });
    }

    /// Makes room for something on a channel, and adds it.
    fn add(&mut self, channel: u32, weight: usize, add: impl FnOnce(&mut Report, u32)) {
        let Some(name) = self.names.get(channel as usize) else { return };
        let weight = weight + name.len() + 4;
        if self.bytes + weight > CONTENT_MAX {
            self.begin();
        }
        self.bytes += weight;
        let Some(report) = self.reports.last_mut() else { return };
        let place = *self.places.entry(channel).or_insert_with(|| {
            report.channels.push(name.clone());
            u32::try_from(report.channels.len() - 1).unwrap_or(u32::MAX)
        });
        add(report, place);
    }

    fn session(&mut self, session: SessionReport) {
        let weight = 40 + 20 * (session.watched.len() + session.present.len());
        self.add(session.channel, weight, |report, channel| {
            report.sessions.push(SessionReport { channel, ..session });
        });
    }

    fn finish(mut self) -> Vec<Report> {
        if let Some(last) = self.reports.last_mut() {
            last.complete_until_ms = self.moment.complete_until_ms;
        }
        self.reports
    }
}

/// The traffic that the shards of the ledger told, as one.
fn traffic(due: &Due) -> impl Iterator<Item = TrafficReport> {
    let mut traffic = BTreeMap::new();
    for told in &due.traffic {
        let sum = traffic.entry((told.channel, told.protocol, told.second));
        let sum = sum.or_insert_with(|| TrafficReport { bytes: 0, requests: 0, ..told.clone() });
        sum.bytes += told.bytes;
        sum.requests += told.requests;
    }
    traffic.into_values()
}

/// What the shards of the ledger told that players said, as one.
fn quality(due: &Due) -> impl Iterator<Item = QualityReport> {
    let mut quality = BTreeMap::new();
    for told in &due.quality {
        let (channel, minute) = (told.channel, told.minute);
        let sum = quality.entry((channel, minute));
        let sum = sum.or_insert_with(|| QualityReport { channel, minute, ..QualityReport::default() });
        sum.starvations += told.starvations;
        sum.starved_ms += told.starved_ms;
        sum.startup_ms.add(&told.startup_ms);
        sum.latency_ms.add(&told.latency_ms);
        sum.throughput_kbps.add(&told.throughput_kbps);
    }
    quality.into_values()
}

/// The reports of what is due. At least one.
pub(crate) fn compose(due: Due, names: &[String], moment: &Moment) -> Vec<Report> {
    let mut composer = Composer::new(names, moment);
    for told in traffic(&due) {
        composer.add(told.channel, 40, |report, channel| {
            report.traffic.push(TrafficReport { channel, ..told });
        });
    }
    for told in quality(&due) {
        composer.add(told.channel, 1400, |report, channel| {
            report.quality.push(QualityReport { channel, ..told });
        });
    }
    due.sessions.into_iter().for_each(|session| composer.session(session));
    composer.finish()
}

/// One session's sets.
#[derive(Debug, Default)]
struct Sets {
    viewer: u64,
    watched: Spans,
    present: Spans,
}

/// Sessions of many reports, united.
#[derive(Debug, Default)]
pub(crate) struct Union {
    channels: Vec<String>,
    numbers: HashMap<String, u32>,
    sessions: BTreeMap<([u8; 16], u32, Protocol), Sets>,
}

impl Union {
    /// Takes a report's sessions out of it. What is left claims nothing to be complete: its sessions come later.
    pub(crate) fn take(&mut self, report: &mut Report) {
        report.complete_until_ms = 0;
        for session in std::mem::take(&mut report.sessions) {
            let Some(name) = report.channels.get(session.channel as usize) else { continue };
            let next = u32::try_from(self.channels.len()).unwrap_or(u32::MAX);
            let channel = *self.numbers.entry(name.clone()).or_insert_with(|| {
                self.channels.push(name.clone());
                next
            });
            let sets = self.sessions.entry((session.session, channel, session.protocol)).or_default();
            sets.viewer = session.viewer;
            session.watched.iter().for_each(|span| drop(sets.watched.insert(*span)));
            session.present.iter().for_each(|span| drop(sets.present.insert(*span)));
        }
    }

    /// Reports of the sessions alone.
    pub(crate) fn reports(self, moment: &Moment) -> Vec<Report> {
        let mut composer = Composer::new(&self.channels, moment);
        for ((session, channel, protocol), sets) in self.sessions {
            let (watched, present) = (sets.watched.as_slice(), sets.present.as_slice());
            let piece = |spans: &[Span], n: usize| {
                spans.chunks(SPANS_MAX).nth(n).map(<[Span]>::to_vec).unwrap_or_default()
            };
            for n in 0..watched.len().max(present.len()).div_ceil(SPANS_MAX) {
                let (watched, present) = (piece(watched, n), piece(present, n));
                let viewer = sets.viewer;
                composer.session(SessionReport { session, viewer, channel, protocol, watched, present });
            }
        }
        composer.finish()
    }
}

#[cfg(test)]
mod tests;
