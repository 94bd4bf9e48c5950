//! stdin with a deadline.
#![expect(unsafe_code, reason = "poll has no safe wrapper among our dependencies")]

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use crate::child::Wait;
use crate::protocol::{FrameReader, ToWorker};

const READ_BYTES: usize = 256 * 1024;

/// What a read brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Read {
    /// Bytes were pushed.
    Bytes,
    /// The wait is over first.
    Nothing,
    /// The parent closed the pipe.
    End,
}

/// The way in.
#[derive(Debug)]
pub(crate) struct Inlet {
    stdin: File,
    chunk: Box<[u8]>,
}

impl Inlet {
    pub(crate) fn take_stdin() -> io::Result<Self> {
        let stdin = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        Ok(Self { stdin, chunk: vec![0; READ_BYTES].into() })
    }

    /// Pushes what has arrived, waiting for the first byte no longer than `wait`.
    pub(crate) fn read(&mut self, messages: &mut FrameReader<ToWorker>, wait: Wait) -> io::Result<Read> {
        if let Some(wait) = wait
            && !self.readable_within(wait)?
        {
            return Ok(Read::Nothing);
        }
        match self.stdin.read(&mut self.chunk) {
            Ok(0) => Ok(Read::End),
            Ok(length) => {
                messages.push(&self.chunk[..length]);
                Ok(Read::Bytes)
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Read::Nothing),
            Err(error) => Err(error),
        }
    }

    fn readable_within(&self, wait: Duration) -> io::Result<bool> {
        let mut poll = libc::pollfd { fd: self.stdin.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let timeout = libc::timespec {
            tv_sec: wait.as_secs().try_into().unwrap_or(libc::time_t::MAX),
            tv_nsec: wait.subsec_nanos().into(),
        };
        // SAFETY: one valid pollfd, a valid timespec that is only read, and no signal mask.
        let ready = unsafe { libc::ppoll(&raw mut poll, 1, &raw const timeout, std::ptr::null()) };
        if ready >= 0 {
            return Ok(ready > 0);
        }
        let error = io::Error::last_os_error();
        if error.kind() == io::ErrorKind::Interrupted { Ok(false) } else { Err(error) }
    }
}
