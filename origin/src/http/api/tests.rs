//! The API against its own description: every path is asked, every answer fits its schema.

use crate::tests::{Origin, ask, origin};
use serde_json::Value;
use sigma_report::histogram::Histogram;
use sigma_report::report::{PopDescription, Protocol, QualityReport, Report, SessionReport, TrafficReport};
use sigma_report::spans::Span;
use sigma_stats::aggregate::DAY_MS;
use sigma_stats::keeper::now_ms;

/// What a schema has against a value.
fn complaints(document: &Value, schema: &Value, value: &Value, at: &str) -> Vec<String> {
    if let Some(name) = schema["$ref"].as_str() {
        let name = name.rsplit('/').next().expect("a name");
        let named = &document["components"]["schemas"][name];
        assert!(named.is_object(), "{name} is described");
        return complaints(document, named, value, at);
    }
    let kinds = match &schema["type"] {
        Value::String(kind) => vec![kind.as_str()],
        kinds => kinds.as_array().expect("a type").iter().filter_map(Value::as_str).collect(),
    };
    let is = |kind: &str| match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        _ => value.is_null(),
    };
    if !kinds.iter().any(|kind| is(kind)) {
        return vec![format!("{at}: {value} is not {kinds:?}")];
    }
    let mut found = Vec::new();
    if let (Some(object), Some(properties)) = (value.as_object(), schema["properties"].as_object()) {
        for (name, value) in object {
            match properties.get(name) {
                Some(schema) => found.extend(complaints(document, schema, value, &format!("{at}.{name}"))),
                None => found.push(format!("{at}.{name} is not described")),
            }
        }
        let required = schema["required"].as_array().expect("what is required");
        let missing = required.iter().filter_map(Value::as_str).filter(|name| !object.contains_key(*name));
        found.extend(missing.map(|name| format!("{at}.{name} is missing")));
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        found.extend(complaints(document, &schema["items"], item, &format!("{at}[{index}]")));
    }
    found
}

pub(crate) fn report(sequence: u64, at: u64) -> Report {
    let mut latency_ms = Histogram::default();
    latency_ms.record(1200);
    let protocol = |n: u8| if n.is_multiple_of(2) { Protocol::H2 } else { Protocol::H3 };
    let sessions = (0..5u8).map(|n| SessionReport {
        session: [n; 16],
        viewer: u64::from(n / 2) + 1,
        channel: 0,
        protocol: protocol(n),
        watched: vec![Span { start: at * 1000, end: (at + 2000) * 1000 }],
        present: vec![Span { start: at, end: at + 2000 }],
    });
    let traffic =
        TrafficReport { channel: 0, protocol: Protocol::H2, second: at / 1000, bytes: 700, requests: 7 };
    let quality = QualityReport {
        channel: 0,
        minute: at / 60_000,
        latency_ms,
        starvations: 2,
        starved_ms: 50,
        spoken_ms: 1000,
        ..Default::default()
    };
    Report {
        incarnation: 3,
        sequence,
        made_at_ms: at + 2000,
        complete_until_ms: at + 2000,
        pop: PopDescription {
            name: "Frankfurt".to_owned(),
            region: "eu".to_owned(),
            coordinates: Some((50.1, 8.7)),
            capacity_viewers: 3000,
            version: "1".to_owned(),
            connections: 5,
        },
        channels: vec!["one".to_owned()],
        sessions: sessions.collect(),
        traffic: vec![traffic],
        quality: vec![quality],
    }
}

/// An origin that a POP reported to, the moment it reported of, and the token.
async fn reported() -> (Origin, u64, String) {
    let origin = origin("").await;
    let at = now_ms() - 2000;
    for pop in ["pop-1", "pop-2"] {
        let bytes: bytes::Bytes = report(1, at).encode().expect("written").into();
        let taken = origin.running.stats.report(pop.parse().expect("an id"), bytes).await;
        assert_eq!(taken.expect("taken").sequence, 1);
    }
    let file = origin.folder().join("admin.token");
    let token = std::fs::read_to_string(file).expect("made").trim().to_owned();
    (origin, at, token)
}

async fn asked(origin: &Origin, path: &str, token: &str) -> (u16, Value) {
    let answer = ask(origin.http(), "GET", path, &format!("Authorization: Bearer {token}\r\n")).await;
    assert_eq!(answer.header("access-control-allow-origin"), None, "{path}");
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
    (answer.status, serde_json::from_slice(&answer.body).expect("JSON"))
}

