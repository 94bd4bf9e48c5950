//! The HTTP shell of origin and edge: listeners with TLS and limits, drain, operator endpoints, logs, signals,
//! configuration files and the embedded watch page.
//!
//! Invariants: every resource a peer can take (connections, streams, header bytes, time) has a bound in
//! [`listener::Limits`], and what is refused is counted in [`connections::ConnectionMetrics`].
//! Deliberately absent: routing, caching, anything about live streams.

pub mod acme;
mod activity;
pub mod addresses;
pub mod admission;
mod answers;
pub mod assets;
pub mod certificate;
pub mod config;
pub mod connections;
mod cork;
mod detect;
pub mod drain;
pub mod files;
mod flood;
pub mod front;
mod gate;
mod h3_exchange;
mod h3_streams;
pub mod handover;
pub mod headers;
mod limits;
pub mod listener;
pub mod logging;
pub mod ops;
pub mod piece;
pub mod problem;
pub mod quic;
mod quic_port;
pub mod reload;
pub mod request_body;
pub mod signals;
mod sockets;
pub mod systemd;
pub mod tls;
mod turn;
