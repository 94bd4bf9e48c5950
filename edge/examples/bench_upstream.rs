//! An upstream for measuring an edge by itself: HTTP/2 with prior knowledge (and HTTP/1.1), objects made of nothing.
//!
//! `/live/{kind}/{rendition}/…`, where the rendition says what is wanted, in numbers separated by `-`:
//! `obj`: `s{bytes}` at once; `hold`: `h{ms}-s{bytes}` that long after the first request for the path, `stream`:
//! `t{ms}-n{chunks}-s{bytes}` one chunk each that many milliseconds. `/stats` lists how often each path was asked for,
//! `/reset` forgets. Bodies start with `A` and the nanoseconds of the monotonic clock at which they were made.
#![expect(clippy::print_stdout, reason = "it says where it listens")]

mod bench_objects;

use bench_objects::{number, stamped};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use sigma_http::connections::ConnectionMetrics;
use sigma_http::drain::Drain;
use sigma_http::listener::{Bound, Limits, Server};
use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;

type Answer = Response<BoxBody<Bytes, Infallible>>;

#[derive(Default)]
struct State {
    /// Per path: how often it was asked for, and when it was first.
    asked: Mutex<HashMap<String, (u64, Instant)>>,
}

/// A body fed by a task.
struct Fed(mpsc::Receiver<Bytes>);

impl http_body::Body for Fed {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk))))
    }
}

fn whole(status: StatusCode, body: Bytes) -> Answer {
    let response = Response::builder().status(status).header("cache-control", "max-age=3600");
    response.body(Full::new(body).boxed()).unwrap_or_default()
}

async fn answer(state: Arc<State>, path: String) -> Answer {
    let asked = || state.asked.lock().unwrap_or_else(PoisonError::into_inner);
    match path.as_str() {
        "/stats" => {
            let mut text = String::new();
            for (path, (times, _)) in asked().iter() {
                let _ = writeln!(text, "{times} {path}");
            }
            return whole(StatusCode::OK, text.into());
        }
        "/reset" => {
            asked().clear();
            return whole(StatusCode::OK, Bytes::new());
        }
        _ => {}
    }
    let first = {
        let mut asked = asked();
        let entry = asked.entry(path.clone()).or_insert_with(|| (0, Instant::now()));
        entry.0 += 1;
        entry.1
    };
    let mut words = path.split('/').skip(2);
    let (kind, wanted) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let size = number(wanted, 's');
    match kind {
        "obj" => whole(StatusCode::OK, stamped(size)),
        "hold" => {
            tokio::time::sleep_until(first + Duration::from_millis(number(wanted, 'h'))).await;
            whole(StatusCode::OK, stamped(size))
        }
        "stream" => {
            let (rest, chunks) = (Duration::from_millis(number(wanted, 't')), number(wanted, 'n'));
            let (feed, fed) = mpsc::channel(1);
            tokio::spawn(async move {
                for chunk in 0..chunks {
                    if chunk > 0 {
                        tokio::time::sleep(rest).await;
                    }
                    if feed.send(stamped(size)).await.is_err() {
                        return;
                    }
                }
            });
            Response::builder()
                .header("cache-control", "max-age=3600")
                .body(Fed(fed).boxed())
                .unwrap_or_default()
        }
        _ => whole(StatusCode::NOT_FOUND, Bytes::new()),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9000".to_owned()).parse()?;
    let limits = Limits { h2_streams_max: 100_000, ..Limits::default() };
    let server = Server::new(limits, ConnectionMetrics::default(), Drain::new());
    let bound = Bound::bind(address)?;
    println!("{}", bound.local_addr());
    let state = Arc::new(State::default());
    let served = server.serve(bound, None, move |request: Request<_>, _| {
        let path = request.uri().path_and_query().map_or_else(String::new, ToString::to_string);
        answer(Arc::clone(&state), path)
    });
    served.await?;
    Ok(())
}
