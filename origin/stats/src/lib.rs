//! What POPs report, made into numbers: concurrent viewers, views, watch time, traffic and quality, by channel, POP,
//! protocol and broadcast session.
//!
//! Reports are sets and growing counters (sigma-report). What an addition newly covers of a session's sets is added to
//! counters, so totals are a function of everything that was ever reported: any order, repetition or partition gives the
//! same. A report is acknowledged when it is in a journal on disk; the state is written now and then, and what the journal
//! holds beyond it is applied again at the next start, which changes nothing that was applied before.
//!
//! The pure part: `aggregate` and below. The shell: `store` (SQLite or PostgreSQL) and `keeper` (the one writer).

pub mod aggregate;
mod deltas;
pub mod keeper;
pub mod key;
pub mod pops;
pub mod scope;
pub mod series;
pub mod session;
pub mod store;
mod stretch;
pub mod totals;
pub mod uniques;
