//! Getting the media of one rendition: parts before they exist (hinted), when they are listed, and once more when they
//! are no longer; complete segments with their parts, in order.
//!
//! Invariants: bodies are held until their segment is judged and no longer; requests under way are bounded.

use crate::address::Address;
use crate::check::exchange::{Ask, Exchange, Net};
use crate::check::follow::Seat;
use crate::check::media::{Map, Segment};
use crate::check::record::{Case, Event, Object, Role, Unit, View, Why};
use crate::check::rules::dates;
use bytes::Bytes;
use http::header;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Requests under way for one rendition.
const UNDER_WAY_MAX: usize = 64;
/// Segments waiting for their bytes.
const PENDING_MAX: usize = 16;
/// Bodies of parts held: those of a few segments.
const PARTS_MAX: usize = 512;
/// Objects are asked for again this much before the time until which they must be there.
const EARLY: Duration = Duration::from_millis(200);

/// What became of a request for a part or segment.
struct Got {
    uri: String,
    body: Option<Bytes>,
    /// Of the segments' own GET.
    request: String,
    exchange: Option<Exchange>,
    map: Option<Map>,
}

/// A complete segment whose bytes are under way.
struct Pending {
    listing: Segment,
    date_us: Option<i64>,
}

pub(crate) struct Objects<N> {
    seat: Seat<N>,
    tasks: JoinSet<Got>,
    /// Bodies by URI; `None`: it could not be had.
    parts: BTreeMap<String, Option<Bytes>>,
    order: VecDeque<String>,
    segments: BTreeMap<String, (String, Option<Bytes>)>,
    inits: BTreeMap<Map, Option<Bytes>>,
    pending: VecDeque<Pending>,
    hinted: String,
    /// The first thing that is followed: what was open at the first view.
    from: Option<(u64, u32)>,
    before: Option<Arc<View>>,
}

/// Gets what the views list until there are no more views.
pub(crate) async fn fetch<N: Net>(seat: Seat<N>, mut views: mpsc::Receiver<Arc<View>>) {
    let mut objects = Objects {
        seat,
        tasks: JoinSet::new(),
        parts: BTreeMap::new(),
        order: VecDeque::new(),
        segments: BTreeMap::new(),
        inits: BTreeMap::new(),
        pending: VecDeque::new(),
        hinted: String::new(),
        from: None,
        before: None,
    };
    loop {
        tokio::select! {
            view = views.recv() => match view {
                Some(view) => objects.view(view),
                None => break,
            },
            Some(got) = objects.tasks.join_next(), if !objects.tasks.is_empty() => {
                if let Ok(got) = got {
                    objects.got(got);
                }
            }
        }
        objects.emit().await;
    }
    while let Some(got) = objects.tasks.join_next().await {
        if let Ok(got) = got {
            objects.got(got);
        }
        objects.emit().await;
    }
}

impl<N: Net> Objects<N> {
    fn view(&mut self, view: Arc<View>) {
        let media = &view.media;
        let first = self.from.is_none();
        // Segments that were complete before are not followed: their parts were not seen coming.
        let from = *self.from.get_or_insert((media.next().0, 0));
        if first && media.part_target.is_none() {
            // Without parts the newest segments are judged as they are.
            self.from = Some((from.0.saturating_sub(1), 0));
        }
        let from = self.from.unwrap_or(from);
        for segment in media.segments.iter().filter(|segment| segment.msn >= from.0) {
            self.init(segment);
            for (index, part) in (0u32..).zip(&segment.parts) {
                if (segment.msn, index) >= from && !part.gap {
                    let unit = Unit::Part(segment.msn, index);
                    let what = (part.uri.as_str(), part.range.as_deref());
                    self.get(unit, Why::Listed, what, part.duration.unwrap_or_default());
                }
            }
            if let Some(uri) = segment.uri.as_ref().filter(|_| !segment.gap)
                && self.pending.len() < PENDING_MAX
            {
                let unit = Unit::Segment(segment.msn);
                self.get(unit, Why::Listed, (uri, segment.range.as_deref()), segment.duration);
                let date_us = dates::date_of(&view, segment.msn);
                self.pending.push_back(Pending { listing: segment.clone(), date_us });
            }
        }
        self.from = Some(media.next().max(from));
        self.hint(&view);
        if let Some(before) = self.before.take() {
            self.removed(&before, &view);
        }
        self.before = Some(view);
    }

