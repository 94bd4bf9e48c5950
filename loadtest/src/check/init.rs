//! A Media Initialization Section: its tracks, and what the rules ask of its structure.
#![deny(clippy::disallowed_methods)]

use crate::check::boxes::{atoms, child, descend, name, u16_at, u32_at, u64_at};
use h264_reader::nal::sps::SeqParameterSet;
use h264_reader::nal::{Nal, RefNal};

/// What kind of media a track has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Media {
    Video,
    Audio,
    Other,
}

/// One track.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Track {
    pub(crate) id: u32,
    pub(crate) media: Media,
    pub(crate) timescale: u32,
    /// RFC 6381; the plain name of the sample entry where the rest is not known.
    pub(crate) codec: String,
    /// Of the sample entry's first NAL units: bytes of a length prefix; 0 if samples have none.
    pub(crate) nal_length: usize,
    /// Width and height of the coded picture after cropping.
    pub(crate) size: Option<(u32, u32)>,
    /// Presentation time at which the edit list begins, in ticks.
    pub(crate) edit: i64,
    /// Of trex: duration, size, flags.
    pub(crate) defaults: (u32, u32, u32),
}

/// A whole init section.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Init {
    pub(crate) tracks: Vec<Track>,
    /// What is wrong with its structure (MP-02).
    pub(crate) flaws: Vec<String>,
    /// Samples are in other files (MP-03).
    pub(crate) external: bool,
}

impl Init {
    /// Reads an init section.
    ///
    /// # Errors
    /// It has no `moov` that can be walked.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, String> {
        let top = atoms(bytes)?;
        let mut init = Self::default();
        let kinds: Vec<[u8; 4]> = top.iter().map(|atom| atom.kind).collect();
        if kinds.first() != Some(b"ftyp") {
            init.flaws.push("it does not start with ftyp".to_owned());
        }
        if let Some(bad) = kinds.iter().find(|kind| matches!(*kind, b"mdat" | b"moof")) {
            init.flaws.push(format!("there is {} in it", name(*bad)));
        }
        if let Some(ftyp) = top.iter().find(|atom| atom.kind == *b"ftyp") {
            let brands: Vec<&[u8]> = ftyp.payload.chunks_exact(4).collect();
            let modern = |b: &&[u8]| matches!(**b, [b'i', b's', b'o', b'6'..=b'9' | b'a'..=b'z'] | [b'c', b'm', b'f', b'c' | b'2' | b's'] | [b'c', b'm', b'f', b'f']);
            if !brands.iter().any(modern) {
                init.flaws.push("no brand of iso6 or newer".to_owned());
            }
        }
        let moov = top.iter().find(|atom| atom.kind == *b"moov").ok_or("there is no moov")?.payload;
        if duration(child(moov, b"mvhd").ok_or("there is no mvhd")?, 16, 24) != Some(0) {
            init.flaws.push("the duration in mvhd is not 0".to_owned());
        }
        let mvex = child(moov, b"mvex");
        if mvex.is_none() {
            init.flaws.push("there is no mvex".to_owned());
        }
        for atom in atoms(moov)?.iter().filter(|atom| atom.kind == *b"trak") {
            init.track(atom.payload, mvex.unwrap_or_default())?;
        }
        Ok(init)
    }

    fn track(&mut self, trak: &[u8], mvex: &[u8]) -> Result<(), String> {
        let tkhd = child(trak, b"tkhd").ok_or("there is no tkhd")?;
        let long = tkhd.first() == Some(&1);
        let id = u32_at(tkhd, if long { 20 } else { 12 }).ok_or("tkhd is cut short")?;
        if duration(tkhd, 20, 28) != Some(0) {
            self.flaws.push(format!("the duration in tkhd of track {id} is not 0"));
        }
        let mdia = child(trak, b"mdia").ok_or("there is no mdia")?;
        let mdhd = child(mdia, b"mdhd").ok_or("there is no mdhd")?;
        let timescale = u32_at(mdhd, if mdhd.first() == Some(&1) { 20 } else { 12 }).unwrap_or(0);
        let media = match child(mdia, b"hdlr").and_then(|hdlr| hdlr.get(8..12)) {
            Some(b"vide") => Media::Video,
            Some(b"soun") => Media::Audio,
            _ => Media::Other,
        };
        let minf = child(mdia, b"minf").ok_or("there is no minf")?;
        self.external |= descend(minf, &[b"dinf", b"dref"]).is_some_and(is_external);
        let stbl = child(minf, b"stbl").ok_or("there is no stbl")?;
        for (kind, at) in [(b"stts", 4), (b"stsz", 8), (b"stsc", 4), (b"stco", 4)] {
            if child(stbl, kind).is_some_and(|table| u32_at(table, at) != Some(0)) {
                self.flaws.push(format!("{} of track {id} has entries", name(*kind)));
            }
        }
        let stsd = child(stbl, b"stsd").ok_or("there is no stsd")?;
        let entries = atoms(stsd.get(8..).unwrap_or_default())?;
        let entry = entries.first().ok_or("stsd is empty")?;
        let mut track = Track {
            id,
            media,
            timescale,
            codec: name(entry.kind),
            nal_length: 0,
            size: None,
            edit: descend(trak, &[b"edts", b"elst"]).map_or(0, edit),
            defaults: defaults(mvex, id),
        };
        codec(&mut track, entry.kind, entry.payload);
        self.tracks.push(track);
        Ok(())
    }
}

/// The duration field of a full box: where it is with 32 bits, and with 64 (version 1).
fn duration(full: &[u8], short: usize, long: usize) -> Option<u64> {
    if full.first() == Some(&1) { u64_at(full, long) } else { u32_at(full, short).map(u64::from) }
}

