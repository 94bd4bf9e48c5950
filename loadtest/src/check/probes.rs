//! Requests made to see how the server takes them: the blocking reload state machine, delta updates, compression,
//! CORS, errors; tuning in; and the same resources at another server.

use crate::address::Address;
use crate::check::exchange::{Ask, Exchange, Net};
use crate::check::follow::Seat;
use crate::check::media::Media;
use crate::check::objects::uris;
use crate::check::record::{Event, Pair, Presentation, Probe, Role, View};
use http::{Method, header};
use sigma_shared::reload::advance_part_limit;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// What a client asks for that cannot state the end of a range (RFC 8673).
const OPEN_RANGE: &str = "bytes=0-9007199254740991";
/// Between looks at all renditions, or at another server.
const ROUND: Duration = Duration::from_secs(2);

/// What the follower saw last.
pub(crate) type Tip = watch::Receiver<Option<Arc<View>>>;

/// All probes of one rendition, one after the other, until the time is over.
pub(crate) async fn probe<N: Net>(seat: Seat<N>, mut tip: Tip) {
    let prober = Prober { seat };
    let Some(first) = prober.fresh(&mut tip).await else { return };
    prober.unconditional(&first).await;
    if first.media.ended || !first.media.can_block() {
        if first.media.ended {
            let far = prober.ask(&format!("_HLS_msn={}", first.media.next().0 + 5)).await;
            prober.tell(Probe::Ended, &first, vec![far]).await;
        }
        return prober.skip(&first).await;
    }
    if prober.seat.rendition.role == Role::IFrames {
        let Some(newest) = first.media.newest() else { return };
        let msn = newest.msn + 1;
        let exchange = prober.ask(&format!("_HLS_msn={msn}")).await;
        return prober.tell(Probe::IFrame(msn), &first, vec![exchange]).await;
    }
    prober.refusals(&mut tip).await;
    prober.pairs(&mut tip).await;
    prober.holds(&mut tip).await;
    if let Some(view) = prober.fresh(&mut tip).await {
        prober.skip(&view).await;
    }
}

struct Prober<N> {
    seat: Seat<N>,
}

impl<N: Net> Prober<N> {
    async fn tell(&self, probe: Probe, tip: &Arc<View>, exchanges: Vec<Exchange>) {
        let tip = Arc::clone(tip);
        self.seat.tell(Event::Probe { rendition: self.seat.index, probe, tip, exchanges }).await;
    }

    async fn ask(&self, query: &str) -> Exchange {
        self.seat.net.ask(Ask::directed(&self.seat.rendition.address, query)).await
    }

    /// The next view of the follower: something new came into being just now.
    async fn fresh(&self, tip: &mut Tip) -> Option<Arc<View>> {
        tokio::time::timeout(self.seat.left(), tip.changed()).await.ok()?.ok()?;
        tip.borrow_and_update().clone()
    }

    /// What any server must take, blocking or not.
    async fn unconditional(&self, tip: &Arc<View>) {
        let net = &self.seat.net;
        let address = &self.seat.rendition.address;
        if let Ok(unknown) = address.join("no-such-part-0.m4s") {
            let exchange = net.ask(Ask::get(&unknown)).await;
            self.tell(Probe::Unknown, tip, vec![exchange]).await;
        }
        let mut preflight = Ask::get(address).with(header::ACCESS_CONTROL_REQUEST_METHOD, "GET");
        preflight = preflight.with(header::ACCESS_CONTROL_REQUEST_HEADERS, "range");
        preflight.method = Method::OPTIONS;
        let exchange = net.ask(preflight).await;
        self.tell(Probe::Preflight, tip, vec![exchange]).await;
        if let Some(uri) = uris(tip).into_iter().find(|(what, _)| *what == "segment").map(|(_, uri)| uri)
            && let Ok(segment) = address.join(&uri)
        {
            let exchange = net.ask(Ask::get(&segment).with(header::RANGE, OPEN_RANGE)).await;
            self.tell(Probe::Range, tip, vec![exchange]).await;
        }
        let alone = self.ask("_HLS_part=0").await;
        if tip.media.can_block() {
            self.tell(Probe::PartAlone, tip, vec![alone]).await;
        }
    }

