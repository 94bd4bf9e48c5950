//! The media worker from the origin's side: the ladder it is asked for, and the child process that is kept alive.

pub(crate) mod ladder;
pub(crate) mod process;
