//! A cheap live channel for measuring the load tester by itself: HTTP/2 with prior knowledge, one rendition, parts of
//! 0.5 s that are made of nothing, blocking reload and hinted parts.
//!
//! `bench_parts [ADDRESS [PART_BYTES]]`; the playlist is `/live/bench/v/media.m3u8`. One thread, no TLS: what it needs
//! per request is less than what a viewer does.
#![expect(clippy::print_stdout, reason = "it says where it listens")]

use bytes::Bytes;
use h2::server::{self, SendResponse};
use http::{Request, Response};
use std::error::Error;
use std::fmt::Write;
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const PART_MS: u64 = 500;
const SEGMENT_PARTS: u64 = 4;
const WINDOW_SEGMENTS: u64 = 8;

/// What there is now: every viewer gets the same bytes.
#[derive(Clone)]
struct Live {
    /// Parts so far.
    tip: u64,
    playlist: Bytes,
    part: Bytes,
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis().try_into().unwrap_or(0))
}

fn playlist(tip: u64) -> Bytes {
    let (open, first) = (tip / SEGMENT_PARTS, (tip / SEGMENT_PARTS).saturating_sub(WINDOW_SEGMENTS));
    let mut text = format!(
        "#EXTM3U\n#EXT-X-VERSION:6\n#EXT-X-TARGETDURATION:2\n\
         #EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=1.5\n#EXT-X-PART-INF:PART-TARGET=0.5\n\
         #EXT-X-MEDIA-SEQUENCE:{first}\n"
    );
    for msn in first..=open {
        if msn + 3 > open {
            for part in 0..SEGMENT_PARTS.min(tip - msn * SEGMENT_PARTS) {
                let independent = if part == 0 { ",INDEPENDENT=YES" } else { "" };
                let _ = writeln!(text, "#EXT-X-PART:DURATION=0.5,URI=\"{msn}.{part}.m4s\"{independent}");
            }
        }
        if msn < open {
            let _ = writeln!(text, "#EXTINF:2.0,\n{msn}.m4s");
        }
    }
    let _ = writeln!(text, "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"{open}.{}.m4s\"", tip % SEGMENT_PARTS);
    text.into()
}

/// The part that a request waits for, if any.
fn wanted(request: &Request<h2::RecvStream>) -> Option<u64> {
    let number = |name: &str| {
        let query = request.uri().query()?;
        query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')?.parse::<u64>().ok())
    };
    if let Some(msn) = number("_HLS_msn") {
        return Some(msn * SEGMENT_PARTS + number("_HLS_part").unwrap_or(0));
    }
    let name = request.uri().path().rsplit('/').next()?.strip_suffix(".m4s")?;
    match name.split_once('.') {
        Some((msn, part)) => Some(msn.parse::<u64>().ok()? * SEGMENT_PARTS + part.parse::<u64>().ok()?),
        None => Some(name.parse::<u64>().ok()? * SEGMENT_PARTS),
    }
}

async fn respond(
    request: Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
    mut live: watch::Receiver<Rc<Live>>,
    at_ms: Rc<std::cell::RefCell<std::collections::BTreeMap<u64, u64>>>,
) -> Result<(), Box<dyn Error>> {
    let wanted = wanted(&request);
    let now = match wanted {
        Some(part) => live.wait_for(|live| live.tip > part).await?.clone(),
        None => live.borrow().clone(),
    };
    let is_part = request.uri().path().ends_with(".m4s");
    let at = wanted.and_then(|part| at_ms.borrow().get(&part).copied()).unwrap_or(0);
    let cmsd = if is_part { format!("at={at},d={PART_MS},ot=v,sf=h,st=ll") } else { "ot=m".to_owned() };
    let response = Response::builder().header("cmsd-static", cmsd).body(())?;
    let mut body = respond.send_response(response, false)?;
    body.send_data(if is_part { now.part.clone() } else { now.playlist.clone() }, true)?;
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().unwrap_or_else(|| "127.0.0.1:9100".to_owned());
    let bytes: usize = arguments.next().map_or(Ok(20_000), |bytes| bytes.parse())?;
    let listener = TcpListener::bind(&address).await?;
    println!("{}", listener.local_addr()?);
    let part = Bytes::from(vec![b'x'; bytes]);
    let first = 40;
    let state = Live { tip: first, playlist: playlist(first), part };
    let (tips, live) = watch::channel(Rc::new(state));
    let at_ms = Rc::new(std::cell::RefCell::new(std::collections::BTreeMap::new()));
    tokio::task::LocalSet::new()
        .run_until(async move {
            let made = Rc::clone(&at_ms);
            tokio::task::spawn_local(async move {
                let mut ticks = tokio::time::interval(Duration::from_millis(PART_MS));
                loop {
                    ticks.tick().await;
                    tips.send_modify(|live| {
                        let (tip, part) = (live.tip + 1, live.part.clone());
                        made.borrow_mut().insert(tip - 1, now_ms());
                        *live = Rc::new(Live { tip, playlist: playlist(tip), part });
                    });
                }
            });
            loop {
                let (stream, _) = listener.accept().await?;
                tokio::task::spawn_local(serve(stream, live.clone(), Rc::clone(&at_ms)));
            }
        })
        .await
}

async fn serve(
    stream: TcpStream,
    live: watch::Receiver<Rc<Live>>,
    at_ms: Rc<std::cell::RefCell<std::collections::BTreeMap<u64, u64>>>,
) {
    let _ = stream.set_nodelay(true);
    let Ok(mut connection) = server::handshake(stream).await else { return };
    while let Some(Ok((request, answer))) = connection.accept().await {
        let (live, at_ms) = (live.clone(), Rc::clone(&at_ms));
        tokio::task::spawn_local(async move {
            // Who left does not need the answer.
            let _ = respond(request, answer, live, at_ms).await;
        });
    }
}
