//! Which rungs a channel gets from a publisher's picture, and the job that makes them.
//!
//! Pure. A rung is never larger than the source: scaling up costs and shows nothing.
#![deny(clippy::disallowed_methods)]

use crate::config::{ChannelType, ProfileConfig};
use sigma_media::codec::{AacConfig, AvcConfig, FrameRate};
use sigma_worker::protocol::{AudioJob, Job, Rational, Rung, TranscodeJob, VideoInput};

/// The profiles of `ladder` that fit a picture of `source_height`, the highest first. A passed-through source takes the
/// place of a rung of its own height; without one, the smallest profile is kept whatever the source is.
pub(crate) fn fitting(ladder: &[ProfileConfig], kind: ChannelType, source_height: u32) -> Vec<ProfileConfig> {
    let mut fitting: Vec<ProfileConfig> = ladder
        .iter()
        .filter(|profile| match kind {
            ChannelType::Forward => false,
            ChannelType::Hybrid => profile.height < source_height,
            ChannelType::Transcode => profile.height <= source_height,
        })
        .cloned()
        .collect();
    if fitting.is_empty() && kind == ChannelType::Transcode {
        fitting.extend(ladder.iter().min_by_key(|profile| profile.height).cloned());
    }
    fitting.sort_by_key(|profile| std::cmp::Reverse(profile.height));
    fitting
}

/// What one worker is asked to do.
pub(crate) struct JobParts<'a> {
    pub(crate) video: &'a AvcConfig,
    pub(crate) audio: Option<&'a AacConfig>,
    pub(crate) frame_rate: Option<FrameRate>,
    pub(crate) rungs: &'a [ProfileConfig],
    pub(crate) threads: u32,
    pub(crate) audio_bitrate_bps: u32,
}

/// The job for a ladder.
pub(crate) fn job(parts: &JobParts<'_>) -> Job {
    let video = parts.video;
    let rate = parts.frame_rate.unwrap_or(FrameRate { num: 30, den: 1 });
    let rung = |profile: &ProfileConfig| {
        let height = even(profile.height.min(video.height));
        let width =
            even((u64::from(height) * u64::from(video.width) / u64::from(video.height.max(1))) as u32);
        Rung {
            id: profile.id.clone(),
            width,
            height,
            bitrate_bps: profile.bitrate_bps,
            max_frame_rate: profile.max_frame_rate,
            preset: profile.preset.clone(),
        }
    };
    Job::Transcode(TranscodeJob {
        video: VideoInput {
            avcc: video.record.to_vec(),
            width: video.width,
            height: video.height,
            frame_rate: Rational { num: rate.num, den: rate.den },
        },
        audio: parts.audio.map(|aac| AudioJob {
            asc: aac.asc.to_vec(),
            bitrate_bps: parts.audio_bitrate_bps,
            sample_rate: if aac.sample_rate == 44_100 { 44_100 } else { 48_000 },
            channels: u32::from(aac.channels).clamp(1, 2),
        }),
        rungs: parts.rungs.iter().map(rung).collect(),
        threads: parts.threads,
    })
}

/// 4:2:0 pictures have even sides.
fn even(pixels: u32) -> u32 {
    pixels.next_multiple_of(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(height: u32) -> ProfileConfig {
        ProfileConfig {
            id: format!("v{height}"),
            height,
            bitrate_bps: 1_000_000,
            max_frame_rate: 60,
            preset: "superfast".into(),
        }
    }

    fn heights(kind: ChannelType, source: u32) -> Vec<u32> {
        let ladder = [profile(360), profile(1080), profile(480), profile(720)];
        fitting(&ladder, kind, source).iter().map(|profile| profile.height).collect()
    }

    #[test]
    fn rungs_are_never_larger_than_the_source() {
        assert_eq!(heights(ChannelType::Hybrid, 720), [480, 360]);
        assert_eq!(heights(ChannelType::Hybrid, 300), [0u32; 0]);
        assert_eq!(heights(ChannelType::Transcode, 720), [720, 480, 360]);
        assert_eq!(heights(ChannelType::Transcode, 240), [360]);
        assert_eq!(heights(ChannelType::Forward, 1080), [0u32; 0]);
    }
}
