//! Segments and parts of fragmented MP4: their chunks and samples.
#![deny(clippy::disallowed_methods)]

use crate::check::boxes::{Atom, atoms, name, u32_at, u64_at};
use crate::check::init::{Init, Media, Track};

/// `sample_is_non_sync_sample`
const NON_SYNC: u32 = 0x0001_0000;

/// One sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) dts: u64,
    pub(crate) duration: u32,
    pub(crate) composition: i64,
    pub(crate) flags: u32,
    pub(crate) size: u32,
    /// CRC-32 of its bytes.
    pub(crate) crc: u32,
    /// Its coded picture can be decoded by itself, as its NAL units say; `None` if they do not say.
    pub(crate) key: Option<bool>,
}

impl Sample {
    /// By its flags.
    pub(crate) fn is_sync(&self) -> bool {
        self.flags & NON_SYNC == 0
    }

    /// `sample_depends_on`: 2 means on no other.
    pub(crate) fn depends_on(&self) -> u32 {
        self.flags >> 24 & 3
    }
}

/// The samples of one track in one segment or part.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) track: u32,
    pub(crate) samples: Vec<Sample>,
}

/// A segment or part.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Fragment {
    /// By track, in the order of appearance.
    pub(crate) runs: Vec<Run>,
    /// `mfhd` sequence numbers, in order.
    pub(crate) sequence: Vec<u32>,
    /// What is wrong with its structure (MP-07).
    pub(crate) structure: Vec<String>,
    /// What is wrong with its addressing (MP-03).
    pub(crate) addressing: Vec<String>,
}

impl Fragment {
    /// Reads the chunks of a segment or part.
    ///
    /// # Errors
    /// Boxes that do not end where they say, or samples that are not there.
    pub(crate) fn read(bytes: &[u8], init: &Init) -> Result<Self, String> {
        let mut fragment = Self::default();
        let top = atoms(bytes)?;
        let mut open: Option<Atom<'_>> = None;
        for atom in top {
            match &atom.kind {
                b"moof" if open.is_none() => open = Some(atom),
                b"mdat" if open.is_some() => {
                    if let Some(moof) = open.take() {
                        fragment.chunk(bytes, &moof, &atom, init)?;
                    }
                }
                b"styp" | b"prft" | b"emsg" | b"sidx" | b"free" if open.is_none() => {}
                other => fragment.structure.push(format!(
                    "{} at byte {} does not belong there",
                    name(*other),
                    atom.start
                )),
            }
        }
        if open.is_some() {
            fragment.structure.push("a moof without its mdat".to_owned());
        }
        if fragment.sequence.is_empty() {
            fragment.structure.push("no moof with its mdat".to_owned());
        }
        Ok(fragment)
    }

    /// The run of the first track of a kind.
    pub(crate) fn run(&self, init: &Init, media: Media) -> Option<(&Run, Track)> {
        let track = init.tracks.iter().find(|track| track.media == media)?;
        self.runs.iter().find(|run| run.track == track.id).map(|run| (run, track.clone()))
    }

