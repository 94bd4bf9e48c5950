//! Playback sessions at the edge, over real sockets: who is sent where, what the upstream sees of it, revocation.

use super::*;
use crate::tests::fake::Ask;
use sigma_token::claims::{Channels, Claims};
use sigma_token::issuer::IssuerKey;
use sigma_token::jwk::JwkSet;
use sigma_token::policy::{ChannelPolicy, Document, Playback, Revocation, SessionSecret};
use sigma_token::session::Unverified;
use std::time::{SystemTime, UNIX_EPOCH};

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn issuer() -> IssuerKey {
    IssuerKey::from_seed(&[5; 32]).unwrap()
}

pub(super) fn token(change: impl FnOnce(&mut Claims)) -> String {
    let channels = Channels::Named(vec!["paid".parse().unwrap(), "other".parse().unwrap()]);
    let mut claims = Claims::new(channels, now_s() + 600);
    claims.sub = Some("user-1".to_owned());
    claims.iat = Some(now_s() - 1);
    change(&mut claims);
    issuer().sign(&claims).unwrap()
}

pub(super) fn policy(version: u64, revocations: Vec<Revocation>) -> Document {
    let channel = |name: &str, playback| (name.to_owned(), ChannelPolicy { playback });
    Document {
        version,
        session_keys: vec![SessionSecret::new(1, &[1; 32], true)],
        jwks: JwkSet::of(&[issuer().jwk()]),
        channels: [
            channel("demo", Playback::Public),
            channel("paid", Playback::Token),
            channel("other", Playback::Token),
        ]
        .into(),
        revocations,
        ..Document::default()
    }
}

/// An edge with a certificate for its upstream, that has the policy.
pub(super) async fn guarded(change: impl FnOnce(&mut Config)) -> Lab {
    let mut lab = waiting(change).await;
    answer_policy(lab.ask().await, &policy(1, vec![])).await;
    within(until(|| lab.edge.metrics.policy_polls.changed.get() == 1)).await;
    lab
}

/// The same, that waits for its first policy.
async fn waiting(change: impl FnOnce(&mut Config)) -> Lab {
    Lab::with(|config| {
        config.sessions.enabled = true;
        config.sessions.policy_poll_ms = 50;
        config.reports.enabled = false;
        config.upstream.certificate = config.tls.as_ref().and_then(|tls| tls.certificate.clone());
        config.upstream.key = config.tls.as_ref().and_then(|tls| tls.key.clone());
        change(config);
    })
}

pub(super) async fn answer_policy(ask: Ask, document: &Document) {
    assert!(ask.path.starts_with("/internal/edge/policy"), "{}", ask.path);
    let text: &'static str = Box::leak(serde_json::to_string(document).unwrap().into_boxed_str());
    ask.answer(200, 0, text).await;
}

/// The next request that is not about the policy; those stay open, as they do at an origin that holds them.
async fn next_object(lab: &mut Lab, held: &mut Vec<Ask>) -> Ask {
    loop {
        let ask = lab.ask().await;
        if !ask.path.starts_with("/internal/") {
            return ask;
        }
        held.push(ask);
    }
}

async fn get(lab: &Lab, path: &str) -> Response<Incoming> {
    lab.viewer().await.get(path).await
}

pub(super) async fn status(lab: &Lab, path: &str) -> u16 {
    get(lab, path).await.status().as_u16()
}

pub(super) async fn sent_to(lab: &Lab, path: &str) -> String {
    let response = get(lab, path).await;
    assert_eq!(response.status(), 302, "{path}");
    assert_eq!(header(&response, "cache-control"), "no-store");
    assert_eq!(header(&response, "access-control-allow-origin"), "*");
    header(&response, "location").to_owned()
}

