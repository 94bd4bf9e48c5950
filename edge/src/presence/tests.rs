//! Who gets a place, who keeps it, and what of it is told.

use super::*;
use sigma_report::places::{ASKED_MAX, Places, SubjectAnswer};
use sigma_token::modes::Modes;
use sigma_token::session::{NEVER_S, SessionId};

const GONE_AFTER_MS: u64 = 4_000;

/// A session of a subject, on a device of its own.
fn known(subject: &str, id: u8, max: u16) -> Arc<Known> {
    on(Device(id.into()), subject, id, max)
}

fn on(device: Device, subject: &str, id: u8, max: u16) -> Arc<Known> {
    let session = Session {
        id: SessionId([id; 16]),
        subject: SubjectHash::of(subject),
        issued_at_s: 0,
        expires_at_s: NEVER_S,
        modes: Modes::ALL,
        by_token: true,
        sessions_max: NonZeroU16::new(max),
        bound: None,
    };
    Known::new(session, "demo".parse().unwrap(), [0; 32], device)
}

fn presence() -> Presence {
    Presence::new(100, GONE_AFTER_MS)
}

#[test]
fn a_subject_has_as_many_sessions_as_its_token_says() {
    let mut presence = presence();
    let (a, b, c) = (known("user", 1, 2), known("user", 2, 2), known("user", 3, 2));
    assert!(presence.admit(&a, Entry::New, Moment(1_000)) && presence.admit(&b, Entry::New, Moment(1_000)));
    assert!(!presence.admit(&c, Entry::New, Moment(1_000)), "one too many");
    assert!(presence.admit(&known("other", 4, 1), Entry::New, Moment(1_000)), "another subject");
    assert!(presence.admit(&a, Entry::Used, Moment(2_000)), "the same session again");
    a.begin(Moment(5_000));
    assert!(presence.admit(&c, Entry::New, Moment(5_001)), "the second one is gone");
    assert!(
        !b.is_counted() && !presence.admit(&b, Entry::Used, Moment(5_001)),
        "and is not let in beside the others"
    );
    assert_eq!((presence.entries, a.is_counted()), (3, true));
    assert!(presence.admit(&b, Entry::Used, Moment(9_002)), "until another place is free");
    assert!(!c.is_counted() && a.is_counted(), "what is in flight is in use for however long");
    a.end(Moment(9_002));
}

#[test]
fn sessions_made_elsewhere_count_when_they_are_used() {
    let mut presence = presence();
    for (id, expected) in [(0, true), (1, true), (2, false)] {
        assert_eq!(presence.admit(&known("user", id, 2), Entry::Used, Moment(0)), expected, "{id}");
    }
}

#[test]
fn a_page_that_is_loaded_again_takes_its_own_place() {
    let mut presence = presence();
    let (television, page) = (known("user", 1, 2), on(Device(9), "user", 2, 2));
    assert!(
        presence.admit(&television, Entry::New, Moment(0)) && presence.admit(&page, Entry::New, Moment(100))
    );
    let again = on(Device(9), "user", 3, 2);
    page.begin(Moment(200));
    assert!(!presence.admit(&again, Entry::New, Moment(300)), "it still waits for something");
    page.end(Moment(300));
    assert!(presence.admit(&again, Entry::New, Moment(301)));
    assert!(television.is_counted() && again.is_counted() && !page.is_counted());
    assert!(!presence.admit(&page, Entry::Used, Moment(400)), "by use alone no place is taken from another");
    assert_eq!(presence.entries, 2);
}

#[test]
fn to_look_takes_nothing() {
    let mut presence = presence();
    let (a, b) = (on(Device(1), "user", 1, 1), on(Device(1), "user", 2, 1));
    assert!(presence.admit(&a, Entry::Look, Moment(0)) && presence.subjects.is_empty());
    assert!(presence.admit(&a, Entry::New, Moment(0)));
    assert!(presence.admit(&b, Entry::Look, Moment(0)), "it would be let in");
    assert!(a.is_counted() && !b.is_counted());
    assert!(!presence.admit(&known("user", 3, 1), Entry::Look, Moment(0)));
    assert_eq!(presence.entries, 1);
}

