//! The binary while it is operated: restarted without an interruption, ended, reconfigured, started by systemd.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failing test may panic")]

#[path = "operations/lab.rs"]
mod lab;

use bytes::Bytes;
use command_fds::{CommandFdExt, FdMapping};
use http::StatusCode;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use lab::{BIG, Edge, HELD, Http3, LASTING, PLAYLIST, Upstream, get, lasting, request, within};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Asks over one new connection after the other until told to stop; returns how many were answered.
async fn ask_on(
    edge: std::net::SocketAddr,
    h2: bool,
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
) -> usize {
    let mut answered = 0;
    while !stop.load(Ordering::Relaxed) {
        let status = get(edge, h2, PLAYLIST).await;
        assert_eq!(status.expect("no connection is refused, no request unanswered"), StatusCode::OK);
        answered += 1;
        asked.fetch_add(1, Ordering::Relaxed);
    }
    answered
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_restarts_without_a_failed_request() {
    let upstream = Upstream::start();
    let mut edge = Edge::start(&upstream, "");
    let addr = edge.http;
    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let viewers =
        [false, true].map(|h2| tokio::spawn(ask_on(addr, h2, Arc::clone(&stop), Arc::clone(&asked))));
    for round in 0..3 {
        let held = tokio::spawn(async move { get(addr, true, &format!("{HELD}&_HLS_part={round}")).await });
        upstream.until_held(round + 1).await;
        edge.signal("USR2");
        let said = edge.until_logged("the new process serves: draining").await;
        let old = std::mem::replace(&mut edge.pid, u32::try_from(said["pid"].as_u64().unwrap()).unwrap());
        let before = asked.load(Ordering::Relaxed);
        upstream.release();
        assert_eq!(within(held).await.unwrap().unwrap(), StatusCode::OK, "held over the restart");
        edge.until_logged("drained").await;
        within(lab::until(|| asked.load(Ordering::Relaxed) > before + 20)).await;
        assert_ne!(old, edge.pid);
    }
    assert_eq!(edge.first_exit().await, Some(0));
    stop.store(true, Ordering::Relaxed);
    for viewer in viewers {
        assert!(within(viewer).await.expect("0 failed, 0 refused") > 20);
    }
    edge.signal("TERM");
    edge.until_logged("drained").await;
    within(lab::until_refused(addr)).await;
}

/// Asks over one new QUIC connection after the other until told to stop; returns how many were answered.
async fn ask_over_quic(
    client: quinn::Endpoint,
    edge: std::net::SocketAddr,
    stop: Arc<AtomicBool>,
) -> Result<usize, String> {
    let mut answered = 0;
    while !stop.load(Ordering::Relaxed) {
        let mut connection = Http3::connect(&client, edge).await?;
        connection.get(PLAYLIST).await?;
        answered += 1;
    }
    Ok(answered)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restarts_over_http_3_keep_who_is_there_and_let_in_who_comes() {
    let upstream = Upstream::start();
    let mut edge = Edge::start(&upstream, "");
    let (addr, stop) = (edge.tls, Arc::new(AtomicBool::new(false)));
    let coming = tokio::spawn(ask_over_quic(edge.quic(), addr, Arc::clone(&stop)));
    for round in 0..3 {
        let mut client = within(Http3::connect(&edge.quic(), addr)).await.unwrap();
        let held =
            tokio::spawn(async move { (client.get(&format!("{HELD}&_HLS_part={round}")).await, client) });
        upstream.until_held(round + 1).await;
        edge.signal("USR2");
        let said = edge.until_logged("the new process serves: draining").await;
        edge.pid = u32::try_from(said["pid"].as_u64().unwrap()).unwrap();
        // The old process is there, as it holds a request; the new one answers.
        let began = Instant::now();
        for _ in 0..5 {
            let mut new = within(Http3::connect(&edge.quic(), addr)).await.expect("nobody is refused");
            within(new.get(PLAYLIST)).await.unwrap();
        }
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
        upstream.release();
        let (answer, _client) = within(held).await.unwrap();
        answer.expect("held over the restart");
        edge.until_logged("drained").await;
    }
    assert_eq!(edge.first_exit().await, Some(0));
    stop.store(true, Ordering::Relaxed);
    assert!(within(coming).await.unwrap().expect("0 failed, 0 refused") > 20);
}

/// Asks over one QUIC connection until told goodbye, and then over another one at once; counts connections that were answered.
async fn stay_over_quic(
    client: quinn::Endpoint,
    edge: std::net::SocketAddr,
    stop: Arc<AtomicBool>,
    there: Arc<AtomicUsize>,
) -> Result<(), String> {
    while !stop.load(Ordering::Relaxed) {
        let mut connection = Http3::connect(&client, edge).await?;
        connection.get(PLAYLIST).await?;
        there.fetch_add(1, Ordering::Relaxed);
        while !stop.load(Ordering::Relaxed) && connection.get(PLAYLIST).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_hears_a_goodbye_over_http_3_comes_to_the_successor_without_a_lost_packet() {
    const VIEWERS: usize = 40;
    let upstream = Upstream::start();
    let mut edge = Edge::start(&upstream, "");
    let (stop, there) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let stay = || stay_over_quic(edge.quic_once(), edge.tls, Arc::clone(&stop), Arc::clone(&there));
    let viewers: Vec<_> = (0..VIEWERS).map(|_| tokio::spawn(stay())).collect();
    for round in 1..=3 {
        // Nobody is in the middle of a handshake.
        within(lab::until(|| there.load(Ordering::Relaxed) == VIEWERS * round)).await;
        edge.signal("USR2");
        let said = edge.until_logged("the new process serves: draining").await;
        edge.pid = u32::try_from(said["pid"].as_u64().unwrap()).unwrap();
        edge.until_logged("drained").await;
    }
    assert_eq!(edge.first_exit().await, Some(0));
    within(lab::until(|| there.load(Ordering::Relaxed) == VIEWERS * 4)).await;
    stop.store(true, Ordering::Relaxed);
    for viewer in viewers {
        within(viewer).await.unwrap().expect("nobody is refused");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_answer_over_http_3_goes_on_through_a_restart() {
    let upstream = Upstream::start();
    let mut edge = Edge::start(&upstream, "");
    let mut client = within(Http3::connect(&edge.quic(), edge.tls)).await.unwrap();
    // Begun before; the rest needs the client's acknowledgements, which the new process reads.
    let mut large = within(client.begin(BIG)).await.unwrap();
    assert!(within(large.recv_data()).await.unwrap().is_some());
    edge.signal("USR2");
    let said = edge.until_logged("the new process serves: draining").await;
    edge.pid = u32::try_from(said["pid"].as_u64().unwrap()).unwrap();
    let rest = within(Http3::rest(&mut large)).await.expect("it goes on");
    assert!(rest > 8 << 20, "{rest}: most of it was still to come");
    drop((large, client));
    edge.until_logged("drained").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_that_fails_changes_nothing() {
    let upstream = Upstream::start();
    let mut edge = Edge::start(&upstream, "");
    edge.rewrite(|text| format!("{text}\nno_such_key = 1\n"));
    edge.signal("USR2");
    let said = edge.until_logged("no restart: serving goes on").await;
    assert!(said["error"].as_str().unwrap().contains("ended before it served"), "{said}");
    assert_eq!(get(edge.http, false, PLAYLIST).await.unwrap(), StatusCode::OK);
    edge.rewrite(|text| text.replace("\nno_such_key = 1\n", ""));
    edge.signal("USR2");
    let said = edge.until_logged("the new process serves: draining").await;
    edge.pid = u32::try_from(said["pid"].as_u64().unwrap()).unwrap();
    assert_eq!(edge.first_exit().await, Some(0));
    assert_eq!(get(edge.http, true, PLAYLIST).await.unwrap(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_in_the_middle_of_a_restart_is_no_failure() {
    let upstream = Upstream::start();
    let mut edge = Edge::start_known(&upstream);
    within(async { while get(edge.http, false, PLAYLIST).await.unwrap() != StatusCode::OK {} }).await;
    let tcp = TcpStream::connect(edge.http).await.unwrap();
    let (mut viewer, connection) =
        http2::handshake::<_, _, Empty<Bytes>>(TokioExecutor::new(), TokioIo::new(tcp)).await.unwrap();
    tokio::spawn(connection);
    let held = tokio::spawn(viewer.send_request(request(HELD)));
    upstream.until_held(1).await;
    // So that the new process does not serve yet.
    upstream.withhold_policy(true);
    edge.signal("USR2");
    edge.until_logged("SIGUSR2: starting a new process with the same sockets").await;
    edge.signal("TERM");
    let said = edge.until_logged("no restart: this process leaves").await;
    assert_eq!(said["level"], "INFO", "{said}");
    upstream.release();
    assert_eq!(within(held).await.unwrap().unwrap().status(), StatusCode::OK);
    assert_eq!(edge.first_exit().await, Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_successor_takes_over_once_it_can_answer_and_nobody_is_refused_meanwhile() {
    let upstream = Upstream::start();
    let mut edge = Edge::start_known(&upstream);
    let addr = edge.http;
    within(async { while get(addr, false, PLAYLIST).await.unwrap() != StatusCode::OK {} }).await;
    // The predecessor has its policy; nobody gets it now.
    upstream.withhold_policy(true);
    edge.signal("USR2");
    let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let viewers =
        [false, true].map(|h2| tokio::spawn(ask_on(addr, h2, Arc::clone(&stop), Arc::clone(&asked))));
    // Longer than a process waits that nobody precedes.
    let serves = "the new process serves: draining";
    let early = tokio::time::timeout(Duration::from_secs(6), edge.until_logged(serves)).await;
    assert!(early.is_err(), "it cannot answer anybody yet: {early:?}");
    upstream.withhold_policy(false);
    let said = edge.until_logged(serves).await;
    edge.pid = u32::try_from(said["pid"].as_u64().unwrap()).unwrap();
    assert_eq!(edge.first_exit().await, Some(0));
    let before = asked.load(Ordering::Relaxed);
    within(lab::until(|| asked.load(Ordering::Relaxed) > before + 20)).await;
    stop.store(true, Ordering::Relaxed);
    for viewer in viewers {
        assert!(within(viewer).await.expect("0 failed, 0 refused") > 20);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_answers_who_is_held_and_waits_for_nobody_who_is_stuck() {
    let drain = Duration::from_millis(2_000);
    let upstream = Upstream::start();
    let mut edge = Edge::start(&upstream, "[limits]\ndrain_timeout_ms = 2000\n");
    // One sends half a request, one never reads its answer, one never gets an answer.
    let mut half = TcpStream::connect(edge.http).await.unwrap();
    half.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n").await.unwrap();
    let mut deaf = TcpStream::connect(edge.http).await.unwrap();
    deaf.write_all(format!("GET {BIG} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
    deaf.readable().await.unwrap();
    let addr = edge.http;
    let never = tokio::spawn(async move { get(addr, false, "/live/demo/v720/media.m3u8?_HLS_msn=99").await });
    // One is held, on a connection that is told to go away.
    let tcp = TcpStream::connect(addr).await.unwrap();
    let (mut viewer, connection) =
        http2::handshake::<_, _, Empty<Bytes>>(TokioExecutor::new(), TokioIo::new(tcp)).await.unwrap();
    let connection = tokio::spawn(connection);
    let held = viewer.send_request(request(HELD));
    upstream.until_held(2).await;
    let began = Instant::now();
    edge.signal("TERM");
    edge.until_logged("draining").await;
    within(lab::until_refused(addr)).await;
    upstream.release();
    assert_eq!(within(held).await.unwrap().status(), StatusCode::OK);
    within(connection).await.unwrap().expect("a clean GOAWAY");
    assert!(began.elapsed() < drain, "it did not wait for the others");
    assert_eq!(edge.first_exit().await, Some(0));
    assert!(began.elapsed() <= drain + Duration::from_secs(1), "{:?}", began.elapsed());
    assert!(within(never).await.unwrap().is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hangup_applies_what_can_be_applied_and_names_the_rest() {
    let upstream = Upstream::start();
    let mut edge = Edge::start(&upstream, "[limits]\nheader_timeout_ms = 10000\nwaiters_max = 100\n");
    edge.rewrite(|text| text.replace("10000", "300").replace("= 100\n", "= 200\n"));
    edge.signal("HUP");
    let said = edge.until_logged("these keys have changed, but take a restart").await;
    assert_eq!(said["keys"], "[\"limits.waiters_max\"]");
    let said = edge.until_logged("configuration reloaded").await;
    assert_eq!(said["keys"], "[\"limits.header_timeout_ms\"]");
    let (mut viewer, connection) = {
        let tcp = TcpStream::connect(edge.http).await.unwrap();
        http1::handshake::<_, Empty<Bytes>>(TokioIo::new(tcp)).await.unwrap()
    };
    let connection = tokio::spawn(connection);
    assert_eq!(viewer.send_request(request(PLAYLIST)).await.unwrap().status(), StatusCode::OK);
    let began = Instant::now();
    within(connection).await.unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(8), "the new limit holds");
    edge.rewrite(|text| text.replace("300", "\"soon\""));
    edge.signal("HUP");
    let said = edge.until_logged("the configuration stays as it was").await;
    assert!(said["error"].as_str().unwrap().contains("limits.header_timeout_ms"), "{said}");
    assert_eq!(get(edge.http, false, PLAYLIST).await.unwrap(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replaced_certificate_is_noticed_within_5_s() {
    let upstream = Upstream::start();
    let mut edge = Edge::start(&upstream, "");
    edge.write_certificate();
    let began = Instant::now();
    edge.until_logged("the files of the certificate have changed: reloaded").await;
    assert!(began.elapsed() <= Duration::from_secs(5), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn systemd_may_bind_the_port_and_hears_when_it_is_served() {
    let upstream = Upstream::start();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    // It is in the queue before there is a process.
    let mut early = TcpStream::connect(addr).await.unwrap();
    early.write_all(format!("GET {PLAYLIST} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let manager = UnixDatagram::bind(dir.path().join("notify")).unwrap();
    let edge = Edge::start_as(&upstream, "", |command, file| {
        let text = std::fs::read_to_string(file).unwrap();
        let bind = format!("[http]\nbind = [\"{addr}\"]");
        std::fs::write(file, text.replace("[http]\nbind = [\"127.0.0.1:0\"]", &bind)).unwrap();
        command.env("LISTEN_FDS", "1").env("NOTIFY_SOCKET", dir.path().join("notify"));
        command.fd_mappings(vec![FdMapping { parent_fd: listener.into(), child_fd: 3 }]).unwrap();
    });
    assert_eq!(edge.http, addr);
    let mut answer = [0; 12];
    within(early.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    manager.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut said = [0; 64];
    let n = manager.recv(&mut said).unwrap();
    assert_eq!(std::str::from_utf8(&said[..n]).unwrap(), format!("READY=1\nMAINPID={}", edge.pid));
}

/// Every byte of an object that may be kept.
async fn watch(edge: std::net::SocketAddr, n: usize) {
    let path = format!("{LASTING}{n}.m4s");
    let tcp = TcpStream::connect(edge).await.unwrap();
    let (mut viewer, connection) = http1::handshake::<_, Empty<Bytes>>(TokioIo::new(tcp)).await.unwrap();
    tokio::spawn(connection);
    let response = within(viewer.send_request(request(&path))).await.unwrap();
    let body = within(response.into_body().collect()).await.unwrap().to_bytes();
    assert!(body == lasting(&path), "{path}: {} bytes", body.len());
}

/// Objects on disk, and files that are not whole.
fn on_disk(dir: &Path) -> (usize, usize) {
    let Ok(folders) = std::fs::read_dir(dir.join("p/objects")) else { return (0, 0) };
    let folders = folders.map(|folder| folder.unwrap().path()).filter(|path| path.is_dir());
    let files = folders.flat_map(|folder| std::fs::read_dir(folder).unwrap().flatten());
    let names = files.map(|file| file.file_name().into_string().unwrap());
    let (unfinished, whole): (Vec<_>, Vec<_>) = names.partition(|name| name.starts_with("writing-"));
    (whole.len(), unfinished.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_on_disk_outlives_a_kill_in_the_middle_of_writing() {
    let (upstream, dir) = (Upstream::start(), tempfile::tempdir().unwrap());
    let config = format!("[disk_cache]\ndir = {:?}\nwrite_bytes_per_s_max = 8388608\n", dir.path());
    let mut kept = 0;
    for round in 0..3 {
        let mut edge = Edge::start(&upstream, &config);
        edge.until_measured("sigma_edge_disk_writable", 1).await;
        edge.until_measured("sigma_edge_disk_entries", kept).await;
        assert_eq!(on_disk(dir.path()), (kept, 0), "what was being written is gone");
        let before = upstream.asked_for_lasting.load(Ordering::Relaxed);
        for n in 0..12 {
            watch(edge.http, n).await;
        }
        let asked = upstream.asked_for_lasting.load(Ordering::Relaxed) - before;
        assert_eq!(asked, 12 - kept, "what is on disk is not asked for");
        // It writes for a second or more; of that, it has begun.
        within(lab::until(|| on_disk(dir.path()) >= ((round + 1) * 3, 1))).await;
        edge.signal("KILL");
        assert_eq!(edge.first_exit().await, None);
        kept = on_disk(dir.path()).0;
    }
    assert!((9..12).contains(&kept), "{kept}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_successor_has_what_is_on_disk() {
    let (upstream, dir) = (Upstream::start(), tempfile::tempdir().unwrap());
    let mut edge = Edge::start(&upstream, &format!("[disk_cache]\ndir = {:?}\n", dir.path()));
    edge.until_measured("sigma_edge_disk_writable", 1).await;
    for n in 0..3 {
        watch(edge.http, n).await;
    }
    within(lab::until(|| on_disk(dir.path()) == (3, 0))).await;
    edge.signal("USR2");
    let said = edge.until_logged("the new process serves: draining").await;
    edge.pid = u32::try_from(said["pid"].as_u64().unwrap()).unwrap();
    edge.until_logged("drained").await;
    edge.until_measured("sigma_edge_disk_writable", 1).await;
    for n in 0..4 {
        watch(edge.http, n).await;
    }
    assert_eq!(upstream.asked_for_lasting.load(Ordering::Relaxed), 4);
    within(lab::until(|| on_disk(dir.path()) == (4, 0))).await;
}
