use super::fake::{Fake, Fault};
use super::report::{FailOn, Outcome, Report};
use super::{Plan, run};
use std::collections::BTreeSet;
use std::time::Duration;

mod faults;
mod wire;

/// A check of the fake server with a fault in it.
async fn check(fault: Fault, compare: bool, seconds: u64) -> Report {
    let plan = Plan {
        address: Fake::url(),
        compare: if compare { vec![Fake::twin()] } else { Vec::new() },
        duration: Duration::from_secs(seconds),
    };
    run(Fake::new(fault), &plan).await.unwrap()
}

/// The failed rules, with their levels.
fn failed(report: &Report) -> BTreeSet<String> {
    let failed = report.rules.iter().filter(|row| row.outcome == Outcome::Fail);
    failed.map(|row| format!("{} {}", row.id, row.level.letter())).collect()
}

#[tokio::test(start_paused = true)]
async fn a_correct_server_passes() {
    let report = check(Fault::None, true, 24).await;
    assert_eq!(report.failed, 0, "{report}");
    assert!(report.is_good(FailOn::Ours));
    let skipped: Vec<&str> =
        report.rules.iter().filter(|r| r.outcome == Outcome::Skip).map(|r| r.id).collect();
    // What a server without byte ranges, ENDLIST, steering or an absent publisher does not show.
    let expected = [
        "SYN-16", "PH-02", "BR-09", "BR-10", "BR-15", "EV-10", "EV-12", "EV-13", "MV-11", "MV-12", "MV-13",
        "DL-05",
    ];
    assert_eq!(skipped, expected, "{report}");
}
