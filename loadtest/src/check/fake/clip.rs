//! The media of the fake server: real fMP4, written with another library than the checker reads with.

use mp4_atom::esds::{DecoderConfig, DecoderSpecific, EsDescriptor, Esds, SLConfig};
use mp4_atom::{
    Atom, Audio, Avc1, Avcc, Codec, Dinf, Dref, DrefEntry, Encode, FixedPoint, FourCC, Ftyp, Hdlr, Mdhd,
    Mdia, Mfhd, Minf, Moof, Moov, Mp4a, Mvex, Mvhd, Smhd, Stbl, Stco, Stsd, Tfdt, Tfhd, Tkhd, Traf, Trak,
    Trex, Trun, TrunEntry, TrunSamples, Url, Visual, Vmhd,
};

/// 1280x720, Main profile.
const RECORD: &[u8] = &[
    0x01, 0x4d, 0x40, 0x1f, 0xff, 0xe1, 0x00, 0x17, 0x67, 0x4d, 0x40, 0x1f, 0xda, 0x01, 0x40, 0x16, 0xec,
    0x04, 0x40, 0x00, 0x00, 0x03, 0x00, 0x40, 0x00, 0x00, 0x0f, 0x23, 0xc6, 0x0c, 0xa8, 0x01, 0x00, 0x04,
    0x68, 0xef, 0x0f, 0xc8,
];
/// Media time of the first part ever.
const ORIGIN_S: u64 = 10_000;

/// What may be done to media that is right.
#[derive(Debug, Clone)]
pub(crate) struct Tweak {
    pub(crate) dts_shift: i64,
    pub(crate) without_tfdt: bool,
    pub(crate) base_is_moof: bool,
    pub(crate) first_flags: Option<u32>,
    /// NAL unit type of the first picture.
    pub(crate) first_nal: Option<u8>,
    /// Another IDR in the middle.
    pub(crate) second_key: bool,
    pub(crate) sequence: Option<u32>,
    pub(crate) without_mdat: bool,
    pub(crate) content: u8,
    /// Bytes per sample.
    pub(crate) size: usize,
}

impl Default for Tweak {
    fn default() -> Self {
        Self {
            dts_shift: 0,
            without_tfdt: false,
            base_is_moof: true,
            first_flags: None,
            first_nal: None,
            second_key: false,
            sequence: None,
            without_mdat: false,
            content: 7,
            size: 40,
        }
    }
}

pub(crate) fn timescale(video: bool) -> u32 {
    if video { 90_000 } else { 48_000 }
}

/// Part `index` since the beginning, half a second; a segment has four.
pub(crate) fn part(video: bool, index: u64, count: u64, tweak: &Tweak) -> Vec<u8> {
    let frames: u32 = if video { 15 } else { 20 };
    let duration = timescale(video) / 2 / frames;
    let key_here = video && index.is_multiple_of(4);
    let mut entries = Vec::new();
    let mut payload = Vec::new();
    for frame in 0..frames * u32::try_from(count).unwrap() {
        let key = !video || key_here && frame == 0 || tweak.second_key && frame == 7;
        let mut nal = if key { 0x65 } else { 0x41 };
        let mut flags = if key { 0x0200_0000 } else { 0x0101_0000 };
        if frame == 0 {
            nal = tweak.first_nal.unwrap_or(nal);
            flags = tweak.first_flags.unwrap_or(flags);
        }
        let mut data = u32::try_from(tweak.size - 4).unwrap().to_be_bytes().to_vec();
        data.push(nal);
        data.extend(index.to_be_bytes());
        data.push(u8::try_from(frame % 251).unwrap());
        data.resize(tweak.size, tweak.content);
        entries.push(TrunEntry {
            duration: Some(duration),
            size: Some(u32::try_from(data.len()).unwrap()),
            flags: Some(flags),
            cts: Some(0),
        });
        payload.extend(data);
    }
    let scale = u64::from(timescale(video));
    let dts = (ORIGIN_S * scale + index * scale / 2).checked_add_signed(tweak.dts_shift).unwrap();
    let mut moof = Moof {
        mfhd: Mfhd { sequence_number: tweak.sequence.unwrap_or(u32::try_from(index).unwrap() + 1) },
        traf: vec![Traf {
            tfhd: Tfhd { track_id: 1, default_base_is_moof: tweak.base_is_moof, ..Tfhd::default() },
            tfdt: (!tweak.without_tfdt).then_some(Tfdt { base_media_decode_time: dts }),
            trun: vec![Trun { data_offset: Some(0), samples: TrunSamples::Explicit(entries) }],
            ..Traf::default()
        }],
    };
    let mut out = Vec::new();
    moof.encode(&mut out).unwrap();
    moof.traf[0].trun[0].data_offset = i32::try_from(out.len() + 8).ok();
    out.clear();
    moof.encode(&mut out).unwrap();
    if !tweak.without_mdat {
        out.extend(u32::try_from(payload.len() + 8).unwrap().to_be_bytes());
        out.extend(b"mdat");
        out.extend(payload);
    }
    out
}

