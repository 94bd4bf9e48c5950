//! The edge put together: configuration in, listeners out.

use crate::cache::{Store, StoreParts};
use crate::config::Config;
use crate::disk::{self, Disk};
use crate::fill::WaiterLimits;
use crate::handler::{Handler, HandlerParts};
use crate::metrics::{Metrics, OnScrape};
use crate::places;
use crate::policy::{self, NoKey, PolicyFeed};
use crate::reports::{self, Reporter};
use crate::upstream::{self, Upstream};
use crate::viewers::Viewers;
use prometheus_client::registry::Registry;
use sigma_http::certificate::{self, CertificateMetrics};
use sigma_http::drain::Drain;
use sigma_http::files::{self, Shortage};
use sigma_http::front::{Front, FrontError};
use sigma_http::handover::{SUCCESSOR_TIMEOUT, Sockets};
use sigma_http::listener::{BindError, Limits, Server};
use sigma_http::logging;
use sigma_http::ops::{self, Endpoints, Readiness};
use sigma_http::systemd;
use sigma_http::tls::{ALPN_H2, ReloadableCertificate, TlsError, client_config_as};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// How long a new process waits for its upstream before it says that it serves.
const READY_TIMEOUT: Duration = Duration::from_secs(3);

/// Why an edge cannot start: the configuration, its files, or another process on its ports.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error(transparent)]
    Front(#[from] FrontError),
    #[error(transparent)]
    NoKey(#[from] NoKey),
    #[error(
        "reports.spool_dir: {folder:?}: {error}: name a folder on a local disk that this user may create and write, \
         or leave it out: reports are in memory only then"
    )]
    Spool { folder: PathBuf, error: std::io::Error },
    #[error(
        "disk_cache.dir: {dir:?}: {error}: a folder on a local disk that this user may write to, or none for no disk cache"
    )]
    DiskCache { dir: PathBuf, error: std::io::Error },
    #[error("no thread for the disk cache: {0}")]
    Thread(std::io::Error),
    #[error("no connection could be accepted: {0}")]
    Files(Shortage),
}

impl StartError {
    fn spool(config: &Config, error: std::io::Error) -> Self {
        Self::Spool { folder: config.reports.spool_dir.clone().unwrap_or_default(), error }
    }
}

/// Begins to accept connections.
type Accept = Box<dyn FnOnce() -> Result<(), FrontError> + Send>;

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
    feed: PolicyFeed,
    reporter: Reporter,
    /// Of a successor, which shares its ports with a process that can answer: nothing is accepted before this one can.
    accept: Mutex<Option<Accept>>,
    disk: Option<Arc<Disk>>,
    #[cfg(test)]
    pub(crate) metrics: Arc<Metrics>,
    #[cfg(test)]
    pub(crate) store: Arc<Store>,
}

/// Whether the files that the configuration names can be used.
///
/// # Errors
/// A certificate, key or CA file, or the folder for reports or of the disk cache, cannot be used.
pub(crate) fn check_files(config: &Config) -> Result<(), StartError> {
    config.front().check_files()?;
    if let Some(ca) = &config.upstream.ca {
        client_config_as(ca, upstream::identity(&config.upstream)?, ALPN_H2)?;
    }
    if let Some(folder) = config.spool_folder().filter(|_| config.reports.enabled) {
        reports::check_folder(&folder).map_err(|error| StartError::spool(config, error))?;
    }
    if let Some(dir) = &config.disk_cache.dir {
        disk::check(dir).map_err(|error| StartError::DiskCache { dir: dir.clone(), error })?;
    }
    Ok(())
}

/// What is no mistake of the configuration, and what an operator should know.
///
/// # Errors
/// The certificate for upstreams, or the limit of open files, cannot be read.
pub(crate) fn warnings(config: &Config) -> Result<Vec<String>, StartError> {
    let now = SystemTime::now();
    let expiry = upstream::identity(&config.upstream)?
        .and_then(|identity| certificate::expiry_warning(&identity, upstream::IDENTITY, now));
    let disk = disk::shortage(&config.disk_cache, &config.pop);
    // The limit is of whoever checks: the server's may be another one.
    let files = limits(config)?.1.map(|shortage| shortage.to_string());
    Ok([expiry, disk, files].into_iter().flatten().collect())
}

