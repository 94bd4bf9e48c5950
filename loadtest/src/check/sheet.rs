//! A playlist as lines and tags, whichever kind it is, and what is wrong with its syntax.
//!
//! Invariants: linear in the text, never panics; a flaw has its rule and its line.
#![deny(clippy::disallowed_methods)]

use crate::check::attributes::{Attributes, is_of};
use crate::check::catalog::Rule;
use crate::check::tags::{self, Scope};

/// Something wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Flaw {
    pub(crate) rule: Rule,
    /// From 1.
    pub(crate) line: usize,
    pub(crate) said: String,
}

/// A tag as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tag {
    pub(crate) line: usize,
    /// Without `#`.
    pub(crate) name: String,
    pub(crate) value: String,
    /// Of the value, where it is a list.
    pub(crate) list: Attributes,
}

/// What both kinds of playlist have in common.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sheet {
    pub(crate) lines: Vec<String>,
    pub(crate) tags: Vec<Tag>,
    pub(crate) flaws: Vec<Flaw>,
}

impl Sheet {
    /// The lines and tags of a body in the scope given.
    pub(crate) fn read(body: &[u8], scope: Scope) -> Self {
        let mut sheet = Self::default();
        let text = String::from_utf8_lossy(body);
        if matches!(text, std::borrow::Cow::Owned(_)) {
            sheet.flaw(Rule::Syn02, 1, "the body is not UTF-8");
        }
        if text.starts_with('\u{feff}') {
            sheet.flaw(Rule::Syn02, 1, "it starts with a byte order mark");
        }
        for (index, raw) in text.split('\n').enumerate() {
            let line = raw.strip_suffix('\r').unwrap_or(raw);
            sheet.line(index + 1, line, scope);
            sheet.lines.push(line.to_owned());
        }
        if sheet.lines.last().is_some_and(String::is_empty) {
            sheet.lines.pop();
        } else {
            let last = sheet.lines.len();
            sheet.flaw(Rule::Syn04, last, "the last line does not end");
        }
        if sheet.lines.first().map(String::as_str) != Some("#EXTM3U") {
            sheet.flaw(Rule::Syn03, 1, "the first line is not #EXTM3U");
        }
        sheet
    }

    /// The line of this number, from 1.
    pub(crate) fn text(&self, line: usize) -> &str {
        self.lines.get(line.wrapping_sub(1)).map_or("", String::as_str)
    }

    /// The first tag of a name.
    pub(crate) fn tag(&self, name: &str) -> Option<&Tag> {
        self.tags.iter().find(|tag| tag.name == name)
    }

    fn flaw(&mut self, rule: Rule, line: usize, said: impl Into<String>) {
        self.flaws.push(Flaw { rule, line, said: said.into() });
    }

    fn line(&mut self, number: usize, line: &str, scope: Scope) {
        if line.chars().any(char::is_control) {
            self.flaw(Rule::Syn02, number, "a control character");
        }
        if !is_nfc(line) {
            self.flaw(Rule::Syn02, number, "text that is not in Unicode normalisation form C");
        }
        if line != line.trim() {
            self.flaw(Rule::Syn04, number, "white space at the start or end of the line");
        }
        let Some(tag) = line.strip_prefix("#EXT") else {
            if !line.starts_with('#') && line.trim().contains([' ', '\t']) {
                self.flaw(Rule::Syn04, number, "white space in a URI");
            }
            return;
        };
        let (name, value) = tag.split_once(':').unwrap_or((tag, ""));
        let name = format!("EXT{name}");
        let Some(known) = tags::known(&name) else { return };
        if known.scope != Scope::Both && known.scope != scope {
            self.flaw(Rule::Syn07, number, format!("{name} does not belong in this kind of playlist"));
        }
        if known.once && self.tag(&name).is_some() {
            self.flaw(Rule::Syn06, number, format!("{name} occurs more than once"));
        }
        let mut list = Attributes::default();
        if known.listed {
            let (read, flaws) = Attributes::read(value);
            for said in flaws {
                self.flaw(Rule::Syn05, number, said);
            }
            for attribute in &read.0 {
                if let Some(kind) = tags::kind(&name, &attribute.name)
                    && !is_of(attribute, kind)
                {
                    let said = format!("{}={} is no {kind:?}", attribute.name, attribute.value);
                    self.flaw(Rule::Syn05, number, said);
                }
            }
            list = read;
        }
        self.tags.push(Tag { line: number, name, value: value.to_owned(), list });
    }
}

/// Whether text may be in normalisation form C: no combining mark that composes with the letter before it. Exact for
/// the Latin letters that people decompose by accident; other scripts are taken as they are.
fn is_nfc(line: &str) -> bool {
    let mut before = ' ';
    for c in line.chars() {
        let composes = ('\u{300}'..='\u{304}').contains(&c) || ('\u{306}'..='\u{30c}').contains(&c);
        if composes && before.is_ascii_alphabetic() {
            return false;
        }
        before = c;
    }
    true
}
