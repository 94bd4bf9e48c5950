//! An issuer's own key: makes playback tokens (EdDSA) and the JWK that verifies them.

use crate::claims::Claims;
use crate::jwk::Jwk;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

/// An Ed25519 signing key, named by its RFC 7638 thumbprint: the same seed has the same name everywhere.
pub struct IssuerKey {
    pair: Ed25519KeyPair,
    kid: String,
}

/// A token that cannot be made: the library is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the token cannot be signed")]
pub struct SigningFailed;

impl IssuerKey {
    /// The key of a secret seed: 32 bytes from the system's randomness.
    ///
    /// # Errors
    /// The library refuses the seed.
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, SigningFailed> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| SigningFailed)?;
        let x = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
        let canonical = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
        let kid = URL_SAFE_NO_PAD.encode(digest(&SHA256, canonical.as_bytes()));
        Ok(Self { pair, kid })
    }

    /// What tokens and key sets call this key.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The public key, for a key set.
    #[must_use]
    pub fn jwk(&self) -> Jwk {
        Jwk {
            kty: "OKP".to_owned(),
            kid: self.kid.clone(),
            alg: Some("EdDSA".to_owned()),
            usage: Some("sig".to_owned()),
            crv: Some("Ed25519".to_owned()),
            x: Some(URL_SAFE_NO_PAD.encode(self.pair.public_key().as_ref())),
            y: None,
            k: None,
        }
    }

    /// Makes a token.
    ///
    /// # Errors
    /// The library cannot sign.
    pub fn sign(&self, claims: &Claims) -> Result<String, SigningFailed> {
        let header = json!({ "alg": "EdDSA", "kid": self.kid, "typ": "JWT" }).to_string();
        let claims = serde_json::to_vec(claims).map_err(|_| SigningFailed)?;
        let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = self.pair.try_sign(message.as_bytes()).map_err(|_| SigningFailed)?;
        Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

impl std::fmt::Debug for IssuerKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "IssuerKey({})", self.kid)
    }
}
