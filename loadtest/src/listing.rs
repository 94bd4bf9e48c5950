//! A Media Playlist as a viewer keeps it: owned, with dates worked out, and delta updates merged into it.
//!
//! Viewers of one rendition share listings (`shelf`), so reading may take its time; what is shared must not borrow.
//! Invariants: linear in the text, at most [`MAX_SEGMENTS`] segments and [`MAX_UNITS`] parts kept, unknown tags
//! skipped, nothing panics; a merged listing has no hole that the delta update did not have. Deliberately absent:
//! validation (the conformance checker's), byte ranges, keys.
#![deny(clippy::disallowed_methods)]

use crate::check::date;
use crate::playlist::{MAX_UNITS, PlaylistError, attribute, micros};
use std::sync::Arc;

/// Segments kept of one playlist, newest last: two hours of seconds, and a day of targets of usual size.
pub(crate) const MAX_SEGMENTS: usize = 16_384;

/// Where in the media: Media Sequence Number and Part Index.
pub(crate) type Position = (u64, u32);

/// A Partial Segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) uri: Arc<str>,
    pub(crate) duration_us: u64,
    pub(crate) independent: bool,
    /// GAP: it cannot be had.
    pub(crate) gap: bool,
}

/// A Media Segment; the last one may be open, its parts still coming.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) msn: u64,
    /// `None` while it is open.
    pub(crate) uri: Option<Arc<str>>,
    /// EXTINF, or what its parts have so far.
    pub(crate) duration_us: u64,
    /// PROGRAM-DATE-TIME of its first moment, Unix microseconds.
    pub(crate) start_us: Option<u64>,
    pub(crate) gap: bool,
    pub(crate) init: Option<Arc<str>>,
    /// Empty where the playlist does not list them (any more).
    pub(crate) parts: Vec<Part>,
}

impl Segment {
    /// Sum of the durations of the parts before this one.
    pub(crate) fn offset_us(&self, part: u32) -> u64 {
        self.parts.iter().take(part as usize).map(|part| part.duration_us).sum()
    }
}

/// A Media Playlist as far as a viewer cares.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Listing {
    pub(crate) target_duration_us: u64,
    /// PART-TARGET; `None` when the playlist has no parts.
    pub(crate) part_target_us: Option<u64>,
    pub(crate) part_hold_back_us: u64,
    pub(crate) hold_back_us: u64,
    /// CAN-SKIP-UNTIL; `None`: no delta updates.
    pub(crate) skip_until_us: Option<u64>,
    /// CAN-SKIP-DATERANGES
    pub(crate) skip_dateranges: bool,
    pub(crate) can_block: bool,
    pub(crate) ended: bool,
    pub(crate) media_sequence: u64,
    /// Left out of this text by EXT-X-SKIP; 0 in a full or merged one.
    pub(crate) skipped: u64,
    pub(crate) segments: Vec<Arc<Segment>>,
    /// URI of the part that EXT-X-PRELOAD-HINT names.
    pub(crate) hint: Option<Arc<str>>,
}

impl Listing {
    /// Reads a Media Playlist, full or delta.
    pub(crate) fn read(body: &[u8]) -> Result<Self, PlaylistError> {
        let text = std::str::from_utf8(body).map_err(|_| PlaylistError::NotText)?;
        let mut lines = text.lines();
        if lines.next() != Some("#EXTM3U") {
            return Err(PlaylistError::NoHeader);
        }
        let mut reader = Reader::default();
        for line in lines {
            reader.line(line);
        }
        let mut listing = reader.finished();
        if listing.target_duration_us == 0 {
            return Err(PlaylistError::NoTargetDuration);
        }
        listing.date();
        Ok(listing)
    }

    /// The full playlist that this delta update makes of `base`; `None` if it does not continue it.
    pub(crate) fn merged(&self, base: &Self) -> Option<Self> {
        let from = self.media_sequence.checked_sub(base.media_sequence)?;
        let from = usize::try_from(from).ok()?;
        let kept = base.segments.get(from..from.checked_add(usize::try_from(self.skipped).ok()?)?)?;
        if kept.iter().any(|segment| segment.uri.is_none()) {
            return None;
        }
        let init = kept.last().and_then(|segment| segment.init.clone());
        let mut merged = Self { skipped: 0, segments: kept.to_vec(), ..self.clone() };
        for segment in &self.segments {
            let mut segment = Segment::clone(segment);
            segment.init = segment.init.or_else(|| init.clone());
            merged.segments.push(Arc::new(segment));
        }
        merged.date();
        Some(merged)
    }

    /// What does not exist yet: the position after the newest unit.
    pub(crate) fn next(&self) -> Position {
        match self.segments.last() {
            None => (self.media_sequence + self.skipped, 0),
            Some(last) if last.uri.is_some() => (last.msn + 1, 0),
            Some(open) => (open.msn, u32::try_from(open.parts.len()).unwrap_or(u32::MAX)),
        }
    }

    /// The segment of that number.
    pub(crate) fn segment(&self, msn: u64) -> Option<&Arc<Segment>> {
        let first = self.segments.first()?.msn;
        self.segments.get(usize::try_from(msn.checked_sub(first)?).ok()?)
    }

