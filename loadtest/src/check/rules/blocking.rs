//! BR: the state machine of blocking reloads.
#![deny(clippy::disallowed_methods)]

use crate::check::catalog::Rule;
use crate::check::exchange::Exchange;
use crate::check::ledger::{Evidence, Ledger};
use crate::check::media::Media;
use crate::check::record::{Probe, View};
use crate::check::rules::parts::AT_ONCE;
use std::time::Duration;

/// The hold that players give up on (BR-17).
const HOLD_MAX: Duration = Duration::from_secs(10);

/// A playlist request of the follower, answered with a playlist.
pub(crate) fn followed(view: &View, before: Option<&View>, ledger: &mut Ledger) {
    let Some((msn, part)) = view.asked else { return };
    let media = &view.media;
    if media.ended {
        return ledger.pass(Rule::Br10);
    }
    hold(&view.exchange, ledger);
    let rule = if part.is_some() { Rule::Br02 } else { Rule::Br01 };
    let has = match part {
        Some(part) => media.next() > (msn, part),
        None => media.newest().is_some_and(|newest| newest.msn >= msn),
    };
    ledger.judge(rule, has, || {
        view.whole(format!(
            "answered without it; what is next is {:?} ({})",
            media.next(),
            view.exchange.said()
        ))
    });
    ledger.judge(Rule::Br11, media.skipped.is_none() && whole(media, before), || {
        view.whole("not the whole playlist, though no delta update was asked for")
    });
}

/// Whether nothing of what an earlier view had is missing at the head beyond what time removes.
fn whole(media: &Media, before: Option<&View>) -> bool {
    let Some(before) = before else { return true };
    // Removal keeps the length: a playlist cut to what is new would be much shorter.
    media.length() * 2 >= before.media.length()
}

fn hold(exchange: &Exchange, ledger: &mut Ledger) {
    if let Some(held) = exchange.held() {
        ledger.judge(Rule::Br17, held < HOLD_MAX, || {
            Evidence::of(exchange.ask.to_string(), format!("held for {held:?}"))
        });
    }
}

/// A playlist request of the follower that was not answered with 200.
pub(crate) fn lost(exchange: &Exchange, target_duration: Duration, asked: bool, ledger: &mut Ledger) {
    let evidence = |said: String| Evidence::of(exchange.ask.to_string(), said);
    match (&exchange.outcome, exchange.held()) {
        (Ok(answer), Some(held)) if answer.status == 503 && asked => {
            let (from, to) = (target_duration * 3, target_duration * 3 + Duration::from_secs(1));
            ledger.judge(Rule::Br09, held + AT_ONCE >= from && held <= to, || {
                evidence(format!("503 after {held:?}, due between {from:?} and {to:?}"))
            });
            hold(exchange, ledger);
        }
        _ => {
            let rule = if asked { Rule::Br02 } else { Rule::Ev08 };
            ledger.fail(rule, evidence(exchange.said()));
        }
    }
}

/// A probe of the state machine.
pub(crate) fn probe(probe: &Probe, tip: &View, exchanges: &[Exchange], ledger: &mut Ledger) {
    for exchange in exchanges {
        hold(exchange, ledger);
    }
    match probe {
        Probe::SegmentAlone(msn) => held_for(Rule::Br01, (*msn, None), exchanges, ledger),
        Probe::IFrame(msn) => held_for(Rule::Br13, (*msn, None), exchanges, ledger),
        Probe::PastEnd(msn) => held_for(Rule::Br03, (*msn + 1, Some(0)), exchanges, ledger),
        Probe::Ended => exchanges.iter().for_each(|exchange| {
            let at_once = exchange.held().is_some_and(|held| held <= AT_ONCE);
            ledger.judge(Rule::Br10, exchange.ok().is_some() && at_once, || {
                Evidence::of(exchange.ask.to_string(), format!("{}, 200 at once is due", exchange.said()))
            });
        }),
        Probe::Older => exchanges.iter().for_each(|exchange| older(exchange, tip, ledger)),
        Probe::TooFar => refused(Rule::Br05, exchanges, ledger),
        Probe::TooFarPart => refused(Rule::Br06, exchanges, ledger),
        Probe::PartAlone => refused(Rule::Br07, exchanges, ledger),
        Probe::Malformed => refused(Rule::Br08, exchanges, ledger),
        Probe::Twice => alike(Rule::Br12, exchanges, ledger),
        Probe::Permuted => alike(Rule::Br14, exchanges, ledger),
        _ => {}
    }
}

