//! What a channel's operator is told of its stream, at a bearable rate.

use crate::metrics::Metrics;
use sigma_media::stream::Notice;
use sigma_shared::id::ChannelId;
use std::time::Duration;
use tokio::time::Instant;

/// A publisher that sends nothing usable for this long is complained about.
const KEYFRAME_PATIENCE: Duration = Duration::from_secs(5);
/// A complaint that could be made again and again is made this often.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

/// What has been complained about lately.
#[derive(Default)]
pub(super) struct Complaints {
    keyframes: KeyframeComplaint,
    jumps: Throttle,
    forced: Throttle,
}

impl Complaints {
    /// Another publisher: it is told of its own faults.
    pub(super) fn begin(&mut self) {
        self.keyframes = KeyframeComplaint::default();
    }

    /// Logs and counts.
    pub(super) fn tell(&mut self, id: &ChannelId, notice: Notice, metrics: &Metrics) {
        match notice {
            Notice::RunStarted { msn } => {
                self.keyframes = KeyframeComplaint::default();
                tracing::info!(channel = %id, msn, "live");
            }
            Notice::ClockJumped { by_ms } => {
                if let Some(left_out) = self.jumps.admit() {
                    tracing::warn!(channel = %id, by_ms, left_out, "the publisher's clock jumped; the timeline goes on");
                }
            }
            Notice::Hole { ms } => {
                tracing::warn!(channel = %id, ms, "the publisher left a hole; a new run begins at its next keyframe");
            }
            Notice::VideoAbsent => {
                tracing::warn!(channel = %id, "no pictures come any more; the audio goes on alone");
            }
            Notice::Reconfigured => {
                tracing::info!(channel = %id, "codec configuration changed; a new run begins at the next keyframe");
            }
            Notice::SegmentForced { msn } => {
                metrics.segments_forced(id).inc();
                if let Some(left_out) = self.forced.admit() {
                    tracing::warn!(channel = %id, msn, left_out, "no keyframe in time: the segment had to end without one");
                }
            }
            Notice::Straggler { rendition } => {
                metrics.stragglers(id).inc();
                tracing::warn!(channel = %id, %rendition, "nothing comes for it; its segments become gaps");
            }
            Notice::DroppedBeforeStart => {
                metrics.dropped(id).inc();
                if self.keyframes.is_due() {
                    tracing::warn!(channel = %id, "media without a keyframe, or without codec configuration; nothing can be served");
                }
            }
        }
    }
}

/// A publisher whose samples cannot be used is told of once per run, not once per sample.
#[derive(Default)]
struct KeyframeComplaint {
    dropping_since: Option<Instant>,
    made: bool,
}

/// Lets one complaint of a kind through per interval, and counts the others.
#[derive(Default)]
struct Throttle {
    last: Option<Instant>,
    left_out: u32,
}

impl Throttle {
    /// How many were left out since the last one, if this one may be made.
    fn admit(&mut self) -> Option<u32> {
        if self.last.is_some_and(|last| last.elapsed() < COMPLAINT_INTERVAL) {
            self.left_out += 1;
            return None;
        }
        self.last = Some(Instant::now());
        Some(std::mem::take(&mut self.left_out))
    }
}

impl KeyframeComplaint {
    /// True once, when samples have been dropped for a while.
    fn is_due(&mut self) -> bool {
        let since = *self.dropping_since.get_or_insert_with(Instant::now);
        let due = !self.made && since.elapsed() > KEYFRAME_PATIENCE;
        self.made |= due;
        due
    }
}
