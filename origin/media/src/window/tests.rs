use super::*;
use crate::snapshot::PartLookup;
use sigma_shared::directives::Skip;
use sigma_shared::mode::Mode;
use sigma_shared::resource::Listed;

const TICKS: u32 = 180_000;

fn limits(discontinuity_sequence: u64) -> WindowLimits {
    WindowLimits { window: 20 * 90_000, dvr: 0, bytes_max: 1 << 30, discontinuity_sequence }
}

fn control() -> ServerControl {
    ServerControl { target_duration_s: 2, part_target_ms: 334, part_hold_back_ms: 1002 }
}

fn shown() -> Shown {
    Shown {
        control: control(),
        next_init: None,
        dateranges: Arc::default(),
        reports: Arc::default(),
        iframe_reports: Arc::default(),
    }
}

fn segment(msn: u64) -> Segment {
    Segment {
        msn,
        start: msn as i64 * i64::from(TICKS),
        boundary: msn as i64 * i64::from(TICKS),
        duration: None,
        discontinuity: false,
        gap: false,
        init: InitHash(1),
        program_date_time_ms: msn as i64 * 2000,
        parts: Vec::new(),
    }
}

fn part(byte: u8) -> Part {
    let line = PartLine { duration: TICKS / 6, independent: false, gap: false };
    Part { bytes: Bytes::from(vec![byte; 100]), line, available_at_ms: 0 }
}

/// A window with complete segments `from..to`, of which `discontinuity` starts a run.
fn filled(from: u64, to: u64, discontinuity: Option<u64>) -> LiveWindow {
    let mut window = LiveWindow::new(limits(5));
    for msn in from..to {
        window.open(Segment { discontinuity: Some(msn) == discontinuity, ..segment(msn) });
        for n in 0..6 {
            window.append(part(n));
        }
        window.close(false);
    }
    window
}

fn playlist(window: &mut LiveWindow, mode: Mode, skip: Option<Skip>) -> String {
    let snapshot = window.snapshot(shown()).expect("has a segment");
    String::from_utf8(snapshot.playlist(Listed::Media, mode, skip).to_bytes().to_vec()).expect("text")
}

fn text(window: &mut LiveWindow) -> String {
    playlist(window, Mode::Ultra, None)
}

#[test]
fn nothing_is_shown_before_a_segment_is_complete() {
    let mut window = LiveWindow::new(limits(0));
    window.open(segment(7));
    window.append(part(0));
    assert!(window.snapshot(shown()).is_none());
    window.close(false);
    assert!(window.snapshot(shown()).is_some());
}

#[test]
fn ev_01_ev_02_the_head_moves_and_counts() {
    let mut window = filled(100, 120, Some(105));
    let playlist = text(&mut window);
    assert!(playlist.contains("#EXT-X-MEDIA-SEQUENCE:110\n"), "{playlist}");
    assert!(playlist.contains("#EXT-X-DISCONTINUITY-SEQUENCE:6\n"), "{playlist}");
    assert_eq!(window.discontinuities(), 6);
    let mut earlier = filled(100, 113, Some(105));
    assert!(text(&mut earlier).contains("#EXT-X-DISCONTINUITY-SEQUENCE:5\n"), "still listed");
    assert_eq!(earlier.discontinuities(), 6);
}

#[test]
fn ev_07_pt_10_what_left_the_playlist_can_still_be_had_for_as_long_as_a_playlist() {
    let snapshot = filled(100, 130, None).snapshot(shown()).expect("has a segment");
    assert!(snapshot.segment(129).is_some());
    assert!(snapshot.segment(111).is_some(), "off the playlist");
    assert!(matches!(snapshot.part(111, 5), PartLookup::Found(_)));
    assert!(snapshot.segment(105).is_none(), "out of memory");
}

#[test]
fn pt_09_parts_are_listed_for_three_target_durations() {
    let playlist = text(&mut filled(100, 120, None));
    let listed: Vec<_> =
        (110..120).filter(|msn| playlist.contains(&format!("URI=\"{msn}.0.m4s\""))).collect();
    assert_eq!(listed, [117, 118, 119]);
}

#[test]
fn ph_05_ph_06_only_the_hinted_part_is_waited_for() {
    let mut window = filled(100, 107, None);
    window.open(segment(107));
    window.append(part(0));
    let snapshot = window.snapshot(shown()).expect("has a segment");
    assert!(matches!(snapshot.part(107, 0), PartLookup::Found(_)));
    assert!(matches!(snapshot.part(107, 1), PartLookup::Hinted));
    assert!(matches!(snapshot.part(107, 2), PartLookup::Absent));
    assert!(matches!(snapshot.part(108, 0), PartLookup::Absent));
    window.close(false);
    let snapshot = window.snapshot(shown()).expect("has a segment");
    assert!(matches!(snapshot.part(107, 1), PartLookup::Absent), "hinted, then not made");
    assert!(matches!(snapshot.part(108, 0), PartLookup::Hinted));
    window.end();
    let snapshot = window.snapshot(shown()).expect("has a segment");
    assert!(matches!(snapshot.part(108, 0), PartLookup::Absent));
}

