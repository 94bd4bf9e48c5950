//! JSON of strangers, parsed without ambiguity: an object that names a key twice is refused, at every depth.
//!
//! Why: two parsers that disagree about which of two `exp` counts are an attack.

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use std::collections::BTreeSet;
use std::fmt;

/// Whether the bytes are one JSON value in which no object names a key twice. Depth is bounded by serde_json (128).
pub(crate) fn is_unambiguous(json: &[u8]) -> bool {
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    Unambiguous.deserialize(&mut deserializer).is_ok() && deserializer.end().is_ok()
}

#[derive(Clone, Copy)]
struct Unambiguous;

impl<'de> DeserializeSeed<'de> for Unambiguous {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unambiguous {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without duplicate keys")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let mut seen = BTreeSet::new();
        while let Some(key) = entries.next_key::<String>()? {
            if !seen.insert(key) {
                return Err(de::Error::custom("a key twice"));
            }
            entries.next_value_seed(self)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_given_twice_are_found_at_every_depth() {
        for (json, expected) in [
            (r#"{"a":1,"b":[{"a":null},{"a":1.5}],"c":{"a":"x"}}"#, true),
            (r#"{"a":1,"a":1}"#, false),
            (r#"{"a":1,"\u0061":2}"#, false),
            (r#"{"b":[{"a":1,"a":2}]}"#, false),
            (r#"{"b":{"c":{"a":1,"a":2}}}"#, false),
            (r#"{"a":1} {"b":2}"#, false),
            (r#"{"a":1}x"#, false),
            ("", false),
            ("{", false),
        ] {
            assert_eq!(is_unambiguous(json.as_bytes()), expected, "{json}");
        }
        assert!(!is_unambiguous("[".repeat(4000).as_bytes()), "depth is bounded");
        assert!(!is_unambiguous(b"{\"\xff\":1}"));
    }
}
