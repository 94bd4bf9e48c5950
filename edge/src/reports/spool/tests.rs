use super::*;
use sigma_report::report::{PopDescription, Protocol, SessionReport};
use sigma_report::spans::{Span, Spans};
use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::sync::{Arc, Mutex};
use tempfile::tempdir;

fn report(n: u64, sessions: u64) -> Report {
    let session = |id: u64| {
        let mut session = [0; 16];
        session[..8].copy_from_slice(&id.to_be_bytes());
        let watched = vec![Span { start: n * 200, end: n * 200 + 200 }];
        let present = vec![Span { start: n, end: n + 1 }];
        SessionReport { session, viewer: id, channel: 0, protocol: Protocol::H2, watched, present }
    };
    Report {
        incarnation: 0,
        sequence: 0,
        made_at_ms: n,
        complete_until_ms: n,
        pop: PopDescription {
            name: String::new(),
            region: String::new(),
            coordinates: None,
            capacity_viewers: 0,
            version: "1".to_owned(),
            connections: 0,
        },
        channels: vec!["demo".to_owned()],
        sessions: (0..sessions).map(session).collect(),
        traffic: Vec::new(),
        quality: Vec::new(),
    }
}

fn numbers(spool: &Spool) -> Vec<Number> {
    spool.kept.keys().copied().collect()
}

/// What an origin would know after all that is kept.
fn watched(spool: &Spool) -> HashMap<[u8; 16], Spans> {
    let mut watched: HashMap<_, Spans> = HashMap::new();
    for number in spool.kept.keys() {
        let report = Report::decode(&spool.read(*number).unwrap()).unwrap();
        assert_eq!((report.incarnation, report.sequence), *number);
        for told in report.sessions {
            let spans = watched.entry(told.session).or_default();
            told.watched.iter().for_each(|span| drop(spans.insert(*span)));
        }
    }
    watched
}

fn on_disk(root: &Path) -> usize {
    let folders = fs::read_dir(root).unwrap().map(|folder| folder.unwrap().path());
    folders.map(|folder| fs::read_dir(folder).unwrap().count()).sum()
}

#[test]
fn what_was_kept_is_there_after_a_kill() {
    let root = tempdir().unwrap();
    let mut first = Spool::open(Some(root.path()), 1 << 20, 1_000).unwrap();
    assert_eq!(first.incarnation(), 1_000);
    for n in 0..5 {
        first.append(report(n, 2));
    }
    first.settle((1_000, 2));
    // While it lives, nobody takes its reports.
    let mut second = Spool::open(Some(root.path()), 1 << 20, 900).unwrap();
    assert_eq!((second.incarnation(), second.backlog().0), (1_001, 0), "greater, whatever the clock says");
    second.append(report(9, 2));
    drop(first);
    second.adopt().unwrap();
    let left = vec![(1_000, 1), (1_000, 2), (1_000, 3), (1_000, 4), (1_000, 5), (1_001, 1)];
    assert_eq!(numbers(&second), left, "what is acknowledged in a file with others comes again");
    for number in left {
        second.settle(number);
    }
    assert_eq!(second.backlog(), (0, 0));
    assert!(!root.path().join(format!("{:020}", 1_000)).exists(), "and then it is gone");
    drop(second);
    assert_eq!(Spool::open(Some(root.path()), 1 << 20, 1).unwrap().incarnation(), 1_002);
}

#[test]
fn a_record_that_was_cut_off_ends_its_file() {
    let root = tempdir().unwrap();
    let mut spool = Spool::open(Some(root.path()), 1 << 20, 1_000).unwrap();
    // All as long as each other.
    for n in 50..54 {
        spool.append(report(n, 3));
    }
    drop(spool);
    let file = root.path().join(format!("{:020}", 1_000)).join("000000.reports");
    let whole = fs::read(&file).unwrap();
    for cut in 1..whole.len() {
        fs::write(&file, &whole[..cut]).unwrap();
        let mut spool = Spool::open(Some(root.path()), 1 << 20, 1_000).unwrap();
        assert_eq!(spool.backlog().0, (cut / (whole.len() / 4)) as u64, "cut at {cut}");
        assert_eq!(spool.happened().lost, 0, "nothing that was there");
        watched(&spool);
        drop(spool);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
    }
    let mut spoilt = whole.clone();
    spoilt[whole.len() / 2 + 40] ^= 1;
    fs::write(&file, &spoilt).unwrap();
    let mut spool = Spool::open(Some(root.path()), 1 << 20, 1_000).unwrap();
    assert_eq!((spool.backlog().0, spool.happened().lost), (2, 1));
}

#[test]
fn what_is_settled_leaves_the_disk() {
    let root = tempdir().unwrap();
    let mut spool = Spool::open(Some(root.path()), 64 << 20, 1_000).unwrap();
    for n in 0..400 {
        spool.append(report(n, 60));
        spool.settle((1_000, n + 1));
    }
    assert!(on_disk(root.path()) <= 2, "a file and the lock");
    let bytes: u64 = fs::read_dir(root.path().join(format!("{:020}", 1_000)))
        .unwrap()
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum();
    assert!(bytes < 300 << 10, "{bytes}");
}

