use super::*;
use crate::dial::DialConfig;
use std::io::Write;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const START_S: u64 = 1_795_333_200;
/// Of sessions that are listed no more.
const OLD: Totals = Totals { views: 70, watch_ms: 7_000_000 };

fn dialer() -> Dialer {
    let timeout = Duration::from_secs(20);
    Dialer::new(DialConfig { protocol: Protocol::H1, trust: None, allow_remote: false, timeout })
}

/// An origin that has seen `sessions`, two to a page; notes what it is asked.
pub(crate) async fn origin(sessions: u64, asked: Arc<Mutex<Vec<String>>>) -> Address {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut buffer = Vec::new();
            while socket.read_buf(&mut buffer).await.is_ok_and(|read| read > 0) {
                if !buffer.ends_with(b"\r\n\r\n") {
                    continue;
                }
                let request = String::from_utf8(std::mem::take(&mut buffer)).unwrap();
                let path = request.split(' ').nth(1).unwrap().to_owned();
                let allowed = request.to_lowercase().contains("authorization: bearer secret\r\n");
                let body = if allowed { answer(&path, sessions) } else { "{\"title\":\"no\"}".into() };
                let status = if allowed { "200 OK" } else { "401 Unauthorized" };
                asked.lock().unwrap().push(path);
                let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
                socket.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
            }
        }
    });
    url
}

/// Sessions of 10 s, each a second after the other, counted 4 s longer.
fn answer(path: &str, sessions: u64) -> String {
    let viewers =
        |second: u64| (0..sessions).filter(|n| (START_S + n..START_S + n + 14).contains(&second)).count();
    let query =
        |name: &str| path.split(['?', '&']).find_map(|pair| pair.strip_prefix(name)).unwrap_or_default();
    if path.contains("/series?") {
        let second = |name| unix_ms(query(name)).unwrap() / 1000;
        let points: Vec<_> = (second("from=")..second("to="))
            .map(|t| serde_json::json!({"at": rfc3339(t), "viewers": viewers(t), "bytes": 1, "final": true}))
            .collect();
        serde_json::json!({"points": points, "by": [{"pop": "pop-1", "points": points}]}).to_string()
    } else if path.contains("/playback-sessions?") {
        let from = query("cursor=").parse().unwrap_or(0u64);
        let items: Vec<_> = (from..sessions.min(from + 2))
            .map(|n| {
                serde_json::json!({"session": format!("{n:032x}"), "first_media_at": rfc3339(START_S + n),
                    "last_at": rfc3339(START_S + n + 10), "watch_ms": 10_000, "pops": ["pop-1"], "viewing": false})
            })
            .collect();
        let next = (from + 2 < sessions).then(|| (from + 2).to_string());
        serde_json::json!({"items": items, "next_cursor": next}).to_string()
    } else {
        serde_json::json!({"final_until": rfc3339(4_000_000_000), "views": OLD.views + sessions,
            "watch_ms": OLD.watch_ms + sessions * 10_000})
        .to_string()
    }
}

/// `first` to `end` of the sessions in a log.
fn log(first: u64, end: u64) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    for n in first..end {
        let start = (START_S + n) * 1000;
        let line = serde_json::json!({"session": format!("{n:032x}"), "channel": "bench", "pops": ["pop-1"],
            "protocol": "h2", "started_at_ms": start, "first_media_at_ms": start, "last_response_at_ms": start + 10_000,
            "left": "reset", "present_ms": [[start, start + 10_000]], "watched_us": 10_000_000, "parts": 20});
        writeln!(file, "{line}").unwrap();
    }
    file
}

fn order(url: Address, logs: &[&tempfile::NamedTempFile]) -> Order {
    Order {
        truth: logs.iter().map(|log| log.path().to_owned()).collect(),
        url,
        token: Some("secret".into()),
        channel: "bench".into(),
        before: None,
        bars: Bars::default(),
        wait: Duration::ZERO,
        timeout: Duration::from_secs(20),
    }
}

#[tokio::test]
async fn logs_of_two_processes_against_the_api() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let url = origin(5, Arc::clone(&asked)).await;
    let (one, two, three) = (log(0, 3), log(3, 5), log(5, 6));
    let right = run(&dialer(), &order(url.clone(), &[&one, &two])).await.unwrap();
    assert!(right.passed, "{right}");
    let asked_before = Order { before: Some(OLD), ..order(url.clone(), &[&one, &two]) };
    let right = run(&dialer(), &asked_before).await.unwrap();
    assert!(right.passed && right.to_string().contains("5 of 5"), "{right}");
    assert_eq!(totals(&dialer(), &asked_before).await.unwrap().views, 75);
    let asked = asked.lock().unwrap().clone();
    assert_eq!(asked.iter().filter(|path| path.contains("/playback-sessions?")).count(), 6, "{asked:?}");
    let short = run(&dialer(), &order(url.clone(), &[&one])).await.unwrap();
    assert!(!short.passed && short.to_string().contains("0 missing, 2 extra"), "{short}");
    let long = run(&dialer(), &order(url, &[&one, &two, &three])).await.unwrap();
    assert!(!long.passed && long.to_string().contains("1 missing, 0 extra"), "{long}");
}

#[tokio::test]
async fn what_cannot_be_compared_says_why() {
    let url = origin(5, Arc::default()).await;
    let log = log(0, 1);
    let right = order(url, &[&log]);
    let no_token = run(&dialer(), &Order { token: None, ..right.clone() }).await.unwrap_err().to_string();
    assert!(no_token.contains("401") && no_token.contains("--token-file"), "{no_token}");
    let other = run(&dialer(), &Order { channel: "demo".into(), ..right.clone() }).await.unwrap_err();
    assert!(matches!(other, VerifyError::Nothing(_)));
    let broken = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(broken.path(), "{\"session\":1}\n").unwrap();
    let error = run(&dialer(), &order(right.url.clone(), &[&broken])).await.unwrap_err().to_string();
    assert!(error.contains("line 1: no ground truth"), "{error}");
    let text = std::fs::read_to_string(log.path()).unwrap();
    std::fs::write(broken.path(), text.replace(&format!("{:032x}", 0), "")).unwrap();
    let error = run(&dialer(), &order(right.url.clone(), &[&broken])).await.unwrap_err();
    assert!(matches!(error, VerifyError::Anonymous(1)), "{error}");
}
