//! What a stream shows: the constants of its playlists, the snapshots of its renditions, the Multivariant Playlist.

use super::{ChannelKind, Stream, WorkerInput};
use crate::chunk::Text;
use crate::codec::FrameRate;
use crate::daterange::DateRanges;
use crate::fmp4::TrackConfig;
use crate::rendition::Rendition;
use crate::snapshot::RenditionSnapshot;
use crate::timeline::Timeline;
use crate::window::{Event, Shown};
use crate::{TICKS_PER_MS, TICKS_PER_SECOND};
use sigma_shared::id::RenditionId;
use sigma_shared::mode::Mode;
use sigma_shared::multivariant::{AudioRendition, IFrameVariant, Multivariant, Variant};
use sigma_shared::playlist::{RenditionReport, ServerControl};
use std::sync::Arc;

/// How many segments the Multivariant Playlist waits for a rendition that does not come.
const LATE_SEGMENTS: u64 = 3;

/// The state of what has been shown.
#[derive(Debug, Default)]
pub(super) struct Published {
    pub(super) control: Option<ServerControl>,
    pub(super) last_timeline: Option<Timeline>,
    multivariant: Option<(Multivariant, Arc<MultivariantSnapshot>)>,
    first_msn: u64,
    /// BANDWIDTH and AVERAGE-BANDWIDTH as stated, by rendition.
    stated: Vec<(RenditionId, Stated)>,
    pub(super) dateranges: Arc<DateRanges>,
}

/// Bit rates as stated of a rendition and of its I-frame playlist.
#[derive(Debug, Clone, Copy, Default)]
struct Stated {
    media: (u64, u64),
    iframes: (u64, u64),
}

/// The Multivariant Playlist at one moment.
#[derive(Debug)]
pub struct MultivariantSnapshot {
    texts: [Text; 3],
    /// EXT-X-TARGETDURATION of the channel's playlists, seconds.
    pub target_duration_s: u32,
}

impl MultivariantSnapshot {
    /// Its text in a mode.
    #[must_use]
    pub fn text(&self, mode: Mode) -> &Text {
        &self.texts[mode as usize]
    }
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
    /// What has happened to renditions, for their archives.
    pub archive: Vec<(RenditionId, Vec<Event>)>,
}

/// How much longer than planned a segment may get, ticks.
fn room(part_target_ms: u32) -> i64 {
    i64::from(part_target_ms.min(400)) * TICKS_PER_MS
}

impl Published {
    /// Whether playlists are shown, or can be at the next segment.
    pub(super) fn is_fixed(&self) -> bool {
        self.control.is_some()
    }
}

impl Stream {
    /// Renders what has changed and hands out what has to happen outside.
    pub fn take_changes(&mut self) -> Changes {
        let mut changes = Changes { worker: self.worker.take_inputs(), ..Changes::default() };
        for rendition in &mut self.renditions {
            let events = rendition.take_events();
            if !events.is_empty() {
                changes.archive.push((rendition.id.clone(), events));
            }
        }
        let Some(control) = self.published.control else {
            return changes;
        };
        self.advance_dateranges(control);
        self.touch_outdated();
        for index in 0..self.renditions.len() {
            if !self.renditions[index].take_changed() {
                continue;
            }
            let shown = Shown {
                control,
                next_init: None,
                dateranges: Arc::clone(&self.published.dateranges),
                reports: self.reports(Some(index)),
                iframe_reports: self.reports(None),
            };
            self.renditions[index].reported = Arc::clone(&shown.reports);
            if let Some(snapshot) = self.renditions[index].snapshot(shown) {
                changes.renditions.push((self.renditions[index].id.clone(), Arc::new(snapshot)));
            }
        }
        if !changes.renditions.is_empty() {
            changes.multivariant = self.render_multivariant(control);
        }
        changes
    }

    /// RR-03: whose reports of others are more than a part behind is shown again, once something is shown at all.
    fn touch_outdated(&mut self) {
        if !self.renditions.iter().any(Rendition::is_changed) {
            return;
        }
        let tips: Vec<_> = self.renditions.iter().map(|one| (one.id.clone(), one.window().tip())).collect();
        for rendition in &mut self.renditions {
            let outdated = |report: &RenditionReport| {
                let now = tips.iter().find(|(id, _)| *id == report.rendition).and_then(|(_, tip)| *tip);
                now.is_some_and(|now| now.parts_since(&report.tip) > 1)
            };
            if rendition.reported.iter().any(outdated) {
                rendition.touch();
            }
        }
    }

