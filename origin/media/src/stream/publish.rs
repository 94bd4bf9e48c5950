//! What a stream shows: the constants of its playlists, the snapshots of its renditions, the Multivariant Playlist.

use super::{ChannelKind, Stream, WorkerInput};
use crate::codec::FrameRate;
use crate::fmp4::TrackConfig;
use crate::rendition::Rendition;
use crate::timeline::Timeline;
use crate::window::{RenditionSnapshot, gzip};
use crate::{TICKS_PER_MS, TICKS_PER_SECOND};
use bytes::Bytes;
use sigma_shared::id::RenditionId;
use sigma_shared::multivariant::{AudioRendition, Multivariant, Variant};
use sigma_shared::playlist::{RenditionReport, ServerControl};
use std::sync::Arc;

/// How many segments the Multivariant Playlist waits for a rendition that does not come.
const LATE_SEGMENTS: u64 = 3;

/// The state of what has been shown.
#[derive(Debug, Default)]
pub(super) struct Published {
    control: Option<ServerControl>,
    pub(super) last_timeline: Option<Timeline>,
    multivariant: Option<Arc<MultivariantSnapshot>>,
    first_msn: u64,
    /// BANDWIDTH and AVERAGE-BANDWIDTH as stated, by rendition.
    stated: Vec<(RenditionId, u64, u64)>,
}

/// The Multivariant Playlist at one moment.
#[derive(Debug, PartialEq, Eq)]
pub struct MultivariantSnapshot {
    /// Its text.
    pub plain: Bytes,
    /// The same, gzip.
    pub gzip: Bytes,
    /// EXT-X-TARGETDURATION of the channel's playlists, seconds.
    pub target_duration_s: u32,
}

/// What has changed since the last call.
#[derive(Debug, Default)]
pub struct Changes {
    /// Renditions with a new playlist.
    pub renditions: Vec<(RenditionId, Arc<RenditionSnapshot>)>,
    /// A new Multivariant Playlist.
    pub multivariant: Option<Arc<MultivariantSnapshot>>,
    /// What the worker has to be given, in order.
    pub worker: Vec<WorkerInput>,
}

impl Stream {
    /// Renders what has changed and hands out what has to happen outside.
    pub fn take_changes(&mut self) -> Changes {
        let mut changes = Changes { worker: self.worker.take_inputs(), ..Changes::default() };
        let Some(control) = self.published.control else {
            return changes;
        };
        for index in 0..self.renditions.len() {
            if !self.renditions[index].take_changed() {
                continue;
            }
            let reports = self.reports(index);
            if let Some(snapshot) = self.renditions[index].snapshot(control, &reports) {
                changes.renditions.push((self.renditions[index].id.clone(), Arc::new(snapshot)));
            }
        }
        if !changes.renditions.is_empty() {
            changes.multivariant = self.render_multivariant(control);
        }
        changes
    }

    /// RR-01: one report for every other rendition.
    fn reports(&self, own: usize) -> Vec<RenditionReport> {
        let others = self.renditions.iter().enumerate().filter(|(index, _)| *index != own);
        others
            .filter_map(|(_, rendition)| {
                let (last_msn, last_part) = rendition.window().tip()?.last_part();
                Some(RenditionReport { uri: format!("../{}/media.m3u8", rendition.id), last_msn, last_part })
            })
            .collect()
    }

    /// Fixes what must not change while a playlist lives (EV-04), from the first complete segment.
    pub(super) fn fix_constants(&mut self) {
        let Some(current) = self.plan.current().filter(|_| self.published.control.is_none()) else {
            return;
        };
        let first_msn = current.msn - 1;
        let Some(length) = self.plan.length(first_msn) else {
            return;
        };
        self.fix_frame_rate(length);
        let rounded = |ticks: i64| (ticks + TICKS_PER_SECOND / 2).div_euclid(TICKS_PER_SECOND).max(1);
        let configured =
            (i64::from(self.setup.segment_ms) * TICKS_PER_MS + TICKS_PER_SECOND - 1) / TICKS_PER_SECOND;
        let part_target_ms = self.renditions.iter().map(Rendition::part_target_ms).max();
        let part_target_ms = part_target_ms.unwrap_or(self.setup.part_target_ms);
        // SYN-11: rounded, no segment may exceed the target duration, and where another rendition's sample lies over
        // the boundary, its segment is longer by up to that sample.
        let room = i64::from(part_target_ms.min(400)) * TICKS_PER_MS;
        let longest = self.renditions.iter().filter_map(|r| r.window().longest()).max().unwrap_or(length);
        let target_duration = rounded(length.max(longest) + room).max(configured);
        self.plan.set_limit(target_duration * TICKS_PER_SECOND + 499 * TICKS_PER_MS - room);
        self.published.first_msn = first_msn;
        self.published.control = Some(ServerControl {
            target_duration_s: u32::try_from(target_duration).unwrap_or(u32::MAX),
            part_target_ms,
            part_hold_back_ms: 3 * part_target_ms, // SC-05
        });
    }

