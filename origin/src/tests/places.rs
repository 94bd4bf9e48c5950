//! `max_sessions` over all edges: what POPs say of sessions that have a place, and what they are told.

use super::policy::{connect_tls, with_pops};
use super::stats::post_to;
use super::*;
use sigma_report::places::{Answer as Known, MEDIA_TYPE, PATH, Place, Places, SubjectAnswer, SubjectPlaces};
use std::num::NonZeroU16;

/// One session of a subject, or none of it.
fn said(session: Option<u8>, age_ms: u32) -> Vec<u8> {
    let place = |id| Place { session: [id; 16], max: NonZeroU16::MIN, age_ms };
    let sessions = session.map(place).into_iter().collect();
    let places = Places { process: 1, subjects: vec![SubjectPlaces { subject: [5; 8], sessions }] };
    places.encode().expect("written")
}

fn known(answer: &Answer) -> Vec<SubjectAnswer> {
    assert_eq!((answer.status, answer.header("content-type")), (200, Some(MEDIA_TYPE)), "{:?}", answer.body);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    Known::decode(&answer.body).expect("an answer").subjects
}

#[tokio::test]
async fn pops_are_told_who_is_elsewhere_and_who_is_too_many() {
    let origin = with_pops("[stats]\nshields = [\"pop-1\"]").await;
    let post = async |behind, session, age_ms| {
        known(&post_to(PATH, &origin, "pop-1", (behind, &said(session, age_ms))).await)
    };
    assert_eq!(post(None, Some(1), 60_000).await, []);
    let elsewhere = |over| SubjectAnswer { subject: [5; 8], elsewhere: 1, marks: vec![[1; 4]], over };
    assert_eq!(post(Some("pop-9"), Some(2), 10).await, [elsewhere(vec![[2; 16]])], "another POP behind it");
    assert_eq!(post(None, Some(1), 60_100).await, [], "who was there first stays");
    assert_eq!(post(Some("pop-9"), None, 0).await, [elsewhere(vec![])]);
    assert_eq!(post(None, None, 0).await, []);
    assert_eq!(post(Some("pop-9"), Some(2), 10).await, []);
    let metrics = ask(origin.running.ops, "GET", "/metrics", "").await;
    assert!(
        metrics.text().contains("requests_total{kind=\"Places\",status=\"200\"} 6"),
        "{}",
        metrics.text()
    );
}

#[tokio::test]
async fn who_may_not_speak_and_what_says_nothing_is_refused_by_name() {
    let origin = with_pops("").await;
    assert_eq!(request(&origin, "POST", PATH, "Content-Length: 0\r\n").await.status, 403, "no certificate");
    let socket = connect_tls(&origin, Some("pop-1")).await;
    assert_eq!(exchange(socket, "GET", PATH, "").await.status, 405);
    let whole = said(Some(1), 0);
    let subject = |n: u64| SubjectPlaces { subject: n.to_be_bytes(), sessions: vec![] };
    let many = Places { process: 1, subjects: (0..90_000).map(subject).collect() }.encode().expect("written");
    for (behind, body, status, named) in [
        (Some("pop-9"), &whole[..], 403, "`pop-1` may not pass on reports of `pop-9`"),
        (Some("POP 9"), &whole[..], 400, "sigma-pop: `POP 9`"),
        (None, &whole[..9], 400, "the places cannot be read"),
        (None, &[9][..], 415, "the places have version 9, known here is 1"),
        (None, &many[..], 413, "the places have 90000 subjects; at most 81920 are taken at once"),
        (None, &vec![1; (4 << 20) + 1][..], 413, "at most 4194304 bytes"),
    ] {
        let refused = post_to(PATH, &origin, "pop-1", (behind, body)).await;
        assert_eq!(refused.status, status, "{named}: {}", refused.text());
        assert!(refused.text().contains(named), "{named}: {}", refused.text());
    }
}
