//! Ways of leaving, as the other end of the connection sees them.

use super::*;
use std::io::Read;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
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
    let peer = wire.driving(Box::pin(interrupted).as_mut()).await;
    let _kept = leave(wire);
    // Without the runtime: what was sent on this machine is there.
    peer.into_std().unwrap().read(&mut [0; 64])
}

/// What a server says to a request on its first connection. On others it answers.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Says {
    /// I am leaving, and did not look at it.
    GoAway,
    Refused,
    /// An error of its own.
    Broken,
    /// The connection ends, well or not.
    Ends,
    Fails,
}

/// Asks once, and says what came of it and on how many connections.
async fn asked(protocol: Protocol, authority: &str, dialer: Dialer) -> Result<Answer, WireError> {
    let scheme = if protocol == Protocol::H3 { "https" } else { "http" };
    let address: crate::address::Address = format!("{scheme}://{authority}/live/a/x").parse().unwrap();
    let route = Route { authority: &address.authority, protocol, timeout: Duration::from_secs(20) };
    let wire = Wire::new(Arc::new(dialer), Rc::default(), &route);
    let mut lane = Lane::default();
    let ask = Ask { path: &address.path, headers: &[], hash: false };
    let mut text = Vec::new();
    let answer = wire.driving(Box::pin(wire.get(&mut lane, &ask, Some(&mut text))).as_mut()).await;
    if answer.is_ok() {
        assert_eq!(text, b"here");
    }
    answer
}

/// Over HTTP/2, frame by frame on the first connection.
async fn over_h2(says: Says) -> Result<Answer, WireError> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let authority = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let (mut first, _) = listener.accept().await.unwrap();
        first.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
        let (mut got, mut buffer) = (Vec::new(), [0; 4096]);
        while !got.windows(5).any(|head| head == [0x01, 0x05, 0, 0, 0]) {
            let length = first.read(&mut buffer).await.unwrap();
            got.extend_from_slice(&buffer[..length]);
        }
        let frame: &[u8] = match says {
            Says::GoAway => &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            Says::Refused => &[0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 7],
            Says::Broken => &[0, 0, 4, 3, 0, 0, 0, 0, 1, 0, 0, 0, 2],
            Says::Fails => &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2],
            Says::Ends => &[],
        };
        first.write_all(frame).await.unwrap();
        if says == Says::Ends {
            drop(first);
        }
        let (second, _) = listener.accept().await.unwrap();
        let mut second = h2::server::handshake(second).await.unwrap();
        while let Some(Ok((_, mut respond))) = second.accept().await {
            let mut body = respond.send_response(http::Response::new(()), false).unwrap();
            body.send_data(Bytes::from_static(b"here"), true).unwrap();
        }
    });
    asked(Protocol::H2, &authority, crate::fake::dialer(Protocol::H2)).await
}

#[tokio::test]
async fn what_h2_did_not_take_is_asked_again() {
    for says in [Says::GoAway, Says::Refused] {
        let answer = over_h2(says).await.unwrap();
        assert_eq!((answer.status, answer.retried), (200, 1), "{says:?}");
    }
    for says in [Says::Broken, Says::Ends, Says::Fails] {
        let error = over_h2(says).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed, "{says:?}: {error}");
    }
}

/// Two requests over HTTP/1.1: the first connection ends after `answered` of them; others answer all.
async fn over_h1(answered: usize) -> Result<Answer, WireError> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: crate::address::Address =
        format!("http://{}/live/a/x", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(async move {
        for answers in [answered, usize::MAX] {
            let (mut connection, _) = listener.accept().await.unwrap();
            let (mut got, mut buffer, mut made) = (Vec::new(), [0; 4096], 0);
            while let Ok(length @ 1..) = connection.read(&mut buffer).await {
                got.extend_from_slice(&buffer[..length]);
                if !got.ends_with(b"\r\n\r\n") {
                    continue;
                }
                if made == answers {
                    break;
                }
                (made, got) = (made + 1, Vec::new());
                connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nhere").await.unwrap();
            }
        }
    });
    let dialer = Arc::new(crate::fake::dialer(Protocol::H1));
    let route =
        Route { authority: &address.authority, protocol: Protocol::H1, timeout: Duration::from_secs(20) };
    let wire = Wire::new(dialer, Rc::default(), &route);
    let mut lane = Lane::default();
    let ask = Ask { path: &address.path, headers: &[], hash: false };
    let twice = async {
        wire.get(&mut lane, &ask, None).await?;
        wire.get(&mut lane, &ask, None).await
    };
    wire.driving(Box::pin(twice).as_mut()).await
}

#[tokio::test]
async fn a_request_that_crossed_the_end_of_its_connection_is_made_again() {
    let answer = over_h1(1).await.unwrap();
    assert_eq!((answer.status, answer.retried), (200, 1));
    let error = over_h1(0).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed, "the connection was new: {error}");
}

/// Answers every request of a connection, or says something else to the first.
async fn serve_h3(connection: quinn::Connection, says: Option<Says>) {
    let quic = h3_quinn::Connection::new(connection.clone());
    let mut http3: ::h3::server::Connection<_, Bytes> = ::h3::server::Connection::new(quic).await.unwrap();
    while let Ok(Some(resolver)) = http3.accept().await {
        let (_, mut stream) = resolver.resolve_request().await.unwrap();
        match says {
            None => {
                stream.send_response(http::Response::new(())).await.unwrap();
                stream.send_data(Bytes::from_static(b"here")).await.unwrap();
                stream.finish().await.unwrap();
            }
            Some(Says::Refused) => stream.stop_stream(::h3::error::Code::H3_REQUEST_REJECTED),
            Some(Says::Broken) => stream.stop_stream(::h3::error::Code::H3_INTERNAL_ERROR),
            Some(Says::Ends) => connection.close(0x100_u32.into(), b""),
            Some(Says::Fails) => connection.close(0x102_u32.into(), b""),
            Some(Says::GoAway) => {
                http3.shutdown(0).await.unwrap();
                stream.stop_stream(::h3::error::Code::H3_REQUEST_REJECTED);
            }
        }
    }
}

async fn over_h3(says: Says) -> (Result<Answer, WireError>, usize) {
    use crate::dial::DialConfig;
    use crate::tls::Trust;
    let certificate = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(certificate.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.cert.der().clone()], key)
        .unwrap();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(tls).unwrap();
    let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    let server = quinn::Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap();
    let authority = server.local_addr().unwrap().to_string();
    let connections = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Some(incoming) = server.accept().await {
            let first = counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0;
            tokio::spawn(serve_h3(incoming.await.unwrap(), first.then_some(says)));
        }
    });
    let dialer = Dialer::new(DialConfig {
        protocol: Protocol::H3,
        trust: Some(Trust::anyone(b"h3").unwrap()),
        allow_remote: false,
        timeout: Duration::from_secs(20),
    });
    let answer = asked(Protocol::H3, &authority, dialer).await;
    (answer, connections.load(std::sync::atomic::Ordering::Relaxed))
}

#[tokio::test]
async fn what_h3_did_not_take_is_asked_again() {
    for says in [Says::GoAway, Says::Refused, Says::Ends] {
        let (answer, connections) = over_h3(says).await;
        let answer = answer.unwrap();
        assert_eq!((answer.status, answer.retried, connections), (200, 1, 2), "{says:?}");
    }
    for says in [Says::Broken, Says::Fails] {
        let (answer, connections) = over_h3(says).await;
        let error = answer.unwrap_err();
        assert_eq!((error.kind(), connections), (ErrorKind::Closed, 1), "{says:?}: {error}");
    }
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
