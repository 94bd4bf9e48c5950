//! EV, and what of PT and PH needs two looks: one rendition's playlist from one version to the next.
//!
//! Invariant: bounded memory: what is known of a segment is forgotten some time after it left the playlist.
#![deny(clippy::disallowed_methods)]

use crate::check::catalog::Rule;
use crate::check::date;
use crate::check::ledger::{Evidence, Ledger};
use crate::check::media::{Map, Segment, UNITS_MAX};
use crate::check::record::{Object, Unit, View};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// How late a part or segment may be beyond its time: scheduling on both sides, not the server's plan.
const JITTER: Duration = Duration::from_millis(250);

/// What every version of the playlist must repeat of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    uri: String,
    duration: Duration,
    map: Option<Map>,
    dsn: u64,
    discontinuity: bool,
    gap: bool,
}

/// One rendition over time.
#[derive(Debug, Default)]
pub(crate) struct Evolution {
    before: Option<Arc<View>>,
    known: BTreeMap<u64, Known>,
    /// Newest complete segment and when it was first seen.
    segment: Option<(u64, Duration)>,
    /// What was next, and when that became so.
    part: Option<((u64, u32), Duration)>,
    removals: bool,
    /// A gap was listed.
    gaps: bool,
}

impl Evolution {
    /// The newest view.
    pub(crate) fn newest(&self) -> Option<&Arc<View>> {
        self.before.as_ref()
    }

    /// The next version, in the order in which they were asked for.
    pub(crate) fn see(&mut self, view: &Arc<View>, ledger: &mut Ledger) {
        let whole =
            view.media.is_playlist() && view.exchange.ok().is_some_and(|answer| answer.body.ends_with(b"\n"));
        ledger.judge(Rule::Ev08, whole, || view.whole("this is no whole media playlist"));
        if !view.media.is_playlist() || view.media.skipped.is_some() {
            return;
        }
        last_modified(view, ledger);
        self.gap_marks(view, ledger);
        if let Some(before) = self.before.take() {
            self.step(&before, view, ledger);
            self.pace(&before, view, ledger);
        }
        self.remember(view, ledger);
        self.before = Some(Arc::clone(view));
    }

    fn step(&mut self, before: &View, view: &View, ledger: &mut Ledger) {
        let (old, new) = (&before.media, &view.media);
        let line = |name: &str| new.sheet.tag(name).map_or(1, |tag| tag.line);
        let first = new.segments.first().and_then(|segment| segment.uri.as_deref());
        let was =
            old.segments.iter().find(|segment| segment.uri.is_some() && segment.uri.as_deref() == first);
        let counts =
            new.media_sequence >= old.media_sequence && was.is_none_or(|was| was.msn == new.media_sequence);
        ledger.judge(Rule::Ev01, counts, || {
            let said = format!(
                "it was {} and the first segment was {:?}",
                old.media_sequence,
                was.map(|was| was.msn)
            );
            view.at(line("EXT-X-MEDIA-SEQUENCE"), said)
        });
        let (was, is) = (old.discontinuity_sequence.unwrap_or(0), new.discontinuity_sequence.unwrap_or(0));
        ledger.judge(Rule::Ev02, is >= was, || {
            view.at(line("EXT-X-DISCONTINUITY-SEQUENCE"), format!("it was {was}"))
        });
        let td = old.target_duration == new.target_duration;
        ledger.judge(Rule::Ev04, td, || {
            view.at(line("EXT-X-TARGETDURATION"), format!("it was {:?}", old.target_duration))
        });
        let pt = old.part_target == new.part_target;
        ledger.judge(Rule::Ev04Ours, pt, || {
            view.at(line("EXT-X-PART-INF"), format!("it was {:?}", old.part_target))
        });
        if new.media_sequence > old.media_sequence {
            self.removals = true;
        }
        if self.removals && !new.ended {
            let (length, floor) = (new.length(), new.target_duration * 3);
            ledger.judge(Rule::Ev06, length >= floor, || {
                view.whole(format!("{length:?} long, {floor:?} at least"))
            });
            let count = new.segments.iter().filter(|segment| segment.uri.is_some()).count();
            ledger.judge(Rule::Ev06Apple, count >= 6, || view.whole(format!("{count} segments")));
        }
        edits(before, view, ledger);
        hint(before, view, ledger);
    }

