//! An edge behind an edge: what it posts goes through, under the name of the POP whose certificate it came with.

use super::*;
use crate::upstream::{Protocol, Upstream};
use http::header::{HeaderMap, HeaderValue};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use sigma_report::places;
use sigma_report::report::{PATH, Report};
use sigma_report::settled::Settled;
use std::pin::pin;
use std::sync::Arc;

/// Writes a CA for POPs, and a certificate of `pop-2` by it.
fn pops(dir: &Path) {
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    std::fs::write(dir.join("pops.pem"), ca.self_signed(&key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(ca, key);
    let mut leaf = CertificateParams::new(["pop-2".to_owned()]).unwrap();
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().unwrap();
    std::fs::write(dir.join("pop-2.pem"), leaf.signed_by(&key, &issuer).unwrap().pem()).unwrap();
    std::fs::write(dir.join("pop-2.key"), key.serialize_pem()).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shield_passes_reports_on_and_answers_back() {
    let mut shield = Lab::with(|config| {
        let tls = config.tls.as_mut().unwrap();
        let dir = tls.certificate.as_ref().unwrap().parent().unwrap();
        pops(dir);
        tls.client_ca = Some(dir.join("pops.pem"));
        config.reports.enabled = false;
    });
    let dir = shield.dir.path();
    let mut behind = config(dir, shield.edge.tls[0]);
    behind.upstream.certificate = Some(dir.join("pop-2.pem"));
    behind.upstream.key = Some(dir.join("pop-2.key"));
    behind.reports.interval_ms = 100;
    let pop = app::start(&behind, &Sockets::none()).unwrap();
    let mut answered = 0;
    while pop.metrics.accounting.reports.acknowledged.get() == 0 {
        let asked = tokio::select! {
            ask = shield.fake.asks.recv() => ask.unwrap(),
            () = within(until(|| pop.metrics.accounting.reports.acknowledged.get() > 0)) => break,
        };
        // Of the policy there is none.
        if asked.path != PATH {
            asked.refuse(503).await;
            continue;
        }
        assert_eq!((asked.headers["sigma-pop"].to_str().unwrap(), asked.method.as_str()), ("pop-2", "POST"));
        let report = Report::decode(&asked.body).unwrap();
        let settled: Settled = asked.headers["sigma-settled"].to_str().unwrap().parse().unwrap();
        assert!(settled.is_of(&report), "{settled}");
        answered += 1;
        if answered == 1 {
            asked.refuse(503).await;
            continue;
        }
        let ack = format!(r#"{{"incarnation":{},"sequence":{}}}"#, report.incarnation, report.sequence);
        asked.answer(200, 0, Box::leak(ack.into_boxed_str())).await;
    }
    assert!(answered >= 2 && pop.metrics.accounting.reports.sent.get() >= 2, "what got a 503 came again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_certificate_is_a_failed_connect_until_there_is_a_good_one() {
    let shield = Lab::with(|config| {
        let tls = config.tls.as_mut().unwrap();
        let dir = tls.certificate.as_ref().unwrap().parent().unwrap();
        pops(dir);
        tls.client_ca = Some(dir.join("pops.pem"));
    });
    let (good, bad) = (shield.dir.path(), tempfile::tempdir().unwrap());
    pops(bad.path());
    let mut behind = config(good, shield.edge.tls[0]);
    behind.upstream.certificate = Some(bad.path().join("pop-2.pem"));
    behind.upstream.key = Some(bad.path().join("pop-2.key"));
    let began = std::time::Instant::now();
    let pop = app::start(&behind, &Sockets::none()).unwrap();
    let of_shield = counters(&pop, shield.edge.tls[0]);
    let h2 = of_shield.of(Protocol::H2);
    within(until(|| h2.connect_failures.get() >= 5)).await;
    assert!(began.elapsed() >= Duration::from_millis(250), "ever slower, past reconnect_ms_max");
    // Half open in between, while a connection that is about to end is probed.
    within(until(|| of_shield.state.get() == 2)).await;
    assert_eq!(of_shield.probes_good.get(), 0);
    for name in ["pop-2.pem", "pop-2.key"] {
        std::fs::copy(good.join(name), bad.path().join(name)).unwrap();
    }
    pop.certificates().for_each(|certificate| certificate.reload().unwrap());
    within(until(|| of_shield.probes_good.get() > 0 && of_shield.state.get() == 0)).await;
    assert_eq!(h2.connected.get(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_of_who_shows_no_certificate_are_not_passed_on() {
    let lab = Lab::new();
    for path in [PATH, places::PATH] {
        assert_eq!(lab.viewer().await.send(request(Method::POST, path)).await.status(), 405, "{path}");
    }
    assert_eq!(lab.fake.count(), 0);
}

/// What a shield answers to what `pop-2` posts, and what its own upstream was asked.
struct PassedOn {
    status: u16,
    answer: Bytes,
    asked: Option<(HeaderMap, Bytes)>,
}

/// `pop-2` posts to a path, for itself or for a POP that it names; the upstream answers this.
async fn passed_on(
    shields: &[&str],
    (path, named): (&str, Option<&'static str>),
    (posted, answer): (Bytes, &[u8]),
) -> PassedOn {
    let mut shield = Lab::with(|config| {
        let tls = config.tls.as_mut().unwrap();
        let dir = tls.certificate.as_ref().unwrap().parent().unwrap();
        pops(dir);
        tls.client_ca = Some(dir.join("pops.pem"));
        config.reports.enabled = false;
        config.reports.shields = shields.iter().map(ToString::to_string).collect();
    });
    let dir = shield.dir.path();
    let mut behind = config(dir, shield.edge.tls[0]);
    behind.upstream.certificate = Some(dir.join("pop-2.pem"));
    behind.upstream.key = Some(dir.join("pop-2.key"));
    behind.reports.enabled = false;
    let upstream = Upstream::start(&behind.upstream, Arc::clone(&shield.edge.metrics)).unwrap();
    let mut headers = HeaderMap::new();
    if let Some(named) = named {
        headers.insert("sigma-pop", HeaderValue::from_static(named));
    }
    let mut posting = pin!(async {
        loop {
            if let Ok(answer) = upstream.post(path, headers.clone(), posted.clone()).await {
                let status = answer.status().as_u16();
                return (status, answer.into_body().whole(8 << 20, PATIENCE).await.unwrap());
            }
            tokio::task::yield_now().await;
        }
    });
    let mut asked = None;
    loop {
        tokio::select! {
            ask = shield.fake.asks.recv() => {
                let ask = ask.unwrap();
                if ask.path == path {
                    asked = Some((ask.headers.clone(), ask.body.clone()));
                    ask.answer_bytes(200, answer.to_vec()).await;
                } else {
                    ask.refuse(503).await;
                }
            }
            (status, answer) = within(&mut posting) => return PassedOn { status, answer, asked },
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_behind_a_shield_speaks_for_another_but_a_shield() {
    for path in [PATH, places::PATH] {
        let posted = || (Bytes::from_static(b"what it says"), &b"{}"[..]);
        let refused = passed_on(&[], (path, Some("pop-7")), posted()).await;
        assert_eq!((refused.status, refused.asked), (403, None), "{path}");
        let passed = passed_on(&["pop-2"], (path, Some("pop-7")), posted()).await;
        let (headers, body) = passed.asked.unwrap();
        assert_eq!(
            (passed.status, &headers["sigma-pop"], &body[..]),
            (200, &"pop-7".parse().unwrap(), &b"what it says"[..])
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_a_place_behind_a_shield_is_passed_on_and_the_answer_back() {
    // Neither is small, nor text.
    let (posted, answer) = (Bytes::from(vec![0xfe; 1 << 20]), vec![0xfd; 3 << 20]);
    let passed = passed_on(&[], (places::PATH, None), (posted.clone(), &answer)).await;
    let (headers, body) = passed.asked.unwrap();
    assert_eq!((passed.status, body), (200, posted));
    assert_eq!(passed.answer.len(), answer.len());
    assert_eq!(
        (&headers["sigma-pop"], &headers["content-type"]),
        (&"pop-2".parse().unwrap(), &places::MEDIA_TYPE.parse().unwrap())
    );
    let too_much = Bytes::from(vec![0; places::BYTES_MAX + 1]);
    let refused = passed_on(&[], (places::PATH, None), (too_much, b"")).await;
    assert_eq!((refused.status, refused.asked), (413, None));
    assert!(std::str::from_utf8(&refused.answer).unwrap().contains("at most 4194304 bytes"));
}
