//! What the edge is made of, with nothing in it: the same HTTP and TLS libraries answering from memory. An edge's cost divided
//! by this one's is what our own code costs. `bench_floor ADDRESS TLS_ADDRESS CERTIFICATE KEY`; paths as of `bench_upstream`,
//! `obj` and, over TCP, `hold`.
#![expect(clippy::print_stdout, reason = "it says where it listens")]

mod bench_objects;

use bench_objects::{number, stamped};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use quinn::crypto::rustls::QuicServerConfig;
use sigma_http::tls::{ALPN_ALL, ALPN_H3, ReloadableCertificate, server_config};
use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[derive(Clone, Default)]
struct Objects {
    made: Arc<Mutex<HashMap<u64, Bytes>>>,
    /// By path: what is going to be there.
    held: Arc<Mutex<HashMap<String, watch::Receiver<Bytes>>>>,
}

impl Objects {
    fn body(&self, path: &str) -> Bytes {
        let bytes = number(path.split('/').nth(3).unwrap_or(""), 's').min(1 << 24);
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        made.entry(bytes).or_insert_with(|| vec![b'x'; bytes as usize].into()).clone()
    }

    async fn when_there(&self, path: &str) -> Bytes {
        if path.split('/').nth(2) != Some("hold") {
            return self.body(path);
        }
        let wanted = path.split('/').nth(3).unwrap_or("");
        let mut held = {
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            let first = || {
                let (make, made) = watch::channel(Bytes::new());
                let (after, bytes) = (Duration::from_millis(number(wanted, 'h')), number(wanted, 's'));
                tokio::spawn(async move {
                    tokio::time::sleep(after).await;
                    make.send_replace(stamped(bytes));
                });
                made
            };
            held.entry(path.to_owned()).or_insert_with(first).clone()
        };
        held.wait_for(|body| !body.is_empty()).await.map(|body| body.clone()).unwrap_or_default()
    }
}

fn answer(body: Bytes) -> Response<Full<Bytes>> {
    let response =
        Response::builder().header("content-type", "video/mp4").header("cache-control", "max-age=3600");
    response.body(Full::new(body)).unwrap_or_default()
}

async fn serve_tcp(addr: SocketAddr, tls: Option<TlsAcceptor>, objects: Objects) -> Result<(), Failure> {
    let listener = TcpListener::bind(addr).await?;
    loop {
        let (tcp, _) = listener.accept().await?;
        tcp.set_nodelay(true)?;
        let (tls, objects) = (tls.clone(), objects.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                let objects = objects.clone();
                async move { Ok::<_, Infallible>(answer(objects.when_there(request.uri().path()).await)) }
            });
            let server = auto::Builder::new(TokioExecutor::new());
            let _ = match tls {
                None => server.serve_connection(TokioIo::new(tcp), service).await,
                Some(tls) => match tls.accept(tcp).await {
                    Ok(tcp) => server.serve_connection(TokioIo::new(tcp), service).await,
                    Err(_) => Ok(()),
                },
            };
        });
    }
}

async fn serve_quic(addr: SocketAddr, tls: rustls::ServerConfig, objects: Objects) -> Result<(), Failure> {
    let crypto = QuicServerConfig::try_from(Arc::new(tls))?;
    let endpoint = quinn::Endpoint::server(quinn::ServerConfig::with_crypto(Arc::new(crypto)), addr)?;
    while let Some(incoming) = endpoint.accept().await {
        let objects = objects.clone();
        tokio::spawn(async move {
            let connection = h3_quinn::Connection::new(incoming.await?);
            let mut http3 = h3::server::Connection::new(connection).await?;
            while let Some(resolver) = http3.accept().await? {
                let objects = objects.clone();
                tokio::spawn(async move {
                    let (request, mut exchange) = resolver.resolve_request().await?;
                    let (head, _) = answer(Bytes::new()).into_parts();
                    exchange.send_response(Response::from_parts(head, ())).await?;
                    exchange.send_data(objects.body(request.uri().path())).await?;
                    exchange.finish().await?;
                    Ok::<_, Failure>(())
                });
            }
            Ok::<_, Failure>(())
        });
    }
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let mut next = || args.next().ok_or("bench_floor ADDRESS TLS_ADDRESS CERTIFICATE KEY");
    let (plain, tls): (SocketAddr, SocketAddr) = (next()?.parse()?, next()?.parse()?);
    let certificate = ReloadableCertificate::load(Path::new(&next()?), Path::new(&next()?))?;
    let config = server_config(certificate, ALPN_ALL)?;
    let mut quic = rustls::ServerConfig::clone(&config);
    quic.alpn_protocols = ALPN_H3.iter().map(|name| name.to_vec()).collect();
    let objects = Objects::default();
    println!("{plain} {tls}");
    tokio::try_join!(
        serve_tcp(plain, None, objects.clone()),
        serve_tcp(tls, Some(TlsAcceptor::from(config)), objects.clone()),
        serve_quic(tls, quic, objects),
    )?;
    Ok(())
}
