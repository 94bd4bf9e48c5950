//! The origin put together: configuration in, listeners out.

use crate::channel::Channels;
use crate::config::Config;
use crate::data_dir::{ClaimError, DataDir};
use crate::http::{Router, metadata};
use crate::ingest::rtmp::RtmpServer;
use crate::ingest::test_source;
use crate::metrics::Metrics;
use prometheus_client::registry::Registry;
use sigma_http::drain::Drain;
use sigma_http::listener::{BindError, Bound, Server};
use sigma_http::ops::{self, Endpoints, Readiness};
use sigma_http::quic::{BoundUdp, QuicError};
use sigma_http::tls::{ALPN_ALL, ReloadableCertificate, TlsError, server_config};
use sigma_shared::id::InvalidId;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Why an origin cannot start: the configuration, its files, or another process on its ports.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error(transparent)]
    Quic(#[from] QuicError),
    #[error("rtmp.bind: {address}: cannot be bound: {source}")]
    BindRtmp { address: SocketAddr, source: std::io::Error },
    #[error(transparent)]
    Id(#[from] InvalidId),
    #[error(transparent)]
    DataDir(#[from] ClaimError),
}

/// An origin that serves.
pub(crate) struct Running {
    #[cfg(test)]
    pub(crate) http: Vec<SocketAddr>,
    #[cfg(test)]
    pub(crate) rtmp: Vec<SocketAddr>,
    #[cfg(test)]
    pub(crate) ops: SocketAddr,
    #[cfg(test)]
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) certificate: Option<Arc<ReloadableCertificate>>,
    pub(crate) drain: Drain,
    server: Server,
}

/// Whether the files that the configuration names can be used.
///
/// # Errors
/// A certificate or key cannot be used.
pub(crate) fn check_files(config: &Config) -> Result<(), StartError> {
    if let Some(tls) = &config.tls {
        let certificate = ReloadableCertificate::load(&tls.certificate, &tls.key)?;
        server_config(certificate, ALPN_ALL)?;
    }
    Ok(())
}

/// Starts an origin. Everything is bound when this returns.
///
/// # Errors
/// A certificate or key cannot be used, an address cannot be bound, or the data directory cannot be written to or is another
/// origin's.
pub(crate) async fn start(config: &Config) -> Result<Running, StartError> {
    let data_dir = Arc::new(DataDir::claim(&config.data_dir)?);
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let certificate = match &config.tls {
        Some(tls) => Some(ReloadableCertificate::load(&tls.certificate, &tls.key)?),
        None => None,
    };
    let tls_config = match &certificate {
        Some(certificate) => Some(server_config(Arc::clone(certificate), ALPN_ALL)?),
        None => None,
    };
    let ops_bound = Bound::bind(config.ops.bind)?;
    #[cfg(test)]
    let ops = ops_bound.local_addr();
    let plain = bind_all(&config.http.bind)?;
    let encrypted = bind_all(config.tls.as_ref().map_or(&[], |tls| &tls.bind))?;
    let http3 = config.tls.as_ref().is_some_and(|tls| tls.http3);
    let quic = bind_quic(if http3 { &encrypted } else { &[] })?;
    let rtmp = bind_rtmp(&config.rtmp.bind).await?;

    let drain = Drain::new();
    let channels = Arc::new(Channels::start(config, &data_dir, &metrics)?);
    let held_max = config.live.held_requests_max;
    let router = Arc::new(Router::new(Arc::clone(&channels), Arc::clone(&metrics), held_max));
    let mut server = Server::new(config.limits.listener(), metrics.connections.clone(), drain.clone());
    if let Some(bound) = quic.first() {
        server = server.with_http3_at(bound.local_addr().port());
    }
    let http = addresses(&plain);
    for (bounds, tls) in [(plain, None), (encrypted, tls_config)] {
        for bound in bounds {
            let router = Arc::clone(&router);
            // Viewers and edges have nothing to send: what comes with a request is dropped here.
            server
                .serve(bound, tls.clone(), move |request, _| Arc::clone(&router).respond(request.map(drop)));
        }
    }
    for (bound, certificate) in quic.into_iter().zip(certificate.iter().cycle()) {
        let router = Arc::clone(&router);
        let respond = move |request, _| Arc::clone(&router).respond(request);
        server.serve_quic(bound, Arc::clone(certificate), respond)?;
    }
    let rtmp_addresses: Vec<SocketAddr> =
        rtmp.iter().filter_map(|listener| listener.local_addr().ok()).collect();
    let rtmp_server = Arc::new(RtmpServer {
        config: config.rtmp.clone(),
        channels: Arc::clone(&channels),
        metrics: Arc::clone(&metrics),
        drain: drain.clone(),
    });
    let places = Arc::new(Semaphore::new(config.rtmp.connections_max));
    for listener in rtmp {
        tokio::spawn(Arc::clone(&rtmp_server).serve(listener, Arc::clone(&places)));
    }
    start_test_sources(config, &channels, &drain)?;
    serve_ops(ops_bound, &drain, registry, Arc::clone(&channels));
    tracing::info!(http = ?http, rtmp = ?rtmp_addresses, channels = config.channels.len(), "origin serves");
    Ok(Running {
        #[cfg(test)]
        http,
        #[cfg(test)]
        rtmp: rtmp_addresses,
        #[cfg(test)]
        ops,
        #[cfg(test)]
        metrics,
        certificate,
        drain,
        server,
    })
}

fn serve_ops(bound: Bound, drain: &Drain, registry: Registry, channels: Arc<Channels>) {
    let draining = drain.clone();
    let ready = move || {
        if draining.is_started() { Readiness::NotReady("draining".into()) } else { Readiness::Ready }
    };
    let own = move |request, from| {
        let channels = Arc::clone(&channels);
        async move { metadata::respond(&channels, request, from).await }
    };
    ops::serve(bound, drain.clone(), Endpoints { registry, ready, own });
}

impl Running {
    /// Serves until the drain has begun and open requests are done, or their time is up.
    pub(crate) async fn finished(self) {
        self.drain.started().await;
        self.server.drained().await;
    }
}

fn start_test_sources(config: &Config, channels: &Channels, drain: &Drain) -> Result<(), InvalidId> {
    for channel in &config.channels {
        if let (Some(source), Some(started)) = (&channel.source, channels.get(&channel.id.parse()?)) {
            tokio::spawn(test_source::run(Arc::clone(started), source.clone(), drain.clone()));
        }
    }
    Ok(())
}

/// The same port numbers, in UDP.
fn bind_quic(encrypted: &[Bound]) -> Result<Vec<BoundUdp>, BindError> {
    encrypted.iter().map(|bound| BoundUdp::bind(bound.local_addr())).collect()
}

fn bind_all(addresses: &[SocketAddr]) -> Result<Vec<Bound>, BindError> {
    addresses.iter().map(|address| Bound::bind(*address)).collect()
}

fn addresses(bounds: &[Bound]) -> Vec<SocketAddr> {
    bounds.iter().map(Bound::local_addr).collect()
}

async fn bind_rtmp(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, StartError> {
    let mut listeners = Vec::new();
    for address in addresses {
        let bound = TcpListener::bind(address).await;
        listeners.push(bound.map_err(|source| StartError::BindRtmp { address: *address, source })?);
    }
    Ok(listeners)
}
