//! Process signals: SIGTERM and SIGINT drain, SIGHUP reloads, SIGUSR2 asks for a successor.

use crate::drain::Drain;
use std::io;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

/// What an operator asks for by a signal, other than leaving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// SIGHUP: read configuration and certificates again.
    Reload,
    /// SIGUSR2: start the program anew with the same sockets, and leave when it serves.
    Restart,
}

/// Listens for signals from now on. A second SIGTERM or SIGINT ends the process at once.
///
/// # Errors
/// The system refused a handler.
pub fn listen(drain: Drain, mut on_wish: impl FnMut(Wish) + Send + 'static) -> io::Result<JoinHandle<()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut user2 = signal(SignalKind::user_defined2())?;
    Ok(tokio::spawn(async move {
        let mut asked_to_leave = false;
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                _ = hangup.recv() => {
                    tracing::info!("SIGHUP: reloading");
                    on_wish(Wish::Reload);
                    continue;
                }
                _ = user2.recv() => {
                    on_wish(Wish::Restart);
                    continue;
                }
            }
            if asked_to_leave {
                tracing::warn!("second signal: leaving at once");
                std::process::exit(130);
            }
            asked_to_leave = true;
            tracing::info!("draining");
            drain.start();
        }
    }))
}
