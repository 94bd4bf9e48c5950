//! One moment of a rendition, shared by all readers: what can be fetched, and every playlist over it.
//!
//! Invariants: immutable (A2); each playlist is written at most once per snapshot, when it is first asked for, however
//! many ask, so that what nobody watches costs nothing.

use crate::chunk::{Chunk, Text};
use crate::daterange::DateRanges;
use crate::listing::Frozen;
use crate::window::{Part, Segment};
use bytes::Bytes;
use sigma_shared::directives::Skip;
use sigma_shared::mode::Mode;
use sigma_shared::playlist::{Foot, Head, PartLine, RenditionReport, SegmentWriter, ServerControl, Skipped};
use sigma_shared::reload::Tip;
use sigma_shared::resource::{InitHash, Listed};
use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::{Arc, OnceLock};

/// Kinds of playlist: two things listed, three modes, in full and the two delta updates.
const PLAYLISTS: usize = 18;

/// See the module.
#[derive(Debug)]
pub struct RenditionSnapshot {
    /// How far it has got.
    pub tip: Tip,
    /// Constants of the playlists.
    pub control: ServerControl,
    pub(crate) discontinuity_sequence: u64,
    pub(crate) segments: VecDeque<Arc<Segment>>,
    pub(crate) inits: VecDeque<(InitHash, Bytes)>,
    pub(crate) media: Arc<Frozen>,
    pub(crate) iframes: Arc<Frozen>,
    pub(crate) parts_since: i64,
    pub(crate) next_init: Option<InitHash>,
    pub(crate) dateranges: Arc<DateRanges>,
    pub(crate) reports: Arc<[RenditionReport]>,
    pub(crate) iframe_reports: Arc<[RenditionReport]>,
    pub(crate) rendered: [OnceLock<Text>; PLAYLISTS],
}

/// Where a part is.
#[derive(Debug)]
pub enum PartLookup<'a> {
    /// Here.
    Found(&'a Part),
    /// It is the hinted one: it will come (PH-05).
    Hinted,
    /// It never was, is gone, or was hinted and then not made (PH-06).
    Absent,
}

impl RenditionSnapshot {
    /// A playlist, in full or as the delta update that is asked for (SK-01).
    #[must_use]
    pub fn playlist(&self, listed: Listed, mode: Mode, skip: Option<Skip>) -> &Text {
        // A finished playlist is whole, and so is one in which nothing can be skipped (docs/adr/0001).
        let skip = skip.filter(|_| !self.tip.ended && self.media.skipped > 0);
        let slot = (listed as usize * 3 + mode as usize) * 3 + skip.map_or(0, |skip| 1 + skip as usize);
        self.rendered[slot].get_or_init(|| match skip {
            None => self.full(listed, mode),
            Some(skip) => self.delta(listed, mode, skip),
        })
    }

    /// How far a playlist has got: without parts, only whole segments count.
    #[must_use]
    pub fn tip_of(&self, listed: Listed, mode: Mode) -> Tip {
        if listed == Listed::Media && mode == Mode::Ultra {
            self.tip
        } else {
            Tip { open_parts: 0, ..self.tip }
        }
    }

    fn frozen(&self, listed: Listed) -> &Frozen {
        match listed {
            Listed::Media => &self.media,
            Listed::IFrames => &self.iframes,
        }
    }

