use super::*;
use crate::listing::Listing;
use std::fmt::Write;

const PATIENCE: Patience =
    Patience { first: Duration::from_millis(100), longest: Duration::from_secs(1), restart_after: 4 };

/// A playlist of `parts` parts since the beginning, 4 to a segment of 0.8 s, listing those from `listed` on.
fn text(parts: u64, listed: u64) -> String {
    let mut text =
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=0.6\n\
        #EXT-X-PART-INF:PART-TARGET=0.2\n#EXT-X-MEDIA-SEQUENCE:10\n#EXT-X-MAP:URI=\"init.mp4\"\n"
            .to_owned();
    for index in 0..parts {
        let (msn, part) = (10 + index / 4, index % 4);
        if index >= listed {
            let independent = if part == 0 { ",INDEPENDENT=YES" } else { "" };
            writeln!(text, "#EXT-X-PART:DURATION=0.2,URI=\"{msn}.{part}\"{independent}").unwrap();
        }
        if part == 3 {
            writeln!(text, "#EXTINF:0.8,\n{msn}").unwrap();
        }
    }
    text
}

/// What a playlist led to, and everything that can be got then.
#[derive(Debug)]
struct Led {
    missed: u64,
    regressed: bool,
    unsatisfied: bool,
    wants: Vec<Want>,
}

fn shelved(text: &str) -> Shelved {
    Shelved { number: 0, listing: Arc::new(Listing::read(text.as_bytes()).unwrap()) }
}

fn load(player: &mut Player, text: &str) -> Led {
    let seen = player.loaded(0, shelved(text));
    let mut missed = seen.missed;
    let wants = std::iter::from_fn(|| player.want(&mut missed)).collect();
    Led { missed, regressed: seen.regressed, unsatisfied: seen.unsatisfied, wants }
}

fn fresh(seed: u64) -> Player {
    Player::new(PATIENCE, seed, Manners::default())
}

fn uris(led: &Led) -> Vec<&str> {
    led.wants.iter().map(|want| &*want.uri).collect()
}

fn reload(msn: u64, part: u32) -> Step {
    Step::Playlist {
        directives: Directives { msn: Some(msn), part: Some(part), skip: None },
        after: Duration::ZERO,
    }
}

#[test]
fn tune_in_then_part_by_part() {
    let mut player = fresh(1);
    assert_eq!(player.step(0), plain(Duration::ZERO));
    let plan = load(&mut player, &text(7, 0));
    // 0.6 s before the end is 11.0, which is independent.
    assert_eq!(uris(&plan), ["init.mp4", "11.0", "11.1", "11.2"]);
    assert!(plan.wants.iter().all(|want| !want.live));
    assert_eq!(player.step(0), reload(11, 3));
    let plan = load(&mut player, &text(8, 0));
    assert_eq!(uris(&plan), ["11.3"]);
    assert!(plan.wants[0].live && plan.missed == 0 && !plan.unsatisfied);
    assert_eq!(player.step(0), reload(12, 0), "the segment is complete");
    let plan = load(&mut player, &text(10, 4));
    assert_eq!(uris(&plan), ["12.0", "12.1"], "two at once");
    assert_eq!(player.step(0), reload(12, 2));
}

#[test]
fn what_is_no_longer_listed_was_missed() {
    for (before, parts, window, missed) in [
        (7, 12, 4, 0),
        (7, 12, 8, 1),  // 11.3 is gone
        (7, 20, 12, 5), // 11.3 and all of 12
        (8, 12, 8, 0),
    ] {
        let mut player = fresh(1);
        load(&mut player, &text(before, 0));
        let plan = load(&mut player, &window_text(parts, window));
        assert_eq!(plan.missed, missed, "{before} {parts} {window}");
    }
}

#[test]
fn a_segment_whose_parts_are_no_longer_listed_is_got_whole() {
    let mut player = fresh(1);
    load(&mut player, &text(7, 0));
    let led = load(&mut player, &text(17, 12));
    assert_eq!(uris(&led), ["11", "12", "13.0", "13.1", "13.2", "13.3", "14.0"]);
    assert_eq!(led.missed, 0);
    assert_eq!((led.wants[0].kind, led.wants[0].duration_us), (Kind::Segment, 800_000));
}

#[test]
fn gap_parts_are_missed_and_not_asked_for() {
    let mut player = fresh(1);
    load(&mut player, &text(4, 0));
    let gap = text(5, 0).replace("URI=\"11.0\"", "URI=\"11.0\",GAP=YES");
    let plan = load(&mut player, &gap);
    assert_eq!((plan.missed, plan.wants.len()), (1, 0));
}