fn held_for(rule: Rule, (msn, part): (u64, Option<u32>), exchanges: &[Exchange], ledger: &mut Ledger) {
    for exchange in exchanges {
        let request = exchange.ask.to_string();
        let Some(answer) = exchange.ok() else {
            ledger.fail(rule, Evidence::of(request, exchange.said()));
            continue;
        };
        let media = Media::read(&answer.body);
        let has = match part {
            Some(part) => media.next() > (msn, part),
            None => media.newest().is_some_and(|newest| newest.msn >= msn),
        };
        ledger.judge(rule, has || media.ended, || {
            let said = format!(
                "answered ({}) when what is next was {:?}, not ({msn}, {part:?})",
                exchange.said(),
                media.next()
            );
            Evidence::of(request, said)
        });
    }
}

fn older(exchange: &Exchange, tip: &View, ledger: &mut Ledger) {
    let request = exchange.ask.to_string();
    let Some(answer) = exchange.ok() else {
        return ledger.fail(Rule::Br04, Evidence::of(request, exchange.said()));
    };
    let media = Media::read(&answer.body);
    let at_once = exchange.held().is_some_and(|held| held <= AT_ONCE);
    ledger.judge(Rule::Br04, at_once, || Evidence::of(request.clone(), format!("held: {}", exchange.said())));
    let current = media.next() >= tip.media.next() && whole(&media, Some(tip)) && media.skipped.is_none();
    ledger.judge(Rule::Br04, current, || Evidence::of(request, "not the whole current playlist"));
}

fn refused(rule: Rule, exchanges: &[Exchange], ledger: &mut Ledger) {
    for exchange in exchanges {
        let at_once = exchange.held().is_some_and(|held| held <= AT_ONCE);
        ledger.judge(rule, exchange.with_status(400).is_some() && at_once, || {
            Evidence::of(exchange.ask.to_string(), format!("{}, 400 at once is due", exchange.said()))
        });
    }
}

fn alike(rule: Rule, exchanges: &[Exchange], ledger: &mut Ledger) {
    let [first, rest @ ..] = exchanges else { return };
    for other in rest {
        same(rule, first, other, ledger);
    }
}

/// Two answers must be the same bytes.
pub(crate) fn same(rule: Rule, first: &Exchange, other: &Exchange, ledger: &mut Ledger) {
    let request = other.ask.to_string();
    let (Some(a), Some(b)) = (first.ok(), other.ok()) else {
        let said = format!("{} ({}: {})", other.said(), first.ask, first.said());
        return ledger.fail(rule, Evidence::of(request, said));
    };
    if a.body == b.body {
        return ledger.pass(rule);
    }
    let (text_a, text_b) = (String::from_utf8_lossy(&a.body), String::from_utf8_lossy(&b.body));
    let differing = text_a.lines().zip(text_b.lines()).enumerate().find(|(_, (x, y))| x != y);
    let evidence = match differing {
        Some((index, (x, y))) if text_a.starts_with("#EXTM3U") => {
            Evidence::of(request, format!("{} has \"{x}\" here", first.ask)).line(index + 1, y)
        }
        _ => {
            Evidence::of(request, format!("{} bytes, {} bytes at {}", b.body.len(), a.body.len(), first.ask))
        }
    };
    ledger.fail(rule, evidence);
}
