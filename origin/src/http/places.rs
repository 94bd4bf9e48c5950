//! Sessions that have a place at a POP, and what it is to know of the others of their subjects: `POST /internal/edge/places`.
//!
//! Invariants: as with reports, only a POP that has shown its certificate speaks, for itself or, if it is a shield, for a POP
//! behind it; nothing is kept but in memory, so after a fail-over another origin knows as much as soon as every POP has spoken.

use super::reports::{self, RETRY_AFTER_S, VERSION_RETRY_AFTER_S};
use crate::places::Table;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use sigma_http::problem::Problem;
use sigma_http::request_body::{BodyError, RequestBody};
use sigma_report::places::{BYTES_MAX, InvalidPlaces, MEDIA_TYPE, Places};
use sigma_shared::id::PopId;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What takes longer to arrive is not true any more.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who has a place where, shared by all who are asked.
pub(super) struct Holders {
    table: Arc<Mutex<Table>>,
    began: Instant,
}

impl Holders {
    pub(super) fn new() -> Self {
        Self { table: Arc::new(Mutex::new(Table::new())), began: Instant::now() }
    }

    /// Hears what a POP says, and tells it what there is elsewhere.
    pub(super) async fn take(
        &self,
        shields: &[PopId],
        request: &Request<()>,
        (client, body): (Option<&str>, RequestBody),
    ) -> Response<Full<Bytes>> {
        let pop = match reports::reporter(shields, request, client) {
            Ok(pop) => pop,
            Err(problem) => {
                body.discard().await;
                return problem.response();
            }
        };
        let answer = match body.read(BYTES_MAX, PATIENCE).await.map_err(BodyError::problem) {
            Ok(bytes) => self.heard(pop, bytes).await,
            Err(problem) => Err(problem),
        };
        match answer {
            Ok(answer) => {
                let mut response = Response::new(Full::new(answer.into()));
                let head = response.headers_mut();
                head.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
                head.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
                response
            }
            Err(problem) => problem.response(),
        }
    }

    /// On a thread that may be busy for a while: a POP may speak of tens of thousands.
    async fn heard(&self, pop: PopId, bytes: Bytes) -> Result<Vec<u8>, Problem> {
        let now_ms = i64::try_from(self.began.elapsed().as_millis()).unwrap_or(i64::MAX);
        let table = Arc::clone(&self.table);
        let hearing = tokio::task::spawn_blocking(move || {
            let said = Places::decode(&bytes).map_err(|error| problem_of(&error))?;
            let full = |error: crate::places::TableFull| {
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()).retry_after_s(RETRY_AFTER_S)
            };
            let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
            let answer = table.hear(&pop, &said, now_ms).map_err(full)?;
            drop(table);
            answer.encode().map_err(|error| problem_of(&error))
        });
        let failed = |_| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the places could not be looked up");
        hearing.await.map_err(failed)?
    }
}

fn problem_of(error: &InvalidPlaces) -> Problem {
    match error {
        InvalidPlaces::Version(_) => Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, error.to_string())
            .retry_after_s(VERSION_RETRY_AFTER_S),
        InvalidPlaces::TooMany { .. } => Problem::new(StatusCode::PAYLOAD_TOO_LARGE, error.to_string()),
        InvalidPlaces::Form(_) | InvalidPlaces::Range(_) => {
            Problem::new(StatusCode::BAD_REQUEST, error.to_string())
        }
    }
}
