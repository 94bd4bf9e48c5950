//! The media worker (being filled in).
pub mod protocol;
/// Runs the media worker to the end of stdin.
#[must_use]
pub fn run() -> std::process::ExitCode { std::process::ExitCode::SUCCESS }
