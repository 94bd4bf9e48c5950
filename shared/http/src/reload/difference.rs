//! What differs between two configurations, key by key.
#![deny(clippy::disallowed_methods)]

use std::collections::BTreeMap;
use toml::{Table, Value};

/// A key whose value differs, appeared or went away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The dotted key; an element of an array of tables is `channels[1].id`.
    pub key: String,
    /// Whether a running server can apply it.
    pub live: bool,
}

/// The keys that differ, in their order by name. `live` names those that a running server can apply.
#[must_use]
pub fn difference(old: &Table, new: &Table, live: &[&str]) -> Vec<Change> {
    let (old, new) = (flat(old), flat(new));
    let mut keys: Vec<&String> = old.keys().chain(new.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    let changed = keys.into_iter().filter(|key| old.get(*key) != new.get(*key));
    changed.map(|key| Change { key: key.clone(), live: live.contains(&key.as_str()) }).collect()
}

fn flat(table: &Table) -> BTreeMap<String, &Value> {
    let mut found = BTreeMap::new();
    for (key, value) in table {
        flatten(key.clone(), value, &mut found);
    }
    found
}

fn flatten<'a>(key: String, value: &'a Value, found: &mut BTreeMap<String, &'a Value>) {
    match value {
        Value::Table(table) => {
            for (name, value) in table {
                flatten(format!("{key}.{name}"), value, found);
            }
        }
        Value::Array(elements) if elements.iter().any(Value::is_table) => {
            for (n, value) in elements.iter().enumerate() {
                flatten(format!("{key}[{n}]"), value, found);
            }
        }
        _ => {
            found.insert(key, value);
        }
    }
}

/// Makes `to` have at `key`, of the form `table.key`, what `from` has there, or nothing.
pub(super) fn copy(key: &str, from: &Table, to: &mut Table) {
    let Some((table, name)) = key.split_once('.') else { return };
    let value = from.get(table).and_then(|inner| inner.get(name)).cloned();
    let inner = to.entry(table).or_insert_with(|| Value::Table(Table::new()));
    let Value::Table(inner) = inner else { return };
    match value {
        Some(value) => inner.insert(name.to_owned(), value),
        None => inner.remove(name),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIVE: &[&str] = &["limits.idle_timeout_ms", "log.filter"];

    fn changes(old: &str, new: &str) -> Vec<(String, bool)> {
        let found = difference(&old.parse().unwrap(), &new.parse().unwrap(), LIVE);
        found.into_iter().map(|change| (change.key, change.live)).collect()
    }

    #[test]
    fn keys_that_differ() {
        let old = "pop = \"a\"\n[limits]\nidle_timeout_ms = 1\nwaiters_max = 2\n[[channels]]\nid = \"a\"\nbind = [\"x\"]\n";
        for (new, expected) in [
            (old.to_owned(), vec![]),
            (format!("# a comment\n{old}"), vec![]),
            (old.replace("= 1", "= 3"), vec![("limits.idle_timeout_ms", true)]),
            (old.replace("= 2", "= 3"), vec![("limits.waiters_max", false)]),
            (old.replace("waiters_max = 2", ""), vec![("limits.waiters_max", false)]),
            (format!("{old}[log]\nfilter = \"debug\""), vec![("log.filter", true)]),
            (format!("{old}[[channels]]\nid = \"b\""), vec![("channels[1].id", false)]),
            (old.replace("[\"x\"]", "[\"y\"]"), vec![("channels[0].bind", false)]),
            (
                old.replace("\"a\"\n[l", "\"b\"\n[l").replace("= 1", "= 9"),
                vec![("limits.idle_timeout_ms", true), ("pop", false)],
            ),
        ] {
            let expected: Vec<_> = expected.into_iter().map(|(key, live)| (key.to_owned(), live)).collect();
            assert_eq!(changes(old, &new), expected, "{new}");
        }
    }

    #[test]
    fn what_was_applied_is_no_change_any_more() {
        let new: Table = "[log]\nfilter = \"debug\"\n[limits]\nwaiters_max = 3".parse().unwrap();
        let mut running: Table = "[limits]\nwaiters_max = 2\nidle_timeout_ms = 5".parse().unwrap();
        for change in difference(&running, &new, LIVE).iter().filter(|change| change.live) {
            copy(&change.key, &new, &mut running);
        }
        let left = difference(&running, &new, LIVE);
        assert_eq!(left, [Change { key: "limits.waiters_max".to_owned(), live: false }]);
    }
}
