//! The Media Playlist: its model and the one writer of its text (draft-pantos-hls-rfc8216bis section 4).
//!
//! Invariants: all URIs are relative (A13); the text depends on nothing but the model, so the same model is the same
//! bytes on every machine. Parts are listed for the newest segments only; the caller decides for how many (PT-09).
//! Deliberately absent: parsing, delta updates.

use crate::reload::Tip;
use crate::resource::{InitHash, MediaResource};
use std::fmt::{self, Write};

/// Ticks per second of every duration and position in a playlist model.
pub const TICKS_PER_SECOND: u64 = 90_000;

/// One Partial Segment as listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartLine {
    /// Duration in ticks of 1/90000 s.
    pub duration: u32,
    /// INDEPENDENT=YES: it starts with a random access point (PT-05, PT-06).
    pub independent: bool,
    /// GAP=YES: it cannot be had.
    pub gap: bool,
}

/// One Media Segment, or the open parent at the end (which has no `duration` yet).
#[derive(Debug, Clone, Copy)]
pub struct SegmentLines<'a> {
    /// Media Sequence Number.
    pub msn: u64,
    /// EXTINF in ticks of 1/90000 s; `None` while the segment is open.
    pub duration: Option<u32>,
    /// EXT-X-DISCONTINUITY before this segment.
    pub discontinuity: bool,
    /// EXT-X-GAP: the segment cannot be had in full.
    pub gap: bool,
    /// EXT-X-MAP in force.
    pub init: InitHash,
    /// EXT-X-PROGRAM-DATE-TIME of its first sample, Unix milliseconds.
    pub program_date_time_ms: i64,
    /// Its parts, empty when they are no longer listed.
    pub parts: &'a [PartLine],
}

/// RENDITION-REPORT of another rendition of the channel (RR-01, RR-02).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenditionReport {
    /// Relative to the containing playlist, e.g. `../v720/media.m3u8`.
    pub uri: String,
    /// LAST-MSN
    pub last_msn: u64,
    /// LAST-PART
    pub last_part: Option<u32>,
}

/// What EXT-X-SERVER-CONTROL and EXT-X-PART-INF state; constant for the life of a playlist (EV-04).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerControl {
    /// EXT-X-TARGETDURATION, seconds.
    pub target_duration_s: u32,
    /// PART-TARGET in milliseconds: a ceiling for every part (PT-03).
    pub part_target_ms: u32,
    /// PART-HOLD-BACK in milliseconds (SC-05), the same in all renditions (SC-07).
    pub part_hold_back_ms: u32,
}

/// A whole Media Playlist at one moment.
#[derive(Debug, Clone)]
pub struct MediaPlaylist<'a> {
    /// Constants.
    pub control: ServerControl,
    /// EXT-X-DISCONTINUITY-SEQUENCE
    pub discontinuity_sequence: u64,
    /// Segments in order, at least one complete; the last may be open.
    pub segments: &'a [SegmentLines<'a>],
    /// How far it has got; names the hinted part (PH-01).
    pub tip: Tip,
    /// The other renditions.
    pub reports: &'a [RenditionReport],
}

impl fmt::Display for MediaPlaylist<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_head(f)?;
        let mut init = None;
        let mut contiguous = false;
        for segment in self.segments {
            write_segment(f, segment, &mut init, &mut contiguous)?;
        }
        if self.tip.ended {
            return f.write_str("#EXT-X-ENDLIST\n"); // PH-02: no hint, EV-10
        }
        let (msn, part) = self.tip.next_part();
        let uri = MediaResource::Part { msn, part };
        writeln!(f, "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"{uri}\"")?;
        for report in self.reports {
            write!(f, "#EXT-X-RENDITION-REPORT:URI=\"{}\",LAST-MSN={}", report.uri, report.last_msn)?;
            if let Some(part) = report.last_part {
                write!(f, ",LAST-PART={part}")?;
            }
            f.write_char('\n')?;
        }
        Ok(())
    }
}

