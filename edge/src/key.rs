//! The cache key: everything that may tell two answers apart, and nothing else (A13, BR-14).
//!
//! Invariant: viewer identity, tokens, CMCD and unknown query keys cannot get in, because there is no field for them.
#![deny(clippy::disallowed_methods)]

use sigma_shared::directives::{DirectiveError, Directives};
use sigma_shared::mode::{InvalidMode, Mode};
use sigma_shared::resource::{Listed, LiveResource, MediaResource};
use std::fmt;

/// The content coding a viewer gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Coding {
    /// As it is. Media is never compressed.
    Identity,
    /// gzip, for playlists when the viewer takes it (DL-03).
    Gzip,
}

/// One object of the cache.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct CacheKey {
    resource: LiveResource,
    /// Of a Multivariant Playlist.
    mode: Option<Mode>,
    directives: Directives,
    coding: Coding,
}

/// What has to be made before an object can be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waits {
    /// It is there, or it is not.
    Nothing,
    /// A Partial Segment: a fraction of a second.
    Part,
    /// A whole Media Segment: seconds.
    Segment,
}

/// A query that is the viewer's fault: 400.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InvalidQuery {
    #[error(transparent)]
    Directive(#[from] DirectiveError),
    #[error(transparent)]
    Mode(#[from] InvalidMode),
}

impl CacheKey {
    /// The key of a request. Directives count for Media Playlists only, the mode for Multivariant Playlists only, the
    /// coding for both.
    pub(crate) fn new(
        resource: LiveResource,
        query: Option<&str>,
        accepts_gzip: bool,
    ) -> Result<Self, InvalidQuery> {
        let is_multivariant = matches!(resource, LiveResource::Multivariant(_));
        let mode = match query {
            Some(query) if is_multivariant => Mode::parse_query(query)?,
            _ => None,
        };
        let mut directives = match query {
            Some(query) if resource.is_media_playlist() => Directives::parse(query)?,
            _ => Directives::default(),
        };
        directives.part = part_of(&resource, directives.part);
        let playlist = resource.is_media_playlist() || is_multivariant;
        let coding = if playlist && accepts_gzip { Coding::Gzip } else { Coding::Identity };
        Ok(Self { resource, mode, directives, coding })
    }

    /// The key of part `name` in the folder of this Media Playlist; `None` for anything else.
    pub(crate) fn next_part(&self, name: &str) -> Option<Self> {
        let LiveResource::Media(channel, rendition, MediaResource::Playlist(..)) = &self.resource else {
            return None;
        };
        let resource = LiveResource::parse(&format!("/live/{channel}/{rendition}/{name}"))?;
        let LiveResource::Media(.., MediaResource::Part { .. }) = resource else {
            return None;
        };
        Some(Self { resource, mode: None, directives: Directives::default(), coding: Coding::Identity })
    }

    /// The key of the same playlist, waited for until it has this segment or part.
    pub(crate) fn waiting_for(self, (msn, part): (u64, Option<u32>)) -> Self {
        let part = part_of(&self.resource, part);
        Self { directives: Directives { msn: Some(msn), part, ..self.directives }, ..self }
    }

    /// What it is, without directives.
    pub(crate) fn resource(&self) -> &LiveResource {
        &self.resource
    }

    /// Of a Media Playlist.
    pub(crate) fn directives(&self) -> &Directives {
        &self.directives
    }

    /// What is asked of the upstream.
    pub(crate) fn coding(&self) -> Coding {
        self.coding
    }

    /// Whether the answer is about a moment that is still to come: "not there" is then true only until it comes, so
    /// keeping it would hide the object from those who ask in time (BR-16).
    pub(crate) fn names_a_moment(&self) -> bool {
        match self.resource {
            LiveResource::Media(
                ..,
                MediaResource::Part { .. } | MediaResource::Segment { .. } | MediaResource::IFrame { .. },
            ) => true,
            _ => self.directives.is_blocking(),
        }
    }

    /// Whether the answer, once it is there, has these bytes for ever (A12): all of media, and nothing of playlists.
    pub(crate) fn is_immutable(&self) -> bool {
        match self.resource {
            LiveResource::Multivariant(_) | LiveResource::Media(.., MediaResource::Playlist(..)) => false,
            LiveResource::Media(
                ..,
                MediaResource::Init(_)
                | MediaResource::Segment { .. }
                | MediaResource::Part { .. }
                | MediaResource::IFrame { .. },
            ) => true,
        }
    }

    /// What the upstream may hold the request for.
    pub(crate) fn waits_for(&self) -> Waits {
        if let LiveResource::Media(.., MediaResource::Part { .. }) = self.resource {
            return Waits::Part;
        }
        match (self.directives.is_blocking(), self.directives.part) {
            (false, _) => Waits::Nothing,
            (true, Some(_)) => Waits::Part,
            (true, None) => Waits::Segment,
        }
    }

    /// Heap and inline bytes of the key, for the cache's weights.
    pub(crate) fn weight(&self) -> usize {
        let names = match &self.resource {
            LiveResource::Multivariant(channel) => channel.as_str().len(),
            LiveResource::Media(channel, rendition, _) => channel.as_str().len() + rendition.as_str().len(),
        };
        size_of::<Self>() + names
    }
}

/// `part` of a Media Playlist that lists Partial Segments. Of one without them the origin takes no notice of it: kept, each
/// number would be a key, and a fetch that is held, of its own.
fn part_of(resource: &LiveResource, part: Option<u32>) -> Option<u32> {
    let lists_parts =
        matches!(resource, LiveResource::Media(.., MediaResource::Playlist(Listed::Media, Mode::Ultra)));
    part.filter(|_| lists_parts)
}

/// Path and query as the upstream is asked.
impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.resource)?;
        if let Some(mode) = self.mode {
            write!(f, "?mode={mode}")?;
        } else if self.directives != Directives::default() {
            write!(f, "?{}", self.directives)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(path: &str, query: &str, gzip: bool) -> CacheKey {
        CacheKey::new(LiveResource::parse(path).unwrap(), Some(query), gzip).unwrap()
    }

    #[test]
    fn br_14_what_does_not_count_is_dropped() {
        let playlist = "/live/demo/v720/media.m3u8";
        let plain = key(playlist, "_HLS_part=1&_HLS_msn=7", false);
        for query in [
            "_HLS_msn=7&_HLS_part=1&CMCD=bl%3D1",
            "token=abc&_HLS_msn=7&_HLS_throughput=9&_HLS_part=1&mode=low",
        ] {
            assert_eq!(key(playlist, query, false), plain);
        }
        assert_ne!(key(playlist, "_HLS_msn=7&_HLS_part=2", false), plain);
        assert_ne!(key(playlist, "_HLS_msn=7&_HLS_part=1", true), plain, "codings are told apart");
        assert_eq!(plain.to_string(), "/live/demo/v720/media.m3u8?_HLS_msn=7&_HLS_part=1");
    }

    #[test]
    fn a_part_of_a_playlist_without_parts_tells_nothing_apart() {
        for name in ["low", "normal", "iframes", "iframes-low", "iframes-normal"] {
            let playlist = format!("/live/demo/v720/{name}.m3u8");
            let first = key(&playlist, "_HLS_msn=7&_HLS_part=0", false);
            assert_eq!(first, key(&playlist, "_HLS_msn=7&_HLS_part=600", false));
            assert_eq!(first.to_string(), format!("{playlist}?_HLS_msn=7"));
            assert_eq!(first.waits_for(), Waits::Segment);
        }
    }

    #[test]
    fn media_has_neither_directives_nor_codings() {
        let part = key("/live/demo/v720/7.1.m4s", "_HLS_msn=x&token=1", true);
        assert_eq!(part, key("/live/demo/v720/7.1.m4s", "", false));
        assert_eq!(part.to_string(), "/live/demo/v720/7.1.m4s");
        let multivariant = key("/live/demo/index.m3u8", "_HLS_msn=1&mode=low&CMCD=x", true);
        assert_eq!(multivariant.to_string(), "/live/demo/index.m3u8?mode=low");
        assert_ne!(multivariant, key("/live/demo/index.m3u8", "", true), "modes are told apart");
        let index = LiveResource::parse("/live/demo/index.m3u8").unwrap();
        assert!(CacheKey::new(index, Some("mode=fast"), true).is_err());
        assert_eq!(multivariant.coding(), Coding::Gzip);
    }

    #[test]
    fn only_parts_of_the_same_playlist_come_next() {
        let playlist = key("/live/demo/v720/media.m3u8", "_HLS_msn=7&_HLS_part=0", true);
        let next = |name| playlist.next_part(name).map(|key| key.to_string());
        assert_eq!(next("7.1.m4s").as_deref(), Some("/live/demo/v720/7.1.m4s"));
        for other in ["7.m4s", "media.m3u8", "../a360/7.1.m4s", "/live/demo/v720/7.1.m4s", "7.1.m4s?x=1", ""]
        {
            assert_eq!(next(other), None, "{other}");
        }
        assert!(key("/live/demo/v720/7.0.m4s", "", false).next_part("7.1.m4s").is_none());
    }

    #[test]
    fn what_is_waited_for() {
        for (path, query, expected) in [
            ("/live/demo/v/7.1.m4s", "", Waits::Part),
            ("/live/demo/v/7.m4s", "", Waits::Nothing),
            ("/live/demo/v/media.m3u8", "_HLS_msn=7&_HLS_part=1", Waits::Part),
            ("/live/demo/v/media.m3u8", "_HLS_msn=7", Waits::Segment),
            ("/live/demo/v/low.m3u8", "_HLS_msn=7&_HLS_part=1", Waits::Segment),
            ("/live/demo/v/iframes.m3u8", "_HLS_msn=7", Waits::Segment),
            ("/live/demo/v/media.m3u8", "", Waits::Nothing),
            ("/live/demo/index.m3u8", "", Waits::Nothing),
        ] {
            assert_eq!(key(path, query, false).waits_for(), expected, "{path} {query}");
        }
    }

    #[test]
    fn moments() {
        for (path, query, expected) in [
            ("/live/demo/v/7.1.m4s", "", true),
            ("/live/demo/v/7.m4s", "", true),
            ("/live/demo/v/7.i.m4s", "", true),
            ("/live/demo/v/media.m3u8", "_HLS_msn=7", true),
            ("/live/demo/v/media.m3u8", "_HLS_skip=YES", false),
            ("/live/demo/v/media.m3u8", "", false),
            ("/live/demo/v/init-00000000000000af.mp4", "", false),
            ("/live/demo/index.m3u8", "", false),
        ] {
            assert_eq!(key(path, query, false).names_a_moment(), expected, "{path} {query}");
        }
    }

    #[test]
    fn only_media_is_for_ever() {
        for (path, query, expected) in [
            ("/live/demo/v/7.1.m4s", "", true),
            ("/live/demo/v/7.m4s", "", true),
            ("/live/demo/v/7.i.m4s", "", true),
            ("/live/demo/v/init-00000000000000af.mp4", "", true),
            ("/live/demo/v/media.m3u8", "_HLS_msn=7", false),
            ("/live/demo/v/iframes.m3u8", "", false),
            ("/live/demo/index.m3u8", "", false),
        ] {
            assert_eq!(key(path, query, false).is_immutable(), expected, "{path} {query}");
        }
    }
}
