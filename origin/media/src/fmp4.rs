//! CMAF fragmented MP4 (ISO/IEC 14496-12, 23000-19): Media Initialization Sections and parts of one track.
//!
//! Invariants: a part is one `moof` and one `mdat`, which `emsg` may precede (MP-07), so the concatenation of a segment's parts is the
//! segment, byte for byte (MP-06); addressing is relative to the `moof` (MP-03); the same input is the same bytes.
//! Deliberately absent: `styp` and `prft`.

use crate::codec::{AacConfig, AvcConfig};
use bytes::Bytes;
use mp4_atom::esds::{DecoderConfig, DecoderSpecific, EsDescriptor, Esds, SLConfig};
use mp4_atom::{
    Audio, Avc1, Codec, DecodeMaybe, Dinf, Dref, DrefEntry, Encode, FixedPoint, FourCC, Ftyp, Hdlr, Mdhd,
    Mdia, Mfhd, Minf, Moof, Moov, Mp4a, Mvex, Mvhd, Smhd, Stbl, Stco, Stsd, Tfdt, Tfhd, Tkhd, Traf, Trak,
    Trex, Trun, TrunEntry, TrunSamples, Url, Visual, Vmhd,
};

/// Every rendition has one track.
const TRACK_ID: u32 = 1;
/// A sample that depends on no other (MP-09).
const FLAGS_SYNC: u32 = 0x0200_0000;
/// A sample that depends on others and is no random access point.
const FLAGS_NON_SYNC: u32 = 0x0101_0000;

/// A track's codec configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrackConfig {
    /// H.264 video; timescale 90,000.
    Video(AvcConfig),
    /// AAC audio; timescale is the sample rate.
    Audio(AacConfig),
}

impl TrackConfig {
    /// Ticks per second of the track.
    #[must_use]
    pub fn timescale(&self) -> u32 {
        match self {
            Self::Video(_) => 90_000,
            Self::Audio(aac) => aac.sample_rate,
        }
    }

    /// RFC 6381 codec string.
    #[must_use]
    pub fn codec_string(&self) -> String {
        match self {
            Self::Video(avc) => avc.codec_string(),
            Self::Audio(aac) => aac.codec_string(),
        }
    }
}

/// One sample of a part, in ticks of the track's timescale.
#[derive(Debug, Clone)]
pub struct FragmentSample {
    /// Duration.
    pub duration: u32,
    /// Presentation minus decoding time.
    pub composition_offset: i32,
    /// It is a random access point.
    pub sync: bool,
    /// One access unit.
    pub data: Bytes,
}

/// A box could not be written: a bug, not something that input can cause.
#[derive(Debug, thiserror::Error)]
#[error("writing MP4 boxes failed: {0}")]
pub struct Fmp4Error(String);

impl From<mp4_atom::Error> for Fmp4Error {
    fn from(error: mp4_atom::Error) -> Self {
        Self(format!("{error:?}"))
    }
}

/// Writes the Media Initialization Section of a track (MP-02).
///
/// # Errors
/// Only when the box writer has a bug.
pub fn init_section(config: &TrackConfig) -> Result<Bytes, Fmp4Error> {
    let mut out = Vec::with_capacity(1024);
    Ftyp {
        major_brand: FourCC::new(b"iso6"),
        minor_version: 0,
        compatible_brands: [b"iso6", b"cmfc", b"mp41"].map(FourCC::new).to_vec(),
    }
    .encode(&mut out)?;
    let trex = Trex {
        track_id: TRACK_ID,
        default_sample_description_index: 1,
        default_sample_duration: 0,
        default_sample_size: 0,
        default_sample_flags: 0,
    };
    Moov {
        mvhd: Mvhd {
            timescale: config.timescale(),
            next_track_id: TRACK_ID + 1,
            rate: 1.into(),
            ..Mvhd::default()
        },
        mvex: Some(Mvex { mehd: None, trex: vec![trex] }),
        trak: vec![track(config)],
        ..Moov::default()
    }
    .encode(&mut out)?;
    Ok(out.into())
}

