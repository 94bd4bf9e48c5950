//! One line per problem on stderr, thinned out when a hostile or broken input repeats itself.
//!
//! Invariant: a complaint with n occurrences prints on occurrences 1, 2, 4, 8 and so on, each with the count so far.

use std::fmt::Display;
use std::io::Write;

/// Writes one log line. The parent forwards it; a closed stderr is nobody's problem.
pub(crate) fn line(text: &dyn Display) {
    // One write per line: rungs complain from their own threads.
    let text = format!("{text}\n");
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// A kind of problem that may repeat.
#[derive(Debug)]
pub(crate) struct Complaint {
    what: &'static str,
    times: u64,
}

impl Complaint {
    pub(crate) const fn new(what: &'static str) -> Self {
        Self { what, times: 0 }
    }

    /// Counts one occurrence and says so if it is due.
    pub(crate) fn raise(&mut self, why: &dyn Display) {
        self.times += 1;
        if self.times.is_power_of_two() {
            line(&format_args!("{}: {why} (times: {})", self.what, self.times));
        }
    }
}
