//! Rules that one look at a file decides: its length and head, queues, leftovers, tests that wait or are switched off,
//! registry hosts.

use crate::rust;
use crate::workspace::{Finding, Source, Workspace};

/// The hard limit; the aim is 400.
const IMPL_LINES_MAX: usize = 600;

const NEXTEST: &str = ".config/nextest.toml";

/// Hosts of package registries. Split, so that this file does not name them.
const REGISTRIES: [&str; 5] = [
    concat!("crates", ".io"),
    concat!("npmjs", ".org"),
    concat!("pypi", ".org"),
    concat!("pythonhosted", ".org"),
    concat!("deb.debian", ".org"),
];

/// The one line of Cargo.lock that names a registry: the name of a source, not an address that is opened.
const LOCK_SOURCE: &str = concat!("source = \"registry+https://github.com/rust-lang/crates", ".io-index\"");

/// Files with more lines, tests not counted, than the hard limit.
pub(crate) fn file_lengths(workspace: &Workspace) -> Vec<Finding> {
    let long = workspace.rust().filter(|file| file.impl_lines() > IMPL_LINES_MAX);
    let advice = |file: &Source| {
        let lines = file.impl_lines();
        file.finding(
            1,
            format!("{lines} lines besides tests, at most {IMPL_LINES_MAX}: split it by what it decides"),
        )
    };
    long.map(advice).collect()
}

/// Rust files whose first line is not a `//!` head; tests need none.
pub(crate) fn heads(workspace: &Workspace) -> Vec<Finding> {
    let bare = workspace.rust().filter(|file| !file.is_test && !file.text.starts_with("//!"));
    let advice = "start with `//!`: role, invariants, what is deliberately absent";
    bare.map(|file| file.finding(1, advice)).collect()
}

/// Queues that grow without a bound.
pub(crate) fn unbounded_queues(workspace: &Workspace) -> Vec<Finding> {
    let patterns = ["unbounded_channel", "unbounded(", "unbounded::", "mpsc::channel()", "mpsc::channel::<"];
    let mut findings = found(workspace, &patterns, "everything has a bound (law A10): take a bounded queue");
    // Tokio's channel of that name takes its bound.
    findings.retain(|(pattern, file, line)| {
        let text = file.code.lines().nth(line - 1).unwrap_or_default();
        *pattern != "mpsc::channel::<" || text.contains(">()")
    });
    report(findings)
}

/// What somebody meant to come back to.
pub(crate) fn leftovers(workspace: &Workspace) -> Vec<Finding> {
    let mut findings = report(found(workspace, &["todo!", "unimplemented!", "dbg!"], "finish it"));
    let marks = [concat!("TO", "DO"), concat!("FIX", "ME")];
    for file in &workspace.files {
        for (index, line) in file.text.lines().enumerate() {
            let mut words = line.split(|c: char| !(c.is_alphanumeric() || c == '_'));
            if words.any(|word| marks.contains(&word)) {
                findings.push(
                    file.finding(index + 1, "finish it, or open an issue and say here what is so today"),
                );
            }
        }
    }
    findings
}

/// Tests that sleep instead of waiting for a condition or moving a simulated clock.
pub(crate) fn sleeping_tests(workspace: &Workspace) -> Vec<Finding> {
    let mut findings =
        found(workspace, &["sleep(", "sleep_until("], "wait for the condition, or simulate the clock");
    findings.retain(|(_, file, line)| file.is_test_line(*line));
    report(findings)
}

/// Tests that are left out of the run.
pub(crate) fn ignored_tests(workspace: &Workspace) -> Vec<Finding> {
    let advice = "mend the test or remove it";
    let mut findings = report(found(workspace, &["#[ignore", ", ignore"], advice));
    let script = |file: &&Source| [".test.ts", ".test.mjs"].iter().any(|end| file.path.ends_with(end));
    for file in workspace.files.iter().filter(script) {
        for (index, line) in file.text.lines().enumerate() {
            let switches =
                ["test.skip", "test.only", "test.todo", "describe.skip", "describe.only", "skip:", "only:"];
            if switches.iter().any(|switch| line.contains(switch)) {
                findings.push(file.finding(index + 1, advice));
            }
        }
    }
    findings
}

/// A test runner that tries again, by its configuration or by an option where it is called.
pub(crate) fn retries(workspace: &Workspace) -> Vec<Finding> {
    let advice = "a test that fails once has failed: no retries";
    let mut findings = Vec::new();
    for file in &workspace.files {
        let config = file.path == NEXTEST;
        let caller =
            file.path == "justfile" || file.path.starts_with("scripts/") || file.path.starts_with(".ci/");
        for (index, line) in file.text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().replace(' ', "");
            let sets = config && line.contains("retries=") && line != "retries=0";
            if sets || (caller && (line.contains("--retries") || line.contains("NEXTEST_RETRIES"))) {
                findings.push(file.finding(index + 1, advice));
            }
        }
        if config && !file.text.lines().any(|line| line == "retries = 0") {
            findings.push(file.finding(1, "say `retries = 0` in [profile.default]"));
        }
    }
    findings
}

/// Registry hosts: the clients' own configuration decides where packages come from.
pub(crate) fn registry_hosts(workspace: &Workspace) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &workspace.files {
        for (index, line) in file.text.lines().enumerate() {
            let lock = file.path == "Cargo.lock" && line == LOCK_SOURCE;
            if let Some(host) = REGISTRIES.iter().find(|host| line.contains(**host)).filter(|_| !lock) {
                let advice =
                    format!("names the registry {host}: leave the address to the client's configuration");
                findings.push(file.finding(index + 1, advice));
            }
        }
    }
    findings
}

