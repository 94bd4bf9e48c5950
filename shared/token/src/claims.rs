//! What a playback token claims.
//!
//! Invariant: a claim that is there but not understood makes the token invalid; it never widens what is allowed.
//! Claims that are not ours are ignored (RFC 7519).

use crate::ip::IpPrefix;
use crate::modes::Modes;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sigma_shared::id::ChannelId;

/// Longest `sub`, bytes.
pub const SUBJECT_BYTES_MAX: usize = 256;
/// Most channels of one token.
pub const CHANNELS_MAX: usize = 64;

/// The claims of a playback token. Times are seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Who watches: up to 256 bytes, opaque. What `max_sessions` counts by and revocations name.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "subject")]
    pub sub: Option<String>,
    /// Not valid from here on.
    #[serde(deserialize_with = "numeric_date")]
    pub exp: u64,
    /// Not valid before.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "some_numeric_date")]
    pub nbf: Option<u64>,
    /// When the token was made. Revocations by subject spare what was made after them; without `iat` nothing is spared.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "some_numeric_date")]
    pub iat: Option<u64>,
    /// Which channels.
    pub channel: Channels,
    /// From where.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "prefix")]
    pub ip: Option<IpPrefix>,
    /// How many sessions of this subject at a time, 1 or more. Needs `sub`.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub max_sessions: Option<u32>,
    /// Which latency modes; all of them when absent.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub modes: Option<Modes>,
    /// For whom the token was made; when there, the verifier's own name must be in it.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub aud: Option<Audience>,
}

impl Claims {
    /// The least that a token claims.
    #[must_use]
    pub fn new(channel: Channels, exp: u64) -> Self {
        Self {
            sub: None,
            exp,
            nbf: None,
            iat: None,
            channel,
            ip: None,
            max_sessions: None,
            modes: None,
            aud: None,
        }
    }
}

/// The channels of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Channels {
    /// `*`
    All,
    /// 1 to 64 of them.
    Named(Vec<ChannelId>),
}

impl Channels {
    /// Whether a channel is among them.
    #[must_use]
    pub fn contains(&self, channel: &ChannelId) -> bool {
        match self {
            Self::All => true,
            Self::Named(channels) => channels.contains(channel),
        }
    }
}

/// `aud`: one name or several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Audience {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl Audience {
    /// Whether a name is in it.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        match self {
            Self::One(one) => one == name,
            Self::Many(many) => many.iter().any(|one| one == name),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl Serialize for Channels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::All => serializer.serialize_str("*"),
            Self::Named(channels) => serializer.collect_seq(channels.iter().map(ChannelId::as_str)),
        }
    }
}

impl<'de> Deserialize<'de> for Channels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = match OneOrMany::deserialize(deserializer)? {
            OneOrMany::One(one) => vec![one],
            OneOrMany::Many(many) => many,
        };
        if !(1..=CHANNELS_MAX).contains(&names.len()) {
            return Err(D::Error::custom("channel: 1 to 64 channels"));
        }
        if names.iter().any(|name| name == "*") {
            return Ok(Self::All);
        }
        let channels: Result<Vec<ChannelId>, _> = names.iter().map(|name| name.parse()).collect();
        channels.map(Self::Named).map_err(D::Error::custom)
    }
}

/// RFC 7519 NumericDate: seconds, possibly with a fraction, which is dropped.
fn numeric_date<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let number = serde_json::Number::deserialize(deserializer)?;
    if let Some(seconds) = number.as_u64() {
        return Ok(seconds);
    }
    // Below 2^53 the fraction is what `as` drops.
    let exact = |seconds: &f64| (0.0..9e15).contains(seconds);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 9e15")]
    let whole = |seconds: f64| seconds as u64;
    number.as_f64().filter(exact).map(whole).ok_or_else(|| D::Error::custom("seconds since 1970"))
}

fn some_numeric_date<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    numeric_date(deserializer).map(Some)
}

/// `null` is not the same as absent: it is a claim that is not understood.
fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

fn subject<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let subject = String::deserialize(deserializer)?;
    if !(1..=SUBJECT_BYTES_MAX).contains(&subject.len()) {
        return Err(D::Error::custom("sub: 1 to 256 bytes"));
    }
    Ok(Some(subject))
}

mod prefix {
    use super::*;

    pub(super) fn serialize<S: Serializer>(ip: &Option<IpPrefix>, serializer: S) -> Result<S::Ok, S::Error> {
        match ip {
            Some(ip) => serializer.collect_str(ip),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<IpPrefix>, D::Error> {
        String::deserialize(deserializer)?.parse().map(Some).map_err(D::Error::custom)
    }
}
