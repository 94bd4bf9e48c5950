use super::*;
use prometheus_client::registry::Registry;
use sigma_shared::playlist::{PartLine, SegmentLine};
use sigma_shared::resource::InitHash;

const TICKS: u32 = 180_000;

struct Lab {
    folder: tempfile::TempDir,
    claim: Arc<ClaimedDir>,
}

impl Lab {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let claim = Arc::new(ClaimedDir::claim(folder.path()).expect("free"));
        Self { folder, claim }
    }

    fn open(&self) -> (Archivist, Vec<Restored>) {
        let spec = ArchiveSpec {
            data_dir: Arc::clone(&self.claim),
            folder: "dvr".into(),
            window_ms: 600_000,
            bytes_max: 1 << 30,
        };
        let metrics = Metrics::register(&mut Registry::default());
        Archivist::open(spec, &"one".parse().expect("an id"), &metrics)
    }
}

fn id(id: &str) -> RenditionId {
    id.parse().expect("an id")
}

fn segment(msn: u64) -> Vec<Event> {
    let line = SegmentLine {
        msn,
        duration: 0,
        discontinuity: false,
        gap: false,
        independent: false,
        init: InitHash(1),
        program_date_time_ms: msn as i64 * 2000,
    };
    let part = PartLine { duration: TICKS, independent: true, gap: false };
    vec![
        Event::Begin(line, msn as i64 * i64::from(TICKS), 0),
        Event::Part(Bytes::from_static(b"bytes"), part),
        Event::Finish { gap: false },
    ]
}

fn constants() -> Constants {
    Constants {
        from_worker: false,
        frame_rate: None,
        part_target_ms: 2000,
        control: ServerControl { target_duration_s: 2, part_target_ms: 2000, part_hold_back_ms: 6000 },
        rates: [(1, 1); 2],
    }
}

/// Waits for the thread: what was said to it is written then.
fn keep_all(mut archivist: Archivist, ids: &[&str], numbers: std::ops::Range<u64>) {
    for name in ids {
        for msn in numbers.clone() {
            archivist.keep(&id(name), segment(msn));
        }
        archivist.keep_constants(vec![(id(name), constants())]);
    }
}

#[test]
fn a_rendition_that_comes_back_later_does_not_cost_the_others_what_they_have() {
    let lab = Lab::new();
    keep_all(lab.open().0, &["source", "v480"], 10..20);
    keep_all(lab.open().0, &["source"], 20..40);
    let (mut archivist, restored) = lab.open();
    assert_eq!(restored.len(), 2);
    archivist.retain(&[id("source")]);
    let archives = archivist.archives().clone();
    assert_eq!(archives[&id("v480")].range(), None, "it is not gone on with");
    archivist.keep(&id("source"), segment(40));
    archivist.keep(&id("v480"), segment(40));
    archivist.keep_constants(vec![(id("v480"), constants())]);
    drop(archivist);
    assert_eq!(archives[&id("source")].range(), Some(10..=40), "there is no hole in it");
    assert_eq!(archives[&id("v480")].range(), Some(40..=40));
    let (_archivist, mut restored) = lab.open();
    restored.sort_by_key(|one| one.segments.len());
    let lengths: Vec<_> = restored.iter().map(|one| (one.id.as_str(), one.segments.len())).collect();
    assert_eq!(lengths, [("v480", 1), ("source", 31)]);
}

#[test]
fn a_disk_that_hangs_does_not_keep_the_origin_from_ending() {
    let lab = Lab::new();
    let (mut archivist, _) = lab.open();
    archivist.goodbye = Duration::from_millis(20);
    for msn in 0..PAIR_SEGMENTS {
        archivist.keep(&id("source"), segment(msn));
    }
    let archive = Arc::clone(&archivist.archives()[&id("source")]);
    while archive.newest() != Some(PAIR_SEGMENTS - 1) {
        std::thread::yield_now();
    }
    // Whoever opens a pipe that nobody reads from waits for ever.
    let pipe = lab.folder.path().join(format!("dvr/source/{PAIR_SEGMENTS:020}.media"));
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().expect("there").success());
    archivist.keep(&id("source"), segment(PAIR_SEGMENTS));
    let begun = Instant::now();
    drop(archivist);
    assert!(begun.elapsed() >= Duration::from_millis(20), "it was waited for");
    std::fs::OpenOptions::new().read(true).open(pipe).expect("the thread is let go");
}
