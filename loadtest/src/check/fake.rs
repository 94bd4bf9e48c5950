//! A low-latency server that does everything right, in process and in simulated time, and the faults that can be put
//! into it. Two video renditions, audio and I-frames; a gap, a discontinuity with a new init section, date ranges and
//! delta updates come by within half a minute.

pub(crate) mod clip;

use crate::address::Address;
use crate::check::exchange::{Answer, Ask, Exchange, Handshake, Net};
use bytes::Bytes;
use clip::Tweak;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use sigma_shared::directives::{Directives, Skip};
use sigma_shared::playlist::DateTime;
use sigma_shared::reload::{Decision, Tip};
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Parts that exist when the check begins: 12 segments and the first part of the next.
const HEAD: u64 = 49;
const FIRST_MSN: u64 = 1000;
const WINDOW: u64 = 8;
const GAP_MSN: u64 = 1014;
/// Two discontinuities: one leaves the window early on, the other comes with a new init section.
const DISCONTINUITIES: [u64; 2] = [1006, 1016];
const PART: Duration = Duration::from_millis(500);
/// Of the first part ever, Unix milliseconds.
const EPOCH_MS: i64 = 1_795_333_200_000;
const RENDITIONS: [&str; 3] = ["v", "w", "a"];

/// A response about to be sent.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
    /// Before the header.
    pub(crate) delay: Duration,
    /// Between the first and the last byte.
    pub(crate) trickle: Duration,
}

impl Reply {
    pub(crate) fn set(&mut self, name: &'static str, value: &str) {
        self.headers.retain(|(known, _)| *known != name);
        if !value.is_empty() {
            self.headers.push((name, value.to_owned()));
        }
    }
}

/// What of the media is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Piece {
    pub(crate) video: bool,
    pub(crate) msn: u64,
    pub(crate) part: u64,
    /// As part of its segment.
    pub(crate) whole: bool,
}

/// What a playlist is of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scene<'a> {
    pub(crate) rendition: &'a str,
    pub(crate) i_frames: bool,
    /// Parts that exist.
    pub(crate) tip: u64,
    pub(crate) delta: bool,
    pub(crate) asked: bool,
}

