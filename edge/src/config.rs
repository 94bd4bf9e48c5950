//! The edge's configuration file: keys, defaults and what is allowed. The commented reference is configs/edge.toml.
//!
//! Invariant: a value of these types that passed `validate` can be served with, as far as a file alone can tell.

use http::uri::{Authority, Scheme};
use rustls::pki_types::ServerName;
use serde::Deserialize;
use sigma_http::acme::AcmeConfig;
use sigma_http::certificate::CertificateSource;
use sigma_http::config::{Problem, Validate};
use sigma_http::listener::Limits;
use sigma_http::logging::LogConfig;
use sigma_shared::id::PopId;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
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
    pub(crate) limits: LimitsConfig,
    #[serde(default)]
    pub(crate) log: LogConfig,
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
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TlsConfig {
    #[serde(default = "default_tls_bind")]
    pub(crate) bind: Vec<SocketAddr>,
    pub(crate) certificate: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
    pub(crate) acme: Option<AcmeConfig>,
}

impl TlsConfig {
    pub(crate) fn source(&self) -> CertificateSource<'_> {
        let (certificate, key) = (self.certificate.as_deref(), self.key.as_deref());
        CertificateSource { certificate, key, acme: self.acme.as_ref() }
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
    pub(crate) url: UpstreamUrl,
    pub(crate) ca: Option<PathBuf>,
    #[serde(default = "default_connect_timeout_ms")]
    pub(crate) connect_timeout_ms: u64,
    #[serde(default = "default_response_timeout_ms")]
    pub(crate) response_timeout_ms: u64,
    #[serde(default = "default_requests_max")]
    pub(crate) requests_max: usize,
    #[serde(default = "default_ping_interval_ms")]
    pub(crate) ping_interval_ms: u64,
    #[serde(default = "default_ping_timeout_ms")]
    pub(crate) ping_timeout_ms: u64,
    #[serde(default = "default_reconnect_ms_max")]
    pub(crate) reconnect_ms_max: u64,
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

/// `[limits]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LimitsConfig {
    pub(crate) connections_max: usize,
    pub(crate) h2_streams_max: u32,
    pub(crate) waiters_per_object_max: usize,
    pub(crate) waiters_max: usize,
    pub(crate) header_timeout_ms: u64,
    pub(crate) idle_timeout_ms: u64,
    pub(crate) drain_timeout_ms: u64,
}

fn default_tls_bind() -> Vec<SocketAddr> {
    vec![loopback(8443)]
}
fn default_connect_timeout_ms() -> u64 {
    1_000
}
fn default_response_timeout_ms() -> u64 {
    12_000
}
fn default_requests_max() -> usize {
    4_096
}
fn default_ping_interval_ms() -> u64 {
    2_000
}
fn default_ping_timeout_ms() -> u64 {
    2_500
}
fn default_reconnect_ms_max() -> u64 {
    2_000
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

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            connections_max: 20_000,
            h2_streams_max: 128,
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

    pub(crate) fn ping_interval(&self) -> Duration {
        Duration::from_millis(self.ping_interval_ms)
    }

    pub(crate) fn ping_timeout(&self) -> Duration {
        Duration::from_millis(self.ping_timeout_ms)
    }
}

impl LimitsConfig {
    /// As the listeners take them.
    pub(crate) fn listener(&self) -> Limits {
        Limits {
            connections_max: self.connections_max,
            h2_streams_max: self.h2_streams_max,
            header_read_timeout: Duration::from_millis(self.header_timeout_ms),
            handshake_timeout: Duration::from_millis(self.header_timeout_ms),
            idle_timeout: Duration::from_millis(self.idle_timeout_ms),
            drain_timeout: Duration::from_millis(self.drain_timeout_ms),
            ..Limits::default()
        }
    }
}

