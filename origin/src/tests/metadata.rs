//! Timed metadata, from the internal API to a viewer's bytes.

use super::*;

async fn post(origin: &Origin, path: &str, kind: &str, body: &str) -> Answer {
    let length = body.len();
    let more = format!("Content-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}");
    ask(origin.running.ops, "POST", path, &more).await
}

#[tokio::test]
async fn a_date_range_and_an_id3_tag_reach_the_viewers() {
    const PATH: &str = "/internal/channels/one/metadata";
    const JSON: &str = "application/json";
    let origin = origin("").await;
    let range = r#"{"daterange": {"id": "p1", "class": "com.example.poll", "duration_ms": 5000, "attributes": {"X-Q": "Who?"}}}"#;
    let tag = r#"{"id3": {"description": "notice", "text": "a word to the viewers"}}"#;
    assert_eq!(post(&origin, PATH, JSON, range).await.status, 409, "nothing is live");
    let mut publisher = Publisher::connect(&origin, "key-of-one").await.expect("accepted");
    publisher.frames(155).await;
    eventually(&origin, "/live/one/source/media.m3u8").await;
    let taken = post(&origin, PATH, JSON, range).await;
    assert_eq!(taken.status, 200, "{}", taken.text());
    assert!(taken.text().contains("start_date"), "{}", taken.text());
    assert_eq!(post(&origin, PATH, JSON, tag).await.status, 200);
    for (path, kind, body, status, said) in [
        (PATH, JSON, range, 400, "another one"),
        (PATH, JSON, "{", 400, "daterange"),
        (PATH, "text/plain", tag, 415, "application/json"),
        ("/internal/channels/two/metadata", JSON, tag, 404, "no channel"),
        ("/internal/nothing", JSON, tag, 404, "/metrics"),
    ] {
        let refused = post(&origin, path, kind, body).await;
        assert_eq!(refused.status, status, "{path} {body}: {}", refused.text());
        assert!(refused.text().contains(said), "{}", refused.text());
    }
    assert_eq!(ask(origin.running.ops, "GET", PATH, "").await.status, 405);
    publisher.frames(60).await;
    let listed = async {
        loop {
            let playlist = get(&origin, "/live/one/audio/media.m3u8").await;
            if playlist.text().contains("#EXT-X-DATERANGE:ID=\"p1\",CLASS=\"com.example.poll\",START-DATE=") {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(BOUND, listed).await.expect("in every playlist");
    let playlist = eventually(&origin, "/live/one/source/low.m3u8").await;
    let newest = playlist.text().lines().rfind(|line| !line.starts_with('#')).expect("a segment").to_owned();
    let segment = eventually(&origin, &format!("/live/one/source/{newest}")).await.body;
    let has = |text: &[u8]| segment.windows(text.len()).any(|bytes| bytes == text);
    assert!(has(b"https://aomedia.org/emsg/ID3") && has(b"a word to the viewers"));
    let metrics = ask(origin.running.ops, "GET", "/metrics", "").await;
    assert!(metrics.text().contains("sigma_origin_"), "the operator's endpoints are still there");
}