    fn pace(&mut self, before: &View, view: &View, ledger: &mut Ledger) {
        let (media, now) = (&view.media, view.time());
        // A playlist that is polled shows things late by the interval.
        let slack = JITTER + if view.asked.is_some() { Duration::ZERO } else { media.target_duration };
        if let (Some(newest), Some((msn, since))) = (media.newest(), self.segment)
            && newest.msn > msn
        {
            let count = u32::try_from(newest.msn - msn).unwrap_or(u32::MAX);
            let limit = media.target_duration.saturating_mul(count) * 3 / 2 + slack;
            let took = now.saturating_sub(since);
            ledger.judge(Rule::Ev05, took <= limit, || {
                view.at(
                    newest.line,
                    format!("{took:?} after segment {msn}, {limit:?} at most (with {slack:?} for jitter)"),
                )
            });
        }
        if media.newest().map(|newest| newest.msn) != self.segment.map(|(msn, _)| msn) {
            self.segment = media.newest().map(|newest| (newest.msn, now));
        }
        let next = media.next();
        if let (Some(target), Some((was, since)), true) = (media.part_target, self.part, view.asked.is_some())
        {
            let count = new_parts(before, view);
            let took = now.saturating_sub(since);
            let limit = target * count + slack;
            if count > 0 && next != was {
                ledger.judge(Rule::Pt11, took <= limit, || {
                    view.whole(format!(
                        "{count} new parts after {took:?}, {limit:?} at most (with {slack:?} for jitter)"
                    ))
                });
            }
        }
        if self.part.map(|(was, _)| was) != Some(next) {
            self.part = Some((next, now));
        }
    }

    fn remember(&mut self, view: &View, ledger: &mut Ledger) {
        if self.segment.is_none() {
            self.segment = None.or(view.media.newest().map(|newest| (newest.msn, view.time())));
            self.part = Some((view.media.next(), view.time()));
            // When the first segment and part came is not known: the next ones are judged from here, which is later.
        }
        for segment in view.media.segments.iter().filter(|segment| segment.uri.is_some()) {
            let this = known(segment);
            match self.known.get(&segment.msn) {
                None => {
                    self.known.insert(segment.msn, this);
                }
                Some(before) => {
                    let same =
                        (&before.uri, before.duration, &before.map) == (&this.uri, this.duration, &this.map);
                    ledger.judge(Rule::Ev03, same, || {
                        view.at(segment.line, format!("segment {} was {before:?}", segment.msn))
                    });
                    ledger.judge(Rule::Ev02, before.dsn == this.dsn, || {
                        let said = format!(
                            "the discontinuity sequence of segment {} was {}, is {}",
                            segment.msn, before.dsn, this.dsn
                        );
                        view.at(segment.line, said)
                    });
                    let marks = (before.gap, before.discontinuity) == (this.gap, this.discontinuity);
                    ledger.judge(Rule::Ev09, marks, || {
                        view.at(
                            segment.line,
                            format!("EXT-X-GAP or EXT-X-DISCONTINUITY of segment {} changed", segment.msn),
                        )
                    });
                }
            }
        }
        while self.known.len() > 2 * UNITS_MAX {
            self.known.pop_first();
        }
    }

    fn gap_marks(&mut self, view: &View, ledger: &mut Ledger) {
        for segment in &view.media.segments {
            let partly = segment.parts.iter().any(|part| part.gap);
            self.gaps |= segment.gap || partly;
            if partly && segment.uri.is_some() {
                ledger.judge(Rule::Ev11, segment.gap, || {
                    view.at(segment.line, "parts are gaps, the segment has no EXT-X-GAP")
                });
            } else if segment.gap {
                ledger.pass(Rule::Ev11);
            }
        }
        if !self.gaps {
            ledger.skip(Rule::Ev11, "no gap was seen: the encoder was there all the time");
        }
    }

    /// A part or segment that is no longer listed.
    pub(crate) fn removed(object: &Object, ledger: &mut Ledger) {
        let rule = if matches!(object.unit, Unit::Part(..)) { Rule::Pt10 } else { Rule::Ev07 };
        let evidence = || {
            Evidence::of(
                object.exchange.ask.to_string(),
                format!("{} once its tag was removed", object.exchange.said()),
            )
        };
        ledger.judge(rule, object.exchange.ok().is_some(), evidence);
    }
}

fn known(segment: &Segment) -> Known {
    Known {
        uri: segment.uri.clone().unwrap_or_default(),
        duration: segment.duration,
        map: segment.map.clone(),
        dsn: segment.dsn,
        discontinuity: segment.discontinuity,
        gap: segment.gap,
    }
}

