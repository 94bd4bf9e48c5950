//! While the database fails: everything is read again until that succeeds, and a file that is broken makes way for a new one.
//!
//! Invariant: whoever asks meanwhile gets an answer, "later", at once.

use super::{Ask, Keeper};
use crate::store::StoreError;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// How long a database that failed is left alone.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How often is said that there are no statistics.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

/// How an attempt to read everything again ended.
enum Ended {
    Loaded,
    Failed(StoreError),
    /// Somebody waits for the end; or nobody is there any more.
    Closing(Option<oneshot::Sender<()>>),
}

/// When it was last said that there are no statistics.
#[derive(Debug, Default)]
struct Complaints(Option<Instant>);

impl Complaints {
    /// Whether it is to be said now; it counts as said then.
    fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.0.is_none_or(|last| now.duration_since(last) >= COMPLAINT_INTERVAL);
        if is_due {
            self.0 = Some(now);
        }
        is_due
    }
}

impl Keeper {
    /// After a failure: what memory has may be half of something, so all of it is read again, for as long as it takes.
    pub(super) async fn mend(&mut self, mut error: StoreError, inbox: &mut mpsc::Receiver<Ask>) {
        self.available.send_replace(false);
        self.counters.failures.fetch_add(1, Ordering::Relaxed);
        let mut complaints = Complaints::default();
        loop {
            if error.is_broken_file()
                && let Err(failed) = self.begin_anew(&error).await
            {
                error = failed;
            }
            if complaints.is_due(Instant::now()) {
                tracing::error!(
                    %error,
                    "there are no statistics while their database fails: reports wait at their POPs, the API answers 503; it \
                     is tried again every second, and this said every minute"
                );
            }
            match self.reload_refusing(inbox).await {
                Ended::Loaded => {
                    tracing::info!("the statistics are there again");
                    return;
                }
                Ended::Failed(again) => {
                    tracing::debug!(error = %again, "not yet");
                    error = again;
                }
                Ended::Closing(done) => {
                    self.closing = done;
                    return;
                }
            }
        }
    }

    /// Tries once more, after a rest. Whoever asks meanwhile is told to come back, by the end of the reply's channel.
    async fn reload_refusing(&mut self, inbox: &mut mpsc::Receiver<Ask>) -> Ended {
        let reloading = async {
            tokio::time::sleep(RETRY_AFTER).await;
            self.reload().await
        };
        tokio::pin!(reloading);
        loop {
            tokio::select! {
                reloaded = &mut reloading => return reloaded.map_or_else(Ended::Failed, |()| Ended::Loaded),
                ask = inbox.recv() => match ask {
                    Some(Ask::Close(done)) => return Ended::Closing(Some(done)),
                    Some(ask) => drop(ask),
                    None => return Ended::Closing(None),
                },
            }
        }
    }

    /// A file that is broken is out of the way then, and there is an empty one.
    async fn begin_anew(&mut self, error: &StoreError) -> Result<(), StoreError> {
        let Some(path) = self.store.replace_file().await? else { return Ok(()) };
        self.counters.set_aside.database.fetch_add(1, Ordering::Relaxed);
        let path = path.display();
        tracing::error!(
            %error, %path,
            "the statistics' database is broken: it is set aside, and a new one is begun, so totals start at nothing. With the \
             origin stopped, `sqlite3 {path} .recover | sqlite3 stats.sqlite` may get back what was in it"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_tried_every_second_is_complained_of_every_minute() {
        let (mut complaints, began) = (Complaints::default(), Instant::now());
        let due = (0..300).filter(|second| complaints.is_due(began + Duration::from_secs(*second)));
        assert_eq!(due.collect::<Vec<_>>(), [0, 60, 120, 180, 240]);
    }
}
