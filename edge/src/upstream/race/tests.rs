use super::*;
use proptest::prelude::*;

const MS: Duration = Duration::from_millis(1);

#[expect(clippy::disallowed_methods, reason = "any instant will do")]
fn start() -> Instant {
    Instant::now()
}

fn order(upstreams: usize, healthy: usize, authority: Option<usize>) -> Order {
    Order { ranked: (0..upstreams).collect(), healthy, authority }
}

#[test]
fn one_upstream_is_asked_twice_when_it_breaks_and_believed_otherwise() {
    let now = start();
    for (got, verdict, again) in [
        (Got::Good, Verdict::Take, false),
        (Got::Refusal, Verdict::Take, false),
        (Got::End, Verdict::Take, false),
        (Got::Failure, Verdict::Continue, false),
        (Got::Nothing, Verdict::Continue, true),
    ] {
        let mut race = Race::new(order(1, 1, Some(0)), MS, now);
        assert_eq!(race.due(now), Some((0, Why::Turn)));
        assert!(race.is_last_resort(0) && race.due(now + 2 * MS).is_none(), "nobody to hedge with");
        assert_eq!(race.answered(0, got, now), verdict, "{got:?}");
        assert_eq!(race.due(now).is_some(), again, "{got:?}");
        if again {
            race.answered(0, got, now);
            assert!(race.due(now).is_none() && race.is_lost());
        }
    }
}

#[test]
fn a_late_answer_is_hedged_once_and_only_with_who_is_well() {
    let now = start();
    for (healthy, hedge) in [(3, Some((1, Why::Hedge))), (1, None)] {
        let mut race = Race::new(order(3, healthy, Some(0)), 100 * MS, now);
        race.due(now);
        assert_eq!(race.due(now + 99 * MS), None);
        assert_eq!(race.wake_at(), hedge.map(|_| now + 100 * MS));
        assert_eq!(race.due(now + 100 * MS), hedge);
        assert_eq!((race.due(now + 9000 * MS), race.wake_at()), (None, None), "once");
        assert!(!race.is_lost());
    }
}

#[test]
fn a_refusal_of_another_is_no_answer_and_it_is_asked_again_for_a_while() {
    let now = start();
    let mut race = Race::new(order(2, 2, Some(0)), 100 * MS, now);
    race.due(now);
    let mut at = now + 100 * MS;
    let mut asked = 0;
    while race.due(at).is_some() {
        asked += 1;
        assert_eq!(race.answered(1, Got::Refusal, at), Verdict::Continue);
        assert_eq!(race.due(at), None, "after a rest");
        let Some(next) = race.wake_at() else { break };
        at = next;
    }
    assert!((5..=8).contains(&asked), "{asked}");
    assert!(!race.is_lost(), "the authority has not said anything yet");
    assert_eq!(race.answered(0, Got::Refusal, at), Verdict::Take);
}

#[test]
fn everybody_behind_is_no_answer() {
    let now = start();
    let mut race = Race::new(order(2, 2, None), 100 * MS, now);
    assert_eq!(race.due(now), Some((0, Why::Turn)));
    assert_eq!(race.answered(0, Got::Refusal, now), Verdict::Continue);
    assert_eq!(race.due(now), Some((1, Why::Turn)), "another one may know more");
    assert_eq!(race.answered(1, Got::Refusal, now), Verdict::Continue);
    let mut at = now;
    while let Some(next) = race.wake_at() {
        at = next;
        while let Some((upstream, _)) = race.due(at) {
            race.answered(upstream, Got::Refusal, at);
        }
    }
    assert!(race.is_lost() && at <= now + BEHIND_MAX);
}

#[test]
fn an_end_of_another_is_no_answer_while_somebody_may_say_otherwise() {
    let now = start();
    let mut race = Race::new(order(3, 3, Some(0)), 100 * MS, now);
    race.due(now);
    assert_eq!(race.due(now + 100 * MS), Some((1, Why::Hedge)));
    assert_eq!(race.answered(1, Got::End, now), Verdict::Continue);
    assert_eq!(race.due(now + 100 * MS), Some((2, Why::Turn)), "another one may know better");
    assert_eq!(race.answered(2, Got::End, now), Verdict::Continue);
    assert_eq!((race.due(now + 9000 * MS), race.is_lost()), (None, false), "who said so is not asked again");
    assert_eq!(race.answered(0, Got::End, now), Verdict::Take);

    // Who is gone says nothing else.
    let mut race = Race::new(order(2, 2, Some(0)), 100 * MS, now);
    race.due(now);
    race.due(now + 100 * MS);
    race.answered(1, Got::End, now);
    assert_eq!(race.answered(0, Got::Nothing, now), Verdict::Continue);
    assert!(race.due(now).is_none() && race.is_lost());

    // But whoever was not asked yet is.
    let mut race = Race::new(order(3, 3, None), 100 * MS, now);
    race.due(now);
    race.answered(0, Got::End, now);
    assert_eq!(race.due(now), Some((1, Why::Turn)));
    race.answered(1, Got::Nothing, now);
    assert_eq!(race.due(now), Some((2, Why::Turn)));

    // Nobody is left to say otherwise.
    let mut race = Race::new(order(2, 2, None), 100 * MS, now);
    for upstream in 0..2 {
        assert_eq!(race.due(now), Some((upstream, Why::Turn)));
        assert_eq!(race.answered(upstream, Got::End, now), Verdict::Continue);
    }
    assert!(race.due(now).is_none() && race.is_lost());
}

#[test]
fn failures_go_round() {
    let now = start();
    let mut race = Race::new(order(3, 2, Some(0)), 9000 * MS, now);
    let mut asked = Vec::new();
    while let Some((upstream, _)) = race.due(now) {
        asked.push(upstream);
        race.answered(upstream, Got::Nothing, now);
    }
    assert_eq!(asked, [0, 1, 2, 0, 1, 2]);
    assert!(race.is_lost());
}

proptest! {
    /// Whatever is answered: the race ends, nobody is asked for ever, and only the authority refuses or says that it is over.
    #[test]
    fn it_ends(
        upstreams in 1..4_usize,
        answers in prop::collection::vec((0..5_u8, 0..300_u64), 200),
        authority in prop::option::of(0..1_usize),
    ) {
        let begin = start();
        let mut now = begin;
        let mut race = Race::new(order(upstreams, upstreams, authority), 100 * MS, begin);
        let mut running = Vec::new();
        let mut asked = 0;
        for (got, later) in answers {
            while let Some((upstream, _)) = race.due(now) {
                running.push(upstream);
                asked += 1;
            }
            prop_assert!(race.is_lost() || !running.is_empty() || race.wake_at().is_some(), "it would hang");
            if race.is_lost() {
                // A hedge that is still to come has nobody left to ask.
                prop_assert!(running.is_empty() && race.due(now + 9000 * MS).is_none());
                return Ok(());
            }
            now += Duration::from_millis(later);
            let Some(upstream) = running.pop() else { continue };
            let got = [Got::Good, Got::Refusal, Got::End, Got::Failure, Got::Nothing][usize::from(got)];
            match race.answered(upstream, got, now) {
                Verdict::Continue => {}
                Verdict::Take => {
                    let of_authority = matches!(got, Got::Refusal | Got::End) && authority == Some(upstream);
                    prop_assert!(got == Got::Good || of_authority);
                    return Ok(());
                }
            }
        }
        prop_assert!(asked <= 60, "{asked} requests");
        prop_assert!(race.is_lost() || now < begin + BEHIND_MAX + 600 * MS || !running.is_empty());
    }
}
