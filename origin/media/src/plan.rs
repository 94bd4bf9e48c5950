//! The segment plan: where on the timeline each Media Segment starts, for all renditions of a channel alike (MV-07).
//!
//! The grid is the timeline cut into cells of one segment duration since the epoch. A segment starts at the first
//! random access point at or after a cell's start ([`Grid::RandomAccess`], when the publisher's own pictures are
//! served), or at the first picture at or after it ([`Grid::Exact`], when an encoder of ours makes that picture a
//! random access point). A run starts with the number of its cell, never below what has been given out before (A12).
//!
//! Invariant: Media Sequence Numbers rise by one from segment to segment.

use std::collections::VecDeque;

/// How many boundaries are remembered: an encoder's output is never more behind than its queues are long.
const REMEMBERED: usize = 64;

/// What may start a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grid {
    /// Only a random access point of the publisher.
    RandomAccess,
    /// Any sample.
    Exact,
}

/// The start of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Boundary {
    /// Media Sequence Number of the segment that starts here.
    pub msn: u64,
    /// Where its first sample is decoded, ticks of 1/90000 s.
    pub start: i64,
    /// Where its first picture is presented: what an encoder knows it by.
    pub presented: i64,
    /// A new publishing run: EXT-X-DISCONTINUITY, unless it is the first.
    pub run_start: bool,
    /// It starts here because the segment before reached its limit, not at a random access point.
    pub forced: bool,
}

/// A sample of the leading track, in ticks of 1/90000 s.
#[derive(Debug, Clone, Copy)]
pub struct Leader {
    /// Decoding time.
    pub start: i64,
    /// Where the next one is decoded.
    pub end: i64,
    /// Presentation time.
    pub presented: i64,
    /// It is a random access point.
    pub random_access: bool,
}

/// With pictures out of order, one that belongs before a boundary may come this many pictures later.
const REORDERED_MAX: i64 = 16;

/// The plan of one channel.
#[derive(Debug, Clone)]
pub struct SegmentPlan {
    cell: i64,
    grid: Grid,
    limit: i64,
    boundaries: VecDeque<Boundary>,
    /// Pictures are not presented in the order in which they are decoded.
    reordered: bool,
    /// The newest random access point, and how far the one before it was.
    random_access: Option<(i64, i64)>,
}

impl SegmentPlan {
    /// A plan with cells of `cell` ticks, in which no segment gets longer than `limit` ticks.
    #[must_use]
    pub fn new(cell: i64, grid: Grid, limit: i64) -> Self {
        let boundaries = VecDeque::with_capacity(REMEMBERED);
        Self { cell, grid, limit, boundaries, reordered: false, random_access: None }
    }

    /// The limit on a segment's duration, ticks.
    #[must_use]
    pub fn limit(&self) -> i64 {
        self.limit
    }

    /// The limit on a segment's duration from here on, ticks (SYN-11).
    pub fn set_limit(&mut self, limit: i64) {
        self.limit = limit;
    }

    /// How long segment `msn` is, once the next one has started. The time between two runs is in neither.
    #[must_use]
    pub fn length(&self, msn: u64) -> Option<i64> {
        let (boundary, next) = (self.boundary(msn)?, self.boundary(msn + 1)?);
        let length = next.start - boundary.start;
        Some(if next.run_start { length.min(self.cell) } else { length })
    }

    /// The number of the cell that a tick is in.
    #[must_use]
    pub fn cell_of(&self, tick: i64) -> u64 {
        u64::try_from(tick.div_euclid(self.cell)).unwrap_or(0)
    }

    /// The tick at which a cell starts.
    #[must_use]
    pub fn cell_start(&self, cell: u64) -> i64 {
        i64::try_from(cell).unwrap_or(i64::MAX / self.cell).saturating_mul(self.cell)
    }

    /// Starts a run at `start` with segment `msn`.
    pub fn start_run(&mut self, msn: u64, start: i64) -> Boundary {
        self.random_access = Some((start, 0));
        self.add(Boundary { msn, start, presented: start, run_start: true, forced: false })
    }

    /// Starts a segment in which nothing is published.
    pub fn start_gap(&mut self, msn: u64, start: i64) {
        self.add(Boundary { msn, start, presented: start, run_start: false, forced: false });
    }

    /// The newest boundary.
    #[must_use]
    pub fn current(&self) -> Option<Boundary> {
        self.boundaries.back().copied()
    }

