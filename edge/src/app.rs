//! The edge put together: configuration in, listeners out.

use crate::body::EdgeBody;
use crate::cache::{Store, StoreParts};
use crate::config::Config;
use crate::fill::WaiterLimits;
use crate::handler::Handler;
use crate::metrics::{Metrics, OnScrape};
use crate::upstream::Upstream;
use prometheus_client::registry::Registry;
use sigma_http::acme::Challenges;
use sigma_http::certificate::CertificateMetrics;
use sigma_http::drain::Drain;
use sigma_http::handover::Sockets;
use sigma_http::listener::{BindError, Bound, Server};
use sigma_http::logging;
use sigma_http::ops::{self, Endpoints, Readiness};
use sigma_http::systemd;
use sigma_http::tls::{ALPN_ALL, ALPN_H2, ReloadableCertificate, TlsError, client_config, server_config};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// How long a new process waits for its upstream before it says that it serves.
const READY_TIMEOUT: Duration = Duration::from_secs(3);

/// Why an edge cannot start: the configuration, its files, or another process on its ports.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Bind(#[from] BindError),
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
    metrics.register(registry.sub_registry_with_prefix("sigma_edge"));
    tls.source().keep(Arc::clone(certificate), &metrics, drain)
}

/// An edge that serves.
pub(crate) struct Running {
    pub(crate) http: Vec<SocketAddr>,
    pub(crate) tls: Vec<SocketAddr>,
    pub(crate) ops: SocketAddr,
    pub(crate) certificate: Option<Arc<ReloadableCertificate>>,
    pub(crate) drain: Drain,
    server: Server,
    sockets: Sockets,
    upstream: Upstream,
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
        server_config(tls.source().load()?, ALPN_ALL)?;
    }
    if let Some(ca) = &config.upstream.ca {
        client_config(ca, ALPN_H2)?;
    }
    Ok(())
}

/// Starts an edge. Everything is bound when this returns; the upstream may still be connecting.
///
/// # Errors
/// A certificate, key or CA file cannot be used, or an address cannot be bound.
pub(crate) fn start(config: &Config, sockets: &Sockets) -> Result<Running, StartError> {
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
    let plain = bind_all(sockets, &config.http.bind)?;
    let encrypted = bind_all(sockets, config.tls.as_ref().map_or(&[], |tls| &tls.bind))?;

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
    let scraped = Arc::clone(&store);
    registry.register_collector(Box::new(OnScrape(move || scraped.readings())));

    let drain = Drain::new();
    let challenges = keep_certificate(config, certificate.as_ref(), &mut registry, &drain);
    let server = Server::new(config.limits.listener(), metrics.connections.clone(), drain.clone());
    let handler = Handler::new(Arc::clone(&store), Arc::clone(&metrics));
    let addresses = |bound: &[Bound]| bound.iter().map(Bound::local_addr).collect();
    let running = Running {
        http: addresses(&plain),
        tls: addresses(&encrypted),
        ops: ops_bound.local_addr(),
        certificate,
        drain: drain.clone(),
        server: server.clone(),
        sockets: sockets.clone(),
        upstream: upstream.clone(),
        #[cfg(test)]
        metrics: Arc::clone(&metrics),
        #[cfg(test)]
        store,
    };
    let listeners = plain
        .into_iter()
        .map(|bound| (bound, None))
        .chain(encrypted.into_iter().map(|bound| (bound, tls_config.clone())));
    for (bound, tls) in listeners {
        let handler = Arc::clone(&handler);
        let challenges = challenges.clone().filter(|_| tls.is_none());
        let metrics = Arc::clone(&metrics);
        server.serve(bound, tls, move |request, _from| {
            let challenge = challenges.as_ref().and_then(|open| open.answer(request.uri().path()));
            let (handler, metrics) = (Arc::clone(&handler), Arc::clone(&metrics));
            async move {
                match challenge {
                    Some(answer) => answer.map(|bytes| EdgeBody::whole(bytes, metrics)),
                    None => handler.serve(request).await,
                }
            }
        });
    }
    let ready = move || match upstream.is_connected() {
        true => Readiness::Ready,
        false => Readiness::NotReady("the upstream is not connected".to_owned()),
    };
    ops::serve(ops_bound, drain, Endpoints { registry, ready, own: ops::nothing_more });
    Ok(running)
}

fn bind_all(sockets: &Sockets, addresses: &[SocketAddr]) -> Result<Vec<Bound>, BindError> {
    addresses.iter().map(|address| sockets.tcp(*address)).collect()
}

impl Running {
    /// Makes of a configuration that was read again what can be made of it: `config::LIVE_KEYS`.
    pub(crate) fn apply(&self, config: &Config) {
        self.server.set_limits(config.limits.listener());
        logging::apply(&config.log);
    }

    /// Waits until the upstream is connected, but not for long: without one, an edge that answers 503 is better than none.
    pub(crate) async fn until_ready(&self) {
        let mut look = tokio::time::interval(READY_TIMEOUT / 100);
        let connected = async {
            while !self.upstream.is_connected() {
                look.tick().await;
            }
        };
        let _ = tokio::time::timeout(READY_TIMEOUT, connected).await;
    }

    /// Waits for the drain signal, then for the connections to finish, in bounded time.
    pub(crate) async fn until_drained(&self) {
        self.drain.started().await;
        self.sockets.close();
        if !self.sockets.handed_over() {
            systemd::stopping();
        }
        self.server.drained().await;
    }
}
