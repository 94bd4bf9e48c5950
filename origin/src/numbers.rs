//! The numbers a channel has given out, kept over restarts (A12): the next Media Sequence Number and discontinuity
//! sequence that are free. Beside them the start of the broadcast session that is on, for whoever counts by it.
//!
//! Invariants: the live path only sets a value; a thread of its own writes it to disk, without fsync (A9). A crash may
//! lose the newest value, so what is loaded is taken some segments further.

use crate::claim::ClaimedDir;
use serde::{Deserialize, Serialize};
use sigma_shared::id::ChannelId;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::watch;

/// Segments that may have been begun after the newest value on disk was written.
const SLACK_SEGMENTS: u64 = 2;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Free {
    msn: u64,
    discontinuity_sequence: u64,
    /// Unix milliseconds of program date and time.
    #[serde(default)]
    broadcast_start_ms: u64,
}

/// One channel's numbers.
#[derive(Debug)]
pub(crate) struct Numbers {
    free: watch::Sender<Free>,
}

impl Numbers {
    /// Loads the numbers of a channel and starts keeping them. What cannot be read is logged and taken as nothing given
    /// out: the clock's number is above any older one as long as the clock did not go back.
    pub(crate) fn load(data_dir: &Arc<ClaimedDir>, channel: &ChannelId) -> Self {
        let path = data_dir.path().join("numbers").join(format!("{channel}.json"));
        let free = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Free::after_restart).unwrap_or_else(|error| {
                tracing::error!(path = %path.display(), %error, "numbers given out cannot be read; going by the clock");
                Free::default()
            }),
            Err(error) => {
                if error.kind() != std::io::ErrorKind::NotFound {
                    tracing::error!(path = %path.display(), %error, "numbers given out cannot be read");
                }
                Free::default()
            }
        };
        let (sender, receiver) = watch::channel(free);
        tokio::spawn(keep(path, Arc::clone(data_dir), receiver));
        Self { free: sender }
    }

    /// The lowest free Media Sequence Number and discontinuity sequence.
    pub(crate) fn next(&self) -> (u64, u64) {
        let free = *self.free.borrow();
        (free.msn, free.discontinuity_sequence)
    }

    /// When the newest broadcast session began, Unix milliseconds; `None` when there was none.
    pub(crate) fn broadcast_start_ms(&self) -> Option<u64> {
        Some(self.free.borrow().broadcast_start_ms).filter(|start| *start > 0)
    }

    /// A broadcast session has begun.
    pub(crate) fn broadcast_began(&self, start_ms: u64) {
        self.free.send_modify(|free| free.broadcast_start_ms = start_ms);
    }

    /// Everything below these has been given out.
    pub(crate) fn given_out(&self, msn: u64, discontinuity_sequence: u64) {
        self.free.send_if_modified(|free| {
            let before = *free;
            free.msn = free.msn.max(msn);
            free.discontinuity_sequence = free.discontinuity_sequence.max(discontinuity_sequence);
            *free != before
        });
    }
}

impl Free {
    fn after_restart(self) -> Self {
        let (msn, discontinuity_sequence) = (self.msn + SLACK_SEGMENTS, self.discontinuity_sequence + 1);
        Self { msn, discontinuity_sequence, ..self }
    }
}

async fn keep(path: PathBuf, claim: Arc<ClaimedDir>, mut free: watch::Receiver<Free>) {
    let mut failing = false;
    while free.changed().await.is_ok() {
        let value = *free.borrow_and_update();
        let (path, claim) = (path.clone(), Arc::clone(&claim));
        let writing = move || {
            let written = write(&path, value);
            drop(claim);
            written
        };
        let written = tokio::task::spawn_blocking(writing).await;
        let error = match written {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(error) => Some(error.to_string()),
        };
        // Once per failure, not once per segment.
        if let Some(error) = error.as_ref().filter(|_| !failing) {
            tracing::error!(error, "numbers given out cannot be kept; a restart will go by the clock alone");
        }
        failing = error.is_some();
    }
}

fn write(path: &Path, value: Free) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    // Written beside and renamed, so that a kill leaves the old file or the new one.
    let beside = path.with_extension("json.new");
    std::fs::write(&beside, serde_json::to_vec(&value)?)?;
    std::fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a12_numbers_never_go_back_over_a_restart() {
        let folder = tempfile::tempdir().expect("a folder");
        let channel: ChannelId = "demo".parse().expect("an id");
        let data_dir = Arc::new(ClaimedDir::claim(folder.path()).expect("free"));
        let numbers = Numbers::load(&data_dir, &channel);
        assert_eq!(numbers.next(), (0, 0));
        numbers.given_out(500, 3);
        numbers.given_out(400, 2);
        assert_eq!(numbers.next(), (500, 3));
        write(&folder.path().join("numbers/demo.json"), *numbers.free.borrow()).expect("written");
        assert_eq!(Numbers::load(&data_dir, &channel).next(), (502, 4));
    }

    #[tokio::test]
    async fn a_broken_file_is_no_reason_to_stop() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir_all(folder.path().join("numbers")).expect("made");
        std::fs::write(folder.path().join("numbers/demo.json"), b"{").expect("written");
        let channel: ChannelId = "demo".parse().expect("an id");
        let data_dir = Arc::new(ClaimedDir::claim(folder.path()).expect("free"));
        assert_eq!(Numbers::load(&data_dir, &channel).next(), (0, 0));
    }
}
