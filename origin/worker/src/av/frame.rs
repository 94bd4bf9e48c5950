//! An owned picture or block of audio samples.
//!
//! Planes are reference counted by libav: [`Frame::share`] copies no sample. [`Frame::plane_mut`] is only handed out
//! after libav has made the planes this frame's own.
#![expect(unsafe_code, reason = "FFI: AVFrame")]

use std::ffi::c_int;
use std::ptr::NonNull;
use std::slice;

use ff::AVPixelFormat::AV_PIX_FMT_YUV420P;
use ff::AVSampleFormat::AV_SAMPLE_FMT_FLTP;
use ffmpeg_sys_next as ff;

use super::{AvError, check, int};

/// One decoded or to be encoded frame.
#[derive(Debug)]
pub(crate) struct Frame(NonNull<ff::AVFrame>);

// SAFETY: an AVFrame has no thread affinity and its buffers' reference counts are atomic.
unsafe impl Send for Frame {}
// SAFETY: through `&Frame` fields and samples are only read, and reference counts, which are atomic, changed.
unsafe impl Sync for Frame {}

impl Drop for Frame {
    fn drop(&mut self) {
        let mut pointer = self.0.as_ptr();
        // SAFETY: the pointer came from av_frame_alloc and is freed once, here.
        unsafe { ff::av_frame_free(&raw mut pointer) };
    }
}

impl Frame {
    /// A frame without planes, to receive into.
    pub(crate) fn empty() -> Result<Self, AvError> {
        // SAFETY: no preconditions.
        NonNull::new(unsafe { ff::av_frame_alloc() }).map(Self).ok_or(AvError::Memory("av_frame_alloc"))
    }

    /// A yuv420p picture with planes of its own, contents unspecified.
    pub(crate) fn picture(width: u32, height: u32) -> Result<Self, AvError> {
        let mut frame = Self::empty()?;
        let raw = frame.raw_mut();
        raw.width = int("picture width", width)?;
        raw.height = int("picture height", height)?;
        raw.format = AV_PIX_FMT_YUV420P as c_int;
        frame.allocate()?;
        Ok(frame)
    }

    /// A block of planar float samples with planes of its own, contents unspecified.
    pub(crate) fn audio(samples: usize, channels: u32, sample_rate: u32) -> Result<Self, AvError> {
        let mut frame = Self::empty()?;
        let channels = int("channels", channels)?;
        let raw = frame.raw_mut();
        raw.nb_samples = int("samples", samples)?;
        raw.sample_rate = int("sample rate", sample_rate)?;
        raw.format = AV_SAMPLE_FMT_FLTP as c_int;
        // SAFETY: the layout of a fresh frame is unset, and the call only writes it.
        unsafe { ff::av_channel_layout_default(&raw mut raw.ch_layout, channels) };
        frame.allocate()?;
        Ok(frame)
    }

    fn allocate(&mut self) -> Result<(), AvError> {
        // SAFETY: a valid frame with format and dimensions set and no planes yet.
        check("av_frame_get_buffer", unsafe { ff::av_frame_get_buffer(self.0.as_ptr(), 0) }).map(|_| ())
    }

    /// A second frame over the same planes, with fields of its own.
    pub(crate) fn share(&self) -> Result<Self, AvError> {
        // SAFETY: a valid frame; the result is a new frame we own.
        let shared = unsafe { ff::av_frame_clone(self.0.as_ptr()) };
        NonNull::new(shared).map(Self).ok_or(AvError::Memory("av_frame_clone"))
    }

    /// Copies the planes if anyone else still reads them.
    pub(crate) fn make_writable(&mut self) -> Result<(), AvError> {
        // SAFETY: a valid frame with planes.
        check("av_frame_make_writable", unsafe { ff::av_frame_make_writable(self.0.as_ptr()) }).map(|_| ())
    }

    pub(super) fn raw(&self) -> &ff::AVFrame {
        // SAFETY: the pointer is valid and ours for as long as self lives.
        unsafe { self.0.as_ref() }
    }

    pub(super) fn raw_mut(&mut self) -> &mut ff::AVFrame {
        // SAFETY: the pointer is valid and ours alone for as long as self is borrowed.
        unsafe { self.0.as_mut() }
    }

    pub(super) fn as_ptr(&self) -> *const ff::AVFrame {
        self.0.as_ptr()
    }

    pub(super) fn as_mut_ptr(&mut self) -> *mut ff::AVFrame {
        self.0.as_ptr()
    }

    /// Presentation time in the unit of whoever set it, if it has one.
    pub(crate) fn pts(&self) -> Option<i64> {
        Some(self.raw().pts).filter(|&pts| pts != ff::AV_NOPTS_VALUE)
    }

    /// Sets the time and whether an encoder must make it an IDR.
    pub(crate) fn stamp(&mut self, pts: i64, key: bool) {
        let raw = self.raw_mut();
        raw.pts = pts;
        raw.pict_type =
            if key { ff::AVPictureType::AV_PICTURE_TYPE_I } else { ff::AVPictureType::AV_PICTURE_TYPE_NONE };
    }

    /// Width and height in pixels; 0 for audio.
    pub(crate) fn size(&self) -> (u32, u32) {
        (self.raw().width.unsigned_abs(), self.raw().height.unsigned_abs())
    }

    /// Whether an encoder can take the picture as it is.
    pub(crate) fn is_yuv420p(&self) -> bool {
        self.raw().format == AV_PIX_FMT_YUV420P as c_int
    }

    /// Audio samples per channel; 0 for pictures.
    pub(crate) fn samples(&self) -> usize {
        usize::try_from(self.raw().nb_samples).unwrap_or(0)
    }

    /// Audio samples per second; 0 for pictures.
    pub(crate) fn sample_rate(&self) -> u32 {
        self.raw().sample_rate.unsigned_abs()
    }

    /// The rows of a yuv420p plane and the distance between them in bytes. `plane` is 0 to 2.
    pub(crate) fn plane_mut(&mut self, plane: usize) -> Result<(&mut [u8], usize), AvError> {
        if !self.is_yuv420p() || plane > 2 {
            return Err(AvError::Range("plane"));
        }
        self.make_writable()?;
        let raw = self.raw_mut();
        let stride = usize::try_from(raw.linesize[plane]).map_err(|_| AvError::Range("line size"))?;
        let height = usize::try_from(raw.height).map_err(|_| AvError::Range("picture height"))?;
        let rows = if plane == 0 { height } else { height.div_ceil(2) };
        // SAFETY: a yuv420p frame with planes has at least `rows` lines of `stride` bytes in each of its three, and
        // av_frame_make_writable, which refuses a frame without planes, has just made them ours alone.
        Ok((unsafe { slice::from_raw_parts_mut(raw.data[plane], stride * rows) }, stride))
    }

    /// The samples of one channel of planar float audio.
    pub(crate) fn channel_mut(&mut self, channel: usize) -> Result<&mut [f32], AvError> {
        self.make_writable()?;
        let samples = self.samples();
        let raw = self.raw_mut();
        if raw.format != AV_SAMPLE_FMT_FLTP as c_int
            || channel >= raw.data.len()
            || raw.data[channel].is_null()
        {
            return Err(AvError::Range("channel"));
        }
        // SAFETY: planar float audio of `nb_samples` in a plane that exists, writable and ours alone as above; libav
        // aligns planes to more than a float.
        Ok(unsafe { slice::from_raw_parts_mut(raw.data[channel].cast(), samples) })
    }
}
