use super::*;

const START_S: u64 = 1_795_333_200;

/// 300 sessions, one a second for 100 s at three edges' turns, 20 s each; the last third vanishes.
fn truth() -> Vec<Truth> {
    (0..300u64)
        .map(|n| {
            let start = START_S * 1000 + n * 333;
            Truth {
                session: format!("{n:032x}"),
                channel: "bench".into(),
                pops: vec![format!("pop-{}", n % 2 + 1)],
                first_media_at_ms: Some(start),
                last_response_at_ms: Some(start + 20_000),
                left: if n >= 200 { Leaving::Vanish } else { Leaving::Close },
                present_ms: vec![[start, start + 20_000]],
                watched_us: 20_000_000,
                parts: 100,
                started_at_ms: start,
                longest_part_us: 200_000,
                asking: false,
                unseen_us: 0,
                let_go_us: 200_000,
                asked_pops: vec![],
            }
        })
        .collect()
}

/// What an origin says that sees everything so many milliseconds late.
fn told(truth: &[Truth], join_ms: u64, leave_ms: u64) -> Told {
    // The channel is not new.
    let before = Totals { views: 7_000, watch_ms: 999_999 };
    let mut told = Told { totals: before, before: Some(before), ..Told::default() };
    for truth in truth {
        told.totals.views += 1;
        told.totals.watch_ms += truth.watched_us / 1000;
        told.sessions.push(Seen {
            session: truth.session.clone(),
            first_media_at_ms: truth.first_media_at_ms,
            last_at_ms: truth.last_response_at_ms,
            watch_ms: truth.watched_us / 1000,
            pops: truth.pops.clone(),
        });
        for [start, end] in &truth.present_ms {
            for second in (start + join_ms).div_ceil(1000)..(end + leave_ms).div_ceil(1000) {
                *told.viewers.entry(second).or_default() += 1;
                let pop = told.viewers_by_pop.entry(truth.pops[0].clone()).or_default();
                *pop.entry(second).or_default() += 1;
            }
        }
    }
    told
}

fn failed(truth: &[Truth], told: &Told) -> Vec<String> {
    let verification = compare(truth, told, Bars::default());
    let failed: Vec<_> =
        verification.metrics.iter().filter(|m| m.verdict == Verdict::Fail).map(|m| m.name.clone()).collect();
    assert_eq!(verification.passed, failed.is_empty());
    failed
}

#[test]
fn what_is_right_passes() {
    let truth = truth();
    for (join, leave) in [(0, 0), (0, 4000), (1999, 5999)] {
        let told = told(&truth, join, leave);
        assert_eq!(failed(&truth, &told), [""; 0], "{join} {leave}");
    }
    let verification = compare(&truth, &told(&truth, 1000, 4000), Bars::default());
    let text = verification.to_string();
    assert!(text.contains("joins seen") && text.contains("300 of 300") && text.ends_with("passed"), "{text}");
    assert_eq!((verification.sessions, verification.metrics.len()), (300, 11));
    assert!((60..=61).contains(&verification.peak_viewers), "{}", verification.peak_viewers);
    let measured =
        |name: &str| verification.metrics.iter().find(|m| m.name == name).unwrap().measured.clone();
    // Who came and is not seen yet hides as many who left and are still seen.
    assert_eq!((measured("joins seen"), measured("leaves seen")), ("1 s".into(), "3 s".into()));
}

#[test]
fn who_is_counted_while_the_first_byte_is_on_its_way_is_no_error() {
    let earlier = truth();
    let late = |truth: &Truth, by: u64| Truth {
        present_ms: vec![[truth.present_ms[0][0] + by, truth.present_ms[0][1]]],
        ..truth.clone()
    };
    let told = told(&earlier, 0, 4000);
    let all = |by| earlier.iter().map(|truth| late(truth, by)).collect::<Vec<_>>();
    assert_eq!(failed(&all(900), &told), [""; 0]);
    assert!(failed(&all(2100), &told).contains(&"viewers each second".into()), "longer than anything takes");
}

#[test]
fn who_left_while_its_first_part_was_on_its_way_is_a_view_or_none() {
    let all = truth();
    let told = told(&all, 0, 4000);
    let mut without = all.clone();
    (without[7].parts, without[7].watched_us, without[7].present_ms) = (0, 0, vec![]);
    let extra = failed(&without, &told);
    assert!(extra.contains(&"total views".into()) && extra.contains(&"sessions".into()), "{extra:?}");
    without[7].asking = true;
    let open = failed(&without, &told);
    assert!(!open.contains(&"total views".into()) && !open.contains(&"sessions".into()), "{open:?}");
    assert!(!open.contains(&"total watch time".into()), "{open:?}");
}

#[test]
fn what_was_sent_to_who_had_vanished_is_no_error() {
    let mut all = truth();
    let mut told = told(&all, 0, 4000);
    told.totals.watch_ms += 100 * 180;
    assert_eq!(failed(&all, &told), ["total watch time"]);
    all.iter_mut().filter(|truth| truth.left == Leaving::Vanish).for_each(|truth| truth.unseen_us = 200_000);
    assert_eq!(failed(&all, &told), [""; 0]);
    told.totals.watch_ms += 9_000;
    assert_eq!(failed(&all, &told), ["total watch time"], "but no more than that");
}

type Change = fn(&mut Told);

