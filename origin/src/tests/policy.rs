//! Who gets the policy, how soon a revocation is told, and who may have a channel with tokens.

use super::*;
use crate::dev::certificates;
use crate::{Cli, Command, playback_token};
use clap::Parser;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use sigma_token::jwt::{self, Expected};
use sigma_token::policy::{Document, Policy};
use std::sync::Arc;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const POLICY: &str = "/internal/edge/policy";
const SESSION: &str = "00112233445566778899aabbccddeeff";

/// An origin with TLS that knows the POPs of its CA, and whose channel wants tokens.
async fn with_tokens() -> Origin {
    with_pops("playback = \"token\"").await
}

/// The same, with another channel.
pub(super) async fn with_pops(channel: &str) -> Origin {
    let data = tempfile::tempdir().expect("a folder");
    certificates::make(data.path(), &["pop-1".to_owned()]).expect("made");
    let at = |name: &str| data.path().join(name);
    let (certificate, key, ca) = (at("tls.pem"), at("tls.key"), at("ca.pem"));
    let more = format!(
        "[tls]\nbind = [\"127.0.0.1:0\"]\ncertificate = {certificate:?}\nkey = {key:?}\nclient_ca = {ca:?}\n"
    );
    let running = start(data.path(), &more, channel).await;
    Origin { running, data }
}

/// Asks over TLS, as `pop` or as anybody.
async fn ask_tls(origin: &Origin, pop: Option<&str>, path: &str) -> Answer {
    exchange(connect_tls(origin, pop).await, "GET", path, "").await
}

/// Connects over TLS, as `pop` or as anybody.
pub(super) async fn connect_tls(origin: &Origin, pop: Option<&str>) -> TlsStream<TcpStream> {
    let folder = origin.data.path();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("ca.pem")).expect("a CA")).expect("usable");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.expect("versions").with_root_certificates(roots);
    let config = match pop {
        None => builder.with_no_client_auth(),
        Some(pop) => {
            let chain = CertificateDer::from_pem_file(folder.join(format!("{pop}.pem"))).expect("a chain");
            let key = PrivateKeyDer::from_pem_file(folder.join(format!("{pop}.key"))).expect("a key");
            builder.with_client_auth_cert(vec![chain], key).expect("a pair")
        }
    };
    let socket = TcpStream::connect(origin.running.tls[0]).await.expect("connected");
    let name = ServerName::try_from("localhost").expect("a name");
    TlsConnector::from(Arc::new(config)).connect(name, socket).await.expect("a handshake")
}

async fn revoke(origin: &Origin, body: &str) -> Answer {
    let length = body.len();
    let more = format!("Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}");
    ask(origin.running.ops, "POST", "/internal/revocations", &more).await
}

fn document(answer: &Answer) -> Document {
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    serde_json::from_slice(&answer.body).expect("a document")
}

#[tokio::test]
async fn the_policy_is_for_pops_alone() {
    let origin = with_tokens().await;
    assert_eq!(get(&origin, POLICY).await.status, 403, "on a plain listener");
    assert_eq!(ask(origin.running.ops, "GET", POLICY, "").await.status, 404, "on the operator's");
    let refused = ask_tls(&origin, None, POLICY).await;
    assert_eq!(refused.status, 403, "without a certificate");
    assert!(!refused.text().contains("secret"));
    let told = ask_tls(&origin, Some("pop-1"), POLICY).await;
    let policy = Policy::new(&document(&told)).expect("usable");
    assert_eq!(policy.version(), document(&told).version);
    assert_eq!(ask_tls(&origin, Some("pop-1"), "/internal/edge/policy?after=x").await.status, 400);
    for client in [None, Some("pop-1")] {
        assert_eq!(ask_tls(&origin, client, "/internal/edge/health").await.status, 204);
    }
    let keys = get(&origin, "/.well-known/jwks.json").await;
    assert_eq!((keys.status, keys.header("access-control-allow-origin")), (200, Some("*")));
    assert!(keys.text().contains("Ed25519") && !keys.text().contains("\"d\""), "{}", keys.text());
}

