//! Who may watch what: the document that edges get, its keys and its revocations.
//!
//! Invariants: a version is never given to two documents and never goes back, whatever the clock does; nothing is
//! told to an edge before it is on disk, so a restart takes nothing back; readers never wait for the disk. Deliberately
//! absent: letting viewers in, which is the edges' (sigma-token decides, they ask).

mod cluster;
mod revoked;
mod rotation;
mod secrets;

use crate::claim::ClaimedDir;
use crate::config::Config;
use bytes::Bytes;
use cluster::ClusterSecret;
use revoked::{Full, REVOCATIONS_MAX, Revocations};
use rotation::{Schedule, SessionKeys, next_of_periods_ms, of_periods};
pub(crate) use secrets::issuer_jwk;
use sigma_shared::id::ChannelId;
use sigma_token::issuer::{IssuerKey, SigningFailed};
use sigma_token::jwk::JwkSet;
use sigma_token::policy::{ChannelPolicy, Document, Playback, Revocation, ViewerSalt};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

/// However far away the next change is, the clock is looked at this often: it may have been set.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// Keys or revocations that cannot be read or kept: the operator's files. A retry helps after they changed.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub(crate) struct PolicyError {
    path: PathBuf,
    reason: String,
}

/// Why somebody is not revoked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotRevoked {
    #[error("there is room for {REVOCATIONS_MAX} revocations, or 12 MiB of them; they end by themselves")]
    Full,
    #[error(transparent)]
    NotKept(#[from] PolicyError),
}

/// A document as edges get it.
#[derive(Debug, Clone)]
pub(crate) struct Published {
    pub(crate) version: u64,
    pub(crate) json: Bytes,
}

/// Where the secrets of session paths come from.
#[derive(Debug)]
enum Keys {
    /// Made here.
    Own(SessionKeys),
    /// Worked out from what the origins of the cluster share.
    Shared(Box<ClusterSecret>),
}

#[derive(Debug)]
struct State {
    keys: Keys,
    /// No version above this was given out: what the next start begins above.
    versions_below: u64,
    revocations: Revocations,
    /// What was published, with version and time.
    document: Document,
}

/// The policy of this origin.
#[derive(Debug)]
pub(crate) struct Policies {
    /// Ours while this is held.
    data_dir: Arc<ClaimedDir>,
    schedule: Schedule,
    /// The cluster's name: edges take no policy of another one.
    cluster: String,
    viewer_salt: ViewerSalt,
    jwks: JwkSet,
    public_jwks: Bytes,
    channels: BTreeMap<String, ChannelPolicy>,
    /// Held while files are written: by the task and by operators, never by a reader.
    state: Mutex<State>,
    published: watch::Sender<Arc<Published>>,
}

impl Policies {
    /// Reads what there is, makes what is missing, and publishes. Blocks.
    ///
    /// # Errors
    /// Files that cannot be read or written.
    pub(crate) fn load(config: &Config, data_dir: &Arc<ClaimedDir>) -> Result<Arc<Self>, PolicyError> {
        let playback = &config.playback;
        let shared = playback.cluster_secret_file.as_deref().map(ClusterSecret::read).transpose()?;
        let issuer = match &shared {
            Some(secret) => issuer_of(secret, config)?,
            None => secrets::issuer(data_dir.path())?,
        };
        let viewer_salt = match &shared {
            Some(secret) => secret.viewer_salt(),
            None => secrets::viewer_salt(data_dir.path())?,
        };
        let mut keys = vec![issuer.jwk()];
        for issuer in &playback.keys {
            keys.push(issuer_jwk(issuer)?);
        }
        let public: Vec<_> = keys.iter().filter(|key| key.k.is_none()).cloned().collect();
        let channels = config.channels.iter();
        let channels = channels.map(|one| (one.id.clone(), ChannelPolicy { playback: one.playback.into() }));
        let folder = secrets::folder(data_dir.path());
        let session_keys = match shared {
            Some(secret) => Keys::Shared(Box::new(secret)),
            None => Keys::Own(secrets::read(&folder.join(SESSIONS_FILE))?.unwrap_or_default()),
        };
        let version = secrets::read(&folder.join(VERSION_FILE))?.unwrap_or_default();
        let revocations = secrets::read(&folder.join(REVOCATIONS_FILE))?.unwrap_or_default();
        let policies = Arc::new(Self {
            data_dir: Arc::clone(data_dir),
            schedule: Schedule {
                rotation_ms: playback.session_key_rotation_s * 1000,
                session_max_ms: playback.session_max_s * 1000,
            },
            cluster: issuer.kid().to_owned(),
            viewer_salt: ViewerSalt::new(&viewer_salt),
            jwks: JwkSet::of(&keys),
            public_jwks: serde_json::to_vec(&JwkSet::of(&public)).unwrap_or_default().into(),
            channels: channels.collect(),
            state: Mutex::new(State {
                keys: session_keys,
                versions_below: version,
                revocations: Revocations::new(revocations),
                document: Document { version, ..Document::default() },
            }),
            published: watch::Sender::new(Arc::new(Published { version: 0, json: Bytes::new() })),
        });
        policies.refresh(now_ms())?;
        Ok(policies)
    }

    /// Lets time pass until nobody has the policy any more.
    pub(crate) fn start(self: &Arc<Self>) {
        let policies = Arc::downgrade(self);
        tokio::spawn(pass_time(policies));
    }

    /// The public keys that verify playback tokens, as a JWK set.
    pub(crate) fn public_jwks(&self) -> Bytes {
        self.public_jwks.clone()
    }

    /// Whether a channel is to be had with a token only.
    pub(crate) fn wants_token(&self, channel: &ChannelId) -> bool {
        self.channels.get(channel.as_str()).is_some_and(|channel| channel.playback == Playback::Token)
    }