    /// From which tick on a random access point may start the next segment.
    #[must_use]
    pub fn next_from(&self) -> Option<i64> {
        self.current().map(|current| (current.start.div_euclid(self.cell) + 1) * self.cell)
    }

    /// Tells of a sample of the leading track; returns the boundary if a segment starts with it. `tolerance` is half a
    /// sample, so that a picture that should be on the grid is taken to be.
    pub fn lead(&mut self, leader: &Leader, tolerance: i64) -> Option<Boundary> {
        let current = self.current()?;
        self.reordered |= leader.presented != leader.start;
        // A boundary just before a cell's start counts as at it, here as for the sample.
        let next = ((current.start + tolerance).div_euclid(self.cell) + 1) * self.cell;
        let (starts, start) = match self.grid {
            Grid::RandomAccess => (self.random_access_starts(leader, next - tolerance), leader.start),
            Grid::Exact => (self.picture_starts(leader, next, tolerance), leader.presented),
        };
        let forced = !starts && leader.end - current.start > self.limit;
        let msn = current.msn + 1;
        let presented = leader.presented;
        (starts || forced).then(|| self.add(Boundary { msn, start, presented, run_start: false, forced }))
    }

    /// At or after `from`; or before it, when the next random access point is likely to come beyond the limit.
    fn random_access_starts(&mut self, leader: &Leader, from: i64) -> bool {
        if !leader.random_access {
            return false;
        }
        let distance = self.random_access.map_or(0, |(last, _)| leader.start - last);
        self.random_access = Some((leader.start, distance));
        let latest = self.current().map_or(i64::MAX, |current| current.start + self.limit);
        leader.start >= from || leader.start + distance > latest
    }

    /// The picture presented on the grid; without one there, the first that is surely beyond it.
    fn picture_starts(&self, leader: &Leader, next: i64, tolerance: i64) -> bool {
        let beyond = if self.reordered { REORDERED_MAX * 2 * tolerance } else { 0 };
        let distance = leader.presented + tolerance - next;
        (0..=2 * tolerance).contains(&distance) || distance >= beyond
    }

    /// The start of segment `msn`, if it is decided.
    #[must_use]
    pub fn boundary(&self, msn: u64) -> Option<Boundary> {
        let first = self.boundaries.front()?.msn;
        let index = usize::try_from(msn.checked_sub(first)?).ok()?;
        self.boundaries.get(index).copied()
    }

    /// The segment whose first picture is presented within `tolerance` of `tick`.
    #[must_use]
    pub fn boundary_at(&self, tick: i64, tolerance: i64) -> Option<Boundary> {
        self.boundaries.iter().rev().find(|boundary| (boundary.presented - tick).abs() <= tolerance).copied()
    }

