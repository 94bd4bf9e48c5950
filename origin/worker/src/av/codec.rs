//! An opened decoder or encoder and the settings it is opened with.
//!
//! The two are the same C type; [`Decoder`] and [`Encoder`] keep their directions apart. x264 is opened for zero
//! latency: no B frames, no lookahead, IDR only where a frame asks for one.
#![expect(unsafe_code, reason = "FFI: AVCodecContext")]

use std::ffi::{CStr, CString, c_int};
use std::ptr::{self, NonNull};
use std::slice;

use ff::AVCodecID::{AV_CODEC_ID_AAC, AV_CODEC_ID_H264};
use ffmpeg_sys_next as ff;

use super::frame::Frame;
use super::packet::Packet;
use super::{AvError, check, int, received};
use crate::protocol::Rational;

/// Pictures beyond this many pixels are refused by the decoder: 8192 x 4352.
const PIXELS_MAX: i64 = 8192 * 4352;

#[derive(Debug)]
struct Context(NonNull<ff::AVCodecContext>);

// SAFETY: a codec context may be used from any one thread at a time; it is only reachable through `&mut`.
unsafe impl Send for Context {}

impl Drop for Context {
    fn drop(&mut self) {
        let mut pointer = self.0.as_ptr();
        // SAFETY: the pointer came from avcodec_alloc_context3 and is freed once, here.
        unsafe { ff::avcodec_free_context(&raw mut pointer) };
    }
}

impl Context {
    fn new(codec: NonNull<ff::AVCodec>) -> Result<Self, AvError> {
        // SAFETY: `codec` is a static description owned by libavcodec.
        let context = unsafe { ff::avcodec_alloc_context3(codec.as_ptr()) };
        NonNull::new(context).map(Self).ok_or(AvError::Memory("avcodec_alloc_context3"))
    }

    fn raw(&self) -> &ff::AVCodecContext {
        // SAFETY: the pointer is valid and ours for as long as self lives.
        unsafe { self.0.as_ref() }
    }

    fn raw_mut(&mut self) -> &mut ff::AVCodecContext {
        // SAFETY: the pointer is valid and ours alone for as long as self is borrowed.
        unsafe { self.0.as_mut() }
    }

    fn open(&mut self, codec: NonNull<ff::AVCodec>, options: &[(&CStr, &CStr)]) -> Result<(), AvError> {
        let mut dictionary = ptr::null_mut();
        for (key, value) in options {
            // SAFETY: both strings are terminated and copied; the dictionary is grown in place. A lost option can
            // only mean lost memory, which the opening below meets as well.
            unsafe { ff::av_dict_set(&raw mut dictionary, key.as_ptr(), value.as_ptr(), 0) };
        }
        // SAFETY: an unopened context made for `codec`; the dictionary is ours and freed whatever remains in it.
        let code = unsafe {
            let code = ff::avcodec_open2(self.0.as_ptr(), codec.as_ptr(), &raw mut dictionary);
            ff::av_dict_free(&raw mut dictionary);
            code
        };
        check("avcodec_open2", code).map(|_| ())
    }

    fn set_extradata(&mut self, bytes: &[u8]) -> Result<(), AvError> {
        let size = int("extradata", bytes.len())?;
        let padding = usize::try_from(ff::AV_INPUT_BUFFER_PADDING_SIZE).unwrap_or(64);
        // SAFETY: allocates zeroed memory; the context frees it.
        let copy: *mut u8 = unsafe { ff::av_mallocz(bytes.len() + padding) }.cast();
        if copy.is_null() {
            return Err(AvError::Memory("av_mallocz"));
        }
        // SAFETY: the allocation is longer than `bytes` and new, so it cannot overlap.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), copy, bytes.len()) };
        let raw = self.raw_mut();
        raw.extradata = copy;
        raw.extradata_size = size;
        Ok(())
    }
}

/// Coded access units in, frames out.
#[derive(Debug)]
pub(crate) struct Decoder(Context);

impl Decoder {
    /// H.264 in AVCC. More than two `threads` share the slices of a frame; never frames, which would add delay.
    pub(crate) fn h264(avcc: &[u8], threads: u32) -> Result<Self, AvError> {
        let codec = decoder(AV_CODEC_ID_H264, "H.264 decoder")?;
        let mut context = Context::new(codec)?;
        context.set_extradata(avcc)?;
        let raw = context.raw_mut();
        raw.flags |= ff::AV_CODEC_FLAG_LOW_DELAY as c_int;
        raw.thread_type = ff::FF_THREAD_SLICE;
        raw.thread_count = if threads > 2 { int("threads", threads)? } else { 1 };
        raw.max_pixels = PIXELS_MAX;
        context.open(codec, &[])?;
        Ok(Self(context))
    }

