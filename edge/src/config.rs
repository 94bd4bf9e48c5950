//! The edge's configuration file: keys, defaults and what is allowed. The commented reference is configs/edge.toml.
//!
//! Invariant: a value of these types that passed `validate` can be served with, as far as a file alone can tell.

mod reports;

pub(crate) use reports::{PopDescriptionConfig, ReportsConfig};

use http::uri::{Authority, Scheme};
use rustls::pki_types::ServerName;
use serde::Deserialize;
use sigma_http::addresses::clashes;
use sigma_http::admission::AddressRange;
use sigma_http::config::{Problem, Validate};
use sigma_http::front::FrontConfig;
use sigma_http::listener::{Limits, loopback as loopback_ranges};
use sigma_http::logging::LogConfig;
use sigma_shared::id::PopId;
use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The whole file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) pop: String,
    #[serde(default)]
    pub(crate) http: HttpConfig,
    pub(crate) tls: Option<TlsConfig>,
    #[serde(default)]
    pub(crate) ops: OpsConfig,
    pub(crate) upstream: UpstreamConfig,
    #[serde(default)]
    pub(crate) cache: CacheConfig,
    #[serde(default)]
    pub(crate) disk_cache: DiskCacheConfig,
    #[serde(default)]
    pub(crate) sessions: SessionsConfig,
    #[serde(default)]
    pub(crate) pop_description: PopDescriptionConfig,
    #[serde(default)]
    pub(crate) reports: ReportsConfig,
    #[serde(default)]
    pub(crate) limits: LimitsConfig,
    #[serde(default)]
    pub(crate) access_log: AccessLogConfig,
    #[serde(default)]
    pub(crate) log: LogConfig,
}

/// `[access_log]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct AccessLogConfig {
    pub(crate) one_in: u32,
}

/// What a running edge can change; see `app::Running::apply`.
pub(crate) const LIVE_KEYS: &[&str] = &[
    "limits.drain_timeout_ms",
    "limits.h2_streams_max",
    "limits.header_timeout_ms",
    "limits.idle_timeout_ms",
    "log.filter",
];

/// `[http]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct HttpConfig {
    pub(crate) bind: Vec<SocketAddr>,
}

/// `[tls]`
pub(crate) type TlsConfig = sigma_http::front::TlsConfig<8443>;

impl Config {
    /// What is listened on for viewers.
    pub(crate) fn front(&self) -> FrontConfig<'_> {
        FrontConfig::new(&self.http.bind, self.tls.as_ref())
    }

    /// Where reports wait for the origin, if anywhere: whoever sends one is taken for the POP it is of, so no POP sends another
    /// one's.
    pub(crate) fn spool_folder(&self) -> Option<PathBuf> {
        self.reports.spool_dir.as_ref().map(|dir| dir.join(&self.pop))
    }
}

/// `[ops]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct OpsConfig {
    pub(crate) bind: SocketAddr,
}

/// `[upstream]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpstreamConfig {
    pub(crate) urls: Vec<UpstreamUrl>,
    pub(crate) ca: Option<PathBuf>,
    pub(crate) certificate: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
    #[serde(default)]
    pub(crate) protocol: UpstreamProtocol,
    #[serde(default = "default_hedge_after_ms")]
    pub(crate) hedge_after_ms: u64,
    #[serde(default = "default_failback_after_ms")]
    pub(crate) failback_after_ms: u64,
    #[serde(default = "default_probe_interval_ms")]
    pub(crate) probe_interval_ms: u64,
    #[serde(default = "default_connect_timeout_ms")]
    pub(crate) connect_timeout_ms: u64,
    #[serde(default = "default_response_timeout_ms")]
    pub(crate) response_timeout_ms: u64,
    #[serde(default = "default_body_timeout_ms")]
    pub(crate) body_timeout_ms: u64,
    #[serde(default = "default_requests_max")]
    pub(crate) requests_max: usize,
    #[serde(default = "default_ping_interval_ms")]
    pub(crate) ping_interval_ms: u64,
    #[serde(default = "default_ping_timeout_ms")]
    pub(crate) ping_timeout_ms: u64,
    #[serde(default = "default_reconnect_ms_max")]
    pub(crate) reconnect_ms_max: u64,
}

