use super::*;
use crate::adapt::Links;
use crate::crowd::{Habits, Pick};
use crate::dial::Protocol;
use crate::fake::{self, Fake, Fault};
use crate::merge::Recorded;
use crate::player::Patience;
use crate::report::Report;
use crate::scenario::{CmcdIn, Limits, Phase, PhaseKind, Viewers, targets};
use crate::script::Conduct;

fn crowd(protocol: Protocol) -> Arc<Crowd> {
    impatient(protocol, Duration::from_secs(20))
}

fn impatient(protocol: Protocol, request_timeout: Duration) -> Arc<Crowd> {
    Arc::new(Crowd::new(fake::dialer(protocol), habits(request_timeout), 1))
}

async fn run(crowd: Arc<Crowd>, order: &Order, stop: impl Future<Output = ()>) -> Result<Report, RunError> {
    let protocol = crowd.dialer.protocol();
    super::run(crowd, order, |_, _| (), stop)
        .await
        .map(|outcome| Report::new(Recorded::new(&order.scenario, protocol, outcome)))
}

fn habits(request_timeout: Duration) -> Habits {
    Habits {
        pick: Pick::First,
        video_only: false,
        patience: Patience {
            first: Duration::from_millis(1),
            longest: Duration::from_millis(4),
            restart_after: 3,
        },
        request_timeout,
        cmcd: CmcdIn::Query,
        links: Links::default(),
        hints: 0.0,
        deltas: 0.0,
        conduct: Conduct::default(),
        vanished: Duration::from_secs(5),
        slept: Duration::from_secs(5),
        tabs: 1,
    }
}

fn scenario(address: Address, viewers: u64) -> Order {
    let phase =
        |kind, seconds, viewers| Phase { kind, seconds, viewers, arrivals: None, length: None, from: None };
    let scenario = Scenario {
        name: String::new(),
        seed: 1,
        targets: targets(&[address]),
        phases: vec![phase(PhaseKind::Herd, 0, viewers), phase(PhaseKind::Soak, 20, 0)],
        viewers: Viewers::default(),
        limits: Limits::default(),
    };
    Order { scenario, server_pids: vec![std::process::id()], server_children: false }
}

async fn report(protocol: Protocol, faults: impl Fn(&str, u64) -> Fault + Send + Sync + 'static) -> Report {
    let fake = Fake::start(1, 80, faults).await;
    let scenario = scenario(fake.address.clone(), 2);
    run(crowd(protocol), &scenario, fake.done()).await.unwrap()
}

#[tokio::test]
async fn viewers_get_every_part_without_errors() {
    for protocol in [Protocol::H1, Protocol::H2] {
        let report = report(protocol, |_, _| Fault::None).await;
        assert_eq!(report.errors, [].into(), "{protocol:?}");
        assert!(report.interrupted && report.verdict == crate::report::Verdict::Inconclusive);
        assert_eq!(report.viewers_started, 2);
        assert!(report.parts >= 70 && report.segments == 0, "{}", report.parts);
        assert_eq!(report.inits, 4, "video and audio of two viewers");
        assert!(report.bodies_compared > 0);
        assert!(report.part_delay_ms.is_some() && report.playlist_hold_ms.is_some());
        assert_eq!(report.parts_undated, 0);
        assert_eq!(report.recorded.servers.len(), 1);
        assert!(report.recorded.servers[0].cpu_us_per_request.is_some());
        assert!(report.to_string().contains("errors             0"));
        assert!(serde_json::to_string(&report).unwrap().contains("\"part_delay_ms\""));
    }
}

#[tokio::test]
async fn a_viewer_counts_for_as_long_as_it_was_there() {
    let fake = Fake::start(1, 200, |_, _| Fault::None).await;
    let mut order = scenario(fake.address.clone(), 4);
    // All of them leave after half a second, and the run goes on.
    order.scenario.viewers.length = crate::scenario::Length::Fixed { seconds: 0.5 };
    order.scenario.phases[1].seconds = 2;
    let report = run(crowd(Protocol::H2), &order, std::future::pending()).await.unwrap();
    assert!(!report.interrupted);
    assert_eq!((report.sessions, report.viewers_started, report.run_ended), (4, 4, 0));
    assert_eq!((report.left_by_themselves, report.broadcast_ended), (4, 0));
    let presence = report.viewer_seconds;
    assert!(presence > 1.0 && presence < 4.0 * 0.6, "four of at most half a second: {presence}");
    let tally = &report.recorded.results.tally;
    let renditions = tally.rendition_us as f64 / 1e6;
    assert!((renditions / presence - 2.0).abs() < 0.1, "video and audio: {renditions} of {presence}");
    let media_s = tally.media_us as f64 / 1e6;
    assert!((report.realtime_factor - media_s / renditions).abs() < 1e-9);
    let kept_up = report.parts_per_viewer_s / report.expected_parts_per_viewer_s;
    assert!((kept_up - report.realtime_factor).abs() < 1e-6, "{kept_up} {}", report.realtime_factor);
    assert!(report.to_string().contains("4 by themselves (close 4), 0 with their broadcast, 0 with the run"));
}

