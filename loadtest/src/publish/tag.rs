//! What FLV tags are for, as far as a publisher has to know it: what a decoder needs first, and where it can begin.
#![deny(clippy::disallowed_methods)]

use sigma_rtmp::flv::{FlvTag, TagKind};

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Metadata, or the configuration of a codec.
    Header,
    /// A picture that a decoder can begin with.
    Key,
    Other,
}

/// Bits and packet types are the same for all codecs, in the original and in the enhanced form.
pub(crate) fn role(tag: &FlvTag) -> Role {
    const ENHANCED_VIDEO: u8 = 0x80;
    const KEY_FRAME: u8 = 1;
    const ENHANCED_AUDIO: u8 = 9;
    const AVC: u8 = 7;
    const AAC: u8 = 10;
    let [first, rest @ ..] = &*tag.payload else { return Role::Other };
    let begins = |starts: bool| if starts { Role::Header } else { Role::Other };
    match tag.kind {
        TagKind::Script => Role::Header,
        TagKind::Video if first & ENHANCED_VIDEO != 0 && first & 0x0f == 0 => Role::Header,
        TagKind::Video if first & ENHANCED_VIDEO == 0 && first & 0x0f == AVC && rest.first() == Some(&0) => {
            Role::Header
        }
        TagKind::Video if (first >> 4) & 0x07 == KEY_FRAME => Role::Key,
        TagKind::Video => Role::Other,
        TagKind::Audio => match first >> 4 {
            AAC => begins(rest.first() == Some(&0)),
            ENHANCED_AUDIO => begins(first & 0x0f == 0),
            _ => Role::Other,
        },
    }
}

/// What a server has to be told again by a publisher that comes back.
#[derive(Debug, Default)]
pub(crate) struct Headers {
    /// Metadata, video, audio.
    tags: [Option<FlvTag>; 3],
    pub(crate) has_video: bool,
}

impl Headers {
    pub(crate) fn note(&mut self, tag: &FlvTag) {
        self.has_video |= tag.kind == TagKind::Video;
        if role(tag) == Role::Header {
            let slot = match tag.kind {
                TagKind::Script => 0,
                TagKind::Video => 1,
                TagKind::Audio => 2,
            };
            self.tags[slot] = Some(tag.clone());
        }
    }

    pub(crate) fn tags(&self) -> impl Iterator<Item = &FlvTag> {
        self.tags.iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn what_comes_first_and_where_to_begin() {
        use TagKind::{Audio, Script, Video};
        for (kind, payload, expected) in [
            (Script, &[2, 0, 0][..], Role::Header),
            (Video, &[0x17, 0, 0, 0, 0], Role::Header),
            (Video, &[0x17, 1, 0, 0, 0], Role::Key),
            (Video, &[0x27, 1, 0, 0, 0], Role::Other),
            (Video, b"\x90hvc1", Role::Header),
            (Video, b"\x91hvc1", Role::Key),
            (Video, b"\xa1hvc1", Role::Other),
            (Audio, &[0xaf, 0, 0x12, 0x10], Role::Header),
            (Audio, &[0xaf, 1, 0x21], Role::Other),
            (Audio, b"\x90Opus", Role::Header),
            (Audio, b"\x91Opus", Role::Other),
            (Video, &[], Role::Other),
        ] {
            let tag = FlvTag { timestamp_ms: 0, kind, payload: Bytes::copy_from_slice(payload) };
            assert_eq!(role(&tag), expected, "{kind:?} {payload:?}");
        }
    }

    #[test]
    fn the_newest_headers_are_kept() {
        let tag = |kind, payload: &'static [u8]| FlvTag {
            timestamp_ms: 0,
            kind,
            payload: Bytes::from_static(payload),
        };
        let mut headers = Headers::default();
        headers.note(&tag(TagKind::Audio, &[0xaf, 0, 1]));
        assert!(!headers.has_video);
        headers.note(&tag(TagKind::Video, &[0x17, 0, 1]));
        headers.note(&tag(TagKind::Video, &[0x17, 1, 9]));
        headers.note(&tag(TagKind::Video, &[0x17, 0, 2]));
        let kept: Vec<_> = headers.tags().map(|tag| tag.payload.to_vec()).collect();
        assert_eq!(kept, [vec![0x17, 0, 2], vec![0xaf, 0, 1]]);
        assert!(headers.has_video);
    }
}
