use super::plan::{exoduses, plan};
use super::preset::{Flags, Preset};
use super::*;
use crate::tally::Leaving;
use proptest::prelude::*;

fn url(port: u16) -> Address {
    format!("http://127.0.0.1:{port}/live/bench/index.m3u8").parse().unwrap()
}

fn preset(preset: Preset, urls: &[Address]) -> Result<Scenario, ScenarioError> {
    Scenario::preset(&Flags { preset, urls, viewers: 100, ramp_seconds: 5, seconds: 61, seed: 7 })
}

fn phases() -> impl Strategy<Value = Vec<Phase>> {
    let kind = prop_oneof![
        Just(PhaseKind::Ramp),
        Just(PhaseKind::Herd),
        Just(PhaseKind::Churn),
        Just(PhaseKind::Soak)
    ];
    let arrivals = prop::option::of(prop_oneof![
        Just(Arrivals::Linear),
        Just(Arrivals::AtOnce),
        Just(Arrivals::Poisson)
    ]);
    let phase = (kind, 1u64..100, 1u64..300, arrivals).prop_map(|(kind, seconds, viewers, arrivals)| Phase {
        kind,
        seconds,
        viewers,
        arrivals,
        length: None,
        from: None,
    });
    prop::collection::vec(phase, 1..5)
}

proptest! {
    #[test]
    fn arrivals_are_exact_in_order_and_repeatable(phases in phases(), seed: u64, weights in prop::collection::vec(0.1f64..5.0, 1..4)) {
        let mut scenario = preset(Preset::Ramp, &[url(1)]).unwrap();
        scenario.targets = (0u16..).zip(&weights).map(|(n, weight)| Target { weight: *weight, ..targets(&[url(n + 1)]).remove(0) }).collect();
        scenario.phases = phases;
        let scenario = scenario.checked().unwrap();
        let arrivals: Vec<_> = plan(&scenario, seed).collect();
        prop_assert_eq!(arrivals.len() as u64, scenario.arrivals());
        prop_assert!(arrivals.is_sorted_by_key(|arrival| arrival.at));
        prop_assert!(arrivals.iter().enumerate().all(|(n, arrival)| arrival.index == n as u64));
        prop_assert_eq!(&arrivals, &plan(&scenario, seed).collect::<Vec<_>>());
        let mut start = Duration::ZERO;
        for (index, phase) in scenario.phases.iter().enumerate() {
            let own: Vec<_> = arrivals.iter().filter(|arrival| arrival.phase == index).collect();
            prop_assert_eq!(own.len() as u64, phase.viewers);
            let end = start + phase.duration();
            prop_assert!(own.iter().all(|arrival| (start..=end).contains(&arrival.at)));
            start = end;
        }
        let sum: f64 = weights.iter().sum();
        for (target, weight) in weights.iter().enumerate() {
            let got = arrivals.iter().filter(|arrival| arrival.target == target).count() as f64;
            prop_assert!((got - arrivals.len() as f64 * weight / sum).abs() <= weights.len() as f64);
        }
    }
}

#[test]
fn the_flags_of_old_mean_what_they_did() {
    let scenario = preset(Preset::Ramp, &[url(1), url(2)]).unwrap();
    let arrivals: Vec<_> = plan(&scenario, 1).collect();
    for (n, arrival) in (0u32..).zip(&arrivals) {
        assert_eq!(arrival.target, n as usize % 2, "by turns");
        assert_eq!(arrival.at, Duration::from_millis(50) * n, "evenly over the ramp");
        assert_eq!((arrival.stay, arrival.protocol), (None, None));
    }
    assert_eq!((scenario.warm_up(), scenario.duration()), (Duration::from_secs(5), Duration::from_secs(66)));
}

#[test]
fn presets() {
    let two = [url(1), url(2)];
    let herd = preset(Preset::Herd, &two).unwrap();
    assert!(plan(&herd, 1).all(|arrival| arrival.at == Duration::ZERO));
    let churn = preset(Preset::Churn, &two).unwrap();
    let arrivals: Vec<_> = plan(&churn, 1).collect();
    assert_eq!(arrivals.len(), 100 + 204, "100 viewers who stay 30 s, over 61 s");
    let mean = arrivals.iter().filter_map(|a| a.stay).sum::<Duration>().as_secs_f64() / arrivals.len() as f64;
    assert!((20.0..40.0).contains(&mean), "{mean}");
    assert!(
        [Leaving::Close, Leaving::Reset, Leaving::Vanish]
            .iter()
            .all(|way| arrivals.iter().any(|a| a.leaving == *way))
    );
    let death = preset(Preset::PopDeath, &two).unwrap();
    let [exodus] = &exoduses(&death)[..] else { panic!("one death") };
    assert_eq!((exodus.at, exodus.from, &exodus.to[..]), (Duration::from_secs(35), 0, &[1][..]));
    let alone = preset(Preset::PopDeath, &two[..1]).unwrap_err().to_string();
    assert!(alone.starts_with("phases[2].from = 0: no other target"), "{alone}");
    preset(Preset::Soak, &two).unwrap();
}

