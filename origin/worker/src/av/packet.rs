//! An owned coded access unit.
#![expect(unsafe_code, reason = "FFI: AVPacket")]

use std::ptr::NonNull;
use std::slice;

use ffmpeg_sys_next as ff;

use super::{AvError, check, int};

/// One coded access unit on its way into a decoder or out of an encoder.
#[derive(Debug)]
pub(crate) struct Packet(NonNull<ff::AVPacket>);

// SAFETY: an AVPacket has no thread affinity and its buffer's reference count is atomic.
unsafe impl Send for Packet {}

impl Drop for Packet {
    fn drop(&mut self) {
        let mut pointer = self.0.as_ptr();
        // SAFETY: the pointer came from av_packet_alloc and is freed once, here.
        unsafe { ff::av_packet_free(&raw mut pointer) };
    }
}

impl Packet {
    /// A packet without contents, to receive or fill into.
    pub(crate) fn empty() -> Result<Self, AvError> {
        // SAFETY: no preconditions.
        NonNull::new(unsafe { ff::av_packet_alloc() }).map(Self).ok_or(AvError::Memory("av_packet_alloc"))
    }

    /// Replaces the contents by a padded copy of `payload`, because decoders read past the end.
    pub(crate) fn fill(&mut self, payload: &[u8], dts: i64, pts: i64) -> Result<(), AvError> {
        let size = int("payload", payload.len())?;
        // SAFETY: a valid packet; the old contents are released and a buffer of `size` plus padding attached.
        check("av_new_packet", unsafe {
            ff::av_packet_unref(self.0.as_ptr());
            ff::av_new_packet(self.0.as_ptr(), size)
        })?;
        // SAFETY: the pointer is valid and ours alone.
        let raw = unsafe { self.0.as_mut() };
        raw.dts = dts;
        raw.pts = pts;
        // SAFETY: av_new_packet attached a writable buffer of at least `payload.len()` bytes.
        unsafe { slice::from_raw_parts_mut(raw.data, payload.len()) }.copy_from_slice(payload);
        Ok(())
    }

    pub(super) fn as_ptr(&self) -> *const ff::AVPacket {
        self.0.as_ptr()
    }

    pub(super) fn as_mut_ptr(&mut self) -> *mut ff::AVPacket {
        self.0.as_ptr()
    }

    fn raw(&self) -> &ff::AVPacket {
        // SAFETY: the pointer is valid and ours for as long as self lives.
        unsafe { self.0.as_ref() }
    }

    /// The coded bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        let raw = self.raw();
        let size = usize::try_from(raw.size).unwrap_or(0);
        if raw.data.is_null() || size == 0 {
            return &[];
        }
        // SAFETY: libav keeps `size` readable bytes at `data` until the packet is unreferenced.
        unsafe { slice::from_raw_parts(raw.data, size) }
    }

    /// Presentation time in the codec's time base.
    pub(crate) fn pts(&self) -> i64 {
        self.raw().pts
    }

    /// Whether decoding can start here.
    pub(crate) fn is_key(&self) -> bool {
        self.raw().flags & ff::AV_PKT_FLAG_KEY != 0
    }
}
