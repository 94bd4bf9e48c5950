//! The judge: takes what the driver tells, one event after the other, and enters into the ledger what the rules find.
//!
//! Invariants: pure, the one owner of all that is remembered; memory does not grow with the length of the observation.
#![deny(clippy::disallowed_methods)]

use crate::check::catalog::Rule;
use crate::check::exchange::Exchange;
use crate::check::ledger::{Evidence, Ledger};
use crate::check::record::{Event, Object, Pair, Presentation, Probe, Role, Unit, View, Why};
use crate::check::rules::delivery::{Delivery, Kind};
use crate::check::rules::evolution::Evolution;
use crate::check::rules::media::Reel;
use crate::check::rules::timeline::Grid;
use crate::check::rules::{
    blocking, control, dates, delivery, evolution, media, multivariant, parts, reports, skip, syntax,
};
use std::sync::Arc;
use std::time::Duration;

/// Round trips kept.
const ROUND_TRIPS_MAX: usize = 4096;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Judge {
    pub(crate) ledger: Ledger,
    presentation: Presentation,
    tracks: Vec<Evolution>,
    reels: Vec<Reel>,
    grid: Grid,
    delivery: Delivery,
    target_duration: Duration,
    cases: u64,
    /// Requests that nothing was to be waited for: the round trip time.
    round_trips: Vec<Duration>,
}

impl Judge {
    /// The next event.
    pub(crate) fn see(&mut self, event: Event) {
        match event {
            Event::Presentation(presentation) => self.begin(presentation),
            Event::Handshake(agreed) => {
                let request = self
                    .presentation
                    .renditions
                    .first()
                    .map_or("", |r| r.address.authority.host.as_str())
                    .to_owned();
                delivery::handshake(agreed.as_ref(), &request, &mut self.ledger);
            }
            Event::View(view) => self.view(&view),
            Event::Plain(view) => {
                if let Some(held) = view.exchange.held().filter(|_| self.round_trips.len() < ROUND_TRIPS_MAX)
                {
                    self.round_trips.push(held);
                }
                let kind = Kind::Playlist { blocking: false };
                self.delivery.see(kind, &view.exchange, view.media.target_duration, &mut self.ledger);
            }
            Event::Together { before, views, after } => self.together(&before, &views, &after),
            Event::Lost { rendition, exchange } => self.lost(rendition, &exchange),
            Event::Probe { rendition, probe, tip, exchanges } => {
                self.probe(rendition, &probe, &tip, &exchanges);
            }
            Event::Object(object) => self.object(&object),
            Event::Case(case) => {
                self.cases += 1;
                if let (Some(reel), Some(rendition)) =
                    (self.reels.get_mut(case.rendition), self.presentation.renditions.get(case.rendition))
                {
                    reel.see(&case, rendition, &mut self.grid, &mut self.ledger);
                }
            }
            Event::Pair(pair) => self.pair(&pair),
            Event::Elsewhere(elsewhere) => {
                let (exchange, there) = *elsewhere;
                multivariant::elsewhere(
                    &self.presentation,
                    &exchange.ask.to_string(),
                    &there,
                    &mut self.ledger,
                );
            }
            Event::TuneIn { requests, behind, part_target, request } => {
                self.ledger.judge(Rule::Ti01, requests <= 2 && behind <= part_target, || {
                    Evidence::of(request, format!("{requests} requests, {behind:?} behind the edge"))
                });
            }
        }
    }

    fn begin(&mut self, presentation: Presentation) {
        let count = presentation.renditions.len();
        self.tracks.resize_with(count, Evolution::default);
        self.reels.resize_with(count, Reel::default);
        if let Some(master) = &presentation.master {
            syntax::check_master(&master.0, &master.1, &mut self.ledger);
            self.delivery.see(Kind::Multivariant, &master.0, Duration::ZERO, &mut self.ledger);
        }
        multivariant::check(&presentation, &mut self.ledger);
        self.presentation = presentation;
    }

    fn view(&mut self, view: &Arc<View>) {
        let ledger = &mut self.ledger;
        let td = view.media.target_duration;
        self.target_duration = self.target_duration.max(td);
        let blocking = view.asked.is_some();
        self.delivery.see(Kind::Playlist { blocking }, &view.exchange, td, ledger);
        syntax::check(view, ledger);
        control::check(view, ledger);
        parts::check(view, ledger);
        reports::check(view, &self.presentation.renditions, ledger);
        dates::check(view, ledger);
        if let Some(track) = self.tracks.get_mut(view.rendition) {
            blocking::followed(view, track.newest().map(AsRef::as_ref), ledger);
            track.see(view, ledger);
        }
    }

    fn together(&mut self, before: &[Arc<View>], views: &[Arc<View>], after: &[Arc<View>]) {
        control::check_together(views, &mut self.ledger);
        reports::check_together([before, views, after], &self.presentation.renditions, &mut self.ledger);
        multivariant::check_together(&self.presentation, views, &mut self.ledger);
    }

    fn lost(&mut self, rendition: usize, exchange: &Exchange) {
        let asked = exchange.ask.address.path.contains("_HLS_msn");
        let td = self
            .tracks
            .get(rendition)
            .and_then(Evolution::newest)
            .map_or(self.target_duration, |v| v.media.target_duration);
        self.delivery.see(Kind::Playlist { blocking: asked }, exchange, td, &mut self.ledger);
        blocking::lost(exchange, td, asked, &mut self.ledger);
    }

