//! What a POP tells its origin about its viewers (A8).
//!
//! A report says what happened as sets and as counters that only grow: which stretches of the media timeline a session
//! got, when it was present, how many bytes went out in a second. The origin unites sets and takes the greater of two
//! counters, so a report that is late, repeated, reordered or cut into others leads to the same state. What will not come any
//! more is no part of a report, since it changes until it is sent: a header ([`settled`]) says it. Apart from that, a POP says
//! which sessions have a place at the moment ([`places`]): nothing of that is kept, and the newest counts. Deliberately absent:
//! how reports travel and where they are kept.
#![deny(clippy::disallowed_methods)]

pub mod bounds;
pub mod histogram;
pub mod places;
pub mod report;
pub mod settled;
pub mod spans;
