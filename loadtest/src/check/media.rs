//! A media playlist, read strictly: the model that the rules look at, with line numbers, and the flaws of its syntax.
//!
//! Invariants: linear in the text, never panics; segments and parts are kept up to [`UNITS_MAX`] each. Deliberately
//! absent: judgements (the rules'), except those about syntax that only a reader can make, collected as flaws.
#![deny(clippy::disallowed_methods)]

use crate::check::attributes::{Attributes, integer, seconds};
use crate::check::catalog::Rule;
use crate::check::date::{DateTime, date_time};
use crate::check::sheet::{Flaw, Sheet, Tag};
use crate::check::tags::Scope;
use std::collections::BTreeSet;
use std::time::Duration;

/// Segments, and parts, kept of one playlist: a day of 2 s segments.
pub(crate) const UNITS_MAX: usize = 65_536;

/// EXT-X-MAP.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Map {
    pub(crate) uri: String,
    pub(crate) range: Option<String>,
}

/// EXT-X-PART.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) line: usize,
    /// Empty if it has none.
    pub(crate) uri: String,
    pub(crate) duration: Option<Duration>,
    pub(crate) independent: bool,
    pub(crate) gap: bool,
    pub(crate) range: Option<String>,
}

/// A Media Segment; the last one may be open, with parts only.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) msn: u64,
    /// Of the URI, or of its first tag while it is open.
    pub(crate) line: usize,
    /// `None`: open.
    pub(crate) uri: Option<String>,
    pub(crate) duration: Duration,
    pub(crate) discontinuity: bool,
    /// Discontinuity Sequence Number.
    pub(crate) dsn: u64,
    pub(crate) gap: bool,
    /// In force here.
    pub(crate) map: Option<Map>,
    /// EXT-X-KEY in force, as text.
    pub(crate) key: String,
    /// EXT-X-PROGRAM-DATE-TIME of its own.
    pub(crate) pdt: Option<DateTime>,
    /// Bytes `n@o`, as text.
    pub(crate) range: Option<String>,
    pub(crate) bitrate: Option<u64>,
    pub(crate) parts: Vec<Part>,
}

impl Segment {
    /// How long what is listed of it is.
    pub(crate) fn listed(&self) -> Duration {
        if self.uri.is_some() { self.duration } else { self.listed_parts() }
    }

    /// How long its listed parts are together.
    pub(crate) fn listed_parts(&self) -> Duration {
        self.parts.iter().filter_map(|part| part.duration).sum()
    }
}

/// A whole media playlist.
#[derive(Debug, Clone, Default)]
pub(crate) struct Media {
    pub(crate) sheet: Sheet,
    pub(crate) version: Option<u64>,
    /// Zero if missing or no number.
    pub(crate) target_duration: Duration,
    pub(crate) part_target: Option<Duration>,
    /// EXT-X-SERVER-CONTROL
    pub(crate) control: Option<Attributes>,
    pub(crate) media_sequence: u64,
    pub(crate) discontinuity_sequence: Option<u64>,
    pub(crate) i_frames_only: bool,
    pub(crate) independent_segments: bool,
    pub(crate) ended: bool,
    /// SKIPPED-SEGMENTS
    pub(crate) skipped: Option<u64>,
    pub(crate) segments: Vec<Segment>,
    /// Segment or part beyond [`UNITS_MAX`] were left out.
    pub(crate) cut: bool,
}

impl Media {
    /// Reads a body as a media playlist, whatever it is.
    pub(crate) fn read(body: &[u8]) -> Self {
        let mut reader = Reader {
            media: Self { sheet: Sheet::read(body, Scope::Media), ..Self::default() },
            ..Reader::default()
        };
        let sheet = std::mem::take(&mut reader.media.sheet);
        let mut tags = sheet.tags.iter().peekable();
        for (index, line) in sheet.lines.iter().enumerate() {
            let number = index + 1;
            if let Some(tag) = tags.next_if(|tag| tag.line == number) {
                reader.tag(tag);
            } else if !line.is_empty() && !line.starts_with('#') {
                reader.uri(number, line);
            }
        }
        if !reader.open.parts.is_empty() {
            reader.close(None);
        }
        let mut media = reader.media;
        media.sheet = sheet;
        media.sheet.flaws.append(&mut reader.flaws);
        media
    }

