//! The reporter against an origin in memory, in virtual time.

mod away;

use super::spool::Outgoing;
use super::*;
use crate::ledger::{Ended, Who};
use prometheus_client::registry::Registry;
use sigma_report::report::Protocol;
use sigma_report::spans::{Span, Spans};
use std::collections::BTreeMap;
use std::path::Path;
use tempfile::tempdir;

/// What the origin knows.
#[derive(Debug, Default, Clone, PartialEq)]
struct Known {
    watched: BTreeMap<[u8; 16], Vec<Span>>,
    bytes: BTreeMap<(u64, u64), u64>,
}

#[derive(Debug, Default)]
struct Origin {
    away: bool,
    /// Acknowledgements are lost on the way this often.
    forgets_one_in: u64,
    received: Vec<Report>,
}

#[derive(Debug, Clone, Default)]
struct Fake(Arc<Mutex<Origin>>);

impl Fake {
    fn with<T>(&self, f: impl FnOnce(&mut Origin) -> T) -> T {
        f(&mut self.0.lock().unwrap())
    }

    fn known(&self) -> Known {
        let mut watched: BTreeMap<[u8; 16], Spans> = BTreeMap::new();
        let mut known = Known::default();
        for report in self.with(|origin| origin.received.clone()) {
            for told in report.sessions {
                let spans = watched.entry(told.session).or_default();
                told.watched.iter().for_each(|span| drop(spans.insert(*span)));
            }
            for told in report.traffic {
                let bytes = known.bytes.entry((report.incarnation, told.second)).or_default();
                *bytes = told.bytes.max(*bytes);
            }
        }
        known.watched = watched.into_iter().map(|(id, mut spans)| (id, spans.take())).collect();
        known
    }

    fn bytes(&self) -> u64 {
        self.known().bytes.values().sum()
    }
}

impl Post for Fake {
    async fn post(&self, Outgoing { number, bytes, .. }: Outgoing) -> Outcome {
        self.with(|origin| {
            if origin.away {
                return Outcome::Later("away".to_owned(), None);
            }
            let report = Report::decode(&bytes).unwrap();
            assert_eq!((report.incarnation, report.sequence), number);
            origin.received.push(report);
            let lost = origin.forgets_one_in > 0 && number.1.is_multiple_of(origin.forgets_one_in);
            if lost && origin.received.iter().filter(|known| known.sequence == number.1).count() < 3 {
                return Outcome::Later("the answer was lost".to_owned(), None);
            }
            Outcome::Acknowledged
        })
    }
}

struct Lab {
    reporter: Reporter,
    viewers: Arc<Viewers>,
    metrics: Arc<Metrics>,
    told: u64,
}

impl Lab {
    fn start(fake: &Fake, spool: Option<&Path>) -> Self {
        Self::start_with(fake.clone(), spool)
    }

    fn start_with(post: impl Post, spool: Option<&Path>) -> Self {
        let text = "pop = \"pop-1\"\n[upstream]\nurls = [\"http://127.0.0.1:7070\"]\n";
        let mut config: Config = sigma_http::config::parse(text).unwrap();
        config.reports.spool_dir = spool.map(Path::to_path_buf);
        config.reports.interval_ms = 20;
        let viewers = Viewers::new(1000);
        let metrics = Metrics::register(&mut Registry::default());
        let post = Some(post);
        let reporter = Reporter::start(&config, Arc::clone(&viewers), Arc::clone(&metrics), post).unwrap();
        Self { reporter, viewers, metrics, told: 0 }
    }

    /// So many viewers get a part each.
    fn watch(&mut self, viewers: u8, n: u64) {
        let channel = self.viewers.channel(&"demo".parse().unwrap()).unwrap();
        for id in 0..viewers {
            let who = Who { session: [id; 16], viewer: 1, channel, protocol: Protocol::H2 };
            let watched = Some(Span { start: n * 200_000, end: n * 200_000 + 200_000 });
            let ended = Ended { watched, media: true, first_byte_ms: None, good: true };
            self.viewers.tell(&who, &ended, 10);
            self.told += 10;
        }
    }

    async fn until(&self, condition: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !condition(self) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("it never happened");
    }

    fn acknowledged(&self) -> u64 {
        self.metrics.accounting.reports.acknowledged.get()
    }

