use super::*;
use sigma_http::config::parse;

#[test]
fn the_reference_file_is_right_and_states_the_defaults() {
    let reference: Config = parse(include_str!("../../../configs/origin.toml")).expect("valid");
    let minimal: Config = parse("data_dir = \"data\"").expect("valid");
    assert_eq!(format!("{:?}", reference.live), format!("{:?}", minimal.live));
    assert_eq!(format!("{:?}", reference.rtmp), format!("{:?}", minimal.rtmp));
    assert_eq!(format!("{:?}", reference.limits), format!("{:?}", minimal.limits));
    assert_eq!(format!("{:?}", reference.transcode), format!("{:?}", minimal.transcode));
    assert_eq!(format!("{:?}", reference.http), format!("{:?}", minimal.http));
    assert_eq!(format!("{:?}", reference.ops), format!("{:?}", minimal.ops));
    assert_eq!(format!("{:?}", reference.playback), format!("{:?}", minimal.playback));
    assert_eq!(format!("{:?}", reference.stats), format!("{:?}", minimal.stats));
    let source =
        reference.channels.iter().find_map(|channel| channel.source.clone()).expect("one has a source");
    assert_eq!(format!("{source:?}"), format!("{:?}", SourceConfig::default()));
}

#[test]
fn every_complaint_names_key_value_and_what_is_allowed() {
    let channel = "[[channels]]\nid = \"a\"\ntype = \"forward\"\nkey = \"12345678\"\n";
    for (file, key) in [
        ("[live]\nsegment_ms = 10", "live.segment_ms"),
        ("[live]\npart_target_ms = 0", "live.part_target_ms"),
        ("[rtmp]\napp = \"\"", "rtmp.app"),
        ("[rtmp]\nbind = [\"0.0.0.0:7071\"]", "rtmp.bind"),
        ("[stats]\nshields = [\"pop-1\", \"POP 2\"]", "stats.shields"),
        ("[stats]\ndatabase = \"mysql://\"", "stats.database"),
        ("[[profiles]]\nid = \"audio\"\nheight = 360\nbitrate_bps = 500000", "profiles[0].id"),
        ("[[profiles]]\nid = \"a\"\nheight = 3\nbitrate_bps = 500000", "profiles[0].height"),
        (
            "[[profiles]]\nid = \"a\"\nheight = 360\nbitrate_bps = 500000\npreset = \"slow;\"",
            "profiles[0].preset",
        ),
        (&channel.replace("\"a\"", "\"A B\""), "channels[0].id"),
        (&channel.replace("12345678", "short"), "channels[0].key"),
        (&channel.replace("forward", "transcode"), "channels[0].profiles"),
        (&format!("{channel}profiles = [\"nope\"]"), "channels[0].profiles"),
        (&format!("{channel}{channel}"), "channels[1].id"),
        ("[playback]\nsession_max_s = 60", "playback.session_max_s"),
        ("[playback]\nsession_max_s = 2678400\nsession_key_rotation_s = 3600", "playback.session_max_s"),
        ("[[playback.keys]]\nkid = \"\"\nalg = \"HS256\"\nfile = \"f\"", "playback.keys[0].kid"),
    ] {
        let complaints = parse::<Config>(&format!("data_dir = \"d\"\n{file}")).expect_err(file);
        let found = complaints.iter().find(|complaint| complaint.problem.key == key);
        let found = found.unwrap_or_else(|| panic!("{key} not in {complaints:?}"));
        assert!(!found.problem.allowed.is_empty());
    }
    assert!(parse::<Config>("data_dir = \"d\"\nunknown = 1").is_err());
}

#[test]
fn a_stream_key_is_never_repeated() {
    let file = "data_dir = \"d\"\n[[channels]]\nid = \"a\"\ntype = \"forward\"\nkey = \"se cret\"";
    let complaints = parse::<Config>(file).expect_err("a space");
    assert!(!format!("{complaints:?}").contains("se cret"));
}
