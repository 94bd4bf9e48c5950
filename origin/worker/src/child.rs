//! The child's life: enter the sandbox, then messages in until stdin ends.
//!
//! One thread reads and decodes (rungs encode on their own, see [`crate::transcode`]). While the test source runs, the
//! same thread waits on stdin no longer than until the next picture is due. Exit codes: 0 stdin ended and everything was
//! written, [`EXIT_SANDBOX`] no sandbox, [`EXIT_PROTOCOL`] unreadable message, [`EXIT_IO`] a pipe broke.

mod inlet;
mod outlet;
mod run;

use std::io;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use outlet::Outlet;

use crate::protocol::{FrameReader, ProtocolError, ToWorker};
use crate::{av, complaint, sandbox};
use inlet::{Inlet, Read};
use run::Run;

/// No sandbox, or one that leaks.
pub const EXIT_SANDBOX: u8 = 70;
/// A pipe broke.
pub const EXIT_IO: u8 = 74;
/// A message could not be read: parent and child are different builds.
pub const EXIT_PROTOCOL: u8 = 76;

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Sandbox(#[from] sandbox::SandboxError),
    #[error("pipe to the parent: {0}")]
    Io(#[from] io::Error),
    #[error("message from the parent: {0}")]
    Protocol(#[from] ProtocolError),
}

impl Failure {
    fn code(&self) -> u8 {
        match self {
            Self::Sandbox(_) => EXIT_SANDBOX,
            Self::Io(_) => EXIT_IO,
            Self::Protocol(_) => EXIT_PROTOCOL,
        }
    }
}

/// Is the media worker, until stdin ends. Call it first thing in `main`, while the process has one thread: it takes over
/// stdin, stdout and stderr, closes every other descriptor and enters a sandbox for good.
#[must_use]
pub fn run() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            complaint::line(&failure);
            ExitCode::from(failure.code())
        }
    }
}

fn serve() -> Result<(), Failure> {
    sandbox::widen_pipe(io::stdin().as_fd());
    sandbox::widen_pipe(io::stdout().as_fd());
    for warning in sandbox::enter()? {
        complaint::line(&warning);
    }
    av::quieten();
    let mut inlet = Inlet::take_stdin()?;
    let outlet = Arc::new(Outlet::to_stdout()?);
    let mut messages = FrameReader::<ToWorker>::new();
    let mut run = Run::Idle;
    loop {
        while let Some(message) = messages.pull()? {
            run = run.take(message, &outlet);
            outlet.check()?;
        }
        let wait = run.tick(&outlet);
        outlet.check()?;
        match inlet.read(&mut messages, wait)? {
            Read::Bytes | Read::Nothing => {}
            Read::End => {
                run.end(&outlet);
                return Ok(outlet.check()?);
            }
        }
    }
}

/// How long a run can go without being ticked; `None` means until the next message.
type Wait = Option<Duration>;
