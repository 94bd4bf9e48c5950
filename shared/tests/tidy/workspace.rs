//! The files of the workspace as the rules see them: which are Rust, which lines are tests.
//!
//! Left out is what no person writes: build output, fetched packages, run-time state, logs.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::Path;

use crate::rust::{self, Token};

/// What stands before an item that is compiled for tests only.
const TEST_ATTRIBUTES: [&str; 2] = ["#[cfg(test)]", "#[test]"];

/// Where something is against a rule, and what to do about it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    path: String,
    line: usize,
    advice: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.advice)
    }
}

/// One text file.
#[derive(Debug)]
pub(crate) struct Source {
    /// From the root of the workspace, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
    /// Of a Rust file: the text without comments and strings. Empty for any other file.
    pub(crate) code: String,
    /// Whether the whole file is compiled for tests only.
    pub(crate) is_test: bool,
    /// Of every line: whether it is compiled for tests only.
    test_lines: Vec<bool>,
}

impl Source {
    fn new(path: &str, text: String) -> Self {
        let code = if path.ends_with(".rs") { rust::code_only(&text) } else { String::new() };
        let is_test = path.split('/').any(|part| part == "tests" || part == "tests.rs");
        let mut test_lines = vec![is_test; text.lines().count()];
        if !is_test && TEST_ATTRIBUTES.iter().any(|attribute| code.contains(attribute)) {
            for (start, end) in test_items(&rust::tokens(&code)) {
                test_lines[start - 1..end].fill(true);
            }
        }
        Self { path: path.to_owned(), text, code, is_test, test_lines }
    }

    pub(crate) fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    pub(crate) fn tokens(&self) -> Vec<Token<'_>> {
        rust::tokens(&self.code)
    }

    /// Whether `line`, counted from 1, is compiled for tests only.
    pub(crate) fn is_test_line(&self, line: usize) -> bool {
        self.is_test || self.test_lines.get(line - 1).copied().unwrap_or(false)
    }

    /// Lines that are not compiled for tests only.
    pub(crate) fn impl_lines(&self) -> usize {
        if self.is_test { 0 } else { self.test_lines.iter().filter(|test| !**test).count() }
    }

    pub(crate) fn finding(&self, line: usize, advice: impl Into<String>) -> Finding {
        Finding { path: self.path.clone(), line, advice: advice.into() }
    }

    /// Path prefixes of the modules this file declares for tests only in files of their own.
    fn test_modules(&self) -> Vec<String> {
        if !self.test_lines.contains(&true) {
            return Vec::new();
        }
        let folder = module_folder(&self.path);
        let tokens = self.tokens();
        let named = |at: &usize| tokens.get(at + 2).is_some_and(|token| token.text == ";");
        let modules = rust::occurrences(&tokens, "mod").into_iter().filter(named);
        let test_only = modules.filter(|at| self.is_test_line(tokens[*at].line));
        test_only.map(|at| format!("{folder}/{}", tokens[at + 1].text)).collect()
    }
}

/// The folder in which the modules a file declares are found.
pub(crate) fn module_folder(path: &str) -> String {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    match name {
        "lib.rs" | "main.rs" | "mod.rs" => folder.to_owned(),
        _ => path.trim_end_matches(".rs").to_owned(),
    }
}

/// First and last lines of the items that `#[cfg(test)]` and `#[test]` stand before.
fn test_items(tokens: &[Token<'_>]) -> Vec<(usize, usize)> {
    let mut items = Vec::new();
    for attribute in TEST_ATTRIBUTES {
        for start in rust::occurrences(tokens, attribute) {
            let mut at = start;
            while tokens.get(at).is_some_and(|token| token.text == "#") {
                at = rust::closing(tokens, at + 1) + 1;
            }
            items.push((tokens[start].line, tokens[rust::item_end(tokens, at)].line));
        }
    }
    items
}

/// Every text file of the workspace.
#[derive(Debug)]
pub(crate) struct Workspace {
    pub(crate) files: Vec<Source>,
}

impl Workspace {
    /// Reads what is under `root`. Fails where a file that is listed cannot be read.
    pub(crate) fn read(root: &Path) -> io::Result<Self> {
        let mut files = Vec::new();
        let mut folders = vec![String::new()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(root.join(&folder))? {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                let path = if folder.is_empty() { name } else { format!("{folder}/{name}") };
                let kind = entry.file_type()?;
                if is_left_out(&path) || kind.is_symlink() {
                    continue;
                } else if kind.is_dir() {
                    folders.push(path);
                } else if let Ok(text) = String::from_utf8(std::fs::read(entry.path())?) {
                    files.push((path, text));
                }
            }
        }
        files.sort();
        Ok(Self::of(files))
    }

    /// The workspace of these files: path and text.
    pub(crate) fn of(files: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>) -> Self {
        let read = |(path, text): (_, _)| Source::new(&Into::<String>::into(path), Into::into(text));
        let mut files: Vec<Source> = files.into_iter().map(read).collect();
        let test_modules: BTreeSet<String> = files.iter().flat_map(Source::test_modules).collect();
        for file in &mut files {
            let stem = file.path.trim_end_matches(".rs");
            let inside = |module: &String| stem == module || stem.starts_with(&format!("{module}/"));
            file.is_test |= test_modules.iter().any(inside);
        }
        Self { files }
    }

    pub(crate) fn rust(&self) -> impl Iterator<Item = &Source> {
        self.files.iter().filter(|file| file.is_rust())
    }

    pub(crate) fn file(&self, path: &str) -> Option<&Source> {
        self.files.iter().find(|file| file.path == path)
    }
}

fn is_left_out(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    matches!(path, "target" | "data" | "origin/console/dist" | "e2e/out")
        || matches!(name, ".git" | "node_modules")
        || name.ends_with(".log")
}

#[test]
fn test_lines_and_test_files_are_told_from_the_rest() {
    let workspace = Workspace::of([
        (
            "a/src/main.rs",
            "//! A.\n#[cfg(test)]\nmod fake;\nfn f() {\n}\n#[cfg(test)]\n#[allow(x)]\nmod tests {\n}\n",
        ),
        ("a/src/fake.rs", "fn g() {}\n"),
        ("a/src/fake/deep.rs", "fn h() {}\n"),
        ("a/src/faked.rs", "fn i() {}\n"),
        ("a/tests/whole.rs", "fn j() {}\n"),
        ("a/src/b/tests.rs", "fn k() {}\n"),
    ]);
    let main = &workspace.files[0];
    let lines: Vec<bool> = (1..=9).map(|line| main.is_test_line(line)).collect();
    assert_eq!(lines, [false, true, true, false, false, true, true, true, true]);
    assert_eq!(main.impl_lines(), 3);
    let tests: Vec<bool> = workspace.files.iter().map(|file| file.is_test).collect();
    assert_eq!(tests, [false, true, true, false, true, true]);
}
