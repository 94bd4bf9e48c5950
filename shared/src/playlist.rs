//! The Media Playlist: the one writer of its text (draft-pantos-hls-rfc8216bis section 4), piece by piece, so that
//! what does not change is not written again.
//!
//! Invariants: all URIs are relative (A13); a piece depends on nothing but its arguments, so the same arguments are the
//! same bytes on every machine; a segment's lines are the same in every version of a playlist (EV-03), except that the
//! first one of a text states what is in force (SK-05). Parts are listed for the newest segments only; the caller
//! decides for how many (PT-09). Deliberately absent: parsing.

use crate::daterange::DateRange;
use crate::id::RenditionId;
use crate::mode::Mode;
use crate::reload::Tip;
use crate::resource::{InitHash, Listed, MediaResource};
use std::fmt::{self, Write};

/// Ticks per second of every duration and position in a playlist model.
pub const TICKS_PER_SECOND: u64 = 90_000;
/// A segment whose number is a multiple of this states its date, so that rounding does not add up.
const DATED_EVERY: u64 = 16;

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

/// One Media Segment as listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentLine {
    /// Media Sequence Number.
    pub msn: u64,
    /// EXTINF in ticks of 1/90000 s.
    pub duration: u32,
    /// EXT-X-DISCONTINUITY before this segment.
    pub discontinuity: bool,
    /// EXT-X-GAP: the segment cannot be had in full.
    pub gap: bool,
    /// It starts with a random access point, so an I-frame playlist has it.
    pub independent: bool,
    /// EXT-X-MAP in force.
    pub init: InitHash,
    /// EXT-X-PROGRAM-DATE-TIME of its first sample, Unix milliseconds.
    pub program_date_time_ms: i64,
}

/// EXT-X-RENDITION-REPORT of another rendition of the channel (RR-01, RR-02).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenditionReport {
    /// The other one.
    pub rendition: RenditionId,
    /// How far it has got.
    pub tip: Tip,
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

impl ServerControl {
    /// HOLD-BACK of a mode, seconds: three target durations or more (SC-03).
    #[must_use]
    pub fn hold_back_s(&self, mode: Mode) -> u32 {
        match mode {
            Mode::Ultra => 3 * self.target_duration_s,
            Mode::Low => (3 * self.target_duration_s).max(8),
            Mode::Normal => (6 * self.target_duration_s).max(24),
        }
    }

    /// CAN-SKIP-UNTIL, seconds (SC-01).
    #[must_use]
    pub fn skip_until_s(&self) -> u32 {
        6 * self.target_duration_s
    }
}

/// What a Playlist Delta Update leaves out (SK-01).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skipped<'a> {
    /// SKIPPED-SEGMENTS
    pub segments: u64,
    /// RECENTLY-REMOVED-DATERANGES, when Date Ranges are left out too (SK-04).
    pub removed_dateranges: Option<&'a [String]>,
}

/// The tags a playlist begins with.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// What is listed.
    pub listed: Listed,
    /// For whom.
    pub mode: Mode,
    /// Constants.
    pub control: ServerControl,
    /// EXT-X-MEDIA-SEQUENCE, which skipping does not change (SK-03).
    pub media_sequence: u64,
    /// EXT-X-DISCONTINUITY-SEQUENCE
    pub discontinuity_sequence: u64,
    /// EXT-X-SKIP, in a delta update.
    pub skipped: Option<Skipped<'a>>,
}

impl fmt::Display for Head<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let control = &self.control;
        // SYN-08, SK-06: EXT-X-MAP needs 6, or 5 with I-frames only; EXT-X-SKIP 9, with Date Ranges left out 10.
        let version = match self.skipped {
            None if self.listed == Listed::IFrames => 5,
            None => 6,
            Some(Skipped { removed_dateranges: None, .. }) => 9,
            Some(Skipped { removed_dateranges: Some(_), .. }) => 10,
        };
        writeln!(
            f,
            "#EXTM3U\n#EXT-X-VERSION:{version}\n#EXT-X-TARGETDURATION:{}",
            control.target_duration_s
        )?;
        write!(
            f,
            "#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,CAN-SKIP-UNTIL={}.0,CAN-SKIP-DATERANGES=YES,HOLD-BACK={}.0",
            control.skip_until_s(),
            control.hold_back_s(self.mode)
        )?;
        if self.mode == Mode::Ultra {
            write!(f, ",PART-HOLD-BACK={}", Milliseconds(control.part_hold_back_ms))?;
        }
        f.write_char('\n')?;
        if self.mode == Mode::Ultra && self.listed == Listed::Media {
            writeln!(f, "#EXT-X-PART-INF:PART-TARGET={}", Milliseconds(control.part_target_ms))?;
        }
        if self.listed == Listed::IFrames {
            f.write_str("#EXT-X-I-FRAMES-ONLY\n")?;
        }
        writeln!(f, "#EXT-X-MEDIA-SEQUENCE:{}", self.media_sequence)?;
        writeln!(f, "#EXT-X-DISCONTINUITY-SEQUENCE:{}", self.discontinuity_sequence)?;
        let Some(skipped) = self.skipped else {
            return Ok(());
        };
        write!(f, "#EXT-X-SKIP:SKIPPED-SEGMENTS={}", skipped.segments)?;
        if let Some(ids) = skipped.removed_dateranges {
            write!(f, ",RECENTLY-REMOVED-DATERANGES=\"{}\"", ids.join("\t"))?;
        }
        f.write_char('\n')
    }
}

