//! Date Ranges: metadata for a time of the broadcast (draft-pantos-hls-rfc8216bis section 4.4.5.1), checked before it gets
//! into a playlist (SYN-14).
//!
//! Invariant: a value that `new` let through can be written as it is: quoted strings have neither quotes nor line breaks,
//! names are names of attributes.

use crate::playlist::DateTime;
use std::fmt;

/// What is stated of a Date Range, unchecked.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Statement {
    /// ID, unique in the broadcast.
    pub id: String,
    /// CLASS
    pub class: Option<String>,
    /// START-DATE, Unix milliseconds.
    pub start_ms: i64,
    /// DURATION, milliseconds; END-DATE follows from it.
    pub duration_ms: Option<u64>,
    /// PLANNED-DURATION, milliseconds.
    pub planned_duration_ms: Option<u64>,
    /// END-ON-NEXT=YES: it ends where the next one of its class starts.
    pub end_on_next: bool,
    /// Attributes of the broadcaster's own, whose names start with `X-`.
    pub attributes: Vec<(String, Value)>,
}

/// The value of an attribute of the broadcaster's own.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A quoted string.
    Text(String),
    /// A decimal number.
    Number(f64),
}

/// Why a statement is no Date Range: the broadcaster's fault, a retry does not help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDateRange {
    /// A text that cannot be quoted.
    #[error(
        "{name}: {LENGTH_MIN} to {LENGTH_MAX} bytes without quotation marks and control characters are allowed"
    )]
    Text {
        /// The attribute.
        name: String,
    },
    /// A name that is none.
    #[error(
        "{name}: an attribute of your own is named X- and then A-Z, 0-9 and -, at most {NAME_MAX} characters"
    )]
    Name {
        /// What was given, cut to 80 characters.
        name: String,
    },
    /// The same attribute twice.
    #[error("{name}: given twice")]
    Repeated {
        /// The attribute.
        name: String,
    },
    /// Too many.
    #[error("at most {ATTRIBUTES_MAX} attributes of your own are allowed")]
    TooMany,
    /// A number that a playlist cannot state.
    #[error("{name}: a finite number, 0 or more, is expected")]
    Number {
        /// The attribute.
        name: String,
    },
    /// A date that ISO 8601 has more than four digits for.
    #[error("start_date: a date from 1970 to 9999 is expected")]
    Start,
    /// SYN-14
    #[error("end_on_next needs a class, and neither duration nor planned duration beside it")]
    EndOnNext,
}

const YEAR_10000_MS: i64 = 253_402_300_800_000;
const LENGTH_MIN: usize = 1;
const LENGTH_MAX: usize = 2048;
const NAME_MAX: usize = 64;
const ATTRIBUTES_MAX: usize = 16;

/// A Date Range that can be listed.
#[derive(Debug, Clone, PartialEq)]
pub struct DateRange(Statement);

impl DateRange {
    /// Checks a statement.
    ///
    /// # Errors
    /// What [`InvalidDateRange`] says.
    pub fn new(statement: Statement) -> Result<Self, InvalidDateRange> {
        quotable("id", &statement.id)?;
        if let Some(class) = &statement.class {
            quotable("class", class)?;
        }
        if statement.attributes.len() > ATTRIBUTES_MAX {
            return Err(InvalidDateRange::TooMany);
        }
        for (n, (name, value)) in statement.attributes.iter().enumerate() {
            let own = name.strip_prefix("X-").is_some_and(|rest| !rest.is_empty()) && name.len() <= NAME_MAX;
            if !own || !name.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'-') {
                return Err(InvalidDateRange::Name { name: name.chars().take(80).collect() });
            }
            if statement.attributes[..n].iter().any(|(other, _)| other == name) {
                return Err(InvalidDateRange::Repeated { name: name.clone() });
            }
            match value {
                Value::Text(text) => quotable(name, text)?,
                Value::Number(number) if number.is_finite() && number.is_sign_positive() => {}
                Value::Number(_) => return Err(InvalidDateRange::Number { name: name.clone() }),
            }
        }
        if !(0..YEAR_10000_MS).contains(&statement.start_ms) {
            return Err(InvalidDateRange::Start);
        }
        let timed = statement.duration_ms.is_some() || statement.planned_duration_ms.is_some();
        if statement.end_on_next && (statement.class.is_none() || timed) {
            return Err(InvalidDateRange::EndOnNext);
        }
        Ok(Self(statement))
    }

    /// Whether this is `earlier` and more: what that one states, this one states alike (SYN-14).
    #[must_use]
    pub fn completes(&self, earlier: &Self) -> bool {
        let (now, then) = (&self.0, &earlier.0);
        let kept = |now: Option<u64>, then: Option<u64>| then.is_none() || now == then;
        (&now.id, now.start_ms, now.end_on_next) == (&then.id, then.start_ms, then.end_on_next)
            && (then.class.is_none() || now.class == then.class)
            && kept(now.duration_ms, then.duration_ms)
            && kept(now.planned_duration_ms, then.planned_duration_ms)
            && then.attributes.iter().all(|attribute| now.attributes.contains(attribute))
            && now != then
    }

    /// ID
    #[must_use]
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// START-DATE, Unix milliseconds.
    #[must_use]
    pub fn start_ms(&self) -> i64 {
        self.0.start_ms
    }

    /// Where it ends as far as is known, Unix milliseconds.
    #[must_use]
    pub fn end_ms(&self) -> i64 {
        let length = self.0.duration_ms.or(self.0.planned_duration_ms).unwrap_or(0);
        self.0.start_ms.saturating_add(i64::try_from(length).unwrap_or(i64::MAX))
    }
}

