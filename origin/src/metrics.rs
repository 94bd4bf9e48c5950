//! The origin's metrics; docs/METRICS.md explains each to an operator.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use sigma_http::connections::ConnectionMetrics;
use sigma_shared::id::ChannelId;
use std::sync::Arc;

/// How an RTMP connection ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum RtmpEnd {
    Publisher,
    Protocol,
    Media,
    Refused,
    Timeout,
    Socket,
    Full,
}

/// What a request was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum RequestKind {
    Multivariant,
    Playlist,
    Init,
    Segment,
    Part,
    Page,
    Policy,
    Report,
    Places,
    Api,
    Other,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndLabel {
    end: RtmpEnd,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    kind: RequestKind,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ChannelLabel {
    channel: String,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) connections: ConnectionMetrics,
    pub(crate) rtmp_connections: Gauge,
    pub(crate) rtmp_bytes: Counter,
    pub(crate) samples_dropped_unconfigured: Counter,
    pub(crate) samples_dropped_broken: Counter,
    pub(crate) playlists_rendered: Counter,
    pub(crate) held_requests: Gauge,
    pub(crate) held_requests_shed: Counter,
    rtmp_ends: Family<EndLabel, Counter>,
    requests: Family<RequestLabels, Counter>,
    publishing: Family<ChannelLabel, Gauge>,
    worker_losses: Family<ChannelLabel, Counter>,
    worker_skips: Family<ChannelLabel, Counter>,
    segments_forced: Family<ChannelLabel, Counter>,
    archive_dropped: Family<ChannelLabel, Counter>,
    archive_shed: Family<ChannelLabel, Counter>,
    stragglers: Family<ChannelLabel, Counter>,
    dropped: Family<ChannelLabel, Counter>,
}

impl Metrics {
    /// Creates and registers all of them.
    pub(crate) fn register(registry: &mut Registry) -> Arc<Self> {
        let metrics = Self::default();
        let m = &metrics;
        let registry = registry.sub_registry_with_prefix("sigma_origin");
        m.connections.register(registry);
        let r = registry;
        r.register("rtmp_connections", "Open RTMP connections", m.rtmp_connections.clone());
        r.register("rtmp_bytes", "Bytes received over RTMP", m.rtmp_bytes.clone());
        r.register("rtmp_connections_ended", "RTMP connections by how they ended", m.rtmp_ends.clone());
        r.register("publishing", "1 while a publisher is connected to the channel", m.publishing.clone());
        let unconfigured = m.samples_dropped_unconfigured.clone();
        r.register(
            "samples_before_configuration",
            "Samples dropped for want of a codec configuration",
            unconfigured,
        );
        r.register(
            "samples_broken",
            "Access units dropped because they are broken",
            m.samples_dropped_broken.clone(),
        );
        r.register(
            "samples_dropped",
            "Samples dropped because they came before the first keyframe",
            m.dropped.clone(),
        );
        r.register(
            "stragglers",
            "Renditions given up for some segments, as nothing came for them",
            m.stragglers.clone(),
        );
        r.register("segments_forced", "Segments that ended without a keyframe", m.segments_forced.clone());
        r.register("archive_dropped", "Batches that the archive had no room for", m.archive_dropped.clone());
        r.register("archive_shed", "Archives given up because of the disk", m.archive_shed.clone());
        r.register(
            "playlists_rendered",
            "Snapshots of renditions published, one per part",
            m.playlists_rendered.clone(),
        );
        r.register("worker_losses", "Media workers that ended or had to be ended", m.worker_losses.clone());
        r.register(
            "worker_skips",
            "Times a media worker was skipped to the next keyframe",
            m.worker_skips.clone(),
        );
        r.register("requests", "Requests by what they were for and status", m.requests.clone());
        r.register("held_requests", "Requests waiting for something to exist", m.held_requests.clone());
        r.register(
            "held_requests_shed",
            "Requests answered 503 for want of room",
            m.held_requests_shed.clone(),
        );
        Arc::new(metrics)
    }

    pub(crate) fn rtmp_ended(&self, end: RtmpEnd) {
        self.rtmp_ends.get_or_create(&EndLabel { end }).inc();
    }

    /// How many connections ended like this.
    #[cfg(test)]
    pub(crate) fn rtmp_ends_of(&self, end: RtmpEnd) -> u64 {
        self.rtmp_ends.get_or_create(&EndLabel { end }).get()
    }

    pub(crate) fn request(&self, kind: RequestKind, status: u16) {
        self.requests.get_or_create(&RequestLabels { kind, status }).inc();
    }

    pub(crate) fn publishing(&self, channel: &ChannelId) -> Gauge {
        self.publishing.get_or_create_owned(&label(channel))
    }

    pub(crate) fn worker_losses(&self, channel: &ChannelId) -> Counter {
        self.worker_losses.get_or_create_owned(&label(channel))
    }

    pub(crate) fn worker_skips(&self, channel: &ChannelId) -> Counter {
        self.worker_skips.get_or_create_owned(&label(channel))
    }

    pub(crate) fn segments_forced(&self, channel: &ChannelId) -> Counter {
        self.segments_forced.get_or_create_owned(&label(channel))
    }

    pub(crate) fn archive_dropped(&self, channel: &ChannelId) -> Counter {
        self.archive_dropped.get_or_create_owned(&label(channel))
    }

    pub(crate) fn archive_shed(&self, channel: &ChannelId) -> Counter {
        self.archive_shed.get_or_create_owned(&label(channel))
    }

    pub(crate) fn stragglers(&self, channel: &ChannelId) -> Counter {
        self.stragglers.get_or_create_owned(&label(channel))
    }

    pub(crate) fn dropped(&self, channel: &ChannelId) -> Counter {
        self.dropped.get_or_create_owned(&label(channel))
    }
}

fn label(channel: &ChannelId) -> ChannelLabel {
    ChannelLabel { channel: channel.to_string() }
}
