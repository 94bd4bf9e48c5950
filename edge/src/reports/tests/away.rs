//! Ten minutes without the origin, and a wall clock that is set meanwhile, in simulated time, from what viewers do to the
//! origin's sums: exactly those of a run in which it was there.

use super::super::compose::{Moment, compose};
use super::super::spool::{Outgoing, Spool};
use crate::ledger::{Due, Ended, Ledger, Waited, Who};
use sigma_report::report::{PopDescription, Protocol, Report};
use sigma_report::spans::Span;
use sigma_shared::cmcd::Cmcd;
use sigma_shared::id::{ChannelId, PopId};
use sigma_stats::aggregate::{Aggregate, Broadcast, Retention};
use sigma_stats::scope::Scope;
use sigma_stats::series::Resolution;
use sigma_stats::totals::Totals;
use tempfile::tempdir;

const START_MS: u64 = 1_795_387_560_000;
const SECONDS: u64 = 1_200;
const AWAY: (u64, u64) = (300, 900);
const VIEWERS: u64 = 80;
const GRACE_MS: u64 = 4_000;
/// A backlog is worked off at this rate.
const SENT_PER_S: usize = 20;

fn demo() -> ChannelId {
    "demo".parse().unwrap()
}

/// Takes a report as the origin's keeper does, with nothing in its database.
fn take(origin: &mut Aggregate, report: &Report, now_ms: u64) {
    let pop: PopId = "pop-1".parse().unwrap();
    for key in origin.wanted(&pop, report, now_ms).unwrap() {
        origin.put(&key, None, now_ms).unwrap();
    }
    let absorbed = origin.absorb(&pop, report, now_ms).unwrap();
    assert_eq!(absorbed.refusals, Default::default());
    for key in origin.wanted_for(&absorbed.added, now_ms) {
        origin.put(&key, None, now_ms).unwrap();
    }
    origin.add(&absorbed.added, now_ms);
}

/// What viewers do in a second: each comes and goes, gets five parts a second, moves between protocols, and seeks back.
fn live(ledger: &mut Ledger, second: u64, off_by_ms: i64) {
    let start_ms = START_MS.saturating_add_signed(off_by_ms);
    for viewer in 0..VIEWERS {
        let at = (second + viewer * 13) % 180;
        let visit = (second + viewer * 13) / 180;
        if at >= 100 + viewer {
            continue;
        }
        let mut session = [0; 16];
        session[0] = u8::try_from(viewer).unwrap();
        session[1] = u8::try_from(visit).unwrap();
        let protocol = [Protocol::H1, Protocol::H2, Protocol::H3][usize::try_from(at / 60).unwrap()];
        let who = Who { session, viewer: viewer / 2 + 1, channel: 0, protocol };
        let back = if at % 50 > 45 { 200 } else { 0 };
        for part in 0..5 {
            let now_ms = start_ms + second * 1000 + part * 200 + viewer;
            let start = (START_MS + (second.saturating_sub(back)) * 1000 + part * 200) * 1000;
            let watched = Span::new(start, start + 200_000);
            let ended = Ended { watched, media: true, first_byte_ms: None, good: true };
            let place = ledger.hold(&who, 0, now_ms);
            ledger.ended(&who, place, (&ended, now_ms + 1));
            ledger.release(place, Waited::Answered, now_ms + 1);
            ledger.sent(0, protocol, (1_000 + viewer, now_ms + 1));
        }
        let said = Cmcd::of_query("CMCD=bl%3D1500%2Cbs%2Cmtp%3D9000").unwrap();
        ledger.said(&who, 0, (&said, start_ms + second * 1000 + 999));
    }
}

/// What happens beside viewers.
#[derive(Debug, Clone, Copy)]
struct Run {
    away: (u64, u64),
    spool_bytes: u64,
    /// At this second the clock by which viewers are counted turns by so many milliseconds.
    turn: (u64, i64),
}

const NOTHING: Run = Run { away: (0, 0), spool_bytes: 256 << 20, turn: (0, 0) };

