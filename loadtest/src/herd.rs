//! `sigma-load herd`: many identical blocking requests at once, for a part that does not exist yet; are all answered,
//! with the same bytes, and how often did the edge ask its upstream?
//!
//! Invariants: every connection is open before the first request goes out; the wanted part is inside the Advance Part
//! Limit, so a server may not refuse it.

use crate::address::Address;
use crate::dial::{DialError, Dialer, Protocol};
use crate::fetch::{FetchError, Link, Reply, Sink};
use crate::playlist::{self, MediaView, PlaylistError};
use crate::prometheus::Selector;
use crate::report::Cell;
use crate::tally::{ErrorKind, Spread, SpreadFigures};
use serde::Serialize;
use sigma_shared::directives::Directives;
use sigma_shared::reload::advance_part_limit;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Barrier, watch};
use tokio::task::JoinSet;

/// Requests that share one HTTP/2 connection: what servers allow at once on one at least (RFC 9113 section 6.5.2).
const STREAMS_PER_CONNECTION: u32 = 100;

/// The herd cannot be let loose.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HerdError {
    #[error("{0}")]
    Dial(#[from] DialError),
    #[error("{what}: {error}")]
    Fetch { what: Address, error: FetchError },
    #[error("{what}: answered {status}")]
    Status { what: Address, status: u16 },
    #[error("{what}: {error}; give the URL of a media playlist")]
    Playlist { what: Address, error: PlaylistError },
    #[error("{0}: the playlist does not offer blocking reload, or has ended")]
    NotBlocking(Address),
    #[error("{what}: no sample of {metric} in it")]
    NoMetric { what: Address, metric: String },
}

/// What to do.
#[derive(Debug)]
pub(crate) struct Herd {
    /// Of a media playlist.
    pub(crate) address: Address,
    pub(crate) requests: u32,
    /// How long the requests should be held at least, as far as the Advance Part Limit allows.
    pub(crate) lead: Duration,
    /// For one request.
    pub(crate) timeout: Duration,
    /// The edge's metrics page and what to read there.
    pub(crate) metrics: Option<(Address, Selector)>,
}

/// The report. Names are part of the outside.
#[derive(Debug, Serialize)]
pub(crate) struct HerdReport {
    pub(crate) url: String,
    pub(crate) protocol: Protocol,
    pub(crate) requests: u32,
    pub(crate) answered: u64,
    pub(crate) distinct_bodies: usize,
    pub(crate) body_bytes: u64,
    /// Time between the first and the last request leaving.
    pub(crate) send_spread_ms: f64,
    /// First request to first response header: how long the herd was held.
    pub(crate) held_ms: f64,
    /// Response headers, after the first one of all.
    pub(crate) first_byte_after_release_ms: Option<SpreadFigures>,
    /// Ends of bodies, after the first response header of all.
    pub(crate) last_byte_after_release_ms: Option<SpreadFigures>,
    pub(crate) errors: BTreeMap<String, u64>,
    pub(crate) errors_total: u64,
    /// How much the upstream metric rose.
    pub(crate) upstream_requests: Option<f64>,
}

/// The part to wait for: as far ahead as `lead` asks, as the Advance Part Limit and the rule of two segments allow.
pub(crate) fn target(view: &MediaView<'_>, lead: Duration) -> Option<Directives> {
    if !view.can_block || view.ended {
        return None;
    }
    let (msn, next) = view.next;
    let Some(part_us) = view.part_target_us.filter(|us| *us > 0) else {
        return Some(Directives { msn: Some(msn), part: None, skip: None });
    };
    // The limit counts from the newest part, which is one before the next; one less leaves room for a slower edge.
    let part_ms = u32::try_from(part_us.div_ceil(1000)).unwrap_or(u32::MAX);
    let farthest = u128::from(advance_part_limit(part_ms).saturating_sub(2));
    let ahead = (lead.as_micros() / u128::from(part_us)).min(farthest);
    let part = next.saturating_add(u32::try_from(ahead).unwrap_or_default());
    let (msn, part) = match view.segment_parts {
        // A part after the end of its segment: the same distance into the next one.
        parts if parts > 0 && part >= parts && next < parts => (msn + 1, (part - parts).min(parts - 1)),
        _ => (msn, part),
    };
    Some(Directives { msn: Some(msn), part: Some(part), skip: None })
}

/// One answer, with times since the herd's epoch.
struct Answer {
    sent: Duration,
    result: Result<Reply, FetchError>,
}

