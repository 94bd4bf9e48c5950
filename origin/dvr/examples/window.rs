//! Measures a log of hours: how long it takes to open, what the list of its segments takes in memory, and how long the
//! oldest segment takes to read.
//!
//! `cargo run --release -p sigma-dvr --example window -- [HOURS] [RENDITIONS]`

#![expect(clippy::print_stdout, reason = "it prints what it measured")]

use bytes::Bytes;
use sigma_dvr::{Limits, Log, LogReader, LoggedPart, SegmentEntry};
use sigma_shared::playlist::{PartLine, SegmentLine};
use sigma_shared::resource::InitHash;
use std::time::Instant;

const SEGMENT_S: u64 = 2;
const PARTS: u32 = 6;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let number = |n, otherwise| std::env::args().nth(n).map_or(Ok(otherwise), |arg| arg.parse::<u64>());
    let (hours, renditions) = (number(1, 12)?, number(2, 4)?);
    let segments = hours * 3600 / SEGMENT_S;
    let folder = std::env::temp_dir().join(format!("sigma-dvr-window-{}", std::process::id()));
    let limits = Limits { pair_segments: 128, bytes_max: u64::MAX };
    for rendition in 0..renditions {
        write(&folder.join(rendition.to_string()), limits, segments)?;
    }
    let started = Instant::now();
    let mut entries = Vec::new();
    for rendition in 0..renditions {
        entries.push(Log::open(&folder.join(rendition.to_string()), limits)?.1.segments);
    }
    let opened = started.elapsed();
    let reader = LogReader::new(&folder.join("0"));
    let started = Instant::now();
    let oldest = reader.segment(&entries[0][0])?;
    let read = started.elapsed();
    let found: usize = entries.iter().map(Vec::len).sum();
    let memory = found * size_of::<SegmentEntry>();
    std::fs::remove_dir_all(&folder)?;
    println!("{hours} h x {renditions} renditions: {found} segments");
    println!("opened in {} ms", opened.as_millis());
    println!("list in memory: {} bytes a segment, {:.1} MB", size_of::<SegmentEntry>(), memory as f64 / 1e6);
    println!("oldest segment ({} bytes) read in {} us", oldest.len(), read.as_micros());
    Ok(())
}

fn write(folder: &std::path::Path, limits: Limits, segments: u64) -> Result<(), Box<dyn std::error::Error>> {
    let (mut log, _) = Log::open(folder, limits)?;
    let bytes = Bytes::from(vec![7; 4000]);
    for msn in 0..segments {
        let line = SegmentLine {
            msn,
            duration: 0,
            discontinuity: false,
            gap: false,
            independent: true,
            init: InitHash(1),
            program_date_time_ms: 0,
        };
        log.begin(line, 0, 0)?;
        for part in 0..PARTS {
            let line = PartLine { duration: 30_000, independent: part == 0, gap: false };
            log.part(&LoggedPart { bytes: bytes.clone(), line })?;
        }
        log.finish(false)?;
    }
    Ok(())
}
