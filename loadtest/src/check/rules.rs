//! The rules by family: functions over recordings that enter into the ledger what they find.

pub(crate) mod blocking;
pub(crate) mod control;
pub(crate) mod dates;
pub(crate) mod delivery;
pub(crate) mod evolution;
pub(crate) mod media;
pub(crate) mod multivariant;
pub(crate) mod parts;
pub(crate) mod reports;
pub(crate) mod skip;
pub(crate) mod syntax;
pub(crate) mod timeline;
