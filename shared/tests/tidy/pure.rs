//! Pure files decide and do nothing else: no clock, socket, task, lock or log. Clippy refuses calls, by
//! `#![deny(clippy::disallowed_methods)]` at their top; here are names that should not come up at all.

use crate::rust::{self, Token};
use crate::workspace::{Finding, Source, Workspace, module_folder};

/// Crates of which every file is pure.
const CRATES: [&str; 3] = ["sigma-shared", "sigma-media", "sigma-rtmp"];

const FOREIGN: [(&str, &str); 13] = [
    ("SystemTime", "take `now` as an argument"),
    ("Instant::now", "take `now` as an argument"),
    ("tokio::", "the shell waits, a pure file decides"),
    ("std::net", "take text or an id as an argument"),
    ("std::fs", "take bytes as an argument"),
    ("std::env::var", "configuration is an argument"),
    ("std::thread", "no tasks here"),
    ("std::process::Command", "no processes here"),
    ("Mutex", "one owner, no locks"),
    ("RwLock", "one owner, no locks"),
    ("tracing::", "return what happened and let the shell log it"),
    ("allow(clippy::disallowed_methods", "take what the call gives as an argument"),
    ("expect(clippy::disallowed_methods", "take what the call gives as an argument"),
];

/// Names in pure files, outside their tests, that mean a clock, socket, task, lock or log.
pub(crate) fn contents(workspace: &Workspace) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in workspace.rust().filter(|file| !file.is_test && is_pure(workspace, file)) {
        let tokens = file.tokens();
        for (name, advice) in FOREIGN {
            let group = name.strip_prefix("std::").map(|module| grouped(&tokens, module)).unwrap_or_default();
            for at in rust::occurrences(&tokens, name).into_iter().chain(group) {
                let line = tokens[at].line;
                if !file.is_test_line(line) {
                    findings.push(file.finding(line, format!("`{name}` in a pure file: {advice}")));
                }
            }
        }
    }
    findings
}

/// Where `module` is taken in `use std::{..}`.
fn grouped(tokens: &[Token<'_>], module: &str) -> Vec<usize> {
    let mut found = Vec::new();
    for start in rust::occurrences(tokens, "std::{") {
        let (mut at, end) = (start + 4, rust::closing(tokens, start + 3));
        while at < end {
            let item = tokens[at - 1].text == "{" || tokens[at - 1].text == ",";
            if item && tokens[at].text == module {
                found.push(at);
            }
            at = if tokens[at].text == "{" { rust::closing(tokens, at) } else { at } + 1;
        }
    }
    found
}

/// Files of the pure crates that no `#![deny(clippy::disallowed_methods)]` covers.
pub(crate) fn coverage(workspace: &Workspace) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (folder, name) in pure_crates(workspace) {
        let prefix = format!("{folder}/src/");
        for file in workspace.rust().filter(|file| !file.is_test && file.path.starts_with(&prefix)) {
            if !is_pure(workspace, file) {
                let advice =
                    "put `#![deny(clippy::disallowed_methods)]` at the top of its lib.rs or of this file";
                findings.push(file.finding(1, format!("every file of {name} is pure: {advice}")));
            }
        }
    }
    findings
}

/// Runtimes and servers among the dependencies of the pure crates.
pub(crate) fn dependencies(workspace: &Workspace) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (folder, name) in pure_crates(workspace) {
        let Some(manifest) = workspace.file(&format!("{folder}/Cargo.toml")) else {
            continue;
        };
        for (index, line) in manifest.text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default();
            if !line.starts_with("description")
                && ["tokio", "hyper"].iter().any(|runtime| line.contains(runtime))
            {
                let advice =
                    format!("{name} decides without a runtime: move what waits to the crate that uses it");
                findings.push(manifest.finding(index + 1, advice));
            }
        }
    }
    findings
}

/// Folder and name of the crates that are pure throughout.
fn pure_crates(workspace: &Workspace) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    for file in &workspace.files {
        let Some(folder) = file.path.strip_suffix("/Cargo.toml") else {
            continue;
        };
        let named = |name: &&&str| file.text.lines().any(|line| line == format!("name = \"{name}\""));
        found.extend(CRATES.iter().find(named).map(|name| (folder, *name)));
    }
    found
}

