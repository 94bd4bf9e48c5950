//! Coalescing end to end: one upstream request, everybody answered, nobody left behind.

use super::fake::Fake;
use super::*;
use crate::upstream::Protocol;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn br_15_a_thousand_identical_requests_are_one_upstream_request() {
    let mut lab = Lab::new();
    let mut viewers = Vec::new();
    for connection in 0..10 {
        let viewer = lab.viewer().await;
        for n in 0..100 {
            let mut viewer = viewer.clone();
            // Identity and unknown keys differ; the object does not.
            let path = format!("{PLAYLIST}&CMCD=sid%3D{connection}&token=t{n}");
            viewers.push(tokio::spawn(async move { body(viewer.get(&path).await).await.unwrap() }));
        }
    }
    lab.until_waiting(1000).await;
    let ask = lab.ask().await;
    assert_eq!(ask.path, PLAYLIST);
    ask.answer(200, 12, "#EXTM3U\nseven one").await;
    for viewer in viewers {
        assert_eq!(within(viewer).await.unwrap(), "#EXTM3U\nseven one");
    }
    assert_eq!(lab.fake.count(), 1);
    lab.until_waiting(0).await;
    let requests = &lab.edge.metrics.requests;
    assert_eq!((requests.miss.get(), requests.join.get()), (1, 999));

    let hit = lab.viewer().await.get(PLAYLIST).await;
    assert_eq!(header(&hit, "cache-status"), "sigma-edge; hit");
    assert_eq!(body(hit).await.unwrap(), "#EXTM3U\nseven one");
    assert_eq!(lab.fake.count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn viewers_stream_while_the_fill_is_running() {
    let mut lab = Lab::new();
    let early = lab.begin(PART).await;
    let feed = lab.ask().await.head(200, &[("cache-control", "max-age=12")]);
    let mut early = within(early).await.unwrap();
    let mut late = lab.viewer().await.get(PART).await;
    assert_eq!(header(&early, "cache-status"), "sigma-edge; fwd=miss");
    assert_eq!(header(&late, "cache-status"), "sigma-edge; fwd=miss; collapsed");
    for chunk in ["first", "second", "third"] {
        // The next chunk is only sent after both viewers have this one.
        feed.send(chunk).await;
        for viewer in [&mut early, &mut late] {
            let frame = within(viewer.body_mut().frame()).await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), chunk);
        }
    }
    drop(feed);
    for viewer in [&mut early, &mut late] {
        // HTTP/2 may carry the end in an empty frame of its own.
        while let Some(frame) = within(viewer.body_mut().frame()).await {
            assert!(frame.expect("a proper end").into_data().unwrap().is_empty());
        }
    }
    assert_eq!(lab.fake.count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_viewer_leaving_cancels_nothing() {
    let mut lab = Lab::new();
    let first = lab.begin(PART).await;
    lab.until_waiting(1).await;
    let second = lab.begin(PART).await;
    lab.until_waiting(2).await;
    first.abort();
    lab.until_waiting(1).await;
    lab.ask().await.answer(200, 12, "part").await;
    assert_eq!(body(within(second).await.unwrap()).await.unwrap(), "part");
    assert_eq!(lab.fake.count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_leaving_leaves_no_waiter_and_a_finished_object() {
    let mut lab = Lab::new();
    // One leaves before the head, one in the middle of the body; one of them over HTTP/1.1.
    let mut sender = h1(lab.edge.http[0]).await;
    let early = tokio::spawn(async move { sender.send_request(request(Method::GET, PART)).await.map(drop) });
    lab.until_waiting(1).await;
    let late = lab.begin(PART).await;
    lab.until_waiting(2).await;
    early.abort();
    lab.until_waiting(1).await;
    let feed = lab.ask().await.head(200, &[("cache-control", "max-age=12")]);
    feed.send("half ").await;
    drop(within(late).await.unwrap());
    lab.until_waiting(0).await;
    feed.send("whole").await;
    drop(feed);
    lab.until_no_fills().await;
    let hit = lab.viewer().await.get(PART).await;
    assert_eq!(header(&hit, "cache-status"), "sigma-edge; hit");
    assert_eq!(body(hit).await.unwrap(), "half whole");
    assert_eq!(lab.fake.count(), 1);
    within(until(|| lab.edge.metrics.bodies.aborted.get() >= 1)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_aborted_fill_is_an_error_and_is_fetched_again() {
    let mut lab = Lab::new();
    let h2 = lab.begin(PLAYLIST).await;
    lab.until_waiting(1).await;
    let mut sender = h1(lab.edge.http[0]).await;
    let h1 = tokio::spawn(async move { sender.send_request(request(Method::GET, PLAYLIST)).await.unwrap() });
    lab.until_waiting(2).await;
    let feed = lab.ask().await.head(200, &[("cache-control", "max-age=12")]);
    feed.send("half ").await;
    let (mut h2, mut h1) = (within(h2).await.unwrap(), within(h1).await.unwrap());
    for viewer in [&mut h2, &mut h1] {
        assert_eq!(first_piece(viewer).await, "half ");
    }
    feed.abort().await;
    assert!(body(h2).await.is_err(), "RST_STREAM");
    assert!(body(h1).await.is_err(), "closed without the final chunk");
    lab.until_waiting(0).await;

    let mut again = lab.begin(PLAYLIST).await;
    // An upstream that was silent for too long on a busy machine is asked a second time: either may be answered.
    let again = within(async {
        loop {
            tokio::select! {
                again = &mut again => return again.unwrap(),
                ask = lab.ask() => ask.answer(200, 12, "half whole").await,
            }
        }
    })
    .await;
    assert_eq!(header(&again, "cache-status"), "sigma-edge; fwd=miss");
    assert_eq!(body(again).await.unwrap(), "half whole");
    assert_eq!(lab.edge.metrics.upstream_requests.broken.get(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_shorter_than_its_length_is_aborted() {
    let mut lab = Lab::new();
    let viewer = lab.begin(PLAYLIST).await;
    let headers = [("cache-control", "max-age=12"), ("content-length", "100")];
    let feed = lab.ask().await.head(200, &headers);
    feed.send("short").await;
    let viewer = within(viewer).await.unwrap();
    assert_eq!(header(&viewer, "content-length"), "100");
    drop(feed);
    assert!(body(viewer).await.is_err());
    lab.until_no_fills().await;
    assert_eq!(lab.edge.metrics.upstream_requests.broken.get(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn waiters_and_fills_are_bounded() {
    let mut lab = Lab::with(|config| {
        config.limits.waiters_per_object_max = 2;
        config.limits.waiters_max = 3;
        config.upstream.requests_max = 2;
    });
    let other = "/live/demo/v720/7.2.m4s";
    let mut waiting = vec![lab.begin(PART).await, lab.begin(PART).await];
    lab.until_waiting(2).await;
    let shed = lab.viewer().await.get(PART).await;
    assert_eq!(shed.status(), 503, "per object");
    assert!(["1", "2", "3"].contains(&header(&shed, "retry-after")));
    assert_eq!(header(&shed, "access-control-allow-origin"), "*");
    waiting.push(lab.begin(other).await);
    lab.until_waiting(3).await;
    assert_eq!(lab.viewer().await.get(other).await.status(), 503, "in total");
    assert_eq!(lab.edge.metrics.requests.shed.get(), 2);
    for _ in 0..2 {
        lab.ask().await.answer(200, 12, "part").await;
    }
    for viewer in waiting {
        assert_eq!(body(within(viewer).await.unwrap()).await.unwrap(), "part");
    }
    lab.until_waiting(0).await;
    lab.until_no_fills().await;

    let _fills = [lab.begin("/live/a/v/1.m4s").await, lab.begin("/live/b/v/1.m4s").await];
    lab.until_waiting(2).await;
    assert_eq!(lab.viewer().await.get("/live/c/v/1.m4s").await.status(), 503, "fills");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_trickles_for_ever_is_given_up() {
    let mut lab = Lab::with(|config| {
        config.upstream.response_timeout_ms = 10_000;
        config.upstream.body_timeout_ms = 300;
    });
    let viewer = lab.begin(PART).await;
    let feed = lab.ask().await.head(200, &[("cache-control", "max-age=12")]);
    let viewer = within(viewer).await.unwrap();
    let trickle = async {
        while feed.try_send("drop").await {
            let sent = std::time::Instant::now();
            until(|| sent.elapsed() > Duration::from_millis(20)).await;
        }
    };
    let (cut_off, ()) = tokio::join!(body(viewer), within(trickle));
    assert!(cut_off.is_err());
    lab.until_no_fills().await;
    assert_eq!(lab.edge.metrics.upstream_requests.timed_out.get(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_that_is_too_large_is_given_up() {
    let mut lab = Lab::with(|config| config.cache.object_bytes_max = 8);
    let viewer = lab.begin(PART).await;
    let feed = lab.ask().await.head(200, &[("cache-control", "max-age=12")]);
    let viewer = within(viewer).await.unwrap();
    feed.send("123456789").await;
    assert!(body(viewer).await.is_err());
    lab.until_no_fills().await;
    assert_eq!(lab.edge.metrics.upstream_requests.too_large.get(), 1);
    assert_eq!(lab.edge.metrics.fill_bytes.get(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_fills_than_the_upstream_has_streams() {
    let dir = certificates();
    let mut fake = Fake::start(dir.path(), "127.0.0.1:0".parse().unwrap(), 4);
    let edge = app::start(&config(dir.path(), fake.addr), &Sockets::none()).unwrap();
    let viewer = Viewer::h2(edge.http[0]).await;
    let viewers: Vec<_> = (0..80)
        .map(|n| {
            let mut viewer = viewer.clone();
            tokio::spawn(
                async move { body(viewer.get(&format!("/live/demo/v/{n}.m4s")).await).await.unwrap() },
            )
        })
        .collect();
    within(until(|| edge.metrics.waiters.get() == 80)).await;
    for _ in 0..80 {
        within(fake.asks.recv()).await.unwrap().answer(200, 12, "segment").await;
    }
    for viewer in viewers {
        assert_eq!(within(viewer).await.unwrap(), "segment");
    }
    assert_eq!(fake.connections.accepted.get(), 1, "one pooled connection");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leaving_upstream_fails_no_viewer() {
    let mut lab = Lab::new();
    let held = lab.begin(PART).await;
    let ask = lab.ask().await;
    // GOAWAY, and the listener is gone; a successor takes the same port.
    lab.fake.drain.start();
    let addr = lab.fake.addr;
    let mut next = within(async {
        loop {
            if std::net::TcpListener::bind(addr).is_ok() {
                break Fake::start(lab.dir.path(), addr, 1000);
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    let answers = tokio::spawn(async move {
        while let Some(ask) = next.asks.recv().await {
            ask.answer(200, 12, "new").await;
        }
    });
    // What is sent before the GOAWAY arrives is still the old one's to answer; then the successor takes over.
    for msn in 0.. {
        let fresh = lab.begin(&format!("/live/demo/v720/{msn}.m4s")).await;
        let fresh = async { body(fresh.await.unwrap()).await.unwrap() };
        let mut fresh = std::pin::pin!(within(fresh));
        let text = tokio::select! {
            text = &mut fresh => text,
            Some(ask) = lab.fake.asks.recv() => {
                ask.answer(200, 12, "old").await;
                fresh.await
            }
        };
        if text == "new" {
            break;
        }
    }
    // The held request is answered by the one that holds it, or, when the client side gave the stream up on the
    // GOAWAY, by the successor that was asked again.
    let kept = ask.head(200, &[("cache-control", "max-age=12")]).try_send("old").await;
    let text = body(within(held).await.unwrap()).await.unwrap();
    assert!(text == "new" || (kept && text == "old"), "{text:?}");
    assert_eq!(counters(&lab.edge, addr).of(Protocol::H2).connects.get(), 2);
    answers.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_behind_an_edge() {
    let mut lab = Lab::new();
    let mut settings = config(lab.dir.path(), lab.fake.addr);
    settings.upstream.urls = vec![format!("http://{}", lab.edge.http[0]).try_into().unwrap()];
    let outer = app::start(&settings, &Sockets::none()).unwrap();
    let viewer = Viewer::h2(outer.http[0]).await;
    let ask = |path: &'static str| {
        let mut viewer = viewer.clone();
        tokio::spawn(async move { viewer.get(path).await })
    };
    let held = ask(PLAYLIST);
    let headers = [("cache-control", "max-age=12"), ("age", "2")];
    lab.ask().await.head(200, &headers).send("#EXTM3U").await;
    let held = within(held).await.unwrap();
    assert!(header(&held, "age").parse::<u32>().unwrap() >= 2, "ages add up");
    assert_eq!(header(&held, "access-control-allow-origin"), "*");
    assert_eq!(body(held).await.unwrap(), "#EXTM3U");
    // A broken fill is broken at every tier.
    let part = ask("/live/demo/v720/media.m3u8?_HLS_msn=7&_HLS_part=2");
    let feed = lab.ask().await.head(200, &headers);
    feed.send("half").await;
    let mut part = within(part).await.unwrap();
    assert_eq!(first_piece(&mut part).await, "half");
    feed.abort().await;
    assert!(body(part).await.is_err());
    assert_eq!(outer.metrics.upstream_requests.broken.get(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_part_that_comes_next_is_asked_for_before_a_viewer_asks() {
    let mut lab = Lab::new();
    let viewer = lab.begin(PLAYLIST).await;
    let next = [("cache-control", "max-age=12"), ("cmsd-static", "nor=\"7.2.m4s\",ot=m,sf=h,st=ll")];
    lab.ask().await.head(200, &next).send("#EXTM3U").await;
    within(viewer).await.unwrap();
    let ask = lab.ask().await;
    assert_eq!(ask.path, "/live/demo/v720/7.2.m4s");
    let viewer = lab.begin("/live/demo/v720/7.2.m4s").await;
    lab.until_waiting(1).await;
    // A part that names another one starts no chain.
    let chained = [("cache-control", "max-age=12"), ("cmsd-static", "nor=\"7.3.m4s\",ot=v")];
    ask.head(200, &chained).send("part").await;
    assert_eq!(body(within(viewer).await.unwrap()).await.unwrap(), "part");
    lab.until_no_fills().await;
    assert_eq!(lab.fake.count(), 2);
    assert_eq!(lab.edge.metrics.prefetches.get(), 1);
}
