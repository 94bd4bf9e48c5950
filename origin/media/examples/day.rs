//! Simulates a day of a publisher whose clock has milliseconds only, and says how far the first samples of audio and video
//! of a segment were apart at most (MP-12), and whether the timeline had gaps (MP-04).
//!
//! `cargo run --release -p sigma-media --example day -- [HOURS]`

#![expect(clippy::print_stdout, reason = "it prints what it measured")]

use bytes::Bytes;
use mp4_atom::{DecodeMaybe, Moof};
use sigma_media::codec::{AacConfig, AccessUnit, AvcConfig};
use sigma_media::snapshot::RenditionSnapshot;
use sigma_media::stream::{ChannelKind, Stream, StreamSetup};
use std::collections::HashMap;
use std::sync::Arc;

const START_MS: u64 = 1_795_333_200_700;
/// 1280x720, 30 frames per second.
const AVCC: &[u8] = &[
    0x01, 0x4d, 0x40, 0x1f, 0xff, 0xe1, 0x00, 0x17, 0x67, 0x4d, 0x40, 0x1f, 0xda, 0x01, 0x40, 0x16, 0xec,
    0x04, 0x40, 0x00, 0x00, 0x03, 0x00, 0x40, 0x00, 0x00, 0x0f, 0x23, 0xc6, 0x0c, 0xa8, 0x01, 0x00, 0x04,
    0x68, 0xef, 0x0f, 0xc8,
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let hours = std::env::args().nth(1).map_or(Ok(24), |arg| arg.parse::<u64>())?;
    let mut stream = Stream::new(StreamSetup {
        kind: ChannelKind::Forward,
        segment_ms: 2000,
        part_target_ms: 334,
        window_ms: 60_000,
        dvr_ms: 0,
        window_bytes_max: 1 << 30,
        msn_min: 0,
        discontinuity_sequence: 0,
        rungs: Vec::new(),
        source_id: "source".parse()?,
        audio_id: "audio".parse()?,
    });
    stream.begin_publishing();
    stream.configure_video(AvcConfig::parse(AVCC)?, START_MS)?;
    stream.configure_audio(AacConfig::parse(Bytes::from_static(&[0x12, 0x10]))?, START_MS)?;
    let mut latest: HashMap<String, Arc<RenditionSnapshot>> = HashMap::new();
    let (mut audio, mut checked, mut worst_us, mut gaps) = (0u64, 0u64, 0i64, 0u64);
    let mut ends: HashMap<&str, i64> = HashMap::new();
    let mut newest = 0;
    for frame in 0..hours * 3600 * 30 {
        let media_us = frame * 1_000_000 / 30;
        let raw_ms = u32::try_from((media_us / 1000) & u64::from(u32::MAX))?;
        let now_ms = START_MS + media_us / 1000;
        let idr = frame.is_multiple_of(60);
        let data = Bytes::from_static(if idr { b"\0\0\0\x01\x65" } else { b"\0\0\0\x01\x41" });
        stream.push_video(raw_ms, 0, AccessUnit { data, idr }, now_ms)?;
        while audio * 1_024_000_000 / 44_100 <= media_us {
            let raw_ms = u32::try_from((audio * 1_024_000 / 44_100) & u64::from(u32::MAX))?;
            stream.push_audio(raw_ms, Bytes::from_static(b"aac"), now_ms)?;
            audio += 1;
        }
        for (id, snapshot) in stream.take_changes().renditions {
            latest.insert(id.to_string(), snapshot);
        }
        let (Some(video), Some(sound)) = (latest.get("source"), latest.get("audio")) else { continue };
        let msn = video.tip.complete_msn.min(sound.tip.complete_msn);
        if msn > newest {
            newest = msn;
            let [v, a] =
                [(video, 90_000, "source"), (sound, 44_100, "audio")].map(|(snapshot, scale, id)| {
                    let (start_us, end_us) = span_us(snapshot, msn, scale)?;
                    let continues = ends.insert(id, end_us).is_none_or(|end| (end - start_us).abs() <= 1);
                    gaps += u64::from(!continues);
                    Some(start_us)
                });
            if let (Some(v), Some(a)) = (v, a) {
                worst_us = worst_us.max((a - v).abs());
                checked += 1;
            }
        }
    }
    println!("{hours} h: {checked} segments, audio and video at most {worst_us} us apart at their starts");
    println!(
        "one audio frame is {} us; {gaps} segments did not start where the one before ended",
        1_024_000_000 / 44_100
    );
    Ok(())
}

/// Where a segment starts and ends, microseconds.
fn span_us(snapshot: &RenditionSnapshot, msn: u64, scale: i64) -> Option<(i64, i64)> {
    let segment = snapshot.segment(msn)?;
    let moof = |bytes: &Bytes| Moof::decode_maybe(&mut std::io::Cursor::new(&bytes[..])).ok().flatten();
    let start = |moof: &Moof| i64::try_from(moof.traf.first()?.tfdt.as_ref()?.base_media_decode_time).ok();
    let (first, last) = (moof(&segment.parts.first()?.bytes)?, moof(&segment.parts.last()?.bytes)?);
    let run = last.traf.first()?.trun.first()?;
    let length: i64 = run.samples.iter().filter_map(|sample| sample.duration).map(i64::from).sum();
    let us = |ticks: i64| i64::try_from(i128::from(ticks) * 1_000_000 / i128::from(scale)).ok();
    Some((us(start(&first)?)?, us(start(&last)? + length)?))
}
