//! The load tester's ground truth against what the origin reports: every metric with its bar, what was measured, and
//! the worst case.
//!
//! The truth knows when a viewer came and when it really left; the origin may notice that a little later. A second's
//! count is right if it lies between those who must be counted by then and those who may be, of which are those whose
//! first byte may have been on its way; lags are measured the same
//! way, so one of leaves can look shorter than it is by what joins are late, never longer. Sessions that the origin
//! knew before the run are left out of everything. Totals are what was added to the origin's since then, where somebody
//! asked before the run; else they are summed up from its sessions, as an origin's totals outlive the sessions that it
//! lists. Deliberately absent: files and network.
#![deny(clippy::disallowed_methods)]

use crate::tally::Leaving;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What may be between a viewer's coming or leaving and its being seen, seconds.
const JOIN_S: u64 = 2;
const LEAVE_S: u64 = 6;
const VANISH_S: u64 = 10;
/// A byte takes no longer from the server to the tester, milliseconds.
const TRANSIT_MS: u64 = 1_000;
/// Longest lag that is looked for.
const LAG_MAX_S: u64 = 60;
/// Viewers wrong in a second, relative to the peak.
const CCU_ERROR_MAX: f64 = 0.005;
/// Of the total watch time.
const WATCH_ERROR_MAX: f64 = 0.001;

/// One playback session as the tester knows it: a line of the ground-truth log. Keys that this does not need are not read.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Truth {
    pub(crate) session: String,
    pub(crate) channel: String,
    #[serde(default)]
    pub(crate) pops: Vec<String>,
    pub(crate) first_media_at_ms: Option<u64>,
    pub(crate) last_response_at_ms: Option<u64>,
    pub(crate) left: Leaving,
    /// It wanted to watch from then on.
    #[serde(default)]
    pub(crate) started_at_ms: u64,
    /// Without grace.
    #[serde(default)]
    pub(crate) present_ms: Vec<[u64; 2]>,
    pub(crate) watched_us: u64,
    pub(crate) parts: u64,
    #[serde(default)]
    pub(crate) longest_part_us: u64,
    /// It left while media was on its way: without any before, only the server knows whether it is a view.
    #[serde(default)]
    pub(crate) asking: bool,
    /// What may have been sent to who had vanished by then, microseconds.
    #[serde(default)]
    pub(crate) unseen_us: u64,
    /// How much media it let go of while it was under way: only the server knows whether it was sent.
    #[serde(default)]
    pub(crate) let_go_us: u64,
    /// Where it let go of media under way before it had got any there: only the server knows whether it was there.
    #[serde(default)]
    pub(crate) asked_pops: Vec<String>,
}

/// One playback session as the origin knows it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Seen {
    pub(crate) session: String,
    pub(crate) first_media_at_ms: Option<u64>,
    pub(crate) last_at_ms: Option<u64>,
    pub(crate) watch_ms: u64,
    pub(crate) pops: Vec<String>,
}

/// An origin's totals of a channel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) views: u64,
    pub(crate) watch_ms: u64,
}

/// What the origin says of a channel.
#[derive(Debug, Clone, Default)]
pub(crate) struct Told {
    pub(crate) totals: Totals,
    /// What they were before the run; `None`: nobody asked.
    pub(crate) before: Option<Totals>,
    pub(crate) sessions: Vec<Seen>,
    /// Viewers by Unix second, of the whole window; seconds that are missing have none.
    pub(crate) viewers: BTreeMap<u64, u64>,
    pub(crate) viewers_by_pop: BTreeMap<String, BTreeMap<u64, u64>>,
}

/// What decides.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Bars {
    /// Duration of a part, which one session's watch time may be off by; `None`: the longest that was got.
    pub(crate) part_ms: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    Pass,
    Fail,
    /// Nothing was there that it speaks of.
    Skip,
}

/// One line of the comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Metric {
    pub(crate) name: String,
    pub(crate) bar: String,
    pub(crate) measured: String,
    /// Where it was worst.
    pub(crate) worst: String,
    pub(crate) verdict: Verdict,
}

/// The comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Verification {
    /// Id of the run whose viewers these were; empty where a log alone was compared.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) run: String,
    pub(crate) channel: String,
    pub(crate) sessions: u64,
    pub(crate) peak_viewers: u64,
    pub(crate) seconds: u64,
    pub(crate) passed: bool,
    pub(crate) metrics: Vec<Metric>,
}

