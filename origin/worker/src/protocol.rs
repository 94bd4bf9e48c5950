//! What parent and worker say to each other, as bytes.
//!
//! A frame is `u32` big-endian length of what follows, one kind byte, then the body: fixed-width big-endian fields,
//! with the one variable field last. All times are `i64` ticks of 1/90000 s on the channel's timeline (epoch anchored,
//! so about 1.6e14). Pure and sans-IO: [`FrameReader`] is pushed bytes and pulled messages, from async code in the
//! parent and blocking code in the child. Nothing longer than [`MESSAGE_BYTES_MAX`] is encoded or buffered.
//!
//! Deliberately absent: versioning. Both ends are the same binary.
#![deny(clippy::disallowed_methods)]

mod frame;
mod job;
#[cfg(test)]
mod tests;

pub use frame::{FrameReader, MESSAGE_BYTES_MAX, Message, ProtocolError};
pub use job::{AudioJob, Job, Rational, Rung, TestSourceJob, TranscodeJob, VideoInput};

use bytes::{Buf, BufMut, Bytes};

/// One access unit of video as the parent hands it over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VideoSample {
    /// Decode time, ticks of 1/90000 s.
    pub dts: i64,
    /// Presentation time, ticks of 1/90000 s. Unique within a run; the channel's timeline keeps it growing, and what
    /// decodes to a time not after the last picture's is dropped.
    pub pts: i64,
    /// The sample is a random access point (IDR).
    pub sync: bool,
    /// A segment starts here: every rung gets an IDR on exactly this frame.
    pub segment_start: bool,
    /// NAL units, each with a 4-byte big-endian length (AVCC).
    pub payload: Bytes,
}

/// One coded video frame of one track as the worker hands it back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VideoFrame {
    /// Index of the rung in the job; 0 for the test source.
    pub track: u16,
    /// Decode time, ticks of 1/90000 s. Equal to `pts`: there are no B frames.
    pub dts: i64,
    /// Presentation time, ticks of 1/90000 s: the input sample's own.
    pub pts: i64,
    /// The frame is an IDR.
    pub sync: bool,
    /// The input sample started a segment.
    pub segment_start: bool,
    /// NAL units, each with a 4-byte big-endian length (AVCC), without parameter sets.
    pub payload: Bytes,
}

/// One AAC access unit without ADTS header, in either direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AudioFrame {
    /// Presentation time of the first decoded sample, ticks of 1/90000 s.
    pub pts: i64,
    /// The raw access unit.
    pub payload: Bytes,
}

/// What a decoder of a track must know before its first frame. Precedes every [`VideoFrame`] of the track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VideoConfig {
    /// Index of the rung in the job; 0 for the test source.
    pub track: u16,
    /// Picture width in pixels.
    pub width: u32,
    /// Picture height in pixels.
    pub height: u32,
    /// Frames per second after the rung's cap.
    pub frame_rate: Rational,
    /// AVCDecoderConfigurationRecord (`avcC` body).
    pub avcc: Bytes,
}

/// What happened in one run, from `Start` to `Flushed`. Cumulative.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Video samples received (transcode) or pictures due (test source).
    pub video_in: u64,
    /// Pictures decoded or drawn.
    pub video_pictures: u64,
    /// Samples and pictures lost: undecodable, waiting for a random access point, out of order, or too late to draw.
    pub video_dropped: u64,
    /// Audio access units received; 0 for the test source.
    pub audio_in: u64,
    /// Audio access units lost: undecodable or overlapping what was already encoded.
    pub audio_dropped: u64,
}

/// Parent to child.
#[derive(Debug, Clone, PartialEq)]
pub enum ToWorker {
    /// Begins a run. A run still going on is ended as by `Flush`, but without `Flushed`.
    Start(Box<Job>),
    /// One video sample, in decode order.
    Video(VideoSample),
    /// One audio access unit.
    Audio(AudioFrame),
    /// Ends the run: everything still inside comes out, then [`FromWorker::Flushed`].
    Flush,
}

/// Child to parent.
#[derive(Debug, Clone, PartialEq)]
pub enum FromWorker {
    /// A video track begins.
    VideoConfig(VideoConfig),
    /// The audio track begins; the body is its AudioSpecificConfig.
    AudioConfig(Bytes),
    /// One coded video frame.
    Video(VideoFrame),
    /// One coded audio access unit.
    Audio(AudioFrame),
    /// The run is over and nothing of it is left inside. Answers every `Flush`, also one without a run.
    Flushed(Totals),
}

const START: u8 = 1;
const VIDEO_SAMPLE: u8 = 2;
const AUDIO_SAMPLE: u8 = 3;
const FLUSH: u8 = 4;
const VIDEO_CONFIG: u8 = 65;
const AUDIO_CONFIG: u8 = 66;
const VIDEO_FRAME: u8 = 67;
const AUDIO_FRAME: u8 = 68;
const FLUSHED: u8 = 69;

const SYNC: u8 = 1;
const SEGMENT_START: u8 = 2;

