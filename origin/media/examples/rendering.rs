//! Measures what a new part costs: every playlist of a rendition with hours of list, in full and as delta updates, plain
//! and gzip, and how large a reload is.
//!
//! `cargo run --release -p sigma-media --example rendering -- [HOURS]`

#![expect(clippy::print_stdout, reason = "it prints what it measured")]

use bytes::Bytes;
use sigma_media::window::{ArchivedSegment, LiveWindow, Part, Segment, Shown, WindowLimits};
use sigma_shared::directives::Skip;
use sigma_shared::mode::Mode;
use sigma_shared::playlist::{PartLine, RenditionReport, SegmentLine, ServerControl};
use sigma_shared::reload::Tip;
use sigma_shared::resource::{InitHash, Listed};
use std::sync::Arc;
use std::time::{Duration, Instant};

const SEGMENT: i64 = 180_000;
const PARTS: u32 = 6;
const MEASURED_SEGMENTS: u64 = 100;
const UPDATES: [Option<Skip>; 3] = [None, Some(Skip::Yes), Some(Skip::V2)];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let hours = std::env::args().nth(1).map_or(Ok(4), |arg| arg.parse::<i64>())?;
    let ticks = hours * 3600 * 90_000;
    let limits =
        WindowLimits { window: 60 * 90_000, dvr: ticks, bytes_max: 1 << 30, discontinuity_sequence: 0 };
    let mut window = LiveWindow::new(limits);
    let first = 897_000_000u64;
    let listed = u64::try_from(ticks / SEGMENT)?;
    let old: Vec<ArchivedSegment> = (first..first + listed).map(archived).collect();
    let started = Instant::now();
    window.restore(&old, vec![(InitHash(1), Bytes::from_static(b"init"))], [(0, 0); 2]);
    let tip = Tip { complete_msn: first, complete_parts: PARTS, open_parts: 2, ended: false };
    let report = |id: &str| id.parse().map(|rendition| RenditionReport { rendition, tip });
    let reports: Arc<[RenditionReport]> =
        ["v720", "v480", "audio"].into_iter().map(report).collect::<Result<_, _>>()?;
    let first_snapshot = window.snapshot(shown(&reports)).ok_or("nothing is listed")?;
    let whole = first_snapshot.playlist(Listed::Media, Mode::Ultra, None).gzip.len();
    println!(
        "{hours} h of list, {listed} segments: restored and written for the first time in {} ms, {whole} pieces",
        started.elapsed().as_millis()
    );
    let (mut ultra, mut others, mut parts) = (Duration::ZERO, Duration::ZERO, 0u32);
    let mut sizes = [0usize; 3];
    for msn in first + listed..first + listed + MEASURED_SEGMENTS {
        for part in 0..PARTS {
            append(&mut window, msn, part);
            window.set_archived(Some(first..=msn - 1));
            let started = Instant::now();
            let snapshot = window.snapshot(shown(&reports));
            let snapshot = snapshot.ok_or("nothing is listed")?;
            sizes = UPDATES.map(|skip| {
                let text = snapshot.playlist(Listed::Media, Mode::Ultra, skip);
                text.gzip.iter().map(Bytes::len).sum()
            });
            let rendered = Instant::now();
            for (listed, mode) in
                [Listed::Media, Listed::IFrames].into_iter().flat_map(|l| Mode::ALL.map(|m| (l, m)))
            {
                for skip in UPDATES {
                    std::hint::black_box(snapshot.playlist(listed, mode, skip));
                }
            }
            // The blocks of the old list are written once, with the first segments.
            if msn > first + listed {
                ultra += rendered - started;
                others += rendered.elapsed();
                parts += 1;
            }
        }
    }
    println!(
        "a part's snapshot and the playlists of mode ultra, plain and gzip, in full and both delta updates: {} us",
        (ultra / parts).as_micros()
    );
    println!(
        "all other playlists (low, normal, I-frames), if somebody asks for every one: {} us a part",
        (others / parts).as_micros()
    );
    println!("gzip bytes: full {}, delta {}, delta v2 {}", sizes[0], sizes[1], sizes[2]);
    Ok(())
}

fn shown(reports: &Arc<[RenditionReport]>) -> Shown {
    Shown {
        control: ServerControl { target_duration_s: 2, part_target_ms: 334, part_hold_back_ms: 1002 },
        next_init: None,
        dateranges: Arc::default(),
        reports: Arc::clone(reports),
        iframe_reports: Arc::clone(reports),
    }
}

fn append(window: &mut LiveWindow, msn: u64, part: u32) {
    if part == 0 {
        let ArchivedSegment { line, start, .. } = archived(msn);
        window.open(Segment {
            msn,
            start,
            boundary: start,
            duration: None,
            discontinuity: false,
            gap: false,
            init: line.init,
            program_date_time_ms: line.program_date_time_ms,
            parts: Vec::new(),
        });
    }
    let line = PartLine { duration: 30_000, independent: part == 0, gap: false };
    window.append(Part { bytes: Bytes::new(), line, available_at_ms: 0 });
    if part + 1 == PARTS {
        window.close(false);
    }
    window.take_events();
}

fn archived(msn: u64) -> ArchivedSegment {
    let line = SegmentLine {
        msn,
        duration: 180_000,
        discontinuity: false,
        gap: false,
        independent: true,
        init: InitHash(1),
        program_date_time_ms: i64::try_from(msn).unwrap_or(0) * 2000,
    };
    ArchivedSegment { line, start: i64::try_from(msn).unwrap_or(0) * SEGMENT, discontinuity_sequence: 0 }
}
