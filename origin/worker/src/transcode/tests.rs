use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use super::*;
use crate::av::codec::Decoder;
use crate::av::frame::Frame;
use crate::av::packet::Packet;
use crate::clock_code;
use crate::protocol::{FrameReader, FromWorker, Rational, Rung, TestSourceJob, VideoInput};
use crate::source::Source;

#[derive(Clone, Default)]
struct Tape(Arc<Mutex<FrameReader<FromWorker>>>);

impl Write for Tape {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Tape {
    fn new() -> (Self, Arc<Outlet>) {
        let tape = Self::default();
        let outlet = Outlet::new(Box::new(tape.clone()));
        (tape, Arc::new(outlet))
    }

    fn messages(&self) -> Vec<FromWorker> {
        let mut reader = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::iter::from_fn(|| reader.pull().unwrap()).collect()
    }
}

fn avcc_of(messages: &[FromWorker]) -> Vec<u8> {
    messages
        .iter()
        .find_map(|message| match message {
            FromWorker::VideoConfig(config) => Some(config.avcc.to_vec()),
            _ => None,
        })
        .unwrap()
}

/// Times of the pictures and the clocks read from them.
fn clocks(messages: &[FromWorker]) -> Vec<(i64, Option<u64>)> {
    let mut decoder = Decoder::h264(&avcc_of(messages), 1).unwrap();
    let (mut packet, mut picture) = (Packet::empty().unwrap(), Frame::empty().unwrap());
    let mut clocks = Vec::new();
    for message in messages {
        let FromWorker::Video(frame) = message else {
            continue;
        };
        packet.fill(&frame.payload, frame.dts, frame.pts).unwrap();
        decoder.send(Some(&packet)).unwrap();
        while decoder.receive(&mut picture).unwrap() {
            let (width, height) = picture.size();
            let pts = picture.pts().unwrap();
            let (luma, stride) = picture.plane_mut(0).unwrap();
            clocks.push((pts, clock_code::read(luma, stride, width as usize, height as usize)));
        }
    }
    clocks
}

#[test]
fn the_burned_in_clock_survives_two_encodings_at_360p() {
    let (tape, outlet) = Tape::new();
    let job = TestSourceJob {
        width: 1280,
        height: 720,
        frame_rate: Rational { num: 30, den: 1 },
        video_bitrate_bps: 2_500_000,
        audio_bitrate_bps: 96_000,
        gop_frames: 30,
        preset: "ultrafast".into(),
        label: "demo".into(),
        real_time: false,
    };
    let mut source = Source::start(&job, &outlet).unwrap();
    for _ in 0..24 {
        source.tick(&outlet);
    }
    source.finish(&outlet);
    let footage = tape.messages();
    let job = TranscodeJob {
        video: VideoInput {
            avcc: avcc_of(&footage),
            width: 1280,
            height: 720,
            frame_rate: Rational { num: 30, den: 1 },
        },
        audio: None,
        rungs: vec![Rung {
            id: "360p".into(),
            width: 640,
            height: 360,
            bitrate_bps: 600_000,
            max_frame_rate: 30,
            preset: String::new(),
        }],
        threads: 1,
    };
    let mut transcoder = Transcoder::start(&job, &outlet);
    for message in &footage {
        if let FromWorker::Video(frame) = message {
            transcoder.video(&VideoSample {
                dts: frame.dts,
                pts: frame.pts,
                sync: frame.sync,
                segment_start: frame.segment_start,
                payload: frame.payload.clone(),
            });
        }
    }
    transcoder.finish();
    let clocks = clocks(&tape.messages());
    assert_eq!(clocks.len(), 24);
    let first = clocks[0].1.unwrap();
    for (pts, clock) in clocks {
        let media_ms = u64::try_from(pts / 90).unwrap();
        assert!(clock.is_some_and(|clock| (clock - first).abs_diff(media_ms) <= 1), "{pts}: {clock:?}");
    }
}
