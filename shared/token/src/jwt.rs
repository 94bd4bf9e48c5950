//! Playback tokens: JWT (RFC 7519) in compact JWS form, verified as RFC 8725 asks.
//!
//! Invariants: the algorithm is the one of the key that `kid` names; nothing that a token's header says can lead to
//! another key; an object with a key twice is refused; every limit is checked before the signature, every claim after.

use crate::claims::Claims;
use crate::ip::Match;
use crate::jwk::KeySet;
use crate::strict;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use core::net::IpAddr;
use jsonwebtoken::Algorithm;
use serde_json::Value;
use sigma_shared::id::ChannelId;

/// Longest token, bytes.
pub const TOKEN_BYTES_MAX: usize = 4096;
/// How far the clocks of issuer and verifier may be apart, seconds.
pub const LEEWAY_S: u64 = 30;

/// Header members that change what a signature means or where its key comes from. None is understood here, so that a
/// token with one of them is refused (RFC 7515, 4.1.11; RFC 8725, 3.10).
const FORBIDDEN: [&str; 10] = ["crit", "jku", "jwk", "x5u", "x5c", "x5t", "x5t#S256", "b64", "zip", "enc"];

/// Why a token does not open the channel. For counters and logs: viewers are told nothing of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refused {
    /// Not a token: too long, not three parts, not base64url, not the JSON expected.
    #[error("malformed")]
    Malformed,
    /// A header that is not allowed, or another algorithm than the key's.
    #[error("algorithm or header")]
    Algorithm,
    /// No such key (any more).
    #[error("unknown key")]
    UnknownKey,
    /// The signature is not that of the key.
    #[error("signature")]
    Signature,
    /// A claim that is missing or not understood.
    #[error("claims")]
    Claims,
    /// After `exp`.
    #[error("expired")]
    Expired,
    /// Before `nbf` or `iat`.
    #[error("not valid yet")]
    NotYet,
    /// Made for other channels.
    #[error("other channel")]
    Channel,
    /// Made for another network.
    #[error("other address")]
    Address,
    /// Made for another audience.
    #[error("other audience")]
    Audience,
}

/// What a token is checked against.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// The channel asked for.
    pub channel: &'a ChannelId,
    /// The viewer's address.
    pub address: IpAddr,
    /// The verifier's name in `aud`.
    pub audience: &'a str,
    /// Seconds since 1970.
    pub now_s: u64,
}

/// Verifies a token and returns what it claims.
///
/// # Errors
/// Anything is wrong: the viewer or the token's issuer is to blame, and asking again does not help.
pub fn verify(token: &str, keys: &KeySet, expected: &Expected<'_>) -> Result<Claims, Refused> {
    let claims = authentic(token, keys)?;
    check(&claims, expected)?;
    Ok(claims)
}

/// The claims of a token whose signature is right. Nothing is said about what they claim.
fn authentic(token: &str, keys: &KeySet) -> Result<Claims, Refused> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Refused::Malformed);
    }
    let (message, signature) = token.rsplit_once('.').ok_or(Refused::Malformed)?;
    let (header, payload) = message.split_once('.').ok_or(Refused::Malformed)?;
    let header = object(header).ok_or(Refused::Malformed)?;
    // Also refuses a fourth part: `.` is not in the alphabet.
    let payload = decoded(payload).ok_or(Refused::Malformed)?;
    let (algorithm, kid) = named(&header)?;
    let verifier = keys.get(kid).ok_or(Refused::UnknownKey)?;
    if verifier.algorithm != algorithm {
        return Err(Refused::Algorithm);
    }
    let verified =
        jsonwebtoken::crypto::verify(signature, message.as_bytes(), &verifier.key, verifier.algorithm);
    if !verified.unwrap_or(false) {
        return Err(Refused::Signature);
    }
    if !strict::is_unambiguous(&payload) {
        return Err(Refused::Malformed);
    }
    serde_json::from_slice(&payload).map_err(|_| Refused::Claims)
}

/// The algorithm and the key that a header names, once nothing else in it matters.
fn named(header: &Value) -> Result<(Algorithm, &str), Refused> {
    if FORBIDDEN.iter().any(|name| header.get(name).is_some()) {
        return Err(Refused::Algorithm);
    }
    let text = |name: &str| header.get(name).and_then(Value::as_str);
    let algorithm = match text("alg") {
        Some("EdDSA") => Algorithm::EdDSA,
        Some("ES256") => Algorithm::ES256,
        Some("HS256") => Algorithm::HS256,
        _ => return Err(Refused::Algorithm),
    };
    if header.get("typ").is_some_and(|typ| typ.as_str().is_none_or(|typ| !typ.eq_ignore_ascii_case("JWT"))) {
        return Err(Refused::Algorithm);
    }
    Ok((algorithm, text("kid").ok_or(Refused::UnknownKey)?))
}

fn check(claims: &Claims, expected: &Expected<'_>) -> Result<(), Refused> {
    if claims.max_sessions.is_some_and(|max| max == 0 || claims.sub.is_none()) {
        return Err(Refused::Claims);
    }
    if claims.exp.saturating_add(LEEWAY_S) <= expected.now_s {
        return Err(Refused::Expired);
    }
    let soon = expected.now_s.saturating_add(LEEWAY_S);
    if [claims.nbf, claims.iat].into_iter().flatten().any(|from| from > soon) {
        return Err(Refused::NotYet);
    }
    if !claims.channel.contains(expected.channel) {
        return Err(Refused::Channel);
    }
    if claims.ip.is_some_and(|ip| ip.matches(expected.address) != Match::Inside) {
        return Err(Refused::Address);
    }
    if claims.aud.as_ref().is_some_and(|audience| !audience.contains(expected.audience)) {
        return Err(Refused::Audience);
    }
    Ok(())
}

fn decoded(part: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(part).ok()
}

fn object(part: &str) -> Option<Value> {
    let json = decoded(part)?;
    let value = strict::is_unambiguous(&json).then(|| serde_json::from_slice::<Value>(&json).ok())??;
    value.is_object().then_some(value)
}

#[cfg(test)]
mod tests;
