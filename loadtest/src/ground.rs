//! The ground-truth log: one JSON line per playback session, written by a thread of its own.
//!
//! Invariants: viewers never wait for the disk; the queue is bounded, and a line that finds it full is counted as lost,
//! which makes the run fail: a truth with holes proves nothing.

use crate::dial::Protocol;
use crate::tally::Leaving;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// Sessions that may end while the disk is busy.
const QUEUE_MAX: usize = 65_536;

/// One playback session. Times are Unix milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// 32 hex digits: the sid of the signed path; empty where there was none.
    pub(crate) session: String,
    pub(crate) channel: String,
    /// As CMSD-Dynamic names them; authorities where it does not.
    pub(crate) pops: Vec<String>,
    /// The last one used.
    pub(crate) protocol: Protocol,
    pub(crate) started_at_ms: u64,
    pub(crate) first_media_at_ms: Option<u64>,
    pub(crate) last_response_at_ms: Option<u64>,
    pub(crate) left: Leaving,
    pub(crate) present_ms: Vec<[u64; 2]>,
    /// Of the channel's timeline, each moment once.
    pub(crate) watched_us: u64,
    /// Parts and segments that brought something new of it.
    pub(crate) parts: u64,
    /// Of the parts.
    pub(crate) longest_part_us: u64,
    /// It left while media that it had asked for was on its way or still to come: the server may have sent it.
    pub(crate) asking: bool,
    /// Of who vanished: what that would have brought, microseconds. Its server sent it, and cannot know that nobody got it.
    pub(crate) unseen_us: u64,
    /// How much media was under way when it let go of a connection or a rendition: all of it may have been sent.
    pub(crate) let_go_us: u64,
    /// Where it let go of media under way without having got any there: only the server knows whether it was there.
    pub(crate) asked_pops: Vec<String>,
    pub(crate) bytes: u64,
    pub(crate) stalls: u64,
    pub(crate) stalled_ms: u64,
    pub(crate) startup_ms: Option<u64>,
    pub(crate) edges: Vec<String>,
    /// All protocols used.
    pub(crate) protocols: Vec<Protocol>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct GroundLog {
    queue: SyncSender<Record>,
    lost: AtomicU64,
    writer: JoinHandle<std::io::Result<u64>>,
}

impl GroundLog {
    /// Writes to a new file.
    pub(crate) fn create(path: &Path) -> std::io::Result<Self> {
        let file = File::create(path)?;
        let (queue, records) = sync_channel(QUEUE_MAX);
        let writer =
            std::thread::Builder::new().name("ground".into()).spawn(move || write(file, &records))?;
        Ok(Self { queue, lost: AtomicU64::new(0), writer })
    }

    pub(crate) fn put(&self, record: Record) {
        if self.queue.try_send(record).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until everything is on its way to the disk. Returns how many lines were lost, of how many.
    ///
    /// # Errors
    /// The file could not be written: the disk is to blame.
    pub(crate) fn finish(self) -> std::io::Result<(u64, u64)> {
        drop(self.queue);
        let lost = self.lost.into_inner();
        match self.writer.join() {
            Ok(written) => written.map(|written| (lost, written + lost)),
            Err(_) => Err(std::io::Error::other("the writer of the ground-truth log ended early")),
        }
    }
}

fn write(file: File, records: &Receiver<Record>) -> std::io::Result<u64> {
    let mut out = BufWriter::new(file);
    let mut written = 0;
    while let Ok(record) = records.recv() {
        serde_json::to_writer(&mut out, &record)?;
        out.write_all(b"\n")?;
        written += 1;
    }
    out.flush()?;
    Ok(written)
}

/// The sid in a signed path, `/s/{session}/live/...`, as hex; the session is base64url over 60 bytes, of which bytes
/// 12 to 28 are the sid.
pub(crate) fn sid_of(path: &str) -> Option<String> {
    let session = path.strip_prefix("/s/")?.split('/').next()?;
    // 16 characters are 12 bytes; 24 more hold 18, of which 16 count.
    let characters = session.get(16..40)?;
    let mut bytes = Vec::with_capacity(18);
    for quad in characters.as_bytes().chunks(4) {
        let mut word = 0u32;
        for byte in quad {
            word = word << 6 | u32::from(digit(*byte)?);
        }
        bytes.extend_from_slice(&word.to_be_bytes()[1..]);
    }
    Some(bytes[..16].iter().map(|byte| format!("{byte:02x}")).collect())
}

fn digit(byte: u8) -> Option<u8> {
    Some(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'-' => 62,
        b'_' => 63,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(n: u64) -> Record {
        Record {
            session: format!("{n:032x}"),
            channel: "bench".into(),
            pops: vec!["pop-1".into()],
            protocol: Protocol::H2,
            started_at_ms: n,
            first_media_at_ms: Some(n + 1),
            last_response_at_ms: Some(n + 2),
            left: Leaving::Vanish,
            present_ms: vec![[n + 1, n + 2]],
            watched_us: 1,
            parts: 2,
            longest_part_us: 1,
            asking: false,
            unseen_us: 0,
            let_go_us: 0,
            asked_pops: vec![],
            bytes: 3,
            stalls: 0,
            stalled_ms: 0,
            startup_ms: None,
            edges: vec!["127.0.0.1:1".into()],
            protocols: vec![Protocol::H2],
        }
    }

    #[test]
    fn every_line_is_there_and_can_be_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("truth.jsonl");
        let log = GroundLog::create(&path).unwrap();
        for n in 0..100 {
            log.put(record(n));
        }
        assert_eq!(log.finish().unwrap(), (0, 100));
        let text = std::fs::read_to_string(&path).unwrap();
        let records: Vec<Record> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(records, (0..100).map(record).collect::<Vec<_>>());
        assert!(text.contains("\"left\":\"vanish\"") && text.contains("\"protocol\":\"h2\""));
    }

    #[test]
    fn the_sid_of_a_signed_path() {
        // Bytes 0 to 59 in base64url.
        let session = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7";
        let path = format!("/s/{session}/live/a/index.m3u8");
        assert_eq!(sid_of(&path).unwrap(), "0c0d0e0f101112131415161718191a1b");
        for bad in [
            "/live/a/index.m3u8",
            "/s/short/live/a",
            "/s/AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBka*xwdHh8gISIj/live",
        ] {
            assert_eq!(sid_of(bad), None, "{bad}");
        }
    }
}
