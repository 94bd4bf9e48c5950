//! One media worker process, kept alive: started, fed, listened to, watched, and started again with back-off.
//!
//! Invariants: whoever holds the [`Worker`] never waits for the child; what does not fit the queue is the holder's to
//! skip. After a loss nothing reaches the next child before a `Start`. Dropping the [`Worker`] ends the child.

use bytes::BytesMut;
use sigma_worker::protocol::{FrameReader, FromWorker, Message, ToWorker};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// The hidden subcommand that makes this binary a media worker.
pub(crate) const SUBCOMMAND: &str = "media-worker";

const BACK_OFF_MIN: Duration = Duration::from_millis(200);
const BACK_OFF_MAX: Duration = Duration::from_secs(15);
/// A worker that ran this long was healthy: the back-off starts over.
const HEALTHY: Duration = Duration::from_secs(30);
/// A worker that is fed and says nothing for this long hangs.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// What a worker reports.
#[derive(Debug)]
pub(crate) enum WorkerEvent {
    /// A process is there and waits for a job.
    Ready,
    /// It said something.
    Said(FromWorker),
    /// It is gone; the next one starts after the pause.
    Lost {
        /// How it ended.
        reason: String,
        /// The pause.
        pause: Duration,
    },
}

/// A supervised worker.
#[derive(Debug)]
pub(crate) struct Worker {
    input: mpsc::Sender<ToWorker>,
    events: mpsc::Receiver<WorkerEvent>,
}

/// The worker's queue is full.
#[derive(Debug)]
pub(crate) struct Congested;

impl Worker {
    /// Starts a worker whose queue takes `queue_max` messages. `name` is for the log and for `ps`.
    pub(crate) fn start(name: String, queue_max: usize) -> Self {
        let (input, inputs) = mpsc::channel(queue_max);
        let (event_sender, events) = mpsc::channel(queue_max);
        tokio::spawn(supervise(name, inputs, event_sender));
        Self { input, events }
    }

    /// Queues a message.
    pub(crate) fn tell(&self, message: ToWorker) -> Result<(), Congested> {
        self.input.try_send(message).map_err(|_| Congested)
    }

    /// The next event.
    pub(crate) async fn event(&mut self) -> Option<WorkerEvent> {
        self.events.recv().await
    }
}

async fn supervise(name: String, mut inputs: mpsc::Receiver<ToWorker>, events: mpsc::Sender<WorkerEvent>) {
    let mut pause = BACK_OFF_MIN;
    loop {
        let started = Instant::now();
        let reason = match spawn(&name) {
            Ok(child) => match attend(&name, child, &mut inputs, &events).await {
                Some(reason) => reason,
                None => return,
            },
            Err(error) => format!("cannot be started: {error}"),
        };
        if started.elapsed() > HEALTHY {
            pause = BACK_OFF_MIN;
        }
        if events.send(WorkerEvent::Lost { reason, pause }).await.is_err() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = events.closed() => return,
        }
        pause = (pause * 2).min(BACK_OFF_MAX);
    }
}

fn spawn(name: &str) -> std::io::Result<Child> {
    Command::new(std::env::current_exe()?)
        .arg(SUBCOMMAND)
        .arg(name)
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
}

/// Serves one child to its end; `None` when the holder is gone.
async fn attend(
    name: &str,
    mut child: Child,
    inputs: &mut mpsc::Receiver<ToWorker>,
    events: &mpsc::Sender<WorkerEvent>,
) -> Option<String> {
    let (Some(stdin), Some(stdout), Some(stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Some("has no pipes".into());
    };
    let log_name = name.to_owned();
    let complaints = tokio::spawn(async move {
        let mut lines = BufReader::new(stderr).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            tracing::warn!(worker = %log_name, "{line}");
        }
    });
    if events.send(WorkerEvent::Ready).await.is_err() {
        return None;
    }
    let (heard, last_heard) = tokio::sync::watch::channel(Instant::now());
    let reason = tokio::select! {
        ended = feed(stdin, inputs, &last_heard) => ended?,
        reason = listen(stdout, events, &heard) => reason?,
    };
    let status = tokio::time::timeout(Duration::from_millis(500), child.wait()).await;
    let _ = child.kill().await;
    complaints.abort();
    Some(match status {
        Ok(Ok(status)) => format!("{reason} ({status})"),
        _ => reason,
    })
}

/// Writes what is queued. `None` when the holder is gone, else why it cannot go on.
async fn feed(
    mut stdin: ChildStdin,
    inputs: &mut mpsc::Receiver<ToWorker>,
    last_heard: &tokio::sync::watch::Receiver<Instant>,
) -> Option<String> {
    let mut buffer = Vec::new();
    let mut has_job = false;
    let mut unanswered_since: Option<Instant> = None;
    loop {
        let message = inputs.recv().await?;
        has_job |= matches!(message, ToWorker::Start(_));
        if !has_job {
            continue;
        }
        buffer.clear();
        if let Err(error) = message.encode(&mut buffer) {
            return Some(format!("cannot be told something: {error}"));
        }
        if unanswered_since.is_some_and(|since| *last_heard.borrow() > since) {
            unanswered_since = None;
        }
        let since = *unanswered_since.get_or_insert_with(Instant::now);
        match tokio::time::timeout(SILENCE_MAX, stdin.write_all(&buffer)).await {
            Ok(Ok(())) if since.elapsed() <= SILENCE_MAX => {}
            Ok(Err(error)) => return Some(format!("does not take its input: {error}")),
            _ => return Some(format!("has said nothing for {} s", SILENCE_MAX.as_secs())),
        }
    }
}

/// Passes on what the child says. `None` when the holder is gone.
async fn listen(
    mut stdout: ChildStdout,
    events: &mpsc::Sender<WorkerEvent>,
    heard: &tokio::sync::watch::Sender<Instant>,
) -> Option<String> {
    let mut reader = FrameReader::<FromWorker>::new();
    let mut chunk = BytesMut::with_capacity(64 * 1024);
    loop {
        chunk.clear();
        match stdout.read_buf(&mut chunk).await {
            Ok(0) => return Some("has ended".into()),
            Err(error) => return Some(format!("cannot be heard: {error}")),
            Ok(_) => reader.push(&chunk),
        }
        heard.send_replace(Instant::now());
        loop {
            match reader.pull() {
                Ok(Some(message)) => events.send(WorkerEvent::Said(message)).await.ok()?,
                Ok(None) => break,
                Err(error) => return Some(format!("cannot be understood: {error}")),
            }
        }
    }
}