/// `upstream.protocol`, for https upstreams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum UpstreamProtocol {
    /// HTTP/3 where it works, HTTP/2 otherwise.
    #[default]
    Auto,
    /// HTTP/2 over TLS.
    H2,
    /// HTTP/3 over QUIC.
    H3,
}

/// `[cache]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct CacheConfig {
    pub(crate) bytes_max: u64,
    pub(crate) object_bytes_max: u64,
    pub(crate) fill_bytes_max: u64,
    pub(crate) negative_bytes_max: u64,
    pub(crate) negative_age_ms_max: u64,
}

/// `[disk_cache]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct DiskCacheConfig {
    pub(crate) dir: Option<PathBuf>,
    pub(crate) bytes_max: u64,
    pub(crate) write_bytes_per_s_max: u64,
}

/// `[sessions]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct SessionsConfig {
    pub(crate) enabled: bool,
    pub(crate) policy_poll_ms: u64,
    pub(crate) verdicts_max: usize,
    pub(crate) gone_after_ms: u64,
    pub(crate) bind_ipv4_bits: u8,
    pub(crate) bind_ipv6_bits: u8,
    pub(crate) audience: String,
}

/// `[limits]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LimitsConfig {
    pub(crate) connections_max: usize,
    pub(crate) connections_per_ip_max: usize,
    pub(crate) connections_per_ip_exempt: Vec<AddressRange>,
    pub(crate) read_bytes_per_s_min: u32,
    pub(crate) held_bytes_max: u64,
    pub(crate) h2_streams_max: u32,
    pub(crate) quic_handshakes_max: usize,
    pub(crate) unknown_channels_per_s: u32,
    pub(crate) waiters_per_object_max: usize,
    pub(crate) waiters_max: usize,
    pub(crate) header_timeout_ms: u64,
    pub(crate) idle_timeout_ms: u64,
    pub(crate) drain_timeout_ms: u64,
}

fn default_connect_timeout_ms() -> u64 {
    1_000
}
fn default_response_timeout_ms() -> u64 {
    9_500
}
fn default_body_timeout_ms() -> u64 {
    30_000
}
fn default_requests_max() -> usize {
    4_096
}
fn default_ping_interval_ms() -> u64 {
    1_000
}
fn default_ping_timeout_ms() -> u64 {
    1_500
}
fn default_reconnect_ms_max() -> u64 {
    250
}
fn default_hedge_after_ms() -> u64 {
    550
}
fn default_failback_after_ms() -> u64 {
    3_000
}
fn default_probe_interval_ms() -> u64 {
    1_000
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self { bind: vec![loopback(8080)] }
    }
}

impl Default for OpsConfig {
    fn default() -> Self {
        Self { bind: loopback(8081) }
    }
}

const MIB: u64 = 1024 * 1024;
/// Each one is connected to, and probed, all the time.
const UPSTREAMS_MAX: usize = 8;

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            bytes_max: 512 * MIB,
            object_bytes_max: 32 * MIB,
            fill_bytes_max: 256 * MIB,
            negative_bytes_max: 4 * MIB,
            negative_age_ms_max: 1_000,
        }
    }
}

impl Default for DiskCacheConfig {
    fn default() -> Self {
        Self { dir: None, bytes_max: 50 << 30, write_bytes_per_s_max: 64 * MIB }
    }
}

impl DiskCacheConfig {
    fn problems(&self, found: &mut Vec<Problem>) {
        if self.dir.as_ref().is_some_and(|dir| dir.as_os_str().is_empty()) {
            let allowed = "a folder on a local disk, or no disk_cache.dir at all for no disk cache";
            found.push(Problem::new("disk_cache.dir", "\"\"", allowed));
        }
    }
}