#[test]
fn what_is_wrong_fails() {
    let truth = truth();
    let cases: [(&str, Change, &[&str]); 8] = [
        ("a view too many", |told| told.totals.views += 1, &["total views"]),
        ("a view too few", |told| told.totals.views -= 1, &["total views"]),
        (
            "a session that is missing",
            |told| {
                told.sessions.remove(7);
            },
            &["sessions"],
        ),
        (
            "a session that nobody had",
            |told| {
                let extra = Seen { session: "f".repeat(32), ..told.sessions[9].clone() };
                told.sessions.push(extra);
            },
            &["sessions"],
        ),
        ("0.2 % of watch time", |told| told.totals.watch_ms += 6_000 * 1000 / 500, &["total watch time"]),
        ("two parts of one session", |told| told.sessions[3].watch_ms -= 400, &["watch time of each"]),
        ("another POP", |told| told.sessions[3].pops = vec!["pop-9".into()], &["POPs of each"]),
        (
            "a viewer in each second of nobody",
            |told| *told.viewers.entry(START_S + 50).or_default() += 30,
            &["viewers each second", "leaves seen", "vanishings seen"],
        ),
    ];
    for (what, change, metrics) in cases {
        let mut told = told(&truth, 0, 4000);
        change(&mut told);
        assert_eq!(failed(&truth, &told), metrics, "{what}");
    }
    // Who moved let go twice: it may have been sent more, never less.
    let (mut moved, mut told) = (truth.clone(), told(&truth, 0, 4000));
    told.sessions[3].watch_ms += 400;
    moved[3].let_go_us = 400_000;
    assert_eq!(failed(&moved, &told), [""; 0]);
    told.sessions[3].watch_ms += 200;
    assert_eq!(failed(&moved, &told), ["watch time of each"]);
    told.sessions[3].watch_ms -= 1000;
    assert_eq!(failed(&moved, &told), ["watch time of each"]);
    told.sessions[3].watch_ms += 800;
    // Whether what it let go of at the second POP was sent, only that one knows; where it got some, it was.
    moved[3].asked_pops = vec!["pop-1".into()];
    assert_eq!(failed(&moved, &told), [""; 0]);
    told.sessions[3].pops.push("pop-1".into());
    assert_eq!(failed(&moved, &told), [""; 0]);
    told.sessions[3].pops = vec!["pop-1".into()];
    assert_eq!(failed(&moved, &told), ["POPs of each"]);
    assert!(!compare(&[], &Told::default(), Bars::default()).passed, "nothing proves nothing");
}

#[test]
fn late_is_seen_as_late() {
    let truth = truth();
    let late_join = failed(&truth, &told(&truth, 3500, 4000));
    assert!(late_join.contains(&"joins seen".into()) && late_join.contains(&"viewers each second".into()));
    assert!(!late_join.contains(&"leaves seen".into()), "{late_join:?}");
    let late_leave = failed(&truth, &told(&truth, 0, 8000));
    assert!(late_leave.contains(&"leaves seen".into()) && !late_leave.contains(&"joins seen".into()));
    assert!(late_leave.contains(&"viewers at pop-1".into()), "{late_leave:?}");
    // The same for those who vanished is allowed.
    let vanished: Vec<Truth> = truth.into_iter().filter(|truth| truth.left == Leaving::Vanish).collect();
    assert_eq!(failed(&vanished, &told(&vanished, 0, 8000)), [""; 0]);
    assert!(failed(&vanished, &told(&vanished, 0, 12_000)).contains(&"vanishings seen".into()));
}

#[test]
fn what_was_before_the_run_does_not_count_and_logs_unite() {
    let truth = truth();
    let mut told = told(&truth, 0, 4000);
    for n in 0..5 {
        told.sessions.push(Seen {
            session: format!("e{n:031x}"),
            first_media_at_ms: Some(1),
            last_at_ms: Some((START_S - 100) * 1000),
            watch_ms: 60_000,
            pops: vec![],
        });
    }
    assert_eq!(failed(&truth, &told), [""; 0]);
    // Nobody asked before the run, and the totals are of sessions, too, that are long forgotten.
    let unasked = Told { before: None, ..told.clone() };
    assert_eq!(failed(&truth, &unasked), [""; 0]);
    let few: Vec<Truth> = truth[..299].to_vec();
    assert!(
        failed(&few, &unasked).contains(&"total views".into()),
        "one of the time of the run is not forgotten"
    );
    let short = Told { before: Some(Totals::default()), ..told.clone() };
    assert_eq!(failed(&truth, &short), ["total views", "total watch time"]);
    // One session in two logs: the first and the second half of it.
    let mut halves = truth.clone();
    let mut second = halves[0].clone();
    (halves[0].watched_us, halves[0].parts) = (5_000_000, 25);
    (second.watched_us, second.parts) = (15_000_000, 75);
    let [start, end] = second.present_ms[0];
    halves[0].present_ms = vec![[start, start + 5000]];
    second.present_ms = vec![[start + 5000, end]];
    halves.push(second);
    assert_eq!(failed(&halves, &told), [""; 0]);
    // Without names of POPs there is nothing to compare.
    let mut unnamed = truth;
    for truth in &mut unnamed {
        truth.pops = vec!["127.0.0.1:8443".into()];
    }
    let verification = compare(&unnamed, &told, Bars::default());
    assert!(verification.passed && verification.metrics.iter().any(|m| m.verdict == Verdict::Skip));
}
