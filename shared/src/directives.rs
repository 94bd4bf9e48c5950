//! Delivery Directives: the `_HLS_*` query parameters of a Media Playlist request
//! (draft-pantos-hls-rfc8216bis section 6.2.5).
//!
//! Invariant: `Display` writes the one normal form (sorted, nothing else), which is what an edge may use as part of a
//! cache key (BR-14). Everything that is not a directive is dropped: CMCD, tokens, `_HLS_throughput`, `_HLS_pathway`.

use std::fmt;

/// `_HLS_skip`: the client asks for a Playlist Delta Update.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Skip {
    /// `_HLS_skip=YES`
    Yes,
    /// `_HLS_skip=v2`: Date Ranges may be skipped too.
    V2,
}

/// The directives of one request, already validated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Directives {
    /// `_HLS_msn`: hold the response until this Media Sequence Number is in the playlist.
    pub msn: Option<u64>,
    /// `_HLS_part`: together with `msn`, hold until this Partial Segment is in the playlist.
    pub part: Option<u32>,
    /// `_HLS_skip`
    pub skip: Option<Skip>,
}

/// A malformed directive: the viewer's fault, a retry does not help. Answered with 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DirectiveError {
    /// BR-08
    #[error("{name}={value}: a decimal integer is expected")]
    NotAnInteger {
        /// The directive's name.
        name: &'static str,
        /// What was given, cut to 40 characters.
        value: String,
    },
    /// BR-07
    #[error("_HLS_part needs _HLS_msn beside it")]
    PartWithoutMsn,
    /// A directive's name in percent-encoding: one server would read it and the next one would not.
    #[error("{name} is to be written as it is, not percent-encoded")]
    Encoded {
        /// The directive's name.
        name: &'static str,
    },
    /// Each directive may be given once.
    #[error("{name} is given more than once")]
    Repeated {
        /// The directive's name.
        name: &'static str,
    },
}

impl Directives {
    /// Reads the directives out of a query string (without the `?`); everything else in it is ignored.
    ///
    /// # Errors
    /// A directive that is repeated, percent-encoded or not a decimal integer (BR-08), or a part without an MSN (BR-07).
    pub fn parse(query: &str) -> Result<Self, DirectiveError> {
        let mut found = Self::default();
        for pair in query.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            match name {
                "_HLS_msn" => set(&mut found.msn, "_HLS_msn", integer("_HLS_msn", value)?)?,
                "_HLS_part" => set(&mut found.part, "_HLS_part", integer("_HLS_part", value)?)?,
                // An unknown value of _HLS_skip is a later version of the protocol: answer in full.
                "_HLS_skip" => match value {
                    "YES" => set(&mut found.skip, "_HLS_skip", Skip::Yes)?,
                    "v2" => set(&mut found.skip, "_HLS_skip", Skip::V2)?,
                    _ => {}
                },
                name => plainly_spelled(name)?,
            }
        }
        if found.part.is_some() && found.msn.is_none() {
            return Err(DirectiveError::PartWithoutMsn);
        }
        Ok(found)
    }

    /// Whether the response may be held (Blocking Playlist Reload).
    #[must_use]
    pub fn is_blocking(&self) -> bool {
        self.msn.is_some()
    }
}

fn set<T>(slot: &mut Option<T>, name: &'static str, value: T) -> Result<(), DirectiveError> {
    if slot.replace(value).is_some() { Err(DirectiveError::Repeated { name }) } else { Ok(()) }
}

/// Refuses a name that is a directive only once it is decoded.
fn plainly_spelled(name: &str) -> Result<(), DirectiveError> {
    if !name.contains('%') {
        return Ok(());
    }
    let disguised = ["_HLS_msn", "_HLS_part", "_HLS_skip"].into_iter().find(|known| decodes_to(name, known));
    disguised.map_or(Ok(()), |name| Err(DirectiveError::Encoded { name }))
}

fn decodes_to(encoded: &str, plain: &str) -> bool {
    let mut rest = encoded.as_bytes();
    let all = plain.bytes().all(|wanted| {
        let hex = |digit: u8| char::from(digit).to_digit(16);
        let (byte, used) = match rest {
            [b'%', high, low, ..] => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => (high * 16 + low, 3),
                _ => return false,
            },
            [byte, ..] => (u32::from(*byte), 1),
            [] => return false,
        };
        rest = &rest[used..];
        byte == u32::from(wanted)
    });
    all && rest.is_empty()
}

fn integer<T: std::str::FromStr>(name: &'static str, value: &str) -> Result<T, DirectiveError> {
    let bad = || DirectiveError::NotAnInteger { name, value: value.chars().take(40).collect() };
    // `parse` alone would take a leading plus sign, which decimal-integer does not have.
    if value.is_empty() || !value.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad());
    }
    value.parse().map_err(|_| bad())
}

impl fmt::Display for Directives {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        if let Some(msn) = self.msn {
            write!(f, "_HLS_msn={msn}")?;
            separator = "&";
        }
        if let Some(part) = self.part {
            write!(f, "{separator}_HLS_part={part}")?;
            separator = "&";
        }
        if let Some(skip) = self.skip {
            write!(f, "{separator}_HLS_skip={}", if skip == Skip::Yes { "YES" } else { "v2" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn accepted() {
        let d = |msn, part, skip| Directives { msn, part, skip };
        for (query, expected) in [
            ("", d(None, None, None)),
            ("_HLS_msn=7", d(Some(7), None, None)),
            ("_HLS_part=2&_HLS_msn=7", d(Some(7), Some(2), None)),
            ("CMCD=bl%3D1&_HLS_msn=7&token=x&_HLS_skip=YES", d(Some(7), None, Some(Skip::Yes))),
            ("_HLS_skip=v2", d(None, None, Some(Skip::V2))),
            ("_HLS_skip=v9", d(None, None, None)),
            ("_HLS%5Fmsn2=1&%5F=1&%=1&%zz_HLS_msn=1&_HLS%255Fmsn=1", d(None, None, None)),
            ("_HLS_msn=18446744073709551615", d(Some(u64::MAX), None, None)),
        ] {
            assert_eq!(Directives::parse(query), Ok(expected), "{query}");
        }
    }

    #[test]
    fn br_07_br_08_refused() {
        for query in [
            "_HLS_part=0",
            "_HLS_msn=",
            "_HLS_msn",
            "_HLS_msn=-1",
            "_HLS_msn=+1",
            "_HLS_msn=1.0",
            "_HLS_msn=x",
            "_HLS_msn=18446744073709551616",
            "_HLS_msn=1&_HLS_part=-1",
            "_HLS_msn=1&_HLS_part=4294967296",
            "_HLS_msn=1&_HLS_msn=1",
            "_HLS%5Fmsn=1",
            "%5f%48%4C%53%5f%6d%73%6e=1",
            "_HLS_msn=1&_HLS_par%74=1",
            "_HLS%5fskip=YES",
            "_HLS_msn=%31",
        ] {
            assert!(Directives::parse(query).is_err(), "{query}");
        }
    }

    proptest! {
        #[test]
        fn any_query_parses_or_is_refused(query in "\\PC{0,80}") {
            let _ = Directives::parse(&query);
        }

        #[test]
        fn br_14_normal_form_is_stable(msn in any::<Option<u64>>(), part in any::<u32>(), skip in 0..3u8) {
            let given = Directives {
                msn,
                part: msn.map(|_| part),
                skip: [None, Some(Skip::Yes), Some(Skip::V2)][usize::from(skip)],
            };
            prop_assert_eq!(Directives::parse(&given.to_string()), Ok(given));
        }
    }
}
