//! `GET /api/v1/stats/{channel}/series`: viewers and traffic over time.

use super::numbers::{By, named};
use super::params::{Params, wrong};
use super::{Answer, date, not_now};
use http::StatusCode;
use serde_json::{Value, json};
use sigma_http::problem::Problem;
use sigma_shared::id::ChannelId;
use sigma_stats::aggregate::{Broadcast, DAY_MS, Retention};
use sigma_stats::keeper::{Stats, now_ms};
use sigma_stats::scope::Scope;
use sigma_stats::series::Resolution;
use std::ops::Range;

/// Points of one series.
const POINTS_MAX: u64 = 11_000;
/// Points when nobody says from when.
const POINTS: u64 = 300;
/// Broadcast sessions that are told apart at once; the newest within the time.
const BROADCASTS_MAX: usize = 100;

/// What is asked for.
struct Asked {
    channel: ChannelId,
    resolution: Resolution,
    /// Unix seconds, whole points.
    seconds: Range<u64>,
    by: Option<By>,
}

pub(super) async fn show(stats: &Stats, channel: ChannelId, params: Params) -> Answer {
    let now_ms = now_ms();
    let asked = Asked::read(channel, params, now_ms)?;
    asked.check_kept(stats.retention(), now_ms / 1000)?;
    let (id, wait_ms) = (asked.channel.clone(), stats.final_wait_ms());
    let known = stats.ask(move |aggregate| {
        (aggregate.final_until_ms(now_ms, wait_ms), aggregate.broadcasts(&id), aggregate.scopes(&id))
    });
    let (final_until_ms, broadcasts, scopes) = known.await.map_err(not_now)?;
    let times = Times { now_s: now_ms / 1000, final_until_ms };
    let points = points(stats, (&asked, &Scope::All, asked.seconds.clone()), times).await?;
    let mut answer = json!({
        "channel": asked.channel.to_string(),
        "resolution": name(asked.resolution),
        "final_until": date(final_until_ms),
        "points": points,
    });
    if let Some(by) = asked.by {
        let mut parts = Vec::new();
        let mut left = if by == By::Broadcast { BROADCASTS_MAX } else { usize::MAX };
        for scope in scopes.iter().filter(|scope| by.holds(scope)) {
            let Some(seconds) = within(scope, &broadcasts, &asked) else { continue };
            if left == 0 {
                break;
            }
            left -= 1;
            // A broadcast session has no series of its own: it is a stretch of its channel's.
            let of = if by == By::Broadcast { &Scope::All } else { scope };
            let points = self::points(stats, (&asked, of, seconds), times).await?;
            let mut part = named(scope, &broadcasts);
            part.insert("points".into(), points);
            parts.push(Value::Object(part));
        }
        answer["by"] = Value::Array(parts);
    }
    Ok(answer)
}

/// The stretch of time of a scope, as far as it is asked for.
fn within(scope: &Scope, broadcasts: &[Broadcast], asked: &Asked) -> Option<Range<u64>> {
    let Scope::Broadcast(start_ms) = scope else { return Some(asked.seconds.clone()) };
    let index = broadcasts.iter().position(|broadcast| broadcast.start_ms == *start_ms)?;
    let next = broadcasts.get(index + 1).map_or(u64::MAX, |next| next.start_ms / 1000);
    let point_s = asked.resolution.point_s();
    let from = asked.seconds.start.max(start_ms / 1000 / point_s * point_s);
    let to = asked.seconds.end.min(next);
    (from < to).then_some(from..to)
}

#[derive(Debug, Clone, Copy)]
struct Times {
    now_s: u64,
    final_until_ms: u64,
}

async fn points(
    stats: &Stats,
    (asked, scope, seconds): (&Asked, &Scope, Range<u64>),
    times: Times,
) -> Answer {
    let resolution = asked.resolution;
    let found = stats.series(&asked.channel, scope, (resolution, seconds.clone())).await.map_err(not_now)?;
    let length = resolution.point_s();
    let points = seconds.step_by(usize::try_from(length).unwrap_or(1)).map(|second| {
        let point = found.get(&second).copied().unwrap_or_default();
        let is_final = (second + length) * 1000 <= times.final_until_ms;
        let mut written = json!({
            "at": date(second * 1000),
            "viewers": point.viewers,
            "bytes": point.bytes,
            "requests": point.requests,
            "views": point.views,
            "final": is_final,
        });
        if resolution != Resolution::Second {
            // Of the point that is going on: what there was of it.
            let passed = (times.now_s + 1).saturating_sub(second).clamp(1, length);
            written["viewers_average"] = json!(point.viewer_seconds as f64 / passed as f64);
        }
        written
    });
    Ok(points.collect())
}

impl Asked {
    fn read(channel: ChannelId, mut params: Params, now_ms: u64) -> Result<Self, Problem> {
        let resolution = match params.take("resolution").as_deref() {
            None | Some("1s") => Resolution::Second,
            Some("1m") => Resolution::Minute,
            Some("1h") => Resolution::Hour,
            Some(other) => return Err(wrong("resolution", other, "1s, 1m or 1h is expected")),
        };
        let point_s = resolution.point_s();
        let to = params.moment("to")?.unwrap_or(now_ms).div_ceil(1000).div_ceil(point_s) * point_s;
        let from = params.moment("from")?.map(|ms| ms / 1000 / point_s * point_s);
        let from = from.unwrap_or(to.saturating_sub(POINTS * point_s));
        let by = By::take(&mut params)?;
        params.finish()?;
        if from >= to {
            return Err(Problem::new(StatusCode::BAD_REQUEST, "from: it is not before `to`"));
        }
        if (to - from) / point_s > POINTS_MAX {
            let detail = format!(
                "from: {} points are asked for, at most {POINTS_MAX} are given: ask in pieces, or with a coarser resolution",
                (to - from) / point_s
            );
            return Err(Problem::new(StatusCode::BAD_REQUEST, detail));
        }
        Ok(Self { channel, resolution, seconds: from..to, by })
    }

    /// What is not kept any more is no zero.
    fn check_kept(&self, retention: Retention, now_s: u64) -> Result<(), Problem> {
        let since = |resolution: &Resolution| {
            let oldest = now_s.saturating_sub(retention.days(*resolution) * DAY_MS / 1000);
            oldest / resolution.block_s() * resolution.block_s()
        };
        let plain = |second: u64| date(second * 1000).as_str().unwrap_or_default().to_owned();
        let from = self.seconds.start;
        if from >= since(&self.resolution) {
            return Ok(());
        }
        let kept = RESOLUTIONS.iter().find(|resolution| from >= since(resolution));
        let way_out = match kept {
            Some(resolution) => format!("ask with resolution={}", name(*resolution)),
            None => format!("ask with resolution=1h from {} on", plain(since(&Resolution::Hour))),
        };
        let detail = format!(
            "from: {} is longer ago than the {} days that a series of resolution {} is kept: {way_out}",
            plain(from),
            retention.days(self.resolution),
            name(self.resolution),
        );
        Err(Problem::new(StatusCode::BAD_REQUEST, detail))
    }
}

/// From the finest.
const RESOLUTIONS: [Resolution; 3] = [Resolution::Second, Resolution::Minute, Resolution::Hour];

fn name(resolution: Resolution) -> &'static str {
    match resolution {
        Resolution::Second => "1s",
        Resolution::Minute => "1m",
        Resolution::Hour => "1h",
    }
}
