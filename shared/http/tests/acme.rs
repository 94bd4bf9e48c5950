//! Certificates from a real ACME server: Let's Encrypt's test server `pebble`, which checks every proof over HTTP.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failing test may panic")]

use http::Response;
use http_body_util::Full;
use rustls::pki_types::CertificateDer;
use sigma_http::acme::AcmeConfig;
use sigma_http::certificate::{CertificateMetrics, CertificateSource};
use sigma_http::connections::ConnectionMetrics;
use sigma_http::drain::Drain;
use sigma_http::listener::{Bound, Limits, Server};
use sigma_http::tls::{ALPN_ALL, ReloadableCertificate, server_config};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

const NAME: &str = "edge.example.test";
/// How long certificates of the test server are valid: renewed after two thirds of it.
const LIFETIME_S: u64 = 9;
const PATIENCE: Duration = Duration::from_secs(60);

/// A process that ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(program: &str, command: &mut Command) -> Process {
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    Process(child.unwrap_or_else(|error| {
        panic!(
            "{program} is missing ({error}): scripts/install-deps --test installs it (Debian package pebble)"
        )
    }))
}

/// A port that was free a moment ago: these programs cannot be asked which one they took.
fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

/// The directory, and a resolver that finds every name on this machine.
struct Directory {
    url: String,
    _processes: [Process; 2],
}

impl Directory {
    fn start(dir: &Path, challenges_at: u16) -> Self {
        let made =
            rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        let (cert, key) = (dir.join("ca.pem"), dir.join("ca.key"));
        std::fs::write(&cert, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let (port, management) = (free_port(), free_port());
        let dns = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let config = serde_json::json!({"pebble": {
            "listenAddress": format!("127.0.0.1:{port}"),
            "managementListenAddress": format!("127.0.0.1:{management}"),
            "certificate": cert, "privateKey": key,
            "httpPort": challenges_at, "tlsPort": free_port(),
            "ocspResponderURL": "", "externalAccountBindingRequired": false,
            "certificateValidityPeriod": LIFETIME_S,
        }});
        let file = dir.join("pebble.json");
        std::fs::write(&file, config.to_string()).unwrap();
        let resolver = start(
            "pebble-challtestsrv",
            Command::new("pebble-challtestsrv")
                .args(["-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-dns01", &dns.to_string()])
                .args(["-http01", "", "-https01", "", "-tlsalpn01", ""])
                .args(["-management", &format!("127.0.0.1:{}", free_port())]),
        );
        let directory = start(
            "pebble",
            Command::new("pebble")
                .arg("-config")
                .arg(&file)
                .args(["-strict", "-dnsserver", &dns.to_string()])
                .env("PEBBLE_VA_NOSLEEP", "1"),
        );
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let began = std::time::Instant::now();
        while TcpStream::connect(at).is_err() {
            assert!(began.elapsed() < PATIENCE, "pebble does not listen");
            std::thread::yield_now();
        }
        Self { url: format!("https://127.0.0.1:{port}/dir"), _processes: [resolver, directory] }
    }
}

/// What a viewer is shown.
async fn shown(addr: SocketAddr) -> CertificateDer<'static> {
    let mut config =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
    config.dangerous().set_certificate_verifier(Arc::new(Anyone));
    let tcp = tokio::net::TcpStream::connect(addr).await.unwrap();
    let name = NAME.try_into().unwrap();
    let tls = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap();
    tls.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

async fn shown_after(addr: SocketAddr, before: &CertificateDer<'static>) -> CertificateDer<'static> {
    let changed = async {
        loop {
            let now = shown(addr).await;
            if now != *before {
                return now;
            }
        }
    };
    tokio::time::timeout(PATIENCE, changed).await.expect("a new certificate")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_is_ordered_kept_and_renewed_while_viewers_connect() {
    let dir = tempfile::tempdir().unwrap();
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let (plain, encrypted) = (Bound::bind(any).unwrap(), Bound::bind(any).unwrap());
    let addr = encrypted.local_addr();
    let directory = Directory::start(dir.path(), plain.local_addr().port());
    let acme = AcmeConfig {
        directory: directory.url.clone(),
        contact: vec!["mailto:ops@example.test".to_owned()],
        domains: vec![NAME.to_owned()],
        state_dir: dir.path().join("acme"),
        terms_agreed: true,
        ca: Some(dir.path().join("ca.pem")),
    };
    assert_eq!(acme.problems(1), []);
    let source = CertificateSource { certificate: None, key: None, acme: Some(&acme), client_ca: None };
    let certificate = source.load().unwrap();
    let (drain, metrics) = (Drain::new(), CertificateMetrics::default());
    let server = Server::new(Limits::default(), ConnectionMetrics::default(), drain.clone());
    let tls = server_config(Arc::clone(&certificate), ALPN_ALL).unwrap();
    let nothing = |_, _| std::future::ready(Response::new(Full::new(bytes::Bytes::new())));
    server.serve(encrypted, Some(tls), nothing);
    let stand_in = shown(addr).await;
    let challenges = source.keep(certificate, &metrics, &drain).unwrap();
    server.serve(plain, None, move |request, _| {
        let answer = challenges.answer(request.uri().path()).unwrap_or_default();
        std::future::ready(answer.map(Full::new))
    });
    let first = shown_after(addr, &stand_in).await;
    let kept = acme.kept_certificate();
    let again = source.load().unwrap();
    assert_eq!(again.leaf().unwrap(), first, "a new process begins with it");
    ReloadableCertificate::load(&kept, &kept).expect("chain and key in one file");
    let second = shown_after(addr, &first).await;
    assert_ne!(second, first, "renewed");
    // It is counted once it is shown.
    let counted = async {
        while metrics.acme_certificates.get() < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, counted).await.expect("both are counted");
    assert_eq!(metrics.acme_failures.get(), 0);
    drain.start();
}

/// The test server's certificates have a root of their own, made anew at each start.
#[derive(Debug)]
struct Anyone;

impl rustls::client::danger::ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
