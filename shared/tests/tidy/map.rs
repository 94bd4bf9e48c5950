//! The code map of ARCHITECTURE.md: one line for every Rust file that is not a test, and none for what is gone.
//! A line of the map starts with the path in backquotes, as a list item or not, and goes on with what the file is.

use std::collections::BTreeMap;

use crate::workspace::{Finding, Workspace};

const MAP: &str = "ARCHITECTURE.md";

/// Files that the map lacks, lists twice, or lists though they do not exist.
pub(crate) fn code_map(workspace: &Workspace) -> Vec<Finding> {
    let Some(map) = workspace.file(MAP) else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    let mut listed = BTreeMap::new();
    for (index, line) in map.text.lines().enumerate() {
        let Some((path, what)) = entry(line) else { continue };
        if let Some(before) = listed.insert(path, index + 1) {
            findings.push(map.finding(index + 1, format!("`{path}` is on line {before} already: keep one")));
        }
        if workspace.file(path).is_none() {
            findings.push(
                map.finding(index + 1, format!("`{path}` does not exist: remove the line or mend the path")),
            );
        }
        if what.is_empty() {
            findings.push(map.finding(index + 1, format!("say in a few words what `{path}` is")));
        }
    }
    for file in workspace.rust().filter(|file| !file.is_test && !listed.contains_key(file.path.as_str())) {
        findings.push(file.finding(1, format!("not in the code map: add a line for it to {MAP}")));
    }
    findings
}

/// Path and description of a line of the map; `None` for any other line.
fn entry(line: &str) -> Option<(&str, &str)> {
    let line = line.trim_start().trim_start_matches("- ").trim_start_matches("* ");
    let (path, what) = line.strip_prefix('`')?.split_once('`')?;
    path.ends_with(".rs").then(|| (path, what.trim_matches([' ', ':', '-'])))
}

#[test]
fn a_map_that_is_wrong_is_found() {
    let map = "# Map\n- `a/src/a.rs` is A\n`a/src/gone.rs`: was B\n`a/src/a.rs`\n`cargo` is a tool\n";
    let workspace =
        Workspace::of([(MAP, map), ("a/src/a.rs", ""), ("a/src/new.rs", ""), ("a/src/tests.rs", "")]);
    let lines: Vec<String> = code_map(&workspace).iter().map(ToString::to_string).collect();
    let expected = [
        "ARCHITECTURE.md:3: `a/src/gone.rs` does not exist: remove the line or mend the path",
        "ARCHITECTURE.md:4: `a/src/a.rs` is on line 2 already: keep one",
        "ARCHITECTURE.md:4: say in a few words what `a/src/a.rs` is",
        "a/src/new.rs:1: not in the code map: add a line for it to ARCHITECTURE.md",
    ];
    assert_eq!(lines, expected);
}
