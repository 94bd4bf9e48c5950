//! One request over HTTP/3 and its answer, on a task of its own.
//!
//! Invariants: a request is given up when its viewer gives it up, and an answer when its viewer does not take it; an answer that
//! broke never looks like one that ended. Deliberately absent: which requests are accepted, and when the connection ends (`quic`).

use crate::activity::{Activity, InFlight, OwedPiece};
use crate::answers::Answer;
use crate::gate::{self, Verdict};
use crate::h3_streams::{Aside, Exchange, Payload, Receive, Reply, Streams};
use crate::listener::held_too_much;
use crate::piece::{Piece, in_pieces};
use crate::problem::Problem;
use crate::request_body::RequestBody;
use bytes::{Buf, Bytes};
use h3::error::Code;
use h3::server::{RequestResolver, RequestStream};
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Either};
use prometheus_client::metrics::counter::Counter;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

type BoxError = Box<dyn std::error::Error + Send + Sync>;
type Sending = RequestStream<Reply<Bytes>, Bytes>;

/// What is written at once.
const WRITE_BYTES_MAX: usize = 256 * 1024;

/// What is known of a request beside itself.
pub(crate) struct Asked {
    pub(crate) in_flight: InFlight,
    pub(crate) malformed: Counter,
    /// Not by a POP.
    pub(crate) by_viewer: bool,
    /// For its head.
    pub(crate) patience: Duration,
}

impl Asked {
    /// Answers the request that `resolver` is for.
    pub(crate) async fn answered<F, B>(
        self,
        resolver: RequestResolver<Streams, Bytes>,
        aside: Aside,
        respond: impl FnOnce(Request<RequestBody>) -> F,
    ) where
        F: Future<Output = Response<B>>,
        B: Body<Data: Piece>,
        B::Error: Into<BoxError>,
    {
        match tokio::time::timeout(self.patience, resolver.resolve_request()).await {
            Ok(Ok(resolved)) => exchange(resolved, aside, self, respond).await,
            _ => self.in_flight.activity().gave_up(),
        }
    }
}

/// Answers a request, or refuses it and counts that.
async fn exchange<F, B>(
    (request, exchange): (Request<()>, RequestStream<Exchange<Bytes>, Bytes>),
    aside: Aside,
    asked: Asked,
    respond: impl FnOnce(Request<RequestBody>) -> F,
) where
    F: Future<Output = Response<B>>,
    B: Body<Data: Piece>,
    B::Error: Into<BoxError>,
{
    let (sending, receiving) = exchange.split();
    let (request, unwanted) = with_body(request, receiving);
    match gate::judge(&request, false) {
        Verdict::Refuse(words) => {
            asked.malformed.inc();
            let refusal = Problem::new(StatusCode::BAD_REQUEST, words).response();
            answer(sending, aside, std::future::ready(refusal), asked).await;
        }
        _ => answer(sending, aside, respond(request), asked).await,
    }
    if let Some(mut receiving) = unwanted {
        receiving.stop_sending(Code::H3_NO_ERROR);
    }
}

/// The request with what may come with it; nothing that is read comes with a request for reading.
fn with_body(
    request: Request<()>,
    receiving: RequestStream<Receive, Bytes>,
) -> (Request<RequestBody>, Option<RequestStream<Receive, Bytes>>) {
    match *request.method() {
        Method::GET | Method::HEAD | Method::OPTIONS => {
            (request.map(|()| RequestBody::empty()), Some(receiving))
        }
        _ => (request.map(|()| RequestBody::http3(receiving)), None),
    }
}

/// Sends the response when it is there, unless the viewer gives up before.
async fn answer<F, B>(mut sending: Sending, mut aside: Aside, response: F, asked: Asked)
where
    F: Future<Output = Response<B>>,
    B: Body<Data: Piece>,
    B::Error: Into<BoxError>,
{
    let response = tokio::select! {
        response = response => response,
        () = &mut aside.stopped => return asked.in_flight.activity().gave_up(),
    };
    let activity = asked.in_flight.activity();
    let response = match asked.by_viewer && activity.shed(response.body()) {
        true => in_pieces(held_too_much()).map(Either::Right),
        false => response.map(Either::Left),
    };
    let answer = Answer::new(activity.answers(), response.body().size_hint().lower());
    aside.payload.belongs_to(&answer);
    let sent = async {
        send(&mut sending, &aside.payload, response, (activity, &answer)).await?;
        // What is sent is not there yet: closing the connection now would lose the end of it. Bounded by the rate at which
        // the peer has to take it.
        let _owed = OwedPiece::new(&answer, activity);
        aside.stopped.await;
        Ok::<_, BoxError>(())
    };
    let ended = tokio::select! {
        biased;
        sent = sent => sent.map_err(|error| (Code::H3_INTERNAL_ERROR, error)),
        () = activity.until_stuck(&answer) => Err((Code::H3_REQUEST_CANCELLED, "it is not taken".into())),
    };
    if let Err((code, error)) = ended {
        activity.gave_up();
        tracing::debug!(%error, "response not sent");
        sending.stop_stream(code);
    }
}

async fn send<B>(
    sending: &mut Sending,
    payload: &Payload,
    response: Response<B>,
    (activity, answer): (&Arc<Activity>, &Arc<Answer>),
) -> Result<(), BoxError>
where
    B: Body<Data: Piece>,
    B::Error: Into<BoxError>,
{
    let (mut head, body) = response.into_parts();
    let mut body = pin!(body.map_err(Into::<BoxError>::into));
    if let Some(length) = body.size_hint().exact().filter(|_| !body.is_end_stream()) {
        head.headers.entry(header::CONTENT_LENGTH).or_insert_with(|| HeaderValue::from(length));
    }
    if let Ok(now) = HeaderValue::from_str(&httpdate::fmt_http_date(SystemTime::now())) {
        head.headers.entry(header::DATE).or_insert(now);
    }
    sending.send_response(Response::from_parts(head, ())).await?;
    let mut given = 0;
    while let Some(frame) = body.frame().await {
        let Ok(mut piece) = frame?.into_data() else { continue };
        given += piece.remaining() as u64;
        answer.holds(given);
        let mut rest = piece.rest();
        while !rest.is_empty() {
            let written = rest.split_to(rest.len().min(WRITE_BYTES_MAX));
            let length = written.len();
            payload.set(written.clone());
            // While it waits for the transport it is owed; while it waits for its source it is not.
            let _owed = OwedPiece::new(answer, activity);
            sending.send_data(written).await?;
            piece.advance(length);
        }
    }
    sending.finish().await?;
    Ok(())
}