#[test]
fn nobody_arrives_at_a_dead_pop() {
    let mut scenario = preset(Preset::PopDeath, &[url(1), url(2), url(3)]).unwrap();
    scenario.phases[2].viewers = 50;
    scenario.targets[0].weight = 9.0;
    scenario.viewers.tabs_per_token = 3;
    let arrivals: Vec<_> = plan(&scenario, 3).collect();
    assert!(arrivals.iter().any(|a| a.phase == 0 && a.target == 0));
    assert!(arrivals.iter().all(|a| a.phase != 2 || a.target != 0));
    assert_eq!(
        arrivals.iter().map(|a| a.token).collect::<std::collections::BTreeSet<_>>().len(),
        50,
        "150 tabs"
    );
    scenario.targets[1].weight = 0.0;
    scenario.targets[2].weight = 0.0;
    assert!(plan(&scenario, 3).all(|a| a.phase != 2 || a.target != 0), "those without weight take over");
}

const SMALL: &str = "[[targets]]\nurl = \"http://127.0.0.1:1/live/a/index.m3u8\"\n[[phases]]\nkind = \"ramp\"\nseconds = 3\nviewers = 2\n";

#[test]
fn mistakes_name_field_value_and_way_out() {
    Scenario::from_toml(SMALL, &[]).unwrap();
    for (added, said) in [
        ("colour = 1", "unknown field `colour`"),
        ("arrivals = \"bursts\"", "unknown variant `bursts`"),
        ("from = 0", "phases[0].from = 0: only pop-death has it"),
        (
            "length = { kind = \"uniform\", min_seconds = 9, max_seconds = 3 }",
            "phases[0].length.max_seconds = 3: at least",
        ),
        ("length = { kind = \"fixed\", mean_seconds = 9 }", "unknown field `mean_seconds`"),
        ("[viewers]\nhints = 2", "viewers.hints = 2: a share from 0 to 1"),
        ("[viewers]\nvariant = \"best\"", "viewers.variant = best: expected"),
        ("[viewers.leaving]\nclose = 0", "viewers.leaving = 0: at least one"),
        ("[viewers]\nseek_stay_ms = 86400001", "viewers.seek_stay_ms = 86400001: at most"),
        ("[viewers]\nsleep_ms = 9223372036854775807", "viewers.sleep_ms = 9223372036854775807: at most"),
        (
            "[viewers.leaving]\nvanish_seconds = 9223372036854775807",
            "viewers.leaving.vanish_seconds = 9223372036854775807: at most 86400",
        ),
        ("[viewers.leaving]\nsleep_seconds = 86401", "viewers.leaving.sleep_seconds = 86401: at most 86400"),
        ("[viewers.protocols]\nh3 = -1", "viewers.protocols.h3 = -1: a number from 0"),
        ("[viewers.links]\nmedian_kbps = 0", "viewers.links.median_kbps = 0: 1 to"),
        ("[limits]\nrequest_timeout_ms = 1", "limits.request_timeout_ms = 1: 100 to"),
        ("[[targets]]\nurl = \"ftp://x\"", "targets[1].url = ftp://x: ftp://x: expected http"),
        ("[[phases]]\nkind = \"churn\"\nseconds = 3", "phases[1].viewers = 0: say how many"),
        ("[[phases]]\nkind = \"pop-death\"\nseconds = 3", "phases[1].from = (nothing): pop-death needs"),
        ("[[phases]]\nkind = \"soak\"\nseconds = 90000", "phases: sum of seconds = 90003: 1 to"),
    ] {
        let error = Scenario::from_toml(&format!("{SMALL}{added}\n"), &[]).unwrap_err().to_string();
        assert!(error.contains(said), "{added}: {error}");
    }
    let none = Scenario::from_toml("phases = []", &[]).unwrap_err().to_string();
    assert!(none.starts_with("targets = 0: give 1 to 256"), "{none}");
}

#[test]
fn urls_of_the_command_line_go_first_and_what_is_written_is_read_again() {
    let scenario = Scenario::from_toml(SMALL, &[url(9)]).unwrap();
    assert_eq!(scenario.addresses(), [url(9)]);
    let again = Scenario::from_toml(&toml::to_string(&scenario).unwrap(), &[]).unwrap();
    assert_eq!(again, scenario);
}

#[test]
fn the_examples_are_scenarios() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../configs/load");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let scenario = Scenario::from_toml(&std::fs::read_to_string(&path).unwrap(), &[]);
        names.push(scenario.unwrap_or_else(|error| panic!("{}: {error}", path.display())).name);
    }
    names.sort();
    assert_eq!(names, ["churn", "herd", "pop-death", "ramp", "soak"]);
}
