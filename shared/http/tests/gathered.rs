//! What an HTTP/2 connection has to say at one time leaves at one time. Told by the TLS records that the client gets.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failing test may panic")]

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use sigma_http::connections::ConnectionMetrics;
use sigma_http::drain::Drain;
use sigma_http::listener::{Bound, Limits, Server};
use sigma_http::tls::{ALPN_ALL, ReloadableCertificate, client_config, server_config};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;

const PATIENCE: Duration = Duration::from_secs(20);
const APPLICATION_DATA: u8 = 23;

async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("it never happened")
}

/// A socket that keeps what it read.
struct Tapped {
    tcp: TcpStream,
    read: Arc<Mutex<Vec<u8>>>,
}

impl AsyncRead for Tapped {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.tcp).poll_read(cx, buf);
        self.read.lock().unwrap().extend_from_slice(&buf.filled()[before..]);
        polled
    }
}

impl AsyncWrite for Tapped {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

/// Lengths of the records of application data.
fn records(read: &Mutex<Vec<u8>>) -> Vec<usize> {
    let read = read.lock().unwrap();
    let (mut rest, mut lengths) = (&read[..], Vec::new());
    while let [kind, _, _, high, low, ..] = *rest {
        let length = usize::from(u16::from_be_bytes([high, low]));
        if kind == APPLICATION_DATA {
            lengths.push(length);
        }
        rest = rest.get(5 + length..).unwrap_or_default();
    }
    lengths
}

/// A part and its playlist, on a connection that waits for both.
#[tokio::test]
async fn two_answers_that_are_ready_together_are_as_few_records_as_they_fill() {
    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let certificate = ReloadableCertificate::load(&cert, &key).unwrap();
    let config = server_config(certificate, ALPN_ALL).unwrap();
    let server = Server::new(Limits::default(), ConnectionMetrics::default(), Drain::new());
    let bound = Bound::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = bound.local_addr();
    let (published, publication) = watch::channel(false);
    let waiting = Arc::new(watch::Sender::new(0));
    let held = Arc::clone(&waiting);
    server.serve(bound, Some(config), move |request: Request<Incoming>, _from| {
        let (mut publication, held) = (publication.clone(), Arc::clone(&held));
        async move {
            held.send_modify(|held| *held += 1);
            publication.wait_for(|published| *published).await.unwrap();
            let bytes = if request.uri().path() == "/part" { 20_000 } else { 4_000 };
            Response::new(Full::new(Bytes::from(vec![7; bytes])))
        }
    });

    let read = Arc::default();
    let tapped = Tapped { tcp: TcpStream::connect(addr).await.unwrap(), read: Arc::clone(&read) };
    let connector = TlsConnector::from(client_config(&cert, &[b"h2"]).unwrap());
    let tls = connector.connect(ServerName::try_from("127.0.0.1").unwrap(), tapped).await.unwrap();
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(tls)).await.unwrap();
    tokio::spawn(connection);
    let mut ask = |path: &str| {
        let request = Request::get(format!("https://127.0.0.1{path}")).body(Empty::<Bytes>::new()).unwrap();
        tokio::spawn(sender.send_request(request))
    };
    let asked = [ask("/part"), ask("/playlist")];
    within(waiting.subscribe().wait_for(|waiting| *waiting == 2)).await.unwrap();
    let before = records(&read).len();
    published.send(true).unwrap();
    let mut whole = 0;
    for answer in asked {
        let answer = within(answer).await.unwrap().unwrap();
        whole += within(answer.into_body().collect()).await.unwrap().to_bytes().len();
    }
    let records = records(&read);
    assert_eq!(whole, 24_000);
    // Small ones are older: the client reads when it has something to do.
    let large = records[before..].iter().filter(|length| **length > 1000).count();
    assert_eq!(large, 2, "{:?}", &records[before..]);
}