#[test]
fn the_newest_is_sent_first_and_then_the_oldest() {
    let mut spool = Spool::open(None, 1 << 20, 1_000).unwrap();
    for n in 0..4 {
        spool.append(report(n, 1));
    }
    let mut sent = Vec::new();
    let mut newest = (0, 0);
    while let Some(Outgoing { number, .. }) = spool.next(newest) {
        newest = newest.max(number);
        sent.push(number.1);
        spool.settle(number);
        if number.1 == 2 {
            spool.append(report(9, 1));
        }
    }
    assert_eq!(sent, [4, 1, 2, 5, 3]);
}

#[test]
fn what_is_too_much_is_united_and_nothing_of_it_is_lost() {
    for on_disk in [true, false] {
        let root = tempdir().unwrap();
        let mut spool = Spool::open(on_disk.then_some(root.path()), 256 << 10, 1_000).unwrap();
        let mut sent = BTreeSet::new();
        for n in 0..600 {
            spool.append(report(n, 100));
            sent.extend(numbers(&spool));
            assert!(spool.backlog().1 <= 256 << 10);
        }
        let happened = spool.happened();
        assert_eq!(happened.lost, 0);
        assert!(happened.aggregated > 500, "{happened:?}");
        let known = watched(&spool);
        assert_eq!(known.len(), 100);
        assert!(known.values().all(|spans| spans.as_slice() == [Span { start: 0, end: 600 * 200 }]));
        assert_eq!(sent, numbers(&spool).into_iter().collect(), "every number is still sent");
        if on_disk {
            drop(spool);
            let again = Spool::open(Some(root.path()), 64 << 20, 1_000).unwrap();
            assert_eq!(watched(&again), known);
        }
    }
}

#[test]
fn in_the_end_the_oldest_are_given_up_and_counted() {
    let mut spool = Spool::open(None, 16 << 10, 1_000).unwrap();
    // Every session once: nothing can be united.
    for n in 0..100 {
        let mut report = report(n, 50);
        report.sessions.iter_mut().for_each(|told| told.session[15] = u8::try_from(n).unwrap());
        spool.append(report);
        assert!(spool.backlog().1 <= 16 << 10);
    }
    assert!(spool.happened().lost > 0);
    assert!(spool.backlog().0 > 0);
}

#[test]
fn of_too_many_reports_the_sessions_are_kept() {
    let mut spool = Spool::open(None, 1 << 20, 1_000).unwrap();
    spool.records_max = 100;
    for n in 0..1000 {
        spool.append(report(n, 1));
        assert!(spool.kept.len() <= 101);
    }
    assert!(spool.happened().lost > 0, "numbers without sessions");
    let known = watched(&spool);
    assert_eq!(known[&[0; 16]].as_slice(), [Span { start: 0, end: 1000 * 200 }]);
}

#[test]
fn a_disk_that_takes_nothing_costs_no_report() {
    let root = tempdir().unwrap();
    let mut spool = Spool::open(Some(root.path()), 1 << 20, 1_000).unwrap();
    let folder = root.path().join(format!("{:020}", 1_000));
    fs::remove_dir_all(&folder).unwrap();
    spool.append(report(1, 1));
    assert_eq!(spool.happened().unwritten, 1);
    assert_eq!(watched(&spool).len(), 1);
    fs::create_dir(&folder).unwrap();
    spool.append(report(2, 1));
    assert_eq!(spool.happened().unwritten, 0);
    assert_eq!(spool.backlog().0, 2);
}

#[test]
fn another_incarnation_begins_at_1_and_leaves_what_is_kept() {
    for on_disk in [true, false] {
        let root = tempdir().unwrap();
        let mut spool = Spool::open(on_disk.then_some(root.path()), 1 << 20, 5_000).unwrap();
        spool.append(report(1, 2));
        spool.append(report(2, 2));
        // The wall clock went back.
        spool.renew(1_000);
        spool.append(report(3, 2));
        assert_eq!(spool.incarnation(), 5_001, "greater, whatever the clock says");
        assert_eq!(numbers(&spool), [(5_000, 1), (5_000, 2), (5_001, 1)]);
        spool.renew(9_000);
        spool.append(report(4, 2));
        for number in [(5_000, 2), (5_000, 1), (5_001, 1)] {
            spool.settle(number);
        }
        assert_eq!(numbers(&spool), [(9_000, 1)]);
        if on_disk {
            assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1, "what is settled is gone");
            drop(spool);
            let mut next = Spool::open(Some(root.path()), 1 << 20, 1).unwrap();
            assert_eq!((next.incarnation(), numbers(&next)), (9_001, vec![(9_000, 1)]));
            next.settle((9_000, 1));
        }
    }
}

