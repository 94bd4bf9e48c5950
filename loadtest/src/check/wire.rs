//! Requests over real connections, recorded.
//!
//! Invariants: idle HTTP/1.1 connections are kept and reused, one request at a time on each; HTTP/2 requests share one
//! connection per server. Bodies are bounded in bytes, requests in time.

use crate::address::{Address, Authority};
use crate::check::exchange::{Answer, Ask, Exchange, Handshake, Net};
use crate::dial::Dialer;
use crate::fetch::{FetchError, Link};
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body_util::BodyExt;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Largest body read, in bytes.
const BODY_MAX: usize = 64 << 20;
/// Idle connections kept per server.
const IDLE_MAX: usize = 32;
/// What a browser says of the page that plays; servers may answer CORS to those only.
const ORIGIN: &str = "https://player.invalid";

/// The real network.
pub(crate) struct Wire {
    dialer: Dialer,
    timeout: Duration,
    epoch: Instant,
    idle: Mutex<HashMap<Authority, Vec<Link>>>,
}

struct Read {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
    head: Duration,
    first_byte: Duration,
}

impl Wire {
    /// `timeout` is for one request, held or not.
    pub(crate) fn new(dialer: Dialer, timeout: Duration) -> Self {
        Self { dialer, timeout, epoch: Instant::now(), idle: Mutex::default() }
    }

    fn take(&self, authority: &Authority) -> Link {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let links = idle.entry(authority.clone()).or_default();
        if let Some(first) = links.first().filter(|link| link.is_multiplexed()) {
            return first.beside();
        }
        if let Some(link) = links.pop() {
            return link;
        }
        let link = Link::new(authority, self.dialer.protocol(), self.timeout);
        if link.is_multiplexed() {
            links.push(link.beside());
        }
        link
    }

    fn give_back(&self, link: Link) {
        if link.is_multiplexed() {
            return;
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let links = idle.entry(link.authority().clone()).or_default();
        if links.len() < IDLE_MAX {
            links.push(link);
        }
    }

    async fn exchange(&self, link: &mut Link, ask: &Ask) -> Result<Read, FetchError> {
        let mut request = http::Request::builder().method(&ask.method).uri(&ask.address.path);
        request = request.header(http::header::ORIGIN, ORIGIN);
        for (name, value) in &ask.headers {
            request = request.header(name, value);
        }
        let response = link.request(&self.dialer, request).await?;
        let head = self.now();
        let (parts, mut incoming) = response.into_parts();
        let mut body = BytesMut::new();
        let mut first_byte = None;
        while let Some(frame) = incoming.frame().await {
            let frame = frame.map_err(FetchError::Truncated)?;
            let Some(chunk) = frame.data_ref() else { continue };
            if !chunk.is_empty() {
                first_byte.get_or_insert_with(|| self.now());
            }
            if body.len() + chunk.len() > BODY_MAX {
                return Err(FetchError::Oversize);
            }
            body.extend_from_slice(chunk);
        }
        Ok(Read {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: body.freeze(),
            head,
            first_byte: first_byte.unwrap_or_else(|| self.now()),
        })
    }
}

impl Net for Wire {
    async fn ask(self: &Arc<Self>, ask: Ask) -> Exchange {
        let mut link = self.take(&ask.address.authority);
        let sent = self.now();
        let outcome = match tokio::time::timeout(self.timeout, self.exchange(&mut link, &ask)).await {
            Ok(Ok(read)) => {
                self.give_back(link);
                Ok(Answer {
                    status: read.status,
                    headers: read.headers,
                    body: read.body,
                    head: read.head,
                    first_byte: read.first_byte,
                    end: self.now(),
                })
            }
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(FetchError::Timeout(self.timeout).to_string()),
        };
        Exchange { ask, sent, outcome }
    }

    async fn handshake(self: &Arc<Self>, address: &Address) -> Option<Result<Handshake, String>> {
        if !address.authority.tls {
            return None;
        }
        let agreed = self.dialer.agreement(&address.authority).await;
        Some(
            agreed
                .map(|(alpn, version, suite)| Handshake { alpn, version, suite })
                .map_err(|e| e.to_string()),
        )
    }

    fn now(&self) -> Duration {
        self.epoch.elapsed()
    }
}
