use proptest::prelude::*;

use super::*;

fn payload() -> impl Strategy<Value = Bytes> {
    proptest::collection::vec(any::<u8>(), 0..200).prop_map(Bytes::from)
}

fn rational() -> impl Strategy<Value = Rational> {
    (any::<u32>(), any::<u32>()).prop_map(|(num, den)| Rational { num, den })
}

fn job() -> impl Strategy<Value = Job> {
    let rung = ("[a-z0-9]{0,8}", any::<[u32; 4]>(), "[a-z]{0,9}").prop_map(|(id, n, preset)| Rung {
        id,
        width: n[0],
        height: n[1],
        bitrate_bps: n[2],
        max_frame_rate: n[3],
        preset,
    });
    let audio = (proptest::collection::vec(any::<u8>(), 0..8), any::<[u32; 3]>())
        .prop_map(|(asc, n)| AudioJob { asc, bitrate_bps: n[0], sample_rate: n[1], channels: n[2] });
    let video = (proptest::collection::vec(any::<u8>(), 0..40), any::<[u32; 2]>(), rational())
        .prop_map(|(avcc, n, frame_rate)| VideoInput { avcc, width: n[0], height: n[1], frame_rate });
    let rungs = proptest::collection::vec(rung, 0..4);
    let transcode = (video, proptest::option::of(audio), rungs, any::<u32>()).prop_map(
        |(video, audio, rungs, threads)| Job::Transcode(TranscodeJob { video, audio, rungs, threads }),
    );
    let source = (any::<[u32; 5]>(), rational(), "\\PC{0,20}", any::<bool>()).prop_map(
        |(n, frame_rate, label, rt)| {
            Job::TestSource(TestSourceJob {
                width: n[0],
                height: n[1],
                frame_rate,
                video_bitrate_bps: n[2],
                audio_bitrate_bps: n[3],
                gop_frames: n[4],
                preset: "superfast".into(),
                label,
                real_time: rt,
            })
        },
    );
    prop_oneof![transcode, source]
}

fn to_worker() -> impl Strategy<Value = ToWorker> {
    prop_oneof![
        job().prop_map(|job| ToWorker::Start(Box::new(job))),
        (any::<i64>(), any::<i64>(), any::<bool>(), any::<bool>(), payload()).prop_map(
            |(dts, pts, sync, segment_start, payload)| {
                ToWorker::Video(VideoSample { dts, pts, sync, segment_start, payload })
            }
        ),
        (any::<i64>(), payload()).prop_map(|(pts, payload)| ToWorker::Audio(AudioFrame { pts, payload })),
        Just(ToWorker::Flush),
    ]
}

fn from_worker() -> impl Strategy<Value = FromWorker> {
    prop_oneof![
        (any::<u16>(), any::<u32>(), any::<u32>(), rational(), payload()).prop_map(
            |(track, width, height, frame_rate, avcc)| {
                FromWorker::VideoConfig(VideoConfig { track, width, height, frame_rate, avcc })
            }
        ),
        payload().prop_map(FromWorker::AudioConfig),
        (any::<u16>(), any::<i64>(), any::<i64>(), any::<bool>(), any::<bool>(), payload()).prop_map(
            |(track, dts, pts, sync, segment_start, payload)| {
                FromWorker::Video(VideoFrame { track, dts, pts, sync, segment_start, payload })
            }
        ),
        (any::<i64>(), payload()).prop_map(|(pts, payload)| FromWorker::Audio(AudioFrame { pts, payload })),
        any::<[u64; 5]>().prop_map(|n| FromWorker::Flushed(Totals {
            video_in: n[0],
            video_pictures: n[1],
            video_dropped: n[2],
            audio_in: n[3],
            audio_dropped: n[4],
        })),
    ]
}

fn round_trip<M: Message + PartialEq + std::fmt::Debug>(messages: &[M], chunk: usize) {
    let mut wire = Vec::new();
    for message in messages {
        message.encode(&mut wire).unwrap();
    }
    let mut reader = FrameReader::<M>::new();
    let mut seen = Vec::new();
    for bytes in wire.chunks(chunk) {
        reader.push(bytes);
        while let Some(message) = reader.pull().unwrap() {
            seen.push(message);
        }
    }
    assert_eq!(seen, messages);
    assert!(reader.is_empty());
}

fn survive<M: Message>(bytes: &[u8], chunk: usize) {
    let mut reader = FrameReader::<M>::new();
    for piece in bytes.chunks(chunk) {
        reader.push(piece);
        loop {
            match reader.pull() {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(reader.pull().err(), Some(error));
                    return;
                }
            }
        }
    }
}

proptest! {
    #[test]
    fn every_parent_message_survives_any_cutting(
        messages in proptest::collection::vec(to_worker(), 0..6), chunk in 1usize..300
    ) {
        round_trip(&messages, chunk);
    }

    #[test]
    fn every_child_message_survives_any_cutting(
        messages in proptest::collection::vec(from_worker(), 0..6), chunk in 1usize..300
    ) {
        round_trip(&messages, chunk);
    }

    #[test]
    fn garbage_is_an_error_or_a_message_never_a_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..600), chunk in 1usize..50
    ) {
        survive::<ToWorker>(&bytes, chunk);
        survive::<FromWorker>(&bytes, chunk);
    }

    #[test]
    fn a_flipped_byte_is_never_a_panic(
        messages in proptest::collection::vec(to_worker(), 1..4), at in any::<usize>(), with in 1u8..
    ) {
        let mut wire = Vec::new();
        for message in &messages {
            message.encode(&mut wire).unwrap();
        }
        let at = at % wire.len();
        wire[at] ^= with;
        survive::<ToWorker>(&wire, 17);
    }
}

#[test]
fn a_length_beyond_the_bound_is_refused_before_it_is_buffered() {
    let mut reader = FrameReader::<ToWorker>::new();
    reader.push(&[0x01, 0x00, 0x00, 0x01]);
    assert_eq!(reader.pull(), Err(ProtocolError::TooLong(MESSAGE_BYTES_MAX + 1)));
}

#[test]
fn a_message_beyond_the_bound_is_not_written() {
    let frame = AudioFrame { pts: 0, payload: vec![0; MESSAGE_BYTES_MAX].into() };
    let mut out = vec![7];
    assert!(matches!(ToWorker::Audio(frame).encode(&mut out), Err(ProtocolError::TooLong(_))));
    assert_eq!(out, [7]);
}

#[test]
fn a_message_of_the_other_direction_is_refused() {
    let mut wire = Vec::new();
    FromWorker::Flushed(Totals::default()).encode(&mut wire).unwrap();
    let mut reader = FrameReader::<ToWorker>::new();
    reader.push(&wire);
    assert_eq!(reader.pull(), Err(ProtocolError::Kind(FLUSHED)));
}
