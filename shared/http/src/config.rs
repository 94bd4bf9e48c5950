//! Configuration files: TOML with no unknown keys, and complaints a person can act on.
//!
//! Invariant: every complaint reads `file:line: key: value: what is allowed`, and everything that `validate` finds is
//! listed at once. Deliberately absent: defaults and merging; they belong to the typed configuration.

use serde::de::DeserializeOwned;
use std::fmt;
use std::path::{Path, PathBuf};

/// A value that parses but is not allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The dotted key, such as `limits.connections_max`; an element of an array of tables is `channels[1].id`.
    pub key: String,
    /// What was given.
    pub value: String,
    /// What is allowed, with unit and range.
    pub allowed: String,
}

impl Problem {
    /// A problem with one key.
    #[must_use]
    pub fn new(key: impl Into<String>, value: impl fmt::Display, allowed: impl Into<String>) -> Self {
        Self { key: key.into(), value: value.to_string(), allowed: allowed.into() }
    }
}

/// A typed configuration that knows what is allowed in it.
pub trait Validate {
    /// Everything that is wrong, in the order of the file.
    fn validate(&self) -> Vec<Problem>;
}

/// A problem and the line it is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// The line, from 1; `None` when the key is not in the file (a default, or a missing key).
    pub line: Option<usize>,
    /// What is wrong.
    pub problem: Problem,
}

/// A configuration that cannot be used: the operator's to mend, a retry does not help.
#[derive(Debug)]
pub enum ConfigError {
    /// The file cannot be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file's contents are wrong.
    Invalid {
        /// The file.
        path: PathBuf,
        /// One or more problems.
        problems: Vec<Located>,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, source } => write!(f, "{}: {source}", path.display()),
            Self::Invalid { path, problems } => {
                for (n, Located { line, problem }) in problems.iter().enumerate() {
                    let newline = if n == 0 { "" } else { "\n" };
                    write!(f, "{newline}{}:", path.display())?;
                    if let Some(line) = line {
                        write!(f, "{line}:")?;
                    }
                    for field in [&problem.key, &problem.value] {
                        if !field.is_empty() {
                            write!(f, " {field}:")?;
                        }
                    }
                    write!(f, " {}", problem.allowed)?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable { source, .. } => Some(source),
            Self::Invalid { .. } => None,
        }
    }
}

/// Reads and validates a file.
///
/// # Errors
/// The file is unreadable, no TOML, has unknown or missing keys, or values that are not allowed.
pub fn load<T: DeserializeOwned + Validate>(path: &Path) -> Result<T, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    parse(&text).map_err(|problems| ConfigError::Invalid { path: path.to_owned(), problems })
}

/// Reads and validates the text of a file.
///
/// # Errors
/// Every problem found: a single one when the text does not deserialize, all of them when values are not allowed.
pub fn parse<T: DeserializeOwned + Validate>(text: &str) -> Result<T, Vec<Located>> {
    let config: T = toml::from_str(text).map_err(|error| vec![locate(text, &error)])?;
    let problems = config.validate();
    if problems.is_empty() {
        return Ok(config);
    }
    let keys: Vec<(usize, String, &str)> = keys(text).collect();
    let line_of = |key: &str| keys.iter().find(|(_, name, _)| name == key).map(|(line, ..)| *line);
    Err(problems.into_iter().map(|problem| Located { line: line_of(&problem.key), problem }).collect())
}

fn locate(text: &str, error: &toml::de::Error) -> Located {
    let allowed = error.message().trim().replace('\n', "; ");
    let Some(span) = error.span() else {
        return Located { line: None, problem: Problem::new("", "", allowed) };
    };
    let before = text.get(..span.start).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let (key, value) =
        keys(text).find(|(at, ..)| *at == line).map(|(_, key, value)| (key, value)).unwrap_or_default();
    Located { line: Some(line), problem: Problem::new(key, value, allowed) }
}

/// The keys of a TOML text as `(line, dotted key, value as written)`: one per line, which is how people write them.
fn keys(text: &str) -> impl Iterator<Item = (usize, String, &str)> {
    let mut section = String::new();
    let mut arrays: Vec<(&str, usize)> = Vec::new();
    text.lines().enumerate().filter_map(move |(n, line)| {
        let line = line.trim();
        if let Some(name) = line.strip_prefix("[[").and_then(|rest| rest.split("]]").next()) {
            let name = name.trim();
            let index = match arrays.iter_mut().find(|(array, _)| *array == name) {
                Some((_, count)) => {
                    *count += 1;
                    *count
                }
                None => {
                    arrays.push((name, 0));
                    0
                }
            };
            section = format!("{name}[{index}]");
            return None;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            name.trim().clone_into(&mut section);
            return None;
        }
        let (key, value) = line.split_once('=').filter(|_| !line.starts_with('#'))?;
        let key = key.trim();
        let dotted = if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") };
        Some((n + 1, dotted, without_comment(value)))
    })
}

/// A value without the comment behind it; a `#` inside quotes is no comment.
fn without_comment(value: &str) -> &str {
    let mut quote = None;
    for (at, c) in value.char_indices() {
        match (quote, c) {
            (None, '"' | '\'') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            (None, '#') => return value[..at].trim(),
            _ => {}
        }
    }
    value.trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        limits: Section,
        #[serde(default)]
        pops: Vec<Pop>,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Section {
        connections_max: u32,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Pop {
        id: String,
    }

    impl Validate for Sample {
        fn validate(&self) -> Vec<Problem> {
            let mut found = Vec::new();
            if self.limits.connections_max == 0 {
                found.push(Problem::new("limits.connections_max", 0, "1 or more"));
            }
            for (n, pop) in self.pops.iter().enumerate() {
                if pop.id.is_empty() {
                    found.push(Problem::new(format!("pops[{n}].id"), "\"\"", "an id"));
                }
            }
            found
        }
    }

    fn complaint(text: &str) -> String {
        let problems = parse::<Sample>(text).unwrap_err();
        ConfigError::Invalid { path: "edge.toml".into(), problems }.to_string()
    }

    #[test]
    fn file_line_key_value_allowed() {
        for (text, expected) in [
            (
                "[limits]\n# many\nconnections_max = 0 # none",
                "edge.toml:3: limits.connections_max: 0: 1 or more",
            ),
            (
                "[limits]\nconnections_max = 0\n[[pops]]\nid = \"a\"\n[[pops]]\n\nid = \"\"",
                "edge.toml:2: limits.connections_max: 0: 1 or more\nedge.toml:7: pops[1].id: \"\": an id",
            ),
            (
                "[limits]\nconnections_max = \"x#\"",
                "edge.toml:2: limits.connections_max: \"x#\": invalid type: string \"x#\", expected u32",
            ),
            (
                "[limits]\nconnection_max = 1",
                "edge.toml:2: limits.connection_max: 1: unknown field `connection_max`, expected `connections_max`",
            ),
        ] {
            assert_eq!(complaint(text), expected);
        }
    }

    #[test]
    fn missing_keys_and_no_toml_are_named() {
        assert!(complaint("[limits]").contains("missing field `connections_max`"));
        assert!(complaint("limits = {").starts_with("edge.toml:1:"));
    }
}