    /// A publisher that states no frame rate has it measured over its first segment.
    fn fix_frame_rate(&mut self, length: i64) {
        if self.frame_rate().is_some() {
            return;
        }
        let Some(run) = &mut self.run else { return };
        // The picture that starts the next segment is counted already.
        #[expect(clippy::cast_precision_loss, reason = "a segment's length in ticks is far below 2^52")]
        let measured =
            f64::from(run.frames.saturating_sub(1)) * TICKS_PER_SECOND as f64 / (length.max(1) as f64);
        let Some(rate) = FrameRate::nearest(measured) else {
            return;
        };
        run.video.set_nominal(rate.frame_ticks());
        self.stated_frame_rate = Some(rate);
        for rendition in self.renditions.iter_mut().filter(|r| matches!(r.config, TrackConfig::Video(_))) {
            rendition.set_frame_rate(rate);
        }
    }

    fn render_multivariant(&mut self, control: ServerControl) -> Option<Arc<MultivariantSnapshot>> {
        let shown: Vec<usize> = (0..self.renditions.len())
            .filter(|index| self.renditions[*index].window().tip().is_some())
            .collect();
        let newest = self.plan.current().map_or(0, |current| current.msn);
        let complete = shown.len() >= self.expected_renditions();
        if self.published.multivariant.is_none()
            && !complete
            && newest < self.published.first_msn + LATE_SEGMENTS
        {
            return None;
        }
        let playlist = self.multivariant(&shown);
        if playlist.variants.is_empty() {
            return None;
        }
        let plain = Bytes::from(playlist.to_string());
        if self.published.multivariant.as_ref().is_some_and(|known| known.plain == plain) {
            return None;
        }
        let target_duration_s = control.target_duration_s;
        let snapshot = Arc::new(MultivariantSnapshot { gzip: gzip(&plain), plain, target_duration_s });
        self.published.multivariant = Some(Arc::clone(&snapshot));
        Some(snapshot)
    }

    fn expected_renditions(&self) -> usize {
        let source = usize::from(self.setup.kind != ChannelKind::Transcode && self.video.is_some());
        let rungs = if self.video.is_some() { self.worker.rungs() } else { 0 };
        source + rungs + usize::from(self.audio.is_some())
    }

    fn multivariant(&mut self, shown: &[usize]) -> Multivariant {
        let audio = shown
            .iter()
            .copied()
            .find(|index| matches!(self.renditions[*index].config, TrackConfig::Audio(_)));
        let audio_rates = audio.map_or((0, 0), |index| self.stated_rates(index));
        let audio_codec = audio.map(|index| self.renditions[index].config.codec_string());
        let videos: Vec<usize> = shown
            .iter()
            .copied()
            .filter(|index| matches!(self.renditions[*index].config, TrackConfig::Video(_)))
            .collect();
        let mut variants = Vec::new();
        for index in if videos.is_empty() { audio.into_iter().collect() } else { videos } {
            let alone = Some(index) == audio;
            let (peak, average) = self.stated_rates(index);
            let rendition = &self.renditions[index];
            let mut codecs = vec![rendition.config.codec_string()];
            codecs.extend(audio_codec.clone().filter(|_| !alone));
            variants.push(Variant {
                uri: format!("{}/media.m3u8", rendition.id),
                bandwidth_bps: peak + if alone { 0 } else { audio_rates.0 },
                average_bandwidth_bps: average + if alone { 0 } else { audio_rates.1 },
                codecs,
                resolution: match &rendition.config {
                    TrackConfig::Video(avc) => Some((avc.width, avc.height)),
                    TrackConfig::Audio(_) => None,
                },
                frame_rate: rendition.frame_rate.map(|rate| (rate.num, rate.den)),
            });
        }
        variants.sort_by_key(|variant| std::cmp::Reverse(variant.bandwidth_bps));
        let audio = audio.filter(|_| variants.iter().any(|variant| variant.resolution.is_some()));
        Multivariant { audio: audio.map(|index| self.audio_rendition(index)).into_iter().collect(), variants }
    }

    fn audio_rendition(&self, index: usize) -> AudioRendition {
        let rendition = &self.renditions[index];
        let channels = match &rendition.config {
            TrackConfig::Audio(aac) => u32::from(aac.channels),
            TrackConfig::Video(_) => 0,
        };
        let uri = format!("{}/media.m3u8", rendition.id);
        AudioRendition { uri, name: "Original".into(), language: "und".into(), channels }
    }

    /// Measured rates with a tenth of room, which stay as stated until a segment exceeds what was stated (MV-02).
    fn stated_rates(&mut self, index: usize) -> (u64, u64) {
        let rendition = &self.renditions[index];
        let (peak, average) = rendition.window().bit_rates();
        let with_room = |bps: u64| (bps + bps / 10).next_multiple_of(1000);
        match self.published.stated.iter_mut().find(|(id, ..)| *id == rendition.id) {
            Some((_, stated_peak, stated_average)) => {
                if peak > *stated_peak || average > *stated_average {
                    (*stated_peak, *stated_average) = (with_room(peak), with_room(average));
                }
                (*stated_peak, *stated_average)
            }
            None => {
                let stated = (with_room(peak), with_room(average));
                self.published.stated.push((rendition.id.clone(), stated.0, stated.1));
                stated
            }
        }
    }
}
