//! One request and what came of it, as recorded: the only thing the rules know of the network.
//!
//! Invariant: times are since the beginning of the check, so a recording is the same whoever made it.
#![deny(clippy::disallowed_methods)]

use crate::address::Address;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A request.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) method: Method,
    pub(crate) address: Address,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
}

impl Ask {
    /// A GET.
    pub(crate) fn get(address: &Address) -> Self {
        Self { method: Method::GET, address: address.clone(), headers: Vec::new() }
    }

    /// A GET with delivery directives.
    pub(crate) fn directed(address: &Address, query: &str) -> Self {
        Self::get(&Address { path: address.with_query(query), ..address.clone() })
    }

    /// With a header.
    pub(crate) fn with(mut self, name: HeaderName, value: &'static str) -> Self {
        self.headers.push((name, HeaderValue::from_static(value)));
        self
    }
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.address)?;
        for (name, value) in &self.headers {
            write!(f, " [{name}: {}]", value.to_str().unwrap_or("?"))?;
        }
        Ok(())
    }
}

/// A complete response.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    /// As sent, with its content coding.
    pub(crate) body: Bytes,
    /// Its header was there.
    pub(crate) head: Duration,
    /// The first byte of the body was there; the end if it is empty.
    pub(crate) first_byte: Duration,
    /// The end of the body.
    pub(crate) end: Duration,
}

impl Answer {
    /// A header's value as text; `None` if it is not there (or no text).
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// A directive of Cache-Control as a number, e.g. `max-age`.
    pub(crate) fn cache_seconds(&self, directive: &str) -> Option<u64> {
        self.header("cache-control")?.split(',').find_map(|item| {
            let (name, value) = item.trim().split_once('=')?;
            name.eq_ignore_ascii_case(directive).then(|| value.trim_matches('"').parse().ok()).flatten()
        })
    }
}

/// A request with its answer, or why there is none.
#[derive(Debug, Clone)]
pub(crate) struct Exchange {
    pub(crate) ask: Ask,
    pub(crate) sent: Duration,
    pub(crate) outcome: Result<Answer, String>,
}

impl Exchange {
    /// The answer, if it is of this status.
    pub(crate) fn with_status(&self, status: u16) -> Option<&Answer> {
        self.outcome.as_ref().ok().filter(|answer| answer.status == status)
    }

    /// The answer, if it is 200; 206 where a range was asked for.
    pub(crate) fn ok(&self) -> Option<&Answer> {
        let ranged = self.ask.headers.iter().any(|(name, _)| name == http::header::RANGE);
        self.with_status(if ranged { 206 } else { 200 })
    }

    /// Request to response header; `None` without an answer.
    pub(crate) fn held(&self) -> Option<Duration> {
        self.outcome.as_ref().ok().map(|answer| answer.head.saturating_sub(self.sent))
    }

    /// What came of it, in a few words.
    pub(crate) fn said(&self) -> String {
        match &self.outcome {
            Ok(answer) => {
                let held = answer.head.saturating_sub(self.sent).as_millis();
                format!("{} after {held} ms", answer.status)
            }
            Err(error) => format!("no answer: {error}"),
        }
    }
}

/// What TLS agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Handshake {
    /// ALPN, empty if none was agreed.
    pub(crate) alpn: String,
    /// e.g. `TLSv1_3`
    pub(crate) version: String,
    /// e.g. `TLS13_AES_256_GCM_SHA384`
    pub(crate) suite: String,
}

/// The way to the servers. The checker makes all its requests through one.
pub(crate) trait Net: Send + Sync + 'static {
    /// Makes a request; never fails otherwise than in the recording.
    fn ask(self: &Arc<Self>, ask: Ask) -> impl Future<Output = Exchange> + Send;

    /// What TLS agrees on when everything is offered: `None` without TLS.
    fn handshake(
        self: &Arc<Self>,
        address: &Address,
    ) -> impl Future<Output = Option<Result<Handshake, String>>> + Send;

    /// Time since the beginning of the check.
    fn now(&self) -> Duration;
}
