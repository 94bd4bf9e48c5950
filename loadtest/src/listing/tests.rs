use super::*;
use proptest::prelude::*;
use std::fmt::Write;

const HEAD: &str = "#EXTM3U\n#EXT-X-VERSION:9\n#EXT-X-TARGETDURATION:1\n\
    #EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,CAN-SKIP-UNTIL=6.0,CAN-SKIP-DATERANGES=YES,HOLD-BACK=3.0,PART-HOLD-BACK=0.6\n\
    #EXT-X-PART-INF:PART-TARGET=0.2\n";

/// Segments `from..to` of four parts and `open` parts after them; the first `skipped` are left out. Parts of the last
/// three segments are listed.
fn text(from: u64, to: u64, (open, skipped): (u64, u64)) -> String {
    let mut text = format!("{HEAD}#EXT-X-MEDIA-SEQUENCE:{from}\n");
    if skipped > 0 {
        writeln!(text, "#EXT-X-SKIP:SKIPPED-SEGMENTS={skipped}").unwrap();
    }
    text.push_str("#EXT-X-MAP:URI=\"init.mp4\"\n");
    for msn in from + skipped..=to {
        if msn % 4 == 0 || msn == from + skipped {
            let at = 1_700_000_000_000 + i64::try_from(msn).unwrap() * 800;
            writeln!(text, "#EXT-X-PROGRAM-DATE-TIME:{}", sigma_shared::playlist::DateTime(at)).unwrap();
        }
        let parts = if msn == to {
            open
        } else if msn + 3 >= to {
            4
        } else {
            0
        };
        for part in 0..parts {
            let independent = if part == 0 { ",INDEPENDENT=YES" } else { "" };
            writeln!(text, "#EXT-X-PART:DURATION=0.2,URI=\"{msn}.{part}.m4s\"{independent}").unwrap();
        }
        if msn < to {
            writeln!(text, "#EXTINF:0.8,\n{msn}.m4s").unwrap();
        }
    }
    writeln!(text, "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"{to}.{open}.m4s\"").unwrap();
    text
}

fn read(text: &str) -> Listing {
    Listing::read(text.as_bytes()).unwrap()
}

#[test]
fn a_live_playlist() {
    let listing = read(&text(100, 110, (2, 0)));
    assert_eq!((listing.segments.len(), listing.next()), (11, (110, 2)));
    assert_eq!(listing.skip_until_us, Some(6_000_000));
    assert_eq!(listing.hint.as_deref(), Some("110.2.m4s"));
    let open = listing.segment(110).unwrap();
    assert_eq!((open.uri.is_none(), open.parts.len(), open.duration_us), (true, 2, 400_000));
    assert_eq!(open.start_us, Some(1_700_000_088_000_000));
    assert_eq!(listing.end_us(), Some(1_700_000_088_400_000));
    assert_eq!(listing.segment(105).unwrap().parts.len(), 0);
    assert_eq!(listing.segment(108).unwrap().offset_us(3), 600_000);
    assert_eq!(listing.segment(99), None);
    assert_eq!(read(&text(100, 110, (0, 0))).next(), (110, 0));
}

#[test]
fn dates_go_backwards_from_the_first_one_stated() {
    let listing = read(
        "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\na\n#EXTINF:1.5,\nb\n\
         #EXT-X-PROGRAM-DATE-TIME:2024-01-01T00:00:10.000Z\n#EXTINF:2,\nc\n#EXTINF:2,\nd\n",
    );
    let starts: Vec<_> = listing.segments.iter().map(|s| s.start_us.unwrap() % 60_000_000).collect();
    assert_eq!(starts, [6_500_000, 8_500_000, 10_000_000, 12_000_000]);
}

#[test]
fn delta_updates_that_do_not_fit_are_refused() {
    let base = read(&text(100, 110, (2, 0)));
    for (from, to, skipped, fits) in [
        (100, 110, 4, true),
        (103, 112, 5, true),
        (99, 110, 4, false),
        (105, 120, 8, false),
        (115, 120, 2, false),
    ] {
        let delta = read(&text(from, to, (3, skipped)));
        assert_eq!(delta.merged(&base).is_some(), fits, "{from} {to} {skipped}");
    }
}

proptest! {
    /// SK-02: what a delta update makes of any playlist before it is what a full reload would have got.
    #[test]
    fn a_merged_delta_is_the_full_playlist(start in 100u64..200, length in 8u64..40, ahead in 0u64..5,
                                           removed in 0u64..5, open in 0u64..4, skip in 1u64..40) {
        let base = read(&text(start, start + length, (2, 0)));
        let (from, to) = (start + removed, start + length + ahead);
        // What the client may have had open is not skipped.
        let skipped = skip.min(start + length - from);
        let full = read(&text(from, to, (open, 0)));
        let delta = read(&text(from, to, (open, skipped)));
        let merged = delta.merged(&base).unwrap();
        prop_assert_eq!(merged.next(), full.next());
        prop_assert_eq!(merged.segments.len(), full.segments.len());
        for (mine, theirs) in merged.segments.iter().zip(&full.segments) {
            prop_assert_eq!((mine.msn, &mine.uri, mine.start_us), (theirs.msn, &theirs.uri, theirs.start_us));
            prop_assert_eq!((mine.duration_us, &mine.init), (theirs.duration_us, &theirs.init));
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(tail in proptest::collection::vec(any::<u8>(), 0..400)) {
        let mut body = b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-PART:".to_vec();
        body.extend_from_slice(&tail);
        let _ = Listing::read(&body);
    }
}

#[test]
fn what_is_kept_is_bounded() {
    let mut text = String::from("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-PART-INF:PART-TARGET=0.2\n");
    for index in 0..20_000 {
        writeln!(text, "#EXT-X-PART:DURATION=0.2,URI=\"p{index}\"\n#EXTINF:0.2,\ns{index}").unwrap();
    }
    let listing = read(&text);
    assert!(listing.segments.len() <= MAX_SEGMENTS);
    assert!(listing.segments.iter().map(|s| s.parts.len()).sum::<usize>() <= MAX_UNITS + 1);
    assert_eq!(listing.next(), (20_000, 0));
}
