//! Sound: decode, resample, encode, on an unbroken sample clock.
//!
//! The output's times come from counting samples from an anchor, the pts of the first input. Input times are only
//! compared with it: within [`RESYNC_TICKS`] they are jitter and ignored; a greater step forward ends the block in
//! silence and sets a new anchor, a greater step back is dropped until the input has caught up. An access unit that
//! cannot be decoded becomes as much silence, so the clock keeps its place.

use std::sync::Arc;

use crate::av::AvError;
use crate::av::aac::{AacEncoder, AudioSettings};
use crate::av::codec::Decoder;
use crate::av::frame::Frame;
use crate::av::packet::Packet;
use crate::av::resample::Resampler;
use crate::child::Outlet;
use crate::complaint::Complaint;
use crate::protocol::{AudioFrame, AudioJob, Totals};

/// Greatest difference between input time and sample clock that counts as jitter: 100 ms.
const RESYNC_TICKS: i64 = 9_000;
const TICKS_PER_SECOND: i64 = 90_000;

/// The audio half of a run.
#[derive(Debug)]
pub(crate) struct Audio {
    decoder: Decoder,
    resampler: Resampler,
    encoder: AacEncoder,
    packet: Packet,
    decoded: Frame,
    outlet: Arc<Outlet>,
    sample_rate: u32,
    /// Samples waiting to fill a block, one vector per channel.
    pending: Vec<Vec<f32>>,
    /// Time of the first input since the last resynchronisation, ticks.
    anchor: Option<i64>,
    /// Output samples encoded since the anchor.
    encoded: i64,
    /// How much input has come since the anchor: where it should go on.
    input: InputClock,
    undecodable: Complaint,
    jumped: Complaint,
}

/// Counts input samples from the anchor.
#[derive(Debug, Clone, Copy, Default)]
struct InputClock {
    samples: i64,
    sample_rate: i64,
    block_samples: i64,
}

impl InputClock {
    fn ticks(self) -> i64 {
        if self.sample_rate == 0 { 0 } else { self.samples * TICKS_PER_SECOND / self.sample_rate }
    }
}

impl Audio {
    pub(crate) fn start(job: &AudioJob, outlet: &Arc<Outlet>) -> Result<Self, AvError> {
        let channels = if job.channels == 1 { 1 } else { 2 };
        let settings = AudioSettings { bitrate_bps: job.bitrate_bps, sample_rate: job.sample_rate, channels };
        let decoder = Decoder::aac(&job.asc)?;
        let (encoder, config) = AacEncoder::open(settings)?;
        outlet.send(&config);
        Ok(Self {
            decoder,
            resampler: Resampler::new(job.sample_rate, channels),
            encoder,
            packet: Packet::empty()?,
            decoded: Frame::empty()?,
            outlet: Arc::clone(outlet),
            sample_rate: job.sample_rate,
            pending: (0..channels).map(|_| Vec::new()).collect(),
            anchor: None,
            encoded: 0,
            input: InputClock::default(),
            undecodable: Complaint::new("undecodable audio became silence"),
            jumped: Complaint::new("audio time jumped"),
        })
    }

    pub(crate) fn push(&mut self, frame: &AudioFrame, totals: &mut Totals) {
        let result = self.packet.fill(&frame.payload, frame.pts, frame.pts);
        let result = result.and_then(|()| self.decoder.send(Some(&self.packet)));
        if let Err(why) = result.and_then(|()| self.take_decoded(totals)) {
            totals.audio_dropped += 1;
            self.undecodable.raise(&why);
            self.decoder.reset();
            if let Err(why) = self.conceal() {
                self.undecodable.raise(&why);
            }
        }
    }

    pub(crate) fn finish(mut self, totals: &mut Totals) {
        let drained = self.decoder.send(None).and_then(|()| self.take_decoded(totals));
        let drained = drained.and_then(|()| self.complete_block());
        let outlet = Arc::clone(&self.outlet);
        let drained = drained.and_then(|()| self.encoder.drain(&mut |message| outlet.send(&message)));
        if let Err(why) = drained {
            self.undecodable.raise(&why);
        }
    }