#[test]
fn a_playlist_that_goes_back_is_told_and_tuned_in_anew() {
    let mut player = fresh(1);
    load(&mut player, &text(12, 0));
    let plan = load(&mut player, &text(6, 0));
    assert!(plan.regressed);
    assert_eq!(uris(&plan), ["10.0", "10.1", "10.2", "10.3", "11.0", "11.1"]);
    assert!(plan.wants.iter().all(|want| !want.live));
}

#[test]
fn an_answer_without_what_was_asked_for_is_spaced() {
    let mut player = fresh(1);
    load(&mut player, &text(7, 0));
    let plan = load(&mut player, &text(7, 0));
    assert!(plan.unsatisfied && plan.wants.is_empty());
    let Step::Playlist { directives, after } = player.step(0) else { panic!() };
    assert!(!directives.is_blocking() && after >= Duration::from_millis(75));
}

#[test]
fn failures_are_spaced_further_and_further_then_start_over() {
    let mut player = fresh(7);
    load(&mut player, &text(7, 0));
    let mut waits = Vec::new();
    for _ in 0..3 {
        player.failed();
        match player.step(0) {
            Step::Playlist { directives, after } if !directives.is_blocking() => waits.push(after),
            other => panic!("{other:?}"),
        }
    }
    assert!(waits[0] < waits[1] && waits[1] < waits[2], "{waits:?}");
    player.failed();
    assert!(matches!(player.step(0), Step::Restart { .. }));
    player.restart();
    let plan = load(&mut player, &text(9, 0));
    assert_eq!(uris(&plan), ["11.3", "12.0"], "it goes on where it was");
    assert_eq!(player.step(0), reload(12, 1));
}

#[test]
fn a_hinted_part_is_asked_for_before_it_exists_and_once() {
    let mut player = Player::new(PATIENCE, 1, Manners { hints: true, deltas: false });
    let hinted = |parts: u64| {
        format!("{}#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"{}.{}\"\n", text(parts, 0), 10 + parts / 4, parts % 4)
    };
    let led = load(&mut player, &hinted(7));
    assert_eq!(uris(&led), ["init.mp4", "11.0", "11.1", "11.2", "11.3"]);
    let hint = led.wants.last().unwrap();
    assert_eq!((hint.kind, hint.at, hint.live), (Kind::Hint, (11, 3), true));
    assert_eq!(player.duration_us((11, 3)), None);
    let led = load(&mut player, &hinted(8));
    assert_eq!(uris(&led), ["12.0"], "11.3 is there already");
    assert_eq!(player.duration_us((11, 3)), Some(200_000));
    player.unhint((12, 0));
    let led = load(&mut player, &hinted(9));
    assert_eq!(uris(&led), ["12.0", "12.1"], "it was not there after all");
    assert_eq!(led.wants[0].kind, Kind::Part);
}

#[test]
fn delta_updates_are_asked_for_while_the_playlist_is_young() {
    let offer =
        |skip: &str| text(7, 0).replace("CAN-BLOCK-RELOAD=YES", &format!("CAN-BLOCK-RELOAD=YES{skip}"));
    for (offered, now_us, skip) in [
        (",CAN-SKIP-UNTIL=6.0", 2_900_000, Some(Skip::Yes)),
        (",CAN-SKIP-UNTIL=6.0", 3_100_000, None),
        (",CAN-SKIP-UNTIL=6.0,CAN-SKIP-DATERANGES=YES", 0, Some(Skip::V2)),
        ("", 0, None),
    ] {
        let mut player = Player::new(PATIENCE, 1, Manners { hints: false, deltas: true });
        assert_eq!(player.step(0), plain(Duration::ZERO), "nothing to update yet");
        load(&mut player, &offer(offered));
        let Step::Playlist { directives, .. } = player.step(now_us) else { panic!() };
        assert_eq!((directives.skip, directives.msn), (skip, Some(11)), "{offered} {now_us}");
        player.switch();
        assert_eq!(player.step(0), plain(Duration::ZERO), "another rendition: all of it");
    }
}

#[test]
fn seeks_go_back_by_segments_and_return_to_the_edge() {
    let mut player = fresh(1);
    load(&mut player, &text(30, 24));
    player.seek(Some(11));
    let led = load(&mut player, &text(31, 24));
    assert_eq!(uris(&led)[..5], ["11", "12", "13", "14", "15"]);
    assert!(led.wants.iter().all(|want| !want.live), "nobody waited for these");
    player.seek(None);
    let led = load(&mut player, &text(33, 24));
    assert_eq!(uris(&led), ["17.0", "17.1", "17.2", "17.3", "18.0"][..led.wants.len()].to_vec());
    assert!(led.wants.last().unwrap().live);
}

