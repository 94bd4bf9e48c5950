//! Playlists, init sections, segments and parts: from the snapshots, and held until they exist where that is allowed.
//!
//! Invariants: a request never touches the stream's task; a held request is a future that waits on `watch` and is gone
//! when its client is; it is held for at most three target durations (BR-09) and never long enough for a player's own
//! timeout (BR-17); held requests are bounded.

use super::Body;
use crate::archive::{Archive, Kept};
use crate::channel::{AUDIO_ID, Channels, View};
use crate::metrics::Metrics;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, VARY};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::Full;
use sigma_http::headers;
use sigma_http::problem::Problem;
use sigma_media::chunk::Text;
use sigma_media::fmp4;
use sigma_media::snapshot::{PartLookup, RenditionSnapshot};
use sigma_media::span_us;
use sigma_shared::cmsd::{CMSD_STATIC, CmsdStatic, ObjectType};
use sigma_shared::directives::Directives;
use sigma_shared::freshness::{Served, max_age_s};
use sigma_shared::id::{ChannelId, RenditionId};
use sigma_shared::mode::Mode;
use sigma_shared::reload::{Decision, Tip};
use sigma_shared::resource::{Listed, LiveResource, MediaResource};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

const PLAYLIST_TYPE: HeaderValue = HeaderValue::from_static("application/vnd.apple.mpegurl");
/// RFC 9213: for caches like our edges. What is in the list for hours is worth keeping while there is room; its name means
/// these bytes for ever (A12).
const CDN_CACHE_CONTROL: HeaderName = HeaderName::from_static("cdn-cache-control");
const KEPT_BY_EDGES: HeaderValue = HeaderValue::from_static("max-age=86400");
const PRIORITY: HeaderName = HeaderName::from_static("priority");
/// BR-17: players give up on a playlist after ten seconds.
const HOLD_MAX: Duration = Duration::from_secs(9);
/// The target duration that lifetimes go by where there is no playlist to have one, seconds.
const TARGET_DURATION_S: u32 = 2;

/// Answers requests below `/live/`.
pub(super) struct Playback {
    channels: Arc<Channels>,
    metrics: Arc<Metrics>,
    held: AtomicUsize,
    held_max: usize,
}

/// One request being held; gone with its future.
struct Held<'a>(&'a Playback);

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Ordering::Relaxed);
        self.0.metrics.held_requests.dec();
    }
}

type Renditions = watch::Receiver<Arc<RenditionSnapshot>>;

impl Playback {
    pub(super) fn new(channels: Arc<Channels>, metrics: Arc<Metrics>, held_max: usize) -> Self {
        Self { channels, metrics, held: AtomicUsize::new(0), held_max }
    }

    pub(super) async fn respond(
        &self,
        resource: &LiveResource,
        query: &str,
        head: &HeaderMap,
    ) -> Response<Body> {
        match resource {
            LiveResource::Multivariant(channel) => self.multivariant(channel, query, head),
            LiveResource::Media(channel, rendition, object) => {
                let view = self.channels.get(channel).map(|channel| channel.view());
                let Some(snapshots) = view.as_ref().and_then(|view| view.renditions.get(rendition).cloned())
                else {
                    return absent(view.as_deref(), "nothing of that name is live");
                };
                let archive = || view.as_ref().and_then(|view| view.archives.get(rendition).cloned());
                match object {
                    MediaResource::Playlist(listed, mode) => {
                        self.playlist(snapshots, (*listed, *mode), query, head).await
                    }
                    MediaResource::Part { msn, part } => {
                        self.part(snapshots, archive(), rendition, (*msn, *part)).await
                    }
                    MediaResource::Segment { msn } | MediaResource::IFrame { msn } => {
                        let alone = matches!(object, MediaResource::IFrame { .. });
                        let snapshot = Arc::clone(&snapshots.borrow());
                        let in_memory = if alone { iframe } else { segment };
                        let kept = if alone { Kept::FirstPart } else { Kept::Segment };
                        match in_memory(&snapshot, rendition, *msn) {
                            Some(response) => response,
                            None => archived(archive(), &snapshot, rendition, (*msn, kept)).await,
                        }
                    }
                    MediaResource::Init(hash) => {
                        let snapshot = snapshots.borrow();
                        match snapshot.init(*hash) {
                            Some(bytes) => {
                                media(&snapshot, Body::Left(bytes.clone().into()), Delivered::init(rendition))
                            }
                            None => not_found("no such init section").map(Body::Left),
                        }
                    }
                }
            }
        }
    }

