//! The processes of `dev`: started, watched, stopped in the order in which nobody loses an answer.

use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};
use tokio::sync::Mutex;

/// Longer than the drain of origin and edges.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

struct Process {
    name: String,
    pid: Option<u32>,
    child: Child,
}

/// All processes that were started, in that order.
pub(super) struct Processes {
    list: Mutex<Vec<Process>>,
    pids: Vec<u32>,
    terminate: Mutex<(SignalStream, SignalStream)>,
}

impl Processes {
    pub(super) fn new() -> Result<Self, String> {
        let listen = |kind| signal(kind).map_err(|error| format!("signals cannot be listened for: {error}"));
        let streams = (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
        Ok(Self { list: Mutex::new(Vec::new()), pids: Vec::new(), terminate: Mutex::new(streams) })
    }

    pub(super) fn start(&mut self, name: &str, binary: &Path, arguments: &[&OsStr]) -> Result<(), String> {
        let child = Command::new(binary)
            .arg("serve")
            .args(arguments)
            // Its own group: Ctrl-C reaches `dev` alone, which stops the others in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| {
                format!("{}: cannot be started: {error}; ./scripts/run builds it", binary.display())
            })?;
        let pid = child.id();
        self.pids.extend(pid);
        self.list.get_mut().push(Process { name: name.to_owned(), pid, child });
        Ok(())
    }

    /// The origin's, then the edges'.
    pub(super) fn pids(&self) -> Vec<u32> {
        self.pids.clone()
    }

    /// Resolves when a process ends by itself, and says which.
    pub(super) async fn ended(&self) -> String {
        let mut list = self.list.lock().await;
        let waiting = list.iter_mut().map(|process| {
            let name = process.name.clone();
            Box::pin(async move {
                match process.child.wait().await {
                    Ok(status) => format!("{name} ended by itself ({status}); its log above says why"),
                    Err(error) => format!("{name} cannot be waited for: {error}"),
                }
            })
        });
        let waiting: Vec<_> = waiting.collect();
        first_of(waiting).await
    }

    /// Resolves on SIGTERM or SIGINT.
    pub(super) async fn signalled(&self) {
        let mut streams = self.terminate.lock().await;
        let (terminate, interrupt) = &mut *streams;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    }

    /// Stops everything: the edges before the origin they ask.
    pub(super) async fn stop(&self) {
        let mut list = self.list.lock().await;
        let first = 1.min(list.len());
        let (origin, edges) = list.split_at_mut(first);
        // Every edge is told before any is waited for.
        edges.iter_mut().for_each(Process::terminate);
        for process in edges {
            process.finish().await;
        }
        for process in origin {
            process.terminate();
            process.finish().await;
        }
    }
}

impl Process {
    fn terminate(&mut self) {
        let pid = self.pid.and_then(|pid| Pid::from_raw(pid.cast_signed()));
        if let (Some(pid), Ok(None)) = (pid, self.child.try_wait()) {
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    async fn finish(&mut self) {
        match tokio::time::timeout(STOP_TIMEOUT, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => {}
            Ok(Ok(status)) => tracing::warn!(process = %self.name, %status, "ended badly"),
            Ok(Err(error)) => tracing::warn!(process = %self.name, %error, "cannot be waited for"),
            Err(_) => {
                tracing::warn!(process = %self.name, "does not stop; killed");
                let _ = self.child.kill().await;
            }
        }
    }
}

/// The first of several futures to be done; never, when there are none.
async fn first_of<F: Future<Output = String> + Unpin>(mut futures: Vec<F>) -> String {
    std::future::poll_fn(|context| {
        for future in &mut futures {
            if let std::task::Poll::Ready(done) = std::pin::Pin::new(future).poll(context) {
                return std::task::Poll::Ready(done);
            }
        }
        std::task::Poll::Pending
    })
    .await
}
