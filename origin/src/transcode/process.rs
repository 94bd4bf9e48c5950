//! One media worker process, kept alive: started, fed, listened to, watched, and started again with back-off.
//!
//! Invariants: whoever holds the [`Worker`] never waits for the child; what does not fit the queue is the holder's to
//! skip. After a loss nothing reaches the next child before a `Start`. Dropping the [`Worker`] ends the child.

use bytes::BytesMut;
use sigma_worker::protocol::{FrameReader, FromWorker, Message, ToWorker};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// The hidden subcommand that makes this binary a media worker.
pub(crate) const SUBCOMMAND: &str = "media-worker";

const BACK_OFF_MIN: Duration = Duration::from_millis(200);
const BACK_OFF_MAX: Duration = Duration::from_secs(15);
/// A worker that ran this long was healthy: the back-off starts over.
const HEALTHY: Duration = Duration::from_secs(30);
/// A worker that is fed and says nothing for this long hangs.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// A worker that was not fed for this long has nothing to answer.
const IDLE: Duration = Duration::from_secs(1);
/// Room in the queue that only `Start` and `Flush` may take: they must not be skipped.
const CONTROL_SLOTS: usize = 8;
/// What a worker may complain about: bytes of a line, and lines in a period. More is cut and counted.
const COMPLAINT_BYTES_MAX: usize = 1024;
const COMPLAINTS_MAX: u32 = 50;
const COMPLAINTS_PERIOD: Duration = Duration::from_secs(10);

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
        let (input, inputs) = mpsc::channel(queue_max + CONTROL_SLOTS);
        let (event_sender, events) = mpsc::channel(queue_max);
        tokio::spawn(supervise(name, inputs, event_sender));
        Self { input, events }
    }

    /// Queues a message. `Start` and `Flush` have room of their own.
    pub(crate) fn tell(&self, message: ToWorker) -> Result<(), Congested> {
        let is_sample = matches!(message, ToWorker::Video(_) | ToWorker::Audio(_));
        if is_sample && self.input.capacity() <= CONTROL_SLOTS {
            return Err(Congested);
        }
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
    let complaints = tokio::spawn(pass_on_complaints(name.to_owned(), stderr));
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
        let waiting_since = Instant::now();
        let message = inputs.recv().await?;
        if waiting_since.elapsed() > IDLE {
            unanswered_since = None;
        }
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
    loop {
        match stdout.read_buf(reader.buffer_mut()).await {
            Ok(0) => return Some("has ended".into()),
            Err(error) => return Some(format!("cannot be heard: {error}")),
            Ok(_) => {}
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

/// Logs what the child complains about, line by line and within bounds: it may be under somebody else's control.
async fn pass_on_complaints(name: String, mut stderr: ChildStderr) {
    let mut buffer = BytesMut::with_capacity(2 * COMPLAINT_BYTES_MAX);
    let (mut period, mut lines) = (Instant::now(), 0u32);
    while matches!(stderr.read_buf(&mut buffer).await, Ok(read) if read > 0) {
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line = buffer.split_to(end + 1);
            if period.elapsed() > COMPLAINTS_PERIOD {
                (period, lines) = (Instant::now(), 0);
            }
            lines += 1;
            if lines <= COMPLAINTS_MAX {
                tracing::warn!(worker = %name, "{}", String::from_utf8_lossy(&line).trim_end());
            } else if lines == COMPLAINTS_MAX + 1 {
                tracing::warn!(worker = %name, "more complaints than can be logged; the rest of them is left out");
            }
        }
        // A line that is too long is cut here; what follows of it counts as another.
        if buffer.len() >= COMPLAINT_BYTES_MAX {
            buffer.extend_from_slice(b"\n");
        }
    }
}