/// Lets the herd loose and waits for the last one.
pub(crate) async fn run(dialer: Arc<Dialer>, herd: &Herd) -> Result<HerdReport, HerdError> {
    dialer.resolve(&herd.address.authority).await?;
    let epoch = Instant::now();
    let (go, waiting) = watch::channel(None::<String>);
    let opened = Arc::new(Barrier::new(herd.requests as usize + 1));
    let mut tasks = JoinSet::new();
    let mut link = Link::new(&herd.address.authority, dialer.protocol(), herd.timeout);
    for index in 0..herd.requests {
        if index % STREAMS_PER_CONNECTION == 0 {
            link = Link::new(&herd.address.authority, dialer.protocol(), herd.timeout);
        }
        let (mut link, mut waiting) = (link.beside(), waiting.clone());
        let (dialer, opened) = (Arc::clone(&dialer), Arc::clone(&opened));
        tasks.spawn(async move {
            let open = link.open(&dialer).await;
            opened.wait().await;
            let path = match waiting.wait_for(Option::is_some).await {
                Ok(path) => path.clone().unwrap_or_default(),
                // Called off: nobody reads the answer.
                Err(_) => String::new(),
            };
            let sent = epoch.elapsed();
            let result = match open {
                Ok(()) => link.get(&dialer, &path, Sink::Hash).await,
                Err(error) => Err(error.into()),
            };
            Answer { sent, result }
        });
    }
    opened.wait().await;
    let text = page(&dialer, &herd.address, herd.timeout).await?;
    let view =
        playlist::media(&text).map_err(|error| HerdError::Playlist { what: herd.address.clone(), error })?;
    let want = target(&view, herd.lead).ok_or_else(|| HerdError::NotBlocking(herd.address.clone()))?;
    let mut before = None;
    if let Some((address, selector)) = &herd.metrics {
        before = selector.sum(&page(&dialer, address, herd.timeout).await?);
    }
    go.send_replace(Some(herd.address.with_query(&want.to_string())));
    let mut report = collect(tasks, herd, dialer.protocol()).await;
    if let Some((address, selector)) = &herd.metrics {
        let after = selector.sum(&page(&dialer, address, herd.timeout).await?);
        let missing = || HerdError::NoMetric { what: address.clone(), metric: selector.to_string() };
        report.upstream_requests = Some(after.ok_or_else(missing)? - before.unwrap_or_default());
    }
    Ok(report)
}

async fn page(dialer: &Dialer, what: &Address, timeout: Duration) -> Result<Vec<u8>, HerdError> {
    dialer.resolve(&what.authority).await?;
    // A metrics page on a plain port speaks HTTP/1.1 for sure, whatever the herd speaks.
    let protocol = if what.authority.tls { dialer.protocol() } else { Protocol::H1 };
    let mut link = Link::new(&what.authority, protocol, timeout);
    let mut text = Vec::new();
    match link.get(dialer, &what.path, Sink::Text(&mut text)).await {
        Ok(reply) if reply.status == 200 => Ok(text),
        Ok(reply) => Err(HerdError::Status { what: what.clone(), status: reply.status }),
        Err(error) => Err(HerdError::Fetch { what: what.clone(), error }),
    }
}

async fn collect(mut tasks: JoinSet<Answer>, herd: &Herd, protocol: Protocol) -> HerdReport {
    let mut answers = Vec::with_capacity(herd.requests as usize);
    let mut errors: BTreeMap<String, u64> = BTreeMap::new();
    let (mut first_sent, mut last_sent) = (Duration::MAX, Duration::ZERO);
    while let Some(joined) = tasks.join_next().await {
        let Ok(Answer { sent, result }) = joined else {
            continue;
        };
        first_sent = first_sent.min(sent);
        last_sent = last_sent.max(sent);
        match result {
            Ok(reply) if reply.status == 200 => answers.push((sent, reply)),
            Ok(reply) => {
                *errors.entry(ErrorKind::Status(reply.status).to_string()).or_default() += 1;
            }
            Err(error) => *errors.entry(error.kind().to_string()).or_default() += 1,
        }
    }
    let released = answers.iter().map(|(sent, reply)| *sent + reply.first_byte).min().unwrap_or_default();
    let (mut first_byte, mut last_byte) = (Spread::default(), Spread::default());
    let mut bodies = BTreeSet::new();
    for (sent, reply) in &answers {
        first_byte.record((*sent + reply.first_byte).saturating_sub(released));
        last_byte.record((*sent + reply.last_byte).saturating_sub(released));
        bodies.insert((reply.bytes, reply.crc));
    }
    let ms = |duration: Duration| duration.as_secs_f64() * 1000.0;
    HerdReport {
        url: herd.address.to_string(),
        protocol,
        requests: herd.requests,
        answered: answers.len() as u64,
        distinct_bodies: bodies.len(),
        body_bytes: bodies.first().map_or(0, |(bytes, _)| *bytes),
        send_spread_ms: ms(last_sent.saturating_sub(first_sent)),
        held_ms: ms(released.saturating_sub(first_sent)),
        first_byte_after_release_ms: first_byte.figures(),
        last_byte_after_release_ms: last_byte.figures(),
        errors_total: errors.values().sum(),
        errors,
        upstream_requests: None,
    }
}

impl fmt::Display for HerdReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} identical requests, {} answered, {} distinct bodies (of {} bytes)",
            self.requests, self.answered, self.distinct_bodies, self.body_bytes
        )?;
        writeln!(f, "sent within        {:.1} ms, held {:.1} ms", self.send_spread_ms, self.held_ms)?;
        writeln!(
            f,
            "first byte ms      {}  after the first release",
            Cell(&self.first_byte_after_release_ms)
        )?;
        writeln!(f, "last byte ms       {}", Cell(&self.last_byte_after_release_ms))?;
        if let Some(upstream) = self.upstream_requests {
            writeln!(f, "upstream requests  {upstream}")?;
        }
        write!(f, "errors             {}", self.errors_total)?;
        for (kind, count) in &self.errors {
            write!(f, "  {kind} {count}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
