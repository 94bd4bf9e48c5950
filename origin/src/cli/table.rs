//! Tables for people: columns as wide as what is in them.

use serde_json::Value;
use std::fmt::Write;

/// Rows under a head; numbers stand right.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([head[column].len()]).max().unwrap_or(0)
    };
    let is_number = |cell: &str| cell.starts_with(|first: char| first.is_ascii_digit() || first == '-');
    let mut text = String::new();
    let mut line = |cells: &[String], right: &dyn Fn(usize) -> bool| {
        let mut written = String::new();
        for (column, cell) in cells.iter().enumerate() {
            let width = width(column);
            // Writing to a string cannot fail.
            let _ = if right(column) {
                write!(written, "{cell:>width$}  ")
            } else {
                write!(written, "{cell:<width$}  ")
            };
        }
        let _ = writeln!(text, "{}", written.trim_end());
    };
    let numbers = |column: usize| {
        !rows.is_empty() && rows.iter().all(|row| row.get(column).is_some_and(|cell| is_number(cell)))
    };
    line(&head.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>(), &numbers);
    rows.iter().for_each(|row| line(row, &numbers));
    text
}

/// What a cell shows of a value.
pub(super) fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) if text.is_empty() => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Milliseconds as hours, minutes and seconds.
pub(super) fn duration(value: &Value) -> String {
    let Some(ms) = value.as_u64() else { return "-".to_owned() };
    let seconds = ms / 1000;
    format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// Bytes in a unit that fits.
pub(super) fn bytes(value: &Value) -> String {
    let Some(bytes) = value.as_u64() else { return "-".to_owned() };
    let units = ["B", "kB", "MB", "GB", "TB", "PB"];
    let power = (bytes.max(1).ilog10() / 3).min(5);
    if power == 0 {
        return format!("{bytes} B");
    }
    let unit = 1000u64.pow(power);
    format!("{}.{} {}", bytes / unit, bytes % unit * 10 / unit, units[power as usize])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn columns_stand_under_each_other() {
        let rows = [["a", "5"], ["longer", "1200"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(table(&["POP", "VIEWERS"], &rows), "POP     VIEWERS\na             5\nlonger     1200\n");
        assert_eq!(table(&["POP"], &[]), "POP\n");
    }

    #[test]
    fn numbers_are_for_people() {
        assert_eq!(duration(&json!(3_723_999)), "1:02:03");
        assert_eq!(bytes(&json!(999)), "999 B");
        assert_eq!(bytes(&json!(1_250_000)), "1.2 MB");
        assert_eq!(
            (bytes(&Value::Null), cell(&json!(7)), cell(&json!(""))),
            ("-".into(), "7".into(), "-".into())
        );
    }
}
