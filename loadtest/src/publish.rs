//! `sigma-load publish`: broadcasters in numbers, each sending a file, a stream or a test source in real time.
//!
//! Invariants: whatever is sent leaves when it is due and not before; publishers do not wait for each other; a report has
//! every publisher in it, whatever became of it, and nobody's stream key. Deliberately absent: transcoding (what a file
//! has is sent as it is), RTMPS.

mod ffmpeg;
mod publisher;
mod report;
mod rtmp;
mod source;
mod tag;
mod target;

use sigma_rtmp::flv::FlvError;
use sigma_rtmp::{ClientError, SessionError};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use target::{Target, TargetError};
use tokio::sync::watch;
use tokio::task::JoinSet;

pub(crate) use ffmpeg::Picture;
pub(crate) use report::PublishReport;
pub(crate) use source::Input;

/// A broadcast could not begin or go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PublishError {
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error("{host} is not a loopback address; --allow-remote permits other targets")]
    NotLoopback { host: String },
    #[error("cannot connect to {server}: {error}")]
    Connect { server: String, error: std::io::Error },
    #[error("no answer from the server within {:?}", rtmp::ANSWER_TIMEOUT)]
    NoAnswer,
    #[error("refused by the server: {code} {description}")]
    Refused { code: String, description: String },
    #[error("the server closed the connection")]
    Closed,
    #[error("connection lost: {0}")]
    Lost(std::io::Error),
    #[error("the server breaks the protocol: {0}")]
    Protocol(#[from] SessionError),
    #[error("not sent: {0}")]
    Send(#[from] ClientError),
    #[error("{path}: {error}")]
    File { path: PathBuf, error: std::io::Error },
    #[error("the input is not usable: {0}")]
    Flv(#[from] FlvError),
    #[error("the input ends in the middle of a tag")]
    Cut,
    #[error("nothing was sent: the input has no media, or it came too late")]
    Nothing,
    #[error("the server takes nothing any more")]
    Stuck,
    #[error("the input has no media that lasts, it cannot be looped")]
    NoLength,
    #[error("{program}: no such program; {what} needs ffmpeg (apt-get install ffmpeg, or --ffmpeg PROGRAM)")]
    NoFfmpeg { program: PathBuf, what: String },
    #[error(transparent)]
    Input(Arc<PublishError>),
    #[error("ffmpeg, {what}: {said}")]
    Ffmpeg { what: String, said: String },
}

/// What to send, and where to.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    /// `rtmp://` or `srt://`; `{n}` is the publisher's number, from 1.
    pub(crate) url: String,
    pub(crate) count: u32,
    pub(crate) input: Input,
    pub(crate) repeat: bool,
    /// Each ends after this time; `None`: with the input.
    pub(crate) duration: Option<Duration>,
    /// How often each may connect again after it lost its server.
    pub(crate) reconnects: u32,
    pub(crate) allow_remote: bool,
    /// The program.
    pub(crate) ffmpeg: PathBuf,
    /// Errors up to this many are none.
    pub(crate) max_errors: u64,
}

/// Sends until the input or the time ends, or `stop` resolves.
///
/// # Errors
/// Nobody could begin, whatever the servers say: the caller's fault.
pub(crate) async fn run(order: Order, stop: impl Future<Output = ()>) -> Result<PublishReport, PublishError> {
    let targets = Target::of_all(&order.url, order.count)?;
    for target in &targets {
        rtmp::resolve(target, order.allow_remote).await?;
    }
    let reading =
        source::Reading { input: order.input.clone(), repeat: order.repeat, ffmpeg: order.ffmpeg.clone() };
    let feeds = source::feeds(&reading, targets.len());
    let (stopping, stopped) = watch::channel(false);
    let order = Arc::new(order);
    let mut publishers = JoinSet::new();
    for (number, (target, feed)) in (1u32..).zip(targets.into_iter().zip(feeds)) {
        let publisher = publisher::Publisher::new(Arc::clone(&order), (number, target), stopped.clone());
        publishers.spawn(publisher.run(feed));
    }
    let mut reports = Vec::new();
    tokio::pin!(stop);
    loop {
        tokio::select! {
            () = &mut stop, if !*stopping.borrow() => {
                stopping.send_replace(true);
            }
            ended = publishers.join_next() => match ended {
                Some(Ok(report)) => reports.push(report),
                Some(Err(error)) => tracing::error!(%error, "a publisher ended without a report"),
                None => break,
            },
        }
    }
    Ok(PublishReport::new(reports, order.max_errors))
}

#[cfg(test)]
mod tests;
