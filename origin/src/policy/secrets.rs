//! What of the policy must survive a restart, in `data_dir/keys`, readable by its owner alone; and issuers' keys from the
//! files that the configuration names.

use super::PolicyError;
use super::rotation::{Secret, decode, encode};
use crate::config::{IssuerAlgorithm, IssuerConfig};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sigma_token::issuer::IssuerKey;
use sigma_token::jwk::{Jwk, JwkSet, KeySet};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

const ISSUER_FILE: &str = "issuer.json";
const VIEWERS_FILE: &str = "viewers.json";
/// RFC 8410: an Ed25519 public key is these bytes and 32 more.
const ED25519_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// RFC 5480: a P-256 public key that is not compressed is these bytes and 64 more.
const P256_PREFIX: [u8; 27] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00, 0x04,
];

/// The seed of the origin's own signing key.
#[derive(Serialize, Deserialize)]
struct Issuer {
    #[serde(serialize_with = "encode", deserialize_with = "decode")]
    seed: Secret,
}

/// What viewers without a token are hashed under.
#[derive(Serialize, Deserialize)]
struct Viewers {
    #[serde(serialize_with = "encode", deserialize_with = "decode")]
    salt: Secret,
}

/// The folder of keys in a data directory.
pub(super) fn folder(data_dir: &Path) -> PathBuf {
    data_dir.join("keys")
}

/// Reads what is kept, if it is there.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, PolicyError> {
    let broken = |reason: String| PolicyError { path: path.to_owned(), reason };
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| broken(error.to_string())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(broken(error.to_string())),
    }
}

