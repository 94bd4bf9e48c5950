//! The origin put together: configuration in, listeners out.

use crate::channel::Channels;
use crate::claim::{ClaimError, ClaimedDir};
use crate::config::Config;
use crate::http::api::token::{AdminToken, AdminTokenError};
use crate::http::operator::{self, Operated};
use crate::http::{Router, RouterParts};
use crate::ingest::rtmp::RtmpServer;
use crate::ingest::test_source;
use crate::metrics::Metrics;
use crate::policy::{Policies, PolicyError};
use crate::stats::{self, StatsError, StatsMetrics};
use prometheus_client::registry::Registry;
use sigma_http::drain::Drain;
use sigma_http::files;
use sigma_http::front::{Front, FrontError};
use sigma_http::handover::Sockets;
use sigma_http::listener::{BindError, Bound, Server};
use sigma_http::logging;
use sigma_http::ops::{self, Endpoints, Readiness};
use sigma_http::systemd;
use sigma_http::tls::{ReloadableCertificate, TlsError};
use sigma_shared::id::InvalidId;
use sigma_stats::keeper::Stats;
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
    Front(#[from] FrontError),
    #[error("rtmp.bind: {address}: cannot be bound: {source}")]
    BindRtmp { address: SocketAddr, source: std::io::Error },
    #[error(transparent)]
    Id(#[from] InvalidId),
    #[error(transparent)]
    ClaimedDir(#[from] ClaimError),
    #[error(transparent)]
    Policy(#[from] PolicyError),
    #[error(transparent)]
    Stats(#[from] StatsError),
    #[error(transparent)]
    AdminToken(#[from] AdminTokenError),
}

/// An origin that serves.
pub(crate) struct Running {
    #[cfg(test)]
    pub(crate) http: Vec<SocketAddr>,
    #[cfg(test)]
    pub(crate) tls: Vec<SocketAddr>,
    #[cfg(test)]
    pub(crate) rtmp: Vec<SocketAddr>,
    #[cfg(test)]
    pub(crate) ops: SocketAddr,
    #[cfg(test)]
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) certificate: Option<Arc<ReloadableCertificate>>,
    pub(crate) drain: Drain,
    server: Server,
    pub(crate) stats: Stats,
    sockets: Sockets,
}

/// Whether the files that the configuration names can be used.
///
/// # Errors
/// A certificate or key, or the key of an issuer of tokens, cannot be used.
pub(crate) fn check_files(config: &Config) -> Result<(), StartError> {
    config.front().check_files()?;
    config.playback.check_files()?;
    Ok(())
}

/// Starts an origin. Everything is bound when this returns.
///
/// # Errors
/// A certificate or key cannot be used, an address cannot be bound, or the data directory cannot be written to or is another
/// origin's.
pub(crate) async fn start(config: &Config, sockets: &Sockets) -> Result<Running, StartError> {
    let data_dir = Arc::new(ClaimedDir::claim(&config.data_dir)?);
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let ops_bound = sockets.tcp(config.ops.bind)?;
    #[cfg(test)]
    let ops = ops_bound.local_addr();
    let front = Front::bind(&config.front(), sockets)?;
    let rtmp = bind_rtmp(sockets, &config.rtmp.bind)?;

    let drain = Drain::new();
    let own = registry.sub_registry_with_prefix("sigma_origin");
    let challenges = front.keep_certificate(&config.front(), own, &drain);
    let channels = Arc::new(Channels::start(config, &data_dir, &metrics)?);
    let policies = Policies::load(config, &data_dir)?;
    policies.start();
    let stats = stats::start(&config.stats, &data_dir, &channels)?;
    own_metrics(&mut registry, &stats);
    let router = Arc::new(Router::new(RouterParts {
        channels: Arc::clone(&channels),
        policies: Arc::clone(&policies),
        metrics: Arc::clone(&metrics),
        held_requests_max: config.live.held_requests_max,
        stats: stats.clone(),
        shields: config.stats.shields(),
        admin_token: AdminToken::load(&config.data_dir)?,
    }));
    if let Err(shortage) = files::raise_for(config.limits.connections_max) {
        tracing::warn!("{shortage}");
    }
    let server = Server::new(config.limits.listener(), metrics.connections.clone(), drain.clone());
    let (http, certificate) = (front.http(), front.certificate());
    #[cfg(test)]
    let tls = front.tls();
    let respond = move |request, from| Arc::clone(&router).respond(request, from);
    front.serve(&server, challenges.as_ref(), respond)?;
    let rtmp_addresses: Vec<SocketAddr> =
        rtmp.iter().filter_map(|listener| listener.local_addr().ok()).collect();
    let rtmp_server = RtmpServer {
        config: config.rtmp.clone(),
        channels: Arc::clone(&channels),
        metrics: Arc::clone(&metrics),
        drain: drain.clone(),
    };
    serve_rtmp(rtmp, rtmp_server);
    start_test_sources(config, &channels, &drain)?;
    serve_ops(ops_bound, &drain, registry, Operated { channels, policies });
    tracing::info!(http = ?http, rtmp = ?rtmp_addresses, channels = config.channels.len(), "origin serves");
    Ok(Running {
        #[cfg(test)]
        http,
        #[cfg(test)]
        tls,
        #[cfg(test)]
        rtmp: rtmp_addresses,
        #[cfg(test)]
        ops,
        #[cfg(test)]
        metrics,
        certificate,
        drain,
        server,
        stats,
        sockets: sockets.clone(),
    })
}

fn own_metrics(registry: &mut Registry, stats: &Stats) {
    let own = registry.sub_registry_with_prefix("sigma_origin");
    own.register_collector(Box::new(StatsMetrics(stats.clone())));
}

fn serve_rtmp(listeners: Vec<TcpListener>, server: RtmpServer) {
    let places = Arc::new(Semaphore::new(server.config.connections_max));
    let server = Arc::new(server);
    for listener in listeners {
        tokio::spawn(Arc::clone(&server).serve(listener, Arc::clone(&places)));
    }
}

fn serve_ops(bound: Bound, drain: &Drain, registry: Registry, operated: Operated) {
    let draining = drain.clone();
    let ready = move || {
        if draining.is_started() { Readiness::NotReady("draining".into()) } else { Readiness::Ready }
    };
    let own = move |request, from| operator::respond(operated.clone(), request, from);
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
        stats::close(&self.stats).await;
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

fn bind_rtmp(sockets: &Sockets, addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, StartError> {
    let named = |error: BindError| StartError::BindRtmp { address: error.addr, source: error.source };
    let bound = addresses.iter().map(|address| sockets.tcp(*address).map(Bound::into_listener));
    bound.map(|listener| listener.map_err(named)).collect()
}
