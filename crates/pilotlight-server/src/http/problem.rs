//! Every error answer: a status and a small JSON object.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use pilotlight_cache::{Error, Refused};
use serde::Serialize;

use super::status;
use crate::report::Problem;

/// An error on its way to the client.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    problem: Problem,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self { status, problem: Problem { error: error.into(), hint: None } }
    }

    pub(super) fn bad_request(error: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error)
    }

    #[must_use]
    pub(super) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.problem.hint = Some(hint.into());
        self
    }

    /// A put that the failure policy absorbed. A compiler over RESP is told nil; an HTTP client is told the truth.
    pub(super) fn of_refused_put(refused: Refused) -> Self {
        let Refused { kind, unverified } = refused;
        let (what, hint) = match unverified {
            None => (kind.name(), kind.hint()),
            Some(reason) => (reason.name(), Some(reason.hint())),
        };
        let problem =
            Problem { error: format!("the entry was not kept: {what}"), hint: hint.map(str::to_owned) };
        Self { status: status::of(kind), problem }
    }
}

impl From<&Error> for Refusal {
    fn from(error: &Error) -> Self {
        Self { status: status::of(error.kind()), problem: Problem::from(error) }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::from(&error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = json(self.status, &self.problem);
        if self.status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Basic realm=\"pilotlight\", Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

/// A JSON answer, with a line end for whoever looks at it in a terminal.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(mut text) => {
            text.push(b'\n');
            (status, [(header::CONTENT_TYPE, "application/json")], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
