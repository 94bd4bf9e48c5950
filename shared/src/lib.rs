//! The treaty between origin, edge and load tester: ids, URL grammar, delivery directives, reload decision, the
//! playlist with its one writer, and cache lifetimes.
//!
//! Invariants: pure (no clock, socket, task, lock or log), no tokio and no hyper. What only one side needs does not
//! belong here.
#![deny(clippy::disallowed_methods)]

pub mod cmcd;
pub mod cmsd;
pub mod daterange;
pub mod directives;
pub mod freshness;
pub mod id;
pub mod mode;
pub mod multivariant;
pub mod playlist;
pub mod reload;
pub mod resource;
