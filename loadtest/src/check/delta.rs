//! Playlist delta updates: merging one into the playlist it updates, and the normal form in which playlists compare.
#![deny(clippy::disallowed_methods)]

use crate::check::media::{Media, Segment};
use std::collections::{BTreeMap, BTreeSet};

/// What a playlist says, without how it says it: one line per fact, in a fixed order. Version and EXT-X-SKIP are left
/// out, and what is in force is spelt out for every segment.
pub(crate) fn normal(media: &Media) -> Vec<String> {
    let mut facts = head(media);
    facts.extend(media.segments.iter().map(segment));
    facts.extend(date_ranges(media).into_values());
    facts.extend(tail(media));
    facts
}

/// The playlist that a client has after `delta` updated `old`; `None` if they do not join.
pub(crate) fn merge(old: &Media, delta: &Media) -> Option<Vec<String>> {
    let skipped = delta.skipped?;
    let first_kept = delta.media_sequence.checked_add(skipped)?;
    let mut kept: Vec<String> = Vec::new();
    let mut dsn = None;
    for was in old.segments.iter().filter(|s| s.msn >= delta.media_sequence && s.msn < first_kept) {
        was.uri.as_ref()?;
        // Skipped segments are old: their parts are not listed any more by who sends the delta update.
        kept.push(segment(&Segment { parts: Vec::new(), ..was.clone() }));
        dsn = Some(was.dsn);
    }
    if kept.len() as u64 != skipped {
        return None;
    }
    let mut facts = head(delta);
    facts.append(&mut kept);
    // Discontinuities among the skipped segments count for those behind them.
    let behind = delta.discontinuity_sequence.unwrap_or(0);
    let ahead = dsn.unwrap_or(behind).saturating_sub(behind);
    facts.extend(delta.segments.iter().map(|s| segment(&Segment { dsn: s.dsn + ahead, ..s.clone() })));
    let mut ranges = date_ranges(old);
    for removed in removed_ranges(delta) {
        ranges.remove(&removed);
    }
    if delta.sheet.tag("EXT-X-SKIP").is_some_and(|tag| tag.list.get("RECENTLY-REMOVED-DATERANGES").is_none())
    {
        // Date ranges were not skipped: what is listed is all there is.
        ranges = BTreeMap::new();
    }
    ranges.extend(date_ranges(delta));
    facts.extend(ranges.into_values());
    facts.extend(tail(delta));
    Some(facts)
}

/// The IDs in RECENTLY-REMOVED-DATERANGES.
pub(crate) fn removed_ranges(delta: &Media) -> BTreeSet<String> {
    let list = delta.sheet.tag("EXT-X-SKIP").and_then(|tag| tag.list.get("RECENTLY-REMOVED-DATERANGES"));
    list.unwrap_or_default().split('\t').filter(|id| !id.is_empty()).map(str::to_owned).collect()
}

fn head(media: &Media) -> Vec<String> {
    let names = [
        "EXT-X-TARGETDURATION",
        "EXT-X-SERVER-CONTROL",
        "EXT-X-PART-INF",
        "EXT-X-MEDIA-SEQUENCE",
        "EXT-X-DISCONTINUITY-SEQUENCE",
        "EXT-X-INDEPENDENT-SEGMENTS",
        "EXT-X-I-FRAMES-ONLY",
        "EXT-X-START",
        "EXT-X-PLAYLIST-TYPE",
    ];
    let tag = |name: &&str| media.sheet.tag(name).map(|tag| format!("{}:{}", tag.name, tag.value));
    names.iter().filter_map(tag).collect()
}

fn tail(media: &Media) -> Vec<String> {
    let names = ["EXT-X-PRELOAD-HINT", "EXT-X-RENDITION-REPORT", "EXT-X-ENDLIST"];
    let tags = media.sheet.tags.iter().filter(|tag| names.contains(&tag.name.as_str()));
    tags.map(|tag| format!("{}:{}", tag.name, tag.value)).collect()
}

/// Without the date: it is stated again at the first segment of a delta update (SK-05), and where it was not stated
/// before, it is the same by the durations.
fn segment(segment: &Segment) -> String {
    let mut fact = format!(
        "{} {:?} {:?} dsn={} gap={} map={:?} key={} range={:?} bitrate={:?}",
        segment.msn,
        segment.uri,
        segment.duration,
        segment.dsn,
        segment.gap,
        segment.map,
        segment.key,
        segment.range,
        segment.bitrate
    );
    for part in &segment.parts {
        fact.push_str(&format!(
            " [{} {:?} {} {} {:?}]",
            part.uri, part.duration, part.independent, part.gap, part.range
        ));
    }
    fact
}

fn date_ranges(media: &Media) -> BTreeMap<String, String> {
    let tags = media.tagged("EXT-X-DATERANGE");
    tags.map(|tag| (tag.list.get("ID").unwrap_or_default().to_owned(), format!("{}:{}", tag.name, tag.value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "#EXTM3U\n#EXT-X-VERSION:9\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:10\n\
        #EXT-X-DISCONTINUITY-SEQUENCE:1\n";
    const OLD_END: &str =
        "#EXT-X-MAP:URI=\"i\"\n#EXTINF:2.0,\n10.m4s\n#EXT-X-DISCONTINUITY\n#EXTINF:2.0,\n11.m4s\n";

    fn read(text: &str) -> Media {
        Media::read(text.as_bytes())
    }

    #[test]
    fn a_delta_update_makes_the_full_playlist() {
        let old = read(&format!("{HEAD}{OLD_END}#EXTINF:2.0,\n12.m4s\n"));
        let full = read(&format!("{HEAD}{OLD_END}#EXTINF:2.0,\n12.m4s\n#EXTINF:2.0,\n13.m4s\n"));
        let delta = read(&format!(
            "{HEAD}#EXT-X-SKIP:SKIPPED-SEGMENTS=2\n#EXT-X-MAP:URI=\"i\"\n#EXTINF:2.0,\n12.m4s\n#EXTINF:2.0,\n13.m4s\n"
        ));
        assert_eq!(merge(&old, &delta), Some(normal(&full)));
        let bare = read(&format!(
            "{HEAD}#EXT-X-SKIP:SKIPPED-SEGMENTS=2\n#EXTINF:2.0,\n12.m4s\n#EXTINF:2.0,\n13.m4s\n"
        ));
        assert_ne!(merge(&old, &bare), Some(normal(&full)), "the MAP is missing");
        let many = read(&format!("{HEAD}#EXT-X-SKIP:SKIPPED-SEGMENTS=9\n#EXTINF:2.0,\n19.m4s\n"));
        assert_eq!(merge(&old, &many), None);
    }

    #[test]
    fn date_ranges_are_merged() {
        let range =
            |id: &str| format!("#EXT-X-DATERANGE:ID=\"{id}\",START-DATE=\"2026-01-01T00:00:00.000Z\"\n");
        let old = read(&format!("{HEAD}{OLD_END}{}{}", range("a"), range("b")));
        let full = read(&format!("{HEAD}{OLD_END}{}{}", range("b"), range("c")));
        let skip = "#EXT-X-SKIP:SKIPPED-SEGMENTS=1,RECENTLY-REMOVED-DATERANGES=\"a\"\n#EXT-X-MAP:URI=\"i\"\n\
            #EXT-X-DISCONTINUITY\n#EXTINF:2.0,\n11.m4s\n";
        let delta = read(&format!("{HEAD}{skip}{}", range("c")));
        assert_eq!(merge(&old, &delta), Some(normal(&full)));
        assert_eq!(removed_ranges(&delta).len(), 1);
    }
}
