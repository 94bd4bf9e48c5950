//! The correct server over real connections, and what has no playlist at all.

use super::super::exchange::{Ask, Net};
use super::super::fake::{Fake, Fault};
use super::super::report::Outcome;
use super::super::survey::SurveyError;
use super::super::wire::Wire;
use super::super::{Plan, run};
use crate::address::Address;
use crate::dial::Protocol;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// Serves the fake on a port of its own.
async fn serve() -> Address {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/live/x/index.m3u8", listener.local_addr().unwrap());
    let fake = Fake::new(Fault::None);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let fake = Arc::clone(&fake);
            let service = service_fn(move |request| respond(Arc::clone(&fake), request));
            tokio::spawn(async move {
                let _ = auto::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    address.parse().unwrap()
}

async fn respond(fake: Arc<Fake>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path_and_query().unwrap().to_string();
    let headers = request.headers();
    let asked = headers.iter().filter(|(name, _)| *name == http::header::ACCEPT_ENCODING);
    let ask = Ask {
        method: request.method().clone(),
        address: Address { path, ..Fake::url() },
        headers: asked.map(|(name, value)| (name.clone(), value.clone())).collect(),
    };
    let answer = fake.ask(ask).await.outcome.unwrap();
    let mut response = Response::new(Full::new(answer.body));
    *response.status_mut() = http::StatusCode::from_u16(answer.status).unwrap();
    *response.headers_mut() = answer.headers;
    Ok(response)
}

fn wire(protocol: Protocol) -> Arc<Wire> {
    Arc::new(Wire::new(crate::fake::dialer(protocol), Duration::from_secs(12)))
}

#[tokio::test]
async fn over_real_connections() {
    let address = serve().await;
    for protocol in [Protocol::H1, Protocol::H2] {
        let plan = Plan { address: address.clone(), compare: vec![], duration: Duration::from_secs(1) };
        let report = run(wire(protocol), &plan).await.unwrap();
        for id in [
            "SYN-02", "SC-07", "PT-03", "RR-01", "MV-01", "DL-02", "DL-09", "DL-11", "BR-02", "BR-07",
            "PH-06",
        ] {
            let row = report.rules.iter().find(|row| row.id == id).unwrap();
            assert_eq!(row.outcome, Outcome::Pass, "{protocol:?} {report}");
        }
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["rules"][0]["id"], "SYN-01");
        assert_eq!(json["rules"][0]["level"], "M");
        assert_eq!(json["rules"][0]["outcome"], "pass");
    }
}

#[tokio::test]
async fn what_is_no_playlist_is_refused() {
    let address = serve().await;
    let plan = |path: &str| Plan {
        address: Address { path: path.to_owned(), ..address.clone() },
        compare: vec![],
        duration: Duration::from_secs(1),
    };
    let missing = run(wire(Protocol::H1), &plan("/live/x/nothing")).await;
    assert!(matches!(missing, Err(SurveyError::Refused { .. })), "{missing:?}");
    let media = run(wire(Protocol::H1), &plan("/live/x/v/init-0.mp4")).await;
    assert!(matches!(media, Err(SurveyError::NoPlaylist(_))), "{media:?}");
}
