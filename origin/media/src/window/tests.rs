use super::*;

const TICKS: u32 = 180_000;

fn limits(discontinuity_sequence: u64) -> WindowLimits {
    WindowLimits { window: 20 * 90_000, bytes_max: 1 << 30, discontinuity_sequence }
}

fn control() -> ServerControl {
    ServerControl { target_duration_s: 2, part_target_ms: 334, part_hold_back_ms: 1002 }
}

fn segment(msn: u64) -> Segment {
    Segment {
        msn,
        start: msn as i64 * i64::from(TICKS),
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

fn text(window: &LiveWindow) -> String {
    let snapshot = window.snapshot(control(), &[]).expect("has a segment");
    String::from_utf8(snapshot.plain.to_vec()).expect("text")
}

#[test]
fn nothing_is_shown_before_a_segment_is_complete() {
    let mut window = LiveWindow::new(limits(0));
    window.open(segment(7));
    window.append(part(0));
    assert!(window.snapshot(control(), &[]).is_none());
    window.close(false);
    assert!(window.snapshot(control(), &[]).is_some());
}

#[test]
fn ev_01_ev_02_the_head_moves_and_counts() {
    let window = filled(100, 120, Some(105));
    let playlist = text(&window);
    assert!(playlist.contains("#EXT-X-MEDIA-SEQUENCE:110\n"), "{playlist}");
    assert!(playlist.contains("#EXT-X-DISCONTINUITY-SEQUENCE:6\n"), "{playlist}");
    assert_eq!(window.discontinuities(), 6);
    let earlier = filled(100, 113, Some(105));
    assert!(text(&earlier).contains("#EXT-X-DISCONTINUITY-SEQUENCE:5\n"), "still listed");
    assert_eq!(earlier.discontinuities(), 6);
}

#[test]
fn ev_07_pt_10_what_left_the_playlist_can_still_be_had_for_as_long_as_a_playlist() {
    let snapshot = filled(100, 130, None).snapshot(control(), &[]).expect("has a segment");
    assert!(snapshot.segment(129).is_some());
    assert!(snapshot.segment(111).is_some(), "off the playlist");
    assert!(matches!(snapshot.part(111, 5), PartLookup::Found(_)));
    assert!(snapshot.segment(105).is_none(), "out of memory");
}

#[test]
fn pt_09_parts_are_listed_for_three_target_durations() {
    let playlist = text(&filled(100, 120, None));
    let listed: Vec<_> =
        (110..120).filter(|msn| playlist.contains(&format!("URI=\"{msn}.0.m4s\""))).collect();
    assert_eq!(listed, [117, 118, 119]);
}

#[test]
fn ph_05_ph_06_only_the_hinted_part_is_waited_for() {
    let mut window = filled(100, 107, None);
    window.open(segment(107));
    window.append(part(0));
    let snapshot = window.snapshot(control(), &[]).expect("has a segment");
    assert!(matches!(snapshot.part(107, 0), PartLookup::Found(_)));
    assert!(matches!(snapshot.part(107, 1), PartLookup::Hinted));
    assert!(matches!(snapshot.part(107, 2), PartLookup::Absent));
    assert!(matches!(snapshot.part(108, 0), PartLookup::Absent));
    window.close(false);
    let snapshot = window.snapshot(control(), &[]).expect("has a segment");
    assert!(matches!(snapshot.part(107, 1), PartLookup::Absent), "hinted, then not made");
    assert!(matches!(snapshot.part(108, 0), PartLookup::Hinted));
    window.end();
    let snapshot = window.snapshot(control(), &[]).expect("has a segment");
    assert!(matches!(snapshot.part(108, 0), PartLookup::Absent));
}

#[test]
fn snapshots_do_not_change() {
    let mut window = filled(100, 107, None);
    window.open(segment(107));
    window.append(part(0));
    let before = window.snapshot(control(), &[]).expect("has a segment");
    let bytes = before.plain.clone();
    window.append(part(1));
    window.close(false);
    assert_eq!(before.plain, bytes);
    assert!(matches!(before.part(107, 1), PartLookup::Hinted));
}

#[test]
fn mp_06_the_parts_are_the_segment_and_rates_are_measured() {
    let window = filled(100, 107, None);
    let snapshot = window.snapshot(control(), &[]).expect("has a segment");
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
    let snapshot = window.snapshot(control(), &[]).expect("has a segment");
    assert_eq!(text(&window).matches("#EXTINF").count(), 8, "eight segments are 4800 bytes");
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