    /// Raw AAC described by an AudioSpecificConfig.
    pub(crate) fn aac(asc: &[u8]) -> Result<Self, AvError> {
        let codec = decoder(AV_CODEC_ID_AAC, "AAC decoder")?;
        let mut context = Context::new(codec)?;
        context.set_extradata(asc)?;
        context.open(codec, &[])?;
        Ok(Self(context))
    }

    /// Takes one access unit; `None` starts the draining of what is still inside.
    pub(crate) fn send(&mut self, packet: Option<&Packet>) -> Result<(), AvError> {
        let packet = packet.map_or(ptr::null(), Packet::as_ptr);
        // SAFETY: an opened decoder and a valid packet or null.
        check("avcodec_send_packet", unsafe { ff::avcodec_send_packet(self.0.0.as_ptr(), packet) })
            .map(|_| ())
    }

    /// Fills `frame` with the next frame, if there is one.
    pub(crate) fn receive(&mut self, frame: &mut Frame) -> Result<bool, AvError> {
        // SAFETY: an opened decoder and a valid frame, whose old contents the call releases.
        received("avcodec_receive_frame", unsafe {
            ff::avcodec_receive_frame(self.0.0.as_ptr(), frame.as_mut_ptr())
        })
    }

    /// Forgets everything inside, as after an error or a jump.
    pub(crate) fn reset(&mut self) {
        // SAFETY: an opened decoder.
        unsafe { ff::avcodec_flush_buffers(self.0.0.as_ptr()) };
    }
}

/// What the coded picture says about its colours; libav's own numbers, carried from decoder to encoder.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Colours {
    range: ff::AVColorRange,
    primaries: ff::AVColorPrimaries,
    transfer: ff::AVColorTransferCharacteristic,
    matrix: ff::AVColorSpace,
}

impl Colours {
    /// Those of `frame`, in limited range because scaling makes it so.
    pub(crate) fn of(frame: &Frame) -> Self {
        let raw = frame.raw();
        Self {
            range: ff::AVColorRange::AVCOL_RANGE_MPEG,
            primaries: raw.color_primaries,
            transfer: raw.color_trc,
            matrix: raw.colorspace,
        }
    }

    /// BT.709 in limited range.
    pub(crate) fn bt709() -> Self {
        Self {
            range: ff::AVColorRange::AVCOL_RANGE_MPEG,
            primaries: ff::AVColorPrimaries::AVCOL_PRI_BT709,
            transfer: ff::AVColorTransferCharacteristic::AVCOL_TRC_BT709,
            matrix: ff::AVColorSpace::AVCOL_SPC_BT709,
        }
    }
}

/// How to open x264.
#[derive(Debug)]
pub(crate) struct VideoSettings<'a> {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) frame_rate: Rational,
    pub(crate) bitrate_bps: u32,
    pub(crate) preset: &'a str,
    pub(crate) threads: u32,
    pub(crate) colours: Colours,
}

/// Frames in, coded access units out.
#[derive(Debug)]
pub(crate) struct Encoder(Context);

impl Encoder {
    /// x264 below a ceiling of bits, with times in 1/90000 s, parameter sets out of band, and no key frame unless asked.
    pub(crate) fn x264(settings: &VideoSettings<'_>) -> Result<Self, AvError> {
        let codec = encoder(c"libx264", "libx264")?;
        let mut context = Context::new(codec)?;
        let bitrate = int("video bitrate", settings.bitrate_bps)?;
        let raw = context.raw_mut();
        raw.width = int("picture width", settings.width)?;
        raw.height = int("picture height", settings.height)?;
        raw.pix_fmt = ff::AVPixelFormat::AV_PIX_FMT_YUV420P;
        raw.sample_aspect_ratio = ff::AVRational { num: 1, den: 1 };
        raw.time_base = ff::AVRational { num: 1, den: 90_000 };
        raw.framerate = ff::AVRational {
            num: int("frame rate", settings.frame_rate.num)?,
            den: int("frame rate", settings.frame_rate.den)?,
        };
        // Constant quality below a ceiling: an easy picture does not have to fill the rate it is allowed.
        raw.rc_max_rate = bitrate.into();
        raw.rc_buffer_size = bitrate / 2;
        raw.max_b_frames = 0;
        raw.thread_count = int("threads", settings.threads.max(1))?;
        raw.flags |= ff::AV_CODEC_FLAG_GLOBAL_HEADER as c_int;
        raw.color_range = settings.colours.range;
        raw.color_primaries = settings.colours.primaries;
        raw.color_trc = settings.colours.transfer;
        raw.colorspace = settings.colours.matrix;
        let preset = if settings.preset.is_empty() { "superfast" } else { settings.preset };
        let preset = CString::new(preset).map_err(|_| AvError::Range("preset"))?;
        context.open(
            codec,
            &[
                (c"preset", &preset),
                (c"tune", c"zerolatency"),
                (c"profile", c"high"),
                (c"crf", c"23"),
                (c"forced-idr", c"1"),
                (c"x264-params", c"keyint=infinite:min-keyint=1:scenecut=0:open-gop=0:bframes=0"),
            ],
        )?;
        Ok(Self(context))
    }