impl Default for SessionsConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            policy_poll_ms: 1_000,
            verdicts_max: 200_000,
            gone_after_ms: 6_000,
            bind_ipv4_bits: 24,
            bind_ipv6_bits: 56,
            audience: "sigma-live".to_owned(),
        }
    }
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            connections_max: 20_000,
            connections_per_ip_max: 2_000,
            connections_per_ip_exempt: loopback_ranges(),
            read_bytes_per_s_min: 16 * 1024,
            held_bytes_max: 512 * MIB,
            h2_streams_max: 128,
            quic_handshakes_max: 256,
            unknown_channels_per_s: 100,
            waiters_per_object_max: 20_000,
            waiters_max: 50_000,
            header_timeout_ms: 10_000,
            idle_timeout_ms: 60_000,
            drain_timeout_ms: 10_000,
        }
    }
}

impl UpstreamConfig {
    pub(crate) fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms)
    }

    pub(crate) fn response_timeout(&self) -> Duration {
        Duration::from_millis(self.response_timeout_ms)
    }

    pub(crate) fn body_timeout(&self) -> Duration {
        Duration::from_millis(self.body_timeout_ms)
    }

    pub(crate) fn ping_interval(&self) -> Duration {
        Duration::from_millis(self.ping_interval_ms)
    }

    pub(crate) fn ping_timeout(&self) -> Duration {
        Duration::from_millis(self.ping_timeout_ms)
    }

    pub(crate) fn hedge_after(&self) -> Duration {
        Duration::from_millis(self.hedge_after_ms)
    }

    pub(crate) fn failback_after(&self) -> Duration {
        Duration::from_millis(self.failback_after_ms)
    }

    pub(crate) fn probe_interval(&self) -> Duration {
        Duration::from_millis(self.probe_interval_ms)
    }

    pub(crate) fn reconnect_max(&self) -> Duration {
        Duration::from_millis(self.reconnect_ms_max)
    }

    /// The client certificate's chain and key.
    pub(crate) fn identity(&self) -> Option<(&Path, &Path)> {
        self.certificate.as_deref().zip(self.key.as_deref())
    }

    fn problems(&self, found: &mut Vec<Problem>) {
        if self.urls.is_empty() || self.urls.len() > UPSTREAMS_MAX {
            let allowed = format!("1 to {UPSTREAMS_MAX} URLs, the preferred one first");
            found.push(Problem::new("upstream.urls", self.urls.len().to_string(), allowed));
        }
        let mut seen = HashSet::new();
        for url in self.urls.iter().filter(|url| !seen.insert(url.authority.as_str().to_owned())) {
            let allowed = "every upstream once";
            found.push(Problem::new("upstream.urls", url.authority.to_string(), allowed));
        }
        if self.ca.is_none() && self.urls.iter().any(|url| url.server_name.is_some()) {
            let allowed = "the PEM file of the CA that signed the upstream's certificate, as one of upstream.urls is https";
            found.push(Problem::new("upstream.ca", "missing", allowed));
        }
        if self.certificate.is_some() != self.key.is_some() {
            let allowed = "both upstream.certificate and upstream.key, or neither";
            found.push(Problem::new("upstream.certificate", "one of two", allowed));
        }
        if self.protocol == UpstreamProtocol::H3 && self.urls.iter().any(|url| url.server_name.is_none()) {
            let allowed = "\"auto\" or \"h2\", as one of upstream.urls is http";
            found.push(Problem::new("upstream.protocol", "h3", allowed));
        }
    }
}

/// A key, its value, the least and the most it may be, and of what.
type Range = (&'static str, u64, u64, u64, &'static str);

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