/// Parts in the new view beyond the end of the old.
fn new_parts(before: &View, view: &View) -> u32 {
    let from = before.media.next();
    let of = |segment: &Segment| {
        let listed = u32::try_from(segment.parts.len()).unwrap_or(u32::MAX);
        let skip = if segment.msn == from.0 { from.1 } else { 0 };
        if segment.msn < from.0 { 0 } else { listed.saturating_sub(skip) }
    };
    view.media.segments.iter().map(of).sum()
}

/// EV-09: what stands in both stands in the same way, and the end does not go back.
fn edits(before: &View, view: &View, ledger: &mut Ledger) {
    let (old, new) = (&before.media, &view.media);
    ledger.judge(Rule::Ev09, new.next() >= old.next(), || {
        view.whole(format!("its end went back from {:?} to {:?}", old.next(), new.next()))
    });
    for was in &old.segments {
        let Some(index) = was.msn.checked_sub(new.media_sequence).and_then(|i| usize::try_from(i).ok())
        else {
            continue;
        };
        let Some(is) = new.segments.get(index) else { continue };
        let kept = was
            .parts
            .iter()
            .zip(&is.parts)
            .all(|(a, b)| (&a.uri, a.duration, a.gap) == (&b.uri, b.duration, b.gap));
        let grew = is.parts.is_empty()
            || is.parts.len() >= was.parts.len() && (was.uri.is_none() || is.parts.len() == was.parts.len());
        // Parts may be dropped once the segment is old, but never while its parent is open.
        let fine = if is.uri.is_none() { kept && is.parts.len() >= was.parts.len() } else { kept && grew };
        ledger
            .judge(Rule::Ev09, fine, || view.at(is.line, format!("the parts of segment {} changed", is.msn)));
    }
    ledger.judge(Rule::Ev09, !old.ended || new.ended, || view.whole("EXT-X-ENDLIST is gone"));
}

/// PH-01 and PH-04: the first part after the old end is the one that the old version hinted at, and so is its MAP.
fn hint(before: &View, view: &View, ledger: &mut Ledger) {
    let Some(hinted) = before.media.hint("PART").and_then(|hint| hint.list.get("URI")) else { return };
    let next = before.media.next();
    let of = |msn: u64| view.media.segments.iter().find(move |segment| segment.msn == msn);
    let place = |msn: u64, index: usize| of(msn).and_then(|s| Some((s, index, s.parts.get(index)?)));
    // The parent may have been closed without another part; parts that were dropped meanwhile say nothing.
    let closed =
        of(next.0).is_some_and(|s| s.uri.is_some() && s.parts.len() == next.1 as usize && next.1 > 0);
    let first = place(next.0, next.1 as usize).or_else(|| place(next.0 + 1, 0).filter(|_| closed));
    if let Some((segment, index, part)) = first {
        let was = before.media.segments.last().and_then(|last| last.map.as_ref());
        if let Some(map) = segment.map.as_ref().filter(|map| was.is_some_and(|was| was != *map)) {
            let hinted = before.media.hint("MAP").and_then(|hint| hint.list.get("URI"));
            ledger.judge(Rule::Ph04, hinted == Some(&map.uri), || {
                before.whole(format!("the next part needs {}, the hint is {hinted:?}", map.uri))
            });
        }
        let msn = segment.msn;
        ledger.judge(Rule::Ph01, part.uri == hinted, || {
            view.at(part.line, format!("part {msn}.{index} was hinted at as {hinted}"))
        });
    }
}

fn last_modified(view: &View, ledger: &mut Ledger) {
    let Some(answer) = view.exchange.ok() else { return };
    let read = |name: &str| answer.header(name).and_then(date::http_date);
    match (read("last-modified"), read("date")) {
        (Some(modified), Some(date)) => {
            let limit = i64::try_from(view.media.target_duration.as_secs() * 3).unwrap_or(i64::MAX);
            ledger.judge(Rule::Ev13, (date - modified).abs() <= limit, || {
                view.whole(format!("Last-Modified is {} s before Date", date - modified))
            });
        }
        _ => ledger.skip(Rule::Ev13, "no Last-Modified was sent"),
    }
}

/// At the end: EXT-X-ENDLIST in all renditions or none (EV-10).
pub(crate) fn ended(tracks: &[Evolution], ledger: &mut Ledger) {
    let ended = |track: &Evolution| track.newest().is_some_and(|view| view.media.ended);
    if !tracks.iter().any(ended) {
        return ledger.skip(Rule::Ev10, "the broadcast did not end");
    }
    for view in tracks.iter().filter_map(Evolution::newest) {
        ledger.judge(Rule::Ev10, view.media.ended, || {
            view.whole("no EXT-X-ENDLIST, though another rendition has it")
        });
    }
}