impl fmt::Display for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}: {} sessions with media, at most {} at once, over {} s",
            self.channel, self.sessions, self.peak_viewers, self.seconds
        )?;
        let wide = |cell: fn(&Metric) -> &String, least: usize| {
            self.metrics.iter().map(|metric| cell(metric).chars().count()).max().unwrap_or(0).max(least)
        };
        let (name, bar, measured) = (wide(|m| &m.name, 6), wide(|m| &m.bar, 3), wide(|m| &m.measured, 8));
        writeln!(f, "       {:name$}  {:bar$}  {:measured$}  worst case", "metric", "bar", "measured")?;
        for metric in &self.metrics {
            let verdict = match metric.verdict {
                Verdict::Pass => "pass",
                Verdict::Fail => "FAIL",
                Verdict::Skip => "skip",
            };
            let Metric { name: n, bar: b, measured: m, worst, .. } = metric;
            writeln!(f, "{verdict}   {n:name$}  {b:bar$}  {m:measured$}  {worst}")?;
        }
        write!(f, "{}", if self.passed { "passed" } else { "FAILED" })
    }
}

/// From a little before the first to a little after the last that can count, Unix seconds.
pub(crate) fn window(truth: &[Truth]) -> Option<(u64, u64)> {
    let spans = || truth.iter().flat_map(|truth| &truth.present_ms);
    let start = spans().map(|span| span[0]).min()?;
    let end = spans().map(|span| span[1]).max()?;
    Some(((start / 1000).saturating_sub(JOIN_S), end.div_ceil(1000) + VANISH_S + JOIN_S))
}

/// Compares. `truth` is of one channel; a session that is in several logs is one.
pub(crate) fn compare(truth: &[Truth], told: &Told, bars: Bars) -> Verification {
    let truth = united(truth);
    let views: Vec<&Truth> = truth.values().filter(|truth| truth.parts > 0).collect();
    let (from, to) =
        window(&views.iter().map(|truth| (*truth).clone()).collect::<Vec<_>>()).unwrap_or_default();
    let begun_ms = from * 1000;
    let earlier = |seen: &&Seen| {
        !truth.contains_key(&seen.session) && seen.last_at_ms.is_none_or(|last| last < begun_ms)
    };
    let totals = told.added(|seen| !earlier(&seen));
    // Who left while its first part was on its way is not compared.
    let open: Vec<&Seen> = (told.sessions.iter())
        .filter(|seen| truth.get(&seen.session).is_some_and(|truth| truth.parts == 0 && truth.asking))
        .collect();
    let count = Count::new(&views, (from, to), |_| (true, true));
    let mut metrics = vec![
        total_views(&views, totals, &open),
        same_sessions(&truth, told, begun_ms),
        watch_total(&views, totals, &open),
        watch_each(&views, told, bars),
    ];
    metrics.extend(count.metrics("", &told.viewers));
    metrics.push(pops_each(&views, told));
    for (pop, viewers) in &told.viewers_by_pop {
        // Where a session was when is not in the log: at a POP that is its only one it was all the time.
        let own = |truth: &Truth| {
            let there = truth.pops.contains(pop);
            (
                there && truth.pops.len() == 1 && truth.asked_pops.is_empty(),
                there || truth.asked_pops.contains(pop),
            )
        };
        if views.iter().any(|truth| truth.pops.contains(pop)) {
            let count = Count::new(&views, (from, to), own);
            metrics.push(count.within(&format!("viewers at {pop}"), viewers));
        }
    }
    Verification {
        run: String::new(),
        channel: views.first().map(|truth| truth.channel.clone()).unwrap_or_default(),
        sessions: views.len() as u64,
        peak_viewers: count.peak(),
        seconds: to - from,
        passed: !views.is_empty() && metrics.iter().all(|metric| metric.verdict != Verdict::Fail),
        metrics,
    }
}

fn united(all: &[Truth]) -> BTreeMap<String, Truth> {
    let mut truth: BTreeMap<String, Truth> = BTreeMap::new();
    for next in all {
        let Some(known) = truth.get_mut(&next.session) else {
            truth.insert(next.session.clone(), next.clone());
            continue;
        };
        known.present_ms.extend(&next.present_ms);
        known.watched_us += next.watched_us;
        known.parts += next.parts;
        known.asking |= next.asking;
        known.unseen_us += next.unseen_us;
        known.let_go_us += next.let_go_us;
        known.started_at_ms = known.started_at_ms.min(next.started_at_ms);
        known.longest_part_us = known.longest_part_us.max(next.longest_part_us);
        let first = [known.first_media_at_ms, next.first_media_at_ms];
        known.first_media_at_ms = first.into_iter().flatten().min();
        if next.last_response_at_ms > known.last_response_at_ms {
            known.last_response_at_ms = next.last_response_at_ms;
            known.left = next.left;
        }
        for (all, new) in [(&mut known.pops, &next.pops), (&mut known.asked_pops, &next.asked_pops)] {
            let new: Vec<_> = new.iter().filter(|pop| !all.contains(pop)).cloned().collect();
            all.extend(new);
        }
    }
    truth
}

