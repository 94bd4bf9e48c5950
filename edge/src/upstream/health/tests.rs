use super::*;
use proptest::prelude::*;

const MS: Duration = Duration::from_millis(1);
const RULES: Rules = Rules { rest_max: Duration::from_millis(250), failback_after: Duration::from_secs(3) };

#[expect(clippy::disallowed_methods, reason = "any instant will do")]
fn start() -> Instant {
    Instant::now()
}

fn board(upstreams: usize, now: Instant) -> Board {
    let mut board = Board::new(upstreams, RULES);
    for upstream in 0..upstreams {
        board.connected(upstream, true);
        board.succeeded(upstream, now);
    }
    board
}

#[test]
fn faults_open_the_circuit_by_their_weight() {
    use Fault::{Broken, Connect, Late, Probe, Status, Timeout};
    for (faults, open, silent) in [
        (vec![Connect], true, true),
        (vec![Probe], false, false),
        (vec![Probe, Probe], true, true),
        (vec![Late, Late], false, false),
        (vec![Late, Status, Broken], true, false),
        (vec![Timeout, Timeout, Probe], false, false),
        (vec![Timeout, Timeout, Timeout], true, false),
        (vec![Late, Late, Late, Connect], true, true),
    ] {
        let now = start();
        let mut board = board(1, now);
        for fault in &faults {
            board.failed(0, *fault, now, 7);
        }
        assert_eq!(matches!(board.circuit(0), Circuit::Open(_)), open, "{faults:?}");
        assert_eq!(board.is_silent(0), silent, "{faults:?}");
    }
}

#[test]
fn a_probe_forgives_probes_and_a_request_forgives_all() {
    let now = start();
    let mut board = board(1, now);
    for _ in 0..2 {
        board.failed(0, Fault::Late, now, 0);
        board.probed(0, now);
    }
    assert_eq!(board.circuit(0), Circuit::Closed);
    board.failed(0, Fault::Late, now, 0);
    assert_ne!(board.circuit(0), Circuit::Closed, "late though it answers probes");
    board.probed(0, now);
    for _ in 0..10 {
        board.failed(0, Fault::Status, now, 0);
        board.succeeded(0, now);
    }
    assert_eq!(board.circuit(0), Circuit::Closed);
}

#[test]
fn an_open_circuit_is_tried_with_growing_rests_and_closes_with_one_answer() {
    let mut now = start();
    let mut board = board(1, now);
    board.failed(0, Fault::Connect, now, 0);
    let mut rests = Vec::new();
    for _ in 0..5 {
        let at = board.probe_at(0, MS, now);
        assert!(!board.may_probe(0, at - MS));
        rests.push(at - now);
        now = at;
        assert!(board.may_probe(0, now));
        assert_eq!(board.circuit(0), Circuit::HalfOpen);
        board.failed(0, Fault::Probe, now, 0);
    }
    assert!(rests.is_sorted() && rests.iter().all(|rest| *rest <= RULES.rest_max), "{rests:?}");
    assert!(board.is_silent(0));
    board.probed(0, now);
    assert!(board.is_healthy(0) && !board.is_silent(0));
}

#[test]
fn a_new_connection_is_tried_at_once() {
    let now = start();
    let mut board = board(1, now);
    board.connected(0, false);
    board.failed(0, Fault::Connect, now, 0);
    board.connected(0, true);
    assert_eq!(board.probe_at(0, MS, now), now);
    assert!(board.may_probe(0, now) && !board.is_healthy(0), "not before it answered");
}

