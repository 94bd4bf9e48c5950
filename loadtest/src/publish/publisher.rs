//! One publisher: connects, sends what is due, and comes back when it lost its server, if it may.
//!
//! Invariants: time goes on while the server is away, as at a live encoder: what would have been sent is left out, and it
//! begins again with a key frame and everything that a decoder needs before it.

use super::ffmpeg::{Ffmpeg, Work};
use super::report::PublisherReport;
use super::rtmp::{self, Connection};
use super::source::{Due, Feed};
use super::tag::{Headers, Role, role};
use super::target::Target;
use super::{Order, PublishError};
use bytes::BytesMut;
use sigma_rtmp::flv::{FlvTag, TagKind, write_file_header, write_tag};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::ChildStdin;
use tokio::sync::watch;
use tokio::time::Instant;

/// Between losing a server and connecting again.
const RECONNECT_AFTER: Duration = Duration::from_secs(1);
/// How long what is being sent may still take when the time is over.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// See the module.
pub(crate) struct Publisher {
    order: Arc<Order>,
    target: Target,
    stopped: watch::Receiver<bool>,
    report: PublisherReport,
    headers: Headers,
    /// When there was a server first.
    opened: Option<Instant>,
    /// When the input's first moment was due.
    base: Option<Instant>,
    next: Option<Due>,
    /// It was away: the server does not know the headers yet.
    resuming: bool,
}

/// The way to a server.
enum Sink {
    Rtmp(Box<Connection>),
    Srt { ffmpeg: Box<Ffmpeg>, input: ChildStdin, buffer: BytesMut, bytes: u64 },
}

impl Sink {
    async fn open(order: &Order, target: &Target) -> Result<Self, PublishError> {
        match target {
            Target::Rtmp(url) => {
                Connection::open(target, url, order.allow_remote).await.map(Box::new).map(Self::Rtmp)
            }
            Target::Srt { url, .. } => {
                rtmp::resolve(target, order.allow_remote).await?;
                let mut ffmpeg = Ffmpeg::start(&order.ffmpeg, Work::Srt(url.clone()))?;
                let Some(input) = ffmpeg.input() else { return Err(ffmpeg.complaint().await) };
                let mut buffer = BytesMut::new();
                write_file_header(true, true, &mut buffer);
                Ok(Self::Srt { ffmpeg: Box::new(ffmpeg), input, buffer, bytes: 0 })
            }
        }
    }

    /// Resolves when the server said something; what it said is answered with the next flush. Safe to cancel.
    async fn hears(&mut self) -> Result<(), PublishError> {
        match self {
            Self::Rtmp(connection) => connection.receive().await.map(|_| ()),
            Self::Srt { ffmpeg, .. } => {
                let _ = ffmpeg.ended().await;
                Err(ffmpeg.complaint().await)
            }
        }
    }

    fn send(&mut self, tag: &FlvTag, at_ms: u64) -> Result<(), PublishError> {
        match self {
            Self::Rtmp(connection) => connection.send(tag, at_ms),
            Self::Srt { buffer, .. } => {
                // Those of FLV wrap at 2^32 ms.
                let timestamp_ms = (at_ms & u64::from(u32::MAX)) as u32;
                Ok(write_tag(&FlvTag { timestamp_ms, ..tag.clone() }, buffer)?)
            }
        }
    }

    async fn flush(&mut self) -> Result<(), PublishError> {
        match self {
            Self::Rtmp(connection) => connection.flush().await,
            Self::Srt { ffmpeg, input, buffer, bytes } => {
                let length = buffer.len() as u64;
                if length == 0 {
                    return Ok(());
                }
                if input.write_all_buf(buffer).await.is_err() {
                    let _ = ffmpeg.ended().await;
                    return Err(ffmpeg.complaint().await);
                }
                *bytes += length;
                Ok(())
            }
        }
    }

    fn bytes(&self) -> u64 {
        match self {
            Self::Rtmp(connection) => connection.bytes,
            Self::Srt { bytes, .. } => *bytes,
        }
    }

