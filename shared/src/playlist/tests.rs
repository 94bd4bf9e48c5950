use super::*;
use crate::daterange::Statement;

fn part(duration: u32, independent: bool) -> PartLine {
    PartLine { duration, independent, gap: false }
}

fn control() -> ServerControl {
    ServerControl { target_duration_s: 2, part_target_ms: 334, part_hold_back_ms: 1002 }
}

fn line(msn: u64) -> SegmentLine {
    SegmentLine {
        msn,
        duration: 180_000,
        discontinuity: false,
        gap: false,
        independent: true,
        init: InitHash(0xabc),
        program_date_time_ms: 1_795_333_200_000 + (msn as i64 - 100) * 2000,
    }
}

fn tip(open_parts: u32) -> Tip {
    Tip { complete_msn: 101, complete_parts: 6, open_parts, ended: false }
}

fn head(listed: Listed, mode: Mode) -> Head<'static> {
    Head { listed, mode, control: control(), media_sequence: 100, discontinuity_sequence: 3, skipped: None }
}

fn reports() -> [RenditionReport; 1] {
    [RenditionReport { rendition: "a".parse().unwrap(), tip: tip(1) }]
}

#[test]
fn golden_ultra() {
    let full = [part(30_000, true), part(30_000, false)];
    let mut text = head(Listed::Media, Mode::Ultra).to_string();
    let mut writer = SegmentWriter::new(Listed::Media, None);
    writer.segment(&mut text, &line(100), &[]);
    writer.segment(&mut text, &line(101), &full);
    writer.open(&mut text, &line(102), &full[..1]);
    let range =
        DateRange::new(Statement { id: "x".into(), start_ms: 1_795_333_201_000, ..Statement::default() });
    let foot = Foot {
        listed: Listed::Media,
        mode: Mode::Ultra,
        tip: tip(1),
        next_init: Some(InitHash(0xdef)),
        dateranges: &[&range.unwrap()],
        reports: &reports(),
    };
    text.push_str(&foot.to_string());
    insta::assert_snapshot!(text, @r##"
    #EXTM3U
    #EXT-X-VERSION:6
    #EXT-X-TARGETDURATION:2
    #EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,CAN-SKIP-UNTIL=12.0,CAN-SKIP-DATERANGES=YES,HOLD-BACK=6.0,PART-HOLD-BACK=1.002
    #EXT-X-PART-INF:PART-TARGET=0.334
    #EXT-X-MEDIA-SEQUENCE:100
    #EXT-X-DISCONTINUITY-SEQUENCE:3
    #EXT-X-MAP:URI="init-0000000000000abc.mp4"
    #EXT-X-PROGRAM-DATE-TIME:2026-11-22T07:40:00.000Z
    #EXTINF:2.00000,
    100.m4s
    #EXT-X-PART:DURATION=0.33333,URI="101.0.m4s",INDEPENDENT=YES
    #EXT-X-PART:DURATION=0.33333,URI="101.1.m4s"
    #EXTINF:2.00000,
    101.m4s
    #EXT-X-PART:DURATION=0.33333,URI="102.0.m4s",INDEPENDENT=YES
    #EXT-X-DATERANGE:ID="x",START-DATE="2026-11-22T07:40:01.000Z"
    #EXT-X-PRELOAD-HINT:TYPE=MAP,URI="init-0000000000000def.mp4"
    #EXT-X-PRELOAD-HINT:TYPE=PART,URI="102.1.m4s"
    #EXT-X-RENDITION-REPORT:URI="../a/media.m3u8",LAST-MSN=102,LAST-PART=0
    "##);
}

#[test]
fn golden_low_has_whole_segments_only() {
    let mut text = head(Listed::Media, Mode::Low).to_string();
    SegmentWriter::new(Listed::Media, None).segment(&mut text, &line(101), &[]);
    let foot = Foot {
        listed: Listed::Media,
        mode: Mode::Low,
        tip: tip(1),
        next_init: None,
        dateranges: &[],
        reports: &reports(),
    };
    text.push_str(&foot.to_string());
    insta::assert_snapshot!(text, @r##"
    #EXTM3U
    #EXT-X-VERSION:6
    #EXT-X-TARGETDURATION:2
    #EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,CAN-SKIP-UNTIL=12.0,CAN-SKIP-DATERANGES=YES,HOLD-BACK=8.0
    #EXT-X-MEDIA-SEQUENCE:100
    #EXT-X-DISCONTINUITY-SEQUENCE:3
    #EXT-X-MAP:URI="init-0000000000000abc.mp4"
    #EXT-X-PROGRAM-DATE-TIME:2026-11-22T07:40:02.000Z
    #EXTINF:2.00000,
    101.m4s
    #EXT-X-RENDITION-REPORT:URI="../a/low.m3u8",LAST-MSN=101
    "##);
}

#[test]
fn golden_iframes() {
    let mut text = head(Listed::IFrames, Mode::Ultra).to_string();
    let mut writer = SegmentWriter::new(Listed::IFrames, None);
    writer.segment(&mut text, &line(100), &[]);
    writer.segment(&mut text, &SegmentLine { independent: false, ..line(101) }, &[]);
    insta::assert_snapshot!(text, @r##"
    #EXTM3U
    #EXT-X-VERSION:5
    #EXT-X-TARGETDURATION:2
    #EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,CAN-SKIP-UNTIL=12.0,CAN-SKIP-DATERANGES=YES,HOLD-BACK=6.0,PART-HOLD-BACK=1.002
    #EXT-X-I-FRAMES-ONLY
    #EXT-X-MEDIA-SEQUENCE:100
    #EXT-X-DISCONTINUITY-SEQUENCE:3
    #EXT-X-MAP:URI="init-0000000000000abc.mp4"
    #EXT-X-PROGRAM-DATE-TIME:2026-11-22T07:40:00.000Z
    #EXTINF:2.00000,
    100.i.m4s
    #EXT-X-GAP
    #EXTINF:2.00000,
    101.i.m4s
    "##);
}

#[test]
fn golden_discontinuity_and_gap() {
    let mut text = String::new();
    let mut writer = SegmentWriter::new(Listed::Media, Some(line(100)));
    for line in [
        SegmentLine { gap: true, ..line(101) },
        SegmentLine { discontinuity: true, init: InitHash(0xdef), ..line(102) },
        SegmentLine { init: InitHash(0xdef), ..line(103) },
    ] {
        writer.segment(&mut text, &line, &[]);
    }
    let foot = Foot {
        listed: Listed::Media,
        mode: Mode::Ultra,
        tip: Tip { ended: true, ..tip(0) },
        next_init: None,
        dateranges: &[],
        reports: &reports(),
    };
    text.push_str(&foot.to_string());
    insta::assert_snapshot!(text, @r##"
    #EXT-X-PROGRAM-DATE-TIME:2026-11-22T07:40:02.000Z
    #EXT-X-GAP
    #EXTINF:2.00000,
    101.m4s
    #EXT-X-DISCONTINUITY
    #EXT-X-MAP:URI="init-0000000000000def.mp4"
    #EXT-X-PROGRAM-DATE-TIME:2026-11-22T07:40:04.000Z
    #EXTINF:2.00000,
    102.m4s
    #EXTINF:2.00000,
    103.m4s
    #EXT-X-ENDLIST
    "##);
}

#[test]
fn golden_skip() {
    let removed = ["a".to_owned(), "b".to_owned()];
    let of = |removed_dateranges| {
        let skipped = Some(Skipped { segments: 40, removed_dateranges });
        Head { skipped, ..head(Listed::Media, Mode::Ultra) }.to_string()
    };
    insta::assert_snapshot!(of(None), @r##"
    #EXTM3U
    #EXT-X-VERSION:9
    #EXT-X-TARGETDURATION:2
    #EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,CAN-SKIP-UNTIL=12.0,CAN-SKIP-DATERANGES=YES,HOLD-BACK=6.0,PART-HOLD-BACK=1.002
    #EXT-X-PART-INF:PART-TARGET=0.334
    #EXT-X-MEDIA-SEQUENCE:100
    #EXT-X-DISCONTINUITY-SEQUENCE:3
    #EXT-X-SKIP:SKIPPED-SEGMENTS=40
    "##);
    assert!(of(Some(&removed)).contains(":SKIPPED-SEGMENTS=40,RECENTLY-REMOVED-DATERANGES=\"a\tb\"\n"));
    let none = of(Some(&[]));
    assert!(none.contains("#EXT-X-VERSION:10\n"), "SK-06: {none}");
    assert!(none.contains(",RECENTLY-REMOVED-DATERANGES=\"\"\n"), "SK-04: {none}");
}

#[test]
fn sc_01_sc_03_hold_backs() {
    for target_duration_s in 1..12 {
        let control = ServerControl { target_duration_s, ..control() };
        assert!(control.skip_until_s() >= 6 * target_duration_s);
        for mode in Mode::ALL {
            assert!(control.hold_back_s(mode) >= 3 * target_duration_s, "{mode}");
        }
    }
}

#[test]
fn dates() {
    for (ms, text) in [
        (0, "1970-01-01T00:00:00.000Z"),
        (951_782_400_000, "2000-02-29T00:00:00.000Z"),
        (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
        (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
    ] {
        assert_eq!(DateTime(ms).to_string(), text);
    }
}

#[test]
fn pt_03_seconds_are_rounded_down() {
    for (ticks, text) in [(30_000, "0.33333"), (18_000, "0.20000"), (180_180, "2.00200"), (1, "0.00001")] {
        assert_eq!(Seconds(ticks, 5).to_string(), text);
    }
}