impl LimitsConfig {
    fn ranges(&self) -> [Range; 12] {
        let limits = self;
        [
            ("limits.connections_max", count(limits.connections_max), 1, 1 << 24, "connections"),
            (
                "limits.connections_per_ip_max",
                count(limits.connections_per_ip_max),
                1,
                1 << 24,
                "connections",
            ),
            (
                "limits.read_bytes_per_s_min",
                limits.read_bytes_per_s_min.into(),
                1,
                1 << 30,
                "bytes per second",
            ),
            ("limits.held_bytes_max", limits.held_bytes_max, MIB, 1 << 50, "bytes"),
            ("limits.h2_streams_max", limits.h2_streams_max.into(), 1, 100_000, "requests"),
            ("limits.quic_handshakes_max", count(limits.quic_handshakes_max), 0, 1 << 20, "handshakes"),
            (
                "limits.unknown_channels_per_s",
                limits.unknown_channels_per_s.into(),
                1,
                1 << 20,
                "channels per second",
            ),
            ("limits.waiters_per_object_max", count(limits.waiters_per_object_max), 1, 1 << 24, "requests"),
            ("limits.waiters_max", count(limits.waiters_max), 1, 1 << 24, "requests"),
            ("limits.header_timeout_ms", limits.header_timeout_ms, 100, 120_000, "milliseconds"),
            ("limits.idle_timeout_ms", limits.idle_timeout_ms, 100, 3_600_000, "milliseconds"),
            ("limits.drain_timeout_ms", limits.drain_timeout_ms, 0, 120_000, "milliseconds"),
        ]
    }

    /// As the listeners take them.
    pub(crate) fn listener(&self) -> Limits {
        Limits {
            connections_max: self.connections_max,
            connections_per_ip_max: self.connections_per_ip_max,
            connections_per_ip_exempt: self.connections_per_ip_exempt.clone(),
            read_bytes_per_s_min: self.read_bytes_per_s_min,
            held_bytes_max: self.held_bytes_max,
            h2_streams_max: self.h2_streams_max,
            quic_handshakes_max: self.quic_handshakes_max,
            header_read_timeout: Duration::from_millis(self.header_timeout_ms),
            handshake_timeout: Duration::from_millis(self.header_timeout_ms),
            idle_timeout: Duration::from_millis(self.idle_timeout_ms),
            drain_timeout: Duration::from_millis(self.drain_timeout_ms),
            ..Limits::default()
        }
    }
}

/// One of `upstream.urls`, taken apart.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct UpstreamUrl {
    pub(crate) scheme: Scheme,
    pub(crate) authority: Authority,
    pub(crate) port: u16,
    /// Whom the certificate must name; `None` for http.
    pub(crate) server_name: Option<ServerName<'static>>,
}

impl TryFrom<String> for UpstreamUrl {
    type Error = String;

    fn try_from(url: String) -> Result<Self, String> {
        let allowed = || "https://HOST[:PORT] or http://HOST[:PORT], without a path".to_owned();
        let parts = url.parse::<http::Uri>().map_err(|_| allowed())?.into_parts();
        let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else {
            return Err(allowed());
        };
        let path = parts.path_and_query.as_ref().map_or("/", |path| path.as_str());
        if path != "/" || authority.as_str().contains('@') {
            return Err(allowed());
        }
        let (port, server_name) = match scheme.as_str() {
            "http" => (80, None),
            "https" => {
                let host = authority.host().trim_matches(['[', ']']).to_owned();
                (443, Some(ServerName::try_from(host).map_err(|_| allowed())?))
            }
            _ => return Err(allowed()),
        };
        Ok(Self { port: authority.port_u16().unwrap_or(port), scheme, authority, server_name })
    }
}