#[tokio::test]
async fn a_session_redirect_is_followed_once() {
    let report = report(Protocol::H1, |path, _| match path {
        "/live/a/index.m3u8" => Fault::Redirect("/s/T/live/a/index.m3u8"),
        path if !path.starts_with("/s/T/") => Fault::Status(403),
        _ => Fault::None,
    })
    .await;
    assert_eq!(report.errors, [].into());
}

/// Each kind of fault, once, is counted under its name and the viewers go on.
async fn count_every_fault(protocol: Protocol) {
    const PART: &str = "/live/a/v/101.3.m4s";
    const RELOAD: &str = "/live/a/v/media.m3u8?_HLS_msn=101&_HLS_part=3";
    for (path, fault, name) in [
        (PART, Fault::Status(404), "http_404"),
        (PART, Fault::Status(503), "http_503"),
        (PART, Fault::Close, "closed"),
        (PART, Fault::Truncate, "truncated"),
        (PART, Fault::OtherBytes, "hash_mismatch"),
        (RELOAD, Fault::Status(400), "http_400"),
        (RELOAD, Fault::Status(503), "http_503"),
        (RELOAD, Fault::Close, "closed"),
        (RELOAD, Fault::Truncate, "truncated"),
        (RELOAD, Fault::Past, "msn_regression"),
        ("/live/a/index.m3u8", Fault::Status(500), "http_500"),
        ("/live/a/index.m3u8", Fault::Redirect("/live/a/index.m3u8"), "http_302"),
    ] {
        let report = report(protocol, move |asked, hit| {
            // A redirect to itself is followed twice: both viewers have to see three.
            let times = if matches!(fault, Fault::Redirect(_)) { 6 } else { 1 };
            if asked == path && hit <= times { fault } else { Fault::None }
        })
        .await;
        // Over HTTP/1.1 it may have crossed the request, which is then made again.
        let crossed = matches!((fault, protocol), (Fault::Close, Protocol::H1));
        assert!(report.retried > 0 || !crossed, "{path} {fault:?} {protocol:?}");
        let counted = report.errors.contains_key(name);
        assert_eq!(counted, !crossed, "{path} {fault:?} {protocol:?}: {:?}", report.errors);
        assert_eq!(report.viewers_started, 2, "{path} {fault:?}: viewers go on");
    }
}

#[tokio::test]
async fn every_fault_is_counted_with_h1() {
    count_every_fault(Protocol::H1).await;
}

#[tokio::test]
async fn every_fault_is_counted_with_h2() {
    count_every_fault(Protocol::H2).await;
}

#[tokio::test]
async fn a_response_that_never_comes_is_a_timeout() {
    for protocol in [Protocol::H1, Protocol::H2] {
        let fake = Fake::start(1, 1, |path, hit| {
            if path == "/live/a/v/101.3.m4s" && hit == 1 { Fault::Stall } else { Fault::None }
        })
        .await;
        let scenario = scenario(fake.address.clone(), 1);
        let crowd = impatient(protocol, Duration::from_millis(100));
        let report = run(crowd, &scenario, fake.asked("/live/a/v/102.0.m4s", 1)).await.unwrap();
        assert!(report.errors["timeout"] >= 1, "{protocol:?}");
    }
}

async fn hang(protocol: Protocol) {
    // Everything from some moment on, of both renditions.
    let hangs = |path: &str| path.contains("/101.3.") || path.contains("_HLS_msn=101&_HLS_part=3");
    let fake = Fake::start(1, 1, move |path, _| if hangs(path) { Fault::Stall } else { Fault::None }).await;
    let mut order = scenario(fake.address.clone(), 3);
    order.scenario.phases[1].seconds = 4;
    let report = run(crowd(protocol), &order, std::future::pending()).await.unwrap();
    assert_eq!((report.viewers_started, report.stalls), (3, 3), "{protocol:?}");
    assert!(report.stalled_s > 3.0 * 1.0 && report.rebuffer_ratio > 0.25, "{}", report.stalled_s);
    let stalls = &report.recorded.results.tally.stall_time.figures().unwrap();
    assert!(stalls.count == 3 && stalls.max > 1_000.0, "those that go on: {stalls:?}");
    assert!(report.errors["overdue"] >= 6, "two renditions each: {:?}", report.errors);
    assert!(!report.passed && report.failures[0].contains("errors"), "{:?}", report.failures);
    let seconds = report.recorded.results.seconds_of_all();
    assert!(seconds.values().any(|point| point.stalled == 3), "while it goes, too");
    assert!(report.to_string().contains("overdue"));
}

#[tokio::test]
async fn a_server_that_hangs_to_the_end_shows_in_everything() {
    tokio::join!(hang(Protocol::H1), hang(Protocol::H2));
}

