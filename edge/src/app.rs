//! The edge put together: configuration in, listeners out.

use crate::cache::{Store, StoreParts};
use crate::config::{Config, TlsConfig};
use crate::fill::WaiterLimits;
use crate::handler::Handler;
use crate::metrics::{Metrics, OnScrape};
use crate::policy::{self, NoKey, PolicyFeed};
use crate::upstream::Upstream;
use prometheus_client::registry::Registry;
use sigma_http::drain::Drain;
use sigma_http::listener::{BindError, Bound, Server};
use sigma_http::ops::{self, Endpoints};
use sigma_http::quic::{BoundUdp, QuicError};
use sigma_http::tls::{ALPN_ALL, ALPN_H2, ReloadableCertificate, TlsError, client_config_as, server_config};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// Why an edge cannot start: the configuration, its files, or another process on its ports.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error(transparent)]
    Quic(#[from] QuicError),
    #[error(transparent)]
    NoKey(#[from] NoKey),
}

/// An edge that serves.
pub(crate) struct Running {
    pub(crate) http: Vec<SocketAddr>,
    pub(crate) tls: Vec<SocketAddr>,
    /// Whether HTTP/3 is served at the same numbers as `tls`, in UDP.
    pub(crate) http3: bool,
    pub(crate) ops: SocketAddr,
    pub(crate) certificate: Option<Arc<ReloadableCertificate>>,
    pub(crate) drain: Drain,
    server: Server,
    #[cfg(test)]
    pub(crate) metrics: Arc<Metrics>,
    #[cfg(test)]
    pub(crate) store: Arc<Store>,
}

/// Whether the files that the configuration names can be used.
///
/// # Errors
/// A certificate, key or CA file cannot be used.
pub(crate) fn check_files(config: &Config) -> Result<(), StartError> {
    if let Some(tls) = &config.tls {
        let certificate = load_certificate(tls)?;
        server_config(certificate, ALPN_ALL)?;
    }
    if let Some(ca) = &config.upstream.ca {
        client_config_as(ca, config.upstream.identity(), ALPN_H2)?;
    }
    Ok(())
}

fn load_certificate(tls: &TlsConfig) -> Result<Arc<ReloadableCertificate>, TlsError> {
    ReloadableCertificate::load_with_client_ca(&tls.certificate, &tls.key, tls.client_ca.as_deref())
}

/// Starts an edge. Everything is bound when this returns; the upstream may still be connecting.
///
/// # Errors
/// A certificate, key or CA file cannot be used, or an address cannot be bound.
pub(crate) fn start(config: &Config) -> Result<Running, StartError> {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let certificate = match &config.tls {
        Some(tls) => Some(load_certificate(tls)?),
        None => None,
    };
    let tls_config = match &certificate {
        Some(certificate) => Some(server_config(Arc::clone(certificate), ALPN_ALL)?),
        None => None,
    };
    let ops_bound = Bound::bind(config.ops.bind)?;
    let plain = bind_all(&config.http.bind)?;
    let encrypted = bind_all(config.tls.as_ref().map_or(&[], |tls| &tls.bind))?;
    let http3 = config.tls.as_ref().is_some_and(|tls| tls.http3);
    let quic = bind_quic(if http3 { &encrypted } else { &[] })?;

    let upstream = Upstream::start(&config.upstream, Arc::clone(&metrics))?;
    let store = Store::new(StoreParts {
        upstream: upstream.clone(),
        waiters: WaiterLimits {
            per_object_max: config.limits.waiters_per_object_max,
            total_max: config.limits.waiters_max,
            waiting: metrics.waiters.clone(),
        },
        fills_max: config.upstream.requests_max,
        config: config.cache.clone(),
        metrics: Arc::clone(&metrics),
    });
    let feed = policy_feed(config, &upstream, &metrics)?;
    register_readings(&mut registry, &store, &feed);

    let drain = Drain::new();
    let mut server = Server::new(config.limits.listener(), metrics.connections.clone(), drain.clone());
    if let Some(bound) = quic.first() {
        server = server.with_http3_at(bound.local_addr().port());
    }
    let handler = Handler::new(Arc::clone(&store), feed, Arc::clone(&metrics), config);
    let addresses = |bound: &[Bound]| bound.iter().map(Bound::local_addr).collect();
    let running = Running {
        http: addresses(&plain),
        tls: addresses(&encrypted),
        http3,
        ops: ops_bound.local_addr(),
        certificate: certificate.clone(),
        drain: drain.clone(),
        server: server.clone(),
        #[cfg(test)]
        metrics,
        #[cfg(test)]
        store,
    };
    let listeners = plain
        .into_iter()
        .map(|bound| (bound, None))
        .chain(encrypted.into_iter().map(|bound| (bound, tls_config.clone())));
    for (bound, tls) in listeners {
        let handler = Arc::clone(&handler);
        // Viewers have nothing to send: what comes with a request is dropped here.
        server.serve(bound, tls, move |request, from| Arc::clone(&handler).serve(request.map(drop), from));
    }
    for (bound, certificate) in quic.into_iter().zip(certificate.iter().cycle()) {
        let handler = Arc::clone(&handler);
        let serve = move |request, from| Arc::clone(&handler).serve(request, from);
        server.serve_quic(bound, Arc::clone(certificate), serve)?;
    }
    let ready = move || upstream.readiness();
    ops::serve(ops_bound, drain, Endpoints { registry, ready, own: ops::nothing_more });
    Ok(running)
}

fn register_readings(registry: &mut Registry, store: &Arc<Store>, feed: &PolicyFeed) {
    let (store, feed) = (Arc::clone(store), feed.clone());
    registry.register_collector(Box::new(OnScrape(move || store.readings())));
    registry.register_collector(Box::new(OnScrape(move || feed.readings())));
}

/// Where the policy is kept; with a certificate for the upstream, it is asked for from now on.
fn policy_feed(
    config: &Config,
    upstream: &Upstream,
    metrics: &Arc<Metrics>,
) -> Result<PolicyFeed, StartError> {
    if config.upstream.identity().is_none() {
        if config.sessions.enabled {
            tracing::warn!(
                "no upstream.certificate, so no policy: every channel is public here, and sessions are this edge's own"
            );
        }
        return Ok(PolicyFeed::open()?);
    }
    let (feed, poll) = (PolicyFeed::empty(), Duration::from_millis(config.sessions.policy_poll_ms));
    tokio::spawn(policy::follow(feed.clone(), upstream.clone(), poll, Arc::clone(metrics)));
    Ok(feed)
}

/// The same port numbers, in UDP.
fn bind_quic(encrypted: &[Bound]) -> Result<Vec<BoundUdp>, BindError> {
    encrypted.iter().map(|bound| BoundUdp::bind(bound.local_addr())).collect()
}

fn bind_all(addresses: &[SocketAddr]) -> Result<Vec<Bound>, BindError> {
    addresses.iter().copied().map(Bound::bind).collect()
}

impl Running {
    /// Waits for the drain signal, then for the connections to finish, in bounded time.
    pub(crate) async fn until_drained(self) {
        self.drain.started().await;
        self.server.drained().await;
    }
}
