//! What numbers are about: a channel as a whole, or one POP, protocol or broadcast session of it.
#![deny(clippy::disallowed_methods)]

use sigma_report::report::Protocol;
use sigma_shared::id::PopId;

/// All protocols.
pub const PROTOCOLS: [Protocol; 3] = [Protocol::H1, Protocol::H2, Protocol::H3];

/// What of a channel is counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// Everything, each session once.
    All,
    /// What came by one POP.
    Pop(PopId),
    /// What came over one protocol.
    Protocol(Protocol),
    /// One broadcast session, by its start in Unix milliseconds: its time is from there to the start of the next one.
    Broadcast(u64),
}

impl Scope {
    /// Its form in the database.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::All => "all".to_owned(),
            Self::Pop(pop) => format!("pop:{pop}"),
            Self::Protocol(protocol) => format!("protocol:{}", protocol.name()),
            Self::Broadcast(start_ms) => format!("broadcast:{start_ms}"),
        }
    }

    /// From its form in the database.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text == "all" {
            return Some(Self::All);
        }
        let (kind, name) = text.split_once(':')?;
        match kind {
            "pop" => name.parse().ok().map(Self::Pop),
            "protocol" => protocol(name).map(Self::Protocol),
            "broadcast" => name.parse().ok().map(Self::Broadcast),
            _ => None,
        }
    }
}

/// A protocol by its name.
#[must_use]
pub fn protocol(name: &str) -> Option<Protocol> {
    PROTOCOLS.into_iter().find(|protocol| protocol.name() == name)
}

/// The id of a broadcast session: when it started, as in `20261122t204500-123`.
#[must_use]
pub fn broadcast_id(start_ms: u64) -> String {
    let date = i64::try_from(start_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    let date = date.unwrap_or_default();
    format!("{}-{:03}", date.strftime("%Y%m%dt%H%M%S"), start_ms % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_is_read_as_it_was_written() {
        let pop = Scope::Pop("pop-1".parse().unwrap());
        for scope in [Scope::All, pop, Scope::Protocol(Protocol::H3), Scope::Broadcast(17)] {
            assert_eq!(Scope::parse(&scope.text()), Some(scope));
        }
        assert_eq!((Scope::parse("pop:A"), Scope::parse("x")), (None, None));
        assert_eq!(broadcast_id(1_795_387_500_007), "20261122t224500-007");
    }
}