impl Validate for Config {
    fn validate(&self) -> Vec<Problem> {
        let mut found = Vec::new();
        if let Err(error) = self.pop.parse::<PopId>() {
            found.push(Problem::new("pop", &self.pop, error.to_string()));
        }
        let tls_binds = self.tls.as_ref().map_or(&[][..], |tls| &tls.bind);
        if self.http.bind.is_empty() && tls_binds.is_empty() {
            let allowed = "at least one address here or in tls.bind: nobody could connect";
            found.push(Problem::new("http.bind", "[]", allowed));
        }
        if let Some(tls) = &self.tls {
            found.extend(tls.source().problems(self.http.bind.len()));
        }
        let ops = std::slice::from_ref(&self.ops.bind);
        found.extend(clashes(&[("http.bind", &self.http.bind), ("tls.bind", tls_binds), ("ops.bind", ops)]));
        found.extend(self.log.problems());
        self.upstream.problems(&mut found);
        self.pop_description.problems(&mut found);
        self.reports.problems(&mut found);
        self.disk_cache.problems(&mut found);
        let disk = &self.disk_cache;
        let (upstream, cache, limits, sessions) = (&self.upstream, &self.cache, &self.limits, &self.sessions);
        for (key, value, low, high, unit) in [
            ("upstream.connect_timeout_ms", upstream.connect_timeout_ms, 10, 60_000, "milliseconds"),
            ("upstream.response_timeout_ms", upstream.response_timeout_ms, 100, 120_000, "milliseconds"),
            ("upstream.body_timeout_ms", upstream.body_timeout_ms, 1_000, 600_000, "milliseconds"),
            ("upstream.requests_max", count(upstream.requests_max), 1, 1_000_000, "requests"),
            ("upstream.ping_interval_ms", upstream.ping_interval_ms, 100, 60_000, "milliseconds"),
            ("upstream.ping_timeout_ms", upstream.ping_timeout_ms, 100, 60_000, "milliseconds"),
            ("upstream.reconnect_ms_max", upstream.reconnect_ms_max, 50, 60_000, "milliseconds"),
            ("upstream.hedge_after_ms", upstream.hedge_after_ms, 10, 60_000, "milliseconds"),
            ("upstream.failback_after_ms", upstream.failback_after_ms, 0, 600_000, "milliseconds"),
            ("upstream.probe_interval_ms", upstream.probe_interval_ms, 50, 60_000, "milliseconds"),
            ("cache.bytes_max", cache.bytes_max, MIB, 1 << 50, "bytes"),
            ("cache.object_bytes_max", cache.object_bytes_max, 64 * 1024, 1 << 30, "bytes"),
            ("cache.fill_bytes_max", cache.fill_bytes_max, cache.object_bytes_max, 1 << 40, "bytes"),
            ("cache.negative_bytes_max", cache.negative_bytes_max, 64 * 1024, 1 << 40, "bytes"),
            ("cache.negative_age_ms_max", cache.negative_age_ms_max, 0, 60_000, "milliseconds"),
            ("disk_cache.bytes_max", disk.bytes_max, cache.object_bytes_max.max(64 * MIB), 1 << 50, "bytes"),
            (
                "disk_cache.write_bytes_per_s_max",
                disk.write_bytes_per_s_max,
                MIB,
                1 << 34,
                "bytes per second",
            ),
            ("sessions.policy_poll_ms", sessions.policy_poll_ms, 50, 2_000, "milliseconds"),
            ("sessions.verdicts_max", count(sessions.verdicts_max), 1_000, 1 << 24, "sessions"),
            ("sessions.gone_after_ms", sessions.gone_after_ms, 4_000, 600_000, "milliseconds"),
            ("sessions.bind_ipv4_bits", sessions.bind_ipv4_bits.into(), 0, 32, "bits"),
            ("sessions.bind_ipv6_bits", sessions.bind_ipv6_bits.into(), 0, 64, "bits"),
            ("reports.interval_ms", self.reports.interval_ms, 100, 10_000, "milliseconds"),
            ("reports.spool_bytes_max", self.reports.spool_bytes_max, MIB, 1 << 40, "bytes"),
            ("reports.sessions_max", count(self.reports.sessions_max), 1_000, 1 << 24, "sessions"),
        ]
        .into_iter()
        .chain(limits.ranges())
        {
            if !(low..=high).contains(&value) {
                found.push(Problem::new(key, value, format!("{low} to {high} {unit}")));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sigma_http::config::parse;

    const LEAST: &str = "pop = \"pop-1\"\n[upstream]\nurls = [\"http://127.0.0.1:7070\"]\n";

    #[test]
    fn the_reference_is_accepted_and_states_the_defaults() {
        let text = include_str!("../../configs/edge.toml");
        let reference = parse::<Config>(text).unwrap();
        let least = parse::<Config>(LEAST).unwrap();
        let debug = |config: &Config| {
            let (first, rest) = ((&config.http, &config.ops), (&config.cache, &config.limits));
            let own = (&config.sessions, &config.pop_description, &config.reports, &config.disk_cache);
            format!("{first:?}{rest:?}{own:?}")
        };
        assert_eq!(debug(&reference), debug(&least));
        let timeouts = |u: &UpstreamConfig| {
            [
                u.connect_timeout_ms,
                u.response_timeout_ms,
                u.ping_interval_ms,
                u.ping_timeout_ms,
                u.reconnect_ms_max,
                u.requests_max as u64,
                u.hedge_after_ms,
                u.failback_after_ms,
                u.probe_interval_ms,
            ]
        };
        assert_eq!(timeouts(&reference.upstream), timeouts(&least.upstream));
        assert_eq!(reference.tls.unwrap().bind, vec![loopback(8443)]);
    }

    #[test]
    fn every_problem_is_named_at_once() {
        let text = "pop = \"Pop 1\"\n[upstream]\nurls = [\"https://origin:7443\"]\nrequests_max = 0\n\
                    [ops]\nbind = \"127.0.0.1:8080\"\n[limits]\nconnections_max = 0\n";
        let problems = parse::<Config>(text).unwrap_err();
        let named: Vec<_> = problems.iter().map(|p| (p.line, p.problem.key.as_str())).collect();
        assert_eq!(
            named,
            [
                (Some(1), "pop"),
                (Some(6), "ops.bind"),
                (None, "upstream.ca"),
                (Some(4), "upstream.requests_max"),
                (Some(8), "limits.connections_max")
            ]
        );
    }

    #[test]
    fn the_disk_cache_is_off_unless_it_has_a_folder() {
        let with = |keys: &str| parse::<Config>(&format!("{LEAST}[disk_cache]\n{keys}"));
        assert_eq!(with("").unwrap().disk_cache.dir, None);
        assert_eq!(with("dir = \"data/cache\"").unwrap().disk_cache.dir, Some("data/cache".into()));
        let problems = with("dir = \"\"\nbytes_max = 1\nwrite_bytes_per_s_max = 0\n").unwrap_err();
        let named: Vec<_> = problems.iter().map(|p| (p.line, p.problem.key.as_str())).collect();
        assert_eq!(
            named,
            [
                (Some(5), "disk_cache.dir"),
                (Some(6), "disk_cache.bytes_max"),
                (Some(7), "disk_cache.write_bytes_per_s_max")
            ]
        );
        assert!(with("size = 1").is_err(), "no unknown keys");
    }

    #[test]
    fn upstream_urls() {
        for (url, port) in [
            ("https://origin.example:7443", Some(7443)),
            ("https://origin.example/", Some(443)),
            ("http://127.0.0.1", Some(80)),
            ("https://[::1]:7443", Some(7443)),
            ("https://origin.example/live", None),
            ("https://user@origin.example", None),
            ("ftp://origin.example", None),
            ("origin.example:7443", None),
            ("", None),
        ] {
            let parsed = UpstreamUrl::try_from(url.to_owned());
            assert_eq!(parsed.ok().map(|url| url.port), port, "{url}");
        }
    }
}
