//! Who stays and who loses, whatever POPs say in whatever order.

use super::*;
use proptest::prelude::*;
use sigma_report::places::SubjectPlaces;
use std::collections::BTreeSet;
use std::num::NonZeroU16;

const USER: Subject = [1; 8];

fn pop(n: u64) -> PopId {
    format!("pop-{n}").parse().unwrap()
}

fn session(n: u8) -> Session {
    [n; 16]
}

/// A POP's sessions of one subject: number, how many its token allows, and for how long it has its place.
fn of_user(sessions: &[(u8, u16, u32)]) -> Places {
    let sessions: BTreeMap<u8, (u16, u32)> =
        sessions.iter().map(|(n, max, age)| (*n, (*max, *age))).collect();
    let places = sessions.into_iter().map(|(n, (max, age_ms))| Place {
        session: session(n),
        max: NonZeroU16::new(max).unwrap(),
        age_ms,
    });
    Places { process: 7, subjects: vec![SubjectPlaces { subject: USER, sessions: places.collect() }] }
}

/// Says of one subject, and returns how many sessions of it are elsewhere, and which lose their place here.
fn hear(table: &mut Table, n: u64, sessions: &[(u8, u16, u32)], now_ms: i64) -> (u32, Vec<u8>) {
    let mut answer = table.hear(&pop(n), &of_user(sessions), now_ms).unwrap();
    let known = answer.subjects.pop().unwrap_or_default();
    assert_eq!(known.marks.len(), known.elsewhere as usize);
    (known.elsewhere, known.over.iter().map(|id| id[0]).collect())
}

#[test]
fn the_younger_one_loses_and_gets_in_when_the_older_has_left() {
    let mut table = Table::new();
    assert_eq!(hear(&mut table, 1, &[(1, 1, 5_000)], 10_000), (0, vec![]));
    assert_eq!(hear(&mut table, 2, &[(2, 1, 100)], 10_100), (1, vec![2]));
    assert_eq!(hear(&mut table, 1, &[(1, 1, 6_000)], 11_000), (0, vec![]), "the older notices nothing");
    assert_eq!(hear(&mut table, 2, &[], 11_100), (1, vec![]), "who asks only is told, too");
    assert_eq!(hear(&mut table, 1, &[], 12_000), (0, vec![]));
    assert_eq!(hear(&mut table, 2, &[], 12_100), (0, vec![]));
    assert_eq!(hear(&mut table, 2, &[(2, 1, 10)], 13_100), (0, vec![]));
    assert_eq!((table.speakers.len(), table.entries), (2, 1));
    table.hear(&pop(2), &Places { process: 7, subjects: vec![] }, 14_000).unwrap();
    assert_eq!((table.speakers.len(), table.entries, table.subjects.len()), (1, 0, 0));
}

#[test]
fn a_viewer_who_moves_is_one_and_keeps_its_age() {
    let mut table = Table::new();
    hear(&mut table, 1, &[(1, 1, 5_000)], 0);
    assert_eq!(hear(&mut table, 2, &[(1, 1, 10)], 1_000), (0, vec![]), "it is not in its own way");
    assert_eq!(
        hear(&mut table, 3, &[(3, 1, 3_000)], 1_500),
        (1, vec![3]),
        "which is younger than the first place"
    );
    hear(&mut table, 1, &[], 2_000);
    assert_eq!(
        hear(&mut table, 3, &[(3, 1, 3_500)], 2_000),
        (1, vec![3]),
        "also when only the second is left"
    );
    assert_eq!(hear(&mut table, 2, &[(1, 1, 1_010)], 2_000), (0, vec![]));
}

#[test]
fn each_token_allows_what_it_says() {
    let mut table = Table::new();
    hear(&mut table, 1, &[(1, 1, 90), (2, 1, 80)], 100);
    let (elsewhere, over) = hear(&mut table, 2, &[(3, 2, 70), (4, 2, 60)], 100);
    assert_eq!((elsewhere, over), (1, vec![4]), "the one that is over takes no place from a token for two");
    assert_eq!(hear(&mut table, 1, &[(1, 1, 90), (2, 1, 80)], 100), (1, vec![2]));
}

#[test]
fn who_is_silent_has_nobody_any_more() {
    let mut table = Table::new();
    hear(&mut table, 1, &[(1, 1, 0)], 0);
    assert_eq!(hear(&mut table, 2, &[(2, 1, 0)], 10_000).0, 1);
    assert_eq!(hear(&mut table, 2, &[(2, 1, 10_001)], 10_001), (0, vec![]));
    assert_eq!((table.speakers.len(), table.entries), (1, 1));
}

#[test]
fn a_process_and_its_successor_are_both_heard_and_a_pop_has_not_many() {
    let mut table = Table::new();
    let of = |process, n| Places { process, ..of_user(&[(n, 1, 0)]) };
    table.hear(&pop(1), &of(1, 1), 0).unwrap();
    let answer = table.hear(&pop(1), &of(2, 2), 1).unwrap();
    assert_eq!(answer.subjects[0].over, [session(2)]);
    for process in 3..10 {
        table.hear(&pop(1), &of(process, 3), 10).unwrap();
    }
    assert_eq!((table.speakers.len(), table.entries), (SPEAKERS_PER_POP_MAX, SPEAKERS_PER_POP_MAX));
    assert_eq!(hear(&mut table, 2, &[(9, 1, 0)], 20), (1, vec![9]), "one session, at four processes");
}

