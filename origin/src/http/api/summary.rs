//! `GET /api/v1/stats/{channel}`: what is known of a channel now, and in sum.

use super::numbers::{By, named, write};
use super::params::Params;
use super::{Answer, date, not_now};
use serde_json::Value;
use sigma_shared::id::ChannelId;
use sigma_stats::keeper::{Stats, now_ms};
use sigma_stats::scope::Scope;

/// Broadcast sessions that are told apart at once; the newest.
const BROADCASTS_MAX: usize = 100;

pub(super) async fn show(stats: &Stats, channel: ChannelId, mut params: Params) -> Answer {
    let by = By::take(&mut params)?;
    params.finish()?;
    let (wait_ms, now_ms) = (stats.final_wait_ms(), now_ms());
    let asked = stats.ask(move |aggregate| {
        let mut object = named(&Scope::All, &[]);
        object.insert("channel".into(), channel.to_string().into());
        object.insert("at".into(), date(now_ms));
        object.insert("final_until".into(), date(aggregate.final_until_ms(now_ms, wait_ms)));
        if let Some(summary) = aggregate.summary(&channel, &Scope::All, now_ms) {
            write(&mut object, &summary);
        }
        if let Some(by) = by {
            let broadcasts = aggregate.broadcasts(&channel);
            let scopes = aggregate.scopes(&channel).into_iter().filter(|scope| by.holds(scope));
            let parts = scopes.take(if by == By::Broadcast { BROADCASTS_MAX } else { usize::MAX });
            let parts = parts.filter_map(|scope| {
                let mut part = named(&scope, &broadcasts);
                write(&mut part, &aggregate.summary(&channel, &scope, now_ms)?);
                Some(Value::Object(part))
            });
            object.insert("by".into(), parts.collect());
        }
        Value::Object(object)
    });
    asked.await.map_err(not_now)
}