#[test]
fn snapshots_do_not_change() {
    let mut window = filled(100, 107, None);
    window.open(segment(107));
    window.append(part(0));
    let before = window.snapshot(shown()).expect("has a segment");
    let bytes = before.playlist(Listed::Media, Mode::Ultra, None).to_bytes();
    window.append(part(1));
    window.close(false);
    assert_eq!(before.playlist(Listed::Media, Mode::Ultra, None).to_bytes(), bytes);
    assert!(matches!(before.part(107, 1), PartLookup::Hinted));
}

#[test]
fn mp_06_the_parts_are_the_segment_and_rates_are_measured() {
    let mut window = filled(100, 107, None);
    let snapshot = window.snapshot(shown()).expect("has a segment");
    assert_eq!(snapshot.segment(106).expect("complete").size(), 600);
    assert_eq!(window.bit_rates(), (2400, 2400));
}

#[test]
fn a10_a_window_is_bounded_in_bytes() {
    let mut window = LiveWindow::new(WindowLimits { bytes_max: 4800, ..limits(0) });
    for msn in 0..40 {
        window.open(segment(msn));
        (0..6).for_each(|n| window.append(part(n)));
        window.close(false);
    }
    let snapshot = window.snapshot(shown()).expect("has a segment");
    assert_eq!(text(&mut window).matches("#EXTINF").count(), 8, "eight segments are 4800 bytes");
    assert!(snapshot.segment(20).is_none());
    assert!(snapshot.segment(34).is_some());
}

#[test]
fn an_empty_segment_leaves_no_trace() {
    let mut window = filled(100, 107, None);
    window.open(segment(107));
    window.close(false);
    assert_eq!(window.complete_msn(), Some(106));
}

#[test]
fn modes_are_other_lists_over_the_same_segments() {
    let mut window = filled(100, 107, None);
    window.open(segment(107));
    window.append(part(0));
    let [ultra, low] = [Mode::Ultra, Mode::Low].map(|mode| playlist(&mut window, mode, None));
    assert!(ultra.contains("107.0.m4s") && ultra.contains("PRELOAD-HINT"));
    assert!(!low.contains("PART") && low.ends_with("106.m4s\n"), "{low}");
    assert_eq!(low.matches("#EXTINF").count(), ultra.matches("#EXTINF").count());
}

#[test]
fn sk_03_sk_05_a_delta_update_keeps_the_counts_and_states_what_is_in_force() {
    let mut window = filled(100, 115, None);
    let full = text(&mut window);
    let delta = playlist(&mut window, Mode::Ultra, Some(Skip::Yes));
    let head = "#EXT-X-MEDIA-SEQUENCE:105\n#EXT-X-DISCONTINUITY-SEQUENCE:5\n";
    assert!(full.contains(head) && delta.contains(head), "{delta}");
    let rest = delta.split_once("#EXT-X-SKIP:SKIPPED-SEGMENTS=3\n").expect("skips three").1;
    assert!(rest.starts_with("#EXT-X-MAP:URI="), "{rest}");
    let kept = full.split_once("107.m4s\n").expect("has it").1;
    assert!(rest.ends_with(kept) && rest.contains("EXTINF:2.00000,\n108.m4s"), "{rest}");
}

#[test]
fn sk_01_nothing_to_skip_or_ended_is_answered_in_full() {
    let mut short = filled(100, 106, None);
    assert_eq!(playlist(&mut short, Mode::Low, Some(Skip::V2)), playlist(&mut short, Mode::Low, None));
    let mut ended = filled(100, 115, None);
    ended.end();
    assert!(playlist(&mut ended, Mode::Ultra, Some(Skip::Yes)).contains("#EXT-X-ENDLIST"));
    assert!(!playlist(&mut ended, Mode::Ultra, Some(Skip::Yes)).contains("#EXT-X-SKIP"));
}

