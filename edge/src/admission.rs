//! The door: who asks is let in, sent on with a session, or refused. Remembers what was verified.
//!
//! Invariants: a signature is checked once per session here, while revocation, expiry, address and mode count at every
//! request, and so does the place of a session whose subject may have only so many; what is refused is not remembered; no lock is held over an await. The decision itself: `session`.

use crate::config::SessionsConfig;
use crate::metrics::Metrics;
use crate::places::Seats;
use crate::policy::PolicyFeed;
use crate::presence::{Device, Entry, Known, Moment, Presence};
use crate::session::{Asked, Binding, Gate, Minted, Minting, Refusal, check, mint, split};
use crate::viewers::{Party, Tally, Viewers};
use aws_lc_rs::rand;
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use moka::sync::Cache;
use sigma_http::headers::apply_cors;
use sigma_http::problem::Problem;
use sigma_shared::resource::LiveResource;
use sigma_token::policy::Playback;
use sigma_token::session::{SessionId, SubjectHash, Unverified};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A session that nobody used for this long is verified again: no memory for those who left.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(120);
/// When to ask again while no policy has arrived, seconds.
const NO_POLICY_RETRY_S: u32 = 2;
/// How long refusals that are about the path alone may be kept, seconds (DL-06).
const NO_CHANNEL_AGE_S: u32 = 1;

/// What becomes of a request.
#[derive(Debug)]
pub(crate) enum Admitted {
    /// It may have this, if it exists; the session is in use until the answer ended.
    /// A party counts for who watches.
    Resource(LiveResource, Option<InUse>, Option<Party>),
    /// Nothing under `/live/`.
    Elsewhere,
    /// It is answered already.
    Answer(Box<Response<Full<Bytes>>>),
}

/// A request of a session that is counted; it keeps the session's place.
#[derive(Debug)]
pub(crate) struct InUse(Arc<Known>);

impl InUse {
    fn begin(known: &Arc<Known>, now: Moment) -> Self {
        known.begin(now);
        Self(Arc::clone(known))
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.end(moment());
    }
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Visitor<'a> {
    pub(crate) address: IpAddr,
    /// A POP of this cluster: what it asks for, it asks for its viewers, whom it has checked.
    pub(crate) trusted: bool,
    /// What it says it is.
    pub(crate) agent: &'a [u8],
    /// HEAD: nothing is taken by it.
    pub(crate) head_only: bool,
}

impl<'a> Visitor<'a> {
    pub(crate) fn of<B>(request: &'a Request<B>, address: IpAddr, trusted: bool) -> Self {
        let agent = request.headers().get(header::USER_AGENT).map_or(&[][..], HeaderValue::as_bytes);
        Self { address, trusted, agent, head_only: request.method() == Method::HEAD }
    }

    /// The same for as long as this process runs.
    fn device(&self) -> Device {
        let mut hasher = DefaultHasher::new();
        (self.address.to_canonical(), self.agent).hash(&mut hasher);
        Device(hasher.finish())
    }
}

