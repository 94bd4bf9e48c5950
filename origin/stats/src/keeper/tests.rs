//! The keeper on a real database: what survives, what is refused.

mod postgres;

use super::*;
use crate::aggregate::Summary;
use sigma_report::report::{PopDescription, Protocol, SessionReport, TrafficReport};
use sigma_report::spans::Span;
use std::path::Path;

fn demo() -> ChannelId {
    "demo".parse().expect("an id")
}

fn pop() -> PopId {
    "pop-1".parse().expect("an id")
}

struct Kept {
    stats: Stats,
    thread: std::thread::JoinHandle<()>,
    broadcasts: watch::Sender<Vec<Broadcast>>,
}

fn start_at(store: Store) -> Kept {
    let (broadcasts, receiver) = watch::channel(Vec::new());
    let channels = vec![Source { id: demo(), grace_ms: 4000, broadcasts: receiver }];
    let setup = Setup { channels, retention: Retention::default(), final_wait_ms: 60_000 };
    let (stats, thread) = Stats::start(store, setup).expect("started");
    Kept { stats, thread, broadcasts }
}

fn store(folder: &Path) -> Store {
    Store::file(&folder.join("stats.sqlite")).expect("a folder")
}

fn start(folder: &Path) -> Kept {
    start_at(store(folder))
}

impl Kept {
    async fn summary(&self, at_ms: u64) -> Summary {
        let asked = self.stats.ask(move |aggregate| aggregate.summary(&demo(), &Scope::All, at_ms)).await;
        asked.expect("answered").expect("a channel")
    }

    /// Ends it as SIGTERM does.
    async fn stop(self) {
        let Self { stats, thread, .. } = self;
        stats.close().await;
        let joined = tokio::task::spawn_blocking(|| thread.join()).await;
        joined.expect("joined").expect("no panic");
    }
}

/// What a POP with some sessions says of one second; the sessions' number changes with time.
fn report(sequence: u64, base_ms: u64) -> Report {
    let at = base_ms + sequence * 1000;
    let sessions = (0..5 + sequence % 3).map(|n| SessionReport {
        session: [u8::try_from(n).expect("few"); 16],
        viewer: n % 4 + 1,
        channel: 0,
        protocol: if n.is_multiple_of(2) { Protocol::H2 } else { Protocol::H3 },
        watched: vec![Span { start: at * 1000, end: (at + 1000) * 1000 }],
        present: vec![Span { start: at, end: at + 1000 }],
    });
    let traffic =
        TrafficReport { channel: 0, protocol: Protocol::H2, second: at / 1000, bytes: 1000, requests: 10 };
    Report {
        incarnation: 1,
        sequence,
        made_at_ms: at,
        complete_until_ms: at,
        pop: PopDescription {
            name: "One".to_owned(),
            region: String::new(),
            coordinates: None,
            capacity_viewers: 10,
            version: "1".to_owned(),
            connections: 1,
        },
        channels: vec!["demo".to_owned()],
        sessions: sessions.collect(),
        traffic: vec![traffic],
        quality: Vec::new(),
    }
}

fn bytes(report: &Report) -> Bytes {
    report.encode().expect("written").into()
}

/// The files as they are, as a kill leaves them.
fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("there") {
        let path = entry.expect("read").path();
        let name = path.file_name().expect("a name");
        // The shared-memory index is made anew after a crash.
        if !name.to_string_lossy().ends_with("-shm") {
            std::fs::copy(&path, to.join(name)).expect("copied");
        }
    }
}

#[tokio::test]
async fn a_kill_between_any_two_commits_loses_nothing_that_was_acknowledged() {
    let folder = tempfile::tempdir().expect("a folder");
    let base_ms = now_ms() - 60_000;
    let kept = start(folder.path());
    kept.broadcasts.send_replace(vec![Broadcast { start_ms: base_ms, end_ms: None }]);
    for sequence in 1..=8 {
        let ack = kept.stats.report(pop(), bytes(&report(sequence, base_ms))).await.expect("taken");
        assert_eq!(ack, Ack { incarnation: 1, sequence });
        if sequence.is_multiple_of(3) {
            kept.stats.checkpoint().await.expect("written");
        }
        let expected = kept.summary(base_ms + 5000).await;
        let killed = tempfile::tempdir().expect("a folder");
        copy(folder.path(), killed.path());
        let again = start(killed.path());
        assert_eq!(again.summary(base_ms + 5000).await, expected, "after report {sequence}");
        // What the POP sends again, not knowing, changes nothing.
        for repeated in 1..=sequence {
            again.stats.report(pop(), bytes(&report(repeated, base_ms))).await.expect("taken");
        }
        assert_eq!(again.summary(base_ms + 5000).await, expected);
        assert_eq!(again.stats.counters().accepted.load(Ordering::Relaxed), 0);
        again.stop().await;
    }
    let totals = kept.summary(base_ms).await.totals;
    assert_eq!((totals.views, totals.bytes, totals.peak_viewers), (7, 8000, 7));
    let broadcasts = kept.stats.ask(|aggregate| aggregate.broadcasts(&demo())).await.expect("answered");
    assert_eq!(broadcasts.len(), 1);
    kept.stop().await;
}

