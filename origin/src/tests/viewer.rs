//! What viewers and edges are answered.

use super::*;

async fn live(origin: &Origin) -> Publisher {
    let mut publisher = Publisher::connect(origin, "key-of-one").await.expect("accepted");
    publisher.frames(155).await;
    // Two whole segments, and the parts of the third up to frame 155.
    let until = async {
        while !get(origin, "/live/one/source/media.m3u8").await.text().contains(".5.m4s\"\n#EXT-X-R") {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(BOUND, until).await.expect("in time");
    publisher
}

/// The hinted part of a playlist as (msn, part).
fn hinted(playlist: &str) -> (u64, u32) {
    let uri =
        playlist.split("TYPE=PART,URI=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("PH-01");
    let mut numbers = uri.split('.');
    let mut next = || numbers.next().expect("a number");
    (next().parse().expect("msn"), next().parse().expect("part"))
}

#[tokio::test]
async fn mp_06_the_parts_of_a_segment_are_the_segment() {
    let origin = origin("").await;
    let _publisher = live(&origin).await;
    let playlist = get(&origin, "/live/one/source/media.m3u8").await;
    let (msn, _) = hinted(playlist.text());
    let segment = get(&origin, &format!("/live/one/source/{}.m4s", msn - 1)).await;
    assert_eq!(segment.status, 200);
    assert_eq!(segment.header("content-length"), Some(segment.body.len().to_string().as_str()));
    let (mut joined, mut until) = (Vec::new(), None);
    let span =
        |answer: &Answer| answer.header("cmsd-static").and_then(sigma_shared::cmsd::span_us).expect("a span");
    let whole = span(&segment);
    for part in 0..10 {
        let part = get(&origin, &format!("/live/one/source/{}.{part}.m4s", msn - 1)).await;
        assert_eq!(part.status, 200);
        assert!(
            part.header("cmsd-static").is_some_and(|cmsd| cmsd.contains("d=200,") && cmsd.contains("ot=v"))
        );
        let (start, end) = span(&part);
        assert_eq!(start, until.unwrap_or(whole.0), "neighbours touch");
        assert!(end.abs_diff(start + 200_000) <= 1, "{start}-{end}");
        until = Some(end);
        joined.extend(part.body);
    }
    assert_eq!(until, Some(whole.1));
    let before = get(&origin, &format!("/live/one/source/{}.m4s", msn - 2)).await;
    assert_eq!(span(&before).1, whole.0, "and so do segments");
    let picture = get(&origin, &format!("/live/one/source/{}.i.m4s", msn - 1)).await;
    assert_eq!(picture.header("cmsd-static").and_then(sigma_shared::cmsd::span_us), None);
    assert_eq!(joined, segment.body);
    let init = playlist
        .text()
        .split("EXT-X-MAP:URI=\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next())
        .expect("MP-01");
    assert_eq!(get(&origin, &format!("/live/one/source/{init}")).await.status, 200);
}

#[tokio::test]
async fn br_02_ph_05_what_is_not_there_yet_is_waited_for() {
    let origin = origin("").await;
    let mut publisher = live(&origin).await;
    let (msn, part) = hinted(get(&origin, "/live/one/source/media.m3u8").await.text());
    let reload = format!("/live/one/source/media.m3u8?_HLS_msn={msn}&_HLS_part={part}");
    let hinted_part = format!("/live/one/source/{msn}.{part}.m4s");
    let (playlist, bytes, ()) = tokio::join!(get(&origin, &reload), get(&origin, &hinted_part), async {
        // Not before both wait: the gauge is what an operator would see.
        let held = async {
            while origin.running.metrics.held_requests.get() < 2 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(BOUND, held).await.expect("held");
        publisher.frames(6).await;
    });
    assert_eq!((playlist.status, bytes.status), (200, 200));
    assert!(playlist.text().contains(&format!("URI=\"{msn}.{part}.m4s\"")), "BR-02");
    assert_eq!(playlist.header("cache-control"), Some("max-age=12"), "DL-06");
    assert_eq!(origin.running.metrics.held_requests.get(), 0);
}

#[tokio::test]
async fn a_viewer_that_leaves_waits_no_more() {
    let origin = origin("").await;
    let _publisher = live(&origin).await;
    let (msn, part) = hinted(get(&origin, "/live/one/source/media.m3u8").await.text());
    let mut socket = TcpStream::connect(origin.http()).await.expect("connected");
    let head = format!("GET /live/one/source/{msn}.{part}.m4s HTTP/1.1\r\nHost: x\r\n\r\n");
    socket.write_all(head.as_bytes()).await.expect("sent");
    for (leave, expected) in [(false, 1), (true, 0)] {
        if leave {
            socket.shutdown().await.expect("left");
        }
        let until = async {
            while origin.running.metrics.held_requests.get() != expected {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(BOUND, until).await.expect("noticed");
    }
}

/// What an edge needs to know so as not to ask for everything that somebody makes up.
#[tokio::test]
async fn playlists_say_how_far_they_are_and_which_ones_there_are() {
    use sigma_shared::cmsd::{renditions, tip};
    let origin = origin("").await;
    let _publisher = live(&origin).await;
    let cmsd = |answer: &Answer| answer.header("cmsd-static").expect("CMSD").to_owned();
    let index = cmsd(&get(&origin, "/live/one/index.m3u8").await);
    assert_eq!(renditions(&index).map(|id| id.to_string()).collect::<Vec<_>>(), ["audio", "source"]);
    assert_eq!(tip(&index), None);
    let (msn, part) = hinted(get(&origin, "/live/one/source/media.m3u8").await.text());
    for (name, open_parts) in [("media", part), ("low", 0), ("normal", 0), ("iframes", 0)] {
        for (query, status) in [("", 200), ("?_HLS_msn=1", 200), (&format!("?_HLS_msn={}", msn + 9), 400)] {
            let answer = get(&origin, &format!("/live/one/source/{name}.m3u8{query}")).await;
            assert_eq!(answer.status, status, "{name}{query}");
            let tip = tip(&cmsd(&answer)).expect("a tip");
            assert!((tip.complete_msn, tip.open_parts) >= (msn - 1, open_parts), "{name}{query} {tip:?}");
            assert!(!tip.ended && (tip.open_parts == 0 || name == "media"), "{name}{query} {tip:?}");
        }
    }
}

#[tokio::test]
async fn refusals_say_why_and_carry_cors() {
    let origin = origin("").await;
    let _publisher = live(&origin).await;
    let (msn, _) = hinted(get(&origin, "/live/one/source/media.m3u8").await.text());
    for (path, status) in [
        ("/live/two/index.m3u8".to_owned(), 404),
        ("/live/one/nope/media.m3u8".into(), 404),
        ("/live/one/source/1.m4s".into(), 404),
        (format!("/live/one/source/{msn}.99.m4s"), 404),
        ("/live/one/source/init-0000000000000000.mp4".into(), 404),
        ("/live/ONE/index.m3u8".into(), 404),
        ("/live/one/../one/index.m3u8".into(), 404),
        ("/nothing".into(), 404),
        ("/live/one/source/media.m3u8?_HLS_part=1".into(), 400),
        ("/live/one/source/media.m3u8?_HLS_msn=x".into(), 400),
        (format!("/live/one/source/media.m3u8?_HLS_msn={}", msn + 3), 400),
        (format!("/live/one/source/media.m3u8?_HLS_msn={msn}&_HLS_part=99"), 400),
    ] {
        let answer = get(&origin, &path).await;
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "DL-11 {path}");
    }
    let posted = request(&origin, "POST", "/live/one/index.m3u8", "Content-Length: 0\r\n").await;
    assert_eq!((posted.status, posted.header("allow")), (405, Some("GET, HEAD, OPTIONS")));
}

#[tokio::test]
async fn br_04_old_numbers_are_answered_at_once_and_heads_have_no_body() {
    let origin = origin("").await;
    let _publisher = live(&origin).await;
    let old = get(&origin, "/live/one/source/media.m3u8?_HLS_msn=5&_HLS_part=2").await;
    assert_eq!(old.status, 200);
    let (mut before, mut head) = (old, None);
    let settled = async {
        loop {
            let answer = request(&origin, "HEAD", "/live/one/source/media.m3u8", "").await;
            let after = get(&origin, "/live/one/source/media.m3u8").await;
            let same = before.body == after.body;
            (before, head) = (after, Some(answer));
            if same {
                return;
            }
        }
    };
    tokio::time::timeout(BOUND, settled).await.expect("the playlist stands still");
    let head = head.expect("asked");
    assert_eq!(head.status, 200);
    assert!(head.body.is_empty());
    assert_eq!(head.header("content-length"), Some(before.body.len().to_string().as_str()));
    let gzip = request(&origin, "GET", "/live/one/source/media.m3u8", "Accept-Encoding: gzip\r\n").await;
    assert_eq!(gzip.header("content-encoding"), Some("gzip"), "DL-03");
    assert!(gzip.body.len() < before.body.len());
}