#[tokio::test]
async fn every_path_that_is_described_answers_as_described() {
    let (origin, _, token) = reported().await;
    let (status, document) = asked(&origin, "/api/openapi.json", "").await;
    assert_eq!((status, document["openapi"].as_str()), (200, Some("3.1.0")));
    let mut paths = 0;
    for (path, item) in document["paths"].as_object().expect("paths") {
        let path = path.replace("{channel}", "one").replace("{pop}", "pop-1");
        let parameters = item["get"]["parameters"].as_array().expect("parameters");
        let mut queries = vec![String::new()];
        for parameter in parameters.iter().filter(|parameter| parameter["in"] == "query") {
            let (name, schema) = (parameter["name"].as_str().expect("a name"), &parameter["schema"]);
            let values: Vec<&str> = match (schema["enum"].as_array(), name) {
                (Some(values), _) => values.iter().filter_map(Value::as_str).collect(),
                (None, "limit") => vec!["1"],
                (None, "from") => vec!["2026-11-22T20:00:00Z&to=2026-11-22T20:01:00Z"],
                (None, "cursor") if path.ends_with("pops") => vec!["pop-1"],
                (None, "cursor") => vec!["00000000000000000000000000000000"],
                (None, _) => continue,
            };
            queries.extend(values.iter().map(|value| format!("?{name}={value}")));
        }
        let schema = &item["get"]["responses"]["200"]["content"]["application/json"]["schema"];
        for query in queries {
            let (status, value) = asked(&origin, &format!("{path}{query}"), &token).await;
            assert_eq!(status, 200, "{path}{query}: {value}");
            assert_eq!(complaints(&document, schema, &value, "$"), [""; 0], "{path}{query}");
        }
        let (status, problem) = asked(&origin, &format!("{path}?wrong=1"), &token).await;
        assert_eq!(status, 400, "{path}");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("wrong: 1")), "{problem}");
        assert_eq!(asked(&origin, &path, "not-the-token").await.0, 401, "{path}");
        paths += 1;
    }
    assert_eq!(paths, 5);
}

#[tokio::test]
async fn numbers_are_what_was_reported() {
    let (origin, at, token) = reported().await;
    let (_, stats) = asked(&origin, "/api/v1/stats/one?by=pop", &token).await;
    assert_eq!((&stats["views"], &stats["unique_viewers"]), (&5.into(), &3.into()), "once, over two POPs");
    assert_eq!((&stats["watch_ms"], &stats["bytes"]), (&10_000.into(), &1400.into()));
    assert_eq!((&stats["viewers"], &stats["peak_viewers"]), (&5.into(), &5.into()));
    assert_eq!(stats["latency_ms"]["count"], 2);
    assert_eq!((&stats["starvations"], &stats["rebuffer_ratio"]), (&4.into(), &0.05.into()), "of who speaks");
    let by = stats["by"].as_array().expect("by POP");
    let views: Vec<_> = by.iter().map(|part| (part["pop"].as_str(), part["views"].as_u64())).collect();
    assert_eq!(views, [(Some("pop-1"), Some(5)), (Some("pop-2"), Some(5))]);
    let (_, series) = asked(&origin, "/api/v1/stats/one/series?by=protocol", &token).await;
    let points = series["points"].as_array().expect("points");
    let sum = |name: &str| points.iter().filter_map(|point| point[name].as_u64()).sum::<u64>();
    assert_eq!((points.len(), sum("bytes"), sum("views")), (300, 1400, 5));
    assert!(points[0]["final"] == true && points[0]["viewers"] == 0);
    let (_, sessions) = asked(&origin, "/api/v1/stats/one/playback-sessions?limit=2", &token).await;
    let second = format!("/api/v1/stats/one/playback-sessions?limit=3&cursor={}", "01".repeat(16));
    assert_eq!(sessions["next_cursor"], "01".repeat(16));
    assert_eq!(sessions["items"][0]["pops"], serde_json::json!(["pop-1", "pop-2"]));
    let first_media: jiff::Timestamp =
        sessions["items"][0]["first_media_at"].as_str().expect("a date").parse().expect("RFC 3339");
    assert_eq!(first_media.as_millisecond().cast_unsigned(), at);
    let (_, rest) = asked(&origin, &second, &token).await;
    assert_eq!(rest["items"].as_array().map(Vec::len), Some(3));
    let (_, pops) = asked(&origin, "/api/v1/pops?limit=1", &token).await;
    assert_eq!((&pops["items"][0]["status"], &pops["items"][0]["viewers"]), (&"up".into(), &5.into()));
    assert_eq!(pops["next_cursor"], "pop-1");
    let metrics = ask(origin.running.ops, "GET", "/metrics", "").await;
    assert!(metrics.text().contains("sigma_origin_views_total{channel=\"one\"} "), "{}", metrics.text());
    assert!(metrics.text().contains("sigma_origin_reports_total{outcome=\"accepted\"} 2"));
    assert!(metrics.text().contains("sigma_origin_starvations_total{channel=\"one\"} "));
}

