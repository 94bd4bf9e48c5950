//! What a run shows while it goes: a bar on a terminal, a full view of all POPs, a line now and then, or nothing.
//!
//! Invariants: everything goes to standard error, and nothing of it stays on the screen when the run is over; log lines
//! never go through a picture. Deliberately absent: the figures (`board`).

pub(crate) mod console;
mod live;

use crate::board::Board;
use crate::cli::ViewArgs;
use crate::results::Point;
use crate::scenario::Scenario;
use console::CONSOLE;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use live::Live;
use std::io::IsTerminal;

/// Seconds from one line to the next.
const LINE_EVERY_S: u64 = 5;

/// How a run is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Quiet,
    Lines,
    Bar,
    Live,
}

impl Kind {
    /// # Errors
    /// A full view was asked for where there is no terminal.
    fn of(wanted: &ViewArgs, terminal: bool) -> Result<Self, &'static str> {
        match (wanted.quiet, wanted.plain, wanted.live) {
            (true, ..) => Ok(Self::Quiet),
            (_, true, _) => Ok(Self::Lines),
            (.., true) if terminal => Ok(Self::Live),
            (.., true) => Err("--live needs a terminal as standard error"),
            _ if terminal => Ok(Self::Bar),
            _ => Ok(Self::Lines),
        }
    }
}

enum View {
    Quiet,
    Lines,
    Bar(ProgressBar),
    Live(Box<Live>),
}

/// See the module. What it shows goes when it is dropped.
pub(crate) struct Progress {
    board: Board,
    view: View,
}

impl Progress {
    /// # Errors
    /// There is no terminal for what was asked for, or it does not do what it should.
    pub(crate) fn begin(
        wanted: &ViewArgs,
        scenario: &Scenario,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let phases: Vec<_> =
            scenario.phases.iter().map(|phase| (phase.kind.name().to_owned(), phase.duration())).collect();
        let board = Board::new(&scenario.name, &phases);
        let view = match Kind::of(wanted, std::io::stderr().is_terminal())? {
            Kind::Quiet => View::Quiet,
            Kind::Lines => View::Lines,
            Kind::Bar => View::Bar(bar(board.whole().as_secs())),
            Kind::Live => View::Live(Box::new(Live::open()?)),
        };
        Ok(Self { board, view })
    }

    /// A second of the wall clock has ended.
    pub(crate) fn second(&mut self, unix_s: u64, points: &[(String, Point)]) {
        self.board.second(unix_s, points);
        let elapsed = self.board.elapsed.as_secs();
        match &mut self.view {
            View::Quiet => {}
            View::Lines if elapsed.is_multiple_of(LINE_EVERY_S) => {
                tracing::info!("{elapsed} of {} s, {}", self.board.whole().as_secs(), self.board.line());
            }
            View::Lines => {}
            View::Bar(bar) => {
                bar.set_position(elapsed.min(self.board.whole().as_secs()));
                bar.set_message(self.board.line());
            }
            View::Live(live) => live.show(&self.board),
        }
    }
}

fn bar(seconds: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(seconds), ProgressDrawTarget::stderr());
    // A template that is none would be a bar of another look.
    if let Ok(style) = ProgressStyle::with_template("{bar:24} {pos}/{len} s  {msg}") {
        bar.set_style(style);
    }
    CONSOLE.behind(&bar);
    bar
}

impl Drop for Progress {
    fn drop(&mut self) {
        match &self.view {
            View::Bar(bar) => bar.finish_and_clear(),
            View::Quiet | View::Lines | View::Live(_) => {}
        }
        // The full view leaves by itself, before what was held back for it is said.
        self.view = View::Quiet;
        CONSOLE.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_where() {
        let view = |quiet, plain, live| ViewArgs { quiet, plain, live };
        for (wanted, terminal, kind) in [
            (view(false, false, false), true, Ok(Kind::Bar)),
            (view(false, false, false), false, Ok(Kind::Lines)),
            (view(false, true, false), true, Ok(Kind::Lines)),
            (view(true, false, false), true, Ok(Kind::Quiet)),
            (view(false, false, true), true, Ok(Kind::Live)),
            (view(false, false, true), false, Err("--live needs a terminal as standard error")),
        ] {
            assert_eq!(Kind::of(&wanted, terminal), kind, "{wanted:?}");
        }
    }
}
