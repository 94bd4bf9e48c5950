//! Which failures say that a server did not take a request at all, so that making it again on another connection is no
//! error (RFC 9113 sections 6.8 and 8.7, RFC 9114 sections 4.1.1 and 5.2).

use super::{WireError, closed};
use h3::error::{Code, StreamError};

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
