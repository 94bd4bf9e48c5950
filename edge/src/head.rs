//! What of the upstream's response head goes on to viewers, prepared once per object and cloned per viewer.
//!
//! Invariants: nothing that belongs to one connection or one person passes (hop-by-hop fields, cookies, Alt-Svc);
//! `Cache-Control`, `CMSD-Static`, `ETag`, `Vary`, `Date` and the content fields pass unchanged.
#![deny(clippy::disallowed_methods)]

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use sigma_report::spans::Span;
use sigma_shared::cmsd::{self, ObjectType};
use sigma_shared::id::RenditionId;
use sigma_shared::reload::Tip;
use std::time::{Duration, Instant};

const DROPPED: [HeaderName; 14] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::SET_COOKIE,
    header::ALT_SVC,
    header::AGE,
    header::SERVER,
    CACHE_STATUS,
    SERVER_TIMING,
];

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const CMSD_DYNAMIC: HeaderName = HeaderName::from_static("cmsd-dynamic");
/// RFC 9213: what is meant for caches like this one. Viewers' caches go by `Cache-Control`.
const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");
/// RFC 9211
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// The longest object that counts, microseconds: segments are seconds long.
const SPAN_US_MAX: u64 = 120_000_000;

/// How an object came to a viewer, for `Cache-Status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Served {
    /// It was in the cache, in memory.
    Hit,
    /// It was in the cache, on disk.
    Disk,
    /// This request made the edge fetch it.
    Miss,
    /// It was being fetched for somebody else.
    Joined,
}

impl Served {
    /// As logs say it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Disk => "disk",
            Self::Miss => "miss",
            Self::Joined => "join",
        }
    }
}

/// What an object is, as far as it counts for who watches (A5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Playlist,
    /// A part, a segment, or a picture of one.
    Media,
    /// What media needs to be read.
    Init,
    Other,
}

/// What the origin says that an object is (CMSD-Static), read once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Object {
    pub(crate) kind: Kind,
    /// Where a part or segment is on its channel's timeline, microseconds.
    pub(crate) span: Option<Span>,
}

impl Object {
    /// What nothing is said of.
    pub(crate) const OTHER: Self = Self { kind: Kind::Other, span: None };

    fn read(headers: &HeaderMap) -> Self {
        let said = headers.get(cmsd::CMSD_STATIC).and_then(|value| value.to_str().ok());
        let Some(said) = said else { return Self::OTHER };
        let kind = match cmsd::object_type(said) {
            Some(ObjectType::Manifest) => Kind::Playlist,
            Some(ObjectType::Audio | ObjectType::Video) => Kind::Media,
            Some(ObjectType::Init) => Kind::Init,
            None => Kind::Other,
        };
        let span = cmsd::span_us(said).and_then(|(start, end)| Span::new(start, end));
        Self { kind, span: span.filter(|span| kind == Kind::Media && span.length() <= SPAN_US_MAX) }
    }
}

/// How and when an answer came to be, for `Cache-Status`, `Server-Timing` and `CMSD-Dynamic`.
pub(crate) struct Timing<'a> {
    /// This edge's name.
    pub(crate) pop: &'a str,
    pub(crate) served: Served,
    /// From the request to its answer.
    pub(crate) delay: Duration,
}

impl Timing<'_> {
    fn write(&self, headers: &mut HeaderMap) {
        let (status, outcome) = match self.served {
            Served::Hit => ("sigma-edge; hit", "hit"),
            Served::Disk => ("sigma-edge; hit", "disk"),
            Served::Miss => ("sigma-edge; fwd=miss", "miss"),
            Served::Joined => ("sigma-edge; fwd=miss; collapsed", "join"),
        };
        headers.insert(CACHE_STATUS, HeaderValue::from_static(status));
        let (ms, pop) = (self.delay.as_millis(), self.pop);
        let timing = match self.served {
            Served::Hit => Ok(HeaderValue::from_static("cache;desc=hit")),
            _ => HeaderValue::try_from(format!("cache;desc={outcome};dur={ms}")),
        };
        if let Ok(timing) = timing {
            headers.insert(SERVER_TIMING, timing);
        }
        // Each server on the way adds itself; `rd` is its response delay (CTA-5006).
        if let Ok(dynamic) = HeaderValue::try_from(format!("\"{pop}\";rd={ms}")) {
            headers.append(CMSD_DYNAMIC, dynamic);
        }
    }
}

