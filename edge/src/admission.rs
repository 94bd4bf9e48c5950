//! The door: who asks is let in, sent on with a session, or refused. Remembers what was verified.
//!
//! Invariants: a signature is checked once per session here, while revocation, expiry, address and mode count at every
//! request; what is refused is not remembered; no lock is held over an await. The decision itself: `session`.

use crate::config::SessionsConfig;
use crate::metrics::Metrics;
use crate::policy::PolicyFeed;
use crate::presence::{Known, Presence};
use crate::session::{Asked, Binding, Gate, Minted, Minting, Refusal, check, mint, split};
use crate::viewers::{Counted, Viewers, Visitor};
use aws_lc_rs::rand;
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use moka::sync::Cache;
use sigma_http::headers::apply_cors;
use sigma_http::problem::Problem;
use sigma_shared::resource::LiveResource;
use sigma_token::policy::Playback;
use sigma_token::session::{Session, SessionId, SubjectHash, Unverified};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A session that nobody used for this long is verified again: no memory for those who left.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(120);
/// When to ask again while no policy has arrived, seconds.
const NO_POLICY_RETRY_S: u32 = 2;
/// How long refusals that are about the path alone may be kept, seconds (DL-06).
const NO_CHANNEL_AGE_S: u32 = 1;

/// What becomes of a request.
#[derive(Debug)]
pub(crate) enum Admitted {
    /// It may have this, if it exists; `Some` counts.
    Resource(LiveResource, Option<Visitor>),
    /// Nothing under `/live/`.
    Elsewhere,
    /// It is answered already.
    Answer(Box<Response<Full<Bytes>>>),
}

/// What becomes of a request that is let in.
enum Decided {
    /// It is answered.
    Visitor(Option<Visitor>),
    /// It is sent there.
    Location(String),
}

/// The door.
pub(crate) struct Admission {
    enabled: bool,
    binding: Binding,
    audience: String,
    feed: PolicyFeed,
    verdicts: Cache<Unverified, Arc<Known>>,
    presence: Mutex<Presence>,
    viewers: Arc<Viewers>,
    metrics: Arc<Metrics>,
}

impl Admission {
    pub(crate) fn new(
        config: &SessionsConfig,
        feed: PolicyFeed,
        viewers: Arc<Viewers>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let capacity = u64::try_from(config.verdicts_max).unwrap_or(u64::MAX);
        let verdicts = Cache::builder().max_capacity(capacity).time_to_idle(FORGOTTEN_AFTER).build();
        Self {
            enabled: config.enabled,
            binding: Binding { v4_bits: config.bind_ipv4_bits, v6_bits: config.bind_ipv6_bits },
            audience: config.audience.clone(),
            feed,
            verdicts,
            presence: Mutex::new(Presence::new(config.verdicts_max, config.gone_after_ms)),
            viewers,
            metrics,
        }
    }

    /// Decides on a GET or HEAD. `trusted` is a POP of this cluster: what it asks for, it asks for its viewers, whom it
    /// has checked.
    pub(crate) fn admit(&self, request: &Request<()>, address: IpAddr, trusted: bool) -> Admitted {
        let (path, query) = (request.uri().path(), request.uri().query());
        let (session, path) = if self.enabled { split(path) } else { (None, path) };
        let Some(resource) = LiveResource::parse(path) else {
            return Admitted::Elsewhere;
        };
        if !self.enabled || trusted {
            return Admitted::Resource(resource, None);
        }
        let user_agent = request.headers().get(header::USER_AGENT).map_or(&[][..], HeaderValue::as_bytes);
        let asked = Asked { resource: &resource, query, address, user_agent, now_ms: now_ms() };
        match self.decide(session, &asked) {
            Ok(Decided::Visitor(visitor)) => Admitted::Resource(resource, visitor),
            Ok(Decided::Location(location)) => Admitted::Answer(Box::new(self.redirect(&location))),
            Err(refusal) => Admitted::Answer(Box::new(self.refuse(refusal))),
        }
    }

    fn decide(&self, session: Option<&str>, asked: &Asked<'_>) -> Result<Decided, Refusal> {
        let gate = self.feed.gate().ok_or(Refusal::NoPolicy)?;
        if let Some(text) = session {
            let known = self.checked(text, &gate, asked)?;
            return Ok(Decided::Visitor(self.visitor(known, &gate, asked)));
        }
        if matches!(asked.resource, LiveResource::Multivariant(_)) {
            return self.minted(&gate, asked).map(Decided::Location);
        }
        match gate.playback(asked.resource.channel())? {
            Playback::Public => Ok(Decided::Visitor(self.visitor(None, &gate, asked))),
            Playback::Token => Err(Refusal::NoToken),
        }
    }

