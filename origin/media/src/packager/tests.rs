use super::*;
use proptest::prelude::*;

fn sample(start: i64, duration: u32, sync: bool) -> TrackSample {
    TrackSample {
        paced: Paced { start, duration },
        composition_offset: 0,
        sync,
        data: Bytes::from_static(b"\0\0\0\x01\x41"),
    }
}

fn boundary(msn: u64, start: i64) -> Boundary {
    Boundary { msn, start, presented: start, run_start: false, forced: false }
}

/// Durations of the parts, `|` where a segment closes.
fn shape(cuts: &[Cut]) -> String {
    let mut out = String::new();
    for cut in cuts {
        match cut {
            Cut::Open { boundary, .. } => out += &format!("[{} ", boundary.msn),
            Cut::Part { duration, independent, .. } => {
                out += &format!("{}{} ", duration / 90, if *independent { "i" } else { "" });
            }
            Cut::Close => out += "] ",
        }
    }
    out.trim_end().to_owned()
}

#[test]
fn parts_fall_on_the_grid_and_close_without_the_next_sample() {
    let mut packager = Packager::new(90_000, 3000, 18_000);
    for frame in 0..6 {
        packager
            .push(sample(frame * 3000, 3000, frame == 0), (frame == 0).then(|| boundary(1, 0)))
            .expect("cut");
        packager.settle(Next::Continues).expect("cut");
    }
    assert_eq!(shape(&packager.take_cuts()), "[1 200i");
}

#[test]
fn where_a_segment_may_end_the_part_waits_for_the_sample_that_decides() {
    let mut packager = Packager::new(90_000, 3000, 18_000);
    for frame in 0..6 {
        packager
            .push(sample(frame * 3000, 3000, frame == 0), (frame == 0).then(|| boundary(1, 0)))
            .expect("cut");
        packager.settle(if frame == 5 { Next::MayStartSegment } else { Next::Continues }).expect("cut");
    }
    assert_eq!(shape(&packager.take_cuts()), "[1");
    packager.push(sample(18_000, 3000, true), Some(boundary(2, 18_000))).expect("cut");
    assert_eq!(shape(&packager.take_cuts()), "200i ] [2");
}

#[test]
fn a_known_end_closes_at_once() {
    let mut packager = Packager::new(90_000, 3000, 18_000);
    packager.push(sample(0, 3000, true), Some(boundary(1, 0))).expect("cut");
    packager.settle(Next::StartsSegment).expect("cut");
    assert_eq!(shape(&packager.take_cuts()), "[1 33i ]");
    assert_eq!(packager.open_msn(), None);
}

#[test]
fn a_lost_end_leaves_the_segment_open() {
    let mut packager = Packager::new(90_000, 3000, 18_000);
    packager.push(sample(0, 3000, true), Some(boundary(1, 0))).expect("cut");
    packager.abandon().expect("cut");
    packager.push(sample(3000, 3000, false), None).expect("ignored until a segment starts");
    assert_eq!(shape(&packager.take_cuts()), "[1 33i");
}

#[test]
fn part_targets() {
    for (configured, nominal, timescale, expected) in [
        (334, 3000, 90_000, 334), // 30 fps: 10 frames
        (200, 3000, 90_000, 200), // 30 fps: 6 frames
        (200, 3600, 90_000, 200), // 25 fps: 5 frames
        (200, 3750, 90_000, 167), // 24 fps: 4 frames are 83 % of 200 ms
        (200, 3003, 90_000, 167), // 29.97 fps: 6 frames would be 200.2 ms
        (334, 3003, 90_000, 334),
        (200, 1024, 48_000, 200), // AAC: 9 frames are 192 ms
        (334, 1024, 44_100, 334),
        (200, 45_000, 90_000, 500), // 2 fps: one frame
    ] {
        assert_eq!(
            part_target_ms(configured, nominal, timescale),
            expected,
            "{configured} {nominal} {timescale}"
        );
    }
}

#[test]
fn scaling_is_exact_at_todays_positions() {
    let now = 1_795_333_200 * TICKS_PER_SECOND;
    assert_eq!(to_channel_ticks(to_track_ticks(now, 48_000), 48_000), now);
    assert_eq!(to_track_ticks(now, 44_100), 1_795_333_200 * 44_100);
}

proptest! {
    #[test]
    fn pt_03_pt_14_parts_are_below_the_ceiling_and_add_up(
        durations in proptest::collection::vec(1u32..9000, 1..300),
        segment_every in 5usize..80,
        timescale in prop_oneof![Just(90_000u32), Just(48_000), Just(44_100)],
    ) {
        let ceiling = part_ceiling(200, timescale);
        let mut packager = Packager::new(timescale, 1024, ceiling);
        let (mut position, mut msn, mut cuts) = (i64::from(timescale) * 1_795_333_200, 0, Vec::new());
        let first = position;
        for (n, duration) in durations.iter().map(|d| (*d).min(ceiling)).enumerate() {
            let starts = n % segment_every == 0;
            msn += u64::from(starts);
            let opens = starts.then(|| boundary(msn, to_channel_ticks(position, timescale)));
            packager.push(sample(position, duration, starts), opens).expect("cut");
            packager.settle(Next::Continues).expect("cut");
            position += i64::from(duration);
            cuts.append(&mut packager.take_cuts());
        }
        packager.close().expect("cut");
        cuts.append(&mut packager.take_cuts());
        let mut total = 0;
        let mut after_open = false;
        for cut in &cuts {
            match cut {
                Cut::Open { .. } => after_open = true,
                Cut::Part { duration, independent, .. } => {
                    // Rounding down both ends can add one tick of 1/90000 s.
                    prop_assert!(u64::from(*duration) <= 200 * 90 + 1);
                    prop_assert_eq!(*independent, after_open, "PT-06");
                    after_open = false;
                    total += i64::from(*duration);
                }
                Cut::Close => {}
            }
        }
        prop_assert_eq!(total, to_channel_ticks(position, timescale) - to_channel_ticks(first, timescale));
    }
}