#[tokio::test]
async fn what_is_not_kept_any_more_is_no_zero() {
    let (origin, _, token) = reported().await;
    let date_of = |ago_ms: u64| super::date(now_ms() - ago_ms).as_str().expect("a date").to_owned();
    for (from, resolution, said) in [
        (8, "1s", Some("7 days that a series of resolution 1s is kept: ask with resolution=1m")),
        (6, "1s", None),
        (91, "1m", Some("90 days that a series of resolution 1m is kept: ask with resolution=1h")),
        (8, "1m", None),
        (
            1900,
            "1h",
            Some("1826 days that a series of resolution 1h is kept: ask with resolution=1h from 20"),
        ),
        (91, "1h", None),
    ] {
        let (from, to) = (date_of(from * DAY_MS), date_of(from * DAY_MS - 7_200_000));
        let path = format!("/api/v1/stats/one/series?from={from}&to={to}&resolution={resolution}");
        let (status, answer) = asked(&origin, &path, &token).await;
        match said {
            Some(said) => {
                assert!(status == 400 && answer["detail"].as_str().expect("said").contains(said), "{answer}");
            }
            None => assert_eq!(status, 200, "{answer}"),
        }
    }
}

#[tokio::test]
async fn who_may_not_is_told_what_to_do() {
    let (origin, _, token) = reported().await;
    let refused = ask(origin.http(), "GET", "/api/v1/pops", "").await;
    let challenge = refused.header("www-authenticate").map(ToOwned::to_owned);
    assert_eq!((refused.status, challenge.as_deref()), (401, Some("Bearer realm=\"sigma-live\"")));
    assert_eq!(refused.header("content-type"), Some("application/problem+json"));
    assert_eq!(asked(&origin, "/api/v1/stats/two", &token).await.0, 404);
    assert_eq!(asked(&origin, "/api/v1/nothing", &token).await.0, 404);
    let bearer = format!("Authorization: Bearer {token}\r\n");
    // Without the token nobody learns what there is; with it, everybody what to do.
    for (method, path, status, allowed) in [
        ("GET", "/api/v1/nothing", 404, None),
        ("DELETE", "/api/v1/pops", 405, Some("GET, HEAD")),
        ("PUT", "/api/v1/pops/pop-1", 405, Some("GET, HEAD, DELETE")),
        ("POST", "/api/v1/stats/one", 405, Some("GET, HEAD")),
        ("GET", "/api/v1/pops/pop-3", 404, None),
    ] {
        assert_eq!(ask(origin.http(), method, path, "").await.status, 401, "{method} {path}");
        let refused = ask(origin.http(), method, path, &bearer).await;
        assert_eq!((refused.status, refused.header("allow")), (status, allowed), "{method} {path}");
    }
    assert_eq!(asked(&origin, "/api/v1/pops/pop-2", &token).await.1["id"], "pop-2");
    assert_eq!(ask(origin.http(), "HEAD", "/api/v1/pops", &bearer).await.status, 200);
    for (query, named) in [
        ("from=2026-11-22T20:00:00Z&to=2026-11-22T19:00:00Z", "from"),
        ("from=2020-01-01T00:00:00Z", "points"),
        ("resolution=2s", "resolution: 2s"),
    ] {
        let (status, problem) = asked(&origin, &format!("/api/v1/stats/one/series?{query}"), &token).await;
        assert_eq!(status, 400);
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(named)), "{problem}");
    }
    // Reports are for POPs with a certificate.
    let path = sigma_report::report::PATH;
    assert_eq!(ask(origin.http(), "POST", path, "Content-Length: 0\r\n").await.status, 403);
    assert_eq!(ask(origin.http(), "GET", path, "").await.status, 405);
}
