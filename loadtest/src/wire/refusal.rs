//! Which failures say that a server did not take a request at all, so that making it again on another connection is no
//! error (RFC 9112 section 9.3.1, RFC 9113 sections 6.8 and 8.7, RFC 9114 sections 4.1.1 and 5.2).

use super::{WireError, closed};
use h3::error::{Code, StreamError};
use std::time::Duration;

/// An idle connection that ends so soon after a request was sent on it was closed before the request arrived. What ends
/// later had been taken: a held request that is cut off is an error.
const CROSSED_WITHIN: Duration = Duration::from_millis(500);

/// Of HTTP/1.1, before there was a response, so long after the request was sent on a connection that had answered before.
pub(super) fn of_h1(error: hyper::Error, after: Duration) -> WireError {
    let ended = error.is_canceled() || error.is_incomplete_message() || is_reset(&error);
    if ended && after < CROSSED_WITHIN { WireError::Refused(error.to_string()) } else { closed(error) }
}

fn is_reset(error: &hyper::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let kind = cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        if matches!(kind, Some(std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe)) {
            return true;
        }
        source = cause.source();
    }
    false
}

/// Of HTTP/2, before there was a response.
pub(super) fn of_h2(error: h2::Error) -> WireError {
    // Streams beyond the last one that a GOAWAY names end with it; others go on.
    let leaving = error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR);
    let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    if error.is_remote() && (leaving || refused) {
        WireError::Refused(error.to_string())
    } else {
        closed(error)
    }
}

/// Of HTTP/3, before there was a response.
pub(super) fn of_h3(error: StreamError) -> WireError {
    let refused = match &error {
        StreamError::RemoteTerminate { code, .. } => *code == Code::H3_REQUEST_REJECTED,
        // GOAWAY came before the request went out.
        StreamError::RemoteClosing { .. } => true,
        // A connection that ends well has not taken what it did not answer.
        error => error.is_h3_no_error(),
    };
    if refused { WireError::Refused(error.to_string()) } else { closed(error) }
}
