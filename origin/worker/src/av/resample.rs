//! From whatever a decoder produces to planar float at the output's rate and channels.
//!
//! swresample compensates its own filter delay at the start, so sample 0 out is sample 0 in.
#![expect(unsafe_code, reason = "FFI: SwrContext")]

use std::ffi::c_int;
use std::ptr::{self, NonNull};

use ffmpeg_sys_next as ff;

use super::frame::Frame;
use super::{AvError, check, int};

/// What the input of a resampler looks like; a change needs a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    format: c_int,
    sample_rate: c_int,
    channels: c_int,
}

/// A resampler for one output rate and channel count.
#[derive(Debug)]
pub(crate) struct Resampler {
    context: Option<(NonNull<ff::SwrContext>, Shape)>,
    sample_rate: u32,
    channels: u32,
    block: Option<Frame>,
}

// SAFETY: a resampling context has no thread affinity; it is only reachable through `&mut`.
unsafe impl Send for Resampler {}

impl Drop for Resampler {
    fn drop(&mut self) {
        self.close();
    }
}

impl Resampler {
    pub(crate) fn new(sample_rate: u32, channels: u32) -> Self {
        Self { context: None, sample_rate, channels, block: None }
    }

    /// Converts `from`, or what is still inside for `None`, and appends it to `out`, one vector per channel.
    pub(crate) fn convert(&mut self, from: Option<&Frame>, out: &mut [Vec<f32>]) -> Result<(), AvError> {
        if let Some(frame) = from {
            self.prepare(frame)?;
        }
        let Some((context, _)) = self.context else {
            return Ok(());
        };
        let samples_in = from.map_or(0, |frame| frame.raw().nb_samples);
        // SAFETY: an initialised context.
        let room =
            check("swr_get_out_samples", unsafe { ff::swr_get_out_samples(context.as_ptr(), samples_in) })?;
        let room_samples = usize::try_from(room).unwrap_or(0);
        if room_samples == 0 {
            return Ok(());
        }
        let block = match self.block.take() {
            Some(block) if block.samples() >= room_samples => block,
            _ => Frame::audio(room_samples, self.channels, self.sample_rate)?,
        };
        let block = self.block.insert(block);
        block.make_writable()?;
        let data = from.map_or(ptr::null_mut(), |frame| frame.raw().extended_data);
        // SAFETY: the output planes hold `room` samples each; the input planes hold `samples_in`, or the input is null,
        // which asks for what is still inside.
        let made = check("swr_convert", unsafe {
            let raw = block.raw_mut();
            ff::swr_convert(context.as_ptr(), raw.extended_data, room, data.cast(), samples_in)
        })?;
        let made = usize::try_from(made).unwrap_or(0);
        for (channel, samples) in out.iter_mut().enumerate() {
            samples.extend_from_slice(&block.channel_mut(channel)?[..made]);
        }
        Ok(())
    }

    /// Forgets everything inside, as after a jump.
    pub(crate) fn close(&mut self) {
        if let Some((context, _)) = self.context.take() {
            let mut pointer = context.as_ptr();
            // SAFETY: the pointer came from swr_alloc_set_opts2 and is freed once, here.
            unsafe { ff::swr_free(&raw mut pointer) };
        }
    }

    fn prepare(&mut self, frame: &Frame) -> Result<(), AvError> {
        let raw = frame.raw();
        let shape =
            Shape { format: raw.format, sample_rate: raw.sample_rate, channels: raw.ch_layout.nb_channels };
        if self.context.is_some_and(|(_, old)| old == shape) {
            return Ok(());
        }
        self.close();
        let channels = int("channels", self.channels)?;
        let sample_rate = int("sample rate", self.sample_rate)?;
        let mut context = ptr::null_mut();
        // SAFETY: a format number libav itself put into the frame is a valid enumerator; the zeroed output layout is
        // what the layout type documents as unset; both layouts are only read by swr_alloc_set_opts2.
        let code = unsafe {
            let format = std::mem::transmute::<c_int, ff::AVSampleFormat>(raw.format);
            let mut layout: ff::AVChannelLayout = std::mem::zeroed();
            ff::av_channel_layout_default(&raw mut layout, channels);
            ff::swr_alloc_set_opts2(
                &raw mut context,
                &raw mut layout,
                ff::AVSampleFormat::AV_SAMPLE_FMT_FLTP,
                sample_rate,
                (&raw const raw.ch_layout).cast_mut(),
                format,
                raw.sample_rate,
                0,
                ptr::null_mut(),
            )
        };
        check("swr_alloc_set_opts2", code)?;
        let context = NonNull::new(context).ok_or(AvError::Memory("swr_alloc_set_opts2"))?;
        self.context = Some((context, shape));
        // SAFETY: a configured context, not yet initialised.
        let code = check("swr_init", unsafe { ff::swr_init(context.as_ptr()) });
        if code.is_err() {
            self.close();
        }
        code.map(|_| ())
    }
}