#[tokio::test]
async fn an_orderly_end_leaves_no_journal_and_the_same_numbers() {
    let folder = tempfile::tempdir().expect("a folder");
    let base_ms = now_ms() - 60_000;
    let kept = start(folder.path());
    for sequence in [3, 1, 2, 2] {
        kept.stats.report(pop(), bytes(&report(sequence, base_ms))).await.expect("taken");
    }
    let counters = Arc::clone(kept.stats.counters());
    assert_eq!(counters.accepted.load(Ordering::Relaxed), 3);
    assert_eq!(counters.repeated.load(Ordering::Relaxed), 1);
    let expected = kept.summary(base_ms + 3000).await;
    kept.stop().await;
    let kept_store = store(folder.path());
    assert_eq!(kept_store.journalled(0, 10).await.expect("read"), []);
    let again = start_at(kept_store);
    assert_eq!(again.summary(base_ms + 3000).await, expected);
    let pops = again.stats.ask(|aggregate| aggregate.pops(now_ms())).await.expect("answered");
    assert_eq!((pops[0].id.as_str(), pops[0].pop.description.name.as_str()), ("pop-1", "One"));
    // Sessions are listed in order, page by page.
    let first = again.stats.sessions(&demo(), None, 4).await.expect("read");
    let rest = again.stats.sessions(&demo(), first.last().map(|(id, _)| *id), 4).await.expect("read");
    let listed: Vec<u8> = first.iter().chain(&rest).map(|(id, _)| id[0]).collect();
    assert_eq!(listed, [0, 1, 2, 3, 4, 5, 6]);
    assert_eq!(first[0].1.view_of(first[0].0).watch_us, 3_000_000);
    let from = base_ms / 1000;
    let asked = again.stats.series(&demo(), &Scope::All, (Resolution::Second, from..from + 60)).await;
    let bytes: u64 = asked.expect("read").values().map(|point| point.bytes).sum();
    assert_eq!(bytes, 3000);
    again.stop().await;
}

#[tokio::test]
async fn what_is_no_report_is_refused_and_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let kept = start(folder.path());
    let whole = bytes(&report(1, now_ms() - 60_000));
    for broken in [Bytes::new(), whole.slice(..whole.len() / 2), Bytes::from_static(b"\x01garbage")] {
        let refused = kept.stats.report(pop(), broken).await;
        assert!(matches!(refused, Err(ReportError::Invalid(_))), "{refused:?}");
    }
    let too_large = kept.stats.report(pop(), vec![1; BYTES_MAX + 1].into()).await;
    assert!(matches!(too_large, Err(ReportError::TooLarge)));
    assert_eq!(kept.stats.counters().invalid.load(Ordering::Relaxed), 4);
    assert_eq!(kept.summary(now_ms()).await.totals, Default::default());
    kept.stop().await;
}

#[tokio::test]
async fn while_the_database_fails_reports_are_put_off_and_later_all_count() {
    let folder = tempfile::tempdir().expect("a folder");
    let base_ms = now_ms() - 60_000;
    let kept = start(folder.path());
    kept.stats.report(pop(), bytes(&report(1, base_ms))).await.expect("taken");
    let other = store(folder.path());
    other.execute("ALTER TABLE journal RENAME TO elsewhere").await.expect("done");
    let refused = kept.stats.report(pop(), bytes(&report(2, base_ms))).await;
    assert!(matches!(refused, Err(ReportError::Busy)), "{refused:?}");
    other.execute("ALTER TABLE elsewhere RENAME TO journal").await.expect("done");
    let again = async {
        while kept.stats.report(pop(), bytes(&report(2, base_ms))).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), again).await.expect("mended");
    assert_eq!(kept.summary(base_ms).await.totals.bytes, 2000);
    assert!(kept.stats.counters().failures.load(Ordering::Relaxed) > 0);
    kept.stop().await;
}

#[tokio::test]
async fn what_a_failing_checkpoint_could_not_write_is_there_after_an_orderly_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let base_ms = now_ms() - 60_000;
    let kept = start(folder.path());
    kept.stats.report(pop(), bytes(&report(1, base_ms))).await.expect("taken");
    let other = store(folder.path());
    // The state cannot be written, the journal can be emptied.
    other.execute("ALTER TABLE pieces RENAME TO elsewhere").await.expect("done");
    assert!(kept.stats.checkpoint().await.is_err(), "not written");
    kept.stats.close().await;
    kept.stop().await;
    other.execute("ALTER TABLE elsewhere RENAME TO pieces").await.expect("done");
    let kept = start(folder.path());
    assert_eq!(kept.summary(base_ms).await.totals.bytes, 1000);
    kept.stop().await;
}

#[tokio::test]
async fn a_report_in_the_journal_that_cannot_be_read_is_set_aside() {
    let folder = tempfile::tempdir().expect("a folder");
    let base_ms = now_ms() - 60_000;
    let kept = start(folder.path());
    kept.stats.report(pop(), bytes(&report(1, base_ms))).await.expect("taken");
    kept.stop().await;
    let other = store(folder.path());
    other
        .execute("INSERT INTO journal (id, pop, received_ms, report) VALUES (900, 'pop-1', 1, x'02ff')")
        .await
        .expect("done");
    let kept = start(folder.path());
    kept.stats.report(pop(), bytes(&report(2, base_ms))).await.expect("taken");
    assert_eq!(kept.summary(base_ms).await.totals.bytes, 2000, "the rest goes on");
    assert_eq!(kept.stats.counters().invalid.load(Ordering::Relaxed), 1);
    kept.stop().await;
    let aside = store(folder.path()).journalled(0, 10).await.expect("read");
    assert!(aside.is_empty(), "out of the way");
}
