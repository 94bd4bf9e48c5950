//! Identifiers that users type and URLs carry: `[a-z0-9_-]{1,64}` (contract).
//!
//! Invariant: a value of these types is always safe to put in a path, a log line or a label without escaping.

use std::fmt;
use std::str::FromStr;

/// Why a string is no identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{value}` is not an id: 1 to 64 characters of a-z, 0-9, `_` and `-` are allowed")]
pub struct InvalidId {
    /// What was given, cut to 80 characters.
    pub value: String,
}

fn check(value: &str) -> Result<(), InvalidId> {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
    if (1..=64).contains(&value.len()) && value.bytes().all(allowed) {
        Ok(())
    } else {
        Err(InvalidId { value: value.chars().take(80).collect() })
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Box<str>);

        impl $name {
            /// The id as it stands in URLs.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(value: &str) -> Result<Self, InvalidId> {
                check(value).map(|()| Self(value.into()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id!(
    /// A channel, as in `/live/{channel}/index.m3u8`.
    ChannelId
);
id!(
    /// A rendition of a channel: one Media Playlist, as in `/live/{channel}/{rendition}/media.m3u8`.
    RenditionId
);
id!(
    /// A point of presence, as named by its operator.
    PopId
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_checked() {
        for good in ["a", "demo", "v720-h264", "a_b", &"x".repeat(64)] {
            assert!(good.parse::<ChannelId>().is_ok(), "{good}");
        }
        for bad in ["", "A", "a b", "a/b", "..", "é", "a.b", &"x".repeat(65)] {
            assert!(bad.parse::<ChannelId>().is_err(), "{bad}");
        }
    }
}