    /// How far from the end of the playlist a viewer stays.
    pub(crate) fn back_us(&self) -> u64 {
        if self.part_target_us.is_some() {
            self.part_hold_back_us
        } else {
            self.hold_back_us.max(3 * self.target_duration_us)
        }
    }

    /// PROGRAM-DATE-TIME of the end of what is listed.
    pub(crate) fn end_us(&self) -> Option<u64> {
        self.segments.last().and_then(|last| Some(last.start_us? + last.duration_us))
    }

    /// Works out the dates of segments without one from those with one, and failing that, from the newest.
    fn date(&mut self) {
        let mut next: Option<u64> = None;
        for segment in &mut self.segments {
            match (segment.start_us, next) {
                (None, Some(start)) => Arc::make_mut(segment).start_us = Some(start),
                (Some(start), _) => next = Some(start),
                (None, None) => {}
            }
            next = next.map(|start| start + segment.duration_us);
        }
        let mut before: Option<u64> = None;
        for segment in self.segments.iter_mut().rev() {
            if segment.start_us.is_none()
                && let Some(end) = before
            {
                Arc::make_mut(segment).start_us = Some(end.saturating_sub(segment.duration_us));
            }
            before = segment.start_us;
        }
    }
}

#[derive(Default)]
struct Reader {
    listing: Listing,
    parts_kept: usize,
    init: Option<Arc<str>>,
    msn: Option<u64>,
    /// Being read.
    open: Segment,
}

impl Reader {
    fn line(&mut self, line: &str) {
        let Some(tag) = line.strip_prefix("#EXT") else {
            if !line.is_empty() && !line.starts_with('#') {
                self.segment(line);
            }
            return;
        };
        let (name, value) = tag.split_once(':').unwrap_or((tag, ""));
        let listing = &mut self.listing;
        match name {
            "-X-PART" => self.part(value),
            "INF" => self.open.duration_us = micros(value.split(',').next().unwrap_or_default()),
            "-X-GAP" => self.open.gap = true,
            "-X-MAP" => self.init = attribute(value, "URI").map(Arc::from),
            "-X-PROGRAM-DATE-TIME" => {
                self.open.start_us = date::date_time(value).and_then(|at| u64::try_from(at.unix_us).ok());
            }
            "-X-TARGETDURATION" => listing.target_duration_us = micros(value),
            "-X-MEDIA-SEQUENCE" => listing.media_sequence = value.parse().unwrap_or_default(),
            "-X-SKIP" => {
                listing.skipped =
                    attribute(value, "SKIPPED-SEGMENTS").and_then(|n| n.parse().ok()).unwrap_or_default();
            }
            "-X-PART-INF" => listing.part_target_us = attribute(value, "PART-TARGET").map(micros),
            "-X-SERVER-CONTROL" => {
                listing.can_block = attribute(value, "CAN-BLOCK-RELOAD") == Some("YES");
                listing.part_hold_back_us = attribute(value, "PART-HOLD-BACK").map_or(0, micros);
                listing.hold_back_us = attribute(value, "HOLD-BACK").map_or(0, micros);
                listing.skip_until_us = attribute(value, "CAN-SKIP-UNTIL").map(micros);
                listing.skip_dateranges = attribute(value, "CAN-SKIP-DATERANGES") == Some("YES");
            }
            "-X-PRELOAD-HINT" if attribute(value, "TYPE") == Some("PART") => {
                listing.hint = attribute(value, "URI").map(Arc::from);
            }
            "-X-ENDLIST" => listing.ended = true,
            _ => {}
        }
    }

    fn part(&mut self, attributes: &str) {
        let Some(uri) = attribute(attributes, "URI").filter(|uri| !uri.is_empty()) else { return };
        self.parts_kept += 1;
        self.open.parts.push(Part {
            uri: uri.into(),
            duration_us: attribute(attributes, "DURATION").map_or(0, micros),
            independent: attribute(attributes, "INDEPENDENT") == Some("YES"),
            gap: attribute(attributes, "GAP") == Some("YES"),
        });
        if self.parts_kept > MAX_UNITS {
            // More than any player would look at: what was listed first is let go.
            for segment in &mut self.listing.segments {
                self.parts_kept -= segment.parts.len();
                Arc::make_mut(segment).parts = Vec::new();
                if self.parts_kept <= MAX_UNITS / 2 {
                    break;
                }
            }
        }
    }

    fn segment(&mut self, uri: &str) {
        let mut segment = std::mem::take(&mut self.open);
        segment.uri = Some(uri.into());
        self.push(segment);
    }

    fn push(&mut self, mut segment: Segment) {
        let first = self.listing.media_sequence.saturating_add(self.listing.skipped);
        let msn = self.msn.map_or(first, |msn| msn.saturating_add(1));
        self.msn = Some(msn);
        segment.msn = msn;
        segment.init.clone_from(&self.init);
        if self.listing.segments.len() >= MAX_SEGMENTS {
            self.listing.segments.drain(..MAX_SEGMENTS / 2);
        }
        self.listing.segments.push(Arc::new(segment));
    }

    fn finished(mut self) -> Listing {
        if !self.open.parts.is_empty() {
            let mut open = std::mem::take(&mut self.open);
            open.duration_us = open.parts.iter().map(|part| part.duration_us).sum();
            self.push(open);
        }
        self.listing
    }
}

#[cfg(test)]
mod tests;
