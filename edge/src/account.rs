//! What is known of one answer from its request to the end of its body: what was sent, over which protocol, how it ended.
//!
//! Invariant: an answer is accounted for once, when its body is over, whatever the reason (A7): the socket took the last of it,
//! or it was dropped before. Sessions and query strings never reach a log line (A13); the address does.

use crate::admission::InUse;
use crate::head::{Object, Served};
use crate::metrics::{Metrics, ProtocolBytes};
use crate::session;
use crate::viewers::Visit;
use http::{Method, Request, StatusCode, Version};
use prometheus_client::metrics::counter::Counter;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Counts what went out, and how the body ended, when it is dropped.
pub(crate) struct Account {
    /// Handed to the connection, and not given back.
    bytes: AtomicU64,
    /// Everything that belongs to the body was handed to the connection…
    complete: AtomicBool,
    /// …which lost some of it.
    lost: AtomicBool,
    began: Instant,
    version: Version,
    metrics: Arc<Metrics>,
    line: Option<Box<Line>>,
    /// Where it counts for who watches.
    visit: Option<Visit>,
    /// The session keeps its place while it is answered.
    in_use: Option<InUse>,
}

/// A line of the access log to be.
struct Line {
    method: Method,
    path: Box<str>,
    peer: IpAddr,
    status: StatusCode,
    /// `own`: this edge's answer, nothing fetched.
    outcome: &'static str,
    first_byte: Duration,
}

/// Which requests are logged: one in this many, none at 0.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sampling(pub(crate) u32);

impl Sampling {
    /// Whether a request is logged. `random` is any random number.
    fn takes(self, random: u32) -> bool {
        self.0 != 0 && random.is_multiple_of(self.0)
    }
}

impl Account {
    /// Begins with a request that just arrived. In a box, as it goes from hand to hand while thousands wait.
    pub(crate) fn open(
        metrics: &Arc<Metrics>,
        request: &Request<()>,
        peer: IpAddr,
        sampling: Sampling,
    ) -> Box<Self> {
        let line = sampling.takes(fastrand::u32(..)).then(|| {
            Box::new(Line {
                method: request.method().clone(),
                path: session::loggable(request.uri().path()).into(),
                peer,
                status: StatusCode::OK,
                outcome: "own",
                first_byte: Duration::ZERO,
            })
        });
        let (metrics, version) = (Arc::clone(metrics), request.version());
        Box::new(Self {
            bytes: AtomicU64::new(0),
            complete: AtomicBool::new(false),
            lost: AtomicBool::new(false),
            began: Instant::now(),
            version,
            metrics,
            line,
            visit: None,
            in_use: None,
        })
    }

    /// Keeps a session in use until the end of the answer.
    pub(crate) fn hold(&mut self, in_use: Option<InUse>) {
        self.in_use = in_use;
    }

    /// Notes who asks.
    pub(crate) fn by(&mut self, visit: Visit) {
        self.visit = Some(visit);
    }

    /// Notes that it waits for something that is still to come.
    pub(crate) fn waits(&mut self) {
        if let Some(visit) = &mut self.visit {
            visit.wait();
        }
    }

    /// Notes an answer of this edge's own. Returns how long it took until now.
    pub(crate) fn answered(&mut self, status: StatusCode) -> Duration {
        self.answered_with(status, None, Object::OTHER)
    }

    /// Notes what is answered. Returns how long it took until now.
    pub(crate) fn answered_with(
        &mut self,
        status: StatusCode,
        served: Option<Served>,
        object: Object,
    ) -> Duration {
        if let Some(visit) = &mut self.visit {
            visit.answered(status, object);
        }
        let waited = self.began.elapsed();
        if let Some(line) = &mut self.line {
            line.status = status;
            line.first_byte = waited;
            line.outcome = served.map_or("own", Served::name);
        }
        waited
    }

    /// Notes bytes that were handed to the connection, and whether everything that belongs to the body now is.
    pub(crate) fn sent(&self, bytes: usize, complete: bool) {
        self.bytes.fetch_add(bytes as u64, Relaxed);
        self.complete.store(complete, Relaxed);
        if let Some(visit) = self.visit.as_ref().filter(|_| bytes > 0 && !complete) {
            visit.going();
        }
    }

    /// The socket did not take so many bytes of what the connection was handed.
    pub(crate) fn not_taken(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes as u64, Relaxed);
        self.lost.store(true, Relaxed);
    }

    /// Whether everything that belongs to the body was handed to the connection.
    pub(crate) fn complete(&self, complete: bool) {
        self.complete.store(complete, Relaxed);
    }
}

fn of(bytes: &ProtocolBytes, version: Version) -> &Counter {
    match version {
        Version::HTTP_2 => &bytes.h2,
        Version::HTTP_3 => &bytes.h3,
        _ => &bytes.h1,
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let bytes = self.bytes.load(Relaxed);
        let complete = self.complete.load(Relaxed) && !self.lost.load(Relaxed);
        of(&self.metrics.body_bytes, self.version).inc_by(bytes);
        let ends = &self.metrics.bodies;
        let end = if complete { &ends.complete } else { &ends.aborted };
        end.inc();
        if let Some(visit) = &mut self.visit {
            visit.end(bytes, complete);
        }
        let Some(line) = &self.line else { return };
        let ms = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        tracing::info!(
            target: "access", peer = %line.peer, method = %line.method, path = %line.path, protocol = ?self.version,
            status = line.status.as_u16(), outcome = line.outcome, bytes, complete,
            first_byte_ms = ms(line.first_byte), total_ms = ms(self.began.elapsed()), "request"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sampling() {
        assert!(!Sampling(0).takes(0));
        assert!(Sampling(1).takes(17));
        let taken = (0..1000).filter(|random| Sampling(10).takes(*random)).count();
        assert_eq!(taken, 100);
    }
}
