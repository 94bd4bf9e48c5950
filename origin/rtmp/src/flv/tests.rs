use bytes::BytesMut;
use proptest::prelude::*;

use super::*;

fn video(bytes: &'static [u8]) -> Result<VideoTag, FlvError> {
    VideoTag::parse(Bytes::from_static(bytes))
}

fn audio(bytes: &'static [u8]) -> Result<AudioTag, FlvError> {
    AudioTag::parse(Bytes::from_static(bytes))
}

fn unsupported<T>(name: &str) -> Result<T, FlvError> {
    Err(FlvError::unsupported(name))
}

fn nal_units(composition_time_ms: i32, keyframe: bool, data: &'static [u8]) -> VideoTag {
    VideoTag::AvcNalUnits { composition_time_ms, keyframe, data: Bytes::from_static(data) }
}

#[test]
fn video_tags() {
    let header = VideoTag::AvcSequenceHeader(Bytes::from_static(b"avcC"));
    let cases: [(&[u8], Result<VideoTag, FlvError>); 24] = [
        (b"\x17\x00\x00\x00\x00avcC", Ok(header.clone())),
        (b"\x17\x01\x00\x00\x42nal", Ok(nal_units(66, true, b"nal"))),
        (b"\x27\x01\xFF\xFF\xFFnal", Ok(nal_units(-1, false, b"nal"))),
        (b"\x37\x01\x80\x00\x00nal", Ok(nal_units(-0x80_0000, false, b"nal"))),
        (b"\x47\x01\x00\x00\x00nal", Ok(nal_units(0, true, b"nal"))),
        (b"\x17\x02\x00\x00\x00", Ok(VideoTag::AvcEndOfSequence)),
        (b"\x17\x02", Ok(VideoTag::AvcEndOfSequence)),
        (b"\x57\x00", Ok(VideoTag::CommandFrame)),
        (b"\x90avc1avcC", Ok(header)),
        (b"\x91avc1\x00\x00\x42nal", Ok(nal_units(66, true, b"nal"))),
        (b"\xA3avc1nal", Ok(nal_units(0, false, b"nal"))),
        (b"\x92avc1", Ok(VideoTag::AvcEndOfSequence)),
        (b"\x94avc1meta", Ok(VideoTag::CommandFrame)),
        (b"\x97\x02abc\x13avc1nal", Ok(nal_units(0, true, b"nal"))),
        (b"", Err(FlvError::Truncated)),
        (b"\x17", Err(FlvError::Truncated)),
        (b"\x17\x01\x00\x00", Err(FlvError::Truncated)),
        (b"\x90avc", Err(FlvError::Truncated)),
        (b"\x97\xFF\xFF\xFFab", Err(FlvError::Truncated)),
        (b"\x17\x03\x00\x00\x00", Err(FlvError::UnknownPacketType { packet_type: 3 })),
        (b"\x1C\x00\x00\x00\x00", unsupported("HEVC (H.265)")),
        (b"\x90hvc1", unsupported("HEVC (H.265)")),
        (b"\x91av01", unsupported("AV1")),
        (b"\x96\x10avc1", unsupported("multitrack")),
    ];
    for (bytes, expected) in cases {
        assert_eq!(video(bytes), expected, "{}", bytes.escape_ascii());
    }
}

#[test]
fn audio_tags() {
    let header = AudioTag::AacSequenceHeader(Bytes::from_static(b"\x11\x90"));
    let raw = AudioTag::AacRaw(Bytes::from_static(b"raw"));
    let cases: [(&[u8], Result<AudioTag, FlvError>); 16] = [
        (b"\xAF\x00\x11\x90", Ok(header.clone())),
        (b"\xAF\x01raw", Ok(raw.clone())),
        (b"\xAE\x01", Ok(AudioTag::AacRaw(Bytes::new()))),
        (b"\x90mp4a\x11\x90", Ok(header)),
        (b"\x91mp4araw", Ok(raw)),
        (b"\x92mp4a", Ok(AudioTag::AacEndOfSequence)),
        (b"\x94mp4a\x01\x02", Ok(AudioTag::ChannelLayout)),
        (b"", Err(FlvError::Truncated)),
        (b"\xAF", Err(FlvError::Truncated)),
        (b"\xAF\x02", Err(FlvError::UnknownPacketType { packet_type: 2 })),
        (b"\x2F\xFF", unsupported("MP3")),
        (b"\xB2", unsupported("Speex")),
        (b"\x90Opus", unsupported("Opus")),
        (b"\x91fLaC", unsupported("FLAC")),
        (b"\x91\x00ab\xFF", unsupported("\\x00ab\\xff")),
        (b"\x95\x00mp4a", unsupported("multitrack")),
    ];
    for (bytes, expected) in cases {
        assert_eq!(audio(bytes), expected, "{}", bytes.escape_ascii());
    }
}

