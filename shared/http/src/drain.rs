//! The one shutdown signal of a process: told once, seen by everybody, never taken back.

use std::sync::Arc;
use tokio::sync::watch;

/// A handle on the signal. Clones are the same signal.
#[derive(Debug, Clone)]
pub struct Drain(Arc<watch::Sender<bool>>);

impl Drain {
    /// A signal that was not given yet.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    /// Gives the signal: listeners stop accepting, connections finish what they have. Repeating it changes nothing.
    pub fn start(&self) {
        self.0.send_replace(true);
    }

    /// Whether the signal was given.
    #[must_use]
    pub fn is_started(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits for the signal. Returns at once when it was given before.
    pub async fn started(&self) {
        // The sender lives in `self`, so the wait can only end with the signal.
        let _ = self.0.subscribe().wait_for(|started| *started).await;
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self::new()
    }
}