    fn hint(&mut self, view: &View) {
        let Some(hint) = view.media.hint("PART") else { return };
        let uri = hint.list.get("URI").unwrap_or_default();
        // Byte ranges of what does not exist yet are not asked for.
        if uri.is_empty()
            || uri == self.hinted
            || hint.list.get("BYTERANGE-START").is_some()
            || view.media.ended
        {
            return;
        }
        uri.clone_into(&mut self.hinted);
        let (msn, part) = view.media.next();
        self.get(Unit::Part(msn, part), Why::Hinted, (uri, None), view.media.part_target.unwrap_or_default());
    }

    fn init(&mut self, segment: &Segment) {
        let Some(map) = &segment.map else { return };
        if self.inits.contains_key(map) {
            return;
        }
        self.inits.insert(map.clone(), None);
        if self.inits.len() > 8 {
            self.inits.pop_first();
        }
        self.get(Unit::Init, Why::Listed, (&map.uri, map.range.as_deref()), Duration::ZERO);
    }

    /// Parts and segments whose tags are gone must stay for a while.
    fn removed(&mut self, before: &View, view: &View) {
        let (old, new) = (&before.media, &view.media);
        for was in &old.segments {
            let is = new.segments.iter().find(|segment| segment.msn == was.msn);
            if let Some(part) =
                was.parts.first().filter(|part| !part.gap && is.is_none_or(|is| is.parts.is_empty()))
            {
                let stays = new.target_duration * 3;
                self.again(Unit::Part(was.msn, 0), (&part.uri, part.range.as_deref()), stays);
            }
            if is.is_none()
                && was.msn < new.media_sequence
                && !was.gap
                && let Some(uri) = &was.uri
            {
                self.again(Unit::Segment(was.msn), (uri, was.range.as_deref()), was.duration);
            }
        }
    }

    fn again(&mut self, unit: Unit, (uri, range): (&str, Option<&str>), stays: Duration) {
        let wait = stays.saturating_sub(EARLY);
        if wait < self.seat.left() {
            self.spawn(unit, Why::Removed, (uri, range), (Duration::ZERO, wait));
        }
    }

    fn get(&mut self, unit: Unit, why: Why, what: (&str, Option<&str>), duration: Duration) {
        self.spawn(unit, why, what, (duration, Duration::ZERO));
    }

    fn spawn(
        &mut self,
        unit: Unit,
        why: Why,
        what: (&str, Option<&str>),
        (duration, wait): (Duration, Duration),
    ) {
        let Ok(address) = self.seat.rendition.address.join(what.0) else { return };
        if self.tasks.len() >= UNDER_WAY_MAX {
            return;
        }
        let seat = self.seat.clone();
        let range = what.1.map(str::to_owned);
        let uri = key(what.0, what.1);
        let map = (unit == Unit::Init).then(|| Map { uri: what.0.to_owned(), range: range.clone() });
        self.tasks.spawn(async move {
            tokio::time::sleep(wait).await;
            let exchange = seat.net.ask(ask(&address, range.as_deref())).await;
            let body = exchange.ok().map(|answer| answer.body.clone());
            let request = exchange.ask.to_string();
            let object = Object { rendition: seat.index, unit, why, duration, exchange: exchange.clone() };
            seat.tell(Event::Object(object)).await;
            let kept = why == Why::Listed;
            Got { uri, body, request, exchange: kept.then_some(exchange), map }
        });
    }