    fn add(&mut self, boundary: Boundary) -> Boundary {
        if self.current().is_some_and(|current| current.msn + 1 != boundary.msn) {
            self.boundaries.clear();
        }
        if self.boundaries.len() == REMEMBERED {
            self.boundaries.pop_front();
        }
        self.boundaries.push_back(boundary);
        boundary
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CELL: i64 = 180_000;

    /// A sample of 3000 ticks.
    fn at(start: i64, random_access: bool) -> Leader {
        Leader { start, end: start + 3000, presented: start, random_access }
    }

    /// The lengths of the segments that a stream with a random access point every `gop` frames of 3000 ticks gets.
    fn lengths(gop: i64, frames: i64, grid: Grid) -> Vec<i64> {
        let mut plan = SegmentPlan::new(CELL, grid, 10 * 90_000);
        plan.start_run(1000, 1000 * CELL);
        let mut starts = vec![1000 * CELL];
        for frame in 1..frames {
            if let Some(b) = plan.lead(&at(1000 * CELL + frame * 3000, frame % gop == 0), 1500) {
                starts.push(b.start);
            }
        }
        starts.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }

    #[test]
    fn random_access_points_on_the_grid_give_equal_segments() {
        for gop in [15, 30, 60] {
            assert!(lengths(gop, 6000, Grid::RandomAccess).iter().all(|length| *length == CELL), "{gop}");
        }
        assert!(lengths(1_000_000, 6000, Grid::Exact).iter().all(|length| *length == CELL));
    }

    #[test]
    fn off_the_grid_the_first_segment_is_the_longest_kind() {
        for gop in [7, 21, 45, 50, 59, 61, 90, 250] {
            let lengths = lengths(gop, 9000, Grid::RandomAccess);
            assert!(lengths.iter().all(|length| *length <= lengths[0]), "{gop}: {lengths:?}");
            assert!(lengths.iter().all(|length| length % (gop * 3000) == 0), "{gop}");
        }
    }

    #[test]
    fn with_a_group_of_pictures_up_to_a_cell_the_number_stays_the_cells() {
        for gop in [7, 21, 45, 50, 59, 60] {
            let mut plan = SegmentPlan::new(CELL, Grid::RandomAccess, 10 * 90_000);
            plan.start_run(1000, 1000 * CELL);
            for frame in 1..20_000 {
                let start = 1000 * CELL + frame * 3000;
                if let Some(b) = plan.lead(&at(start, frame % gop == 0), 1500) {
                    assert_eq!(b.msn, plan.cell_of(start + 1500), "gop {gop}, frame {frame}");
                }
            }
        }
    }

    #[test]
    fn a_group_of_pictures_beyond_the_limit_is_cut() {
        let mut plan = SegmentPlan::new(CELL, Grid::RandomAccess, CELL);
        plan.start_run(1, CELL);
        let cuts: Vec<_> =
            (1..600).filter_map(|n| plan.lead(&at(CELL + n * 3000, n % 300 == 0), 1500)).collect();
        assert!(cuts.iter().any(|b| b.forced));
        assert!(cuts.windows(2).all(|pair| pair[1].start - pair[0].start <= CELL), "{cuts:?}");
    }

    #[test]
    fn with_pictures_out_of_order_the_one_presented_on_the_grid_starts_a_segment() {
        let mut plan = SegmentPlan::new(CELL, Grid::Exact, 10 * CELL);
        plan.start_run(7, 7 * CELL);
        // Decoding order I P B B: two frames later, three early.
        let mut found = Vec::new();
        for n in 0..240i64 {
            let start = 7 * CELL + n * 3000;
            let presented = start + [0, 9000, -3000, -6000][(n % 4) as usize];
            let leader = Leader { presented, ..at(start, n == 0) };
            found.extend(plan.lead(&leader, 1500).map(|boundary| boundary.presented));
        }
        assert_eq!(found, [8 * CELL, 9 * CELL, 10 * CELL, 11 * CELL]);
    }

    #[test]
    fn random_access_points_just_before_the_grid_are_taken_rather_than_missed() {
        let mut plan = SegmentPlan::new(CELL, Grid::RandomAccess, CELL + 27_000);
        plan.start_run(7, 7 * CELL);
        // From the third on, random access points come a tenth of a second before the grid.
        let lengths: Vec<_> = (1..600)
            .filter_map(|n| {
                let random_access = if n <= 120 { n % 60 == 0 } else { n % 60 == 57 };
                plan.lead(&at(7 * CELL + n * 3000, random_access), 1500)
            })
            .collect();
        assert!(lengths.iter().all(|boundary| !boundary.forced), "{lengths:?}");
    }

    #[test]
    fn boundaries_are_found_again() {
        let mut plan = SegmentPlan::new(CELL, Grid::Exact, 10 * CELL);
        plan.start_run(7, 7 * CELL);
        let next = plan.lead(&at(8 * CELL, false), 1500).expect("on the grid");
        assert_eq!(plan.boundary(8), Some(next));
        assert_eq!(plan.boundary_at(8 * CELL + 10, 1500), Some(next));
        assert_eq!(plan.boundary(9), None);
        assert_eq!(plan.boundary(6), None);
    }

    proptest! {
        #[test]
        fn a12_numbers_rise_by_one(
            steps in proptest::collection::vec((1i64..200_000, any::<bool>()), 1..300),
            exact in any::<bool>(),
        ) {
            let grid = if exact { Grid::Exact } else { Grid::RandomAccess };
            let mut plan = SegmentPlan::new(CELL, grid, 5 * CELL);
            let mut last = plan.start_run(40, 40 * CELL);
            let mut now = last.start;
            for (step, random_access) in steps {
                now += step;
                if let Some(boundary) = plan.lead(&at(now, random_access), 1500) {
                    prop_assert_eq!(boundary.msn, last.msn + 1);
                    prop_assert!(boundary.start > last.start);
                    last = boundary;
                }
            }
        }
    }
}
