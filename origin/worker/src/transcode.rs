//! One run of a ladder: decode once, hand every picture to every rung, and sound to the one audio track.
//!
//! Invariants: rungs see the same pictures in the same order, so their IDRs fall on the same frames; a rung or the
//! audio track that fails goes silent with a log line and takes nothing else along. Queues between decoder and rungs
//! hold [`lane::QUEUE_PICTURES`]; when they are full the decoder waits, then stdin, then the parent's own bounded queue.

mod audio;
mod lane;
mod rung;
#[cfg(test)]
mod tests;
mod thinning;
mod video;

use std::sync::Arc;

use crate::child::Outlet;
use crate::complaint;
use crate::protocol::{AudioFrame, Totals, TranscodeJob, VideoSample};

/// Most rungs of a ladder.
const RUNGS_MAX: usize = 16;
/// Most threads a job may ask for.
const THREADS_MAX: u32 = 64;

/// Times beyond this are nonsense, and sums of a few of them must not overflow: 400,000 years of ticks.
const TICKS_MAX: u64 = 1 << 60;

/// A run of [`TranscodeJob`].
#[derive(Debug)]
pub(crate) struct Transcoder {
    video: Option<video::Video>,
    audio: Option<audio::Audio>,
    totals: Totals,
}

impl Transcoder {
    /// Starts the run. What cannot be opened is logged and stays silent: the parent hears nothing of that track.
    pub(crate) fn start(job: &TranscodeJob, outlet: &Arc<Outlet>) -> Self {
        let video = checked(job).and_then(|job| video::Video::start(job, outlet).map_err(|e| e.to_string()));
        let video = video.map_err(|why| complaint::line(&format_args!("video cannot start: {why}"))).ok();
        let audio = job.audio.as_ref().map(|audio| audio::Audio::start(audio, outlet));
        let audio = audio.transpose();
        let audio = audio.map_err(|why| complaint::line(&format_args!("audio cannot start: {why}"))).ok();
        Self { video, audio: audio.flatten(), totals: Totals::default() }
    }

    /// One video sample. Blocks while the rungs are behind.
    pub(crate) fn video(&mut self, sample: &VideoSample) {
        self.totals.video_in += 1;
        match &mut self.video {
            Some(video) if plausible(sample.dts) && plausible(sample.pts) => {
                video.push(sample, &mut self.totals);
            }
            _ => self.totals.video_dropped += 1,
        }
    }

    /// One audio access unit.
    pub(crate) fn audio(&mut self, frame: &AudioFrame) {
        self.totals.audio_in += 1;
        match &mut self.audio {
            Some(audio) if plausible(frame.pts) => audio.push(frame, &mut self.totals),
            _ => self.totals.audio_dropped += 1,
        }
    }

    /// Brings out everything still inside and ends the run.
    pub(crate) fn finish(mut self) -> Totals {
        if let Some(video) = self.video.take() {
            video.finish(&mut self.totals);
        }
        if let Some(audio) = self.audio.take() {
            audio.finish(&mut self.totals);
        }
        self.totals
    }
}

fn plausible(ticks: i64) -> bool {
    ticks.unsigned_abs() < TICKS_MAX
}

fn checked(job: &TranscodeJob) -> Result<&TranscodeJob, String> {
    if job.rungs.is_empty() || job.rungs.len() > RUNGS_MAX {
        return Err(format!("{} rungs, 1 to {RUNGS_MAX} allowed", job.rungs.len()));
    }
    if !(1..=THREADS_MAX).contains(&job.threads) {
        return Err(format!("{} threads, 1 to {THREADS_MAX} allowed", job.threads));
    }
    let rate = job.video.frame_rate;
    if rate.num == 0 || rate.den == 0 {
        return Err(format!("frame rate {}/{}", rate.num, rate.den));
    }
    for rung in &job.rungs {
        let even = |side: u32| (16..=8192).contains(&side) && side.is_multiple_of(2);
        if !even(rung.width) || !even(rung.height) {
            return Err(format!(
                "rung {}: {}x{} is not an even picture size",
                rung.id, rung.width, rung.height
            ));
        }
        if rung.bitrate_bps == 0 || rung.max_frame_rate == 0 {
            return Err(format!("rung {}: bit rate and frame rate cap must be positive", rung.id));
        }
    }
    Ok(job)
}