fn quotable(name: &str, text: &str) -> Result<(), InvalidDateRange> {
    let fits = (LENGTH_MIN..=LENGTH_MAX).contains(&text.len());
    if fits && !text.chars().any(|c| c == '"' || c.is_control()) {
        Ok(())
    } else {
        Err(InvalidDateRange::Text { name: name.into() })
    }
}

impl fmt::Display for DateRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Statement { id, class, start_ms, duration_ms, planned_duration_ms, end_on_next, attributes } =
            &self.0;
        write!(f, "#EXT-X-DATERANGE:ID=\"{id}\"")?;
        if let Some(class) = class {
            write!(f, ",CLASS=\"{class}\"")?;
        }
        write!(f, ",START-DATE=\"{}\"", DateTime(*start_ms))?;
        let mut length = |name: &str, ms: &Option<u64>| match ms {
            Some(ms) => write!(f, ",{name}={}.{:03}", ms / 1000, ms % 1000),
            None => Ok(()),
        };
        length("DURATION", duration_ms)?;
        length("PLANNED-DURATION", planned_duration_ms)?;
        for (name, value) in attributes {
            match value {
                Value::Text(text) => write!(f, ",{name}=\"{text}\"")?,
                // Never with an exponent (SYN-05).
                Value::Number(number) => write!(f, ",{name}={number}")?,
            }
        }
        if *end_on_next {
            f.write_str(",END-ON-NEXT=YES")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement() -> Statement {
        Statement { id: "poll-1".into(), start_ms: 1_795_333_200_000, ..Statement::default() }
    }

    #[test]
    fn golden() {
        let range = DateRange::new(Statement {
            class: Some("com.example.poll".into()),
            duration_ms: Some(30_500),
            attributes: vec![
                ("X-QUESTION".into(), Value::Text("Who wins?".into())),
                ("X-WEIGHT".into(), Value::Number(1.5e-7)),
            ],
            ..statement()
        });
        insta::assert_snapshot!(
            range.expect("valid"),
            @r#"#EXT-X-DATERANGE:ID="poll-1",CLASS="com.example.poll",START-DATE="2026-11-22T07:40:00.000Z",DURATION=30.500,X-QUESTION="Who wins?",X-WEIGHT=0.00000015"#
        );
        let next = Statement { class: Some("c".into()), end_on_next: true, ..statement() };
        assert!(DateRange::new(next).expect("valid").to_string().ends_with(",END-ON-NEXT=YES"));
    }

    #[test]
    fn syn_14_refused() {
        let with =
            |name: &str, value: Value| Statement { attributes: vec![(name.into(), value)], ..statement() };
        let text = |text: &str| Value::Text(text.into());
        for wrong in [
            Statement { id: String::new(), ..statement() },
            Statement { id: "a\"b".into(), ..statement() },
            Statement { class: Some("a\nb".into()), ..statement() },
            Statement { end_on_next: true, ..statement() },
            Statement { end_on_next: true, class: Some("c".into()), duration_ms: Some(1), ..statement() },
            with("X-", text("a")),
            with("SCTE35-OUT", text("a")),
            with("X-a", text("a")),
            with("X-A", text("")),
            with("X-A", text(&"a".repeat(3000))),
            with("X-A", Value::Number(f64::NAN)),
            with("X-A", Value::Number(-1.0)),
            with("X-A", Value::Number(-0.0)),
            Statement { start_ms: -1, ..statement() },
            Statement { attributes: vec![("X-A".into(), text("a")); 2], ..statement() },
        ] {
            assert!(DateRange::new(wrong.clone()).is_err(), "{wrong:?}");
        }
    }
}
