//! Pictures on the channel's timeline in, [`VideoFrame`]s out.
//!
//! The encoder sees times relative to its first picture: epoch anchored ticks would still fit its integers, but not
//! every product it makes of them. No B frames, so dts is pts and order is kept.
#![deny(clippy::disallowed_methods)]

use std::collections::VecDeque;

use super::AvError;
use super::codec::{Encoder, VideoSettings};
use super::frame::Frame;
use super::packet::Packet;
use crate::nal;
use crate::protocol::{FromWorker, VideoConfig, VideoFrame};

/// When a picture is shown and what must be true of its coded frame.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mark {
    /// Ticks of 1/90000 s on the channel's timeline.
    pub(crate) pts: i64,
    /// Must be an IDR.
    pub(crate) key: bool,
    /// A segment starts here. Implies `key`.
    pub(crate) segment_start: bool,
}

/// x264 for one track.
#[derive(Debug)]
pub(crate) struct H264Encoder {
    encoder: Encoder,
    packet: Packet,
    track: u16,
    base: Option<i64>,
    inside: VecDeque<Mark>,
}

impl H264Encoder {
    /// Opens the encoder. The configuration must reach the parent before the first frame.
    pub(crate) fn open(track: u16, settings: &VideoSettings<'_>) -> Result<(Self, FromWorker), AvError> {
        let encoder = Encoder::x264(settings)?;
        let avcc = nal::decoder_configuration(encoder.extradata()).ok_or(AvError::Range("parameter sets"))?;
        let config = FromWorker::VideoConfig(VideoConfig {
            track,
            width: settings.width,
            height: settings.height,
            frame_rate: settings.frame_rate,
            avcc,
        });
        let packet = Packet::empty()?;
        Ok((Self { encoder, packet, track, base: None, inside: VecDeque::new() }, config))
    }

    /// Encodes one picture. The first one becomes an IDR whatever its mark says.
    pub(crate) fn encode(
        &mut self,
        picture: &mut Frame,
        mark: Mark,
        sink: &mut dyn FnMut(FromWorker),
    ) -> Result<(), AvError> {
        let key = mark.key || mark.segment_start || self.base.is_none();
        let base = *self.base.get_or_insert(mark.pts);
        picture.stamp(mark.pts - base, key);
        self.encoder.send(Some(picture))?;
        self.inside.push_back(mark);
        self.receive(sink)
    }

    /// Brings out what is still inside. Nothing can be encoded afterwards.
    pub(crate) fn drain(&mut self, sink: &mut dyn FnMut(FromWorker)) -> Result<(), AvError> {
        self.encoder.send(None)?;
        self.receive(sink)
    }

    fn receive(&mut self, sink: &mut dyn FnMut(FromWorker)) -> Result<(), AvError> {
        while self.encoder.receive(&mut self.packet)? {
            let pts = self.base.unwrap_or(0) + self.packet.pts();
            let mut segment_start = false;
            while let Some(mark) = self.inside.pop_front_if(|mark| mark.pts <= pts) {
                segment_start |= mark.segment_start;
            }
            sink(FromWorker::Video(VideoFrame {
                track: self.track,
                dts: pts,
                pts,
                sync: self.packet.is_key(),
                segment_start,
                payload: nal::avcc_from_annex_b(self.packet.bytes()),
            }));
        }
        Ok(())
    }
}
