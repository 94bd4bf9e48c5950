use super::*;
use sigma_report::report::{PopDescription, Protocol, SessionReport};
use sigma_report::spans::{Span, Spans};
use std::collections::{BTreeSet, HashMap};
use std::fs;
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
    while let Some((number, _)) = spool.next(newest) {
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