    fn multivariant(&self, channel: &ChannelId, query: &str, head: &HeaderMap) -> Response<Body> {
        let asked = match Mode::parse_query(query) {
            Ok(asked) => asked,
            Err(error) => return bad_request(&error.to_string(), TARGET_DURATION_S),
        };
        let view = self.channels.get(channel).map(|channel| channel.view());
        let Some(snapshot) = view.as_ref().and_then(|view| view.multivariant.clone()) else {
            return absent(view.as_deref(), "this channel is not live");
        };
        let max_age_s = max_age_s(Served::Playlist, true, snapshot.target_duration_s);
        let mode = asked.or(view.as_ref().map(|view| view.mode)).unwrap_or(Mode::Ultra);
        // Edges know by this which renditions are there, and which ones somebody makes up.
        let mut renditions: Vec<_> = view.iter().flat_map(|view| view.renditions.keys().cloned()).collect();
        renditions.sort_unstable();
        let cmsd = CmsdStatic { renditions, ..of_playlist() };
        playlist_response(snapshot.text(mode), head, &Told { max_age_s, cmsd })
    }

    async fn playlist(
        &self,
        mut snapshots: Renditions,
        (listed, mode): (Listed, Mode),
        query: &str,
        head: &HeaderMap,
    ) -> Response<Body> {
        let target_duration_s = snapshots.borrow().control.target_duration_s;
        let mut want = match Directives::parse(query) {
            Ok(want) => want,
            Err(error) => return bad_request(&error.to_string(), target_duration_s),
        };
        if listed == Listed::IFrames || mode != Mode::Ultra {
            want.part = None; // docs/adr/0001: a playlist without parts is waited for by segment
        }
        let asked = Instant::now();
        let limit = hold_limit(target_duration_s);
        let mut held = None;
        loop {
            let (tip, decision) = {
                let snapshot = snapshots.borrow_and_update();
                let tip = snapshot.tip_of(listed, mode);
                (tip, tip.decide(&want, snapshot.control.part_target_ms))
            };
            match decision {
                Decision::Ready => break,
                Decision::TooFarAhead => return too_far_ahead(tip, target_duration_s),
                Decision::Wait => {}
            }
            if held.is_none() {
                held = self.hold();
                if held.is_none() {
                    return busy();
                }
            }
            match tokio::time::timeout_at(asked + limit, snapshots.changed()).await {
                Ok(Ok(())) => {}
                // BR-09; or the session ended without its playlist saying so, because the origin stops.
                Ok(Err(_)) | Err(_) => return unavailable("nothing new came in time"),
            }
        }
        let snapshot = Arc::clone(&snapshots.borrow());
        let served = if want.is_blocking() { Served::BlockingPlaylist } else { Served::Playlist };
        let max_age_s = max_age_s(served, true, target_duration_s);
        let held_ms = held.is_some().then(|| u32::try_from(asked.elapsed().as_millis()).unwrap_or(u32::MAX));
        // Whoever waited for this playlist asks for the part it hints at: edges may have it fetched (CMSD-Static `nor`).
        let hinting = listed == Listed::Media && mode == Mode::Ultra && want.is_blocking();
        let next_part = (hinting && !snapshot.tip.ended).then(|| snapshot.tip.next_part());
        let cmsd =
            CmsdStatic { held_ms, next_part, tip: Some(snapshot.tip_of(listed, mode)), ..of_playlist() };
        playlist_response(snapshot.playlist(listed, mode, want.skip), head, &Told { max_age_s, cmsd })
    }

    /// PH-05: the hinted part is waited for, and then sent whole.
    async fn part(
        &self,
        mut snapshots: Renditions,
        archive: Option<Arc<Archive>>,
        rendition: &RenditionId,
        at: (u64, u32),
    ) -> Response<Body> {
        let target_duration_s = snapshots.borrow().control.target_duration_s;
        let until = Instant::now() + hold_limit(target_duration_s);
        let mut held = None;
        loop {
            {
                let snapshot = snapshots.borrow_and_update();
                match snapshot.part(at.0, at.1) {
                    PartLookup::Found(part) => {
                        let start = snapshot.part_start(at.0, at.1);
                        let delivered = Delivered {
                            span_us: start.and_then(|start| span_us(start, part.line.duration)),
                            duration_ms: Some(part.line.duration / 90),
                            available_at_ms: Some(part.available_at_ms),
                            kept: false,
                            ..Delivered::init(rendition)
                        };
                        return media(&snapshot, Body::Left(part.bytes.clone().into()), delivered);
                    }
                    PartLookup::Absent => break, // PH-06
                    PartLookup::Hinted => {}
                }
            }
            if held.is_none() {
                held = self.hold();
                if held.is_none() {
                    return busy();
                }
            }
            match tokio::time::timeout_at(until, snapshots.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return unavailable("the part did not come in time"),
            }
        }
        let snapshot = Arc::clone(&snapshots.borrow());
        archived(archive, &snapshot, rendition, (at.0, Kept::Part(at.1))).await
    }

