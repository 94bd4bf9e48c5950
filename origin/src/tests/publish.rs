//! Who may publish, and what becomes of a stream when its publisher goes and comes back.

use super::*;

#[tokio::test]
async fn an_unknown_key_is_refused_and_told_so() {
    let origin = origin("").await;
    let (code, description) = Publisher::connect(&origin, "no-such-key").await.err().expect("refused");
    assert_eq!(code, "NetStream.Publish.Denied");
    assert_eq!(description, "unknown stream key");
}

#[tokio::test]
async fn a_second_publisher_is_refused_and_the_first_goes_on() {
    let origin = origin("").await;
    let mut first = Publisher::connect(&origin, "key-of-one").await.expect("accepted");
    let (code, _) = Publisher::connect(&origin, "key-of-one").await.err().expect("refused");
    assert_eq!(code, "NetStream.Publish.BadName");
    first.frames(150).await;
    eventually(&origin, "/live/one/index.m3u8").await;
}

#[tokio::test]
async fn a_reconnect_continues_behind_one_discontinuity() {
    let origin = origin("").await;
    let mut first = Publisher::connect(&origin, "key-of-one").await.expect("accepted");
    first.frames(200).await;
    drop(first);
    let before = eventually(&origin, "/live/one/source/media.m3u8").await;
    let mut second = loop {
        // The place is free once what the first one sent has been dealt with.
        match Publisher::connect(&origin, "key-of-one").await {
            Ok(publisher) => break publisher,
            Err((code, _)) => assert_eq!(code, "NetStream.Publish.BadName"),
        }
    };
    second.frames(200).await;
    let marked = async {
        loop {
            let playlist = get(&origin, "/live/one/source/media.m3u8").await;
            if playlist.text().matches("#EXTINF").count() >= 6 {
                return playlist;
            }
            tokio::task::yield_now().await;
        }
    };
    let after = tokio::time::timeout(BOUND, marked).await.expect("in time");
    assert_eq!(after.text().matches("#EXT-X-DISCONTINUITY\n").count(), 1, "{}", after.text());
    let numbers: Vec<u64> =
        after.text().lines().filter_map(|line| line.strip_suffix(".m4s")?.parse().ok()).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "EV-01 {numbers:?}");
    assert!(before.text().lines().any(|line| line == format!("{}.m4s", numbers[0])));
}