    fn take_decoded(&mut self, totals: &mut Totals) -> Result<(), AvError> {
        while self.decoder.receive(&mut self.decoded)? {
            if !self.synchronise()? {
                totals.audio_dropped += 1;
                continue;
            }
            self.resampler.convert(Some(&self.decoded), &mut self.pending)?;
            self.encode_blocks()?;
        }
        Ok(())
    }

    /// Holds the decoded frame's time against the sample clock. `false` drops the frame.
    fn synchronise(&mut self) -> Result<bool, AvError> {
        let sample_rate = i64::from(self.decoded.sample_rate());
        let samples = i64::try_from(self.decoded.samples()).unwrap_or(0);
        let expected = self.anchor.map(|anchor| anchor + self.input.ticks());
        let pts = self.decoded.pts().or(expected).unwrap_or(0);
        match expected.map(|expected| pts - expected) {
            Some(step) if step < -RESYNC_TICKS => {
                self.jumped.raise(&format_args!("back by {} ms, dropped", -step / 90));
                return Ok(false);
            }
            Some(step) if step > RESYNC_TICKS => {
                self.jumped.raise(&format_args!("forward by {} ms", step / 90));
                self.complete_block()?;
                self.restart_at(pts);
            }
            // A new input rate restarts the count without a new place: nothing is lost between.
            Some(_) if sample_rate != self.input.sample_rate => {
                let at = expected.unwrap_or(pts);
                self.complete_block()?;
                self.restart_at(at.max(self.output_end()));
            }
            Some(_) => {}
            None => self.restart_at(pts),
        }
        self.input.sample_rate = sample_rate;
        self.input.block_samples = samples;
        self.input.samples += samples;
        Ok(true)
    }

    fn restart_at(&mut self, pts: i64) {
        self.anchor = Some(pts);
        self.encoded = 0;
        self.input = InputClock::default();
    }

    fn output_end(&self) -> i64 {
        self.anchor.unwrap_or(0) + self.encoded * TICKS_PER_SECOND / i64::from(self.sample_rate.max(1))
    }

    /// Silence in the place of an access unit that could not be decoded.
    fn conceal(&mut self) -> Result<(), AvError> {
        let InputClock { sample_rate, block_samples, .. } = self.input;
        if self.anchor.is_none() || sample_rate == 0 {
            return Ok(());
        }
        self.input.samples += block_samples;
        let silent = block_samples * i64::from(self.sample_rate) / sample_rate;
        self.pad(usize::try_from(silent).unwrap_or(0));
        self.encode_blocks()
    }

    fn pad(&mut self, samples: usize) {
        for channel in &mut self.pending {
            channel.resize(channel.len() + samples, 0.0);
        }
    }

    /// Takes what the resampler still holds and fills the last block up with silence.
    fn complete_block(&mut self) -> Result<(), AvError> {
        self.resampler.convert(None, &mut self.pending)?;
        self.resampler.close();
        let block = self.encoder.block_samples();
        let rest = self.pending.first().map_or(0, Vec::len) % block;
        if rest > 0 {
            self.pad(block - rest);
        }
        self.encode_blocks()
    }

    fn encode_blocks(&mut self) -> Result<(), AvError> {
        let block = self.encoder.block_samples();
        let mut taken = 0;
        while self.pending.iter().all(|channel| channel.len() >= taken + block) {
            let pts = self.output_end();
            let (pending, outlet) = (&self.pending, &self.outlet);
            self.encoder.encode(
                pts,
                |channel, samples| samples.copy_from_slice(&pending[channel][taken..taken + block]),
                &mut |message| outlet.send(&message),
            )?;
            taken += block;
            self.encoded += i64::try_from(block).unwrap_or(0);
        }
        for channel in &mut self.pending {
            channel.drain(..taken);
        }
        Ok(())
    }
}