    fn hold(&self) -> Option<Held<'_>> {
        if self.held.fetch_add(1, Ordering::Relaxed) >= self.held_max {
            self.held.fetch_sub(1, Ordering::Relaxed);
            self.metrics.held_requests_shed.inc();
            return None;
        }
        self.metrics.held_requests.inc();
        Some(Held(self))
    }
}

fn hold_limit(target_duration_s: u32) -> Duration {
    Duration::from_secs(u64::from(3 * target_duration_s)).min(HOLD_MAX)
}

fn segment(snapshot: &RenditionSnapshot, rendition: &RenditionId, msn: u64) -> Option<Response<Body>> {
    let segment = snapshot.segment(msn)?;
    let pieces = segment.parts.iter().map(|part| part.bytes.clone()).collect(); // MP-06
    let delivered = Delivered {
        span_us: segment.duration.and_then(|ticks| span_us(segment.start, ticks)),
        duration_ms: segment.duration.map(|ticks| ticks / 90),
        available_at_ms: segment.parts.last().map(|part| part.available_at_ms),
        ..Delivered::init(rendition)
    };
    Some(media(snapshot, Body::Right(pieces), delivered))
}

/// The random access point that a segment starts with.
fn iframe(snapshot: &RenditionSnapshot, rendition: &RenditionId, msn: u64) -> Option<Response<Body>> {
    let segment = snapshot.segment(msn)?;
    let first = segment.parts.first()?;
    let delivered = Delivered {
        duration_ms: segment.duration.map(|ticks| ticks / 90),
        available_at_ms: Some(first.available_at_ms),
        ..Delivered::init(rendition)
    };
    let bytes = fmp4::random_access_point(&first.bytes)?;
    Some(media(snapshot, Body::Left(bytes.into()), delivered))
}

/// What is no longer in memory.
async fn archived(
    archive: Option<Arc<Archive>>,
    snapshot: &RenditionSnapshot,
    rendition: &RenditionId,
    (msn, kept): (u64, Kept),
) -> Response<Body> {
    let missing = || not_found("no such segment or part").map(Body::Left);
    let Some((archive, found)) =
        archive.and_then(|archive| Some((Arc::clone(&archive), archive.find(msn, kept)?)))
    else {
        return missing();
    };
    let bytes = match tokio::task::spawn_blocking(move || archive.read(&found)).await {
        // What is asked of a first part is the random access point it begins with.
        Ok(Ok(bytes)) if matches!(kept, Kept::FirstPart) => fmp4::random_access_point(&bytes),
        Ok(Ok(bytes)) => Some(bytes),
        Ok(Err(error)) => {
            // Not louder: every viewer there asks for it, and deleting may overtake reading.
            tracing::debug!(%rendition, msn, ?kept, %error, "the archive cannot be read");
            None
        }
        Err(_) => None,
    };
    let Some(bytes) = bytes else { return missing() };
    let (duration_ms, span_us) = (Some(found.duration_ms()), found.span_us());
    let delivered = Delivered { duration_ms, span_us, ..Delivered::init(rendition) };
    media(snapshot, Body::Left(bytes.into()), delivered)
}

/// What is said of a media object in its response headers.
#[derive(Clone, Copy)]
struct Delivered {
    is_audio: bool,
    /// What a viewer has watched who got it: parts and segments only.
    span_us: Option<(u64, u64)>,
    duration_ms: Option<u32>,
    available_at_ms: Option<u64>,
    /// Whether it is asked for as long as it is listed, not at the live edge alone.
    kept: bool,
}

impl Delivered {
    fn init(rendition: &RenditionId) -> Self {
        let is_audio = rendition.as_str() == AUDIO_ID;
        Self { is_audio, span_us: None, duration_ms: None, available_at_ms: None, kept: true }
    }
}