    /// Without an origin's policy anything may be called a channel, and nobody is told who watches: nothing counts.
    fn visitor(&self, known: Option<Arc<Known>>, gate: &Gate, asked: &Asked<'_>) -> Option<Visitor> {
        if gate.open {
            return None;
        }
        let channel = match &known {
            Some(known) => known.counted.channel,
            None => self.viewers.channel(asked.resource.channel()),
        };
        Some(Visitor { known, channel: channel? })
    }

    fn counted(&self, session: &Session, gate: &Gate, asked: &Asked<'_>) -> Counted {
        if gate.open {
            return Counted::new(0, None);
        }
        let viewer = if session.subject == SubjectHash::NONE {
            gate.policy.signing_key().viewer(asked.address, asked.user_agent)
        } else {
            u64::from_be_bytes(session.subject.0)
        };
        Counted::new(viewer, self.viewers.channel(asked.resource.channel()))
    }

    fn checked(&self, text: &str, gate: &Gate, asked: &Asked<'_>) -> Result<Option<Arc<Known>>, Refusal> {
        let unverified = Unverified::parse(text).ok_or(Refusal::Forged)?;
        let Some(known) = self.known(unverified, gate, asked) else {
            // Under a key that is not known here (this edge's before a restart, another's, one forgotten since): what is
            // public needs none. The viewer is served uncounted.
            if !gate.open && gate.policy.knows_key_of(&unverified) {
                return Err(Refusal::Forged);
            }
            return match gate.playback(asked.resource.channel())? {
                Playback::Public => Ok(None),
                Playback::Token => Err(Refusal::Forged),
            };
        };
        check(&known.session, gate, asked)?;
        known.seen(asked.now_ms);
        Ok(Some(known))
    }

    /// The session, from memory or by its signature.
    fn known(&self, unverified: Unverified, gate: &Gate, asked: &Asked<'_>) -> Option<Arc<Known>> {
        let (channel, print) = (asked.resource.channel(), gate.policy.session_keys_print());
        let remembered = self.verdicts.get(&unverified);
        if let Some(known) =
            remembered.filter(|known| known.channel == *channel && known.keys_print == *print)
        {
            self.metrics.verdicts.hit.inc();
            return Some(known);
        }
        self.metrics.verdicts.miss.inc();
        let session = gate.policy.verify(&unverified, channel)?;
        let counted = self.counted(&session, gate, asked);
        let known = Known::new(session, channel.clone(), (*print, asked.now_ms), counted);
        if session.limited {
            self.presence().arrive(&known, asked.now_ms);
        }
        self.verdicts.insert(unverified, Arc::clone(&known));
        Some(known)
    }

    fn minted(&self, gate: &Gate, asked: &Asked<'_>) -> Result<String, Refusal> {
        let mut id = [0; 16];
        // A machine without randomness lets nobody in.
        rand::fill(&mut id).map_err(|_| Refusal::NoPolicy)?;
        let how = Minting { binding: self.binding, audience: &self.audience, id: SessionId(id) };
        let Minted { session, text, location, sessions_max } = mint(gate, asked, &how)?;
        if let (Some(max), Some(unverified)) = (sessions_max, Unverified::parse(&text)) {
            let print = *gate.policy.session_keys_print();
            let counted = self.counted(&session, gate, asked);
            let channel = asked.resource.channel().clone();
            let known = Known::new(session, channel, (print, asked.now_ms), counted);
            let max = usize::try_from(max).unwrap_or(usize::MAX);
            if !self.presence().admit(&known, max, asked.now_ms) {
                return Err(Refusal::Sessions);
            }
            self.verdicts.insert(unverified, known);
        }
        let minted = &self.metrics.sessions_minted;
        if session.by_token {
            minted.token.inc()
        } else {
            minted.public.inc()
        };
        Ok(location)
    }

    fn presence(&self) -> std::sync::MutexGuard<'_, Presence> {
        self.presence.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn redirect(&self, location: &str) -> Response<Full<Bytes>> {
        self.metrics.requests.redirect.inc();
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::FOUND;
        let headers = response.headers_mut();
        apply_cors(headers);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        // A location is made of ids and base64url: always a header value.
        if let Ok(location) = HeaderValue::from_str(location) {
            headers.insert(header::LOCATION, location);
        }
        response
    }

    fn refuse(&self, refusal: Refusal) -> Response<Full<Bytes>> {
        self.metrics.requests.refused.inc();
        self.metrics.session_refusals.count(refusal);
        let problem = match refusal {
            Refusal::NoPolicy => {
                Problem::new(refusal.status(), "not ready yet").retry_after_s(NO_POLICY_RETRY_S)
            }
            Refusal::NoChannel => {
                Problem::new(refusal.status(), "no such channel").max_age_s(NO_CHANNEL_AGE_S)
            }
            Refusal::Query => {
                Problem::new(refusal.status(), "mode: one of ultra, low and normal is expected, once")
            }
            _ => Problem::new(refusal.status(), "not allowed here"),
        };
        problem.response()
    }
}

/// The wall clock, Unix milliseconds.
pub(crate) fn now_ms() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}