    /// An attribute of EXT-X-SERVER-CONTROL, as seconds.
    pub(crate) fn control_seconds(&self, name: &str) -> Option<Duration> {
        self.control.as_ref()?.seconds(name)
    }

    /// CAN-BLOCK-RELOAD=YES
    pub(crate) fn can_block(&self) -> bool {
        self.control.as_ref().is_some_and(|control| control.yes("CAN-BLOCK-RELOAD"))
    }

    /// Tags of a name, with their attributes.
    pub(crate) fn tagged<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Tag> {
        self.sheet.tags.iter().filter(move |tag| tag.name == name)
    }

    /// The hint of a TYPE.
    pub(crate) fn hint(&self, kind: &str) -> Option<&Tag> {
        self.sheet
            .tags
            .iter()
            .find(|tag| tag.name == "EXT-X-PRELOAD-HINT" && tag.list.get("TYPE") == Some(kind))
    }

    /// What does not exist yet: MSN and Part Index after the newest. Without parts the part is 0.
    pub(crate) fn next(&self) -> (u64, u32) {
        match self.segments.last() {
            Some(open) if open.uri.is_none() => {
                (open.msn, u32::try_from(open.parts.len()).unwrap_or(u32::MAX))
            }
            Some(last) => (last.msn.saturating_add(1), 0),
            None => (self.media_sequence.saturating_add(self.skipped.unwrap_or(0)), 0),
        }
    }

    /// The newest complete segment.
    pub(crate) fn newest(&self) -> Option<&Segment> {
        self.segments.iter().rev().find(|segment| segment.uri.is_some())
    }

    /// How long all that is listed is.
    pub(crate) fn length(&self) -> Duration {
        self.segments.iter().map(Segment::listed).sum()
    }

    /// Whether it is one at all.
    pub(crate) fn is_playlist(&self) -> bool {
        self.sheet.lines.first().is_some_and(|line| line == "#EXTM3U") && !self.target_duration.is_zero()
    }
}

#[derive(Default)]
struct Reader {
    media: Media,
    flaws: Vec<Flaw>,
    open: Segment,
    /// The next segment's MSN, as an offset to MEDIA-SEQUENCE.
    offset: u64,
    dsn: u64,
    begun: bool,
    discontinuities: bool,
    map: Option<Map>,
    keys: BTreeSet<String>,
    key: String,
    bitrate: Option<u64>,
    /// Where the last byte range ended: the next one without an offset starts there.
    range_end: u64,
}

impl Reader {
    /// A byte range with its offset spelt out.
    fn absolute(&mut self, range: &str) -> String {
        let (length, offset) = match range.split_once('@') {
            Some((length, offset)) => (length, integer(offset).unwrap_or(0)),
            None => (range, self.range_end),
        };
        self.range_end = offset.saturating_add(integer(length).unwrap_or(0));
        format!("{length}@{offset}")
    }

    fn flaw(&mut self, rule: Rule, line: usize, said: &str) {
        self.flaws.push(Flaw { rule, line, said: said.to_owned() });
    }

    fn tag(&mut self, tag: &Tag) {
        let media = &mut self.media;
        match tag.name.as_str() {
            "EXT-X-VERSION" => media.version = integer(&tag.value),
            "EXT-X-TARGETDURATION" => {
                media.target_duration = Duration::from_secs(integer(&tag.value).unwrap_or(0));
            }
            "EXT-X-MEDIA-SEQUENCE" => {
                media.media_sequence = integer(&tag.value).unwrap_or(0);
                if self.begun {
                    self.flaw(Rule::Syn09, tag.line, "it comes after the first segment");
                }
            }
            "EXT-X-DISCONTINUITY-SEQUENCE" => {
                media.discontinuity_sequence = integer(&tag.value);
                self.dsn = integer(&tag.value).unwrap_or(0);
                if self.begun || self.discontinuities {
                    self.flaw(Rule::Syn09, tag.line, "it comes after the first segment or discontinuity");
                }
            }
            "EXT-X-I-FRAMES-ONLY" => media.i_frames_only = true,
            "EXT-X-INDEPENDENT-SEGMENTS" => media.independent_segments = true,
            "EXT-X-ENDLIST" => media.ended = true,
            "EXT-X-PART-INF" => media.part_target = tag.list.seconds("PART-TARGET"),
            "EXT-X-SERVER-CONTROL" => media.control = Some(tag.list.clone()),
            "EXT-X-SKIP" => {
                let skipped = tag.list.integer("SKIPPED-SEGMENTS").unwrap_or(0);
                media.skipped = Some(skipped);
                self.offset = self.offset.saturating_add(skipped);
                self.begun = true;
            }
            _ => self.segment_tag(tag),
        }
    }