#[test]
fn waits_are_bounded_and_differ() {
    for failures in 1..100 {
        for seed in 0..50 {
            assert!(PATIENCE.wait(failures, seed) <= PATIENCE.longest * 5 / 4);
            assert!(PATIENCE.wait(failures, seed) >= PATIENCE.first * 3 / 4);
        }
    }
    assert_ne!(PATIENCE.wait(1, 1), PATIENCE.wait(1, 2));
}

#[test]
fn whole_segments_and_polling() {
    let segments = |count: u64, control: &str| {
        let mut text = format!("#EXTM3U\n#EXT-X-TARGETDURATION:2\n{control}#EXT-X-MEDIA-SEQUENCE:5\n");
        for index in 0..count {
            writeln!(text, "#EXTINF:2,\ns{}", 5 + index).unwrap();
        }
        text
    };
    let mut player = fresh(1);
    let plan = load(&mut player, &segments(6, ""));
    assert_eq!(uris(&plan), ["s8", "s9", "s10"], "three target durations from the end");
    assert_eq!(player.step(0), plain(Duration::from_secs(2)));
    load(&mut player, &segments(6, ""));
    assert_eq!(player.step(0), plain(Duration::from_secs(1)), "half as long when nothing changed");
    let plan = load(&mut player, &segments(9, ""));
    assert_eq!((uris(&plan), plan.missed), (vec!["s11", "s12", "s13"], 0));

    let mut player = fresh(1);
    load(&mut player, &segments(6, "#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES\n"));
    let directives = Directives { msn: Some(11), part: None, skip: None };
    assert_eq!(player.step(0), Step::Playlist { directives, after: Duration::ZERO });
    let plan = load(
        &mut player,
        &(segments(7, "#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES\n") + "#EXT-X-ENDLIST\n"),
    );
    assert_eq!(uris(&plan), ["s11"]);
    assert_eq!(player.step(0), Step::Ended);
}

/// A viewer against a server in simulated time: with any round trip below a part's duration, each part is asked for
/// exactly once and in order, and every reload after the first is a blocking one.
#[test]
fn simulated_parts_each_exactly_once_and_in_order() {
    const PART_MS: u64 = 200;
    for round_trip_ms in [1u64, 30, 150, 700] {
        let mut player = fresh(round_trip_ms);
        let mut now_ms = 5 * PART_MS;
        let mut asked = Vec::new();
        let mut plain_reloads = 0;
        while now_ms < 300_000 {
            let Step::Playlist { directives, after } = player.step(0) else { panic!("{:?}", player.step(0)) };
            now_ms += u64::try_from(after.as_millis()).unwrap() + round_trip_ms;
            match directives.msn {
                Some(msn) => {
                    let index = (msn - 10) * 4 + u64::from(directives.part.unwrap());
                    now_ms = now_ms.max((index + 1) * PART_MS);
                }
                None => plain_reloads += 1,
            }
            let parts = now_ms / PART_MS;
            let window = parts.saturating_sub(16) / 4 * 4;
            let tail = window_text(parts, window);
            let plan = load(&mut player, &tail);
            assert!(!plan.unsatisfied && !plan.regressed && plan.missed == 0, "{round_trip_ms} {now_ms}");
            asked.extend(
                plan.wants
                    .into_iter()
                    .filter(|want| want.kind == Kind::Part)
                    .map(|want| want.uri.to_string()),
            );
            now_ms += round_trip_ms;
        }
        let first = asked[0].clone();
        assert_eq!(plain_reloads, 1);
        let expected: Vec<String> = (0..now_ms / PART_MS)
            .map(|index| format!("{}.{}", 10 + index / 4, index % 4))
            .skip_while(|uri| *uri != first)
            .take(asked.len())
            .collect();
        assert_eq!(asked, expected, "{round_trip_ms}");
        assert!(asked.len() > 1_480);
    }
}

/// Only the segments from part `window` on are in the playlist.
fn window_text(parts: u64, window: u64) -> String {
    let mut text = format!(
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK=0.6\n\
         #EXT-X-PART-INF:PART-TARGET=0.2\n#EXT-X-MEDIA-SEQUENCE:{}\n",
        10 + window / 4
    );
    for index in window..parts {
        let (msn, part) = (10 + index / 4, index % 4);
        let independent = if part == 0 { ",INDEPENDENT=YES" } else { "" };
        writeln!(text, "#EXT-X-PART:DURATION=0.2,URI=\"{msn}.{part}\"{independent}").unwrap();
        if part == 3 {
            writeln!(text, "#EXTINF:0.8,\n{msn}").unwrap();
        }
    }
    text
}