/// The origin after that time, and how many reports were united to keep within bounds.
fn after(run: Run) -> (Aggregate, u64) {
    let (away, (turn, by_ms)) = (run.away.0..run.away.1, run.turn);
    let root = tempdir().unwrap();
    let mut spool = Spool::open(Some(root.path()), run.spool_bytes, START_MS).unwrap();
    let (mut ledger, mut origin) = (Ledger::new(1_000), Aggregate::new(Retention::default()));
    origin.channel(&demo(), GRACE_MS);
    for start_ms in [START_MS, START_MS + 600_000] {
        origin.broadcast(&demo(), Broadcast { start_ms, end_ms: None }, START_MS);
    }
    let pop = PopDescription {
        name: "one".to_owned(),
        region: String::new(),
        coordinates: None,
        capacity_viewers: 0,
        version: "1".to_owned(),
        connections: 0,
    };
    let (mut newest_sent, mut aggregated) = ((0, 0), 0);
    for second in 0..SECONDS {
        live(&mut ledger, second, if second > turn { by_ms } else { 0 });
        let now_ms = START_MS + (second + 1) * 1000;
        let own_ms = if second > turn { now_ms.saturating_add_signed(by_ms) } else { now_ms };
        let turns = second == turn && by_ms != 0;
        let mut due = Due::default();
        ledger.due(own_ms, turns || second % 5 == 4, &mut due);
        assert_eq!(due.lost, Default::default());
        let moment = Moment {
            made_at_ms: now_ms,
            complete_before_ms: own_ms - 1000,
            complete_until_ms: own_ms,
            pop: pop.clone(),
        };
        compose(due, &["demo".to_owned()], &moment).into_iter().for_each(|report| spool.append(report));
        if turns {
            ledger.turn(own_ms, own_ms.saturating_add_signed(by_ms));
            spool.renew(own_ms.saturating_add_signed(by_ms));
        }
        let sent = if away.contains(&second) { 0 } else { SENT_PER_S };
        for _ in 0..sent {
            let Some(Outgoing { number, bytes, .. }) = spool.next(newest_sent) else { break };
            newest_sent = newest_sent.max(number);
            take(&mut origin, &Report::decode(&bytes).unwrap(), now_ms);
            spool.settle(number);
        }
        let happened = spool.happened();
        assert_eq!((happened.lost, happened.unwritten), (0, 0));
        aggregated += happened.aggregated;
    }
    assert_eq!(spool.backlog().0, 0, "everything is told");
    (origin, aggregated)
}

fn told(origin: &Aggregate) -> Vec<String> {
    let end_ms = START_MS + SECONDS * 1000;
    assert_eq!(origin.final_until_ms(end_ms, 60_000), end_ms);
    let mut told = Vec::new();
    for scope in std::iter::once(Scope::All).chain(origin.scopes(&demo())) {
        told.push(format!("{scope:?} {:?}", origin.summary(&demo(), &scope, end_ms - 1000).unwrap()));
        for resolution in [Resolution::Second, Resolution::Minute, Resolution::Hour] {
            let mut blocks = origin.blocks(&demo(), &scope, (resolution, 0..=u64::MAX));
            blocks.sort_by_key(|(number, _)| *number);
            told.push(format!("{scope:?} {resolution:?} {blocks:?}"));
        }
    }
    told
}

#[test]
fn ten_minutes_without_the_origin_change_nothing() {
    let (with, _) = after(NOTHING);
    let with = told(&with);
    assert!(with[0].contains("views: ") && with.len() == 4 * 7, "{} of {}", with.len(), with[0]);
    let (without, aggregated) = after(Run { away: AWAY, ..NOTHING });
    assert_eq!(aggregated, 0, "there was room");
    assert_eq!(with, told(&without));
    let (bounded, aggregated) = after(Run { away: AWAY, spool_bytes: 1 << 20, ..NOTHING });
    assert!(aggregated > 0, "there was none");
    assert_eq!(with, told(&bounded));
}

#[test]
fn a_clock_that_is_set_changes_no_sum() {
    let end_ms = START_MS + SECONDS * 1000;
    let totals = |origin: &Aggregate| origin.summary(&demo(), &Scope::All, end_ms - 1000).unwrap();
    let (without, _) = after(NOTHING);
    let expected = totals(&without);
    // In the middle of a minute, and of the time without the origin.
    for (by_ms, away) in [(1_800_000, (0, 0)), (-1_800_000, AWAY), (-3_000, (0, 0))] {
        let (origin, _) = after(Run { away, turn: (630, by_ms), ..NOTHING });
        let found = totals(&origin);
        let sums = |totals: &Totals| (totals.views, totals.watch_us, totals.bytes, totals.requests);
        assert_eq!(sums(&found.totals), sums(&expected.totals), "{by_ms}");
        assert_eq!(
            (&found.totals.quality, found.unique_viewers),
            (&expected.totals.quality, expected.unique_viewers)
        );
        // What was present before and after a turn back is present once.
        let overlap_ms = if by_ms == -3_000 { 4_000 } else { 1_000 };
        let wall_ms = found.totals.wall_ms.abs_diff(expected.totals.wall_ms);
        assert!(wall_ms <= VIEWERS * overlap_ms, "{by_ms}: {wall_ms}");
        let known = origin.final_until_ms(end_ms, 60_000);
        assert_eq!(known, end_ms.min(end_ms.saturating_add_signed(by_ms)).max(end_ms - 60_000), "{by_ms}");
    }
}
