use super::*;
use proptest::prelude::*;

const LIVE: &str = "#EXTM3U\n#EXT-X-VERSION:6\n#EXT-X-TARGETDURATION:2\n\
    #EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,HOLD-BACK=6.0,PART-HOLD-BACK=1.002\n\
    #EXT-X-PART-INF:PART-TARGET=0.334\n#EXT-X-MEDIA-SEQUENCE:100\n#EXT-X-DISCONTINUITY-SEQUENCE:3\n\
    #EXT-X-MAP:URI=\"init.mp4\"\n#EXTINF:2.00000,\n100.m4s\n#EXT-X-DISCONTINUITY\n\
    #EXT-X-PROGRAM-DATE-TIME:2026-11-22T07:40:14.000Z\n\
    #EXT-X-PART:DURATION=0.33333,URI=\"101.0.m4s\",INDEPENDENT=YES\n#EXT-X-GAP\n#EXTINF:0.33333,\n101.m4s\n\
    #EXT-X-PART:DURATION=0.33333,URI=\"102.0.m4s\",GAP=YES\n#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"102.1.m4s\"\n";

#[test]
fn a_live_playlist() {
    let media = Media::read(LIVE.as_bytes());
    assert_eq!(media.sheet.flaws, []);
    assert_eq!((media.version, media.part_target), (Some(6), Some(Duration::from_millis(334))));
    assert!(media.can_block() && !media.ended && media.is_playlist());
    let list: Vec<_> =
        media.segments.iter().map(|s| (s.msn, s.dsn, s.gap, s.parts.len(), s.uri.is_some())).collect();
    assert_eq!(list, [(100, 3, false, 0, true), (101, 4, true, 1, true), (102, 4, false, 1, false)]);
    assert_eq!(media.next(), (102, 1));
    assert_eq!(media.newest().map(|s| s.msn), Some(101));
    assert_eq!(media.hint("PART").and_then(|h| h.list.get("URI")), Some("102.1.m4s"));
    assert!(media.hint("MAP").is_none());
    assert_eq!(media.segments[1].map.as_ref().map(|m| m.uri.as_str()), Some("init.mp4"));
    assert_eq!(media.length(), Duration::from_nanos(2_666_660_000));
}

#[test]
fn byte_ranges_go_on_where_the_last_one_ended() {
    let text = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-BYTERANGE:10@5\n#EXTINF:2,\na\n#EXT-X-BYTERANGE:7\n\
        #EXTINF:2,\na\n#EXT-X-PART:DURATION=1,URI=\"a\",BYTERANGE=\"3\"\n";
    let media = Media::read(text.as_bytes());
    let ranges: Vec<_> = media.segments.iter().filter_map(|segment| segment.range.as_deref()).collect();
    assert_eq!(ranges, ["10@5", "7@15"]);
    assert_eq!(media.segments[2].parts[0].range.as_deref(), Some("3@22"));
}

#[test]
fn a_delta_update_counts_what_it_skips() {
    let text = LIVE.replace(
        "#EXT-X-MAP:URI=\"init.mp4\"\n",
        "#EXT-X-SKIP:SKIPPED-SEGMENTS=7\n#EXT-X-MAP:URI=\"init.mp4\"\n",
    );
    let media = Media::read(text.as_bytes());
    assert_eq!(media.skipped, Some(7));
    assert_eq!(media.segments[0].msn, 107);
}

#[test]
fn flaws_of_syntax_have_their_rule_and_line() {
    for (from, to, rule, line) in [
        ("#EXTM3U\n", "#EXTM3U \n", Rule::Syn03, 1),
        ("#EXTM3U\n", "\u{feff}#EXTM3U\n", Rule::Syn02, 1),
        ("100.m4s", "100\t.m4s", Rule::Syn02, 10),
        ("100.m4s", "100.m4s ", Rule::Syn04, 10),
        ("100.m4s", "a\u{301}.m4s", Rule::Syn02, 10),
        ("HOLD-BACK=6.0,", "HOLD-BACK = 6.0,", Rule::Syn05, 4),
        ("PART-TARGET=0.334", "PART-TARGET=\"0.334\"", Rule::Syn05, 5),
        ("#EXTINF:2.00000,", "#EXTINF:2e0,", Rule::Syn05, 9),
        ("#EXT-X-VERSION:6\n", "#EXT-X-VERSION:6\n#EXT-X-VERSION:6\n", Rule::Syn06, 3),
        ("#EXTINF:0.33333", "#EXT-X-STREAM-INF:BANDWIDTH=1\n#EXTINF:0.33333", Rule::Syn07, 15),
        ("#EXT-X-GAP", "#EXT-X-MEDIA-SEQUENCE:100\n#EXT-X-GAP", Rule::Syn09, 14),
        ("#EXT-X-GAP", "#EXT-X-MAP:URI=\"x\"\n#EXT-X-GAP", Rule::Pt07, 14),
    ] {
        let media = Media::read(LIVE.replacen(from, to, 1).as_bytes());
        let found = media.sheet.flaws.iter().any(|f| f.rule == rule && f.line == line);
        assert!(found, "{to}: {:?}", media.sheet.flaws);
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read(tail in proptest::collection::vec(any::<u8>(), 0..400)) {
        let mut body = b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-PART:".to_vec();
        body.extend_from_slice(&tail);
        let _ = Media::read(&body);
    }
}