/// A response head, ready for any number of viewers.
#[derive(Debug)]
pub(crate) struct Head {
    /// The upstream's status.
    pub(crate) status: StatusCode,
    /// Everything but `Age` and `Cache-Status`.
    headers: HeaderMap,
    /// When it arrived here…
    pub(crate) arrived: Instant,
    /// …and how old it was by then, in seconds: 0 from an origin.
    pub(crate) age_s: u32,
    /// The body's length, when the upstream said it.
    pub(crate) content_length: Option<u64>,
    /// What it is.
    pub(crate) object: Object,
    /// Whether it was read from this edge's disk, and not had from the upstream.
    pub(crate) from_disk: bool,
}

impl Head {
    /// Prepares the head of an upstream response that arrived at `arrived`.
    pub(crate) fn new<B>(response: &Response<B>, arrived: Instant) -> Self {
        let mut headers = response.headers().clone();
        let number = |name: HeaderName| headers.get(name)?.to_str().ok()?.trim().parse::<u64>().ok();
        let age_s = number(header::AGE).map_or(0, |age| u32::try_from(age).unwrap_or(u32::MAX));
        let content_length = number(header::CONTENT_LENGTH);
        let named: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .collect();
        for name in DROPPED.iter().chain(&named) {
            headers.remove(name);
        }
        sigma_http::headers::apply_cors(&mut headers);
        // Places for what each answer says for itself, so that the copies made for viewers do not have to grow.
        for name in [header::AGE, CACHE_STATUS, SERVER_TIMING] {
            headers.insert(name, HeaderValue::from_static(""));
        }
        let object = Object::read(&headers);
        Self { status: response.status(), headers, arrived, age_s, content_length, object, from_disk: false }
    }

    /// The head of a 200 that was kept on disk as its [`Head::fields`], as if it had stayed in memory: it was `age_s`
    /// old when it was at `arrived`.
    pub(crate) fn kept(fields: HeaderMap, arrived: Instant, (age_s, body_bytes): (u32, u64)) -> Self {
        let mut response = Response::new(());
        *response.headers_mut() = fields;
        let head = Self::new(&response, arrived);
        Self { age_s, content_length: Some(body_bytes), from_disk: true, ..head }
    }