    fn spooled(&self) -> i64 {
        self.metrics.accounting.spooled.get()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_report_is_acknowledged_once() {
    let (fake, root) = (Fake::default(), tempdir().unwrap());
    let mut lab = Lab::start(&fake, Some(root.path()));
    for n in 0..5 {
        lab.watch(20, n);
        let before = lab.acknowledged();
        lab.until(|lab| lab.acknowledged() > before).await;
    }
    lab.reporter.finish().await;
    let known = fake.known();
    assert_eq!((known.watched.len(), fake.bytes()), (20, lab.told));
    assert!(known.watched.values().all(|spans| *spans == [Span { start: 0, end: 1_000_000 }]));
    assert_eq!(lab.spooled(), 0);
    let mut received = fake.with(|origin| origin.received.clone());
    // On a busy machine two are waiting at times, and the newer one is sent first.
    received.sort_by_key(|report| report.sequence);
    let numbers: Vec<u64> = received.iter().map(|report| report.sequence).collect();
    assert_eq!(numbers, (1..=received.len() as u64).collect::<Vec<_>>());
    assert!(received.windows(2).all(|two| two[0].complete_until_ms <= two[1].complete_until_ms));
    assert!(received[0].pop.version.starts_with("0."));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_that_is_away_or_forgets_is_told_everything_in_the_end() {
    let (fake, root) = (Fake::default(), tempdir().unwrap());
    fake.with(|origin| (origin.away, origin.forgets_one_in) = (true, 2));
    let mut lab = Lab::start(&fake, Some(root.path()));
    for n in 0..8 {
        lab.watch(10, n);
        let before = lab.spooled();
        lab.until(|lab| lab.spooled() > before).await;
    }
    assert_eq!(lab.acknowledged(), 0);
    fake.with(|origin| origin.away = false);
    lab.until(|lab| lab.spooled() == 0).await;
    lab.reporter.finish().await;
    assert_eq!((fake.known().watched.len(), fake.bytes()), (10, lab.told));
    assert!(fake.known().watched.values().all(|spans| *spans == [Span { start: 0, end: 8 * 200_000 }]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_process_left_is_sent_by_the_next_one() {
    let (fake, root) = (Fake::default(), tempdir().unwrap());
    fake.with(|origin| origin.away = true);
    let told = {
        let mut lab = Lab::start(&fake, Some(root.path()));
        lab.watch(5, 0);
        // More than reports of nothing.
        lab.until(|lab| lab.metrics.accounting.spool_bytes.get() > 150).await;
        lab.told
    };
    // As of another process: the one before is still in this one, and holds its lock.
    for folder in std::fs::read_dir(root.path().join("pop-1")).unwrap() {
        std::fs::remove_file(folder.unwrap().path().join("lock")).unwrap();
    }
    let after = Fake::default();
    let mut lab = Lab::start(&after, Some(root.path()));
    lab.watch(5, 1);
    lab.until(|lab| {
        after.known().watched.values().next().is_some_and(|spans| spans[0].length() == 400_000)
            && lab.spooled() == 0
    })
    .await;
    lab.reporter.finish().await;
    assert_eq!(after.bytes(), told + lab.told);
    let incarnations: std::collections::BTreeSet<u64> =
        after.with(|origin| origin.received.iter().map(|report| report.incarnation).collect());
    assert_eq!(incarnations.len(), 2);
}

/// An origin that wants some reports not at all, and knows a version only after a while.
#[derive(Default)]
struct Picky(Mutex<BTreeMap<Number, u32>>);

impl Post for Picky {
    async fn post(&self, Outgoing { number, .. }: Outgoing) -> Outcome {
        let attempt = {
            let mut attempts = self.0.lock().unwrap();
            let attempt = attempts.entry(number).or_default();
            *attempt += 1;
            *attempt
        };
        match number.1 {
            1 if attempt <= 2 => Outcome::Unknown("version 1".to_owned()),
            n if n % 3 == 2 => Outcome::Refused(StatusCode::BAD_REQUEST, "malformed".to_owned()),
            n if n % 3 == 0 => Outcome::Refused(StatusCode::PAYLOAD_TOO_LARGE, "too large".to_owned()),
            _ => Outcome::Acknowledged,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_is_counted_and_set_aside_and_not_sent_again() {
    let root = tempdir().unwrap();
    let mut lab = Lab::start_with(Picky::default(), Some(root.path()));
    for n in 0..9 {
        lab.watch(3, n);
        let sent = lab.metrics.accounting.reports.sent.get();
        lab.until(|lab| lab.metrics.accounting.reports.sent.get() > sent && lab.spooled() == 0).await;
    }
    lab.reporter.finish().await;
    let accounting = &lab.metrics.accounting;
    let of = |status| accounting.refusals.of(status).get();
    let refused = accounting.reports.refused.get();
    assert_eq!(of(StatusCode::UNSUPPORTED_MEDIA_TYPE), 2, "it is kept and sent again");
    assert!(of(StatusCode::BAD_REQUEST) > 0 && of(StatusCode::PAYLOAD_TOO_LARGE) > 0);
    assert_eq!(of(StatusCode::BAD_REQUEST) + of(StatusCode::PAYLOAD_TOO_LARGE), refused);
    assert_eq!(accounting.reports.sent.get(), refused + lab.acknowledged() + 2);
    assert_eq!(lab.spooled(), 0);
    let mut set_aside = 0;
    for entry in std::fs::read_dir(root.path().join("pop-1")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "refused") {
            let report = Report::decode(&std::fs::read(path).unwrap()).unwrap();
            assert_ne!(report.sequence % 3, 1, "that one was taken");
            set_aside += 1;
        }
    }
    assert_eq!(set_aside, refused);
}

#[test]
fn the_rest_grows_to_five_seconds() {
    let most = Duration::from_secs(5);
    let rests: Vec<_> = (1..10).map(|failures| backoff(failures, most, 0)).collect();
    assert!(rests.windows(2).all(|two| two[0] <= two[1]), "{rests:?}");
    assert!((1..99).all(|failures| backoff(failures, most, u64::MAX) <= most));
}
