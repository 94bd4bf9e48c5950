//! The full view of a run: every POP in a table, viewers over time, and what the log says.
//!
//! Invariants: the terminal is as it was when this goes, also when the process panics; keys do not show meanwhile, and
//! Ctrl-C stays what it is.

use super::console::CONSOLE;
use crate::board::{Board, Row};
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::{cursor, execute, terminal};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Cell, Gauge, Paragraph, Row as TableRow, Sparkline, Table};
use ratatui::{Frame, Terminal};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use std::collections::VecDeque;
use std::io::{self, Stderr, Write};
use std::sync::{Mutex, Once, PoisonError};

/// Lines of the log at the bottom.
const LOG_LINES: u16 = 5;
/// Viewers over time within a row of the table.
const TREND_WIDTH: usize = 24;

/// How standard input was before, while the screen is taken.
static TAKEN: Mutex<Option<Taken>> = Mutex::new(None);

#[derive(Debug)]
struct Taken {
    before: Option<Termios>,
}

/// Takes the screen. Idempotent.
fn take(out: &mut impl Write) -> io::Result<()> {
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    if taken.is_none() {
        execute!(out, terminal::EnterAlternateScreen, cursor::Hide)?;
        // Where standard input is no terminal, nothing is typed.
        let before = tcgetattr(io::stdin()).ok();
        if let Some(before) = &before {
            let mut silent = before.clone();
            silent.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON);
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, &silent);
        }
        *taken = Some(Taken { before });
    }
    Ok(())
}

/// Gives the screen back. Idempotent.
fn give_back(out: &mut impl Write) {
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(Taken { before }) = taken.take() {
        // A terminal that is gone needs nothing back.
        let _ = execute!(out, terminal::LeaveAlternateScreen, cursor::Show);
        if let Some(before) = before {
            let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &before);
        }
    }
}

/// See the module.
pub(super) struct Live {
    terminal: Terminal<CrosstermBackend<Stderr>>,
}

impl Live {
    pub(super) fn open() -> io::Result<Self> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                give_back(&mut io::stderr());
                before(panic);
            }));
        });
        take(&mut io::stderr())?;
        CONSOLE.hold();
        let terminal = Terminal::new(CrosstermBackend::new(io::stderr()));
        terminal.map(|terminal| Self { terminal }).inspect_err(|_| give_back(&mut io::stderr()))
    }

    pub(super) fn show(&mut self, board: &Board) {
        let log = CONSOLE.newest(LOG_LINES.into());
        // A picture that cannot be drawn is no reason to end a run.
        let _ = self.terminal.draw(|frame| draw(frame, board, &log));
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        give_back(&mut io::stderr());
    }
}

/// The whole picture.
fn draw(frame: &mut Frame<'_>, board: &Board, log: &[String]) {
    let rows = u16::try_from(board.pops.len()).unwrap_or(u16::MAX).saturating_add(3);
    let [head, gauge, table, caption, trend, lines] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Length(rows),
        Constraint::Length(1),
        Constraint::Fill(1),
        Constraint::Length(LOG_LINES),
    ])
    .areas(frame.area());
    header(frame, head, board);
    let whole = board.whole().as_secs_f64();
    let ratio = if whole > 0.0 { (board.elapsed.as_secs_f64() / whole).clamp(0.0, 1.0) } else { 0.0 };
    frame.render_widget(Gauge::default().ratio(ratio).gauge_style(Style::new().fg(Color::Cyan)), gauge);
    pops(frame, table, board);
    let peak = board.all.history.iter().max().copied().unwrap_or_default();
    let text = format!("viewers of the last {} s, at most {peak}", board.all.history.len());
    frame.render_widget(Paragraph::new(text).style(Style::new().fg(Color::DarkGray)), caption);
    let width = usize::from(trend.width);
    let newest = board.all.history.iter().skip(board.all.history.len().saturating_sub(width)).copied();
    let spark = Sparkline::default().data(newest.collect::<Vec<_>>()).style(Style::new().fg(Color::Cyan));
    frame.render_widget(spark, trend);
    let log: Vec<Line<'_>> = log.iter().map(|line| Line::from(line.as_str())).collect();
    frame.render_widget(Paragraph::new(log).style(Style::new().fg(Color::DarkGray)), lines);
}

fn header(frame: &mut Frame<'_>, area: Rect, board: &Board) {
    let name = if board.name.is_empty() { "load test" } else { &board.name };
    let text = format!(
        "{name}: {}, {} of {} s  (Ctrl-C ends it and reports)",
        board.phase(),
        board.elapsed.as_secs(),
        board.whole().as_secs()
    );
    frame.render_widget(Paragraph::new(text).style(Style::new().add_modifier(Modifier::BOLD)), area);
}