fn track(config: &TrackConfig) -> Trak {
    let (tkhd, handler, name) = match config {
        TrackConfig::Video(avc) => {
            let tkhd = Tkhd {
                width: pixels(avc.width).into(),
                height: pixels(avc.height).into(),
                ..Tkhd::default()
            };
            (tkhd, b"vide", "video")
        }
        TrackConfig::Audio(_) => {
            (Tkhd { volume: 1.into(), alternate_group: 1, ..Tkhd::default() }, b"soun", "audio")
        }
    };
    let stbl = Stbl {
        stsd: Stsd { codecs: vec![sample_entry(config)] },
        stco: Some(Stco::default()),
        ..Stbl::default()
    };
    let is_video = matches!(config, TrackConfig::Video(_));
    Trak {
        tkhd: Tkhd { track_id: TRACK_ID, enabled: true, in_movie: true, ..tkhd },
        mdia: Mdia {
            mdhd: Mdhd { timescale: config.timescale(), language: "und".into(), ..Mdhd::default() },
            hdlr: Hdlr { handler: FourCC::new(handler), name: name.into() },
            minf: Minf {
                vmhd: is_video.then(Vmhd::default),
                smhd: (!is_video).then(Smhd::default),
                dinf: Dinf { dref: Dref { entries: vec![DrefEntry::Url(Url::default())] } },
                stbl,
                ..Minf::default()
            },
        },
        ..Trak::default()
    }
}

fn sample_entry(config: &TrackConfig) -> Codec {
    match config {
        TrackConfig::Video(avc) => Codec::Avc1(Avc1 {
            visual: Visual {
                data_reference_index: 1,
                width: pixels(avc.width),
                height: pixels(avc.height),
                ..Visual::default()
            },
            avcc: avc.avcc.clone(),
            ..Avc1::default()
        }),
        TrackConfig::Audio(aac) => Codec::Mp4a(Mp4a {
            audio: Audio {
                data_reference_index: 1,
                channel_count: u16::from(aac.channels),
                sample_size: 16,
                // A 16.16 number: higher rates are stated by the AudioSpecificConfig alone.
                sample_rate: FixedPoint::new(u16::try_from(aac.sample_rate).unwrap_or(0), 0),
            },
            esds: Esds { es_desc: es_descriptor(aac) },
            btrt: None,
            taic: None,
        }),
    }
}

fn es_descriptor(aac: &AacConfig) -> EsDescriptor {
    EsDescriptor {
        es_id: 0,
        depends_on_es_id: None,
        url: None,
        ocr_es_id: None,
        stream_priority: 0,
        dec_config: DecoderConfig {
            object_type_indication: 0x40, // ISO/IEC 14496-3 audio
            stream_type: 5,               // audio stream
            up_stream: 0,
            dec_specific: Some(DecoderSpecific {
                profile: aac.object_type,
                freq_index: aac.frequency_index(),
                chan_conf: aac.channels,
                raw: aac.asc.to_vec(),
            }),
            ..DecoderConfig::default()
        },
        sl_config: SLConfig::default(),
    }
}

fn pixels(value: u32) -> u16 {
    u16::try_from(value).unwrap_or(u16::MAX)
}

/// What an init section of ours says of its track; `None` for any other.
#[must_use]
pub fn track_config(init: &[u8]) -> Option<TrackConfig> {
    let mut cursor = std::io::Cursor::new(init);
    Ftyp::decode_maybe(&mut cursor).ok()??;
    let moov = Moov::decode_maybe(&mut cursor).ok()??;
    match moov.trak.first()?.mdia.minf.stbl.stsd.codecs.first()? {
        Codec::Avc1(avc1) => {
            let mut record = Vec::new();
            avc1.avcc.encode(&mut record).ok()?;
            // Without the box's own header.
            AvcConfig::parse(record.get(8..)?).ok().map(TrackConfig::Video)
        }
        Codec::Mp4a(mp4a) => {
            let specific = mp4a.esds.es_desc.dec_config.dec_specific.as_ref()?;
            AacConfig::parse(Bytes::copy_from_slice(&specific.raw)).ok().map(TrackConfig::Audio)
        }
        _ => None,
    }
}