/// A pattern, and where it is in the code: file and line, with what to do.
struct Found<'a> {
    places: Vec<(&'a str, &'a Source, usize)>,
    advice: &'a str,
}

impl<'a> Found<'a> {
    fn retain(&mut self, keep: impl FnMut(&(&'a str, &'a Source, usize)) -> bool) {
        self.places.retain(keep);
    }
}

fn found<'a>(workspace: &'a Workspace, patterns: &[&'a str], advice: &'a str) -> Found<'a> {
    let mut places = Vec::new();
    let first_words: Vec<&str> = patterns.iter().map(|pattern| first_word(pattern)).collect();
    for file in workspace.rust().filter(|file| first_words.iter().any(|word| file.code.contains(word))) {
        let tokens = file.tokens();
        for pattern in patterns {
            let at = rust::occurrences(&tokens, pattern).into_iter();
            places.extend(at.map(|at| (*pattern, file, tokens[at].line)));
        }
    }
    Found { places, advice }
}

fn first_word(pattern: &str) -> &str {
    rust::tokens(pattern).into_iter().map(|token| token.text).find(|text| text.len() > 1).unwrap_or(pattern)
}

fn report(found: Found<'_>) -> Vec<Finding> {
    let advice = found.advice;
    found
        .places
        .into_iter()
        .map(|(name, file, line)| file.finding(line, format!("`{name}`: {advice}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    type Rule = fn(&Workspace) -> Vec<Finding>;

    /// Rule, path and text of a file, number of findings.
    const CASES: [(Rule, &str, &str, usize); 28] = [
        (heads, "a/src/a.rs", "use b;\n", 1),
        (heads, "a/src/a.rs", "//! A.\n", 0),
        (heads, "a/tests/a.rs", "use b;\n", 0),
        (unbounded_queues, "a/src/a.rs", "let x = mpsc::unbounded_channel();", 1),
        (unbounded_queues, "a/src/a.rs", "let x = flume::unbounded();", 1),
        (unbounded_queues, "a/src/a.rs", "let x = std::sync::mpsc::channel::<A>();", 1),
        (unbounded_queues, "a/src/a.rs", "let x = mpsc::channel::<A>(8); // unbounded()", 0),
        (leftovers, "a/src/a.rs", "fn f() { todo!() }", 1),
        (leftovers, "a/src/a.rs", "fn f() { g(\"todo!()\") }", 0),
        (leftovers, "a/b.ts", concat!("// TO", "DO: later"), 1),
        (leftovers, "a/src/a.rs", concat!("// FIX", "ME later"), 1),
        (sleeping_tests, "a/tests/a.rs", "fn f() { std::thread::sleep(A); }", 1),
        (
            sleeping_tests,
            "a/src/a.rs",
            "#[cfg(test)]\nmod tests {\n fn f() { tokio::time::sleep(A).await }\n}",
            1,
        ),
        (sleeping_tests, "a/src/a.rs", "fn f() { tokio::time::sleep(A).await }", 0),
        (ignored_tests, "a/src/a.rs", "#[ignore = \"slow\"]\nfn f() {}", 1),
        (ignored_tests, "a/src/a.rs", "#[cfg_attr(x, ignore)]\nfn f() {}", 1),
        (ignored_tests, "e2e/a.test.mjs", "test.skip('x', f);", 1),
        (ignored_tests, "e2e/a.test.mjs", "list.skip(1);", 0),
        (retries, NEXTEST, "[profile.default]\nretries = 0\n", 0),
        (retries, NEXTEST, "[profile.default]\n", 1),
        (retries, NEXTEST, "retries = 0\n[[profile.default.overrides]]\nretries = 2\n", 1),
        (retries, "scripts/test", "cargo nextest run --retries 3", 1),
        (registry_hosts, "a.md", concat!("see https://pypi", ".org/x"), 1),
        (registry_hosts, "a.md", LOCK_SOURCE, 1),
        (registry_hosts, "Cargo.lock", LOCK_SOURCE, 0),
        (registry_hosts, "package-lock.json", concat!("https://registry.npmjs", ".org/x.tgz"), 1),
        (file_lengths, "a/src/a.rs", "//! A.\n#[cfg(test)]\nmod tests {\n}\n", 0),
        (file_lengths, "a/src/a/tests.rs", "//! A.\n", 0),
    ];

    /// What a rule finds in one file.
    fn count(rule: Rule, path: &str, text: &str) -> usize {
        rule(&Workspace::of([(path, text)])).len()
    }

    #[test]
    fn each_rule_finds_what_it_is_for() {
        for (rule, path, text, expected) in CASES {
            assert_eq!(count(rule, path, text), expected, "{path}: {text}");
        }
    }

    #[test]
    fn a_long_file_is_found_and_its_tests_are_not_counted() {
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", "use b;\n".repeat(300));
        let file = |lines: usize| format!("{}{tests}", "use a;\n".repeat(lines));
        assert_eq!(count(file_lengths, "a/src/a.rs", &file(IMPL_LINES_MAX)), 0);
        assert_eq!(count(file_lengths, "a/src/a.rs", &file(IMPL_LINES_MAX + 1)), 1);
        assert_eq!(count(file_lengths, "a/src/a/tests.rs", &file(IMPL_LINES_MAX + 1)), 0);
    }
}
