//! The policy document: what an origin tells its edges about channels, keys and revocations.
//!
//! [`Document`] is what travels (JSON; unknown members are ignored), [`Policy`] is what is asked.
//! Invariants: what is not understood never opens anything: a channel with an unknown `playback` wants a token, an
//! unusable key verifies nothing. Lookups are by hash, at every request.

use crate::jwk::{JwkSet, KeySet};
use crate::session::{Session, SessionId, SessionKey, SubjectHash, Unverified, ViewerKey};
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sigma_shared::id::ChannelId;
use std::collections::{BTreeMap, HashMap, HashSet};

/// The document as it travels.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// Grows with every change, across restarts of the origin.
    pub version: u64,
    /// When this version was made, milliseconds since 1970.
    #[serde(default)]
    pub issued_at_ms: u64,
    /// Whose policy it is: one origin's, or that of all origins that share a secret. Empty: nobody says.
    #[serde(default)]
    pub cluster: String,
    /// The secrets of session paths; the first one with `signs` signs.
    #[serde(default)]
    pub session_keys: Vec<SessionSecret>,
    /// What viewers without a token are hashed under. Older origins have none, older edges ignore it: the signing secret is used
    /// then, and viewers count as new ones after it changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub viewer_salt: Option<ViewerSalt>,
    /// The keys of playback tokens.
    #[serde(default)]
    pub jwks: JwkSet,
    /// Every channel that there is.
    #[serde(default)]
    pub channels: BTreeMap<String, ChannelPolicy>,
    /// Who may not watch any more.
    #[serde(default)]
    pub revocations: Vec<Revocation>,
}

/// One secret of session paths.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionSecret {
    /// Its number, in every path it signed.
    pub kid: u8,
    /// 32 random bytes, base64url without padding.
    pub secret: String,
    /// Whether new sessions are signed with it; the others still verify.
    #[serde(default)]
    pub signs: bool,
}

impl SessionSecret {
    /// The entry of a secret.
    #[must_use]
    pub fn new(kid: u8, secret: &[u8; 32], signs: bool) -> Self {
        Self { kid, secret: URL_SAFE_NO_PAD.encode(secret), signs }
    }

    fn key(&self) -> Option<SessionKey> {
        let secret: [u8; 32] = URL_SAFE_NO_PAD.decode(&self.secret).ok()?.try_into().ok()?;
        Some(SessionKey::new(self.kid, &secret))
    }
}

impl std::fmt::Debug for SessionSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SessionSecret({}, signs: {})", self.kid, self.signs)
    }
}

/// 32 random bytes, base64url without padding, that stay the same for as long as viewers are to be known again. As secret as
/// the secrets of session paths: who has it can try which addresses are behind the hashes in the statistics.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ViewerSalt(String);

impl ViewerSalt {
    /// The entry of a salt.
    #[must_use]
    pub fn new(salt: &[u8; 32]) -> Self {
        Self(URL_SAFE_NO_PAD.encode(salt))
    }

    fn key(&self) -> Option<ViewerKey> {
        let salt: [u8; 32] = URL_SAFE_NO_PAD.decode(&self.0).ok()?.try_into().ok()?;
        Some(ViewerKey::new(&salt))
    }
}

impl std::fmt::Debug for ViewerSalt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ViewerSalt")
    }
}

/// What edges must know of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelPolicy {
    /// Who may watch it.
    #[serde(default)]
    pub playback: Playback,
}

/// Who may watch a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(from = "String", rename_all = "lowercase")]
pub enum Playback {
    /// Everybody.
    Public,
    /// Who shows a token. Also what an unknown word means.
    #[default]
    Token,
}

impl From<String> for Playback {
    fn from(word: String) -> Self {
        if word == "public" { Self::Public } else { Self::Token }
    }
}

/// Who may not watch any more: a session, or everything that a subject was given before a moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Revocation {
    /// The session, 32 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// For a subject: what was made from then on is spared, milliseconds since 1970; absent spares nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before_ms: Option<u64>,
    /// When the entry may be forgotten, as everything it is about has expired, milliseconds since 1970.
    #[serde(default = "forever")]
    pub until_ms: u64,
}

