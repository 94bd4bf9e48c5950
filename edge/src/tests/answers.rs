//! Single answers: what is refused here, what passes, what is kept and for how long.

use super::*;
use crate::metrics::Reading;
use crate::upstream::Protocol;

async fn hit_or_miss(lab: &mut Lab, path: &str, status: u16, max_age_s: u32) -> Vec<String> {
    let mut seen = Vec::new();
    for _ in 0..2 {
        let viewer = lab.begin(path).await;
        let response = tokio::select! {
            response = viewer => response.unwrap(),
            ask = lab.fake.asks.recv() => {
                ask.unwrap().answer(status, max_age_s, "answer").await;
                continue_after(lab).await;
                seen.push("asked".to_owned());
                continue;
            }
        };
        assert_eq!(response.status(), status);
        seen.push(header(&response, "cache-status").to_owned());
    }
    seen
}

async fn continue_after(lab: &Lab) {
    lab.until_no_fills().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_upstream_states_is_obeyed() {
    let mut lab = Lab::new();
    let (asked, hit) = ("asked", "sigma-edge; hit");
    for (path, status, max_age_s, expected) in [
        (PART, 200, 12, [asked, hit]),
        (PLAYLIST, 200, 12, [asked, hit]),
        ("/live/demo/v720/media.m3u8", 200, 0, [asked, asked]),
        ("/live/nobody/index.m3u8", 404, 2, [asked, hit]),
        ("/live/nobody/v720/media.m3u8", 404, 2, [asked, hit]),
        // About a moment that may come: true now, perhaps wrong in a second.
        ("/live/demo/v720/8.9.m4s", 404, 2, [asked, asked]),
        ("/live/demo/v720/media.m3u8?_HLS_msn=99", 400, 8, [asked, asked]),
        ("/live/demo/v720/media.m3u8?_HLS_msn=8", 503, 8, [asked, asked]),
    ] {
        assert_eq!(hit_or_miss(&mut lab, path, status, max_age_s).await, expected, "{path}");
    }
    assert_eq!(lab.edge.metrics.requests.negative_hit.get(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_is_fetched_again_when_its_time_is_over() {
    let mut lab = Lab::new();
    let viewer = lab.begin(PART).await;
    lab.ask().await.answer(200, 1, "part").await;
    within(viewer).await.unwrap();
    lab.until_no_fills().await;
    let mut viewer = lab.viewer().await;
    let hits = tokio::spawn(async move {
        let mut hits = 0_u32;
        while header(&viewer.get(PART).await, "cache-status") == "sigma-edge; hit" {
            hits += 1;
        }
        hits
    });
    lab.ask().await.answer(200, 1, "part").await;
    assert!(within(hits).await.unwrap() > 0, "kept for a while, then not");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_pass_and_age_is_added() {
    let mut lab = Lab::new();
    let viewer = lab.begin(PART).await;
    let feed = lab.ask().await.head(
        200,
        &[
            ("cache-control", "public, max-age=12"),
            ("cmsd-static", "ot=v,d=200"),
            ("content-type", "video/mp4"),
            ("content-length", "4"),
            ("etag", "\"x\""),
            ("age", "3"),
        ],
    );
    feed.send("part").await;
    drop(feed);
    within(viewer).await.unwrap();
    lab.until_no_fills().await;
    let mut viewer = lab.viewer().await;
    for method in [Method::GET, Method::HEAD] {
        let head_only = method == Method::HEAD;
        let response = viewer.send(request(method, PART)).await;
        for (name, expected) in [
            ("cache-control", "public, max-age=12"),
            ("cmsd-static", "ot=v,d=200"),
            ("content-type", "video/mp4"),
            ("content-length", "4"),
            ("etag", "\"x\""),
            ("access-control-allow-origin", "*"),
            ("timing-allow-origin", "*"),
        ] {
            assert_eq!(header(&response, name), expected, "{name}");
        }
        assert!(header(&response, "age").parse::<u32>().unwrap() >= 3);
        let expected = if head_only { "" } else { "part" };
        assert_eq!(body(response).await.unwrap(), expected);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn codings_are_asked_for_and_kept_apart() {
    let mut lab = Lab::new();
    let path = "/live/demo/index.m3u8";
    for (accept, coding) in [("gzip, br", "gzip"), ("br", "")] {
        let mut viewer = lab.viewer().await;
        let mut asked = request(Method::GET, path);
        asked.headers_mut().insert("accept-encoding", accept.parse().unwrap());
        asked.headers_mut().insert("cookie", "who=me".parse().unwrap());
        asked.headers_mut().insert("range", "bytes=0-1".parse().unwrap());
        let response = tokio::spawn(async move { viewer.send(asked).await });
        let ask = lab.ask().await;
        let got = ask.headers.get("accept-encoding").map_or("", |v| v.to_str().unwrap());
        assert_eq!(got, coding);
        assert!(ask.headers.get("cookie").is_none() && ask.headers.get("range").is_none());
        ask.answer(200, 2, "#EXTM3U").await;
        assert_eq!(within(response).await.unwrap().status(), 200);
    }
    assert_eq!(lab.fake.count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn head_leads_a_fill_like_get() {
    let mut lab = Lab::new();
    let mut viewer = lab.viewer().await;
    let head = tokio::spawn(async move { viewer.send(request(Method::HEAD, PART)).await });
    lab.ask().await.answer(200, 12, "part").await;
    let head = within(head).await.unwrap();
    assert_eq!(head.status(), 200);
    assert_eq!(body(head).await.unwrap(), "");
    lab.until_no_fills().await;
    let hit = lab.viewer().await.get(PART).await;
    assert_eq!(body(hit).await.unwrap(), "part");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_here_never_reaches_the_upstream() {
    let lab = Lab::new();
    let mut viewer = lab.viewer().await;
    let playlist = "/live/demo/v720/media.m3u8";
    for (method, path, status) in [
        (Method::GET, "/", 404),
        (Method::GET, "/live/Demo/index.m3u8", 404),
        (Method::GET, "/live/../etc/passwd", 404),
        (Method::GET, "/live/demo/v720/%2e%2e/1.m4s", 404),
        (Method::GET, "/watch/No", 404),
        (Method::GET, "/watch/assets/../watch.html", 404),
        (Method::HEAD, "/nothing", 404),
        (Method::GET, &format!("{playlist}?_HLS_part=1"), 400),
        (Method::GET, &format!("{playlist}?_HLS_msn=-1"), 400),
        (Method::GET, &format!("{playlist}?_HLS_msn=1&_HLS_msn=2"), 400),
        (Method::POST, playlist, 405),
        (Method::DELETE, "/live/demo/index.m3u8", 405),
    ] {
        let response = viewer.send(request(method.clone(), path)).await;
        assert_eq!(response.status(), status, "{method} {path}");
        for name in ["access-control-allow-origin", "access-control-expose-headers"] {
            assert!(!header(&response, name).is_empty(), "DL-11: {name} on {path}");
        }
    }
    let preflight = viewer.send(request(Method::OPTIONS, playlist)).await;
    assert_eq!(preflight.status(), 204);
    assert_eq!(header(&preflight, "access-control-max-age"), "86400");
    let page = viewer.get("/watch/demo").await;
    assert!([200, 404].contains(&page.status().as_u16()));
    let built = page.status() == 200;
    let text = body(page).await.unwrap();
    assert!(built || text.starts_with(b"the watch page was not built"));
    assert_eq!(lab.fake.count(), 0);
    assert_eq!(lab.edge.metrics.fills.get(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_is_bounded_by_bytes() {
    let mut lab = Lab::with(|config| {
        config.cache.bytes_max = 100_000;
        config.cache.negative_bytes_max = 20_000;
    });
    let big: &'static str = Box::leak("x".repeat(10_000).into_boxed_str());
    for n in 0..30 {
        let viewer = lab.begin(&format!("/live/demo/v/{n}.m4s")).await;
        lab.ask().await.answer(200, 60, big).await;
        body(within(viewer).await.unwrap()).await.unwrap();
        let viewer = lab.begin(&format!("/live/nobody-{n}/index.m3u8")).await;
        lab.ask().await.answer(404, 60, "no such channel").await;
        body(within(viewer).await.unwrap()).await.unwrap();
    }
    lab.until_no_fills().await;
    let readings = lab.edge.store.readings();
    let reading = |wanted: &str| {
        let found = readings.iter().find(|(name, ..): &&Reading| name.ends_with(wanted));
        found.map(|(.., value)| *value).unwrap()
    };
    let (bytes, entries) = (reading("cache_bytes"), reading("cache_entries"));
    assert!((80_000..=100_000).contains(&bytes), "{bytes} bytes in {entries} entries");
    assert!(reading("negative_bytes") <= 20_000);
    assert!(reading("negative_entries") >= 10);
    let newest = lab.viewer().await.get("/live/demo/v/29.m4s").await;
    assert_eq!(header(&newest, "cache-status"), "sigma-edge; hit", "what is live stays");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_upstream_is_a_503_until_it_is_back() {
    let dir = certificates();
    let probe = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = probe.local_addr().unwrap();
    drop(probe);
    let mut settings = config(dir.path(), addr);
    settings.upstream.connect_timeout_ms = 500;
    let edge = app::start(&settings, &Sockets::none()).unwrap();
    let mut viewer = Viewer::h2(edge.http[0]).await;
    let response = viewer.get(PLAYLIST).await;
    assert_eq!(response.status(), 503);
    assert_eq!(header(&response, "cache-control"), "no-store");
    assert_eq!(header(&response, "access-control-allow-origin"), "*");
    assert!(!header(&response, "retry-after").is_empty());
    assert_eq!(edge.metrics.upstream_requests.unreachable.get(), 1);
    let mut ops = h1(edge.ops).await;
    let ready = ops.send_request(request(Method::GET, "/readyz")).await.unwrap();
    assert_eq!(ready.status(), 503);

    let mut fake = Fake::start(dir.path(), addr, 1000);
    within(until(|| counters(&edge, addr).of(Protocol::H2).connected.get() == 1)).await;
    let response = tokio::spawn(async move { viewer.get(PLAYLIST).await });
    within(fake.asks.recv()).await.unwrap().answer(200, 12, "back").await;
    assert_eq!(body(within(response).await.unwrap()).await.unwrap(), "back");
    let mut ops = h1(edge.ops).await;
    let ready = ops.send_request(request(Method::GET, "/readyz")).await.unwrap();
    assert_eq!(ready.status(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_never_answers_is_a_503() {
    let mut lab = Lab::with(|config| config.upstream.response_timeout_ms = 200);
    let viewer = lab.begin(PLAYLIST).await;
    let _silent = lab.ask().await;
    let response = within(viewer).await.unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!(header(&response, "cache-control"), "no-store");
    assert_eq!(lab.edge.metrics.upstream_requests.timed_out.get(), 1);
    // Silence inside a body is an abort.
    let viewer = lab.begin(PART).await;
    let feed = lab.ask().await.head(200, &[("cache-control", "max-age=12")]);
    feed.send("half").await;
    assert!(body(within(viewer).await.unwrap()).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_response_that_breaks_before_its_head_is_asked_for_once_more() {
    let mut lab = Lab::new();
    let viewer = lab.begin(PART).await;
    drop(lab.ask().await);
    lab.ask().await.answer(200, 12, "part").await;
    assert_eq!(body(within(viewer).await.unwrap()).await.unwrap(), "part");
    let viewer = lab.begin(PLAYLIST).await;
    drop(lab.ask().await);
    drop(lab.ask().await);
    assert_eq!(within(viewer).await.unwrap().status(), 503);
    assert_eq!(lab.fake.count(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_listed_for_hours_is_kept_for_hours() {
    let mut lab = Lab::new();
    let segment = "/live/demo/v720/7.m4s";
    let viewer = lab.begin(segment).await;
    // To viewers it says 0 s here, so that a second ask would show if we went by it.
    let headers = [("cache-control", "max-age=0"), ("cdn-cache-control", "max-age=86400")];
    lab.ask().await.head(200, &headers).send("segment").await;
    within(viewer).await.unwrap();
    lab.until_no_fills().await;
    let again = lab.viewer().await.get(segment).await;
    assert_eq!(header(&again, "cache-status"), "sigma-edge; hit");
    assert_eq!(header(&again, "cache-control"), "max-age=0");
    assert!(header(&again, "cmsd-dynamic").starts_with("\"pop-1\";rd="));
    assert_eq!(header(&again, "server-timing"), "cache;desc=hit");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_that_redirects_sends_nobody_round_in_circles() {
    let mut lab = Lab::new();
    let viewer = lab.begin("/live/demo/index.m3u8").await;
    let headers = [("location", "/s/session/live/demo/index.m3u8"), ("cache-control", "max-age=60")];
    drop(lab.ask().await.head(302, &headers));
    let response = within(viewer).await.unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!(header(&response, "location"), "");
    assert_eq!(lab.edge.metrics.upstream_requests.broken.get(), 1);
}
