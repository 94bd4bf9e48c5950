//! Scaling to the picture size and pixel format of one rung.
#![expect(unsafe_code, reason = "FFI: SwsContext")]

use std::ffi::c_int;
use std::ptr::{self, NonNull};

use ffmpeg_sys_next as ff;

use super::frame::Frame;
use super::{AvError, check};

/// Scales pictures of whatever size and format arrives into one reused yuv420p picture.
#[derive(Debug)]
pub(crate) struct Scaler {
    context: Option<NonNull<ff::SwsContext>>,
    picture: Frame,
}

// SAFETY: a scaling context has no thread affinity; it is only reachable through `&mut`.
unsafe impl Send for Scaler {}

impl Drop for Scaler {
    fn drop(&mut self) {
        if let Some(context) = self.context {
            // SAFETY: the pointer came from sws_getCachedContext and is freed once, here.
            unsafe { ff::sws_freeContext(context.as_ptr()) };
        }
    }
}

impl Scaler {
    pub(crate) fn new(width: u32, height: u32) -> Result<Self, AvError> {
        Ok(Self { context: None, picture: Frame::picture(width, height)? })
    }

    /// The scaled picture, valid until the next call.
    ///
    /// Bilinear: the fast variant is only faster when it may generate code, which the sandbox forbids.
    pub(crate) fn scale(&mut self, from: &Frame) -> Result<&mut Frame, AvError> {
        let source = from.raw();
        let target = self.picture.raw();
        // SAFETY: a format number libav itself put into the frame is a valid enumerator.
        let format = unsafe { std::mem::transmute::<c_int, ff::AVPixelFormat>(source.format) };
        let old = self.context.take().map_or(ptr::null_mut(), NonNull::as_ptr);
        // SAFETY: the old context or null is consumed: returned if it still fits, freed otherwise.
        let context = unsafe {
            ff::sws_getCachedContext(
                old,
                source.width,
                source.height,
                format,
                target.width,
                target.height,
                ff::AVPixelFormat::AV_PIX_FMT_YUV420P,
                ff::SWS_BILINEAR,
                ptr::null_mut(),
                ptr::null_mut(),
                ptr::null(),
            )
        };
        let context = NonNull::new(context).ok_or(AvError::Range("picture to scale"))?;
        self.context = Some(context);
        self.picture.make_writable()?;
        let target = self.picture.raw_mut();
        // SAFETY: both frames have planes of the sizes and formats the context was made for.
        check("sws_scale", unsafe {
            ff::sws_scale(
                context.as_ptr(),
                source.data.as_ptr().cast(),
                source.linesize.as_ptr(),
                0,
                source.height,
                target.data.as_ptr(),
                target.linesize.as_ptr(),
            )
        })?;
        Ok(&mut self.picture)
    }
}