/// What viewers may take: what the configuration says, as far as there are files for so many connections.
///
/// # Errors
/// There are files for none.
pub(crate) fn limits(config: &Config) -> Result<(Limits, Option<Shortage>), StartError> {
    let limits = config.limits.listener();
    match files::raise_for(limits.connections_max) {
        Ok(()) => Ok((limits, None)),
        Err(shortage) if shortage.connections == 0 => Err(StartError::Files(shortage)),
        Err(shortage) => Ok((Limits { connections_max: shortage.connections, ..limits }, Some(shortage))),
    }
}

/// Starts an edge. Everything is bound when this returns; the upstream may still be connecting, and a successor accepts nobody
/// before [`Running::until_ready`].
///
/// # Errors
/// A certificate, key or CA file cannot be used, or an address cannot be bound.
pub(crate) fn start(config: &Config, sockets: &Sockets) -> Result<Running, StartError> {
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let ops_bound = sockets.tcp(config.ops.bind)?;
    let front = Front::bind(&config.front(), sockets)?;

    let upstream = Upstream::start(&config.upstream, Arc::clone(&metrics))?;
    let disk = Disk::start(&config.disk_cache, &config.pop, &metrics).map_err(StartError::Thread)?;
    let store = Store::new(StoreParts {
        upstream: upstream.clone(),
        disk: disk.clone(),
        waiters: WaiterLimits {
            per_object_max: config.limits.waiters_per_object_max,
            total_max: config.limits.waiters_max,
            waiting: metrics.waiters.clone(),
        },
        fills_max: config.upstream.requests_max,
        unknown_channels_per_s: config.limits.unknown_channels_per_s,
        config: config.cache.clone(),
        metrics: Arc::clone(&metrics),
    });
    let feed = policy_feed(config, &upstream, &metrics)?;
    register_readings(&mut registry, &store, &feed);

    let drain = Drain::new();
    let own = registry.sub_registry_with_prefix("sigma_edge");
    let challenges = front.keep_certificate(&config.front(), own, &drain);
    keep_identity(&upstream, own, &drain);
    let (limits, shortage) = limits(config)?;
    if let Some(shortage) = shortage {
        tracing::warn!("{shortage}");
    }
    let server = Server::new(limits, metrics.connections.clone(), drain.clone());
    let gated = feed.clone();
    let viewers = Viewers::new(config.reports.sessions_max);
    let reporter = reporter(config, &upstream, &viewers, &metrics)?;
    let parts = HandlerParts {
        store: Arc::clone(&store),
        policy: feed.clone(),
        upstream: upstream.clone(),
        viewers,
        metrics: Arc::clone(&metrics),
    };
    let handler = Handler::new(parts, config);
    tell_places(config, &handler, (&upstream, &metrics));
    let (http, tls, certificate) = (front.http(), front.tls(), front.certificate());
    let serve = move |request, from| Arc::clone(&handler).serve(request, from);
    let accepting = server.clone();
    let accept: Accept = Box::new(move || front.serve(&accepting, challenges.as_ref(), serve));
    let accept = if sockets.succeeds() { Some(accept) } else { accept().map(|()| None)? };
    let running = Running {
        http,
        tls,
        ops: ops_bound.local_addr(),
        certificate,
        drain: drain.clone(),
        server,
        accept: Mutex::new(accept),
        sockets: sockets.clone(),
        upstream: upstream.clone(),
        feed,
        reporter,
        disk,
        #[cfg(test)]
        metrics,
        #[cfg(test)]
        store,
    };
    let ready = move || readiness(&upstream, &gated);
    ops::serve(ops_bound, drain, Endpoints { registry, ready, own: ops::nothing_more });
    Ok(running)
}

