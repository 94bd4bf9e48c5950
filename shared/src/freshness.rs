//! How long a response may be cached: the table of the low-latency server profile (DL-06).
//!
//! Invariant: the origin states it in `Cache-Control`, the edge only obeys what is stated.

/// What a response is, as far as its lifetime goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    /// A playlist asked for with `_HLS_msn`.
    BlockingPlaylist,
    /// A playlist asked for without directives.
    Playlist,
    /// A part, a segment or an init section.
    Media,
}

/// `max-age` in seconds for a response, rounded down. `target_duration_s` is 1 or more.
#[must_use]
pub fn max_age_s(served: Served, success: bool, target_duration_s: u32) -> u32 {
    match (served, success) {
        (Served::BlockingPlaylist | Served::Media, true) => 6 * target_duration_s,
        (Served::BlockingPlaylist, false) => 4 * target_duration_s,
        (Served::Playlist, true) => target_duration_s / 2,
        (Served::Playlist | Served::Media, false) => target_duration_s,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dl_06() {
        for (served, success, seconds) in [
            (Served::BlockingPlaylist, true, 12),
            (Served::BlockingPlaylist, false, 8),
            (Served::Playlist, true, 1),
            (Served::Playlist, false, 2),
            (Served::Media, true, 12),
            (Served::Media, false, 2),
        ] {
            assert_eq!(max_age_s(served, success, 2), seconds, "{served:?} {success}");
        }
        assert_eq!(max_age_s(Served::Playlist, true, 1), 0, "rounded down");
    }
}
