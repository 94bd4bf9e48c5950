//! `sigma-load verify`: the ground truth of runs against the origin's REST API.
//!
//! Deliberately absent: the comparison (`compare`). Reads only; every body is bounded.

pub(crate) mod compare;

use crate::address::{Address, AddressError};
use crate::check::date::date_time;
use crate::dial::{Dialer, Protocol};
use crate::fetch::{FetchError, Link};
use compare::{Bars, Seen, Told, Totals, Truth, Verification};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::Instant;

/// Largest answer read.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Seconds of a series asked for at once.
const SERIES_S: u64 = 3_600;
/// Sessions asked for at once, and at most.
const PAGE: usize = 1_000;
const SESSIONS_MAX: usize = 2_000_000;
/// Between two looks at whether the numbers are final.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Nothing could be compared.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VerifyError {
    #[error("{path}: {error}")]
    File { path: PathBuf, error: std::io::Error },
    #[error("{path}, line {line}: no ground truth: {error}")]
    Line { path: PathBuf, line: usize, error: serde_json::Error },
    #[error("no playback session of channel {0} in the ground truth; was it another channel?")]
    Nothing(String),
    #[error("{0} sessions of the ground truth have no id: accounting is off at the edge they watched at")]
    Anonymous(usize),
    #[error("{path}: {source}")]
    Fetch { path: String, source: FetchError },
    #[error("no complete answer from the origin within {0:?}")]
    Timeout(Duration),
    #[error("{path}: the origin answers {status}{hint}: {text}")]
    Status { path: String, status: StatusCode, hint: &'static str, text: String },
    #[error("{path}: an answer that is not what it should be: {reason}")]
    Answer { path: String, reason: String },
    #[error(transparent)]
    Address(#[from] AddressError),
}

/// What to compare.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    pub(crate) truth: Vec<PathBuf>,
    /// The origin's API, `http://127.0.0.1:7070`.
    pub(crate) url: Address,
    pub(crate) token: Option<String>,
    pub(crate) channel: String,
    /// What the origin's totals were before the run; `None`: nobody asked.
    pub(crate) before: Option<Totals>,
    pub(crate) bars: Bars,
    /// How long to wait for final numbers at most.
    pub(crate) wait: Duration,
    /// For one request.
    pub(crate) timeout: Duration,
}

/// Reads the logs, asks the origin and compares.
pub(crate) async fn run(dialer: &Dialer, order: &Order) -> Result<Verification, VerifyError> {
    let mut truth = Vec::new();
    for path in &order.truth {
        truth.extend(read(path)?);
    }
    truth.retain(|truth| truth.channel == order.channel);
    let anonymous = truth.iter().filter(|truth| truth.session.is_empty() && truth.parts > 0).count();
    if anonymous > 0 {
        return Err(VerifyError::Anonymous(anonymous));
    }
    truth.retain(|truth| !truth.session.is_empty());
    let window = compare::window(&truth).ok_or_else(|| VerifyError::Nothing(order.channel.clone()))?;
    let mut client = Client::new(order);
    client.until_final(dialer, window.1, order.wait).await?;
    let told = client.told(dialer, window).await?;
    Ok(compare::compare(&truth, &told, order.bars))
}

/// The origin's totals now, with everything that was watched until now, if `order.wait` is long enough for that.
pub(crate) async fn totals(dialer: &Dialer, order: &Order) -> Result<Totals, VerifyError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut client = Client::new(order);
    client.until_final(dialer, now, order.wait).await?;
    client.totals(dialer).await
}

fn read(path: &Path) -> Result<Vec<Truth>, VerifyError> {
    let file = |error| VerifyError::File { path: path.to_owned(), error };
    let text = std::fs::read_to_string(path).map_err(file)?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let line = |(number, line)| {
        serde_json::from_str(line).map_err(|error| VerifyError::Line {
            path: path.to_owned(),
            line: number + 1,
            error,
        })
    };
    lines.map(line).collect()
}

/// Of a channel that nobody watched yet, only the first is there.
#[derive(Debug, Deserialize)]
struct Summary {
    final_until: Option<String>,
    #[serde(default)]
    views: u64,
    #[serde(default)]
    watch_ms: u64,
}

#[derive(Debug, Deserialize)]
struct SessionPage {
    items: Vec<SessionItem>,
    next_cursor: Option<String>,
}

#[derive(Debug, Deserialize)]
struct SessionItem {
    session: String,
    first_media_at: Option<String>,
    last_at: Option<String>,
    watch_ms: u64,
    #[serde(default)]
    pops: Vec<String>,
    /// Media was delivered to its end; where the origin does not say, that it has a first moment of media tells.
    view: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct Series {
    points: Vec<SeriesPoint>,
    #[serde(default)]
    by: Vec<SeriesOf>,
}

#[derive(Debug, Deserialize)]
struct SeriesOf {
    pop: String,
    points: Vec<SeriesPoint>,
}

#[derive(Debug, Deserialize)]
struct SeriesPoint {
    at: String,
    viewers: u64,
}

struct Client<'a> {
    link: Link,
    order: &'a Order,
    base: String,
}

