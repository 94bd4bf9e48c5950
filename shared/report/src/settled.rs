//! What is over of a POP's reports: said in a header of each report, when it is sent.
//!
//! `sigma-settled: SEQUENCE` says that nothing new of the report's incarnation below SEQUENCE will come: it was
//! acknowledged, refused, given up, or told to another origin (after a restart some of it may be repeated).
//! `sigma-settled: SEQUENCE;oldest=INCARNATION` says the same of all incarnations below INCARNATION, too; a POP of
//! which another process may still have something leaves that out. So whoever receives waits for nothing that cannot
//! come.
//!
//! Invariants: both numbers are floors that only go up, so order and repetition do not matter; neither is above the
//! report that it comes with, which itself was still to come. A report that comes late all the same is counted.
#![deny(clippy::disallowed_methods)]

use crate::report::Report;
use std::fmt;
use std::str::FromStr;

/// The header in which a POP says what is over, and a shield passes it on.
pub const SETTLED_HEADER: &str = "sigma-settled";
const OLDEST: &str = "oldest=";

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settled {
    /// The lowest sequence number of the report's incarnation that may still come; at least 1.
    pub sequence: u64,
    /// The lowest incarnation of which anything may still come, if that is known.
    pub oldest: Option<u64>,
}

/// It is no such header. The report that came with it is as good as one without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{SETTLED_HEADER} is SEQUENCE or SEQUENCE;oldest=INCARNATION")]
pub struct InvalidSettled;

impl Settled {
    /// Whether it can be true of what came with this report.
    #[must_use]
    pub fn is_of(&self, report: &Report) -> bool {
        (1..=report.sequence).contains(&self.sequence)
            && self.oldest.is_none_or(|oldest| oldest <= report.incarnation)
    }
}

impl fmt::Display for Settled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.sequence)?;
        self.oldest.map_or(Ok(()), |oldest| write!(f, ";{OLDEST}{oldest}"))
    }
}

impl FromStr for Settled {
    type Err = InvalidSettled;

    fn from_str(text: &str) -> Result<Self, InvalidSettled> {
        let number = |text: &str| match text.as_bytes() {
            // No sign.
            [b'0'..=b'9', ..] => text.parse::<u64>().map_err(|_| InvalidSettled),
            _ => Err(InvalidSettled),
        };
        let (sequence, oldest) = match text.trim().split_once(';') {
            Some((sequence, parameter)) => {
                let oldest = parameter.trim_start().strip_prefix(OLDEST).ok_or(InvalidSettled)?;
                (sequence.trim_end(), Some(number(oldest)?))
            }
            None => (text.trim(), None),
        };
        Ok(Self { sequence: number(sequence)?, oldest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;

    #[test]
    fn what_is_written_is_read() {
        for (text, sequence, oldest) in [
            ("7", 7, None),
            ("1;oldest=1790000000000", 1, Some(1_790_000_000_000)),
            (" 7 ; oldest=3 ", 7, Some(3)),
        ] {
            assert_eq!(text.parse(), Ok(Settled { sequence, oldest }));
        }
        let settled = Settled { sequence: 9, oldest: Some(u64::MAX) };
        assert_eq!(settled.to_string().parse(), Ok(settled));
        for text in [
            "",
            "x",
            "-1",
            "+1",
            "1;",
            "1;oldest=",
            "1;oldest=x",
            "1;newest=2",
            "1,2",
            "18446744073709551616",
        ] {
            assert_eq!(text.parse::<Settled>(), Err(InvalidSettled), "{text}");
        }
    }

    #[test]
    fn what_is_above_its_report_is_not_true() {
        let report = report();
        for (sequence, oldest, is_true) in [
            (7, None, true),
            (1, Some(report.incarnation), true),
            (7, Some(0), true),
            (8, None, false),
            (0, None, false),
            (7, Some(report.incarnation + 1), false),
        ] {
            assert_eq!(Settled { sequence, oldest }.is_of(&report), is_true, "{sequence} {oldest:?}");
        }
    }
}
