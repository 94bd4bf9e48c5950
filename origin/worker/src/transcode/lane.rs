//! A thread that encodes some of the rungs.
//!
//! Rungs are dealt to as many lanes as the job has threads, the costliest first, so that decoding the next picture,
//! and the other lanes, go on meanwhile. Pictures are shared, not copied.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};

use crate::av::frame::Frame;
use crate::av::h264::Mark;
use crate::child::Outlet;
use crate::complaint;
use crate::protocol::TranscodeJob;
use crate::transcode::rung::RungEncoder;

/// Decoded pictures that may wait for a lane.
pub(crate) const QUEUE_PICTURES: usize = 3;

type Picture = (Arc<Frame>, Mark);

/// One encoding thread.
#[derive(Debug)]
pub(crate) struct Lane {
    pictures: SyncSender<Picture>,
    thread: JoinHandle<()>,
}

impl Lane {
    /// Starts the lanes of a job whose rungs are checked.
    pub(crate) fn start_all(job: &TranscodeJob, outlet: &Arc<Outlet>) -> io::Result<Vec<Self>> {
        deal(job).into_iter().map(|rungs| Self::start(rungs, Arc::clone(outlet))).collect()
    }

    fn start(rungs: Vec<RungEncoder>, outlet: Arc<Outlet>) -> io::Result<Self> {
        let (pictures, queue) = sync_channel(QUEUE_PICTURES);
        let thread = Builder::new().name("rungs".into()).spawn(move || encode_all(rungs, &queue, &outlet))?;
        Ok(Self { pictures, thread })
    }

    /// Hands over one picture; waits while the queue is full. A lane that died swallows it.
    pub(crate) fn push(&self, picture: Arc<Frame>, mark: Mark) {
        let _ = self.pictures.send((picture, mark));
    }

    /// Lets the rungs finish what they have and come to rest.
    pub(crate) fn finish(self) {
        drop(self.pictures);
        if self.thread.join().is_err() {
            complaint::line(&"an encoding thread died; its rungs are incomplete");
        }
    }
}

fn encode_all(mut rungs: Vec<RungEncoder>, queue: &Receiver<Picture>, outlet: &Outlet) {
    while let Ok((picture, mark)) = queue.recv() {
        for rung in &mut rungs {
            rung.push(&picture, mark, outlet);
        }
    }
    for rung in rungs {
        rung.finish(outlet);
    }
}

fn deal(job: &TranscodeJob) -> Vec<Vec<RungEncoder>> {
    let threads = usize::try_from(job.threads).unwrap_or(1).max(1);
    let lanes = threads.min(job.rungs.len());
    // Threads beyond one per rung slice the pictures of each.
    let slices = u32::try_from(threads / job.rungs.len().max(1)).unwrap_or(1).max(1);
    let mut order: Vec<usize> = (0..job.rungs.len()).collect();
    order.sort_by_key(|&at| std::cmp::Reverse(pixels(job, at)));
    let mut dealt: Vec<(u64, Vec<RungEncoder>)> = (0..lanes).map(|_| (0, Vec::new())).collect();
    for at in order {
        let Some((load, rungs)) = dealt.iter_mut().min_by_key(|(load, _)| *load) else {
            break;
        };
        *load += pixels(job, at);
        let track = u16::try_from(at).unwrap_or(u16::MAX);
        rungs.push(RungEncoder::new(track, job.rungs[at].clone(), job.video.frame_rate, slices));
    }
    dealt.into_iter().map(|(_, rungs)| rungs).collect()
}

fn pixels(job: &TranscodeJob, at: usize) -> u64 {
    let rung = &job.rungs[at];
    u64::from(rung.width) * u64::from(rung.height)
}
