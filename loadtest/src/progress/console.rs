//! Where log lines go: to standard error, around whatever is drawn there.
//!
//! Invariants: a line is written whole; what is held back while a full view is on the screen is bounded, and said when
//! it is gone.

use indicatif::ProgressBar;
use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

/// Lines held back at most.
const HELD_MAX: usize = 500;

/// Standard error of this process.
pub(crate) static CONSOLE: Console = Console(Mutex::new(Mode::Open));

/// See the module.
#[derive(Debug)]
pub(crate) struct Console(Mutex<Mode>);

#[derive(Debug)]
enum Mode {
    /// Nothing is drawn.
    Open,
    /// A bar is, and steps aside.
    Bar(ProgressBar),
    /// The screen is taken.
    Held { lines: VecDeque<String>, lost: u64 },
}

impl Console {
    fn mode(&self) -> std::sync::MutexGuard<'_, Mode> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lines are written above this bar from now on.
    pub(super) fn behind(&self, bar: &ProgressBar) {
        *self.mode() = Mode::Bar(bar.clone());
    }

    /// Lines are held back from now on.
    pub(super) fn hold(&self) {
        *self.mode() = Mode::Held { lines: VecDeque::new(), lost: 0 };
    }

    /// Nothing is drawn any more: what was held back is said.
    pub(super) fn release(&self) {
        let before = std::mem::replace(&mut *self.mode(), Mode::Open);
        if let Mode::Held { lines, lost } = before {
            let mut stderr = io::stderr().lock();
            if lost > 0 {
                let _ = writeln!(stderr, "({lost} lines before these are lost)");
            }
            for line in lines {
                let _ = stderr.write_all(line.as_bytes());
            }
        }
    }

    /// The newest lines that are held back, the oldest first.
    pub(super) fn newest(&self, most: usize) -> Vec<String> {
        match &*self.mode() {
            Mode::Held { lines, .. } => {
                lines.iter().skip(lines.len().saturating_sub(most)).map(|line| plain(line)).collect()
            }
            Mode::Open | Mode::Bar(_) => Vec::new(),
        }
    }

    fn say(&self, text: &[u8]) -> io::Result<()> {
        match &mut *self.mode() {
            Mode::Open => io::stderr().lock().write_all(text),
            Mode::Bar(bar) => bar.suspend(|| io::stderr().lock().write_all(text)),
            Mode::Held { lines, lost } => {
                if lines.len() == HELD_MAX {
                    lines.pop_front();
                    *lost += 1;
                }
                lines.push_back(String::from_utf8_lossy(text).into_owned());
                Ok(())
            }
        }
    }
}

/// A line without its colours and its end.
fn plain(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut characters = line.trim_end().chars();
    while let Some(character) = characters.next() {
        match character {
            '\u{1b}' => {
                // A sequence ends with a letter.
                let _ = characters.by_ref().find(char::is_ascii_alphabetic);
            }
            character if character.is_control() => plain.push(' '),
            character => plain.push(character),
        }
    }
    plain
}

/// What the log writes to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lines;

impl Write for Lines {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        CONSOLE.say(text).map(|()| text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_back_is_bounded_and_plain() {
        let console = Console(Mutex::new(Mode::Open));
        console.hold();
        for number in 0..HELD_MAX + 3 {
            console.say(format!("\u{1b}[32m INFO\u{1b}[0m line {number}\n").as_bytes()).unwrap();
        }
        let Mode::Held { lines, lost } = &*console.mode() else { panic!("not held") };
        assert_eq!((lines.len(), *lost), (HELD_MAX, 3));
    }

    #[test]
    fn the_newest_lines_last() {
        let console = Console(Mutex::new(Mode::Open));
        assert!(console.newest(3).is_empty());
        console.hold();
        for number in 0..5 {
            console.say(format!("\u{1b}[32mline\u{1b}[0m\t{number}\n").as_bytes()).unwrap();
        }
        assert_eq!(console.newest(2), ["line 3", "line 4"]);
        console.release();
        assert!(console.newest(2).is_empty());
    }
}