/// An init section's properties.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head {
    pub(crate) brand: [u8; 4],
    /// Of mvhd; 0 is right.
    pub(crate) duration: u64,
    pub(crate) level: u8,
    pub(crate) tracks: usize,
}

/// What is right.
pub(crate) const HEAD: Head = Head { brand: *b"iso6", duration: 0, level: 0x1f, tracks: 1 };

/// An init section.
pub(crate) fn init(video: bool, head: Head) -> Vec<u8> {
    let mut out = Vec::new();
    Ftyp { major_brand: FourCC::new(&head.brand), minor_version: 0, compatible_brands: vec![] }
        .encode(&mut out)
        .unwrap();
    let trex = Trex { track_id: 1, default_sample_description_index: 1, ..Trex::default() };
    Moov {
        mvhd: Mvhd {
            timescale: timescale(video),
            next_track_id: 2,
            duration: head.duration,
            ..Mvhd::default()
        },
        mvex: Some(Mvex { mehd: None, trex: vec![trex] }),
        trak: vec![track(video, head.level); head.tracks],
        ..Moov::default()
    }
    .encode(&mut out)
    .unwrap();
    out
}

fn track(video: bool, level: u8) -> Trak {
    let handler = if video { b"vide" } else { b"soun" };
    Trak {
        tkhd: Tkhd { track_id: 1, enabled: true, ..Tkhd::default() },
        mdia: Mdia {
            mdhd: Mdhd { timescale: timescale(video), language: "und".into(), ..Mdhd::default() },
            hdlr: Hdlr { handler: FourCC::new(handler), name: "x".into() },
            minf: Minf {
                vmhd: video.then(Vmhd::default),
                smhd: (!video).then(Smhd::default),
                dinf: Dinf { dref: Dref { entries: vec![DrefEntry::Url(Url::default())] } },
                stbl: Stbl {
                    stsd: Stsd { codecs: vec![if video { avc(level) } else { aac() }] },
                    stco: Some(Stco::default()),
                    ..Stbl::default()
                },
                ..Minf::default()
            },
        },
        ..Trak::default()
    }
}

fn avc(level: u8) -> Codec {
    let mut avcc = Avcc::decode_body(&mut &RECORD[..]).unwrap();
    avcc.avc_level_indication = level;
    let visual = Visual { data_reference_index: 1, width: 1280, height: 720, ..Visual::default() };
    Codec::Avc1(Avc1 { visual, avcc, ..Avc1::default() })
}

fn aac() -> Codec {
    let specific = DecoderSpecific { profile: 2, freq_index: 3, chan_conf: 2, raw: vec![0x11, 0x90] };
    let dec_config = DecoderConfig {
        object_type_indication: 0x40,
        stream_type: 5,
        dec_specific: Some(specific),
        ..DecoderConfig::default()
    };
    Codec::Mp4a(Mp4a {
        audio: Audio {
            data_reference_index: 1,
            channel_count: 2,
            sample_size: 16,
            sample_rate: FixedPoint::new(48_000, 0),
        },
        esds: Esds {
            es_desc: EsDescriptor {
                es_id: 0,
                depends_on_es_id: None,
                url: None,
                ocr_es_id: None,
                stream_priority: 0,
                dec_config,
                sl_config: SLConfig::default(),
            },
        },
        btrt: None,
        taic: None,
    })
}
