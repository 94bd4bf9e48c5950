use super::*;
use crate::player::Kind;
use crate::report::Report;
use crate::results::{Slice, SliceKey};
use crate::tally::{ErrorKind, Leaving};
use proptest::prelude::*;
use std::time::Duration;

fn scenario() -> Scenario {
    let text = "phases = [{ kind = 'herd', seconds = 10, viewers = 3 }]\n\
                targets = [{ url = 'http://127.0.0.1/live/bench/index.m3u8' }]";
    Scenario::from_toml(text, &[]).unwrap()
}

/// Something that one of the processes saw.
#[derive(Debug, Clone)]
struct Event {
    process: bool,
    edge: usize,
    second: u64,
    us: u64,
    error: u16,
}

fn event() -> impl Strategy<Value = Event> {
    (any::<bool>(), 0..3_usize, 0..20_u64, 1..200_000_000_u64, 0..600_u16)
        .prop_map(|(process, edge, second, us, error)| Event { process, edge, second, us, error })
}

/// The run of a process that saw these.
fn recorded<'a>(events: impl Iterator<Item = &'a Event>, processes: u32) -> Recorded {
    let mut results =
        Results { started_at_ms: 1_000_000, seconds: 20.0, viewers: 3 * processes, ..Results::default() };
    results.tester.threads = processes;
    for event in events {
        let took = Duration::from_micros(event.us);
        let tally = &mut results.tally;
        tally.requests += 1;
        tally.parts += 1;
        tally.media_us += 500_000;
        tally.part_delay.record(took);
        tally.part_time.record(took);
        results.warm_up.startup.record(took);
        tally.error(ErrorKind::Status(event.error));
        *tally.left.entry(Leaving::Reset).or_default() += 1;
        results.tester.loop_lag.record(took);
        let edge = format!("127.0.0.1:{}", 8443 + event.edge);
        let key = SliceKey { edge, channel: "bench".into(), protocol: Protocol::H2 };
        let found = results.slices.iter().position(|slice| slice.key == key).unwrap_or_else(|| {
            results.slices.push(Slice::new(key));
            results.slices.len() - 1
        });
        let slice = &mut results.slices[found];
        slice.pop = format!("pop-{}", event.edge);
        let point = slice.seconds.entry(1000 + event.second).or_default();
        point.viewers += 1;
        point.bytes += event.us;
        point.part_delay.record(took);
        point.answered(Kind::Part, took);
        slice.peak_viewers = slice.seconds.values().map(|point| point.viewers).max().unwrap();
    }
    results.slices.sort_by(|a, b| a.key.cmp(&b.key));
    let mut recorded = Recorded::new(&scenario(), Protocol::H2, Outcome { results, servers: Vec::new() });
    recorded.processes = processes;
    recorded.runs = Vec::new();
    recorded
}

fn written(recorded: Recorded) -> serde_json::Value {
    serde_json::to_value(Report::new(recorded)).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn the_sum_of_two_runs_is_the_run_of_both(events in prop::collection::vec(event(), 0..60)) {
        let of = |process| {
            let own = recorded(events.iter().filter(|event| event.process == process), 1);
            // By way of the file.
            parse(&serde_json::to_vec(&Report::new(own)).unwrap()).unwrap()
        };
        let mut sum = of(true);
        sum.add(&of(false));
        let mut reversed = of(false);
        reversed.add(&of(true));
        let both = written(recorded(events.iter(), 2));
        prop_assert_eq!(&written(sum), &both);
        prop_assert_eq!(&written(reversed), &both);
    }
}

#[test]
fn other_files_are_refused() {
    for (text, newer) in [
        ("", false),
        ("{}", false),
        ("{\"format\":\"sigma-load herd\",\"version\":1}", false),
        ("{\"format\":\"sigma-load run\",\"version\":2}", false),
        ("{\"format\":\"sigma-load run\",\"version\":1}", true),
    ] {
        let error = parse(text.as_bytes()).unwrap_err();
        assert_eq!(matches!(error, Wrong::Version(1)), newer, "{text}: {error:?}");
    }
    assert!(matches!(read(Path::new("/nonexistent")), Err(MergeError::File { .. })));
}

#[test]
fn runs_of_different_times_are_told() {
    let mut one = recorded([].iter(), 1);
    let mut later = recorded([].iter(), 1);
    one.add(&later);
    assert_eq!(one.notes, [""; 0]);
    later.results.started_at_ms += 15_000;
    one.add(&later);
    one.add(&later);
    assert_eq!((one.notes.len(), one.processes, one.scenarios.len()), (1, 4, 1));
    assert!(Report::new(one).to_string().contains("same time"));
}

#[test]
fn a_run_counts_once_and_its_verification_is_carried() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, recorded: Recorded| {
        let path = folder.path().join(name);
        std::fs::write(&path, serde_json::to_vec(&Report::new(recorded)).unwrap()).unwrap();
        path
    };
    let one = |channel: &str, passed| {
        let mut own = Recorded::new(
            &scenario(),
            Protocol::H2,
            Outcome { results: Results::default(), servers: Vec::new() },
        );
        own.results.warm_up.viewers_started = 1;
        own.verification.push(Verification {
            run: own.runs[0].clone(),
            channel: channel.into(),
            sessions: 1,
            peak_viewers: 1,
            seconds: 1,
            passed,
            metrics: Vec::new(),
        });
        own
    };
    let (a, b, c) = (file("a", one("x", true)), file("b", one("x", true)), file("c", one("b", false)));
    let both = merge(&[a.clone(), b.clone()]).unwrap().unwrap();
    assert!(both.runs.len() == 2 && both.runs.is_sorted() && both.verification.len() == 2);
    assert!(Report::new(both.clone()).passed);
    let sum = file("ab", both);
    for twice in [[a.clone(), a.clone()], [sum.clone(), b]] {
        let error = merge(&twice).unwrap_err();
        assert!(matches!(&error, MergeError::Twice { path, .. } if *path == twice[1]), "{error}");
    }
    let all = Report::new(merge(&[sum, c]).unwrap().unwrap());
    let channels: Vec<_> = all.recorded.verification.iter().map(|one| one.channel.as_str()).collect();
    assert_eq!((channels, all.passed), (vec!["b", "x", "x"], false));
    assert!(all.failures[0].contains("channel b"), "{:?}", all.failures);
}
