//! The media worker: the sandboxed FFmpeg child of one channel (law A11).
//!
//! A process of its own, started by the origin as a hidden subcommand. It reads framed messages ([`protocol`]) on
//! stdin, writes framed messages on stdout, and plain one-line complaints on stderr. It decodes, scales and encodes
//! what it is handed; it never sees a URL, a file or a socket, and the sandbox it enters before the first media byte
//! makes that a fact instead of a habit.
//!
//! Deliberately absent: containers (parents hand over access units), any clock anchoring (times arrive on the
//! channel's timeline and leave on it), restarts and back-off (the parent's business).

mod av;
mod child;
pub mod clock_code;
mod complaint;
mod nal;
pub mod protocol;
mod sandbox;
mod source;
mod transcode;

pub use child::{EXIT_IO, EXIT_PROTOCOL, EXIT_SANDBOX, run};