#[test]
fn what_is_refused_is_set_aside_as_it_was_sent() {
    let root = tempdir().unwrap();
    let mut spool = Spool::open(Some(root.path()), 1 << 20, 1_000).unwrap();
    spool.append(report(1, 2));
    spool.append(report(2, 2));
    let Outgoing { number, bytes: sent, .. } = spool.next((0, 0)).unwrap();
    let path = spool.refuse(number).unwrap();
    assert_eq!(path.extension().unwrap(), "refused");
    assert_eq!(fs::read(&path).unwrap(), sent);
    assert_eq!(numbers(&spool), [(1_000, 1)], "it is not sent again");
    drop(spool);
    let spool = Spool::open(Some(root.path()), 1 << 20, 1_000).unwrap();
    assert!(path.exists() && spool.incarnation() > 1_000, "nobody takes it for something else");
    let mut in_memory = Spool::open(None, 1 << 20, 1_000).unwrap();
    in_memory.append(report(1, 2));
    assert!(in_memory.refuse((1_000, 1)).is_none() && in_memory.backlog() == (0, 0));
}

/// What is logged by a piece of code.
fn logged(by: impl FnOnce()) -> Vec<String> {
    struct Lines(Arc<Mutex<Vec<String>>>);
    struct Line(String);
    impl tracing::field::Visit for Line {
        fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
            self.0 += &format!(" {field}={value:?}");
        }
    }
    impl tracing::Subscriber for Lines {
        fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
            *metadata.level() <= tracing::Level::INFO
        }
        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }
        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
        fn event(&self, event: &tracing::Event<'_>) {
            let mut line = Line(event.metadata().level().to_string());
            event.record(&mut line);
            self.0.lock().unwrap().push(line.0);
        }
        fn enter(&self, _: &tracing::span::Id) {}
        fn exit(&self, _: &tracing::span::Id) {}
    }
    let lines = Arc::default();
    tracing::subscriber::with_default(Lines(Arc::clone(&lines)), by);
    std::mem::take(&mut *lines.lock().unwrap())
}

#[test]
fn a_full_disk_is_said_when_it_begins_and_when_it_ends() {
    let root = tempdir().unwrap();
    let mut spool = Spool::open(Some(root.path()), 1 << 20, 1_000).unwrap();
    let mut sum = Happened::default();
    let said = logged(|| {
        for n in 0..60 {
            if (10..40).contains(&n) {
                spool.folders.get_mut(&1_000).unwrap().fill_up().unwrap();
            }
            spool.append(report(n, 1));
            assert_eq!(spool.is_failing(), (10..40).contains(&n), "{n}");
            assert!(on_disk(root.path()) <= 3, "no file for every attempt");
            sum = sum.and(spool.happened());
        }
    });
    assert_eq!((sum, spool.backlog().0), (Happened { unwritten: 30, ..Happened::default() }, 60));
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].starts_with("ERROR message=the disk takes no reports"), "{said:?}");
    assert!(said[0].contains("No space left on device"), "{said:?}");
    let all = ["INFO message=the disk takes reports again", "unwritten=30", "aggregated=0", "lost=0"];
    assert!(all.iter().all(|part| said[1].contains(part)), "{said:?}");
}

#[test]
fn what_is_sent_says_what_will_not_be() {
    let said = |spool: &mut Spool, newest| {
        let outgoing = spool.next(newest).unwrap();
        (outgoing.number, outgoing.settled.to_string())
    };
    let root = tempdir().unwrap();
    let mut spool = Spool::open(Some(root.path()), 1 << 20, 1_000).unwrap();
    (0..4).for_each(|n| spool.append(report(n, 1)));
    assert_eq!(said(&mut spool, (0, 0)), ((1_000, 4), "1;oldest=1000".to_owned()));
    // One is acknowledged, one refused, one gone.
    spool.settle((1_000, 1));
    spool.refuse((1_000, 2));
    assert_eq!(said(&mut spool, (0, 0)), ((1_000, 4), "3;oldest=1000".to_owned()));
    spool.settle((1_000, 4));
    assert_eq!(said(&mut spool, (1_000, 4)), ((1_000, 3), "3;oldest=1000".to_owned()));
    // Another process, while this one lives: it cannot know.
    let mut next = Spool::open(Some(root.path()), 1 << 20, 2_000).unwrap();
    next.append(report(9, 1));
    assert_eq!(said(&mut next, (0, 0)), ((2_000, 1), "1".to_owned()));
    drop(spool);
    next.adopt().unwrap();
    assert_eq!(said(&mut next, (0, 0)), ((2_000, 1), "1;oldest=1000".to_owned()));
    // Of a file in which something is left, everything is sent again.
    assert_eq!(said(&mut next, (2_000, 1)), ((1_000, 1), "1;oldest=1000".to_owned()));
    next.settle((1_000, 1));
    assert_eq!(said(&mut next, (2_000, 1)), ((1_000, 2), "2;oldest=1000".to_owned()));
    (1..=4).for_each(|sequence| next.settle((1_000, sequence)));
    assert_eq!(said(&mut next, (2_000, 1)), ((2_000, 1), "1;oldest=2000".to_owned()));
    let mut in_memory = Spool::open(None, 1 << 20, 1_000).unwrap();
    in_memory.append(report(1, 1));
    assert_eq!(said(&mut in_memory, (0, 0)), ((1_000, 1), "1".to_owned()));
}