#[tokio::test]
async fn a_revocation_answers_the_held_question_at_once() {
    let origin = with_tokens().await;
    let before = document(&ask_tls(&origin, Some("pop-1"), POLICY).await);
    let held = format!("{POLICY}?after={}", before.version);
    // Older and newer versions than there are get what there is, at once.
    for other in [0, before.version + 1_000_000] {
        let told = ask_tls(&origin, Some("pop-1"), &format!("{POLICY}?after={other}")).await;
        assert_eq!(document(&told), before);
    }
    let begun = std::time::Instant::now();
    let (told, revoked) = tokio::join!(ask_tls(&origin, Some("pop-1"), &held), async {
        revoke(&origin, &format!("{{\"session\": \"{SESSION}\"}}")).await
    });
    assert_eq!(revoked.status, 200, "{}", revoked.text());
    assert!(begun.elapsed() < Duration::from_secs(5), "reach");
    let after = document(&told);
    assert!(after.version > before.version);
    assert_eq!(after.revocations[0].session.as_deref(), Some(SESSION));
    for (body, status) in [("{}", 400), ("{\"subject\": \"viewer-1\"}", 200)] {
        assert_eq!(revoke(&origin, body).await.status, status, "{body}");
    }
    assert_eq!(ask(origin.running.ops, "GET", "/internal/revocations", "").await.status, 405);
    let browser = "Host: evil.example\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
    let mut refused = TcpStream::connect(origin.running.ops).await.expect("connected");
    let head = format!("POST /internal/revocations HTTP/1.1\r\nConnection: close\r\n{browser}");
    refused.write_all(head.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    refused.read_to_string(&mut answer).await.expect("read");
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
}

#[tokio::test]
async fn a_channel_with_tokens_is_for_pops_alone() {
    const PATH: &str = "/live/one/index.m3u8";
    let origin = with_tokens().await;
    let mut publisher = Publisher::connect(&origin, "key-of-one").await.expect("accepted");
    publisher.frames(155).await;
    let live = async {
        while ask_tls(&origin, Some("pop-1"), PATH).await.status != 200 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(BOUND, live).await.expect("in time");
    for path in
        [PATH, "/live/one/index.m3u8?token=x", "/live/one/source/media.m3u8", "/live/one/source/1.m4s"]
    {
        for refused in [get(&origin, path).await, ask_tls(&origin, None, path).await] {
            assert_eq!(refused.status, 403, "{path}");
            assert!(
                refused.text().contains("Ask an edge for /live/one/index.m3u8?token="),
                "{}",
                refused.text()
            );
            assert_eq!(refused.header("access-control-allow-origin"), Some("*"), "DL-11");
            assert_eq!(refused.header("cache-control"), Some("no-store"));
        }
    }
    assert_eq!(get(&origin, "/live/two/index.m3u8").await.status, 404, "no such channel");
}

#[tokio::test]
async fn a_token_of_the_command_line_is_good_at_the_edges() {
    let origin = with_tokens().await;
    let policy = Policy::parse(&ask_tls(&origin, Some("pop-1"), POLICY).await.body).expect("usable");
    let file = origin.data.path().join("origin.toml");
    let channel = "[[channels]]\nid = \"one\"\ntype = \"forward\"\nkey = \"key-of-one\"\n";
    std::fs::write(&file, format!("data_dir = {:?}\n{channel}", origin.data.path())).expect("written");
    let create = |more: &[&str]| {
        let start = ["sigma-origin", "playback-token", "create", "--config", file.to_str().expect("text")];
        let cli = Cli::try_parse_from(start.iter().chain(more)).map_err(|error| error.to_string())?;
        let Command::PlaybackToken { command: playback_token::TokenCommand::Create(args) } = cli.command
        else {
            panic!("another command")
        };
        playback_token::create(&args)
    };
    let verify = |token: &str, address: &str| {
        let (channel, now_s) = ("one".parse().expect("an id"), crate::policy::now_ms() / 1000);
        let address = address.parse().expect("an address");
        let expected = Expected { channel: &channel, address, audience: "sigma", now_s };
        jwt::verify(token, policy.token_keys(), &expected)
    };
    let token = create(&["--channel", "one"]).expect("made");
    assert!(verify(&token, "192.0.2.1").is_ok());
    let full = [
        "--channel",
        "one",
        "--subject",
        "viewer-1",
        "--max-sessions",
        "2",
        "--ip",
        "192.0.2.0/24",
        "--mode",
        "low",
        "--expires-s",
        "60",
        "--json",
    ];
    let json: serde_json::Value = serde_json::from_str(&create(&full).expect("made")).expect("JSON");
    let token = json["token"].as_str().expect("a token");
    let claims = verify(token, "192.0.2.1").expect("good");
    assert_eq!((claims.sub.as_deref(), claims.max_sessions), (Some("viewer-1"), Some(2)));
    assert!(verify(token, "198.51.100.1").is_err());
    for (wrong, named) in [
        (&["--channel", "two"][..], "two"),
        (&["--channel", "one", "--ip", "x"], "--ip x"),
        (&["--channel", "one", "--mode", "fast"], "--mode fast"),
        (&["--channel", "one", "--max-sessions", "2"], "--subject"),
        (&["--channel", "one", "--not-before", "2100-01-01T00:00:00Z"], "--not-before"),
        (&[], "--channel"),
    ] {
        let error = create(wrong).expect_err(named);
        assert!(error.contains(named), "{error}");
    }
}