    /// RR-01: one report for every rendition other than `own`.
    fn reports(&self, own: Option<usize>) -> Arc<[RenditionReport]> {
        let others = self.renditions.iter().enumerate().filter(|(index, _)| Some(*index) != own);
        others
            .filter_map(|(_, rendition)| {
                Some(RenditionReport { rendition: rendition.id.clone(), tip: rendition.window().tip()? })
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
        let room = room(part_target_ms);
        let longest = self.renditions.iter().filter_map(|r| r.window().longest()).max().unwrap_or(length);
        let target_duration = rounded(length.max(longest) + room).max(configured);
        let control = ServerControl {
            target_duration_s: u32::try_from(target_duration).unwrap_or(u32::MAX),
            part_target_ms,
            part_hold_back_ms: 3 * part_target_ms, // SC-05
        };
        self.keep_constants(control, first_msn);
    }

    /// From here on segments are cut so that they keep to what is stated.
    pub(super) fn keep_constants(&mut self, control: ServerControl, first_msn: u64) {
        let limit = i64::from(control.target_duration_s) * TICKS_PER_SECOND + 499 * TICKS_PER_MS;
        self.plan.set_limit(limit - room(control.part_target_ms));
        self.published.first_msn = first_msn;
        self.published.control = Some(control);
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
        if self.published.multivariant.as_ref().is_some_and(|(known, _)| *known == playlist) {
            return None;
        }
        let texts = Mode::ALL.map(|mode| Text::from_string(playlist.of_mode(mode).to_string()));
        let snapshot = Arc::new(MultivariantSnapshot { texts, target_duration_s: control.target_duration_s });
        self.published.multivariant = Some((playlist, Arc::clone(&snapshot)));
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
        let audio_rates = audio.map_or((0, 0), |index| self.stated_rates(index).media);
        let audio_codec = audio.map(|index| self.renditions[index].config.codec_string());
        let videos: Vec<usize> = shown
            .iter()
            .copied()
            .filter(|index| matches!(self.renditions[*index].config, TrackConfig::Video(_)))
            .collect();
        let (mut variants, mut iframes) = (Vec::new(), Vec::new());
        for index in if videos.is_empty() { audio.into_iter().collect() } else { videos } {
            let alone = Some(index) == audio;
            let stated = self.stated_rates(index);
            let (peak, average) = stated.media;
            let rendition = &self.renditions[index];
            if let TrackConfig::Video(avc) = &rendition.config {
                iframes.push(IFrameVariant {
                    rendition: rendition.id.clone(),
                    bandwidth_bps: stated.iframes.0,
                    average_bandwidth_bps: stated.iframes.1,
                    codec: avc.codec_string(),
                    resolution: (avc.width, avc.height),
                });
            }
            let mut codecs = vec![rendition.config.codec_string()];
            codecs.extend(audio_codec.clone().filter(|_| !alone));
            variants.push(Variant {
                rendition: rendition.id.clone(),
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
        iframes.sort_by_key(|variant| std::cmp::Reverse(variant.bandwidth_bps));
        let audio = audio.filter(|_| variants.iter().any(|variant| variant.resolution.is_some()));
        let audio = audio.map(|index| self.audio_rendition(index)).into_iter().collect();
        Multivariant { audio, variants, iframes }
    }

    fn audio_rendition(&self, index: usize) -> AudioRendition {
        let rendition = &self.renditions[index];
        let channels = match &rendition.config {
            TrackConfig::Audio(aac) => u32::from(aac.channels),
            TrackConfig::Video(_) => 0,
        };
        let rendition = rendition.id.clone();
        AudioRendition { rendition, name: "Original".into(), language: "und".into(), channels }
    }

    /// Measured rates with a tenth of room, which stay as stated until a segment exceeds what was stated (MV-02).
    fn stated_rates(&mut self, index: usize) -> Stated {
        let rendition = &self.renditions[index];
        let window = rendition.window();
        let known = self.published.stated.iter().position(|(id, _)| *id == rendition.id);
        let known = known.unwrap_or_else(|| {
            self.published.stated.push((rendition.id.clone(), Stated::default()));
            self.published.stated.len() - 1
        });
        let with_room = |bps: u64| (bps + bps / 10).next_multiple_of(1000);
        let stated = &mut self.published.stated[known].1;
        for (stated, (peak, average)) in
            [(&mut stated.media, window.bit_rates()), (&mut stated.iframes, window.iframe_bit_rates())]
        {
            if peak > stated.0 || average > stated.1 {
                *stated = (with_room(peak).max(stated.0), with_room(average).max(stated.1));
            }
        }
        *stated
    }
}
