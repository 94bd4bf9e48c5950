//! What the driver records and the rules judge: renditions, playlists as they were seen, probes and media objects.
#![deny(clippy::disallowed_methods)]

use crate::address::Address;
use crate::check::exchange::{Exchange, Handshake};
use crate::check::ledger::Evidence;
use crate::check::master::Master;
use crate::check::media::{Media, Segment};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// What a media playlist is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// A variant, whatever is in it.
    Variant,
    Audio,
    Subtitles,
    IFrames,
}

/// One media playlist of the presentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rendition {
    /// Its URI as the multivariant playlist has it, or its path.
    pub(crate) name: String,
    pub(crate) address: Address,
    pub(crate) role: Role,
    /// BANDWIDTH, 0 if unknown.
    pub(crate) bandwidth: u64,
}

/// What is checked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Presentation {
    /// The multivariant playlist, if the target is one.
    pub(crate) master: Option<Arc<(Exchange, Master)>>,
    pub(crate) renditions: Vec<Rendition>,
}

/// A media playlist as it was seen once.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) rendition: usize,
    pub(crate) exchange: Exchange,
    /// `_HLS_msn` and `_HLS_part` of the request.
    pub(crate) asked: Option<(u64, Option<u32>)>,
    pub(crate) media: Media,
}

impl View {
    /// Evidence about the whole of it.
    pub(crate) fn whole(&self, said: impl Into<String>) -> Evidence {
        Evidence::of(self.exchange.ask.to_string(), said)
    }

    /// Evidence about a line of it.
    pub(crate) fn at(&self, line: usize, said: impl Into<String>) -> Evidence {
        self.whole(said).line(line, self.media.sheet.text(line))
    }

    /// When its response header was there.
    pub(crate) fn time(&self) -> Duration {
        self.exchange.outcome.as_ref().map_or(self.exchange.sent, |answer| answer.head)
    }
}

/// A request made to see how the server takes it. `M` is the newest complete segment, `N` the newest part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Probe {
    /// `_HLS_msn=M+1` alone (BR-01).
    SegmentAlone(u64),
    /// A part index past the end of complete segment M (BR-03).
    PastEnd(u64),
    /// Something the playlist has, or had before its window (BR-04).
    Older,
    /// An MSN too far ahead (BR-05).
    TooFar,
    /// A part too far ahead (BR-06).
    TooFarPart,
    /// `_HLS_part` alone (BR-07).
    PartAlone,
    /// A directive that is no integer (BR-08).
    Malformed,
    /// The same blocking request twice at once (BR-12).
    Twice,
    /// The same with its query in another order and with foreign parameters, at once (BR-14).
    Permuted,
    /// `_HLS_msn` of an I-frame playlist (BR-13).
    IFrame(u64),
    /// Directives far ahead, of a playlist that has ended (BR-10).
    Ended,
    /// The full playlist, and `_HLS_skip` of this value, at the same (msn, part).
    Skip(&'static str),
    /// A media URI that does not exist (PH-06, DL-11).
    Unknown,
    /// Plain and with Accept-Encoding: gzip, for the same (msn, part).
    Gzip,
    /// OPTIONS for a range request.
    Preflight,
    /// A range that ends at 2^53-1 of the hinted part, where hints have byte ranges (PH-07), or of a byte range part.
    Range,
}

/// Which object it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Unit {
    Init,
    Part(u64, u32),
    Segment(u64),
}

/// Why an object was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// It was listed.
    Listed,
    /// It was hinted at, when it did not exist yet.
    Hinted,
    /// Its tag was removed; by the rules it must still be there.
    Removed,
}

/// A media object got once.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    pub(crate) rendition: usize,
    pub(crate) unit: Unit,
    pub(crate) why: Why,
    /// As listed, zero for inits.
    pub(crate) duration: Duration,
    pub(crate) exchange: Exchange,
}

/// A complete segment with all that was got of it.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) rendition: usize,
    pub(crate) listing: Segment,
    /// Its date by the playlist, Unix microseconds.
    pub(crate) date_us: Option<i64>,
    /// Of the segment: for evidence.
    pub(crate) request: String,
    pub(crate) init: Option<Bytes>,
    pub(crate) body: Bytes,
    /// Bodies of its listed parts; `None`: not got.
    pub(crate) parts: Vec<Option<Bytes>>,
}

/// The same resource from another server.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    pub(crate) what: &'static str,
    pub(crate) here: Exchange,
    pub(crate) there: Exchange,
}

/// What the driver tells the judge, in the order in which it came about.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    Presentation(Presentation),
    Handshake(Option<Result<Handshake, String>>),
    /// A media playlist of the follower.
    View(Arc<View>),
    /// A media playlist asked for without directives, beside the follower.
    Plain(Arc<View>),
    /// All renditions asked for at the same moment, and again before and after that moment.
    Together {
        before: Vec<Arc<View>>,
        views: Vec<Arc<View>>,
        after: Vec<Arc<View>>,
    },
    /// A playlist request of the follower that failed.
    Lost {
        rendition: usize,
        exchange: Exchange,
    },
    Probe {
        rendition: usize,
        probe: Probe,
        tip: Arc<View>,
        exchanges: Vec<Exchange>,
    },
    Object(Object),
    Case(Box<Case>),
    Pair(Box<Pair>),
    /// The other server's multivariant playlist.
    Elsewhere(Box<(Exchange, Presentation)>),
    TuneIn {
        requests: u32,
        behind: Duration,
        part_target: Duration,
        request: String,
    },
}
