use super::*;
use crate::cli::{Cli, Command};
use crate::fake::{Fake, Fault};
use crate::report::Verdict;
use clap::Parser;
use std::cell::Cell;

/// A signed path: bytes 0 to 59 in base64url, of which 12 to 27 are the session's id.
const SIGNED: &str =
    "/s/AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7/live/a/index.m3u8";

/// A run against a server where one part is missing, verified against that origin.
async fn report(origin: &Address, token: &str) -> Report {
    interrupted(origin, token, 1).await
}

/// …which somebody wants to end that often.
async fn interrupted(origin: &Address, token: &str, signals: u32) -> Report {
    let fake = Fake::start(1, 40, |path, hit| match path {
        "/live/a/index.m3u8" => Fault::Redirect(SIGNED),
        path if path.ends_with("/v/101.3.m4s") && hit == 1 => Fault::Status(404),
        _ => Fault::None,
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let truth = folder.path().join("truth.jsonl");
    let url = format!("http://{}{}", fake.address.authority, fake.address.path);
    let line = [
        "sigma-load",
        "run",
        &url,
        "--seconds",
        "20",
        "--ramp-seconds",
        "0",
        "--verify",
        "--hints",
        "0",
        "--timeout-seconds",
        "1",
    ];
    let origin = format!("http://{}", origin.authority);
    let more = ["--truth", truth.to_str().unwrap(), "--origin", &origin, "--origin-token", token];
    let Command::Run(arguments) = Cli::try_parse_from(line.iter().chain(&more)).unwrap().command else {
        unreachable!()
    };
    let asked = Cell::new(0);
    let stop = async || match asked.replace(asked.get() + 1) {
        // Before the run nobody wants anything.
        0 => std::future::pending().await,
        1 => fake.done().await,
        before if before <= signals => {}
        _ => std::future::pending().await,
    };
    run(&arguments, stop).await.unwrap()
}

#[tokio::test]
async fn a_run_with_errors_is_verified_all_the_same() {
    let asked = Arc::default();
    let origin = verify::tests::origin(0, Arc::clone(&asked)).await;
    let report = report(&origin, "secret").await;
    assert_eq!(report.errors, [("http_404".to_owned(), 1)].into());
    assert_eq!(report.verdict, Verdict::Failed);
    let [verification] = report.recorded.verification.as_slice() else { panic!("{report}") };
    assert_eq!((verification.sessions, verification.passed), (1, false), "the origin knows nobody");
    let asked = asked.lock().unwrap().clone();
    assert_eq!(asked[0], "/api/v1/stats/a", "before the run: what was there is not the run's");
    assert_eq!(verification.run, report.recorded.runs[0]);
    let text = report.to_string();
    assert!(text.contains("1 errors, 0 allowed") && text.contains("0 of 1"), "{text}");
    assert!(text.contains("channel a: the origin's statistics"), "{text}");
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["verification"][0]["metrics"][0]["verdict"], "fail");
    assert_eq!(json["errors"]["http_404"], 1);
}

#[tokio::test]
async fn an_origin_that_does_not_answer_is_a_failure_beside_the_figures() {
    let origin = verify::tests::origin(0, Arc::default()).await;
    let report = report(&origin, "wrong").await;
    assert!(report.recorded.verification.is_empty() && report.parts > 0);
    let reason = report.failures.last().unwrap();
    assert!(reason.contains("not verified: channel a") && reason.contains("401"), "{reason}");
}

#[tokio::test]
async fn an_interrupted_run_proves_nothing_and_its_proof_can_be_interrupted_too() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    // Takes connections, and says nothing.
    let silent = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let report = interrupted(&silent, "secret", 2).await;
    assert!(report.interrupted && report.recorded.verification.is_empty());
    assert_eq!(report.failures.last().unwrap(), "not verified: interrupted");
    assert!(report.doubts()[0].contains("interrupted") && report.to_string().contains("run was interrupted"));
}

#[tokio::test]
async fn what_cannot_be_is_wrong_usage() {
    let url = "http://127.0.0.1:1/live/a/index.m3u8";
    for wrong in [
        &[url, "--scenario", "pop-death"][..],
        &["http://192.0.2.1/live/a/index.m3u8", "--quiet"],
        &[url, "--server-pid", "4294967295", "--quiet"],
        &[url, "--token-file", "/nonexistent"],
        &[url, "--truth", "/nonexistent/truth"],
        &[url, "--ca", "/nonexistent"],
    ] {
        let line = ["sigma-load", "run"].iter().chain(wrong);
        let Command::Run(arguments) = Cli::try_parse_from(line).unwrap().command else { unreachable!() };
        let error = run(&arguments, async || std::future::pending().await).await.unwrap_err();
        assert!(error.is::<crate::Misuse>(), "{wrong:?}: {error}");
    }
}
