//! Several upstreams, HTTP/3 and HTTP/2, and how they fail.

use super::*;
use crate::upstream::{Protocol, Upstream};
use sigma_http::ops::Readiness;
use std::sync::atomic::Ordering;
use std::time::Instant;

const ANY: &str = "127.0.0.1:0";

/// An edge with a preferred upstream and a standby, both HTTP/2.
struct Pair {
    edge: Running,
    first: Fake,
    second: Fake,
    dir: TempDir,
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn url(addr: SocketAddr) -> crate::config::UpstreamUrl {
    format!("https://{addr}").try_into().unwrap()
}

impl Pair {
    async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = certificates();
        let first = Fake::start(dir.path(), addr(ANY), 10_000);
        let second = Fake::start(dir.path(), addr(ANY), 10_000);
        let mut config = config(dir.path(), first.addr);
        config.upstream.urls.push(url(second.addr));
        config.upstream.hedge_after_ms = 10_000;
        config.upstream.failback_after_ms = 300;
        change(&mut config);
        let edge = app::start(&config, &Sockets::none()).unwrap();
        let pair = Self { edge, first, second, dir };
        for upstream in [pair.first.addr, pair.second.addr] {
            pair.until_well(upstream).await;
        }
        pair
    }

    fn of(&self, upstream: SocketAddr) -> Counters {
        counters(&self.edge, upstream)
    }

    async fn until_well(&self, upstream: SocketAddr) {
        let counters = self.of(upstream);
        within(until(|| counters.probes_good.get() > 0 && counters.state.get() == 0)).await;
    }