/// Whether viewers can be answered: without the policy nobody is let in.
fn readiness(upstream: &Upstream, feed: &PolicyFeed) -> Readiness {
    match upstream.readiness() {
        Readiness::Ready if feed.gate().is_none() => Readiness::NotReady(
            "there is no policy yet: see the log for why the upstream gives none".to_owned(),
        ),
        readiness => readiness,
    }
}

fn register_readings(registry: &mut Registry, store: &Arc<Store>, feed: &PolicyFeed) {
    let (store, feed) = (Arc::clone(store), feed.clone());
    registry.register_collector(Box::new(OnScrape(move || store.readings())));
    registry.register_collector(Box::new(OnScrape(move || feed.readings())));
}

/// Looks after the certificate that upstreams are shown.
fn keep_identity(upstream: &Upstream, registry: &mut Registry, drain: &Drain) {
    let Some(identity) = upstream.identity() else { return };
    let metrics = CertificateMetrics::default();
    metrics.register_client(registry);
    certificate::watch(Arc::clone(identity), upstream::IDENTITY, &metrics, drain);
}

/// Tells the upstream who watches, when it is known there by a certificate.
fn reporter(
    config: &Config,
    upstream: &Upstream,
    viewers: &Arc<Viewers>,
    metrics: &Arc<Metrics>,
) -> Result<Reporter, StartError> {
    let identified = config.upstream.identity().is_some();
    if config.reports.enabled && !identified {
        tracing::warn!("no upstream.certificate, so no reports: viewers are not counted here");
    }
    let post = (config.reports.enabled && identified).then(|| upstream.clone());
    let reporter = Reporter::start(config, Arc::clone(viewers), Arc::clone(metrics), post);
    reporter.map_err(|error| StartError::spool(config, error))
}

/// Tells the upstream who has a place here, when it knows this edge by a certificate.
fn tell_places(config: &Config, handler: &Handler, (upstream, metrics): (&Upstream, &Arc<Metrics>)) {
    if config.sessions.enabled && upstream.identity().is_some() {
        let seats = Arc::clone(handler.seats());
        tokio::spawn(places::keep_told(seats, upstream.clone(), Arc::clone(metrics)));
    }
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

impl Running {
    /// Makes of a configuration that was read again what can be made of it: `config::LIVE_KEYS`.
    pub(crate) fn apply(&self, config: &Config) {
        self.server.set_limits(config.limits.listener());
        logging::apply(&config.log);
    }

    /// The certificates that can be read again: what viewers are shown, and what upstreams are.
    pub(crate) fn certificates(&self) -> impl Iterator<Item = &ReloadableCertificate> {
        self.certificate.iter().chain(self.upstream.identity()).map(Arc::as_ref)
    }

    /// Waits until viewers can be answered. Not for long, as an edge that answers 503 is better than none; but a successor
    /// waits for as long as its predecessor has patience, because that one does answer, and accepts connections only then.
    ///
    /// # Errors
    /// The certificate cannot be used after all.
    pub(crate) async fn until_ready(&self) -> Result<(), StartError> {
        let mut look = tokio::time::interval(READY_TIMEOUT / 100);
        let ready = async {
            while readiness(&self.upstream, &self.feed) != Readiness::Ready {
                look.tick().await;
            }
        };
        let patience = if self.sockets.succeeds() { SUCCESSOR_TIMEOUT } else { READY_TIMEOUT };
        tokio::select! {
            _ = tokio::time::timeout(patience, ready) => {}
            () = self.drain.started() => return Ok(()),
        }
        let accept = self.accept.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(accept.map_or(Ok(()), |accept| accept())?)
    }

    /// Waits for the drain signal, then for the connections to finish, in bounded time.
    pub(crate) async fn until_drained(&self) {
        self.drain.started().await;
        self.sockets.close();
        if let Some(disk) = &self.disk {
            disk.release();
        }
        if !self.sockets.handed_over() {
            systemd::stopping();
        }
        self.server.drained().await;
        self.reporter.finish().await;
    }
}
