//! What a rendition's playlists list: the lines of its complete segments, however many hours of them, in pieces of text
//! that are written and compressed once.
//!
//! Segments are grouped by number into blocks. A block is written when all of its segments have lost their parts; a
//! playlist is then its head, its blocks, and the few segments that are in none. What is written of a segment depends on
//! the one before it, so a block whose predecessor is not known stays in the head.
//!
//! Invariant: a text depends on the lines alone, not on when its blocks were made.

use crate::chunk::Chunk;
use sigma_shared::playlist::{SegmentLine, SegmentWriter};
use sigma_shared::resource::Listed;
use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

/// Segments in a block: fewer cost compression, more cost writing at the ends.
const BLOCK: u64 = 64;

/// The lines of the complete segments of one rendition.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    lines: VecDeque<SegmentLine>,
    media: Blocks,
    iframes: Blocks,
}

/// Blocks in order, without a hole between them.
#[derive(Debug, Default)]
struct Blocks(VecDeque<(u64, Arc<Chunk>)>);

impl Listing {
    /// In order; numbers rise by one.
    pub(crate) fn lines(&self) -> &VecDeque<SegmentLine> {
        &self.lines
    }

    /// Adds a complete segment. A number that does not follow begins a new list.
    pub(crate) fn push(&mut self, line: SegmentLine) {
        if self.lines.back().is_some_and(|last| last.msn + 1 != line.msn) {
            *self = Self::default();
        }
        self.lines.push_back(line);
    }

    /// Takes the first segment off.
    pub(crate) fn pop_front(&mut self) -> Option<SegmentLine> {
        let line = self.lines.pop_front()?;
        for blocks in [&mut self.media, &mut self.iframes] {
            // Without the segment before it, a block's first has to state what is in force.
            if blocks.0.front().is_some_and(|(first, _)| *first <= line.msn + 1) {
                blocks.0.pop_front();
            }
        }
        Some(line)
    }

    fn line(&self, msn: u64) -> Option<&SegmentLine> {
        let first = self.lines.front()?.msn;
        self.lines.get(usize::try_from(msn.checked_sub(first)?).ok()?)
    }

    /// Writes the blocks that are due: those whose segments are all before `recent_from`.
    fn seal(&mut self, recent_from: u64) {
        let Some(first) = self.lines.front().map(|line| line.msn) else {
            return;
        };
        let next = |blocks: &Blocks| match blocks.0.back() {
            Some((msn, _)) => msn + BLOCK,
            None => (first / BLOCK + 1) * BLOCK,
        };
        while let from @ 1.. = next(&self.media)
            && from + BLOCK <= recent_from
        {
            let sealed = [Listed::Media, Listed::IFrames]
                .map(|listed| Arc::new(self.written(listed, from, from + BLOCK)));
            let [media, iframes] = sealed;
            self.media.0.push_back((from, media));
            self.iframes.0.push_back((from, iframes));
        }
    }

    /// The text of segments `from..to`, of which the one before `from` is listed.
    fn written(&self, listed: Listed, from: u64, to: u64) -> Chunk {
        let mut writer =
            SegmentWriter::new(listed, from.checked_sub(1).and_then(|msn| self.line(msn)).copied());
        let mut text = String::new();
        for line in (from..to).filter_map(|msn| self.line(msn)) {
            writer.segment(&mut text, line, &[]);
        }
        Chunk::new(text)
    }

    /// Freezes the list. Segments from `recent_from` on may be listed with parts; of the others, those whose end is
    /// more than `skip_until` ticks before the end of the last one are left out of delta updates (SK-02).
    pub(crate) fn freeze(&mut self, recent_from: u64, skip_until: u64) -> [Arc<Frozen>; 2] {
        self.seal(recent_from);
        let count = self.lines.len();
        let mut kept = 0;
        let mut length = 0u64;
        for line in self.lines.iter().rev() {
            if length > skip_until {
                break;
            }
            length += u64::from(line.duration);
            kept += 1;
        }
        let delta: Vec<SegmentLine> = self.lines.range(count - kept..).copied().collect();
        [(Listed::Media, &self.media), (Listed::IFrames, &self.iframes)].map(|(listed, blocks)| {
            let first = self.lines.front().map_or(0, |line| line.msn);
            let head_to = blocks.0.front().map_or(recent_from, |(msn, _)| *msn);
            let tail_from = blocks.0.back().map_or(head_to, |(msn, _)| msn + BLOCK);
            let range = |from: u64, to: u64| {
                (from.max(first)..to).filter_map(|msn| self.line(msn)).copied().collect()
            };
            Arc::new(Frozen {
                listed,
                first_msn: first,
                head: range(first, head_to),
                blocks: blocks.0.iter().map(|(_, chunk)| Arc::clone(chunk)).collect(),
                tail: range(tail_from, recent_from.max(tail_from)),
                before_tail: tail_from.checked_sub(1).and_then(|msn| self.line(msn)).copied(),
                recent: range(recent_from.max(tail_from), first + count as u64),
                delta: delta.clone(),
                skipped: (count - kept) as u64,
                head_chunk: OnceLock::new(),
                tail_chunk: OnceLock::new(),
            })
        })
    }
}

