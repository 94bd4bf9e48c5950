//! From a POP's report to the admin's number, and over a restart.

use super::policy::{connect_tls, with_pops};
use super::*;
use crate::http::api::tests::report;
use crate::{Cli, Command, cli};
use clap::Parser;
use serde_json::Value;
use sigma_report::report::{MEDIA_TYPE, PATH, Report};
use sigma_stats::keeper::now_ms;
use sigma_stats::store::{Entry, Store};

/// Posts a report as a POP, or as a shield for another one.
async fn post(origin: &Origin, pop: &str, said: (Option<&str>, &[u8])) -> Answer {
    post_to(PATH, origin, pop, said).await
}

/// Posts bytes as a POP, or as a shield for another one.
pub(super) async fn post_to(
    path: &str,
    origin: &Origin,
    pop: &str,
    (behind, body): (Option<&str>, &[u8]),
) -> Answer {
    let mut socket = connect_tls(origin, Some(pop)).await;
    let behind = behind.map(|pop| format!("sigma-pop: {pop}\r\n")).unwrap_or_default();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: {MEDIA_TYPE}\r\n\
         Content-Length: {}\r\n{behind}\r\n",
        body.len()
    );
    socket.write_all(&[head.as_bytes(), body].concat()).await.expect("sent");
    let mut raw = Vec::new();
    tokio::time::timeout(BOUND, socket.read_to_end(&mut raw)).await.expect("in time").expect("read");
    let split = raw.windows(4).position(|w| w == b"\r\n\r\n").expect("a head");
    let head = String::from_utf8(raw[..split].to_vec()).expect("text");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Answer { status, head, body: raw[split + 4..].to_vec() }
}

async fn stats(at: SocketAddr, folder: &std::path::Path, path: &str) -> Value {
    let token = std::fs::read_to_string(folder.join("admin.token")).expect("made");
    let bearer = format!("Authorization: Bearer {}\r\n", token.trim());
    let answer = ask(at, "GET", &format!("/api/v1/{path}"), &bearer).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    serde_json::from_slice(&answer.body).expect("JSON")
}

