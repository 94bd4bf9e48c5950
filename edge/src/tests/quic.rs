//! The scripted upstream over QUIC: just enough of an HTTP/3 server.

use super::fake::{Fed, Script, serve};
use bytes::Bytes;
use h3::error::Code;
use http_body_util::BodyExt;
use quinn::crypto::rustls::QuicServerConfig;
use sigma_http::connections::ConnectionMetrics;
use sigma_http::tls::{ALPN_H3, ReloadableCertificate, server_config};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

pub(super) fn listen(
    certificates: &Path,
    addr: SocketAddr,
    script: Script,
    connections: ConnectionMetrics,
) -> quinn::Endpoint {
    let certificate =
        ReloadableCertificate::load(&certificates.join("cert.pem"), &certificates.join("key.pem"));
    let tls = server_config(certificate.unwrap(), ALPN_H3).unwrap();
    let crypto = QuicServerConfig::try_from(tls).unwrap();
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    let mut transport = quinn::TransportConfig::default();
    transport.max_concurrent_bidi_streams(10_000_u32.into());
    config.transport_config(Arc::new(transport));
    let endpoint = quinn::Endpoint::server(config, addr).unwrap();
    let accepting = endpoint.clone();
    tokio::spawn(async move {
        while let Some(incoming) = accepting.accept().await {
            connections.accepted.inc();
            tokio::spawn(connection(incoming, script.clone()));
        }
    });
    endpoint
}

async fn connection(incoming: quinn::Incoming, script: Script) {
    let Ok(connection) = incoming.await else { return };
    let mut connection =
        h3::server::Connection::<_, Bytes>::new(h3_quinn::Connection::new(connection)).await.unwrap();
    while let Ok(Some(resolver)) = connection.accept().await {
        let script = script.clone();
        tokio::spawn(async move {
            let Ok((request, mut stream)) = resolver.resolve_request().await else { return };
            // In a task: a script without an answer panics, and the stream is reset.
            let Ok(response) = tokio::spawn(serve(request.map(|()| (false, Bytes::new())), script)).await
            else {
                stream.stop_stream(Code::H3_INTERNAL_ERROR);
                return;
            };
            let (head, mut body): (_, Fed) = response.into_parts();
            if stream.send_response(http::Response::from_parts(head, ())).await.is_err() {
                return;
            }
            while let Some(frame) = body.frame().await {
                let sent = match frame {
                    Ok(frame) => stream.send_data(frame.into_data().unwrap()).await.is_ok(),
                    Err(_scripted) => false,
                };
                if !sent {
                    stream.stop_stream(Code::H3_INTERNAL_ERROR);
                    return;
                }
            }
            let _ = stream.finish().await;
        });
    }
}
