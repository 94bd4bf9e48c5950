//! The signed session path (A13): `/s/{session}/live/{channel}/…`.
//!
//! `{session}` is 80 characters of base64url over 60 bytes, big-endian:
//!
//! ```text
//! version u8 | kid u8 | flags u8 | prefix bits u8 | issued at u32 s | expires at u32 s
//! | sid 16 | subject hash 8 | address prefix 8 | sessions at a time u16 | mac 14
//! ```
//!
//! flags: bits 0 to 2 the modes, 5 minted from a token, 6 the prefix is IPv6, 7 the token demanded the prefix; bits 3 and
//! 4 are 0. Sessions at a time: how many its subject may have, 0 when nothing was said; every edge that sees the session
//! knows the limit.
//! The mac is HMAC-SHA256, cut to 14 bytes, over everything before it and the channel.
//!
//! Invariants: one session has one spelling; what verifies was made by a holder of the key, for this channel. The
//! comparison takes the same time wherever the first difference is. Deliberately absent: what a session allows at a
//! moment, which is asked of its fields.

use crate::ip::{IpPrefix, Match};
use crate::modes::Modes;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use sigma_shared::id::ChannelId;
use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;

/// Bytes of a session, signature included.
pub const BYTES: usize = 60;
/// Characters of a session in a path.
pub const CHARS: usize = 80;
/// `expires_at_s` of a session that does not expire.
pub const NEVER_S: u32 = u32::MAX;
/// The most bits of an IPv6 address that a session holds.
pub const V6_BITS_MAX: u8 = 64;

const VERSION: u8 = 2;
const SIGNED: usize = 46;
const SPARE: u8 = 0b11 << 3;
const BY_TOKEN: u8 = 1 << 5;
const IS_V6: u8 = 1 << 6;
const DEMANDED: u8 = 1 << 7;
const MODES: u8 = 0b111;

/// The identity of a playback session: 16 random bytes, written as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub [u8; 16]);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Not 32 lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a session id is 32 hexadecimal digits")]
pub struct InvalidSessionId;

impl FromStr for SessionId {
    type Err = InvalidSessionId;

    fn from_str(text: &str) -> Result<Self, InvalidSessionId> {
        let lower_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() != 32 || !text.bytes().all(lower_hex) {
            return Err(InvalidSessionId);
        }
        u128::from_str_radix(text, 16).map(|id| Self(id.to_be_bytes())).map_err(|_| InvalidSessionId)
    }
}

/// What stands for a subject in paths and tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SubjectHash(pub [u8; 8]);

impl SubjectHash {
    /// Of a session without a subject.
    pub const NONE: Self = Self([0; 8]);

    /// The hash of a subject.
    #[must_use]
    pub fn of(subject: &str) -> Self {
        let full = digest(&SHA256, format!("sigma-subject:{subject}").as_bytes());
        let mut hash = [0; 8];
        hash.copy_from_slice(&full.as_ref()[..8]);
        Self(hash)
    }
}

/// The network that a session is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// Where its requests come from. Of IPv6 at most 64 bits are held.
    pub prefix: IpPrefix,
    /// Whether the token asked for it: then a request of the other family is refused, too.
    pub demanded: bool,
}

/// A playback session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Session {
    /// Its identity.
    pub id: SessionId,
    /// Who watches.
    pub subject: SubjectHash,
    /// What revocations by subject compare with, seconds since 1970: the token's `iat`, 0 without one.
    pub issued_at_s: u32,
    /// When playlists end, seconds since 1970.
    pub expires_at_s: u32,
    /// The modes that may be asked for.
    pub modes: Modes,
    /// Whether a token was shown for it.
    pub by_token: bool,
    /// How many sessions its subject may have at a time, when that token says so; more than can be written is as many as
    /// can be.
    pub sessions_max: Option<NonZeroU16>,
    /// Where requests have to come from; `None` is anywhere.
    pub bound: Option<Bound>,
}

impl Session {
    /// Whether a request from an address may use the session. Dual-stack viewers change family between requests
    /// (happy eyeballs): that is no reason to refuse them unless the token said where from.
    #[must_use]
    pub fn admits(&self, address: IpAddr) -> bool {
        self.bound.is_none_or(|bound| match bound.prefix.matches(address) {
            Match::Inside => true,
            Match::Outside => false,
            Match::OtherFamily => !bound.demanded,
        })
    }

    /// Whether playlists are over, `grace_ms` later than said.
    #[must_use]
    pub fn is_over(&self, now_ms: u64, grace_ms: u64) -> bool {
        self.expires_at_s != NEVER_S && now_ms >= u64::from(self.expires_at_s) * 1000 + grace_ms
    }

    fn bytes(&self, kid: u8) -> [u8; SIGNED] {
        let mut flags = self.modes.bits();
        flags |= if self.by_token { BY_TOKEN } else { 0 };
        let (mut bits, mut network) = (0, [0; 8]);
        if let Some(bound) = self.bound {
            flags |= if bound.demanded { DEMANDED } else { 0 };
            bits = bound.prefix.bits();
            match bound.prefix.address() {
                IpAddr::V4(v4) => network[..4].copy_from_slice(&v4.octets()),
                IpAddr::V6(v6) => {
                    flags |= IS_V6;
                    bits = bits.min(V6_BITS_MAX);
                    network.copy_from_slice(&v6.octets()[..8]);
                }
            }
        }
        let mut bytes = [0; SIGNED];
        bytes[..4].copy_from_slice(&[VERSION, kid, flags, bits]);
        bytes[4..8].copy_from_slice(&self.issued_at_s.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.expires_at_s.to_be_bytes());
        bytes[12..28].copy_from_slice(&self.id.0);
        bytes[28..36].copy_from_slice(&self.subject.0);
        bytes[36..44].copy_from_slice(&network);
        bytes[44..].copy_from_slice(&self.sessions_max.map_or(0, NonZeroU16::get).to_be_bytes());
        bytes
    }
}

