//! Process signals: SIGTERM and SIGINT drain, SIGHUP reloads.

use crate::drain::Drain;
use std::io;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

/// Listens for signals from now on. A second SIGTERM or SIGINT ends the process at once.
///
/// # Errors
/// The system refused a handler.
pub fn listen(drain: Drain, mut on_reload: impl FnMut() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = hangup.recv() => {
                    tracing::info!("SIGHUP: reloading");
                    on_reload();
                    continue;
                }
            }
            if drain.is_started() {
                tracing::warn!("second signal: leaving at once");
                std::process::exit(130);
            }
            tracing::info!("draining");
            drain.start();
        }
    }))
}
