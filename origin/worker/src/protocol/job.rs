//! What a run is asked to do. Travels as JSON inside a `Start` message: rare, small and worth reading in a trace.
#![deny(clippy::disallowed_methods)]

use serde::{Deserialize, Serialize};

/// A ratio of two unsigned integers, `den` never 0 in a valid job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rational {
    /// Numerator.
    pub num: u32,
    /// Denominator.
    pub den: u32,
}

/// One run's work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Job {
    /// Decode once, scale and encode to every rung.
    Transcode(TranscodeJob),
    /// Draw and encode the moving test picture and tone.
    TestSource(TestSourceJob),
}

/// A ladder from one H.264 + AAC input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TranscodeJob {
    /// The video that will arrive.
    pub video: VideoInput,
    /// The audio that will arrive and what to make of it; `None` drops audio.
    pub audio: Option<AudioJob>,
    /// Output video tracks, by index. 1 to 16.
    pub rungs: Vec<Rung>,
    /// CPU threads the whole job may use. At least 1; 1 encodes the rungs one after the other.
    pub threads: u32,
}

/// The video that will arrive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VideoInput {
    /// AVCDecoderConfigurationRecord (`avcC` body).
    pub avcc: Vec<u8>,
    /// Picture width in pixels.
    pub width: u32,
    /// Picture height in pixels.
    pub height: u32,
    /// Nominal frames per second.
    pub frame_rate: Rational,
}

/// The audio that will arrive, and the one track made of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AudioJob {
    /// AudioSpecificConfig of the input.
    pub asc: Vec<u8>,
    /// Bits per second of the output.
    pub bitrate_bps: u32,
    /// Samples per second of the output: one of AAC's standard rates.
    pub sample_rate: u32,
    /// Channels of the input: 1 stays mono, everything else becomes stereo.
    pub channels: u32,
}

/// One rendition of the ladder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rung {
    /// Name in log lines.
    pub id: String,
    /// Picture width in pixels, even.
    pub width: u32,
    /// Picture height in pixels, even.
    pub height: u32,
    /// Greatest video bits per second, over half a second.
    pub bitrate_bps: u32,
    /// Frames per second are thinned down to this; never a segment start.
    pub max_frame_rate: u32,
    /// x264 preset; empty means `superfast`.
    pub preset: String,
}

/// The built-in moving picture and tone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TestSourceJob {
    /// Picture width in pixels, even, at least 160.
    pub width: u32,
    /// Picture height in pixels, even, at least 90.
    pub height: u32,
    /// Frames per second.
    pub frame_rate: Rational,
    /// Greatest video bits per second, over half a second.
    pub video_bitrate_bps: u32,
    /// Audio bits per second.
    pub audio_bitrate_bps: u32,
    /// Frames from IDR to IDR, at least 1.
    pub gop_frames: u32,
    /// x264 preset; empty means `superfast`.
    pub preset: String,
    /// Text burned into the picture: the channel's name, say.
    pub label: String,
    /// Paced against the monotonic clock. `false` is for tests: frames come as fast as the reader takes them.
    pub real_time: bool,
}
