//! `GET /api/v1/pops`: the POPs that ever reported.

use super::params::{Params, wrong};
use super::{Answer, date, not_now};
use serde_json::{Value, json};
use sigma_shared::id::PopId;
use sigma_stats::aggregate::PopView;
use sigma_stats::keeper::{Stats, now_ms};

pub(super) async fn list(stats: &Stats, mut params: Params) -> Answer {
    let limit = params.limit()?;
    let after = match params.take("cursor") {
        None => None,
        Some(cursor) => {
            let pop: Option<PopId> = cursor.parse().ok();
            Some(pop.ok_or_else(|| wrong("cursor", &cursor, "a `next_cursor` of this list is expected"))?)
        }
    };
    params.finish()?;
    let now_ms = now_ms();
    let pops = stats.ask(move |aggregate| aggregate.pops(now_ms)).await.map_err(not_now)?;
    let mut rest = pops.iter().filter(|pop| after.as_ref().is_none_or(|after| pop.id > *after)).peekable();
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let page: Vec<&PopView> = rest.by_ref().take(limit).collect();
    let next_cursor = page.last().filter(|_| rest.peek().is_some()).map(|pop| pop.id.to_string());
    let items: Vec<Value> = page.into_iter().map(|pop| item(pop, now_ms)).collect();
    Ok(json!({ "items": items, "next_cursor": next_cursor }))
}

fn item(view: &PopView, now_ms: u64) -> Value {
    let (pop, description) = (&view.pop, &view.pop.description);
    json!({
        "id": view.id.to_string(),
        "name": description.name,
        "region": description.region,
        "latitude": description.coordinates.map(|(latitude, _)| latitude),
        "longitude": description.coordinates.map(|(_, longitude)| longitude),
        "capacity_viewers": (description.capacity_viewers > 0).then_some(description.capacity_viewers),
        "version": description.version,
        "connections": description.connections,
        "status": if pop.is_up(now_ms) { "up" } else { "silent" },
        "last_report_at": date(pop.last_report_ms),
        "incarnation": pop.newest.0,
        "viewers": view.viewers,
        "clock_offset_ms": pop.clock_offset_ms,
    })
}
