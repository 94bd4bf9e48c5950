//! The latency modes that a viewer may ask for: a set of three.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sigma_shared::mode::Mode;

/// A set of latency modes, written as a JSON array of their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Modes(u8);

impl Modes {
    /// Every mode.
    pub const ALL: Self = Self(0b111);
    /// No mode: nothing can be watched with it.
    pub const NONE: Self = Self(0);

    /// The set with one more mode.
    #[must_use]
    pub fn with(self, mode: Mode) -> Self {
        Self(self.0 | bit(mode))
    }

    /// Whether a mode may be asked for.
    #[must_use]
    pub fn allows(self, mode: Mode) -> bool {
        self.0 & bit(mode) != 0
    }

    /// The allowed mode nearest to live.
    #[must_use]
    pub fn first(self) -> Option<Mode> {
        Mode::ALL.into_iter().find(|mode| self.allows(*mode))
    }

    /// As three bits: ultra is the lowest.
    #[must_use]
    pub fn bits(self) -> u8 {
        self.0
    }

    /// From three bits; `None` when others are set.
    #[must_use]
    pub fn from_bits(bits: u8) -> Option<Self> {
        (bits <= Self::ALL.0).then_some(Self(bits))
    }
}

fn bit(mode: Mode) -> u8 {
    match mode {
        Mode::Ultra => 1,
        Mode::Low => 2,
        Mode::Normal => 4,
    }
}

impl FromIterator<Mode> for Modes {
    fn from_iter<I: IntoIterator<Item = Mode>>(modes: I) -> Self {
        modes.into_iter().fold(Self::NONE, Self::with)
    }
}

impl Serialize for Modes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(Mode::ALL.into_iter().filter(|mode| self.allows(*mode)).map(Mode::as_str))
    }
}

impl<'de> Deserialize<'de> for Modes {
    /// Unknown names and an empty list are errors: a claim that is not understood must not widen what is allowed.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        let parsed: Result<Vec<Mode>, _> = names.iter().map(|name| name.parse::<Mode>()).collect();
        let modes: Self = parsed.map_err(serde::de::Error::custom)?.into_iter().collect();
        match modes {
            Self::NONE => Err(serde::de::Error::custom("modes: at least one of ultra, low and normal")),
            modes => Ok(modes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_modes() {
        let two: Modes = [Mode::Normal, Mode::Low, Mode::Low].into_iter().collect();
        assert!(two.allows(Mode::Low) && two.allows(Mode::Normal) && !two.allows(Mode::Ultra));
        assert_eq!(two.first(), Some(Mode::Low));
        assert_eq!(Modes::from_bits(two.bits()), Some(two));
        assert_eq!(Modes::from_bits(8), None);
        assert_eq!(serde_json::to_string(&two).unwrap(), r#"["low","normal"]"#);
        for (text, expected) in [
            (r#"["low","normal"]"#, Some(two)),
            (r#"["ultra","low","normal"]"#, Some(Modes::ALL)),
            ("[]", None),
            (r#"["fast"]"#, None),
            (r#""low""#, None),
        ] {
            assert_eq!(serde_json::from_str::<Modes>(text).ok(), expected, "{text}");
        }
    }
}
