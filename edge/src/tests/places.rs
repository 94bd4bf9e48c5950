//! `max_sessions` over all edges, over real sockets: what an edge tells its upstream, and what it does with the answer.

use super::sessions::{base, by, guarded, policy, sent_to, status, token};
use super::*;
use crate::tests::fake::Ask;
use sigma_report::places::{Answer, MEDIA_TYPE, PATH, Place, Places, SubjectAnswer, SubjectPlaces, mark};
use sigma_token::session::{SubjectHash, Unverified};

/// Longer than it takes until the next post.
const TWO_POSTS: Duration = Duration::from_millis(2_500);

/// Where a viewer's token for one session opens the channel.
fn entry() -> String {
    format!("/live/paid/index.m3u8?token={}", token(|claims| claims.max_sessions = Some(1)))
}

/// The next post; what else is asked stays open.
async fn next_post(lab: &mut Lab, held: &mut Vec<Ask>) -> (Ask, Places) {
    loop {
        let ask = lab.ask().await;
        if ask.path != PATH {
            held.push(ask);
            continue;
        }
        assert_eq!(
            (ask.method.as_str(), &ask.headers["content-type"]),
            ("POST", &MEDIA_TYPE.parse().unwrap())
        );
        let places = Places::decode(&ask.body).unwrap();
        return (ask, places);
    }
}

/// The same, of which one subject is spoken.
async fn next_of_user(lab: &mut Lab, held: &mut Vec<Ask>) -> (Ask, Vec<Place>) {
    let (ask, Places { mut subjects, .. }) = next_post(lab, held).await;
    let SubjectPlaces { subject, sessions } = subjects.pop().unwrap();
    assert_eq!((subjects.len(), subject), (0, SubjectHash::of("user-1").0));
    (ask, sessions)
}