#[test]
fn what_is_written_is_read() {
    let data = Bytes::from_static(b"xyz");
    for tag in [
        VideoTag::AvcSequenceHeader(data.clone()),
        nal_units(-40, false, b"nal"),
        nal_units(0x7F_FFFF, true, b""),
        VideoTag::AvcEndOfSequence,
        VideoTag::CommandFrame,
    ] {
        assert_eq!(VideoTag::parse(tag.to_payload()), Ok(tag));
    }
    for tag in [
        AudioTag::AacSequenceHeader(data.clone()),
        AudioTag::AacRaw(data),
        AudioTag::AacEndOfSequence,
        AudioTag::ChannelLayout,
    ] {
        assert_eq!(AudioTag::parse(tag.to_payload()), Ok(tag));
    }
}

fn read_all(reader: &mut FlvReader) -> Result<Vec<FlvTag>, FlvError> {
    let mut tags = Vec::new();
    while let Some(tag) = reader.next_tag()? {
        tags.push(tag);
    }
    Ok(tags)
}

fn file(tags: &[FlvTag]) -> BytesMut {
    let mut out = BytesMut::new();
    write_file_header(true, true, &mut out);
    tags.iter().for_each(|tag| write_tag(tag, &mut out).unwrap());
    out
}

#[test]
fn a_tag_is_read_with_its_last_payload_byte() {
    let tag =
        FlvTag { timestamp_ms: 0x0102_0304, kind: TagKind::Video, payload: Bytes::from_static(b"payload") };
    let bytes = file(std::slice::from_ref(&tag));
    assert_eq!(&bytes[..13], b"FLV\x01\x05\0\0\0\x09\0\0\0\0");
    assert_eq!(&bytes[13..24], &[9, 0, 0, 7, 2, 3, 4, 1, 0, 0, 0]);
    assert_eq!(&bytes[31..], &[0, 0, 0, 18]);
    let mut reader = FlvReader::new(100);
    reader.push(&bytes[..30]);
    assert_eq!(reader.next_tag(), Ok(None));
    reader.push(&bytes[30..31]);
    assert_eq!(reader.next_tag(), Ok(Some(tag)));
}

#[test]
fn what_is_no_flv_is_named() {
    let start = b"FLV\x01\x05\0\0\0\x09\0\0\0\0";
    let cases: [(Vec<u8>, FlvError); 6] = [
        (b"R".to_vec(), FlvError::NotFlv),
        (b"FLX".to_vec(), FlvError::NotFlv),
        (b"FLV\x01\x05\0\0\0\x08".to_vec(), FlvError::NotFlv),
        (
            [&start[..], &[9, 0, 0, 101, 0, 0, 0, 0, 0, 0, 0]].concat(),
            FlvError::BadTag { tag_type: 9, bytes: 101 },
        ),
        (
            [&start[..], &[0x29, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]].concat(),
            FlvError::BadTag { tag_type: 0x29, bytes: 1 },
        ),
        (
            [&start[..], &[7, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]].concat(),
            FlvError::BadTag { tag_type: 7, bytes: 1 },
        ),
    ];
    for (bytes, error) in cases {
        let mut reader = FlvReader::new(100);
        reader.push(&bytes);
        assert_eq!(reader.next_tag(), Err(error));
    }
    let long = FlvTag { timestamp_ms: 0, kind: TagKind::Audio, payload: vec![0; 1 << 24].into() };
    assert_eq!(write_tag(&long, &mut BytesMut::new()), Err(FlvError::BadTag { tag_type: 8, bytes: 1 << 24 }));
}

fn any_tags() -> impl Strategy<Value = Vec<FlvTag>> {
    let kind = prop::sample::select(vec![TagKind::Audio, TagKind::Video, TagKind::Script]);
    let payload = proptest::collection::vec(any::<u8>(), 0..40).prop_map(Bytes::from);
    let tag = (any::<u32>(), kind, payload);
    proptest::collection::vec(
        tag.prop_map(|(timestamp_ms, kind, payload)| FlvTag { timestamp_ms, kind, payload }),
        0..8,
    )
}

proptest! {
    #[test]
    fn a_file_is_read_in_any_pieces(tags in any_tags(), piece in 1usize..60) {
        let mut reader = FlvReader::new(100);
        let mut read = Vec::new();
        for piece in file(&tags).chunks(piece) {
            reader.push(piece);
            read.extend(read_all(&mut reader).unwrap());
        }
        prop_assert_eq!(read, tags);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..40), front in 0u8..255) {
        let _ = VideoTag::parse(Bytes::from([&[front | 0x80], &bytes[..]].concat()));
        let _ = AudioTag::parse(Bytes::from([&[0x90 | front & 0x0F], &bytes[..]].concat()));
        let _ = VideoTag::parse(Bytes::from(bytes.clone()));
        let _ = AudioTag::parse(Bytes::from(bytes.clone()));
        let mut reader = FlvReader::new(100);
        reader.push(b"FLV\x01\x05\0\0\0\x09\0\0\0\0");
        reader.push(&bytes);
        let _ = read_all(&mut reader);
    }
}