    async fn begin(&self, path: &str) -> tokio::task::JoinHandle<Response<Incoming>> {
        let mut viewer = Viewer::h2(self.edge.http[0]).await;
        let path = path.to_owned();
        tokio::spawn(async move { viewer.get(&path).await })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_killed_in_the_middle_of_a_herd_fails_nobody() {
    let mut pair = Pair::with(|_| {}).await;
    let mut viewers = Vec::new();
    for n in 0..20 {
        for path in [PLAYLIST.to_owned(), PART.to_owned(), format!("/live/demo/v720/{n}.m4s")] {
            viewers.push(pair.begin(&path).await);
        }
    }
    within(until(|| pair.edge.metrics.waiters.get() == 60)).await;
    within(until(|| pair.first.count() == 22)).await;
    pair.first.kill();
    for _ in 0..22 {
        within(pair.second.asks.recv()).await.unwrap().answer(200, 12, "answer").await;
    }
    for viewer in viewers {
        assert_eq!(body(within(viewer).await.unwrap()).await.unwrap(), "answer");
    }
    assert_eq!(pair.second.count(), 22, "each object once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_answer_is_also_asked_of_the_next_and_the_first_answer_wins() {
    let waiting_for_nothing =
        ["/live/demo/index.m3u8", "/live/demo/v720/media.m3u8", "/live/demo/v720/3.m4s"];
    for paths in [&[PART, PLAYLIST][..], &waiting_for_nothing] {
        let mut pair = Pair::with(|config| config.upstream.hedge_after_ms = 100).await;
        for path in paths {
            let began = Instant::now();
            let viewer = pair.begin(path).await;
            let late = within(pair.first.asks.recv()).await.unwrap();
            let hedge = within(pair.second.asks.recv()).await.unwrap();
            assert!(began.elapsed() >= Duration::from_millis(100));
            hedge.answer(200, 12, "in time").await;
            assert_eq!(body(within(viewer).await.unwrap()).await.unwrap(), "in time");
            // Cancelled at the upstream: nobody takes the answer any more.
            within(late.cancelled()).await;
        }
        let (second, asked) = (pair.of(pair.second.addr), paths.len() as u64);
        assert_eq!((second.hedges_sent.get(), second.hedges_won.get()), (asked, asked));
        assert_eq!(pair.of(pair.first.addr).cancelled.get(), asked);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_asked_second_and_says_nothing_has_timed_out_too() {
    let mut pair = Pair::with(|config| {
        config.upstream.hedge_after_ms = 50;
        config.upstream.response_timeout_ms = 2_000;
    })
    .await;
    let viewer = pair.begin("/live/demo/v720/3.m4s").await;
    let _unanswered = [within(pair.first.asks.recv()).await, within(pair.second.asks.recv()).await];
    assert_eq!(within(viewer).await.unwrap().status(), 503);
    for upstream in [pair.first.addr, pair.second.addr] {
        let counters = pair.of(upstream);
        within(until(|| counters.timed_out.get() == 1)).await;
        assert_eq!(counters.cancelled.get(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_a_moment_behind_its_hedge_is_as_well_as_before() {
    let mut pair = Pair::with(|config| config.upstream.hedge_after_ms = 50).await;
    let first = pair.of(pair.first.addr);
    for n in 0..9 {
        let viewer = pair.begin(&format!("/live/demo/v720/{n}.1.m4s")).await;
        let late = within(pair.first.asks.recv()).await.unwrap();
        let hedge = within(pair.second.asks.recv()).await.unwrap();
        hedge.answer(200, 12, "hedge").await;
        assert_eq!(body(within(viewer).await.unwrap()).await.unwrap(), "hedge");
        // Not a moment later, once the edge has seen that the hedge won.
        if n < 6 {
            let answered = first.success.get();
            drop(late.head(200, &[]));
            within(until(|| first.success.get() == answered + 1)).await;
            assert_eq!(first.state.get(), 0, "{n}");
        } else {
            within(late.cancelled()).await;
        }
    }
    within(until(|| first.state.get() != 0)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_is_behind_is_never_the_answer() {
    let mut pair = Pair::with(|config| config.upstream.hedge_after_ms = 50).await;
    for (path, status) in [(PART, 404), (PLAYLIST, 400)] {
        let viewer = pair.begin(path).await;
        let late = within(pair.first.asks.recv()).await.unwrap();
        within(pair.second.asks.recv()).await.unwrap().refuse(status).await;
        // It is asked again, in case it catches up.
        within(pair.second.asks.recv()).await.unwrap().refuse(status).await;
        late.answer(200, 12, "part").await;
        let response = within(viewer).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(body(response).await.unwrap(), "part");
        while pair.second.asks.try_recv().is_ok() {}
    }
    // The word of the preferred one counts at once.
    let viewer = pair.begin("/live/demo/v720/9.9.m4s").await;
    within(pair.first.asks.recv()).await.unwrap().answer(404, 2, "no such part").await;
    assert_eq!(within(viewer).await.unwrap().status(), 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn that_it_is_over_is_believed_of_a_standby_when_nobody_says_otherwise() {
    const END: [(&str, &str); 2] =
        [("cache-control", "max-age=12"), ("cmsd-static", "com.sigma-live-tip=\"8.4.0.end\",ot=m")];
    let mut pair = Pair::with(|config| config.upstream.hedge_after_ms = 50).await;
    let viewer = pair.begin(PLAYLIST).await;
    let late = within(pair.first.asks.recv()).await.unwrap();
    let standby = within(pair.second.asks.recv()).await.unwrap();
    // Its encoder is gone, and not that of the other one.
    let over = standby.head(200, &END);
    over.send("over").await;
    within(until(|| pair.of(pair.second.addr).success.get() > 0)).await;
    late.answer(200, 12, "live").await;
    assert_eq!(body(within(viewer).await.unwrap()).await.unwrap(), "live");

    // Who failed may know better when it is asked again; who is gone does not.
    let viewer = pair.begin("/live/demo/v720/media.m3u8?_HLS_msn=9").await;
    let late = within(pair.first.asks.recv()).await.unwrap();
    within(pair.second.asks.recv()).await.unwrap().head(200, &END).send("over").await;
    late.refuse(503).await;
    assert_eq!(within(viewer).await.unwrap().status(), 503);
    let viewer = pair.begin("/live/demo/v720/media.m3u8?_HLS_msn=10").await;
    let _late = within(pair.first.asks.recv()).await.unwrap();
    within(pair.second.asks.recv()).await.unwrap().head(200, &END).send("over").await;
    pair.first.kill();
    assert_eq!(body(within(viewer).await.unwrap()).await.unwrap(), "over");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_catches_up_or_the_answer_is_503() {
    let mut pair = Pair::with(|config| config.upstream.failback_after_ms = 60_000).await;
    let (caught_up, never) = (pair.begin(PART).await, pair.begin(PLAYLIST).await);
    within(until(|| pair.first.count() == 2)).await;
    pair.first.kill();
    let mut refusals = 0;
    while !never.is_finished() {
        let Ok(ask) = tokio::time::timeout(Duration::from_millis(20), pair.second.asks.recv()).await else {
            continue;
        };
        let ask = ask.unwrap();
        let behind = ask.path == PLAYLIST || refusals < 3;
        refusals += usize::from(ask.path == PART && behind);
        match behind {
            true => ask.refuse(404).await,
            false => ask.answer(200, 12, "part").await,
        }
    }
    assert_eq!(body(within(caught_up).await.unwrap()).await.unwrap(), "part");
    assert_eq!(within(never).await.unwrap().status(), 503);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_go_back_to_the_preferred_one_when_it_is_well_for_a_while() {
    let Pair { edge, first, mut second, dir } = Pair::with(|_| {}).await;
    let of_first = counters(&edge, first.addr);
    let addr = first.addr;
    first.kill();
    within(until(|| of_first.state.get() == 2)).await;
    let mut viewer = Viewer::h2(edge.http[0]).await;
    let ask = |path: &str| {
        let mut viewer = viewer.clone();
        let path = path.to_owned();
        tokio::spawn(async move { body(viewer.get(&path).await).await.unwrap() })
    };
    let held = ask("/live/demo/v720/0.m4s");
    within(second.asks.recv()).await.unwrap().answer(200, 12, "second").await;
    assert_eq!(within(held).await.unwrap(), "second");
    assert_eq!(counters(&edge, second.addr).active.get(), 1);

    let mut first = Fake::start(dir.path(), addr, 10_000);
    within(until(|| of_first.state.get() == 0)).await;
    let back = Instant::now();
    for msn in 1.. {
        let held = ask(&format!("/live/demo/v720/{msn}.m4s"));
        let (ask, from) = tokio::select! {
            ask = first.asks.recv() => (ask.unwrap(), 1),
            ask = second.asks.recv() => (ask.unwrap(), 2),
        };
        ask.answer(200, 12, "answer").await;
        within(held).await.unwrap();
        if from == 1 {
            break;
        }
    }
    let waited = back.elapsed();
    assert!(waited >= Duration::from_millis(250), "{waited:?}: only after it was well for a while");
    assert_eq!(of_first.active.get(), 1);
    assert_eq!(viewer.get("/").await.status(), 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fill_that_breaks_before_its_first_byte_goes_on_elsewhere() {
    let mut pair = Pair::with(|_| {}).await;
    let headers = [("cache-control", "max-age=12"), ("content-length", "4"), ("etag", "\"x\"")];
    let viewer = pair.begin(PART).await;
    let feed = within(pair.first.asks.recv()).await.unwrap().head(200, &headers);
    let response = within(viewer).await.unwrap();
    feed.abort().await;
    within(pair.second.asks.recv()).await.unwrap().head(200, &headers).send("part").await;
    assert_eq!(body(response).await.unwrap(), "part");
    // Another object under the same name is no continuation.
    let viewer = pair.begin(PLAYLIST).await;
    let feed = within(pair.first.asks.recv()).await.unwrap().head(200, &headers);
    let response = within(viewer).await.unwrap();
    feed.abort().await;
    let other = [("cache-control", "max-age=12"), ("content-length", "5")];
    let _ = within(pair.second.asks.recv()).await.unwrap().head(200, &other).try_send("other").await;
    assert!(body(response).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_stops_answering_is_a_503_soon_and_readiness_says_so() {
    let mut lab = Lab::with(|config| {
        config.upstream.connect_timeout_ms = 200;
        config.upstream.probe_interval_ms = 100;
    });
    let of_fake = counters(&lab.edge, lab.fake.addr);
    within(until(|| of_fake.probes_good.get() > 0)).await;
    let began = Instant::now();
    let held = lab.begin(PART).await;
    let _unanswered = lab.ask().await;
    lab.fake.mute.store(true, Ordering::SeqCst);
    assert_eq!(within(held).await.unwrap().status(), 503);
    let waited = began.elapsed();
    assert!(waited < Duration::from_secs(4), "{waited:?}: not the whole response timeout");
    assert_eq!(ready(&lab.edge).await.0, 503);
    assert_eq!(lab.viewer().await.get(PLAYLIST).await.status(), 503);

    lab.fake.mute.store(false, Ordering::SeqCst);
    within(until(|| of_fake.state.get() == 0)).await;
    let held = lab.begin(PART).await;
    lab.ask().await.answer(200, 12, "part").await;
    assert_eq!(body(within(held).await.unwrap()).await.unwrap(), "part");
    assert_eq!(ready(&lab.edge).await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_that_breaks_in_the_middle_goes_on_elsewhere() {
    let mut pair = Pair::with(|_| {}).await;
    let headers = [("cache-control", "max-age=12"), ("content-length", "9")];
    for (n, second, whole) in [(1, "first,sec", true), (2, "other,sec", false)] {
        let path = format!("/live/demo/v720/{n}.0.m4s");
        let viewer = pair.begin(&path).await;
        let feed = within(pair.first.asks.recv()).await.unwrap().head(200, &headers);
        feed.send("first,").await;
        let mut response = within(viewer).await.unwrap();
        assert_eq!(first_piece(&mut response).await, "first,");
        feed.abort().await;
        let ask = within(pair.second.asks.recv()).await.unwrap();
        assert_eq!(ask.path, path);
        let _ = ask.head(200, &headers).try_send(second).await;
        let rest = body(response).await;
        assert_eq!(rest.is_ok_and(|rest| rest == "sec"), whole, "{second}");
    }
    let kept = pair.begin("/live/demo/v720/1.0.m4s").await;
    assert_eq!(body(within(kept).await.unwrap()).await.unwrap(), "first,sec");
    // Of a playlist the end would be another one's.
    let viewer = pair.begin(PLAYLIST).await;
    let feed = within(pair.first.asks.recv()).await.unwrap().head(200, &headers);
    feed.send("first,").await;
    let mut response = within(viewer).await.unwrap();
    first_piece(&mut response).await;
    feed.abort().await;
    assert!(body(response).await.is_err());
    assert!(pair.second.asks.try_recv().is_err(), "nobody else is asked");
}

/// A channel that is about to be live is no reason to give up on its origin.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_to_come_again_is_well() {
    let mut lab = Lab::new();
    let state = counters(&lab.edge, lab.fake.addr).state;
    // Probes find it well again soon: looked at all the time.
    let unwell = tokio::spawn(within(until(move || state.get() != 0)));
    let later = [("cache-control", "max-age=0"), ("retry-after", "1")];
    for n in 0.. {
        let refused = lab.begin(&format!("/live/soon{n}/index.m3u8")).await;
        let ask = tokio::time::timeout(Duration::from_secs(1), lab.fake.asks.recv()).await;
        if let Ok(Some(ask)) = ask {
            ask.head(503, if n < 8 { &later } else { &[] }).try_send("later").await;
        }
        assert_eq!(within(refused).await.unwrap().status(), 503);
        if unwell.is_finished() {
            assert!(n >= 8, "{n}: it asked to come again");
            break;
        }
    }
    within(unwell).await.unwrap();
}

async fn ready(edge: &Running) -> (u16, String) {
    let mut ops = h1(edge.ops).await;
    let response = ops.send_request(request(Method::GET, "/readyz")).await.unwrap();
    let status = response.status().as_u16();
    (status, String::from_utf8_lossy(&body(response).await.unwrap()).into_owned())
}

/// An edge whose only upstream may speak both protocols on one port.
fn both(change: impl FnOnce(&mut Config)) -> (Running, Fake, Fake, TempDir) {
    let dir = certificates();
    let h2 = Fake::start(dir.path(), addr(ANY), 10_000);
    let h3 = Fake::start_h3(dir.path(), h2.addr);
    let mut config = config(dir.path(), h2.addr);
    config.upstream.protocol = crate::config::UpstreamProtocol::Auto;
    change(&mut config);
    (app::start(&config, &Sockets::none()).unwrap(), h2, h3, dir)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_3_is_preferred_and_streams() {
    let (edge, h2, mut h3, _dir) = both(|_| {});
    let of_fake = counters(&edge, h3.addr);
    within(until(|| of_fake.of(Protocol::H3).connected.get() == 1)).await;
    let mut viewer = Viewer::h2(edge.http[0]).await;
    let mut part = tokio::spawn({
        let mut viewer = viewer.clone();
        async move { viewer.get(PART).await }
    });
    let headers = [("cache-control", "max-age=12"), ("age", "1"), ("content-length", "11")];
    let feed = within(h3.asks.recv()).await.unwrap().head(200, &headers);
    let mut part = within(&mut part).await.unwrap();
    assert_eq!(header(&part, "age"), "1");
    for chunk in ["first", "second"] {
        feed.send(chunk).await;
        let frame = within(part.body_mut().frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), chunk);
    }
    drop(feed);
    assert_eq!(body(part).await.unwrap(), "");
    assert_eq!(body(viewer.get(PART).await).await.unwrap(), "firstsecond");
    // Broken off in the body: an abort, not an end.
    let playlist = tokio::spawn(async move { viewer.get(PLAYLIST).await });
    let feed = within(h3.asks.recv()).await.unwrap().head(200, &headers);
    feed.send("half").await;
    let mut playlist = within(playlist).await.unwrap();
    assert_eq!(first_piece(&mut playlist).await, "half");
    feed.abort().await;
    assert!(body(playlist).await.is_err());
    assert_eq!((h2.count(), h3.connections.accepted.get()), (0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_udp_goes_nowhere_http_2_is_used_soon() {
    let dir = certificates();
    let mut h2 = Fake::start(dir.path(), addr(ANY), 10_000);
    let blackhole = std::net::UdpSocket::bind(h2.addr).unwrap();
    let mut config = config(dir.path(), h2.addr);
    config.upstream.protocol = crate::config::UpstreamProtocol::Auto;
    let began = Instant::now();
    let edge = app::start(&config, &Sockets::none()).unwrap();
    let mut viewer = Viewer::h2(edge.http[0]).await;
    let part = tokio::spawn(async move { body(viewer.get(PART).await).await.unwrap() });
    within(h2.asks.recv()).await.unwrap().answer(200, 12, "part").await;
    assert_eq!(within(part).await.unwrap(), "part");
    assert!(began.elapsed() < Duration::from_millis(900), "{:?}", began.elapsed());
    // HTTP/3 is tried once more beside it, then left alone for a minute.
    let of_fake = counters(&edge, h2.addr);
    within(until(|| of_fake.of(Protocol::H3).connect_failures.get() == 1)).await;
    assert_eq!(of_fake.of(Protocol::H2).connected.get(), 1);
    drop(blackhole);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_3_is_moved_to_when_it_works() {
    let dir = certificates();
    let h2 = Fake::start(dir.path(), addr(ANY), 10_000);
    let mut config = config(dir.path(), h2.addr);
    config.upstream.protocol = crate::config::UpstreamProtocol::Auto;
    config.upstream.connect_timeout_ms = 10_000;
    let edge = app::start(&config, &Sockets::none()).unwrap();
    let of_fake = counters(&edge, h2.addr);
    within(until(|| of_fake.of(Protocol::H2).connected.get() == 1)).await;
    // The attempt that runs beside it is answered now.
    let mut h3 = Fake::start_h3(dir.path(), h2.addr);
    within(until(|| of_fake.of(Protocol::H3).connected.get() == 1)).await;
    let mut viewer = Viewer::h2(edge.http[0]).await;
    let part = tokio::spawn(async move { body(viewer.get(PART).await).await.unwrap() });
    within(h3.asks.recv()).await.unwrap().answer(200, 12, "part").await;
    assert_eq!(within(part).await.unwrap(), "part");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quic_upstream_that_forgot_the_connection_is_found_again_soon() {
    let (edge, h2, h3, dir) = both(|config| config.upstream.protocol = crate::config::UpstreamProtocol::H3);
    let addr = h2.addr;
    let of_fake = counters(&edge, addr);
    within(until(|| of_fake.of(Protocol::H3).connected.get() == 1)).await;
    // Killed without a word, and back at once as another process.
    h3.kill();
    let mut back = within(async {
        loop {
            if std::net::UdpSocket::bind(addr).is_ok() {
                break Fake::start_h3(dir.path(), addr);
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    let began = Instant::now();
    let mut viewer = Viewer::h2(edge.http[0]).await;
    let part = tokio::spawn(async move { viewer.get(PART).await });
    within(back.asks.recv()).await.unwrap().answer(200, 12, "part").await;
    let part = within(part).await.unwrap();
    assert_eq!(body(part).await.unwrap(), "part", "the request went along");
    let took = began.elapsed();
    // A handshake whose first packet is lost on a busy machine takes a second more.
    assert!(took < Duration::from_millis(2_400), "{took:?}: before the idle timeout of 2.5 s");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_return_of_a_dead_upstream_is_noticed_within_a_part() {
    let dir = certificates();
    let fake = Fake::start(dir.path(), addr(ANY), 10_000);
    let mut config = config(dir.path(), fake.addr);
    config.upstream.protocol = crate::config::UpstreamProtocol::Auto;
    config.upstream.reconnect_ms_max = 250;
    let edge = app::start(&config, &Sockets::none()).unwrap();
    let (of_fake, addr) = (counters(&edge, fake.addr), fake.addr);
    within(until(|| of_fake.probes_good.get() > 0)).await;
    fake.kill();
    let mut viewer = Viewer::h2(edge.http[0]).await;
    let began = Instant::now();
    assert_eq!(viewer.get(PART).await.status(), 503);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    let (status, why) = ready(&edge).await;
    assert_eq!(status, 503);
    assert!(why.contains(&format!("no upstream is connected (of {addr})")), "{why}");

    let part = tokio::spawn(async move { viewer.get(PART).await });
    within(until(|| edge.metrics.waiters.get() == 1)).await;
    let mut back = Fake::start(dir.path(), addr, 10_000);
    let began = Instant::now();
    let answered = tokio::spawn(async move {
        within(back.asks.recv()).await.unwrap().answer(200, 12, "part").await;
        back
    });
    assert_eq!(body(within(part).await.unwrap()).await.unwrap(), "part", "who waited is served");
    assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
    let _back = within(answered).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shield_says_whether_it_has_somebody_to_ask() {
    let pair = Pair::with(|config| config.upstream.probe_interval_ms = 100).await;
    let mut viewer = Viewer::h2(pair.edge.http[0]).await;
    let well = viewer.get(crate::upstream::PROBE_PATH).await;
    assert_eq!((well.status().as_u16(), header(&well, "cache-control")), (204, "no-store"));
    let Pair { edge: _shield, first, second, .. } = pair;
    // The second edge knows the shield only.
    let mut config = config(pair.dir.path(), _shield.tls[0]);
    config.upstream.probe_interval_ms = 100;
    let edge = app::start(&config, &Sockets::none()).unwrap();
    within(async { while ready(&edge).await.0 != 200 {} }).await;
    first.kill();
    second.kill();
    within(async { while viewer.get(crate::upstream::PROBE_PATH).await.status() != 503 {} }).await;
    within(async { while ready(&edge).await.0 != 503 {} }).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn anything_may_be_asked_of_whichever_is_well() {
    let pair = Pair::with(|_| {}).await;
    let mut config = config(pair.dir.path(), pair.first.addr);
    config.upstream.urls.push(url(pair.second.addr));
    let upstream = Upstream::start(&config.upstream, std::sync::Arc::clone(&pair.edge.metrics)).unwrap();
    within(until(|| upstream.readiness() == Readiness::Ready)).await;
    let path = "/internal/edge/policy?after=7";
    let asked = tokio::spawn(async move {
        let mut response = upstream.get_uncached(path).await.unwrap();
        (response.status(), response.body_mut().chunk().await.unwrap())
    });
    let Pair { mut first, mut second, .. } = pair;
    // Whichever was connected first.
    let (broken, other) = tokio::select! {
        ask = first.asks.recv() => (ask.unwrap(), &mut second),
        ask = second.asks.recv() => (ask.unwrap(), &mut first),
    };
    assert_eq!(broken.path, path);
    drop(broken);
    within(other.asks.recv()).await.unwrap().answer(200, 0, "{}").await;
    let (status, chunk) = within(asked).await.unwrap();
    assert_eq!((status.as_u16(), chunk.as_deref()), (200, Some(b"{}".as_slice())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_before_the_end_of_the_request_counts_over_http_3() {
    let dir = certificates();
    let mut fake = Fake::start_h3(dir.path(), addr(ANY));
    let mut config = config(dir.path(), fake.addr);
    config.upstream.protocol = crate::config::UpstreamProtocol::H3;
    let edge = app::start(&config, &Sockets::none()).unwrap();
    let upstream = Upstream::start(&config.upstream, std::sync::Arc::clone(&edge.metrics)).unwrap();
    within(until(|| upstream.readiness() == Readiness::Ready)).await;
    // More than the upstream takes before it reads.
    let posted = tokio::spawn(async move {
        upstream.post("/internal/edge/reports", http::HeaderMap::new(), vec![7; 8 << 20].into()).await
    });
    drop(within(fake.asks.recv()).await.unwrap().head(413, &[]));
    assert_eq!(within(posted).await.unwrap().unwrap().status(), 413);
    assert_eq!(counters(&edge, fake.addr).broken.get(), 0);
}