pub(super) fn base(location: &str) -> String {
    location.split("/index.m3u8").next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn viewers_are_sent_to_a_session_and_share_what_they_get() {
    let mut lab = guarded(|_| {}).await;
    let mut held = Vec::new();
    let one = sent_to(&lab, "/live/demo/index.m3u8?mode=low&CMCD=sid%3Dx&token=abc").await;
    let two = sent_to(&lab, "/live/demo/index.m3u8").await;
    assert!(one.starts_with("/s/") && one.ends_with("/live/demo/index.m3u8?mode=low"), "{one}");
    assert!(two.ends_with("/live/demo/index.m3u8") && base(&one) != base(&two), "{two}");
    let head = lab.viewer().await.send(request(Method::HEAD, "/live/demo/index.m3u8")).await;
    assert_eq!(head.status(), 302);

    let first = lab.begin(&format!("{}/v720/7.1.m4s?CMCD=bl%3D1&token=abc", base(&one))).await;
    let ask = next_object(&mut lab, &mut held).await;
    assert_eq!(ask.path, "/live/demo/v720/7.1.m4s", "neither session nor token nor CMCD");
    let leaked = |value: &str| value.contains("abc") || value.contains(&base(&one)) || value.contains("/s/");
    assert!(!ask.headers.values().any(|value| leaked(value.to_str().unwrap())));
    let second = lab.begin(&format!("{}/v720/7.1.m4s", base(&two))).await;
    lab.until_waiting(2).await;
    ask.answer(200, 60, "part").await;
    for viewer in [first, second] {
        assert_eq!(body(within(viewer).await.unwrap()).await.unwrap(), "part");
    }
    lab.until_no_fills().await;
    let third = get(&lab, PART).await;
    assert_eq!(header(&third, "cache-status").split(';').nth(1), Some(" hit"), "without a session, too");
    assert_eq!(lab.edge.metrics.upstream_requests.success.get(), 1);
    assert_eq!(lab.edge.metrics.sessions_minted.public.get(), 2, "HEAD makes none");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_watch_is_told_no_more_than_that() {
    let lab = guarded(|_| {}).await;
    let paid = base(&sent_to(&lab, &format!("/live/paid/index.m3u8?token={}", token(|_| {}))).await);
    let public = base(&sent_to(&lab, "/live/demo/index.m3u8").await);
    let low = token(|claims| claims.modes = serde_json::from_str(r#"["low"]"#).unwrap());
    let low = sent_to(&lab, &format!("/live/paid/index.m3u8?token={low}")).await;
    assert!(low.ends_with("?mode=low"), "{low}");
    let low = base(&low);
    let index = |token: String| format!("/live/paid/index.m3u8?token={token}");
    let other = if paid.as_bytes()[20] == b'A' { "B" } else { "A" };
    let forged = format!("{}{other}{}", &paid[..20], &paid[21..]);
    // Under a key number that nobody knows: nothing is refused of what is public, and a query that is wrong is.
    let strange = |path: &str| path.replacen("/s/AgE", "/s/AgI", 1);
    assert_ne!(strange(&public), public);
    for (path, expected) in [
        ("/live/nobody/index.m3u8".to_owned(), 404),
        (format!("{}/index.m3u8?mode=fast", strange(&public)), 400),
        (format!("{}/index.m3u8?mode=fast", strange(&paid)), 403),
        (format!("{}/v/1.m4s", public.replace("demo", "nobody")), 403),
        ("/live/paid/index.m3u8".to_owned(), 401),
        ("/live/paid/v/media.m3u8".to_owned(), 401),
        ("/live/paid/v/1.m4s".to_owned(), 401),
        (index(String::new()), 401),
        (index("x".repeat(5000)), 403),
        (index(token(|claims| claims.exp = now_s() - 60)), 403),
        (index(token(|claims| claims.nbf = Some(now_s() + 60))), 403),
        (index(token(|claims| claims.channel = Channels::Named(vec!["demo".parse().unwrap()]))), 403),
        (index(token(|claims| claims.ip = Some("203.0.113.0/24".parse().unwrap()))), 403),
        (index(format!("{}x", token(|_| {}))), 403),
        (format!("{}/index.m3u8", paid.replace("paid", "other")), 403),
        (format!("{}/v/1.m4s", public.replace("demo", "paid")), 403),
        (format!("{forged}/v/1.m4s"), 403),
        ("/s/x/live/paid/v/1.m4s".to_owned(), 403),
        (format!("{low}/v/media.m3u8"), 403),
        (format!("{low}/index.m3u8?mode=normal"), 403),
        (format!("{low}/index.m3u8"), 403),
        ("/live/demo/index.m3u8?mode=fast".to_owned(), 400),
        (format!("{paid}/nothing"), 404),
        ("/s/x/watch/demo".to_owned(), 404),
        ("/internal/edge/policy".to_owned(), 403),
    ] {
        let response = get(&lab, &path).await;
        assert_eq!(response.status(), expected, "{path}");
        assert_eq!(header(&response, "access-control-allow-origin"), "*", "{path}");
        if [401, 403].contains(&expected) {
            assert_eq!(header(&response, "cache-control"), "no-store", "{path}");
            let told: serde_json::Value = serde_json::from_slice(&body(response).await.unwrap()).unwrap();
            assert_eq!(told["detail"], "not allowed here", "{path}");
        }
    }
    assert_eq!(lab.edge.metrics.fills.get(), 0, "nothing of it reached the upstream");
    assert_eq!(lab.edge.metrics.sessions_minted.token.get(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revocations_count_as_soon_as_the_policy_is_here() {
    let mut lab = guarded(|_| {}).await;
    let path = format!("/live/paid/index.m3u8?token={}", token(|_| {}));
    let (one, two) = (base(&sent_to(&lab, &path).await), base(&sent_to(&lab, &path).await));
    let part = |base: &str| format!("{base}/v720/7.1.m4s");
    let mut held = Vec::new();
    let viewer = lab.begin(&part(&one)).await;
    next_object(&mut lab, &mut held).await.answer(200, 60, "part").await;
    assert_eq!(within(viewer).await.unwrap().status(), 200);
    lab.until_no_fills().await;
    assert_eq!(status(&lab, &part(&two)).await, 200);

    let id = Unverified::parse(&one[3..83]).unwrap();
    let session = sigma_token::policy::Policy::new(&policy(1, vec![])).unwrap();
    let id = session.verify(&id, &"paid".parse().unwrap()).unwrap().id;
    let until_ms = (now_s() + 600) * 1000;
    let by_session = Revocation::of_session(id, until_ms);
    let by_subject = Revocation::of_subject("user-1", now_s() * 1000, until_ms);
    for (version, revocations, expected) in
        [(2, vec![by_session.clone()], (403, 200)), (3, vec![by_session, by_subject], (403, 403))]
    {
        let ask = match held.pop() {
            Some(ask) => ask,
            None => lab.ask().await,
        };
        assert_eq!(ask.path, format!("/internal/edge/policy?after={}", version - 1));
        answer_policy(ask, &policy(version, revocations)).await;
        within(until(|| lab.edge.metrics.policy_polls.changed.get() == version)).await;
        assert_eq!((status(&lab, &part(&one)).await, status(&lab, &part(&two)).await), expected);
    }
    assert_eq!(status(&lab, &path).await, 403, "the same token opens nothing any more");
    let fresh = format!("/live/paid/index.m3u8?token={}", token(|claims| claims.iat = Some(now_s() + 1)));
    assert_eq!(status(&lab, &fresh).await, 302, "a later one does");
}

/// Status of a request by a device.
pub(super) async fn by(lab: &Lab, agent: &str, path: &str) -> Response<Incoming> {
    let mut request = request(Method::GET, path);
    request.headers_mut().insert("user-agent", agent.parse().unwrap());
    lab.viewer().await.send(request).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_session_too_many_is_not_let_in() {
    let lab = guarded(|config| config.sessions.gone_after_ms = 600_000).await;
    let path = format!("/live/paid/index.m3u8?token={}", token(|claims| claims.max_sessions = Some(2)));
    for n in 0..3 {
        let head = lab.viewer().await.send(request(Method::HEAD, &path)).await;
        assert_eq!(head.status(), 302, "{n}: HEAD takes no place");
    }
    for (agent, expected) in [("a", 302), ("b", 302), ("c", 403), ("d", 403), ("b", 302)] {
        assert_eq!(by(&lab, agent, &path).await.status(), expected, "{agent}");
    }
    let head = lab.viewer().await.send(request(Method::HEAD, &path)).await;
    assert_eq!(head.status(), 403);
    let other = token(|claims| {
        claims.max_sessions = Some(1);
        claims.sub = Some("user-2".to_owned());
    });
    assert_eq!(status(&lab, &format!("/live/paid/index.m3u8?token={other}")).await, 302);
    assert_eq!(lab.edge.metrics.session_refusals.sessions.get(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_counts_while_it_is_used_and_needs_a_place_again_later() {
    let mut lab = guarded(|config| config.sessions.gone_after_ms = 1).await;
    let mut held = Vec::new();
    let path = format!("/live/paid/index.m3u8?token={}", token(|claims| claims.max_sessions = Some(1)));
    let located = |response: Response<Incoming>| base(header(&response, "location"));
    let first = located(by(&lab, "a", &path).await);
    // A held request keeps the place, for however long.
    let viewer = lab.begin(&format!("{first}/v720/7.1.m4s")).await;
    let ask = next_object(&mut lab, &mut held).await;
    for _ in 0..3 {
        assert_eq!(by(&lab, "b", &path).await.status(), 403);
    }
    ask.answer(200, 60, "part").await;
    assert_eq!(body(within(viewer).await.unwrap()).await.unwrap(), "part");
    // It is not used any more, so that another gets its place, and it is not let in beside that one.
    let mut second = by(&lab, "b", &path).await;
    while second.status() == 403 {
        second = by(&lab, "b", &path).await;
    }
    let second = located(second);
    let viewer = lab.begin(&format!("{second}/v720/8.1.m4s")).await;
    let ask = next_object(&mut lab, &mut held).await;
    assert_eq!(status(&lab, &format!("{first}/v720/7.1.m4s")).await, 403);
    ask.answer(200, 60, "part").await;
    assert_eq!(within(viewer).await.unwrap().status(), 200);
    within(async { while status(&lab, &format!("{first}/v720/7.1.m4s")).await != 200 {} }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_the_first_policy_viewers_are_asked_to_come_again() {
    let mut lab = waiting(|_| {}).await;
    for path in ["/live/demo/index.m3u8", PART] {
        let response = get(&lab, path).await;
        assert_eq!(response.status(), 503, "{path}");
        assert!(!header(&response, "retry-after").is_empty());
    }
    // A document that cannot be used is none.
    lab.ask().await.answer(200, 0, "{}").await;
    drop(lab.ask().await.head(403, &[]));
    within(until(|| lab.edge.metrics.policy_polls.failed.get() == 2)).await;
    assert_eq!(status(&lab, "/live/demo/index.m3u8").await, 503);
    answer_policy(lab.ask().await, &policy(1, vec![])).await;
    within(until(|| lab.edge.metrics.policy_polls.changed.get() == 1)).await;
    assert_eq!(status(&lab, "/live/demo/index.m3u8").await, 302);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_policy_everything_is_public_and_old_sessions_still_play() {
    let mut lab = Lab::with(|config| config.sessions.enabled = true);
    let location = sent_to(&lab, "/live/demo/index.m3u8").await;
    let foreign = format!("/s/{}{}/v720/7.1.m4s", "Ag".to_owned() + &"A".repeat(78), "/live/demo");
    let viewer = lab.begin(&foreign).await;
    lab.ask().await.answer(200, 60, "part").await;
    assert_eq!(within(viewer).await.unwrap().status(), 200);
    lab.until_no_fills().await;
    for _ in 0..2 {
        assert_eq!(status(&lab, &format!("{}/v720/7.1.m4s", base(&location))).await, 200);
    }
    let verdicts = &lab.edge.metrics.verdicts;
    assert_eq!((verdicts.miss.get(), verdicts.hit.get()), (2, 1));
    assert_eq!(status(&lab, "/internal/edge/policy").await, 403);
}
