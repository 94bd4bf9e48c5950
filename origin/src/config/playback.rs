//! `[playback]`: who issues playback tokens, and how long what was let in on them lasts.

use super::{Config, Ranges};
use crate::policy::{check_cluster_secret, issuer_jwk};
use serde::Deserialize;
use sigma_http::config::Problem;
use sigma_token::policy::Playback;
use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;

/// Other issuers: with the origin's own key as many as edges take.
const ISSUERS_MAX: usize = 63;
/// Most session keys alive at a time: they are numbered in a byte.
const SESSION_KEYS_MAX: u64 = 200;

/// `[playback]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PlaybackConfig {
    pub(crate) session_key_rotation_s: u64,
    pub(crate) session_max_s: u64,
    /// What the origins of a cluster share.
    pub(crate) cluster_secret_file: Option<PathBuf>,
    pub(crate) keys: Vec<IssuerConfig>,
}

/// `[[playback.keys]]`: another issuer's key.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct IssuerConfig {
    pub(crate) kid: String,
    pub(crate) alg: IssuerAlgorithm,
    pub(crate) file: PathBuf,
}

/// The one algorithm that a key is used with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum IssuerAlgorithm {
    #[serde(rename = "EdDSA")]
    EdDsa,
    #[serde(rename = "ES256")]
    Es256,
    #[serde(rename = "HS256")]
    Hs256,
}

impl fmt::Display for IssuerAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
            Self::Hs256 => "HS256",
        })
    }
}

/// `playback` of a channel.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ChannelPlayback {
    #[default]
    Public,
    Token,
}

impl From<ChannelPlayback> for Playback {
    fn from(playback: ChannelPlayback) -> Self {
        match playback {
            ChannelPlayback::Public => Self::Public,
            ChannelPlayback::Token => Self::Token,
        }
    }
}

impl Default for PlaybackConfig {
    fn default() -> Self {
        Self {
            session_key_rotation_s: 86_400,
            session_max_s: 7 * 86_400,
            cluster_secret_file: None,
            keys: Vec::new(),
        }
    }
}

/// Everything that is wrong with it, as far as the file alone can tell.
pub(super) fn problems(config: &Config) -> Vec<Problem> {
    let playback = &config.playback;
    let mut ranges = Ranges(Vec::new());
    let (rotation, longest) = (playback.session_key_rotation_s, playback.session_max_s);
    ranges.check("playback.session_key_rotation_s", rotation, 3600..=31 * 86_400, "seconds");
    ranges.check("playback.session_max_s", longest, 3600..=31 * 86_400, "seconds");
    let mut problems = ranges.0;
    if rotation > 0 && longest / rotation > SESSION_KEYS_MAX {
        let allowed = format!("at most {SESSION_KEYS_MAX} times playback.session_key_rotation_s");
        problems.push(Problem::new("playback.session_max_s", longest, allowed));
    }
    if playback.keys.len() > ISSUERS_MAX {
        let allowed = format!("at most {ISSUERS_MAX} keys");
        problems.push(Problem::new("playback.keys", playback.keys.len(), allowed));
    }
    let mut kids = HashSet::new();
    for (n, issuer) in playback.keys.iter().enumerate() {
        let key = format!("playback.keys[{n}].kid");
        if !(1..=128).contains(&issuer.kid.len()) {
            problems.push(Problem::new(&key, &issuer.kid, "1 to 128 bytes"));
        }
        if !kids.insert(issuer.kid.as_str()) {
            problems.push(Problem::new(&key, &issuer.kid, "a kid that no other key has"));
        }
    }
    problems
}

impl PlaybackConfig {
    /// Whether the files of the keys can be used.
    ///
    /// # Errors
    /// One of them cannot.
    pub(crate) fn check_files(&self) -> Result<(), crate::policy::PolicyError> {
        self.cluster_secret_file.as_deref().map_or(Ok(()), check_cluster_secret)?;
        self.keys.iter().try_for_each(|issuer| issuer_jwk(issuer).map(drop))
    }
}
