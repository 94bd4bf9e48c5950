//! `GET /api/v1/pops`: the POPs that ever reported. `GET` and `DELETE /api/v1/pops/{pop}`: one of them.

use super::params::{Params, wrong};
use super::{Answer, date, not_now};
use http::StatusCode;
use serde_json::{Value, json};
use sigma_http::problem::Problem;
use sigma_shared::id::PopId;
use sigma_stats::aggregate::{NotRemoved, PopView};
use sigma_stats::keeper::{Stats, now_ms};
use sigma_stats::pops::SILENT_AFTER_MS;

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

/// One of them.
pub(super) async fn show(stats: &Stats, id: &str, params: Params) -> Answer {
    params.finish()?;
    let pop = named(id)?;
    let now_ms = now_ms();
    let pops = stats.ask(move |aggregate| aggregate.pops(now_ms)).await.map_err(not_now)?;
    pops.iter().find(|view| view.id == pop).map(|view| item(view, now_ms)).ok_or_else(|| unknown(id))
}

/// Forgets one that is silent. What came by it stays counted, also by its name.
pub(super) async fn delete(stats: &Stats, id: &str, params: Params) -> Answer {
    params.finish()?;
    match stats.remove_pop(named(id)?).await.map_err(not_now)? {
        Ok(()) => {
            tracing::info!(pop = id, "a POP was deleted by the admin");
            Ok(json!({ "deleted": id }))
        }
        Err(NotRemoved::Unknown) => Err(unknown(id)),
        Err(NotRemoved::Up) => {
            let detail = format!(
                "pop: `{id}` is up: it would be there again with its next report. Stop it, and delete it {} s later",
                SILENT_AFTER_MS / 1000
            );
            Err(Problem::new(StatusCode::CONFLICT, detail))
        }
    }
}

fn named(id: &str) -> Result<PopId, Problem> {
    id.parse().map_err(|_| unknown(id))
}

fn unknown(id: &str) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, format!("pop: there is no `{id}`"))
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
