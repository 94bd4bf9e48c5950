//! Who a client says it is by certificate, over TCP and QUIC; everybody else is served without a name.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failing test may panic")]

use bytes::{Buf, Bytes};
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use quinn::crypto::rustls::QuicClientConfig;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use sigma_http::connections::ConnectionMetrics;
use sigma_http::drain::Drain;
use sigma_http::handover::Sockets;
use sigma_http::listener::{Bound, Limits, PeerConnection, Server};
use sigma_http::quic::BoundUdp;
use sigma_http::request_body::RequestBody;
use sigma_http::tls::{ALPN_ALL, ALPN_H2, ReloadableCertificate, client_config_as, server_config};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

type Ca = Issuer<'static, KeyPair>;
type Shown = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn ca(name: &str) -> (Ca, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let pem = params.self_signed(&key).unwrap().pem();
    (Issuer::new(params, key), pem)
}

fn signed(ca: &Ca, name: &str, usage: ExtendedKeyUsagePurpose) -> (rcgen::Certificate, KeyPair) {
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.extended_key_usages = vec![usage];
    let key = KeyPair::generate().unwrap();
    (params.signed_by(&key, ca).unwrap(), key)
}

fn shown(ca: &Ca, name: &str, usage: ExtendedKeyUsagePurpose) -> Shown {
    let (certificate, key) = signed(ca, name, usage);
    (vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
}

struct Lab {
    tcp: SocketAddr,
    udp: SocketAddr,
    pops: Ca,
    roots: RootCertStore,
    dir: TempDir,
}

/// As large as a report may be.
const REPORT_BYTES: usize = 4 << 20;
const PATIENCE: Duration = Duration::from_secs(20);

async fn named(from: PeerConnection) -> Response<Full<Bytes>> {
    Response::new(Full::new(Bytes::from(format!("{:?}", from.client.as_deref()))))
}

impl Lab {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (servers, servers_pem) = ca("servers");
        let (pops, pops_pem) = ca("pops");
        let (leaf, leaf_key) = signed(&servers, "localhost", ExtendedKeyUsagePurpose::ServerAuth);
        let file = |name: &str, text: String| {
            std::fs::write(dir.path().join(name), text).unwrap();
            dir.path().join(name)
        };
        let (cert, key) = (file("leaf.pem", leaf.pem()), file("leaf.key", leaf_key.serialize_pem()));
        let client_ca = file("pops.pem", pops_pem);
        let certificate = ReloadableCertificate::load_with_client_ca(&cert, &key, Some(&client_ca)).unwrap();
        let bound = Bound::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let bound_udp = BoundUdp::bind(&Sockets::none(), "127.0.0.1:0".parse().unwrap()).unwrap();
        let (tcp, udp) = (bound.local_addr(), bound_udp.local_addr());
        let server = Server::new(Limits::default(), ConnectionMetrics::default(), Drain::new());
        let tls = server_config(Arc::clone(&certificate), ALPN_ALL).unwrap();
        server.serve(bound, Some(tls), |request: Request<hyper::body::Incoming>, from| async move {
            let _ = RequestBody::from(request.into_body()).read(REPORT_BYTES, PATIENCE).await;
            named(from).await
        });
        server.serve_quic(bound_udp, certificate, |_, from| named(from)).unwrap();
        let mut roots = RootCertStore::empty();
        let servers_pem = file("servers.pem", servers_pem);
        use rustls::pki_types::pem::PemObject;
        roots.add(CertificateDer::from_pem_file(servers_pem).unwrap()).unwrap();
        Self { tcp, udp, pops, roots, dir }
    }

    fn client(&self, shown: Option<Shown>, alpn: &[u8]) -> ClientConfig {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.unwrap().with_root_certificates(self.roots.clone());
        let mut config = match shown {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![alpn.to_vec()];
        config
    }

    async fn over_tcp(&self, shown: Option<Shown>) -> Option<String> {
        self.asked(Arc::new(self.client(shown, b"h2"))).await
    }

    async fn asked(&self, config: Arc<ClientConfig>) -> Option<String> {
        let connector = TlsConnector::from(config);
        let tcp = TcpStream::connect(self.tcp).await.unwrap();
        let stream = connector.connect(ServerName::try_from("localhost").unwrap(), tcp).await.ok()?;
        let (mut ask, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.ok()?;
        tokio::spawn(connection);
        let request = Request::get("https://localhost/").body(Empty::<Bytes>::new()).unwrap();
        let body = ask.send_request(request).await.ok()?.into_body().collect().await.ok()?;
        Some(String::from_utf8(body.to_bytes().to_vec()).unwrap())
    }

    /// How many of some large bodies, one after the other on one connection over HTTP/2, are answered.
    async fn posted(&self, shown: Option<Shown>, times: usize) -> usize {
        let connector = TlsConnector::from(Arc::new(self.client(shown, b"h2")));
        let tcp = TcpStream::connect(self.tcp).await.unwrap();
        let stream = connector.connect(ServerName::try_from("localhost").unwrap(), tcp).await.unwrap();
        let (mut ask, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        for answered in 0..times {
            let body = Full::new(Bytes::from(vec![7; REPORT_BYTES]));
            let request = Request::post("https://localhost/").body(body).unwrap();
            if ask.send_request(request).await.is_err() {
                return answered;
            }
        }
        times
    }

    async fn over_quic(&self, shown: Option<Shown>) -> Option<String> {
        let crypto = QuicClientConfig::try_from(self.client(shown, b"h3")).unwrap();
        let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let config = quinn::ClientConfig::new(Arc::new(crypto));
        let connection = endpoint.connect_with(config, self.udp, "localhost").unwrap().await.ok()?;
        let (mut driver, mut ask) = h3::client::new(h3_quinn::Connection::new(connection)).await.ok()?;
        let driving = tokio::spawn(async move { driver.wait_idle().await });
        let request = Request::get("https://localhost/").body(()).unwrap();
        let mut stream = ask.send_request(request).await.ok()?;
        stream.finish().await.ok()?;
        stream.recv_response().await.ok()?;
        let mut body = stream.recv_data().await.ok()??;
        let text = String::from_utf8(body.copy_to_bytes(body.remaining()).to_vec()).unwrap();
        driving.abort();
        Some(text)
    }
}

async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("it never happened")
}

#[tokio::test]
async fn a_pop_is_known_by_its_certificate_and_nobody_else_is() {
    let lab = Lab::new();
    let (others, _) = ca("pops");
    let usage = || ExtendedKeyUsagePurpose::ClientAuth;
    for (client, expected) in [
        (None, Some("None")),
        (Some(shown(&lab.pops, "pop-7", usage())), Some("Some(\"pop-7\")")),
        // Of a CA with the same name, and one that is no client's: refused, not served as somebody unknown.
        (Some(shown(&others, "pop-7", usage())), None),
        (Some(shown(&lab.pops, "pop-7", ExtendedKeyUsagePurpose::ServerAuth)), None),
        // One without a name is served, and is nobody.
        (Some(shown(&lab.pops, "10.0.0.1", usage())), Some("None")),
    ] {
        let again = client.as_ref().map(|(chain, key)| (chain.clone(), key.clone_key()));
        assert_eq!(within(lab.over_tcp(client)).await.as_deref(), expected, "TCP");
        assert_eq!(within(lab.over_quic(again)).await.as_deref(), expected, "QUIC");
    }
}

#[tokio::test]
async fn a_certificate_that_is_read_again_is_shown_from_the_next_connection_on() {
    let lab = Lab::new();
    let (cert, key) = (lab.dir.path().join("pop.pem"), lab.dir.path().join("pop.key"));
    let issue = |name: &str| {
        let (certificate, its_key) = signed(&lab.pops, name, ExtendedKeyUsagePurpose::ClientAuth);
        std::fs::write(&cert, certificate.pem()).unwrap();
        std::fs::write(&key, its_key.serialize_pem()).unwrap();
    };
    issue("pop-1");
    let identity = ReloadableCertificate::load(&cert, &key).unwrap();
    let servers = lab.dir.path().join("servers.pem");
    let config = client_config_as(&servers, Some(Arc::clone(&identity)), ALPN_H2).unwrap();
    assert_eq!(within(lab.asked(Arc::clone(&config))).await.as_deref(), Some("Some(\"pop-1\")"));
    issue("pop-2");
    assert_eq!(within(lab.asked(Arc::clone(&config))).await.as_deref(), Some("Some(\"pop-1\")"));
    identity.reload().unwrap();
    // Not the one of a TLS session that is gone on with.
    assert_eq!(within(lab.asked(config)).await.as_deref(), Some("Some(\"pop-2\")"));
}

#[test]
fn a_client_ca_that_is_none_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (cert, key, empty) = (dir.path().join("c.pem"), dir.path().join("k.pem"), dir.path().join("ca.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    std::fs::write(&empty, "").unwrap();
    let error = ReloadableCertificate::load_with_client_ca(&cert, &key, Some(&empty)).unwrap_err();
    assert!(error.to_string().contains("ca.pem"), "{error}");
}

#[tokio::test]
async fn reports_of_a_pop_are_no_flood() {
    let lab = Lab::new();
    let pop = shown(&lab.pops, "pop-1", ExtendedKeyUsagePurpose::ClientAuth);
    assert_eq!(lab.posted(Some(pop), 3).await, 3);
    assert_eq!(lab.posted(None, 3).await, 0, "of anybody else, whose bodies nobody reads, they are");
}