impl Message for ToWorker {
    fn encode_body(&self, out: &mut Vec<u8>) -> Result<(), ProtocolError> {
        match self {
            Self::Start(job) => {
                out.put_u8(START);
                serde_json::to_writer(out, job).map_err(|e| ProtocolError::Job(e.to_string()))?;
            }
            Self::Video(sample) => {
                out.put_u8(VIDEO_SAMPLE);
                out.put_i64(sample.dts);
                out.put_i64(sample.pts);
                out.put_u8(flags(sample.sync, sample.segment_start));
                out.put_slice(&sample.payload);
            }
            Self::Audio(frame) => put_audio(out, AUDIO_SAMPLE, frame),
            Self::Flush => out.put_u8(FLUSH),
        }
        Ok(())
    }

    fn decode_body(mut body: Bytes) -> Result<Self, ProtocolError> {
        match body.try_get_u8().map_err(short)? {
            START => {
                let job = serde_json::from_slice(&body).map_err(|e| ProtocolError::Job(e.to_string()))?;
                Ok(Self::Start(job))
            }
            VIDEO_SAMPLE => {
                let dts = body.try_get_i64().map_err(short)?;
                let pts = body.try_get_i64().map_err(short)?;
                let (sync, segment_start) = unflags(body.try_get_u8().map_err(short)?)?;
                Ok(Self::Video(VideoSample { dts, pts, sync, segment_start, payload: body }))
            }
            AUDIO_SAMPLE => Ok(Self::Audio(get_audio(body)?)),
            FLUSH => at_end(&body, Self::Flush),
            kind => Err(ProtocolError::Kind(kind)),
        }
    }
}

impl Message for FromWorker {
    fn encode_body(&self, out: &mut Vec<u8>) -> Result<(), ProtocolError> {
        match self {
            Self::VideoConfig(config) => {
                out.put_u8(VIDEO_CONFIG);
                out.put_u16(config.track);
                out.put_u32(config.width);
                out.put_u32(config.height);
                out.put_u32(config.frame_rate.num);
                out.put_u32(config.frame_rate.den);
                out.put_slice(&config.avcc);
            }
            Self::AudioConfig(asc) => {
                out.put_u8(AUDIO_CONFIG);
                out.put_slice(asc);
            }
            Self::Video(frame) => {
                out.put_u8(VIDEO_FRAME);
                out.put_u16(frame.track);
                out.put_i64(frame.dts);
                out.put_i64(frame.pts);
                out.put_u8(flags(frame.sync, frame.segment_start));
                out.put_slice(&frame.payload);
            }
            Self::Audio(frame) => put_audio(out, AUDIO_FRAME, frame),
            Self::Flushed(totals) => {
                out.put_u8(FLUSHED);
                out.put_u64(totals.video_in);
                out.put_u64(totals.video_pictures);
                out.put_u64(totals.video_dropped);
                out.put_u64(totals.audio_in);
                out.put_u64(totals.audio_dropped);
            }
        }
        Ok(())
    }

    fn decode_body(mut body: Bytes) -> Result<Self, ProtocolError> {
        match body.try_get_u8().map_err(short)? {
            VIDEO_CONFIG => Ok(Self::VideoConfig(VideoConfig {
                track: body.try_get_u16().map_err(short)?,
                width: body.try_get_u32().map_err(short)?,
                height: body.try_get_u32().map_err(short)?,
                frame_rate: Rational {
                    num: body.try_get_u32().map_err(short)?,
                    den: body.try_get_u32().map_err(short)?,
                },
                avcc: body,
            })),
            AUDIO_CONFIG => Ok(Self::AudioConfig(body)),
            VIDEO_FRAME => {
                let track = body.try_get_u16().map_err(short)?;
                let dts = body.try_get_i64().map_err(short)?;
                let pts = body.try_get_i64().map_err(short)?;
                let (sync, segment_start) = unflags(body.try_get_u8().map_err(short)?)?;
                Ok(Self::Video(VideoFrame { track, dts, pts, sync, segment_start, payload: body }))
            }
            AUDIO_FRAME => Ok(Self::Audio(get_audio(body)?)),
            FLUSHED => {
                let totals = Totals {
                    video_in: body.try_get_u64().map_err(short)?,
                    video_pictures: body.try_get_u64().map_err(short)?,
                    video_dropped: body.try_get_u64().map_err(short)?,
                    audio_in: body.try_get_u64().map_err(short)?,
                    audio_dropped: body.try_get_u64().map_err(short)?,
                };
                at_end(&body, Self::Flushed(totals))
            }
            kind => Err(ProtocolError::Kind(kind)),
        }
    }
}

fn put_audio(out: &mut Vec<u8>, kind: u8, frame: &AudioFrame) {
    out.put_u8(kind);
    out.put_i64(frame.pts);
    out.put_slice(&frame.payload);
}

fn get_audio(mut body: Bytes) -> Result<AudioFrame, ProtocolError> {
    let pts = body.try_get_i64().map_err(short)?;
    Ok(AudioFrame { pts, payload: body })
}

fn flags(sync: bool, segment_start: bool) -> u8 {
    u8::from(sync) * SYNC + u8::from(segment_start) * SEGMENT_START
}

fn unflags(byte: u8) -> Result<(bool, bool), ProtocolError> {
    if byte & !(SYNC | SEGMENT_START) != 0 {
        return Err(ProtocolError::Body);
    }
    Ok((byte & SYNC != 0, byte & SEGMENT_START != 0))
}

fn short(_: bytes::TryGetError) -> ProtocolError {
    ProtocolError::Body
}

fn at_end<T>(body: &Bytes, message: T) -> Result<T, ProtocolError> {
    if body.is_empty() { Ok(message) } else { Err(ProtocolError::Body) }
}