/// Keeps it. Written beside and renamed, so that a crash leaves the old or the new.
pub(super) fn write(path: &Path, value: &impl Serialize) -> Result<(), PolicyError> {
    let beside = path.with_extension("json.new");
    let written = || {
        if let Some(folder) = path.parent() {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.create(true).write(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(&serde_json::to_vec(value)?)?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    };
    written().map_err(|error| PolicyError { path: path.to_owned(), reason: error.to_string() })
}

/// 32 bytes from the system's randomness.
pub(super) fn random() -> Result<Secret, PolicyError> {
    let mut secret = [0; 32];
    aws_lc_rs::rand::fill(&mut secret)
        .map_err(|_| PolicyError { path: "/dev/urandom".into(), reason: "no randomness".to_owned() })?;
    Ok(secret)
}

/// The origin's own signing key, made when it is not there.
pub(super) fn issuer(data_dir: &Path) -> Result<IssuerKey, PolicyError> {
    match existing_issuer(data_dir)? {
        Some(issuer) => Ok(issuer),
        None => {
            let issuer = Issuer { seed: random()? };
            write(&folder(data_dir).join(ISSUER_FILE), &issuer)?;
            key_of(&issuer, data_dir)
        }
    }
}

/// What viewers without a token are hashed under, made when it is not there: it changes when its file is removed only, and
/// everybody is a new viewer then.
pub(super) fn viewer_salt(data_dir: &Path) -> Result<Secret, PolicyError> {
    let path = folder(data_dir).join(VIEWERS_FILE);
    if let Some(Viewers { salt }) = read(&path)? {
        return Ok(salt);
    }
    let made = Viewers { salt: random()? };
    write(&path, &made)?;
    Ok(made.salt)
}

/// The origin's own signing key, if an origin has made one in this data directory.
pub(super) fn existing_issuer(data_dir: &Path) -> Result<Option<IssuerKey>, PolicyError> {
    let issuer: Option<Issuer> = read(&folder(data_dir).join(ISSUER_FILE))?;
    issuer.map(|issuer| key_of(&issuer, data_dir)).transpose()
}

fn key_of(issuer: &Issuer, data_dir: &Path) -> Result<IssuerKey, PolicyError> {
    let path = folder(data_dir).join(ISSUER_FILE);
    IssuerKey::from_seed(&issuer.seed).map_err(|error| PolicyError { path, reason: error.to_string() })
}

/// The key of another issuer, from its file.
pub(crate) fn issuer_jwk(issuer: &IssuerConfig) -> Result<Jwk, PolicyError> {
    let broken = |reason: String| PolicyError { path: issuer.file.clone(), reason };
    let mut jwk = Jwk {
        kty: String::new(),
        kid: issuer.kid.clone(),
        alg: Some(issuer.alg.to_string()),
        usage: Some("sig".to_owned()),
        crv: None,
        x: None,
        y: None,
        k: None,
    };
    let text = |bytes: &[u8]| Some(URL_SAFE_NO_PAD.encode(bytes));
    let public = |prefix: &[u8]| {
        let der = SubjectPublicKeyInfoDer::from_pem_file(&issuer.file)
            .map_err(|error| broken(format!("a PUBLIC KEY in PEM form is expected: {error}")))?;
        let other = || broken(format!("this is no public key for {}", issuer.alg));
        der.strip_prefix(prefix).map(<[u8]>::to_vec).ok_or_else(other)
    };
    match issuer.alg {
        IssuerAlgorithm::EdDsa => {
            (jwk.kty, jwk.crv, jwk.x) =
                ("OKP".into(), Some("Ed25519".into()), text(&public(&ED25519_PREFIX)?));
        }
        IssuerAlgorithm::Es256 => {
            let point = public(&P256_PREFIX)?;
            let (x, y) = point.split_at_checked(32).unwrap_or((&point, &[]));
            (jwk.kty, jwk.crv, jwk.x, jwk.y) = ("EC".into(), Some("P-256".into()), text(x), text(y));
        }
        IssuerAlgorithm::Hs256 => {
            let secret = std::fs::read(&issuer.file).map_err(|error| broken(error.to_string()))?;
            // The line end that editors put behind it is no part of it.
            (jwk.kty, jwk.k) = ("oct".into(), text(secret.trim_ascii_end()));
        }
    }
    let (_, unusable) = KeySet::new(&JwkSet::of(std::slice::from_ref(&jwk)));
    unusable.first().map_or(Ok(jwk), |reason| Err(broken(reason.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_own_key_is_made_once_and_for_its_owner_alone() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(existing_issuer(folder.path()).expect("readable").is_none());
        let salt = viewer_salt(folder.path()).expect("made");
        assert_eq!(viewer_salt(folder.path()).expect("read"), salt);
        let made = issuer(folder.path()).expect("made");
        let again = issuer(folder.path()).expect("read");
        assert_eq!(made.kid(), again.kid());
        let mode = |path: &str| {
            std::fs::metadata(folder.path().join(path)).expect("there").permissions().mode() & 0o777
        };
        assert_eq!((mode("keys"), mode("keys/issuer.json")), (0o700, 0o600));
        assert_eq!(mode("keys/viewers.json"), 0o600);
    }

    #[test]
    fn keys_of_other_issuers_are_read_and_wrong_ones_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str, text: &str| {
            std::fs::write(folder.path().join(name), text).expect("written");
            folder.path().join(name)
        };
        let pair = |algorithm| rcgen::KeyPair::generate_for(algorithm).expect("made").public_key_pem();
        let ed = file("ed.pem", &pair(&rcgen::PKCS_ED25519));
        let ec = file("ec.pem", &pair(&rcgen::PKCS_ECDSA_P256_SHA256));
        let secret = file("secret", &format!("{}\n", "s".repeat(32)));
        let short = file("short", "s");
        use IssuerAlgorithm::{EdDsa, Es256, Hs256};
        for (file, alg, kty) in [
            (&ed, EdDsa, Some("OKP")),
            (&ec, Es256, Some("EC")),
            (&secret, Hs256, Some("oct")),
            (&ed, Es256, None),
            (&ec, EdDsa, None),
            (&secret, EdDsa, None),
            (&short, Hs256, None),
        ] {
            let read = issuer_jwk(&IssuerConfig { kid: "k".into(), alg, file: file.clone() });
            match (read, kty) {
                (Ok(jwk), Some(kty)) => assert_eq!(jwk.kty, kty),
                (Err(error), None) => assert!(error.to_string().contains(&file.display().to_string())),
                (read, _) => panic!("{alg} {}: {read:?}", file.display()),
            }
        }
    }
}