#[test]
fn what_there_is_no_room_for_is_named_and_changes_nothing() {
    let mut table = Table { entries_max: 2, speakers_max: 2, ..Table::new() };
    hear(&mut table, 1, &[(1, 9, 0)], 0);
    hear(&mut table, 2, &[(2, 9, 0)], 0);
    let error = table.hear(&pop(2), &of_user(&[(2, 9, 0), (3, 9, 0)]), 1).unwrap_err();
    assert_eq!(error.to_string(), "3 sessions would have places; at most 2 are kept here");
    let error = table.hear(&pop(3), &of_user(&[]), 1).unwrap_err();
    assert_eq!(error.to_string(), "3 processes would have places; at most 2 are kept here");
    assert_eq!(hear(&mut table, 1, &[(1, 9, 0)], 1), (1, vec![]), "what was said before counts");
    assert_eq!(hear(&mut table, 1, &[(1, 9, 0)], 10_001).0, 0, "until it is too old");
    assert!(table.hear(&pop(3), &of_user(&[]), 10_001).is_ok());
}

#[test]
fn marks_that_an_answer_has_no_room_for_are_left_out_and_counted() {
    let mut table = Table::new();
    let crowd = |subjects: u16| {
        let subjects = (0..subjects).map(|n| {
            let places = (0..1024_u16).map(|at| {
                let mut session = [0; 16];
                session[..2].copy_from_slice(&at.to_be_bytes());
                session[2..4].copy_from_slice(&n.to_be_bytes());
                Place { session, max: NonZeroU16::MAX, age_ms: 0 }
            });
            let mut subject = [0; 8];
            subject[..2].copy_from_slice(&n.to_be_bytes());
            SubjectPlaces { subject, sessions: places.collect() }
        });
        Places { process: 7, subjects: subjects.collect() }
    };
    table.hear(&pop(1), &crowd(257), 0).unwrap();
    let asks = Places {
        process: 7,
        subjects: crowd(257).subjects.into_iter().map(|s| SubjectPlaces { sessions: vec![], ..s }).collect(),
    };
    let answer = table.hear(&pop(2), &asks, 0).unwrap();
    assert_eq!(answer.subjects.iter().map(|known| known.marks.len()).sum::<usize>(), MARKS_MAX);
    assert!(answer.subjects.iter().all(|known| known.elsewhere == 1024) && answer.subjects.len() == 257);
    assert!(Answer::decode(&answer.encode().unwrap()).is_ok());
}

/// What POPs have of one subject: sessions by number with when each got its place.
fn population() -> impl Strategy<Value = Vec<BTreeMap<u8, i64>>> {
    let sessions = prop::collection::btree_map(0u8..12, 0i64..50, 0..5);
    prop::collection::vec(sessions, 1..5)
}

fn told(sessions: &BTreeMap<u8, i64>, max: &impl Fn(u8) -> u16, now_ms: i64) -> Vec<(u8, u16, u32)> {
    sessions.iter().map(|(n, since)| (*n, max(*n), u32::try_from(now_ms - since).unwrap())).collect()
}

fn shuffled(count: usize, seed: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by_key(|at| (seed ^ *at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    order
}

proptest! {
    #[test]
    fn the_order_in_which_pops_speak_changes_no_answer(pops in population(), seed: u64) {
        // Tokens differ.
        let max = |n: u8| u16::from(n % 3) + 1;
        let answers = |order: Vec<usize>| {
            let mut table = Table::new();
            for at in order {
                hear(&mut table, at as u64, &told(&pops[at], &max, 100), 100);
            }
            (0..pops.len())
                .map(|at| table.hear(&pop(at as u64), &of_user(&told(&pops[at], &max, 100)), 100).unwrap())
                .collect::<Vec<_>>()
        };
        prop_assert_eq!(answers(shuffled(pops.len(), seed)), answers((0..pops.len()).collect()));
    }

    #[test]
    fn as_many_stay_as_may_and_the_oldest_do(
        mut pops in population(), max in 1u16..5, seeds in prop::collection::vec(any::<u64>(), 3..6), late_ms in 0i64..30,
    ) {
        let mut table = Table::new();
        let mut since = BTreeMap::new();
        for (n, at) in pops.iter().flatten() {
            since.entry(*n).and_modify(|first: &mut i64| *first = (*first).min(*at)).or_insert(*at);
        }
        let mut now_ms = 100;
        for (round, seed) in seeds.iter().enumerate() {
            for at in shuffled(pops.len(), *seed) {
                // Answers are heeded at once. What is said first is longer on its way: by the second round all ages are right,
                // and in the third everybody hears by them.
                now_ms += 1;
                let on_its_way = if round == 0 { late_ms } else { 0 };
                let said = told(&pops[at], &|_| max, now_ms);
                let (_, over) = hear(&mut table, at as u64, &said, now_ms + on_its_way);
                for n in over {
                    pops[at].remove(&n);
                }
            }
            now_ms += 1_000;
        }
        let stay: BTreeSet<u8> = pops.iter().flatten().map(|(n, _)| *n).collect();
        let mut oldest: Vec<(i64, u8)> = since.into_iter().map(|(n, since)| (since, n)).collect();
        oldest.sort_unstable();
        let expected = oldest.len().min(usize::from(max));
        prop_assert_eq!(stay.len(), expected, "nobody loses without need, and nobody is too many");
        if late_ms == 0 {
            let first: BTreeSet<u8> = oldest.iter().take(expected).map(|(_, n)| *n).collect();
            prop_assert_eq!(stay, first);
        }
        for at in 0..pops.len() {
            let said = told(&pops[at], &|_| max, now_ms);
            let (elsewhere, over) = hear(&mut table, at as u64, &said, now_ms);
            let all: BTreeSet<u8> = pops.iter().flatten().map(|(n, _)| *n).collect();
            prop_assert_eq!((elsewhere as usize, over), (all.len() - pops[at].len(), vec![]));
        }
    }
}
