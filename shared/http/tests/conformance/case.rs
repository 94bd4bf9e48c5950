//! One row of the table, and how it is run.

use super::wire::{self, Received, flag, kind, take_frame};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use sigma_http::connections::ConnectionMetrics;
use sigma_http::drain::Drain;
use sigma_http::listener::{Bound, Limits, Server};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Whatever takes longer than this will not happen.
const PATIENCE: Duration = Duration::from_secs(20);
/// What `/big` answers.
pub(super) const BIG_BYTES: usize = 200_000;
/// How many requests may be open at once.
pub(super) const STREAMS_MAX: u32 = 10;

/// What the client does.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// Sends these bytes.
    Send(Vec<u8>),
    /// Reads until this stream is answered completely.
    AwaitEnd(u32),
    /// Reads until this many body bytes came in one DATA frame.
    AwaitData(usize),
}

/// What the server has to do.
#[derive(Debug, Clone, Copy)]
pub(super) enum Expect {
    /// GOAWAY with one of these codes and the end of the connection, or just the end.
    ConnectionError(&'static [u32]),
    /// RST_STREAM with one of these codes, or a connection error.
    StreamError(&'static [u32]),
    /// The end of the connection, whatever is said before.
    Close,
    /// This stream is answered with 200, and nothing is complained about.
    Answer(u32),
    /// Nothing is complained about, and a ping is answered.
    Ignored,
    /// Either the request is answered or its stream refused with one of these codes.
    AnswerOrStreamError(u32, &'static [u32]),
}

/// What the server did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    Goaway(u32),
    Closed,
    Reset(u32),
    Answered(u32),
    Ignored,
    /// Nothing that was waited for.
    Nothing,
}

impl Expect {
    pub(super) fn is_met_by(&self, outcome: &Outcome) -> bool {
        match (self, outcome) {
            (Self::ConnectionError(_) | Self::StreamError(_) | Self::Close, Outcome::Closed)
            | (Self::Close, Outcome::Goaway(_))
            | (Self::Ignored, Outcome::Ignored) => true,
            (Self::ConnectionError(codes) | Self::StreamError(codes), Outcome::Goaway(code)) => {
                codes.contains(code)
            }
            (Self::StreamError(codes) | Self::AnswerOrStreamError(_, codes), Outcome::Reset(code)) => {
                codes.contains(code)
            }
            (Self::Answer(expected) | Self::AnswerOrStreamError(expected, _), Outcome::Answered(stream)) => {
                expected == stream
            }
            _ => false,
        }
    }
}

/// One row.
#[derive(Debug, Clone)]
pub(super) struct Case {
    /// The family and a number in it.
    pub(super) id: &'static str,
    /// What the client does, in words.
    pub(super) what: &'static str,
    pub(super) steps: Vec<Step>,
    pub(super) expect: Expect,
}

/// A row that only sends, after an exchange of settings.
pub(super) fn row(id: &'static str, what: &'static str, frames: &[Vec<u8>], expect: Expect) -> Case {
    Case { id, what, steps: vec![Step::Send(frames.concat())], expect }
}

/// A row in steps.
pub(super) fn steps(id: &'static str, what: &'static str, steps: Vec<Step>, expect: Expect) -> Case {
    Case { id, what, steps, expect }
}

/// A server on a port of its own.
pub(super) struct Lab(SocketAddr);

impl Lab {
    pub(super) fn start() -> Self {
        let limits = Limits { h2_streams_max: STREAMS_MAX, ..Limits::default() };
        let server = Server::new(limits, ConnectionMetrics::default(), Drain::new());
        let bound = Bound::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = bound.local_addr();
        server.serve(bound, None, |request, _from| answer(request));
        Self(addr)
    }

    /// Plays a row; `known` is what it is known to end with instead of what is expected.
    pub(super) async fn run(&self, case: &Case, known: Option<&Outcome>) -> Outcome {
        let expect = match known {
            Some(Outcome::Ignored) => Expect::Ignored,
            Some(Outcome::Answered(stream)) => Expect::Answer(*stream),
            _ => case.expect,
        };
        let run = async {
            let mut client = Client::connect(self.0).await;
            if !case.id.starts_with("http2/3.5/") {
                client.send(&[wire::PREFACE.to_vec(), wire::settings(&[])].concat()).await;
                client.until(|frame| frame.is(kind::SETTINGS, flag::ACK)).await;
            }
            for step in &case.steps {
                match step {
                    Step::Send(bytes) => client.send(bytes).await,
                    Step::AwaitEnd(stream) => {
                        let end = |frame: &Received| {
                            frame.stream == *stream
                                && matches!(frame.kind, kind::DATA | kind::HEADERS)
                                && frame.flags & flag::END_STREAM != 0
                        };
                        client.until(end).await;
                    }
                    Step::AwaitData(length) => {
                        client
                            .until(|frame| frame.kind == kind::DATA && frame.payload.len() == *length)
                            .await;
                    }
                }
            }
            client.outcome(&expect).await
        };
        tokio::time::timeout(PATIENCE, run).await.unwrap_or(Outcome::Nothing)
    }
}

/// `/hold` is never answered, `/echo` when the body is there, `/big` with many bytes, everything else at once.
async fn answer(request: Request<Incoming>) -> Response<Full<Bytes>> {
    match request.uri().path() {
        "/hold" => std::future::pending().await,
        "/echo" => {
            let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes);
            Response::new(Full::new(body.unwrap_or_default()))
        }
        "/big" => Response::new(Full::new(Bytes::from(vec![0; BIG_BYTES]))),
        _ => Response::new(Full::new(Bytes::from_static(b"fine"))),
    }
}

struct Client {
    tcp: TcpStream,
    unread: Vec<u8>,
}

impl Client {
    async fn connect(addr: SocketAddr) -> Self {
        let tcp = TcpStream::connect(addr).await.unwrap();
        tcp.set_nodelay(true).unwrap();
        Self { tcp, unread: Vec::new() }
    }