    fn head(&self, listed: Listed, mode: Mode) -> Head<'_> {
        Head {
            listed,
            mode,
            control: self.control,
            media_sequence: self.media.first_msn,
            discontinuity_sequence: self.discontinuity_sequence,
            skipped: None,
        }
    }

    fn full(&self, listed: Listed, mode: Mode) -> Text {
        let frozen = self.frozen(listed);
        let head = Chunk::new(self.head(listed, mode).to_string());
        let mut end = String::with_capacity(4096);
        let mut writer = SegmentWriter::new(listed, frozen.before_recent());
        for line in &frozen.recent {
            writer.segment(&mut end, line, &self.parts(listed, mode, line.msn));
        }
        self.finish(&mut end, &mut writer, (listed, mode), None);
        let end = Chunk::new(end);
        let mut chunks = vec![&head];
        chunks.extend(frozen.chunks());
        chunks.push(&end);
        Text::of(&chunks)
    }

    fn delta(&self, listed: Listed, mode: Mode, skip: Skip) -> Text {
        let frozen = self.frozen(listed);
        let removed = self.dateranges.recently_removed();
        let removed_dateranges = (skip == Skip::V2).then_some(&removed[..]);
        let skipped = Some(Skipped { segments: frozen.skipped, removed_dateranges });
        let mut text = Head { skipped, ..self.head(listed, mode) }.to_string();
        // SK-05: the first segment of this text states what is in force.
        let mut writer = SegmentWriter::new(listed, None);
        for line in &frozen.delta {
            writer.segment(&mut text, line, &self.parts(listed, mode, line.msn));
        }
        let since_ms = frozen.delta.first().map(|line| line.program_date_time_ms);
        self.finish(&mut text, &mut writer, (listed, mode), since_ms.filter(|_| skip == Skip::V2));
        Text::from_string(text)
    }

    /// The open parent and the foot.
    fn finish(
        &self,
        text: &mut String,
        writer: &mut SegmentWriter,
        (listed, mode): (Listed, Mode),
        dateranges_since_ms: Option<i64>,
    ) {
        let open =
            self.segments.back().filter(|segment| segment.duration.is_none() && !segment.parts.is_empty());
        if let Some(open) = open.filter(|_| listed == Listed::Media && mode == Mode::Ultra) {
            writer.open(text, &open.line(), &self.parts(listed, mode, open.msn));
        }
        let foot = Foot {
            listed,
            mode,
            tip: self.tip,
            next_init: self.next_init,
            dateranges: &self.dateranges.listed(dateranges_since_ms),
            reports: if listed == Listed::Media { &self.reports } else { &self.iframe_reports },
        };
        // Writing to a String cannot fail.
        let _ = write!(text, "{foot}");
    }

    /// The parts to list with a segment.
    fn parts(&self, listed: Listed, mode: Mode, msn: u64) -> Vec<PartLine> {
        if listed == Listed::IFrames || mode != Mode::Ultra {
            return Vec::new(); // PT-08
        }
        let recent = self.find(msn).filter(|segment| segment.start >= self.parts_since);
        recent.map_or_else(Vec::new, |segment| segment.parts.iter().map(|part| part.line).collect())
    }

    /// Looks a part up.
    #[must_use]
    pub fn part(&self, msn: u64, index: u32) -> PartLookup<'_> {
        let found = self.find(msn).and_then(|segment| segment.parts.get(index as usize));
        match found {
            Some(part) if part.line.gap => PartLookup::Absent,
            Some(part) => PartLookup::Found(part),
            None if !self.tip.ended && (msn, index) == self.tip.next_part() => PartLookup::Hinted,
            None => PartLookup::Absent,
        }
    }

    /// Where a part that is here starts, ticks of 1/90000 s.
    #[must_use]
    pub fn part_start(&self, msn: u64, index: u32) -> Option<i64> {
        let segment = self.find(msn)?;
        let before = segment.parts.get(..index as usize)?;
        Some(segment.start + before.iter().map(|part| i64::from(part.line.duration)).sum::<i64>())
    }

    /// A complete segment that is whole and in memory.
    #[must_use]
    pub fn segment(&self, msn: u64) -> Option<&Arc<Segment>> {
        self.find(msn).filter(|segment| segment.duration.is_some() && !segment.gap)
    }

    /// An init section.
    #[must_use]
    pub fn init(&self, hash: InitHash) -> Option<&Bytes> {
        self.inits.iter().find(|(known, _)| *known == hash).map(|(_, bytes)| bytes)
    }

    fn find(&self, msn: u64) -> Option<&Arc<Segment>> {
        let first = self.segments.front()?.msn;
        self.segments.get(usize::try_from(msn.checked_sub(first)?).ok()?)
    }
}
