//! The origin's configuration file: keys, defaults and what is allowed. The commented reference is configs/origin.toml.
//!
//! Invariant: a value of these types that passed `validate` can be served with, as far as a file alone can tell.

mod channels;
mod playback;
mod stats;
#[cfg(test)]
mod tests;

pub(crate) use channels::{ChannelConfig, ChannelType, ProfileConfig, SourceConfig};
pub(crate) use playback::{IssuerAlgorithm, IssuerConfig, PlaybackConfig};
pub(crate) use stats::StatsConfig;

use serde::Deserialize;
use sigma_http::addresses::clashes;
use sigma_http::admission::AddressRange;
use sigma_http::config::{Problem, Validate};
use sigma_http::front::FrontConfig;
use sigma_http::listener::{Limits, loopback as loopback_ranges};
use sigma_http::logging::LogConfig;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// The whole file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) data_dir: PathBuf,
    #[serde(default)]
    pub(crate) http: HttpConfig,
    pub(crate) tls: Option<TlsConfig>,
    #[serde(default)]
    pub(crate) ops: OpsConfig,
    #[serde(default)]
    pub(crate) rtmp: RtmpConfig,
    #[serde(default)]
    pub(crate) live: LiveConfig,
    #[serde(default)]
    pub(crate) transcode: TranscodeConfig,
    #[serde(default)]
    pub(crate) limits: LimitsConfig,
    #[serde(default)]
    pub(crate) playback: PlaybackConfig,
    #[serde(default)]
    pub(crate) stats: StatsConfig,
    #[serde(default)]
    pub(crate) log: LogConfig,
    #[serde(default)]
    pub(crate) profiles: Vec<ProfileConfig>,
    #[serde(default)]
    pub(crate) channels: Vec<ChannelConfig>,
}

/// What a running origin can change; see `app::Running::apply`.
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
pub(crate) type TlsConfig = sigma_http::front::TlsConfig<7443>;

impl Config {
    /// What is listened on for viewers.
    pub(crate) fn front(&self) -> FrontConfig<'_> {
        FrontConfig::new(&self.http.bind, self.tls.as_ref())
    }
}

/// `[ops]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct OpsConfig {
    pub(crate) bind: SocketAddr,
}

/// `[rtmp]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RtmpConfig {
    pub(crate) bind: Vec<SocketAddr>,
    pub(crate) app: String,
    pub(crate) connections_max: usize,
    pub(crate) publish_timeout_ms: u64,
    pub(crate) idle_timeout_ms: u64,
}

/// `[live]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LiveConfig {
    pub(crate) segment_ms: u32,
    pub(crate) part_target_ms: u32,
    pub(crate) window_ms: u32,
    pub(crate) window_bytes_max: u64,
    pub(crate) dvr_bytes_max: u64,
    pub(crate) held_requests_max: usize,
}

/// `[transcode]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TranscodeConfig {
    pub(crate) threads: u32,
    pub(crate) audio_bitrate_bps: u32,
    pub(crate) queue_samples_max: usize,
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
    pub(crate) header_timeout_ms: u64,
    pub(crate) idle_timeout_ms: u64,
    pub(crate) drain_timeout_ms: u64,
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self { bind: vec![loopback(7070)] }
    }
}

impl Default for OpsConfig {
    fn default() -> Self {
        Self { bind: loopback(7071) }
    }
}

impl Default for RtmpConfig {
    fn default() -> Self {
        Self {
            bind: vec![loopback(1935)],
            app: "live".into(),
            connections_max: 1000,
            publish_timeout_ms: 10_000,
            idle_timeout_ms: 5_000,
        }
    }
}

impl Default for LiveConfig {
    fn default() -> Self {
        Self {
            segment_ms: 2000,
            part_target_ms: 334,
            window_ms: 60_000,
            window_bytes_max: 256 << 20,
            dvr_bytes_max: 64 << 30,
            held_requests_max: 100_000,
        }
    }
}

impl Default for TranscodeConfig {
    fn default() -> Self {
        Self { threads: 2, audio_bitrate_bps: 128_000, queue_samples_max: 90 }
    }
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            connections_max: 50_000,
            connections_per_ip_max: 2_000,
            connections_per_ip_exempt: loopback_ranges(),
            read_bytes_per_s_min: 16 * 1024,
            held_bytes_max: 512 * 1024 * 1024,
            h2_streams_max: 5000,
            quic_handshakes_max: 256,
            header_timeout_ms: 10_000,
            idle_timeout_ms: 600_000,
            drain_timeout_ms: 10_000,
        }
    }
}

