//! The time when nobody publishes: gaps, part by part at the pace of the wall clock, so that playlists go on and the
//! timeline has no hole (EV-11).
//!
//! The gaps continue the last run's timeline, without a discontinuity; the next run begins behind them with one. The first
//! of them ends on the segment grid, the others are one cell of it.

use super::Stream;
use crate::TICKS_PER_MS;
use crate::fmp4::Fmp4Error;
use crate::rendition::Rendition;

/// A worker delivers what it has within this; whoever comes back sooner leaves no gap, milliseconds.
const GRACE_MS: i64 = 500;
/// No gap is shorter unless it is cut off, milliseconds: the first one and a cell are within the target duration (SYN-11).
const SHORTEST_MS: i64 = 400;

/// A segment that is a gap, in ticks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Gap {
    msn: u64,
    start: i64,
    end: i64,
}

impl Stream {
    /// Whether a publisher's samples are being taken.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.run.is_some()
    }

    /// Time goes on to `now_ms`, Unix milliseconds, while nobody publishes.
    ///
    /// # Errors
    /// Only when the box writer has a bug.
    pub fn pass_time(&mut self, now_ms: u64) -> Result<(), Fmp4Error> {
        let now_ms = i64::try_from(now_ms).unwrap_or(i64::MAX);
        let idle = self.run.is_none() && !self.finished && self.published.is_fixed();
        let Some(now) =
            self.published.last_timeline.as_ref().filter(|_| idle).map(|timeline| timeline.tick_at(now_ms))
        else {
            return Ok(());
        };
        // A clock that was set forward, or a machine that slept: a list's length at a time.
        let listed = i64::from(self.setup.window_ms.max(self.setup.dvr_ms)) * TICKS_PER_MS;
        let now = now.min(self.timeline_end() + listed);
        if self.gap.is_none() {
            self.begin_gaps(now)?;
        }
        while let Some(gap) = self.gap {
            self.append_gap(gap, now);
            if now < gap.end {
                break;
            }
            self.gap = None;
            self.begin_gap(gap.end, now);
        }
        Ok(())
    }

    /// The first gap: everything of the run that has not come by now does not come any more.
    fn begin_gaps(&mut self, now: i64) -> Result<(), Fmp4Error> {
        let end = self.timeline_end();
        if now < end + GRACE_MS * TICKS_PER_MS {
            return Ok(());
        }
        self.begin_gap(end, now);
        let Some(gap) = self.gap else { return Ok(()) };
        for rendition in self.renditions.iter_mut().filter(|rendition| rendition.is_joined()) {
            rendition.lose_feed()?;
        }
        self.fill_gaps(gap.msn);
        Ok(())
    }

    /// Begins a gap at `start` once every rendition can have a part of it, so that none is left without it.
    fn begin_gap(&mut self, start: i64, now: i64) {
        let Some(newest) = self.plan.current() else { return };
        let shortest = start + SHORTEST_MS * TICKS_PER_MS;
        let end = self.plan.cell_start(self.plan.cell_of(shortest - 1) + 1);
        let part = self.renditions.iter().map(Rendition::part_target_ms).max().unwrap_or(0);
        if now >= end.min(start + i64::from(part) * TICKS_PER_MS) {
            let gap = Gap { msn: newest.msn + 1, start, end };
            self.plan.start_gap(gap.msn, gap.start);
            self.gap = Some(gap);
        }
    }

    /// After a restart: whatever a rendition lacks of segment `newest`, and `gaps` short segments behind it, are gaps, so
    /// that all renditions end together and nothing that may have been announced is given out again (A12).
    pub(super) fn continue_in_gaps(&mut self, newest: u64, start: i64, gaps: u64) {
        let mut end = self.timeline_end();
        self.append_gap(Gap { msn: newest, start, end }, end);
        let part = self.renditions.iter().map(Rendition::part_target_ms).max().unwrap_or(0);
        for msn in newest + 1..=newest + gaps {
            let gap = Gap { msn, start: end, end: end + i64::from(part) * TICKS_PER_MS };
            self.plan.start_gap(gap.msn, gap.start);
            self.append_gap(gap, gap.end);
            end = gap.end;
        }
    }

    fn append_gap(&mut self, gap: Gap, now: i64) {
        let timeline = self.published.last_timeline.as_ref();
        let pdt = |tick| timeline.map_or(0, |timeline| timeline.program_date_time_ms(tick));
        for rendition in &mut self.renditions {
            rendition.pass_gap(gap.msn, (gap.start, gap.end), now, pdt);
        }
    }

    /// The gap, if there is one, ends here: somebody publishes again, or the session is over.
    pub(super) fn end_gap(&mut self) {
        if self.gap.take().is_some() {
            // All together where the furthest has got (MV-07).
            let end = self.timeline_end();
            self.renditions.iter_mut().for_each(|rendition| rendition.end_gap(end));
        }
    }

    /// Where everything that has been placed ends: no tick is given out twice (MP-04, A12).
    pub(super) fn timeline_end(&self) -> i64 {
        let tips = self.renditions.iter().filter_map(|rendition| rendition.window().tip_tick());
        let begun = self.plan.current().map(|current| current.start + 1);
        tips.chain(begun).max().unwrap_or(0).max(self.video_end)
    }
}
