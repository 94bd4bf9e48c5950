//! Names that say nothing: a file or type called after one of them could hold anything, and soon does.

use crate::workspace::{Finding, Source, Workspace};

const BANNED: [&str; 7] = ["manager", "helper", "util", "misc", "common", "info", "data"];

/// Names that are not ours to choose, and whose they are.
const ALLOWED: [(&str, &str); 0] = [];

/// Files, folders, modules and types with a banned word in their name.
pub(crate) fn banned(workspace: &Workspace) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &workspace.files {
        let in_path = file.path.split('/').map(|part| (1, part.split('.').next().unwrap_or(part)));
        for (line, name) in in_path.chain(declared(file)) {
            let allowed = ALLOWED.iter().any(|(allowed, _)| *allowed == name);
            if let Some(word) = banned_word(name).filter(|_| !allowed) {
                let advice = format!("`{name}`: `{word}` says nothing, name what it is or does");
                findings.push(file.finding(line, advice));
            }
        }
    }
    findings
}

/// Line and name of every module and type a Rust file declares; the names of associated types are their traits'.
fn declared(file: &Source) -> Vec<(usize, &str)> {
    let tokens = file.tokens();
    let keyword = |text| matches!(text, "struct" | "enum" | "union" | "trait" | "mod");
    let names = tokens.windows(2).filter(|pair| keyword(pair[0].text));
    names.map(|pair| (pair[1].line, pair[1].text)).collect()
}

/// The banned word that `name` has as a whole word, also in the plural.
fn banned_word(name: &str) -> Option<&'static str> {
    let mut words = vec![String::new()];
    let letters: Vec<char> = name.chars().collect();
    for (at, letter) in letters.iter().enumerate() {
        let after_lower = at > 0 && letters[at - 1].is_lowercase();
        let before_lower = letters.get(at + 1).is_some_and(|next| next.is_lowercase());
        if !letter.is_alphanumeric() || (letter.is_uppercase() && (after_lower || before_lower)) {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut() {
            word.extend(letter.to_lowercase());
        }
    }
    let same = |word: &String, banned: &str| {
        let word = word.trim_start_matches(|c: char| !c.is_alphanumeric());
        word == banned || word.strip_suffix('s') == Some(banned)
    };
    BANNED.into_iter().find(|banned| words.iter().any(|word| same(word, banned)))
}

#[test]
fn names_are_taken_apart_into_words() {
    let table = [
        ("SegmentInfo", Some("info")),
        ("HTTPData", Some("data")),
        ("DataRate", Some("data")),
        ("tls_utils", Some("util")),
        ("test-helpers", Some("helper")),
        ("Metadata", None),
        ("Commonwealth", None),
        ("inform", None),
    ];
    for (name, word) in table {
        assert_eq!(banned_word(name), word, "{name}");
    }
}

#[test]
fn a_banned_name_is_found() {
    let workspace = Workspace::of([
        ("a/src/tls_util.rs", "//! A.\n"),
        ("a/src/good.rs", "struct StreamInfo;\nfn data() {}\n// struct Data\nmod common {}\n"),
        ("a/console/src/helper.test.ts", ""),
    ]);
    let lines: Vec<String> = banned(&workspace).iter().map(ToString::to_string).collect();
    let places: Vec<&str> = lines.iter().filter_map(|line| line.split(": ").next()).collect();
    assert_eq!(
        places,
        ["a/src/tls_util.rs:1", "a/src/good.rs:1", "a/src/good.rs:4", "a/console/src/helper.test.ts:1"]
    );
}
