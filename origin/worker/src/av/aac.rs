//! Blocks of 1024 samples on the channel's timeline in, [`AudioFrame`]s out.
//!
//! An AAC encoder is a block late: the first access unit decodes to silence (priming) and access unit n+1 decodes to
//! block n. Nothing downstream writes edit lists, so a player shows an access unit's sound at its own time; therefore
//! the priming unit is dropped and every other one carries the time of the block it decodes to. Sound stays where it
//! was, to the sample; only the first block fades in.
#![deny(clippy::disallowed_methods)]

use std::collections::VecDeque;

use bytes::Bytes;

use super::AvError;
use super::codec::Encoder;
use super::frame::Frame;
use super::packet::Packet;
use crate::protocol::{AudioFrame, FromWorker};

/// Output of the AAC track.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AudioSettings {
    pub(crate) bitrate_bps: u32,
    pub(crate) sample_rate: u32,
    /// 1 or 2.
    pub(crate) channels: u32,
}

/// AAC-LC for the one audio track.
#[derive(Debug)]
pub(crate) struct AacEncoder {
    encoder: Encoder,
    packet: Packet,
    block: Frame,
    channels: usize,
    samples_in: i64,
    priming_units: usize,
    inside: VecDeque<i64>,
}

impl AacEncoder {
    /// Opens the encoder. The configuration must reach the parent before the first frame.
    pub(crate) fn open(settings: AudioSettings) -> Result<(Self, FromWorker), AvError> {
        let AudioSettings { bitrate_bps, sample_rate, channels } = settings;
        let encoder = Encoder::aac(bitrate_bps, sample_rate, channels)?;
        let samples = encoder.frame_samples();
        if samples == 0 {
            return Err(AvError::Range("AAC frame size"));
        }
        let config = FromWorker::AudioConfig(Bytes::copy_from_slice(encoder.extradata()));
        let opened = Self {
            priming_units: encoder.priming_samples().div_ceil(samples),
            block: Frame::audio(samples, channels, sample_rate)?,
            packet: Packet::empty()?,
            channels: usize::try_from(channels).unwrap_or(0),
            encoder,
            samples_in: 0,
            inside: VecDeque::new(),
        };
        Ok((opened, config))
    }

    /// Samples per channel in a block.
    pub(crate) fn block_samples(&self) -> usize {
        self.block.samples()
    }

    /// Encodes one block whose first sample is heard at `pts`; `fill` writes the samples of each channel.
    pub(crate) fn encode(
        &mut self,
        pts: i64,
        mut fill: impl FnMut(usize, &mut [f32]),
        sink: &mut dyn FnMut(FromWorker),
    ) -> Result<(), AvError> {
        for channel in 0..self.channels {
            fill(channel, self.block.channel_mut(channel)?);
        }
        self.block.stamp(self.samples_in, false);
        self.samples_in += i64::try_from(self.block_samples()).unwrap_or(0);
        self.encoder.send(Some(&self.block))?;
        self.inside.push_back(pts);
        self.receive(sink)
    }

    /// Brings out what is still inside. Nothing can be encoded afterwards.
    pub(crate) fn drain(&mut self, sink: &mut dyn FnMut(FromWorker)) -> Result<(), AvError> {
        self.encoder.send(None)?;
        self.receive(sink)
    }

    fn receive(&mut self, sink: &mut dyn FnMut(FromWorker)) -> Result<(), AvError> {
        while self.encoder.receive(&mut self.packet)? {
            if self.priming_units > 0 {
                self.priming_units -= 1;
                continue;
            }
            if let Some(pts) = self.inside.pop_front() {
                let payload = Bytes::copy_from_slice(self.packet.bytes());
                sink(FromWorker::Audio(AudioFrame { pts, payload }));
            }
        }
        Ok(())
    }
}
