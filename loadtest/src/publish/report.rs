//! What publishers sent, one by one and together. Names are part of the outside.
#![deny(clippy::disallowed_methods)]

use serde::Serialize;
use std::fmt;

/// What one publisher did.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct PublisherReport {
    /// From 1.
    pub(crate) number: u32,
    /// Scheme, host and port; never the stream key.
    pub(crate) server: String,
    /// From the first moment to the last, and of media.
    pub(crate) seconds: f64,
    pub(crate) media_seconds: f64,
    pub(crate) video_tags: u64,
    pub(crate) audio_tags: u64,
    /// Tags that were left out: the server was away or did not keep up.
    pub(crate) skipped_tags: u64,
    /// On the connection; with SRT, handed to ffmpeg.
    pub(crate) bytes: u64,
    /// How late a tag left at most: the server or the network did not keep up, or the input came late.
    pub(crate) late_max_ms: f64,
    /// Connections that were made after the first one.
    pub(crate) reconnects: u64,
    /// The input came to its end, not the time.
    pub(crate) input_ended: bool,
    /// What went wrong, in order.
    pub(crate) errors: Vec<String>,
}

/// What all did.
#[derive(Debug, Default, Serialize)]
pub(crate) struct PublishReport {
    /// No more errors than allowed.
    pub(crate) passed: bool,
    /// The longest of all.
    pub(crate) seconds: f64,
    pub(crate) video_tags: u64,
    pub(crate) audio_tags: u64,
    pub(crate) skipped_tags: u64,
    pub(crate) bytes: u64,
    pub(crate) late_max_ms: f64,
    pub(crate) reconnects: u64,
    pub(crate) errors_total: u64,
    /// For all of them.
    pub(crate) input_ended: bool,
    pub(crate) publishers: Vec<PublisherReport>,
}

impl PublishReport {
    pub(crate) fn new(mut publishers: Vec<PublisherReport>, max_errors: u64) -> Self {
        publishers.sort_by_key(|publisher| publisher.number);
        let all = || publishers.iter();
        let errors_total = all().map(|one| one.errors.len() as u64).sum();
        Self {
            passed: errors_total <= max_errors && !publishers.is_empty(),
            seconds: all().map(|one| one.seconds).fold(0.0, f64::max),
            video_tags: all().map(|one| one.video_tags).sum(),
            audio_tags: all().map(|one| one.audio_tags).sum(),
            skipped_tags: all().map(|one| one.skipped_tags).sum(),
            bytes: all().map(|one| one.bytes).sum(),
            late_max_ms: all().map(|one| one.late_max_ms).fold(0.0, f64::max),
            reconnects: all().map(|one| one.reconnects).sum(),
            errors_total,
            input_ended: all().all(|one| one.input_ended),
            publishers,
        }
    }
}

impl fmt::Display for PublishReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.publishers.len() > 1 {
            writeln!(
                f,
                "publisher  seconds    media s     video     audio   skipped         bytes   late ms  reconnects  errors"
            )?;
            for one in &self.publishers {
                writeln!(
                    f,
                    "{:>9}  {:>7.1}  {:>9.1}  {:>8}  {:>8}  {:>8}  {:>12}  {:>8.1}  {:>10}  {:>6}",
                    one.number,
                    one.seconds,
                    one.media_seconds,
                    one.video_tags,
                    one.audio_tags,
                    one.skipped_tags,
                    one.bytes,
                    one.late_max_ms,
                    one.reconnects,
                    one.errors.len()
                )?;
            }
        }
        write!(
            f,
            "sent {:.1} s: {} video and {} audio tags, {} bytes, at most {:.1} ms late, {} reconnects, {} errors",
            self.seconds,
            self.video_tags,
            self.audio_tags,
            self.bytes,
            self.late_max_ms,
            self.reconnects,
            self.errors_total
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(number: u32, errors: &[&str]) -> PublisherReport {
        PublisherReport {
            number,
            seconds: f64::from(number),
            video_tags: 10,
            bytes: 100,
            late_max_ms: 5.0 / f64::from(number),
            input_ended: number > 1,
            errors: errors.iter().map(|error| (*error).to_owned()).collect(),
            ..PublisherReport::default()
        }
    }

    #[test]
    fn everybody_is_in_it_in_order() {
        let report = PublishReport::new(vec![one(3, &[]), one(1, &["refused"]), one(2, &[])], 0);
        assert!(!report.passed && !report.input_ended);
        assert_eq!((report.video_tags, report.bytes, report.errors_total), (30, 300, 1));
        assert_eq!((report.seconds, report.late_max_ms), (3.0, 5.0));
        assert_eq!(report.publishers.iter().map(|one| one.number).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(report.to_string().lines().count(), 5);
        assert!(PublishReport::new(vec![one(1, &["refused"])], 1).passed);
        assert!(!PublishReport::new(Vec::new(), 1).passed, "nobody sent anything");
    }
}
