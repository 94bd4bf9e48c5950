//! The built-in test source: a media worker's drawn and encoded picture, published like anybody else's.

use super::Ingest;
use crate::channel::Channel;
use crate::config::SourceConfig;
use crate::transcode::process::{Worker, WorkerEvent};
use sigma_http::drain::Drain;
use sigma_media::codec::{AacConfig, AccessUnit, AvcConfig};
use sigma_worker::protocol::{FromWorker, Job, Rational, TestSourceJob, ToWorker};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Publishes to `channel` until the origin drains.
pub(crate) async fn run(channel: Arc<Channel>, config: SourceConfig, drain: Drain) {
    let mut worker = Worker::start(format!("test-source {}", channel.id()), 256);
    let mut publisher: Option<mpsc::Sender<Ingest>> = None;
    loop {
        let event = tokio::select! {
            event = worker.event() => event,
            () = drain.started() => None,
        };
        match event {
            None => return,
            Some(WorkerEvent::Ready) => {
                publisher = connect(&channel).await;
                let job = Job::TestSource(job(&config, &channel, u64::from(channel.segment_ms())));
                // A queue that was just emptied has room; if not, the worker is replaced anyway.
                let _ = worker.tell(ToWorker::Start(Box::new(job)));
            }
            Some(WorkerEvent::Lost { reason, pause }) => {
                publisher = None;
                tracing::warn!(channel = %channel.id(), ?pause, "test source {reason}; starting it again");
            }
            Some(WorkerEvent::Said(message)) => {
                let Some(sender) = &publisher else { continue };
                match translate(message) {
                    Ok(Some(event)) => {
                        if sender.send(event).await.is_err() {
                            publisher = None;
                        }
                    }
                    Ok(None) => {}
                    Err(error) => tracing::error!(channel = %channel.id(), "test source: {error}"),
                }
            }
        }
    }
}

/// The channel may still be held by a publisher, who was there first.
async fn connect(channel: &Arc<Channel>) -> Option<mpsc::Sender<Ingest>> {
    loop {
        match channel.publish("test source".into()) {
            Ok(sender) => return Some(sender),
            Err(super::PublishRefused::Busy) => tokio::time::sleep(Duration::from_secs(1)).await,
            Err(_) => return None,
        }
    }
}

fn job(config: &SourceConfig, channel: &Channel, segment_ms: u64) -> TestSourceJob {
    TestSourceJob {
        width: (config.height * 16 / 9).next_multiple_of(2),
        height: config.height.next_multiple_of(2),
        frame_rate: Rational { num: config.frame_rate, den: 1 },
        video_bitrate_bps: config.video_bitrate_bps,
        audio_bitrate_bps: config.audio_bitrate_bps,
        gop_frames: u32::try_from(u64::from(config.frame_rate) * segment_ms / 1000)
            .unwrap_or(u32::MAX)
            .max(1),
        preset: config.preset.clone(),
        label: channel.id().to_string(),
        real_time: true,
    }
}

fn translate(message: FromWorker) -> Result<Option<Ingest>, sigma_media::codec::CodecError> {
    Ok(Some(match message {
        FromWorker::VideoConfig(config) => Ingest::VideoConfig(Box::new(AvcConfig::parse(&config.avcc)?)),
        FromWorker::AudioConfig(asc) => Ingest::AudioConfig(AacConfig::parse(asc)?),
        FromWorker::Video(frame) => Ingest::Video {
            timestamp_ms: to_ms(frame.dts),
            composition_ms: i32::try_from((frame.pts - frame.dts) / 90).unwrap_or(0),
            unit: AccessUnit { data: frame.payload, idr: frame.sync },
        },
        FromWorker::Audio(frame) => Ingest::Audio { timestamp_ms: to_ms(frame.pts), data: frame.payload },
        FromWorker::Flushed(_) => return Ok(None),
    }))
}

/// 32-bit milliseconds that wrap, like every publisher's.
fn to_ms(ticks: i64) -> u32 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "they wrap")]
    let ms = ticks.div_euclid(90) as u32;
    ms
}