/// `upstream.url`, taken apart.
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
        let tls_listeners = self.tls.as_ref().map_or(0, |tls| tls.bind.len());
        if self.http.bind.len() + tls_listeners == 0 {
            let allowed = "at least one address here or in tls.bind: nobody could connect";
            found.push(Problem::new("http.bind", "[]", allowed));
        }
        if let Some(tls) = &self.tls {
            found.extend(tls.source().problems(self.http.bind.len()));
        }
        found.extend(self.log.problems());
        if self.upstream.url.server_name.is_some() && self.upstream.ca.is_none() {
            let allowed =
                "the PEM file of the CA that signed the upstream's certificate, as upstream.url is https";
            found.push(Problem::new("upstream.ca", "missing", allowed));
        }
        let (upstream, cache, limits) = (&self.upstream, &self.cache, &self.limits);
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        for (key, value, low, high, unit) in [
            ("upstream.connect_timeout_ms", upstream.connect_timeout_ms, 10, 60_000, "milliseconds"),
            ("upstream.response_timeout_ms", upstream.response_timeout_ms, 100, 120_000, "milliseconds"),
            ("upstream.requests_max", count(upstream.requests_max), 1, 1_000_000, "requests"),
            ("upstream.ping_interval_ms", upstream.ping_interval_ms, 100, 60_000, "milliseconds"),
            ("upstream.ping_timeout_ms", upstream.ping_timeout_ms, 100, 60_000, "milliseconds"),
            ("upstream.reconnect_ms_max", upstream.reconnect_ms_max, 50, 60_000, "milliseconds"),
            ("cache.bytes_max", cache.bytes_max, MIB, 1 << 50, "bytes"),
            ("cache.object_bytes_max", cache.object_bytes_max, 64 * 1024, 1 << 30, "bytes"),
            ("cache.fill_bytes_max", cache.fill_bytes_max, cache.object_bytes_max, 1 << 40, "bytes"),
            ("cache.negative_bytes_max", cache.negative_bytes_max, 64 * 1024, 1 << 40, "bytes"),
            ("cache.negative_age_ms_max", cache.negative_age_ms_max, 0, 60_000, "milliseconds"),
            ("limits.connections_max", count(limits.connections_max), 1, 1 << 24, "connections"),
            ("limits.h2_streams_max", limits.h2_streams_max.into(), 1, 100_000, "requests"),
            ("limits.waiters_per_object_max", count(limits.waiters_per_object_max), 1, 1 << 24, "requests"),
            ("limits.waiters_max", count(limits.waiters_max), 1, 1 << 24, "requests"),
            ("limits.header_timeout_ms", limits.header_timeout_ms, 100, 120_000, "milliseconds"),
            ("limits.idle_timeout_ms", limits.idle_timeout_ms, 100, 3_600_000, "milliseconds"),
            ("limits.drain_timeout_ms", limits.drain_timeout_ms, 0, 120_000, "milliseconds"),
        ] {
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

    const LEAST: &str = "pop = \"pop-1\"\n[upstream]\nurl = \"http://127.0.0.1:7070\"\n";

    #[test]
    fn the_reference_is_accepted_and_states_the_defaults() {
        let text = include_str!("../../configs/edge.toml");
        let reference = parse::<Config>(text).unwrap();
        let least = parse::<Config>(LEAST).unwrap();
        let debug = |config: &Config| {
            format!("{:?}{:?}{:?}{:?}", config.http, config.ops, config.cache, config.limits)
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
            ]
        };
        assert_eq!(timeouts(&reference.upstream), timeouts(&least.upstream));
        assert_eq!(reference.tls.unwrap().bind, default_tls_bind());
    }

    #[test]
    fn every_problem_is_named_at_once() {
        let text = "pop = \"Pop 1\"\n[upstream]\nurl = \"https://origin:7443\"\nrequests_max = 0\n\
                    [limits]\nconnections_max = 0\n";
        let problems = parse::<Config>(text).unwrap_err();
        let named: Vec<_> = problems.iter().map(|p| (p.line, p.problem.key.as_str())).collect();
        assert_eq!(
            named,
            [
                (Some(1), "pop"),
                (None, "upstream.ca"),
                (Some(4), "upstream.requests_max"),
                (Some(6), "limits.connections_max")
            ]
        );
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