#[test]
fn ph_04_another_init_section_of_the_next_part_is_hinted() {
    let mut window = filled(100, 107, None);
    let hinted = |window: &mut LiveWindow, init| {
        let snapshot =
            window.snapshot(Shown { next_init: Some(InitHash(init)), ..shown() }).expect("has a segment");
        let text = snapshot.playlist(Listed::Media, Mode::Ultra, None).to_bytes();
        String::from_utf8(text.to_vec()).expect("text").contains("TYPE=MAP,URI=\"init-")
    };
    assert!(hinted(&mut window, 2));
    assert!(!hinted(&mut window, 1), "the same");
    window.open(segment(107));
    window.append(part(0));
    assert!(!hinted(&mut window, 2), "the next part belongs to this segment");
}

#[test]
fn with_an_archive_the_list_goes_back_beyond_memory() {
    let mut window = LiveWindow::new(WindowLimits { dvr: 100 * 90_000, ..limits(0) });
    let fill = |window: &mut LiveWindow, from: u64, to: u64, archived: bool| {
        for msn in from..to {
            window.open(segment(msn));
            (0..6).for_each(|n| window.append(part(n)));
            window.close(false);
            window.set_archived(archived.then_some(100..=msn));
        }
    };
    let first =
        |window: &mut LiveWindow| text(window).split("SEQUENCE:").nth(1).map(|rest| rest[..3].to_owned());
    fill(&mut window, 100, 140, true);
    assert_eq!(first(&mut window).as_deref(), Some("100"), "all that the archive has");
    fill(&mut window, 140, 160, true);
    assert_eq!(first(&mut window).as_deref(), Some("110"), "fifty segments are a hundred seconds");
    assert!(window.snapshot(shown()).expect("has a segment").segment(120).is_none(), "not in memory");
    window.set_archived(None);
    assert_eq!(
        first(&mut window).as_deref(),
        Some("140"),
        "what was shed is off the list: memory is what is left"
    );
    fill(&mut window, 160, 165, false);
    assert_eq!(first(&mut window).as_deref(), Some("145"));
}

proptest::proptest! {
    /// What is counted as it passes is what the list says, whatever has been opened, left out, archived or forgotten.
    #[test]
    fn discontinuities_passed_are_those_listed_and_before(
        restored in proptest::collection::vec(proptest::bool::ANY, 0..4),
        steps in proptest::collection::vec((proptest::bool::ANY, 0..3u8, proptest::option::of(0..40u64)), 1..60),
    ) {
        let mut window = LiveWindow::new(WindowLimits { dvr: 60 * 90_000, ..limits(5) });
        let mut sequence = 7;
        let archived: Vec<ArchivedSegment> = restored.iter().zip(96..).map(|(discontinuity, msn)| {
            let mut segment = segment(msn);
            (segment.duration, segment.discontinuity) = (Some(TICKS), *discontinuity);
            let before = sequence;
            sequence += u64::from(*discontinuity);
            ArchivedSegment { line: segment.line(), start: segment.start, discontinuity_sequence: before }
        }).collect();
        window.restore(&archived, Vec::new(), [(0, 0); 2]);
        let scan = |window: &LiveWindow| {
            let listed = window.listing.lines().iter().filter(|line| line.discontinuity).count() as u64;
            let open = window.open_segment().is_some_and(|open| open.discontinuity);
            window.discontinuity_sequence + listed + u64::from(open)
        };
        for ((discontinuity, parts, kept), msn) in steps.into_iter().zip(100..) {
            window.open(Segment { discontinuity, ..segment(msn) });
            let before = window.passed;
            for n in 0..parts {
                window.append(part(n));
                proptest::prop_assert_eq!(window.discontinuities(), scan(&window));
            }
            let begun = window.take_events().into_iter().find_map(|event| match event {
                Event::Begin(_, _, sequence) => Some(sequence),
                _ => None,
            });
            proptest::prop_assert_eq!(begun, (parts > 0).then_some(before));
            window.close(false);
            proptest::prop_assert_eq!(window.discontinuities(), scan(&window));
            window.set_archived(kept.map(|kept| msn.saturating_sub(kept)..=msn));
            proptest::prop_assert_eq!(window.discontinuities(), scan(&window));
        }
    }
}

#[test]
fn an_archive_that_grows_does_not_change_the_list() {
    let mut window = LiveWindow::new(WindowLimits { dvr: 600 * 90_000, ..limits(0) });
    for msn in 100..140 {
        window.open(segment(msn));
        window.append(part(0));
        window.close(false);
        window.set_archived(Some(100..=msn));
    }
    let list = |window: &mut LiveWindow| Arc::clone(&window.frozen(control())[0]);
    let before = list(&mut window);
    window.set_archived(Some(99..=139));
    assert!(Arc::ptr_eq(&before, &list(&mut window)), "nothing is redone");
    window.set_archived(Some(110..=139));
    assert!(!Arc::ptr_eq(&before, &list(&mut window)), "the list got shorter");
}
