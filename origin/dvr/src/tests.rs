use super::*;
use bytes::Bytes;
use proptest::prelude::*;
use sigma_shared::resource::InitHash;
use std::path::Path;

/// A disk that is full after so many bytes.
pub(crate) mod disk {
    use std::cell::Cell;
    use std::fs::File;
    use std::io::{self, Write};

    thread_local!(static LEFT: Cell<Option<usize>> = const { Cell::new(None) });

    pub(crate) fn full_after(bytes: Option<usize>) {
        LEFT.set(bytes);
    }

    pub(crate) fn write(file: &mut File, bytes: &[u8]) -> io::Result<()> {
        let Some(left) = LEFT.get() else {
            return file.write_all(bytes);
        };
        let fits = left.min(bytes.len());
        LEFT.set(Some(left - fits));
        file.write_all(&bytes[..fits])?;
        if fits < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

const LIMITS: Limits = Limits { pair_segments: 4, bytes_max: 1 << 30 };

fn line(msn: u64) -> SegmentLine {
    SegmentLine {
        msn,
        duration: 0,
        discontinuity: msn.is_multiple_of(7),
        gap: false,
        independent: false,
        init: InitHash(msn / 10),
        program_date_time_ms: msn as i64 * 2000,
    }
}

fn bytes_of(msn: u64, part: u64) -> Bytes {
    Bytes::from(format!("part {part} of segment {msn};").repeat(1 + (msn + part) as usize % 5))
}

fn part_of(msn: u64, part: u64) -> LoggedPart {
    let line = PartLine { duration: 30_000 + part as u32, independent: part == 0, gap: false };
    LoggedPart { bytes: bytes_of(msn, part), line }
}

fn write_segment(log: &mut Log, msn: u64, parts: u64) -> Result<SegmentEntry, WriteError> {
    log.begin(line(msn), msn as i64 * 180_000, msn / 7)?;
    for part in 0..parts {
        log.part(&part_of(msn, part))?;
    }
    log.finish(false)
}

fn whole(msn: u64, parts: u64) -> Bytes {
    (0..parts).map(|part| bytes_of(msn, part)).collect::<Vec<_>>().concat().into()
}

fn numbers(recovered: &Recovered) -> Vec<u64> {
    recovered.segments.iter().map(|entry| entry.line.msn).collect()
}

#[test]
fn what_was_written_is_there_again_with_the_same_bytes() {
    let dir = tempfile::tempdir().expect("a folder");
    let (mut log, recovered) = Log::open(dir.path(), LIMITS).expect("opened");
    assert!(recovered.segments.is_empty());
    log.init(InitHash(10), Bytes::from_static(b"init")).expect("written");
    let written: Vec<_> = (100..110).map(|msn| write_segment(&mut log, msn, 6).expect("written")).collect();
    log.note(3, Bytes::from_static(b"old")).expect("written");
    log.note(3, Bytes::from_static(b"new")).expect("written");
    drop(log);
    let (_, recovered) = Log::open(dir.path(), LIMITS).expect("opened");
    assert_eq!(recovered.segments, written);
    assert_eq!(recovered.inits, [(InitHash(10), Bytes::from_static(b"init"))]);
    assert_eq!(recovered.notes[&3], "new");
    let reader = LogReader::new(dir.path());
    for entry in &recovered.segments {
        assert_eq!(reader.segment(entry).expect("there"), whole(entry.line.msn, 6));
        assert_eq!(reader.first_part(entry).expect("there"), bytes_of(entry.line.msn, 0));
        assert!(entry.line.independent && entry.line.duration == 180_015);
    }
    for (msn, parts) in &recovered.parts {
        let read = parts.iter().map(|part| reader.part(*msn, part).expect("there")).collect::<Vec<_>>();
        assert_eq!(read, (0..6).map(|part| bytes_of(*msn, part)).collect::<Vec<_>>(), "PT-10");
    }
    assert_eq!(recovered.parts.len(), 10);
}

#[test]
fn a_segment_that_was_being_written_is_completed_with_what_is_there() {
    let dir = tempfile::tempdir().expect("a folder");
    let (mut log, _) = Log::open(dir.path(), LIMITS).expect("opened");
    write_segment(&mut log, 100, 6).expect("written");
    log.begin(line(101), 0, 0).expect("written");
    (0..3).for_each(|part| log.part(&part_of(101, part)).expect("written"));
    drop(log);
    for _ in 0..2 {
        let (_, recovered) = Log::open(dir.path(), LIMITS).expect("opened");
        assert_eq!(numbers(&recovered), [100, 101]);
        let last = recovered.segments.last().expect("two");
        assert_eq!(LogReader::new(dir.path()).segment(last).expect("there"), whole(101, 3));
        assert_eq!(last.line.duration, 90_003);
    }
}

#[test]
fn ev_11_a_gap_is_a_gap_again_also_when_it_was_being_written() {
    let dir = tempfile::tempdir().expect("a folder");
    let (mut log, _) = Log::open(dir.path(), LIMITS).expect("opened");
    let gap = LoggedPart {
        bytes: Bytes::new(),
        line: PartLine { duration: 30_000, independent: false, gap: true },
    };
    log.begin(line(100), 0, 0).expect("begun");
    log.part(&gap).expect("written");
    assert!(log.finish(true).expect("finished").line.gap);
    log.begin(line(101), 0, 0).expect("begun");
    log.part(&part_of(101, 0)).expect("written");
    log.part(&gap).expect("written");
    drop(log);
    let (_, recovered) = Log::open(dir.path(), LIMITS).expect("opened");
    assert_eq!(
        recovered.segments.iter().map(|entry| (entry.line.msn, entry.line.gap)).collect::<Vec<_>>(),
        [(100, true), (101, true)]
    );
}

#[test]
fn a10_old_pairs_go_by_number_and_by_bytes() {
    let dir = tempfile::tempdir().expect("a folder");
    let (mut log, _) = Log::open(dir.path(), LIMITS).expect("opened");
    (100..120).for_each(|msn| assert!(write_segment(&mut log, msn, 6).is_ok()));
    log.retain(109);
    assert_eq!(log.oldest(), Some(108), "whole pairs of four");
    drop(log);
    let limits = Limits { bytes_max: 2000, ..LIMITS };
    let (mut log, recovered) = Log::open(dir.path(), limits).expect("opened");
    assert_eq!(numbers(&recovered), (108..120).collect::<Vec<_>>());
    write_segment(&mut log, 120, 6).expect("written");
    assert!(log.oldest() >= Some(116), "{:?}", log.oldest());
    let reader = LogReader::new(dir.path());
    assert!(matches!(reader.segment(&recovered.segments[0]), Err(ReadError::Io(_))));
    log.clear();
    assert_eq!(std::fs::read_dir(dir.path()).expect("a folder").count(), 0);
    write_segment(&mut log, 121, 6).expect("goes on");
}

#[test]
fn a_full_disk_costs_the_segment_and_nothing_before_it() {
    let dir = tempfile::tempdir().expect("a folder");
    for full_after in 0..700 {
        let (mut log, _) = Log::open(dir.path(), LIMITS).expect("opened");
        log.clear();
        write_segment(&mut log, 100, 6).expect("written");
        disk::full_after(Some(full_after));
        let failed = (101..110).find(|msn| match write_segment(&mut log, *msn, 6) {
            Ok(_) => false,
            Err(error) => matches!(error, WriteError::Full(_)) || panic!("{error}"),
        });
        disk::full_after(None);
        let failed = failed.expect("it is full");
        assert!(matches!(log.part(&part_of(failed, 0)), Err(WriteError::GivenUp)));
        drop(log);
        let (mut log, recovered) = Log::open(dir.path(), LIMITS).expect("opened");
        let reader = LogReader::new(dir.path());
        for entry in &recovered.segments {
            let parts = u64::from(entry.line.duration / 30_000);
            assert_eq!(reader.segment(entry).expect("there"), whole(entry.line.msn, parts));
            assert!(entry.line.msn == failed || parts == 6, "{full_after}");
        }
        assert!(numbers(&recovered).starts_with(&(100..failed).collect::<Vec<_>>()), "{full_after}");
        write_segment(&mut log, 130, 6).expect("there is space again");
        drop(log);
        let (_, recovered) = Log::open(dir.path(), LIMITS).expect("opened");
        assert_eq!(numbers(&recovered), [130], "what a hole separates is left out");
    }
}

fn damaged(damage: impl Fn(&Path)) -> (tempfile::TempDir, Recovered) {
    let dir = tempfile::tempdir().expect("a folder");
    let (mut log, _) = Log::open(dir.path(), LIMITS).expect("opened");
    (100..110).for_each(|msn| assert!(write_segment(&mut log, msn, 6).is_ok()));
    drop(log);
    damage(dir.path());
    let (_, recovered) = Log::open(dir.path(), LIMITS).expect("opened");
    (dir, recovered)
}

#[test]
fn spoilt_files_are_noticed_and_never_served() {
    let file = |dir: &Path, msn: u64, kind: &str| log::path(dir, msn, kind);
    let (_, recovered) = damaged(|dir| std::fs::write(dir.join("notes.txt"), "hello").expect("written"));
    assert_eq!(numbers(&recovered), (100..110).collect::<Vec<_>>(), "what is no pair does not matter");
    let (_, recovered) = damaged(|dir| std::fs::remove_file(file(dir, 104, "media")).expect("removed"));
    assert_eq!((numbers(&recovered), recovered.left_out), (vec![108, 109], 4));
    let (_, recovered) =
        damaged(|dir| std::fs::write(file(dir, 104, "index"), b"SGMDVR\0\x02rest").expect("written"));
    assert_eq!(numbers(&recovered), [108, 109], "another version");
    let (_, recovered) = damaged(|dir| {
        let mut media = std::fs::read(file(dir, 108, "media")).expect("read");
        *media.last_mut().expect("some") ^= 1;
        std::fs::write(file(dir, 108, "media"), media).expect("written");
    });
    assert_eq!(numbers(&recovered), (100..109).collect::<Vec<_>>(), "the newest is verified");
    let (dir, recovered) = damaged(|dir| {
        std::fs::write(file(dir, 110, "index"), b"SGM").expect("written");
        std::fs::write(file(dir, 110, "media"), b"").expect("written");
    });
    assert_eq!(numbers(&recovered), (100..110).collect::<Vec<_>>(), "killed while a pair was made");
    assert!(!file(dir.path(), 110, "media").exists(), "and nothing of it stays");
    let (dir, recovered) = damaged(|dir| {
        let mut media = std::fs::read(file(dir, 100, "media")).expect("read");
        media[0] ^= 1;
        std::fs::write(file(dir, 100, "media"), media).expect("written");
    });
    let reader = LogReader::new(dir.path());
    assert!(matches!(reader.segment(&recovered.segments[0]), Err(ReadError::Corrupt { msn: 100 })));
    assert!(reader.segment(&recovered.segments[1]).is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_damage_costs_no_more_than_what_it_hits(
        cut in 0usize..2000, flip in any::<Option<(usize, u8)>>(), media in any::<bool>(),
    ) {
        let kind = if media { "media" } else { "index" };
        let (dir, recovered) = damaged(|dir| {
            let path = log::path(dir, 108, kind);
            let mut bytes = std::fs::read(&path).expect("read");
            if let Some((at, bits)) = flip {
                let length = bytes.len();
                bytes[at % length] ^= bits;
            }
            bytes.truncate(cut);
            std::fs::write(&path, bytes).expect("written");
        });
        prop_assert!(numbers(&recovered).starts_with(&(100..108).collect::<Vec<_>>()) || recovered.segments.len() <= 2);
        let reader = LogReader::new(dir.path());
        for entry in &recovered.segments {
            if let Ok(bytes) = reader.segment(entry) {
                prop_assert!(whole(entry.line.msn, 6).starts_with(&bytes));
            }
        }
    }

    #[test]
    fn an_index_of_any_bytes_is_read_without_harm(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let dir = tempfile::tempdir().expect("a folder");
        let index = [&record::MAGIC[..], &bytes[..]].concat();
        std::fs::write(log::path(dir.path(), 5, "index"), index).expect("written");
        std::fs::write(log::path(dir.path(), 5, "media"), b"").expect("written");
        let (mut log, _) = Log::open(dir.path(), LIMITS).expect("opened");
        write_segment(&mut log, 9, 2).expect("written");
    }
}