#[test]
fn a_full_table_lets_nobody_in_until_somebody_is_gone() {
    let mut presence = Presence::new(3, GONE_AFTER_MS);
    for id in 0..3 {
        assert!(presence.admit(&known(&format!("user-{id}"), id, 1), Entry::New, Moment(10_000)));
    }
    let late = known("late", 9, 1);
    assert!(!presence.admit(&late, Entry::New, Moment(12_000)));
    assert!(presence.admit(&late, Entry::New, Moment(16_000)));
    assert_eq!((presence.entries, presence.subjects.len()), (1, 1));
}

/// What is known of `user`, as an origin would say it.
fn answer(elsewhere: &[u8], over: &[u8]) -> Answer {
    let known = SubjectAnswer {
        subject: SubjectHash::of("user").0,
        elsewhere: u32::try_from(elsewhere.len()).unwrap(),
        marks: elsewhere.iter().map(|id| [*id; 4]).collect(),
        over: over.iter().map(|id| [*id; 16]).collect(),
    };
    Answer { subjects: vec![known] }
}

/// What is told: subjects with the ids and ages of their sessions.
fn told(presence: &mut Presence, now: u64) -> Vec<(SubjectHash, Vec<(u8, u32)>)> {
    let told = presence.tell(Moment(now));
    let places = |one: SubjectPlaces| {
        let sessions = one.sessions.iter().map(|place| (place.session[0], place.age_ms)).collect();
        (SubjectHash(one.subject), sessions)
    };
    told.subjects.into_iter().map(places).collect()
}

#[test]
fn sessions_at_other_pops_count_while_somebody_says_so() {
    let mut presence = presence();
    let user = SubjectHash::of("user");
    let (a, b) = (known("user", 1, 2), known("user", 2, 2));
    assert!(presence.admit(&a, Entry::New, Moment(0)));
    a.begin(Moment(0));
    assert_eq!(presence.hear(&answer(&[8], &[]), Moment(1_000)), 0);
    assert!(!presence.admit(&b, Entry::New, Moment(1_000)), "one here and one elsewhere");
    assert!(presence.admit(&known("other", 9, 1), Entry::New, Moment(1_000)), "another subject");
    assert_eq!(presence.hear(&Answer::default(), Moment(2_000)), 0);
    assert!(presence.admit(&b, Entry::New, Moment(2_000)), "nobody is elsewhere any more");
    assert_eq!(presence.hear(&answer(&[7, 8], &[]), Moment(7_000)), 0);
    assert!(a.is_counted(), "who is too many is the origin's to say");
    assert!(!presence.admit(&known("user", 3, 2), Entry::New, Moment(16_999)));
    assert!(
        presence.admit(&known("user", 3, 2), Entry::New, Moment(17_000)),
        "what nobody repeats is forgotten"
    );
    assert!(told(&mut presence, 17_000).contains(&(user, vec![(1, 17_000), (3, 0)])));
}

#[test]
fn who_is_over_loses_its_place_and_has_another_when_there_is_one() {
    let mut presence = presence();
    let user = SubjectHash::of("user");
    let (first, second) = (known("user", 1, 2), known("user", 2, 2));
    for (at, session) in [(0, &first), (10, &second)] {
        assert!(presence.admit(session, Entry::New, Moment(at)));
        session.begin(Moment(at));
    }
    assert_eq!(presence.hear(&answer(&[8], &[2]), Moment(1_000)), 1);
    assert!(first.is_counted() && !second.is_counted(), "in flight or not");
    assert!(!presence.admit(&second, Entry::Used, Moment(1_100)));
    first.end(Moment(1_200));
    assert_eq!(told(&mut presence, 5_000), [(user, vec![(1, 5_000)])]);
    assert_eq!(told(&mut presence, 5_201), [(user, vec![])], "nobody is here, but one was refused");
    assert!(!first.is_counted() && presence.entries == 0, "who is gone has no place anywhere");
    assert_eq!(presence.hear(&Answer::default(), Moment(5_300)), 0);
    assert!(presence.admit(&second, Entry::Used, Moment(5_400)));
    assert_eq!(told(&mut presence, 5_500), [(user, vec![(2, 100)])], "a new place");
    second.end(Moment(5_500));
    assert_eq!(told(&mut presence, 61_099), [(user, vec![])]);
    assert_eq!(told(&mut presence, 61_100), [], "a minute after the refusal");
}