impl<'a> Client<'a> {
    fn new(order: &'a Order) -> Self {
        let link = Link::new(&order.url.authority, Protocol::H1, order.timeout);
        let prefix = order.url.path.trim_end_matches('/');
        Self { link, order, base: format!("{prefix}/api/v1/stats/{}", order.channel) }
    }

    async fn get<T: DeserializeOwned>(&mut self, dialer: &Dialer, path: &str) -> Result<T, VerifyError> {
        let timeout = self.order.timeout;
        match tokio::time::timeout(timeout, Box::pin(self.exchange(dialer, path))).await {
            Ok(answer) => answer,
            Err(_) => Err(VerifyError::Timeout(timeout)),
        }
    }

    async fn exchange<T: DeserializeOwned>(&mut self, dialer: &Dialer, path: &str) -> Result<T, VerifyError> {
        let mut request = Request::get(path).header(header::ACCEPT, "application/json");
        if let Some(token) = &self.order.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let fetch = |source| VerifyError::Fetch { path: path.to_owned(), source };
        let answer = |reason: String| VerifyError::Answer { path: path.to_owned(), reason };
        let response = self.link.request(dialer, request).await.map_err(fetch)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let bytes = body.map_err(|error| answer(error.to_string()))?.to_bytes();
        if status != StatusCode::OK {
            let hint = match status {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                    " (the token is in admin.token of the origin's data_dir: --token-file)"
                }
                StatusCode::NOT_FOUND => " (no such channel there?)",
                _ => "",
            };
            let text = String::from_utf8_lossy(&bytes).chars().take(300).collect();
            return Err(VerifyError::Status { path: path.to_owned(), status, hint, text });
        }
        serde_json::from_slice(&bytes).map_err(|error| answer(error.to_string()))
    }

    /// Waits until all POPs have reported the time up to that second. Numbers that do not become final are compared as
    /// they are.
    async fn until_final(&mut self, dialer: &Dialer, second: u64, wait: Duration) -> Result<(), VerifyError> {
        let give_up = Instant::now() + wait;
        loop {
            let path = self.base.clone();
            let summary: Summary = self.get(dialer, &path).await?;
            let until = summary.final_until.as_deref().and_then(unix_ms);
            if until.is_some_and(|ms| ms >= second * 1000) {
                return Ok(());
            }
            if Instant::now() >= give_up {
                tracing::warn!(final_until = ?summary.final_until, "numbers are not final yet, compared as they are");
                return Ok(());
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    async fn totals(&mut self, dialer: &Dialer) -> Result<Totals, VerifyError> {
        let path = self.base.clone();
        let Summary { views, watch_ms, .. } = self.get(dialer, &path).await?;
        Ok(Totals { views, watch_ms })
    }

    async fn told(&mut self, dialer: &Dialer, (from, to): (u64, u64)) -> Result<Told, VerifyError> {
        let base = self.base.clone();
        let totals = self.totals(dialer).await?;
        let mut told = Told { totals, before: self.order.before, ..Told::default() };
        let mut cursor = String::new();
        loop {
            let path = format!("{base}/playback-sessions?limit={PAGE}{cursor}");
            let page: SessionPage = self.get(dialer, &path).await?;
            told.sessions.extend(page.items.into_iter().map(seen));
            match page.next_cursor {
                Some(next) if told.sessions.len() < SESSIONS_MAX => cursor = format!("&cursor={next}"),
                _ => break,
            }
        }
        let mut start = from;
        while start < to {
            let end = (start + SERIES_S).min(to);
            let path =
                format!("{base}/series?from={}&to={}&resolution=1s&by=pop", rfc3339(start), rfc3339(end));
            let series: Series = self.get(dialer, &path).await?;
            enter(&mut told.viewers, &series.points);
            for of in &series.by {
                enter(told.viewers_by_pop.entry(of.pop.clone()).or_default(), &of.points);
            }
            start = end;
        }
        Ok(told)
    }
}

fn seen(item: SessionItem) -> Seen {
    let first = item.first_media_at.as_deref().and_then(unix_ms);
    Seen {
        session: item.session,
        first_media_at_ms: first.filter(|_| item.view != Some(false)),
        last_at_ms: item.last_at.as_deref().and_then(unix_ms),
        watch_ms: item.watch_ms,
        pops: item.pops,
    }
}

fn enter(viewers: &mut BTreeMap<u64, u64>, points: &[SeriesPoint]) {
    for point in points {
        if let Some(ms) = unix_ms(&point.at) {
            viewers.insert(ms / 1000, point.viewers);
        }
    }
}

fn unix_ms(text: &str) -> Option<u64> {
    u64::try_from(date_time(text)?.unix_us / 1000).ok()
}

fn rfc3339(second: u64) -> String {
    sigma_shared::playlist::DateTime(i64::try_from(second).unwrap_or(0) * 1000).to_string()
}

#[cfg(test)]
pub(crate) mod tests;
