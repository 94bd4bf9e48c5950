//! Keys that verify playback tokens: JWK documents (RFC 7517, 8037) in, verifiers out.
//!
//! Invariants: the algorithm belongs to the key, never to the token; a key that is not understood verifies nothing and
//! costs the others nothing; of two keys with one `kid` neither counts.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// Most keys of a set that count.
pub const KEYS_MAX: usize = 64;
/// Shortest HS256 secret, bytes (RFC 7518, 3.2).
pub const SECRET_BYTES_MIN: usize = 32;

/// One JSON Web Key. Members that are not named here are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jwk {
    /// `OKP`, `EC` or `oct`.
    pub kty: String,
    /// What tokens call the key.
    pub kid: String,
    /// `EdDSA`, `ES256` or `HS256`; when absent, what `kty` and `crv` leave open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alg: Option<String>,
    /// `sig` or absent.
    #[serde(default, rename = "use", skip_serializing_if = "Option::is_none")]
    pub usage: Option<String>,
    /// `Ed25519` or `P-256`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crv: Option<String>,
    /// Public key or coordinate, base64url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub x: Option<String>,
    /// Coordinate, base64url.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub y: Option<String>,
    /// Secret, base64url, 32 bytes or more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub k: Option<String>,
}

/// A JWK set as it travels. Keys that are no JWK at all are kept out of the way, not out of the document.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JwkSet {
    /// The keys.
    #[serde(default)]
    pub keys: Vec<serde_json::Value>,
}

impl JwkSet {
    /// A set of keys.
    #[must_use]
    pub fn of(keys: &[Jwk]) -> Self {
        Self { keys: keys.iter().filter_map(|key| serde_json::to_value(key).ok()).collect() }
    }
}

/// A key that cannot be used: whoever published it is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnusableKey {
    /// Not a JWK with `kty` and `kid`.
    #[error("not a JWK with kty and kid")]
    NotAKey,
    /// `kid` empty or longer than 128 bytes.
    #[error("kid has to be 1 to 128 bytes")]
    Kid,
    /// Another algorithm than EdDSA, ES256 and HS256, or one that does not go with the key type.
    #[error("kty, crv and alg are no EdDSA, ES256 or HS256")]
    Algorithm,
    /// The key itself is missing, not base64url or has the wrong length.
    #[error("the key is missing or malformed")]
    Material,
    /// The key is not for signatures.
    #[error("use is not sig")]
    Usage,
    /// Another key has the same `kid`.
    #[error("two keys with one kid")]
    Duplicate,
    /// More than 64 keys.
    #[error("more than 64 keys")]
    TooMany,
}

/// A key and the one algorithm it verifies.
#[derive(Clone)]
pub(crate) struct Verifier {
    pub(crate) algorithm: Algorithm,
    pub(crate) key: DecodingKey,
}

/// The keys of a set, by `kid`.
#[derive(Clone, Default)]
pub struct KeySet(HashMap<String, Option<Verifier>>);

impl KeySet {
    /// Takes what can be used; says what cannot, and why.
    #[must_use]
    pub fn new(set: &JwkSet) -> (Self, Vec<UnusableKey>) {
        let (mut keys, mut unusable) = (HashMap::new(), Vec::new());
        for value in &set.keys {
            match Jwk::deserialize(value).map_err(|_| UnusableKey::NotAKey).and_then(|jwk| verifier(&jwk)) {
                Ok(_) if keys.len() == KEYS_MAX => unusable.push(UnusableKey::TooMany),
                Ok((kid, verifier)) => {
                    let known = keys.entry(kid).and_modify(|known| *known = None);
                    match known {
                        Entry::Occupied(_) => unusable.push(UnusableKey::Duplicate),
                        Entry::Vacant(free) => {
                            free.insert(Some(verifier));
                        }
                    }
                }
                Err(reason) => unusable.push(reason),
            }
        }
        (Self(keys), unusable)
    }

    pub(crate) fn get(&self, kid: &str) -> Option<&Verifier> {
        self.0.get(kid)?.as_ref()
    }

    /// How many keys verify.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.values().flatten().count()
    }

    /// Whether no key verifies.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl std::fmt::Debug for KeySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

fn verifier(jwk: &Jwk) -> Result<(String, Verifier), UnusableKey> {
    if !(1..=128).contains(&jwk.kid.len()) {
        return Err(UnusableKey::Kid);
    }
    if jwk.usage.as_deref().is_some_and(|usage| usage != "sig") {
        return Err(UnusableKey::Usage);
    }
    let (name, algorithm) = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("OKP", Some("Ed25519")) => ("EdDSA", Algorithm::EdDSA),
        ("EC", Some("P-256")) => ("ES256", Algorithm::ES256),
        ("oct", None) => ("HS256", Algorithm::HS256),
        _ => return Err(UnusableKey::Algorithm),
    };
    if jwk.alg.as_deref().is_some_and(|alg| alg != name) {
        return Err(UnusableKey::Algorithm);
    }
    let key = match algorithm {
        Algorithm::EdDSA => DecodingKey::from_ed_der(&coordinate(jwk.x.as_deref())?),
        Algorithm::ES256 => {
            let (x, y) = (coordinate(jwk.x.as_deref())?, coordinate(jwk.y.as_deref())?);
            let mut point = [4_u8; 65];
            point[1..33].copy_from_slice(&x);
            point[33..].copy_from_slice(&y);
            DecodingKey::from_ec_der(&point)
        }
        _ => {
            let secret = decoded(jwk.k.as_deref())?;
            if secret.len() < SECRET_BYTES_MIN {
                return Err(UnusableKey::Material);
            }
            DecodingKey::from_secret(&secret)
        }
    };
    Ok((jwk.kid.clone(), Verifier { algorithm, key }))
}

fn decoded(text: Option<&str>) -> Result<Vec<u8>, UnusableKey> {
    let text = text.filter(|text| text.len() <= 1024).ok_or(UnusableKey::Material)?;
    URL_SAFE_NO_PAD.decode(text).map_err(|_| UnusableKey::Material)
}

fn coordinate(text: Option<&str>) -> Result<[u8; 32], UnusableKey> {
    decoded(text)?.try_into().map_err(|_| UnusableKey::Material)
}
