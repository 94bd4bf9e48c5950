//! What publishers send: FLV from a file, from standard input, or as `ffmpeg` makes it, tag by tag with the time at
//! which each is due.
//!
//! Invariants: at most [`TAGS_AHEAD`] tags are read ahead for each publisher; timestamps go on across loops; of a source
//! that all share, who is slow loses tags up to a key frame, and holds nobody up.

use super::PublishError;
use super::ffmpeg::{Ffmpeg, Picture, Work};
use super::tag::{Role, role};
use crate::loop_clock::LoopClock;
use sigma_rtmp::flv::{FlvReader, FlvTag, TagKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// Tags read ahead of their time: more than [`LEAD`] of sixty pictures a second with sound.
const TAGS_AHEAD: usize = 128;
/// Largest tag accepted, bytes: more than any frame of a camera.
const TAG_BYTES_MAX: usize = 8 << 20;
/// How long before its time a tag is handed to publishers that share a source.
const LEAD: Duration = Duration::from_millis(500);

/// Where media comes from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Input {
    /// FLV.
    Stdin,
    File(PathBuf),
    /// With so many kbit/s.
    Test(Picture, u32),
}

/// What a publisher is handed.
#[derive(Debug, Clone)]
pub(crate) struct Due {
    /// Since the beginning of the input.
    pub(crate) at_ms: u64,
    pub(crate) tag: FlvTag,
    /// Tags that it did not get before this one, because it was slow.
    pub(crate) skipped: u64,
}

/// Ends with the input, or with what went wrong with it.
pub(crate) type Feed = mpsc::Receiver<Result<Due, Arc<PublishError>>>;
type Sender = mpsc::Sender<Result<Due, Arc<PublishError>>>;

/// How to read.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    pub(crate) input: Input,
    pub(crate) repeat: bool,
    /// The program that reads what is no FLV.
    pub(crate) ffmpeg: PathBuf,
}

/// A feed for each of so many publishers.
pub(crate) fn feeds(reading: &Reading, count: usize) -> Vec<Feed> {
    let own = matches!(reading.input, Input::File(_)) || count == 1;
    if own {
        return (0..count).map(|_| feed(reading.clone())).collect();
    }
    let (senders, feeds) = (0..count).map(|_| mpsc::channel(TAGS_AHEAD)).unzip();
    tokio::spawn(share(feed(reading.clone()), senders));
    feeds
}

fn feed(reading: Reading) -> Feed {
    let (sender, feed) = mpsc::channel(TAGS_AHEAD);
    tokio::spawn(async move {
        if let Err(error) = read(&reading, &sender).await {
            // Whoever is gone needs no reason.
            let _ = sender.send(Err(Arc::new(error))).await;
        }
    });
    feed
}

/// One publisher of a shared source.
struct Place {
    sender: Sender,
    skipped: u64,
}

/// Hands everything to everybody, a little before it is due.
async fn share(mut source: Feed, senders: Vec<Sender>) {
    let mut places: Vec<Place> = senders.into_iter().map(|sender| Place { sender, skipped: 0 }).collect();
    let mut base = None;
    while let Some(item) = source.recv().await {
        match item {
            Ok(due) => {
                let at = Duration::from_millis(due.at_ms);
                let base = *base.get_or_insert_with(|| Instant::now() - LEAD.min(at));
                tokio::time::sleep_until((base + at).checked_sub(LEAD).unwrap_or(base)).await;
                places.retain_mut(|place| place.offer(&due));
            }
            Err(error) => {
                for place in &places {
                    let _ = place.sender.send(Err(Arc::clone(&error))).await;
                }
            }
        }
        if places.is_empty() {
            return;
        }
    }
}

impl Place {
    /// False when nobody is there any more.
    fn offer(&mut self, due: &Due) -> bool {
        if self.skipped > 0 && !matches!(role(&due.tag), Role::Key | Role::Header) {
            self.skipped += 1;
            return !self.sender.is_closed();
        }
        match self.sender.try_send(Ok(Due { skipped: self.skipped, ..due.clone() })) {
            Ok(()) => self.skipped = 0,
            Err(mpsc::error::TrySendError::Full(_)) => self.skipped += 1,
            Err(mpsc::error::TrySendError::Closed(_)) => return false,
        }
        true
    }
}

/// Reads the input round after round.
async fn read(reading: &Reading, tags: &Sender) -> Result<(), PublishError> {
    let mut clock = LoopClock::default();
    loop {
        let wanted = match &reading.input {
            Input::Stdin => {
                let from = Path::new("standard input");
                return round(tokio::io::stdin(), from, &mut clock, tags).await.map(|_| ());
            }
            Input::Test(picture, kbps) => {
                return child(reading, Work::Test(*picture, *kbps), &mut clock, tags).await.map(|_| ());
            }
            Input::File(path) if is_flv(path).await? => {
                let error = |error| PublishError::File { path: path.clone(), error };
                let input = tokio::fs::File::open(path).await.map_err(error)?;
                round(input, path, &mut clock, tags).await?
            }
            Input::File(path) => child(reading, Work::Remux(path.clone()), &mut clock, tags).await?,
        };
        if !reading.repeat || !wanted {
            return Ok(());
        }
        if !clock.rewind() {
            return Err(PublishError::NoLength);
        }
    }
}

/// # Errors
/// The file cannot be read.
async fn is_flv(path: &Path) -> Result<bool, PublishError> {
    let file = |error| PublishError::File { path: path.to_owned(), error };
    let mut head = Vec::new();
    tokio::fs::File::open(path).await.map_err(file)?.take(3).read_to_end(&mut head).await.map_err(file)?;
    Ok(head == b"FLV")
}

/// One round through what a child makes.
async fn child(
    reading: &Reading,
    work: Work,
    clock: &mut LoopClock,
    tags: &Sender,
) -> Result<bool, PublishError> {
    let mut ffmpeg = Ffmpeg::start(&reading.ffmpeg, work)?;
    let Some(output) = ffmpeg.output() else { return Err(ffmpeg.complaint().await) };
    let read = round(output, Path::new("ffmpeg"), clock, tags).await;
    match read {
        // Nobody wants more: the child goes.
        Ok(false) => Ok(false),
        // What it says is nearer to the cause than what is wrong with what it wrote.
        Ok(true) => ffmpeg.finish().await.map(|()| true),
        Err(error) => Err(match ffmpeg.finish().await {
            Err(complaint) => complaint,
            Ok(()) => error,
        }),
    }
}

/// One round through the input; false when nobody wants more.
async fn round(
    mut input: impl AsyncRead + Unpin,
    path: &Path,
    clock: &mut LoopClock,
    tags: &Sender,
) -> Result<bool, PublishError> {
    let mut reader = FlvReader::new(TAG_BYTES_MAX);
    let mut buffer = vec![0; 64 << 10];
    loop {
        let error = |error| PublishError::File { path: path.to_owned(), error };
        let read = tokio::select! {
            read = input.read(&mut buffer) => read.map_err(error)?,
            () = tags.closed() => return Ok(false),
        };
        if read == 0 {
            return if reader.is_whole() { Ok(true) } else { Err(PublishError::Cut) };
        }
        reader.push(&buffer[..read]);
        while let Some(tag) = reader.next_tag()? {
            let track = match tag.kind {
                TagKind::Video => 0,
                TagKind::Audio => 1,
                TagKind::Script => 2,
            };
            let at_ms = clock.due_ms(track, tag.timestamp_ms);
            if tags.send(Ok(Due { at_ms, tag, skipped: 0 })).await.is_err() {
                return Ok(false);
            }
        }
    }
}
