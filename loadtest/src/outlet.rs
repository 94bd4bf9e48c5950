//! Where reports go: to standard output, and to files.
//!
//! Invariants: a file that cannot be written is told before anything is measured; what it held before stays until there
//! is a report, and whatever happens to the files, the report is on standard output.

use serde::Serialize;
use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Seek, Write};
use std::path::{Path, PathBuf};

/// A report that could not be written where it was wanted: the caller's or the machine's fault.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {error}")]
pub(crate) struct OutletError {
    path: PathBuf,
    error: io::Error,
}

/// A file that is going to be written.
#[derive(Debug)]
struct Sheet {
    path: PathBuf,
    file: File,
    /// It was not there before: without a report it goes again.
    fresh: bool,
}

impl Sheet {
    fn open(path: &Path) -> Result<Self, OutletError> {
        let mut options = OpenOptions::new();
        options.write(true);
        let opened = match options.clone().create_new(true).open(path) {
            Ok(file) => Ok((file, true)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                options.create(true).truncate(false).open(path).map(|file| (file, false))
            }
            Err(error) => Err(error),
        };
        match opened {
            Ok((file, fresh)) => Ok(Self { path: path.to_owned(), file, fresh }),
            Err(error) => Err(OutletError { path: path.to_owned(), error }),
        }
    }

    fn write(&mut self, text: &str) -> Result<(), OutletError> {
        let mut write = || {
            // Pipes and devices have no length.
            if self.file.metadata()?.is_file() {
                self.file.set_len(0)?;
                self.file.rewind()?;
            }
            self.fresh = false;
            writeln!(self.file, "{text}")
        };
        write().map_err(|error| OutletError { path: self.path.clone(), error })
    }
}

impl Drop for Sheet {
    fn drop(&mut self) {
        if self.fresh {
            // Nobody misses an empty file that stays.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Outlets {
    /// JSON takes the place of the table.
    bare: bool,
    json: Option<Sheet>,
    page: Option<Sheet>,
}

impl Outlets {
    /// `-` as the file of the JSON is standard output.
    ///
    /// # Errors
    /// A file cannot be written.
    pub(crate) fn open(json: Option<&Path>, page: Option<&Path>) -> Result<Self, OutletError> {
        let bare = json == Some(Path::new("-"));
        Ok(Self {
            bare,
            json: json.filter(|_| !bare).map(Sheet::open).transpose()?,
            page: page.map(Sheet::open).transpose()?,
        })
    }

    /// Writes a report wherever it is wanted; a page, if one is. One outlet that fails keeps nothing from the others.
    ///
    /// # Errors
    /// What went wrong with any of them.
    pub(crate) fn hand_out<R: Serialize + Display>(
        mut self,
        out: &mut impl Write,
        report: &R,
        page: impl FnOnce() -> String,
    ) -> Result<(), crate::Failure> {
        let mut failures: Vec<String> = Vec::new();
        let json = if self.bare || self.json.is_some() {
            serde_json::to_string_pretty(report)?
        } else {
            String::new()
        };
        let written = if self.bare { writeln!(out, "{json}") } else { writeln!(out, "{report}") };
        failures.extend(written.err().map(|error| format!("standard output: {error}")));
        let mut keep =
            |written: Result<(), OutletError>| failures.extend(written.err().map(|e| e.to_string()));
        if let Some(sheet) = &mut self.json {
            keep(sheet.write(&json));
        }
        if let Some(sheet) = &mut self.page {
            keep(sheet.write(&page()));
        }
        if failures.is_empty() { Ok(()) } else { Err(failures.join("; ").into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Words(&'static str);

    impl Display for Words {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "table of {}", self.0)
        }
    }

    fn hand_out(outlets: Outlets) -> (String, Result<(), String>) {
        let mut out = Vec::new();
        let done = outlets.hand_out(&mut out, &Words("a"), || "page".to_owned());
        (String::from_utf8(out).unwrap(), done.map_err(|error| error.to_string()))
    }

    #[test]
    fn everything_is_written_where_it_was_wanted() {
        let folder = tempfile::tempdir().unwrap();
        let (json, page) = (folder.path().join("a.json"), folder.path().join("a.html"));
        std::fs::write(&json, "a longer report that was here before").unwrap();
        let outlets = Outlets::open(Some(&json), Some(&page)).unwrap();
        assert!(
            std::fs::read_to_string(&json).unwrap().starts_with("a longer"),
            "until there is another one"
        );
        assert_eq!(hand_out(outlets), ("table of a\n".into(), Ok(())));
        assert_eq!(std::fs::read_to_string(&json).unwrap(), "\"a\"\n");
        assert_eq!(std::fs::read_to_string(&page).unwrap(), "page\n");
        assert_eq!(hand_out(Outlets::open(Some(Path::new("-")), None).unwrap()), ("\"a\"\n".into(), Ok(())));
    }

    #[test]
    fn a_file_that_cannot_be_written_is_told_before_and_costs_nothing_after() {
        let folder = tempfile::tempdir().unwrap();
        let (fresh, no_folder) = (folder.path().join("new"), folder.path().join("none/a.html"));
        let error = Outlets::open(Some(&fresh), Some(&no_folder)).unwrap_err().to_string();
        assert!(error.contains("none/a.html") && !fresh.exists(), "{error}");
        assert!(Outlets::open(Some(folder.path()), None).is_err());
        // A disk that is full.
        let outlets = Outlets::open(Some(Path::new("/dev/full")), Some(&fresh)).unwrap();
        let (out, done) = hand_out(outlets);
        assert_eq!(
            (out.as_str(), std::fs::read_to_string(&fresh).unwrap().as_str()),
            ("table of a\n", "page\n")
        );
        assert!(done.unwrap_err().starts_with("/dev/full: "));
    }
}
