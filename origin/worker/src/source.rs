//! The built-in test source: a moving picture and a tone that tell the time.
//!
//! Paced against the monotonic clock: a frame is drawn when it is due, with the wall clock of that moment in it, and
//! leaves as soon as it is encoded. A source that falls behind catches up; one that is [`LATE_MAX`] behind leaves out
//! pictures (their times stay unused), never sound. Times start at 0, in ticks of 1/90000 s.

mod font;
mod picture;
mod tone;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use picture::Picture;
use tone::Tone;

use crate::av::AvError;
use crate::av::aac::{AacEncoder, AudioSettings};
use crate::av::codec::{Colours, VideoSettings};
use crate::av::h264::{H264Encoder, Mark};
use crate::child::Outlet;
use crate::complaint::Complaint;
use crate::protocol::{Rational, TestSourceJob, Totals};

/// Lateness beyond which pictures are left out.
const LATE_MAX: Duration = Duration::from_millis(500);
const TICKS_PER_SECOND: u64 = 90_000;
const SAMPLE_RATE: u32 = 48_000;
const CHANNELS: u32 = 2;

/// Why the test source cannot start: a job that makes no sense, or libav.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error("{width}x{height} is not an even picture size from 160x90 to 8192x8192")]
    Size { width: u32, height: u32 },
    #[error("frame rate, bit rates and GOP length must be positive, the frame rate at most 240")]
    Rate,
    #[error(transparent)]
    Av(#[from] AvError),
}

/// A running test source.
#[derive(Debug)]
pub(crate) struct Source {
    picture: Picture,
    video: H264Encoder,
    audio: AacEncoder,
    tone: Tone,
    frame_rate: Rational,
    gop_frames: u32,
    real_time: bool,
    started: Instant,
    started_unix: Duration,
    /// Index of the next picture.
    next: u64,
    since_idr: u32,
    samples: u64,
    totals: Totals,
    failed: Complaint,
    late: Complaint,
}

impl Source {
    /// Opens both encoders; the first picture is due at once.
    pub(crate) fn start(job: &TestSourceJob, outlet: &Outlet) -> Result<Self, StartError> {
        let job = checked(job)?;
        let (video, video_config) = H264Encoder::open(
            0,
            &VideoSettings {
                width: job.width,
                height: job.height,
                frame_rate: job.frame_rate,
                bitrate_bps: job.video_bitrate_bps,
                preset: &job.preset,
                threads: 1,
                colours: Colours::bt709(),
            },
        )?;
        let (audio, audio_config) = AacEncoder::open(AudioSettings {
            bitrate_bps: job.audio_bitrate_bps,
            sample_rate: SAMPLE_RATE,
            channels: CHANNELS,
        })?;
        outlet.send(&video_config);
        outlet.send(&audio_config);
        let started_unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self {
            picture: Picture::new(job.width, job.height, &job.label)?,
            video,
            audio,
            tone: Tone::new(SAMPLE_RATE, started_unix),
            frame_rate: job.frame_rate,
            gop_frames: job.gop_frames,
            real_time: job.real_time,
            started: Instant::now(),
            started_unix,
            next: 0,
            since_idr: 0,
            samples: 0,
            totals: Totals::default(),
            failed: Complaint::new("the test source lost a frame"),
            late: Complaint::new("the test source is late, pictures left out"),
        })
    }

    /// Emits the picture that is due, if any, with the sound up to it. Answers how long nothing will be due.
    pub(crate) fn tick(&mut self, outlet: &Outlet) -> Duration {
        if self.real_time {
            let now = self.started.elapsed();
            let due = self.time_of(self.next);
            if now < due {
                return due - now;
            }
            if now - due > LATE_MAX {
                self.leave_out(now);
            }
        }
        if let Err(why) = self.emit(outlet) {
            self.totals.video_dropped += 1;
            self.failed.raise(&why);
        }
        self.next += 1;
        self.totals.video_in += 1;
        if self.real_time {
            self.time_of(self.next).saturating_sub(self.started.elapsed())
        } else {
            Duration::ZERO
        }
    }

    /// Brings out what is still inside and ends the run.
    pub(crate) fn finish(mut self, outlet: &Outlet) -> Totals {
        let sink = &mut |message| outlet.send(&message);
        if let Err(why) = self.video.drain(sink).and_then(|()| self.audio.drain(sink)) {
            self.failed.raise(&why);
        }
        self.totals
    }

    fn emit(&mut self, outlet: &Outlet) -> Result<(), AvError> {
        let media_time = self.time_of(self.next);
        let wall = if self.real_time {
            SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
        } else {
            self.started_unix + media_time
        };
        let sink = &mut |message| outlet.send(&message);
        let key = self.since_idr == 0;
        let mark = Mark { pts: self.ticks_of(self.next), key, segment_start: key };
        self.video.encode(self.picture.draw(wall, self.next)?, mark, sink)?;
        self.totals.video_pictures += 1;
        self.since_idr = (self.since_idr + 1) % self.gop_frames;
        // Sound is due when its whole block lies in the past.
        let block = u64::try_from(self.audio.block_samples()).unwrap_or(u64::MAX);
        let until = media_time.as_micros() * u128::from(SAMPLE_RATE) / 1_000_000;
        while u128::from(self.samples + block) <= until {
            let pts =
                i64::try_from(self.samples * TICKS_PER_SECOND / u64::from(SAMPLE_RATE)).unwrap_or(i64::MAX);
            let (tone, from) = (&self.tone, self.samples);
            self.samples += block;
            self.audio.encode(pts, |_, samples| tone.fill(from, samples), sink)?;
        }
        Ok(())
    }

    fn leave_out(&mut self, now: Duration) {
        let first = self.next;
        while self.time_of(self.next + 1) <= now {
            self.next += 1;
        }
        let left_out = self.next - first;
        self.totals.video_in += left_out;
        self.totals.video_dropped += left_out;
        // The rhythm of key frames follows the picture count; a key frame left out moves to the next picture.
        let gop = u64::from(self.gop_frames);
        let since = u64::from(self.since_idr);
        let passed_key = since == 0 || since + left_out >= gop;
        self.since_idr = if passed_key { 0 } else { u32::try_from(since + left_out).unwrap_or(0) };
        self.late.raise(&format_args!("{left_out} pictures"));
    }

    fn ticks_of(&self, picture: u64) -> i64 {
        let Rational { num, den } = self.frame_rate;
        let ticks = u128::from(picture) * u128::from(TICKS_PER_SECOND) * u128::from(den) / u128::from(num);
        i64::try_from(ticks).unwrap_or(i64::MAX)
    }

    fn time_of(&self, picture: u64) -> Duration {
        let Rational { num, den } = self.frame_rate;
        let nanos = u128::from(picture) * 1_000_000_000 * u128::from(den) / u128::from(num);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

fn checked(job: &TestSourceJob) -> Result<&TestSourceJob, StartError> {
    let (width, height) = (job.width, job.height);
    let sides = (160..=8192).contains(&width) && (90..=8192).contains(&height);
    if !sides || !width.is_multiple_of(2) || !height.is_multiple_of(2) {
        return Err(StartError::Size { width, height });
    }
    let Rational { num, den } = job.frame_rate;
    let rates = [num, den, job.video_bitrate_bps, job.audio_bitrate_bps, job.gop_frames];
    if rates.contains(&0) || num / den > 240 {
        return Err(StartError::Rate);
    }
    Ok(job)
}