    async fn finish(self) -> Result<u64, PublishError> {
        match self {
            Self::Rtmp(mut connection) => connection.finish().await.map(|()| connection.bytes),
            Self::Srt { ffmpeg, mut input, bytes, .. } => {
                // An end that the child is not there to read shows in how it ended.
                let _ = input.shutdown().await;
                drop(input);
                ffmpeg.finish().await.map(|()| bytes)
            }
        }
    }
}

impl Publisher {
    pub(crate) fn new(
        order: Arc<Order>,
        (number, target): (u32, Target),
        stopped: watch::Receiver<bool>,
    ) -> Self {
        let report = PublisherReport { number, server: target.server(), ..PublisherReport::default() };
        Self {
            order,
            target,
            stopped,
            report,
            headers: Headers::default(),
            opened: None,
            base: None,
            next: None,
            resuming: false,
        }
    }

    /// From the beginning to the end.
    pub(crate) async fn run(mut self, mut feed: Feed) -> PublisherReport {
        let mut tries = 0;
        loop {
            let opened = tokio::select! {
                opened = Sink::open(&self.order, &self.target) => opened,
                () = stopping(self.stopped.clone()) => break,
            };
            let result = match opened {
                Ok(sink) => {
                    tracing::info!(number = self.report.number, server = %self.report.server, "publishing");
                    self.report.reconnects += u64::from(tries > 0);
                    self.send_all(sink, &mut feed).await
                }
                Err(error) => Err(error),
            };
            let Err(error) = result else { break };
            self.fails(&error);
            if tries == self.order.reconnects || !is_loss(&error) {
                break;
            }
            tries += 1;
            tokio::select! {
                () = tokio::time::sleep(RECONNECT_AFTER) => {}
                () = stopping(self.stopped.clone()) => break,
            }
        }
        if self.report.errors.is_empty() && self.report.video_tags + self.report.audio_tags == 0 {
            self.fails(&PublishError::Nothing);
        }
        self.report.seconds = self.base.map_or(0.0, |base| base.elapsed().as_secs_f64());
        self.report
    }

    fn fails(&mut self, error: &PublishError) {
        tracing::error!(number = self.report.number, "{error}");
        self.report.errors.push(error.to_string());
    }

    /// Sends until the end; `Err` if it came too early.
    async fn send_all(&mut self, mut sink: Sink, feed: &mut Feed) -> Result<(), PublishError> {
        let opened = *self.opened.get_or_insert_with(Instant::now);
        let mut resumes = self.resumes();
        let before = self.report.bytes;
        let result = loop {
            let due = self.next.as_ref().and_then(|next| self.due(next));
            let turn = tokio::select! {
                () = self.over(opened) => break Ok(()),
                heard = sink.hears() => heard,
                item = feed.recv(), if self.next.is_none() => match item {
                    Some(Ok(next)) => {
                        self.takes(next, &mut resumes);
                        Ok(())
                    }
                    Some(Err(error)) => break Err(PublishError::Input(error)),
                    None => {
                        self.report.input_ended = true;
                        break Ok(());
                    }
                },
                () = until(due), if due.is_some() => self.sends(&mut sink),
            };
            if let Err(error) = turn {
                break Err(error);
            }
            let over = self.over(opened);
            let too_late = async {
                over.await;
                tokio::time::sleep(FLUSH_TIMEOUT).await;
            };
            let flushed = tokio::select! {
                flushed = sink.flush() => flushed,
                () = too_late => Err(PublishError::Stuck),
            };
            self.report.bytes = before + sink.bytes();
            if let Err(error) = flushed {
                break Err(error);
            }
        };
        result?;
        self.report.bytes = before + sink.finish().await?;
        Ok(())
    }

    /// Resolves when its time is over, which begins with the first tag, if there is one, or when it has to stop.
    fn over(&self, opened: Instant) -> impl Future<Output = ()> + use<> {
        let over = self.order.duration.map(|duration| self.base.unwrap_or(opened) + duration);
        let stopped = self.stopped.clone();
        async move {
            tokio::select! {
                () = stopping(stopped) => {}
                () = until(over) => {}
            }
        }
    }

    fn due(&self, next: &Due) -> Option<Instant> {
        Some(self.base? + Duration::from_millis(next.at_ms))
    }

