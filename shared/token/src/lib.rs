//! Who may watch: playback tokens (JWT), signed session paths, and what an origin tells its edges about both.
//!
//! Invariants: no clock, socket, task, lock or log (A3): time and randomness come in as arguments. Deliberately absent:
//! remembering verdicts and counting the sessions of a subject, which are the edge's.
#![deny(clippy::disallowed_methods)]

pub mod claims;
pub mod ip;
pub mod issuer;
pub mod jwk;
pub mod jwt;
pub mod modes;
pub mod policy;
pub mod session;
mod strict;