    /// What every answer has in common.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        let own = [header::AGE, CACHE_STATUS, SERVER_TIMING];
        self.headers.iter().filter(move |(name, _)| !own.contains(name))
    }

    /// Whether a body under this head may stand under `other`, which viewers have already.
    pub(crate) fn begins_like(&self, other: &Self) -> bool {
        let field = |head: &Self, name: &HeaderName| head.headers.get(name).cloned();
        let length = self.content_length == other.content_length
            // What is on disk has a length, whether the upstream says it or not.
            || (other.from_disk && self.content_length.is_none());
        self.status == other.status
            && length
            && [header::CONTENT_TYPE, header::CONTENT_ENCODING, header::ETAG]
                .iter()
                .all(|name| field(self, name) == field(other, name))
    }

    /// The fields that say how long a cache like this one may keep it, in one string: `CDN-Cache-Control`, or without
    /// it `Cache-Control`.
    pub(crate) fn cache_control(&self) -> String {
        let targeted = self.headers.contains_key(CDN_CACHE_CONTROL);
        let name = if targeted { CDN_CACHE_CONTROL } else { header::CACHE_CONTROL };
        let fields = self.headers.get_all(name).iter();
        let fields: Vec<&str> = fields.filter_map(|value| value.to_str().ok()).collect();
        fields.join(",")
    }

    /// What the origin says is asked for next, relative to this object (CMSD-Static `nor`).
    pub(crate) fn next_object(&self) -> Option<&str> {
        cmsd::string(self.cmsd_static()?, "nor")
    }

    /// How far the playlist has got, as the upstream says with it.
    pub(crate) fn tip(&self) -> Option<Tip> {
        cmsd::tip(self.cmsd_static()?)
    }

    /// When what it says was so, or a little before.
    pub(crate) fn said_at(&self) -> Instant {
        // `Age` is whole seconds, rounded down.
        let age_s = if self.age_s == 0 { 0 } else { u64::from(self.age_s) + 1 };
        self.arrived.checked_sub(Duration::from_secs(age_s)).unwrap_or(self.arrived)
    }

    /// The renditions of a Multivariant Playlist.
    pub(crate) fn renditions(&self) -> impl Iterator<Item = RenditionId> {
        cmsd::renditions(self.cmsd_static().unwrap_or_default())
    }

    fn cmsd_static(&self) -> Option<&str> {
        self.headers.get(cmsd::CMSD_STATIC)?.to_str().ok()
    }

    /// A viewer's response at `now`. `Age` counts whole seconds since the origin made it (DL-04).
    pub(crate) fn response<B>(&self, timing: &Timing<'_>, now: Instant, body: B) -> Response<B> {
        let elapsed = now.saturating_duration_since(self.arrived).as_secs();
        let age = u64::from(self.age_s).saturating_add(elapsed);
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        *headers = self.headers.clone();
        headers.insert(header::AGE, HeaderValue::from(age));
        timing.write(headers);
        response
    }

    /// Bytes of the head in memory, roughly, for the cache's weights.
    pub(crate) fn weight(&self) -> usize {
        let text: usize = self.headers.iter().map(|(n, v)| n.as_str().len() + v.len()).sum();
        // A header map keeps an index and an entry of about this size per field.
        size_of::<Self>() + text + self.headers.len() * 104
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn what_passes_and_what_does_not() {
        let upstream = Response::builder()
            .header("cache-control", "max-age=12")
            .header("cmsd-static", "com.sigma-live-span=\"1000-5000\",ot=v")
            .header("content-type", "video/mp4")
            .header("content-length", "7")
            .header("vary", "accept-encoding")
            .header("etag", "\"a\"")
            .header("age", "3")
            .header("connection", "x-hop, close")
            .header("x-hop", "1")
            .header("set-cookie", "who=1")
            .header("alt-svc", "h3=\":7443\"")
            .header("server-timing", "cache;desc=hit")
            .header("cmsd-dynamic", "\"shield\";rd=7")
            .header("cdn-cache-control", "max-age=86400")
            .body(())
            .unwrap();
        let now = Instant::now();
        let head = Head::new(&upstream, now);
        assert_eq!(head.content_length, Some(7));
        assert_eq!(head.object, Object { kind: Kind::Media, span: Span::new(1000, 5000) });
        assert_eq!(head.cache_control(), "max-age=86400", "meant for us");
        let timing = Timing { pop: "pop-1", served: Served::Joined, delay: Duration::from_millis(333) };
        let response = head.response(&timing, now + Duration::from_millis(2999), ());
        let dynamic: Vec<_> = response.headers().get_all("cmsd-dynamic").iter().collect();
        assert_eq!(dynamic, ["\"shield\";rd=7", "\"pop-1\";rd=333"]);
        for (name, expected) in [
            ("cache-control", Some("max-age=12")),
            ("cmsd-static", Some("com.sigma-live-span=\"1000-5000\",ot=v")),
            ("content-type", Some("video/mp4")),
            ("content-length", Some("7")),
            ("vary", Some("accept-encoding")),
            ("etag", Some("\"a\"")),
            ("age", Some("5")),
            ("cache-status", Some("sigma-edge; fwd=miss; collapsed")),
            ("server-timing", Some("cache;desc=join;dur=333")),
            ("access-control-allow-origin", Some("*")),
            ("connection", None),
            ("x-hop", None),
            ("set-cookie", None),
            ("alt-svc", None),
        ] {
            let value = response.headers().get(name).map(|v| v.to_str().unwrap());
            assert_eq!(value, expected, "{name}");
        }
    }

    #[test]
    fn what_counts_is_said_by_the_origin() {
        let object = |said: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(cmsd::CMSD_STATIC, HeaderValue::from_str(said).unwrap());
            Object::read(&headers)
        };
        let none = |kind| Object { kind, span: None };
        let span = Span::new(1, 9);
        for (said, expected) in [
            ("com.sigma-live-span=\"1-9\",d=200,ot=a,sf=h", Object { kind: Kind::Media, span }),
            ("com.sigma-live-span=\"9-1\",ot=v", none(Kind::Media)),
            ("com.sigma-live-span=\"1-200000001\",ot=v", none(Kind::Media)),
            ("com.sigma-live-span=\"1-9\",ot=m", none(Kind::Playlist)),
            ("ot=i", none(Kind::Init)),
            ("com.sigma-live-span=\"1-9\"", Object::OTHER),
        ] {
            assert_eq!(object(said), expected, "{said}");
        }
        assert_eq!(Object::read(&HeaderMap::new()), Object::OTHER);
    }
}