fn metric(name: &str, bar: impl Into<String>, (measured, worst): (String, String), good: bool) -> Metric {
    let verdict = if good { Verdict::Pass } else { Verdict::Fail };
    Metric { name: name.to_owned(), bar: bar.into(), measured, worst, verdict }
}

impl Told {
    /// The run's part of the totals; `own`: whether a session is the run's.
    fn added(&self, own: impl Fn(&Seen) -> bool) -> Totals {
        match self.before {
            Some(before) => Totals {
                views: self.totals.views.saturating_sub(before.views),
                watch_ms: self.totals.watch_ms.saturating_sub(before.watch_ms),
            },
            None => Totals::of(self.sessions.iter().filter(|seen| own(seen))),
        }
    }
}

impl Totals {
    fn of<'a>(sessions: impl Iterator<Item = &'a Seen>) -> Self {
        sessions.fold(Self::default(), |sum, seen| Self {
            views: sum.views + u64::from(seen.first_media_at_ms.is_some()),
            watch_ms: sum.watch_ms + seen.watch_ms,
        })
    }
}

fn total_views(views: &[&Truth], totals: Totals, open: &[&Seen]) -> Metric {
    let open = Totals::of(open.iter().copied()).views;
    let got = totals.views.saturating_sub(open);
    let wanted = views.len() as u64;
    let worst = match (got == wanted, open) {
        (true, 0) => String::new(),
        (true, open) => format!("{open} more left while their first part was on its way"),
        (false, _) => format!("off by {:+}", i128::from(got) - i128::from(wanted)),
    };
    metric("total views", "exactly", (format!("{got} of {wanted}"), worst), got == wanted)
}

fn same_sessions(truth: &BTreeMap<String, Truth>, told: &Told, begun_ms: u64) -> Metric {
    let seen: BTreeSet<&str> = (told.sessions.iter())
        .filter(|seen| {
            seen.first_media_at_ms.is_some() && seen.last_at_ms.is_none_or(|last| last >= begun_ms)
        })
        .map(|seen| seen.session.as_str())
        .filter(|session| truth.get(*session).is_none_or(|truth| truth.parts > 0 || !truth.asking))
        .collect();
    let known: BTreeSet<&str> =
        truth.values().filter(|truth| truth.parts > 0).map(|truth| truth.session.as_str()).collect();
    let missing: Vec<_> = known.difference(&seen).collect();
    let extra: Vec<_> = seen.difference(&known).collect();
    let worst = match (missing.first(), extra.first()) {
        (Some(session), _) => format!("missing: {session}"),
        (None, Some(session)) => format!("extra: {session}"),
        (None, None) => String::new(),
    };
    let measured = format!("{} missing, {} extra", missing.len(), extra.len());
    metric("sessions", "the same", (measured, worst), missing.is_empty() && extra.is_empty())
}

fn watch_total(views: &[&Truth], totals: Totals, open: &[&Seen]) -> Metric {
    let wanted = views.iter().map(|truth| truth.watched_us).sum::<u64>() as f64 / 1e6;
    let open = Totals::of(open.iter().copied()).watch_ms;
    let got = totals.watch_ms.saturating_sub(open) as f64 / 1000.0;
    let unseen = views.iter().map(|truth| truth.unseen_us).sum::<u64>() as f64 / 1e6;
    let off = (got - wanted).min(0.0) + (got - wanted - unseen).max(0.0);
    let error = if wanted > 0.0 { off / wanted } else { off };
    let measured = format!("{:+.4} %", error * 100.0);
    let to_nobody =
        if unseen > 0.0 { format!(" (and up to {unseen:.3} s to who vanished)") } else { String::new() };
    let both = format!("{got:.3} s of {wanted:.3} s{to_nobody}");
    metric("total watch time", "+-0.1 %", (measured, both), error.abs() <= WATCH_ERROR_MAX)
}