    fn got(&mut self, got: Got) {
        if got.exchange.is_none() {
            return;
        }
        if let Some(map) = got.map {
            self.inits.insert(map, Some(got.body.unwrap_or_default()));
        } else if self.pending.iter().any(|p| {
            p.listing.uri.as_deref().is_some_and(|uri| key(uri, p.listing.range.as_deref()) == got.uri)
        }) {
            self.segments.insert(got.uri, (got.request, got.body));
        } else {
            self.order.push_back(got.uri.clone());
            self.parts.insert(got.uri, got.body);
            while self.order.len() > PARTS_MAX {
                if let Some(oldest) = self.order.pop_front() {
                    self.parts.remove(&oldest);
                }
            }
        }
    }

    /// Hands over segments whose bytes are all there, in order.
    async fn emit(&mut self) {
        while let Some(first) = self.pending.front() {
            let listing = &first.listing;
            let uri = key(listing.uri.as_deref().unwrap_or_default(), listing.range.as_deref());
            let init = listing.map.as_ref().and_then(|map| self.inits.get(map));
            let parts_missing = listing
                .parts
                .iter()
                .any(|part| !part.gap && !self.has(&key(&part.uri, part.range.as_deref())));
            let idle = self.tasks.is_empty();
            if (!self.segments.contains_key(&uri) || init.is_some_and(Option::is_none) || parts_missing)
                && !idle
            {
                return;
            }
            let Some(pending) = self.pending.pop_front() else { return };
            let Some((request, Some(body))) = self.segments.remove(&uri) else { continue };
            let listing = pending.listing;
            let init = listing
                .map
                .as_ref()
                .and_then(|map| self.inits.get(map))
                .cloned()
                .flatten()
                .filter(|b| !b.is_empty());
            // Byte ranges of I-frames end inside of a box: there is nothing to read in them.
            if self.seat.rendition.role == Role::IFrames && listing.range.is_some() {
                continue;
            }
            let parts = listing
                .parts
                .iter()
                .map(|part| self.parts.get(&key(&part.uri, part.range.as_deref())).cloned().flatten())
                .collect();
            let case = Case {
                rendition: self.seat.index,
                date_us: pending.date_us,
                listing,
                request,
                init,
                body,
                parts,
            };
            self.seat.tell(Event::Case(Box::new(case))).await;
        }
    }

    fn has(&self, key: &str) -> bool {
        self.parts.contains_key(key)
    }
}

fn key(uri: &str, range: Option<&str>) -> String {
    range.map_or_else(|| uri.to_owned(), |range| format!("{uri} {range}"))
}

/// A GET, of a range `n@o` if there is one.
pub(crate) fn ask(address: &Address, range: Option<&str>) -> Ask {
    let mut ask = Ask::get(address);
    let bounds = range.and_then(|range| {
        let (length, offset) = range.split_once('@').unwrap_or((range, "0"));
        let (length, offset) = (length.parse::<u64>().ok()?, offset.parse::<u64>().ok()?);
        Some(format!("bytes={offset}-{}", (offset + length).checked_sub(1)?))
    });
    if let Some(value) = bounds.and_then(|bounds| bounds.parse().ok()) {
        ask.headers.push((header::RANGE, value));
    }
    ask
}

/// Segments completed with the newest view that can be compared elsewhere.
pub(crate) fn uris(view: &View) -> BTreeSet<(&'static str, String)> {
    let mut found = BTreeSet::new();
    let media = &view.media;
    if let Some(newest) = media.newest().filter(|newest| !newest.gap && newest.range.is_none()) {
        found.extend(newest.uri.clone().map(|uri| ("segment", uri)));
        found.extend(newest.map.clone().filter(|map| map.range.is_none()).map(|map| ("init", map.uri)));
    }
    let parts = media.segments.iter().flat_map(|segment| &segment.parts);
    found.extend(
        parts.last().filter(|part| !part.gap && part.range.is_none()).map(|part| ("part", part.uri.clone())),
    );
    found
}
