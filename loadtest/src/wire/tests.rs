//! Ways of leaving, as the other end of the connection sees them.

use super::*;
use std::io::Read;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

/// A viewer that asks for something and is interrupted while it waits; then it leaves. What its edge sees of that.
async fn seen(protocol: Protocol, leave: impl FnOnce(Wire) -> Option<Wire>) -> std::io::Result<usize> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/live/a/index.m3u8", listener.local_addr().unwrap());
    let address: crate::address::Address = url.parse().unwrap();
    let route = Route { authority: &address.authority, protocol, timeout: Duration::from_secs(20) };
    let wire = Wire::new(Arc::new(crate::fake::dialer(protocol)), Rc::default(), &route);
    let asked = async {
        let (mut peer, _) = listener.accept().await.unwrap();
        let (mut got, mut buffer) = (Vec::new(), [0; 4096]);
        // Of HTTP/2, the frame of the request is the last one that ends a stream.
        let is_whole = |got: &[u8]| match protocol {
            Protocol::H1 => got.ends_with(b"\r\n\r\n"),
            _ => got.windows(5).any(|head| head == [0x01, 0x05, 0, 0, 0]),
        };
        while !is_whole(&got) {
            let length = peer.read(&mut buffer).await.unwrap();
            got.extend_from_slice(&buffer[..length]);
        }
        peer
    };
    let mut lane = Lane::default();
    let ask = Ask { path: &address.path, headers: &[], hash: false };
    let interrupted = async {
        tokio::select! {
            biased;
            peer = asked => peer,
            _ = wire.get(&mut lane, &ask, None) => panic!("nobody answers"),
        }
    };
    let peer = Box::pin(wire.driving(interrupted)).await;
    let _kept = leave(wire);
    // Without the runtime: what was sent on this machine is there.
    peer.into_std().unwrap().read(&mut [0; 64])
}

#[tokio::test]
async fn who_vanishes_says_nothing() {
    for protocol in [Protocol::H1, Protocol::H2] {
        let vanish = |wire: Wire| {
            wire.vanish();
            Some(wire)
        };
        let silence = Box::pin(seen(protocol, vanish)).await.unwrap_err();
        assert_eq!(silence.kind(), std::io::ErrorKind::WouldBlock, "{protocol:?}");
        let reset = |wire: Wire| {
            wire.reset();
            None
        };
        let cut = Box::pin(seen(protocol, reset)).await.unwrap_err();
        assert_eq!(cut.kind(), std::io::ErrorKind::ConnectionReset, "{protocol:?}");
    }
}
