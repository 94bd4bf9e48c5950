//! Names and numbers that somebody makes up: what they cost the upstream, and those who watch what is there.

use super::*;
use crate::tips::ODD_MAX;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

const TIP: [(&str, &str); 2] =
    [("cache-control", "max-age=12"), ("cmsd-static", "com.sigma-live-tip=\"6.6.2\",ot=m,sf=h,st=ll")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_invented_channels_costs_a_bounded_number_of_requests_and_no_memory() {
    let mut lab = Lab::with(|config| {
        config.limits.unknown_channels_per_s = 10;
        config.cache.negative_bytes_max = 20_000;
    });
    let viewer = lab.begin(PART).await;
    lab.ask().await.answer(200, 0, "part").await;
    assert_eq!(within(viewer).await.unwrap().status(), 200);
    let began = Instant::now();
    let (count, mut viewer) = (Arc::clone(&lab.fake.count), lab.viewer().await);
    let flood = tokio::spawn(async move {
        let mut shed = 0;
        for n in 0..3_000 {
            let response = viewer.get(&format!("/live/x{n}/index.m3u8")).await;
            shed += usize::from(response.status() == 503);
        }
        shed
    });
    while !flood.is_finished() {
        if let Ok(ask) = tokio::time::timeout(Duration::from_millis(20), lab.fake.asks.recv()).await {
            ask.unwrap().refuse(404).await;
        }
    }
    let (shed, elapsed) = (within(flood).await.unwrap(), began.elapsed());
    let asked = count.load(Ordering::SeqCst) - 1;
    assert!(asked <= 101 + usize::try_from(elapsed.as_millis() / 100).unwrap(), "{asked} in {elapsed:?}");
    assert_eq!((shed + asked, lab.edge.metrics.requests.shed.get()), (3_000, shed as u64));
    lab.until_no_fills().await;
    let negative =
        lab.edge.store.readings().into_iter().find(|(name, ..)| *name == "sigma_edge_negative_bytes");
    assert!(negative.unwrap().2 <= 20_000);
    // Who watches a channel that is on notices nothing of it.
    let viewer = lab.begin("/live/demo/v720/9.1.m4s").await;
    lab.ask().await.answer(200, 0, "part").await;
    assert_eq!(within(viewer).await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_invented_renditions_costs_a_bounded_number_of_requests() {
    let mut lab = Lab::with(|config| config.limits.unknown_channels_per_s = 10);
    let viewer = lab.begin("/live/demo/index.m3u8").await;
    let listing =
        [("cache-control", "max-age=1"), ("cmsd-static", "com.sigma-live-renditions=\"v720\",ot=m")];
    lab.ask().await.head(200, &listing).send("#EXTM3U").await;
    assert_eq!(within(viewer).await.unwrap().status(), 200);
    let began = Instant::now();
    let (count, mut viewer) = (Arc::clone(&lab.fake.count), lab.viewer().await);
    let flood = tokio::spawn(async move {
        for n in 0..1_000 {
            let response = viewer.get(&format!("/live/demo/r{n}/media.m3u8")).await;
            assert!([404, 503].contains(&response.status().as_u16()));
        }
    });
    while !flood.is_finished() {
        if let Ok(ask) = tokio::time::timeout(Duration::from_millis(20), lab.fake.asks.recv()).await {
            ask.unwrap().refuse(404).await;
        }
    }
    within(flood).await.unwrap();
    let (asked, elapsed) = (count.load(Ordering::SeqCst) - 1, began.elapsed());
    assert!(asked <= 101 + usize::try_from(elapsed.as_millis() / 100).unwrap(), "{asked} in {elapsed:?}");
    // The rendition that is there is asked for, though nobody did before.
    let viewer = lab.begin(PART).await;
    lab.ask().await.answer(200, 0, "part").await;
    assert_eq!(within(viewer).await.unwrap().status(), 200);
}

/// Whatever the number: what is past is one question, and what is too far ahead none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn numbers_that_are_made_up_are_not_asked_for_one_by_one() {
    let mut lab = Lab::new();
    let viewer = lab.begin(PLAYLIST).await;
    lab.ask().await.head(200, &TIP).send("seven one").await;
    assert_eq!(body(within(viewer).await.unwrap()).await.unwrap(), "seven one");
    let began = Instant::now();
    let mut viewer = lab.viewer().await;
    let flood = tokio::spawn(async move {
        for n in 0..300 {
            let past =
                viewer.get(&format!("/live/demo/v720/media.m3u8?_HLS_msn={}&_HLS_part={n}", n % 6)).await;
            assert_eq!(body(past).await.unwrap(), "seven one");
            let ahead = viewer.get(&format!("/live/demo/v720/media.m3u8?_HLS_msn={}", 100 + n)).await;
            assert_eq!(ahead.status(), 400);
        }
    });
    while !flood.is_finished() {
        if let Ok(ask) = tokio::time::timeout(Duration::from_millis(20), lab.fake.asks.recv()).await {
            let ask = ask.unwrap();
            let (status, text) = if ask.path.contains("part") { (200, "seven one") } else { (400, "no") };
            ask.head(status, &TIP).send(text).await;
        }
    }
    within(flood).await.unwrap();
    // What the edge knows of the playlist is good for a second, and then one question renews it.
    let asked = u64::try_from(lab.fake.count()).unwrap();
    assert!(asked <= 2 + 2 * began.elapsed().as_secs(), "{asked} in {:?}", began.elapsed());
    // A delta update stays its own.
    let viewer = lab.begin("/live/demo/v720/media.m3u8?_HLS_msn=7&_HLS_part=0&_HLS_skip=YES").await;
    let ask = lab.ask().await;
    assert!(ask.path.ends_with("&_HLS_skip=YES"), "{}", ask.path);
    ask.head(200, &TIP).send("delta").await;
    assert_eq!(body(within(viewer).await.unwrap()).await.unwrap(), "delta");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_numbers_that_are_held_keep_nobody_from_what_comes_next() {
    // 40 strange questions about a channel at once.
    let mut lab = Lab::with(|config| config.limits.unknown_channels_per_s = 4);
    let viewer = lab.begin("/live/demo/v720/media.m3u8").await;
    lab.ask().await.head(200, &TIP).send("seven one").await;
    within(viewer).await.unwrap();
    let viewer = lab.viewer().await;
    let odd: Vec<_> = (0..100)
        .map(|n| {
            let mut viewer = viewer.clone();
            let path = format!("/live/demo/v720/media.m3u8?_HLS_msn=7&_HLS_part={}", 5 + n);
            tokio::spawn(async move { viewer.get(&path).await.status().as_u16() })
        })
        .collect();
    let shed = &lab.edge.metrics.requests.shed;
    within(until(|| shed.get() == 100 - u64::try_from(ODD_MAX).unwrap())).await;
    let mut held = Vec::new();
    for _ in 0..ODD_MAX {
        held.push(lab.ask().await);
    }
    let next = lab.begin("/live/demo/v720/media.m3u8?_HLS_msn=7&_HLS_part=2").await;
    let ask = lab.ask().await;
    assert!(ask.path.ends_with("_HLS_part=2"), "{}", ask.path);
    ask.head(200, &TIP).send("seven two").await;
    assert_eq!(body(within(next).await.unwrap()).await.unwrap(), "seven two");
    // Nor from a rendition that nobody asked for before: what was refused was no question.
    let other = lab.begin("/live/demo/v360/media.m3u8").await;
    lab.ask().await.head(200, &TIP).send("of another rendition").await;
    assert_eq!(within(other).await.unwrap().status(), 200);
    for ask in held {
        ask.refuse(400).await;
    }
    let mut statuses = Vec::new();
    for viewer in odd {
        statuses.push(within(viewer).await.unwrap());
    }
    assert_eq!(statuses.iter().filter(|status| **status == 400).count(), ODD_MAX);
    // Their places are free again.
    lab.until_no_fills().await;
    let viewer = lab.begin("/live/demo/v720/media.m3u8?_HLS_msn=7&_HLS_part=9").await;
    lab.ask().await.refuse(400).await;
    assert_eq!(within(viewer).await.unwrap().status(), 400);
}
