//! Latency modes: other playlists over the same segments and parts (contract).

use std::fmt;
use std::str::FromStr;

/// How far behind live a viewer plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// 2 to 4 s: parts and blocking reload.
    Ultra,
    /// 8 to 10 s: whole segments and blocking reload.
    Low,
    /// 20 to 30 s: whole segments and the most buffer.
    Normal,
}

/// A mode that there is not: the viewer's fault, a retry does not help. Answered with 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("mode={value}: one of ultra, low and normal is expected, once")]
pub struct InvalidMode {
    /// What was given, cut to 40 characters.
    pub value: String,
}

impl Mode {
    /// All of them, the nearest to live first.
    pub const ALL: [Self; 3] = [Self::Ultra, Self::Low, Self::Normal];

    /// As in `?mode=`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ultra => "ultra",
            Self::Low => "low",
            Self::Normal => "normal",
        }
    }

    /// Reads `mode` out of the query string (without the `?`) of a Multivariant Playlist; `None` when it is not there.
    ///
    /// # Errors
    /// An unknown mode, or more than one.
    pub fn parse_query(query: &str) -> Result<Option<Self>, InvalidMode> {
        let mut values = query.split('&').filter_map(|pair| pair.strip_prefix("mode="));
        let Some(value) = values.next() else {
            return Ok(None);
        };
        if values.next().is_some() {
            return Err(InvalidMode { value: "(more than one)".into() });
        }
        value.parse().map(Some)
    }
}

impl FromStr for Mode {
    type Err = InvalidMode;

    fn from_str(value: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|mode| mode.as_str() == value);
        known.ok_or_else(|| InvalidMode { value: value.chars().take(40).collect() })
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries() {
        for (query, expected) in [
            ("", Some(None)),
            ("token=x", Some(None)),
            ("modes=low", Some(None)),
            ("token=x&mode=low", Some(Some(Mode::Low))),
            ("mode=ultra", Some(Some(Mode::Ultra))),
            ("mode=normal&a", Some(Some(Mode::Normal))),
            ("mode=", None),
            ("mode=Low", None),
            ("mode=low&mode=low", None),
        ] {
            assert_eq!(Mode::parse_query(query).ok(), expected, "{query}");
        }
    }
}
