//! Whether a viewer may have what it asks for: playback sessions and tokens, decided from a request, a policy and a
//! moment.
//!
//! Invariants: only the Multivariant Playlist is ever redirected; of what is refused nothing is said but a status; a
//! session is stripped from the path before anything else reads it. Deliberately absent: remembering and counting
//! (`admission`).
#![deny(clippy::disallowed_methods)]

use core::net::IpAddr;
use http::StatusCode;
use sigma_shared::id::ChannelId;
use sigma_shared::mode::Mode;
use sigma_shared::resource::{LiveResource, MediaResource};
use sigma_token::claims::Claims;
use sigma_token::ip::IpPrefix;
use sigma_token::jwt::{self, Expected, LEEWAY_S};
use sigma_token::modes::Modes;
use sigma_token::policy::{Playback, Policy};
use sigma_token::session::{Bound, NEVER_S, Session, SessionId, SubjectHash, V6_BITS_MAX};
use std::num::NonZeroU16;

/// Parts and segments may be asked for this much after the playlists ended: one hold-back, so that nobody is cut off in
/// the middle of what a playlist promised.
pub(crate) const MEDIA_GRACE_MS: u64 = 4_000;

/// What a session is bound to by default, bits of the viewer's address; 0 binds to nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Binding {
    pub(crate) v4_bits: u8,
    pub(crate) v6_bits: u8,
}

/// What is known about who may watch.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) policy: Policy,
    /// There is no policy of an origin: everything is public, and any channel may exist.
    pub(crate) open: bool,
}

impl Gate {
    /// Who may watch a channel.
    ///
    /// # Errors
    /// There is no such channel.
    pub(crate) fn playback(&self, channel: &ChannelId) -> Result<Playback, Refusal> {
        if self.open {
            return Ok(Playback::Public);
        }
        self.policy.playback(channel).ok_or(Refusal::NoChannel)
    }
}

/// Why a viewer does not get it. Named in metrics; the viewer is told a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// No policy has arrived yet.
    NoPolicy,
    /// The policy does not know the channel.
    NoChannel,
    /// A token channel, and neither token nor session.
    NoToken,
    /// The token does not open this channel, now, from here.
    Token(jwt::Refused),
    /// No session of ours, or one of another channel.
    Forged,
    /// The session is over.
    Expired,
    /// The session or its subject was revoked.
    Revoked,
    /// Another network than the session's.
    Address,
    /// A latency mode that the session does not have.
    Mode,
    /// The subject watches often enough already.
    Sessions,
    /// `?mode=` is none or more than one.
    Query,
    /// `?token=` more than once.
    Tokens,
}

impl Refusal {
    /// What the viewer is told.
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::NoPolicy => StatusCode::SERVICE_UNAVAILABLE,
            Self::NoChannel => StatusCode::NOT_FOUND,
            Self::NoToken => StatusCode::UNAUTHORIZED,
            Self::Query | Self::Tokens => StatusCode::BAD_REQUEST,
            _ => StatusCode::FORBIDDEN,
        }
    }
}

/// A path without its session, and the session's characters.
pub(crate) fn split(path: &str) -> (Option<&str>, &str) {
    let taken = path.strip_prefix("/s/").and_then(|rest| Some(rest.split_at(rest.find('/')?)));
    match taken {
        Some((session, rest)) if rest.starts_with("/live/") => (Some(session), rest),
        _ => (None, path),
    }
}

/// A path as it may be logged. What begins as a session's does but is none of a resource is somebody's session too,
/// spelled wrong or put before another page.
pub(crate) fn loggable(path: &str) -> &str {
    let (_, shown) = split(path);
    if shown.trim_start_matches('/').starts_with("s/") { "/s/" } else { shown }
}

/// What is asked for, its session taken off.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    pub(crate) resource: &'a LiveResource,
    pub(crate) query: Option<&'a str>,
    pub(crate) address: IpAddr,
    /// Milliseconds since 1970.
    pub(crate) now_ms: u64,
}

impl Asked<'_> {
    /// The mode that this is a playlist of; `None` for what has no mode.
    fn mode(&self) -> Result<Option<Mode>, Refusal> {
        match self.resource {
            LiveResource::Multivariant(_) => {
                Mode::parse_query(self.query.unwrap_or_default()).map_err(|_| Refusal::Query)
            }
            LiveResource::Media(.., MediaResource::Playlist(_, mode)) => Ok(Some(*mode)),
            LiveResource::Media(..) => Ok(None),
        }
    }

    fn is_playlist(&self) -> bool {
        matches!(self.resource, LiveResource::Multivariant(_)) || self.resource.is_media_playlist()
    }

    /// The playback token in the query. Of two, servers in a row might each look at another one.
    fn token(&self) -> Result<Option<&str>, Refusal> {
        let pairs = self.query.unwrap_or_default().split('&');
        let mut tokens = pairs.filter_map(|pair| pair.strip_prefix("token="));
        match (tokens.next(), tokens.next()) {
            (token, None) => Ok(token.filter(|token| !token.is_empty())),
            (_, Some(_)) => Err(Refusal::Tokens),
        }
    }
}