#[tokio::test]
async fn who_breaks_is_told() {
    let fake = Fake::start(1, 1, |_, _| Fault::None).await;
    let mut order = scenario(fake.address.clone(), 2);
    order.scenario.phases[1].seconds = 1;
    order.scenario.viewers.length = crate::scenario::Length::Fixed { seconds: 0.3 };
    order.scenario.viewers.leaving =
        crate::scenario::Leavings { close: 0.0, vanish: 1.0, ..Default::default() };
    // Longer than any clock goes.
    let habits = Habits { vanished: Duration::MAX, ..habits(Duration::from_secs(20)) };
    let crowd = Arc::new(Crowd::new(fake::dialer(Protocol::H2), habits, 1));
    let report = run(crowd, &order, std::future::pending()).await.unwrap();
    assert_eq!(report.recorded.results.tester.broken, 2);
    assert!(!report.passed && report.failures[0].contains("panicked"), "{:?}", report.failures);
}

#[tokio::test]
async fn a_hurried_answer_is_an_unsatisfied_reload() {
    // Always hurried: nothing new ever comes.
    let fake =
        Fake::start(1, 1, |path, _| if path.contains("_HLS_msn") { Fault::Hurry } else { Fault::None }).await;
    let stop = fake.asked("/live/a/v/media.m3u8?_HLS_msn=101&_HLS_part=2", 2);
    let scenario = scenario(fake.address.clone(), 1);
    let report = run(crowd(Protocol::H1), &scenario, stop).await.unwrap();
    assert!(report.errors["unsatisfied_reload"] >= 1, "{:?}", report.errors);
}

#[tokio::test]
async fn a_variant_that_is_not_there_is_an_error() {
    for (pick, there) in [(Pick::Index(0), true), (Pick::Index(1), false)] {
        let fake = Fake::start(1, 8, |_, _| Fault::None).await;
        let order = scenario(fake.address.clone(), 1);
        let habits = Habits { pick, ..habits(Duration::from_secs(20)) };
        let crowd = Arc::new(Crowd::new(fake::dialer(Protocol::H1), habits, 1));
        let stop = async {
            tokio::select! {
                () = fake.done() => {}
                () = fake.asked("/live/a/index.m3u8", 3) => {}
            }
        };
        let report = run(crowd, &order, stop).await.unwrap();
        assert_eq!((report.errors.contains_key("no_variant"), report.viewers_started == 1), (!there, there));
    }
}

#[tokio::test]
async fn nobody_listening_is_a_connect_error() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let address: Address = format!("http://127.0.0.1:{port}/live/a/index.m3u8").parse().unwrap();
    let mut scenario = scenario(address, 1);
    scenario.scenario.phases[1].seconds = 1;
    let report = run(crowd(Protocol::H1), &scenario, std::future::pending()).await.unwrap();
    assert!(report.errors["connect"] >= 1);
    assert_eq!(report.viewers_started, 0);
}

#[tokio::test]
async fn other_machines_and_https_without_a_ca_are_refused() {
    for url in ["http://192.0.2.1/live/a/index.m3u8", "https://127.0.0.1:1/live/a/index.m3u8"] {
        let scenario = scenario(url.parse().unwrap(), 1);
        let refused = run(crowd(Protocol::H1), &scenario, std::future::pending()).await;
        assert!(matches!(refused, Err(RunError::Address { .. })), "{url}");
    }
}

#[tokio::test]
async fn tls_with_the_right_ca_the_wrong_one_and_none() {
    use crate::dial::{DialConfig, Dialer};
    use crate::tls::{Trust, TrustError};
    use rustls::pki_types::PrivateKeyDer;

    let certificate = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let file = |pem: String| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), pem).unwrap();
        file
    };
    let (right, wrong, empty) = (file(certificate.cert.pem()), file(other.cert.pem()), file(String::new()));
    assert!(matches!(Trust::ca_file(empty.path(), b"h2"), Err(TrustError::Empty { .. })));
    let key = PrivateKeyDer::try_from(certificate.signing_key.serialize_der()).unwrap();
    let mut config =
        rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.cert.der().clone()], key)
            .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let config = Arc::new(config);
    for protocol in [Protocol::H1, Protocol::H2] {
        let dialer = |trust: Result<Trust, TrustError>| {
            Dialer::new(DialConfig {
                protocol,
                trust: Some(trust.unwrap()),
                allow_remote: false,
                timeout: Duration::from_secs(20),
            })
        };
        for trust in [Trust::ca_file(right.path(), protocol.alpn()), Trust::anyone(protocol.alpn())] {
            let crowd = Arc::new(Crowd::new(dialer(trust), habits(Duration::from_secs(20)), 1));
            let fake = Fake::start_tls(Arc::clone(&config).into(), 20).await;
            let scenario = scenario(fake.address.clone(), 1);
            let report = run(crowd, &scenario, fake.done()).await.unwrap();
            assert_eq!(report.errors, [].into(), "{protocol:?}");
            assert_eq!(report.viewers_started, 1);
        }
        let fake = Fake::start_tls(Arc::clone(&config).into(), 1).await;
        let dialer = dialer(Trust::ca_file(wrong.path(), protocol.alpn()));
        let mut link = crate::fetch::Link::new(&fake.address.authority, protocol, Duration::from_secs(20));
        let refused = link.open(&dialer).await.unwrap_err();
        assert!(matches!(refused, DialError::Tls(_)), "{refused}");
    }
}