    /// The server may have closed already: what it said is read afterwards.
    async fn send(&mut self, bytes: &[u8]) {
        let _ = self.tcp.write_all(bytes).await;
    }

    /// The next frame; `None` is the end of the connection. Settings are acknowledged.
    async fn next(&mut self) -> Option<Received> {
        loop {
            if let Some(frame) = take_frame(&mut self.unread) {
                if frame.kind == kind::SETTINGS && frame.flags & flag::ACK == 0 {
                    self.send(&wire::settings_ack()).await;
                }
                return Some(frame);
            }
            if !matches!(self.tcp.read_buf(&mut self.unread).await, Ok(read) if read > 0) {
                return None;
            }
        }
    }

    async fn until(&mut self, wanted: impl Fn(&Received) -> bool) {
        while let Some(frame) = self.next().await {
            if wanted(&frame) {
                return;
            }
        }
    }

    async fn outcome(&mut self, expect: &Expect) -> Outcome {
        if matches!(expect, Expect::Ignored) {
            self.send(&wire::ping(0, b"still on")).await;
        }
        while let Some(frame) = self.next().await {
            match (frame.kind, expect) {
                (kind::GOAWAY, _) => {
                    // An error is followed by the end of the connection; a goodbye need not be.
                    let code = frame.code().unwrap_or_default();
                    if code != wire::NO_ERROR {
                        while self.next().await.is_some() {}
                        return Outcome::Goaway(code);
                    }
                }
                // Sent behind an answer whose request body was not read (RFC 9113 8.1).
                (kind::RST_STREAM, _) if frame.code() != Some(wire::NO_ERROR) => {
                    return Outcome::Reset(frame.code().unwrap_or_default());
                }
                (kind::HEADERS, Expect::Answer(stream) | Expect::AnswerOrStreamError(stream, _))
                    if frame.stream == *stream && frame.is_ok() =>
                {
                    return Outcome::Answered(*stream);
                }
                (kind::PING, Expect::Ignored) if frame.flags == flag::ACK && frame.payload == b"still on" => {
                    return Outcome::Ignored;
                }
                _ => {}
            }
        }
        Outcome::Closed
    }
}
