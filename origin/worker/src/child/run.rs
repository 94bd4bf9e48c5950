//! What the child is busy with, and what each message does to it.

use std::sync::Arc;

use crate::child::{Outlet, Wait};
use crate::complaint;
use crate::protocol::{FromWorker, Job, ToWorker, Totals};
use crate::source::Source;
use crate::transcode::Transcoder;

/// Nothing, or a job.
#[derive(Debug)]
pub(crate) enum Run {
    Idle,
    Transcode(Box<Transcoder>),
    Source(Box<Source>),
}

impl Run {
    /// Acts on one message. Samples without a transcoding run are ignored: their `Start` failed and said so.
    pub(crate) fn take(mut self, message: ToWorker, outlet: &Arc<Outlet>) -> Self {
        match message {
            ToWorker::Start(job) => {
                self.end(outlet);
                Self::start(&job, outlet)
            }
            ToWorker::Flush => {
                outlet.send(&FromWorker::Flushed(self.end(outlet)));
                Self::Idle
            }
            ToWorker::Video(sample) => {
                if let Self::Transcode(transcoder) = &mut self {
                    transcoder.video(&sample);
                }
                self
            }
            ToWorker::Audio(frame) => {
                if let Self::Transcode(transcoder) = &mut self {
                    transcoder.audio(&frame);
                }
                self
            }
        }
    }

    /// Does what is due by the clock.
    pub(crate) fn tick(&mut self, outlet: &Outlet) -> Wait {
        match self {
            Self::Idle | Self::Transcode(_) => None,
            Self::Source(source) => Some(source.tick(outlet)),
        }
    }

    /// Brings out everything still inside.
    pub(crate) fn end(self, outlet: &Outlet) -> Totals {
        match self {
            Self::Idle => Totals::default(),
            Self::Transcode(transcoder) => transcoder.finish(),
            Self::Source(source) => source.finish(outlet),
        }
    }

    fn start(job: &Job, outlet: &Arc<Outlet>) -> Self {
        match job {
            Job::Transcode(job) => Self::Transcode(Box::new(Transcoder::start(job, outlet))),
            Job::TestSource(job) => match Source::start(job, outlet) {
                Ok(source) => Self::Source(Box::new(source)),
                Err(why) => {
                    complaint::line(&format_args!("test source cannot start: {why}"));
                    Self::Idle
                }
            },
        }
    }
}