#[test]
fn requests_move_at_once_and_return_after_a_while() {
    let now = start();
    let mut board = board(3, now);
    let order = board.order(now);
    assert_eq!((order.ranked.as_slice(), order.healthy, order.authority), ([0, 1, 2].as_slice(), 3, Some(0)));
    board.failed(0, Fault::Connect, now, 0);
    let order = board.order(now);
    assert_eq!((order.ranked.as_slice(), order.healthy), ([1, 2, 0].as_slice(), 2));
    assert_eq!(order.authority, None, "the standby may be behind");
    let later = now + 3000 * MS;
    assert_eq!(board.order(later).authority, Some(1), "it has to be believed at last");
    board.probed(0, later);
    let order = board.order(later + 2999 * MS);
    assert_eq!((order.ranked.as_slice(), order.healthy), ([1, 0, 2].as_slice(), 3));
    assert_eq!(board.order(later + 3000 * MS).ranked, [0, 1, 2]);
}

#[test]
fn a_start_is_no_failure() {
    let now = start();
    let mut board = Board::new(2, RULES);
    assert_eq!(board.order(now).authority, Some(0));
    board.connected(1, true);
    board.probed(1, now);
    assert_eq!(board.order(now).ranked[0], 1, "who is there first");
    board.connected(0, true);
    board.probed(0, now);
    let order = board.order(now);
    assert_eq!((order.ranked[0], order.authority), (0, Some(0)), "without waiting");
}

#[test]
fn a_flapping_upstream_does_not_take_the_viewers_with_it() {
    for (up_ms, down_ms) in [(500, 500), (2_900, 100), (5_000, 500), (10_000, 1_000)] {
        let begin = start();
        let mut board = board(2, begin);
        let (mut moves, mut before) = (0, board.active());
        for tick in 0..600_000 / 50 {
            let now = begin + tick * 50 * MS;
            let phase = (u64::from(tick) * 50) % (up_ms + down_ms);
            board.succeeded(1, now);
            match phase < up_ms {
                true if board.may_probe(0, now) => board.probed(0, now),
                true => {}
                false => board.failed(0, Fault::Connect, now, u64::from(tick)),
            }
            board.order(now);
            moves += u32::from(board.active() != before);
            before = board.active();
        }
        assert!(moves <= 14, "{up_ms}/{down_ms}: {moves} moves in 10 minutes");
    }
}

#[test]
fn rests_back_off_and_spread() {
    let max = Duration::from_secs(2);
    for (failures, low, high) in [(1, 25, 50), (2, 50, 100), (3, 100, 200), (40, 1000, 2000)] {
        for jitter in [0, 1, 999, u64::MAX] {
            let rest = rest(failures, max, jitter).as_millis();
            assert!((low..=high).contains(&rest), "{failures} {jitter}: {rest}");
        }
    }
    assert_ne!(rest(40, max, 1), rest(40, max, 2));
}

proptest! {
    #[test]
    fn any_history(events in prop::collection::vec((0..3_usize, 0..8_u8, 0..2_000_u64), 1..300)) {
        let mut now = start();
        let mut board = board(3, now);
        for (upstream, event, elapsed) in events {
            now += Duration::from_millis(elapsed);
            match event {
                0 | 1 => board.succeeded(upstream, now),
                2 => board.failed(upstream, Fault::Connect, now, elapsed),
                3 => board.failed(upstream, Fault::Probe, now, elapsed),
                4 => board.failed(upstream, Fault::Status, now, elapsed),
                5 => board.connected(upstream, false),
                6 => board.connected(upstream, true),
                _ => { if board.may_probe(upstream, now) { board.probed(upstream, now); } }
            }
            let order = board.order(now);
            let mut all = order.ranked.clone();
            all.sort_unstable();
            prop_assert_eq!(all, [0, 1, 2], "everybody once");
            for (place, upstream) in order.ranked.iter().enumerate() {
                prop_assert_eq!(board.is_healthy(*upstream), place < order.healthy, "the well ones first");
            }
            prop_assert!(order.authority.is_none_or(|upstream| upstream == board.active()));
            if order.healthy > 0 {
                prop_assert!(board.is_healthy(board.active()));
            }
            prop_assert!(board.probe_at(upstream, MS, now) <= now + RULES.rest_max.max(MS), "never forgotten");
        }
    }
}