/// Writes one part: `samples` from `decode_time` on, in ticks of the track's timescale since the epoch.
///
/// # Errors
/// Only when the box writer has a bug.
pub fn part(sequence_number: u32, decode_time: u64, samples: &[FragmentSample]) -> Result<Bytes, Fmp4Error> {
    let mut moof = Moof {
        mfhd: Mfhd { sequence_number },
        traf: vec![Traf {
            tfhd: Tfhd { track_id: TRACK_ID, default_base_is_moof: true, ..Tfhd::default() },
            tfdt: Some(Tfdt { base_media_decode_time: decode_time }),
            trun: vec![Trun { data_offset: Some(0), samples: run(samples) }],
            ..Traf::default()
        }],
    };
    let payload: usize = samples.iter().map(|sample| sample.data.len()).sum();
    let mut out = Vec::with_capacity(payload + 256 + 16 * samples.len());
    moof.encode(&mut out)?;
    // The data starts after the moof, whose size does not depend on this offset's value, and the mdat's header.
    let data_offset = out.len() + 8;
    if let Some(trun) = moof.traf.first_mut().and_then(|traf| traf.trun.first_mut()) {
        trun.data_offset = i32::try_from(data_offset).ok();
    }
    out.clear();
    moof.encode(&mut out)?;
    let mdat = u32::try_from(payload + 8).map_err(|_| Fmp4Error(format!("a part of {payload} bytes")))?;
    out.extend_from_slice(&mdat.to_be_bytes());
    out.extend_from_slice(b"mdat");
    for sample in samples {
        out.extend_from_slice(&sample.data);
    }
    Ok(out.into())
}

/// The random access point that a part starts with, as a fragment of its own; `None` when it starts with none. Made from
/// the part's bytes alone, so it is the same wherever and whenever it is made (A12).
#[must_use]
pub fn random_access_point(bytes: &[u8]) -> Option<Bytes> {
    let bytes = skip_events(bytes)?;
    let moof = Moof::decode_maybe(&mut std::io::Cursor::new(bytes)).ok()??;
    let traf = moof.traf.first()?;
    let trun = traf.trun.first()?;
    let first = trun.samples.get(0)?;
    if first.flags? != FLAGS_SYNC {
        return None;
    }
    let from = usize::try_from(trun.data_offset?).ok()?;
    let data = bytes.get(from..from.checked_add(usize::try_from(first.size?).ok()?)?)?;
    let sample = FragmentSample {
        duration: first.duration?,
        composition_offset: i32::try_from(first.cts?).ok()?,
        sync: true,
        data: Bytes::copy_from_slice(data),
    };
    part(moof.mfhd.sequence_number, traf.tfdt.as_ref()?.base_media_decode_time, &[sample]).ok()
}

/// What of a part is from its `moof` on: offsets count from there.
fn skip_events(mut bytes: &[u8]) -> Option<&[u8]> {
    while bytes.get(4..8)? == b"emsg" {
        let size = u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?);
        bytes = bytes.get(usize::try_from(size.max(8)).ok()?..)?;
    }
    Some(bytes)
}