    /// What must be refused at once, or answered at once.
    async fn refusals(&self, tip: &mut Tip) {
        let Some(view) = self.fresh(tip).await else { return };
        let msn = view.media.next().0;
        let mut malformed = Vec::new();
        for query in ["_HLS_msn=abc", "_HLS_msn=-1", "_HLS_msn=1.5"] {
            malformed.push(self.ask(query).await);
        }
        malformed.push(self.ask(&format!("_HLS_msn={msn}&_HLS_part=x")).await);
        self.tell(Probe::Malformed, &view, malformed).await;
        let Some(view) = self.fresh(tip).await else { return };
        let mut older = Vec::new();
        let old = view.media.newest().map_or(view.media.media_sequence, |newest| newest.msn);
        for query in [
            format!("_HLS_msn={old}"),
            format!("_HLS_msn={}", view.media.media_sequence.saturating_sub(5)),
            "_HLS_msn=0&_HLS_part=3".to_owned(),
        ] {
            older.push(self.ask(&query).await);
        }
        self.tell(Probe::Older, &view, older).await;
        let Some(view) = self.fresh(tip).await else { return };
        let far = self.ask(&format!("_HLS_msn={}", view.media.next().0 + 5)).await;
        self.tell(Probe::TooFar, &view, vec![far]).await;
        let Some(target) = view.media.part_target else { return };
        let limit = advance_part_limit(u32::try_from(target.as_millis()).unwrap_or(u32::MAX));
        let Some(view) = self.open_parent(tip).await else { return };
        let (msn, part) = view.media.next();
        let far = self.ask(&format!("_HLS_msn={msn}&_HLS_part={}", part + limit + 3)).await;
        self.tell(Probe::TooFarPart, &view, vec![far]).await;
    }

    /// A view whose newest part is the first of its parent: that parent stays open for a while.
    async fn open_parent(&self, tip: &mut Tip) -> Option<Arc<View>> {
        loop {
            let view = self.fresh(tip).await?;
            if view.media.next().1 == 1 {
                return Some(view);
            }
        }
    }

    /// Requests that must be answered alike.
    async fn pairs(&self, tip: &mut Tip) {
        let net = &self.seat.net;
        let address = &self.seat.rendition.address;
        let Some(view) = self.fresh(tip).await else { return };
        let query = ahead(&view);
        let (a, b) = tokio::join!(self.ask(&query), self.ask(&query));
        self.tell(Probe::Twice, &view, vec![a, b]).await;
        let Some(view) = self.fresh(tip).await else { return };
        let query = ahead(&view);
        let mut turned: Vec<&str> = query.split('&').rev().collect();
        turned.insert(0, "CMCD=sid%3D%22x%22");
        turned.push("_HLS_throughput=5");
        let turned = turned.join("&");
        let (a, b) = tokio::join!(self.ask(&query), self.ask(&turned));
        self.tell(Probe::Permuted, &view, vec![a, b]).await;
        let Some(view) = self.fresh(tip).await else { return };
        let query = ahead(&view);
        let zipped = Ask::directed(address, &query).with(header::ACCEPT_ENCODING, "gzip");
        let (a, b) = tokio::join!(self.ask(&query), net.ask(zipped));
        self.tell(Probe::Gzip, &view, vec![a, b]).await;
    }

    /// What must be held.
    async fn holds(&self, tip: &mut Tip) {
        let Some(view) = self.fresh(tip).await else { return };
        if view.media.part_target.is_none() {
            return;
        }
        let Some(newest) = view.media.newest() else { return };
        let msn = newest.msn + 1;
        let past_end = format!("_HLS_msn={}&_HLS_part={}", newest.msn, newest.parts.len());
        let alone = format!("_HLS_msn={msn}");
        let (alone, past) = tokio::join!(self.ask(&alone), self.ask(&past_end));
        let known = !newest.parts.is_empty();
        self.tell(Probe::SegmentAlone(msn), &view, vec![alone]).await;
        if known {
            self.tell(Probe::PastEnd(newest.msn), &view, vec![past]).await;
        }
    }

    /// Delta updates, offered or not.
    async fn skip(&self, view: &Arc<View>) {
        let query = if view.media.can_block() && !view.media.ended { ahead(view) } else { String::new() };
        for kind in ["YES", "v2"] {
            let separator = if query.is_empty() { "" } else { "&" };
            let skip = format!("{query}{separator}_HLS_skip={kind}");
            let (full, delta) = tokio::join!(self.ask(&query), self.ask(&skip));
            self.tell(Probe::Skip(kind), view, vec![full, delta]).await;
        }
    }
}

/// Directives for what comes next.
fn ahead(view: &View) -> String {
    let (msn, part) = view.media.next();
    if view.media.part_target.is_some() {
        format!("_HLS_msn={msn}&_HLS_part={part}")
    } else {
        format!("_HLS_msn={msn}")
    }
}

