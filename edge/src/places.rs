//! Makes the limit of sessions that tokens set hold over the whole cluster: tells the upstream who has a place here, and hears
//! who loses it and what there is elsewhere (`presence` decides by that).
//!
//! Invariants: no viewer waits for this; one post at a time, none while nobody with a limit is here or was refused lately, and
//! one with nothing in it when that begins; whatever goes wrong, the limit is this edge's alone until there is an answer again,
//! and the log says it once. Deliberately absent: keeping anything of it; the next post says everything again.

use crate::admission::moment;
use crate::metrics::Metrics;
use crate::presence::{Presence, Told};
use crate::upstream::Upstream;
use http::header::{self, HeaderMap, HeaderValue};
use sigma_report::places::{ANSWER_BYTES_MAX, Answer, MEDIA_TYPE, PATH, Places};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often is told, and for how many sessions at most so often: with more, less often.
const EVERY: Duration = Duration::from_secs(1);
const SESSIONS_A_SECOND: usize = 10_000;
/// However many there are: well before what was said last is forgotten.
const EVERY_MAX: Duration = Duration::from_millis(6_500);
/// After the upstream would not take it: perhaps one that is newer does.
const REST: Duration = Duration::from_secs(10);
/// How long the body of an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// So much of a refusal is logged.
const WHY_CHARS: usize = 300;

/// Who has a place here, for all who ask.
pub(crate) struct Seats(Mutex<Presence>);

impl Seats {
    pub(crate) fn new(presence: Presence) -> Arc<Self> {
        Arc::new(Self(Mutex::new(presence)))
    }

    pub(crate) fn presence(&self) -> MutexGuard<'_, Presence> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why there is no answer.
enum Failure {
    /// Not now.
    Later(String),
    /// Not from this upstream as it is.
    Refused(String),
}

/// What the log has said.
#[derive(Debug, Default)]
struct Said {
    failing: bool,
    untold: bool,
}

/// Tells and hears for as long as the process lives.
pub(crate) async fn keep_told(seats: Arc<Seats>, upstream: Upstream, metrics: Arc<Metrics>) {
    let process = fastrand::u64(..);
    let (mut rest, mut is_known, mut said) = (EVERY, false, Said::default());
    loop {
        tokio::time::sleep(rest).await;
        let Told { subjects, counted, untold } = seats.presence().tell(moment());
        rest = every(counted);
        let nothing = subjects.is_empty();
        if nothing && !is_known {
            continue;
        }
        said.untold(untold);
        is_known = !nothing;
        let outcome = post(&upstream, &Places { process, subjects }).await;
        match &outcome {
            Ok(answer) => {
                let lost = seats.presence().hear(answer, moment());
                metrics.places.answered.inc();
                metrics.places_lost.inc_by(lost);
            }
            Err(Failure::Later(_)) => {
                metrics.places.failed.inc();
            }
            Err(Failure::Refused(_)) => {
                metrics.places.refused.inc();
                rest = rest.max(REST);
            }
        }
        said.outcome(outcome.err());
    }
}

fn every(counted: usize) -> Duration {
    let crowd = Duration::from_millis(u64::try_from(counted * 1000 / SESSIONS_A_SECOND).unwrap_or(u64::MAX));
    crowd.clamp(EVERY, EVERY_MAX)
}

impl Said {
    fn outcome(&mut self, failure: Option<Failure>) {
        let failing = failure.is_some();
        match failure {
            Some(Failure::Later(why) | Failure::Refused(why)) if !self.failing => tracing::warn!(
                why,
                "max_sessions of tokens is a limit of this edge alone until the upstream says who watches elsewhere"
            ),
            None if self.failing => tracing::info!("max_sessions of tokens is a limit over all edges again"),
            _ => {}
        }
        self.failing = failing;
    }

    fn untold(&mut self, untold: usize) {
        if untold > 0 && !self.untold {
            tracing::warn!(
                untold,
                "more sessions with max_sessions than can be told: for these it is a limit of this edge alone"
            );
        }
        self.untold = untold > 0;
    }
}

async fn post(upstream: &Upstream, places: &Places) -> Result<Answer, Failure> {
    let bytes = places.encode().map_err(|error| Failure::Refused(error.to_string()))?;
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    let later = |error: &dyn ToString| Failure::Later(error.to_string());
    let answer = upstream.post(PATH, headers, bytes.into()).await.map_err(|error| later(&error))?;
    let (head, body) = answer.into_parts();
    let Some(bytes) = body.whole(ANSWER_BYTES_MAX, PATIENCE).await else {
        return Err(later(&"the answer broke off"));
    };
    let status = head.status;
    if status.is_success() {
        return Answer::decode(&bytes).map_err(|error| Failure::Refused(format!("the answer: {error}")));
    }
    let text: String = String::from_utf8_lossy(&bytes).chars().take(WHY_CHARS).collect();
    let why = format!("{status}: {text}");
    Err(if status.is_client_error() { Failure::Refused(why) } else { Failure::Later(why) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_is_told_of_less_often_but_often_enough() {
        for (counted, ms) in [(0, 1_000), (10_000, 1_000), (25_000, 2_500), (65_000, 6_500), (1 << 24, 6_500)]
        {
            assert_eq!(every(counted), Duration::from_millis(ms), "{counted}");
        }
    }
}