    /// Whether it was sending before. What was next then is next only if it still may be.
    fn resumes(&mut self) -> bool {
        let mut resumes = self.base.is_some();
        if let Some(stale) = self.next.take_if(|_| resumes) {
            self.takes(Due { skipped: 0, ..stale }, &mut resumes);
        }
        resumes
    }

    /// A tag came: it is the next one, if it is not of the time that the server was away.
    fn takes(&mut self, next: Due, resumes: &mut bool) {
        let now = Instant::now();
        self.base.get_or_insert_with(|| now.checked_sub(Duration::from_millis(next.at_ms)).unwrap_or(now));
        self.headers.note(&next.tag);
        self.report.skipped_tags += next.skipped;
        if *resumes {
            let begins = match role(&next.tag) {
                Role::Key => true,
                Role::Header => false,
                Role::Other => !self.headers.has_video,
            };
            if !begins || self.due(&next).is_some_and(|due| due < now) {
                self.report.skipped_tags += u64::from(role(&next.tag) != Role::Header);
                return;
            }
        }
        self.next = Some(next);
        self.resuming |= std::mem::take(resumes);
    }

    fn sends(&mut self, sink: &mut Sink) -> Result<(), PublishError> {
        let Some(next) = self.next.take() else { return Ok(()) };
        if let Some(due) = self.due(&next) {
            self.report.late_max_ms = self.report.late_max_ms.max(due.elapsed().as_secs_f64() * 1000.0);
        }
        if std::mem::take(&mut self.resuming) {
            for header in self.headers.tags() {
                sink.send(header, next.at_ms)?;
            }
        }
        match next.tag.kind {
            TagKind::Video => self.report.video_tags += 1,
            TagKind::Audio => self.report.audio_tags += 1,
            TagKind::Script => {}
        }
        self.report.media_seconds = Duration::from_millis(next.at_ms).as_secs_f64();
        sink.send(&next.tag, next.at_ms)
    }
}

/// Resolves when all have to stop.
async fn stopping(mut stopped: watch::Receiver<bool>) {
    // The sender outlives all publishers.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Whether connecting again may help.
fn is_loss(error: &PublishError) -> bool {
    match error {
        PublishError::Connect { .. }
        | PublishError::NoAnswer
        | PublishError::Closed
        | PublishError::Lost(_)
        // Who comes back may be told that it is still there.
        | PublishError::Refused { .. }
        | PublishError::Ffmpeg { .. } => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::Input;
    use bytes::Bytes;

    fn due(at_ms: u64, payload: &'static [u8]) -> Due {
        let tag = FlvTag { timestamp_ms: 0, kind: TagKind::Video, payload: Bytes::from_static(payload) };
        Due { at_ms, tag, skipped: 0 }
    }

    /// Who comes back 10 s after its input began, with this next.
    fn back(next: Due) -> Publisher {
        let order = Order {
            url: "rtmp://127.0.0.1/live/key".into(),
            count: 1,
            input: Input::Stdin,
            repeat: false,
            duration: None,
            reconnects: 1,
            allow_remote: false,
            ffmpeg: "ffmpeg".into(),
            max_errors: 0,
        };
        let target = Target::of_all(&order.url, 1).unwrap().remove(0);
        let mut publisher = Publisher::new(Arc::new(order), (1, target), watch::channel(false).1);
        publisher.base = Instant::now().checked_sub(Duration::from_secs(10));
        publisher.next = Some(next);
        publisher
    }

    #[test]
    fn what_was_next_is_next_only_if_it_still_may_be() {
        const KEY: &[u8] = &[0x17, 1, 0, 0, 0];
        const OTHER: &[u8] = &[0x27, 1, 0, 0, 0];
        for (at_ms, payload, still) in
            [(9_000, KEY, false), (9_000, OTHER, false), (60_000, OTHER, false), (60_000, KEY, true)]
        {
            let mut publisher = back(due(at_ms, payload));
            let waits = publisher.resumes();
            assert_eq!((publisher.next.is_some(), waits), (still, !still), "{at_ms} {payload:?}");
            assert_eq!((publisher.resuming, publisher.report.skipped_tags), (still, u64::from(!still)));
        }
    }
}
