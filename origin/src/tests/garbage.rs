//! Bytes that no publisher and no viewer would send: the connection is the only thing they cost.

use super::*;
use crate::metrics::RtmpEnd;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;

async fn throw(address: SocketAddr, bytes: &[u8]) {
    let Ok(mut socket) = TcpStream::connect(address).await else {
        return;
    };
    // The other side may close in the middle of it.
    let _ = socket.write_all(bytes).await;
    let _ = socket.shutdown().await;
    let mut rest = Vec::new();
    let _ = tokio::time::timeout(BOUND, socket.read_to_end(&mut rest)).await.expect("closed in time");
}

#[tokio::test]
async fn garbage_on_every_port_harms_nobody_else() {
    let origin = origin("").await;
    let mut publisher = Publisher::connect(&origin, "key-of-one").await.expect("accepted");
    publisher.frames(70).await;
    let mut runner = TestRunner::deterministic();
    let bytes = proptest::collection::vec(proptest::num::u8::ANY, 0..5000);
    for n in 0..40 {
        let mut garbage = bytes.new_tree(&mut runner).expect("made").current();
        if n % 2 == 0 && !garbage.is_empty() {
            garbage[0] = 3; // a handshake of the right version, then nonsense
        }
        throw(origin.rtmp(), &garbage).await;
        throw(origin.http(), &garbage).await;
    }
    publisher.frames(90).await;
    let playlist = eventually(&origin, "/live/one/source/media.m3u8").await;
    assert!(playlist.text().contains("#EXTINF"));
    assert_eq!(origin.running.metrics.publishing(&"one".parse().expect("an id")).get(), 1);
}

#[tokio::test]
async fn half_a_handshake_is_closed_in_time() {
    let origin = origin("[rtmp]\nbind = [\"127.0.0.1:0\"]\npublish_timeout_ms = 500").await;
    let mut socket = TcpStream::connect(origin.rtmp()).await.expect("connected");
    socket.write_all(&[3, 0, 0]).await.expect("sent");
    let mut rest = Vec::new();
    tokio::time::timeout(BOUND, socket.read_to_end(&mut rest)).await.expect("closed in time").expect("read");
    assert_eq!(origin.running.metrics.rtmp_ends_of(RtmpEnd::Timeout), 1);
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_at_once() {
    let origin = origin("[rtmp]\nbind = [\"127.0.0.1:0\"]\nconnections_max = 1").await;
    let mut first = Publisher::connect(&origin, "key-of-one").await.expect("accepted");
    let mut second = TcpStream::connect(origin.rtmp()).await.expect("connected");
    let mut rest = Vec::new();
    let read = tokio::time::timeout(BOUND, second.read_to_end(&mut rest)).await.expect("closed in time");
    assert!(read.is_err() || rest.is_empty());
    first.frames(150).await;
    eventually(&origin, "/live/one/index.m3u8").await;
}