    fn probe(&mut self, _rendition: usize, probe: &Probe, tip: &View, exchanges: &[Exchange]) {
        let td = tip.media.target_duration;
        let kind = match probe {
            Probe::Preflight => None,
            Probe::Unknown | Probe::Range => Some(Kind::Media),
            _ => Some(Kind::Playlist { blocking: true }),
        };
        for exchange in exchanges {
            match kind {
                // What a range is answered with has the headers of media, not of an error.
                Some(kind) if exchange.with_status(416).is_none() => {
                    let path = &exchange.ask.address.path;
                    let blocking = path.contains("_HLS_msn") || path.contains("_HLS_part");
                    let kind =
                        if let Kind::Playlist { .. } = kind { Kind::Playlist { blocking } } else { kind };
                    self.delivery.see(kind, exchange, td, &mut self.ledger);
                }
                _ => {}
            }
        }
        let ledger = &mut self.ledger;
        // The publisher stopped: that is answered by another rule than the one that was asked about.
        let unavailable = exchanges.iter().filter(|exchange| exchange.with_status(503).is_some());
        if unavailable.clone().next().is_some()
            && !matches!(probe, Probe::Unknown | Probe::Preflight | Probe::Range)
        {
            return unavailable.for_each(|exchange| blocking::lost(exchange, td, true, ledger));
        }
        match probe {
            Probe::Skip(kind) => skip::probe(kind, tip, exchanges, ledger),
            Probe::Unknown => exchanges.iter().for_each(|exchange| delivery::unknown(exchange, ledger)),
            Probe::Gzip => delivery::gzip(exchanges, ledger),
            Probe::Preflight => exchanges.iter().for_each(|exchange| delivery::preflight(exchange, ledger)),
            Probe::Range => delivery::range(tip, exchanges, ledger),
            _ => blocking::probe(probe, tip, exchanges, ledger),
        }
    }

    fn object(&mut self, object: &Object) {
        let td = self.target_duration;
        match object.why {
            Why::Removed => Evolution::removed(object, &mut self.ledger),
            Why::Listed | Why::Hinted => {
                self.delivery.object(object, td, &mut self.ledger);
                if object.unit != Unit::Init {
                    parts::object(object, &mut self.ledger);
                }
            }
        }
    }

    fn pair(&mut self, pair: &Pair) {
        let rule = if pair.what == "playlist" { Rule::Br12 } else { Rule::Mp06 };
        blocking::same(rule, &pair.here, &pair.there, &mut self.ledger);
        if rule == Rule::Mp06 {
            // One number, one segment, wherever it comes from.
            blocking::same(Rule::Ev03, &pair.here, &pair.there, &mut self.ledger);
        }
    }

    /// The end of the observation: what needs all of it, and reasons for what was not seen.
    pub(crate) fn finish(mut self) -> Ledger {
        let ledger = &mut self.ledger;
        evolution::ended(&self.tracks, ledger);
        media::explain(self.cases, self.presentation.renditions.len(), ledger);
        multivariant::finish(&self.presentation, &self.reels, self.target_duration, ledger);
        self.delivery.finish(&self.presentation.renditions, ledger);
        let targets = self.tracks.iter().filter_map(|track| track.newest()?.media.part_target);
        self.round_trips.sort_unstable();
        if let (Some(target), Some(p95)) =
            (targets.min(), self.round_trips.get(self.round_trips.len() * 95 / 100))
        {
            let p95 = *p95;
            ledger.judge(Rule::Pt13, target >= p95, || {
                Evidence::of("plain playlist requests", format!("{p95:?} with a part target of {target:?}"))
            });
            ledger.note(Rule::Pt13, format!("measured from here: {p95:?}; viewers are farther away"));
        }
        let has_i_frames = self.presentation.renditions.iter().any(|r| r.role == Role::IFrames);
        if !has_i_frames {
            ledger.skip(Rule::Br13, "there is no I-frame playlist");
            ledger.skip(Rule::Pt08, "there is no I-frame playlist");
        }
        for (rule, reason) in [
            (Rule::Br09, "the publisher did not stop: every request was satisfied"),
            (Rule::Br10, "the broadcast did not end"),
            (Rule::Br15, "it takes a look at the upstream: see `sigma-load herd --metrics`"),
            (Rule::Ev06, "nothing was removed during the observation"),
            (Rule::Ev06Apple, "nothing was removed during the observation"),
            (Rule::Ev07, "no segment was removed during the observation"),
            (Rule::Pt10, "no part was removed long enough before the end of the observation"),
            (Rule::Ph04, "the init section did not change"),
            (Rule::Pt13, "no playlist with parts was seen"),
            (Rule::Dl05, "no BYTERANGE is used"),
            (Rule::Ph07, "no hint has a byte range"),
            (Rule::Ti01, "there are no parts to tune in to"),
        ] {
            ledger.skip(rule, reason);
        }
        let blocks = self.tracks.iter().filter_map(Evolution::newest).any(|view| view.media.can_block());
        let reason = if blocks {
            "no playlist with parts was seen"
        } else {
            "no playlist offers blocking reload (CAN-BLOCK-RELOAD)"
        };
        for rule in [
            Rule::Br01,
            Rule::Br02,
            Rule::Br03,
            Rule::Br04,
            Rule::Br05,
            Rule::Br06,
            Rule::Br07,
            Rule::Br08,
            Rule::Br11,
            Rule::Br12,
            Rule::Br14,
            Rule::Br16,
            Rule::Br17,
            Rule::Pt11,
            Rule::Pt12,
            Rule::Ph05,
            Rule::Ev05,
        ] {
            ledger.skip(rule, reason);
        }
        self.ledger
    }
}