/// Whether an authentic session may have what is asked for, now.
pub(crate) fn check(session: &Session, gate: &Gate, asked: &Asked<'_>) -> Result<(), Refusal> {
    let playback = gate.playback(asked.resource.channel())?;
    if playback == Playback::Token && !session.by_token {
        return Err(Refusal::NoToken);
    }
    let grace_ms = if asked.is_playlist() { 0 } else { MEDIA_GRACE_MS };
    if session.is_over(asked.now_ms, grace_ms) {
        return Err(Refusal::Expired);
    }
    if gate.policy.is_revoked(session, asked.now_ms) {
        return Err(Refusal::Revoked);
    }
    if !session.admits(asked.address) {
        return Err(Refusal::Address);
    }
    // Without `mode` the channel's own one is meant, which is not known here: then all of them have to be allowed.
    let wanted = match (asked.resource, asked.mode()?) {
        (LiveResource::Multivariant(_), None) => session.modes == Modes::ALL,
        (_, mode) => mode.is_none_or(|mode| session.modes.allows(mode)),
    };
    if wanted { Ok(()) } else { Err(Refusal::Mode) }
}

/// A session to be given away with a Multivariant Playlist.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Minted {
    pub(crate) session: Session,
    /// The characters of the path.
    pub(crate) text: String,
    /// Where the viewer is sent, relative to this host.
    pub(crate) location: String,
}

/// How sessions are made here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Minting<'a> {
    pub(crate) binding: Binding,
    /// This cluster's name in `aud`.
    pub(crate) audience: &'a str,
    /// 16 random bytes.
    pub(crate) id: SessionId,
}

/// A session for who asks for a Multivariant Playlist without one.
pub(crate) fn mint(gate: &Gate, asked: &Asked<'_>, how: &Minting<'_>) -> Result<Minted, Refusal> {
    let channel = asked.resource.channel();
    let mode = asked.mode()?;
    let session = match gate.playback(channel)? {
        Playback::Public => public(how.id, asked),
        Playback::Token => of_claims(&verified(gate, asked, how)?, asked, how),
    };
    if mode.is_some_and(|mode| !session.modes.allows(mode)) {
        return Err(Refusal::Mode);
    }
    // Whoever may not have every mode is told one that is allowed.
    let mode = if session.modes == Modes::ALL { mode } else { mode.or(session.modes.first()) };
    let text = gate.policy.signing_key().mint(&session, channel);
    let query = mode.map_or_else(String::new, |mode| format!("?mode={mode}"));
    let location = format!("/s/{text}{}{query}", asked.resource);
    Ok(Minted { session, text, location })
}

fn public(id: SessionId, asked: &Asked<'_>) -> Session {
    Session {
        id,
        subject: SubjectHash::NONE,
        issued_at_s: seconds(asked.now_ms / 1000),
        expires_at_s: NEVER_S,
        modes: Modes::ALL,
        by_token: false,
        sessions_max: None,
        // There is nothing to steal, and viewers move between networks.
        bound: None,
    }
}

fn verified(gate: &Gate, asked: &Asked<'_>, how: &Minting<'_>) -> Result<Claims, Refusal> {
    let token = asked.token()?.ok_or(Refusal::NoToken)?;
    let expected = Expected {
        channel: asked.resource.channel(),
        address: asked.address,
        audience: how.audience,
        now_s: asked.now_ms / 1000,
    };
    let claims = jwt::verify(token, gate.policy.token_keys(), &expected).map_err(Refusal::Token)?;
    let subject = claims.sub.as_deref().map_or(SubjectHash::NONE, SubjectHash::of);
    // A clock ahead of ours must not carry a token over a revocation.
    let issued_at_s = claims.iat.unwrap_or(0).min(asked.now_ms / 1000);
    if gate.policy.is_subject_revoked(subject, issued_at_s, asked.now_ms) {
        return Err(Refusal::Revoked);
    }
    Ok(claims)
}

fn of_claims(claims: &Claims, asked: &Asked<'_>, how: &Minting<'_>) -> Session {
    let now_s = asked.now_ms / 1000;
    // What only the leeway let in lives by the leeway.
    let expires_at_s = if claims.exp > now_s { claims.exp } else { claims.exp + LEEWAY_S };
    Session {
        id: how.id,
        subject: claims.sub.as_deref().map_or(SubjectHash::NONE, SubjectHash::of),
        // The token's age, not the session's: a revocation must also reach what its tokens opened while it travelled.
        issued_at_s: seconds(claims.iat.unwrap_or(0).min(now_s)),
        expires_at_s: seconds(expires_at_s),
        modes: claims.modes.unwrap_or(Modes::ALL),
        by_token: true,
        sessions_max: claims
            .max_sessions
            .map(|max| u16::try_from(max).unwrap_or(u16::MAX))
            .and_then(NonZeroU16::new),
        bound: bound(claims.ip, asked.address, how.binding),
    }
}

/// The network that the token demands, or else the viewer's own.
fn bound(demanded: Option<IpPrefix>, address: IpAddr, binding: Binding) -> Option<Bound> {
    if let Some(prefix) = demanded {
        return Some(Bound { prefix, demanded: true });
    }
    let address = address.to_canonical();
    let bits = if address.is_ipv4() { binding.v4_bits } else { binding.v6_bits.min(V6_BITS_MAX) };
    (bits > 0).then(|| Bound { prefix: IpPrefix::of(address, bits), demanded: false })
}

/// Seconds in the width of a session path; later than it can say is the last it can say before "never".
fn seconds(since_1970: u64) -> u32 {
    u32::try_from(since_1970).unwrap_or(NEVER_S).min(NEVER_S - 1)
}

#[cfg(test)]
mod tests;
