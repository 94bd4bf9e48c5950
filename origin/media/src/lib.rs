//! The origin's pure core: what is decided between a publisher's access units and a viewer's bytes.
//!
//! Data flows one way (A1): [`timeline`] maps a publisher's clock to the channel's; [`plan`] says where segments start;
//! [`packager`] cuts parts and writes CMAF ([`fmp4`]); [`window`] keeps what is live; [`snapshot`] is what readers get of
//! it; [`stream`] is the one writer that owns them all (A2).
//!
//! Invariants: no clock, socket, task, lock or log in this crate; time comes in as an argument. All positions on a
//! channel's timeline are ticks of 1/90000 s since the Unix epoch, as `i64`.
#![deny(clippy::disallowed_methods)]

pub mod chunk;
pub mod codec;
pub mod daterange;
pub mod fmp4;
mod listing;
pub mod pace;
pub mod packager;
pub mod plan;
pub mod rendition;
pub mod snapshot;
pub mod stream;
pub mod timed;
pub mod timeline;
pub mod window;

/// Ticks per second of the channel timeline.
pub const TICKS_PER_SECOND: i64 = 90_000;
/// Ticks per millisecond of the channel timeline.
pub const TICKS_PER_MS: i64 = 90;