    /// The newest document, and how to wait for the next.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Published>> {
        self.published.subscribe()
    }

    /// Revokes, keeps and publishes. Blocks: the disk is waited for.
    ///
    /// # Errors
    /// No room, or it cannot be kept; then nothing was revoked.
    pub(crate) fn revoke(&self, revocation: Revocation) -> Result<u64, NotRevoked> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = now_ms();
        let mut revocations = state.revocations.clone();
        revocations.forget(now);
        revocations.add(revocation).map_err(|Full| NotRevoked::Full)?;
        self.keep(REVOCATIONS_FILE, &revocations.entries())?;
        state.revocations = revocations;
        self.publish(&mut state, now);
        Ok(state.document.version)
    }

    /// Brings keys and revocations up to date, and publishes if that changes anything.
    fn refresh(&self, now: u64) -> Result<(), PolicyError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Keys::Own(keys) = &state.keys {
            let (mut keys, secret) = (keys.clone(), secrets::random()?);
            if keys.advance(now, self.schedule, || secret) {
                self.keep(SESSIONS_FILE, &keys)?;
                state.keys = Keys::Own(keys);
            }
        }
        let version = now.max(state.document.version);
        if version.saturating_add(VERSIONS_AHEAD / 2) > state.versions_below {
            let versions_below = version.saturating_add(VERSIONS_AHEAD);
            self.keep(VERSION_FILE, &versions_below)?;
            state.versions_below = versions_below;
        }
        if state.revocations.forget(now) {
            self.keep(REVOCATIONS_FILE, &state.revocations.entries())?;
        }
        self.publish(&mut state, now);
        Ok(())
    }

    fn keep(&self, file: &str, value: &impl serde::Serialize) -> Result<(), PolicyError> {
        secrets::write(&secrets::folder(self.data_dir.path()).join(file), value)
    }

    fn publish(&self, state: &mut State, now: u64) {
        let mut document = Document {
            version: state.document.version,
            issued_at_ms: state.document.issued_at_ms,
            cluster: self.cluster.clone(),
            session_keys: match &state.keys {
                Keys::Own(keys) => keys.secrets(now),
                Keys::Shared(secret) => of_periods(now, self.schedule, |n| secret.session_secret(n)),
            },
            viewer_salt: Some(self.viewer_salt.clone()),
            jwks: self.jwks.clone(),
            channels: self.channels.clone(),
            revocations: state.revocations.entries().to_vec(),
        };
        if document == state.document {
            return;
        }
        (document.version, document.issued_at_ms) = (now.max(document.version + 1), now);
        let json = serde_json::to_vec(&document).unwrap_or_default().into();
        self.published.send_replace(Arc::new(Published { version: document.version, json }));
        state.document = document;
    }

    fn next_change_ms(&self, now: u64) -> u64 {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let ends = state.revocations.entries().iter().map(|entry| entry.until_ms);
        let keys = match &state.keys {
            Keys::Own(keys) => keys.next_change_ms(now, self.schedule),
            Keys::Shared(_) => next_of_periods_ms(now, self.schedule),
        };
        ends.chain([keys]).min().unwrap_or(now)
    }
}

const SESSIONS_FILE: &str = "sessions.json";
const REVOCATIONS_FILE: &str = "revocations.json";
const VERSION_FILE: &str = "version.json";
/// Versions are milliseconds of the wall clock. So many are set aside at a time: whatever the clock does over a restart,
/// they do not go back, and the file is not written at every change.
const VERSIONS_AHEAD: u64 = 3_600_000;

async fn pass_time(policies: Weak<Policies>) {
    let mut failing = false;
    while let Some(next) = policies.upgrade().map(|policies| policies.next_change_ms(now_ms())) {
        let rest = Duration::from_millis(next.saturating_sub(now_ms()));
        // Not at once again after a failure.
        tokio::time::sleep(rest.clamp(Duration::from_secs(1), LOOK_INTERVAL)).await;
        let Some(policies) = policies.upgrade() else { return };
        let refreshed = tokio::task::spawn_blocking(move || policies.refresh(now_ms())).await;
        let error = refreshed.ok().and_then(Result::err);
        if let Some(error) = error.as_ref().filter(|_| !failing) {
            tracing::error!(%error, "session keys stay as they are until they can be kept");
        }
        failing = error.is_some();
    }
}

fn issuer_of(secret: &ClusterSecret, config: &Config) -> Result<IssuerKey, PolicyError> {
    let path = config.playback.cluster_secret_file.clone().unwrap_or_default();
    let broken = |error: SigningFailed| PolicyError { path, reason: error.to_string() };
    IssuerKey::from_seed(&secret.issuer_seed()).map_err(broken)
}

/// Whether the file with the cluster's secret can be used.
///
/// # Errors
/// It cannot.
pub(crate) fn check_cluster_secret(file: &Path) -> Result<(), PolicyError> {
    ClusterSecret::read(file).map(drop)
}

/// The signing key of a cluster, or the one that an origin has made in its data directory, for the command line.
///
/// # Errors
/// None has been made, or it cannot be read.
pub(crate) fn signing_key(config: &Config) -> Result<IssuerKey, PolicyError> {
    if let Some(file) = &config.playback.cluster_secret_file {
        return issuer_of(&ClusterSecret::read(file)?, config);
    }
    secrets::existing_issuer(&config.data_dir)?.ok_or_else(|| PolicyError {
        path: secrets::folder(&config.data_dir),
        reason: "no signing key is here: an origin makes one when it starts".to_owned(),
    })
}

/// The wall clock, Unix milliseconds.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
