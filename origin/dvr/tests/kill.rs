//! A process that logs as fast as it can is killed at any moment, again and again, and nothing that it acknowledged is
//! lost or spoilt. `SIGMA_DVR_KILLS=1000 cargo nextest run -p sigma-dvr --test kill` kills it as often as that.

#![expect(clippy::expect_used, reason = "a test, and the process it kills")]

use bytes::Bytes;
use sigma_dvr::{Limits, Log, LogReader, LoggedPart};
use sigma_shared::playlist::{PartLine, SegmentLine};
use sigma_shared::resource::InitHash;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

const FOLDER: &str = "SIGMA_DVR_FOLDER";
const LIMITS: Limits = Limits { pair_segments: 8, bytes_max: 8 << 20 };
const PARTS: u64 = 6;

fn bytes_of(msn: u64, part: u64) -> Bytes {
    format!("{msn}.{part} ").repeat(200 + (msn * 7 + part * 131) as usize % 2000).into()
}

/// Logs and says what is logged, until it is killed.
fn write_for_ever(dir: &Path) {
    let (mut log, recovered) = Log::open(dir, LIMITS).expect("opened");
    let mut out = std::io::stdout().lock();
    let next = recovered.segments.last().map_or(1000, |last| last.line.msn + 1);
    for msn in next.. {
        let line = SegmentLine {
            msn,
            duration: 0,
            discontinuity: false,
            gap: false,
            independent: false,
            init: InitHash(1),
            program_date_time_ms: 0,
        };
        log.begin(line, 0, 0).expect("begun");
        for part in 0..PARTS {
            let line = PartLine { duration: 30_000, independent: part == 0, gap: false };
            log.part(&LoggedPart { bytes: bytes_of(msn, part), line }).expect("written");
            writeln!(out, "logged {msn} {part}").and_then(|()| out.flush()).expect("said");
        }
        log.finish(false).expect("finished");
    }
}

/// The newest part that the process acknowledged before it was killed, after `parts` of them or a little later.
fn killed_after(dir: &Path, parts: usize) -> Option<(u64, u64)> {
    let own = std::env::current_exe().expect("this test");
    let mut child = Command::new(own)
        .args(["--exact", "a_kill_at_any_moment_loses_and_spoils_nothing", "--nocapture"])
        .env(FOLDER, dir)
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
    let read = |line: String| {
        let (msn, part) = line.split_once("logged ")?.1.split_once(' ')?;
        Some((msn.parse().ok()?, part.parse().ok()?))
    };
    let newest = lines.by_ref().filter_map(read).nth(parts);
    child.kill().expect("killed");
    let newest = lines.filter_map(read).last().or(newest);
    child.wait().expect("gone");
    newest
}

#[test]
fn a_kill_at_any_moment_loses_and_spoils_nothing() {
    if let Some(dir) = std::env::var_os(FOLDER) {
        write_for_ever(Path::new(&dir));
    }
    let kills: u64 = std::env::var("SIGMA_DVR_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(20);
    let dir = tempfile::tempdir().expect("a folder");
    for kill in 0..kills {
        let acknowledged =
            killed_after(dir.path(), (kill.wrapping_mul(2_654_435_761) % 61) as usize).expect("it wrote");
        let (_, recovered) = Log::open(dir.path(), LIMITS).expect("opened");
        assert_eq!(recovered.left_out, 0);
        let reader = LogReader::new(dir.path());
        for entry in &recovered.segments {
            let parts = u64::from(entry.line.duration / 30_000);
            let expected: Vec<Bytes> = (0..parts).map(|part| bytes_of(entry.line.msn, part)).collect();
            assert_eq!(
                reader.segment(entry).expect("whole"),
                expected.concat(),
                "segment {}",
                entry.line.msn
            );
        }
        let last = recovered.segments.last().expect("some");
        let newest = (last.line.msn, u64::from(last.line.duration / 30_000) - 1);
        assert!(
            newest >= acknowledged,
            "kill {kill}: {acknowledged:?} was acknowledged, {newest:?} is there"
        );
    }
    println!("{kills} kills: nothing spoilt, nothing lost that was acknowledged");
}