#[tokio::test]
async fn what_pops_report_is_counted_once_and_still_there_after_a_restart() {
    let origin = with_pops("[stats]\nshields = [\"pop-1\"]").await;
    let at = now_ms() - 2000;
    let bytes = report(1, at).encode().expect("written");
    for _ in 0..3 {
        let taken = post(&origin, "pop-1", (None, &bytes)).await;
        assert_eq!((taken.status, taken.text()), (200, r#"{"incarnation":3,"sequence":1}"#));
    }
    let behind = post(&origin, "pop-1", (Some("pop-9"), &bytes)).await;
    assert_eq!(behind.status, 200, "{}", behind.text());
    for (body, behind, status, said) in [
        (&bytes[..20], None, 400, "the report"),
        (&[9][..], None, 415, "version 9"),
        (&bytes[..], Some("POP 9"), 400, "sigma-pop: `POP 9`"),
        (&vec![1; (4 << 20) + 1][..], None, 413, "at most"),
    ] {
        let refused = post(&origin, "pop-1", (behind, body)).await;
        assert_eq!(refused.status, status, "{}", refused.text());
        assert!(refused.text().contains(said), "{said}: {}", refused.text());
    }
    let before = stats(origin.http(), origin.folder(), "stats/one?by=pop").await;
    assert_eq!((&before["views"], &before["watch_ms"]), (&5.into(), &10_000.into()));
    let by: Vec<&str> =
        before["by"].as_array().expect("by").iter().filter_map(|p| p["pop"].as_str()).collect();
    assert_eq!(by, ["pop-1", "pop-9"]);
    origin.running.drain.start();
    origin.running.finished().await;
    let Origin { running, data } = origin;
    drop(running);
    let again = eventually_started(data.path()).await;
    let after = stats(again.http[0], data.path(), "stats/one?by=pop").await;
    for field in ["views", "watch_ms", "bytes", "peak_viewers", "peak_at", "unique_viewers", "latency_ms"] {
        assert_eq!(after[field], before[field], "{field}");
    }
    let pops = stats(again.http[0], data.path(), "pops").await;
    assert_eq!(pops["items"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn only_a_shield_speaks_for_others() {
    let origin = with_pops("[stats]\nshields = [\"pop-8\"]").await;
    let bytes = report(1, now_ms() - 2000).encode().expect("written");
    let refused = post(&origin, "pop-1", (Some("pop-9"), &bytes)).await;
    assert_eq!(refused.status, 403);
    for said in ["`pop-1` may not pass on reports of `pop-9`", "stats.shields", "shields = [\\\"pop-1\\\"]"] {
        assert!(refused.text().contains(said), "{}", refused.text());
    }
    assert_eq!(post(&origin, "pop-1", (Some("pop-1"), &bytes)).await.status, 200, "itself");
    let pops = stats(origin.http(), origin.folder(), "pops").await;
    assert_eq!(pops["items"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn what_is_too_much_or_of_another_time_is_named() {
    let origin = with_pops("").await;
    let (at, whole) = (now_ms() - 2000, report(1, now_ms() - 2000));
    let many = Report { traffic: vec![whole.traffic[0].clone(); 250_000], ..whole.clone() };
    let mut long = whole.clone();
    long.sessions[0].present[0].start = at - 23 * 3_600_000;
    let ahead = Report { incarnation: at + 90_000_000, ..whole.clone() };
    for (report, status, said) in [
        (many, 413, "250000 entries of traffic; at most 16384"),
        (long, 400, "present span, in milliseconds, is 82802000; at most 3600000"),
        (ahead, 400, "reports.spool_dir"),
        (
            Report { sequence: u64::MAX, ..whole.clone() },
            400,
            "sequence number is 18446744073709551615; at most",
        ),
    ] {
        let refused = post(&origin, "pop-1", (None, &report.encode().expect("written"))).await;
        assert_eq!(refused.status, status, "{}", refused.text());
        assert!(refused.text().contains(said), "{}", refused.text());
    }
    // Nothing of it holds up what is true.
    assert_eq!(post(&origin, "pop-1", (None, &whole.encode().expect("written"))).await.status, 200);
    let pops = stats(origin.http(), origin.folder(), "pops").await;
    assert_eq!(
        (&pops["items"][0]["incarnation"], &pops["items"][0]["name"]),
        (&3.into(), &"Frankfurt".into())
    );
}

#[tokio::test]
async fn a_pop_that_is_no_more_can_be_deleted() {
    let data = tempfile::tempdir().expect("a folder");
    let store = Store::file(&data.path().join("stats").join("stats.sqlite")).expect("a folder");
    store.prepare().await.expect("made");
    // Two were heard a minute ago, one will be up.
    let (gone, at) = ("pop-gone".parse().expect("an id"), now_ms() - 60_000);
    let (old, bytes) = ("pop-old".parse().expect("an id"), report(1, at).encode().expect("written"));
    let entry = |id, pop| Entry { id, pop, received_ms: at, report: &bytes, settled: None };
    store.journal(&[entry(1, &gone), entry(2, &old)]).await.expect("written");
    store.close().await;
    let origin = Origin { running: start(data.path(), "", "").await, data };
    let bytes: Bytes = report(1, now_ms() - 2000).encode().expect("written").into();
    origin.running.stats.report("pop-up".parse().expect("an id"), bytes).await.expect("taken");
    let token = std::fs::read_to_string(origin.folder().join("admin.token")).expect("made");
    let bearer = format!("Authorization: Bearer {}\r\n", token.trim());
    let delete = async |pop: &str| request(&origin, "DELETE", &format!("/api/v1/pops/{pop}"), &bearer).await;
    let before = stats(origin.http(), origin.folder(), "stats/one?by=pop").await;
    for (pop, status, said) in [
        ("pop-up", 409, "`pop-up` is up"),
        ("pop-gone", 200, r#"{"deleted":"pop-gone"}"#),
        ("pop-gone", 404, "there is no `pop-gone`"),
        ("POP", 404, "there is no `POP`"),
    ] {
        let answer = delete(pop).await;
        assert_eq!(answer.status, status, "{}", answer.text());
        assert!(answer.text().contains(said), "{}", answer.text());
    }
    assert_eq!(request(&origin, "DELETE", "/api/v1/pops/pop-up", "").await.status, 401);
    assert_eq!(delete_by_command(&origin, "pop-old").await, Ok("pop-old: deleted\n".to_owned()));
    let refused = delete_by_command(&origin, "pop-up").await.expect_err("it is up");
    assert!(refused.contains("409: pop: `pop-up` is up"), "{refused}");
    let pops = stats(origin.http(), origin.folder(), "pops").await;
    let left: Vec<_> = pops["items"].as_array().into_iter().flatten().map(|pop| pop["id"].as_str()).collect();
    assert_eq!(left, [Some("pop-up")]);
    let after = stats(origin.http(), origin.folder(), "stats/one?by=pop").await;
    for field in ["views", "watch_ms", "bytes", "unique_viewers"] {
        assert_eq!(after[field], before[field], "{field} stays");
    }
    assert_eq!(after["by"].as_array().map(Vec::len), Some(3), "by its name, too");
}

/// `sigma-origin pop delete`, as an operator types it.
async fn delete_by_command(origin: &Origin, pop: &str) -> Result<String, String> {
    let (url, token) = (format!("http://{}", origin.http()), origin.folder().join("admin.token"));
    let token = token.to_str().expect("text");
    let typed = ["sigma-origin", "pop", "delete", pop, "--url", &url, "--token-file", token];
    let Command::Pop { command } = Cli::try_parse_from(typed).expect("a command").command else {
        panic!("another command")
    };
    let deleting = tokio::task::spawn_blocking(move || {
        let mut said = Vec::new();
        cli::pop(&command, &mut said).map(|()| String::from_utf8(said).expect("text"))
    });
    deleting.await.expect("no panic")
}

#[tokio::test]
async fn a_spoilt_database_stops_nothing() {
    let data = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(data.path().join("stats")).expect("made");
    std::fs::write(data.path().join("stats").join("stats.sqlite"), [b'?'; 9000]).expect("written");
    let origin = Origin { running: start(data.path(), "", "").await, data };
    let metrics = ask(origin.running.ops, "GET", "/metrics", "").await;
    assert!(metrics.text().contains("sigma_origin_stats_available 0"), "{}", metrics.text());
    let stats = &origin.running.stats;
    tokio::time::timeout(BOUND, stats.available()).await.expect("in time").expect("there");
    let bytes: Bytes = report(1, now_ms() - 2000).encode().expect("written").into();
    assert!(stats.report("pop-1".parse().expect("an id"), bytes).await.is_ok());
    let metrics = ask(origin.running.ops, "GET", "/metrics", "").await;
    for line in ["stats_available 1", "stats_set_aside_total{what=\"database\"} 1"] {
        assert!(metrics.text().contains(&format!("sigma_origin_{line}")), "{}", metrics.text());
    }
}

/// Starts on a folder as soon as the one before has let go of it.
async fn eventually_started(folder: &std::path::Path) -> Running {
    let file = format!(
        "data_dir = {folder:?}\n[http]\nbind = [\"127.0.0.1:0\"]\n[rtmp]\nbind = [\"127.0.0.1:0\"]\n\
         [ops]\nbind = \"127.0.0.1:0\"\n[[channels]]\nid = \"one\"\ntype = \"forward\"\nkey = \"key-of-one\"\n"
    );
    let config: Config = sigma_http::config::parse(&file).expect("valid");
    let starting = async {
        loop {
            match app::start(&config, &Sockets::none()).await {
                Ok(running) => return running,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    tokio::time::timeout(BOUND, starting).await.expect("in time")
}

#[tokio::test]
async fn broadcast_sessions_begin_and_end_where_their_media_does() {
    let origin = with_pops("stop_timeout_s = 0").await;
    let mut publisher = Publisher::connect(&origin, "key-of-one").await.expect("accepted");
    publisher.frames(200).await;
    eventually(&origin, "/live/one/index.m3u8").await;
    let broadcast = async |ended: bool| {
        let asking = async {
            loop {
                let stats = stats(origin.http(), origin.folder(), "stats/one?by=broadcast").await;
                let newest = stats["by"][0].clone();
                if newest.is_object() && newest["ended_at"].is_string() == ended {
                    return newest;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(BOUND, asking).await.expect("in time")
    };
    let live = broadcast(false).await;
    let playlist = eventually(&origin, "/live/one/source/media.m3u8").await;
    let first = playlist.text().split("PROGRAM-DATE-TIME:").nth(1).and_then(|rest| rest.lines().next());
    let first: jiff::Timestamp = first.expect("a date").parse().expect("RFC 3339");
    let started: jiff::Timestamp = live["started_at"].as_str().expect("a date").parse().expect("RFC 3339");
    let apart = first.as_millisecond() - started.as_millisecond();
    assert!(
        (0..2000).contains(&apart),
        "the start of the segment grid's cell, {apart} ms before the first picture's date"
    );
    // Its content counts for it.
    let at = first.as_millisecond().cast_unsigned();
    let reported = Report { sequence: 1, ..report(1, at) };
    assert_eq!(post(&origin, "pop-1", (None, &reported.encode().expect("written"))).await.status, 200);
    let counted = broadcast(false).await;
    assert_eq!((&counted["views"], &counted["watch_ms"]), (&5.into(), &10_000.into()));
    drop(publisher);
    let ended = broadcast(true).await;
    let end: jiff::Timestamp = ended["ended_at"].as_str().expect("a date").parse().expect("RFC 3339");
    let length = end.as_millisecond() - started.as_millisecond();
    assert!((6600..7400).contains(&(length - apart)), "200 pictures, 30 a second: {length} ms");
    assert_eq!((&ended["broadcast"], &ended["views"]), (&live["broadcast"], &5.into()));
}
