//! `[[profiles]]` and `[[channels]]`: the ladder and what is published.

use super::playback::ChannelPlayback;
use super::{Config, Ranges};
use serde::Deserialize;
use sigma_http::config::Problem;
use sigma_shared::id::{ChannelId, RenditionId};
use sigma_shared::mode::Mode;
use std::collections::HashSet;
use std::fmt;

/// `[[profiles]]`: one rung of the ladder.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProfileConfig {
    pub(crate) id: String,
    pub(crate) height: u32,
    pub(crate) bitrate_bps: u32,
    #[serde(default = "default_max_frame_rate")]
    pub(crate) max_frame_rate: u32,
    #[serde(default = "default_preset")]
    pub(crate) preset: String,
}

/// What is done with a publisher's streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ChannelType {
    Forward,
    Hybrid,
    Transcode,
}

impl fmt::Display for ChannelType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Forward => "forward",
            Self::Hybrid => "hybrid",
            Self::Transcode => "transcode",
        })
    }
}

/// The latency mode of viewers who ask for none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LatencyMode {
    #[default]
    UltraLowLatency,
    LowLatency,
    Normal,
}

impl From<LatencyMode> for Mode {
    fn from(mode: LatencyMode) -> Self {
        match mode {
            LatencyMode::UltraLowLatency => Self::Ultra,
            LatencyMode::LowLatency => Self::Low,
            LatencyMode::Normal => Self::Normal,
        }
    }
}

/// `[channels.source]`: the built-in test source as this channel's publisher.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct SourceConfig {
    pub(crate) height: u32,
    pub(crate) frame_rate: u32,
    pub(crate) video_bitrate_bps: u32,
    pub(crate) audio_bitrate_bps: u32,
    pub(crate) preset: String,
}

/// `[[channels]]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ChannelConfig {
    pub(crate) id: String,
    #[serde(rename = "type")]
    pub(crate) kind: ChannelType,
    pub(crate) key: String,
    #[serde(default)]
    pub(crate) profiles: Vec<String>,
    #[serde(default = "default_stop_timeout_s")]
    pub(crate) stop_timeout_s: u64,
    #[serde(default)]
    pub(crate) mode: LatencyMode,
    #[serde(default)]
    pub(crate) dvr_window_s: u64,
    #[serde(default)]
    pub(crate) playback: ChannelPlayback,
    pub(crate) segment_ms: Option<u32>,
    pub(crate) part_target_ms: Option<u32>,
    pub(crate) source: Option<SourceConfig>,
}

fn default_max_frame_rate() -> u32 {
    60
}
fn default_preset() -> String {
    "superfast".into()
}
fn default_stop_timeout_s() -> u64 {
    30
}

impl Default for SourceConfig {
    fn default() -> Self {
        Self {
            height: 720,
            frame_rate: 30,
            video_bitrate_bps: 2_500_000,
            audio_bitrate_bps: 128_000,
            preset: "superfast".into(),
        }
    }
}

const PRESETS: [&str; 6] = ["ultrafast", "superfast", "veryfast", "faster", "fast", "medium"];
/// Ids of renditions that are not rungs.
const RESERVED: [&str; 2] = [crate::channel::SOURCE_ID, crate::channel::AUDIO_ID];