/// Whether the file, or a module it is in, denies the calls that clippy.toml names.
fn is_pure(workspace: &Workspace, file: &Source) -> bool {
    denies(file).unwrap_or_else(|| {
        let inside = |parent: &&Source| {
            let folder = module_folder(&parent.path);
            parent.path != file.path && file.path.starts_with(&format!("{folder}/"))
        };
        let parents = workspace.rust().filter(inside).filter(|parent| is_module_of(parent, file));
        let nearest =
            parents.filter_map(|parent| denies(parent).map(|denies| (module_folder(&parent.path), denies)));
        nearest.max_by_key(|(folder, _)| folder.len()).is_some_and(|(_, denies)| denies)
    })
}

/// Whether `parent` can have declared `file`, at any depth: they are in the same `src`.
fn is_module_of(parent: &Source, file: &Source) -> bool {
    let source_folder = |path: &str| path.rfind("src/").map(|at| path[..at].to_owned());
    source_folder(&parent.path) == source_folder(&file.path)
}

/// What the file's own attribute says, if it has one.
fn denies(file: &Source) -> Option<bool> {
    let attribute = |line: &str| line.starts_with("#![") && line.contains("clippy::disallowed_methods");
    let line = file.code.lines().find(|line| attribute(line))?;
    Some(line.starts_with("#![deny") || line.starts_with("#![forbid"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DENY: &str = "#![deny(clippy::disallowed_methods)]\n";

    #[test]
    fn a_clock_in_a_pure_file_is_found() {
        let table = [
            ("fn f() { let now = std::time::SystemTime::now(); }", 1),
            ("fn f() { Instant::now() }", 1),
            ("use std::{fmt, fs::File, collections::{HashMap}};", 1),
            ("use std::{fmt, time::Duration};", 0),
            ("use tokio::sync::watch;", 1),
            ("fn f() { tracing::info!(x); }", 1),
            ("#[expect(clippy::disallowed_methods, reason = \"\")]\nfn f() {}", 1),
            ("// SystemTime\nfn f() { g(\"std::fs\") }", 0),
            ("#[cfg(test)]\nmod tests { fn f() { Instant::now() } }", 0),
        ];
        for (code, expected) in table {
            let pure = Workspace::of([("a/src/a.rs", format!("{DENY}{code}"))]);
            assert_eq!(contents(&pure).len(), expected, "{code}");
            let shell = Workspace::of([("a/src/a.rs", code)]);
            assert_eq!(contents(&shell), [], "{code}");
        }
    }

    #[test]
    fn a_pure_crate_with_an_impure_file_is_found() {
        let manifest = ("m/Cargo.toml", "name = \"sigma-media\"\n");
        let with = |lib: &'static str, inner: &'static str| {
            let files = [
                manifest,
                ("m/src/lib.rs", lib),
                ("m/src/a.rs", ""),
                ("m/src/a/b.rs", inner),
                ("m/src/a/tests.rs", ""),
            ];
            coverage(&Workspace::of(files)).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(with(DENY, "").len(), 0);
        assert_eq!(with("", DENY).len(), 2);
        assert_eq!(with(DENY, "#![allow(clippy::disallowed_methods)]").len(), 1);
        assert!(
            with("", "")[0].starts_with("m/src/lib.rs:1: every file of sigma-media is pure"),
            "{:?}",
            with("", "")
        );
        let nested = [manifest, ("m/src/lib.rs", DENY), ("m/http/src/a.rs", ""), ("o/src/a.rs", "")];
        assert_eq!(coverage(&Workspace::of(nested)), []);
    }

    #[test]
    fn a_runtime_in_a_pure_crate_is_found() {
        let with = |dependency: &str| {
            let manifest =
                format!("name = \"sigma-shared\"\ndescription = \"no tokio\"\n# no hyper\n{dependency}\n");
            dependencies(&Workspace::of([("s/Cargo.toml", manifest)])).len()
        };
        assert_eq!(with("thiserror.workspace = true"), 0);
        assert_eq!(with("tokio.workspace = true"), 1);
        assert_eq!(with("net = { package = \"hyper-util\", version = \"1\" }"), 1);
        assert_eq!(with("[dependencies.tokio]"), 1);
    }
}
