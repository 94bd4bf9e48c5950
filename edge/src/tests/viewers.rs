//! Who is counted, from a viewer's request to the report that the upstream gets, over real sockets.

use super::sessions::{answer_policy, base, policy, sent_to};
use super::*;
use sigma_report::report::{Protocol, Report};
use sigma_report::spans::{Span, Spans};
use std::collections::BTreeMap;

/// What the upstream is told.
#[derive(Default)]
struct Told {
    /// By session and protocol: watched microseconds, and whether it was present.
    sessions: BTreeMap<([u8; 16], Protocol), (Spans, Spans)>,
    traffic: BTreeMap<(Protocol, u64), (u64, u64)>,
    reports: Vec<Report>,
}

impl Told {
    fn add(&mut self, report: Report) {
        for told in &report.sessions {
            let (watched, present) = self.sessions.entry((told.session, told.protocol)).or_default();
            told.watched.iter().for_each(|span| drop(watched.insert(*span)));
            told.present.iter().for_each(|span| drop(present.insert(*span)));
        }
        for told in &report.traffic {
            let most = self.traffic.entry((told.protocol, told.second)).or_default();
            *most = (told.bytes.max(most.0), told.requests.max(most.1));
        }
        self.reports.push(report);
    }

    fn watched(&self) -> Vec<u64> {
        self.sessions.values().map(|(watched, _)| watched.length()).filter(|length| *length > 0).collect()
    }

    fn requests(&self) -> u64 {
        self.traffic.values().map(|(_, requests)| requests).sum()
    }
}

async fn counting() -> (Lab, Told, Vec<Ask>) {
    let mut lab = Lab::with(|config| {
        config.sessions.enabled = true;
        config.sessions.policy_poll_ms = 50;
        config.upstream.certificate = config.tls.as_ref().and_then(|tls| tls.certificate.clone());
        config.upstream.key = config.tls.as_ref().and_then(|tls| tls.key.clone());
        config.reports.interval_ms = 100;
        config.pop_description.name = "Here".to_owned();
    });
    let (mut told, mut held) = (Told::default(), Vec::new());
    loop {
        let ask = lab.ask().await;
        if ask.path.starts_with("/internal/edge/policy") {
            answer_policy(ask, &policy(1, vec![])).await;
            break;
        }
        take(ask, &mut told, &mut held).await;
    }
    within(until(|| lab.edge.metrics.policy_polls.changed.get() == 1)).await;
    (lab, told, held)
}

