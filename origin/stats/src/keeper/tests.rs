//! The keeper on a real database: what survives, what is refused.

mod postgres;
mod settled;

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
    let too_large = kept.stats.report(pop(), Bytes::from(vec![1; BYTES_MAX + 1])).await;
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
    eventually_taken(&kept, &report(2, base_ms)).await;
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
    let left = store(folder.path()).journalled(0, 10).await.expect("read");
    assert!(left.is_empty(), "out of the way");
}

#[tokio::test]
async fn a_row_that_cannot_be_read_is_set_aside_and_the_rest_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let base_ms = now_ms() - 60_000;
    let kept = start(folder.path());
    kept.broadcasts.send_replace(vec![Broadcast { start_ms: base_ms, end_ms: None }]);
    kept.stats.report(pop(), bytes(&report(1, base_ms))).await.expect("taken");
    kept.stop().await;
    let other = store(folder.path());
    // One of each kind, once as what is no value of ours and once as what is not even bytes.
    for statement in [
        "UPDATE pieces SET value = x'ff' WHERE kind = 'totals' AND part = 'all'",
        "UPDATE pieces SET value = 'text' WHERE kind IN ('pop', 'broadcast', 'second')",
        "UPDATE pieces SET value = x'00ff' WHERE kind IN ('traffic', 'minute')",
        "UPDATE sessions SET value = x'ff' WHERE session LIKE '00%'",
        "INSERT INTO journal (id, pop, received_ms, report) VALUES (900, 'NO POP', 'never', x'01')",
        "INSERT INTO viewers (channel, scope, viewer) VALUES ('demo', 'all', 'nobody')",
        "INSERT INTO pieces (kind, channel, part, at, value) VALUES ('totals', 'demo', 'all', 'when', x'00')",
    ] {
        other.execute(statement).await.expect("done");
    }
    other.close().await;
    let kept = start(folder.path());
    kept.stats.report(pop(), bytes(&report(2, base_ms))).await.expect("taken");
    kept.stats.report(pop(), bytes(&report(1, base_ms))).await.expect("taken");
    let counters = kept.stats.counters();
    assert!(kept.stats.is_available());
    assert_eq!(counters.failures.load(Ordering::Relaxed), 0);
    assert_eq!(counters.set_aside.reports.load(Ordering::Relaxed), 1);
    assert!(counters.set_aside.pieces.load(Ordering::Relaxed) >= 6, "{:?}", counters.set_aside);
    let all = kept.summary(base_ms + 2000).await.totals;
    assert_eq!(
        (all.bytes, all.requests),
        (2000, 20),
        "of the traffic that was spoilt, what is told again counts again"
    );
    let of_pop =
        kept.stats.ask(move |aggregate| aggregate.summary(&demo(), &Scope::Pop(pop()), base_ms)).await;
    assert!(
        of_pop.expect("answered").is_some_and(|summary| summary.totals.bytes >= 2000),
        "what could be read stays"
    );
    let broadcasts = kept.stats.ask(|aggregate| aggregate.broadcasts(&demo())).await.expect("answered");
    assert_eq!(broadcasts.iter().map(|broadcast| broadcast.start_ms).collect::<Vec<_>>(), [base_ms]);
    kept.stop().await;
    // What is aside is out of the way for good, and there for whoever wants it.
    let again = start(folder.path());
    assert_eq!(again.summary(base_ms + 2000).await.totals, all);
    assert_eq!(again.stats.counters().set_aside.pieces.load(Ordering::Relaxed), 0);
    again.stop().await;
}

/// Tells it as a POP does: again when the statistics are there again.
async fn eventually_taken(kept: &Kept, report: &Report) {
    let taking = async {
        while kept.stats.report(pop(), bytes(report)).await.is_err() {
            kept.stats.available().await.expect("somebody is there");
        }
    };
    tokio::time::timeout(Duration::from_secs(60), taking).await.expect("mended");
}

fn aside(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).expect("there").map(|entry| entry.expect("read").file_name());
    names.filter_map(|name| name.into_string().ok()).filter(|name| name.contains(".corrupt-")).collect()
}

#[tokio::test]
async fn a_file_that_is_no_database_is_set_aside_and_a_new_one_begun() {
    let folder = tempfile::tempdir().expect("a folder");
    let base_ms = now_ms() - 60_000;
    let file = folder.path().join("stats.sqlite");
    std::fs::write(&file, vec![b'x'; 100_000]).expect("written");
    let kept = start(folder.path());
    eventually_taken(&kept, &report(1, base_ms)).await;
    assert_eq!(kept.summary(base_ms).await.totals.bytes, 1000);
    assert_eq!(kept.stats.counters().set_aside.database.load(Ordering::Relaxed), 1);
    kept.stop().await;
    let names = aside(folder.path());
    assert_eq!(names.len(), 1, "{names:?}");
    assert_eq!(std::fs::read(folder.path().join(&names[0])).expect("there"), vec![b'x'; 100_000]);
    let again = start(folder.path());
    assert_eq!(again.summary(base_ms).await.totals.bytes, 1000, "the new one is kept");
    again.stop().await;
}