fn forever() -> u64 {
    u64::MAX
}

impl Document {
    /// Adds what was revoked before and is not forgotten yet: another origin of the cluster may not have been told.
    pub fn keep_revocations(&mut self, before: &[Revocation], now_ms: u64) {
        let known: HashSet<Revocation> = self.revocations.iter().cloned().collect();
        let kept = before.iter().filter(|entry| entry.until_ms > now_ms && !known.contains(entry));
        self.revocations.extend(kept.cloned());
    }
}

impl Revocation {
    /// Of one session.
    #[must_use]
    pub fn of_session(session: SessionId, until_ms: u64) -> Self {
        Self { session: Some(session.to_string()), until_ms, ..Self::default() }
    }

    /// Of everything a subject was given before `before_ms`.
    #[must_use]
    pub fn of_subject(subject: &str, before_ms: u64, until_ms: u64) -> Self {
        let subject = Some(subject.to_owned());
        Self { subject, before_ms: Some(before_ms), until_ms, ..Self::default() }
    }
}

/// A document that cannot be used: the origin, or the way from it, is to blame. The last good one stays.
#[derive(Debug, thiserror::Error)]
pub enum InvalidPolicy {
    /// Not the JSON expected.
    #[error("not a policy document: {0}")]
    Json(#[from] serde_json::Error),
    /// No usable session key signs: no viewer could be let in.
    #[error("no session key that signs")]
    NoSigningKey,
    /// A revocation that names neither a session nor a subject: somebody would stay who must not.
    #[error("a revocation is not understood")]
    Revocation,
}

/// A moment and the moment to forget it at, milliseconds since 1970.
#[derive(Debug, Clone, Copy)]
struct Before {
    before_ms: u64,
    until_ms: u64,
}

/// A policy that answers.
#[derive(Debug)]
pub struct Policy {
    version: u64,
    issued_at_ms: u64,
    session_keys: Vec<SessionKey>,
    signing: SessionKey,
    viewers: ViewerKey,
    keys_print: [u8; 32],
    token_keys: KeySet,
    channels: HashMap<ChannelId, Playback>,
    sessions: HashMap<SessionId, u64>,
    subjects: HashMap<SubjectHash, Before>,
    unusable: usize,
}

impl Policy {
    /// Parses and takes in a document.
    ///
    /// # Errors
    /// The document cannot be used.
    pub fn parse(json: &[u8]) -> Result<Self, InvalidPolicy> {
        Self::new(&serde_json::from_slice(json)?)
    }

    /// Takes in a document.
    ///
    /// # Errors
    /// The document cannot be used.
    pub fn new(document: &Document) -> Result<Self, InvalidPolicy> {
        let (token_keys, unusable) = KeySet::new(&document.jwks);
        let usable = document.session_keys.iter().filter_map(|secret| Some((secret, secret.key()?)));
        let usable: Vec<_> = usable.collect();
        let signing = usable.iter().find(|(secret, _)| secret.signs).ok_or(InvalidPolicy::NoSigningKey)?;
        let named = |(name, channel): (&String, &ChannelPolicy)| Some((name.parse().ok()?, channel.playback));
        let salted = document.viewer_salt.as_ref().map(ViewerSalt::key);
        let unusable_salt = usize::from(salted.as_ref().is_some_and(Option::is_none));
        let mut policy = Self {
            version: document.version,
            issued_at_ms: document.issued_at_ms,
            signing: signing.1.clone(),
            viewers: salted.flatten().unwrap_or_else(|| signing.1.viewer_key()),
            keys_print: print(&usable),
            session_keys: usable.iter().map(|(_, key)| key.clone()).collect(),
            token_keys,
            channels: document.channels.iter().filter_map(named).collect(),
            sessions: HashMap::new(),
            subjects: HashMap::new(),
            unusable: unusable.len() + unusable_salt + document.session_keys.len() - usable.len(),
        };
        for revocation in &document.revocations {
            policy.revoke(revocation)?;
        }
        Ok(policy)
    }

