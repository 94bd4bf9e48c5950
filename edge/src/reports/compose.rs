//! Reports made of what the ledger told, none beyond the bounds of a report; and many reports made into few.
//!
//! Invariants: only the last of the reports of a moment says that everything before it is said; uniting adds nothing and
//! loses nothing: of sessions, sets are united. Pure.
#![deny(clippy::disallowed_methods)]

use crate::ledger::Due;
use sigma_report::bounds::{
    ALL_SPANS_MAX, BYTES_MAX, MINUTES_MAX, Minutes, QUALITY_MAX, SESSIONS_MAX, SPAN_MS_MAX, SPANS_MAX,
    TRAFFIC_MAX,
};
use sigma_report::report::{PopDescription, Protocol, QualityReport, Report, SessionReport, TrafficReport};
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
    /// What is in it.
    bytes: usize,
    spans: usize,
    minutes: Minutes,
}

/// An entry of a report.
#[derive(Debug)]
enum Told {
    Session(SessionReport),
    Traffic(TrafficReport),
    Quality(QualityReport),
}

impl Told {
    fn channel(&mut self) -> &mut u32 {
        match self {
            Self::Session(session) => &mut session.channel,
            Self::Traffic(traffic) => &mut traffic.channel,
            Self::Quality(quality) => &mut quality.channel,
        }
    }

    fn spans(&self) -> usize {
        match self {
            Self::Session(session) => session.watched.len() + session.present.len(),
            Self::Traffic(_) | Self::Quality(_) => 0,
        }
    }

    /// At most so many on the wire.
    fn bytes(&self) -> usize {
        match self {
            Self::Session(_) => 40 + 20 * self.spans(),
            Self::Traffic(_) => 40,
            Self::Quality(_) => 1400,
        }
    }

    fn count_minutes(&self, minutes: &mut Minutes) {
        match self {
            Self::Session(session) => minutes.add_session(session),
            Self::Traffic(traffic) => minutes.add_traffic(traffic),
            Self::Quality(quality) => minutes.add_quality(quality),
        }
    }
}

impl<'a> Composer<'a> {
    fn new(names: &'a [String], moment: &'a Moment) -> Self {
        let (places, minutes) = (HashMap::new(), Minutes::default());
        let mut composer = Self { names, moment, reports: Vec::new(), places, bytes: 0, spans: 0, minutes };
        composer.begin();
        composer
    }

    fn begin(&mut self) {
        self.places.clear();
        (self.bytes, self.spans, self.minutes) = (0, 0, Minutes::default());
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

    fn has_room(&self, bytes: usize, spans: usize) -> bool {
        self.reports.last().is_some_and(|report| {
            self.bytes + bytes <= CONTENT_MAX
                && self.spans + spans <= ALL_SPANS_MAX
                && self.minutes.count() <= MINUTES_MAX
                && report.sessions.len() < SESSIONS_MAX
                && report.traffic.len() < TRAFFIC_MAX
                && report.quality.len() < QUALITY_MAX
        })
    }

    /// Makes room for something, and adds it.
    fn add(&mut self, mut told: Told) {
        let channel = *told.channel();
        let Some(name) = self.names.get(channel as usize) else { return };
        let (bytes, spans) = (told.bytes() + name.len() + 4, told.spans());
        told.count_minutes(&mut self.minutes);
        if !self.has_room(bytes, spans) {
            self.begin();
            told.count_minutes(&mut self.minutes);
        }
        (self.bytes, self.spans) = (self.bytes + bytes, self.spans + spans);
        let Some(report) = self.reports.last_mut() else { return };
        *told.channel() = *self.places.entry(channel).or_insert_with(|| {
            report.channels.push(name.clone());
            u32::try_from(report.channels.len() - 1).unwrap_or(u32::MAX)
        });
        match told {
            Told::Session(session) => report.sessions.push(session),
            Told::Traffic(traffic) => report.traffic.push(traffic),
            Told::Quality(quality) => report.quality.push(quality),
        }
    }

    /// Adds a session, in as many entries as it takes.
    fn session(&mut self, mut session: SessionReport) {
        session.watched = cut(session.watched, SPAN_MS_MAX * 1000);
        session.present = cut(session.present, SPAN_MS_MAX);
        if session.watched.len().max(session.present.len()) <= SPANS_MAX {
            return self.add(Told::Session(session));
        }
        let piece = |spans: &[Span], n: usize| {
            spans.chunks(SPANS_MAX).nth(n).map(<[Span]>::to_vec).unwrap_or_default()
        };
        for n in 0..session.watched.len().max(session.present.len()).div_ceil(SPANS_MAX) {
            let (watched, present) = (piece(&session.watched, n), piece(&session.present, n));
            self.add(Told::Session(SessionReport { watched, present, ..session }));
        }
    }

    fn finish(mut self) -> Vec<Report> {
        if let Some(last) = self.reports.last_mut() {
            last.complete_until_ms = self.moment.complete_until_ms;
        }
        self.reports
    }
}

/// The same moments in spans that are not too long.
fn cut(spans: Vec<Span>, most: u64) -> Vec<Span> {
    if spans.iter().all(|span| span.length() <= most) {
        return spans;
    }
    let mut pieces = Vec::new();
    for Span { mut start, end } in spans {
        while end - start > most {
            pieces.push(Span { start, end: start + most });
            start += most;
        }
        pieces.extend(Span::new(start, end));
    }
    pieces
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
        sum.spoken_ms += told.spoken_ms;
        sum.startup_ms.add(&told.startup_ms);
        sum.latency_ms.add(&told.latency_ms);
        sum.throughput_kbps.add(&told.throughput_kbps);
    }
    quality.into_values()
}

/// The reports of what is due. At least one.
pub(crate) fn compose(due: Due, names: &[String], moment: &Moment) -> Vec<Report> {
    let mut composer = Composer::new(names, moment);
    traffic(&due).for_each(|told| composer.add(Told::Traffic(told)));
    quality(&due).for_each(|told| composer.add(Told::Quality(told)));
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
        for ((session, channel, protocol), mut sets) in self.sessions {
            let (viewer, watched, present) = (sets.viewer, sets.watched.take(), sets.present.take());
            composer.session(SessionReport { session, viewer, channel, protocol, watched, present });
        }
        composer.finish()
    }
}

#[cfg(test)]
mod tests;
