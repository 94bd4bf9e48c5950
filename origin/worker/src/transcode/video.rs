//! The decoder in front of the lanes, and what it takes to survive its input.
//!
//! Invariants: pictures leave in strictly growing pts; a segment start whose sample was lost moves to the next picture
//! that decodes, in every rung alike; after a decoding error nothing is decoded until the next random access point.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::av::AvError;
use crate::av::codec::Decoder;
use crate::av::frame::Frame;
use crate::av::h264::Mark;
use crate::av::packet::Packet;
use crate::child::Outlet;
use crate::complaint::Complaint;
use crate::protocol::{Totals, TranscodeJob, VideoSample};
use crate::transcode::lane::Lane;

/// Segment starts that may be inside the decoder; far more than it can hold pictures.
const STARTS_MAX: usize = 64;

/// Why the video half of a run cannot start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error(transparent)]
    Av(#[from] AvError),
    #[error("no thread for the rungs: {0}")]
    Thread(#[from] std::io::Error),
}

/// The video half of a run.
#[derive(Debug)]
pub(crate) struct Video {
    decoder: Decoder,
    packet: Packet,
    lanes: Vec<Lane>,
    starts: VecDeque<i64>,
    last_pts: Option<i64>,
    waits_for_sync: bool,
    undecodable: Complaint,
    disordered: Complaint,
}

impl Video {
    pub(crate) fn start(job: &TranscodeJob, outlet: &Arc<Outlet>) -> Result<Self, StartError> {
        Ok(Self {
            decoder: Decoder::h264(&job.video.avcc, job.threads)?,
            packet: Packet::empty()?,
            lanes: Lane::start_all(job, outlet)?,
            starts: VecDeque::new(),
            last_pts: None,
            waits_for_sync: true,
            undecodable: Complaint::new("undecodable video, waiting for a random access point"),
            disordered: Complaint::new("a picture out of order was dropped"),
        })
    }

    pub(crate) fn push(&mut self, sample: &VideoSample, totals: &mut Totals) {
        if sample.segment_start {
            if self.starts.len() == STARTS_MAX {
                self.starts.pop_front();
            }
            self.starts.push_back(sample.pts);
        }
        if self.waits_for_sync && !sample.sync {
            totals.video_dropped += 1;
            return;
        }
        self.waits_for_sync = false;
        if let Err(why) = self.decode(Some(sample), totals) {
            totals.video_dropped += 1;
            self.undecodable.raise(&why);
            self.decoder.reset();
            self.waits_for_sync = true;
        }
    }

    pub(crate) fn finish(mut self, totals: &mut Totals) {
        if let Err(why) = self.decode(None, totals) {
            self.undecodable.raise(&why);
        }
        for lane in self.lanes {
            lane.finish();
        }
    }

    fn decode(&mut self, sample: Option<&VideoSample>, totals: &mut Totals) -> Result<(), AvError> {
        let packet = match sample {
            Some(sample) => {
                self.packet.fill(&sample.payload, sample.dts, sample.pts)?;
                Some(&self.packet)
            }
            None => None,
        };
        self.decoder.send(packet)?;
        loop {
            let mut picture = Frame::empty()?;
            if !self.decoder.receive(&mut picture)? {
                return Ok(());
            }
            self.hand_out(picture, totals);
        }
    }

    fn hand_out(&mut self, picture: Frame, totals: &mut Totals) {
        let pts = picture.pts().filter(|&pts| self.last_pts.is_none_or(|last| pts > last));
        let Some(pts) = pts else {
            totals.video_dropped += 1;
            self.disordered.raise(&format_args!("after {:?}", self.last_pts));
            return;
        };
        self.last_pts = Some(pts);
        totals.video_pictures += 1;
        let mut segment_start = false;
        while self.starts.pop_front_if(|start| *start <= pts).is_some() {
            segment_start = true;
        }
        let mark = Mark { pts, key: segment_start, segment_start };
        let picture = Arc::new(picture);
        for lane in &self.lanes {
            lane.push(Arc::clone(&picture), mark);
        }
    }
}