/// The door.
pub(crate) struct Admission {
    enabled: bool,
    binding: Binding,
    audience: String,
    feed: PolicyFeed,
    verdicts: Cache<Unverified, Arc<Known>>,
    viewers: Arc<Viewers>,
    seats: Arc<Seats>,
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
            seats: Seats::new(Presence::new(config.verdicts_max, config.gone_after_ms)),
            viewers,
            metrics,
        }
    }

    /// Decides on a GET or HEAD.
    pub(crate) fn admit(&self, path: &str, query: Option<&str>, visitor: &Visitor<'_>) -> Admitted {
        let (session, path) = if self.enabled { split(path) } else { (None, path) };
        let Some(resource) = LiveResource::parse(path) else {
            return Admitted::Elsewhere;
        };
        if !self.enabled || visitor.trusted {
            return Admitted::Resource(resource, None, None);
        }
        let asked = Asked { resource: &resource, query, address: visitor.address, now_ms: now_ms() };
        match self.decide(session, &asked, visitor) {
            Ok(Decision::Go(in_use, party)) => Admitted::Resource(resource, in_use, party),
            Ok(Decision::Elsewhere(location)) => Admitted::Answer(Box::new(self.redirect(&location))),
            Err(refusal) => Admitted::Answer(Box::new(self.refuse(refusal))),
        }
    }

    fn decide(
        &self,
        session: Option<&str>,
        asked: &Asked<'_>,
        visitor: &Visitor<'_>,
    ) -> Result<Decision, Refusal> {
        let gate = self.feed.gate().ok_or(Refusal::NoPolicy)?;
        if let Some(text) = session {
            let unverified = Unverified::parse(text).ok_or(Refusal::Forged)?;
            return match self.known(unverified, &gate, asked, visitor) {
                Some(known) => self.used(&known, &gate, asked).map(|in_use| {
                    let party = self.party(Some(known), (&gate, asked), visitor);
                    Decision::Go(in_use, party)
                }),
                None => unknown(&unverified, &gate, asked)
                    .map(|()| Decision::Go(None, self.party(None, (&gate, asked), visitor))),
            };
        }
        if matches!(asked.resource, LiveResource::Multivariant(_)) {
            return self.minted(&gate, asked, visitor).map(Decision::Elsewhere);
        }
        match gate.playback(asked.resource.channel())? {
            Playback::Public => Ok(Decision::Go(None, self.party(None, (&gate, asked), visitor))),
            Playback::Token => Err(Refusal::NoToken),
        }
    }

    /// A request of an authentic session. One that lost its place, or was made elsewhere, needs one now.
    fn used(&self, known: &Arc<Known>, gate: &Gate, asked: &Asked<'_>) -> Result<Option<InUse>, Refusal> {
        check(&known.session, gate, asked)?;
        if known.session.sessions_max.is_none() {
            return Ok(None);
        }
        // Before the look: whoever is in flight loses no place.
        let now = moment();
        let in_use = InUse::begin(known, now);
        if !known.is_counted() && !self.seats.presence().admit(known, Entry::Used, now) {
            return Err(Refusal::Sessions);
        }
        Ok(Some(in_use))
    }

    /// Without an origin's policy anything may be called a channel, and nobody is told who watches: nothing counts.
    fn party(
        &self,
        known: Option<Arc<Known>>,
        (gate, asked): (&Gate, &Asked<'_>),
        visitor: &Visitor<'_>,
    ) -> Option<Party> {
        if gate.open {
            return None;
        }
        let Some(known) = known else {
            return Some(Party { known, channel: self.viewers.channel(asked.resource.channel())? });
        };
        let tally = known.tally.get_or_init(|| {
            let session = &known.session;
            let viewer = if session.subject == SubjectHash::NONE {
                gate.policy.viewer_key().viewer(visitor.address, visitor.agent)
            } else {
                u64::from_be_bytes(session.subject.0)
            };
            Tally::new(viewer, self.viewers.channel(asked.resource.channel()))
        });
        let channel = tally.channel?;
        Some(Party { known: Some(known), channel })
    }

    /// The session, from memory or by its signature.
    fn known(
        &self,
        unverified: Unverified,
        gate: &Gate,
        asked: &Asked<'_>,
        visitor: &Visitor<'_>,
    ) -> Option<Arc<Known>> {
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
        let known = Known::new(session, channel.clone(), *print, visitor.device());
        self.verdicts.insert(unverified, Arc::clone(&known));
        Some(known)
    }

    fn minted(&self, gate: &Gate, asked: &Asked<'_>, visitor: &Visitor<'_>) -> Result<String, Refusal> {
        let mut id = [0; 16];
        // A machine without randomness lets nobody in.
        rand::fill(&mut id).map_err(|_| Refusal::NoPolicy)?;
        let how = Minting { binding: self.binding, audience: &self.audience, id: SessionId(id) };
        let Minted { session, text, location } = mint(gate, asked, &how)?;
        if session.sessions_max.is_some() {
            let print = *gate.policy.session_keys_print();
            let known = Known::new(session, asked.resource.channel().clone(), print, visitor.device());
            let entry = if visitor.head_only { Entry::Look } else { Entry::New };
            if !self.seats.presence().admit(&known, entry, moment()) {
                return Err(Refusal::Sessions);
            }
            if let (Some(unverified), Entry::New) = (Unverified::parse(&text), entry) {
                self.verdicts.insert(unverified, known);
            }
        }
        if visitor.head_only {
            return Ok(location);
        }
        let minted = &self.metrics.sessions_minted;
        if session.by_token {
            minted.token.inc()
        } else {
            minted.public.inc()
        };
        Ok(location)
    }

    /// Who has a place here.
    pub(crate) fn seats(&self) -> &Arc<Seats> {
        &self.seats
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
            Refusal::Tokens => Problem::new(refusal.status(), "token: a token is expected, once"),
            _ => Problem::new(refusal.status(), "not allowed here"),
        };
        problem.response()
    }
}

/// What becomes of a request that is not refused.
enum Decision {
    Go(Option<InUse>, Option<Party>),
    Elsewhere(String),
}

/// Under a key that is not known here (this edge's before a restart, another's, one forgotten since): what is public needs
/// none, and the viewer is served uncounted.
fn unknown(unverified: &Unverified, gate: &Gate, asked: &Asked<'_>) -> Result<(), Refusal> {
    if !gate.open && gate.policy.knows_key_of(unverified) {
        return Err(Refusal::Forged);
    }
    match gate.playback(asked.resource.channel())? {
        Playback::Public => Ok(()),
        Playback::Token => Err(Refusal::Forged),
    }
}

/// For places: since about the first of them.
pub(crate) fn moment() -> Moment {
    static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
    Moment(u64::try_from(BEGAN.elapsed().as_millis()).unwrap_or(u64::MAX))
}

/// The wall clock, Unix milliseconds.
pub(crate) fn now_ms() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}