/// Everything that is wrong with profiles and channels.
pub(super) fn problems(config: &Config) -> Vec<Problem> {
    let mut ranges = Ranges(Vec::new());
    let mut profiles = HashSet::new();
    for (n, profile) in config.profiles.iter().enumerate() {
        let key = |name: &str| format!("profiles[{n}].{name}");
        if profile.id.parse::<RenditionId>().is_err() || RESERVED.contains(&profile.id.as_str()) {
            let allowed = format!("1 to 64 of a-z, 0-9, _ and -, other than {}", RESERVED.join(" and "));
            ranges.0.push(Problem::new(key("id"), &profile.id, allowed));
        }
        if !profiles.insert(profile.id.as_str()) {
            ranges.0.push(Problem::new(key("id"), &profile.id, "an id that no other profile has"));
        }
        ranges.check(&key("height"), profile.height.into(), 90..=4320, "pixels");
        ranges.check(
            &key("bitrate_bps"),
            profile.bitrate_bps.into(),
            50_000..=100_000_000,
            "bits per second",
        );
        ranges.check(&key("max_frame_rate"), profile.max_frame_rate.into(), 1..=240, "frames per second");
        preset(&mut ranges.0, key("preset"), &profile.preset);
    }
    let (mut ids, mut keys) = (HashSet::new(), HashSet::new());
    for (n, channel) in config.channels.iter().enumerate() {
        let key = |name: &str| format!("channels[{n}].{name}");
        if channel.id.parse::<ChannelId>().is_err() {
            ranges.0.push(Problem::new(key("id"), &channel.id, "1 to 64 of a-z, 0-9, _ and -"));
        }
        if !ids.insert(channel.id.as_str()) {
            ranges.0.push(Problem::new(key("id"), &channel.id, "an id that no other channel has"));
        }
        let usable = channel.key.len() >= 8 && channel.key.len() <= 128;
        let usable =
            usable && channel.key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        // A stream key is a secret: complaints do not repeat it.
        if !usable {
            ranges.0.push(Problem::new(key("key"), "(hidden)", "8 to 128 letters, digits, _ and -"));
        }
        if !keys.insert(channel.key.as_str()) {
            ranges.0.push(Problem::new(key("key"), "(hidden)", "a stream key that no other channel has"));
        }
        ranges.check(&key("stop_timeout_s"), channel.stop_timeout_s, 0..=86_400, "seconds");
        if channel.dvr_window_s > 0 {
            ranges.check(&key("dvr_window_s"), channel.dvr_window_s, 60..=43_200, "seconds, or 0 for none");
        }
        if let Some(ms) = channel.segment_ms {
            ranges.check(&key("segment_ms"), ms.into(), 1000..=3000, "milliseconds");
        }
        if let Some(ms) = channel.part_target_ms {
            ranges.check(&key("part_target_ms"), ms.into(), 100..=2000, "milliseconds");
        }
        ladder(&mut ranges.0, &key("profiles"), channel, &profiles);
        if let Some(source) = &channel.source {
            self::source(&mut ranges, n, source);
        }
    }
    ranges.0
}

fn ladder(problems: &mut Vec<Problem>, key: &str, channel: &ChannelConfig, profiles: &HashSet<&str>) {
    for id in &channel.profiles {
        if !profiles.contains(id.as_str()) {
            problems.push(Problem::new(key, id, "the id of one of [[profiles]]"));
        }
    }
    let rungs = channel.profiles.len();
    let wrong = match channel.kind {
        ChannelType::Forward => (rungs > 0).then_some("no profiles: type forward transcodes nothing"),
        ChannelType::Transcode => {
            (rungs == 0).then_some("one or more profiles: type transcode serves nothing else")
        }
        ChannelType::Hybrid => None,
    };
    if let Some(allowed) = wrong {
        problems.push(Problem::new(key, channel.profiles.join(", "), allowed));
    }
    if rungs > 16 {
        problems.push(Problem::new(key, rungs, "at most 16 profiles"));
    }
}

fn source(ranges: &mut Ranges, n: usize, source: &SourceConfig) {
    let key = |name: &str| format!("channels[{n}].source.{name}");
    ranges.check(&key("height"), source.height.into(), 180..=2160, "pixels");
    ranges.check(&key("frame_rate"), source.frame_rate.into(), 10..=60, "frames per second");
    let video = u64::from(source.video_bitrate_bps);
    ranges.check(&key("video_bitrate_bps"), video, 100_000..=50_000_000, "bits per second");
    ranges.check(
        &key("audio_bitrate_bps"),
        source.audio_bitrate_bps.into(),
        32_000..=512_000,
        "bits per second",
    );
    preset(&mut ranges.0, key("preset"), &source.preset);
}

fn preset(problems: &mut Vec<Problem>, key: String, value: &str) {
    if !PRESETS.contains(&value) {
        problems.push(Problem::new(key, value, PRESETS.join(", ")));
    }
}
