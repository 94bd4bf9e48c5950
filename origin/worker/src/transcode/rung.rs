//! One rendition: thin out, scale, encode.

use crate::av::AvError;
use crate::av::codec::{Colours, VideoSettings};
use crate::av::frame::Frame;
use crate::av::h264::{H264Encoder, Mark};
use crate::av::scale::Scaler;
use crate::child::Outlet;
use crate::complaint::{self, Complaint};
use crate::protocol::{Rational, Rung};
use crate::transcode::thinning::Thinning;

/// A rung of a running ladder. Its encoder opens with the first picture, which knows the colours.
#[derive(Debug)]
pub(crate) struct RungEncoder {
    track: u16,
    rung: Rung,
    source_rate: Rational,
    threads: u32,
    thinning: Thinning,
    scaler: Option<Scaler>,
    state: State,
    complaint: Complaint,
}

#[derive(Debug)]
enum State {
    Waiting,
    Open(H264Encoder),
    Failed,
}

impl RungEncoder {
    /// `threads` are this rung's alone and cut each picture into as many slices.
    pub(crate) fn new(track: u16, rung: Rung, source_rate: Rational, threads: u32) -> Self {
        Self {
            track,
            thinning: Thinning::new(source_rate, rung.max_frame_rate),
            rung,
            source_rate,
            threads,
            scaler: None,
            state: State::Waiting,
            complaint: Complaint::new("a picture could not be encoded"),
        }
    }

    /// Encodes `picture` unless the thinning drops it.
    pub(crate) fn push(&mut self, picture: &Frame, mark: Mark, outlet: &Outlet) {
        if !self.thinning.keeps(mark.pts, mark.segment_start) {
            return;
        }
        if matches!(self.state, State::Waiting) {
            self.state = match self.open(picture, outlet) {
                Ok(encoder) => State::Open(encoder),
                Err(why) => {
                    complaint::line(&format_args!("rung {} cannot start: {why}", self.rung.id));
                    State::Failed
                }
            };
        }
        if let State::Open(encoder) = &mut self.state
            && let Err(why) = encode(encoder, &mut self.scaler, &self.rung, (picture, mark, outlet))
        {
            self.complaint.raise(&format_args!("rung {}: {why}", self.rung.id));
        }
    }

    /// Brings out what is still inside.
    pub(crate) fn finish(mut self, outlet: &Outlet) {
        if let State::Open(encoder) = &mut self.state
            && let Err(why) = encoder.drain(&mut |message| outlet.send(&message))
        {
            self.complaint.raise(&format_args!("rung {}: {why}", self.rung.id));
        }
    }

    fn open(&self, picture: &Frame, outlet: &Outlet) -> Result<H264Encoder, AvError> {
        let (encoder, config) = H264Encoder::open(
            self.track,
            &VideoSettings {
                width: self.rung.width,
                height: self.rung.height,
                frame_rate: self.thinning.frame_rate(self.source_rate, self.rung.max_frame_rate),
                bitrate_bps: self.rung.bitrate_bps,
                preset: &self.rung.preset,
                threads: self.threads,
                colours: Colours::of(picture),
            },
        )?;
        outlet.send(&config);
        Ok(encoder)
    }
}

fn encode(
    encoder: &mut H264Encoder,
    scaler: &mut Option<Scaler>,
    rung: &Rung,
    (picture, mark, outlet): (&Frame, Mark, &Outlet),
) -> Result<(), AvError> {
    let sink = &mut |message| outlet.send(&message);
    if picture.is_yuv420p() && picture.size() == (rung.width, rung.height) {
        return encoder.encode(&mut picture.share()?, mark, sink);
    }
    let scaler = match scaler {
        Some(scaler) => scaler,
        None => scaler.insert(Scaler::new(rung.width, rung.height)?),
    };
    encoder.encode(scaler.scale(picture)?, mark, sink)
}