/// A list at one moment; what it writes is written once and kept with it.
#[derive(Debug)]
pub(crate) struct Frozen {
    listed: Listed,
    pub(crate) first_msn: u64,
    head: Vec<SegmentLine>,
    blocks: Vec<Arc<Chunk>>,
    tail: Vec<SegmentLine>,
    before_tail: Option<SegmentLine>,
    /// Complete segments that may be listed with parts.
    pub(crate) recent: Vec<SegmentLine>,
    /// The segments of a delta update.
    pub(crate) delta: Vec<SegmentLine>,
    /// How many segments a delta update leaves out.
    pub(crate) skipped: u64,
    head_chunk: OnceLock<Chunk>,
    tail_chunk: OnceLock<Chunk>,
}

impl Frozen {
    /// The text of everything before `recent`, in pieces.
    pub(crate) fn chunks(&self) -> Vec<&Chunk> {
        let written = |lines: &[SegmentLine], before| {
            let mut writer = SegmentWriter::new(self.listed, before);
            let mut text = String::new();
            lines.iter().for_each(|line| writer.segment(&mut text, line, &[]));
            Chunk::new(text)
        };
        let mut chunks = Vec::with_capacity(self.blocks.len() + 2);
        if !self.head.is_empty() {
            chunks.push(self.head_chunk.get_or_init(|| written(&self.head, None)));
        }
        chunks.extend(self.blocks.iter().map(AsRef::as_ref));
        if !self.tail.is_empty() {
            chunks.push(self.tail_chunk.get_or_init(|| written(&self.tail, self.before_tail)));
        }
        chunks
    }

    /// The segment before `recent`, if it is listed.
    pub(crate) fn before_recent(&self) -> Option<SegmentLine> {
        let before = self.tail.last().copied();
        before.or_else(|| if self.blocks.is_empty() { self.head.last().copied() } else { self.before_tail })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::Text;
    use proptest::prelude::*;
    use sigma_shared::resource::InitHash;

    fn line(msn: u64) -> SegmentLine {
        SegmentLine {
            msn,
            duration: 180_000,
            discontinuity: msn % 50 == 7,
            gap: msn % 31 == 3,
            independent: !msn.is_multiple_of(5),
            init: InitHash(msn / 70),
            program_date_time_ms: i64::try_from(msn).expect("small") * 2000,
        }
    }

    /// What a writer that knows nothing of blocks makes of the lines.
    fn expected(listed: Listed, from: u64, to: u64) -> String {
        let mut writer = SegmentWriter::new(listed, None);
        let mut text = String::new();
        (from..to).for_each(|msn| writer.segment(&mut text, &line(msn), &[]));
        text
    }

    fn whole(frozen: &Frozen) -> String {
        let mut text = String::from_utf8(Text::of(&frozen.chunks()).to_bytes().to_vec()).expect("text");
        let mut writer = SegmentWriter::new(frozen.listed, frozen.before_recent());
        frozen.recent.iter().for_each(|line| writer.segment(&mut text, line, &[]));
        text
    }

    proptest! {
        #[test]
        fn blocks_change_nothing_of_the_text(
            from in 0u64..200,
            steps in proptest::collection::vec((1u64..150, 0u64..120, 0u64..8), 1..8),
        ) {
            let mut listing = Listing::default();
            let (mut first, mut next, mut recent_from) = (from, from, from);
            for (add, drop, recent) in steps {
                for _ in 0..add {
                    listing.push(line(next));
                    next += 1;
                }
                for _ in 0..drop.min(next - first - 1) {
                    listing.pop_front();
                    first += 1;
                }
                // Parts are dropped for good.
                recent_from = next.saturating_sub(recent).max(first).max(recent_from);
                for frozen in listing.freeze(recent_from, 12 * 90_000) {
                    prop_assert_eq!(whole(&frozen), expected(frozen.listed, first, next));
                    prop_assert_eq!(frozen.recent.len() as u64, next - recent_from);
                    prop_assert_eq!(frozen.skipped + frozen.delta.len() as u64, next - first);
                }
            }
        }
    }

    #[test]
    fn sk_02_only_what_is_further_from_the_end_than_the_skip_boundary_is_skipped() {
        let mut listing = Listing::default();
        (100..130).for_each(|msn| listing.push(line(msn)));
        let [media, _] = listing.freeze(127, 12 * 90_000);
        // Twelve seconds are six segments; the seventh from the end ends exactly on the boundary, not beyond it.
        assert_eq!((media.skipped, media.delta.len()), (23, 7));
        let [media, _] = listing.freeze(127, 1 << 40);
        assert_eq!(media.skipped, 0);
    }

    #[test]
    fn a_number_that_does_not_follow_begins_a_new_list() {
        let mut listing = Listing::default();
        (100..103).chain(110..112).for_each(|msn| listing.push(line(msn)));
        assert_eq!(listing.lines().front().map(|line| line.msn), Some(110));
    }
}