/// What goes wrong, everywhere and always where it applies.
#[derive(Clone, Copy)]
pub(crate) enum Fault {
    None,
    /// The text of media playlists.
    Media(fn(&Scene<'_>, String) -> String),
    /// The text of the multivariant playlist.
    Master(fn(String) -> String),
    /// Any response, by its path with query.
    Reply(fn(&str, &mut Reply)),
    /// The decision on directives: `None` as it should be.
    Decide(fn(&Directives, Tip) -> Option<Decision>),
    /// The bytes of media.
    Clip(fn(Piece, &mut Tweak)),
    /// The init sections.
    Init(clip::Head),
    /// No `_HLS_` parameters are understood when they are not first in the query.
    OrderedQuery,
    /// Blocking requests are answered this long after their time.
    Late(Duration),
    /// Hinted parts are not held.
    HintUnknown,
    /// The media of one server differs from that of the other (`--compare`).
    Twin(fn(Piece, &mut Tweak)),
    /// The other server's multivariant playlist differs.
    TwinMaster(fn(String) -> String),
    /// ALPN, version and suite of TLS.
    Handshake(&'static str, &'static str, &'static str),
    /// Parts come at this pace instead of every half second.
    Pace(Duration),
    /// The publisher stops 4 s into the check; what is waited for is 503 after this time.
    Stop(Duration),
    /// `_HLS_skip` is not understood.
    NoSkip,
    /// So many complete segments are listed.
    Window(u64),
    /// The second init section is of another format, and there is no discontinuity.
    NewFormat,
}

pub(crate) struct Fake {
    start: Instant,
    fault: Fault,
}

impl Fake {
    pub(crate) fn new(fault: Fault) -> Arc<Self> {
        Arc::new(Self { start: Instant::now(), fault })
    }

    pub(crate) fn url() -> Address {
        "https://127.0.0.1:1/live/x/index.m3u8".parse().unwrap()
    }

    /// The same at another server.
    pub(crate) fn twin() -> Address {
        "https://127.0.0.2:1/live/x/index.m3u8".parse().unwrap()
    }

    fn tip(&self) -> u64 {
        let now = self.start.elapsed();
        let now = if matches!(self.fault, Fault::Stop(_)) { now.min(Duration::from_secs(4)) } else { now };
        HEAD + u64::try_from(now.as_millis() / self.pace().as_millis()).unwrap()
    }

    fn pace(&self) -> Duration {
        if let Fault::Pace(pace) = self.fault { pace } else { PART }
    }

    /// Waits until so many parts exist.
    async fn until(&self, parts: u64) {
        let left = u32::try_from(parts.saturating_sub(HEAD)).unwrap();
        moment(self.start + self.pace() * left).await;
    }

    async fn respond(&self, ask: &Ask) -> Reply {
        let path = ask.address.path.as_str();
        let (place, query) = path.split_once('?').unwrap_or((path, ""));
        let mut segments = place.rsplit('/');
        let (file, folder) = (segments.next().unwrap(), segments.next().unwrap());
        let twin = ask.address.authority.host == "127.0.0.2";
        let mut reply = if ask.method == Method::OPTIONS {
            preflight()
        } else {
            match file {
                "index.m3u8" => {
                    let text = match self.fault {
                        Fault::Master(edit) => edit(master()),
                        Fault::TwinMaster(edit) if twin => edit(master()),
                        _ => master(),
                    };
                    playlist(text, "max-age=1")
                }
                "media.m3u8" | "iframes.m3u8" => {
                    self.media_playlist(folder, file == "iframes.m3u8", query).await
                }
                _ => self.object(folder, file, twin).await,
            }
        };
        let gzip = ask.headers.iter().any(|(name, _)| name == http::header::ACCEPT_ENCODING);
        if gzip && reply.status == 200 && file.ends_with("m3u8") {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(&reply.body).unwrap();
            reply.body = encoder.finish().unwrap();
            reply.set("content-encoding", "gzip");
        }
        reply.set("access-control-allow-origin", "*");
        reply.set("access-control-expose-headers", "Age, Date");
        reply.set("timing-allow-origin", "*");
        if let Fault::Reply(edit) = self.fault {
            edit(path, &mut reply);
        }
        reply
    }

    async fn media_playlist(&self, rendition: &str, i_frames: bool, query: &str) -> Reply {
        let mut query = query.to_owned();
        if matches!(self.fault, Fault::OrderedQuery) && !query.starts_with("_HLS_") {
            query.clear();
        }
        let blocking = query.contains("_HLS_msn") || query.contains("_HLS_part");
        let Ok(want) = Directives::parse(&query) else {
            let honoured = if let Fault::Decide(decide) = self.fault {
                decide(&Directives::default(), tip_of(self.tip()))
            } else {
                None
            };
            return if honoured == Some(Decision::Ready) {
                self.rendered(rendition, i_frames, None, blocking)
            } else {
                error(400, 8)
            };
        };
        let asked = Instant::now();
        let mut waited = false;
        loop {
            let tip = self.tip();
            let want = if i_frames { Directives { part: None, ..want } } else { want };
            let usual = tip_of(tip).decide(&want, 500);
            let decision = match self.fault {
                Fault::Decide(decide) if !waited => decide(&want, tip_of(tip)).unwrap_or(usual),
                _ => usual,
            };
            match decision {
                Decision::TooFarAhead => return error(400, 8),
                Decision::Ready => {
                    if let (Fault::Late(by), true) = (self.fault, waited) {
                        moment(Instant::now() + by).await;
                    }
                    let skip = want.skip.filter(|_| !matches!(self.fault, Fault::NoSkip));
                    return self.rendered(rendition, i_frames, skip, blocking);
                }
                Decision::Wait => match self.fault {
                    Fault::Stop(patience) => {
                        if tokio::time::timeout(patience, self.until(tip + 1)).await.is_err()
                            || self.tip() == tip
                        {
                            moment(asked + patience).await;
                            return error(503, 8);
                        }
                    }
                    _ => self.until(tip + 1).await,
                },
            }
            waited = true;
        }
    }

    fn rendered(&self, rendition: &str, i_frames: bool, skip: Option<Skip>, blocking: bool) -> Reply {
        let scene = Scene { rendition, i_frames, tip: self.tip(), delta: skip.is_some(), asked: blocking };
        let window = if let Fault::Window(window) = self.fault { window } else { WINDOW };
        let text = render(&scene, skip, window);
        let text = match self.fault {
            Fault::Media(edit) => edit(&scene, text),
            // The second discontinuity comes 4 segments after the first has left the window.
            Fault::NewFormat if scene.tip > 60 => text.replace("#EXT-X-DISCONTINUITY\n", ""),
            _ => text,
        };
        playlist(text, if blocking { "max-age=12" } else { "max-age=1" })
    }

    async fn object(&self, folder: &str, file: &str, twin: bool) -> Reply {
        let video = folder != "a";
        let mut reply = error(404, 2);
        if file.starts_with("init-") {
            let mut head = if let Fault::Init(head) = self.fault { head } else { clip::HEAD };
            if matches!(self.fault, Fault::NewFormat) && file == "init-1.mp4" {
                head.level = 0x20;
            }
            reply.body = clip::init(video, head);
        } else {
            let mut names = file.split('.');
            let Some(msn) = names.next().and_then(|msn| msn.parse::<u64>().ok()) else { return reply };
            let Some(first) = msn.checked_sub(FIRST_MSN).map(|n| n * 4) else { return reply };
            let piece = |part: u64, whole: bool| {
                let mut tweak = Tweak { content: if folder == "w" { 8 } else { 7 }, ..Tweak::default() };
                let piece = Piece { video, msn, part, whole };
                match self.fault {
                    Fault::Clip(edit) => edit(piece, &mut tweak),
                    Fault::Twin(edit) if twin => edit(piece, &mut tweak),
                    _ => {}
                }
                clip::part(video, first + part, 1, &tweak)
            };
            let middle = names.next().unwrap_or_default();
            reply.body = match middle.parse::<u64>() {
                Ok(part) if part < 4 => {
                    let hold = !matches!(self.fault, Fault::HintUnknown);
                    if first + part > self.tip() || first + part == self.tip() && !hold {
                        return reply;
                    }
                    self.until(first + part + 1).await;
                    piece(part, false)
                }
                Err(_) if middle == "m4s" || middle == "i" => {
                    if first + 4 > self.tip() {
                        return reply;
                    }
                    if middle == "i" {
                        piece(0, true)
                    } else {
                        (0..4).flat_map(|part| piece(part, true)).collect()
                    }
                }
                _ => return reply,
            };
        }
        reply.status = 200;
        reply.set("content-type", if video { "video/mp4" } else { "audio/mp4" });
        reply.set("cache-control", "max-age=12");
        reply.set("priority", if folder == "v" { "u=4" } else { "u=3" });
        reply
    }
}

/// Simulated time moves when nobody has anything left to do before.
async fn moment(at: Instant) {
    let _ = tokio::time::timeout_at(at, std::future::pending::<()>()).await;
}

impl Net for Fake {
    async fn ask(self: &Arc<Self>, ask: Ask) -> Exchange {
        let sent = self.now();
        let reply = self.respond(&ask).await;
        moment(Instant::now() + reply.delay).await;
        let head = self.now();
        if !reply.trickle.is_zero() {
            moment(Instant::now() + reply.trickle).await;
        }
        let mut headers = HeaderMap::new();
        for (name, value) in reply.headers {
            headers.insert(HeaderName::from_static(name), HeaderValue::try_from(value).unwrap());
        }
        let body = Bytes::from(reply.body);
        let answer = Answer { status: reply.status, headers, body, head, first_byte: head, end: self.now() };
        Exchange { ask, sent, outcome: Ok(answer) }
    }

    async fn handshake(self: &Arc<Self>, _: &Address) -> Option<Result<Handshake, String>> {
        let (alpn, version, suite) = match self.fault {
            Fault::Handshake(alpn, version, suite) => (alpn, version, suite),
            _ => ("h2", "TLSv1_3", "TLS13_AES_256_GCM_SHA384"),
        };
        Some(Ok(Handshake { alpn: alpn.to_owned(), version: version.to_owned(), suite: suite.to_owned() }))
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }
}

fn tip_of(parts: u64) -> Tip {
    Tip {
        complete_msn: FIRST_MSN + parts / 4 - 1,
        complete_parts: 4,
        open_parts: u32::try_from(parts % 4).unwrap(),
        ended: false,
    }
}

fn error(status: u16, age: u32) -> Reply {
    let headers = vec![("cache-control", format!("max-age={age}"))];
    Reply { status, headers, body: b"no".to_vec(), delay: Duration::ZERO, trickle: Duration::ZERO }
}

fn playlist(text: String, cache: &str) -> Reply {
    let headers = vec![
        ("content-type", "application/vnd.apple.mpegurl".to_owned()),
        ("cache-control", cache.to_owned()),
        ("vary", "accept-encoding".to_owned()),
        ("priority", "u=1".to_owned()),
    ];
    Reply { status: 200, headers, body: text.into_bytes(), delay: Duration::ZERO, trickle: Duration::ZERO }
}

fn preflight() -> Reply {
    let mut reply = error(204, 0);
    reply.set("access-control-allow-headers", "Range");
    reply.set("access-control-max-age", "86400");
    reply
}

fn master() -> String {
    let media = "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"g\",NAME=\"n\",LANGUAGE=\"en\",DEFAULT=YES,CHANNELS=\"2\",URI=\"a/media.m3u8\"\n";
    let variant = |bandwidth: u32, name: &str| {
        format!(
            "#EXT-X-STREAM-INF:BANDWIDTH={bandwidth},AVERAGE-BANDWIDTH={bandwidth},CODECS=\"avc1.4d401f,mp4a.40.2\",\
             RESOLUTION=1280x720,FRAME-RATE=30.000,AUDIO=\"g\",CLOSED-CAPTIONS=NONE\n{name}/media.m3u8\n"
        )
    };
    let i_frames = "#EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=20000,AVERAGE-BANDWIDTH=10000,CODECS=\"avc1.4d401f\",RESOLUTION=1280x720,URI=\"v/iframes.m3u8\"\n";
    format!(
        "#EXTM3U\n#EXT-X-INDEPENDENT-SEGMENTS\n{media}{}{}{i_frames}",
        variant(60_000, "v"),
        variant(50_000, "w")
    )
}

fn date(msn: u64) -> DateTime {
    DateTime(EPOCH_MS + i64::try_from(msn - FIRST_MSN).unwrap() * 2000)
}

/// The playlist of a rendition, right in every way.
fn render(scene: &Scene<'_>, skip: Option<Skip>, window: u64) -> String {
    let complete = FIRST_MSN + scene.tip / 4 - 1;
    let first = complete + 1 - window;
    let dsn = DISCONTINUITIES.iter().filter(|msn| **msn < first).count();
    let skipped = if skip.is_some() {
        let end = scene.tip * 500;
        (first..=complete).filter(|msn| end - (msn + 1 - FIRST_MSN) * 2000 >= 12_000).count() as u64
    } else {
        0
    };
    let version = match skip {
        Some(Skip::V2) if skipped > 0 => 10,
        Some(Skip::Yes) if skipped > 0 => 9,
        _ if scene.i_frames => 5,
        _ => 6,
    };
    let mut text = format!(
        "#EXTM3U\n#EXT-X-VERSION:{version}\n#EXT-X-TARGETDURATION:2\n#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,\
         CAN-SKIP-UNTIL=12.0,CAN-SKIP-DATERANGES=YES,HOLD-BACK=6.0,PART-HOLD-BACK=1.5\n"
    );
    text.push_str(if scene.i_frames {
        "#EXT-X-I-FRAMES-ONLY\n"
    } else {
        "#EXT-X-PART-INF:PART-TARGET=0.5\n"
    });
    writeln!(text, "#EXT-X-MEDIA-SEQUENCE:{first}\n#EXT-X-DISCONTINUITY-SEQUENCE:{dsn}").unwrap();
    if skipped > 0 {
        let removed = if skip == Some(Skip::V2) { ",RECENTLY-REMOVED-DATERANGES=\"\"" } else { "" };
        writeln!(text, "#EXT-X-SKIP:SKIPPED-SEGMENTS={skipped}{removed}").unwrap();
    }
    let mut map = None;
    for msn in first + skipped..=complete + 1 {
        segment(&mut text, scene, msn, &mut map);
    }
    let poll = "2026-11-22T07:42:00.000Z";
    writeln!(text, "#EXT-X-DATERANGE:ID=\"poll\",START-DATE=\"{poll}\",DURATION=5.0").unwrap();
    if !scene.i_frames {
        tail(&mut text, scene, complete);
    }
    text
}

fn segment(text: &mut String, scene: &Scene<'_>, msn: u64, map: &mut Option<u32>) {
    let first_part = (msn - FIRST_MSN) * 4;
    let open = first_part + 4 > scene.tip;
    if open && (scene.tip == first_part || scene.i_frames) {
        return;
    }
    if DISCONTINUITIES.contains(&msn) {
        text.push_str("#EXT-X-DISCONTINUITY\n");
    }
    let init = u32::from(msn >= DISCONTINUITIES[1]);
    let again = map.replace(init) != Some(init);
    if again {
        writeln!(text, "#EXT-X-MAP:URI=\"init-{init}.mp4\"").unwrap();
    }
    let parts = !scene.i_frames && (open || scene.tip - first_part - 4 < 12);
    if again || parts || DISCONTINUITIES.contains(&msn) {
        writeln!(text, "#EXT-X-PROGRAM-DATE-TIME:{}", date(msn)).unwrap();
    }
    let gap = if msn == GAP_MSN { ",GAP=YES" } else { "" };
    if parts {
        for part in 0..(scene.tip - first_part).min(4) {
            let independent = if part == 0 || scene.rendition == "a" { ",INDEPENDENT=YES" } else { "" };
            writeln!(text, "#EXT-X-PART:DURATION=0.50000,URI=\"{msn}.{part}.m4s\"{independent}{gap}")
                .unwrap();
        }
    }
    if !open {
        if msn == GAP_MSN {
            text.push_str("#EXT-X-GAP\n");
        }
        writeln!(text, "#EXTINF:2.00000,\n{msn}{}.m4s", if scene.i_frames { ".i" } else { "" }).unwrap();
    }
}

fn tail(text: &mut String, scene: &Scene<'_>, complete: u64) {
    let (msn, part) = (FIRST_MSN + scene.tip / 4, scene.tip % 4);
    writeln!(text, "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"{msn}.{part}.m4s\"").unwrap();
    if (msn, part) == (DISCONTINUITIES[1], 0) {
        text.push_str("#EXT-X-PRELOAD-HINT:TYPE=MAP,URI=\"init-1.mp4\"\n");
    }
    let (last_msn, last_part) = if part > 0 { (msn, part - 1) } else { (complete, 3) };
    for other in RENDITIONS.iter().filter(|other| **other != scene.rendition) {
        writeln!(
            text,
            "#EXT-X-RENDITION-REPORT:URI=\"../{other}/media.m3u8\",LAST-MSN={last_msn},LAST-PART={last_part}"
        )
        .unwrap();
    }
}
