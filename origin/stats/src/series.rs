//! Numbers over time: seconds by the minute, and their roll-ups: minutes by the hour, hours by the day.
//!
//! Invariants: a roll-up is computed from the whole block below it, never added to, so it cannot drift from it.
#![deny(clippy::disallowed_methods)]

use crate::key::decoded;
use serde::{Deserialize, Serialize};

/// Seconds of a minute, and minutes of an hour.
pub const SIXTY: usize = 60;
/// Hours of a day.
pub const HOURS: usize = 24;

/// How finely time is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Resolution {
    /// Seconds, kept by the minute.
    Second,
    /// Minutes, kept by the hour.
    Minute,
    /// Hours, kept by the day.
    Hour,
}

impl Resolution {
    /// Length of a point, seconds.
    #[must_use]
    pub fn point_s(self) -> u64 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3600,
        }
    }

    /// Points in a block.
    #[must_use]
    pub fn points(self) -> usize {
        match self {
            Self::Second | Self::Minute => SIXTY,
            Self::Hour => HOURS,
        }
    }

    /// Length of a block, seconds.
    #[must_use]
    pub fn block_s(self) -> u64 {
        self.point_s() * self.points() as u64
    }

    /// Its name in the database.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Second => "second",
            Self::Minute => "minute",
            Self::Hour => "hour",
        }
    }

    /// Where a Unix second is: the block's number, and the point in it.
    #[must_use]
    pub fn place(self, second: u64) -> (u64, usize) {
        let point = (second % self.block_s()) / self.point_s();
        (second / self.block_s(), usize::try_from(point).unwrap_or(0))
    }
}

/// One point.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    /// Viewers: of a second, or the most in any second of a longer one.
    pub viewers: u32,
    /// Sum of the viewers of all seconds.
    pub viewer_seconds: u64,
    /// Views that began.
    pub views: u32,
    /// Of bodies.
    pub bytes: u64,
    /// Requests that ended.
    pub requests: u64,
}

/// The points of a stretch of time, in order: as many as its resolution says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block(pub(crate) Vec<Point>);

impl Block {
    /// Nothing happened.
    #[must_use]
    pub fn new(resolution: Resolution) -> Self {
        Self(vec![Point::default(); resolution.points()])
    }

    /// The points.
    #[must_use]
    pub fn points(&self) -> &[Point] {
        &self.0
    }

    /// The whole of it as one point.
    #[must_use]
    pub fn rolled_up(&self) -> Point {
        let mut sum = Point::default();
        for point in &self.0 {
            sum.viewers = sum.viewers.max(point.viewers);
            sum.viewer_seconds = sum.viewer_seconds.saturating_add(point.viewer_seconds);
            sum.views = sum.views.saturating_add(point.views);
            sum.bytes = sum.bytes.saturating_add(point.bytes);
            sum.requests = sum.requests.saturating_add(point.requests);
        }
        sum
    }

    /// As bytes.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, postcard::Error> {
        postcard::to_allocvec(self)
    }

    /// From bytes; `None`: they are no block of this resolution.
    #[must_use]
    pub fn decode(resolution: Resolution, bytes: &[u8]) -> Option<Self> {
        let block: Self = decoded(bytes)?;
        (block.0.len() == resolution.points()).then_some(block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_a_place_in_every_resolution() {
        let second = 3 * 86_400 + 5 * 3600 + 7 * 60 + 9;
        assert_eq!(Resolution::Second.place(second), (second / 60, 9));
        assert_eq!(Resolution::Minute.place(second), (3 * 24 + 5, 7));
        assert_eq!(Resolution::Hour.place(second), (3, 5));
    }

    #[test]
    fn rolled_up_is_the_most_and_the_sum() {
        let mut block = Block::new(Resolution::Second);
        block.0[3] = Point { viewers: 4, viewer_seconds: 4, views: 2, bytes: 10, requests: 1 };
        block.0[9] = Point { viewers: 7, viewer_seconds: 7, views: 1, bytes: 5, requests: 1 };
        let expected = Point { viewers: 7, viewer_seconds: 11, views: 3, bytes: 15, requests: 2 };
        assert_eq!(block.rolled_up(), expected);
        let bytes = block.encode().unwrap();
        assert_eq!(Block::decode(Resolution::Second, &bytes), Some(block));
        assert_eq!(Block::decode(Resolution::Hour, &bytes), None);
    }
}