    fn segment_tag(&mut self, tag: &Tag) {
        let late = |reader: &mut Self, said: &str| {
            if !reader.open.parts.is_empty() {
                reader.flaw(Rule::Pt07, tag.line, said);
            }
        };
        match tag.name.as_str() {
            "EXTINF" => {
                let text = tag.value.split(',').next().unwrap_or_default();
                match seconds(text) {
                    Some(duration) => self.open.duration = duration,
                    None => self.flaw(Rule::Syn05, tag.line, "the duration is no decimal number"),
                }
                if !tag.value.contains(',') {
                    self.flaw(Rule::Syn05, tag.line, "EXTINF without the comma after its duration");
                }
            }
            "EXT-X-DISCONTINUITY" => {
                late(self, "EXT-X-DISCONTINUITY after the parent's first part");
                self.open.discontinuity = true;
                self.discontinuities = true;
                self.dsn = self.dsn.saturating_add(1);
            }
            "EXT-X-GAP" => self.open.gap = true,
            "EXT-X-MAP" => {
                late(self, "EXT-X-MAP after the parent's first part");
                let uri = tag.list.get("URI").unwrap_or_default().to_owned();
                self.map = Some(Map { uri, range: tag.list.get("BYTERANGE").map(str::to_owned) });
            }
            "EXT-X-KEY" => {
                late(self, "EXT-X-KEY after the parent's first part");
                if tag.list.get("METHOD") == Some("NONE") {
                    self.keys.clear();
                } else {
                    self.keys.insert(tag.value.clone());
                }
                self.key = self.keys.iter().cloned().collect::<Vec<_>>().join(";");
            }
            "EXT-X-PROGRAM-DATE-TIME" => {
                late(self, "EXT-X-PROGRAM-DATE-TIME after the parent's first part");
                self.open.pdt = date_time(&tag.value);
            }
            "EXT-X-BYTERANGE" => self.open.range = Some(self.absolute(&tag.value)),
            "EXT-X-BITRATE" => self.bitrate = integer(&tag.value),
            "EXT-X-PART" => self.part(tag),
            _ => {}
        }
    }

    fn part(&mut self, tag: &Tag) {
        self.begun = true;
        if self.open.parts.len() >= UNITS_MAX {
            self.media.cut = true;
            return;
        }
        if self.open.line == 0 {
            self.open.line = tag.line;
        }
        let range = tag.list.get("BYTERANGE").map(|range| self.absolute(range));
        self.open.parts.push(Part {
            line: tag.line,
            uri: tag.list.get("URI").unwrap_or_default().to_owned(),
            duration: tag.list.seconds("DURATION"),
            independent: tag.list.yes("INDEPENDENT"),
            gap: tag.list.yes("GAP"),
            range,
        });
    }

    fn uri(&mut self, line: usize, uri: &str) {
        self.open.line = line;
        self.close(Some(uri.to_owned()));
    }

    fn close(&mut self, uri: Option<String>) {
        self.begun = true;
        let mut segment = std::mem::take(&mut self.open);
        if self.media.segments.len() >= UNITS_MAX {
            self.media.cut = true;
            return;
        }
        segment.msn = self.media.media_sequence.saturating_add(self.offset);
        segment.uri = uri;
        segment.dsn = self.dsn;
        segment.map.clone_from(&self.map);
        segment.key.clone_from(&self.key);
        segment.bitrate = self.bitrate;
        self.offset = self.offset.saturating_add(1);
        self.media.segments.push(segment);
    }
}

#[cfg(test)]
mod tests;