/// Writes the segments of one text, one after the other.
#[derive(Debug)]
pub struct SegmentWriter {
    listed: Listed,
    before: Option<SegmentLine>,
}

impl SegmentWriter {
    /// Goes on behind `before`; without one, the next segment is the first of its text and states what is in force.
    #[must_use]
    pub fn new(listed: Listed, before: Option<SegmentLine>) -> Self {
        Self { listed, before }
    }

    /// Writes a complete segment and the parts to list with it.
    pub fn segment(&mut self, out: &mut String, line: &SegmentLine, parts: &[PartLine]) {
        self.applies(out, line);
        write_parts(out, line.msn, parts);
        let uri = match self.listed {
            Listed::Media => MediaResource::Segment { msn: line.msn },
            Listed::IFrames => MediaResource::IFrame { msn: line.msn },
        };
        if self.is_gap(line) {
            out.push_str("#EXT-X-GAP\n"); // EV-11
        }
        put(out, format_args!("#EXTINF:{},\n{uri}\n", Seconds(u64::from(line.duration), 5)));
        self.before = Some(*line);
    }

    /// Writes the open parent at the end: its parts, of which there is at least one.
    pub fn open(&mut self, out: &mut String, line: &SegmentLine, parts: &[PartLine]) {
        self.applies(out, line);
        write_parts(out, line.msn, parts);
    }

    /// PT-07: what applies to the parent comes before its first part.
    fn applies(&self, out: &mut String, line: &SegmentLine) {
        if line.discontinuity {
            out.push_str("#EXT-X-DISCONTINUITY\n");
        }
        if self.before.is_none_or(|before| before.init != line.init) {
            put(out, format_args!("#EXT-X-MAP:URI=\"{}\"\n", MediaResource::Init(line.init)));
        }
        // PDT-01
        let dated = line.discontinuity || line.msn.is_multiple_of(DATED_EVERY);
        if dated || self.before.is_none_or(|before| before.gap != line.gap) {
            put(out, format_args!("#EXT-X-PROGRAM-DATE-TIME:{}\n", DateTime(line.program_date_time_ms)));
        }
    }

    fn is_gap(&self, line: &SegmentLine) -> bool {
        line.gap || (self.listed == Listed::IFrames && !line.independent)
    }
}

fn write_parts(out: &mut String, msn: u64, parts: &[PartLine]) {
    for (part, line) in (0u32..).zip(parts) {
        let uri = MediaResource::Part { msn, part };
        put(out, format_args!("#EXT-X-PART:DURATION={},URI=\"{uri}\"", Seconds(u64::from(line.duration), 5)));
        if line.independent {
            out.push_str(",INDEPENDENT=YES");
        }
        if line.gap {
            out.push_str(",GAP=YES");
        }
        out.push('\n');
    }
}

/// What a playlist ends with.
#[derive(Debug, Clone, Copy)]
pub struct Foot<'a> {
    /// What is listed.
    pub listed: Listed,
    /// For whom.
    pub mode: Mode,
    /// How far the rendition has got; names the hinted part (PH-01).
    pub tip: Tip,
    /// The init section of the hinted part, where it is another than the last segment's (PH-04).
    pub next_init: Option<InitHash>,
    /// Date Ranges to list.
    pub dateranges: &'a [&'a DateRange],
    /// The other renditions; for an I-frame playlist, all of them.
    pub reports: &'a [RenditionReport],
}

impl fmt::Display for Foot<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for range in self.dateranges {
            writeln!(f, "{range}")?;
        }
        if self.tip.ended {
            return f.write_str("#EXT-X-ENDLIST\n"); // PH-02: no hint, EV-10
        }
        let parts = self.mode == Mode::Ultra;
        if parts && self.listed == Listed::Media {
            if let Some(init) = self.next_init {
                writeln!(f, "#EXT-X-PRELOAD-HINT:TYPE=MAP,URI=\"{}\"", MediaResource::Init(init))?;
            }
            let (msn, part) = self.tip.next_part();
            let uri = MediaResource::Part { msn, part };
            writeln!(f, "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"{uri}\"")?;
        }
        let playlist = MediaResource::Playlist(Listed::Media, self.mode);
        for RenditionReport { rendition, tip } in self.reports {
            // RR-04: the URI is the one that the Multivariant Playlist has.
            write!(f, "#EXT-X-RENDITION-REPORT:URI=\"../{rendition}/{playlist}\"")?;
            match tip.last_part() {
                (msn, Some(part)) if parts => writeln!(f, ",LAST-MSN={msn},LAST-PART={part}")?,
                _ => writeln!(f, ",LAST-MSN={}", tip.complete_msn)?,
            }
        }
        Ok(())
    }
}

/// Writing to a `String` cannot fail.
fn put(out: &mut String, text: fmt::Arguments<'_>) {
    let _ = out.write_fmt(text);
}

/// Milliseconds as decimal seconds with three digits.
struct Milliseconds(u32);

impl fmt::Display for Milliseconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
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
