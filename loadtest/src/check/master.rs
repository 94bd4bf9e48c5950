//! A multivariant playlist, read strictly: its variants and renditions, with the lines they stand on.
#![deny(clippy::disallowed_methods)]

use crate::check::attributes::Attributes;
use crate::check::sheet::Sheet;
use crate::check::tags::Scope;

/// Variants, and renditions, kept.
const ENTRIES_MAX: usize = 1024;

/// A variant, an I-frame variant or a rendition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Of its tag.
    pub(crate) line: usize,
    pub(crate) list: Attributes,
    /// Of its playlist; `None` for a rendition without its own.
    pub(crate) uri: Option<String>,
}

impl Entry {
    /// BANDWIDTH in bits per second, 0 if there is none.
    pub(crate) fn bandwidth(&self) -> u64 {
        self.list.integer("BANDWIDTH").unwrap_or(0)
    }

    /// The formats of CODECS.
    pub(crate) fn codecs(&self) -> Vec<&str> {
        let list = self.list.get("CODECS").unwrap_or_default();
        list.split(',').map(str::trim).filter(|codec| !codec.is_empty()).collect()
    }
}

/// A whole multivariant playlist.
#[derive(Debug, Clone, Default)]
pub(crate) struct Master {
    pub(crate) sheet: Sheet,
    /// EXT-X-STREAM-INF
    pub(crate) variants: Vec<Entry>,
    /// EXT-X-I-FRAME-STREAM-INF
    pub(crate) i_frames: Vec<Entry>,
    /// EXT-X-MEDIA
    pub(crate) renditions: Vec<Entry>,
}

impl Master {
    /// Whether a body is a multivariant playlist rather than a media playlist.
    pub(crate) fn is_one(body: &[u8]) -> bool {
        let text = String::from_utf8_lossy(body);
        text.lines().any(|line| line.starts_with("#EXT-X-STREAM-INF:") || line.starts_with("#EXT-X-MEDIA:"))
    }

    /// Reads a body as a multivariant playlist, whatever it is.
    pub(crate) fn read(body: &[u8]) -> Self {
        let sheet = Sheet::read(body, Scope::Multivariant);
        let mut master = Self::default();
        for tag in &sheet.tags {
            let entry = |uri: Option<String>| Entry { line: tag.line, list: tag.list.clone(), uri };
            let own = || tag.list.get("URI").map(str::to_owned);
            let (list, entry) = match tag.name.as_str() {
                "EXT-X-STREAM-INF" => {
                    let uri = sheet
                        .lines
                        .iter()
                        .skip(tag.line)
                        .find(|line| !line.is_empty() && !line.starts_with('#'));
                    (&mut master.variants, entry(uri.cloned()))
                }
                "EXT-X-I-FRAME-STREAM-INF" => (&mut master.i_frames, entry(own())),
                "EXT-X-MEDIA" => (&mut master.renditions, entry(own())),
                _ => continue,
            };
            if list.len() < ENTRIES_MAX {
                list.push(entry);
            }
        }
        master.sheet = sheet;
        master
    }

    /// The renditions of a group.
    pub(crate) fn group<'a>(&'a self, kind: &'a str, id: &'a str) -> impl Iterator<Item = &'a Entry> {
        self.renditions
            .iter()
            .filter(move |r| r.list.get("TYPE") == Some(kind) && r.list.get("GROUP-ID") == Some(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_and_renditions() {
        let text = b"#EXTM3U\n#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"g\",NAME=\"a\",URI=\"a/media.m3u8\"\n\
            #EXT-X-STREAM-INF:BANDWIDTH=3,CODECS=\"avc1.64001f, mp4a.40.2\",AUDIO=\"g\"\nv/media.m3u8\n\
            #EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=1,URI=\"v/iframes.m3u8\"\n";
        assert!(Master::is_one(text) && !Master::is_one(b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n"));
        let master = Master::read(text);
        assert_eq!(master.sheet.flaws, []);
        assert_eq!(master.variants[0].uri.as_deref(), Some("v/media.m3u8"));
        assert_eq!((master.variants[0].bandwidth(), master.variants[0].codecs().len()), (3, 2));
        assert_eq!(master.i_frames[0].uri.as_deref(), Some("v/iframes.m3u8"));
        assert_eq!(master.group("AUDIO", "g").count(), 1);
        assert_eq!(master.group("AUDIO", "h").count(), 0);
    }
}
