//! Attribute lists, read strictly: what a list says and what is wrong with it (SYN-05).
//!
//! Invariants: linear, never panics; what can be understood is kept, however flawed the rest.
#![deny(clippy::disallowed_methods)]

use std::time::Duration;

/// The type an attribute's value must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Integer,
    Hex,
    Float,
    SignedFloat,
    Quoted,
    Enumerated,
    Resolution,
}

/// One attribute, its value without quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attribute {
    pub(crate) name: String,
    pub(crate) value: String,
    pub(crate) quoted: bool,
}

/// An attribute list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Attributes(pub(crate) Vec<Attribute>);

impl Attributes {
    /// Reads a list; returns what it says and what is wrong with it.
    pub(crate) fn read(list: &str) -> (Self, Vec<String>) {
        let mut found = Self::default();
        let mut flaws = Vec::new();
        let mut rest = list;
        while !rest.is_empty() {
            let Some((name, after)) = rest.split_once('=') else {
                flaws.push(format!("\"{rest}\" is no NAME=VALUE"));
                break;
            };
            let (value, tail, quoted) = match after.strip_prefix('"') {
                Some(inside) => match inside.split_once('"') {
                    Some((value, tail)) => (value, tail, true),
                    None => {
                        flaws.push(format!("{name}: the quote is not closed"));
                        (inside, "", true)
                    }
                },
                None => {
                    let end = after.find(',').unwrap_or(after.len());
                    (&after[..end], &after[end..], false)
                }
            };
            let plain = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'-';
            if name.is_empty() || !name.bytes().all(plain) {
                flaws.push(format!("\"{name}\" is no attribute name"));
            }
            if !quoted && (value.is_empty() || value.contains([' ', '\t', '"'])) {
                flaws.push(format!(
                    "{name}: the value \"{value}\" is empty or has white space or quotes in it"
                ));
            }
            if found.get(name).is_some() {
                flaws.push(format!("{name} is given more than once"));
            } else {
                found.0.push(Attribute { name: name.trim().to_owned(), value: value.to_owned(), quoted });
            }
            rest = match tail.strip_prefix(',') {
                Some("") => {
                    flaws.push("a comma at the end".to_owned());
                    ""
                }
                Some(rest) => rest,
                None => {
                    if !tail.is_empty() {
                        flaws.push(format!("{name}: \"{tail}\" after the value"));
                    }
                    tail.split_once(',').map_or("", |(_, rest)| rest)
                }
            };
        }
        (found, flaws)
    }

    /// The value of an attribute.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|a| a.name == name).map(|a| a.value.as_str())
    }

    /// Whether it is there and YES.
    pub(crate) fn yes(&self, name: &str) -> bool {
        self.get(name) == Some("YES")
    }

    /// As decimal seconds; `None` if it is not there or no number.
    pub(crate) fn seconds(&self, name: &str) -> Option<Duration> {
        seconds(self.get(name)?)
    }

    /// As a decimal integer.
    pub(crate) fn integer(&self, name: &str) -> Option<u64> {
        integer(self.get(name)?)
    }
}

/// A decimal-integer: digits only.
pub(crate) fn integer(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// A decimal-floating-point: no sign, no exponent. Digits beyond nanoseconds are dropped.
pub(crate) fn seconds(text: &str) -> Option<Duration> {
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, fraction)) => (whole, fraction),
        None => (text, "0"),
    };
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) {
        return None;
    }
    let padded: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    Some(Duration::new(whole.parse().ok()?, padded.parse().ok()?))
}

/// Whether a value is of the kind.
pub(crate) fn is_of(attribute: &Attribute, kind: Kind) -> bool {
    let value = attribute.value.as_str();
    if kind == Kind::Quoted || attribute.quoted {
        return attribute.quoted == (kind == Kind::Quoted);
    }
    match kind {
        Kind::Integer => value.len() <= 20 && integer(value).is_some(),
        Kind::Hex => value.strip_prefix("0x").or(value.strip_prefix("0X")).is_some_and(|hex| {
            !hex.is_empty() && hex.bytes().all(|b| b.is_ascii_digit() || (b'A'..=b'F').contains(&b))
        }),
        Kind::Float => seconds(value).is_some(),
        Kind::SignedFloat => seconds(value.strip_prefix('-').unwrap_or(value)).is_some(),
        Kind::Resolution => {
            value.split_once('x').is_some_and(|(w, h)| integer(w).is_some() && integer(h).is_some())
        }
        Kind::Quoted | Kind::Enumerated => !value.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lists() {
        let (list, flaws) = Attributes::read("URI=\"a,b=c\",DURATION=0.33333,INDEPENDENT=YES,N=7");
        assert_eq!(flaws, [] as [&str; 0]);
        assert_eq!(list.get("URI"), Some("a,b=c"));
        assert_eq!(list.seconds("DURATION"), Some(Duration::from_nanos(333_330_000)));
        assert!(list.yes("INDEPENDENT") && !list.yes("GAP"));
        assert_eq!(list.integer("N"), Some(7));
    }

    #[test]
    fn flaws() {
        for list in [
            "A =1",
            "A= 1",
            "A=1, B=2",
            "a=1",
            "A=1,A=2",
            "A",
            "A=\"x",
            "A=\"x\"y,B=1",
            "A=1,",
            "A=",
            "A=x\"y",
            "=1",
        ] {
            assert_ne!(Attributes::read(list).1.len(), 0, "{list}");
        }
    }

    #[test]
    fn kinds() {
        let plain = |value: &str| Attribute { name: "A".into(), value: value.into(), quoted: false };
        for (kind, good, bad) in [
            (Kind::Integer, "18446744073709551615", "18446744073709551616"),
            (Kind::Integer, "0", "-1"),
            (Kind::Float, "0.334", "1e3"),
            (Kind::Float, "6", ".5"),
            (Kind::SignedFloat, "-6.5", "+6.5"),
            (Kind::Resolution, "1280x720", "1280X720"),
            (Kind::Hex, "0xAB", "0xab"),
            (Kind::Enumerated, "YES", ""),
        ] {
            assert!(is_of(&plain(good), kind), "{good}");
            assert!(!is_of(&plain(bad), kind), "{bad}");
        }
        assert!(!is_of(&plain("x"), Kind::Quoted));
        assert!(is_of(&Attribute { quoted: true, ..plain("x") }, Kind::Quoted));
        assert!(!is_of(&Attribute { quoted: true, ..plain("7") }, Kind::Integer));
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in ".{0,80}") {
            let _ = Attributes::read(&text);
            let _ = seconds(&text);
        }
    }
}