#[tokio::test]
async fn a_file_that_breaks_in_the_middle_is_set_aside_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let base_ms = now_ms() - 60_000;
    let kept = start(folder.path());
    kept.stats.report(pop(), bytes(&report(1, base_ms))).await.expect("taken");
    kept.stop().await;
    let file = folder.path().join("stats.sqlite");
    let mut spoilt = std::fs::read(&file).expect("there");
    // The head says that it is a database; of its tables nothing is left.
    spoilt[100..].fill(0xee);
    std::fs::write(&file, spoilt).expect("written");
    let kept = start(folder.path());
    eventually_taken(&kept, &report(2, base_ms)).await;
    assert_eq!(kept.summary(base_ms).await.totals.bytes, 1000, "the second report's");
    assert_eq!(
        aside(folder.path()).iter().filter(|name| !name.ends_with("-wal") && !name.ends_with("-shm")).count(),
        1
    );
    kept.stop().await;
}

#[tokio::test]
async fn a_database_that_cannot_be_opened_is_waited_for_and_said_to_be_away() {
    let folder = tempfile::tempdir().expect("a folder");
    let base_ms = now_ms() - 60_000;
    // In the way: a folder of the file's name.
    let file = folder.path().join("stats.sqlite");
    std::fs::create_dir(&file).expect("made");
    let kept = start(folder.path());
    let refused = kept.stats.report(pop(), bytes(&report(1, base_ms))).await;
    assert!(matches!(refused, Err(ReportError::Busy)), "{refused:?}");
    assert!(!kept.stats.is_available());
    assert!(kept.stats.ask(|_| ()).await.is_err(), "503, and not silence");
    std::fs::remove_dir(&file).expect("removed");
    eventually_taken(&kept, &report(1, base_ms)).await;
    assert!(kept.stats.is_available());
    assert_eq!(aside(folder.path()), [""; 0], "it was not broken");
    let stats = kept.stats.clone();
    kept.stop().await;
    assert!(!stats.is_available(), "nobody is there");
}

#[tokio::test]
async fn a_silent_pop_is_forgotten_also_by_the_database() {
    let folder = tempfile::tempdir().expect("a folder");
    let base_ms = now_ms() - 60_000;
    let store = store(folder.path());
    store.prepare().await.expect("made");
    // It was heard a minute ago.
    let heard = bytes(&report(1, base_ms));
    let entry = Entry { id: 1, pop: &pop(), received_ms: base_ms, report: &heard, settled: None };
    store.journal(&[entry]).await.expect("written");
    store.close().await;
    let kept = start(folder.path());
    let other: PopId = "pop-2".parse().expect("an id");
    kept.stats.report(other.clone(), bytes(&report(1, base_ms))).await.expect("taken");
    assert_eq!(kept.stats.remove_pop(other).await.expect("answered"), Err(NotRemoved::Up));
    assert_eq!(kept.stats.remove_pop(pop()).await.expect("answered"), Ok(()));
    assert_eq!(kept.stats.remove_pop(pop()).await.expect("answered"), Err(NotRemoved::Unknown));
    let totals = kept.summary(base_ms).await.totals;
    kept.stop().await;
    let again = start(folder.path());
    let pops = again.stats.ask(|aggregate| aggregate.pops(now_ms())).await.expect("answered");
    assert_eq!(pops.iter().map(|pop| pop.id.as_str()).collect::<Vec<_>>(), ["pop-2"]);
    assert_eq!(again.summary(base_ms).await.totals, totals, "its totals stay");
    again.stop().await;
}

#[tokio::test]
async fn what_is_beyond_the_bounds_is_refused_before_it_is_journalled() {
    let folder = tempfile::tempdir().expect("a folder");
    let base_ms = now_ms() - 60_000;
    let kept = start(folder.path());
    let traffic = report(1, base_ms).traffic[0].clone();
    let too_many = Report { traffic: vec![traffic; 250_000], ..report(1, base_ms) };
    let long = || {
        let mut report = report(1, base_ms);
        report.sessions[0].present[0].start -= 23 * 3_600_000;
        report
    };
    for (beyond, named) in [
        (too_many, "250000 entries of traffic; at most 16384"),
        (long(), "length of a present span, in milliseconds, is 82801000; at most 3600000"),
        (
            Report { incarnation: u64::MAX, ..report(1, base_ms) },
            "incarnation is 18446744073709551615; at most",
        ),
        (
            Report { sequence: 1 << 62, ..report(1, base_ms) },
            "sequence number is 4611686018427387904; at most",
        ),
        (Report { made_at_ms: 1, ..report(1, base_ms) }, "made_at_ms is 1; at least"),
    ] {
        let refused = kept.stats.report(pop(), bytes(&beyond)).await.expect_err("beyond").to_string();
        assert!(refused.contains(named), "{refused}");
    }
    assert!(kept.stats.ask(|aggregate| aggregate.pops(0).is_empty()).await.expect("answered"));
    kept.stop().await;
    assert_eq!(store(folder.path()).journalled(0, 10).await.expect("read"), []);
}