impl MediaPlaylist<'_> {
    fn write_head(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let control = &self.control;
        // SYN-08: EXT-X-MAP without I-FRAMES-ONLY needs 6, nothing here needs more.
        f.write_str("#EXTM3U\n#EXT-X-VERSION:6\n")?;
        writeln!(f, "#EXT-X-TARGETDURATION:{}", control.target_duration_s)?;
        writeln!(
            f,
            "#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,HOLD-BACK={}.0,PART-HOLD-BACK={}",
            3 * control.target_duration_s, // SC-03
            Seconds(u64::from(control.part_hold_back_ms) * TICKS_PER_SECOND / 1000, 3),
        )?;
        writeln!(
            f,
            "#EXT-X-PART-INF:PART-TARGET={}",
            Seconds(u64::from(control.part_target_ms) * TICKS_PER_SECOND / 1000, 3)
        )?;
        let first = self.segments.first().map_or(0, |segment| segment.msn);
        writeln!(f, "#EXT-X-MEDIA-SEQUENCE:{first}")?;
        writeln!(f, "#EXT-X-DISCONTINUITY-SEQUENCE:{}", self.discontinuity_sequence)
    }
}

fn write_segment(
    f: &mut fmt::Formatter<'_>,
    segment: &SegmentLines<'_>,
    init: &mut Option<InitHash>,
    contiguous: &mut bool,
) -> fmt::Result {
    // PT-07: what applies to the parent comes before its first part.
    if segment.discontinuity {
        f.write_str("#EXT-X-DISCONTINUITY\n")?;
    }
    if *init != Some(segment.init) {
        writeln!(f, "#EXT-X-MAP:URI=\"{}\"", MediaResource::Init(segment.init))?;
        *init = Some(segment.init);
    }
    // PDT-01: at the start, at each discontinuity, and where parts begin, so that a client that joins there has it.
    if !*contiguous || segment.discontinuity || !segment.parts.is_empty() || segment.gap {
        writeln!(f, "#EXT-X-PROGRAM-DATE-TIME:{}", DateTime(segment.program_date_time_ms))?;
    }
    *contiguous = !segment.gap;
    for (part, line) in (0u32..).zip(segment.parts) {
        let uri = MediaResource::Part { msn: segment.msn, part };
        write!(f, "#EXT-X-PART:DURATION={},URI=\"{uri}\"", Seconds(u64::from(line.duration), 5))?;
        if line.independent {
            f.write_str(",INDEPENDENT=YES")?;
        }
        if line.gap {
            f.write_str(",GAP=YES")?;
        }
        f.write_char('\n')?;
    }
    let Some(duration) = segment.duration else {
        return Ok(());
    };
    if segment.gap {
        f.write_str("#EXT-X-GAP\n")?; // EV-11
    }
    let uri = MediaResource::Segment { msn: segment.msn };
    writeln!(f, "#EXTINF:{},\n{uri}", Seconds(u64::from(duration), 5))
}

/// Ticks as decimal seconds with a fixed number of digits, rounded down so that a duration never states more than it
/// is (PT-03).
struct Seconds(u64, u32);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.1;
        let scale = 10u64.pow(digits);
        let scaled = self.0 * scale / TICKS_PER_SECOND;
        write!(f, "{}.{:0width$}", scaled / scale, scaled % scale, width = digits as usize)
    }
}

/// Unix milliseconds as an ISO 8601 date and time in UTC with milliseconds (SYN-13).
#[derive(Debug, Clone, Copy)]
pub struct DateTime(pub i64);

impl fmt::Display for DateTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, ms) = (self.0.div_euclid(86_400_000), self.0.rem_euclid(86_400_000));
        let (year, month, day) = civil(days);
        let (h, m, s) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{:03}Z", ms % 1000)
    }
}

/// Days since 1970-01-01 as a civil date of the proleptic Gregorian calendar, counted in eras of 400 years that
/// start on 1 March, so that the leap day is the last day of a year.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests;