/// Answers of the one subject: sessions elsewhere, and those that are over.
async fn tell(ask: Ask, elsewhere: &[[u8; 16]], over: &[[u8; 16]]) {
    let known = SubjectAnswer {
        subject: SubjectHash::of("user-1").0,
        elsewhere: u32::try_from(elsewhere.len()).unwrap(),
        marks: elsewhere.iter().map(mark).collect(),
        over: over.to_vec(),
    };
    ask.answer_bytes(200, Answer { subjects: vec![known] }.encode().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_too_many_over_all_edges_is_refused_until_there_is_a_place() {
    let mut lab = guarded(|config| config.sessions.gone_after_ms = 600_000).await;
    let mut held = Vec::new();
    let entry = entry();
    let session = base(&sent_to(&lab, &entry).await);
    let part = format!("{session}/v720/7.1.m4s");
    let (ask, places) = next_of_user(&mut lab, &mut held).await;
    assert!(places.len() == 1 && places[0].max.get() == 1 && places[0].age_ms < 20_000, "{places:?}");
    let id = places[0].session;

    // Another device of the same subject is at another POP, and was there first.
    tell(ask, &[[9; 16]], &[id]).await;
    within(until(|| lab.edge.metrics.places.answered.get() == 1)).await;
    assert_eq!(lab.edge.metrics.places_lost.get(), 1);
    assert_eq!(status(&lab, &part).await, 403);
    assert_eq!(by(&lab, "another", &entry).await.status(), 403);
    assert_eq!(lab.edge.metrics.session_refusals.sessions.get(), 2);

    // It is asked about, and gets in once the other one has left.
    let (ask, places) = next_of_user(&mut lab, &mut held).await;
    assert_eq!(places, []);
    tell(ask, &[[9; 16]], &[]).await;
    within(until(|| lab.edge.metrics.places.answered.get() == 2)).await;
    assert_eq!(status(&lab, &part).await, 403);
    let (ask, _) = next_of_user(&mut lab, &mut held).await;
    tell(ask, &[], &[]).await;
    within(until(|| lab.edge.metrics.places.answered.get() == 3)).await;
    let viewer = lab.begin(&part).await;
    let (ask, places) = next_of_user(&mut lab, &mut held).await;
    assert_eq!(places.iter().map(|place| place.session).collect::<Vec<_>>(), [id]);
    // What is held by one that loses its place ends as it should, and then nothing more is given out.
    tell(ask, &[[9; 16]], &[id]).await;
    within(until(|| lab.edge.metrics.places_lost.get() == 2)).await;
    let at = held.iter().position(|ask| ask.path.ends_with("/7.1.m4s")).unwrap();
    held.swap_remove(at).answer(200, 60, "part").await;
    assert_eq!(body(within(viewer).await.unwrap()).await.unwrap(), "part");
    assert_eq!(status(&lab, &part).await, 403);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_viewer_who_comes_from_another_edge_is_let_in_and_an_answer_that_is_none_changes_nothing() {
    let mut lab = guarded(|config| config.sessions.gone_after_ms = 600_000).await;
    let mut held = Vec::new();
    let two = token(|claims| claims.max_sessions = Some(2));
    let entry = format!("/live/paid/index.m3u8?token={two}");
    sent_to(&lab, &entry).await;
    // Made at another edge of the cluster: under the same keys.
    let other = guarded(|_| {}).await;
    let moves = base(&sent_to(&other, &entry).await);
    let keys = sigma_token::policy::Policy::new(&policy(1, vec![])).unwrap();
    let unverified = Unverified::parse(moves.split('/').nth(2).unwrap()).unwrap();
    let id = keys.verify(&unverified, &"paid".parse().unwrap()).unwrap().id;

    let (ask, _) = next_of_user(&mut lab, &mut held).await;
    tell(ask, &[id.0], &[]).await;
    within(until(|| lab.edge.metrics.places.answered.get() == 1)).await;
    assert_eq!(by(&lab, "another", &entry).await.status(), 403, "it is full");
    let viewer = lab.begin(&format!("{moves}/v720/7.1.m4s")).await;
    let (ask, places) = next_of_user(&mut lab, &mut held).await;
    assert!(
        places.len() == 2 && places.iter().any(|place| place.session == id.0),
        "it is not in its own way"
    );
    let at = held.iter().position(|ask| ask.path.ends_with("/7.1.m4s")).unwrap();
    held.swap_remove(at).answer(200, 60, "part").await;
    assert_eq!(within(viewer).await.unwrap().status(), 200);

    ask.refuse(503).await;
    within(until(|| lab.edge.metrics.places.failed.get() == 1)).await;
    let (ask, _) = next_of_user(&mut lab, &mut held).await;
    ask.answer(200, 0, "what is this?").await;
    within(until(|| lab.edge.metrics.places.refused.get() == 1)).await;
    assert_eq!((lab.edge.metrics.places.answered.get(), lab.edge.metrics.places_lost.get()), (1, 0));
    assert_eq!(by(&lab, "another", &entry).await.status(), 403, "what is known is not forgotten by that");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_nobody_with_a_limit_says_nothing() {
    let mut lab = guarded(|config| config.sessions.gone_after_ms = 1).await;
    let mut held = Vec::new();
    sent_to(&lab, "/live/demo/index.m3u8").await;
    sent_to(&lab, &format!("/live/paid/index.m3u8?token={}", token(|_| {}))).await;
    let session = base(&sent_to(&lab, &entry()).await);
    // What is held keeps the place.
    let viewer = lab.begin(&format!("{session}/v720/7.1.m4s")).await;
    let (ask, places) = next_of_user(&mut lab, &mut held).await;
    assert_eq!(places.len(), 1);
    ask.answer_bytes(200, Answer::default().encode().unwrap()).await;
    let at = held.iter().position(|ask| ask.path.ends_with("/7.1.m4s")).unwrap();
    held.swap_remove(at).answer(200, 60, "part").await;
    assert_eq!(body(within(viewer).await.unwrap()).await.unwrap(), "part");
    let empty = async {
        loop {
            let (ask, places) = next_post(&mut lab, &mut held).await;
            ask.answer_bytes(200, Answer::default().encode().unwrap()).await;
            if places.subjects.is_empty() {
                return;
            }
        }
    };
    within(empty).await;
    let more = tokio::time::timeout(TWO_POSTS, next_post(&mut lab, &mut held)).await;
    assert!(more.is_err(), "said once that there is nobody");
}