    fn revoke(&mut self, revocation: &Revocation) -> Result<(), InvalidPolicy> {
        let until_ms = revocation.until_ms;
        match (&revocation.session, &revocation.subject) {
            (Some(session), None) => {
                let id = session.parse().map_err(|_| InvalidPolicy::Revocation)?;
                let known = self.sessions.entry(id).or_insert(until_ms);
                *known = until_ms.max(*known);
            }
            (None, Some(subject)) => {
                let before_ms = revocation.before_ms.unwrap_or(u64::MAX);
                let known =
                    self.subjects.entry(SubjectHash::of(subject)).or_insert(Before { before_ms, until_ms });
                known.before_ms = known.before_ms.max(before_ms);
                known.until_ms = known.until_ms.max(until_ms);
            }
            _ => return Err(InvalidPolicy::Revocation),
        }
        Ok(())
    }

    /// The version of the document.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// When the document was made, milliseconds since 1970.
    #[must_use]
    pub fn issued_at_ms(&self) -> u64 {
        self.issued_at_ms
    }

    /// Who may watch a channel; `None` when there is no such channel.
    #[must_use]
    pub fn playback(&self, channel: &ChannelId) -> Option<Playback> {
        self.channels.get(channel).copied()
    }

    /// The key that signs new sessions.
    #[must_use]
    pub fn signing_key(&self) -> &SessionKey {
        &self.signing
    }

    /// The key that stands for who viewers without a token are.
    #[must_use]
    pub fn viewer_key(&self) -> &ViewerKey {
        &self.viewers
    }

    /// What is the same in two policies when they have the same session keys: what verified under one verifies under
    /// the other.
    #[must_use]
    pub fn session_keys_print(&self) -> &[u8; 32] {
        &self.keys_print
    }

    /// The session, if one of the keys signed it for this channel.
    #[must_use]
    pub fn verify(&self, session: &Unverified, channel: &ChannelId) -> Option<Session> {
        // A `kid` may stand for two secrets while numbers wrap around.
        self.session_keys.iter().find_map(|key| session.verify(key, channel))
    }

    /// Whether one of the keys goes by the number that the session was signed under. Of one under another number nothing can
    /// be said: its key may be forgotten by now, or of another cluster.
    #[must_use]
    pub fn knows_key_of(&self, session: &Unverified) -> bool {
        self.session_keys.iter().any(|key| key.kid() == session.kid())
    }

    /// The keys of playback tokens.
    #[must_use]
    pub fn token_keys(&self) -> &KeySet {
        &self.token_keys
    }

    /// Keys in the document that cannot be used.
    #[must_use]
    pub fn unusable_keys(&self) -> usize {
        self.unusable
    }

    /// Whether a session was revoked, by itself or with its subject.
    #[must_use]
    pub fn is_revoked(&self, session: &Session, now_ms: u64) -> bool {
        let by_id = !self.sessions.is_empty()
            && self.sessions.get(&session.id).is_some_and(|until_ms| now_ms < *until_ms);
        by_id || self.is_subject_revoked(session.subject, session.issued_at_s.into(), now_ms)
    }

    /// Whether what a subject was given at `issued_at_s` (0: nobody knows when) was revoked.
    #[must_use]
    pub fn is_subject_revoked(&self, subject: SubjectHash, issued_at_s: u64, now_ms: u64) -> bool {
        // Without a subject nobody can be meant.
        if self.subjects.is_empty() || subject == SubjectHash::NONE {
            return false;
        }
        let revoked = self.subjects.get(&subject);
        revoked.is_some_and(|r| now_ms < r.until_ms && issued_at_s.saturating_mul(1000) < r.before_ms)
    }
}

fn print(keys: &[(&SessionSecret, SessionKey)]) -> [u8; 32] {
    let text: Vec<String> =
        keys.iter().map(|(secret, _)| format!("{} {}", secret.kid, secret.secret)).collect();
    let mut print = [0; 32];
    print.copy_from_slice(digest(&SHA256, text.join("\n").as_bytes()).as_ref());
    print
}

#[cfg(test)]
mod tests;