/// A session string taken apart, not verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Unverified([u8; BYTES]);

impl Unverified {
    /// Takes the path segment apart; `None` when it is no session at all.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; BYTES];
        let whole = text.len() == CHARS && URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()? == BYTES;
        (whole && bytes[0] == VERSION).then_some(Self(bytes))
    }

    /// Which key it says it was signed with.
    #[must_use]
    pub fn kid(&self) -> u8 {
        self.0[1]
    }

    /// The fields, if the key signed them for this channel.
    #[must_use]
    pub fn verify(&self, key: &SessionKey, channel: &ChannelId) -> Option<Session> {
        let (signed, mac) = self.0.split_at(SIGNED);
        if self.kid() != key.kid {
            return None;
        }
        verify_slices_are_equal(&key.mac(signed, channel), mac).ok()?;
        self.fields()
    }

    fn fields(&self) -> Option<Session> {
        let bytes = &self.0;
        let (flags, bits) = (bytes[2], bytes[3]);
        if flags & SPARE != 0 {
            return None;
        }
        let network: [u8; 8] = bytes[36..44].try_into().ok()?;
        let address: IpAddr = if flags & IS_V6 != 0 {
            Ipv6Addr::from_bits(u128::from(u64::from_be_bytes(network)) << 64).into()
        } else {
            Ipv4Addr::new(network[0], network[1], network[2], network[3]).into()
        };
        let demanded = flags & DEMANDED != 0;
        // `::/0` and `0.0.0.0/0` are bounds only when somebody asked for the family.
        let bound = (bits > 0 || demanded).then(|| Bound { prefix: IpPrefix::of(address, bits), demanded });
        Some(Session {
            id: SessionId(bytes[12..28].try_into().ok()?),
            subject: SubjectHash(bytes[28..36].try_into().ok()?),
            issued_at_s: u32::from_be_bytes(bytes[4..8].try_into().ok()?),
            expires_at_s: u32::from_be_bytes(bytes[8..12].try_into().ok()?),
            modes: Modes::from_bits(flags & MODES)?,
            by_token: flags & BY_TOKEN != 0,
            sessions_max: NonZeroU16::new(u16::from_be_bytes(bytes[44..SIGNED].try_into().ok()?)),
            bound,
        })
    }
}

/// A secret that signs and verifies session paths.
#[derive(Clone)]
pub struct SessionKey {
    kid: u8,
    key: hmac::Key,
}

impl SessionKey {
    /// A key of 32 random bytes.
    #[must_use]
    pub fn new(kid: u8, secret: &[u8; 32]) -> Self {
        Self { kid, key: hmac::Key::new(hmac::HMAC_SHA256, secret) }
    }

    /// Its number.
    #[must_use]
    pub fn kid(&self) -> u8 {
        self.kid
    }

    /// The path segment of a session on a channel.
    #[must_use]
    pub fn mint(&self, session: &Session, channel: &ChannelId) -> String {
        let signed = session.bytes(self.kid);
        let mut bytes = [0; BYTES];
        bytes[..SIGNED].copy_from_slice(&signed);
        bytes[SIGNED..].copy_from_slice(&self.mac(&signed, channel));
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// What stands for viewers where a policy has no salt for them: until the next key.
    #[must_use]
    pub fn viewer_key(&self) -> ViewerKey {
        ViewerKey { key: self.key.clone() }
    }

    fn mac(&self, signed: &[u8], channel: &ChannelId) -> [u8; BYTES - SIGNED] {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(signed);
        context.update(channel.as_str().as_bytes());
        let mut mac = [0; BYTES - SIGNED];
        mac.copy_from_slice(&context.sign().as_ref()[..BYTES - SIGNED]);
        mac
    }
}

/// A secret under which viewers are hashed of whom nothing is known but where they come from and what they call themselves.
/// While it stays the same, so does what stands for a viewer.
#[derive(Clone)]
pub struct ViewerKey {
    key: hmac::Key,
}

impl ViewerKey {
    /// A key of 32 random bytes.
    #[must_use]
    pub fn new(salt: &[u8; 32]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, salt) }
    }

    /// What stands for a viewer from an address (as /24 or /56) with a user agent. Without the key nobody can tell from it who
    /// that is. Never 0.
    #[must_use]
    pub fn viewer(&self, address: IpAddr, user_agent: &[u8]) -> u64 {
        let bits = if address.to_canonical().is_ipv4() { 24 } else { 56 };
        let mut context = hmac::Context::with_key(&self.key);
        // Nothing that is signed for a path begins like this.
        context.update(b"viewer\0");
        context.update(IpPrefix::of(address, bits).address().to_string().as_bytes());
        context.update(b"\0");
        context.update(user_agent);
        let mut hash = [0; 8];
        hash.copy_from_slice(&context.sign().as_ref()[..8]);
        u64::from_be_bytes(hash).max(1)
    }
}

impl fmt::Debug for ViewerKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ViewerKey")
    }
}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionKey({})", self.kid)
    }
}

#[cfg(test)]
mod tests;
