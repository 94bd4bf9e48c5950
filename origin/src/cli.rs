//! The admin's command line: a client of the REST API, of this origin or of one far away.
//!
//! Deliberately absent: anything that the API does not have.

mod client;
mod pop;
mod stats;
mod table;

pub(crate) use pop::PopCommand;
pub(crate) use stats::StatsArgs;

use std::io::Write;

/// `sigma-origin pop …`
pub(crate) fn pop(command: &PopCommand, out: &mut impl Write) -> Result<(), String> {
    pop::run(command, out)
}

/// `sigma-origin stats …`
pub(crate) fn stats(args: &StatsArgs, out: &mut impl Write) -> Result<(), String> {
    stats::run(args, out)
}