fn media(snapshot: &RenditionSnapshot, body: Body, delivered: Delivered) -> Response<Body> {
    let mut response = Response::new(body);
    let head = response.headers_mut();
    let (mime, object_type) =
        if delivered.is_audio { ("audio/mp4", ObjectType::Audio) } else { ("video/mp4", ObjectType::Video) };
    let object_type = if delivered.duration_ms.is_some() { object_type } else { ObjectType::Init };
    head.insert(CONTENT_TYPE, HeaderValue::from_static(mime)); // DL-13
    let max_age = max_age_s(Served::Media, true, snapshot.control.target_duration_s);
    // What has a name has these bytes for ever (A12).
    set(head, CACHE_CONTROL, format!("max-age={max_age}, immutable"));
    if delivered.kept {
        head.insert(CDN_CACHE_CONTROL, KEPT_BY_EDGES);
    }
    // DL-02: audio before video, both after playlists.
    head.insert(PRIORITY, HeaderValue::from_static(if delivered.is_audio { "u=2" } else { "u=3" }));
    let cmsd = CmsdStatic {
        available_at_ms: delivered.available_at_ms,
        renditions: Vec::new(),
        span_us: delivered.span_us,
        tip: None,
        duration_ms: delivered.duration_ms,
        held_ms: None,
        next_part: None,
        object_type,
    };
    set(head, HeaderName::from_static(CMSD_STATIC), cmsd.to_string());
    headers::apply_cors(head);
    response
}

/// What is said of a playlist in its response headers.
struct Told {
    max_age_s: u32,
    cmsd: CmsdStatic,
}

/// A playlist of which nothing else is said.
fn of_playlist() -> CmsdStatic {
    CmsdStatic {
        available_at_ms: None,
        renditions: Vec::new(),
        span_us: None,
        tip: None,
        duration_ms: None,
        held_ms: None,
        next_part: None,
        object_type: ObjectType::Manifest,
    }
}

fn playlist_response(text: &Text, request: &HeaderMap, told: &Told) -> Response<Body> {
    let compress = headers::accepts_gzip(request);
    let pieces = if compress { &text.gzip } else { &text.plain };
    let mut response = Response::new(Body::Right(pieces.iter().cloned().collect()));
    let head = response.headers_mut();
    head.insert(CONTENT_TYPE, PLAYLIST_TYPE); // SYN-01
    if compress {
        head.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip")); // DL-03
    }
    head.insert(VARY, HeaderValue::from_static("accept-encoding"));
    set(head, CACHE_CONTROL, format!("max-age={}", told.max_age_s)); // DL-06
    head.insert(PRIORITY, HeaderValue::from_static("u=1")); // DL-02
    set(head, HeaderName::from_static(CMSD_STATIC), told.cmsd.to_string());
    headers::apply_cors(head);
    response
}

fn set(head: &mut HeaderMap, name: HeaderName, value: String) {
    if let Ok(value) = HeaderValue::try_from(value) {
        head.insert(name, value);
    }
}

/// 404, which may be remembered for a target duration (DL-06).
pub(super) fn not_found(detail: &str) -> Response<Full<Bytes>> {
    let max_age = max_age_s(Served::Media, false, TARGET_DURATION_S);
    Problem::new(StatusCode::NOT_FOUND, detail).max_age_s(max_age).response()
}

/// What is not there: for good, or not yet.
fn absent(view: Option<&View>, detail: &str) -> Response<Body> {
    if view.is_some_and(|view| view.preparing) {
        return unavailable("the channel is about to be live");
    }
    not_found(detail).map(Body::Left)
}

/// With how far the playlist is, so that an edge does not have to ask for each number that somebody makes up.
fn too_far_ahead(tip: Tip, target_duration_s: u32) -> Response<Body> {
    let detail = "_HLS_msn or _HLS_part is too far ahead of the playlist";
    let mut response = bad_request(detail, target_duration_s);
    let cmsd = CmsdStatic { tip: Some(tip), ..of_playlist() };
    set(response.headers_mut(), HeaderName::from_static(CMSD_STATIC), cmsd.to_string());
    response
}

fn bad_request(detail: &str, target_duration_s: u32) -> Response<Body> {
    let max_age = max_age_s(Served::BlockingPlaylist, false, target_duration_s);
    Problem::new(StatusCode::BAD_REQUEST, detail).max_age_s(max_age).response().map(Body::Left)
}

/// 503 is never cached: what it says of now is wrong a moment later.
fn unavailable(detail: &str) -> Response<Body> {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after_s(1).response().map(Body::Left)
}

fn busy() -> Response<Body> {
    let mut response = unavailable("too many requests are waiting");
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("2"));
    response
}