    fn chunk(&mut self, bytes: &[u8], moof: &Atom<'_>, mdat: &Atom<'_>, init: &Init) -> Result<(), String> {
        for atom in atoms(moof.payload)? {
            match &atom.kind {
                b"mfhd" => self.sequence.push(u32_at(atom.payload, 4).ok_or("mfhd is cut short")?),
                b"traf" => self.traf(bytes, atom.payload, (moof.start, mdat), init)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn traf(
        &mut self,
        bytes: &[u8],
        traf: &[u8],
        place: (usize, &Atom<'_>),
        init: &Init,
    ) -> Result<(), String> {
        let inside = atoms(traf)?;
        let find = |kind: &[u8; 4]| inside.iter().find(|atom| atom.kind == *kind).map(|atom| atom.payload);
        let tfhd = find(b"tfhd").ok_or("a traf without tfhd")?;
        let flags = u32_at(tfhd, 0).unwrap_or(0) & 0x00ff_ffff;
        let id = u32_at(tfhd, 4).ok_or("tfhd is cut short")?;
        if flags & 1 != 0 || flags & 0x02_0000 == 0 {
            self.addressing.push(format!("tfhd flags {flags:#08x}: not relative to the moof"));
        }
        let Some(track) = init.tracks.iter().find(|track| track.id == id) else {
            self.addressing.push(format!("track {id} is not in the init section"));
            return Ok(());
        };
        let defaults = tfhd_defaults(tfhd, flags, track.defaults);
        let Some(tfdt) = find(b"tfdt") else {
            self.addressing.push("a traf without tfdt".to_owned());
            return Ok(());
        };
        let base = if tfdt.first() == Some(&1) { u64_at(tfdt, 4) } else { u32_at(tfdt, 4).map(u64::from) };
        let mut dts = base.ok_or("tfdt is cut short")?;
        let (moof_start, mdat) = place;
        let mut at = mdat.at;
        let index = self.runs.iter().position(|run| run.track == id).unwrap_or_else(|| {
            self.runs.push(Run { track: id, samples: Vec::new() });
            self.runs.len() - 1
        });
        for trun in inside.iter().filter(|atom| atom.kind == *b"trun") {
            let mut reader = Trun::new(trun.payload, defaults).ok_or("trun is cut short")?;
            if let Some(offset) = reader.offset {
                at = moof_start.checked_add_signed(offset as isize).ok_or("trun points before the file")?;
            }
            while let Some(mut sample) = reader.next() {
                let end = at + sample.size as usize;
                let data =
                    bytes.get(at..end).filter(|_| at >= mdat.at && end <= mdat.at + mdat.payload.len());
                let data = data.ok_or("a sample lies outside of its mdat")?;
                sample.dts = dts;
                sample.crc = crc32fast::hash(data);
                sample.key = key(data, track);
                dts += u64::from(sample.duration);
                at = end;
                self.runs[index].samples.push(sample);
            }
        }
        Ok(())
    }
}

fn tfhd_defaults(tfhd: &[u8], flags: u32, trex: (u32, u32, u32)) -> (u32, u32, u32) {
    let mut at = 8 + if flags & 1 == 0 { 0 } else { 8 } + if flags & 2 == 0 { 0 } else { 4 };
    let mut field = |flag: u32, default: u32| {
        if flags & flag == 0 {
            return default;
        }
        at += 4;
        u32_at(tfhd, at - 4).unwrap_or(default)
    };
    (field(8, trex.0), field(16, trex.1), field(32, trex.2))
}

struct Trun<'a> {
    bytes: &'a [u8],
    flags: u32,
    at: usize,
    left: u32,
    first_flags: Option<u32>,
    offset: Option<i32>,
    defaults: (u32, u32, u32),
}

impl<'a> Trun<'a> {
    fn new(bytes: &'a [u8], defaults: (u32, u32, u32)) -> Option<Self> {
        let word = u32_at(bytes, 0)?;
        let mut trun = Self {
            bytes,
            flags: word & 0x00ff_ffff,
            at: 8,
            left: u32_at(bytes, 4)?,
            first_flags: None,
            offset: None,
            defaults,
        };
        trun.offset = trun.field(1).map(u32::cast_signed);
        trun.first_flags = trun.field(4);
        Some(trun)
    }

    fn field(&mut self, flag: u32) -> Option<u32> {
        if self.flags & flag == 0 {
            return None;
        }
        self.at += 4;
        u32_at(self.bytes, self.at - 4)
    }

    fn next(&mut self) -> Option<Sample> {
        self.left = self.left.checked_sub(1)?;
        if self.at > self.bytes.len() {
            return None;
        }
        let duration = self.field(0x100).unwrap_or(self.defaults.0);
        let size = self.field(0x200).unwrap_or(self.defaults.1);
        let own = self.field(0x400);
        let flags = self.first_flags.take().or(own).unwrap_or(self.defaults.2);
        let composition = self.field(0x800).map_or(0, |offset| i64::from(offset.cast_signed()));
        Some(Sample { dts: 0, duration, composition, flags, size, crc: 0, key: None })
    }
}

/// Whether an access unit of length-prefixed NAL units is a random access point by their types.
fn key(mut data: &[u8], track: &Track) -> Option<bool> {
    let hevc = track.codec.starts_with("hvc1") || track.codec.starts_with("hev1");
    if track.nal_length == 0 {
        return None;
    }
    while data.len() > track.nal_length {
        let (length, rest) = data.split_at(track.nal_length);
        let length = length.iter().fold(0usize, |sum, byte| sum << 8 | usize::from(*byte));
        let first = *rest.first()?;
        match if hevc { first >> 1 & 63 } else { first & 31 } {
            16..=21 if hevc => return Some(true),
            0..=9 if hevc => return Some(false),
            5 if !hevc => return Some(true),
            1..=4 if !hevc => return Some(false),
            _ => {}
        }
        data = rest.get(length..)?;
    }
    None
}
