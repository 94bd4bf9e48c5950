//! The origin put together: configuration in, listeners out.

use crate::channel::Channels;
use crate::config::Config;
use crate::http::{Body, Router, metadata};
use crate::ingest::rtmp::RtmpServer;
use crate::ingest::test_source;
use crate::metrics::Metrics;
use http_body_util::Full;
use prometheus_client::registry::Registry;
use sigma_http::acme::Challenges;
use sigma_http::certificate::CertificateMetrics;
use sigma_http::drain::Drain;
use sigma_http::handover::Sockets;
use sigma_http::listener::{BindError, Bound, Server};
use sigma_http::logging;
use sigma_http::ops::{self, Endpoints, Readiness};
use sigma_http::systemd;
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
    #[error("rtmp.bind: {address}: cannot be bound: {source}")]
    BindRtmp { address: SocketAddr, source: std::io::Error },
    #[error(transparent)]
    Id(#[from] InvalidId),
    #[error("data_dir: {path}: cannot be made or written to: {source}")]
    DataDir { path: String, source: std::io::Error },
}

/// Looks after the certificate, if there is TLS. Returns what the plain listeners have to answer for it.
fn keep_certificate(
    config: &Config,
    certificate: Option<&Arc<ReloadableCertificate>>,
    registry: &mut Registry,
    drain: &Drain,
) -> Option<Challenges> {
    let (tls, certificate) = config.tls.as_ref().zip(certificate)?;
    let metrics = CertificateMetrics::default();
    metrics.register(registry.sub_registry_with_prefix("sigma_origin"));
    tls.source().keep(Arc::clone(certificate), &metrics, drain)
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
    sockets: Sockets,
}

/// Whether the files that the configuration names can be used.
///
/// # Errors
/// A certificate or key cannot be used.
pub(crate) fn check_files(config: &Config) -> Result<(), StartError> {
    if let Some(tls) = &config.tls {
        server_config(tls.source().load()?, ALPN_ALL)?;
    }
    Ok(())
}

/// Starts an origin. Everything is bound when this returns.
///
/// # Errors
/// A certificate or key cannot be used, an address cannot be bound, or the data directory cannot be written to.
pub(crate) async fn start(config: &Config, sockets: &Sockets) -> Result<Running, StartError> {
    check_data_dir(config)?;
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let certificate = match &config.tls {
        Some(tls) => Some(tls.source().load()?),
        None => None,
    };
    let tls_config = match &certificate {
        Some(certificate) => Some(server_config(Arc::clone(certificate), ALPN_ALL)?),
        None => None,
    };
    let ops_bound = sockets.tcp(config.ops.bind)?;
    #[cfg(test)]
    let ops = ops_bound.local_addr();
    let plain = bind_all(sockets, &config.http.bind)?;
    let encrypted = bind_all(sockets, config.tls.as_ref().map_or(&[], |tls| &tls.bind))?;
    let rtmp = bind_rtmp(sockets, &config.rtmp.bind)?;

    let drain = Drain::new();
    let challenges = keep_certificate(config, certificate.as_ref(), &mut registry, &drain);
    let channels = Arc::new(Channels::start(config, &metrics)?);
    let held_max = config.live.held_requests_max;
    let router = Arc::new(Router::new(Arc::clone(&channels), Arc::clone(&metrics), held_max));
    let server = Server::new(config.limits.listener(), metrics.connections.clone(), drain.clone());
    let http = addresses(&plain);
    for (bounds, tls) in [(plain, None), (encrypted, tls_config)] {
        for bound in bounds {
            let router = Arc::clone(&router);
            let challenges = challenges.clone().filter(|_| tls.is_none());
            server.serve(bound, tls.clone(), move |request, _| {
                let challenge = challenges.as_ref().and_then(|open| open.answer(request.uri().path()));
                let router = Arc::clone(&router);
                async move {
                    match challenge {
                        Some(answer) => answer.map(|bytes| Body::Left(Full::new(bytes))),
                        None => router.respond(request).await,
                    }
                }
            });
        }
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
        sockets: sockets.clone(),
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
    /// Makes of a configuration that was read again what can be made of it: `config::LIVE_KEYS`.
    pub(crate) fn apply(&self, config: &Config) {
        self.server.set_limits(config.limits.listener());
        logging::apply(&config.log);
    }

    /// Serves until the drain has begun and open requests are done, or their time is up.
    pub(crate) async fn finished(&self) {
        self.drain.started().await;
        self.sockets.close();
        systemd::stopping();
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

fn check_data_dir(config: &Config) -> Result<(), StartError> {
    let probe = config.data_dir.join(".writable");
    std::fs::create_dir_all(&config.data_dir)
        .and_then(|()| std::fs::write(&probe, b""))
        .and_then(|()| std::fs::remove_file(&probe))
        .map_err(|source| StartError::DataDir { path: config.data_dir.display().to_string(), source })
}

fn bind_all(sockets: &Sockets, addresses: &[SocketAddr]) -> Result<Vec<Bound>, BindError> {
    addresses.iter().map(|address| sockets.tcp(*address)).collect()
}

fn addresses(bounds: &[Bound]) -> Vec<SocketAddr> {
    bounds.iter().map(Bound::local_addr).collect()
}

fn bind_rtmp(sockets: &Sockets, addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, StartError> {
    let named = |error: BindError| StartError::BindRtmp { address: error.addr, source: error.source };
    let bound = addresses.iter().map(|address| sockets.tcp(*address).map(Bound::into_listener));
    bound.map(|listener| listener.map_err(named)).collect()
}
