//! What the state consists of, piece by piece: each is kept under its key and loaded when it is needed.
#![deny(clippy::disallowed_methods)]

use crate::scope::{self, Scope};
use crate::series::Resolution;
use crate::session::SessionId;
use sigma_report::report::Protocol;
use sigma_shared::id::{ChannelId, PopId};

/// A value as it is kept, and nothing after it; `None`: the bytes are none.
pub(crate) fn decoded<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let (value, rest) = postcard::take_from_bytes(bytes).ok()?;
    rest.is_empty().then_some(value)
}

/// What a piece is of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// A playback session.
    Session(ChannelId, SessionId),
    /// A minute's traffic as one incarnation of a POP reported it, by second.
    Traffic(ChannelId, Reporter, Protocol, u64),
    /// A minute's quality as one incarnation of a POP reported it.
    Quality(ChannelId, Reporter, u64),
    /// A block of a series.
    Series(ChannelId, Scope, Resolution, u64),
    /// Sums for ever.
    Totals(ChannelId, Scope),
    /// A broadcast session, by its start in Unix milliseconds.
    Broadcast(ChannelId, u64),
    /// A POP.
    Pop(PopId),
}

/// A POP's process.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reporter {
    /// The POP.
    pub pop: PopId,
    /// Which start of it.
    pub incarnation: u64,
}

/// A piece, written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Of what.
    pub key: Key,
    /// When it was last changed, Unix milliseconds; of sessions only.
    pub touched_ms: u64,
    /// Its content.
    pub value: Vec<u8>,
}

/// Where a piece that is no session is in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Kind of piece.
    pub kind: &'static str,
    /// The channel, or nothing.
    pub channel: String,
    /// Which part of the channel.
    pub part: String,
    /// Number of a stretch of time, or 0.
    pub at: u64,
}

/// Kinds of pieces, as the database names them.
pub mod kind {
    /// Traffic as reported.
    pub const TRAFFIC: &str = "traffic";
    /// Quality as reported.
    pub const QUALITY: &str = "quality";
    /// Sums.
    pub const TOTALS: &str = "totals";
    /// Broadcast sessions.
    pub const BROADCAST: &str = "broadcast";
    /// POPs.
    pub const POP: &str = "pop";
}

impl Key {
    /// Where it is in the database; sessions have a table of their own.
    #[must_use]
    pub fn place(&self) -> Option<Place> {
        let place = |kind, channel: &ChannelId, part: String, at: &u64| {
            Some(Place { kind, channel: channel.to_string(), part, at: *at })
        };
        match self {
            Self::Session(..) => None,
            Self::Traffic(channel, Reporter { pop, incarnation }, protocol, minute) => {
                place(kind::TRAFFIC, channel, format!("{pop}/{incarnation}/{}", protocol.name()), minute)
            }
            Self::Quality(channel, Reporter { pop, incarnation }, minute) => {
                place(kind::QUALITY, channel, format!("{pop}/{incarnation}"), minute)
            }
            Self::Series(channel, scope, resolution, at) => {
                place(resolution.name(), channel, scope.text(), at)
            }
            Self::Totals(channel, scope) => place(kind::TOTALS, channel, scope.text(), &0),
            Self::Broadcast(channel, start_ms) => place(kind::BROADCAST, channel, String::new(), start_ms),
            Self::Pop(pop) => {
                Some(Place { kind: kind::POP, channel: String::new(), part: pop.to_string(), at: 0 })
            }
        }
    }

    /// What is at a place in the database. `None`: it is not one of ours.
    #[must_use]
    pub fn at(place: &Place) -> Option<Self> {
        let Place { kind, channel, part, at } = place;
        if *kind == kind::POP {
            return part.parse().ok().map(Self::Pop);
        }
        let channel: ChannelId = channel.parse().ok()?;
        let reporter = |pop: &str, incarnation: &str| {
            Some(Reporter { pop: pop.parse().ok()?, incarnation: incarnation.parse().ok()? })
        };
        let series = [Resolution::Second, Resolution::Minute, Resolution::Hour];
        if let Some(resolution) = series.into_iter().find(|resolution| resolution.name() == *kind) {
            return Some(Self::Series(channel, Scope::parse(part)?, resolution, *at));
        }
        match *kind {
            kind::TRAFFIC => {
                let mut fields = part.splitn(3, '/');
                let (pop, incarnation, protocol) = (fields.next()?, fields.next()?, fields.next()?);
                Some(Self::Traffic(channel, reporter(pop, incarnation)?, scope::protocol(protocol)?, *at))
            }
            kind::QUALITY => {
                let (pop, incarnation) = part.split_once('/')?;
                Some(Self::Quality(channel, reporter(pop, incarnation)?, *at))
            }
            kind::TOTALS => Some(Self::Totals(channel, Scope::parse(part)?)),
            kind::BROADCAST => Some(Self::Broadcast(channel, *at)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_where_it_was_put() {
        let channel: ChannelId = "demo".parse().unwrap();
        let pop: PopId = "pop-1".parse().unwrap();
        let reporter = Reporter { pop: pop.clone(), incarnation: 7 };
        for key in [
            Key::Traffic(channel.clone(), reporter.clone(), Protocol::H3, 9),
            Key::Quality(channel.clone(), reporter, 9),
            Key::Series(channel.clone(), Scope::Pop(pop.clone()), Resolution::Hour, 3),
            Key::Totals(channel.clone(), Scope::Broadcast(5)),
            Key::Broadcast(channel.clone(), 5),
            Key::Pop(pop),
        ] {
            assert_eq!(Key::at(&key.place().unwrap()), Some(key));
        }
        assert_eq!(Key::Session(channel, [0; 16]).place(), None);
    }
}