/// All renditions at the same moment, every now and then.
pub(crate) async fn together<N: Net>(seats: Vec<Seat<N>>) {
    let Some(first) = seats.first().cloned() else { return };
    while !first.left().is_zero() {
        let before = round(&seats).await;
        let views = round(&seats).await;
        let after = round(&seats).await;
        first.tell(Event::Together { before, views, after }).await;
        tokio::time::sleep(ROUND.min(first.left())).await;
    }
}

async fn round<N: Net>(seats: &[Seat<N>]) -> Vec<Arc<View>> {
    let mut views = tokio::task::JoinSet::new();
    for seat in seats {
        let seat = seat.clone();
        views.spawn(async move {
            let view = seat.playlist(None).await?;
            seat.tell(Event::Plain(Arc::clone(&view))).await;
            Some(view)
        });
    }
    let mut found: Vec<Arc<View>> = views.join_all().await.into_iter().flatten().collect();
    found.sort_by_key(|view| view.rendition);
    found
}

/// Tunes in as a client behind a cache does (Appendix C), and compares with the follower's edge.
pub(crate) async fn tune_in<N: Net>(seat: Seat<N>, mut tip: Tip) {
    if tokio::time::timeout(seat.left(), tip.wait_for(Option::is_some)).await.is_err() {
        return;
    }
    let Some(first) = seat.playlist(None).await else { return };
    let Some(part_target) = first.media.part_target else { return };
    let began = seat.net.now();
    let fine = if part_target < Duration::from_secs(1) { Duration::from_secs(1) } else { Duration::ZERO };
    let age = |view: &View| {
        view.exchange
            .ok()
            .and_then(|a| a.header("age")?.parse().ok())
            .map_or(Duration::ZERO, Duration::from_secs)
    };
    let goal = age(&first) + fine;
    let (mut view, mut requests) = (Arc::clone(&first), 1u32);
    while age(&view) >= Duration::from_secs(part_target.as_secs()) && !age(&view).is_zero() && requests < 5 {
        let current = goal + seat.net.now().saturating_sub(began);
        let gained = end_of(&view.media).saturating_sub(end_of(&first.media));
        if gained >= current {
            break;
        }
        let parts = u32::try_from(((current - gained).as_micros() / part_target.as_micros().max(1)).max(1))
            .unwrap_or(1);
        let (msn, part) = view.media.next();
        let limit = advance_part_limit(u32::try_from(part_target.as_millis()).unwrap_or(u32::MAX));
        let wanted = part + parts.min(limit - 1) - 1;
        let Some(next) = seat.playlist(Some((msn, Some(wanted)))).await else { return };
        (view, requests) = (next, requests + 1);
    }
    let edge = tip.borrow().clone();
    let behind = edge.map_or(Duration::ZERO, |edge| end_of(&edge.media).saturating_sub(end_of(&view.media)));
    let request = first.exchange.ask.to_string();
    seat.tell(Event::TuneIn { requests, behind, part_target, request }).await;
}

/// Media time at the end of a playlist, counted from a fixed MSN by target durations where segments are gone.
fn end_of(media: &Media) -> Duration {
    let number = u32::try_from(media.media_sequence & 0xffff).unwrap_or(0);
    media.target_duration * number + media.length()
}

/// The same resources here and at another server, until the time is over.
pub(crate) async fn compare<N: Net>(seats: Vec<(Seat<N>, Tip)>, there: Presentation) {
    let Some(first) = seats.first().map(|(seat, _)| seat.clone()) else { return };
    while !first.left().is_zero() {
        for (seat, tip) in &seats {
            let view = tip.borrow().clone();
            let other =
                there.renditions.iter().find(|r| r.name == seat.rendition.name || there.master.is_none());
            if let (Some(view), Some(other)) = (view, other) {
                compare_one(seat, &view, &other.address).await;
            }
        }
        tokio::time::sleep(ROUND.min(first.left())).await;
    }
}

async fn compare_one<N: Net>(seat: &Seat<N>, view: &View, there: &Address) {
    let here = &seat.rendition.address;
    let pair = async |what: &'static str, a: Ask, b: Ask| {
        let (here, there) = tokio::join!(seat.net.ask(a), seat.net.ask(b));
        seat.tell(Event::Pair(Box::new(Pair { what, here, there }))).await;
    };
    if view.media.can_block() && !view.media.ended {
        let query = ahead(view);
        pair("playlist", Ask::directed(here, &query), Ask::directed(there, &query)).await;
    }
    for (what, uri) in uris(view) {
        if let (Ok(a), Ok(b)) = (here.join(&uri), there.join(&uri)) {
            pair(what, Ask::get(&a), Ask::get(&b)).await;
        }
    }
}
