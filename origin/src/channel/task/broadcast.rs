//! A broadcast session: the stream, what is shown of it, and the words it has with its media worker.

use crate::channel::ChannelSpec;
use crate::config::ProfileConfig;
use crate::transcode::ladder::{self, JobParts};
use sigma_media::codec::{AacConfig, AvcConfig, FrameRate};
use sigma_media::fmp4::{Fmp4Error, TrackConfig};
use sigma_media::snapshot::RenditionSnapshot;
use sigma_media::stream::{MultivariantSnapshot, Stream, WorkerInput, WorkerPicture, WorkerSample};
use sigma_shared::id::RenditionId;
use sigma_worker::protocol::{self, FromWorker, ToWorker};
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::watch;

/// A broadcast session.
pub(super) struct Broadcast {
    pub(super) stream: Stream,
    pub(super) rungs: Vec<ProfileConfig>,
    pub(super) multivariant: Option<Arc<MultivariantSnapshot>>,
    pub(super) renditions: HashMap<RenditionId, watch::Sender<Arc<RenditionSnapshot>>>,
    /// It has been said that it began.
    pub(super) is_told: bool,
}

impl Broadcast {
    /// Around a stream of which nobody has seen anything yet.
    pub(super) fn new(stream: Stream, rungs: Vec<ProfileConfig>) -> Self {
        Self { stream, rungs, multivariant: None, renditions: HashMap::new(), is_told: false }
    }

    /// What the worker is told.
    pub(super) fn to_worker(&self, spec: &ChannelSpec, input: WorkerInput) -> ToWorker {
        match input {
            WorkerInput::Start { video, audio, frame_rate } => {
                let parts = JobParts {
                    video: &video,
                    audio: audio.as_ref(),
                    frame_rate,
                    rungs: &self.rungs,
                    threads: spec.transcode.threads,
                    audio_bitrate_bps: spec.transcode.audio_bitrate_bps,
                };
                ToWorker::Start(Box::new(ladder::job(&parts)))
            }
            WorkerInput::Sample(WorkerSample::Video { dts, pts, sync, segment_start, data }) => {
                ToWorker::Video(protocol::VideoSample { dts, pts, sync, segment_start, payload: data })
            }
            WorkerInput::Sample(WorkerSample::Audio { pts, data }) => {
                ToWorker::Audio(protocol::AudioFrame { pts, payload: data })
            }
            WorkerInput::Flush => ToWorker::Flush,
        }
    }

    /// Takes what the worker delivers.
    pub(super) fn take_from_worker(
        &mut self,
        message: FromWorker,
        now: u64,
        channel: &sigma_shared::id::ChannelId,
    ) -> Result<(), Fmp4Error> {
        let refused = |error| tracing::error!(%channel, "media worker delivers what cannot be used: {error}");
        match message {
            FromWorker::VideoConfig(config) => match AvcConfig::parse(&config.avcc) {
                Ok(avc) => {
                    let rate = FrameRate::new(config.frame_rate.num, config.frame_rate.den);
                    let track = Some(usize::from(config.track));
                    self.stream.configure_worker_track(track, TrackConfig::Video(avc), rate)
                }
                Err(error) => {
                    refused(error);
                    Ok(())
                }
            },
            FromWorker::AudioConfig(asc) => match AacConfig::parse(asc) {
                Ok(aac) => self.stream.configure_worker_track(None, TrackConfig::Audio(aac), None),
                Err(error) => {
                    refused(error);
                    Ok(())
                }
            },
            FromWorker::Video(frame) => {
                let picture = WorkerPicture {
                    pts: frame.pts,
                    sync: frame.sync,
                    segment_start: frame.segment_start,
                    data: frame.payload,
                };
                self.stream.push_worker_video(usize::from(frame.track), picture, now)
            }
            FromWorker::Audio(frame) => self.stream.push_worker_audio(frame.pts, frame.payload, now),
            FromWorker::Flushed(totals) => {
                tracing::debug!(%channel, ?totals, "media worker has delivered everything of the run");
                self.stream.worker_flushed(now)
            }
        }
    }
}
