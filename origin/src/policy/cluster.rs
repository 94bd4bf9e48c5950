//! The secret that the origins of a cluster share: session secrets and the signing key follow from it, so that a session
//! or a token of one origin is as good at the others.
//!
//! Invariant: nothing of it is ever told; what follows from it says nothing of it (HMAC). Deliberately absent: giving it
//! to the other origins, which is the operator's doing.

use super::PolicyError;
use super::rotation::Secret;
use aws_lc_rs::hmac;
use std::path::Path;

/// Fewer bytes can be guessed.
const BYTES_MIN: usize = 32;
const BYTES_MAX: usize = 4096;

/// See the module.
pub(super) struct ClusterSecret(hmac::Key);

impl ClusterSecret {
    /// Reads the file; white space at its end is no part of it.
    pub(super) fn read(path: &Path) -> Result<Self, PolicyError> {
        let broken = |reason: String| PolicyError {
            path: path.to_owned(),
            reason: format!("playback.cluster_secret_file: {reason}"),
        };
        let bytes = std::fs::read(path).map_err(|error| broken(error.to_string()))?;
        let secret = bytes.trim_ascii_end();
        if !(BYTES_MIN..=BYTES_MAX).contains(&secret.len()) {
            return Err(broken(format!(
                "the cluster's secret has {} bytes; {BYTES_MIN} to {BYTES_MAX} random ones are expected, such as `openssl rand -base64 48` prints",
                secret.len()
            )));
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, secret)))
    }

    /// The seed of the signing key.
    pub(super) fn issuer_seed(&self) -> Secret {
        self.derive("sigma-live issuer", 0)
    }

    /// The secret of session paths in one period of time.
    pub(super) fn session_secret(&self, period: u64) -> Secret {
        self.derive("sigma-live sessions", period)
    }

    /// What viewers without a token are hashed under. It changes with the secret only.
    pub(super) fn viewer_salt(&self) -> Secret {
        self.derive("sigma-live viewers", 0)
    }

    fn derive(&self, purpose: &str, number: u64) -> Secret {
        let tag = hmac::sign(&self.0, format!("{purpose}\n{number}").as_bytes());
        let mut secret = [0; 32];
        secret.copy_from_slice(tag.as_ref());
        secret
    }
}

impl std::fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClusterSecret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_is_the_same_everywhere_and_different_for_each_purpose() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str, text: &str| {
            std::fs::write(folder.path().join(name), text).expect("written");
            folder.path().join(name)
        };
        let text = "s".repeat(BYTES_MIN);
        let (one, two) = (file("one", &text), file("two", &format!("{text}\n")));
        let (one, two) = (ClusterSecret::read(&one).expect("read"), ClusterSecret::read(&two).expect("read"));
        assert_eq!(one.issuer_seed(), two.issuer_seed());
        assert_eq!(one.session_secret(7), two.session_secret(7));
        assert_ne!(one.session_secret(7), one.session_secret(8));
        assert_ne!(one.session_secret(0), one.issuer_seed());
        assert_eq!(one.viewer_salt(), two.viewer_salt());
        assert_ne!(one.viewer_salt(), one.session_secret(0));
        let other = ClusterSecret::read(&file("other", &"t".repeat(BYTES_MIN))).expect("read");
        assert_ne!(other.issuer_seed(), one.issuer_seed());
        let short = ClusterSecret::read(&file("short", &text[1..])).expect_err("short").to_string();
        assert!(short.contains("short") && short.contains("31 bytes"), "{short}");
        let none = ClusterSecret::read(&folder.path().join("none")).expect_err("none").to_string();
        for error in [short, none] {
            assert!(error.contains("playback.cluster_secret_file: "), "{error}");
        }
    }
}