fn pops(frame: &mut Frame<'_>, area: Rect, board: &Board) {
    const TITLES: [&str; 9] = [
        "POP",
        "viewers",
        "requests/s",
        "Mbit/s",
        "delay p50",
        "p99 ms",
        "stalls",
        "errors",
        "viewers over time",
    ];
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let mut rows: Vec<TableRow<'_>> = board.pops.iter().map(|(name, row)| cells(name, row)).collect();
    rows.push(cells("all", &board.all).style(bold).top_margin(1));
    let widths = [
        Constraint::Fill(1),
        Constraint::Length(8),
        Constraint::Length(10),
        Constraint::Length(8),
        Constraint::Length(9),
        Constraint::Length(8),
        Constraint::Length(7),
        Constraint::Length(7),
        Constraint::Length(TREND_WIDTH as u16),
    ];
    let table = Table::new(rows, widths).header(TableRow::new(TITLES).style(bold.fg(Color::Cyan)));
    frame.render_widget(table, area);
}

fn cells<'a>(name: &str, row: &Row) -> TableRow<'a> {
    let ms = |quantile| row.delay_ms(quantile).map_or_else(|| "-".to_owned(), |ms| format!("{ms:.0}"));
    let alarm = |count: u64| {
        let style = if count > 0 { Style::new().fg(Color::Red) } else { Style::new() };
        Cell::from(count.to_string()).style(style)
    };
    TableRow::new([
        Cell::from(name.to_owned()),
        Cell::from(row.viewers.to_string()),
        Cell::from(row.requests.to_string()),
        Cell::from(format!("{:.1}", row.bytes as f64 * 8.0 / 1e6)),
        Cell::from(ms(0.5)),
        Cell::from(ms(0.99)),
        alarm(row.stalls),
        alarm(row.errors),
        Cell::from(trend(&row.history)),
    ])
}

/// The newest values as blocks, the greatest as a full one.
fn trend(history: &VecDeque<u64>) -> String {
    const BLOCKS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let newest = || history.iter().skip(history.len().saturating_sub(TREND_WIDTH)).copied();
    let most = newest().max().unwrap_or_default().max(1);
    newest().map(|value| BLOCKS[usize::try_from((value * 8).div_ceil(most)).unwrap_or(8).min(8)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Point;
    use ratatui::backend::TestBackend;
    use std::time::Duration;

    fn board() -> Board {
        let mut board = Board::new("churn", &[("ramp".into(), Duration::from_secs(40))]);
        for second in 0..10 {
            let point = |viewers, errors| {
                let mut point =
                    Point { viewers, errors, requests: 1_234, bytes: 1_000_000, ..Point::default() };
                point.part_delay.record(Duration::from_millis(42));
                point
            };
            board.second(second, &[("pop-1".into(), point(second * 10, 0)), ("pop-2".into(), point(7, 1))]);
        }
        board
    }

    /// What is on a screen of that size.
    fn screen(board: &Board, log: &[String], (width, height): (u16, u16)) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, board, log)).unwrap();
        let cells = terminal.backend().buffer().content();
        cells
            .chunks(width.into())
            .map(|row| row.iter().map(ratatui::buffer::Cell::symbol).collect())
            .collect()
    }

    #[test]
    fn every_pop_has_its_row() {
        let lines = screen(&board(), &["a line of the log".into()], (110, 20));
        assert!(lines[0].starts_with("churn: ramp, 10 of 40 s"), "{lines:#?}");
        let row = |name: &str| {
            let line =
                lines.iter().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{lines:#?}"));
            line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(row("pop-1")[1..8], ["90", "1234", "8.0", "42", "42", "0", "0"]);
        assert_eq!(row("pop-2")[1..8], ["7", "1234", "8.0", "42", "42", "0", "10"]);
        assert_eq!(row("all")[1..4], ["97", "2468", "16.0"]);
        assert!(row("pop-1")[8].ends_with('█') && row("pop-2")[8].chars().all(|block| block == '█'));
        assert!(lines.iter().any(|line| line.contains("viewers of the last 10 s, at most 97")));
        assert!(lines.iter().any(|line| line.starts_with("a line of the log")));
        assert!(lines[1].contains("25%"), "{}", lines[1]);
    }

    #[test]
    fn a_small_terminal_and_an_empty_board_are_no_panic() {
        let empty = Board::new("", &[]);
        for size in [(1, 1), (20, 3), (110, 4), (300, 80)] {
            screen(&board(), &[], size);
            screen(&empty, &["x".into()], size);
        }
        assert!(screen(&empty, &[], (60, 10))[0].starts_with("load test: leaving, 0 of 0 s"));
    }

    #[test]
    fn the_screen_is_given_back_once_also_after_a_panic() {
        let mut out = Vec::new();
        take(&mut out).unwrap();
        take(&mut out).unwrap();
        let taken = String::from_utf8(out.clone()).unwrap();
        assert_eq!(taken.matches("\u{1b}[?1049h").count(), 1, "{taken:?}");
        struct Gives<'a>(&'a mut Vec<u8>);
        impl Drop for Gives<'_> {
            fn drop(&mut self) {
                give_back(self.0);
            }
        }
        out.clear();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _gives = Gives(&mut out);
            std::panic::resume_unwind(Box::new("broken"));
        }));
        assert!(panicked.is_err());
        give_back(&mut out);
        let given = String::from_utf8(out).unwrap();
        assert_eq!(
            (given.matches("\u{1b}[?1049l").count(), given.matches("\u{1b}[?25h").count()),
            (1, 1),
            "{given:?}"
        );
    }
}
