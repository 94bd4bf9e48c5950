use super::*;

fn part(duration: u32, independent: bool) -> PartLine {
    PartLine { duration, independent, gap: false }
}

fn control() -> ServerControl {
    ServerControl { target_duration_s: 2, part_target_ms: 334, part_hold_back_ms: 1002 }
}

fn complete<'a>(msn: u64, parts: &'a [PartLine]) -> SegmentLines<'a> {
    SegmentLines {
        msn,
        duration: Some(180_000),
        discontinuity: false,
        gap: false,
        init: InitHash(0xabc),
        program_date_time_ms: 1_795_333_200_000 + (msn as i64 - 100) * 2000,
        parts,
    }
}

fn tip(open_parts: u32) -> Tip {
    Tip { complete_msn: 101, complete_parts: 6, open_parts, ended: false }
}

#[test]
fn golden_live() {
    let full = [part(30_000, true), part(30_000, false)];
    let open = [part(30_000, true)];
    let segments =
        [complete(100, &[]), complete(101, &full), SegmentLines { duration: None, ..complete(102, &open) }];
    let reports = [RenditionReport { uri: "../a/media.m3u8".into(), last_msn: 102, last_part: Some(0) }];
    let playlist = MediaPlaylist {
        control: control(),
        discontinuity_sequence: 3,
        segments: &segments,
        tip: tip(1),
        reports: &reports,
    };
    insta::assert_snapshot!(playlist, @r##"
    #EXTM3U
    #EXT-X-VERSION:6
    #EXT-X-TARGETDURATION:2
    #EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,HOLD-BACK=6.0,PART-HOLD-BACK=1.002
    #EXT-X-PART-INF:PART-TARGET=0.334
    #EXT-X-MEDIA-SEQUENCE:100
    #EXT-X-DISCONTINUITY-SEQUENCE:3
    #EXT-X-MAP:URI="init-0000000000000abc.mp4"
    #EXT-X-PROGRAM-DATE-TIME:2026-11-22T07:40:00.000Z
    #EXTINF:2.00000,
    100.m4s
    #EXT-X-PROGRAM-DATE-TIME:2026-11-22T07:40:02.000Z
    #EXT-X-PART:DURATION=0.33333,URI="101.0.m4s",INDEPENDENT=YES
    #EXT-X-PART:DURATION=0.33333,URI="101.1.m4s"
    #EXTINF:2.00000,
    101.m4s
    #EXT-X-PROGRAM-DATE-TIME:2026-11-22T07:40:04.000Z
    #EXT-X-PART:DURATION=0.33333,URI="102.0.m4s",INDEPENDENT=YES
    #EXT-X-PRELOAD-HINT:TYPE=PART,URI="102.1.m4s"
    #EXT-X-RENDITION-REPORT:URI="../a/media.m3u8",LAST-MSN=102,LAST-PART=0
    "##);
}

#[test]
fn golden_discontinuity_and_gap() {
    let segments = [
        complete(100, &[]),
        SegmentLines { gap: true, ..complete(101, &[]) },
        SegmentLines { discontinuity: true, init: InitHash(0xdef), ..complete(102, &[]) },
    ];
    let playlist = MediaPlaylist {
        control: control(),
        discontinuity_sequence: 0,
        segments: &segments,
        tip: Tip { complete_msn: 102, complete_parts: 6, open_parts: 0, ended: true },
        reports: &[],
    };
    insta::assert_snapshot!(playlist, @r##"
    #EXTM3U
    #EXT-X-VERSION:6
    #EXT-X-TARGETDURATION:2
    #EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,HOLD-BACK=6.0,PART-HOLD-BACK=1.002
    #EXT-X-PART-INF:PART-TARGET=0.334
    #EXT-X-MEDIA-SEQUENCE:100
    #EXT-X-DISCONTINUITY-SEQUENCE:0
    #EXT-X-MAP:URI="init-0000000000000abc.mp4"
    #EXT-X-PROGRAM-DATE-TIME:2026-11-22T07:40:00.000Z
    #EXTINF:2.00000,
    100.m4s
    #EXT-X-PROGRAM-DATE-TIME:2026-11-22T07:40:02.000Z
    #EXT-X-GAP
    #EXTINF:2.00000,
    101.m4s
    #EXT-X-DISCONTINUITY
    #EXT-X-MAP:URI="init-0000000000000def.mp4"
    #EXT-X-PROGRAM-DATE-TIME:2026-11-22T07:40:04.000Z
    #EXTINF:2.00000,
    102.m4s
    #EXT-X-ENDLIST
    "##);
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
