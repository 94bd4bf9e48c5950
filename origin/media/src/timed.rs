//! Timed ID3 metadata: ID3 tags in `emsg` boxes in front of a part's `moof` (the AOM's "Carriage of ID3 Timed Metadata in
//! CMAF"), so that they reach every viewer in step with the picture.

use bytes::Bytes;
use mp4_atom::{Emsg, EmsgTimestamp, Encode};

/// How players know that the message is an ID3 tag.
const SCHEME: &str = "https://aomedia.org/emsg/ID3";
/// Longest text, bytes: it is in front of a part that viewers wait for.
const TEXT_MAX: usize = 4096;

/// An ID3v2.4 tag with one user-defined text frame (TXXX).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Id3 {
    tag: Vec<u8>,
}

/// Why a text is not taken: the broadcaster's fault, a retry does not help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{name}: at most {TEXT_MAX} bytes without NUL are allowed")]
pub struct InvalidText {
    name: &'static str,
}

impl Id3 {
    /// A tag that says `text` under the name `description`.
    ///
    /// # Errors
    /// One of them is too long or has a NUL, which ends a text in ID3.
    pub fn text(description: &str, text: &str) -> Result<Self, InvalidText> {
        for (name, value) in [("description", description), ("text", text)] {
            if value.len() > TEXT_MAX || value.contains('\0') {
                return Err(InvalidText { name });
            }
        }
        // Encoding 3 is UTF-8 (ID3v2.4 section 4).
        let mut frame = vec![3];
        frame.extend_from_slice(description.as_bytes());
        frame.push(0);
        frame.extend_from_slice(text.as_bytes());
        let mut tag = b"ID3\x04\0\0".to_vec();
        tag.extend_from_slice(&synchsafe(frame.len() + 10));
        tag.extend_from_slice(b"TXXX");
        tag.extend_from_slice(&synchsafe(frame.len()));
        tag.extend_from_slice(&[0, 0]);
        tag.append(&mut frame);
        Ok(Self { tag })
    }

    /// The box for a part that starts at `start` ticks of `timescale` on the track's timeline.
    pub(crate) fn emsg(&self, id: u32, start: u64, timescale: u32) -> Result<Bytes, mp4_atom::Error> {
        let mut out = Vec::with_capacity(self.tag.len() + 96);
        Emsg {
            timescale,
            presentation_time: EmsgTimestamp::Absolute(start),
            // Unknown: an ID3 tag is for a moment.
            event_duration: u32::MAX,
            id,
            scheme_id_uri: SCHEME.into(),
            value: String::new(),
            message_data: self.tag.clone(),
        }
        .encode(&mut out)?;
        Ok(out.into())
    }
}

/// Seven bits a byte, so that no size looks like the start of an MPEG frame.
fn synchsafe(size: usize) -> [u8; 4] {
    #[expect(clippy::cast_possible_truncation, reason = "seven bits")]
    [21, 14, 7, 0].map(|shift| (size >> shift) as u8 & 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mp4_atom::DecodeMaybe;

    #[test]
    fn a_tag_is_as_id3_wants_it() {
        let id3 = Id3::text("notice", &"ü".repeat(100)).expect("valid");
        assert_eq!(&id3.tag[..6], b"ID3\x04\0\0");
        // 218 bytes of frame are 1 * 128 + 90.
        assert_eq!(&id3.tag[6..10], [0, 0, 1, 90]);
        assert_eq!(&id3.tag[10..14], b"TXXX");
        assert_eq!(&id3.tag[20..28], b"\x03notice\0");
        assert_eq!(id3.tag.len(), 10 + 218);
        let bytes = id3.emsg(7, 160_000_000_000_000, 90_000).expect("written");
        let read =
            Emsg::decode_maybe(&mut std::io::Cursor::new(&bytes[..])).expect("readable").expect("whole");
        assert_eq!((read.id, read.presentation_time), (7, EmsgTimestamp::Absolute(160_000_000_000_000)));
        assert_eq!(read.message_data, id3.tag);
    }

    #[test]
    fn what_cannot_be_said_is_refused() {
        assert!(Id3::text("a\0b", "").is_err());
        assert!(Id3::text("a", &"x".repeat(5000)).is_err());
    }
}