fn watch_each(views: &[&Truth], told: &Told, bars: Bars) -> Metric {
    let longest_us = views.iter().map(|truth| truth.longest_part_us).max().unwrap_or_default();
    let part = bars.part_ms.map_or(longest_us as f64 / 1000.0, |ms| ms as f64);
    let seen: BTreeMap<&str, u64> =
        told.sessions.iter().map(|seen| (seen.session.as_str(), seen.watch_ms)).collect();
    let (mut wrong, mut worst, mut at) = (0u64, 0.0f64, "");
    for truth in views {
        let Some(got) = seen.get(truth.session.as_str()) else { continue };
        let off = *got as f64 - truth.watched_us as f64 / 1000.0;
        // What it let go of may have been sent, all of it. One for milliseconds that were cut off.
        let over = part.max(truth.let_go_us as f64 / 1000.0) + 1.0;
        wrong += u64::from(off < -part - 1.0 || off > over);
        if off.abs() > worst.abs() {
            (worst, at) = (off, &truth.session);
        }
    }
    let worst = if at.is_empty() { String::new() } else { format!("{worst:+.1} ms: {at}") };
    metric(
        "watch time of each",
        format!("within {part:.0} ms"),
        (format!("{wrong} wrong of {}", views.len()), worst),
        wrong == 0,
    )
}

fn pops_each(views: &[&Truth], told: &Told) -> Metric {
    let seen: BTreeMap<&str, BTreeSet<&str>> = (told.sessions.iter())
        .map(|seen| (seen.session.as_str(), seen.pops.iter().map(String::as_str).collect()))
        .collect();
    // The tester writes an authority where the server did not name its POP.
    let is_named =
        |truth: &&&Truth| !truth.pops.is_empty() && truth.pops.iter().all(|pop| !pop.contains(':'));
    let named: Vec<_> = views.iter().filter(is_named).collect();
    let wrong: Vec<_> = (named.iter())
        .filter(|truth| {
            let own: BTreeSet<&str> = truth.pops.iter().map(String::as_str).collect();
            let may = |pop: &&str| own.contains(pop) || truth.asked_pops.iter().any(|asked| asked == pop);
            let is_right = |pops: &BTreeSet<&str>| own.is_subset(pops) && pops.iter().all(may);
            seen.get(truth.session.as_str()).is_some_and(|pops| !is_right(pops))
        })
        .collect();
    let worst =
        wrong.first().map(|truth| format!("{}: {}", truth.session, truth.pops.join(" "))).unwrap_or_default();
    let measured = format!("{} wrong of {}", wrong.len(), named.len());
    let mut metric = metric("POPs of each", "the same", (measured, worst), wrong.is_empty());
    if named.is_empty() {
        metric.verdict = Verdict::Skip;
        metric.worst = "the server named no POP".to_owned();
    }
    metric
}

/// A stretch of presence: must it be counted in this series, or only may it?
#[derive(Debug, Clone, Copy)]
struct Stretch {
    /// Its first byte of media may have been on its way since then.
    sent_ms: u64,
    start_ms: u64,
    end_ms: u64,
    /// The viewer vanished at its end.
    vanished: bool,
    must: bool,
}

/// Who counts when.
struct Count {
    stretches: Vec<Stretch>,
    from: u64,
    to: u64,
}

impl Count {
    fn new(views: &[&Truth], (from, to): (u64, u64), counts: impl Fn(&Truth) -> (bool, bool)) -> Self {
        let mut stretches = Vec::new();
        for truth in views {
            let (must, may) = counts(truth);
            let last = truth.present_ms.iter().map(|span| span[1]).max();
            for span in truth.present_ms.iter().filter(|_| may) {
                let vanished = truth.left == Leaving::Vanish && Some(span[1]) == last;
                let sent_ms = truth.started_at_ms.max(span[0].saturating_sub(TRANSIT_MS)).min(span[0]);
                stretches.push(Stretch { sent_ms, start_ms: span[0], end_ms: span[1], vanished, must });
            }
        }
        Self { stretches, from, to }
    }