fn run(samples: &[FragmentSample]) -> TrunSamples {
    let entry = |sample: &FragmentSample| TrunEntry {
        duration: Some(sample.duration),
        size: Some(u32::try_from(sample.data.len()).unwrap_or(u32::MAX)),
        flags: Some(if sample.sync { FLAGS_SYNC } else { FLAGS_NON_SYNC }),
        cts: Some(i64::from(sample.composition_offset)),
    };
    TrunSamples::Explicit(samples.iter().map(entry).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::AvcConfig;
    use mp4_atom::{Atom, Header};

    fn video() -> TrackConfig {
        TrackConfig::Video(AvcConfig::parse(crate::codec::test_record()).expect("valid"))
    }

    fn audio() -> TrackConfig {
        TrackConfig::Audio(AacConfig::parse(Bytes::from_static(&[0x11, 0x90])).expect("valid"))
    }

    fn moov_of(init: &Bytes) -> Moov {
        let mut cursor = std::io::Cursor::new(&init[..]);
        let ftyp = Header::decode_maybe(&mut cursor).expect("readable").expect("whole");
        cursor.set_position(cursor.position() + ftyp.size.expect("sized") as u64);
        Moov::decode_maybe(&mut cursor).expect("readable").expect("whole")
    }

    #[test]
    fn mp_02_init_sections() {
        for (config, handler) in [(video(), b"vide"), (audio(), b"soun")] {
            let moov = moov_of(&init_section(&config).expect("written"));
            assert_eq!(moov.mvhd.duration, 0);
            assert_eq!(moov.trak.len(), 1);
            let trak = &moov.trak[0];
            assert_eq!(trak.tkhd.duration, 0);
            assert_eq!(trak.mdia.hdlr.handler, FourCC::new(handler));
            assert_eq!(trak.mdia.mdhd.timescale, config.timescale());
            assert_eq!(moov.mvex.expect("mvex").trex[0].track_id, trak.tkhd.track_id);
        }
    }

    #[test]
    fn an_init_section_says_what_it_was_made_from() {
        for config in [video(), audio()] {
            assert_eq!(track_config(&init_section(&config).expect("written")), Some(config));
        }
        assert_eq!(track_config(b"nothing"), None);
    }

    #[test]
    fn the_audio_specific_config_is_kept_as_sent() {
        let moov = moov_of(&init_section(&audio()).expect("written"));
        let Codec::Mp4a(mp4a) = &moov.trak[0].mdia.minf.stbl.stsd.codecs[0] else { panic!("no mp4a") };
        let specific = mp4a.esds.es_desc.dec_config.dec_specific.clone().expect("specific");
        assert_eq!(specific.raw, [0x11, 0x90]);
    }

    #[test]
    fn a_random_access_point_is_taken_out_of_its_part() {
        let sample = |sync, data: &'static [u8]| FragmentSample {
            duration: 3000,
            composition_offset: 6000,
            sync,
            data: Bytes::from_static(data),
        };
        let whole = part(7, 160_000_000_000_000, &[sample(true, b"picture"), sample(false, b"rest")])
            .expect("written");
        let alone = part(7, 160_000_000_000_000, &[sample(true, b"picture")]).expect("written");
        assert_eq!(random_access_point(&whole), Some(alone.clone()));
        let event = crate::timed::Id3::text("a", "b").expect("valid").emsg(1, 0, 90_000).expect("written");
        assert_eq!(
            random_access_point(&[&event[..], &whole[..]].concat()),
            Some(alone),
            "without the metadata"
        );
        let dependent = part(7, 0, &[sample(false, b"rest")]).expect("written");
        assert_eq!(random_access_point(&dependent), None);
        for cut in 0..whole.len() {
            let _ = random_access_point(&whole[..cut]);
        }
    }

    #[test]
    fn mp_03_mp_07_a_part_is_one_moof_and_one_mdat() {
        let samples = [
            FragmentSample {
                duration: 3000,
                composition_offset: 0,
                sync: true,
                data: Bytes::from_static(b"first"),
            },
            FragmentSample {
                duration: 3003,
                composition_offset: -3000,
                sync: false,
                data: Bytes::from_static(b"2nd"),
            },
        ];
        let bytes = part(9, 160_000_000_000_000, &samples).expect("written");
        let mut cursor = std::io::Cursor::new(&bytes[..]);
        let moof = Moof::decode_maybe(&mut cursor).expect("readable").expect("whole");
        let moof_size = cursor.position() as usize;
        let header = Header::decode_maybe(&mut cursor).expect("readable").expect("whole");
        assert_eq!(header.kind, mp4_atom::Mdat::KIND);
        assert_eq!(&bytes[moof_size + 8..], b"first2nd");
        let traf = &moof.traf[0];
        assert!(traf.tfhd.default_base_is_moof && traf.tfhd.base_data_offset.is_none());
        assert_eq!(traf.tfdt.as_ref().map(|tfdt| tfdt.base_media_decode_time), Some(160_000_000_000_000));
        let run = &traf.trun[0];
        assert_eq!(run.data_offset, Some(moof_size as i32 + 8));
        let second = run.samples.get(1).expect("two");
        assert_eq!((second.duration, second.cts), (Some(3003), Some(-3000)));
        assert_eq!(second.flags, Some(FLAGS_NON_SYNC));
    }
}
