//! Timed metadata of a stream: Date Ranges in its playlists, ID3 tags in its parts.

use super::Stream;
use crate::daterange::Refused;
use crate::fmp4::TrackConfig;
use crate::rendition::Rendition;
use crate::timed::Id3;
use sigma_shared::daterange::{DateRange, InvalidDateRange, Statement};
use sigma_shared::playlist::ServerControl;
use std::sync::Arc;

/// Why metadata is not taken.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    /// The broadcaster's fault, a retry does not help.
    #[error(transparent)]
    Invalid(#[from] InvalidDateRange),
    /// The broadcaster's fault, see there.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The next part has as many tags as it may: a retry helps.
    #[error("the next part has as many tags as it may")]
    TooMany,
    /// Nothing has been published yet: a retry helps.
    #[error("nothing is live that it could be about")]
    NotLive,
}

impl Stream {
    /// Where the timeline is now, Unix milliseconds as EXT-X-PROGRAM-DATE-TIME has them.
    #[must_use]
    pub fn live_date_ms(&self) -> Option<i64> {
        let timeline =
            self.run.as_ref().map(|run| &run.timeline).or(self.published.last_timeline.as_ref())?;
        Some(timeline.program_date_time_ms(self.timeline_end()))
    }

    /// Lists a Date Range. Without a start of its own (`None`), it starts now; returns its start, Unix milliseconds.
    ///
    /// # Errors
    /// What [`NotTaken`] says.
    pub fn add_daterange(&mut self, statement: Statement, start_ms: Option<i64>) -> Result<i64, NotTaken> {
        let end_ms = self
            .live_date_ms()
            .filter(|_| self.published.is_fixed() && !self.finished)
            .ok_or(NotTaken::NotLive)?;
        let known_ms = self.published.dateranges.start_ms(&statement.id);
        let start_ms = start_ms.or(known_ms).unwrap_or(end_ms);
        let range = DateRange::new(Statement { start_ms, ..statement })?;
        Arc::make_mut(&mut self.published.dateranges).add(range, end_ms)?;
        self.renditions.iter_mut().for_each(Rendition::touch);
        Ok(start_ms)
    }

    /// Puts an ID3 tag in front of the next part of every video rendition, or of the audio where there is no video:
    /// players read one of them, and would show it twice if both had it.
    ///
    /// # Errors
    /// [`NotTaken::NotLive`] while nobody publishes.
    pub fn add_id3(&mut self, tag: &Id3) -> Result<(), NotTaken> {
        if self.run.is_none() || !self.published.is_fixed() {
            return Err(NotTaken::NotLive);
        }
        self.events = self.events.wrapping_add(1);
        let id = self.events;
        let is_video = |rendition: &Rendition| matches!(rendition.config, TrackConfig::Video(_));
        let has_video = self.renditions.iter().any(|one| one.is_joined() && is_video(one));
        let mut taken = false;
        for rendition in
            self.renditions.iter_mut().filter(|one| one.is_joined() && is_video(one) == has_video)
        {
            taken |= rendition.add_event(id, tag.clone());
        }
        if taken { Ok(()) } else { Err(NotTaken::TooMany) }
    }

    /// Takes Date Ranges off that have left the playlists.
    pub(super) fn advance_dateranges(&mut self, control: ServerControl) {
        let first_ms =
            self.renditions.iter().filter_map(|rendition| rendition.window().first_date_ms()).min();
        if let (Some(first_ms), Some(end_ms)) = (first_ms, self.live_date_ms()) {
            let skip_until_ms = i64::from(control.skip_until_s()) * 1000;
            let ranges = Arc::make_mut(&mut self.published.dateranges);
            // Whoever changes nothing else is rendered with its next part, soon enough.
            ranges.advance(first_ms, end_ms, skip_until_ms);
        }
    }
}
