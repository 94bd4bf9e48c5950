//! What arrives at the ports besides good requests, and how an edge leaves.

use super::*;
use sigma_http::tls::{ALPN_ALL, client_config};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Sends bytes, then reads until the edge closes.
async fn sent(addr: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut tcp = TcpStream::connect(addr).await.unwrap();
    // The edge may have closed before everything was written: that is an answer too.
    let _ = tcp.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = within(tcp.read_to_end(&mut answer)).await;
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_on_every_port_harms_nobody() {
    let mut lab = Lab::with(|config| config.limits.header_timeout_ms = 300);
    let mut noise = vec![0_u8; 100_000];
    fastrand::Rng::with_seed(7).fill(&mut noise);
    let long_line = [b"GET /".as_slice(), &[b'a'; 200_000], b" HTTP/1.1\r\n\r\n"].concat();
    let broken_h2 = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(), &noise[..4096]].concat();
    for addr in [lab.edge.http[0], lab.edge.tls[0]] {
        for bytes in [
            noise.as_slice(),
            b"\x16\x03\x01\xff\xff",
            b"GET / HTTP/9.9\r\n\r\n",
            b"GET /live/demo/index.m3u8 HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
            b"\r\n\r\n\r\n\r\n",
            long_line.as_slice(),
            broken_h2.as_slice(),
        ] {
            sent(addr, bytes).await;
        }
    }
    let viewer = lab.begin(PART).await;
    lab.ask().await.answer(200, 12, "part").await;
    assert_eq!(body(within(viewer).await.unwrap()).await.unwrap(), "part");
    assert_eq!(lab.fake.count(), 1);
    assert!(lab.edge.metrics.connections.handshake_failures.get() >= 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_and_silent_senders_are_cut() {
    let lab = Lab::with(|config| {
        config.limits.header_timeout_ms = 200;
        config.limits.idle_timeout_ms = 400;
    });
    for beginning in [
        b"".as_slice(),
        b"GET",
        b"GET /live/demo/index.m3u8 HTTP/1.1\r\nHost: a\r\nX-Slow: ",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    ] {
        // Nothing more is sent; the edge has to end it.
        sent(lab.edge.http[0], beginning).await;
    }
    sent(lab.edge.tls[0], b"").await;
    within(until(|| lab.edge.metrics.connections.open.get() == 0)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_bounded() {
    let lab = Lab::with(|config| config.limits.connections_max = 2);
    let first = lab.viewer().await;
    let _second = lab.viewer().await;
    within(until(|| lab.edge.metrics.connections.open.get() == 2)).await;
    assert!(sent(lab.edge.http[0], b"").await.is_empty());
    assert_eq!(lab.edge.metrics.connections.refused.get(), 1);
    drop(first);
    within(until(|| lab.edge.metrics.connections.open.get() == 1)).await;
    assert_eq!(lab.viewer().await.get("/").await.status(), 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_viewers_choose_their_protocol() {
    let mut lab = Lab::new();
    let ca = lab.dir.path().join("cert.pem");
    let first = lab.begin(PART).await;
    lab.ask().await.answer(200, 12, "part").await;
    within(first).await.unwrap();
    lab.until_no_fills().await;
    for alpn in ALPN_ALL {
        let connector = tokio_rustls::TlsConnector::from(client_config(&ca, &[alpn]).unwrap());
        let tcp = TcpStream::connect(lab.edge.tls[0]).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("127.0.0.1").unwrap();
        let tls = connector.connect(name, tcp).await.unwrap();
        assert_eq!(tls.get_ref().1.alpn_protocol(), Some(*alpn));
        let io = TokioIo::new(tls);
        let response = if *alpn == b"h2" {
            let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(request(Method::GET, PART)).await.unwrap()
        } else {
            let (mut sender, connection) = http1::handshake(io).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(request(Method::GET, PART)).await.unwrap()
        };
        assert_eq!(body(response).await.unwrap(), "part");
    }
    lab.edge.certificate.as_ref().unwrap().reload().unwrap();
    std::fs::write(&ca, "no PEM").unwrap();
    assert!(lab.edge.certificate.as_ref().unwrap().reload().is_err(), "the old one stays");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_finishes_what_is_held_and_accepts_nothing_new() {
    let mut lab = Lab::new();
    let held = lab.begin(PART).await;
    let ask = lab.ask().await;
    let (http, drain) = (lab.edge.http[0], lab.edge.drain.clone());
    let edge = lab.edge;
    let drained = tokio::spawn(async move { edge.until_drained().await });
    drain.start();
    within(async { while TcpStream::connect(http).await.is_ok() {} }).await;
    assert!(!drained.is_finished(), "a viewer is still held");
    ask.answer(200, 12, "part").await;
    assert_eq!(body(within(held).await.unwrap()).await.unwrap(), "part");
    within(drained).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_served() {
    let mut lab = Lab::new();
    let viewer = lab.begin(PART).await;
    lab.ask().await.answer(200, 12, "part").await;
    body(within(viewer).await.unwrap()).await.unwrap();
    lab.until_no_fills().await;
    // A body is counted when the server lets go of it, which may be after the viewer has it all.
    within(until(|| lab.edge.metrics.bodies.complete.get() == 1)).await;
    let mut ops = h1(lab.edge.ops).await;
    let response = ops.send_request(request(Method::GET, "/metrics")).await.unwrap();
    assert!(header(&response, "content-type").starts_with("application/openmetrics-text"));
    let text = body(response).await.unwrap();
    let text = std::str::from_utf8(&text).unwrap();
    for line in [
        "sigma_edge_requests_total{outcome=\"miss\"} 1",
        "sigma_edge_upstream_requests_total{result=\"success\"} 1",
        "sigma_edge_cache_entries 1",
        "sigma_edge_waiters 0",
        "sigma_edge_bodies_total{end=\"complete\"} 1",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
    let upstream = lab.fake.addr;
    for line in [
        format!("sigma_edge_upstream_connected{{upstream=\"{upstream}\",protocol=\"h2\"}} 1"),
        format!("sigma_edge_upstream_connected{{upstream=\"{upstream}\",protocol=\"h3\"}} 0"),
        format!("sigma_edge_upstream_active{{upstream=\"{upstream}\"}} 1"),
        format!("sigma_edge_upstream_attempts_total{{upstream=\"{upstream}\",result=\"success\"}} 1"),
        format!("sigma_edge_upstream_head_seconds_count{{upstream=\"{upstream}\"}} 1"),
    ] {
        assert!(text.contains(&line), "{line} in\n{text}");
    }
    let documented = include_str!("../../../docs/METRICS.md");
    let names = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    for name in names {
        assert!(documented.contains(&format!("`{name}")), "{name} is in docs/METRICS.md");
    }
}

/// What each TLS port of an edge says in Alt-Svc, by what it is bound to.
async fn alternatives(lab: &Lab) -> Vec<(u16, String)> {
    let connector =
        tokio_rustls::TlsConnector::from(client_config(&lab.dir.path().join("cert.pem"), ALPN_ALL).unwrap());
    let mut found = Vec::new();
    for addr in &lab.edge.tls {
        let tcp = TcpStream::connect(addr).await.unwrap();
        let io = connector.connect("127.0.0.1".try_into().unwrap(), tcp).await.unwrap();
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await.unwrap();
        tokio::spawn(connection);
        let response = Viewer(sender).get("/nothing").await;
        found.push((addr.port(), header(&response, "alt-svc").to_owned()));
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_tls_port_names_its_own_for_http_3() {
    let lab = Lab::with(|config| {
        let tls = config.tls.as_mut().unwrap();
        tls.bind.push(tls.bind[0]);
    });
    let alternatives = alternatives(&lab).await;
    assert_eq!(alternatives.len(), 2);
    for (port, said) in alternatives {
        assert_eq!(said, format!("h3=\":{port}\"; ma=86400"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_mapping_of_ports_viewers_are_told_the_outer_one() {
    let lab = Lab::with(|config| config.tls.as_mut().unwrap().alt_svc_port = std::num::NonZeroU16::new(443));
    assert_eq!(alternatives(&lab).await[0].1, "h3=\":443\"; ma=86400");
}
