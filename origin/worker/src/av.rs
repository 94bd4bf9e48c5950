//! libav*, each object behind a small owned type. The only files that call it are under this one.
//!
//! Invariants: a pointer is owned by exactly one value and freed by its `Drop`; every return code becomes an
//! [`AvError`]; nothing here opens a protocol, a demuxer or a device (A11). Written against FFmpeg 5.1.
#![expect(unsafe_code, reason = "error texts and the log level of libav are C functions")]

pub(crate) mod aac;
pub(crate) mod codec;
pub(crate) mod frame;
pub(crate) mod h264;
pub(crate) mod packet;
pub(crate) mod resample;
pub(crate) mod scale;

use std::ffi::{CStr, c_char, c_int};

use ffmpeg_sys_next as ff;

/// libav refused something. Bad input, an impossible setting or memory; the message is libav's own.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AvError {
    #[error("{call}: {}", reason(*code))]
    Code { call: &'static str, code: c_int },
    #[error("{0}: out of memory")]
    Memory(&'static str),
    #[error("{0}: not in this build of libavcodec")]
    Missing(&'static str),
    #[error("{0} out of range")]
    Range(&'static str),
}

/// Keeps libav's own chatter off stderr: every error is reported by whoever meets it, once and counted.
pub(crate) fn quieten() {
    // SAFETY: sets one global integer, before any other thread exists.
    unsafe { ff::av_log_set_level(ff::AV_LOG_FATAL) };
}

fn check(call: &'static str, code: c_int) -> Result<c_int, AvError> {
    if code < 0 { Err(AvError::Code { call, code }) } else { Ok(code) }
}

/// Whether something came out of a codec: `false` means it wants more input or is drained.
fn received(call: &'static str, code: c_int) -> Result<bool, AvError> {
    if code == ff::AVERROR(ff::EAGAIN) || code == ff::AVERROR_EOF {
        return Ok(false);
    }
    check(call, code).map(|_| true)
}

fn int(what: &'static str, value: impl TryInto<c_int>) -> Result<c_int, AvError> {
    value.try_into().map_err(|_| AvError::Range(what))
}

fn reason(code: c_int) -> String {
    let mut text: [c_char; 128] = [0; 128];
    // SAFETY: the buffer is writable for its whole stated length and the call terminates what it writes.
    let text = unsafe {
        ff::av_strerror(code, text.as_mut_ptr(), text.len());
        CStr::from_ptr(text.as_ptr())
    };
    text.to_string_lossy().into_owned()
}