/// Takes a report in, or holds a question for the policy; anything else is returned.
async fn take(ask: Ask, told: &mut Told, held: &mut Vec<Ask>) -> Option<Ask> {
    if ask.path == "/internal/edge/reports" {
        assert_eq!(ask.headers["content-type"], "application/vnd.sigma-live.report");
        let report = Report::decode(&ask.body).unwrap();
        let ack = format!(r#"{{"incarnation":{},"sequence":{}}}"#, report.incarnation, report.sequence);
        told.add(report);
        ask.answer(200, 0, Box::leak(ack.into_boxed_str())).await;
        return None;
    }
    if ask.path.starts_with("/internal/") {
        held.push(ask);
        return None;
    }
    Some(ask)
}

const SPAN: &str = "com.sigma-live-span=\"1000000-1200000\",d=200,ot=v,sf=h,st=ll";

impl Lab {
    async fn object(&mut self, told: &mut Told, held: &mut Vec<Ask>) -> Ask {
        loop {
            let ask = self.ask().await;
            if let Some(object) = take(ask, told, held).await {
                return object;
            }
        }
    }

    async fn until_told(&mut self, told: &mut Told, held: &mut Vec<Ask>, is: impl Fn(&Told) -> bool) {
        while !is(told) {
            let ask = self.ask().await;
            assert!(take(ask, told, held).await.is_none(), "nothing is fetched any more");
        }
    }
}

async fn whole(ask: Ask, cmsd: &str) {
    ask.head(200, &[("cache-control", "max-age=60"), ("cmsd-static", cmsd)]).send("part").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_that_was_sent_whole_is_watched_and_nothing_else_is() {
    let (mut lab, mut told, mut held) = counting().await;
    let sessions: Vec<String> = {
        let mut sessions = Vec::new();
        for _ in 0..3 {
            sessions.push(base(&sent_to(&lab, "/live/demo/index.m3u8").await));
        }
        sessions
    };
    let part = |session: &str| format!("{session}/v720/7.1.m4s?CMCD=bs%2Cmsd%3D450");
    let first = lab.begin(&part(&sessions[0])).await;
    let ask = lab.object(&mut told, &mut held).await;
    assert_eq!(ask.path, PART, "CMCD is no part of the key");
    whole(ask, SPAN).await;
    assert_eq!(body(within(first).await.unwrap()).await.unwrap(), "part");
    // Again from memory; as HEAD; by an ETag that it has; of another rendition; over HTTP/1.1.
    let mut viewer = lab.viewer().await;
    body(viewer.get(&part(&sessions[0])).await).await.unwrap();
    viewer.send(request(Method::HEAD, &part(&sessions[1]))).await;
    let mut plain = h1(lab.edge.http[0]).await;
    let asked = request(Method::GET, &part(&sessions[0]).replace("http://edge", ""));
    body(within(plain.send_request(asked)).await.unwrap()).await.unwrap();
    // A playlist alone, and what is not there.
    let playlist = lab.begin(&format!("{}/v720/media.m3u8", sessions[2])).await;
    whole(lab.object(&mut told, &mut held).await, "ot=m,sf=h,st=ll").await;
    body(within(playlist).await.unwrap()).await.unwrap();
    let missing = lab.begin(&format!("{}/v720/9.m4s", sessions[2])).await;
    lab.object(&mut told, &mut held).await.refuse(404).await;
    drop(within(missing).await.unwrap());

    lab.until_told(&mut told, &mut held, |told| told.requests() >= 6).await;
    assert_eq!(told.watched(), [200_000, 200_000], "once for each protocol");
    assert_eq!(told.sessions.len(), 2);
    let ids: std::collections::BTreeSet<[u8; 16]> = told.sessions.keys().map(|(id, _)| *id).collect();
    assert_eq!(ids.len(), 1, "and one view");
    let span = Span { start: 1_000_000, end: 1_200_000 };
    assert!(told.sessions.values().all(|(watched, _)| watched.as_slice() == [span]));
    assert!(told.sessions.values().all(|(_, present)| !present.is_empty()));
    let known = &told.reports[0].pop;
    assert_eq!((known.name.as_str(), known.version.as_str()), ("Here", env!("CARGO_PKG_VERSION")));
    lab.until_told(&mut told, &mut held, |told| told.reports.iter().any(|r| !r.quality.is_empty())).await;
    let quality = told.reports.iter().rev().find_map(|report| report.quality.last()).unwrap();
    assert_eq!(quality.startup_ms.count(), 3, "once for each session and protocol: {quality:?}");
    assert_eq!(quality.starvations, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_that_breaks_off_is_watched_by_nobody() {
    let (mut lab, mut told, mut held) = counting().await;
    let session = base(&sent_to(&lab, "/live/demo/index.m3u8").await);
    let viewer = lab.begin(&format!("{session}/v720/7.1.m4s")).await;
    let ask = lab.object(&mut told, &mut held).await;
    let headers = [("cache-control", "max-age=60"), ("cmsd-static", SPAN), ("content-length", "100")];
    let feed = ask.head(200, &headers);
    feed.send("half of it").await;
    let mut response = within(viewer).await.unwrap();
    assert_eq!(first_piece(&mut response).await, "half of it");
    feed.abort().await;
    // The rest is asked for once more; of another object it is none.
    let _ = lab.object(&mut told, &mut held).await.head(200, &headers).try_send("another object").await;
    assert!(body(response).await.is_err());
    lab.until_told(&mut told, &mut held, |told| told.requests() >= 1).await;
    assert!(told.watched().is_empty());
    assert_eq!(told.traffic.values().map(|(bytes, _)| bytes).sum::<u64>(), 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_server_holds_and_the_socket_never_took_is_watched_by_nobody() {
    let (mut lab, mut told, mut held) = counting().await;
    let session = base(&sent_to(&lab, "/live/demo/index.m3u8").await);
    let tcp = TcpStream::connect(lab.edge.http[0]).await.unwrap();
    let mut narrow = http2::Builder::new(TokioExecutor::new());
    narrow.initial_stream_window_size(3);
    let (mut sender, connection) = narrow.handshake(TokioIo::new(tcp)).await.unwrap();
    let connection = tokio::spawn(connection);
    let asked = request(Method::GET, &format!("{session}/v720/7.1.m4s"));
    let viewer = tokio::spawn(async move { sender.send_request(asked).await });
    whole(lab.object(&mut told, &mut held).await, SPAN).await;
    // The head is there, and of the four bytes that belong to it the connection was handed all.
    let response = within(viewer).await.unwrap().unwrap();
    lab.until_no_fills().await;
    connection.abort();
    drop(response);
    lab.until_told(&mut told, &mut held, |told| told.requests() >= 1).await;
    assert!(told.watched().is_empty());
    assert!(told.traffic.values().all(|(bytes, _)| *bytes < 4), "{:?}", told.traffic);
    assert_eq!((lab.edge.metrics.bodies.complete.get(), lab.edge.metrics.bodies.aborted.get()), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_is_present_until_its_connection_ends() {
    let (mut lab, mut told, mut held) = counting().await;
    let session = base(&sent_to(&lab, "/live/demo/index.m3u8").await);
    let viewer = lab.begin(&format!("{session}/v720/7.1.m4s")).await;
    whole(lab.object(&mut told, &mut held).await, SPAN).await;
    body(within(viewer).await.unwrap()).await.unwrap();
    let waiting = lab.begin(&format!("{session}/v720/7.2.m4s")).await;
    let unanswered = lab.object(&mut told, &mut held).await;
    let length = |told: &Told| told.sessions.values().map(|(_, present)| present.length()).sum::<u64>();
    let before = length(&told);
    lab.until_told(&mut told, &mut held, |told| length(told) > before + 300).await;
    assert_eq!(lab.edge.metrics.accounting.viewers.get(), 1);
    // It goes; the fetch is the edge's and goes on.
    waiting.abort();
    lab.until_waiting(0).await;
    let reports = told.reports.len();
    lab.until_told(&mut told, &mut held, |told| told.reports.len() >= reports + 3).await;
    let (end, reports) = (length(&told), told.reports.len());
    lab.until_told(&mut told, &mut held, |told| told.reports.len() >= reports + 3).await;
    assert_eq!(length(&told), end, "absent from then on");
    drop(unanswered);
}