fn is_external(dref: &[u8]) -> bool {
    let entries = atoms(dref.get(8..).unwrap_or_default()).unwrap_or_default();
    // Flag 1: the data is in this file.
    entries.iter().any(|entry| entry.payload.get(3).is_none_or(|flags| flags & 1 == 0))
}

fn edit(elst: &[u8]) -> i64 {
    let long = elst.first() == Some(&1);
    let count = u32_at(elst, 4).unwrap_or(0);
    let size = if long { 20 } else { 12 };
    for index in 0..count.min(4) as usize {
        let at = 8 + index * size;
        let time = if long {
            u64_at(elst, at + 8).map(u64::cast_signed)
        } else {
            u32_at(elst, at + 4).map(|t| i64::from(t.cast_signed()))
        };
        // An empty edit (-1) says nothing of media time.
        if let Some(time) = time.filter(|time| *time >= 0) {
            return time;
        }
    }
    0
}

fn defaults(mvex: &[u8], id: u32) -> (u32, u32, u32) {
    let all = atoms(mvex).unwrap_or_default();
    let trex = all.iter().find(|atom| atom.kind == *b"trex" && u32_at(atom.payload, 4) == Some(id));
    let field = |at| trex.and_then(|trex| u32_at(trex.payload, at)).unwrap_or(0);
    (field(12), field(16), field(20))
}

fn codec(track: &mut Track, kind: [u8; 4], entry: &[u8]) {
    if track.media == Media::Video {
        track.size = u16_at(entry, 24).zip(u16_at(entry, 26)).map(|(w, h)| (w.into(), h.into()));
    }
    let inside = |from: usize, kind: &[u8; 4]| child(entry.get(from..).unwrap_or_default(), kind);
    match &kind {
        b"avc1" | b"avc3" => {
            if let Some([_, profile, constraints, level, lengths, rest @ ..]) = inside(78, b"avcC") {
                track.codec = format!("{}.{profile:02x}{constraints:02x}{level:02x}", name(kind));
                track.nal_length = usize::from(lengths & 3) + 1;
                track.size = rest
                    .get(3..)
                    .and_then(|tail| Some((u16_at(rest, 1)?, tail)))
                    .and_then(|(n, tail)| picture(tail.get(..n.into())?))
                    .or(track.size);
            }
        }
        b"hvc1" | b"hev1" => {
            if let Some(record) = inside(78, b"hvcC") {
                track.codec = hevc(&name(kind), record).unwrap_or_else(|| name(kind));
                track.nal_length = record.get(21).map_or(4, |lengths| usize::from(lengths & 3) + 1);
            }
        }
        b"av01" => {
            if let Some([_, profile_level, tier_depth, ..]) = inside(78, b"av1C") {
                let depth = match tier_depth & 0x60 {
                    0 => 8,
                    0x40 => 10,
                    _ => 12,
                };
                let tier = if tier_depth & 0x80 == 0 { 'M' } else { 'H' };
                track.codec =
                    format!("av01.{}.{:02}{tier}.{depth:02}", profile_level >> 5, profile_level & 31);
            }
        }
        b"mp4a" => {
            if let Some(object) = inside(28, b"esds").and_then(|esds| esds.get(4..)).and_then(audio_object) {
                track.codec = format!("mp4a.{object}");
            }
        }
        _ => {}
    }
}

/// Width and height by the sequence parameter set.
fn picture(sps: &[u8]) -> Option<(u32, u32)> {
    let nal = RefNal::new(sps, &[], true);
    SeqParameterSet::from_bits(nal.rbsp_bits()).ok()?.pixel_dimensions().ok()
}

fn hevc(entry: &str, record: &[u8]) -> Option<String> {
    let [_, first, rest @ ..] = record else { return None };
    let space = ["", "A", "B", "C"][usize::from(first >> 6)];
    let tier = if first & 0x20 == 0 { 'L' } else { 'H' };
    let compatible = u32_at(rest, 0)?.reverse_bits();
    let constraints = rest.get(4..10)?;
    let level = rest.get(10)?;
    let used = constraints.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
    let tail: String = constraints[..used].iter().map(|b| format!(".{b:X}")).collect();
    Some(format!("{entry}.{space}{}.{compatible:X}.{tier}{level}{tail}", first & 31))
}

/// `40.2` and the like: object type indication and audio object type, out of nested descriptors.
fn audio_object(es: &[u8]) -> Option<String> {
    let es = descriptor(es, 3)?;
    let flags = *es.get(2)?;
    let mut at = 3 + if flags & 0x80 == 0 { 0 } else { 2 };
    if flags & 0x40 != 0 {
        at += 1 + usize::from(*es.get(at)?);
    }
    at += if flags & 0x20 == 0 { 0 } else { 2 };
    let config = descriptor(es.get(at..)?, 4)?;
    let indication = *config.first()?;
    if indication != 0x40 {
        return Some(format!("{indication:02x}"));
    }
    let specific = descriptor(config.get(13..)?, 5)?;
    let object = match specific.first()? >> 3 {
        31 => 32 + ((specific.first()? & 7) << 3 | specific.get(1)? >> 5),
        object => object,
    };
    Some(format!("40.{object}"))
}

/// The contents of the descriptor at the start, if it has the tag.
fn descriptor(bytes: &[u8], tag: u8) -> Option<&[u8]> {
    if *bytes.first()? != tag {
        return None;
    }
    let mut size = 0usize;
    for (index, byte) in bytes[1..].iter().take(4).enumerate() {
        size = size << 7 | usize::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return bytes.get(index + 2..index + 2 + size);
        }
    }
    None
}