impl LimitsConfig {
    /// What the listeners keep to.
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
            idle_timeout: Duration::from_millis(self.idle_timeout_ms),
            drain_timeout: Duration::from_millis(self.drain_timeout_ms),
            ..Limits::default()
        }
    }
}

/// Complaints about numbers outside their range.
struct Ranges(Vec<Problem>);

impl Ranges {
    fn check(&mut self, key: &str, value: u64, range: std::ops::RangeInclusive<u64>, unit: &str) {
        if !range.contains(&value) {
            let allowed = format!("{} to {} {unit}", range.start(), range.end());
            self.0.push(Problem::new(key, value, allowed));
        }
    }
}

impl Validate for Config {
    fn validate(&self) -> Vec<Problem> {
        let mut ranges = Ranges(Vec::new());
        let (rtmp, live, limits) = (&self.rtmp, &self.live, &self.limits);
        ranges.check("rtmp.connections_max", rtmp.connections_max as u64, 1..=100_000, "connections");
        ranges.check("rtmp.publish_timeout_ms", rtmp.publish_timeout_ms, 500..=60_000, "milliseconds");
        ranges.check("rtmp.idle_timeout_ms", rtmp.idle_timeout_ms, 1000..=600_000, "milliseconds");
        ranges.check("live.segment_ms", live.segment_ms.into(), 1000..=3000, "milliseconds");
        ranges.check("live.part_target_ms", live.part_target_ms.into(), 100..=2000, "milliseconds");
        ranges.check("live.window_ms", live.window_ms.into(), 12_000..=600_000, "milliseconds");
        ranges.check("live.window_bytes_max", live.window_bytes_max, 1 << 20..=1 << 40, "bytes");
        ranges.check("live.dvr_bytes_max", live.dvr_bytes_max, 1 << 26..=1 << 50, "bytes");
        ranges.check("live.held_requests_max", live.held_requests_max as u64, 1..=10_000_000, "requests");
        ranges.check("transcode.threads", self.transcode.threads.into(), 1..=64, "threads");
        let audio = u64::from(self.transcode.audio_bitrate_bps);
        ranges.check("transcode.audio_bitrate_bps", audio, 32_000..=512_000, "bits per second");
        ranges.check(
            "transcode.queue_samples_max",
            self.transcode.queue_samples_max as u64,
            16..=4096,
            "samples",
        );
        ranges.check("limits.connections_max", limits.connections_max as u64, 1..=10_000_000, "connections");
        let per_ip = limits.connections_per_ip_max as u64;
        ranges.check("limits.connections_per_ip_max", per_ip, 1..=10_000_000, "connections");
        let rate = u64::from(limits.read_bytes_per_s_min);
        ranges.check("limits.read_bytes_per_s_min", rate, 1..=1 << 30, "bytes per second");
        ranges.check("limits.held_bytes_max", limits.held_bytes_max, 1 << 20..=1 << 50, "bytes");
        ranges.check("limits.h2_streams_max", limits.h2_streams_max.into(), 1..=100_000, "streams");
        let handshakes = limits.quic_handshakes_max as u64;
        ranges.check("limits.quic_handshakes_max", handshakes, 0..=1 << 20, "handshakes");
        ranges.check("limits.header_timeout_ms", limits.header_timeout_ms, 100..=60_000, "milliseconds");
        ranges.check("limits.idle_timeout_ms", limits.idle_timeout_ms, 12_000..=3_600_000, "milliseconds");
        ranges.check("limits.drain_timeout_ms", limits.drain_timeout_ms, 0..=600_000, "milliseconds");
        self.stats.check(&mut ranges);
        let mut problems = ranges.0;
        if let Some(tls) = &self.tls {
            problems.extend(tls.source().problems(self.http.bind.len()));
        }
        let tls_binds = self.tls.as_ref().map_or(&[][..], |tls| &tls.bind);
        let ops = std::slice::from_ref(&self.ops.bind);
        problems.extend(clashes(&[
            ("http.bind", &self.http.bind),
            ("tls.bind", tls_binds),
            ("ops.bind", ops),
            ("rtmp.bind", &rtmp.bind),
        ]));
        problems.extend(self.log.problems());
        if rtmp.app.is_empty() || rtmp.app.len() > 64 {
            problems.push(Problem::new("rtmp.app", &rtmp.app, "1 to 64 characters"));
        }
        problems.extend(playback::problems(self));
        problems.extend(self.stats.problems());
        problems.extend(channels::problems(self));
        problems
    }
}
