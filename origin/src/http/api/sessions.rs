//! `GET /api/v1/stats/{channel}/playback-sessions`: every session that is kept, in the order of their ids.

use super::params::{Params, wrong};
use super::{Answer, date, not_now};
use serde_json::{Value, json};
use sigma_shared::id::ChannelId;
use sigma_stats::keeper::{Stats, now_ms};
use sigma_stats::session::SessionView;
use sigma_stats::store::{hex, unhex};

pub(super) async fn list(stats: &Stats, channel: ChannelId, mut params: Params) -> Answer {
    let limit = params.limit()?;
    let cursor = match params.take("cursor") {
        None => None,
        Some(cursor) => {
            let session = unhex(&cursor);
            Some(
                session
                    .ok_or_else(|| wrong("cursor", &cursor, "a `next_cursor` of this list is expected"))?,
            )
        }
    };
    params.finish()?;
    let at_most = u32::try_from(limit).unwrap_or(u32::MAX);
    let sessions = stats.sessions(&channel, cursor, at_most).await.map_err(not_now)?;
    let next_cursor = sessions.last().filter(|_| sessions.len() as u64 == limit).map(|(id, _)| hex(id));
    let now_ms = now_ms();
    let items = sessions.iter().map(|(id, session)| item(&session.view_of(*id), now_ms));
    Ok(json!({ "items": items.collect::<Vec<_>>(), "next_cursor": next_cursor }))
}

fn item(session: &SessionView, now_ms: u64) -> Value {
    json!({
        "session": hex(&session.session),
        "viewer": format!("{:016x}", session.viewer),
        "first_media_at": session.first_media_ms.map(date),
        "last_at": session.last_ms.map(date),
        "watch_ms": session.watch_us / 1000,
        "wall_watch_ms": session.wall_ms,
        "pops": session.pops.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "protocols": session.protocols.iter().map(|protocol| protocol.name()).collect::<Vec<_>>(),
        "viewing": session.present_until_ms > now_ms,
        "view": session.is_view,
    })
}