    /// AAC-LC from planar float, 1024 samples a frame, times in samples.
    pub(crate) fn aac(bitrate_bps: u32, sample_rate: u32, channels: u32) -> Result<Self, AvError> {
        let codec = encoder(c"aac", "AAC encoder")?;
        let mut context = Context::new(codec)?;
        let channels = int("channels", channels)?;
        let raw = context.raw_mut();
        raw.bit_rate = int("audio bitrate", bitrate_bps)?.into();
        raw.sample_rate = int("sample rate", sample_rate)?;
        raw.sample_fmt = ff::AVSampleFormat::AV_SAMPLE_FMT_FLTP;
        raw.time_base = ff::AVRational { num: 1, den: raw.sample_rate };
        raw.flags |= ff::AV_CODEC_FLAG_GLOBAL_HEADER as c_int;
        // SAFETY: the layout of an unopened context is unset, and the call only writes it.
        unsafe { ff::av_channel_layout_default(&raw mut raw.ch_layout, channels) };
        context.open(codec, &[])?;
        Ok(Self(context))
    }

    /// Parameter sets or AudioSpecificConfig, known from the opening on.
    pub(crate) fn extradata(&self) -> &[u8] {
        let raw = self.0.raw();
        let size = usize::try_from(raw.extradata_size).unwrap_or(0);
        if raw.extradata.is_null() || size == 0 {
            return &[];
        }
        // SAFETY: libav keeps `extradata_size` readable bytes there for the life of the context.
        unsafe { slice::from_raw_parts(raw.extradata, size) }
    }

    /// Audio samples per frame the encoder insists on.
    pub(crate) fn frame_samples(&self) -> usize {
        usize::try_from(self.0.raw().frame_size).unwrap_or(0)
    }

    /// Audio samples that come out before the first one that went in.
    pub(crate) fn priming_samples(&self) -> usize {
        usize::try_from(self.0.raw().initial_padding).unwrap_or(0)
    }

    /// Takes one frame without copying it; `None` starts the draining of what is still inside.
    pub(crate) fn send(&mut self, frame: Option<&Frame>) -> Result<(), AvError> {
        let frame = frame.map_or(ptr::null(), Frame::as_ptr);
        // SAFETY: an opened encoder and a valid frame or null.
        check("avcodec_send_frame", unsafe { ff::avcodec_send_frame(self.0.0.as_ptr(), frame) }).map(|_| ())
    }

    /// Fills `packet` with the next access unit, if there is one.
    pub(crate) fn receive(&mut self, packet: &mut Packet) -> Result<bool, AvError> {
        // SAFETY: an opened encoder and a valid packet, whose old contents the call releases.
        received("avcodec_receive_packet", unsafe {
            ff::avcodec_receive_packet(self.0.0.as_ptr(), packet.as_mut_ptr())
        })
    }
}

fn decoder(id: ff::AVCodecID, name: &'static str) -> Result<NonNull<ff::AVCodec>, AvError> {
    // SAFETY: a look-up among static descriptions.
    NonNull::new(unsafe { ff::avcodec_find_decoder(id) }.cast_mut()).ok_or(AvError::Missing(name))
}

fn encoder(id: &CStr, name: &'static str) -> Result<NonNull<ff::AVCodec>, AvError> {
    // SAFETY: a look-up by a terminated string among static descriptions.
    NonNull::new(unsafe { ff::avcodec_find_encoder_by_name(id.as_ptr()) }.cast_mut())
        .ok_or(AvError::Missing(name))
}
