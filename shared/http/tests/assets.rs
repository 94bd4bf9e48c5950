//! The embedded page: names, caching, codings and policy.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failing test may panic")]

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use rust_embed::Embed;
use sigma_http::assets::Assets;
use std::io::Read;

#[derive(Embed)]
#[folder = "tests/page"]
struct Page;

#[derive(Embed)]
#[folder = "tests/nothing-is-here"]
#[allow_missing = true]
struct NotBuilt;

fn get(path: &str, headers: &[(&'static str, &str)]) -> Option<Response<Full<Bytes>>> {
    let headers: HeaderMap =
        headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
    Assets::<Page>::new().respond(path, &headers)
}

async fn body(response: Response<Full<Bytes>>) -> Bytes {
    response.into_body().collect().await.unwrap().to_bytes()
}

#[tokio::test]
async fn the_page_is_the_same_for_every_channel() {
    let first = get("/watch/demo", &[]).unwrap();
    assert_eq!(first.status(), StatusCode::OK);
    let header = |name: &str| first.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(header("content-type"), "text/html; charset=utf-8");
    assert_eq!(header("cache-control"), "no-cache");
    assert_eq!(header("x-content-type-options"), "nosniff");
    assert!(header("content-security-policy").starts_with("default-src 'self';"));
    let etag = header("etag");
    let again = get("/watch/other", &[("if-none-match", &etag)]).unwrap();
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    assert!(body(again).await.is_empty());
    assert!(body(first).await.starts_with(b"<!doctype html>"));
}

#[tokio::test]
async fn assets_are_kept_for_ever_and_compressed_on_demand() {
    let path = "/watch/assets/watch-0a1b2c.js";
    let plain = get(path, &[]).unwrap();
    assert!(plain.headers()["cache-control"].to_str().unwrap().contains("immutable"));
    assert_eq!(plain.headers()["content-type"], "text/javascript; charset=utf-8");
    assert!(!plain.headers().contains_key("content-encoding"));
    let gzip = get(path, &[("accept-encoding", "gzip")]).unwrap();
    assert_eq!(gzip.headers()["content-encoding"], "gzip");
    assert_eq!(gzip.headers()["vary"], "accept-encoding");
    let (plain, gzip) = (body(plain).await, body(gzip).await);
    assert!(gzip.len() < plain.len());
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(gzip.as_ref()).read_to_end(&mut unpacked).unwrap();
    assert_eq!(unpacked, plain);
}

#[test]
fn nothing_else_is_there() {
    for path in [
        "/watch/",
        "/watch/Demo",
        "/watch/a/b",
        "/watch/demo/",
        "/watch/assets/",
        "/watch/assets/none.js",
        "/watch/assets/watch.html",
        "/watch/assets/../watch.html",
        "/watch/assets/..%2fwatch.html",
        "/watch/assets/../../Cargo.toml",
        "/watch/assets/.hidden",
    ] {
        assert_eq!(get(path, &[]).unwrap().status(), StatusCode::NOT_FOUND, "{path}");
    }
    assert!(get("/live/demo/index.m3u8", &[]).is_none());
}

#[tokio::test]
async fn a_page_that_was_not_built_says_so() {
    let response = Assets::<NotBuilt>::new().respond("/watch/demo", &HeaderMap::new()).unwrap();
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert_eq!(body(response).await, "the watch page was not built: run ./scripts/run\n");
}
