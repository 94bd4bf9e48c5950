//! What is listed beyond memory, and after a crash.

use super::*;
use std::future::Future;

const LIVE: &str = "[live]\nwindow_ms = 12000\n";
const CHANNEL: &str = "dvr_window_s = 600\nmode = \"low-latency\"";

/// Runs until it is killed: dropping a runtime stops everything in it at once, wherever it is.
fn until_killed<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Runtime::new().expect("a runtime").block_on(work)
}

/// Asks until the playlist has `text`.
async fn with(origin: &Origin, path: &str, text: &str) -> String {
    let asking = async {
        loop {
            let answer = get(origin, path).await;
            if answer.status == 200 && answer.text().contains(text) {
                return answer.text().to_owned();
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(BOUND, asking).await.expect("in time")
}

fn numbers(playlist: &str) -> Vec<u64> {
    let named = playlist.lines().filter(|line| !line.starts_with('#'));
    named.map(|line| line.split('.').next().and_then(|n| n.parse().ok()).expect("a number")).collect()
}

/// Where on the channel's timeline an answer says that it is.
fn span(answer: &Answer) -> (u64, u64) {
    answer.header("cmsd-static").and_then(sigma_shared::cmsd::span_us).expect("a span")
}

#[test]
fn hours_are_listed_served_and_there_again_after_a_crash() {
    let data = tempfile::tempdir().expect("a folder");
    let folder = || tempfile::tempdir().expect("a folder");
    let (before, oldest, iframe, part) = until_killed(async {
        let origin = Origin { running: start(data.path(), LIVE, CHANNEL).await, data: folder() };
        let mut publisher = Publisher::connect(&origin, "key-of-one").await.expect("accepted");
        publisher.frames(60 * 50 + 10).await;
        let multivariant = eventually(&origin, "/live/one/index.m3u8").await;
        assert!(multivariant.text().contains("source/low.m3u8"), "the channel's own mode");
        let first = numbers(&with(&origin, "/live/one/source/low.m3u8", ".m4s").await)[0];
        let playlist = with(&origin, "/live/one/source/low.m3u8", &format!("\n{}.m4s", first + 49)).await;
        assert_eq!(numbers(&playlist), (first..first + 50).collect::<Vec<_>>(), "all of it is listed");
        let delta = get(&origin, "/live/one/source/media.m3u8?_HLS_skip=YES").await;
        assert!(delta.text().contains("#EXT-X-SKIP:SKIPPED-SEGMENTS=43"), "SK-01: {}", delta.text());
        // Twelve seconds are in the live window and as long again in memory: this one comes from disk.
        let oldest = eventually(&origin, &format!("/live/one/source/{first}.m4s")).await;
        let part = get(&origin, &format!("/live/one/source/{}.3.m4s", first + 45)).await;
        assert_eq!(part.status, 200);
        assert_eq!(
            get(&origin, &format!("/live/one/source/{first}.0.m4s")).await.status,
            404,
            "parts do not"
        );
        let iframe = get(&origin, &format!("/live/one/source/{first}.i.m4s")).await;
        assert_eq!(iframe.status, 200);
        assert!(
            oldest.body.windows(9).any(|bytes| bytes == b"picture 0")
                && iframe.body.len() < oldest.body.len()
        );
        // The writer is asynchronous: what counts as written is what the archive says.
        with(&origin, "/live/one/source/low.m3u8", &format!("\n{}.m4s", first + 49)).await;
        let archived = span(&oldest);
        let next = eventually(&origin, &format!("/live/one/source/{}.m4s", first + 1)).await;
        assert_eq!(span(&next).0, archived.1, "neighbours touch in the archive");
        (playlist, oldest, iframe.body, part)
    });
    until_killed(async {
        let origin = Origin { running: start(data.path(), LIVE, CHANNEL).await, data: folder() };
        let first = numbers(&before)[0];
        let playlist = with(&origin, "/live/one/source/low.m3u8", ".m4s").await;
        let lines = |text: &str| {
            text.split("#EXT-X-MAP").nth(1).map(|rest| rest.split("#EXT-X-REND").next().map(str::to_owned))
        };
        let (old, new) =
            (lines(&before).flatten().expect("lines"), lines(&playlist).flatten().expect("lines"));
        // The newest segments may not have been written when it was killed.
        let sure = old.split("#EXTINF").take(45).collect::<Vec<_>>().join("#EXTINF");
        assert!(new.starts_with(&sure), "{old}\n{new}");
        let again = eventually(&origin, &format!("/live/one/source/{first}.m4s")).await;
        assert_eq!((&again.body, span(&again)), (&oldest.body, span(&oldest)));
        assert_eq!(eventually(&origin, &format!("/live/one/source/{first}.i.m4s")).await.body, iframe);
        let at = format!("/live/one/source/{}.3.m4s", first + 45);
        let again = get(&origin, &at).await;
        assert_eq!((&again.body, span(&again)), (&part.body, span(&part)), "PT-10");
        assert_eq!(get(&origin, &format!("/live/one/source/{}.99.m4s", first + 45)).await.status, 404);
        let mut publisher = Publisher::connect(&origin, "key-of-one").await.expect("accepted");
        publisher.frames(200).await;
        let playlist = with(&origin, "/live/one/source/low.m3u8", "#EXT-X-DISCONTINUITY\n").await;
        let all = numbers(&playlist);
        assert!(all.windows(2).all(|pair| pair[1] == pair[0] + 1), "EV-01: {all:?}");
        assert!(playlist.contains("#EXT-X-GAP"), "EV-11: {playlist}");
    });
}

#[test]
fn a_session_that_ended_is_not_gone_on_with() {
    let data = tempfile::tempdir().expect("a folder");
    let folder = || tempfile::tempdir().expect("a folder");
    let channel = format!("{CHANNEL}\nstop_timeout_s = 0");
    until_killed(async {
        let origin = Origin { running: start(data.path(), LIVE, &channel).await, data: folder() };
        let mut publisher = Publisher::connect(&origin, "key-of-one").await.expect("accepted");
        publisher.frames(60 * 8).await;
        eventually(&origin, "/live/one/index.m3u8").await;
        drop(publisher);
        with(&origin, "/live/one/source/low.m3u8", "#EXT-X-ENDLIST").await;
        // Said to the archive before the list is shown as ended, written when its thread gets to it.
        let ended = async {
            let folder = data.path().join("dvr/one/source");
            let notes = || {
                std::fs::read_dir(&folder).into_iter().flatten().flatten().any(|file| {
                    std::fs::read(file.path())
                        .is_ok_and(|bytes| bytes.windows(5).any(|bytes| bytes == b"ended"))
                })
            };
            while !notes() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(BOUND, ended).await.expect("in time");
    });
    until_killed(async {
        let origin = Origin { running: start(data.path(), LIVE, &channel).await, data: folder() };
        let answer = get(&origin, "/live/one/source/low.m3u8").await;
        assert_ne!(answer.status, 200, "{}", answer.text());
    });
}