    /// Counts of each second, of stretches from `after` their start until `until` after their end.
    fn sweep(&self, wanted: impl Fn(&Stretch) -> Option<(u64, u64)>) -> Vec<i64> {
        let mut steps = vec![0i64; usize::try_from(self.to - self.from).unwrap_or(0) + 1];
        for stretch in &self.stretches {
            let Some((start_ms, end_ms)) = wanted(stretch) else { continue };
            // Second t counts if start <= t * 1000 < end.
            let index = |ms: u64| {
                let second = ms.div_ceil(1000).clamp(self.from, self.to);
                usize::try_from(second - self.from).unwrap_or(0)
            };
            let (start, end) = (index(start_ms), index(end_ms));
            if start < end {
                steps[start] += 1;
                steps[end] -= 1;
            }
        }
        let mut sum = 0;
        steps
            .iter()
            .map(|step| {
                sum += step;
                sum
            })
            .take(usize::try_from(self.to - self.from).unwrap_or(0))
            .collect()
    }

    /// Those that must be counted so long after they came.
    fn least(&self, join_s: u64) -> Vec<i64> {
        self.sweep(|s| s.must.then_some((s.start_ms + join_s * 1000, s.end_ms)))
    }

    /// Those that may be counted so long after they left.
    fn most(&self, leave_s: u64, vanish_s: u64) -> Vec<i64> {
        self.sweep(|s| Some((s.sent_ms, s.end_ms + 1000 * if s.vanished { vanish_s } else { leave_s })))
    }

    fn peak(&self) -> u64 {
        let most = self.sweep(|s| Some((s.start_ms, s.end_ms)));
        most.into_iter().max().and_then(|peak| u64::try_from(peak).ok()).unwrap_or_default()
    }

    fn slack(&self) -> i64 {
        (self.peak() as f64 * CCU_ERROR_MAX).floor() as i64
    }

    fn told(&self, viewers: &BTreeMap<u64, u64>) -> Vec<i64> {
        (self.from..self.to)
            .map(|second| i64::try_from(viewers.get(&second).copied().unwrap_or(0)).unwrap_or(i64::MAX))
            .collect()
    }

    /// How far each second's count is outside of what it may be.
    fn within(&self, name: &str, viewers: &BTreeMap<u64, u64>) -> Metric {
        let (least, most, told) = (self.least(JOIN_S), self.most(LEAVE_S, VANISH_S), self.told(viewers));
        let (mut worst, mut at) = (0i64, 0usize);
        for second in 0..told.len() {
            let off = if told[second] < least[second] {
                told[second] - least[second]
            } else {
                (told[second] - most[second].max(least[second])).max(0)
            };
            if off.abs() > worst.abs() {
                (worst, at) = (off, second);
            }
        }
        let share = worst.unsigned_abs() as f64 / self.peak().max(1) as f64;
        let case = if worst == 0 {
            String::new()
        } else {
            let (low, high) = (least[at], most[at]);
            format!("second {}: {} for {low} to {high}", self.from + at as u64, told[at])
        };
        let bar = format!("{:.1} % of peak", CCU_ERROR_MAX * 100.0);
        metric(name, bar, (format!("{:.2} %", share * 100.0), case), share <= CCU_ERROR_MAX)
    }

    /// The error, and after how many seconds what happened was seen.
    fn metrics(&self, of: &str, viewers: &BTreeMap<u64, u64>) -> Vec<Metric> {
        let (told, slack) = (self.told(viewers), self.slack());
        let fits = |low: Option<Vec<i64>>, high: Option<Vec<i64>>| {
            let low = low.is_none_or(|low| low.iter().zip(&told).all(|(low, told)| told + slack >= *low));
            low && high.is_none_or(|high| high.iter().zip(&told).all(|(high, told)| told - slack <= *high))
        };
        let lag = |bar: u64, fits: &dyn Fn(u64) -> bool, name: &str| {
            let found = (0..=LAG_MAX_S).find(|lag| fits(*lag));
            let measured = found.map_or(format!("over {LAG_MAX_S} s"), |lag| format!("{lag} s"));
            let good = found.is_some_and(|lag| lag <= bar);
            metric(&format!("{name}{of}"), format!("within {bar} s"), (measured, String::new()), good)
        };
        let mut metrics = vec![
            self.within(&format!("viewers each second{of}"), viewers),
            lag(JOIN_S, &|lag| fits(Some(self.least(lag)), None), "joins seen"),
            lag(LEAVE_S, &|lag| fits(None, Some(self.most(lag, VANISH_S.max(lag)))), "leaves seen"),
        ];
        if self.stretches.iter().any(|stretch| stretch.vanished) {
            let fits = |lag: u64| fits(None, Some(self.most(LEAVE_S, lag)));
            metrics.push(lag(VANISH_S, &fits, "vanishings seen"));
        }
        metrics
    }
}

#[cfg(test)]
mod tests;
