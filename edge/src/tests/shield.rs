//! An edge behind an edge: reports go through, under the name of the POP whose certificate they came with.

use super::*;
use crate::upstream::{Protocol, Upstream};
use http::header::{HeaderMap, HeaderValue};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
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
    let posted = request(Method::POST, PATH);
    assert_eq!(lab.viewer().await.send(posted).await.status(), 405);
    assert_eq!(lab.fake.count(), 0);
}

/// What a shield answers to a report that `pop-2` says is `pop-7`'s.
async fn passed_on_for_another(shields: &[&str]) -> (u16, Option<String>) {
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
    headers.insert("sigma-pop", HeaderValue::from_static("pop-7"));
    let mut posting = pin!(async {
        loop {
            let posted = upstream.post(PATH, headers.clone(), Bytes::from_static(b"a report")).await;
            if let Ok(answer) = posted {
                return answer.status().as_u16();
            }
            tokio::task::yield_now().await;
        }
    });
    let mut named = None;
    loop {
        tokio::select! {
            ask = shield.fake.asks.recv() => {
                let asked = ask.unwrap();
                if asked.path == PATH {
                    named = Some(asked.headers["sigma-pop"].to_str().unwrap().to_owned());
                    asked.answer(200, 0, "{}").await;
                } else {
                    asked.refuse(503).await;
                }
            }
            status = within(&mut posting) => return (status, named),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_behind_a_shield_speaks_for_another_but_a_shield() {
    assert_eq!(passed_on_for_another(&[]).await, (403, None));
    assert_eq!(passed_on_for_another(&["pop-2"]).await, (200, Some("pop-7".to_owned())));
}
