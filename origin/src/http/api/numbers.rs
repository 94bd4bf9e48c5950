//! Numbers of viewers as the API writes them.

use super::date;
use super::params::{Params, wrong};
use serde_json::{Map, Value, json};
use sigma_http::problem::Problem;
use sigma_report::histogram::Histogram;
use sigma_stats::aggregate::{Broadcast, Summary};
use sigma_stats::scope::{Scope, broadcast_id};
use sigma_stats::totals::Quality;

/// By what numbers are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    Pop,
    Protocol,
    Broadcast,
}

impl By {
    /// From the parameter `by`.
    pub(super) fn take(params: &mut Params) -> Result<Option<Self>, Problem> {
        match params.take("by").as_deref() {
            None => Ok(None),
            Some("pop") => Ok(Some(Self::Pop)),
            Some("protocol") => Ok(Some(Self::Protocol)),
            Some("broadcast") => Ok(Some(Self::Broadcast)),
            Some(other) => Err(wrong("by", other, "pop, protocol or broadcast is expected")),
        }
    }

    /// Whether a scope is one of these.
    pub(super) fn holds(self, scope: &Scope) -> bool {
        matches!(
            (self, scope),
            (Self::Pop, Scope::Pop(_))
                | (Self::Protocol, Scope::Protocol(_))
                | (Self::Broadcast, Scope::Broadcast(_))
        )
    }
}

/// An object that says what it is of.
pub(super) fn named(scope: &Scope, broadcasts: &[Broadcast]) -> Map<String, Value> {
    let mut object = Map::new();
    match scope {
        Scope::All => {}
        Scope::Pop(pop) => drop(object.insert("pop".into(), pop.to_string().into())),
        Scope::Protocol(protocol) => drop(object.insert("protocol".into(), protocol.name().into())),
        Scope::Broadcast(start_ms) => {
            object.insert("broadcast".into(), broadcast_id(*start_ms).into());
            object.insert("started_at".into(), date(*start_ms));
            let known = broadcasts.iter().find(|broadcast| broadcast.start_ms == *start_ms);
            let ended = known.and_then(|broadcast| broadcast.end_ms);
            object.insert("ended_at".into(), ended.map_or(Value::Null, date));
        }
    }
    object
}

/// Writes a summary into an object.
pub(super) fn write(object: &mut Map<String, Value>, summary: &Summary) {
    let totals = &summary.totals;
    let quality = totals.quality.is_known().then_some(&totals.quality);
    let peak_at = (totals.peak_viewers > 0).then(|| date(totals.peak_second * 1000));
    // Who says that it starved need not say for how long: CMCD v1 cannot. Nothing is known then, not none.
    let timed = |quality: &&Quality| quality.starved_ms > 0 || quality.starvations == 0;
    // Of whoever does not speak, nothing is known either.
    let spoken = quality.filter(timed).map(|quality| quality.spoken).filter(|spoken| spoken.ms > 0);
    let ratio = spoken.map(|spoken| spoken.starved_ms as f64 / spoken.ms as f64);
    let numbers = json!({
        "viewers": summary.viewers,
        "peak_viewers": totals.peak_viewers,
        "peak_at": peak_at,
        "views": totals.views,
        "unique_viewers": summary.unique_viewers,
        "unique_viewers_estimated": summary.is_estimated,
        "watch_ms": totals.watch_us / 1000,
        "wall_watch_ms": totals.wall_ms,
        "average_watch_ms": (totals.watch_us / 1000).checked_div(totals.views),
        "bytes": totals.bytes,
        "requests": totals.requests,
        "starvations": quality.map(|quality| quality.starvations),
        "rebuffer_ratio": ratio,
        "startup_ms": percentiles(&totals.quality.startup_ms),
        "latency_ms": percentiles(&totals.quality.latency_ms),
        "throughput_kbps": percentiles(&totals.quality.throughput_kbps),
    });
    if let Value::Object(numbers) = numbers {
        object.extend(numbers);
    }
}

fn percentiles(histogram: &Histogram) -> Value {
    let at = |at: f64| histogram.quantile(at);
    json!({ "p50": at(0.5), "p95": at(0.95), "p99": at(0.99), "count": histogram.count() })
}
