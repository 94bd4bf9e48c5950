//! Messages to the parent, from any thread, each in one piece and at once.
//!
//! Invariant: after the first error nothing more is written; [`Outlet::check`] tells the main thread, which ends the
//! process. Writers block while the parent does not read: that is the back-pressure (A1).

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};

use crate::complaint::Complaint;
use crate::protocol::{FromWorker, Message};

/// The way out.
pub(crate) struct Outlet(Mutex<Writer>);

struct Writer {
    to: Box<dyn Write + Send>,
    buffer: Vec<u8>,
    broken: Option<io::Error>,
    oversized: Complaint,
}

impl std::fmt::Debug for Outlet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Outlet")
    }
}

impl Outlet {
    /// Unbuffered stdout: a frame leaves when it is encoded.
    pub(crate) fn to_stdout() -> io::Result<Self> {
        Ok(Self::new(Box::new(File::from(io::stdout().as_fd().try_clone_to_owned()?))))
    }

    pub(crate) fn new(to: Box<dyn Write + Send>) -> Self {
        let oversized = Complaint::new("a message was dropped");
        Self(Mutex::new(Writer { to, buffer: Vec::new(), broken: None, oversized }))
    }

    /// Writes one message, waiting while the pipe is full.
    pub(crate) fn send(&self, message: &FromWorker) {
        let mut writer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Writer { to, buffer, broken, oversized } = &mut *writer;
        if broken.is_some() {
            return;
        }
        buffer.clear();
        if let Err(why) = message.encode(buffer) {
            oversized.raise(&why);
            return;
        }
        *broken = to.write_all(buffer).err();
    }

    /// Whether everything sent so far was written.
    pub(crate) fn check(&self) -> io::Result<()> {
        match self.0.lock().unwrap_or_else(PoisonError::into_inner).broken.take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}