#[test]
fn a_viewer_who_moves_is_not_in_its_own_way() {
    let mut presence = presence();
    let (here, moves) = (known("user", 1, 2), known("user", 2, 2));
    assert!(presence.admit(&here, Entry::New, Moment(0)));
    here.begin(Moment(0));
    presence.hear(&answer(&[2], &[]), Moment(1_000));
    assert!(!presence.admit(&known("user", 3, 2), Entry::New, Moment(1_000)));
    assert!(presence.admit(&moves, Entry::Used, Moment(1_000)));
    // Until the origin knows, it is one all the same.
    assert_eq!(presence.elsewhere.count(SubjectHash::of("user"), [moves.session.id].into_iter(), 1_001), 0);
    assert!(!presence.admit(&known("user", 3, 2), Entry::New, Moment(1_001)));
}

#[test]
fn a_page_that_is_loaded_again_takes_the_age_of_its_place_as_well() {
    let mut presence = presence();
    let user = SubjectHash::of("user");
    let first = on(Device(9), "user", 1, 1);
    assert!(presence.admit(&first, Entry::New, Moment(0)));
    presence.hear(&answer(&[8], &[]), Moment(1_000));
    let again = on(Device(9), "user", 2, 1);
    assert!(presence.admit(&again, Entry::New, Moment(1_500)));
    assert!(again.is_counted() && !first.is_counted());
    assert_eq!(told(&mut presence, 2_000), [(user, vec![(2, 2_000)])]);
    // Verified anew under the same id.
    let same = on(Device(9), "user", 2, 1);
    assert!(presence.admit(&same, Entry::Used, Moment(2_100)));
    assert_eq!(told(&mut presence, 2_200), [(user, vec![(2, 2_200)])]);
}

#[test]
fn of_more_than_can_be_told_every_edge_tells_the_same() {
    let mut presence = Presence::new(SESSIONS_MAX * 2, GONE_AFTER_MS);
    for n in 0..SESSIONS_MAX + 10 {
        let mut session = known("user", 0, 1).session;
        session.subject = SubjectHash(u64::try_from(n).unwrap().to_be_bytes());
        let one = Known::new(session, "demo".parse().unwrap(), [0; 32], Device(0));
        assert!(presence.admit(&one, Entry::New, Moment(0)));
        // Of a second subject beyond the bound somebody was refused: that can be asked.
        if n == SESSIONS_MAX + 4 {
            presence.elsewhere.refused(SubjectHash([0xff; 8]), 0);
        }
    }
    let told = presence.tell(Moment(0));
    assert_eq!((told.counted, told.untold), (SESSIONS_MAX + 10, 10));
    assert_eq!(told.subjects.len(), SESSIONS_MAX + 1);
    assert_eq!(told.subjects[SESSIONS_MAX - 1].subject, (SESSIONS_MAX as u64 - 1).to_be_bytes());
    let places = Places { process: 0, subjects: told.subjects };
    assert!(Places::decode(&places.encode().unwrap()).is_ok());
}

#[test]
fn subjects_that_are_asked_about_are_bounded() {
    let mut presence = presence();
    for n in 0..ASKED_MAX + 10 {
        presence.elsewhere.refused(SubjectHash(u64::try_from(n).unwrap().to_be_bytes()), 0);
    }
    assert_eq!(presence.tell(Moment(59_999)).subjects.len(), ASKED_MAX);
    presence.elsewhere.refused(SubjectHash([0xff; 8]), 60_000);
    assert_eq!(presence.tell(Moment(60_000)).subjects.len(), 1);
}
