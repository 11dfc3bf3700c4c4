//! The one table from an error's kind to a status.

use axum::http::StatusCode;
use pilotlight_cache::ErrorKind;

/// The status of an error of this kind. No wildcard: a new kind has to be decided here.
pub(super) fn of(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::Timeout => StatusCode::GATEWAY_TIMEOUT,
        ErrorKind::Full => StatusCode::INSUFFICIENT_STORAGE,
        ErrorKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        // The entry was set aside: to this client it was never whole, and the next get is a miss.
        ErrorKind::Corrupt => StatusCode::INTERNAL_SERVER_ERROR,
        ErrorKind::Unverified | ErrorKind::Denied => StatusCode::FORBIDDEN,
        // Not 405: the method is right, this server just takes no writes at the moment.
        ErrorKind::ReadOnly => StatusCode::SERVICE_UNAVAILABLE,
        ErrorKind::Unsupported => StatusCode::NOT_IMPLEMENTED,
        ErrorKind::Invalid => StatusCode::BAD_REQUEST,
        ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_an_error_status() {
        for kind in ErrorKind::ALL {
            let status = of(kind);
            assert!(status.is_client_error() || status.is_server_error(), "{}: {status}", kind.name());
        }
    }
}
